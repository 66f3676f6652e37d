"""Does a form of DECLoss lower both LPIPS, without a lattice, by more than grain of the same PSNR cost?

    python benchmarks/claims.py --train ../data/BSDS400 [--only NAME ...] [--seeds 0 1 2] [--test ROOT]

Trains the settings of claims_settings.py, each from the stage 1 of its seed, and those that they are compared
with. It judges on the centres (240x240) of 24 photographs that configs/mini.py holds out; no setting was
chosen on a benchmark image. For each run it measures PSNR, LPIPS with both networks, NIQE, ICOO, the share of
lattices in the change from stage 1, and a control (claims_judge.py): the pictures of the base with grain of
the same PSNR cost. --test also measures the chosen settings on the images of a test set.

Writes claims.json and claims.md in results/claims after each run. A second call trains and measures only what
is missing; training itself resumes. Several calls may run at once once the bases that they share are trained.
"""

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import claims_forms
import claims_judge as judge
import jax
import numpy as np
from claims_settings import SETTINGS, chain
from claims_table import PHOTOGRAPHS, RESULTS, SIDE, find, read, table
from mini_analyse import centres

from decloss_jax.commands import program
from decloss_jax.data.folder import find_all_pairs
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.host import files
from decloss_jax.reproduction.paper import SCALE, TABLE1
from decloss_jax.reproduction.runs import Settings, config_hash, row_config, train_row
from decloss_jax.workdir.journal import versions

# Validation during training and its pictures take time and change nothing.
COMMON = {
    "pretrain.steps": 2_000,
    "finetune.steps": 200,
    "eval_every_steps": 100_000,
    "validation_images": 1,
    "sample_images": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "claims", help="folder of the workdirs")
    parser.add_argument("--test", metavar="ROOT", help="folder of a test set")
    options = parser.parse_args()
    program.prepare_jax("measuring")
    bench = Bench(options.train, options.runs)
    for seed in options.seeds:
        for name in dict.fromkeys(each for chosen in options.only for each in chain(chosen)):
            run = find(read(), name, seed)
            if run is None:
                save(run := bench.measure(name, seed))
            if options.test and name in options.only and not SETTINGS[name].grain and "test" not in run:
                save(run | {"test": bench.measure_test(name, seed, options.test)})


class Bench:
    """Trains and measures settings; keeps the pictures of those that others are compared with."""

    def __init__(self, train: str, runs: Path):
        self.settings = Settings("mini", COMMON | {"data.root": train}, runs, [])
        config = row_config(TABLE1[1], 0, self.settings)
        claims_forms.register(claims_forms.read_crops(config.data))
        self.train = functools.lru_cache(self.train_setting)
        self.pictures = functools.lru_cache(maxsize=8)(self.make_pictures)
        self.values = functools.lru_cache(maxsize=8)(self.measure_pictures)

    def train_setting(self, name: str, seed: int) -> tuple[Path, Any]:
        """Trains what is missing; returns the workdir and its config."""
        fields, row = SETTINGS[name].fields, TABLE1[SETTINGS[name].row]
        settings = Settings("mini", {**self.settings.overrides, **fields}, self.settings.runs, [])
        workdir, config, _ = train_row(row, seed, settings)
        return workdir, config

    def make_pictures(self, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns SR and HR [N,S,S,3] of the photographs."""
        setting = SETTINGS[name]
        if setting.grain:
            sr, hr = self.pictures(setting.base, seed)
            grain = (
                judge.grain_of(sr, seed=0, measured=judge.SR_BAND)
                if setting.blind
                else judge.grain_of(hr, seed=0)
            )
            return sr + setting.grain * grain, hr
        workdir, config = self.train(name, seed)
        sr, hr = centres(workdir, config, SIDE)
        return sr[:PHOTOGRAPHS], hr[:PHOTOGRAPHS]

    def measure_pictures(self, name: str, seed: int) -> dict[str, Any]:
        """Returns the metrics of the photographs."""
        return judge.measure(*self.pictures(name, seed))

    def measure(self, name: str, seed: int) -> dict[str, Any]:
        """Trains what is missing; returns all that is measured of a run."""
        first, base = chain(name)[0], SETTINGS[name].base
        sr, hr = self.pictures(name, seed)
        run: dict[str, Any] = {"setting": name, "seed": seed, "fields": dict(SETTINGS[name].fields)}
        run["values"] = self.values(name, seed)
        if base:
            run["shares"] = judge.lattice_shares(sr - self.pictures(first, seed)[0])
            before = self.pictures(base, seed)[0]
            run["restores"] = judge.restored(sr - before, hr - before)
        if base and base != first and not SETTINGS[name].grain:
            cost = -judge.difference(run["values"], self.values(base, seed), "psnr_rgb")[0]
            strength, pictures = judge.grain_control(self.pictures(base, seed)[0], hr, cost=cost, seed=0)
            run["control"] = {"strength": strength, "values": judge.measure(pictures, hr)}
        if not SETTINGS[name].grain:
            _, config = self.train(name, seed)
            run |= {"config_hash": config_hash(config), "versions": versions()}
            run["device"] = jax.devices()[0].device_kind
        return run

    def measure_test(self, name: str, seed: int, root: str) -> dict[str, Any]:
        """Returns the mean metrics of the test set's images."""
        workdir, _ = self.train(name, seed)
        (method,) = load_methods(workdirs=[str(workdir)])
        pairs = find_all_pairs(Path(root), scale=SCALE, field="--test")
        lows, hrs = zip(*(pair.load(SCALE) for pair in pairs), strict=True)
        srs = method.upscale_each(lows)
        ordered = [sr / 255 for _, sr in sorted(srs, key=lambda item: item[0])]
        values = judge.measure(ordered, [hr / 255 for hr in hrs])
        return {metric: float(np.mean(value)) for metric, value in values.items()}


def save(run: dict[str, Any]) -> None:
    """Adds a run to those of earlier calls, or replaces it, and writes all and their table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    run, key = rounded(run), (run["setting"], run["seed"])
    with files.locked(RESULTS / ".lock", lambda: None):
        others = [each for each in read() if (each["setting"], each["seed"]) != key]
        order = list(SETTINGS)
        runs = sorted([*others, run], key=lambda each: (order.index(each["setting"]), each["seed"]))
        lines = ",\n".join(json.dumps(each) for each in runs)  # a line for each run
        head = json.dumps({"common": COMMON, "photographs": PHOTOGRAPHS, "side": SIDE})
        text = f'{head[:-1]}, "runs": [\n{lines}\n]}}\n'
        files.write_atomically(RESULTS / "claims.json", text)
        files.write_atomically(RESULTS / "claims.md", table(runs))
    print(f"{run['setting']}, seed {run['seed']}: measured", flush=True)


def rounded(values: Any) -> Any:
    """Rounds all floats of nested dictionaries and lists to 6 significant digits."""
    if isinstance(values, dict):
        return {key: rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


if __name__ == "__main__":
    main()
