"""SRGAN x4, the second of the three networks whose results RankSRGAN's Ranker learns to order.

    python train.py --config configs/table3/srgan.py --config.data.root=data/DIV2K

Its stage 1 is the first of them, and that of RankSRGAN. Losses, rates and steps of stage 2 are those of the
authors' SRGAN.yml; crops and batches are RankSRGAN's, so that they share stage 1 (the authors: 16 crops of
128, and MSRResNet). Not trained here.
"""

from ml_collections import ConfigDict

from configs import base
from configs.table3 import ranksrgan


def get_config() -> ConfigDict:
    config = ranksrgan.get_config()
    config.finetune.steps = 400_000
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, gan=5e-3)
    return config
