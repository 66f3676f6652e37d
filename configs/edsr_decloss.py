"""EDSR-baseline x4 with L1, VGG-perceptual loss and DECLoss, row 6 of Table 1: both stages in one run.

    python train.py --config configs/edsr_decloss.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.71, LPIPS 0.160, ICOO 26.73, 9.50 GPU hours on A100s.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    return base.get_config()  # the defaults are the paper's settings
