"""EDSR-baseline x4 with L1, the perceptual loss and a GAN, row 4 of Table 1.

    python train.py --config configs/table1/04_edsr_perceptual_gan.py --config.data.root=data/DIV2K

Printed in the paper (DIV2K validation): PSNR 26.34, LPIPS 0.160, ICOO 26.42, 33.56 GPU hours on A100s.
The adversarial weight is not printed; 5e-3 is ESRGAN's.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.finetune.weights = base.loss_weights(l1=1e-2, perceptual=1.0, gan=5e-3)
    return config
