r"""RankSRGAN x4 (Zhang et al., ICCV 2019), from Table 3: SRResNet with L1, then with a frozen Ranker.

    python train.py --config configs/table3/ranksrgan.py --config.data.root=data/DIV2K \
        --config.ranker.weights_file=runs/ranker

runs/ranker is the run of configs/table3/ranker.py; a file in RankSRGAN's layout, such as its authors' Ranker
for NIQE, will do as well. Stage 1 is our own (base.py), with the crops and batches of stage 2; stage 2
follows the authors' code. Not trained here; the DECLoss paper prints 104.1 GPU hours.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 8  # rank_content is a sum over it
    config.model.name = "srresnet"
    config.data.crop_size = 296
    config.adam_b2 = 0.99
    config.finetune.steps = 500_000
    config.finetune.learning_rate = 1e-4
    config.finetune.schedule = "multistep"
    config.finetune.milestones = (50_000, 100_000, 200_000, 300_000)
    config.finetune.gamma = 0.5
    config.finetune.weights = base.loss_weights(perceptual=1.0, gan=5e-3, rank_content=3e-2)
    config.discriminator.stages = 5
    return config
