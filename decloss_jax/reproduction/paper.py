"""The numbers that the paper prints, row by row, and the config of each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Printed:
    """Numbers of the paper: PSNR in dB, LPIPS, ICOO in dB."""

    psnr: float
    lpips: float
    icoo: float


@dataclass(frozen=True, eq=False)
class PaperRow:
    """A row of a table, or a point of a figure. Rows are hashed by identity.

    Attributes:
        name: in our tables.
        config: path in configs/, without suffix; "" for a row that is not trained.
        method: for a row without training, a baseline of evaluate.py.
        printed: data set -> numbers.
        hours: GPU hours on A100s, printed.
    """

    name: str
    config: str = ""
    method: str = ""
    printed: Mapping[str, Printed] = field(default_factory=dict)
    hours: float | None = None


@dataclass(frozen=True)
class Experiment:
    """A table or a figure of the paper.

    Attributes:
        title: its number and subject.
        rows: to train and measure, in the paper's order.
        conventions: those of evaluate.py that match the printed numbers.
        psnr: the metric that corresponds to the printed PSNR.
        lpips: the metric that corresponds to the printed LPIPS.
    """

    title: str
    rows: Sequence[PaperRow]
    conventions: str = "basicsr"
    psnr: str = "psnr_rgb"
    lpips: str = "lpips_alex"


def on_div2k(config: str, psnr: float, lpips: float, icoo: float, hours: float | None = None) -> PaperRow:
    """Returns a row with numbers printed for DIV2K's validation images."""
    folder, _, name = config.partition("/")
    name = name if folder == "table1" else config
    return PaperRow(name, config, printed={"DIV2K": Printed(psnr, lpips, icoo)}, hours=hours)


def on_three_sets(
    name: str, config: str, method: str, hours: float | None, *values: tuple[float, float, float]
) -> PaperRow:
    """Returns a row of Table 3: values for DIV2K, Urban100 and BSD100."""
    sets = ("DIV2K", "Urban100", "BSD100")
    printed = {dataset: Printed(*triple) for dataset, triple in zip(sets, values, strict=True)}
    return PaperRow(name, config, method, printed, hours)


TABLE1 = (
    on_div2k("table1/01_edsr_l1", 28.56, 0.273, 28.54, 6.33),
    on_div2k("table1/02_edsr_decloss", 27.22, 0.179, 28.23, 6.61),
    on_div2k("table1/03_edsr_perceptual", 26.44, 0.166, 26.60, 8.94),
    on_div2k("table1/04_edsr_perceptual_gan", 26.34, 0.160, 26.42, 33.56),
    on_div2k("table1/05_edsr_perceptual_ragan", 26.25, 0.157, 26.15, 34.22),
    on_div2k("table1/06_edsr_perceptual_decloss", 26.71, 0.160, 26.73, 9.50),
    on_div2k("table1/07_edsr_perceptual_decloss_ragan", 26.36, 0.153, 25.90, 33.89),
    on_div2k("table1/08_rrdb_perceptual_decloss", 28.47, 0.118, 26.75, 43.22),
    on_div2k("table1/09_rrdb_perceptual_ragan", 26.64, 0.092, 25.58, 67.72),
    on_div2k("table1/10_rrdb_perceptual_decloss_ragan", 27.01, 0.090, 25.83, 71.08),
)
TABLE2 = (
    on_div2k("table2/p1", 27.30, 0.1722, 27.43),
    on_div2k("table2/p2", 26.93, 0.1648, 27.21),
    on_div2k("table2/p3", 26.78, 0.1643, 27.14),
    on_div2k("table2/p4", 26.65, 0.1635, 26.82),
    on_div2k("table2/p8", 26.48, 0.1596, 26.65),
)
TABLE3 = (
    on_three_sets(
        "Bicubic", "", "bicubic", None, (24.11, 0.210, 28.94), (21.70, 0.237, 27.34), (24.65, 0.198, 28.66)
    ),
    on_three_sets(
        "EDSR", "table1/01_edsr_l1", "", 6.333,
        (28.97, 0.138, 27.23), (24.51, 0.140, 24.67), (26.24, 0.158, 26.00),
    ),
    on_three_sets(
        "SRFlow", "table3/srflow", "", 913.2,
        (27.06, 0.103, 26.26), (23.69, 0.116, 23.90), (24.67, 0.115, 23.90),
    ),
    on_three_sets(
        "RankSRGAN", "table3/ranksrgan", "", 104.1,
        (26.55, 0.099, 25.97), (22.98, 0.122, 23.90), (24.13, 0.114, 24.15),
    ),
    on_three_sets(
        "DECLoss", "table1/08_rrdb_perceptual_decloss", "", 43.22,
        (28.47, 0.118, 26.75), (24.70, 0.113, 23.30), (25.54, 0.138, 23.87),
    ),
    on_three_sets(
        "ESRGAN", "table1/09_rrdb_perceptual_ragan", "", 67.72,
        (26.64, 0.092, 25.58), (22.78, 0.108, 22.58), (23.97, 0.108, 23.58),
    ),
    on_three_sets(
        "DECLoss+", "table1/10_rrdb_perceptual_decloss_ragan", "", 71.08,
        (27.01, 0.090, 25.83), (23.27, 0.105, 22.83), (24.24, 0.106, 23.59),
    ),
)  # fmt: skip
FIGURE6_TEMPERATURES = (0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
FIGURE6 = tuple(
    PaperRow(f"{name} = {value}", f"figure6/{name}_{value}".replace(".", "_"))
    for name in ("t_pos", "t_neg")
    for value in FIGURE6_TEMPERATURES
)

SCALE = 4  # of all experiments: LR pixels become 4 x 4
SIZES = ("full", "mini")  # of an experiment: as printed, or shrunk by configs/mini.py

EXPERIMENTS = {
    "table1": Experiment("Table 1, the losses", TABLE1),
    "table2": Experiment("Table 2, the sizes of mini-patches", TABLE2),
    "table3": Experiment("Table 3, other methods", TABLE3, conventions="paper", lpips="lpips_vgg_unscaled"),
    "figure2": Experiment("Figure 2, mini-patches of one detail by t-SNE", TABLE1[:2]),
    "figure5": Experiment("Figure 5, ICOO against LPIPS", TABLE1 + TABLE2),
    "figure6": Experiment("Figure 6, the temperatures", FIGURE6),
}
