"""python -m decloss_jax reproduce: trains what a table of the paper needs, measures it, writes it down."""

from collections.abc import Sequence
from pathlib import Path

from decloss_jax import checks, console
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.reproduction import figures, tables
from decloss_jax.reproduction.paper import EXPERIMENTS, Row
from decloss_jax.reproduction.runs import Settings, measure_row, row_config

DETAILS = {"table1": "figure4", "table3": "figure7"}  # the pictures that go with a table


def reproduce(
    target: str, *, only: Sequence[str], seeds: Sequence[int], settings: Settings, out: Path
) -> None:
    """Trains what is missing of an experiment, evaluates it, and writes its table and pictures.

    Args:
        target: a key of `paper.EXPERIMENTS`.
        only: numbers or names of rows; none for all of them.
        seeds: of the trainings; each row is trained once with each.
        settings: what all rows share.
        out: folder of TARGET.md, .csv, .json and the pictures.

    Raises:
        UserError: an unknown row, or whatever training and evaluation refuse.
        training.loop.Stopped: by Ctrl-C or SIGTERM; the same call goes on from there.
    """
    experiment = checks.look_up(EXPERIMENTS, target, "experiment")
    rows = [row for row in choose_rows(experiment.rows, only) if row.config or row.method]
    metrics = ("psnr", experiment.lpips, "icoo") if experiment.conventions == "basicsr" else ()
    protocol = choose_protocol(experiment.conventions, scale=figures.SCALE, metrics=metrics)
    wanted = [(row, seed) for row in rows for seed in (seeds if row.config else [None])]
    for row, seed in wanted:
        if row.config:
            row_config(row, seed or 0, settings)  # a mistake is not to be found after the first training
    measured = []
    for number, (row, seed) in enumerate(wanted, 1):
        console.say(f"[{number}/{len(wanted)}] {row.name}")
        measured.append(measure_row(row, seed, settings, protocol))
        # Written after each row, so that what was cut off has left its part.
        text = tables.write_tables(target, experiment, measured, settings, protocol, out)
    if target in DETAILS:
        figures.draw_details(experiment, measured, settings, out, DETAILS[target])
    if target == "figure5":
        coefficients = figures.draw_icoo_against_lpips(experiment, measured, out, target)
        lines = [
            f"- Spearman's coefficient of ICOO and LPIPS, {dataset}: "
            + ("too few networks" if value is None else f"{value:.3f} (printed, Urban100: 0.892)")
            for dataset, value in coefficients.items()
        ]
        text += "\n".join(lines) + "\n"
        (out / f"{target}.md").write_text(text, encoding="utf-8")
    if target == "figure6":
        figures.draw_temperatures(experiment, measured, out, target)
    print(text, end="")


def choose_rows(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """Returns the rows that are named by their number ("6", from 1) or their name; all when none is.

    Raises:
        UserError: a row that does not exist.
    """
    names = {row.name: row for row in rows} | {str(i): row for i, row in enumerate(rows, 1)}
    chosen = [checks.look_up(names, name, "row") for name in only]
    return [row for row in rows if row in chosen] if only else list(rows)
