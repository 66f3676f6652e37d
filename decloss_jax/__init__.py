"""DECLoss for image super-resolution, in JAX and Flax.

The package from bottom to top:

    checks, config     errors for users; config files and their overrides
    host               console, files, devices, processes
    ops                operations on images: luma, resizing, Fourier transform, mini-patches
    data               image files in, batches of paired crops out
    models             generators, discriminator, Ranker, feature trunks
    losses             DECLoss and the other loss terms (Eq. 12-26)
    weights            weights from and to files of PyTorch and safetensors
    workdir            what a run leaves on disk: checkpoints, journal, plots
    inference          super-resolution of whole pictures, tile by tile
    metrics            PSNR, SSIM, LPIPS, NIQE, ICOO
    training           the two-stage training run
    evaluation         measures methods on data sets and writes the report
    reproduction       the paper's tables and figures
    compare_torch      the package against plain PyTorch
    commands           the command line

Axis letters, used in every docstring of the package:

    N  images of a batch            s  upscaling factor
    H W  pixels of the HR image     h w  pixels of the LR image, H = s h
    C  channels (RGB)
    P  mini-patches of a batch      D  length of a mini-patch vector, D = p p C

Images are NHWC float32 RGB in [0, 1] unless a name says `uint8`. Arguments come in the order (sr, hr).
"""

__version__ = "0.1.0"
