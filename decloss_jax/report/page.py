"""A page to look at: the table, and details of some images side by side."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decloss_jax.report.table import Table

TEMPLATE = Path(__file__).with_name("page.html")
DETAIL_SIZE = 128  # HR pixels, or the image's smaller side
DETAIL_STEP = 32  # between the places tried


@dataclass(frozen=True)
class Detail:
    """One place of one image.

    Attributes:
        title: the image's name.
        pictures: caption -> uint8 [H,W,3], all of one size.
        links: caption -> the whole picture, relative to the page, where it is written.
    """

    title: str
    pictures: Mapping[str, np.ndarray]
    links: Mapping[str, str]


def find_detail(image: np.ndarray) -> tuple[slice, slice]:
    """Finds the square with the largest variance, where methods differ most; [H,W,3] -> rows, columns."""
    height, width = image.shape[:2]
    size = min(DETAIL_SIZE, height, width)
    places = [
        (slice(top, top + size), slice(left, left + size))
        for top in range(0, height - size + 1, DETAIL_STEP)
        for left in range(0, width - size + 1, DETAIL_STEP)
    ]
    return max(places, key=lambda place: float(np.var(image[place])))


def png_uri(image: np.ndarray) -> str:
    """Encodes uint8 [H,W,3] as a PNG inside a data: address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def render_page(title: str, table: Table, details: Sequence[Detail]) -> str:
    """Returns the HTML page; it needs no other file, and links to the whole pictures beside it."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, table=table, details=details, png_uri=png_uri)
