"""EDSR-baseline x4 with L1 and DECLoss, row 2 of Table 1.

    python train.py --config configs/table1/02_edsr_decloss.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 27.22, LPIPS 0.179, ICOO 28.23, 6.61 GPU hours on A100s.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, decloss=3e-5)
    return config
