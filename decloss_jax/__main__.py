"""Makes `python -m decloss_jax` the command line of `decloss_jax.commands.cli`."""

import sys

from decloss_jax.commands.cli import main

sys.exit(main())
