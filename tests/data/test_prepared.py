"""Data sets prepared by TensorFlow Datasets; they are made here, without TensorFlow."""

import io
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from image_lists import list_images
from PIL import Image

from decloss_jax.checks import UserError

RNG = np.random.default_rng(0)
HR = RNG.integers(0, 256, size=(3, 16, 24, 3), dtype=np.uint8)
LOW = RNG.integers(0, 256, size=(3, 4, 6, 3), dtype=np.uint8)


class Pairs(tfds.core.GeneratorBasedBuilder):
    """Three training records and one for validation, with the feature names of div2k."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = ("hr", "lr")

    def _info(self):
        features = {name: tfds.features.Image() for name in self.FEATURES}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(3), "validation": self._generate_examples(1)}

    def _generate_examples(self, count):
        for i in range(count):
            images = {"hr": HR[i], "lr": LOW[i], "picture": HR[i]}
            yield i, {name: Image.fromarray(images[name]) for name in self.FEATURES}


class Pictures(Pairs):
    FEATURES = ("picture",)


def prepare(builder_class, folder):
    builder = builder_class(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(Pairs, tmp_path_factory.mktemp("pairs"))


def list_prepared(root, split="train", scale=4):
    return list_images(root, split, scale=scale, source="tfds")


def test_tfds_source_reads_every_record(prepared):
    pairs = list_prepared(prepared)
    assert len({pair.name for pair in pairs}) == 3
    found = {pair.hr.load().tobytes(): pair.low.load().tobytes() for pair in pairs}
    assert found == {hr.tobytes(): low.tobytes() for hr, low in zip(HR, LOW, strict=True)}
    assert len({image.identity() for pair in pairs for image in (pair.hr, pair.low)}) == 6
    (validation,) = list_prepared(prepared, "validation")
    np.testing.assert_array_equal(validation.load(4)[1], HR[0])
    assert "tensorflow" not in sys.modules


def test_tfds_source_finds_the_newest_div2k_under_data_dir(prepared, tmp_path):
    for version in ("2.0.9", "2.0.10"):
        folder = tmp_path / "div2k" / "bicubic_x4" / version
        folder.mkdir(parents=True)
        for file in prepared.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    assert {pair.hr.version_folder.name for pair in list_prepared(tmp_path)} == {"2.0.10"}


def test_tfds_source_without_validation_split_is_empty(prepared, tmp_path):
    for file in prepared.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    description = json.loads((tmp_path / "dataset_info.json").read_text())
    description["splits"] = [split for split in description["splits"] if split["name"] == "train"]
    (tmp_path / "dataset_info.json").write_text(json.dumps(description))
    assert list_prepared(tmp_path, "validation") == []
    assert len(list_prepared(tmp_path)) == 3


def test_tfds_source_tells_how_to_prepare(tmp_path):
    with pytest.raises(UserError, match=r"data.root: .*data\.archives=.*data.source = 'folder'"):
        list_prepared(tmp_path, scale=3)


def test_tfds_source_refuses_another_format(prepared, tmp_path):
    text = (prepared / "dataset_info.json").read_text().replace("array_record", "tfrecord")
    (tmp_path / "dataset_info.json").write_text(text)
    (tmp_path / "features.json").write_bytes((prepared / "features.json").read_bytes())
    with pytest.raises(UserError, match=r"expected the format array_record.*got tfrecord"):
        list_prepared(tmp_path)


def test_tfds_source_refuses_data_without_known_image_features(tmp_path):
    with pytest.raises(UserError, match=r"expected a feature hr or image, got picture"):
        list_prepared(prepare(Pictures, tmp_path))


def test_tfds_record_is_named_when_it_is_refused(prepared):
    class Broken:
        def __getitem__(self, index):
            image = Image.fromarray(np.zeros((4, 4, 4), np.uint8))  # transparent
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return {"hr": buffer.getvalue()}

    record = list_prepared(prepared)[1].hr
    object.__setattr__(record, "records", Broken())
    with pytest.raises(UserError, match=r"hr of record 1 in .*: expected an opaque image"):
        record.load()
