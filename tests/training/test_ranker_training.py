"""The Ranker's update: against torch in float64, on several devices; and the share it ranks rightly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.table3 import ranker
from decloss_jax.data.cache import DecodedImage, write_array
from decloss_jax.host import parallel
from decloss_jax.models import Ranker
from decloss_jax.training.ranked_windows import RankedWindows
from decloss_jax.training.ranker import (
    build_ranker_optimizer,
    compile_judge,
    draw_ranker,
    make_ranker_step,
    measure_ranker,
    start_ranker,
    update_ranker,
)
from decloss_jax.weights.discriminators import ranker_tensors, ranker_variables

MODEL = Ranker(features=2)
RATE = 1e-3
OPTIMIZER = build_ranker_optimizer(ranker.get_config())


def pairs(step: int, count: int = 8, side: int = 32) -> dict[str, np.ndarray]:
    """Images of which the noisier one should have the higher score."""
    rng = np.random.default_rng(step)
    clean = np.kron(rng.integers(60, 200, (count, 4, 4, 3)), np.ones((1, side // 4, side // 4, 1)))
    noisy = np.clip(clean + rng.normal(0, 40, clean.shape), 0, 255)
    target = rng.choice([-1, 1], (count, 1)).astype(np.float32)
    noisy_first = target[:, :, None, None] > 0
    first, second = np.where(noisy_first, noisy, clean), np.where(noisy_first, clean, noisy)
    return {"first": first.astype(np.uint8), "second": second.astype(np.uint8), "target": target}


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(lambda: draw_ranker(MODEL, 0))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("mean", "bias"):  # only its decay moves a bias before a batch norm
            return rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        if path[-1].key in ("var", "scale"):
            return np.ones(leaf.shape, np.float32)
        return (rng.normal(0, 1, leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def torch_updates(variables, batches):
    """The authors' training in torch, float64: parameters and running statistics after the updates."""
    torch = pytest.importorskip("torch")
    from decloss_jax.compare_torch.torch_networks import Ranker as TorchRanker

    network = TorchRanker(MODEL.features).double()
    tensors = {key: torch.tensor(array) for key, array in ranker_tensors(MODEL, variables).items()}
    assert not network.load_state_dict(tensors, strict=False).unexpected_keys
    network.train()
    adam = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=1e-4)
    criterion, losses = torch.nn.MarginRankingLoss(margin=0.5), []
    for batch in batches:
        images = (batch[side].transpose(0, 3, 1, 2) / np.float32(255) for side in ("first", "second"))
        first, second = (network(torch.tensor(each).double()).clamp(-5, 5) for each in images)
        loss = criterion(first, second, torch.tensor(batch["target"]).double())
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    return losses, ranker_variables({key: value for key, value in state.items() if "tracked" not in key})[1]


def test_updates_equal_torchs(variables):
    batches = [pairs(step) for step in range(3)]
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        state, losses = start_ranker(exact, OPTIMIZER), []
        step = jax.jit(lambda state, batch: update_ranker(MODEL, OPTIMIZER, lambda done: RATE, state, batch))
        for batch in batches:
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss/total"]))
        ours = jax.device_get(state.params)
    their_losses, theirs = torch_updates(variables, batches)
    np.testing.assert_allclose(losses, their_losses, rtol=0, atol=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(ours):
        other, before = theirs, variables
        for key in path:
            other, before = other[key.key], before[key.key]
        if path[-1].key == "var":  # torch multiplies the variance of n values by n / (n - 1)
            stage, part = map(int, path[-2].key[2:].split("_"))
            values = 8 * (32 >> stage + part) ** 2
            left = 0.9 ** (2 * len(batches))  # of the initial ones
            leaf = left + (leaf - left) * values / (values - 1)
        moved = np.abs(other - before).max()
        assert moved > 1e-3, path
        np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-4 * moved, err_msg=str(path))


def train(variables, devices: int, steps: int):
    mesh = parallel.data_mesh(jax.devices()[:devices])
    step = make_ranker_step(MODEL, OPTIMIZER, optax.constant_schedule(1e-3), mesh)
    copies = jax.device_put(variables, parallel.replicated(mesh))
    state = jax.jit(lambda v: start_ranker(v, OPTIMIZER), out_shardings=parallel.replicated(mesh))(copies)
    history = []
    for index in range(steps):
        state, metrics = step(state, parallel.shard_batch(pairs(index), mesh))
        history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state.params), history


def test_ranker_learns_the_same_on_two_devices(variables):
    one, history = train(variables, 1, 20)
    two, other_history = train(variables, 2, 20)
    assert history[0]["loss/total"] == pytest.approx(other_history[0]["loss/total"], rel=1e-5)
    assert history[-1]["loss/total"] < 0.7 * history[0]["loss/total"]
    assert history[-1]["ranked_rightly"] > 0.8
    assert all(each["finite"] for each in history)
    difference = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True)]
    assert max(difference) < 1e-2  # twenty updates of 1e-3


def test_measure_ranker_counts_the_pairs_in_order(tmp_path):
    levels = np.array([10, 20, 30], np.uint8)
    array = np.broadcast_to(levels[:, None, None, None], (3, 8, 24, 3))
    write_array(tmp_path / "sr.npy", array)
    image = DecodedImage(tmp_path / "sr.npy", np.load(tmp_path / "sr.npy", mmap_mode="r").offset, array.shape)
    niqe = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])  # 3, 0 and 2 pairs rise
    windows = RankedWindows(8, (image,), np.array([[0, 0, 0], [0, 0, 8], [0, 0, 16]]), niqe)

    def mean(variables, images):
        return images.mean(axis=(1, 2, 3))

    def measure(windows, stopped=lambda: False):
        return measure_ranker(mean, None, windows, show=lambda name, strip: None, stopped=stopped)

    assert measure(windows) == {"ranked_rightly": pytest.approx(5 / 9)}
    assert measure(windows.choose(np.zeros(3, bool))) == {}
    assert measure(windows, stopped=lambda: True) is None


def test_judge_uses_the_running_statistics(variables):
    images = pairs(0)["first"][:3]
    scores = compile_judge(MODEL)(variables, images)
    alone = [compile_judge(MODEL)(variables, image[None])[0] for image in images]
    np.testing.assert_allclose(scores, alone, rtol=1e-4, atol=1e-5)
