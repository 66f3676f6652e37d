"""The comparison itself; `python -m decloss_jax compare-torch` runs all of its parts."""

import importlib.util
import runpy

import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.commands import cli

pytest.importorskip("torch")
from decloss_jax import compare_torch
from decloss_jax.compare_torch import inputs, parts, torch_losses, torch_networks, torch_srflow


def choose(monkeypatch, *names):
    monkeypatch.setattr(parts, "PARTS", {name: parts.PARTS[name] for name in names})


def test_difference_gives_the_largest_absolute_and_relative_difference():
    ours = {"a": np.array([1.0, 2.0]), "b": np.array([0.1])}
    theirs = {"a": np.array([1.0, 2.5]), "b": np.array([0.2])}
    absolute, relative = inputs.Comparison("x", ours, theirs, 1e-5).difference()
    assert (absolute, relative) == (0.5, 0.5)
    assert np.isnan(
        inputs.Comparison("x", {"a": np.nan * ours["a"]}, {"a": theirs["a"]}, 1).difference()
    ).all()
    assert np.isnan(inputs.Comparison("x", ours, {"a": theirs["a"]}, 1).difference()).all()
    assert not compare_torch.Row("p", "q", np.nan, np.nan, 1.0).holds


def test_compare_prints_every_quantity_of_every_part(monkeypatch, capsys):
    choose(monkeypatch, "EDSR x2", "L1", "DECLoss", "LPIPS alex", "GAN and RaGAN")
    assert cli.main(["compare-torch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "quantity", "absolute", "relative", "bound"]
    assert len(lines) == 1 + 3 + 4 * 2 + 1
    assert all(line.endswith("ok") for line in lines[1:-1])
    assert lines[-1].startswith("11 differences, all within their bounds")


def test_compare_finds_a_wrong_network(monkeypatch, capsys):
    choose(monkeypatch, "EDSR x2")
    monkeypatch.setattr(torch_networks, "DIV2K_MEAN", (0.4489, 0.4371, 0.4040))
    assert cli.main(["compare-torch"]) == 1
    assert "ABOVE" in capsys.readouterr().out


def test_compare_finds_a_wrong_schedule(monkeypatch):
    choose(monkeypatch, "EDSR x4, 20 steps")
    right = torch_losses.cosine_with_warmup

    def off_by_one(step, **options):
        return right(step + 1, **options)

    monkeypatch.setattr(torch_losses, "cosine_with_warmup", off_by_one)
    assert not compare_torch.compare()


@pytest.mark.parametrize(("file", "name"), [("", "VGG-19 (random weights)"), ("vgg19.pth", "VGG-19")])
def test_compare_says_that_the_weights_of_vgg19_are_random(monkeypatch, file, name):
    monkeypatch.setenv("DECLOSS_VGG19", file)
    monkeypatch.setattr(parts.trunks, "load_trunk", lambda network: "of the file")
    again = runpy.run_path(parts.__file__)
    assert {name, f"perceptual, {name}, l1"} <= again["PARTS"].keys()
    assert (again["feature_weights"]("vgg19") == "of the file") == bool(file)


def test_compare_finds_a_wrong_perceptual_loss_of_vgg19(monkeypatch):
    right = torch_losses.perceptual
    monkeypatch.setattr(torch_losses, "perceptual", lambda *a, **options: 1.001 * right(*a, **options))
    choose(monkeypatch, f"perceptual, {parts.vgg19_name()}, l1")
    assert not compare_torch.compare()


def test_compare_takes_a_file_of_weights(monkeypatch, capsys, shared):
    monkeypatch.setattr(parts, "LOSS_PARTS", {})
    assert cli.main(["compare-torch", "--weights", str(shared / "golden" / "edsr_small_x3.pth")]) == 0
    assert "EDSR x3, 20 steps" in capsys.readouterr().out


def test_compare_says_how_to_get_torch(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(UserError, match=r"expected the package torch, got no such package; install it"):
        compare_torch.compare()


def test_compare_finds_a_wrong_flow(monkeypatch, capsys):
    choose(monkeypatch, "SRFlow x4")
    assert cli.main(["compare-torch"]) == 0
    assert "4 differences, all within" in capsys.readouterr().out
    right = torch_srflow.normalize
    monkeypatch.setattr(torch_srflow, "normalize", lambda state, name, x: 1.001 * right(state, name, x))
    latents = next(iter(parts.PARTS["SRFlow x4"]()))
    assert latents.difference()[1] > latents.bound
