"""Detail Enhanced Contrastive Loss: enhance detail, cut into mini-patches, contrast (Sec. 4, Figure 3)."""

from jax import Array

from decloss_jax import checks
from decloss_jax.losses.contrast import contrast_terms
from decloss_jax.ops.fourier import enhance_detail
from decloss_jax.ops.patches import extract_patches


def decloss_terms(
    sr: Array,
    hr: Array,
    *,
    patch_size: int,
    alpha: float,
    mu: float,
    mode: str,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
    kernel: str = "separable",
    max_value: float = 1.0,
    temperature: str = "exponent",
    tile_size: int | None = None,
    axis_name: str | None = None,
    precision: str = "highest",
) -> tuple[Array, dict[str, Array]]:
    """Detail Enhanced Contrastive Loss of a batch, with the shares of anchors and positives behind it.

    Args:
        sr: [N,H,W,C] super-resolved images in [0, max_value].
        hr: [N,H,W,C] ground truth; no gradient flows into it.
        patch_size: p, pixels; divides H and W.
        alpha: factor of the frequency kernel along each axis (Eq. 15).
        mu: width of the frequency kernel, in bins (Eq. 15).
        mode: "multiply" (as printed) or "residual" (see `enhance_detail`).
        kernel: "separable" (Eq. 15) or "radial" (see `enhance_detail`).
        threshold_db: eta, dB; the rest are the options of `contrast_terms`.

    Returns:
        The loss, a dimensionless scalar, and {"anchors": share of anchors that have a negative,
        "positives": mean share of positives per anchor}, both in [0,1].

    Raises:
        UserError: shapes that differ or do not fit the patch size, an unknown name, a value out of its range.
    """
    checks.check_same_shape("sr", sr, "hr", hr)
    sr_patches = extract_patches(enhance_detail(sr, alpha=alpha, mu=mu, mode=mode, kernel=kernel), patch_size)
    hr_patches = extract_patches(enhance_detail(hr, alpha=alpha, mu=mu, mode=mode, kernel=kernel), patch_size)
    return contrast_terms(
        sr_patches,
        hr_patches,
        threshold_db=threshold_db,
        t_pos=t_pos,
        t_neg=t_neg,
        max_value=max_value,
        temperature=temperature,
        tile_size=tile_size,
        axis_name=axis_name,
        precision=precision,
    )


def decloss(
    sr: Array,
    hr: Array,
    *,
    patch_size: int,
    alpha: float,
    mu: float,
    mode: str,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
    kernel: str = "separable",
    max_value: float = 1.0,
    temperature: str = "exponent",
    tile_size: int | None = None,
    axis_name: str | None = None,
    precision: str = "highest",
) -> Array:
    """Detail Enhanced Contrastive Loss of a batch: the first value of `decloss_terms`, same arguments."""
    loss, _ = decloss_terms(
        sr,
        hr,
        patch_size=patch_size,
        alpha=alpha,
        mu=mu,
        mode=mode,
        kernel=kernel,
        threshold_db=threshold_db,
        t_pos=t_pos,
        t_neg=t_neg,
        max_value=max_value,
        temperature=temperature,
        tile_size=tile_size,
        axis_name=axis_name,
        precision=precision,
    )
    return loss
