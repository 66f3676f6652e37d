"""A table of results, for the screen, for CSV files and for the page."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decloss_jax.host.console import printable

WIDEST = 1000  # characters per line
ARROWS = {"higher": "\u2191", "lower": "\u2193"}


@dataclass(frozen=True)
class Column:
    """A metric: its name, its unit, and its better direction ("higher" or "lower")."""

    name: str
    unit: str
    better: str

    @property
    def title(self) -> str:
        """The name, the arrow of the better direction, and the unit."""
        return " ".join(filter(None, (self.name, ARROWS[self.better], self.unit)))

    def write(self, value: float) -> str:
        """Formats a value with its meaningful digits; a missing value (NaN) becomes a dash."""
        if math.isnan(value):
            return "\u2013"
        return f"{value:.3f}" if self.unit == "dB" else f"{value:.4f}"


@dataclass(frozen=True)
class Line:
    """The values of one method on a data set, or on one `image`, by column name; NaN for a missing value."""

    dataset: str
    images: int
    method: str
    values: Mapping[str, float]
    image: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, lines, and notes on how the numbers were measured."""

    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str] = ()

    def rank(self, line: Line, column: Column) -> int:
        """Returns 1 for the best value on the same data set or image, 2 for the second best, else 0.

        Values with the same digits are equal. With one method there is no best, with two no second best.
        """
        rivals = [
            other.values[column.name]
            for other in self.lines
            if (other.dataset, other.image) == (line.dataset, line.image)
        ]
        written = [float(column.write(value)) for value in rivals if not math.isnan(value)]
        order = sorted(set(written), reverse=column.better == "higher")
        ranks = {value: rank for rank, value in enumerate(order, 1) if rank < len(written)}
        own = line.values[column.name]
        rank = 0 if math.isnan(own) else ranks.get(float(column.write(own)), 0)
        return rank if rank <= 2 else 0


def print_table(table: Table) -> None:
    """Prints the table and its notes to standard output; the best value of each data set is bold."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    rich_table = RichTable(box=box.SIMPLE)
    for title in ("data", "images", "method"):
        rich_table.add_column(title, justify="right" if title == "images" else "left", no_wrap=True)
    for column in table.columns:
        rich_table.add_column(column.title.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for number, line in enumerate(table.lines):
        cells = [
            Text(column.write(line.values[column.name]), "bold" if table.rank(line, column) == 1 else "")
            for column in table.columns
        ]
        following = table.lines[number + 1 : number + 2]
        ends = bool(following) and following[0].dataset != line.dataset
        dataset, method = (Text(printable(name)) for name in (line.dataset, line.method))
        rich_table.add_row(dataset, str(line.images), method, *cells, end_section=ends)
    console = Console()
    # On a narrow screen lines may wrap, but no digit is lost.
    wanted = Measurement.get(console, console.options.update(max_width=WIDEST), rich_table).maximum
    console.width = max(console.width, wanted)
    console.print(rich_table)
    for note in table.notes:
        console.print(Text(printable(note)), soft_wrap=True)


def table_csv(table: Table) -> str:
    """Returns the table as CSV with all digits, one line for each data set and method."""
    header = ["dataset", "images", "method", *(column.name for column in table.columns)]
    rows = [
        [line.dataset, line.images, line.method, *(line.values[column.name] for column in table.columns)]
        for line in table.lines
    ]
    return write_csv([header, *rows])


def write_csv(rows: Sequence[Sequence[object]]) -> str:
    """Formats rows of cells as CSV; a missing value (NaN) becomes an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    return buffer.getvalue()
