"""EDSR-baseline x4 with L1, the perceptual loss and a RaGAN, row 5 of Table 1.

    python train.py --config configs/table1/05_edsr_perceptual_ragan.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.25, LPIPS 0.157, ICOO 26.15, 34.22 GPU hours on A100s.
The adversarial weight is not printed; 5e-3 is ESRGAN's.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, ragan=5e-3)
    return config
