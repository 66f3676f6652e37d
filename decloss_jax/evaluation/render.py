"""Renders the report page: sortable tables, and images to compare the methods by eye.

The page is one file. Its Content-Security-Policy allows its own script and style sheet by their hashes, and
pictures as data: URIs; nothing else is run or loaded. Names are shown with escapes for invisible characters,
such as those that reverse the direction of writing.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decloss_jax.evaluation.table import Table
from decloss_jax.host.console import printable

FOLDER = Path(__file__).parent
LONGEST_SIDE_SHOWN = 576  # smaller pictures are enlarged by the largest integer factor up to this side


@dataclass(frozen=True)
class Version:
    """One version of a scene.

    Attributes:
        kind: "bicubic", "method" or "hr".
        name: its name on the page.
        uri: the picture as a data: URI.
        score: the values of the whole image, or empty.
        link: the URL of the whole picture relative to the page, or empty.
    """

    kind: str
    name: str
    uri: str
    score: str = ""
    link: str = ""


@dataclass(frozen=True)
class Scene:
    """One image, or a detail of it.

    Attributes:
        image: its name.
        part: the shown part, in words.
        width: the width of the pictures in pixels.
        height: their height in pixels.
        focus: column and row that the magnifier shows at first.
        versions: pictures of one size; HR, if there is one, is the last.
    """

    image: str
    part: str
    width: int
    height: int
    focus: tuple[int, int]
    versions: Sequence[Version]

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height on a page that is wide enough."""
        factor = max(1, LONGEST_SIDE_SHOWN // max(self.height, self.width))
        return factor * self.width, factor * self.height

    @property
    def pair(self) -> tuple[int, int]:
        """The versions compared at first: the first version, and the last method or else the last version."""
        methods = [i for i, version in enumerate(self.versions) if version.kind == "method"]
        last = len(self.versions) - 1
        return 0, methods[-1] if methods and methods[-1] else last

    @property
    def has_errors(self) -> bool:
        """Whether there are versions and an HR picture to subtract from each."""
        return len(self.versions) > 1 and self.versions[-1].kind == "hr"


@dataclass(frozen=True)
class Section:
    """The section of the page for one data set.

    Attributes:
        dataset: its name.
        images: the number of images.
        table: the values of the whole set.
        rows: the values of each image; without lines if the page shows none.
        scenes: some of the images.
        score_title: the title of the scores.
        remarks: sentences about missing parts.
    """

    dataset: str
    images: int
    table: Table
    rows: Table
    scenes: Sequence[Scene] = ()
    score_title: str = ""
    remarks: Sequence[str] = ()


def render_page(title: str, sections: Sequence[Section], notes: Sequence[str]) -> str:
    """Returns the HTML page. It needs no other file, and links to the whole pictures in theirs."""
    import jinja2
    from markupsafe import Markup

    # The hashes depend on line ends, which browsers normalise to "\n".
    style, script = (
        (FOLDER / name).read_text(encoding="utf-8").replace("\r\n", "\n") for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {csp_hash(style)}; script-src {csp_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )

    def without_controls(value: object) -> object:
        return printable(value) if type(value) is str else value  # Markup is another type

    environment = jinja2.Environment(
        autoescape=True,
        finalize=without_controls,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.from_string((FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        sections=sections,
        notes=notes,
        policy=policy,
        style=Markup(style),  # our own files, so the only two texts that are not escaped
        script=Markup(script),
    )


def csp_hash(text: str) -> str:
    """Returns the source expression for a text in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
