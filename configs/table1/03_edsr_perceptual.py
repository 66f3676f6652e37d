"""EDSR-baseline x4 with L1 and the perceptual loss, row 3 of Table 1.

    python train.py --config configs/table1/03_edsr_perceptual.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.44, LPIPS 0.166, ICOO 26.60, 8.94 GPU hours on A100s.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0)
    return config
