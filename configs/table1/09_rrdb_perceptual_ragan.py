"""RRDBNet x4 with L1, the perceptual loss and a RaGAN ("ESRGAN" in Table 3), row 9 of Table 1.

    python train.py --config configs/table1/09_rrdb_perceptual_ragan.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.64, LPIPS 0.092, ICOO 25.58, 67.72 GPU hours on A100s.
The adversarial weight is not printed; 5e-3 is ESRGAN's.
"""

from ml_collections import ConfigDict

from configs import base, rrdb_decloss


def get_config() -> ConfigDict:
    config = rrdb_decloss.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, ragan=5e-3)
    return config
