"""Files of Rankers: RankSRGAN's, our own, and files of other networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.models import Ranker
from decloss_jax.weights import load_ranker, read_torch, save_ranker
from decloss_jax.weights.torch_writer import torch_bytes


@pytest.fixture(scope="module")
def golden_file(shared):
    return shared / "golden" / "comparison" / "ranker_nf16.pth"


def test_load_ranker_describes_the_file(golden_file):
    model, variables, description = load_ranker(golden_file)
    assert model == Ranker(features=16)
    assert description["features"] == 16
    assert description["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    json.dumps(description)


@pytest.mark.parametrize("name", ["r.pth", "r.safetensors"])
def test_save_ranker_gives_back_what_was_loaded(golden_file, tmp_path, name):
    model, variables, _ = load_ranker(golden_file)
    save_ranker(tmp_path / name, model, variables)
    other, loaded, _ = load_ranker(tmp_path / name)
    assert other == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_save_ranker_writes_ranksrgans_names(golden_file, tmp_path):
    model, variables, _ = load_ranker(golden_file)
    save_ranker(tmp_path / "r.pth", model, variables)
    theirs, ours = read_torch(golden_file), read_torch(tmp_path / "r.pth")
    counters = {key for key in theirs if key.endswith("num_batches_tracked")}
    assert ours.keys() == theirs.keys() - counters
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key])


def test_save_ranker_refuses_other_variables(tmp_path):
    model = Ranker(features=4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    with pytest.raises(UserError, match=r"batch_stats/bn0_1/mean with the shape \(4,\) instead of \(8,\)"):
        save_ranker(tmp_path / "r.pth", Ranker(features=8), variables)
    with pytest.raises(UserError, match=r"ending of the weights file"):
        save_ranker(tmp_path / "r.ckpt", model, variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2_0.bias": None}, r"a Ranker whose 'conv2_0.bias' has the shape none instead of \[64\]"),
        ({"bn1_0.weight": np.ones(3, np.float32)}, r"'bn1_0.weight' has the shape \[3\] instead of \[32\]"),
        ({"extra": np.ones(2, np.float32)}, r"'extra' has the shape \[2\] instead of none"),
        ({"classifier.0.weight": None}, r"another network .* RankSRGAN's Ranker"),
        ({"conv5_1.weight": np.ones((1, 1, 4, 4), np.float32)}, r"'conv5_1.weight' .* instead of none"),
    ],
)
def test_load_ranker_says_what_does_not_fit(golden_file, tmp_path, change, message):
    tensors = {k: v for k, v in read_torch(golden_file).items() if not k.endswith("num_batches_tracked")}
    changed = {key: array for key, array in (tensors | change).items() if array is not None}
    (tmp_path / "r.pth").write_bytes(torch_bytes("params", changed, ""))
    with pytest.raises(UserError, match=message):
        load_ranker(tmp_path / "r.pth")
