"""EDSR-baseline x4 with L1 alone, row 1 of Table 1.

    python train.py --config configs/table1/01_edsr_l1.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 28.56, LPIPS 0.273, ICOO 28.54, 6.33 GPU hours on A100s.
"""

from configs.edsr_l1 import get_config

__all__ = ["get_config"]
