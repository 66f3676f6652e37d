"""EDSR-baseline x4 with L1, the perceptual loss and DECLoss, row 6 of Table 1.

    python train.py --config configs/table1/06_edsr_perceptual_decloss.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.71, LPIPS 0.160, ICOO 26.73, 9.50 GPU hours on A100s.
"""

from configs.edsr_decloss import get_config

__all__ = ["get_config"]
