"""The Ranker of RankSRGAN (Zhang et al., ICCV 2019), which learned to order images as NIQE does.

The convolutions are those of the VGG-style discriminator with five stages, but all have a bias. The last map
is averaged, and linear1 and linear2 turn it into a score.
"""

from flax import linen as nn
from jax import Array

from decloss_jax import checks
from decloss_jax.models.discriminator import HIDDEN, apply_vgg_stages, dense
from decloss_jax.models.layers import leaky_relu

NAME = "ranker"  # `model.name` of a run that trains a Ranker
STAGES = 5  # ten convolutions, with the two fully connected layers "VGG-12"


class Ranker(nn.Module):
    """Scores images [N,H,W,3] in [0,1]: [N,1], higher where the index that it learned (NIQE) is worse.

    It was trained on squares of 296 pixels. For images a little wider than high only the left square of the
    last map is averaged, as in the authors' network; images higher than wide are refused.

    Attributes:
        features: channels of the first stage (64).
        axis_name: as in `VGGDiscriminator`; the batch norms are the same.
    """

    features: int = 64
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Scores images.

        Args:
            images: [N,H,W,3] in [0,1].
            train: whether the batch norms use the statistics of the batch and update the running ones (the
                collection "batch_stats", which must be mutable). RankSRGAN's code does so even if the Ranker
                is only a loss; here the running statistics are the default.

        Raises:
            UserError: fewer than 32 pixels a side, or a last map that is higher than wide, or at least twice
                as wide as high.
        """
        checks.check_images("images", images, channels=3)
        height, width = (side >> STAGES for side in images.shape[1:3])
        checks.check(
            0 < height <= width < 2 * height,
            "images for the Ranker",
            expected=f"squares of at least {1 << STAGES} pixels a side",
            got=" x ".join(map(str, images.shape[1:3])),
            remedy="cut squares out of them",
        )
        x = apply_vgg_stages(
            images, features=self.features, stages=STAGES, biased=True, train=train, axis_name=self.axis_name
        )
        x = x[:, :, :height].mean(axis=(1, 2))
        x = leaky_relu(dense(x, HIDDEN, name="linear1"))
        return dense(x, 1, name="linear2")
