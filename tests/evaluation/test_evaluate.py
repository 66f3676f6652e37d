"""Evaluation end to end, in this process and from the command line."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import assert_one_sentence, run
from PIL import Image

from decloss_jax import evaluation
from decloss_jax.checks import UserError
from decloss_jax.compare_torch import torch_losses
from decloss_jax.compare_torch.inputs import to_torch
from decloss_jax.evaluation.conventions import CONVENTIONS, choose_protocol
from decloss_jax.evaluation.methods import Method, load_methods, one_by_one
from decloss_jax.evaluation.output import folder_that_appears
from decloss_jax.metrics import icoo, niqe, psnr, ssim
from decloss_jax.models import EDSR
from decloss_jax.ops.quantize import to_uint8
from decloss_jax.ops.resize import bicubic_downscale, bicubic_upscale
from decloss_jax.weights import save_generator
from decloss_jax.weights.trunks import load_lpips_linear, load_trunk

FIDELITY = ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y")


def write_set(folder, sizes, *, scale=4, low=True, seed=0):
    """Writes smooth random images, whose LR images are informative."""
    rng = np.random.default_rng(seed)
    for i, (height, width) in enumerate(sizes):
        small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        hr = bicubic_upscale(small, 8)[:height, :width]
        for name, image in (("HR", hr), (f"LRx{scale}", bicubic_downscale(hr, scale))):
            if name == "HR" or low:
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / name / f"image_{i}.png")
    return folder


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("sets") / "Small", [(48, 64), (48, 64), (40, 48)])


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    model = EDSR(scale=4, features=4, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(path, model, params)
    return path, model, params


@pytest.mark.parametrize(("data", "psnr_y"), [("Set5", 28.432), ("Set14", 26.093)])
def test_bicubic_has_its_known_psnr(shared, tmp_path, data, psnr_y):
    protocol = choose_protocol("basicsr", scale=4, metrics=["psnr_y"])
    table = evaluation.run(
        load_methods(names=["bicubic"]), [str(shared / "data" / data)], tmp_path / "out", protocol
    )
    assert table.lines[0].values["psnr_y"] == pytest.approx(psnr_y, abs=0.005)


def test_run_writes_what_it_measures(small_set, tmp_path):
    out = tmp_path / "deep" / "out"
    protocol = choose_protocol("basicsr", scale=4)
    evaluation.run(load_methods(names=["bicubic"]), [str(small_set)], out, protocol)

    names = [f"image_{i}" for i in range(3)]
    srs = [read(out / "sr" / "Small" / f"{name}.png") for name in names]
    hrs = [read(small_set / "HR" / f"{name}.png") for name in names]
    for name, sr in zip(names, srs, strict=True):
        np.testing.assert_array_equal(sr, bicubic_upscale(read(small_set / "LRx4" / f"{name}.png"), 4))

    with (out / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["image"]) for row in rows] == [("Small", name) for name in names]
    assert list(rows[0]) == ["dataset", "image", *FIDELITY, "lpips_alex"]
    assert float(rows[1]["psnr_y"]) == psnr(srs[1], hrs[1], crop_border=4, channel="y")
    assert float(rows[1]["ssim_rgb"]) == ssim(srs[1], hrs[1], crop_border=4, channel="rgb")

    summary = json.loads((out / "summary.json").read_text())
    assert list(summary) == ["method", "loaded", "conventions", "versions", "data", "datasets"]
    assert summary["method"] == "bicubic"
    assert summary["conventions"]["crop_border"] == 4
    assert summary["versions"]["weights"]["lpips_alex"].startswith("443c5bc3")
    assert summary["data"] == {"Small": str(small_set.resolve())}
    values = summary["datasets"]["Small"]
    assert list(values) == ["images", *FIDELITY, "lpips_alex", "icoo"]
    assert values["images"] == 3
    for name in (*FIDELITY, "lpips_alex"):
        assert values[name] == pytest.approx(np.mean([float(row[name]) for row in rows]), abs=1e-12)
    assert values["icoo"] == icoo(srs, hrs, seed=0)

    page = (out / "report.html").read_text()
    assert "psnr_y \u2191 dB" in page
    assert page.count("data:image/webp;base64,") == 3 * 2
    assert 'href="sr/Small/image_0.png"' in page


def test_paper_conventions_feed_vgg_with_0_to_255_and_cut_no_border(small_set, tmp_path):
    protocol = choose_protocol("paper", scale=4)
    evaluation.run(load_methods(names=["bicubic"]), [str(small_set)], tmp_path / "out", protocol)
    weights = {"weights": load_trunk("vgg16"), "linear": load_lpips_linear("vgg16")}
    expected = {"psnr_rgb": [], "lpips_vgg_unscaled": []}
    for i in range(3):
        pair = (
            read(tmp_path / "out" / "sr" / "Small" / f"image_{i}.png"),
            read(small_set / "HR" / f"image_{i}.png"),
        )
        error = np.mean(np.square(np.subtract(*pair, dtype=np.float64)))
        expected["psnr_rgb"].append(10 * np.log10(255**2 / error))
        # The official network maps x to 2 x - 1, so that it sees 0..255.
        unscaled = [to_torch((image[None].astype(np.float32) + 1) / 2) for image in pair]
        value = torch_losses.lpips(*unscaled, network="vgg16", **weights)
        expected["lpips_vgg_unscaled"].append(value.item())
    with (tmp_path / "out" / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, values in expected.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-4)


def test_run_makes_lr_images_where_there_are_none(tmp_path):
    root = write_set(tmp_path / "Plain", [(49, 66)], low=False)
    protocol = choose_protocol("basicsr", scale=3, metrics=["psnr_rgb"])
    evaluation.run(load_methods(names=["bicubic"], scale=3), [str(root)], tmp_path / "out", protocol)
    hr = read(root / "HR" / "image_0.png")[:48]
    expected = bicubic_upscale(bicubic_downscale(hr, 3), 3)
    np.testing.assert_array_equal(read(tmp_path / "out" / "sr" / "Plain" / "image_0.png"), expected)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["conventions"]["low"] == {"Plain": "made by MATLAB's bicubic"}
    assert summary["datasets"]["Plain"]["psnr_rgb"] == psnr(expected, hr, crop_border=3)


def test_run_of_several_methods_gives_each_a_folder(small_set, weights_file, tmp_path):
    path, model, params = weights_file
    methods = load_methods(names=["bicubic"], weights=[str(path), str(path)])
    assert [method.name for method in methods] == ["bicubic", "tiny", "tiny-2"]
    protocol = choose_protocol("basicsr", scale=4, metrics=["psnr"])
    table = evaluation.run(methods, [str(small_set)], tmp_path / "out", protocol)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bicubic", "report.html", "table.csv", "tiny", "tiny-2",
    ]  # fmt: skip
    for method in methods:
        folder = tmp_path / "out" / method.name
        assert sorted(p.name for p in folder.iterdir()) == ["report.html", "rows.csv", "sr", "summary.json"]
    tiny = json.loads((tmp_path / "out" / "tiny" / "summary.json").read_text())
    assert len(tiny["versions"]["weights"]["tiny"]) == 64
    assert [line.method for line in table.lines] == ["bicubic", "tiny", "tiny-2"]
    low = read(small_set / "LRx4" / "image_1.png")
    expected = to_uint8(np.asarray(model.apply({"params": params}, low[None] / np.float32(255)))[0])
    written = read(tmp_path / "out" / "tiny" / "sr" / "Small" / "image_1.png")
    assert np.abs(written.astype(int) - expected).max() <= 1
    assert np.mean(written != expected) < 1e-3


def test_run_replaces_an_evaluation_and_nothing_else(small_set, tmp_path):
    methods, protocol = load_methods(names=["bicubic"]), choose_protocol("basicsr", scale=4, metrics=["psnr"])
    out = tmp_path / "out"
    out.mkdir()
    evaluation.run(methods, [str(small_set)], out, protocol)
    (out / "rows.csv").write_text("old")
    evaluation.run(methods, [str(small_set)], out, protocol)
    assert (out / "rows.csv").read_text() != "old"
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "rows.csv", "sr", "summary.json"]
    with pytest.raises(UserError, match="which holds HR"):
        evaluation.run(methods, [str(small_set)], small_set, protocol)


def write_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")


def contents(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("names", "foreign"),
    [
        (["rows.csv", "summary.json", "thesis.tex"], "thesis.tex"),
        (["table.csv", "notes/summary.json", "notes/diary.txt"], "notes"),
        (["table.csv", "report.html", "raw/rows.csv"], "raw"),
        (["summary.json", "table.csv/precious"], "table.csv"),
        (["sr/mine.png"], "sr"),
        ([".git/config"], ".git"),
    ],
)
def test_out_is_refused_by_the_first_foreign_entry(tmp_path, names, foreign):
    write_files(tmp_path, *names)
    with pytest.raises(UserError, match=f"which holds {foreign};"), folder_that_appears(tmp_path):
        pass
    assert contents(tmp_path) == set(names)


def test_out_that_is_a_file_is_refused(tmp_path):
    write_files(tmp_path, "out")
    with pytest.raises(UserError, match="which is not a folder"), folder_that_appears(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["rows.csv", "summary.json", "report.html", "sr/Set5/baby.png"],
        ["table.csv", "report.html", "bicubic/summary.json", "bicubic/sr/Set5/baby.png"],
    ],
)
@pytest.mark.parametrize("through_symlink", [False, True])
def test_out_that_is_there_stays_itself(tmp_path, names, through_symlink):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_files(folder, *names)
    identity = folder.stat().st_ino  # a mount point cannot be replaced either
    out = folder
    if through_symlink:
        out = tmp_path / "link"
        out.symlink_to(folder)
    before = set(tmp_path.iterdir())
    with folder_that_appears(out) as temporary:
        assert contents(folder) == set(names)
        write_files(temporary, "rows.csv", "sr/B100/new.png")
    assert contents(folder) == {"rows.csv", "sr/B100/new.png"}
    assert sorted(path.name for path in folder.iterdir()) == ["rows.csv", "sr"]
    assert folder.stat().st_ino == identity
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("exists", [False, True])
def test_out_is_as_before_after_an_interruption(tmp_path, error, exists):
    out = tmp_path / "out"
    if exists:
        write_files(out, "summary.json")
    before = set(tmp_path.rglob("*"))

    def interrupted():
        with folder_that_appears(out) as temporary:
            write_files(temporary, "rows.csv")
            raise error

    with pytest.raises(error):
        interrupted()
    assert set(tmp_path.rglob("*")) == before


def test_run_writes_the_infinite_psnr_of_equal_images(tmp_path):
    root = write_set(tmp_path / "Set", [(32, 32)])
    hr = read(root / "HR" / "image_0.png")
    protocol = choose_protocol("basicsr", scale=4, metrics=["psnr_rgb"])
    out = tmp_path / "out"
    evaluation.run([Method("perfect", 4, one_by_one(lambda low: hr))], [str(root)], out, protocol)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert summary["datasets"]["Set"] == {"images": 1, "psnr_rgb": "inf"}
    assert (out / "rows.csv").read_text().splitlines()[1] == "Set,image_0,inf"
    assert '<td data-value="inf">inf</td>' in (out / "report.html").read_text()


def test_run_writes_the_infinite_icoo_of_a_flat_image(tmp_path):
    (tmp_path / "Set" / "HR").mkdir(parents=True)
    Image.fromarray(np.full((48, 48, 3), 77, np.uint8)).save(tmp_path / "Set" / "HR" / "flat.png")
    protocol = choose_protocol("basicsr", scale=4, metrics=["icoo"])
    evaluation.run(load_methods(names=["bicubic"]), [str(tmp_path / "Set")], tmp_path / "out", protocol)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["datasets"]["Set"] == {"images": 1, "icoo": "inf"}


def test_run_leaves_a_cell_empty_for_an_image_without_niqe(tmp_path):
    random = np.random.default_rng(0)
    for name, sizes in (("Mixed", [(200, 104), (100, 100)]), ("Small", [(100, 100)])):
        (tmp_path / name / "HR").mkdir(parents=True)
        for i, size in enumerate(sizes):
            image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / "HR" / f"image_{i}.png")
    protocol = choose_protocol("basicsr", scale=4, metrics=["niqe"])
    roots, out = [str(tmp_path / name) for name in ("Mixed", "Small")], tmp_path / "out"
    table = evaluation.run(load_methods(names=["bicubic"]), roots, out, protocol)
    expected = niqe(read(out / "sr" / "Mixed" / "image_0.png"), crop_border=4)
    lines = (out / "rows.csv").read_text().splitlines()[1:]
    assert lines == [f"Mixed,image_0,{expected}", "Mixed,image_1,", "Small,image_0,"]
    datasets = json.loads((out / "summary.json").read_text())["datasets"]
    assert datasets == {"Mixed": {"images": 2, "niqe": expected}, "Small": {"images": 1, "niqe": None}}
    np.testing.assert_equal([line.values["niqe"] for line in table.lines], [expected, np.nan])


@pytest.mark.parametrize("roots", [["", "x"], ["x", ""], [" "]])
def test_run_refuses_an_empty_entry_of_data(tmp_path, monkeypatch, roots):
    write_set(tmp_path / "here", [(32, 32)])
    monkeypatch.chdir(tmp_path / "here")
    roots = [root if not root.strip() else str(write_set(tmp_path / root, [(32, 32)])) for root in roots]
    protocol = choose_protocol("basicsr", scale=4, metrics=["psnr_rgb"])
    with pytest.raises(UserError, match=r"--data: .*got an empty entry"):
        evaluation.run(load_methods(names=["bicubic"]), roots, tmp_path / "out", protocol)


def test_run_leaves_nothing_behind_when_it_fails(tmp_path):
    root = write_set(tmp_path / "Set", [(48, 48), (20, 48)])
    protocol = choose_protocol("basicsr", scale=4, metrics=["psnr", "lpips_alex"])
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"Set/image_1: .*20 x 48"):
        evaluation.run(load_methods(names=["bicubic"]), [str(root)], tmp_path / "out", protocol)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("how", ["missing", "empty", "unpaired", "mismatch"])
def test_run_refuses_bad_data_by_name(tmp_path, how):
    root = write_set(tmp_path / "Set", [(48, 48), (48, 48)])
    if how == "missing":
        root, words = tmp_path / "nowhere", "no such folder"
    elif how == "empty":
        root, words = tmp_path / "hollow", "none in"
        root.mkdir()
    elif how == "unpaired":
        (root / "LRx4" / "image_1.png").unlink()
        words = "image_1.png has no LR image"
    else:
        Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(root / "LRx4" / "image_1.png")
        words = "LR image of image_1"
    with pytest.raises(UserError, match=words):
        evaluation.run(
            load_methods(names=["bicubic"]),
            [str(root)],
            tmp_path / "out",
            choose_protocol("basicsr", scale=4),
        )
    assert not (tmp_path / "out").exists()


def test_choose_protocol_fills_in_the_conventions():
    assert choose_protocol("basicsr", scale=3).crop_border == 3
    assert choose_protocol("basicsr", scale=3, crop_border=0).crop_border == 0
    assert choose_protocol("basicsr", scale=4).metrics == (*FIDELITY, "lpips_alex", "icoo")
    paper = choose_protocol("paper", scale=4)
    assert paper.crop_border == 0
    assert paper.metrics == ("psnr_rgb", "lpips_vgg_unscaled", "icoo")
    assert choose_protocol("paper", scale=4, metrics=["lpips_vgg", "psnr", "psnr_y"]).metrics == (
        "lpips_vgg", "psnr_rgb", "psnr_y",
    )  # fmt: skip


def test_choose_protocol_refuses_unknown_names():
    with pytest.raises(UserError, match=r"one of psnr, ssim, .*nearest: lpips_"):
        choose_protocol("basicsr", scale=4, metrics=["lpips"])
    with pytest.raises(UserError, match="one of basicsr, paper"):
        choose_protocol("matlab", scale=4)
    with pytest.raises(UserError, match="add --conventions paper"):
        choose_protocol("basicsr", scale=4, metrics=["lpips_vgg_unscaled"])


def test_load_methods_refuses_what_cannot_be_compared(weights_file, tmp_path):
    path, _, _ = weights_file
    with pytest.raises(UserError, match="at least one of --workdir, --weights and --method"):
        load_methods()
    with pytest.raises(UserError, match="--res-scale"):
        load_methods(names=["bicubic"], res_scale=0.1)
    with pytest.raises(UserError, match="one of bicubic"):
        load_methods(names=["lanczos"])
    with pytest.raises(UserError, match="scale of tiny: expected 2, as --scale says, got 4; give --scale 4"):
        load_methods(weights=[str(path)], scale=2)
    other = tmp_path / "other.safetensors"
    model = EDSR(scale=2, features=4, blocks=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    save_generator(other, model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    with pytest.raises(UserError, match="scale of other: expected 4, as that of tiny, got 2"):
        load_methods(weights=[str(path), str(other)])


def test_a_network_that_gives_nan_is_refused(small_set, tmp_path):
    def broken(low):
        return to_uint8(np.full((4 * low.shape[0], 4 * low.shape[1], 3), np.nan))

    with pytest.raises(UserError, match="NaN or infinite"):
        evaluation.run(
            [Method("broken", 4, one_by_one(broken))],
            [str(small_set)],
            tmp_path / "out",
            choose_protocol("basicsr", scale=4),
        )


def test_evaluate_says_what_it_loaded_and_prints_the_table_with_its_conventions(
    small_set, weights_file, tmp_path
):
    result = run(
        "evaluate.py", "--weights", weights_file[0], "--res-scale", "0.1", "--data", small_set,
        "--out", tmp_path / "out", "--metrics", "psnr", "--crop-border", "2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (
        "tiny.safetensors: BasicSR EDSR x4, 1 blocks, 4 features, res_scale 0.1 (as given)" in result.stderr
    )
    for words in (
        "psnr_rgb",
        "\u2191 dB",
        "Small",
        "tiny",
        "conventions: basicsr, scale 4, border 2",
        "versions:",
    ):
        assert words in result.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["conventions"]["crop_border"] == 2
    assert (summary["loaded"]["file"], summary["loaded"]["res_scale"]) == ("tiny.safetensors", 0.1)
    assert summary["loaded"]["res_scale_from"] == "as given"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "bicubic", "--data", "photographs"], "--out"),
        (
            ["--workdir", "y", "--stage", "all", "--data", "nowhere", "--out", "x"],
            "y: expected a file of weights",
        ),
    ],
)
def test_evaluate_answers_a_mistake_with_one_sentence(arguments, words):
    assert_one_sentence(run("evaluate.py", *arguments), words)


def test_conventions_name_known_metrics():
    for name in CONVENTIONS:
        assert choose_protocol(name, scale=4).metrics
