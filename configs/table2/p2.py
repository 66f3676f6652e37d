"""Row 6 of Table 1 with mini-patches of 2 x 2 pixels and batches of 16: a column of Table 2.

    python train.py --config configs/table2/p2.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.93, LPIPS 0.1648, ICOO 27.21. The paper does
not print which losses it used; the values are nearest to row 6's.
"""

from ml_collections import ConfigDict

from configs import table2


def get_config() -> ConfigDict:
    return table2.with_patch_size(2)
