"""A small EDSR x4 on photographs that come with a dependency: no download, a few minutes on two CPU cores.

    python train.py --config configs/quickstart.py --workdir runs/quickstart

docs/results.md has the expected result.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 16
    config.model.features = 32
    config.model.blocks = 6
    config.data.source = "photographs"
    config.data.cache_dir = "runs/cache"
    config.data.crop_size = 64

    config.pretrain.steps = 1_000
    config.pretrain.learning_rate = 1e-3
    config.pretrain.warmup_steps = 50

    config.finetune.steps = 200
    config.finetune.learning_rate = 1e-4
    # Chosen on the training photographs by benchmarks/quickstart_choose.py.
    config.finetune.weights = base.loss_weights(l1=1e-2, decloss=1e-3)

    config.log_every_steps = 50
    config.eval_every_steps = 250
    config.checkpoint_every_steps = 250
    return config
