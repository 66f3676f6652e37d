"""EDSR-baseline x4 with L1, the perceptual loss, DECLoss and a RaGAN, row 7 of Table 1.

    python train.py --config configs/table1/07_edsr_perceptual_decloss_ragan.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.36, LPIPS 0.153, ICOO 25.90, 33.89 GPU hours on A100s.
The adversarial weight is not printed; 5e-3 is ESRGAN's.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, decloss=3e-5, ragan=5e-3)
    return config
