"""Copies EXIF data from one picture file to another, each value byte for byte.

Pillow decodes the values and encodes them again. That destroys texts that are not ASCII and fails for values
that do not suit their tags. Here a value is only a type, a count and its bytes. The layout is from TIFF 6.0,
section 2 (BigTIFF has fields twice as wide); the types are from EXIF 3.0, 4.6.2.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from PIL import ExifTags, ImageFile

from decloss_jax.host import console

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 129: 1}  # type -> bytes
SHORT, LONG, RATIONAL = 3, 4, 5
# First four bytes -> byte order, and struct's letters for an offset and for a number of entries.
HEADERS = {
    b"II*\0": ("<", "I", "H"),
    b"MM\0*": (">", "I", "H"),
    b"II+\0": ("<", "Q", "Q"),
    b"MM\0+": (">", "Q", "Q"),
}
PREFIX = b"Exif\0\0"  # precedes the data in JPEG, and in some PNG and WebP files
MOST_ENTRIES = 1024  # per directory
LARGEST_VALUE = 65_535  # bytes, the size of a JPEG segment
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
INCHES = {2: Fraction(1), 3: Fraction(254, 100)}  # unit -> dots per inch for one dot per unit

# The EXIF data that remain true of a larger picture: who made it, when, where and how. The pixels are turned
# upright, so the orientation is dropped; so are sizes, previews, and makers' notes with offsets into the old
# file.
KEPT_TAGS = {
    "ImageDescription": 270,
    "Make": 271,
    "Model": 272,
    "DateTime": 306,
    "Artist": 315,
    "Copyright": 33432,
}
KEPT_BLOCKS = {"Exif": 0x8769, "GPSInfo": 0x8825}
DROPPED_TAGS = {"MakerNote": 0x927C, "ExifImageWidth": 0xA002, "ExifImageHeight": 0xA003, "Interop": 0xA005}


@dataclass(frozen=True)
class Value:
    """A value in the file's encoding: type, count and bytes."""

    kind: int
    count: int
    content: bytes


@dataclass(frozen=True)
class Exif:
    """EXIF data.

    Attributes:
        order: the byte order, "<" or ">".
        tags: the values of the main directory.
        blocks: the values of the directories that tags of the main one point to.
        damaged: the tags whose value lies outside the data or has an unknown type.
    """

    order: str = "<"
    tags: Mapping[int, Value] = field(default_factory=dict)
    blocks: Mapping[int, Mapping[int, Value]] = field(default_factory=dict)
    damaged: tuple[int, ...] = ()


def read_exif(image: ImageFile.ImageFile, path: Path) -> tuple[bytes | None, tuple[float, float] | None]:
    """Returns the EXIF data that remain true, and the resolution; drops damaged data with a message."""
    try:
        data = raw_exif(image, path)
        found = parse(data) if data else Exif()
    except ValueError as error:
        console.say(f"{path}: its EXIF data are damaged ({error}) and dropped")
        return None, None
    damaged = [tag for tag in found.damaged if tag not in DROPPED_TAGS.values()]
    dpi = None
    try:
        dpi = resolution(found)
    except ValueError:
        damaged.append(X_RESOLUTION)
    if damaged and image.format != "TIFF":  # most tags of a TIFF are not EXIF data
        names = ", ".join(str(ExifTags.TAGS.get(tag, tag)) for tag in damaged)
        console.say(f"{path}: its EXIF data have an invalid value ({names}), which is dropped")
    kept = Exif(
        found.order,
        {tag: found.tags[tag] for tag in KEPT_TAGS.values() if tag in found.tags},
        {
            block: {tag: value for tag, value in values.items() if tag not in DROPPED_TAGS.values()}
            for block, values in found.blocks.items()
        },
    )
    kept = replace(kept, blocks={block: values for block, values in kept.blocks.items() if values})
    return (encode(kept) if kept.tags or kept.blocks else None), dpi


def raw_exif(image: ImageFile.ImageFile, path: Path) -> bytes | mmap.mmap | None:
    """Returns the bytes of a picture's EXIF data; for TIFF that is the whole file."""
    if image.format == "TIFF":
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    image.load()  # PNG may have them after the pixels
    data = image.info.get("exif")
    text = image.info.get("Raw profile type exif")  # ImageMagick's form: three lines, then digits
    return bytes.fromhex("".join(text.split("\n")[3:])) if data is None and text else data


def parse(data: bytes | mmap.mmap) -> Exif:
    """Parses EXIF data, or a whole TIFF file, whose main directory holds them.

    Args:
        data: the bytes from the TIFF header on, with or without `PREFIX`.

    Raises:
        ValueError: no TIFF header, or a directory outside the data.
    """
    if data[: len(PREFIX)] == PREFIX:
        data = data[len(PREFIX) :]
    if data[:4] not in HEADERS:
        raise ValueError("they do not begin with a TIFF header")
    order, wide, narrow = HEADERS[data[:4]]
    damaged: list[int] = []

    def number(letter: str, position: int) -> int:
        try:
            return struct.unpack_from(order + letter, data, position)[0]
        except struct.error:
            raise ValueError("they end too early") from None

    def directory(start: int) -> dict[int, Value]:
        size = struct.calcsize("=" + wide)
        values: dict[int, Value] = {}
        for entry in range(min(number(narrow, start), MOST_ENTRIES)):
            place = start + struct.calcsize("=" + narrow) + entry * (4 + 2 * size)
            tag, kind, count = number("H", place), number("H", place + 2), number(wide, place + 4)
            length = SIZES.get(kind, 0) * count
            inside = place + 4 + size
            position = inside if length <= size else number(wide, inside)
            if 0 < length <= min(LARGEST_VALUE, len(data) - position):
                values.setdefault(tag, Value(kind, count, bytes(data[position : position + length])))
            else:
                damaged.append(tag)
        return values

    tags = directory(number(wide, 4 if wide == "I" else 8))
    found: dict[int, dict[int, Value]] = {}
    for block in KEPT_BLOCKS.values():
        value = tags.pop(block, None)
        if value is not None:
            try:
                found[block] = directory(int.from_bytes(value.content, "little" if order == "<" else "big"))
            except ValueError:
                damaged.append(block)
    return Exif(order, tags, found, tuple(damaged))


def encode(exif: Exif) -> bytes:
    """Encodes EXIF data, without `PREFIX`; the inverse of `parse`."""
    order = exif.order
    written = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8))

    def directory(values: Mapping[int, Value]) -> int:
        """Appends a directory with its values, and returns its offset."""
        start, end = len(written), len(written) + 6 + 12 * len(values)
        entries, outside = bytearray(struct.pack(f"{order}H", len(values))), bytearray()
        for tag, value in sorted(values.items()):
            content = value.content
            if len(content) > 4:
                content = struct.pack(f"{order}I", end + len(outside))
                outside += value.content + bytes(len(value.content) % 2)
            entries += struct.pack(f"{order}HHI", tag, value.kind, value.count) + content.ljust(4, b"\0")
        written.extend(entries + bytes(4) + outside)
        return start

    pointers = {block: Value(LONG, 1, bytes(4)) for block in exif.blocks}
    directory({**exif.tags, **pointers})
    places = {block: directory(values) for block, values in exif.blocks.items()}
    for entry, tag in enumerate(sorted({**exif.tags, **pointers})):
        if tag in places:
            struct.pack_into(f"{order}I", written, 8 + 2 + 12 * entry + 8, places[tag])
    return bytes(written)


def resolution(exif: Exif) -> tuple[float, float] | None:
    """Returns the dots per inch along width and height; None if the data have none.

    Raises:
        ValueError: a value that is not a resolution.
    """
    if X_RESOLUTION not in exif.tags or Y_RESOLUTION not in exif.tags:
        return None
    unit = exif.tags.get(RESOLUTION_UNIT)
    per_inch = INCHES.get(int(_number(exif.order, unit)) if unit else 2)
    if per_inch is None:
        return None
    x, y = (_number(exif.order, exif.tags[tag]) * per_inch for tag in (X_RESOLUTION, Y_RESOLUTION))
    if x <= 0 or y <= 0:
        raise ValueError("no resolution")
    return float(x), float(y)


def _number(order: str, value: Value) -> Fraction:
    letters = {SHORT: "H", LONG: "I", RATIONAL: "II"}.get(value.kind)
    if letters is None or value.count != 1:
        raise ValueError("no positive number")
    numerator, denominator = (*struct.unpack(order + letters, value.content), 1)[:2]
    if denominator == 0:
        raise ValueError("a division by zero")
    return Fraction(numerator, denominator)


def with_resolution(data: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Adds a resolution to EXIF data, for a format that has no other field for it."""
    exif = parse(data) if data else Exif()
    x, y = (
        Value(
            RATIONAL,
            1,
            struct.pack(f"{exif.order}II", *Fraction(side).limit_denominator(10_000).as_integer_ratio()),
        )
        for side in dpi
    )
    unit = Value(SHORT, 1, struct.pack(f"{exif.order}H", 2))
    tags = {**exif.tags, X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: unit}
    return encode(Exif(exif.order, tags, exif.blocks))
