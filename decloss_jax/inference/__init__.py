"""Super-resolution of whole pictures, also those too large for a device.

- `windows`: spreads small images, or the tiles of a large one, over all devices
- `samples`: the same for SRFlow, whose images are samples
- `strips`: the compiled program: all features at once, the SR image in strips of rows
- `tiles`: the size, the overlap and the positions of tiles
- `pictures`: reads and writes files with alpha, 16 bits, EXIF and a colour profile, by `exif` and `png`
- `files`: upscales a file or a folder
"""

from decloss_jax.inference.tiles import choose_tiles, on_local_devices
from decloss_jax.inference.windows import upscale, upscale_each

__all__ = ["choose_tiles", "on_local_devices", "upscale", "upscale_each"]
