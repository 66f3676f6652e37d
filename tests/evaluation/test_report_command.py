"""`python -m decloss_jax report`: its inputs, its comparisons, and its refusals."""

import json
import math
import shutil

import numpy as np
import pytest
from command_line import assert_one_sentence, run
from PIL import Image

from decloss_jax import evaluation
from decloss_jax.commands import cli
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import Method, one_by_one
from decloss_jax.evaluation.saved import find_evaluations, read_evaluation
from decloss_jax.ops.resize import bicubic_upscale


def enlarge(low):
    return low.repeat(4, 0).repeat(4, 1)


def shift(low):
    return bicubic_upscale(low, 4) // 2 + 60


@pytest.fixture
def root(tmp_path):
    """A data set of two images, without LR images."""
    folder = tmp_path / "sets" / "Small" / "HR"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, height, width in (("one", 48, 64), ("two", 64, 56)):
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(bicubic_upscale(small, 8)).save(folder / f"{name}.png")
    return folder.parent


def evaluate(root, out, *methods, conventions="basicsr", scale=4, border=None, metrics=("psnr",)):
    protocol = choose_protocol(conventions, scale=scale, crop_border=border, metrics=metrics)
    evaluation.run(
        [Method(name, scale, one_by_one(function)) for name, function in methods], [str(root)], out, protocol
    )
    return out


@pytest.fixture
def saved(root, tmp_path):
    """The evaluation of one method."""
    return evaluate(root, tmp_path / "net", ("net", enlarge))


def report(capsys, *arguments):
    """Runs the command in this process; returns its status and its messages."""
    capsys.readouterr()
    status = cli.main(["report", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def assert_refused(capsys, *arguments, words):
    status, out, err = report(capsys, *arguments)
    assert (status, out) == (2, "")
    sentences = [line for line in err.splitlines() if line.startswith("decloss_jax report: ")]
    assert len(sentences) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in sentences[0], sentences[0]


def change(folder, function):
    """Changes summary.json."""
    path = folder / "summary.json"
    record = json.loads(path.read_text())
    function(record)
    path.write_text(json.dumps(record))


def test_report_makes_the_page_of_the_evaluation_again(root, tmp_path, capsys):
    out = evaluate(root, tmp_path / "out", ("enlarge", enlarge), ("shift", shift), metrics=("psnr", "icoo"))
    assert report(capsys, out, "--out", out / "again.html")[0] == 0
    assert (out / "again.html").read_text() == (out / "report.html").read_text()
    summary = json.loads((out / "shift" / "summary.json").read_text())
    assert f">{summary['datasets']['Small']['icoo']:.3f}</td>" in (out / "again.html").read_text()


def test_report_compares_runs_and_numbers_equal_names(root, saved, tmp_path, capsys):
    other = evaluate(root, tmp_path / "other", ("net", shift), ("third", shift))
    assert report(capsys, saved, other, saved, "--out", tmp_path / "page.html")[0] == 0  # saved but once
    page = (tmp_path / "page.html").read_text()
    values = {}
    for name, folder in (("net", saved), ("net-2", other / "net"), ("third", other / "third")):
        values[name] = read_evaluation(folder).datasets["Small"].values["psnr_y"]
        row = page[page.index(f'<th class="text" scope="row">{name}</th>') :]
        assert f">{values[name]:.3f}</td>" in row[: row.index("</tr>")]
    assert values["net"] != values["net-2"]
    for link in ("net/sr/Small/one.png", "other/net/sr/Small/one.png", "other/third/sr/Small/two.png"):
        assert f'href="{link}"' in page
        assert (tmp_path / link).is_file()
    assert page.count("data:image/webp") == 2 * (3 + 2)


def test_report_shows_metrics_that_only_one_run_has(root, saved, tmp_path, capsys):
    other = evaluate(root, tmp_path / "other", ("other", shift), metrics=("psnr_y", "ssim_y"))
    assert report(capsys, saved, other, "--out", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert "psnr_rgb \u2191 dB" in page
    assert "ssim_y \u2191" in page
    assert page.count('<td data-value="nan">\u2013</td>') == 2 * (1 + 2)  # of the set, of both images


NO_PATHS = {"null": "a\0b", "long": "x" * 5000, "no user": "~nobody-of-that-name/x"}


@pytest.mark.parametrize("how", ["gone", "elsewhere", "old", "pictures", *NO_PATHS])
def test_report_does_without_what_is_not_found(root, saved, tmp_path, capsys, how):
    arguments = [saved, "--out", tmp_path / "page.html"]
    if how == "pictures":
        shutil.rmtree(saved / "sr")
    elif how == "old":
        change(saved, lambda record: record.pop("data"))
    elif how in NO_PATHS:
        change(saved, lambda record: record["data"].update(Small=NO_PATHS[how]))
    else:
        moved = root.rename(tmp_path / "Small")
        arguments += ["--data", moved] if how == "elsewhere" else []
    status, _, err = report(capsys, *arguments)
    assert status == 0
    page = (tmp_path / "page.html").read_text()
    value = read_evaluation(saved).datasets["Small"].values["psnr_y"]
    assert f">{value:.3f}</td>" in page
    missing = how not in ("elsewhere", "pictures")
    assert ("were not found in their folder" in page) == missing
    assert ("no HR images of Small" in err) == missing
    assert ("Pictures missing in sr/Small: net." in page) == (how == "pictures")
    expected = {"elsewhere": 3, "pictures": 2}.get(how, 1)
    assert page.count("data:image/webp") == 2 * expected


def test_report_names_no_folder_of_the_data(root, saved, tmp_path, capsys):
    """A page that is sent to others does not reveal the folder of the images."""
    assert str(root) in (saved / "summary.json").read_text()
    for folder in (root, tmp_path / "Small"):
        assert report(capsys, saved, "--out", tmp_path / "page.html", "--overwrite")[0] == 0
        assert str(tmp_path) not in (tmp_path / "page.html").read_text()
        if folder == root:
            root.rename(tmp_path / "Small")


def test_find_evaluations_knows_what_writes_them(root, saved, tmp_path):
    assert find_evaluations(saved) == [saved]
    several = evaluate(root, tmp_path / "several", ("b", shift), ("a", shift))
    assert find_evaluations(several) == [several / "a", several / "b"]
    runs = tmp_path / "runs"  # of reproduce
    for name in ("x", "y"):
        shutil.copytree(saved, runs / "evaluations" / name / "basicsr")
    (runs / "some-workdir").mkdir()
    assert find_evaluations(runs) == [runs / "evaluations" / name / "basicsr" for name in ("x", "y")]
    workdir = tmp_path / "workdir"
    several.rename(workdir.parent / "moved")
    shutil.copytree(workdir.parent / "moved", workdir / "evaluation")
    assert find_evaluations(workdir) == [workdir / "evaluation" / name for name in ("a", "b")]


def test_report_sends_a_training_run_to_evaluate(tmp_path, capsys):
    for name in ("config.json", "journal.jsonl"):
        (tmp_path / name).write_text("{}")
    words = [str(tmp_path), "not evaluated", f"run python evaluate.py --workdir {tmp_path} --data ROOT --out"]
    assert_refused(capsys, tmp_path, "--out", tmp_path / "page.html", words=words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"conventions": "paper", "metrics": ("psnr_rgb",)}, ["conventions: name", "'basicsr'", "'paper'"]),
        ({"border": 2}, ["border", "'4'", "'2'"]),
        ({"scale": 2, "border": 4}, ["scale", "'4'", "'2'"]),
    ],
)
def test_report_refuses_runs_of_other_conventions(root, saved, tmp_path, capsys, options, words):
    def other(low):
        return bicubic_upscale(low, options.get("scale", 4))

    out = evaluate(root, tmp_path / "other", ("other", other), **options)
    words = [str(out), f"as in {saved}", "not comparable", *words]
    assert_refused(capsys, saved, out, "--out", tmp_path / "page.html", words=words)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("how", ["other images", "LR given", "other network"])
def test_report_refuses_runs_on_other_images_or_networks(root, saved, tmp_path, capsys, how):
    other = shutil.copytree(saved, tmp_path / "other")
    if how == "other images":
        (root / "HR" / "two.png").rename(root / "HR" / "three.png")
        evaluate(root, other, ("net", enlarge))
        words = ["images of Small", "2: one, three"]
    elif how == "LR given":
        change(other, lambda record: record["conventions"].update(low={"Small": "given"}))
        words = ["LR images of Small", "'given'"]
    else:
        for folder, sha256 in ((saved, "0" * 64), (other, "1" * 64)):
            change(folder, lambda record, s=sha256: record["versions"].update(weights={"lpips_alex": s}))
        words = ["weights of lpips_alex"]
    assert_refused(capsys, saved, other, "--out", tmp_path / "page.html", words=[str(other), *words])


HUGE = "9" * 5000
DAMAGED = {
    "no json": lambda s: "{" + s,
    "empty": lambda s: "",
    "a list": lambda s: "[1, 2]",
    "deep": lambda s: "[" * 100_000,
    "not utf-8": lambda s: b"\xff\xfe" + s.encode(),
    "NaN": lambda s: s.replace('"images": 2', '"images": NaN'),
    "half a character": lambda s: s.replace('"net"', r'"\ud800"'),
    "huge integer": lambda s: s.replace('"images": 2', f'"images": {HUGE}'),
    "other count": lambda s: s.replace('"images": 2', '"images": 3'),
    "no datasets": lambda s: s.replace('"datasets"', '"sets"'),
    "no method": lambda s: s.replace('"method"', '"name"'),
    "method is a number": lambda s: s.replace('"net"', "3"),
    "no conventions": lambda s: s.replace('"conventions"', '"customs"'),
    "no scale": lambda s: s.replace('"scale"', '"factor"'),
    "scale is true": lambda s: s.replace('"scale": 4', '"scale": true'),
    "scale 0": lambda s: s.replace('"scale": 4', '"scale": 0'),
    "border -1": lambda s: s.replace('"crop_border": 4', '"crop_border": -1'),
    "low is a text": lambda s: s.replace('"low": {', '"low": "x", "y": {'),
    "versions are numbers": lambda s: s.replace('"decloss_jax": "', '"new": 3, "y": "'),
    "set is a text": lambda s: s.replace('"Small": {', '"Small": "x", "y": {'),
    "set is a path": lambda s: s.replace('"Small": {', '"../Small": {'),
    "unknown metric": lambda s: s.replace('"psnr_y"', '"psnr_z"'),
    "value is a list": lambda s: s.replace('"psnr_y": ', '"psnr_y": [], "psnr_rgb": '),
    "value is true": lambda s: s.replace('"psnr_y": ', '"psnr_y": true, "psnr_rgb": '),
    "value is nan": lambda s: s.replace('"psnr_y": ', '"psnr_y": "nan", "psnr_rgb": '),
    "value is 1e999": lambda s: s.replace('"psnr_y": ', '"psnr_y": 1e999, "psnr_rgb": '),
    "value is 1e30": lambda s: s.replace('"psnr_y": ', '"psnr_y": 1e30, "psnr_rgb": '),
    "value is a huge integer": lambda s: s.replace('"psnr_y": ', f'"psnr_y": {HUGE[:4000]}, "psnr_rgb": '),
}
DAMAGED_ROWS = {
    "empty": lambda s: "",
    "other header": lambda s: s.replace("dataset,image", "set,picture"),
    "short line": lambda s: s.rpartition(",")[0] + "\n",
    "open quote": lambda s: s + '"Small',
    "binary": lambda s: b"\xff\x00" + s.encode(),
    "long field": lambda s: s + "x" * 200_000,
    "value is nan": lambda s: s.rpartition(",")[0] + ",nan\n",
    "value is a word": lambda s: s.rpartition(",")[0] + ",much\n",
    "value is 1e30": lambda s: s.rpartition(",")[0] + ",1e30\n",
    "unknown metric": lambda s: s.replace("psnr_y", "psnr_z"),
    "metric twice": lambda s: s.replace("psnr_y", "psnr_rgb"),
    "image twice": lambda s: s.replace("two", "one"),
    "image is a path": lambda s: s.replace("two", "../../../secret"),
    "image has no name": lambda s: s.replace("two", ""),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [("summary.json", how) for how in DAMAGED] + [("rows.csv", how) for how in DAMAGED_ROWS],
)
def test_report_names_the_damaged_file(saved, tmp_path, capsys, name, how):
    text = (saved / name).read_text()
    damaged = (DAMAGED if name == "summary.json" else DAMAGED_ROWS)[how](text)
    assert damaged != text
    (saved / name).write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert_refused(capsys, saved, "--out", tmp_path / "page.html", words=[str(saved / name)])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("how", ["no rows", "damaged picture", "small picture", "damaged hr"])
def test_report_names_the_file_that_does_not_fit(root, saved, tmp_path, capsys, how):
    picture = saved / "sr" / "Small" / "two.png"
    if how == "no rows":
        path = saved / "rows.csv"
        path.unlink()
    elif how == "damaged picture":
        path = picture
        path.write_bytes(picture.read_bytes()[:300])
    elif how == "small picture":
        path = picture
        Image.new("RGB", (8, 8)).save(path)
    else:
        path = root / "HR" / "two.png"
        path.write_bytes(b"no picture")
    assert_refused(capsys, saved, "--out", tmp_path / "page.html", words=[str(path)])


def test_report_reads_an_infinite_and_a_missing_value(saved, tmp_path, capsys):
    path = saved / "rows.csv"
    lines = path.read_text().splitlines()[:-1]
    path.write_text("\n".join([*lines, "Small,two,inf,"]) + "\n")
    change(saved, lambda record: record["datasets"]["Small"].update(psnr_rgb="inf"))
    of_set = read_evaluation(saved).datasets["Small"]
    assert of_set.values["psnr_rgb"] == of_set.rows["two"]["psnr_rgb"] == math.inf
    assert math.isnan(of_set.rows["two"]["psnr_y"])
    assert report(capsys, saved, "--out", tmp_path / "page.html")[0] == 0
    assert '<td data-value="inf">inf</td>' in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("how", ["nowhere", "--data", "foreign --data", "exists", "folder"])
def test_report_answers_a_mistake_with_one_sentence(root, saved, tmp_path, capsys, how):
    page = tmp_path / "page.html"
    if how == "nowhere":
        arguments, words = [tmp_path / "nowhere", "--out", page], ["nowhere", "no such folder"]
    elif how == "--data":
        arguments, words = [saved, "--out", page, "--data", tmp_path / "nowhere"], ["--data", "nowhere"]
    elif how == "foreign --data":
        other = shutil.copytree(root, tmp_path / "Other")
        arguments, words = [saved, "--out", page, "--data", other], ["--data", "Small", "Other"]
    elif how == "exists":
        page.write_text("precious")
        arguments, words = [saved, "--out", page], [str(page), "--overwrite"]
    else:
        (tmp_path / "file").write_text("")
        arguments, words = [saved, "--out", tmp_path / "file" / "page.html"], ["page.html"]
    assert_refused(capsys, *arguments, words=words)
    assert how != "exists" or page.read_text() == "precious"


def test_report_as_a_user_types_it(saved, tmp_path):
    result = run("decloss_jax", "report", saved, "--out", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"1 evaluation -> {tmp_path / 'page.html'}\n"
    assert_one_sentence(run("decloss_jax", "report", tmp_path / "nowhere"), "nowhere", "no such folder")


def test_report_leaves_out_the_rows_of_too_many_images(saved, tmp_path, capsys, monkeypatch):
    from decloss_jax.evaluation import report as pages

    assert report(capsys, saved, "--out", tmp_path / "page.html")[0] == 0
    assert "Each image" in (tmp_path / "page.html").read_text()
    monkeypatch.setattr(pages, "MOST_ROWS", 1)
    assert report(capsys, saved, "--out", tmp_path / "page.html", "--overwrite")[0] == 0
    text = (tmp_path / "page.html").read_text()
    assert "<summary>Each image" not in text
    assert "The values of each image are in rows.csv: too many for this page." in text
