"""EDSR-baseline x4 with L1 alone, row 1 of Table 1.

    python train.py --config configs/edsr_l1.py

Printed in the paper (DIV2K validation): PSNR 28.56, LPIPS 0.273, ICOO 28.54, 6.33 GPU hours on A100s.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.steps = 0
    return config
