"""Row 6 of Table 1 with t_pos = 0.5 (t_neg = 1.5): a point of Figure 6.

    python train.py --config configs/figure6/t_pos_0_5.py --config.data.root=data/DIV2K

The paper prints a curve without numbers, and finds "no significant influence".
"""

from ml_collections import ConfigDict

from configs import edsr_decloss


def get_config() -> ConfigDict:
    config = edsr_decloss.get_config()
    config.decloss.t_pos = 0.5
    return config
