"""The command line: python -m decloss_jax COMMAND ...

A user's mistake is answered with one sentence and exit status 2. Imports stand inside the commands, so that
--help and a mistyped option are answered at once.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging

import decloss_jax
from decloss_jax import checks
from decloss_jax.commands import scripts
from decloss_jax.host import console
from decloss_jax.reproduction.paper import EXPERIMENTS, SCALES

EXAMPLES = {
    "upscale": (
        "photo.jpg photo_x4.png --weights edsr_x4.safetensors",
        "pictures/ larger/ --weights runs/quickstart --self-ensemble",
        "photo.jpg photo_x4.png --interpolate psnr.pth,gan.pth,0.8",
    ),
    "convert": ("RRDB_ESRGAN_x4.pth rrdb.safetensors",),
    "check-data": ("data/DIV2K data/Set5",),
    "compare-torch": ("", "--weights edsr_x4.pth"),
    "plot": ("runs/quickstart", "runs/edsr_l1 runs/edsr_decloss --out plots"),
    "report": ("runs/first/evaluation runs/second/evaluation --out both.html",),
    "reproduce": (
        "table1 --train data/DIV2K --test data/DIV2K",
        "table1 --scale mini --train data/BSDS400 --test data/Set5,data/BSD100 --only 1 2 --seeds 0 1 2",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 1 when it found something wrong, 2 for a user's mistake."""
    options = make_parser().parse_args(arguments)
    logging.set_verbosity(logging.FATAL)  # Orbax reports every file, and an error before it raises it
    scripts.leave_on_sigterm()
    scripts.read_large_images()
    try:
        return options.run(options)
    except checks.UserError as error:
        console.say(f"decloss_jax {options.command}: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        print(f"decloss_jax {options.command}: interrupted", file=sys.stderr)
        return scripts.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Describes the commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m decloss_jax",
        description="Tools for super-resolution networks; train.py and evaluate.py train and measure them.",
        epilog=examples(*((name, lines[0]) for name, lines in EXAMPLES.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"decloss_jax {decloss_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples(*((name, line) for line in EXAMPLES[name])),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    command = add("upscale", upscale, "upscale pictures with a network")
    command.add_argument("input", type=Path, help="a picture, or a folder of pictures")
    command.add_argument("output", type=Path, help="the picture or the folder to write")
    weights = command.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", type=Path, help=WEIGHTS_HELP)
    weights.add_argument(
        "--interpolate", metavar="A,B,ALPHA", help="(1 - ALPHA) times the weights of A plus ALPHA times B's"
    )
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)
    command.add_argument("--self-ensemble", action="store_true", help="average over eight flips and turns")
    command.add_argument("--format", choices=FORMATS, help="of the files written; default: as they are")
    command.add_argument("--tile", type=int, help="largest side that the network sees at once, in LR pixels")
    command.add_argument(
        "--overlap", type=int, help="LR pixels that tiles see beyond their part (docs/upscaling.md)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing files")

    command = add("convert", convert, "convert weights between PyTorch and safetensors")
    command.add_argument("input", type=Path, help=WEIGHTS_HELP)
    command.add_argument(
        "output", type=Path, help="file to write: .safetensors, .pth or .pt (BasicSR's names)"
    )
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")

    command = add("check-data", check_data, "list unpaired, unreadable, wrong-size and double images")
    command.add_argument("roots", type=Path, nargs="+", metavar="ROOT", help="folder of a data set")

    command = add("compare-torch", compare_torch, "compare every part with PyTorch")
    command.add_argument("--weights", type=Path, help=f"{WEIGHTS_HELP}, to compare on")
    command.add_argument("--res-scale", type=float, help=RES_SCALE_HELP)

    command = add("plot", plot, "draw losses, learning rate and metrics of runs")
    command.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR", help="of train.py")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: plots/ in the first WORKDIR")

    command = add("report", report, "compare evaluations in one page, with their pictures")
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a folder of evaluate.py, or reproduce's --runs"
    )
    command.add_argument("--out", type=Path, default=Path("report.html"), help="default: report.html")
    command.add_argument("--data", metavar="ROOT[,ROOT...]", help="data sets that lie elsewhere by now")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")

    command = add("reproduce", reproduce, "train and measure the rows of a table of the paper")
    command.add_argument("target", choices=tuple(EXPERIMENTS))
    command.add_argument("--scale", choices=SCALES, default="full", help="full: as printed")
    command.add_argument("--only", nargs="+", default=[], metavar="ROW", help="numbers or names of rows")
    command.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    command.add_argument("--train", metavar="ROOT", help="folder of the training images (data.root)")
    command.add_argument("--test", required=True, metavar="ROOT[,ROOT...]", help="folders of the test sets")
    command.add_argument("--runs", type=Path, metavar="DIR", help="default: runs/reproduction/SCALE")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: results/SCALE")
    command.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="changes in every row's config"
    )
    return parser


def examples(*calls: tuple[str, str]) -> str:
    """Lists calls of commands, for the end of a help text."""
    return "\n".join(
        ["examples:", *(f"  python -m decloss_jax {name} {line}".rstrip() for name, line in calls)]
    )


WEIGHTS_HELP = "a .pth, .pt or .safetensors file of EDSR or RRDBNet, or the workdir of a run"
FORMATS = ("png", "jpg", "webp", "tif", "bmp")
RES_SCALE_HELP = "EDSR's residual scale, where the file does not say it (default: 0.1 for 32 x 256, else 1)"


def upscale(options: argparse.Namespace) -> int:
    """Upscales a picture or a folder of pictures."""
    import jax

    from decloss_jax import inference
    from decloss_jax.inference.files import upscale_files

    scripts.use_compilation_cache()
    if options.interpolate is not None:
        model, params, line = interpolate_networks(options.interpolate, options.res_scale)
    else:
        model, params, line = load_network(options.weights, options.res_scale)
    console.say(line)
    tile, overlap = inference.choose_tiles(model, options.tile, options.overlap, jax.local_devices())
    network = functools.partial(
        inference.upscale,
        model,
        inference.on_local_devices(params),
        tile=tile,
        overlap=overlap,
        self_ensemble=options.self_ensemble,
    )
    problems = upscale_files(
        network,
        options.input,
        options.output,
        scale=model.scale,
        ending=options.format and f".{options.format}",
        overwrite=options.overwrite,
    )
    for problem in problems:
        console.say(f"decloss_jax upscale: {' '.join(problem.split())}")
    return 2 if problems else 0


def convert(options: argparse.Namespace) -> int:
    """Writes the weights of one file to another, under BasicSR's names."""
    from decloss_jax.weights import save_generator

    check_new(options.output, options.overwrite)
    model, params, line = load_network(options.input, options.res_scale)
    save_generator(options.output, model, params)
    print(console.printable(f"{line} -> {options.output}"))
    return 0


def check_data(options: argparse.Namespace) -> int:
    """Prints what is wrong with data sets, one line for each file."""
    from decloss_jax.data.check import check_data

    report = check_data(options.roots)
    for finding in report.findings:
        print(console.printable(finding))
    console.say(report.summary())
    return 1 if report.findings else 0


def compare_torch(options: argparse.Namespace) -> int:
    """Prints how far each part is from PyTorch; status 1 when one is further than its bound."""
    from decloss_jax.compare_torch import compare

    scripts.use_compilation_cache()
    network = None
    if options.weights is not None:
        model, params, line = load_network(options.weights, options.res_scale)
        print(console.printable(line))
        network = (model, params)
    return 0 if compare(network) else 1


def plot(options: argparse.Namespace) -> int:
    """Draws the journals of runs."""
    from decloss_jax.workdir.plots import draw_runs

    for path in draw_runs(options.workdirs, options.out or options.workdirs[0] / "plots"):
        print(console.printable(path))
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes one page that compares the methods of some evaluations."""
    from decloss_jax.evaluation.comparison import write_comparison
    from decloss_jax.evaluation.saved import find_evaluations

    check_new(options.out, options.overwrite)
    found = [folder for run in options.runs for folder in find_evaluations(run)]
    folders = {folder.resolve(): folder for folder in found}  # given twice, it is still one
    write_comparison(
        list(folders.values()), options.out, roots=options.data.split(",") if options.data else ()
    )
    print(console.printable(f"{len(folders)} evaluation{'s' if len(folders) != 1 else ''} -> {options.out}"))
    return 0


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
    out = options.out or Path("results") / options.scale
    try:
        reproduce(options.target, only=options.only, seeds=options.seeds, settings=settings, out=out)
    except Stopped as stopped:
        return scripts.report_stop(stopped, by_keyboard=stopped.by_keyboard)
    except scripts.Terminated:
        return scripts.report_stop("stopped; the same command goes on from there")
    return 0


def interpolate_networks(text: str, res_scale: float | None) -> tuple[Any, Any, str]:
    """Loads two networks and mixes their parameters; returns model, parameters and a line on them."""
    from decloss_jax.weights import interpolate

    first, second, amount = parse_interpolation(text)
    model, params, line = load_network(first, res_scale)
    other_model, other_params, other_line = load_network(second, res_scale)
    checks.check(
        model == other_model,
        "--interpolate",
        expected=f"two networks of one kind; the first is {line}",
        got=other_line,
        remedy="choose networks that one training has begun and another gone on with",
    )
    mixed = interpolate(params, other_params, amount)
    return model, mixed, f"{1 - amount:g} x ({line}) + {amount:g} x ({other_line})"


def parse_interpolation(text: str) -> tuple[Path, Path, float]:
    """Parses A,B,ALPHA."""
    parts = text.split(",")
    try:
        first, second, amount = Path(parts[0]), Path(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        parts = []
    checks.check(
        len(parts) == 3,
        "--interpolate",
        expected="A,B,ALPHA, two files of weights and a number",
        got=text,
        remedy="write for instance --interpolate psnr.pth,gan.pth,0.8",
    )
    checks.check_range("ALPHA of --interpolate", amount, 0, 1)
    return first, second, amount


def check_new(path: Path, overwrite: bool) -> None:
    """Raises `UserError` for a file that is there already, unless it may be replaced."""
    checks.check(
        overwrite or not os.path.lexists(path),
        str(path),
        expected="a new file",
        got="an existing one",
        remedy="choose another name or give --overwrite",
    )


def load_network(path: Path, res_scale: float | None) -> tuple[Any, Any, str]:
    """Loads a weights file or a run's newest checkpoint; returns model, parameters and a line on them."""
    if path.is_dir():
        from decloss_jax.workdir import checkpoint

        checks.check(
            res_scale is None,
            "--res-scale",
            expected="none for a run, whose config has it",
            got=res_scale,
            remedy="leave it out",
        )
        model, params, description = checkpoint.load_generator(path)
        return model, params, f"{path}: {description['stage']}, step {description['step']}"

    from decloss_jax.weights import describe, load_generator

    model, params, description = load_generator(path, res_scale=res_scale)
    return model, params, describe(description)
