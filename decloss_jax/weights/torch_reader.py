"""Reads the weights in PyTorch's .pth and .pt files without PyTorch, and without running anything in them.

There are two formats. Since torch 1.6 a file is an uncompressed zip archive (NAME/data.pkl, and one entry
NAME/data/KEY per storage). The legacy format is a sequence of five pickles followed by the storages.
"""

import contextlib
import io
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from decloss_jax import checks
from decloss_jax.host import files
from decloss_jax.weights.pickles import STATE_DICT_ONLY, Refusal, Storage, Tensor, interpret, quote

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_STARTS = (b"\x80", b"c", b"(")  # \x80 starts protocol 2 and later, the others hand-made pickles
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
DIRECTORY_LIMIT = 2**22  # bytes of a zip archive's directory: some 40,000 entries; RRDBNet has 700
NOTES = "decloss_jax"  # the key under which `save_generator` describes the network, next to the state dict
OVERLAP_LIMIT = 4  # tensors may share storages (tied weights), but not expand to many times the file

# What zipfile raises on damaged, encrypted or unknown archives; OSError for a seek to before the start.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    struct.error,
    OSError,
)

# The keys under which training programs store the state dict, in order of preference. The prefixes come from
# these programs, from torch.compile, or from flattened wrappers; they precede the key of every weight.
WRAPPERS = (
    *("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net"),
    *("generator", "net_g", "netG", "G"),
)
PREFIXES = (
    *("module.", "_orig_mod.", "netG.", "net_g.", "generator.", "G.", "model."),
    *("state_dict.", "params_ema.", "params."),
)
LAYER_OF_ITS_OWN = re.compile(r"model\.\d")  # a layer of old ESRGAN; elsewhere "model." is a wrapper
PREFIX_LIMIT = 8  # per key; the time grows with the square of their number

Value = TypeVar("Value")
ReadStorage = Callable[[Storage], bytes]


@dataclass(frozen=True)
class StateDict:
    """The tensors of a file, the wrappers around them, and the notes that this package wrote."""

    tensors: dict[str, np.ndarray]
    wrapper: str = ""
    notes: str = ""


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that `torch.save` wrote, in the zip or the legacy format.

    Wrappers (`params_ema`, `state_dict` ...) and the `PREFIXES` of the keys are stripped. Anything that is
    not a tensor (an epoch, a version) is dropped.

    Args:
        path: the file.

    Returns:
        The arrays by their keys, with the file's order, shapes and dtypes, including bfloat16.

    Raises:
        UserError: another kind of file, a damaged one, or one that holds more than tensors in plain
            containers.
    """
    return read_torch_state(path).tensors


def read_torch_state(path: str | Path, key: str = "") -> StateDict:
    """Does what `read_torch` does, and also returns the stripped wrappers and the notes.

    `key` selects one of several state dicts in the file, such as params and params_ema.
    """
    with refusals_as_user_errors(path, "PyTorch weights"), open(files.regular(Path(path)), "rb") as file:
        file_size = file.seek(0, io.SEEK_END)
        file.seek(0)
        magic = file.read(len(ZIP_MAGIC))
        file.seek(0)
        opened = _open_zip(file, file_size) if magic == ZIP_MAGIC else _open_legacy(file)
        with opened as (content, read_storage):
            tensors, wrapper = _select_tensors(content, key)
            arrays = _materialise(tensors, read_storage, file_size)
            notes = content.get(NOTES)
            return StateDict(arrays, wrapper, notes if isinstance(notes, str) else "")


@contextlib.contextmanager
def refusals_as_user_errors(path: str | Path, expected: str) -> Iterator[None]:
    """Turns a `Refusal` or an `OSError` into a `UserError` that names the file."""
    try:
        yield
    except Refusal as refusal:
        checks.fail(str(path), expected=expected, got=refusal.got, remedy=refusal.remedy)
    except OSError as error:
        checks.fail(str(path), expected="a readable file", got=error.strerror, remedy="check the path")


@contextlib.contextmanager
def _open_zip(file: BinaryIO, file_size: int) -> Iterator[tuple[Any, ReadStorage]]:
    _check_directory(file)
    with _zip_refusals():
        archive = zipfile.ZipFile(file)
        entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise Refusal("a zip archive with two entries of one name")
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Refusal("a zip archive without torch's data.pkl", STATE_DICT_ONLY)
    root = roots[0]

    def read_entry(name: str) -> bytes:
        entry = entries.get(f"{root}/{name}")
        if entry is None:
            raise Refusal(f"a zip archive without its entry {quote(name)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise Refusal("a compressed zip archive, which torch never writes", STATE_DICT_ONLY)
        if entry.file_size > file_size:  # a read allocates as many bytes as the entry claims
            raise Refusal(f"a zip archive whose entry {quote(name)} is larger than the file")
        with _zip_refusals():
            return archive.read(entry)

    def read_storage(storage: Storage) -> bytes:
        return read_entry(f"data/{storage.key}")

    if f"{root}/byteorder" in entries and read_entry("byteorder") != b"little":
        raise Refusal("numbers in big-endian order", "save the file again on a little-endian machine")
    yield interpret(io.BytesIO(read_entry("data.pkl"))), read_storage


@contextlib.contextmanager
def _zip_refusals() -> Iterator[None]:
    try:
        yield
    except ZIP_ERRORS as error:
        raise Refusal("a damaged zip archive") from error


def _check_directory(file: BinaryIO) -> None:
    """Refuses a directory so large that a list of its entries would exhaust the memory.

    The file ends with [zip64 record, 56 bytes][zip64 locator, 20 bytes][end record, 22 bytes]. The first two
    exist only if the fields of the end record are too small.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read(98).rjust(98, b"\0")
    file.seek(0)
    record64, locator64, record = tail[:56], tail[56:76], tail[76:]
    if record[:4] != b"PK\x05\x06":
        raise Refusal("a truncated zip archive, or one with data after its end")
    directory_size = int.from_bytes(record[12:16], "little")
    if locator64[:4] == b"PK\x06\x07" and record64[:4] == b"PK\x06\x06":
        directory_size = int.from_bytes(record64[40:48], "little")
    if directory_size > DIRECTORY_LIMIT:
        raise Refusal("a zip archive with too many entries", STATE_DICT_ONLY)


@contextlib.contextmanager
def _open_legacy(file: BinaryIO) -> Iterator[tuple[Any, ReadStorage]]:
    if file.read(1) not in PICKLE_STARTS:
        raise Refusal("another kind of file", "give a .pth, .pt or .safetensors file")
    # A memory map allocates nothing for a read beyond its end.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if interpret(data) != LEGACY_MAGIC or interpret(data) != LEGACY_PROTOCOL:
            raise Refusal("a pickle that torch.save did not write", STATE_DICT_ONLY)
        system = interpret(data)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Refusal("numbers in big-endian order", "save the file again on a little-endian machine")
        storages: dict[str, Storage] = {}
        content, keys = interpret(data, storages), interpret(data)
        places = _find_legacy_storages(data, keys, storages)

        def read_storage(storage: Storage) -> bytes:
            if storage.key not in places:
                raise Refusal("a missing storage")
            start = places[storage.key]
            return data[start : start + storage.elements * storage.dtype.itemsize]

        yield content, read_storage


def _find_legacy_storages(data: mmap.mmap, keys: Any, storages: dict[str, Storage]) -> dict[str, int]:
    """Returns the offset of each storage. They follow in the order of `keys`, each after its size (int64)."""
    places: dict[str, int] = {}
    position = data.tell()
    for key in keys if isinstance(keys, list) else [None]:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Refusal("a damaged list of storages")
        count = int.from_bytes(data[position : position + 8], "little")
        places[storage.key] = position + 8
        position += 8 + storage.elements * storage.dtype.itemsize
        if position > len(data):
            raise Refusal("a truncated file")
        if count != storage.elements:
            raise Refusal("a storage whose size differs from its description")
    return places


def _select_tensors(content: Any, wanted: str) -> tuple[dict[str, Tensor], str]:
    """Strips wrappers and prefixes; returns the tensors by key, and the wrappers ("state_dict.params")."""
    wrappers: list[str] = []
    if wanted:
        present = [
            key for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)
        ]
        if wanted not in present:
            there = ", ".join(present) or "none"
            raise Refusal(f"a file without {quote(wanted)} (it has {there})", "name one that is there")
        wrappers, content = [wanted], content[wanted]
    while isinstance(content, dict) and len(wrappers) < len(WRAPPERS):  # a pickled dict can contain itself
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            break
        wrappers.append(wrapper)
        content = content[wrapper]
    if not isinstance(content, dict):
        raise Refusal(f"{quote(content)} instead of a state dict", STATE_DICT_ONLY)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        found = ", ".join(quote(str(key)) for key in list(content)[:4]) or "nothing"
        raise Refusal(f"a dictionary without named tensors (it holds {found})", STATE_DICT_ONLY)
    return strip_prefixes(tensors), ".".join(wrappers)


def strip_prefixes(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Strips the `PREFIXES` that all floating-point tensors share; integers and booleans need not have them.

    Raises:
        Refusal: more than `PREFIX_LIMIT` of them.
    """
    for _ in range(PREFIX_LIMIT + 1):
        weights = [key for key, value in tensors.items() if _is_floating(value)]
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in weights)), None)
        if prefix is None or not weights or all(map(LAYER_OF_ITS_OWN.match, weights)):
            return dict(tensors)
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    raise Refusal(f"keys with more than {PREFIX_LIMIT} prefixes", STATE_DICT_ONLY)


def _is_floating(value: Any) -> bool:
    return (value.storage.dtype if isinstance(value, Tensor) else value.dtype).kind not in "biu"


def _materialise(
    tensors: dict[str, Tensor], read_storage: ReadStorage, file_size: int
) -> dict[str, np.ndarray]:
    """Reads each storage once and copies every tensor into an array of its own."""
    by_storage: dict[Storage, list[str]] = {}
    for key, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(key)
    if sum(storage.elements * storage.dtype.itemsize for storage in by_storage) > file_size:
        raise Refusal("storages larger than the file")
    # A side of 0 counts as 1, because NumPy also refuses such a shape if its other sides are too large.
    sizes = (math.prod(max(1, n) for n in t.shape) * t.storage.dtype.itemsize for t in tensors.values())
    if sum(sizes) > OVERLAP_LIMIT * file_size:
        raise Refusal("tensors that expand to many times the size of the file", STATE_DICT_ONLY)

    arrays: dict[str, np.ndarray] = {}
    for storage, keys in by_storage.items():
        data = read_storage(storage)
        if len(data) != storage.elements * storage.dtype.itemsize:
            raise Refusal("a storage whose size differs from its description")
        numbers = np.frombuffer(data, storage.dtype)
        for key in keys:
            tensor = tensors[key]
            strides = [step * storage.dtype.itemsize for step in tensor.stride]
            start = numbers[tensor.offset :]
            arrays[key] = np.lib.stride_tricks.as_strided(start, tensor.shape, strides).copy()
    return {key: arrays[key] for key in tensors}
