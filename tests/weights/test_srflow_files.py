"""Files of SRFlow: the authors' names, and the sizes that the shapes determine."""

import json

import jax
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.models import SRFlow
from decloss_jax.weights import describe, load_generator, read_torch, save_generator, srflow
from decloss_jax.weights.pickles import Refusal


@pytest.fixture
def file(shared):
    return shared / "golden/comparison/srflow_small_x4.pth"


def test_load_generator_tells_the_sizes_of_srflow(file):
    model, _, description = load_generator(file, stacked_blocks=(0, 2))
    assert model == SRFlow(
        features=16, blocks=3, growth=8, stacked_blocks=(0, 2), flow_steps=3, transitions=2, hidden=16
    )
    assert description["model"] == "srflow"
    assert description["dialect"] == "SRFlow"
    assert json.loads(json.dumps(description))["stacked_blocks"] == [0, 2]
    assert "SRFlow x4, 3 blocks, 16 features" in describe(description)


@pytest.mark.parametrize("blocks", [None, (0,), (0, 3)])
def test_load_generator_wants_stacked_blocks_that_fit(file, blocks):
    with pytest.raises(UserError, match=r"stacked_blocks: expected 2 numbers from 0 to 2"):
        load_generator(file, stacked_blocks=blocks)


def test_stacked_blocks_belong_to_srflow(shared):
    with pytest.raises(UserError, match="stacked_blocks"):
        load_generator(shared / "golden/edsr_small_x4.pth", stacked_blocks=(0, 2))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_save_generator_keeps_srflow(file, tmp_path, ending):
    model, params, _ = load_generator(file, stacked_blocks=(0, 2))
    save_generator(tmp_path / f"flow{ending}", model, params)
    same, again, _ = load_generator(tmp_path / f"flow{ending}")
    assert same == model
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_from_params_gives_the_released_names(shared):
    layout = json.loads((shared / "golden/comparison/srflow_released_layout.json").read_text())
    shapes = {key: tuple(shape) for key, shape in layout}
    model = SRFlow()
    tensors = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    assert srflow.read_model(tensors, model.stacked_blocks) == model
    written = srflow.from_params(model, srflow.to_params(model, tensors))
    assert {key: array.shape for key, array in written.items()} == shapes


def test_from_params_inverts_to_params(file):
    tensors = read_torch(file)
    model = srflow.read_model(tensors, (0, 2))
    written = srflow.from_params(model, srflow.to_params(model, tensors))
    for key, array in tensors.items():
        if not key.startswith(srflow.UNUSED):
            np.testing.assert_array_equal(written[key], array, err_msg=key)


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("flowUpsamplerNet.layers.6.conv.logs", None, r"without 'flowUpsamplerNet.layers.6.conv.logs"),
        ("RRDB.trunk_conv.bias", None, r"without 'RRDB.trunk_conv.bias"),
        ("flowUpsamplerNet.layers.3.actnorm.bias", lambda x: x.ravel(), r"shape \[12\]"),
        ("flowUpsamplerNet.layers.3.actnorm.logs", lambda x: x * np.nan, "not finite"),
        ("flowUpsamplerNet.layers.14.invconv.weight", lambda x: x[:8, :8], "levels have"),
        ("RRDB.conv_first.weight", lambda x: x[0], "shape"),
    ],
)
def test_damaged_srflow_is_refused_by_name(file, key, change, words):
    tensors = read_torch(file)
    if change is None:
        del tensors[key]
    else:
        tensors[key] = change(tensors[key])
    with pytest.raises(Refusal, match=words):
        srflow.to_params(srflow.read_model(tensors, (0, 2)), tensors)


def test_an_unknown_key_beside_srflow_is_refused(file):
    tensors = read_torch(file) | {"flowUpsamplerNet.g.weight": np.zeros(3, np.float32)}
    with pytest.raises(Refusal, match=r"unknown 'flowUpsamplerNet.g.weight"):
        srflow.to_params(srflow.read_model(tensors, (0, 2)), tensors)
