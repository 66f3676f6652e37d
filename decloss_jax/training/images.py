"""The images of a run: batches of crops to train on, and whole images to validate on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from ml_collections import ConfigDict

from decloss_jax.data.cache import PairedImages, open_cache
from decloss_jax.data.pairs import ImagePair
from decloss_jax.data.pipeline import batch_source
from decloss_jax.host import parallel
from decloss_jax.training.validation import check_sizes

if TYPE_CHECKING:
    import grain


class Data(NamedTuple):
    """What a run trains and validates on.

    Attributes:
        batches: element t is this process's share of the batch of step t + 1, a dictionary of arrays.
        validation: what the stages' `evaluate` measures on.
    """

    batches: "grain.MapDataset"
    validation: Any


def open_data(config: ConfigDict, train: Sequence[ImagePair], validation: Sequence[ImagePair]) -> Data:
    """Opens the images of both splits; the first use decodes them.

    Raises:
        UserError: images that cannot be read or are too small, or that differ between processes.
    """
    images = open_images(config, train)
    held_out = open_images(config, validation[: config.validation_images])
    batches = batch_source(
        images,
        scale=config.model.scale,
        crop_size=config.data.crop_size,
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    check_sizes(held_out, config.model.scale)
    for split, each in (("training", images), ("validation", held_out)):
        found = [(name, each.size(i)) for i, name in enumerate(each.names)]
        parallel.check_agreement(f"{split} images", found, "give all processes the same data")
    return Data(batches, held_out)


def open_images(config: ConfigDict, pairs: Sequence[ImagePair]) -> PairedImages:
    """Opens the decoded images of a split."""
    return open_cache(pairs, scale=config.model.scale, cache_dir=config.data.cache_dir)
