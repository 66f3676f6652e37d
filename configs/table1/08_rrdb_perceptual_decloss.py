"""RRDBNet x4 with L1, the perceptual loss and DECLoss ("DECLoss" in Table 3), row 8 of Table 1.

    python train.py --config configs/table1/08_rrdb_perceptual_decloss.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 28.47, LPIPS 0.118, ICOO 26.75, 43.22 GPU hours on A100s.
"""

from configs.rrdb_decloss import get_config

__all__ = ["get_config"]
