"""Commands for data sets and finished runs: check-data, plot, report, reproduce."""

import argparse
from pathlib import Path

from decloss_jax.commands import program
from decloss_jax.commands.networks import check_new
from decloss_jax.host import console
from decloss_jax.reproduction.paper import EXPERIMENTS, SIZES


def add_check_data(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `list_problems`."""
    parser.add_argument("roots", type=program.path, nargs="+", metavar="ROOT", help="folder of a data set")


def list_problems(options: argparse.Namespace) -> int:
    """Prints the problems of data sets, one line per file; status 1 if there are any."""
    from decloss_jax.data.check import check_data

    report = check_data(options.roots)
    for finding in report.findings:
        print(console.printable(finding))
    console.say(report.summary())
    return 1 if report.findings else 0


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `plot_runs`."""
    parser.add_argument(
        "workdirs", type=program.path, nargs="+", metavar="WORKDIR", help="of a run of train.py"
    )
    parser.add_argument(
        "--out", type=program.path, metavar="DIR", help="default: plots/ in the first WORKDIR"
    )


def plot_runs(options: argparse.Namespace) -> None:
    """Draws the journals of runs."""
    from decloss_jax.workdir.plots import draw_runs

    for path in draw_runs(options.workdirs, options.out or options.workdirs[0] / "plots"):
        print(console.printable(path))


def add_report(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `compare_evaluations`."""
    parser.add_argument(
        "runs",
        type=program.path,
        nargs="+",
        metavar="RUN",
        help="a folder of evaluate.py, or reproduce's --runs",
    )
    parser.add_argument("--out", type=program.path, default=Path("report.html"), help="default: report.html")
    parser.add_argument(
        "--data",
        type=program.comma_list,
        default=[],
        metavar="ROOT[,ROOT...]",
        help="present folders of the data sets, if they have moved",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def compare_evaluations(options: argparse.Namespace) -> None:
    """Writes one page that compares the methods of some evaluations."""
    from decloss_jax.evaluation.comparison import write_comparison
    from decloss_jax.evaluation.saved import find_evaluations

    check_new(options.out, options.overwrite)
    found = [folder for run in options.runs for folder in find_evaluations(run)]
    folders = {folder.resolve(): folder for folder in found}  # each counts once, even if given twice
    write_comparison(list(folders.values()), options.out, roots=options.data)
    print(console.printable(f"{len(folders)} evaluation{'s' if len(folders) != 1 else ''} -> {options.out}"))


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `reproduce_experiment`."""
    parser.add_argument("target", choices=tuple(EXPERIMENTS))
    parser.add_argument("--scale", choices=SIZES, default="full", help="full: as printed")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="numbers or names of rows")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="default: 0")
    parser.add_argument("--train", metavar="ROOT", help="folder of the training images (data.root)")
    parser.add_argument(
        "--test",
        type=program.comma_list,
        required=True,
        metavar="ROOT[,ROOT...]",
        help="folders of the test sets",
    )
    parser.add_argument("--runs", type=program.path, metavar="DIR", help="default: runs/reproduction/SCALE")
    parser.add_argument("--out", type=program.path, metavar="DIR", help="default: results/SCALE")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=VALUE", help="fields to change in every row's config"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="ROW=FILE",
        help="rows to measure from files of weights instead of training them",
    )


def reproduce_experiment(options: argparse.Namespace) -> int:
    """Trains the missing rows of a table or figure of the paper, and writes it with our numbers."""
    from decloss_jax.config import override
    from decloss_jax.reproduction.driver import load_weights, reproduce
    from decloss_jax.reproduction.runs import Settings, import_config
    from decloss_jax.training.loop import Stopped

    overrides = override(import_config("base").get_config(), options.set, option="--set ")
    program.prepare_jax("reproducing", deterministic=overrides.get("deterministic", False))
    if options.train is not None:
        overrides["data.root"] = options.train
    settings = Settings(
        size=options.scale,
        overrides=overrides,
        runs=options.runs or Path("runs") / "reproduction" / options.scale,
        tests=options.test,
        weights=load_weights(EXPERIMENTS[options.target].rows, options.weights),
    )
    out = options.out or Path("results") / options.scale
    try:
        reproduce(options.target, only=options.only, seeds=options.seeds, settings=settings, out=out)
    except Stopped as stopped:
        return program.report_stop(stopped, by_keyboard=stopped.by_keyboard)
    return 0
