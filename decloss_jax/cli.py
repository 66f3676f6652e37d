"""The command line: python -m decloss_jax COMMAND ...

A user's mistake is answered with one sentence and exit status 2. Imports stand inside the commands, so that
--help and a mistyped option are answered at once.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

import decloss_jax
from decloss_jax import checks, scripts
from decloss_jax.reproduction.paper import EXPERIMENTS, SCALES

EXAMPLES = """\
examples:
  python -m decloss_jax upscale photo.jpg photo_x4.png --weights edsr_x4.safetensors
  python -m decloss_jax upscale pictures/ larger/ --weights runs/quickstart
  python -m decloss_jax convert RRDB_ESRGAN_x4.pth rrdb.safetensors
  python -m decloss_jax check-data data/DIV2K data/Set5
  python -m decloss_jax compare-torch
  python -m decloss_jax reproduce table1 --scale mini --train data/BSDS400 --test data/Set5,data/BSD100
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 1 when it found something wrong, 2 for a user's mistake."""
    options = make_parser().parse_args(arguments)
    logging.set_verbosity(logging.ERROR)  # Orbax reports every file
    scripts.leave_on_sigterm()
    try:
        return options.run(options)
    except checks.UserError as error:
        print(f"decloss_jax {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"decloss_jax {options.command}: interrupted", file=sys.stderr)
        return scripts.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Describes the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m decloss_jax",
        description="Tools for super-resolution networks; train.py and evaluate.py train and measure them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"decloss_jax {decloss_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("upscale", help="upscale pictures with a network")
    command.add_argument("input", type=Path, help="a picture, or a folder of pictures")
    command.add_argument("output", type=Path, help="the picture or the folder to write")
    command.add_argument("--weights", type=Path, required=True, help=WEIGHTS_HELP)
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)
    command.add_argument("--self-ensemble", action="store_true", help="average over eight flips and turns")
    command.add_argument("--tile", type=int, help="largest side that the network sees at once, in LR pixels")
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    command.set_defaults(run=upscale)

    command = commands.add_parser("convert", help="convert weights between PyTorch and safetensors")
    command.add_argument("input", type=Path, help=WEIGHTS_HELP)
    command.add_argument(
        "output", type=Path, help="file to write: .safetensors, .pth or .pt (BasicSR's names)"
    )
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command.set_defaults(run=convert)

    command = commands.add_parser(
        "check-data", help="list unpaired, unreadable, wrong-size and double images"
    )
    command.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder of a data set")
    command.set_defaults(run=check_data)

    command = commands.add_parser("compare-torch", help="compare every part with PyTorch")
    command.add_argument("--weights", type=Path, help=f"{WEIGHTS_HELP}, to compare on")
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)
    command.set_defaults(run=compare_torch)

    command = commands.add_parser("reproduce", help="train and measure the rows of a table of the paper")
    command.add_argument("target", choices=tuple(EXPERIMENTS))
    command.add_argument("--scale", choices=SCALES, default="full", help="full: as printed")
    command.add_argument("--only", nargs="+", default=[], metavar="ROW", help="numbers or names of rows")
    command.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    command.add_argument("--train", metavar="ROOT", help="folder of the training images (data.root)")
    command.add_argument("--test", required=True, metavar="ROOT[,ROOT...]", help="folders of the test sets")
    command.add_argument("--runs", type=Path, metavar="DIR", help="default: runs/reproduction/SCALE")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: reproduction/SCALE")
    command.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="changes in every row's config"
    )
    command.set_defaults(run=reproduce)
    return parser


WEIGHTS_HELP = "a .pth, .pt or .safetensors file of EDSR or RRDBNet, or the workdir of a run"
RES_SCALE_HELP = "EDSR's residual scale, where the file does not say it (default: 0.1 for 32 x 256, else 1)"


def upscale(options: argparse.Namespace) -> int:
    """Upscales a picture or a folder of pictures."""
    import jax

    from decloss_jax import inference
    from decloss_jax.upscaling import upscale_files

    scripts.use_compilation_cache()
    model, params, line = load_network(options.weights, options.res_scale)
    print(line, file=sys.stderr)
    network = functools.partial(
        inference.upscale,
        model,
        jax.device_put(params),
        tile=options.tile or inference.DEFAULT_TILE,
        self_ensemble=options.self_ensemble,
    )
    problems = upscale_files(network, options.input, options.output, overwrite=options.overwrite)
    for problem in problems:
        print(f"decloss_jax upscale: {problem}", file=sys.stderr)
    return 2 if problems else 0


def convert(options: argparse.Namespace) -> int:
    """Writes the weights of one file to another, under BasicSR's names."""
    from decloss_jax.weights import save_generator

    checks.check(
        options.overwrite or not options.output.exists(),
        str(options.output),
        expected="a new file",
        got="an existing one",
        remedy="choose another name or give --overwrite",
    )
    model, params, line = load_network(options.input, options.res_scale)
    save_generator(options.output, model, params)
    print(f"{line} -> {options.output}")
    return 0


def check_data(options: argparse.Namespace) -> int:
    """Prints what is wrong with data sets, one line for each file."""
    from decloss_jax.data.check import check_data

    report = check_data(options.roots)
    for finding in report.findings:
        print(finding)
    print(report.summary(), file=sys.stderr)
    return 1 if report.findings else 0


def compare_torch(options: argparse.Namespace) -> int:
    """Prints how far each part is from PyTorch; status 1 when one is further than its bound."""
    from decloss_jax.compare_torch import compare

    scripts.use_compilation_cache()
    network = None
    if options.weights is not None:
        model, params, line = load_network(options.weights, options.res_scale)
        print(line)
        network = (model, params)
    return 0 if compare(network) else 1


def reproduce(options: argparse.Namespace) -> int:
    """Trains what is missing of a table or figure of the paper, and writes it with our numbers."""
    from decloss_jax.reproduction.driver import reproduce
    from decloss_jax.reproduction.runs import Settings, parse_overrides
    from decloss_jax.training.loop import Stopped

    scripts.use_compilation_cache()
    overrides = parse_overrides(options.set)
    if options.train is not None:
        overrides["data.root"] = options.train
    settings = Settings(
        scale=options.scale,
        overrides=overrides,
        runs=options.runs or Path("runs") / "reproduction" / options.scale,
        tests=options.test.split(","),
    )
    out = options.out or Path("reproduction") / options.scale
    try:
        reproduce(options.target, only=options.only, seeds=options.seeds, settings=settings, out=out)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return scripts.INTERRUPTED
    return 0


def load_network(path: Path, res_scale: float | None) -> tuple[Any, Any, str]:
    """Loads a weights file or a run's newest checkpoint; returns model, parameters and a line on them."""
    if path.is_dir():
        from decloss_jax import checkpoint
        from decloss_jax.models import build_model

        checks.check(
            res_scale is None,
            "--res-scale",
            expected="none for a run, whose config has it",
            got=res_scale,
            remedy="leave it out",
        )
        config, params, description = checkpoint.load_generator(path)
        return (
            build_model(config["model"]),
            params,
            f"{path}: {description['stage']}, step {description['step']}",
        )

    from decloss_jax.weights import describe, load_generator

    model, params, description = load_generator(path, res_scale=res_scale)
    return model, params, describe(description)
