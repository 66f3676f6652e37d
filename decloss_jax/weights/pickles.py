"""Reads the pickle streams inside PyTorch files as plain data, with an interpreter that calls nothing.

Python's own unpickler imports and calls whatever a stream names. Here a name is only a string that is looked
up in the two tables below, and a tensor is only a record of where its numbers are. A name that the tables do
not have is refused.
"""

import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import ml_dtypes
import numpy as np

# RRDBNet with 23 blocks, its moving average and Adam's state take 120 thousand steps. A step of one byte can
# create an object of a hundred bytes, so the limit also bounds the memory.
STEP_LIMIT = 1_000_000
SIZE_LIMIT = 2**48  # for a tensor's side, stride or offset; more than any file holds
RANK_LIMIT = 8
ARGUMENT_LIMIT = 8  # for the functions below, and for a storage's description

STORAGE_DTYPES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}

# Objects that files hold in addition to weights: the state of NumPy's random generator, a score, a device.
SKIPPED = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode", "torch.device"),
)

DAMAGED = "copy or download the file again"
STATE_DICT_ONLY = "save only model.state_dict(), or a .safetensors file"


class Refusal(Exception):
    """The fault in a file's content, and what the user can do about it; readers add the file's name."""

    def __init__(self, got: str, remedy: str = DAMAGED):
        super().__init__(got)
        self.got, self.remedy = got, remedy


@dataclass(frozen=True)
class Storage:
    """A sequence of `elements` numbers, stored in the file under `key`."""

    key: str
    dtype: np.dtype
    elements: int


@dataclass(frozen=True)
class Tensor:
    """The place of a tensor's numbers in its storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """The name of a class or function in the stream; it is never looked up in Python."""

    text: str


class Skipped:
    """A placeholder for an object of a kind in `SKIPPED`."""


def quote(text: object) -> str:
    """Formats a string from a file for a message: on one line, and cut to 80 characters."""
    return repr(text[:80]) if isinstance(text, str) else f"an object of type {type(text).__name__}"


def interpret(stream: IO[bytes] | mmap.mmap, storages: dict[str, Storage] | None = None) -> Any:
    """Reads one pickled object, up to its STOP, without calling or importing anything.

    Args:
        stream: positioned at the object; its `read(n)` must not allocate memory beyond the stream's size.
        storages: if given, receives every storage that the object refers to, by its key.

    Returns:
        Dictionaries, lists, tuples, numbers and strings, with a `Tensor` for each tensor and a `Skipped` for
        each object of a kind in `SKIPPED`.

    Raises:
        Refusal: a damaged stream, a name outside the tables, or an object of more than `STEP_LIMIT` steps.
    """
    try:
        return _interpret(stream, {} if storages is None else storages)
    except (IndexError, KeyError) as error:  # an empty stack, or a memo entry that was never stored
        raise Refusal("a damaged pickle stream") from error


def _operations(stream: IO[bytes] | mmap.mmap) -> Iterator[tuple[str, Any]]:
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
            if step == STEP_LIMIT:
                raise Refusal(f"a pickle stream of more than {STEP_LIMIT:,} steps", STATE_DICT_ONLY)
            yield opcode.name, argument
    except (ValueError, OverflowError, struct.error) as error:
        raise Refusal("a damaged pickle stream") from error


def _interpret(stream: IO[bytes] | mmap.mmap, storages: dict[str, Storage]) -> Any:
    stack: list[Any] = []
    below_marks: list[list[Any]] = []  # the stacks that each MARK has put aside
    memo: dict[int, Any] = {}
    for name, argument in _operations(stream):
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                below_marks.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS":
                items, stack = stack, below_marks.pop()
                _collect(name, items, stack)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case _:
                _apply(name, argument, stack, storages)
    raise Refusal("a pickle stream without an end")


def _collect(name: str, items: list[Any], stack: list[Any]) -> None:
    """Does an operation on the items since the last MARK."""
    match name:
        case "TUPLE":
            stack.append(tuple(items))
        case "APPENDS":
            _extend(stack[-1], items)
        case "SETITEMS":
            _update(stack[-1], items)


def _apply(name: str, argument: Any, stack: list[Any], storages: dict[str, Storage]) -> None:
    """Does an operation that needs only the top of the stack."""
    match name:
        case "NONE":
            stack.append(None)
        case "NEWTRUE" | "NEWFALSE":
            stack.append(name == "NEWTRUE")
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINBYTES" | "SHORT_BINBYTES":
            stack.append(argument)
        case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINSTRING" | "SHORT_BINSTRING":
            stack.append(argument)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(reversed(items)))
        case "APPEND":
            _extend(stack[-2], [stack.pop()])
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _update(stack[-1], [key, value])
        case "GLOBAL":
            stack.append(_name(argument.replace(" ", ".", 1)))
        case "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise Refusal("a damaged pickle stream")
            stack.append(_name(f"{module}.{attribute}"))
        case "BINPERSID":
            storage = _storage(stack.pop())
            if storages.setdefault(storage.key, storage) != storage:
                raise Refusal("a storage with two descriptions")
            stack.append(storage)
        case "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_reduce(function, arguments))
        case "BUILD":
            # torch attaches `_metadata` (module versions) to the OrderedDict of a state dict. It is dropped.
            stack.pop()
            if not isinstance(stack[-1], dict | Skipped):
                raise Refusal(f"a pickled state of {quote(stack[-1])}", STATE_DICT_ONLY)
        case _:
            raise Refusal(f"a pickle operation that no weights need ({name})", STATE_DICT_ONLY)


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise Refusal("a damaged pickle stream")
    target.extend(items)


def _update(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise Refusal("a damaged pickle stream")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):  # a deeply nested tuple would overflow the stack in hash()
            raise Refusal(f"{quote(key)} as the key of a dictionary", STATE_DICT_ONLY)
        target[key] = value


def _name(text: str) -> Name:
    if text not in STORAGE_DTYPES and text not in _BUILDERS:
        raise Refusal(f"a pickle that asks for {quote(text)} (which was not run)", STATE_DICT_ONLY)
    return Name(text)


def _storage(identity: Any) -> Storage:
    """Parses torch's persistent id: ("storage", class, key, device, elements[, view])."""
    match identity:
        case ("storage", Name(kind), str(key), str(), int(elements)) | (
            "storage",
            Name(kind),
            str(key),
            str(),
            int(elements),
            None,
        ) if kind in STORAGE_DTYPES and 0 <= elements < SIZE_LIMIT:
            return Storage(key, STORAGE_DTYPES[kind], elements)
    raise Refusal("a damaged description of a storage")


def _reduce(function: Any, arguments: Any) -> Any:
    match function:
        case Name(text) if text in _BUILDERS and isinstance(arguments, tuple):
            if len(arguments) <= ARGUMENT_LIMIT:
                return _BUILDERS[text](*arguments)
    raise Refusal("a damaged pickle stream")


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    match arguments:
        case ():
            return result
        case (list(pairs),) if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            # Python 2 wrote pairs, for instance in torchvision's VGG files. The list is emptied, so that a
            # stream cannot copy the same pairs a hundred thousand times.
            _update(result, [item for pair in pairs for item in pair])
            pairs.clear()
            return result
    raise Refusal("a damaged OrderedDict")


def _tensor(*arguments: Any) -> Tensor:
    """Parses _rebuild_tensor(storage, offset, size, stride) and _v2 (requires_grad, hooks follow)."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
            if len(shape) == len(stride) <= RANK_LIMIT and all(map(_is_size, (offset, *shape, *stride))):
                last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
                if 0 not in shape and last >= storage.elements:
                    raise Refusal("a tensor that reaches beyond its storage")
                return Tensor(storage, offset, shape, stride)
    raise Refusal("a damaged description of a tensor")


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < SIZE_LIMIT


def _parameter(*arguments: Any) -> Tensor:
    match arguments:
        case (Tensor() as tensor, *_):
            return tensor
    raise Refusal("a damaged description of a parameter")


def _size(*arguments: Any) -> tuple[int, ...]:
    match arguments:
        case (tuple(numbers),) if len(numbers) <= RANK_LIMIT and all(map(_is_size, numbers)):
            return numbers
    raise Refusal("a damaged torch.Size")


_BUILDERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(SKIPPED, lambda *arguments: Skipped()),
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,  # in files from before torch 0.4, such as torchvision's VGG
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
