"""Super-resolution of whole pictures, beyond what fits a device at once.

- `windows`: small images, or tiles of a large one, spread over all devices
- `samples`: the same for SRFlow, whose images are drawn
- `strips`: the compiled program: features at once, the SR image in strips of rows
- `tiles`: how large tiles may be, how far they overlap, where they lie
- `pictures`: a file with all that is not pixels: alpha, 16 bits, EXIF, colour profile
- `files`: `upscale` of a file or a folder
"""

from decloss_jax.inference.tiles import choose_tiles, on_local_devices
from decloss_jax.inference.windows import upscale, upscale_each

__all__ = ["choose_tiles", "on_local_devices", "upscale", "upscale_each"]
