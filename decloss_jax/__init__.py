"""DECLoss for image super-resolution, in JAX and Flax.

Axis letters, used in every docstring of the package:

    N  images of a batch            s  upscaling factor
    H W  pixels of the HR image     h w  pixels of the LR image, H = s h
    C  channels (RGB)
    P  mini-patches of a batch      D  length of a mini-patch vector, D = p p C

Images are NHWC float32 RGB in [0, 1] unless a name says `uint8`. Arguments come in the order (sr, hr).
"""

__version__ = "0.1.0"
