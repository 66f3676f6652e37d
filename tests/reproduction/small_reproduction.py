"""A reproduction of networks too small to show anything, as a user types it."""

from pathlib import Path

from command_line import CACHE, run

TINY = {
    "data.source": "photographs",
    "data.cache_dir": str(CACHE / "photographs"),
    "data.crop_size": 32,
    "batch_size": 8,
    "model.features": 4,
    "model.blocks": 1,
    "pretrain.steps": 20,
    "pretrain.warmup_steps": 5,
    "finetune.steps": 10,
    "log_every_steps": 5,
    "validation_images": 1,
    "sample_images": 0,
}


def words_of(folder: Path, *arguments: str) -> list[str]:
    """The words of a miniature; a --test or --set among the arguments counts before these."""
    changes = list(arguments[arguments.index("--set") + 1 :]) if "--set" in arguments else []
    words = arguments[: arguments.index("--set")] if changes else arguments
    return [
        *("reproduce", "--scale", "mini", "--test", "photographs", *words),
        *("--runs", str(folder / "runs"), "--out", str(folder / "out")),
        *("--set", *(f"{name}={value}" for name, value in TINY.items()), *changes),
    ]


def reproduce(folder: Path, *arguments: str):
    """Reproduces in miniature, in a process of its own."""
    return run("decloss_jax", *words_of(folder, *arguments))
