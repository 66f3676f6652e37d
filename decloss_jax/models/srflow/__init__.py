"""SRFlow (Lugmayr et al., "SRFlow: Learning the Super-Resolution Space with Normalizing Flow", ECCV 2020).

model    the Flax module: encode, decode, regress
encoder  the LR image -> conditioning maps of three sizes
flow     HR image <-> latents, three levels of sixteen conditional steps
layers   the invertible layers, each a pair of pure functions
start    the initial parameters: drawn, then fitted to the first batch
latents  the noise that a sample is made from
"""

from decloss_jax.models.srflow.latents import draw_latents
from decloss_jax.models.srflow.model import HEAT, SRFlow
from decloss_jax.models.srflow.start import fit_actnorms, fit_once

__all__ = ["HEAT", "SRFlow", "draw_latents", "fit_actnorms", "fit_once"]
