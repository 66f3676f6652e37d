"""Reads data sets that TensorFlow Datasets has prepared, such as div2k/bicubic_x4, without TensorFlow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decloss_jax import checks
from decloss_jax.data.images import count_pixels, decode_image, refuse_unreadable
from decloss_jax.data.pairs import ImagePair
from decloss_jax.host import files

DESCRIPTION_FILE = "dataset_info.json"  # marks the folder of a prepared version
HR_FEATURES = ("hr", "image")  # the names in div2k, and in data sets of single images
LOW_FEATURE = "lr"
FEATURES_FILE = "features.json"
FEATURE_CLASSES = "tensorflow_datasets.core.features."  # TFDS would import, and so run, any other class
CLASS_KEYS = ("type", "pythonClassName", "python_class_name")  # the keys of class names in features.json
SMALLEST_RECORD = 16  # bytes; a smaller record holds no image


@dataclass(frozen=True)
class Record:
    """One image of one record of a prepared data set."""

    version_folder: Path
    split: str
    index: int
    feature: str
    records: Any = field(repr=False, compare=False)

    def load(self) -> np.ndarray:
        return decode_image(*self.read())

    def pixels(self) -> int:
        return count_pixels(*self.read())

    def read(self) -> tuple[io.BytesIO, str]:
        """Reads the encoded image; returns it with its name for errors."""
        name = f"{self.feature} of record {self.index} in {self.version_folder}"
        with refuse_unreadable(name):
            return io.BytesIO(self.records[self.index][self.feature]), name

    def identity(self) -> str:
        # TFDS never changes a prepared version: preparing it again rewrites its description.
        written = (self.version_folder / DESCRIPTION_FILE).stat().st_mtime_ns
        return f"{self.version_folder.resolve()} {written} {self.split} {self.index} {self.feature}"


def find_records(root: Path, *, scale: int, split: str, archives: str = "") -> list[ImagePair]:
    """Lists the records of a prepared data set with the feature hr (or image) and, if it has it, lr.

    Args:
        root: the folder of a prepared version (with dataset_info.json), or TFDS's data_dir, which holds
            div2k/bicubic_x{s}; its newest version is used.
        scale: s.
        split: "train" or "validation"; returns [] if the data set has no validation split.
        archives: folder of DIV2K's .zip files, from which a missing data set is prepared.

    Raises:
        UserError: no prepared data set, a damaged one, one that is not in the array_record format or has no
            HR images; or as in `tfds_div2k.prepare`.
    """
    import tensorflow_datasets as tfds

    folder = find_version_folder(root, scale, archives)
    with refuse_foreign(folder):
        check_classes(folder)
        builder = tfds.builder_from_directory(folder)
    if split not in builder.info.splits and split == "validation":
        return []
    checks.look_up(builder.info.splits, split, f"split of {folder}")
    file_format = builder.info.file_format.value
    checks.check(
        file_format == "array_record",
        f"data set in {folder}",
        expected="the format array_record, which is read without TensorFlow",
        got=file_format,
        remedy="prepare it with file_format='array_record'",
    )
    features = builder.info.features
    hr_feature = next((name for name in HR_FEATURES if name in features), None)
    low_feature = LOW_FEATURE if LOW_FEATURE in features else None
    if hr_feature is None:
        checks.fail(
            f"data set in {folder}",
            expected=f"a feature {' or '.join(HR_FEATURES)}",
            got=", ".join(features),
            remedy="choose a data set of images, or unpack it and use data.source = 'folder'",
        )
    # TFDS's decoders are skipped, because `decode_image` handles alpha, orientation and 16 bits.
    decoders = {name: tfds.decode.SkipDecoding() for name in (hr_feature, low_feature) if name}
    with refuse_foreign(folder):
        check_files(folder, builder.info.splits[split])
        records = builder.as_data_source(split=split, decoders=decoders)

    def image(index: int, feature: str) -> Record:
        return Record(folder, split, index, feature, records)

    return [
        ImagePair(
            name=f"{index:06}",
            hr=image(index, hr_feature),
            low=image(index, low_feature) if low_feature else None,
        )
        for index in range(len(records))
    ]


@contextmanager
def refuse_foreign(folder: Path) -> Iterator[None]:
    """Turns errors from TFDS into a `UserError` about the data set."""
    try:
        yield
    except Exception as error:  # TFDS raises errors of many kinds on damaged descriptions
        first = str(error).partition("\n")[0][:200]
        checks.fail(
            f"data set in {folder}",
            expected="one that TFDS has prepared",
            got=f"{type(error).__name__}: {first}" if first else type(error).__name__,
            remedy="prepare it again, or unpack the images and use data.source = 'folder'",
        )


def check_classes(folder: Path) -> None:
    """Raises an error unless the description is JSON and names only TFDS's own feature classes.

    TFDS imports the module of every class that features.json names.
    """
    files.read_json(folder / DESCRIPTION_FILE)
    waiting: list[Any] = [files.read_json(folder / FEATURES_FILE)]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            for name in (entry.get(key) for key in CLASS_KEYS):
                if isinstance(name, str) and not name.startswith(FEATURE_CLASSES):
                    raise ValueError(f"a feature of the class {name!r} (which was not imported)")
        waiting += entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []


def check_files(folder: Path, split: Any) -> None:
    """Raises an error unless a split's files lie in the folder and are large enough for its records."""
    paths = [Path(path) for path in split.filepaths]
    if any(path.parent.resolve() != folder.resolve() or path.is_symlink() for path in paths):
        raise ValueError("files that are links, or lie outside its folder")
    size = sum(files.regular(path).stat().st_size for path in paths)
    if split.num_examples * SMALLEST_RECORD > size:
        raise ValueError(f"{split.num_examples:,} records in {size:,} bytes")


def find_version_folder(root: Path, scale: int, archives: str) -> Path:
    """Returns `root` if it holds a prepared version, or the newest one of root/div2k/bicubic_x{s}.

    With `archives`, the folder of DIV2K's .zip files, a missing version is prepared first.
    """
    if (root / DESCRIPTION_FILE).is_file():
        return root
    if not list_versions(root, scale):
        from decloss_jax.data import tfds_div2k

        if not archives:
            checks.fail(
                "data.root",
                expected=f"a prepared data set ({DESCRIPTION_FILE}, or div2k/bicubic_x{scale}/VERSION in it)",
                got=f"none in {str(root)!r}",
                remedy="have it prepared with --config.data.archives=DIR, a folder with "
                f"{tfds_div2k.describe_archives(scale)}, or unpack the images and use data.source = 'folder'",
            )
        tfds_div2k.prepare(root, files.expand(archives), scale=scale)
    return max(list_versions(root, scale), key=lambda folder: version_numbers(folder.name))


def list_versions(root: Path, scale: int) -> list[Path]:
    """Lists the prepared versions of root/div2k/bicubic_x{s}; unfinished ones do not count."""
    files = (root / "div2k" / f"bicubic_x{scale}").glob(f"*/{DESCRIPTION_FILE}")
    return [file.parent for file in files if version_numbers(file.parent.name)]


def version_numbers(version: str) -> list[int]:
    """Splits a version into numbers, so that 2.0.10 comes after 2.0.9."""
    return [int(part) for part in version.split(".") if part.isdecimal()]
