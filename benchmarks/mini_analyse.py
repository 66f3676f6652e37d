"""Gradients of each loss at the images of a PSNR-trained network, by frequency, and errors after training.

    python benchmarks/mini_analyse.py --train ../data/BSDS400 [--trained 18 21]

Takes the miniature's stage 1 (seed 0, trained if it is missing) and the centres of its held-out photographs.
For L1, the perceptual loss and DECLoss in each setting of mini_choose.py's grid, and in the forms that only
claims.py tries, it measures

- the value at SR and at SR = HR;
- for the gradient with respect to SR: its rms relative to L1's, and the fractions of its power in colour
  differences and in the flattest tenth of the SR mini-patches;
- in bands of radial frequency: the fraction of power, and the cosines of the descent direction with HR - SR
  (does it restore missing detail?) and with SR (does it amplify existing detail?).

Writes gradients.json and gradients.md in results/mini. Then, for stage 1 and the networks trained with the
settings of --trained, it measures on the same crops: the power of the error in these bands, for luma (the
mean of the channels) and colour; LPIPS with two networks; and the fraction of the change from stage 1 that
has a period of 2 or 4 pixels along both axes. Writes errors.json and errors.md.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import claims_forms
import numpy as np
from claims_judge import band_masks, cosine, lattice_shares
from claims_settings import SETTINGS
from mini_choose import GRID, RESULTS, RUNS, describe

from decloss_jax.commands import program
from decloss_jax.data.sources import build_source
from decloss_jax.metrics import lpips_each
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.reproduction.paper import TABLE1
from decloss_jax.reproduction.runs import Settings, row_config, train_row
from decloss_jax.workdir.journal import versions

# Settings of claims.py whose forms are not in the grid.
FORMS = (
    "notched, luma, sharp, 5e-5",
    "whitened, luma, sharp, 5e-5",
    "whitened, luma, 1e-3",
    "constant, 1e-3",
)
# Radial, in cycles per HR pixel; the LR images have the frequencies below 1/8.
BANDS = ((0, 0.125), (0.125, 0.25), (0.25, 0.375), (0.375, 0.5), (0.5, 0.71))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--train", required=True, metavar="ROOT", help="folder of BSDS400")
    parser.add_argument("--trained", nargs="+", type=int, default=[], help="numbers of settings, from 0")
    options = parser.parse_args()
    program.prepare_jax("measuring")

    overrides = {"data.root": options.train}
    workdir, config, _ = train_row(TABLE1[0], 0, Settings("mini", overrides, RUNS, []))
    sr, hr = centres(workdir, config, config.data.crop_size)
    perceptual = row_config(TABLE1[2], 0, Settings("mini", overrides, RUNS, []))
    losses = {"L1": loss_of("l1", config), "perceptual": loss_of("perceptual", perceptual)}
    claims_forms.register(claims_forms.read_crops(config.data))
    for setting in (*GRID, *(SETTINGS[name].fields for name in FORMS)):
        changes = {name: value for name, value in setting.items() if name.startswith("decloss.")}
        name = "DECLoss, " + describe(changes)
        if name not in losses:
            settings = Settings("mini", overrides | changes, RUNS, [])
            losses[name] = loss_of("decloss", row_config(TABLE1[1], 0, settings))
    side = config.decloss.patch_size
    rows = [{"loss": name} | measure(loss, sr, hr, side) for name, loss in losses.items()]
    record = {"versions": versions(), "crops": len(sr), "bands": BANDS, "rows": rows}
    (RESULTS / "gradients.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "gradients.md").write_text(table(rows))
    print(table(rows), end="")

    if options.trained:
        measure_errors(options.trained, overrides, sr, hr)


def measure_errors(numbers: list[int], overrides: dict[str, Any], first: np.ndarray, hr: np.ndarray) -> None:
    """Measures stage 1 and networks trained with settings of the grid; writes errors.json and errors.md."""
    errors = [{"network": "stage 1"} | error_of(first, hr)]
    for number in numbers:
        settings = Settings("mini", overrides | GRID[number], RUNS, [])
        workdir, config, _ = train_row(TABLE1[1], 0, settings)
        sr, _ = centres(workdir, config, config.data.crop_size)
        of_setting = {"network": describe(GRID[number]), "lattice": lattice_shares(sr - first)["period 4"]}
        errors.append(of_setting | error_of(sr, hr))
    (RESULTS / "errors.json").write_text(json.dumps({"bands": BANDS, "rows": errors}, indent=1) + "\n")
    (RESULTS / "errors.md").write_text(table_of_errors(errors))
    print(table_of_errors(errors), end="")


def centres(workdir: Path, config: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns SR and HR [N,S,S,3] in [0,1] of the centre of each held-out image, S = `size`."""
    from decloss_jax.models import build_model
    from decloss_jax.workdir.checkpoint import load_checkpoint

    _, params, _ = load_checkpoint(workdir)
    scale = config.model.scale
    side = size // scale
    lows, hrs = [], []
    for pair in build_source(config.data, scale=scale, split="validation"):
        low, hr = pair.load(scale)
        top, left = ((length - side) // 2 for length in low.shape[:2])
        lows.append(low[top : top + side, left : left + side])
        hrs.append(hr[scale * top : scale * (top + side), scale * left : scale * (left + side)])
    low, hr = (np.stack(images).astype(np.float32) / 255 for images in (lows, hrs))
    return np.asarray(build_model(config.model).apply({"params": params}, low)), hr


def loss_of(term: str, config: Any) -> Callable:
    """Returns the unweighted term of Eq. 26 as a function of (sr, hr)."""
    from decloss_jax.host import parallel
    from decloss_jax.training.terms import TERMS

    built = TERMS[term](config, parallel.data_mesh())
    return lambda sr, hr: built.value(built.frozen, sr, hr)[0]


def measure(loss: Callable, sr: np.ndarray, hr: np.ndarray, side: int) -> dict[str, Any]:
    """Returns the values at SR and HR, and the gradient's power by band; mini-patches have `side` pixels."""
    import jax

    from decloss_jax.ops.patches import extract_patches

    value, gradient = jax.jit(jax.value_and_grad(loss))(sr, hr)
    gradient = np.asarray(gradient, np.float64)
    descent = -np.fft.fft2(gradient, axes=(1, 2))
    missing, present = (np.fft.fft2(x.astype(np.float64), axes=(1, 2)) for x in (hr - sr, sr))
    power = np.sum(np.abs(descent) ** 2)
    colour = gradient - gradient.mean(axis=-1, keepdims=True)
    patches, of_patches = (np.asarray(extract_patches(x, side), np.float64) for x in (sr, gradient))
    pixels = patches.reshape(len(patches), -1, sr.shape[-1])
    flattest = np.argsort(np.var(pixels, axis=1).sum(axis=1))[: len(patches) // 10]
    bands = [
        {
            "power": float(np.sum(np.abs(descent[:, mask]) ** 2) / power),
            "restores": cosine(descent[:, mask], missing[:, mask]),
            "strengthens": cosine(descent[:, mask], present[:, mask]),
        }
        for mask in band_masks(sr.shape[1], BANDS)
    ]
    return {
        "at_sr": float(value),
        "at_hr": float(jax.jit(loss)(hr, hr)),
        "gradient_rms": float(np.sqrt(np.mean(gradient**2))),
        "colour": float(np.sum(colour**2) / np.sum(gradient**2)),
        "flattest_tenth": float(np.sum(of_patches[flattest] ** 2) / np.sum(of_patches**2)),
        "bands": bands,
    }


def error_of(sr: np.ndarray, hr: np.ndarray) -> dict[str, Any]:
    """Returns PSNR, LPIPS, and the mean square of SR - HR in each band, for luma and colour."""
    error = (sr - hr).astype(np.float64)
    luma = np.broadcast_to(error.mean(axis=-1, keepdims=True), error.shape)
    pictures = [(to_uint8(image), to_uint8(truth)) for image, truth in zip(sr, hr, strict=True)]
    values: dict[str, Any] = {"psnr": float(-10 * np.log10(np.mean(error**2)))}
    for net in ("alex", "vgg"):
        values[f"lpips_{net}"] = float(np.mean(list(lpips_each(*zip(*pictures, strict=True), net=net))))
    for name, part in (("luma", luma), ("colour", error - luma)):
        power = np.abs(np.fft.fft2(part, axes=(1, 2))) ** 2 / (part.size * sr.shape[1] * sr.shape[2])
        values[name] = [float(np.sum(power[:, mask])) for mask in band_masks(sr.shape[1], BANDS)]
    return values


def table(rows: list[dict[str, Any]]) -> str:
    """Writes the rows as Markdown; for each band: fraction of power, restores, strengthens."""
    l1 = rows[0]["gradient_rms"]
    names = " | ".join(f"{low:g} to {high:g}" for low, high in BANDS)
    lines = [
        f"| loss | at SR | at HR | gradient rms / L1's | colour | flattest tenth | {names} |",
        "|---|---|---|---|---|---|" + "---|" * len(BANDS),
    ]
    for row in rows:
        bands = " | ".join(
            f"{band['power']:.0%} {band['restores']:+.2f} {band['strengthens']:+.2f}" for band in row["bands"]
        )
        values = (
            f"{row['at_sr']:.4f} | {row['at_hr']:.4f} | {row['gradient_rms'] / l1:.3g} "
            f"| {row['colour']:.0%} | {row['flattest_tenth']:.0%}"
        )
        lines.append(f"| {row['loss']} | {values} | {bands} |")
    return "\n".join(lines) + "\n"


def table_of_errors(rows: list[dict[str, Any]]) -> str:
    """Writes the errors as Markdown, in 1e-6 of the squared range; for each band: luma + colour."""
    names = " | ".join(f"{low:g} to {high:g}" for low, high in BANDS)
    lines = [
        f"| network | PSNR, all crops as one | LPIPS-alex | LPIPS-vgg | lattice | {names} |",
        "|---|---|---|---|---|" + "---|" * len(BANDS),
    ]
    for row in rows:
        pairs = zip(row["luma"], row["colour"], strict=True)
        bands = " | ".join(f"{1e6 * luma:.0f} + {1e6 * colour:.0f}" for luma, colour in pairs)
        scores = f"{row['psnr']:.2f} | {row['lpips_alex']:.4f} | {row['lpips_vgg']:.4f}"
        lattice = f"{row['lattice']:.1%}" if "lattice" in row else ""
        lines.append(f"| {row['network']} | {scores} | {lattice} | {bands} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
