"""Row 6 of Table 1 with mini-patches of 4 x 4 pixels and batches of 16: a column of Table 2.

    python train.py --config configs/table2/p4.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.65, LPIPS 0.1635, ICOO 26.82. The paper does
not print which losses it used; the values are nearest to row 6's.
"""

from ml_collections import ConfigDict

from configs import table2


def get_config() -> ConfigDict:
    return table2.with_patch_size(4)
