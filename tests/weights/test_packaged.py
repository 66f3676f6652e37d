"""The networks in the package: what `load_packaged` gives, and their worth on held-out photographs."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.data.photographs import find_photographs
from decloss_jax.inference import upscale
from decloss_jax.metrics.fidelity import psnr
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.weights import load_generator, load_packaged
from decloss_jax.weights.packaged import FAITHFUL, VIVID


def test_detail_mixes_the_parameters_of_both():
    faithful, vivid = (load_generator(file)[1] for file in (FAITHFUL, VIVID))
    for detail in (0.0, 0.25, 1.0):
        model, params, line = load_packaged(detail)
        assert (model.scale, model.res_scale) == (4, 1.0)
        assert line.endswith(f"detail {detail:g}")
        expected = jax.tree.map(lambda a, b, d=detail: (1 - d) * a + d * b, faithful, vivid)
        jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6), params, expected)


def test_detail_outside_0_to_1_is_refused():
    with pytest.raises(UserError, match="detail: expected 0 to 1"):
        load_packaged(1.5)


def test_each_file_is_float16_and_below_a_megabyte_and_a_half():
    for file in (FAITHFUL, VIVID):
        assert file.stat().st_size < 1_500_000
        assert b'"dtype":"F16"' in file.read_bytes()[:10_000]


@pytest.mark.parametrize("pair", find_photographs("validation"), ids=lambda pair: pair.name)
def test_both_beat_bicubic_on_photographs_that_were_held_out(pair):
    low, hr = pair.load(4)
    border = 4
    bicubic = psnr(bicubic_upscale(low, 4), hr, crop_border=border)
    for detail, gain in ((0.0, 0.5), (1.0, 0.4)):
        model, params, _ = load_packaged(detail)
        assert psnr(to_uint8(upscale(model, params, low)), hr, crop_border=border) > bicubic + gain


def test_importing_the_package_reads_no_weights():
    script = """
import sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
import decloss_jax.weights, decloss_jax.commands.cli, decloss_jax.inference
assert not [name for name in opened if name.endswith(".safetensors")], opened
"""
    subprocess.run([sys.executable, "-c", script], check=True)
