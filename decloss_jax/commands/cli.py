"""The command line: python -m decloss_jax COMMAND, or `decloss COMMAND` if the package is installed.

The commands import what they need when they run, so that --help and a mistyped option are answered at once.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import decloss_jax
from decloss_jax.commands import networks, program, runs

CALL = "python -m decloss_jax"


@dataclass(frozen=True)
class Command:
    """A command: a short summary, its options, its function, and example calls.

    If `resumes` is true, the same command resumes where it was stopped.
    """

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    main: Callable[[argparse.Namespace], int | None]
    examples: Sequence[str]
    resumes: bool = False


COMMANDS = {
    "upscale": Command(
        "upscale pictures with a network",
        networks.add_upscale,
        networks.upscale_pictures,
        (
            "photo.jpg photo_x4.png",
            "photo.jpg photo_x4.png --weights edsr_x4.safetensors",
            "pictures/ larger/ --weights runs/quickstart --self-ensemble",
            "photo.jpg photo_x4.png --interpolate psnr.pth,gan.pth,0.8",
        ),
    ),
    "convert": Command(
        "convert weights between PyTorch and safetensors",
        networks.add_convert,
        networks.convert_weights,
        ("RRDB_ESRGAN_x4.pth rrdb.safetensors",),
    ),
    "check-data": Command(
        "list unpaired, unreadable, wrong-size and duplicate images",
        runs.add_check_data,
        runs.list_problems,
        ("data/DIV2K data/Set5",),
    ),
    "compare-torch": Command(
        "compare every part with PyTorch",
        networks.add_compare_torch,
        networks.compare_with_torch,
        ("", "--weights edsr_x4.pth"),
    ),
    "plot": Command(
        "draw losses, learning rate and metrics of runs",
        runs.add_plot,
        runs.plot_runs,
        ("runs/quickstart", "runs/edsr_l1 runs/edsr_decloss --out plots"),
    ),
    "report": Command(
        "compare evaluations in one page, with their pictures",
        runs.add_report,
        runs.compare_evaluations,
        ("runs/first/evaluation runs/second/evaluation --out both.html",),
    ),
    "reproduce": Command(
        "train and measure the rows of a table of the paper",
        runs.add_reproduce,
        runs.reproduce_experiment,
        (
            "table1 --train data/DIV2K --test data/DIV2K",
            "table1 --scale mini --train data/BSDS400 --test data/Set5,data/BSD100 --only 1 2 --seeds 0 1 2",
            "table3 --test data/Urban100 --only SRFlow ESRGAN --weights SRFlow=srflow.pth ESRGAN=esrgan.pth",
        ),
        resumes=True,
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """Describes the commands and their options."""
    parser = program.Parser(
        prog=CALL,
        **program.help_text(
            "Tools for super-resolution networks; train.py and evaluate.py train and measure them.",
            [f"{CALL} {name} {command.examples[0]}".rstrip() for name, command in COMMANDS.items()],
        ),
    )
    parser.add_argument("--version", action="version", version=f"decloss_jax {decloss_jax.__version__}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary = command.summary
        examples = [f"{CALL} {name} {line}".rstrip() for line in command.examples]
        choice = choices.add_parser(
            name, help=summary, **program.help_text(f"{summary[0].upper()}{summary[1:]}.", examples)
        )
        command.add_options(choice)
        choice.set_defaults(main=command.main, resumes=command.resumes)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command within this process; returns its exit status."""
    return program.run("decloss_jax", make_parser().parse_args, arguments)


def start() -> NoReturn:
    """Runs a command as this process: the entry point of `decloss`."""
    program.start("decloss_jax", make_parser().parse_args)
