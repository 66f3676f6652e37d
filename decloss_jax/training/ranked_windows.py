"""Windows of the training images as three networks give them, with their NIQE: what a Ranker learns from.

After RankSRGAN (Zhang et al., ICCV 2019) and its authors' code. In the folder of decoded images:

    ranked/DIGEST.sr.npy        uint8 [3,H,W,3], an image as the networks give it
    ranked/DIGEST.windows.npy   float64 [n,5], its windows: top, left, and the NIQE of each network's result

The digest is that of the image, the networks and the rules, and the windows are written last. So a second
call reuses what is there, one after an interruption goes on at the next image, and no change goes unnoticed.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from flax import linen as nn

from decloss_jax import checks
from decloss_jax.data.cache import DecodedImage, PairedImages, refuse_unwritable, write_array
from decloss_jax.data.images import DECODERS
from decloss_jax.data.pipeline import generator_key, image_order, start_example
from decloss_jax.host import console
from decloss_jax.host.files import expand, locked, regular, remove_abandoned
from decloss_jax.inference import upscale_each
from decloss_jax.metrics.niqe import BLOCK, blur, niqe_of_luma, niqe_or_nan
from decloss_jax.ops.color import rgb_to_gray

if TYPE_CHECKING:
    import grain

FORMAT = 1  # raise it when the windows or their NIQE change
LEVELS = 3  # networks: the best PSNR first, the best NIQE last
PAIRS = ((2, 1), (2, 0), (1, 0))  # of levels; each is drawn equally often
LABEL_BORDER = 4  # pixels that the labels' NIQE leaves out on each side
LABEL_DIGITS = 6  # with which RankSRGAN's code writes NIQE
SMALLEST_SIDE = 2 * BLOCK + 2 * LABEL_BORDER  # of a window; NIQE needs more than one block


class Network(NamedTuple):
    """A trained generator: the model, its parameters, and the hash of its weights or checkpoint."""

    model: nn.Module
    params: Any
    sha256: str


class Rules(NamedTuple):
    """Which windows are kept.

    Attributes:
        side: of a window, in HR pixels; neighbours lie half of it apart.
        sharpness: the least `sharpness` of the last network's result.
        niqe_difference: by which the NIQE (of gray, whole windows) of the last two networks must differ.
        windows_per_image: at most, drawn at random.
    """

    side: int
    sharpness: float
    niqe_difference: float
    windows_per_image: int


@dataclass(frozen=True)
class RankedWindows:
    """Windows of images, as each network gives them.

    Attributes:
        side: of a window.
        images: uint8 [3,H,W,3], on disk.
        places: int64 [n,3]: image, top, left.
        niqe: float64 [n,3], the label of each network's result: lower is better.
    """

    side: int
    images: tuple[DecodedImage, ...]
    places: np.ndarray
    niqe: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def window(self, index: int) -> np.ndarray:
        """Maps a window of all networks, uint8 [3,S,S,3], read only."""
        image, top, left = self.places[index]
        return self.images[image].map()[:, top : top + self.side, left : left + self.side]

    def choose(self, chosen: np.ndarray) -> "RankedWindows":
        """Returns the windows with these indices, or for which this is true."""
        return replace(self, places=self.places[chosen], niqe=self.niqe[chosen])


def open_ranked_windows(
    images: PairedImages, networks: Sequence[Network], rules: Rules, *, cache_dir: str | Path
) -> RankedWindows:
    """Opens the ranked windows of the images; first makes those that are missing.

    Args:
        images: from `cache.open_cache`.
        networks: three, the best PSNR first, the best NIQE last.
        rules: which windows are kept.
        cache_dir: folder of the decoded images; 9 bytes per HR pixel come on top.

    Raises:
        UserError: a folder that cannot be written to or has no room.
    """
    folder = expand(cache_dir).absolute() / "ranked"
    files = [image_files(folder, low.file.name, networks, rules) for low, _ in images.stored]
    with refuse_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", lambda: console.say(f"waiting for another process in {folder}")):
            remove_abandoned(folder, "*.npy")
            missing = [i for i, pair in enumerate(files) if open_image(*pair) is None]
            rank_images(images, missing, files, networks, rules)
    opened = [open_image(*pair) for pair in files]
    found = [each for each in opened if each is not None]  # all
    tables = [table for _, table in found]
    places = [np.insert(table[:, :2], 0, image, axis=1) for image, table in enumerate(tables)]
    return RankedWindows(
        side=rules.side,
        images=tuple(image for image, _ in found),
        places=np.concatenate(places).astype(np.int64),
        niqe=np.concatenate(tables)[:, 2:],
    )


def image_files(folder: Path, low: str, networks: Sequence[Network], rules: Rules) -> tuple[Path, Path]:
    """Returns the file of an image's results and that of its windows; `low` identifies the image."""
    made_from = (FORMAT, low, [network.sha256 for network in networks], tuple(rules))
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return folder / f"{digest}.sr.npy", folder / f"{digest}.windows.npy"


def open_image(results: Path, windows: Path) -> tuple[DecodedImage, np.ndarray] | None:
    """Opens an image's results and windows; None if they are missing or damaged."""
    try:
        table = np.load(regular(windows), allow_pickle=False)
        array = np.load(regular(results), mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header fails in many ways
        return None
    whole = table.dtype == np.float64 and table.ndim == 2 and table.shape[1] == 2 + LEVELS
    if not whole or array.dtype != np.uint8 or array.ndim != 4:
        return None
    return DecodedImage(results, array.offset, array.shape), table


def rank_images(
    images: PairedImages,
    missing: Sequence[int],
    files: Sequence[tuple[Path, Path]],
    networks: Sequence[Network],
    rules: Rules,
) -> None:
    """Upscales the missing images by each network, and writes their results and windows."""
    if not missing:
        return
    sizes = [images.low(i).shape[:2] for i in missing]
    streams = [
        upscale_each(network.model, network.params, lambda i: images.low(missing[i]), sizes)
        for network in networks
    ]
    with (
        console.progress("ranking", len(missing), unit="image") as advance,
        ThreadPoolExecutor(DECODERS) as pool,
    ):
        for number, results in together(streams):
            results_file, windows_file = files[missing[number]]
            write_array(results_file, results)
            write_array(windows_file, rank_windows(results, rules, pool))
            advance()


def together(streams: Sequence[Iterable[tuple[int, np.ndarray]]]) -> Iterator[tuple[int, np.ndarray]]:
    """Joins the results of the networks, which each come in any order: (image, [3,H,W,3])."""
    waiting: dict[int, dict[int, np.ndarray]] = {}
    for results in zip(*streams, strict=True):
        for level, (number, sr) in enumerate(results):
            waiting.setdefault(number, {})[level] = sr
            if len(waiting[number]) == len(streams):
                of_levels = waiting.pop(number)
                yield number, np.stack([of_levels[level] for level in range(len(streams))])


def rank_windows(results: np.ndarray, rules: Rules, pool: ThreadPoolExecutor) -> np.ndarray:
    """Returns the windows of an image that the rules keep: float64 [n,5], top, left and NIQE.

    Args:
        results: uint8 [3,H,W,3].
        rules: which are kept.
        pool: computes the windows side by side.
    """
    height, width = results.shape[1:3]
    places = [(top, left) for top in starts(height, rules.side) for left in starts(width, rules.side)]

    def rank(place: tuple[int, int]) -> list[float] | None:
        top, left = place
        window = results[:, top : top + rules.side, left : left + rules.side]
        if not is_kept(window, rules):
            return None
        labels = [round(niqe_or_nan(each, crop_border=LABEL_BORDER), LABEL_DIGITS) for each in window]
        return None if np.isnan(labels).any() else [top, left, *labels]

    table = np.array([row for row in pool.map(rank, places) if row is not None]).reshape(-1, 2 + LEVELS)
    drawn = np.random.default_rng(0).permutation(len(table))[: rules.windows_per_image]
    return table[np.sort(drawn)]


def starts(length: int, side: int) -> range:
    """Lists where windows start, half a side apart; one that would just touch the far edge is left out."""
    return range(0, length - side, side // 2)


def is_kept(window: np.ndarray, rules: Rules) -> bool:
    """Tells whether a window [3,S,S,3] is sharp, and NIQE tells the last two networks apart."""
    before, last = map(rgb_to_gray, window[-2:])
    if sharpness(last) < rules.sharpness:
        return False
    return abs(niqe_of_luma(before) - niqe_of_luma(last)) > rules.niqe_difference  # false for NaN


def sharpness(gray: np.ndarray) -> float:
    """Sums the local deviation of [H,W] over blocks of 96x96, of which each counts by its mean."""
    return float(np.sqrt(blur((gray - blur(gray)) ** 2)).sum() / BLOCK**2)


def pair_batches(
    windows: RankedWindows, *, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
) -> "grain.MapDataset[dict[str, np.ndarray]]":
    """Makes the sequence whose element t is the batch of step t: a function of (seed, t), as in `pipeline`.

    Args:
        windows: in any number of images.
        batch_size: pairs in the global batch, a multiple of the number of processes.
        seed: 0 to 2^32 - 1.
        process_index, process_count: select this process's share of each batch.

    Returns:
        A sequence of {"first", "second": [N,S,S,3] uint8, "target": [N,1] float32}: the same window of two
        networks, and 1 where the first has the higher NIQE (or the same), else -1.

    Raises:
        UserError: no windows.
    """
    import grain

    checks.check(
        len(windows) > 0,
        "ranked windows to train on",
        expected="at least one that is sharp enough and that NIQE tells apart",
        got="none",
        remedy="lower ranker.sharpness or ranker.niqe_difference, or add larger images",
    )
    share, side = batch_size // process_count, windows.side
    key = generator_key(seed)

    def read_batch(step: int) -> dict[str, np.ndarray]:
        both = np.empty((2, share, side, side, 3), np.uint8)
        target = np.empty((share, 1), np.float32)
        rng = np.random.Generator(np.random.Philox(key=key))
        first = step * batch_size + process_index * share
        for i in range(share):
            epoch, place = divmod(first + i, len(windows))
            index = image_order(seed, epoch, len(windows))[place]
            start_example(rng, key, first + i)
            pair = list(PAIRS[rng.integers(len(PAIRS))])
            both[:, i] = windows.window(index)[pair]
            target[i] = order(*windows.niqe[index, pair])
        return {"first": both[0], "second": both[1], "target": target}

    return grain.MapDataset.range(sys.maxsize).map(read_batch)


def order(first: float, second: float) -> int:
    """Returns 1 if the first NIQE is higher than the second or equal, else -1."""
    return 1 if first >= second else -1
