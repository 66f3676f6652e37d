"""The packaged network "vivid": "faithful" fine-tuned with L1, VGG-16 and DECLoss on the same photographs.

python train.py --config configs/packaged/vivid.py --workdir runs/packaged/vivid
"""

from ml_collections import ConfigDict

from configs import base
from configs.packaged import faithful


def get_config() -> ConfigDict:
    config = faithful.get_config()
    config.init_from = "runs/packaged/faithful"
    config.pretrain.steps = 0

    config.finetune.steps = 300
    config.finetune.learning_rate = 1e-4
    config.finetune.warmup_steps = 20
    config.finetune.weights = base.loss_weights(l1=1.0, phase=30.0, perceptual=0.4, decloss=8e-3)
    config.perceptual.network = "vgg16"
    config.perceptual.taps = ("conv1_2", "conv2_2", "conv3_3")  # deeper ones draw lattices
    config.perceptual.tap_weights = (0.2, 0.2, 0.5)
    config.decloss.kernel = "radial_notched"
    config.decloss.color = "luma"
    config.decloss.mu = 0.2
    config.decloss.threshold_db = 15.0
    config.decloss.t_pos = 0.2
    config.decloss.t_neg = 0.2

    config.log_every_steps = 20
    config.eval_every_steps = 100
    config.checkpoint_every_steps = 100
    return config
