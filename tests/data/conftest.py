"""Folders of small images whose pixels hold their own coordinates."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def coordinates_image(height: int, width: int, mark: int = 0) -> np.ndarray:
    """Makes [H,W,3] uint8 with (row, column, mark), so that a crop tells where it comes from."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns, np.full_like(rows, mark)], axis=-1).astype(np.uint8)


@pytest.fixture
def write_images(tmp_path):
    """A function that writes coordinate images: write_images("HR", ["a.png"], height=32, width=48).

    Images of one size and mark are equal; `first` is the mark of the first name.
    """

    def write(folder: str, names, height: int = 32, width: int = 48, first: int = 0) -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for mark, name in enumerate(names, first):
            Image.fromarray(coordinates_image(height, width, mark)).save(tmp_path / folder / name)
        return tmp_path / folder

    return write
