"""The Flax module of SRFlow: density and samples of HR images, given LR images."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decloss_jax import checks
from decloss_jax.models.srflow import encoder, flow, start
from decloss_jax.models.srflow.latents import BLOCK, draw_latents, latent_shapes

HEAT = 0.9  # tau of samples for DIV2K x4 in the paper's table


class SRFlow(nn.Module):
    """Super-resolves [N,h,w,3] in [0,1] to [N,4h,4w,3], float32, not clipped; h and w are even.

    A call returns the image of the latents 0 ("heat 0"). `encode` and `decode` are each other's inverse, and
    training minimises the bits per pixel that `encode` returns.

    Attributes:
        scale: s, 4.
        features: width of the encoder's trunk.
        blocks: number of its RRDBs.
        growth: channels that each of their dense convolutions adds.
        stacked_blocks: the RRDBs, counted from 0, whose outputs condition the flow together with the trunk's;
            a file of weights does not record them.
        flow_steps: conditional steps of each level (K in the paper).
        transitions: steps of each level without conditioning.
        hidden: width of the networks inside the steps.
        remat: recompute the inside of each conditional step in the backward pass, to save memory.
        unrolled: compile every block and step separately instead of one in a loop. On CPUs gradients are then
            many times faster (in loops XLA's CPU compiler uses its slowest routine for those of
            convolutions).
    """

    scale: int = 4
    features: int = 64
    blocks: int = 23
    growth: int = 32
    stacked_blocks: tuple[int, ...] = (1, 8, 15, 22)
    flow_steps: int = 16
    transitions: int = 2
    hidden: int = 64
    remat: bool = False
    unrolled: bool = False

    def setup(self) -> None:
        checks.look_up({4: None}, self.scale, "SRFlow scale")
        checks.check(
            len(self.stacked_blocks) > 0 and all(0 <= block < self.blocks for block in self.stacked_blocks),
            "stacked_blocks",
            expected=f"numbers of blocks from 0 to {self.blocks - 1}",
            got=list(self.stacked_blocks),
            remedy="change stacked_blocks or the number of blocks",
        )
        draw_encoder = functools.partial(
            start.draw_encoder, features=self.features, blocks=self.blocks, growth=self.growth
        )
        draw_flow = functools.partial(
            start.draw_flow,
            inputs=self.features * (1 + len(self.stacked_blocks)),
            hidden=self.hidden,
            steps=self.flow_steps,
            transitions=self.transitions,
        )
        self.encoder = self.param("encoder", draw_encoder)
        self.flow = self.param("flow", draw_flow)

    def __call__(self, low: Array) -> Array:
        return self.decode(low, [jnp.zeros(shape, low.dtype) for shape in latent_shapes(low)])

    def encode(self, low: Array, hr: Array) -> tuple[Sequence[Array], Array]:
        """Maps HR images to latents, and computes their negative log-likelihood.

        Args:
            low: [N,h,w,3] in [0,1].
            hr: [N,4h,4w,3] in [0,1].

        Returns:
            [eps [N,2h,2w,6], z [N,h/2,w/2,96]], of standard normal density where the model fits, and the bits
            per pixel, [N] (`flow.bits_per_pixel`).
        """
        conditions = self.conditions(low)
        checks.check(
            hr.shape == (low.shape[0], self.scale * low.shape[1], self.scale * low.shape[2], 3),
            "hr",
            expected=f"the shape of low ({list(low.shape)}) with sides {self.scale} times as long",
            got=list(hr.shape),
            remedy="crop both to the same part of the picture",
        )
        latents, log_det = flow.encode(self.flow, hr, conditions, remat=self.remat, unrolled=self.unrolled)
        return latents, flow.bits_per_pixel(latents, log_det)

    def decode(self, low: Array, latents: Sequence[Array]) -> Array:
        """Maps latents, [eps, z] of `encode`'s shapes, to images; the inverse of `encode`."""
        conditions = self.conditions(low)
        shapes = [tuple(latent.shape) for latent in latents]
        checks.check(
            shapes == latent_shapes(low),
            "latents",
            expected=f"arrays of the shapes {latent_shapes(low)}",
            got=shapes,
            remedy="take them from encode or draw_latents",
        )
        return flow.decode(self.flow, latents, conditions)

    def sample(self, low: Array, key: Array, *, heat: float = HEAT) -> Array:
        """Draws one image for each LR image from normal latents with the standard deviation `heat`."""
        blocks = [jnp.arange(side // BLOCK) for side in low.shape[1:3]]
        draw = functools.partial(draw_latents, rows=blocks[0], columns=blocks[1], heat=heat)
        return self.decode(low, jax.vmap(draw)(jax.random.split(key, low.shape[0])))

    def regress(self, low: Array) -> Array:
        """Super-resolves with the encoder alone, which is trained with L1 before the flow."""
        checks.check_images("low", low, channels=3)
        return encoder.regress(self.encoder, low, unrolled=self.unrolled)

    def conditions(self, low: Array) -> tuple[Array, Array, Array]:
        """Computes the features of the LR images that the three levels see (`encoder.conditions`)."""
        checks.check_images("low", low, channels=3)
        for side, name in zip(low.shape[1:3], ("height", "width"), strict=True):
            checks.check_divisible(f"{name} of low", side, "a block of SRFlow", BLOCK)
        return encoder.conditions(self.encoder, low, self.stacked_blocks, unrolled=self.unrolled)
