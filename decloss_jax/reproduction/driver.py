"""python -m decloss_jax reproduce: trains and measures the rows of a table of the paper, and writes it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from decloss_jax import checks
from decloss_jax.evaluation.comparison import write_comparison
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import Method, load_methods
from decloss_jax.evaluation.run import open_sets
from decloss_jax.host import console
from decloss_jax.reproduction import embedding, figures, tables
from decloss_jax.reproduction.measuring import Measured, measure_row
from decloss_jax.reproduction.paper import EXPERIMENTS, SCALE, PaperRow
from decloss_jax.reproduction.runs import (
    Settings,
    computing_fields,
    is_trained,
    needs_ranker,
    row_config,
    rows_to_check,
    stays_zero,
)
from decloss_jax.training import loop

DETAILS = {"table1": "figure4", "table3": "figure7"}  # the pictures that go with a table


def reproduce(
    target: str, *, only: Sequence[str], seeds: Sequence[int], settings: Settings, out: Path
) -> None:
    """Trains the missing rows of an experiment, evaluates them, and writes its table and pictures.

    Args:
        target: a key of `paper.EXPERIMENTS`.
        only: numbers or names of rows; empty for all.
        seeds: each row is trained once with each seed.
        settings: shared by all rows.
        out: folder for TARGET.md, .csv, .json, .html and pictures; rows measured by an earlier call stay.

    Raises:
        UserError: an unknown row, or anything that training or evaluation refuses.
        training.loop.Stopped: Ctrl-C or SIGTERM; the same call resumes.
    """
    experiment = checks.look_up(EXPERIMENTS, target, "experiment")
    rows = choose_rows(experiment.rows, only, settings)
    metrics = ("psnr", experiment.lpips, "icoo") if experiment.conventions == "basicsr" else ()
    protocol = choose_protocol(experiment.conventions, scale=SCALE, metrics=metrics)
    measured = {
        (m.row.name, m.seed): m for m in tables.read_table(target, experiment, settings, protocol, out)
    }
    check_settings(rows, seeds, settings)
    make_folder(out)
    wanted = [
        (row, seed)
        for row in rows
        for seed in (dict.fromkeys(seeds) if is_trained(row, settings) else [None])
    ]
    order = [row.name for row in experiment.rows]
    text = ""
    for number, (row, seed) in enumerate(wanted, 1):
        console.say(f"[{number}/{len(wanted)}] {row.name}")
        # A row holds what was trained or what a file gave, never both.
        measured = {
            key: m for key, m in measured.items() if m.row is not row or (m.seed is None) == (seed is None)
        }
        measured[row.name, seed] = measure_row(row, seed, settings, protocol)
        measured = dict(sorted(measured.items(), key=lambda item: (order.index(item[0][0]), item[0][1] or 0)))
        # Written after each row, so that an interrupted call leaves the rows that it finished.
        text = tables.write_tables(target, experiment, list(measured.values()), settings, protocol, out)
    results = list(measured.values())
    if target in DETAILS:
        figures.draw_details(experiment, results, settings, out, DETAILS[target])
    if target == "figure2":
        embedding.draw_embeddings(results, settings, out, target)
    if target == "figure5":
        spearman = figures.draw_icoo_against_lpips(experiment, results, out, target)
        text = tables.write_tables(target, experiment, results, settings, protocol, out, spearman)
    if target == "figure6":
        figures.draw_temperatures(experiment, results, out, target)
    print(text, end="")
    write_comparison_page(results, settings, out / f"{target}.html")


def write_comparison_page(measured: Sequence[Measured], settings: Settings, path: Path) -> None:
    """Writes the page that compares the rows whose evaluations are in the folder of runs."""
    here = [m for m in measured if (m.folder / "summary.json").is_file()]
    names = [
        m.row.name + (f", seed {m.seed}" if len(here) > len({o.row for o in here}) else "") for m in here
    ]
    if here:
        write_comparison([m.folder for m in here], path, roots=settings.tests, field="--test", names=names)


def rows_by_name(rows: Sequence[PaperRow]) -> dict[str, PaperRow]:
    """Returns what a user may call each row: its name, and its number from 1."""
    return {row.name: row for row in rows} | {str(i): row for i, row in enumerate(rows, 1)}


def load_weights(rows: Sequence[PaperRow], texts: Sequence[str]) -> dict[str, Method]:
    """Loads the networks that take the place of training: ["ROW=FILE", ...] -> row's name -> network.

    Args:
        rows: of the experiment.
        texts: a row's name or number, and a file that evaluate.py --weights takes.

    Raises:
        UserError: an unknown row, one given twice, or a file without a network of the scale.
    """
    found: dict[str, Method] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        checks.check(
            bool(equals), "--weights", expected="ROW=FILE", got=text, remedy="write --weights ROW=FILE"
        )
        row = checks.look_up(rows_by_name(rows), name, "row")
        checks.check(
            row.name not in found,
            "--weights",
            expected="each row once",
            got=f"{row.name} twice",
            remedy="leave one of them out",
        )
        (method,) = load_methods(weights=[file])
        checks.check(
            method.scale == SCALE,
            f"--weights of {row.name}",
            expected=f"a network of scale {SCALE}",
            got=method.scale,
            remedy="choose another file",
        )
        found[row.name] = method
    return found


def choose_rows(rows: Sequence[PaperRow], only: Sequence[str], settings: Settings) -> list[PaperRow]:
    """Returns the rows given by number ("6", from 1) or name; all if none is given.

    Raises:
        UserError: an unknown row, or weights for a row that is left out.
    """
    chosen = [checks.look_up(rows_by_name(rows), name, "row") for name in only] or rows
    for name in settings.weights:
        checks.check(
            name in [row.name for row in chosen],
            f"--weights of {name}",
            expected=f"a row of --only ({', '.join(only)})",
            got="another",
            remedy="add it to --only",
        )
    return [row for row in rows if row in chosen]


def check_settings(rows: Sequence[PaperRow], seeds: Sequence[int], settings: Settings) -> None:
    """Refuses at the start what training and evaluation would refuse hours later.

    Raises:
        UserError: a test set, an override or a row's config that cannot be used.
    """
    open_sets(settings.tests, SCALE, field="--test")
    trained = [row for row in rows if is_trained(row, settings)]
    needed = dict.fromkeys(each for row in trained for each in rows_to_check(row, settings))
    configs = [row_config(row, seeds[0], settings) for row in needed]
    plain = replace(settings, overrides={})
    before = [computing_fields(row_config(row, seeds[0], plain)) for row in trained]
    for name in settings.overrides:
        values = {str(fields[name]) for fields in before if name in fields}
        kept = {"0", "0.0"} if stays_zero(name) else set()
        checks.check(
            len(values - kept) <= 1,
            f"--set {name}",
            expected="a field that the rows share",
            got=f"one in which they differ ({', '.join(sorted(values))})",
            remedy="omit it, or give --only rows that agree on it",
        )
    for config in configs:
        if needs_ranker(config):
            config.finetune.weights.rank_content = 0.0  # its Ranker does not exist yet
        loop.make_plan(config)


def make_folder(out: Path) -> None:
    """Makes the folder for the results.

    Raises:
        UserError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        checks.fail(
            f"--out {out}", expected="a folder that can be made", got=error.strerror, remedy="choose another"
        )
