"""Pictures inside a page: which part of an image is shown, and as which bytes."""

import base64
import io
import math

import numpy as np

PAGE_BYTES = 12e6  # of all pictures of a page, about
BYTES_PER_PIXEL = 1.25  # lossless WebP in base64; measured 1.15 on BSD100, HR and bicubic alike in number
SMALLEST_SIDE, LARGEST_SIDE = 128, 512  # of a picture, in HR pixels


def choose_side(pictures: int) -> int:
    """Returns how many pixels a side of each of so many pictures may have, a multiple of 32."""
    side = math.isqrt(int(PAGE_BYTES / BYTES_PER_PIXEL / max(pictures, 1))) // 32 * 32
    return min(max(side, SMALLEST_SIDE), LARGEST_SIDE)


def picture_uri(image: np.ndarray) -> str:
    """Encodes uint8 [H,W,3] without loss, as WebP inside a data: address."""
    from PIL import Image

    buffer = io.BytesIO()
    # Method 2 is three times as fast as Pillow's 4, and 2 % larger.
    Image.fromarray(image).save(buffer, format="WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
