"""RankSRGAN's Ranker and discriminator against reference values of the authors' networks."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.models import Ranker, VGGDiscriminator
from decloss_jax.weights import load_ranker
from decloss_jax.weights.discriminators import discriminator_variables, ranker_variables

WINDOW = np.s_[:, 60:92, 40:72]  # of the images, where the gradient is stored


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "golden" / "comparison"


@pytest.fixture(scope="module")
def golden(folder):
    with np.load(folder / "ranker_and_discriminator.npz") as arrays:
        return dict(arrays)


def formula(key, shape, seed):
    """The array that stands for a tensor of the full-size networks, a function of its key and shape."""
    noise = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode())).standard_normal(tuple(shape))
    last = key.rsplit(".", 1)[1]
    if last == "running_var":
        noise = np.exp(0.3 * noise)
    elif key.startswith("bn"):
        noise = 0.2 * noise + (last == "weight")
    elif last == "weight":
        noise = 1.4 * noise / np.sqrt(np.prod(shape[1:]))
    else:
        noise = 0.1 * noise
    return np.asarray(noise, np.float32)


def released(folder, network, seed):
    layout = json.loads((folder / "ranksrgan_released_layout.json").read_text())[network]
    return {key: formula(key, shape, seed) for key, shape in layout if not key.endswith("tracked")}


def scores_and_gradient(model, variables, images, *, train):
    """Scores [N], gradient of the sum of their sigmoids, and the running statistics."""

    def total(images):
        scores, moved = model.apply(variables, images, train=train, mutable=["batch_stats"])
        return jax.nn.sigmoid(scores).sum(), (scores[:, 0], moved["batch_stats"])

    (_, (scores, moved)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(images)
    return scores, gradient, moved


def check_close(actual, expected, bound):
    assert np.max(np.abs(np.asarray(actual, np.float64) - expected)) < bound * np.max(np.abs(expected))


@pytest.mark.parametrize(
    ("images", "train"), [("a296", False), ("a296", True), ("b128", True), ("c192x224", False)]
)
def test_ranker_equals_the_reference(folder, golden, images, train):
    model, variables, _ = load_ranker(folder / "ranker_nf16.pth")
    low = golden[f"{images}_uint8"] / np.float32(255)
    scores, gradient, moved = scores_and_gradient(model, variables, low, train=train)
    mode = "train" if train else "eval"
    check_close(scores, golden[f"small/{images}/{mode}"], 5e-5)
    check_close(gradient[WINDOW], golden[f"small/{images}/grad_{mode}_32x32"], 1e-4)
    norm = np.linalg.norm(np.asarray(gradient, np.float64))
    np.testing.assert_allclose(norm, golden[f"small/{images}/grad_{mode}_norm"], rtol=5e-5)
    if train and images == "a296":
        check_statistics(golden, variables["batch_stats"], moved, len(low))


def check_statistics(golden, before, moved, count):
    for name, leaves in moved.items():
        stage, part = map(int, name[2:].split("_"))
        values = count * (296 >> stage + part) ** 2
        old = before[name]["var"]
        # torch multiplies the batch's variance by n / (n - 1).
        variance = 0.9 * old + (leaves["var"] - 0.9 * old) * values / (values - 1)
        for ours, theirs in ((leaves["mean"], "running_mean"), (variance, "running_var")):
            check_close(ours, golden[f"small/a296/after_train:{name}.{theirs}"], 5e-6)


def test_ranker_of_full_size_equals_the_reference(folder, golden):
    model, variables = ranker_variables(released(folder, "ranker", 32))
    assert model == Ranker()
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 13_734_281
    scores = jax.jit(model.apply)(variables, golden["b128_uint8"] / np.float32(255))
    check_close(scores[:, 0], golden["full/b128/eval"], 5e-5)


def test_discriminator_for_296_pixels_equals_the_reference(folder, golden):
    fitting, variables = discriminator_variables(released(folder, "discriminator_296", 33))
    model = VGGDiscriminator(input_size=296, stages=5)
    assert fitting == model.clone(input_size=288)  # the smallest size with a map of 9x9
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 17_827_401
    logits = jax.jit(model.apply)(variables, golden["a296_uint8"] / np.float32(255))
    check_close(logits[:, 0], golden["discriminator_full/a296/eval"], 5e-5)


def test_ranker_uses_running_statistics_unless_told_otherwise(folder):
    model, variables, _ = load_ranker(folder / "ranker_nf16.pth")
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    together = jax.jit(model.apply)(variables, images)
    alone = jax.jit(model.apply)(variables, images[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5)


@pytest.mark.parametrize("size", [(31, 31), (96, 32), (32, 64)])
def test_ranker_refuses_what_the_authors_network_cannot_score(size):
    with pytest.raises(UserError, match=r"images for the Ranker: expected squares of at least 32 pixels"):
        jax.eval_shape(Ranker(4).init, jax.random.key(0), jnp.zeros((1, *size, 3)))
