"""Cuts images into mini-patches (Sec. 4.3)."""

from jax import Array

from decloss_jax import checks


def extract_patches(images: Array, patch_size: int) -> Array:
    """Cuts images into mini-patches that do not overlap, each flattened to a vector.

    Args:
        images: [N,H,W,C]; `patch_size` divides H and W.
        patch_size: p, pixels.

    Returns:
        [P,D] with P = N (H/p) (W/p), counting image, then patch row, then patch column, and D = p p C,
        counting row, column and channel inside the patch.

    Raises:
        UserError: wrong shape, or a patch size that does not divide H and W.
    """
    checks.check_images("images", images)
    n, height, width, channels = images.shape
    checks.check_divisible("height of the image", height, "patch_size", patch_size)
    checks.check_divisible("width of the image", width, "patch_size", patch_size)
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(n, rows, patch_size, columns, patch_size, channels)
    return patches.swapaxes(2, 3).reshape(n * rows * columns, patch_size * patch_size * channels)
