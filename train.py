"""Trains a super-resolution network.

The same command resumes from the last checkpoint of its workdir; SIGTERM and Ctrl-C save the state first.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from decloss_jax import checks
from decloss_jax.commands import program
from decloss_jax.config import load_config, override
from decloss_jax.host import processes

EXAMPLES = (
    "python train.py --config configs/quickstart.py",
    "python train.py --config configs/edsr_decloss.py --config.data.root=data/DIV2K --config.batch_size=64",
    "python train.py --config configs/edsr_decloss.py --coordinator node0:12355 --processes 2 --process 0",
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; `config` is the config with its fields changed."""
    parser = program.Parser(
        prog="train.py",
        usage="train.py --config FILE [--workdir DIR] [--config.FIELD=VALUE ...]",
        allow_abbrev=False,
        **program.help_text(f"{__doc__}All fields, with units and sources: configs/base.py.", EXAMPLES),
    )
    parser.add_argument(
        "--config",
        type=program.path,
        required=True,
        metavar="FILE",
        help="a file of configs/; --config.FIELD=VALUE changes a field",
    )
    parser.add_argument("--workdir", type=program.path, help="folder of the run; default: runs/NAME of FILE")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.add_argument("--processes", type=int, default=1, help="number of processes; default: 1")
    parser.add_argument("--process", type=int, default=0, help="index of this process, from 0")
    parser.set_defaults(main=main, resumes=True)
    options, rest = parser.parse_known_args(arguments)
    options.workdir = options.workdir or Path("runs") / options.config.stem
    options.config = load_config(options.config)
    override(options.config, list(settings(rest)), option="--config.")
    return options


def settings(arguments: Sequence[str]) -> Iterator[str]:
    """Yields FIELD=VALUE for each --config.FIELD=VALUE or --config.FIELD VALUE."""
    words = iter(arguments)
    for word in words:
        checks.check(
            word.startswith("--config."),
            "command line",
            expected="the options of --help and --config.FIELD=VALUE",
            got=word,
            remedy="write options as --name=value",
        )
        yield word.removeprefix("--config.") if "=" in word else f"{word[9:]}={next(words, '')}"


def main(options: argparse.Namespace) -> int:
    if (options.processes, options.process) != (1, 0):
        processes.join(options.coordinator, options.processes, options.process)
    program.prepare_jax("training", deterministic=options.config.deterministic)
    # Imported here so that --help and a mistyped option are answered at once.
    from decloss_jax.training import loop

    try:
        loop.run(options.config, options.workdir)
    except loop.Stopped as stopped:
        return program.report_stop(stopped, by_keyboard=stopped.by_keyboard)
    return 0


if __name__ == "__main__":
    program.start("train.py", parse)
