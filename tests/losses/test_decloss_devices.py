"""DECLoss spread over devices and processes: the same value and gradient, one gather, work as 1/devices."""

import functools
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from decloss_jax.losses.contrast import contrast_terms
from decloss_jax.losses.decloss import decloss_terms

OPTIONS = {
    "patch_size": 8,
    "alpha": 1.0,
    "mu": 8.0,
    "mode": "multiply",
    "threshold_db": 7.0,
    "t_pos": 0.5,
    "t_neg": 1.5,
    "tile_size": 16,
}
LOSS = partial(decloss_terms, **OPTIONS)


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    hr = rng.random((8, 32, 40, 3)) * rng.uniform(0.1, 1.0, (8, 1, 1, 1))
    sr = hr + 0.1 * rng.standard_normal(hr.shape)
    return sr.astype(np.float32), hr.astype(np.float32)


def spread(devices: int, form: Callable = LOSS):
    """The global loss, computed by `devices` devices."""
    mesh = Mesh(jax.devices()[:devices], ("data",))
    local = partial(form, axis_name="data")
    return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())


@functools.cache
def compiled(devices: int) -> jax.stages.Compiled:
    """Value and gradient, compiled for `devices` devices."""
    return jax.jit(jax.value_and_grad(spread(devices), has_aux=True)).lower(*images()).compile()


@pytest.fixture(scope="module")
def alone():
    return jax.jit(jax.value_and_grad(LOSS, has_aux=True))(*images())


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_decloss_is_the_same_on_any_number_of_devices(alone, devices):
    (expected, expected_shares), expected_gradient = alone
    (loss, shares), gradient = compiled(devices)(*images())
    assert 0.02 < shares["positives"] < 0.9
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=1e-6 * np.abs(expected_gradient).max()
    )
    for name, share in expected_shares.items():
        np.testing.assert_allclose(shares[name], share, rtol=1e-6)


def test_pairs_at_the_threshold_are_the_same_on_any_number_of_devices():
    """Whole numbers lie at few distances, one of them the threshold: the last bits decide on 1 pair of 67."""
    rng = np.random.default_rng(0)
    hr = (rng.integers(0, 6, (2048, 12)) * 0.1).astype(np.float32)
    sr = hr + 0.3 * rng.standard_normal(hr.shape, np.float32)
    form = partial(contrast_terms, threshold_db=-20 * np.log10(0.1 * 56**0.5), t_pos=0.5, t_neg=1.5)

    def value_and_gradient(devices: int):
        return jax.jit(jax.value_and_grad(spread(devices, form), has_aux=True))(sr, hr)

    (loss, shares), gradient = value_and_gradient(1)
    for devices in (2, 8):
        (other_loss, other_shares), other_gradient = value_and_gradient(devices)
        np.testing.assert_array_equal(other_shares["positives"], shares["positives"])
        np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
        np.testing.assert_allclose(other_gradient, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())


def test_decloss_alone_equals_value_with_gradient(alone):
    (expected, _), _ = alone
    np.testing.assert_allclose(jax.jit(spread(4))(*images())[0], expected, rtol=1e-6)


def test_decloss_of_each_device_averages_over_its_shards():
    """Without an axis name nothing is gathered: per-device negatives, whose mean the caller takes."""
    sr, hr = images()
    mesh = Mesh(jax.devices()[:4], ("data",))

    def of_shard(sr: jax.Array, hr: jax.Array) -> jax.Array:
        return jax.lax.pmean(LOSS(sr, hr)[0], "data")

    mean = jax.shard_map(of_shard, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())

    of_one = jax.jit(jax.value_and_grad(lambda sr, hr: LOSS(sr, hr)[0]))
    losses, gradients = zip(*[of_one(sr[i : i + 2], hr[i : i + 2]) for i in range(0, 8, 2)], strict=True)
    expected_gradient = np.concatenate(gradients) / 4

    loss, gradient = jax.jit(jax.value_and_grad(mean))(sr, hr)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=1e-6 * np.abs(expected_gradient).max()
    )


def test_decloss_communicates_three_times():
    """One gather of mini-patches, one sum of scalars, one scatter of the gradient; the transforms none."""
    program = compiled(8).as_text()
    count = {
        name: len(re.findall(rf" {name}(?:-start)?\(", program))
        for name in ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
    }
    assert count == {
        "all-gather": 1,
        "all-reduce": 1,
        "reduce-scatter": 1,
        "all-to-all": 0,
        "collective-permute": 0,
    }


def test_work_of_a_device_falls_with_their_number():
    """The lengths of the loops over strips and over their tiles give the number of pairs: P P / devices."""

    def pairs(devices: int, size: int, tile: int) -> int:
        program = compiled(devices).as_text()
        trips = {int(trip) for trip in re.findall(r'known_trip_count":{"n":"(\d+)"}', program)}
        assert f"[{size},{tile}]" in program
        return max(trips) * min(trips) * size * tile

    assert pairs(devices=1, size=16, tile=16) == 160 * 160
    assert pairs(devices=8, size=10, tile=16) == 160 * 160 // 8


WORKER = """
import sys
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
sys.path.insert(0, sys.argv[3])
import test_decloss_devices as here

jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
assert len(jax.devices()) == 8 and len(jax.local_devices()) == 4
mesh = jax.sharding.Mesh(jax.devices(), ("data",))
mine = slice(4 * int(sys.argv[1]), 4 * int(sys.argv[1]) + 4)
sr, hr = (
    jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), array[mine])
    for array in here.images()
)
(loss, _), gradient = jax.jit(jax.value_and_grad(here.spread(8), has_aux=True))(sr, hr)
shards = sorted(gradient.addressable_shards, key=lambda shard: shard.index[0].start)
np.savez(sys.argv[4], loss=loss, gradient=np.concatenate([shard.data for shard in shards]))
"""


def test_two_processes_equal_one(alone, tmp_path):
    """Two processes with four devices each, joined by jax.distributed on loopback."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    here = Path(__file__).resolve().parent
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(here.parent.parent),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    files = [tmp_path / f"process{process}.npz" for process in range(2)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(process), str(port), str(here), str(files[process])],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]
    try:
        answers = [worker.communicate(timeout=180) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], answers[0][1][-2000:] + answers[1][1][-2000:]
    (expected, _), expected_gradient = alone
    results = [np.load(file) for file in files]
    for result in results:
        np.testing.assert_allclose(result["loss"], expected, rtol=1e-6)
    gradient = np.concatenate([result["gradient"] for result in results])
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=1e-6 * np.abs(expected_gradient).max()
    )
