"""Batches of training crops: a function of (seed, step), for any number of threads, processes and devices.

Example k of a run belongs to step k // batch_size. Its image, crop and symmetry depend on (seed, k) alone:
each epoch has its own order of the images, and each example its own random generator. So a run that resumes
at step t needs no state but t, and each process computes its share from its index.
"""

import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from decloss_jax import checks
from decloss_jax.data.augment import copy_pixels, random_crop, random_symmetry
from decloss_jax.data.cache import PairedImages

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]


def batch_source(
    images: PairedImages,
    *,
    scale: int,
    crop_size: int,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> "grain.MapDataset[Batch]":
    """Makes the sequence whose element t is the batch of step t.

    Args:
        images: from `cache.open_cache`.
        scale: s.
        crop_size: H = W, in HR pixels, a multiple of s.
        batch_size: the global batch size, a multiple of the number of processes.
        seed: 0 to 2^32 - 1.
        process_index, process_count: select this process's share of each batch; shares are equal and
            contiguous.

    Returns:
        A sequence of {"low": [N,H/s,W/s,3], "hr": [N,H,W,3]}, uint8, N = batch_size / process_count.

    Raises:
        UserError: a crop that does not fit an image (by name), another scale, or no images; raised at once.
    """
    import grain

    check_crops(images, scale, crop_size)
    share = batch_size // process_count
    low_size = crop_size // scale
    key = generator_key(seed)

    def read_batch(step: int) -> Batch:
        # The whole batch is one element for Grain, whose overhead per element is noticeable.
        low = np.empty((share, low_size, low_size, 3), np.uint8)
        hr = np.empty((share, crop_size, crop_size, 3), np.uint8)
        rng = np.random.Generator(np.random.Philox(key=key))
        first = step * batch_size + process_index * share
        for i in range(share):
            epoch, place = divmod(first + i, len(images))
            index = image_order(seed, epoch, len(images))[place]
            start_example(rng, key, first + i)
            whole = images.low(index), images.hr(index)
            # Copying rows from the file, then turning them in the processor's cache, is faster than one copy.
            crops = map(np.ascontiguousarray, random_crop(rng, *whole, scale=scale, crop_size=crop_size))
            for crop, target in zip(random_symmetry(rng, *crops), (low[i], hr[i]), strict=True):
                copy_pixels(crop, target)
        return {"low": low, "hr": hr}

    return grain.MapDataset.range(sys.maxsize).map(read_batch)


def generator_key(seed: int) -> np.ndarray:
    """Returns the Philox key of a run's examples, as Grain's `random_map` derives it from the seed."""
    derived = np.random.SeedSequence([seed, 1]).generate_state(1)[0]
    return np.random.Philox(derived).state["state"]["key"]


def start_example(rng: np.random.Generator, key: np.ndarray, number: int) -> None:
    """Sets the generator to the start of an example's own random numbers."""
    rng.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array([0, 0, 0, number], np.uint64), "key": key},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,  # the buffer is used up
        "has_uint32": 0,
        "uinteger": 0,
    }


@functools.lru_cache(maxsize=16)  # threads that read ahead can be in different epochs
def image_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of the images in an epoch, a permutation of 0..count-1.

    Grain's own shuffle takes milliseconds per example for a set as small as the packaged photographs.
    """
    return np.random.default_rng((seed, epoch)).permutation(count)


def read_ahead(steps: "grain.MapDataset[Batch]", start_step: int = 0, *, threads: int) -> Iterator[Batch]:
    """Yields the batches of steps start_step, start_step + 1, ... without end.

    Args:
        steps: from `batch_source`.
        start_step: number of batches that an earlier run has used.
        threads: number of threads that read ahead, one batch each; 0 reads on demand.

    Returns:
        An iterator; its threads end when it is closed or deleted.
    """
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    iterator = iter(steps[start_step:].to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def check_crops(images: PairedImages, scale: int, crop_size: int) -> None:
    """Raises `UserError` unless there are images of this scale, and a crop fits into every one."""
    checks.check(
        len(images) > 0,
        "training images",
        expected="at least one",
        got="none",
        remedy="correct data.source or data.root",
    )
    checks.check(
        scale == images.scale,
        "model.scale",
        expected=f"the scale of the LR images ({images.scale})",
        got=scale,
        remedy="open the images with the same scale",
    )
    for index, name in enumerate(images.names):
        height, width = images.size(index)
        checks.check(
            min(height, width) >= crop_size,
            f"image {name}",
            expected=f"at least {crop_size} pixels (data.crop_size) on each side",
            got=f"{width} x {height}",
            remedy="lower data.crop_size, or remove the image",
        )
