"""Writes a state dict as `torch.save` would, without PyTorch."""

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from decloss_jax import checks
from decloss_jax.weights.torch_reader import NOTES

ROOT = "archive"  # torch's name for the folder inside the zip archive
FORMAT_VERSION = b"3\n"  # torch's version of the zip format, since torch 1.6
EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # equal weights give equal files


def torch_bytes(wrapper: str, tensors: Mapping[str, np.ndarray], notes: str) -> bytes:
    """Returns the bytes of a file with {wrapper: tensors, NOTES: notes}, for `torch.load(weights_only=True)`.

    Args:
        wrapper: the key of the state dict, "params" in BasicSR.
        tensors: float32 arrays by their keys, of any shape.
        notes: a text that is stored next to the state dict.

    Raises:
        UserError: an array of another dtype.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}", EARLIEST_DATE), content)

        write("data.pkl", _pickle(wrapper, tensors, notes))
        write("byteorder", b"little")
        for index, (key, array) in enumerate(tensors.items()):
            checks.check(
                array.dtype == np.float32,
                key,
                expected="float32",
                got=array.dtype,
                remedy="convert the parameters first",
            )
            write(f"data/{index}", np.ascontiguousarray(array, "<f4").tobytes())
        write("version", FORMAT_VERSION)
    return file.getvalue()


def _pickle(wrapper: str, tensors: Mapping[str, np.ndarray], notes: str) -> bytes:
    """Returns the protocol 2 pickle. It is built by hand, because `pickle` would import torch's classes."""
    parts = [b"\x80\x02}(", _text(wrapper), b"}("]  # PROTO 2, EMPTY_DICT, MARK; the inner dictionary
    for index, (key, array) in enumerate(tensors.items()):
        parts += [_text(key), _tensor(index, array)]
    parts += [b"u", _text(NOTES), _text(notes), b"u."]  # SETITEMS of both dictionaries, STOP
    return b"".join(parts)


def _tensor(index: int, array: np.ndarray) -> bytes:
    """Returns the call _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())."""
    strides = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
    parts = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n",
        _text(str(index)) + _text("cpu") + _number(array.size) + b"tQ",  # TUPLE, BINPERSID
        _number(0) + _numbers(array.shape) + _numbers(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",  # False, OrderedDict(), TUPLE, REDUCE
    ]
    return b"".join(parts)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)  # LONG1 of 8 bytes


def _numbers(numbers: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
