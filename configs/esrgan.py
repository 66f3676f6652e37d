"""ESRGAN x4 as BasicSR trains it: RRDBNet with L1, then L1, VGG-perceptual loss and RaGAN; no DECLoss.

    python train.py --config configs/esrgan.py --config.data.root=data/DIV2K,data/Flickr2K

BasicSR's options for RRDBNet_PSNR_x4 and ESRGAN_x4: 1M and 400k updates on DF2K. Not trained here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 16
    config.adam_b2 = 0.99
    config.ema_decay = 0.999
    config.model.name = "rrdb"
    config.model.blocks = 23
    config.model.growth = 32
    config.data.crop_size = 128

    config.pretrain.steps = 1_000_000
    config.pretrain.learning_rate = 2e-4
    config.pretrain.warmup_steps = 0
    config.pretrain.restarts = 3  # four cosines of 250k updates; BasicSR's end at 1e-7, ours at 0
    config.pretrain.restart_gamma = 1.0

    config.finetune.steps = 400_000
    config.finetune.learning_rate = 1e-4
    config.finetune.schedule = "multistep"
    config.finetune.milestones = (50_000, 100_000, 200_000, 300_000)
    config.finetune.gamma = 0.5
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, ragan=5e-3)
    return config
