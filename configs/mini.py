"""The miniature: any experiment, made small enough for two CPU cores and 400 photographs.

    python train.py --config configs/mini.py --config.data.root=data/BSDS400

This config is row 6 of Table 1 in miniature; `python -m decloss_jax reproduce ... --scale mini` applies
`shrink` to each row. The miniature has its own learning rates and numbers of steps. Results: results/mini.
"""

from ml_collections import ConfigDict

from configs import edsr_decloss


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes networks, crops, batches and both stages small; the losses do not change."""
    config.batch_size = 16
    config.model.features = 32
    config.model.blocks = {"edsr": 8, "rrdb": 2}[config.model.name]
    if config.model.name == "rrdb":
        config.model.growth = 16
    config.discriminator.features = 32
    config.perceptual.network = "vgg16"  # its weights come with a dependency

    config.data.root = "data/BSDS400"
    config.data.crop_size = 96
    config.data.held_out_prefix = "test_"
    config.data.held_out_images = 40

    config.pretrain.steps = 3_000
    config.pretrain.learning_rate = 5e-4
    config.pretrain.warmup_steps = 100
    if config.finetune.steps:
        config.finetune.steps = 300
        config.finetune.learning_rate = 1e-4

    config.log_every_steps = 50
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 100
    return config


def get_config() -> ConfigDict:
    return shrink(edsr_decloss.get_config())
