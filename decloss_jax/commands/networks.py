"""Commands that work with a network: upscale, convert, compare-torch."""

import argparse
import functools
import os
from pathlib import Path
from typing import Any

from decloss_jax import checks
from decloss_jax.commands import program
from decloss_jax.host import console

FORMATS = ("png", "jpg", "webp", "tif", "bmp")
NETWORK = "a .pth, .pt or .safetensors file of a network, or the workdir of a run"


def add_res_scale(parser: argparse.ArgumentParser) -> None:
    """Adds the option for EDSR's residual scale, which files do not record."""
    parser.add_argument(
        "--res-scale",
        type=float,
        help="EDSR's residual scale, if the file does not record it (default: 0.1 for 32 x 256, else 1)",
    )


def add_upscale(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `upscale_pictures`."""
    parser.add_argument("input", type=program.path, help="a picture, or a folder of pictures")
    parser.add_argument("output", type=program.path, help="the picture or the folder to write")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=program.path, help=NETWORK)
    weights.add_argument(
        "--interpolate", metavar="A,B,ALPHA", help="(1 - ALPHA) times the weights of A plus ALPHA times B's"
    )
    weights.add_argument(
        "--detail",
        type=float,
        help="of the packaged x4 network, without the options above: 0 (faithful) to 1; default: 0.75",
    )
    add_res_scale(parser)
    parser.add_argument(
        "--heat", type=float, help="standard deviation of the noise in SRFlow's samples, 0 to 1; default: 0.9"
    )
    parser.add_argument("--seed", type=int, help="of the noise in SRFlow's samples; default: 0")
    parser.add_argument("--self-ensemble", action="store_true", help="average over eight flips and turns")
    parser.add_argument("--format", choices=FORMATS, help="of the output files; default: that of the input")
    parser.add_argument("--tile", type=int, help="largest side that the network sees at once, in LR pixels")
    parser.add_argument(
        "--overlap",
        type=int,
        help="LR pixels around each tile that it shares with others (docs/upscaling.md)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def upscale_pictures(options: argparse.Namespace) -> int:
    """Upscales a picture or a folder of pictures; status 2 if one of them failed."""
    import jax

    from decloss_jax import inference
    from decloss_jax.inference.files import upscale_files
    from decloss_jax.inference.samples import choose_upscale

    program.prepare_jax("upscaling")
    model, params, line = choose_network(options)
    console.say(line)
    tile, overlap = inference.choose_tiles(model, options.tile, options.overlap, jax.local_devices())
    network = functools.partial(
        choose_upscale(model, heat=options.heat, seed=options.seed, self_ensemble=options.self_ensemble),
        model,
        inference.on_local_devices(params),
        tile=tile,
        overlap=overlap,
    )
    problems = upscale_files(
        network,
        options.input,
        options.output,
        scale=model.scale,
        ending=options.format and f".{options.format}",
        overwrite=options.overwrite,
    )
    for problem in problems:
        program.complain("decloss_jax upscale", problem)
    return 2 if problems else 0


def choose_network(options: argparse.Namespace) -> tuple[Any, Any, str]:
    """Loads the network that the options of `upscale` name; returns model, parameters and a description."""
    from decloss_jax.weights import packaged

    if options.interpolate is not None:
        return interpolate_networks(options.interpolate, options.res_scale)
    if options.weights is not None:
        return open_network(options.weights, options.res_scale)
    checks.check(
        options.res_scale is None,
        "--res-scale",
        expected="none for the packaged network",
        got=options.res_scale,
        remedy="leave it out, or name a file with --weights",
    )
    return packaged.load_packaged(packaged.DETAIL if options.detail is None else options.detail)


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `convert_weights`."""
    parser.add_argument("input", type=program.path, help=NETWORK)
    parser.add_argument(
        "output", type=program.path, help="file to write: .safetensors, .pth or .pt (BasicSR's names)"
    )
    add_res_scale(parser)
    parser.add_argument("--float16", action="store_true", help="halve the file; .safetensors only")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def convert_weights(options: argparse.Namespace) -> None:
    """Writes the weights of one file to another, under BasicSR's names."""
    from decloss_jax.weights import save_generator

    check_new(options.output, options.overwrite)
    model, params, line = open_network(options.input, options.res_scale)
    save_generator(options.output, model, params, dtype="float16" if options.float16 else "float32")
    print(console.printable(f"{line} -> {options.output}"))


def add_compare_torch(parser: argparse.ArgumentParser) -> None:
    """Describes the command line of `compare_with_torch`."""
    parser.add_argument("--weights", type=program.path, help=f"{NETWORK}, to use in the comparison")
    add_res_scale(parser)


def compare_with_torch(options: argparse.Namespace) -> int:
    """Prints the difference of each part from PyTorch; status 1 if one exceeds its bound."""
    from decloss_jax.compare_torch import compare

    program.prepare_jax("comparing")
    network = None
    if options.weights is not None:
        model, params, line = open_network(options.weights, options.res_scale)
        print(console.printable(line))
        network = (model, params)
    return 0 if compare(network) else 1


def open_network(path: str | Path, res_scale: float | None) -> tuple[Any, Any, str]:
    """Loads a network; returns model, parameters and a line that describes it."""
    from decloss_jax.weights import describe
    from decloss_jax.workdir.network import load_network

    model, params, description = load_network(path, res_scale=res_scale)
    return model, params, describe(description)


def interpolate_networks(text: str, res_scale: float | None) -> tuple[Any, Any, str]:
    """Loads two networks and mixes their parameters; returns model, parameters and a description."""
    from decloss_jax.weights import interpolate

    first, second, amount = parse_interpolation(text)
    model, params, line = open_network(first, res_scale)
    other_model, other_params, other_line = open_network(second, res_scale)
    checks.check(
        model == other_model,
        "--interpolate",
        expected=f"two networks of one kind; the first is {line}",
        got=other_line,
        remedy="choose a network and one that was fine-tuned from it",
    )
    mixed = interpolate(params, other_params, amount)
    return model, mixed, f"{1 - amount:g} x ({line}) + {amount:g} x ({other_line})"


def parse_interpolation(text: str) -> tuple[str, str, float]:
    """Parses A,B,ALPHA."""
    parts = text.split(",")
    try:
        first, second, amount = parts[0], parts[1], float(parts[2])
    except (IndexError, ValueError):
        parts = []
    checks.check(
        len(parts) == 3,
        "--interpolate",
        expected="A,B,ALPHA, two files of weights and a number",
        got=text,
        remedy="write, for example, --interpolate psnr.pth,gan.pth,0.8",
    )
    checks.check_range("ALPHA of --interpolate", amount, 0, 1)
    return first, second, amount


def check_new(path: Path, overwrite: bool) -> None:
    """Raises `UserError` for an existing file, unless it may be replaced."""
    checks.check(
        overwrite or not os.path.lexists(path),
        str(path),
        expected="a new file",
        got="an existing one",
        remedy="choose another name or give --overwrite",
    )
