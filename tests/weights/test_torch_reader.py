"""The reader against torch itself, and against files that are damaged, odd or hostile."""

import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.weights import pickles, read_torch, torch_reader
from decloss_jax.weights.torch_writer import torch_bytes

torch = pytest.importorskip("torch")


def to_numpy(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def check_equal(arrays, tensors):
    """Requires the same keys in the same order, and equal shapes, dtypes and bits."""
    assert list(arrays) == list(tensors)
    for key, array in arrays.items():
        expected = to_numpy(tensors[key])
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert array.tobytes() == np.ascontiguousarray(expected).tobytes()


def mixed_tensors():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, 4, generator=generator)
    return OrderedDict(
        plain=base,
        transposed=base.permute(2, 0, 1),
        part=base[1:4, ::2, 3],
        half=base.half(),
        brain=base.to(torch.bfloat16),
        double=base.double(),
        integer=torch.arange(-3, 4, dtype=torch.int32),
        counter=torch.tensor(12345678901),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base[0] * 2),
    )


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["edsr_small_x2", "edsr_small_x3", "edsr_small_x4", "rrdb_small_x4"])
def test_read_torch_equals_torch_on_the_golden_files(shared, name):
    path = shared / "golden" / f"{name}.pth"
    check_equal(read_torch(path), torch.load(path, weights_only=True)["params"])


def test_read_torch_reads_the_buffers_of_a_discriminator(shared):
    path = shared / "golden" / "discriminator128_after_one_train_forward.pth"
    expected = torch.load(path, weights_only=True)
    check_equal(read_torch(path), expected.get("params", expected))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_torch_equals_torch_on_every_dtype_and_layout(tmp_path, zipped, protocol):
    tensors = mixed_tensors()
    path = tmp_path / "weights.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    check_equal(read_torch(path), torch.load(path, weights_only=False))


@pytest.mark.parametrize("zipped", [True, False])
def test_read_torch_reads_the_state_dict_of_a_module(tmp_path, zipped):
    module = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)))
    torch.save(module.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    check_equal(read_torch(tmp_path / "weights.pth"), module.module.state_dict())


def test_read_torch_gives_tensors_of_one_storage_arrays_of_their_own(tmp_path):
    shared_storage = torch.arange(12.0)
    torch.save(
        {"whole": shared_storage, "view": shared_storage[4:8], "tied": shared_storage}, tmp_path / "w.pth"
    )
    arrays = read_torch(tmp_path / "w.pth")
    arrays["whole"][:] = 0
    np.testing.assert_array_equal(arrays["view"], [4, 5, 6, 7])
    np.testing.assert_array_equal(arrays["tied"], np.arange(12))


@pytest.mark.parametrize(
    ("wrap", "wrappers"),
    [
        (lambda state: {"params": {"other": state["a"]}, "params_ema": state}, "params_ema"),
        (lambda state: {"params": state}, "params"),
        (lambda state: {"epoch": 3, "state_dict": state, "loss": 0.5, "name": "x"}, "state_dict"),
        (lambda state: {"state_dict": {"params": state}}, "state_dict.params"),
        (lambda state: {"model": {f"netG.module.{key}": value for key, value in state.items()}}, "model"),
        (lambda state: {**state, "epoch": 7, "lists": [1, (2, None, True)]}, ""),
    ],
)
def test_read_torch_takes_wrappers_prefixes_and_extras_off(tmp_path, wrap, wrappers):
    state = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
    torch.save(wrap(state), tmp_path / "w.pth")
    found = torch_reader.read_torch_state(tmp_path / "w.pth")
    check_equal(found.tensors, state)
    assert found.wrapper == wrappers


def test_read_torch_refuses_countless_prefixes(tmp_path):
    state = {"a": torch.arange(4.0)}
    torch.save({f"{'module.' * 8}{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    check_equal(read_torch(tmp_path / "w.pth"), state)
    torch.save({f"{'netG.module.' * 1000}{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="keys with more than 8 prefixes"):
        read_torch(tmp_path / "w.pth")


def test_read_torch_passes_over_the_state_of_an_optimizer(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"params": layer.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pth")
    check_equal(read_torch(tmp_path / "w.pth"), layer.state_dict())


def legacy_file(content: bytes, keys: list[str], storages: bytes) -> bytes:
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
    parts += [pickle.dumps({"little_endian": True, "protocol_version": 1001}, 2), content]
    return b"".join([*parts, pickle.dumps(keys, 2), storages])


def test_read_torch_reads_what_python_2_wrote(tmp_path):
    # As in torchvision's VGG files of 2017: byte strings, a list of pairs for OrderedDict, _rebuild_tensor.
    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    tensor = b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor\n((",
            text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"77") + text(b"cpu") + b"K\x06NtQ",
            b"K\x02(K\x02K\x02t(K\x02K\x01ttR",
        ]
    )
    content = b"\x80\x02ccollections\nOrderedDict\n(]](" + text(b"weight") + tensor + b"eatR."
    numbers = np.arange(6, dtype="<f4")
    path = write(tmp_path / "w.pth", legacy_file(content, ["77"], struct.pack("<q", 6) + numbers.tobytes()))
    np.testing.assert_array_equal(read_torch(path)["weight"], [[2, 3], [4, 5]])


# ---------------------------------------------------------------------------------------------- refusals


class RunsACommand:
    def __reduce__(self):
        return os.system, ("touch " + os.environ["PROOF"],)


@pytest.mark.parametrize("zipped", [True, False, None])
def test_read_torch_runs_nothing_and_names_what_was_asked_for(tmp_path, monkeypatch, zipped):
    proof = tmp_path / "executed"
    monkeypatch.setenv("PROOF", str(proof))
    path = tmp_path / "evil.pth"
    content = {"params": {"a": torch.ones(2)}, "extra": RunsACommand()}
    if zipped is None:
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"asks for '(posix|nt)\.system' \(which was not run\)"):
        read_torch(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "asks for 'torch.nn.modules.linear.Linear'"),
        (lambda: torch.ones(2), "an object of type Tensor instead of a state dict"),
        (lambda: [torch.ones(2)], "an object of type list instead of a state dict"),
        (lambda: {}, "without named tensors .it holds nothing"),
        (lambda: {"critic": {"a": torch.ones(2)}, "step": 4}, "holds 'critic', 'step'"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
        (lambda: {"a": torch.ones(1).expand(1000, 1000)}, "expand to many times the size"),
    ],
)
def test_read_torch_names_what_is_not_a_state_dict(tmp_path, content, message):
    torch.save(content(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        read_torch(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "another kind of file"),
        (b"\x89PNG\r\n", "another kind of file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "another kind of file"),
        (b"PK\x03\x04", "truncated zip archive"),
        (b"\x80\x02", "damaged pickle stream"),
        (b"\x80\x02N.", "a pickle that torch.save did not write"),
        (b"cposix\nsystem\n(S'true'\ntR.", r"asks for 'posix\.system'"),
    ],
)
def test_read_torch_refuses_other_files(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_torch(write(tmp_path / "w.pth", content))


def test_read_torch_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: expected a readable file, got No such file"):
        read_torch(tmp_path / "nowhere.pth")


def test_read_torch_refuses_every_truncation(tmp_path):
    buffers = [io.BytesIO(torch_bytes("params", {"a": np.arange(8, dtype=np.float32)}, "")), io.BytesIO()]
    torch.save({"a": torch.arange(8.0)}, buffers[1], _use_new_zipfile_serialization=False)
    for buffer in buffers:
        content = buffer.getvalue()
        read_torch(write(tmp_path / "w.pth", content))
        for length in range(len(content)):
            with pytest.raises(UserError):
                read_torch(write(tmp_path / "w.pth", content[:length]))


def test_read_torch_notices_every_flipped_byte_of_the_numbers(tmp_path):
    content = bytearray(torch_bytes("params", {"a": np.arange(64, dtype=np.float32)}, ""))
    start = content.index(np.arange(64, dtype=np.float32).tobytes())
    content[start + 100] ^= 1
    with pytest.raises(UserError, match="a damaged zip archive"):
        read_torch(write(tmp_path / "w.pth", bytes(content)))


def zip_file(pickled: bytes, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in {"archive/data.pkl": pickled, **entries}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pickled_tensor(
    *, elements: int = 4, offset: int = 0, shape=(4,), stride=(1,), key: str = "0", kind: str = "FloatStorage"
) -> bytes:
    """A pickled {"a": tensor} with the given claims."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = (
        text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(elements)
    )
    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, stride)) + b"t"
    return (
        b"\x80\x02}"
        + text("a")
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + storage
        + b"tQ"
        + (number(offset) + sizes + b"\x89NtRs.")
    )


FOUR = np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"offset": 1}, "reaches beyond its storage"),
        ({"stride": (2,)}, "reaches beyond its storage"),
        ({"shape": (5,)}, "reaches beyond its storage"),
        ({"offset": -1}, "damaged description of a tensor"),
        ({"stride": (-1,)}, "damaged description of a tensor"),
        ({"shape": (2, 2)}, "damaged description of a tensor"),
        ({"shape": (1,) * 9, "stride": (1,) * 9}, "damaged description of a tensor"),
        ({"shape": (2**63,), "stride": (0,)}, "damaged description of a tensor"),
        ({"shape": (2**40,), "stride": (0,)}, "expand to many times the size"),
        ({"shape": (2**40, 0), "stride": (0, 0)}, "expand to many times the size"),
        ({"elements": 2**40}, "storages larger than the file"),
        ({"elements": 5}, "a storage whose size differs"),
        ({"elements": 3, "shape": (3,)}, "a storage whose size differs"),
        ({"elements": -1, "shape": (0,)}, "damaged description of a storage"),
        ({"kind": "DoubleStorage"}, "a storage whose size differs"),
        ({"kind": "QInt8Storage"}, "asks for 'torch.QInt8Storage'"),
        ({"key": "1"}, "without its entry 'data/1'"),
        ({"key": "../../data.pkl"}, "without its entry"),
    ],
)
def test_read_torch_refuses_claims_that_do_not_hold(tmp_path, claims, message):
    path = write(tmp_path / "w.pth", zip_file(pickled_tensor(**claims), {"archive/data/0": FOUR}))
    with pytest.raises(UserError, match=message):
        read_torch(path)


def test_read_torch_accepts_the_same_file_with_true_claims(tmp_path):
    path = write(tmp_path / "w.pth", zip_file(pickled_tensor(), {"archive/data/0": FOUR}))
    np.testing.assert_array_equal(read_torch(path)["a"], np.arange(4))


def test_read_torch_refuses_compressed_archives(tmp_path):
    claims = pickled_tensor(elements=2**24, shape=(2**24,))
    content = zip_file(claims, {"archive/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    assert len(content) < 2**17
    with pytest.raises(UserError, match="compressed zip archive"):
        read_torch(write(tmp_path / "bomb.pth", content))


def test_read_torch_refuses_archives_of_countless_entries(tmp_path):
    entries = {f"archive/{index:>090}": b"" for index in range(40_000)}
    with pytest.raises(UserError, match="too many entries"):
        read_torch(write(tmp_path / "w.pth", zip_file(pickled_tensor(), entries)))


@pytest.mark.parametrize(("name", "entry"), [("data.pkl", 0), ("data/0", 1)])
def test_read_torch_refuses_entries_larger_than_the_file(tmp_path, name, entry):
    content = bytearray(zip_file(pickled_tensor(), {"archive/data/0": FOUR}))
    places = [match.start() for match in re.finditer(b"PK\x01\x02", content)]  # of the directory's entries
    content[places[entry] + 20 : places[entry] + 28] = struct.pack("<II", 0x70000000, 0x70000000)
    with pytest.raises(UserError, match=f"whose entry '{name}' is larger than the file"):
        read_torch(write(tmp_path / "w.pth", bytes(content)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_read_torch_refuses_two_entries_of_one_name(tmp_path):
    buffer = io.BytesIO(zip_file(pickled_tensor(), {"archive/data/0": FOUR}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data/0", FOUR)
    with pytest.raises(UserError, match="two entries of one name"):
        read_torch(write(tmp_path / "w.pth", buffer.getvalue()))


def test_read_torch_refuses_entries_before_the_start_of_the_file(tmp_path):
    content = bytearray(zip_file(pickled_tensor(), {"archive/data/0": FOUR}))
    offset = int.from_bytes(content[-6:-2], "little")  # of the directory, in the end record
    content[-6:-2] = (offset + 1000).to_bytes(4, "little")
    with pytest.raises(UserError, match="a damaged zip archive"):
        read_torch(write(tmp_path / "w.pth", bytes(content)))


def test_read_torch_refuses_big_endian_files(tmp_path):
    entries = {"archive/byteorder": b"big", "archive/data/0": FOUR}
    with pytest.raises(UserError, match="big-endian"):
        read_torch(write(tmp_path / "w.pth", zip_file(pickled_tensor(), entries)))


def nested_keys(depth: int) -> bytes:
    return b"\x80\x02}N" + b"\x85" * depth + b"Ns."


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x80\x02" + b"]" * (pickles.STEP_LIMIT + 1), "more than 1,000,000 steps"),
        (b"\x80\x02" + b"(" * 300_000 + b"N.", "an object of type NoneType instead of a state dict"),
        (b"\x80\x02N" + b"\x85" * 300_000 + b".", "an object of type tuple instead of a state dict"),
        (nested_keys(900_000), "an object of type tuple as the key of a dictionary"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "an object of type NoneType instead of a state dict"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "a damaged pickle stream"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "type NoneType instead"),
        (b"\x80\x02X\xff\xff\xff\x7fx.", "a damaged pickle stream"),
        (b"\x80\x02\x8b\x00\x00\x00\x40\x01.", "a damaged pickle stream|operation that no weights need"),
        (b"\x80\x02I" + b"9" * 10_000 + b"\n.", "a damaged pickle stream"),
        (b"\x80\x02.", "a damaged pickle stream"),
        (b"\x80\x02h\x05.", "a damaged pickle stream"),
        (b"\x80\x02t.", "a damaged pickle stream"),
        (b"\x80\x02}Ntb.", "a damaged pickle stream"),
        (b"\x80\x02NN.", "type NoneType instead"),
        (b"\x80\x02]Nb.", "a pickled state of an object of type list"),
        (b"\x80\x02}q\x00X\x06\x00\x00\x00paramsh\x00s.", "holds 'params'"),
        (b"\x80\x04]]\x93.", "a damaged pickle stream"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"asks for 'os\.system'"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "a pickled state of an object of type Name"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", r"no weights need .NEWOBJ"),
        (b"\x80\x02ccollections\nOrderedDict\nN\x85R.", "a damaged OrderedDict"),
        (b"\x80\x02\x82\x01.", r"no weights need .EXT1"),
        (b"\x80\x02NQ.", "a damaged description of a storage"),
        (b"\x80\x02N(tR.", "a damaged pickle stream"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + b"(" + b"N" * 500_000 + b"tR.", "damaged"),
        (b"\x80\x02ctorch\nFloat\x1b[31mStorage\n.", r"'torch\.Float\\x1b\[31mStorage'"),
    ],
)
def test_read_torch_refuses_hostile_pickles(tmp_path, stream, message):
    with pytest.raises(UserError, match=message) as caught:
        read_torch(write(tmp_path / "w.pth", zip_file(stream, {})))
    assert "\n" not in str(caught.value)


def test_read_torch_spends_python_2_pairs_once(tmp_path):
    # Or else a short stream could ask for the same long list again and again.
    pairs = b"](" + b"](K\x01Ne" * 1000 + b"eq\x00"
    stream = b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nh\x00\x85R" * 2 + b"."
    with pytest.raises(UserError, match="it holds nothing"):
        read_torch(write(tmp_path / "w.pth", zip_file(stream, {})))
