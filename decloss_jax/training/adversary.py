"""The discriminator of a GAN or RaGAN term, its batch statistics, and the losses of both networks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from decloss_jax import checks
from decloss_jax.host import parallel
from decloss_jax.losses import adversarial
from decloss_jax.models import DTYPES, VGGDiscriminator
from decloss_jax.models.discriminator import count_stages
from decloss_jax.weights.discriminators import discriminator_variables
from decloss_jax.weights.torch_reader import read_torch, refusals_as_user_errors


class Game(NamedTuple):
    """The losses of generator and discriminator, as functions of (real logits, fake logits)."""

    generator_loss: Callable[[Array, Array], Array]
    discriminator_loss: Callable[[Array, Array], Array]


GAMES: dict[str, Game] = {
    "gan": Game(lambda real, fake: adversarial.gan_generator_loss(fake), adversarial.gan_discriminator_loss),
    "ragan": Game(adversarial.ragan_generator_loss, adversarial.ragan_discriminator_loss),
}

# Judges images [N,H,W,3] in training mode: (variables, images) -> (logits [N,1], updated running statistics).
Judge = Callable[[Mapping[str, Any], Array], tuple[Array, Any]]


class Adversary(NamedTuple):
    """A discriminator in training.

    Attributes:
        term: "gan" or "ragan", the name of the generator's term.
        game: both losses.
        model: the network.
        judge: the network in training mode, with the batch statistics of the config.
        learning_rate_ratio: its learning rate divided by the generator's.
    """

    term: str
    game: Game
    model: VGGDiscriminator
    judge: Judge
    learning_rate_ratio: float

    def discriminator_loss(
        self, params: Any, batch_stats: Any, sr: Array, hr: Array
    ) -> tuple[Array, tuple[Array, Any, dict[str, Array]]]:
        """Judges hr, then sr, each as a batch of its own.

        Returns:
            L_D; and the logits of hr, the running statistics, and scalars for the journal.
        """
        real, batch_stats = self.judge({"params": params, "batch_stats": batch_stats}, hr)
        fake, batch_stats = self.judge({"params": params, "batch_stats": batch_stats}, sr)
        value = self.game.discriminator_loss(real, fake)
        scalars = {"discriminator/real": real.mean(), "discriminator/fake": fake.mean()}
        return value, (real, batch_stats, {"loss/discriminator": value} | scalars)

    def generator_loss(self, params: Any, batch_stats: Any, real: Array, sr: Array) -> Array:
        """Judges sr; returns L_G, given the logits of hr."""
        fake, _ = self.judge({"params": params, "batch_stats": batch_stats}, sr)
        return self.game.generator_loss(real, fake)


def global_statistics(model: VGGDiscriminator, mesh: Mesh) -> Judge:
    """Judges with batch statistics over the global batch, so that the number of devices does not matter."""

    def judge(variables: Mapping[str, Any], images: Array) -> tuple[Array, Any]:
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, updated["batch_stats"]

    return judge


def device_statistics(model: VGGDiscriminator, mesh: Mesh) -> Judge:
    """Judges with batch statistics per device, as BasicSR on several GPUs; the running ones are averaged."""
    of_batch = global_statistics(model, mesh)

    def of_shard(variables: Mapping[str, Any], images: Array) -> tuple[Array, Any]:
        logits, updated = of_batch(variables, images)
        return logits, jax.lax.pmean(updated, parallel.DATA_AXIS)

    split = PartitionSpec(parallel.DATA_AXIS)
    return jax.shard_map(
        of_shard, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=(split, PartitionSpec())
    )


STATISTICS: dict[str, Callable[[VGGDiscriminator, Mesh], Judge]] = {
    "global": global_statistics,
    "device": device_statistics,
}


def build_adversary(config: Any, stage: str, mesh: Mesh) -> Adversary | None:
    """Builds the discriminator for `config.STAGE.weights`; None without an adversarial term.

    Raises:
        UserError: two adversarial terms, a crop size that does not fit, or an unknown kind of statistics.
    """
    terms = [name for name in GAMES if config[stage].weights.get(name)]
    if not terms:
        return None
    checks.check(
        len(terms) == 1,
        f"{stage}.weights",
        expected="one adversarial term",
        got=" and ".join(terms),
        remedy=f"set --config.{stage}.weights.{terms[-1]}=0",
    )
    options = config.discriminator
    make_judge = checks.look_up(STATISTICS, options.statistics, "discriminator.statistics")
    checks.look_up(DTYPES, options.dtype, "discriminator.dtype")
    count_stages(config.data.crop_size, options.stages)
    model = VGGDiscriminator(
        features=options.features,
        input_size=config.data.crop_size,
        stages=options.stages,
        dtype=None if options.dtype == "float32" else options.dtype,
    )
    return Adversary(terms[0], GAMES[terms[0]], model, make_judge(model, mesh), options.learning_rate_ratio)


def read_variables(config: Any, model: VGGDiscriminator) -> Mapping[str, Any] | None:
    """Reads the discriminator's variables from `config.discriminator.init_from`; None if that is empty.

    Raises:
        UserError: a file of another network or of another size.
    """
    path = config.discriminator.init_from
    if not path:
        return None
    with refusals_as_user_errors(path, "weights of a discriminator"):
        theirs, variables = discriminator_variables(read_torch(path))
    stages = count_stages(model.input_size, model.stages)
    smallest = model.input_size >> stages << stages  # the smallest patch with the same final map
    for name, here in {"features": model.features, "input_size": smallest, "stages": stages}.items():
        checks.check(
            getattr(theirs, name) == here,
            f"discriminator.init_from {path}",
            expected=f"a discriminator with {name} {here}",
            got=getattr(theirs, name),
            remedy="set discriminator.features and data.crop_size (its input_size) to those of the file",
        )
    return variables


def draw_variables(model: VGGDiscriminator, seed: int) -> Mapping[str, Any]:
    """Draws the discriminator's variables from the seed, independently of the generator's."""
    images = jnp.zeros((1, model.input_size, model.input_size, 3), jnp.float32)
    return model.init(jax.random.fold_in(jax.random.key(seed), 1), images)
