"""Trains a super-resolution network.

    python train.py --config configs/NAME.py [--workdir DIR] [--config.field=value ...]
    python train.py --config configs/quickstart.py
    python train.py --config configs/edsr_decloss.py --config.data.root=data/DIV2K --config.batch_size=64

The same command goes on from the last checkpoint of the workdir. Exit status: 0 when done, and when SIGTERM
has stopped it, its state saved; 130 after Ctrl-C, which saves, too; 2 with one sentence on what is wrong;
another one when, of several processes, another has gone.
"""

import os
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from decloss_jax.commands import scripts
from decloss_jax.host import determinism, processes

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment; see configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/NAME of the config.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, when there are several processes."
)
PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", 0, "Number of this process, from 0.", lower_bound=0)

flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> int:
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = WORKDIR.value or os.path.join("runs", name)
    determinism.request(CONFIG.value)
    scripts.use_compilation_cache()
    if PROCESSES.value > 1 or PROCESS.value > 0:
        processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    # Imported here so that --help and a mistyped flag are answered at once.
    from decloss_jax.training import loop

    try:
        loop.run(CONFIG.value, workdir)
    except loop.Stopped as stopped:
        return scripts.report_stop(stopped, by_keyboard=stopped.by_keyboard)
    return 0


if __name__ == "__main__":
    scripts.run(main, resumes=True)
