"""The layers of SRFlow against reference values of its authors' code."""

import math

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from decloss_jax.models.srflow import flow, layers, start
from decloss_jax.weights import srflow


def difference(got, wanted) -> float:
    """Returns the largest difference relative to the largest value."""
    wanted = np.asarray(wanted, np.float64)
    return float(np.abs(np.asarray(got, np.float64) - wanted).max() / np.abs(wanted).max())


LAYERS = {
    "actnorm": (layers.actnorm, layers.invert_actnorm, {"bias": "bias", "logs": "logs"}),
    "invconv_a": (layers.mixing, layers.invert_mixing, {"matrix": "weight"}),
    "invconv_b": (layers.mixing, layers.invert_mixing, {"matrix": "weight"}),
}


def layer_params(golden, name, table):
    """Takes a layer's parameters out of the reference values: nested, kernels HWIO, no axes of length 1."""
    flat = {}
    for ours, theirs in table.items():
        array = golden[f"{name}/param/{theirs}"]
        kernel = ours.endswith("kernel")
        flat[ours] = array.transpose(2, 3, 1, 0) if kernel else array if array.ndim == 2 else array.ravel()
    return unflatten_dict(flat, sep="/")


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_authors(name, shared):
    golden = np.load(shared / "golden/comparison/srflow_layers.npz")
    layer, inverse, table = LAYERS[name]
    params = layer_params(golden, name, table)
    y, log_det = layer(params, golden[f"{name}/in"])
    assert difference(y, golden[f"{name}/out"]) < 1e-6
    np.testing.assert_allclose(10.0 + log_det, golden[f"{name}/logdet"][0], rtol=1e-6)
    np.testing.assert_allclose(inverse(params, y), golden[f"{name}/in"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [12, 7])
def test_injector_and_coupling_equal_the_authors(channels, shared):
    golden, name = np.load(shared / "golden/comparison/srflow_layers.npz"), f"coupling_{channels}"
    inject, couple = (
        layer_params(golden, name, {ours: f"{f}.{theirs}" for ours, theirs in srflow.NETWORK.items()})
        for f in ("fFeatures", "fAffine")
    )
    x, condition = golden[f"{name}/in"], golden[f"{name}/ft"]
    shift, scale = layers.shift_and_scale(inject, condition)
    assert difference(shift, golden[f"{name}/inj_shift"]) < 1e-6
    assert difference(scale, golden[f"{name}/inj_scale"]) < 1e-6
    middle, of_injector = layers.injector(inject, x, condition)
    assert difference(middle, golden[f"{name}/after_injector"]) < 1e-6
    y, of_coupling = layers.coupling(couple, middle, condition)
    assert difference(y, golden[f"{name}/out"]) < 1e-6
    np.testing.assert_allclose(10.0 + of_injector + of_coupling, golden[f"{name}/logdet"], rtol=1e-6)
    back = layers.invert_injector(inject, layers.invert_coupling(couple, y, condition), condition)
    np.testing.assert_allclose(back, x, rtol=0, atol=2e-6)


def test_split_equals_the_authors(shared):
    golden = np.load(shared / "golden/comparison/srflow_layers.npz")
    params = layer_params(golden, "split", srflow.SPLIT)
    kept, eps, log_det = layers.split(params, golden["split/in"])
    assert difference(kept, golden["split/out"]) < 1e-6
    assert difference(eps, golden["split/eps"]) < 1e-6
    density = -np.sum(eps**2 + math.log(2 * math.pi), axis=(1, 2, 3)) / 2
    np.testing.assert_allclose(10.0 + log_det + density, golden["split/logdet"], rtol=1e-6)
    np.testing.assert_allclose(layers.invert_split(params, kept, eps), golden["split/in"], rtol=0, atol=2e-6)


def test_squeeze_orders_channels_as_the_authors(shared):
    golden = np.load(shared / "golden/comparison/srflow_layers.npz")
    np.testing.assert_array_equal(flow.pixel_unshuffle(golden["squeeze/in"], 2), golden["squeeze/out"])


def test_fit_actnorm_survives_a_flat_channel(shared):
    golden = np.load(shared / "golden/comparison/srflow_layers.npz")
    fitted = start.fit_actnorm(golden["actnorm_init/in"])
    for name in ("bias", "logs"):
        np.testing.assert_allclose(fitted[name], golden[f"actnorm_init/{name}"].ravel(), rtol=0, atol=1e-5)
