"""Super-resolution of whole pictures, beyond what fits a device at once.

- `tiles`: an image in overlapping tiles on all devices
- `pictures`: a file with all that is not pixels: alpha, 16 bits, EXIF, colour profile
- `files`: `upscale` of a file or a folder
"""

from decloss_jax.inference.tiles import choose_tiles, on_local_devices, upscale

__all__ = ["choose_tiles", "on_local_devices", "upscale"]
