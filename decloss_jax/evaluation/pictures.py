"""Pictures inside a page: their size, and their encoding."""

import base64
import io
import math

import numpy as np

PAGE_BYTES = 12e6  # approximately, for all pictures of a page
BYTES_PER_PIXEL = 1.25  # lossless WebP in base64; BSD100's HR and bicubic images need 1.15 on average
SMALLEST_SIDE, LARGEST_SIDE = 128, 512  # HR pixels


def choose_side(pictures: int) -> int:
    """Returns the side in pixels, a multiple of 32, for a page with so many pictures."""
    side = math.isqrt(int(PAGE_BYTES / BYTES_PER_PIXEL / max(pictures, 1))) // 32 * 32
    return min(max(side, SMALLEST_SIDE), LARGEST_SIDE)


def picture_uri(image: np.ndarray) -> str:
    """Encodes uint8 [H,W,3] losslessly, as WebP in a data: URI."""
    from PIL import Image

    buffer = io.BytesIO()
    # Method 2 is three times as fast as Pillow's default 4, and its files are 2 % larger.
    Image.fromarray(image).save(buffer, format="WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
