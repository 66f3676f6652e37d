"""What a stranger might send beside images: weights, workdirs, evaluations, prepared data sets, journals.

python tests/faults/hostile_files.py FOLDER     makes all that hostile_memory.py hands to the commands
"""

import json
import os
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
import tensorstore
import torch
from hostile_images import deflate_zeros, encoded

from decloss_jax import evaluation
from decloss_jax.evaluation.conventions import choose_protocol
from decloss_jax.evaluation.methods import load_methods
from decloss_jax.host import parallel
from decloss_jax.models import EDSR
from decloss_jax.training.optim import build_optimizer
from decloss_jax.training.state import draw_params, start_stage
from decloss_jax.weights import save_generator
from decloss_jax.workdir import checkpoint

MODEL = EDSR(scale=4, features=4, blocks=1)
CONFIG = {"model": {"name": "edsr", "scale": 4, "features": 4, "blocks": 1}, "batch_size": 4}
STEP = Path("checkpoints") / "pretrain" / "2"
DEEP = "[" * 100_000

Change = Callable[[Path], object]


def make_weights(path: Path) -> Path:
    """Writes weights of a small network."""
    save_generator(path, MODEL, jax.tree.map(np.asarray, draw_params(MODEL, 0)))
    return path


def make_workdir(workdir: Path) -> Path:
    """Writes the files of a short run: a checkpoint, its config, and a journal."""
    mesh = parallel.data_mesh(jax.devices()[:1])
    optimizer = build_optimizer({"adam_b1": 0.9, "adam_b2": 0.999, "adam_eps": 1e-8})
    params = jax.device_put(draw_params(MODEL, 0), parallel.replicated(mesh))
    state = start_stage(
        params, step=2, optimizer=optimizer, discriminator=None, seed=0, averaged=False, mesh=mesh
    )
    with checkpoint.StageCheckpoints(workdir, "pretrain", config=CONFIG) as saved:
        saved.save(2, state, {"psnr_y": 20.0})
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    (workdir / "journal.jsonl").write_text(journal_text({"loss/total": 1.0}))
    return workdir


def make_evaluation(folder: Path) -> Path:
    """Writes an evaluation of bicubic on one image, and the image next to it."""
    images = folder.with_name(f"{folder.name}_images")
    images.mkdir()
    (images / "a.png").write_bytes(encoded("PNG"))
    protocol = choose_protocol("basicsr", scale=4, crop_border=None, metrics=["psnr"])
    evaluation.run(load_methods(names=["bicubic"]), [str(images)], folder, protocol)
    return folder


def journal_text(*records: dict, header: object = None) -> str:
    """Returns a journal of these records; a missing step or stage is added."""
    lines = [{"config": CONFIG} if header is None else header]
    lines += [{"step": i, "stage": "pretrain", "images_per_second": 3.0} | r for i, r in enumerate(records)]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def text(name: str, content: str | bytes) -> Change:
    """Returns a change of a folder: other content for one of its files."""
    return lambda folder: (folder / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def model(**options: object) -> Change:
    """Returns a change of a workdir: other options of the network in its checkpoint's config."""
    return text(f"{STEP}/config/metadata", json.dumps(CONFIG | {"model": CONFIG["model"] | options}))


def array(name: str, **metadata: object) -> Change:
    """Returns a change of a workdir: other metadata of one parameter's array."""

    def change(workdir: Path) -> None:
        place = {"driver": "ocdbt", "base": f"file://{workdir / STEP}/state/"}
        store = tensorstore.KvStore.open(place).result()
        key = f"params.{name}/.zarray"
        store.write(key, json.dumps(json.loads(store[key]) | metadata).encode()).result()

    return change


def pipe(name: str) -> Change:
    """Returns a change of a folder: a file becomes a pipe, on which a reader would wait forever."""
    return lambda folder: ((folder / name).unlink(), os.mkfifo(folder / name))


def link(name: str, target: str) -> Change:
    """Returns a change of a folder: a file becomes a link."""
    return lambda folder: ((folder / name).unlink(), (folder / name).symlink_to(target))


def listed(line: str) -> Change:
    """Returns a change of a workdir: another line in the list of hashes."""
    return lambda workdir: (workdir / STEP / checkpoint.SUMS).open("a").write(line)


META, ARRAYS = f"{STEP}/config/metadata", f"{STEP}/state/_METADATA"
LARGE = {"shape": [10**9], "chunks": [10**9], "fill_value": 0}  # 4 GB of zeros without a file

# Changes after which the list of hashes is written again, so that the step looks intact; and the message.
FOREIGN_CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "config empty": (text(META, ""), "JSONDecodeError"),
    "config binary": (text(META, b"\xff\xfe\0"), "UnicodeDecodeError"),
    "config list": (text(META, "[]"), "which is not an object"),
    "config deep": (text(META, DEEP), "nested too deeply"),
    "config NaN": (model(features=float("nan")), "NaN, which is not JSON"),
    "config without model": (text(META, "{}"), "KeyError: 'model'"),
    "config huge": (text(META, " " * 2**23 + "{}"), "more than 8,388,608 bytes"),
    "model a text": (text(META, '{"model": "x"}'), "expected a checkpoint of train.py"),
    "name a list": (model(name=["edsr"]), "model.name: expected one of edsr"),
    "name HTML": (model(name="<script>alert(1)</script>"), "model.name: expected one of edsr"),
    "name long": (model(name="x" * 10**6), "model.name: expected one of edsr"),
    "features many": (model(features=10**9), "model.features: expected 1 to 4096"),
    "features a text": (model(features="4"), "model.features: expected a value like 64"),
    "features others": (model(features=8), "expected body_0/conv1/bias of shape (8,), got (4,)"),
    "blocks many": (model(blocks=10**9), "model.blocks: expected 1 to 4096"),
    "blocks a fraction": (model(blocks=1.5), "model.blocks: expected a value like 16"),
    "blocks missing": (model(blocks=2), "body_1/conv1/bias"),
    "scale large": (model(scale=10**9), "EDSR scale: expected one of 2, 3, 4"),
    "scale a list": (model(scale=[4]), "model.scale: expected a value like 4"),
    "dtype a number": (model(dtype=3), "model.dtype"),
    "other network": (model(name="rrdb"), "body_0"),
    "option unknown": (model(__class__="os.system"), "model.__class__: expected an option of edsr"),
    "array of 4 GB": (array("conv_last.bias", **LARGE), "bytes of parameters in"),
    "array of 4 TB": (array("conv_last.bias", **LARGE | {"shape": [10**12]}), "bytes of parameters in"),
    "array longer": (array("conv_last.bias", shape=[5], chunks=[5]), "expected a checkpoint of train.py"),
    "array of integers": (array("conv_last.bias", dtype="<i4"), "not float32"),
    "array of texts": (array("conv_last.bias", dtype="|S9"), "damaged or does not match"),
    "arrays no JSON": (text(ARRAYS, "{"), "damaged or does not match"),
    "arrays a list": (text(ARRAYS, "[]"), "expected a checkpoint of train.py"),
    "arrays deep": (text(ARRAYS, DEEP), "RecursionError"),
    "arrays none": (text(ARRAYS, '{"tree_metadata": {}}'), "damaged or does not match"),
    "manifest empty": (text(f"{STEP}/state/manifest.ocdbt", ""), "damaged or does not match"),
    "no state": (lambda workdir: shutil.rmtree(workdir / STEP / "state"), "damaged or does not match"),
}

# Changes that damage a step visibly, and the clause that reports them.
DAMAGED_CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "hash of a file above": (listed(f"{'0' * 64}  ../../../../secret\n"), "../../../../secret is missing"),
    "hash of an absolute path": (listed(f"{'0' * 64}  /etc/passwd\n"), "/etc/passwd is missing"),
    "hash of an escape": (listed(f"{'0' * 64}  \x1b[31m<b>\n"), r"\x1b[31m<b> is missing"),
    "hashes binary": (text(f"{STEP}/SHA256SUMS", bytes(range(256))), "is not in SHA256SUMS"),
    "hashes a pipe": (pipe(f"{STEP}/SHA256SUMS"), "its removal or saving was interrupted"),
    "hashes without end": (link(f"{STEP}/SHA256SUMS", "/dev/zero"), "its removal or saving was interrupted"),
    "config a pipe": (pipe(META), "metadata is a link, a pipe or a device"),
    "config a link": (link(META, "/etc/passwd"), "metadata is a link, a pipe or a device"),
    "arrays without end": (link(ARRAYS, "/dev/zero"), "_METADATA is a link, a pipe or a device"),
}


def hostile_weights() -> dict[str, bytes]:
    """Returns files by name that do not hold weights, though some begin like them."""

    def saved(content: object) -> bytes:
        buffer = BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def safetensors(header: bytes, size: int | None = None) -> bytes:
        return struct.pack("<Q", len(header) if size is None else size) + header + bytes(4)

    deflated, crowded = BytesIO(), BytesIO()
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**28))
    with zipfile.ZipFile(crowded, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"a/{number}", b"")
    claim = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()
    return {
        "deflated.pth": deflated.getvalue(),
        "crowded.pth": crowded.getvalue(),
        "expanded.pth": saved({"conv_first.weight": torch.zeros(1).expand(2**34)}),
        "code.pth": saved(Runs()),
        "code.pt": pickle.dumps(Runs(), 2),
        "length.pth": b"\x80\x04\x8e" + struct.pack("<Q", 2**62),
        "marks.pth": b"\x80\x02" + b"(" * 1_500_000,
        "lists.pth": b"\x80\x02" + b"]" * 1_500_000,
        "zeros.pth": bytes(1000),
        "header.safetensors": safetensors(b"{}", 2**40),
        "deep.safetensors": safetensors(b"[" * 2**21),
        "shape.safetensors": safetensors(claim),
        "image.safetensors": encoded("PNG"),
    }


class Runs:
    """An object whose unpickling would run a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch code_was_run",)


def make_all(folder: Path) -> None:
    """Makes the files for hostile_memory.py: WEIGHTS, WORKDIR, EVALUATION, both intact and changed."""
    folder.mkdir(parents=True)
    make_weights(folder / "sound.safetensors")
    for name, content in hostile_weights().items():
        (folder / name).write_bytes(content)
    workdir, saved = make_workdir(folder / "workdir"), make_evaluation(folder / "evaluation")
    for name in ("array of 4 GB", "array of 4 TB", "blocks many", "config deep", "name long"):
        change_copy(workdir, folder / f"workdir {name}", FOREIGN_CHECKPOINTS[name][0], rehash=True)
    for name in ("hashes without end", "config a pipe"):
        change_copy(workdir, folder / f"workdir {name}", DAMAGED_CHECKPOINTS[name][0])
    journals = {
        "fields": journal_text({f"loss/{i}": 1.0 for i in range(3000)}),
        "stages": journal_text(*({"stage": str(i), "loss/total": 1.0} for i in range(20_000))),
        "deep": DEEP,
    }
    for name, content in journals.items():
        change_copy(workdir, folder / f"journal {name}", text("journal.jsonl", content))
    change_copy(workdir, folder / "journal without end", link("journal.jsonl", "/dev/zero"))
    picture = "sr/evaluation_images/a.png"
    large = encoded("PNG")[:16] + struct.pack(">II", 60_000, 60_000) + encoded("PNG")[24:]
    for name, change in {
        "rows without end": link("rows.csv", "/dev/zero"),
        "summary deep": text("summary.json", DEEP),
        "summary huge": text("summary.json", "[" + "[]," * 2**23 + "[]]"),
        "picture large": text(picture, large),
        "picture text bomb": text(picture, b"x" + deflate_zeros(2**28)),
    }.items():
        change_copy(saved, folder / f"evaluation {name}", change)


def change_copy(source: Path, target: Path, change: Change, *, rehash: bool = False) -> Path:
    """Copies a folder and changes the copy; with `rehash` its checkpoint looks intact again."""
    shutil.copytree(source, target, symlinks=True)
    change(target)
    if rehash:
        checkpoint.write_sums(target / STEP)
    return target


if __name__ == "__main__":
    make_all(Path(sys.argv[1]))
