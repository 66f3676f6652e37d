"""Compares every part of the package with PyTorch: python -m decloss_jax compare-torch [--weights FILE].

Both sides get the same weights and inputs; the PyTorch side is plain code written from the definitions.
"""

import importlib.util
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from decloss_jax import checks

if TYPE_CHECKING:
    from decloss_jax.compare_torch.parts import Part

COLUMNS = ("part", "quantity", "absolute", "relative", "bound", "")


class Row(NamedTuple):
    """A line of the table: the largest differences of one quantity."""

    part: str
    quantity: str
    absolute: float
    relative: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the relative difference is within its bound; False if it is NaN."""
        return self.relative <= self.bound

    def cells(self) -> tuple[str, ...]:
        """Returns the cells of the line."""
        numbers = (f"{self.absolute:.1e}", f"{self.relative:.1e}", f"{self.bound:.0e}")
        return (self.part, self.quantity, *numbers, "ok" if self.holds else "ABOVE")


def compare(network: tuple[Any, Any] | None = None) -> bool:
    """Runs all parts and prints their largest differences; tells whether all are within their bounds.

    Args:
        network: a Flax generator and its parameters, used instead of the small random ones.

    Raises:
        UserError: PyTorch is not installed.
    """
    checks.check(
        importlib.util.find_spec("torch") is not None,
        "compare-torch",
        expected="the package torch",
        got="no such package",
        remedy="install it: pip install torch --index-url https://download.pytorch.org/whl/cpu",
    )
    import torch

    from decloss_jax.compare_torch import parts

    torch.set_num_threads(1)  # on small inputs, its threads and XLA's would wait for each other
    chosen = parts.PARTS
    if network is not None:
        chosen = parts.generator_parts(*network) | parts.LOSS_PARTS
    start = time.monotonic()
    rows = print_rows(measure(chosen))
    above = sum(not row.holds for row in rows)
    verdict = f"{above} above their bounds" if above else "all within their bounds"
    print(f"{len(rows)} differences, {verdict} ({time.monotonic() - start:.0f} s)")
    return above == 0


def measure(chosen: Mapping[str, "Part"]) -> Iterator[Row]:
    """Runs the parts one after the other."""
    for name, part in chosen.items():
        for comparison in part():
            absolute, relative = comparison.difference()
            yield Row(name, comparison.quantity, absolute, relative, comparison.bound)


def print_rows(rows: Iterator[Row]) -> list[Row]:
    """Prints rows as they arrive, as a table on a terminal and as plain lines elsewhere; returns them."""
    seen = []
    if not sys.stdout.isatty():
        print_line(COLUMNS)
        for row in rows:
            print_line(row.cells())
            seen.append(row)
        return seen

    from rich.live import Live
    from rich.table import Table

    table = Table(*COLUMNS)
    with Live(table, vertical_overflow="visible"):
        for row in rows:
            table.add_row(*row.cells(), style="" if row.holds else "bold red")
            seen.append(row)
    return seen


def print_line(cells: tuple[str, ...]) -> None:
    """Prints a line of the table for files and logs."""
    part, quantity, *numbers = cells
    print(f"{part:40} {quantity:20} {' '.join(f'{number:>8}' for number in numbers)}", flush=True)
