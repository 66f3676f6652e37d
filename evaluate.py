"""Measures super-resolution methods on folders of images.

--workdir, --weights and --method may be given together and several times; one table compares all of them.
"""

import argparse
from collections.abc import Sequence

from decloss_jax.commands import program

EXAMPLES = (
    "python evaluate.py --workdir runs/edsr_decloss --data data/Set5,data/BSD100 --out results/edsr_decloss",
    "python evaluate.py --weights edsr_x4.pth --data photographs --out runs/edsr_x4",
    "python evaluate.py --method bicubic --workdir runs/quickstart --data data/Set5 --out runs/compared",
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = program.Parser(prog="evaluate.py", **program.help_text(__doc__, EXAMPLES))
    add = parser.add_argument
    add("--workdir", action="append", default=[], help="folder of a run of train.py")
    add("--weights", action="append", default=[], help="file of weights: .safetensors, .pth or .pt")
    add("--method", action="append", default=[], help="a method without weights: bicubic")
    data = "folders with HR/ and, optionally, LRx4/; or photographs: the packaged held-out ones"
    add("--data", type=program.comma_list, default=[], metavar="ROOT[,ROOT...]", help=data)
    add("--out", default="", help="folder for rows.csv, summary.json, report.html and sr/SET/*.png")
    stages = ("pretrain", "finetune", "all")
    add("--stage", choices=stages, help="of the --workdir runs; default: the last one trained")
    conventions = ("basicsr", "paper")
    add("--conventions", choices=conventions, default="basicsr", help="docs/metrics.md; default: basicsr")
    border = "pixels cropped on each side before PSNR, SSIM and NIQE; default: the conventions'"
    add("--crop-border", "--crop_border", type=int, metavar="N", help=border)
    metrics = "psnr, ssim, lpips_alex, lpips_vgg, icoo, niqe; default: the conventions'"
    add("--metrics", type=program.comma_list, default=[], metavar="NAME[,NAME...]", help=metrics)
    res_scale = "EDSR's residual scale, if a file of --weights does not record it"
    add("--res-scale", "--res_scale", type=float, help=res_scale)
    heat = "standard deviation of the noise in SRFlow's samples; default: 0.9"
    add("--heat", type=float, help=heat)
    add("--seed", type=int, help="of the noise in SRFlow's samples; default: 0")
    add("--scale", type=int, help="scale of bicubic; default: that of the networks, or 4")
    parser.set_defaults(main=main, resumes=False)
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    # Imported here so that --help and a mistyped option are answered at once.
    from decloss_jax import evaluation
    from decloss_jax.evaluation.conventions import choose_protocol
    from decloss_jax.evaluation.methods import load_methods
    from decloss_jax.evaluation.table import print_table

    program.prepare_jax("evaluating")
    methods = load_methods(
        names=options.method,
        workdirs=options.workdir,
        weights=options.weights,
        stage=options.stage,
        scale=options.scale,
        res_scale=options.res_scale,
        heat=options.heat,
        seed=options.seed,
    )
    protocol = choose_protocol(
        options.conventions,
        scale=methods[0].scale,
        crop_border=options.crop_border,
        metrics=options.metrics,
    )
    print_table(evaluation.run(methods, options.data, options.out, protocol))
    print(f"written to {options.out}: look at report.html")


if __name__ == "__main__":
    program.start("evaluate.py", parse)
