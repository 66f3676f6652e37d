"""RRDBNet x4 with L1, the perceptual loss, DECLoss and a RaGAN ("DECLoss+" in Table 3), row 10 of Table 1.

    python train.py --config configs/table1/10_rrdb_perceptual_decloss_ragan.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 27.01, LPIPS 0.090, ICOO 25.83, 71.08 GPU hours on A100s.
The adversarial weight is not printed; 5e-3 is ESRGAN's.
"""

from ml_collections import ConfigDict

from configs import base, rrdb_decloss


def get_config() -> ConfigDict:
    config = rrdb_decloss.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, decloss=3e-5, ragan=5e-3)
    return config
