"""Makes `python -m decloss_jax` the command line of `decloss_jax.cli`."""

import sys

from decloss_jax.cli import main

sys.exit(main())
