r"""The Ranker of RankSRGAN (Zhang et al., ICCV 2019), by its authors' code.

    python train.py --config configs/table3/ranker.py --config.data.root=data/DIV2K \
        --config.ranker.networks=runs/srresnet,runs/srgan,runs/esrgan

It learns to order windows of 296 pixels as NIQE does: those of a network trained for PSNR, of SRGAN and of
ESRGAN. Not trained here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 16  # pairs
    config.model.name = "ranker"
    config.data.crop_size = 296  # of the windows
    config.pretrain.steps = 400_000
    config.pretrain.learning_rate = 1e-4
    config.pretrain.warmup_steps = 0
    config.pretrain.schedule = "multistep"
    config.pretrain.milestones = (100_000, 200_000)
    config.pretrain.weights = base.loss_weights()  # its loss is not one of a generator's
    config.finetune.steps = 0
    config.ranker.sharpness = 40.0
    config.ranker.niqe_difference = 0.1
    config.ranker.windows_per_image = 200
    config.ranker.weight_decay = 1e-4
    return config
