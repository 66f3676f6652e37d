"""Table 2: the sizes of mini-patches, at batch 16 "to avoid the usage out of our GPU's memory"."""

import math

from ml_collections import ConfigDict

from configs import edsr_decloss

PRINTED_PATCH_SIZE = 8  # pixels, Sec. 5.1


def with_patch_size(patch_size: int) -> ConfigDict:
    """Returns row 6 of Table 1 at batch 16 with another size of mini-patches.

    The threshold stays the same per pixel: at a given root mean square difference, the distance of two
    vectors of p p C values is proportional to p, so eta grows by 20 log10(8 / p).
    """
    config = edsr_decloss.get_config()
    config.batch_size = 16
    config.decloss.patch_size = patch_size
    config.decloss.threshold_db += 20 * math.log10(PRINTED_PATCH_SIZE / patch_size)
    return config
