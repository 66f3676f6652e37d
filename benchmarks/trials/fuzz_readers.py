"""Throws damaged weights files at the readers.

    python benchmarks/trials/fuzz_readers.py [--seconds 300] [--seed 0] [--out FILE.json]

Three readers get them: generators in all dialects, as .safetensors and as .pth in both formats of torch,
discriminators, and VGG-19. (AlexNet, VGG-16 and LPIPS's layers are read only when their whole SHA-256 is the
known one.) Every file must be read or refused with a `UserError`, within seconds and with little memory, and
nothing in it may be run. A file that breaks this is kept (its name is printed), to become a test.
"""

import argparse
import collections
import functools
import io
import json
import os
import pickle
import platform
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "weights")]

from decloss_jax.checks import UserError
from decloss_jax.models import EDSR, RRDBNet, VGGDiscriminator
from decloss_jax.weights import dialects, load_generator, read_torch, save_generator
from decloss_jax.weights.discriminators import discriminator_variables, state_dict_shapes
from decloss_jax.weights.torch_reader import refusals_as_user_errors
from decloss_jax.weights.trunks import VGG19_CONVOLUTIONS, read_vgg19
from decloss_jax.workdir import journal

SECONDS_PER_FILE = 10  # of the processor, so that a busy machine breaks no rule
MEMORY = 2**29  # bytes beyond what the imports take
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
)
OPCODES = bytes(
    op for op in range(256) if chr(op) in "(.0123FIJKLMNPQRSTUVX]abcdeghijlopqrstu}" or op >= 0x80
)
INTERESTING = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)


class TimeOut(BaseException):
    """The reader took too long; no error that a reader would turn into a refusal."""


class Seed(NamedTuple):
    """A sound file: its reader's name, its ending, its bytes."""

    reader: str
    ending: str
    content: bytes


def read_discriminator(path: Path) -> None:
    """Reads the discriminator in a file; `Refusal` becomes `UserError` as for a generator."""
    with refusals_as_user_errors(path, "weights of a discriminator"):
        discriminator_variables(read_torch(path))


READERS: dict[str, Callable[[Path], object]] = {
    "generator": lambda path: load_generator(path),
    "discriminator": read_discriminator,
    "vgg19": read_vgg19,
}


def make_seeds(folder: Path) -> list[Seed]:
    """Returns sound files: ours, and torch's in all dialects and both formats where torch is installed."""
    import jax
    import jax.numpy as jnp

    seeds: list[Seed] = []
    for model in (EDSR(scale=2, features=2, blocks=1), RRDBNet(features=2, blocks=1, growth=1)):
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
        params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
        for ending in (".pth", ".safetensors"):
            save_generator(folder / f"seed{ending}", model, params)
            seeds.append(Seed("generator", ending, (folder / f"seed{ending}").read_bytes()))
    try:
        import torch
    except ImportError:
        return seeds
    for reader, content in torch_contents(read_torch(folder / "seed.pth")):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            seeds.append(Seed(reader, ".pth", buffer.getvalue()))
    return seeds


def torch_contents(rrdb: dict[str, np.ndarray]) -> list[tuple[str, dict]]:
    """Returns what torch is to save: (reader, dictionary of tensors); `rrdb` is one in BasicSR's names."""
    import foreign_networks
    import torch

    def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        return {key: torch.ones(shape) for key, shape in shapes.items()}

    state = {key: torch.from_numpy(array) for key, array in rrdb.items()}
    mixed = {"a": torch.ones(2).half(), "b": torch.ones(3)[::2], "c": torch.nn.Parameter(torch.ones(1))}
    networks = (
        foreign_networks.EdsrPytorch(4, 2, 1),
        foreign_networks.EsrganOld(2, 1, 1),
        foreign_networks.EsrganNew(2, 1, 1),
    )
    vgg19 = {f"features.{i}.weight": (1, 1 if i else 3, 3, 3) for i in range(VGG19_CONVOLUTIONS)}
    vgg19 |= {f"features.{i}.bias": (1,) for i in range(VGG19_CONVOLUTIONS)}
    return [
        ("generator", state),
        ("generator", {"params_ema": state, "epoch": 3}),
        ("generator", {"state_dict": mixed | state}),
        *(("generator", network.state_dict()) for network in networks),
        ("discriminator", tensors(state_dict_shapes(VGGDiscriminator(features=1, input_size=4, stages=2)))),
        ("vgg19", tensors(vgg19)),
    ]


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Changes, inserts, removes, repeats or overwrites a few stretches."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        where = (
            rng.randrange(len(content) + 1)
            if rng.random() < 0.5
            else rng.randrange(min(len(content), 400) + 1)
        )
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(9):
            case 0:
                content[where : where + 1] = bytes([rng.randrange(256)])
            case 1:
                content[where:where] = rng.randbytes(length)
            case 2:
                del content[where : where + length]
            case 3:
                size = rng.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
                value = rng.choice(INTERESTING) % 256 ** struct.calcsize(size)
                content[where : where + struct.calcsize(size)] = struct.pack(size, value)
            case 4:
                start = rng.randrange(len(content) + 1)
                content[where:where] = content[start : start + length]
            case 5:
                content[where : where + 1] = bytes([rng.choice(OPCODES)])
            case 6 if rng.random() < 0.2:
                del content[where:]
            case 7 if where < len(content):
                content[where] ^= 1 << rng.randrange(8)
            case 8:
                stretch = content[where : where + rng.choice((16, 256, 4096))]
                content[where:where] = stretch * rng.choice((1, 2, 16))
    return bytes(content)


def mutate_by_splicing(rng: random.Random, data: bytes) -> bytes:
    """Joins the beginning of a file to a part of itself, as if two saves had run into one another."""
    head, tail = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return data[:head] + data[tail:]


def mutate_zip(rng: random.Random, data: bytes) -> bytes:
    """Changes what lies inside a zip archive, and packs it again with true checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        names = source.namelist()
        victim = rng.choice(names) if rng.random() < 0.2 else next(n for n in names if n.endswith("data.pkl"))
        for name in names:
            content = source.read(name)
            if name == victim:
                content = mutate_bytes(rng, content)
                if rng.random() < 0.05:
                    continue
            kind = zipfile.ZIP_DEFLATED if rng.random() < 0.01 else zipfile.ZIP_STORED
            target.writestr(name, content, kind)
    return buffer.getvalue()


def mutate_header(rng: random.Random, data: bytes) -> bytes:
    """Changes values in the JSON header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name in rng.sample(list(header), rng.choice((1, 1, 2))):
        if name == "__metadata__" or not header[name]:
            header[name] = rng.choice(({}, [], "x", {"decloss_jax": "{"}, {"decloss_jax": "[" * 9999}))
            continue
        field = rng.choice(("dtype", "shape", "data_offsets"))
        value = rng.choice(
            (*INTERESTING, -1, 1e308, "F64", "BF16", "F8_E4M3", "BOOL", "I64", [], None, [1] * 70)
        )
        if field != "dtype" and header[name].get(field) and rng.random() < 0.7:
            header[name][field][rng.randrange(len(header[name][field]))] = value
        else:
            header[name][field] = value
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.8 else rng.choice(INTERESTING)
    return struct.pack("<Q", length) + text + data[8 + size :]


def random_pickle(rng: random.Random, data: bytes) -> bytes:
    """A legacy file whose object is a random sequence of operations, with torch's names among them."""
    names = [
        b"torch FloatStorage",
        b"torch._utils _rebuild_tensor_v2",
        b"collections OrderedDict",
        b"os system",
    ]
    parts = []
    for _ in range(rng.randrange(60)):
        parts.append(
            rng.choice(
                [
                    bytes([rng.choice(OPCODES)]),
                    b"c" + rng.choice(names).replace(b" ", b"\n") + b"\n",
                    b"X\x07\x00\x00\x00storage",
                    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu",
                    b"\x8a\x09" + rng.choice(INTERESTING).to_bytes(9, "little"),
                    b"K" + rng.randbytes(1),
                    b"q\x01",
                    b"h\x01",
                    b"(",
                    b"t",
                    b")",
                    b"R",
                    b"Q",
                ]
            )
        )
    head = [
        pickle.dumps(0x1950A86A20F9469CFC6C, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": True}, 2),
    ]
    return b"".join(
        [*head, b"\x80\x02", *parts, b".", pickle.dumps(["0"], 2), struct.pack("<q", 4), bytes(16)]
    )


MUTATIONS = {
    ".pth": (mutate_bytes, mutate_bytes, mutate_zip, mutate_zip, mutate_by_splicing, random_pickle),
    ".safetensors": (mutate_bytes, mutate_header, mutate_by_splicing),
}


def read(reader: str, path: Path) -> str:
    """Reads a file; returns "read", or the kind of refusal."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_FILE)
    try:
        READERS[reader](path)
        return "read"
    except UserError as error:
        text = str(error).removeprefix(str(path))
        if "\n" in text or len(text) > 1000:
            raise RuntimeError(f"not one short sentence: {text[:2000]!r}") from error
        return re.split(r"['\"\d\[(;]", text.partition(", got ")[2])[0].strip() or "a text"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def forbid(event: str, arguments: tuple) -> None:
    """Audit hook: stops the whole fuzzer when a file makes the reader do what no reader should."""
    if event.startswith(FORBIDDEN):
        print("FORBIDDEN", event, arguments, flush=True)
        os._exit(3)


ALARMS: list[float] = []  # processor seconds at which the alarm went off


def time_out(*_: object) -> None:
    """Alarm handler: the reader took too long."""
    ALARMS.append(time.process_time())
    raise TimeOut(f"more than {SECONDS_PER_FILE} s")


def limit_memory() -> int:
    """Lets this process take `MEMORY` more than it has; returns the most that it has had, in KiB."""
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + MEMORY, resource.RLIM_INFINITY))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(seeds: list[Seed], seconds: float, rng: random.Random, folder: Path) -> dict:
    """Reads changed files until the time is over; returns what came of them."""
    outcomes: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in READERS}
    broken: list[str] = []
    slowest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        seed = rng.choice(seeds)
        mutation = rng.choice(MUTATIONS[seed.ending])
        if mutation is mutate_zip and not seed.content.startswith(b"PK"):
            mutation = mutate_bytes
        content = mutation(rng, seed.content)
        path = folder / f"case{seed.ending}"
        path.write_bytes(content)
        start = time.process_time()
        ALARMS.clear()
        try:
            outcomes[seed.reader][read(seed.reader, path)] += 1
            if ALARMS:  # and it was swallowed
                time_out()
        except (Exception, TimeOut) as error:
            kept = folder / f"broken{len(broken) + 1}{seed.ending}"
            kept.write_bytes(content)
            broken.append(f"{seed.reader}: {type(error).__name__}: {str(error)[:300]}")
            print(f"{kept}: {broken[-1]}", flush=True)
        slowest = max(slowest, time.process_time() - start)
    return {
        "files": sum(counter.total() for counter in outcomes.values()) + len(broken),
        "broke_a_rule": broken,
        "slowest_seconds": round(slowest, 2),
        "outcomes": {name: dict(counter.most_common()) for name, counter in outcomes.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="fuzz_weights_"))
    seeds = make_seeds(folder)
    dialects.parameter_shapes = functools.cache(dialects.parameter_shapes)
    sound = set()
    for seed in seeds:  # as they are, which imports all that reading needs
        (folder / f"case{seed.ending}").write_bytes(seed.content)
        sound.add((seed.reader, read(seed.reader, folder / f"case{seed.ending}")))
    if missing := [reader for reader, *_ in seeds if (reader, "read") not in sound]:
        raise RuntimeError(f"every sound file of a {missing[0]} is refused")
    signal.signal(signal.SIGPROF, time_out)
    sys.addaudithook(forbid)
    rss_before = limit_memory()
    result = fuzz(seeds, options.seconds, random.Random(options.seed), folder)
    rss = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before) / 1024
    for reader, counts in result["outcomes"].items():
        for outcome, times in counts.items():
            print(f"{times:8} {reader}: {outcome}")
    broken, slowest = len(result["broke_a_rule"]), result["slowest_seconds"]
    print(f"{result['files']} files, {broken} broke a rule; slowest {slowest:.2f} s, memory +{rss:.0f} MiB")
    if options.out:
        call = {"seconds": options.seconds, "seed": options.seed}
        versions = journal.versions() | {"machine": f"{platform.system()} {platform.machine()}"}
        record = call | result | {"memory_mib": round(rss), "versions": versions}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
