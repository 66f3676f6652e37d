"""One headless Chromium for all tests of pages, and a page that evaluate.py wrote."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import run
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from decloss_jax.models import EDSR
from decloss_jax.ops.resize import bicubic_upscale
from decloss_jax.weights import save_generator

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # of root in a container
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Debian's Chromium (`make browser`), with logs of its console and network."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@dataclass(frozen=True)
class Evaluated:
    """An evaluation whose names try to be HTML: its folder, its data set's, its methods, and its images."""

    folder: Path
    root: Path
    methods: tuple[str, str]
    images: tuple[str, ...]

    def picture(self, kind: str, image: str) -> np.ndarray:
        """Reads "hr" or the pictures of a method, uint8 [H,W,3]."""
        path = self.root / "HR" if kind == "hr" else self.folder / kind / "sr" / self.root.name
        return np.asarray(Image.open(path / f"{image}.png").convert("RGB"))


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory) -> Evaluated:
    """The result of evaluate.py for bicubic and a small network on images with such names."""
    folder = tmp_path_factory.mktemp("page")
    methods = ("bicubic", "\"><svg onload=alert('method')>&amp;#50%")
    images = ("\"><script>alert('image')<!--", "<img src=x onerror=alert(1)>", "plain & simple' {{ 7 * 7 }}")
    root = folder / "<b>Set"
    (root / "HR").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (height, width) in zip(images, ((96, 120), (120, 96), (160, 144)), strict=True):
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(bicubic_upscale(small, 8)).save(root / "HR" / f"{name}.png")

    model = EDSR(scale=4, features=4, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    save_generator(folder / f"{methods[1]}.safetensors", model, params)
    result = run(
        "evaluate.py", "--method", "bicubic", "--weights", folder / f"{methods[1]}.safetensors",
        "--data", root, "--out", folder / "out", "--metrics", "psnr",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return Evaluated(folder / "out", root, methods, images)
