"""Measures super-resolution methods on folders of images.

    python evaluate.py --workdir DIR | --weights FILE | --method bicubic --data ROOT[,ROOT...] --out DIR
    python evaluate.py --method bicubic --workdir runs/quickstart --data data/Set5 --out runs/compared
    python evaluate.py --weights edsr_x4.pth --data photographs --out runs/edsr_x4

Several of --workdir, --weights and --method may be given, each several times: they are compared in one table.
"""

from absl import flags

from decloss_jax.commands import scripts

METHOD = flags.DEFINE_multi_string("method", [], "A method without weights: bicubic.")
WORKDIR = flags.DEFINE_multi_string("workdir", [], "Folder of a run of train.py.")
WEIGHTS = flags.DEFINE_multi_string("weights", [], "File of weights: .safetensors, .pth or .pt.")
STAGE = flags.DEFINE_enum(
    "stage",
    None,
    ["pretrain", "finetune", "all"],
    "Stage of the --workdir runs; by default the last trained.",
)
DATA = flags.DEFINE_list(
    "data", [], "Folders with HR/ and, if there, LRx4/, or photographs: the packaged held-out ones."
)
OUT = flags.DEFINE_string("out", "", "Folder for rows.csv, summary.json, report.html and sr/SET/*.png.")
CONVENTIONS = flags.DEFINE_enum("conventions", "basicsr", ["basicsr", "paper"], "See docs/metrics.md.")
CROP_BORDER = flags.DEFINE_integer(
    "crop_border", None, "Pixels cut off each side before PSNR and SSIM; by default the conventions'.", 0
)
flags.DEFINE_alias("crop-border", "crop_border")
METRICS = flags.DEFINE_list(
    "metrics", [], "psnr, ssim, lpips_alex, lpips_vgg, icoo; by default the conventions'."
)
RES_SCALE = flags.DEFINE_float(
    "res_scale", None, "EDSR's residual scale, where a file of --weights does not say it."
)
flags.DEFINE_alias("res-scale", "res_scale")
SCALE = flags.DEFINE_integer("scale", None, "Scale of bicubic; by default the generators', or 4.", 1)


def main(arguments: list[str]) -> None:
    # Imported here so that --help and a mistyped flag are answered at once.
    from decloss_jax import evaluation
    from decloss_jax.evaluation.conventions import choose_protocol
    from decloss_jax.evaluation.methods import load_methods
    from decloss_jax.evaluation.table import print_table

    scripts.use_compilation_cache()
    methods = load_methods(
        names=METHOD.value,
        workdirs=WORKDIR.value,
        weights=WEIGHTS.value,
        stage=STAGE.value,
        scale=SCALE.value,
        res_scale=RES_SCALE.value,
    )
    protocol = choose_protocol(
        CONVENTIONS.value, scale=methods[0].scale, crop_border=CROP_BORDER.value, metrics=METRICS.value
    )
    print_table(evaluation.run(methods, DATA.value, OUT.value, protocol))
    print(f"written to {OUT.value}: look at report.html")


if __name__ == "__main__":
    scripts.run(main)
