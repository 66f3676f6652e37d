"""Makes `python -m decloss_jax` the command line of `decloss_jax.commands.cli`."""

from decloss_jax.commands.cli import start

start()
