"""RRDBNet x4 with L1, VGG-perceptual loss and DECLoss, row 8 of Table 1 ("DECLoss" in Table 3).

    python train.py --config configs/rrdb_decloss.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 28.47, LPIPS 0.118, ICOO 26.75, 43.22 GPU hours on A100s.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.name = "rrdb"
    config.model.blocks = 23
    config.model.growth = 32
    return config
