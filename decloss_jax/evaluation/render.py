"""A page to look at: tables that sort, and images on which the methods are compared by eye.

The page is one file. Its Content-Security-Policy names the hashes of the one script and the one style sheet
in it, and admits pictures as data: addresses; nothing else is run or loaded. Marks in names that turn the
direction of writing, and other characters that are not seen, are shown as escapes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decloss_jax.evaluation.table import Table
from decloss_jax.host.console import printable

FOLDER = Path(__file__).parent
LONGEST_SIDE_SHOWN = 576  # a smaller picture is enlarged a whole number of times, as far as it stays below


@dataclass(frozen=True)
class Version:
    """One version of a scene.

    Attributes:
        kind: "bicubic", "method" or "hr".
        name: what it is called on the page.
        uri: the picture as a data: address.
        score: values of the whole image, or empty.
        link: the whole picture's place relative to the page, as it stands in an address, or empty.
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
        part: what is shown of it, in words.
        width: of the pictures, in pixels.
        height: likewise.
        focus: column and row that the magnifier shows at first.
        versions: pictures of one size; HR, where there is one, is the last.
    """

    image: str
    part: str
    width: int
    height: int
    focus: tuple[int, int]
    versions: Sequence[Version]

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height on the page where it is wide enough."""
        factor = max(1, LONGEST_SIDE_SHOWN // max(self.height, self.width))
        return factor * self.width, factor * self.height

    @property
    def pair(self) -> tuple[int, int]:
        """The versions compared at first: the first one and the last method, or else the last version."""
        methods = [i for i, version in enumerate(self.versions) if version.kind == "method"]
        last = len(self.versions) - 1
        return 0, methods[-1] if methods and methods[-1] else last

    @property
    def has_errors(self) -> bool:
        """Whether there are versions and an HR picture to subtract from each."""
        return len(self.versions) > 1 and self.versions[-1].kind == "hr"


@dataclass(frozen=True)
class Section:
    """What the page shows of one data set.

    Attributes:
        dataset: its name.
        images: their number.
        table: the values of the whole set.
        rows: those of each image; without lines where there are none to show.
        scenes: some of the images.
        score_title: what the scores of the versions are.
        remarks: what is missing.
    """

    dataset: str
    images: int
    table: Table
    rows: Table
    scenes: Sequence[Scene] = ()
    score_title: str = ""
    remarks: Sequence[str] = ()


def render_page(title: str, sections: Sequence[Section], notes: Sequence[str]) -> str:
    """Returns the HTML page; it needs no other file, and links to the whole pictures that lie elsewhere."""
    import jinja2
    from markupsafe import Markup

    # Line ends count for the hashes; browsers know "\n" alone.
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
        style=Markup(style),  # ours: the two texts on the page that are no data
        script=Markup(script),
    )


def csp_hash(text: str) -> str:
    """Names a text in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
