"""Lists of image pairs as a run makes them: by `build_source` from the `data` part of a config."""

from configs import base
from decloss_jax.data.sources import build_source


def list_images(root="", split="train", *, scale=4, **fields):
    """Lists the images of a folder, or of another source, with the fields of `config.data` given."""
    config = base.get_config().data.lock()
    config.update(root=str(root), **fields)
    return build_source(config, scale=scale, split=split)
