"""The miniature: any experiment, made small enough for two CPU cores and 400 photographs.

    python train.py --config configs/mini.py --config.data.root=data/BSDS400

This config is row 6 of Table 1 in miniature; `python -m decloss_jax reproduce ... --scale mini` applies
`shrink` to each row. The miniature has its own learning rates and numbers of steps. Results: results/mini.
"""

from ml_collections import ConfigDict

from configs import edsr_decloss

# The sizes of each network, beside 32 features.
NETWORKS = {
    "edsr": {"blocks": 8},
    "rrdb": {"blocks": 2, "growth": 16},
    "srresnet": {"blocks": 4},
    "srflow": {"blocks": 4, "growth": 16, "stacked_blocks": (1, 3), "flow_steps": 4, "hidden": 32},
}


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes networks, crops, batches and stages small; the losses do not change."""
    config.data.root = "data/BSDS400"
    config.data.held_out_prefix = "test_"
    config.data.held_out_images = 40
    config.log_every_steps = 50
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 100
    return shrink_ranker(config) if config.model.name == "ranker" else shrink_generator(config)


def shrink_generator(config: ConfigDict) -> ConfigDict:
    """Makes a generator, its crops, batches and both stages small."""
    config.batch_size = 16
    config.model.features = 32
    config.model.update(NETWORKS[config.model.name])
    config.discriminator.features = 32
    config.discriminator.stages = None  # RankSRGAN's are for crops of 296
    config.perceptual.network = "vgg16"  # its weights come with a dependency
    config.data.crop_size = 96

    config.pretrain.steps = 3_000
    config.pretrain.learning_rate = 5e-4
    config.pretrain.warmup_steps = 100
    config.pretrain.restarts = 0
    if config.finetune.steps:
        set_length(config.finetune, 300)
        config.finetune.learning_rate = 1e-4
    if config.model.name in ("srflow", "srresnet"):  # to train them takes several long stages
        config.batch_size = 8
        config.data.crop_size = 64
    if config.model.name == "srflow":  # a step takes 0.3 s of a core in stage 1 and 0.55 s in stage 2
        config.pretrain.steps = 1_000
        set_length(config.finetune, 1_000)
        config.finetune.learning_rate = 2.5e-4  # its authors'
    return config


def shrink_ranker(config: ConfigDict) -> ConfigDict:
    """Makes a Ranker and its training small; the windows stay, because NIQE needs them large."""
    config.batch_size = 8
    config.model.features = 8
    set_length(config.pretrain, 300)
    config.pretrain.learning_rate = 1e-3
    return config


def set_length(stage: ConfigDict, steps: int) -> None:
    """Shortens a stage; its milestones stay at the same shares of its length."""
    stage.milestones = tuple(steps * milestone // stage.steps for milestone in stage.milestones)
    stage.steps = steps


def get_config() -> ConfigDict:
    return shrink(edsr_decloss.get_config())
