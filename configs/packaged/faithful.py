"""The packaged network "faithful": a small EDSR x4 trained with L1 on photographs that are free to use.

    python benchmarks/packaged.py --packages FOLDER
    python train.py --config configs/packaged/faithful.py --workdir runs/packaged/faithful

An hour and a quarter on one CPU core. docs/networks.md is its model card.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.batch_size = 8
    config.model.features = 32
    config.model.blocks = 24
    config.data.root = "data/packaged"
    config.data.cache_dir = "runs/cache"
    config.data.crop_size = 96
    config.data.held_out_prefix = "validation_"
    config.data.held_out_images = 3

    config.pretrain.steps = 14_000
    config.pretrain.learning_rate = 6e-4
    config.pretrain.warmup_steps = 200
    config.finetune.steps = 0

    config.log_every_steps = 100
    config.eval_every_steps = 1_000
    config.checkpoint_every_steps = 500
    return config
