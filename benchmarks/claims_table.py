"""The table of claims.py: each setting against its base, as means over seeds."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import claims_judge as judge
import numpy as np
from claims_settings import BASES, HYPOTHESES, SETTINGS

PHOTOGRAPHS, SIDE = 24, 240
WHITE = judge.white_noise_shares(SIDE)
LEGEND = f"""\
`python benchmarks/claims.py` on the {SIDE}x{SIDE} centres of {PHOTOGRAPHS} held-out photographs of BSDS400;
[claims_settings.py](../../benchmarks/claims_settings.py) explains the names. Means over seeds, each with its
own stage 1, with the standard deviation over seeds.

- Changes from the setting that heads the table's part, which has the same seed.
- lattice: the share of the power of the change from stage 1 at (k/4, l/4) cycles per pixel, and at most 1 bin
  from (k/8, l/8), divided by white noise's; and the power per bin there, divided by that 2 to 4 bins away (1
  for any smooth spectrum).
- restores: the cosine of the change with the detail that the base lacks (HR - SR), from 0.125 to 0.25 and
  from 0.25 to 0.5 cycles per pixel: 1 for true detail, 0 for noise (seeds measured on a CPU).
- grain: the pictures of the base with grey noise between 0.25 and 0.5 cycles per pixel, whose strength
  relative to HR's local strength in that band (this number, at most 4) makes it cost as much PSNR. "less
  grain" is the run's value less the grain's, with the standard error over all photographs and seeds. "blind
  grain" is scaled by the base's strength between 0.125 and 0.25 cycles per pixel, so it does not know HR.
- better: the seeds in which both LPIPS are lower than the base's; there is no lattice (the third measure is
  at most {judge.NO_LATTICE}); and against the grain one LPIPS is lower and the other not higher
  (`claims_judge.verdict`). Else the reasons.
"""
RESULTS = Path(__file__).resolve().parent.parent / "results" / "claims"
COLUMNS = ("PSNR dB", "LPIPS-alex", "LPIPS-vgg", "NIQE", "ICOO dB")
LESS_GRAIN = ("less grain: alex", "less grain: vgg")
# Metric of a column -> format of its values.
METRICS = {"psnr_rgb": ".3f", "lpips_alex": ".4f", "lpips_vgg": ".4f", "niqe": ".2f", "icoo": ".2f"}


def read() -> list[dict[str, Any]]:
    """Returns the runs of earlier calls of claims.py."""
    path = RESULTS / "claims.json"
    return json.loads(path.read_text())["runs"] if path.exists() else []


def find(runs: Iterable[dict[str, Any]], name: str, seed: int) -> dict[str, Any] | None:
    """Returns the run of a setting with a seed, if it is there."""
    return next((run for run in runs if (run["setting"], run["seed"]) == (name, seed)), None)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Writes the runs as Markdown: the bases in absolute values, the others as changes from theirs."""
    lines = [LEGEND, "## What is compared with", "", *header(*COLUMNS)]
    for name in BASES:
        measured = [run["values"] for run in runs if run["setting"] == name]
        if measured:
            lines.append(f"| {name} | {len(measured)} | {' | '.join(absolute(measured))} |")
    for hypothesis, settings in HYPOTHESES.items():
        for base in dict.fromkeys(each.base for each in settings.values()):
            rows = [changes(name, runs) for name in settings if settings[name].base == base]
            if any(rows):
                lines += ["", f"## {hypothesis.capitalize()}: against {base}", ""]
                lines += header(*COLUMNS, "lattice", "restores", "grain", *LESS_GRAIN, "better")
                lines += [row for row in rows if row]
    return "\n".join(lines) + "\n" + test_table(runs)


def header(*columns: str) -> list[str]:
    return [f"| setting | seeds | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 2)]


def spread(values: Sequence[float], form: str) -> str:
    """Writes a mean and, of several values, their standard deviation."""
    mean = format(np.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(np.std(values, ddof=1), form.strip('+'))}"


def absolute(measured: Sequence[dict[str, Any]]) -> list[str]:
    """Writes a cell for each metric, of the means over photographs."""
    return [
        spread([float(np.mean(each[metric])) for each in measured], form) for metric, form in METRICS.items()
    ]


def pairs_of(name: str, runs: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the runs of a setting with the runs of its base that have the same seed."""
    of_name = [run for run in runs if run["setting"] == name]
    bases = [find(runs, SETTINGS[name].base, run["seed"]) for run in of_name]
    return [(run, base) for run, base in zip(of_name, bases, strict=True) if base]


def changes(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """Writes the row of a setting; empty without a run."""
    pairs = pairs_of(name, runs)
    if not pairs:
        return ""
    cells = [
        spread([difference(run["values"], base["values"], "psnr_rgb") for run, base in pairs], "+.3f"),
        *(
            spread([relative(run["values"], base["values"], metric) for run, base in pairs], "+.1%")
            for metric in judge.LPIPS
        ),
        *(
            spread([difference(run["values"], base["values"], metric) for run, base in pairs], "+.2f")
            for metric in ("niqe", "icoo")
        ),
        lattice([run["shares"] for run, _ in pairs]),
        restores([run["restores"] for run, _ in pairs if "restores" in run]),
        *against_grain(pairs),
    ]
    return f"| {name} | {len(pairs)} | {' | '.join(cells)} |"


def difference(values: dict[str, Any], others: dict[str, Any], metric: str) -> float:
    return float(np.mean(values[metric]) - np.mean(others[metric]))


def relative(values: dict[str, Any], others: dict[str, Any], metric: str) -> float:
    return float(np.mean(values[metric]) / np.mean(others[metric]) - 1)


def lattice(shares: Sequence[dict[str, float]]) -> str:
    """Writes the three measures of lattices, as means over seeds."""
    exact, near, _ = (np.mean([each[name] for each in shares]) / WHITE[name] for name in judge.SHARES)
    return f"{exact:.1f}, {near:.1f}, {np.mean([judge.lattice_excess(each, WHITE) for each in shares]):.1f}"


def restores(found: Sequence[dict[str, list[float]]]) -> str:
    """Writes the cosines of the upper bands, as means over seeds; empty without any."""
    cosines = [[each[f"{low:g} to {high:g}"][1] for each in found] for low, high in judge.BANDS[1:]]
    return ", ".join(f"{np.mean(values):+.2f}" for values in cosines) if found else ""


def against_grain(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Writes the last four cells of a row; empty without controls."""
    if any("control" not in run for run, _ in pairs):
        return [""] * 4
    ours, grain = (pooled(each) for each in zip(*((run, run["control"]) for run, _ in pairs), strict=True))
    gains = ["{:+.4f} ± {:.4f}".format(*judge.difference(ours, grain, metric)) for metric in judge.LPIPS]
    verdicts = [judge.verdict(run, base, WHITE) for run, base in pairs]
    better = sum(not reasons for reasons in verdicts)
    reasons = "; ".join(dict.fromkeys(reason for each in verdicts for reason in each))
    summary = f"{better} of {len(pairs)}" + (f" ({reasons})" if reasons else "")
    return [spread([run["control"]["strength"] for run, _ in pairs], ".3f"), *gains, summary]


def pooled(measured: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Returns both LPIPS of all photographs of several runs."""
    return {metric: np.concatenate([each["values"][metric] for each in measured]) for metric in judge.LPIPS}


def test_table(runs: Sequence[dict[str, Any]]) -> str:
    """Writes what --test measured; empty without such a run."""
    lines = []
    for name, setting in SETTINGS.items():
        measured = [run["test"] for run in runs if run["setting"] == name and "test" in run]
        if not measured:
            continue
        both = [pair for pair in pairs_of(name, runs) if all("test" in run for run in pair)]
        falls = [
            spread([relative(run["test"], base["test"], metric) for run, base in both], "+.1%")
            if both
            else ""
            for metric in judge.LPIPS
        ]
        cells = [*absolute(measured), setting.base, *falls]
        lines.append(f"| {name} | {len(measured)} | {' | '.join(cells)} |")
    if not lines:
        return ""
    columns = header(*COLUMNS, "base", "LPIPS-alex against it", "LPIPS-vgg against it")
    return "\n".join(["", "## The test set", "", *columns, *lines]) + "\n"
