"""Generators from files of other code bases, and ours in their formats."""

import functools
import json
import random
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from decloss_jax.checks import UserError
from decloss_jax.models import EDSR, RRDBNet
from decloss_jax.weights import (
    describe,
    dialects,
    generators,
    load_generator,
    read_torch,
    save_generator,
    tables,
)

torch = pytest.importorskip("torch")
from foreign_networks import EdsrPytorch, EsrganNew, EsrganOld, MsrResNet, basicsr_rrdb  # noqa: E402

FOREIGN = {
    "EDSR-PyTorch": lambda: EdsrPytorch(4, 8, 2),
    "ESRGAN (old)": lambda: EsrganOld(8, 2, 4),
    "ESRGAN (new)": lambda: EsrganNew(8, 2, 4),
    "BasicSR RRDBNet": lambda: basicsr_rrdb(8, 2, 4),
}


def foreign(dialect, seed=0):
    torch.manual_seed(seed)
    return FOREIGN[dialect]().eval()


def low_images(size=12):
    return np.random.default_rng(0).uniform(size=(2, size, size, 3)).astype(np.float32)


def check_same_images(model, params, network, tolerance=1e-5):
    low = low_images()
    with torch.no_grad():
        expected = network(torch.from_numpy(low.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(
        jax.jit(model.apply)({"params": params}, low), expected, rtol=0, atol=tolerance
    )


def random_params(model):
    """Parameters without the model's own initialisers, which take long to compile."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    return jax.tree.map(lambda leaf: generator.normal(scale=0.05, size=leaf.shape).astype(np.float32), shapes)


def repr_short(model):
    return f"{type(model).__name__}-x{model.scale}"


def check_equal_trees(params, other):
    params, other = flatten_dict(params), flatten_dict(other)
    assert params.keys() == other.keys()
    for path, leaf in params.items():
        assert leaf.dtype == np.float32
        assert np.asarray(leaf).tobytes() == np.asarray(other[path]).tobytes()


@pytest.mark.parametrize("dialect", FOREIGN)
def test_load_generator_gives_the_images_of_the_foreign_network(tmp_path, dialect):
    network = foreign(dialect)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model, params, description = load_generator(tmp_path / "w.pth")
    check_same_images(model, params, network)
    assert description["dialect"] == dialect
    sizes = {key: description[key] for key in ("scale", "features", "blocks")}
    assert sizes == {"scale": 4, "features": 8, "blocks": 2}
    assert description.get("growth") == (None if dialect == "EDSR-PyTorch" else 4)
    json.dumps(description)
    assert dialect in describe(description)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_load_generator_tells_the_scale_of_edsr(tmp_path, scale):
    network = EdsrPytorch(scale, 8, 3)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    model, params, _ = load_generator(tmp_path / "w.pt")
    assert model == EDSR(scale=scale, features=8, blocks=3, res_scale=1.0)
    check_same_images(model, params, network)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_load_generator_tells_the_scale_of_rrdbnet(tmp_path, scale):
    network = basicsr_rrdb(8, 2, 4, scale)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "w.pth")
    model, params, description = load_generator(tmp_path / "w.pth")
    assert model == RRDBNet(scale=scale, features=8, blocks=2, growth=4)
    assert description["wrapper"] == "params_ema"
    check_same_images(model, params, network)


@pytest.mark.parametrize("stages", [0, 1, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda stages: EsrganOld(8, 2, 4, stages),
        lambda stages: EsrganNew(8, 2, 4, 2**stages, stages=stages),
        lambda stages: basicsr_rrdb(8, 2, 4, 2**stages, stages),
    ],
    ids=["old", "new", "basicsr"],
)
def test_load_generator_counts_the_upsamplings_of_esrgan(tmp_path, make, stages):
    network = make(stages).eval()
    torch.save(network.state_dict(), tmp_path / "w.PTH")
    model, params, _ = load_generator(tmp_path / "w.PTH")
    scale = 2**stages
    assert model == RRDBNet(scale=scale, features=8, blocks=2, growth=4, unshuffle=scale == 8)
    check_same_images(model, params, network)
    save_generator(tmp_path / "ours.SAFETENSORS", model, params)
    restored, again, _ = load_generator(tmp_path / "ours.SAFETENSORS")
    assert restored == model
    check_equal_trees(again, params)


@pytest.mark.parametrize("name", ["old_x2", "new_x8"])
def test_load_generator_gives_the_images_of_spandrel(shared, name):
    folder = shared / "cases" / "weights"
    model, params, description = load_generator(folder / f"{name}.pth")
    assert description["scale"] == int(name[-1])
    expected = np.load(folder / f"{name}_expected.npz")
    np.testing.assert_allclose(
        model.apply({"params": params}, expected["low"]), expected["sr"], rtol=0, atol=1e-5
    )


def test_load_generator_reads_the_files_that_people_have(shared):
    folder = shared / "cases" / "weights"
    _, plain, _ = load_generator(folder / "edsr_x4.pth")
    for name in ("prefix_net_g_edsr", "prefix_orig_mod_edsr"):
        check_equal_trees(load_generator(folder / f"{name}.pth")[1], plain)
    assert load_generator(folder / "edsr_x8.pth")[0] == EDSR(scale=8, features=16, blocks=2)
    assert load_generator(folder / "train_state_rng.pth")[0] == RRDBNet(features=16, blocks=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("edsr_small_x2", {"res_scale": 0.1}),
        ("edsr_small_x3", {}),
        ("edsr_small_x4", {}),
        ("rrdb_small_x4", {}),
    ],
)
def test_load_generator_gives_the_images_of_basicsr(shared, name, options):
    golden = np.load(shared / "golden" / f"{name}.npz")
    model, params, _ = load_generator(shared / "golden" / f"{name}.pth", **options)
    np.testing.assert_allclose(
        model.apply({"params": params}, golden["low"]), golden["high"], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("zipped", [True, False])
def test_load_generator_reads_other_precisions_formats_and_parallel_modules(tmp_path, dtype, zipped):
    network = foreign("EDSR-PyTorch").to(dtype)
    state = torch.nn.DataParallel(network).state_dict()
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    torch.save(network.float().state_dict(), tmp_path / "float.pth")
    check_equal_trees(load_generator(tmp_path / "w.pth")[1], load_generator(tmp_path / "float.pth")[1])


def test_load_generator_reads_safetensors_that_torch_wrote(tmp_path):
    from safetensors.torch import save_file

    network = foreign("ESRGAN (new)").to(torch.bfloat16)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model, params, _ = load_generator(tmp_path / "w.safetensors")
    check_same_images(model, params, network.float())


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "params.", "params_ema.", "state_dict.netG.module.", "_orig_mod.", "generator."),
        *("net_g.", "model.", "G.", "module._orig_mod.", "_orig_mod.module.", "model.net_g._orig_mod."),
    ],
)
@pytest.mark.parametrize("dialect", ["EDSR-PyTorch", "ESRGAN (old)"])
def test_load_generator_takes_prefixes_off(tmp_path, dialect, prefix):
    state = foreign(dialect).state_dict()
    beside = {"rng_state": torch.get_rng_state(), "mask": torch.ones(2, dtype=torch.bool)}
    torch.save({f"{prefix}{key}": value for key, value in state.items()} | beside, tmp_path / "w.pth")
    torch.save(state, tmp_path / "plain.pth")
    check_equal_trees(load_generator(tmp_path / "w.pth")[1], load_generator(tmp_path / "plain.pth")[1])


def test_load_generator_leaves_the_prefix_that_only_some_keys_have(tmp_path):
    from safetensors.torch import save_file

    state = foreign("EDSR-PyTorch").state_dict()
    mixed = {f"module.{key}" if key.startswith("head") else key: value for key, value in state.items()}
    save_file(mixed, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"EDSR-PyTorch without 'head\.0\.weight'"):
        load_generator(tmp_path / "w.safetensors")


def test_load_generator_takes_prefixes_off_in_safetensors(tmp_path):
    from safetensors.torch import save_file

    state = foreign("ESRGAN (new)").state_dict()
    beside = {"rng_state": torch.get_rng_state()}
    save_file({f"module.{k}": v for k, v in state.items()} | beside, tmp_path / "w.Safetensors")
    torch.save(state, tmp_path / "plain.pth")
    check_equal_trees(
        load_generator(tmp_path / "w.Safetensors")[1], load_generator(tmp_path / "plain.pth")[1]
    )


@pytest.mark.parametrize("wrapper", ["state_dict", "generator", "net_g", "netG", "G"])
@pytest.mark.parametrize("zipped", [True, False])
def test_load_generator_skips_what_lies_beside_the_weights(tmp_path, wrapper, zipped):
    state = foreign("ESRGAN (new)").state_dict()
    content = {
        wrapper: state,
        "shape": torch.Size([3, 4]),
        "rng": [torch.get_rng_state(), np.random.get_state(), random.getstate()],
        "best": np.float64(31.5),
        "device": torch.device("cpu"),
        "others": [torch.zeros(2, dtype=kind) for kind in (torch.int8, torch.int16, torch.bool)],
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]},
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    torch.save(state, tmp_path / "plain.pth")
    check_equal_trees(load_generator(tmp_path / "w.pth")[1], load_generator(tmp_path / "plain.pth")[1])


# --------------------------------------------------------------------------------------------- res_scale


def test_load_generator_assumes_the_res_scale_of_the_published_networks(tmp_path, monkeypatch):
    assert generators.EDSR_LARGE == {"blocks": 32, "features": 256}
    torch.save(foreign("EDSR-PyTorch").state_dict(), tmp_path / "w.pth")
    model, _, description = load_generator(tmp_path / "w.pth")
    assert (model.res_scale, description["res_scale_from"]) == (1.0, "assumed from the size")
    monkeypatch.setattr(generators, "EDSR_LARGE", {"blocks": 2, "features": 8})
    assert load_generator(tmp_path / "w.pth")[0].res_scale == 0.1
    model, _, description = load_generator(tmp_path / "w.pth", res_scale=0.3)
    assert (model.res_scale, description["res_scale_from"]) == (0.3, "as given")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_save_generator_keeps_the_res_scale(tmp_path, suffix):
    model = EDSR(scale=2, features=8, blocks=2, res_scale=0.1)
    params = random_params(model)
    save_generator(tmp_path / f"w{suffix}", model, params)
    loaded, _, description = load_generator(tmp_path / f"w{suffix}")
    assert loaded == model
    assert description["res_scale_from"] == "from the file's notes"


def test_load_generator_refuses_a_res_scale_for_rrdbnet(tmp_path):
    torch.save(foreign("ESRGAN (new)").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="res_scale: expected none for RRDBNet"):
        load_generator(tmp_path / "w.pth", res_scale=0.2)


# -------------------------------------------------------------------------------------------- round trips

MODELS = [
    EDSR(scale=2, features=8, blocks=2),
    EDSR(scale=3, features=6, blocks=1),
    EDSR(scale=4, features=8, blocks=2, res_scale=0.1),
    RRDBNet(scale=1, features=8, blocks=1, growth=4),
    RRDBNet(scale=2, features=8, blocks=2, growth=4),
    RRDBNet(scale=4, features=8, blocks=2, growth=6),
    RRDBNet(scale=8, features=8, blocks=1, growth=4),
    RRDBNet(scale=2, features=8, blocks=1, growth=4, unshuffle=False),
]


@pytest.mark.parametrize("model", MODELS, ids=repr_short)
def test_save_generator_and_torch_and_back_is_exact(tmp_path, model):
    params = random_params(model)
    save_generator(tmp_path / "jax.pth", model, params)
    content = torch.load(tmp_path / "jax.pth", weights_only=True)
    torch.save({"params": content["params"]}, tmp_path / "torch.pth")
    loaded, restored, _ = load_generator(tmp_path / "torch.pth", **res_scale_of(model))
    assert loaded == model
    check_equal_trees(restored, params)
    save_generator(tmp_path / "jax.safetensors", loaded, restored)
    check_equal_trees(load_generator(tmp_path / "jax.safetensors")[1], params)


def res_scale_of(model):
    return {"res_scale": model.res_scale} if isinstance(model, EDSR) else {}


def test_save_generator_writes_what_a_torch_network_loads_strictly(tmp_path):
    model = RRDBNet(scale=2, features=8, blocks=2, growth=4)
    params = random_params(model)
    save_generator(tmp_path / "w.pth", model, params)
    network = basicsr_rrdb(8, 2, 4, scale=2)
    network.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True)["params"], strict=True)
    check_same_images(model, params, network.eval())


@pytest.mark.parametrize("name", ["edsr_small_x2", "edsr_small_x3", "edsr_small_x4", "rrdb_small_x4"])
def test_save_generator_writes_the_keys_and_numbers_of_basicsr(shared, tmp_path, name):
    path = shared / "golden" / f"{name}.pth"
    model, params, _ = load_generator(path)
    save_generator(tmp_path / "w.pth", model, params)
    written, expected = read_torch(tmp_path / "w.pth"), read_torch(path)
    assert written.keys() == expected.keys()
    for key, array in expected.items():
        assert written[key].tobytes() == array.tobytes()


# spandrel 0.4.2 expects BasicSR's keys, under `params` in a .pth and at the top level in safetensors, with
# OIHW kernels. It infers features and blocks from them, and the scale from the number of conv_up layers and
# the channels of conv_first; it assumes ESRGAN's growth, 32. With such files its pictures equalled ours to
# 3e-6 at scales 1, 2, 4 and 8.
SPANDREL_SHAPES = {
    "conv_first.weight": (8, 3, 3, 3),
    "body.0.rdb1.conv1.weight": (4, 8, 3, 3),
    "body.1.rdb3.conv4.weight": (4, 20, 3, 3),
    "body.1.rdb3.conv5.weight": (8, 24, 3, 3),
    "conv_body.weight": (8, 8, 3, 3),
    "conv_hr.weight": (8, 8, 3, 3),
    "conv_last.weight": (3, 8, 3, 3),
    "conv_last.bias": (3,),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("scale", "unshuffle"), [(1, True), (2, True), (4, True), (8, True), (2, False)])
def test_save_generator_writes_the_names_and_shapes_that_spandrel_goes_by(tmp_path, scale, unshuffle, suffix):
    from safetensors.torch import load_file

    model = RRDBNet(scale=scale, features=8, blocks=2, growth=4, unshuffle=unshuffle)
    save_generator(tmp_path / f"w{suffix}", model, random_params(model))
    if suffix == ".pth":
        state = torch.load(tmp_path / "w.pth", weights_only=True)["params"]
    else:
        state = load_file(tmp_path / "w.safetensors")
    factor = {1: 4, 2: 2}.get(scale, 1) if unshuffle else 1
    expected = SPANDREL_SHAPES | {"conv_first.weight": (8, 3 * factor**2, 3, 3)}
    assert expected == {key: tuple(state[key].shape) for key in expected}
    ups = {f"conv_up{u}.weight" for u in range(1, 5) if 2**u <= scale * factor}
    assert {key for key in state if key.startswith("conv_up") and key.endswith(".weight")} == ups
    assert len(state) == 2 * (5 * 3 * 2 + 4 + len(ups))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_save_generator_writes_equal_files_for_equal_parameters(tmp_path, suffix):
    model = MODELS[0]
    params = random_params(model)
    for name in "ab":
        save_generator(tmp_path / f"{name}{suffix}", model, params)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_save_generator_describes_the_network_in_the_metadata(tmp_path):
    from safetensors import safe_open

    model = MODELS[5]
    params = random_params(model)
    save_generator(tmp_path / "w.safetensors", model, params)
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        notes = json.loads(file.metadata()["decloss_jax"])
    assert notes.pop("version")
    assert notes == {
        "format": "decloss_jax generator",
        "model": "rrdb",
        "scale": 4,
        "features": 8,
        "blocks": 2,
        "growth": 6,
    }


def test_save_generator_refuses_other_endings_and_other_parameters(tmp_path):
    model = MODELS[0]
    params = random_params(model)
    with pytest.raises(UserError, match=r"one of \.safetensors, \.pth, \.pt, got '\.onnx'"):
        save_generator(tmp_path / "w.onnx", model, params)
    with pytest.raises(UserError, match="body_2/conv1/bias with the shape None"):
        save_generator(tmp_path / "w.pth", EDSR(scale=2, features=8, blocks=3), params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", MODELS, ids=repr_short)
def test_parameter_shapes_equal_those_of_the_whole_network(model):
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    expected = {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
    assert dialects.parameter_shapes(model) == expected
    written = tables.WRITTEN[type(model)]
    assert (
        expected.keys() <= dialects.file_keys(written, model.blocks, getattr(model, "upsamplings", 0)).keys()
    )


# -------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("dialect", FOREIGN)
def test_load_generator_names_every_missing_and_misshapen_key(tmp_path, monkeypatch, dialect):
    monkeypatch.setattr(dialects, "parameter_shapes", functools.cache(dialects.parameter_shapes))
    state = foreign(dialect).state_dict()
    for key in state:
        if key.startswith(("sub_mean", "add_mean")):
            continue
        rest = {other: value for other, value in state.items() if other != key}
        torch.save(rest, tmp_path / "w.pth")
        with pytest.raises(UserError) as caught:
            load_generator(tmp_path / "w.pth")
        assert dialect in str(caught.value)
        assert f"without {key!r}" in str(caught.value)
        torch.save({**state, key: state[key][..., None]}, tmp_path / "w.pth")
        with pytest.raises(UserError, match="has the shape"):
            load_generator(tmp_path / "w.pth")


def changed(dialect, **changes):
    state = {
        **foreign(dialect).state_dict(),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed("EDSR-PyTorch", extra=torch.ones(2)), "with unknown 'extra'"),
        (
            lambda: changed("EDSR-PyTorch", sub_mean__bias=torch.zeros(3)),
            "sub_mean.bias does not hold DIV2K",
        ),
        (lambda: changed("EDSR-PyTorch", add_mean__weight=torch.eye(3)), "add_mean.weight does not hold"),
        (lambda: changed("EDSR-PyTorch", tail__1__bias=torch.tensor([0, 0, torch.nan])), "is not finite"),
        (
            lambda: changed("EDSR-PyTorch", tail__1__bias=torch.full((3,), 1e300, dtype=torch.float64)),
            "is not finite",
        ),
        (lambda: changed("EDSR-PyTorch", tail__1__bias=torch.arange(3)), "holds int64"),
        (
            lambda: changed("ESRGAN (new)", RRDB_trunk__0__RDB1__conv1x1__weight=torch.ones(4, 8, 1, 1)),
            r"got ESRGAN\+",
        ),
        (
            lambda: changed("EDSR-PyTorch", tail__0__4__weight=torch.ones(32, 8, 3, 3)),
            "without 'tail.0.4.bias'",
        ),
        (lambda: EsrganOld(8, 2, 4, stages=4).state_dict(), "of 3 channels with 4 upsampling layers"),
        (
            lambda: {k: v for k, v in MsrResNet(8, 2).state_dict().items() if "conv_hr" not in k},
            "BasicSR MSRResNet .* without 'conv_hr.weight', 'conv_hr.bias'",
        ),
        (lambda: torch.nn.Linear(2, 2).state_dict(), "an unknown network .its keys are 'weight', 'bias'"),
        (
            lambda: {**changed("ESRGAN (new)"), "conv_first.weight": torch.ones(8, 1, 3, 3)},
            "of images with 1 channels",
        ),
        (lambda: {"body.999999999999.conv1.weight": torch.ones(1)}, "without 'conv_first.weight'"),
        (
            lambda: {"body.0.conv1.weight": torch.ones(1), "conv_first.weight": torch.ones(0, 3, 3, 3)},
            "shape",
        ),
    ],
)
def test_load_generator_says_in_one_line_what_does_not_fit(tmp_path, make, message):
    torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message) as caught:
        load_generator(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def safetensors_file(header: bytes, content: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x80\x02}q\x00.",
        struct.pack("<Q", 2**21),
        safetensors_file(b"{}"),
        safetensors_file(b"hello"),
        safetensors_file(b'{"a":' * 50_000),
        safetensors_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}', bytes(4)),
        safetensors_file(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}', bytes(4)),
        safetensors_file(
            b'{"a":{"dtype":"F32","shape":[9999999999999999999],"data_offsets":[0,4]}}', bytes(4)
        ),
        safetensors_file(b'{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}', bytes(4)),
        safetensors_file(
            b'{"a":{"dtype":"F32","shape":[' + b"1," * 69 + b'1],"data_offsets":[0,4]}}', bytes(4)
        ),
    ],
)
def test_load_generator_refuses_damaged_safetensors(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors: expected weights"):
        load_generator(tmp_path / "w.safetensors")


def test_load_generator_refuses_safetensors_without_tensors(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(safetensors_file(b"{}"))
    with pytest.raises(UserError, match="an unknown network"):
        load_generator(tmp_path / "w.safetensors")


@pytest.mark.parametrize("notes", ["{", "[" * 100_000, "{}", '{"res_scale": "x"}', '{"res_scale": NaN}', "3"])
def test_load_generator_refuses_damaged_notes(tmp_path, notes):
    from safetensors.torch import save_file

    save_file(
        foreign("EDSR-PyTorch").state_dict(), tmp_path / "w.safetensors", metadata={"decloss_jax": notes}
    )
    with pytest.raises(UserError, match="notes"):
        load_generator(tmp_path / "w.safetensors")
