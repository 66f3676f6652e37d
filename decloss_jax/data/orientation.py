"""Turns pictures upright, by their EXIF orientation."""

from typing import Any

from PIL import Image, ImageFile

ORIENTATION = 0x0112  # EXIF's tag; TURNS says how each of its values but 1 is turned upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # the values that exchange height and width


def turn_upright(image: ImageFile.ImageFile) -> Image.Image:
    """Decodes an image and turns it by its EXIF orientation; Pillow turns a TIFF itself."""
    image.load()
    turn = TURNS.get(1 if image.format == "TIFF" else orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> Any:
    """Returns the EXIF orientation; 1 if there is none. Call it before a TIFF is decoded."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # many kinds, on damaged data
        return 1


def upright_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Returns the height and width of an image that is not decoded yet, once it is turned upright."""
    turned = image.format != "TIFF" and orientation(image) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)
