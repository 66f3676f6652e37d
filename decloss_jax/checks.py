"""Checks of user input, and the one place that words the errors.

Every message has one pattern: subject, expected, got, what to change. The command line prints it as one
sentence and exits with status 2; anything that is not a `UserError` is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

Entry = TypeVar("Entry")
LONGEST_GOT = 2000  # characters; a file can hold a longer value


class UserError(ValueError):
    """A user's mistake; its text is one sentence that says how to correct it."""


def fail(subject: str, *, expected: str, got: object, remedy: str) -> NoReturn:
    """Raises `UserError` with a message of the pattern: subject, expected, got, what to change."""
    found = str(got)
    found = found if len(found) <= LONGEST_GOT else f"{found[:LONGEST_GOT]} ..."
    raise UserError(f"{subject}: expected {expected}, got {found}; {remedy}.")


def check(condition: bool, subject: str, *, expected: str, got: object, remedy: str) -> None:
    """Raises `UserError` unless `condition` holds."""
    if not condition:
        fail(subject, expected=expected, got=got, remedy=remedy)


def check_images(name: str, images: Any, channels: int | None = None) -> None:
    """Raises `UserError` unless `images` has the shape [N,H,W,C], with `channels` channels if given."""
    shape = tuple(images.shape)
    wanted = "[N,H,W,C]" if channels is None else f"[N,H,W,{channels}]"
    fits = len(shape) == 4 and (channels is None or shape[-1] == channels)
    check(
        fits,
        name,
        expected=f"shape {wanted}",
        got=f"shape {list(shape)}",
        remedy="add the batch axis in front and keep the channels last",
    )


def check_uint8_image(name: str, image: Any) -> None:
    """Raises `UserError` unless `image` is uint8 of the shape [H,W,3]."""
    check(
        image.dtype == "uint8" and image.ndim == 3 and image.shape[-1] == 3,
        name,
        expected="uint8 of shape [H,W,3]",
        got=f"{image.dtype} of shape {list(image.shape)}",
        remedy="quantize with decloss_jax.ops.quantize.to_uint8 and pass one image at a time",
    )


def check_same_shape(name: str, array: Any, other_name: str, other: Any) -> None:
    """Raises `UserError` unless the two arrays have equal shapes."""
    check(
        tuple(array.shape) == tuple(other.shape),
        f"{name} and {other_name}",
        expected="equal shapes",
        got=f"{list(array.shape)} and {list(other.shape)}",
        remedy="crop or resize one of them so that their shapes match",
    )


def check_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raises `UserError` unless `divisor` is positive and divides `value`."""
    check(
        divisor > 0 and value % divisor == 0,
        name,
        expected=f"a multiple of {divisor_name} ({divisor})",
        got=value,
        remedy=f"change {name} or {divisor_name}",
    )


def check_positive(name: str, value: float) -> None:
    """Raises `UserError` unless `value` is above zero."""
    check(value > 0, name, expected="a value above 0", got=value, remedy=f"raise {name}")


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises `UserError` unless low <= value <= high."""
    wanted = f"{low} or more" if high == float("inf") else f"{low} to {high}"
    check(low <= value <= high, name, expected=wanted, got=value, remedy=f"change {name}")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Returns " (nearest: x)" for the candidate most similar to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f" (nearest: {close[0]})" if close else ""


def look_up(table: Mapping[Any, Entry], name: Any, kind: str) -> Entry:
    """Returns `table[name]`; raises `UserError` with the list of names if it is missing."""
    if name not in table:
        fail(
            kind,
            expected=f"one of {', '.join(map(str, table))}",
            got=repr(name),
            remedy=f"choose a listed {kind}{nearest(str(name), map(str, table))}",
        )
    return table[name]
