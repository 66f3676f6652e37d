"""SRFlow x4 (Lugmayr et al., ECCV 2020), from Table 3: the encoder with L1, then the flow by its likelihood.

    python train.py --config configs/table3/srflow.py --config.data.root=data/DIV2K,data/Flickr2K

The authors' options for their RRDB and for DF2K x4. As in their code, stage 2 also trains the encoder, from
its first update on (the paper: from its middle on), and no noise is added to the 8-bit images. Ours is that
both stages have the batches of stage 2 (theirs: 16 in stage 1), that crops are turned as well as flipped, and
that LR images are made before they are cropped. Not trained here; the DECLoss paper prints 913.2 GPU hours.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 12
    config.model.name = "srflow"
    config.model.blocks = 23
    config.model.dtype = None  # srflow has no choice: float32
    config.data.crop_size = 160

    config.pretrain.steps = 1_000_000
    config.pretrain.learning_rate = 2e-4
    config.pretrain.warmup_steps = 0
    config.pretrain.restarts = 19  # twenty cosines of 50k updates
    config.pretrain.restart_gamma = 1.0

    config.finetune.steps = 200_000
    config.finetune.learning_rate = 2.5e-4
    config.finetune.schedule = "multistep"
    config.finetune.milestones = (100_000, 150_000, 180_000, 190_000)
    config.finetune.gamma = 0.5
    config.finetune.weights = base.loss_weights(likelihood=1.0)
    return config
