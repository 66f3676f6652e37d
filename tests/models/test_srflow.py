"""SRFlow against its authors' code, its density against a numerical Jacobian, its start, its noise."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decloss_jax.checks import UserError
from decloss_jax.models import MODELS, SRFlow, build_model
from decloss_jax.models.srflow import draw_latents, encoder, fit_actnorms, flow, layers, start
from decloss_jax.weights import load_generator, srflow

TINY = SRFlow(features=4, blocks=2, growth=2, stacked_blocks=(0, 1), flow_steps=1, transitions=1, hidden=4)


def difference(got, wanted) -> float:
    """Returns the largest difference relative to the largest value."""
    wanted = np.asarray(wanted, np.float64)
    return float(np.abs(np.asarray(got, np.float64) - wanted).max() / np.abs(wanted).max())


def random_params(draw, *, size: float = 0.2):
    """Draws parameters, none of them 0 or 1, of the shapes that `draw` gives; matrices are near rotations."""
    rng = np.random.default_rng(0)

    def one(path, shape):
        noise = size * rng.standard_normal(shape.shape)
        if path[-1].key == "matrix":
            noise = np.linalg.qr(rng.standard_normal(shape.shape))[0] + noise / len(noise[0])
        return noise

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(draw, jax.random.key(0)))


@pytest.fixture(scope="module")
def small(shared):
    """The small network of the reference values, and its results for their images, with gradients."""
    golden = np.load(shared / "golden/comparison/srflow_small_x4.npz")
    model, params, _ = load_generator(shared / "golden/comparison/srflow_small_x4.pth", stacked_blocks=(0, 2))

    def loss(params, low, hr):
        latents, bits = model.apply({"params": params}, low, hr, method="encode")
        return jnp.mean(bits), (latents, bits)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    gradients, (latents, bits) = compiled(params, golden["lr"], golden["hr"])
    return golden, model, params, latents, bits, gradients


def test_encode_equals_the_authors(small):
    golden, _, _, (eps, z), bits, _ = small
    assert difference(eps, golden["enc_eps_split"]) < 1e-5
    assert difference(z, golden["enc_z"]) < 1e-5
    assert difference(bits, golden["enc_nll"]) < 1e-5


def test_decode_equals_the_authors_and_inverts_encode(small):
    golden, model, params, latents, _, _ = small
    decode = jax.jit(functools.partial(model.apply, method="decode"))
    sr = decode({"params": params}, golden["lr"], [golden["eps_split_09"], golden["z_09"]])
    assert difference(sr, golden["sr_09"]) < 1e-5
    back = decode({"params": params}, golden["lr"], latents)
    np.testing.assert_allclose(back, golden["hr"], rtol=0, atol=1e-4)


def test_every_layer_equals_the_authors(small):
    golden, model, params, _, _, _ = small

    def recorded(step):
        def record(*inputs):
            y, log_det = step(*inputs)
            return y, (y, jnp.broadcast_to(log_det, y.shape[0]))

        return record

    @jax.jit
    def trace(params, low, hr):
        maps = encoder.conditions(params["encoder"], low, model.stacked_blocks)
        x, outputs = hr, []
        for name, condition in zip(flow.LEVELS, maps, strict=True):
            level = params["flow"][name]
            outputs.append((flow.pixel_unshuffle(x, 2), jnp.zeros(len(x))))
            x, stacks = flow.run_level(
                level,
                x,
                condition,
                transition=recorded(flow.transition),
                step=recorded(flow.conditional_step),
            )
            outputs += [(y, of_y) for ys, of_ys in stacks for y, of_y in zip(ys, of_ys, strict=True)]
            if "split" in level:
                x, eps, of_split = layers.split(level["split"], x)
                # The authors' running sum holds the density of the split latents already.
                density = -jnp.sum(eps**2 + math.log(2 * math.pi), axis=(1, 2, 3)) / 2
                outputs.append((x, of_split + density))
        return maps, outputs

    maps, outputs = trace(params, golden["lr"], golden["hr"])
    for name, got in zip(("cond_fea_up2", "cond_fea_up1", "cond_fea_up0"), maps, strict=True):
        assert difference(got, golden[name]) < 1e-5
    assert len(outputs) == len(golden["trace_logdet"])
    total = np.zeros(2)
    for i, (x, log_det) in enumerate(outputs):
        total += log_det
        assert difference(x, golden[f"trace_{i:02d}"]) < 1e-5, i
        np.testing.assert_allclose(total, golden["trace_logdet"][i], rtol=1e-5, atol=1e-3, err_msg=str(i))


def test_gradient_equals_the_authors(small):
    golden, model, _, _, _, (of_params, of_low, of_hr) = small
    assert difference(of_low, golden["grad_lr"]) < 1e-5
    assert difference(of_hr, golden["grad_hr"]) < 1e-5
    gradients = srflow.from_params(model, of_params)
    for key in golden.files:
        if key.startswith("grad:"):
            assert difference(gradients[key.removeprefix("grad:")], golden[key]) < 1e-5, key
    for key, norm in json.loads(str(golden["grad_norms_json"])).items():
        assert np.linalg.norm(gradients[key].ravel()) == pytest.approx(norm or 0.0, rel=1e-4), key


def test_a_call_is_heat_0_as_in_the_authors_pipeline(small, shared):
    _, model, params, _, _, _ = small
    golden = np.load(shared / "golden/comparison/srflow_pipeline.npz")
    low = golden["lr_padded_uint8"][None] / np.float32(255)
    both = jax.jit(lambda v, low: (model.apply(v, low), model.apply(v, low, method="regress")))
    sr, regressed = both({"params": params}, low)
    assert difference(sr, golden["sr_float_padded"]) < 1e-5
    assert difference(regressed, golden["rrdb_out_padded"]) < 1e-5


def test_the_released_size_equals_the_authors(shared):
    folder = shared / "golden/comparison"
    golden = np.load(folder / "srflow_released_size_x4.npz")
    layout = json.loads((folder / "srflow_released_layout.json").read_text())
    tensors = formula_weights(folder, layout)
    model = srflow.read_model(tensors, SRFlow.stacked_blocks)
    assert model == SRFlow()
    params = srflow.to_params(model, tensors)

    @jax.jit
    def there_and_back(params, low, hr):
        latents, bits = model.apply({"params": params}, low, hr, method="encode")
        return latents, bits, model.apply({"params": params}, low, latents, method="decode")

    (eps, z), bits, back = there_and_back(params, golden["lr"], golden["hr"])
    assert difference(eps, golden["enc_eps_split"]) < 3e-5
    assert difference(z, golden["enc_z"]) < 3e-5
    assert difference(bits, golden["enc_nll"]) < 3e-5
    np.testing.assert_allclose(back, golden["hr"], rtol=0, atol=5e-4)


def formula_weights(folder, layout) -> dict[str, np.ndarray]:
    """Runs the formula that is stored with the reference values."""
    scope: dict = {}
    exec(compile((folder / "formula_weights.py").read_text(), "formula_weights.py", "exec"), scope)
    return {key: scope["srflow"](key, shape, 3, 0.3) for key, shape in layout}


def test_bits_are_the_density_of_a_numerical_jacobian():
    """-bits ln 2 H W = log N(latents) + log|det d latents / d hr|, in float64, the matrix by autodiff."""
    draw = functools.partial(start.draw_flow, inputs=3, hidden=4, steps=1, transitions=1)
    rng = np.random.default_rng(1)

    def latents_of(flat, params, maps):
        latents, log_det = flow.encode(params, flat.reshape(1, 8, 8, 3), maps)
        flat_latents = jnp.concatenate([latent.ravel() for latent in latents])
        return flat_latents, (flat_latents, flow.bits_per_pixel(latents, log_det))

    with jax.enable_x64(True):
        maps = [rng.standard_normal((1, side, side, 3)) for side in (4, 2, 1)]
        jacobian_of = jax.jit(jax.jacfwd(latents_of, has_aux=True))
        jacobian, (flat, bits) = jacobian_of(rng.uniform(size=192), random_params(draw), maps)
        log_normal = -0.5 * np.sum(np.square(flat) + math.log(2 * math.pi))
        density = log_normal + np.linalg.slogdet(jacobian)[1]
        assert jacobian.dtype == np.float64
        np.testing.assert_allclose(-bits[0] * math.log(2) * 8 * 8, density, rtol=1e-12)


def test_looped_and_unrolled_steps_have_equal_gradients():
    draw = functools.partial(start.draw_flow, inputs=3, hidden=4, steps=2, transitions=1)
    level = jax.tree.map(np.float32, random_params(draw)["level2"])
    rng = np.random.default_rng(1)
    x, condition = (rng.standard_normal((1, *shape)).astype(np.float32) for shape in ((8, 8, 6), (4, 4, 3)))

    def gradient(**options):
        def loss(level, x, condition):
            y, _ = flow.run_level(level, x, condition, transition=flow.transition, **options)
            return jnp.sum(y**2)

        return jax.jit(jax.grad(loss))(level, x, condition)

    looped = gradient(step=flow.conditional_step)
    unrolled = gradient(step=jax.checkpoint(flow.conditional_step), unrolled=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), looped, unrolled)


def test_fit_actnorms_equals_the_authors(shared):
    folder = shared / "golden/comparison"
    golden = np.load(folder / "srflow_init.npz")
    model, params, _ = load_generator(folder / "srflow_init_before.pth", stacked_blocks=(0, 1))
    fit = jax.jit(functools.partial(fit_actnorms, stacked_blocks=model.stacked_blocks))
    fitted = fit(params, golden["lr"], golden["hr"])
    after, before = srflow.from_params(model, fitted), srflow.from_params(model, params)
    for key, array in after.items():
        if f"after:{key}" in golden:
            np.testing.assert_allclose(array, golden[f"after:{key}"], rtol=0, atol=1e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(array, before[key], err_msg=key)
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    (_, z), bits = encode({"params": fitted}, golden["lr"], golden["hr"])
    assert difference(bits, golden["nll"]) < 1e-5
    assert difference(z, golden["z"]) < 1e-5


def test_a_fresh_flow_only_rotates_and_scales():
    """Zero convolutions scale all channels by sigmoid(2) + 1e-4 in the injector, and half in the coupling."""
    hr = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
    maps = [jnp.zeros((1, side, side, 12)) for side in (8, 4, 2)]

    @jax.jit
    def log_det_of(key, hr, maps):
        params = start.draw_flow(key, inputs=12, hidden=4, steps=1, transitions=1)
        return flow.encode(params, hr, maps)[1]

    log_det = log_det_of(jax.random.key(0), hr, maps)
    scaled = sum(1.5 * channels * side**2 for channels, side in ((12, 8), (24, 4), (96, 2)))
    expected = scaled * math.log(1 / (1 + math.exp(-2)) + 1e-4)
    np.testing.assert_allclose(log_det[0], expected, rtol=1e-5)


def test_released_size_has_the_released_parameters():
    shapes = jax.eval_shape(SRFlow().init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    unused = 96 * 320 * 9 + 96  # the authors' convolution that nothing applies
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 39_541_811 - unused


def test_build_model_makes_srflow():
    model = build_model({"name": "srflow", "features": 16, "stacked_blocks": (0, 2), "blocks": 3})
    assert model == SRFlow(features=16, stacked_blocks=(0, 2), blocks=3)
    assert MODELS["srflow"] is SRFlow


@pytest.mark.parametrize(
    ("model", "low", "message"),
    [
        (TINY, (1, 5, 4, 3), "height of low"),
        (TINY, (1, 4, 4), "low: expected shape"),
        (TINY.clone(scale=2), (1, 4, 4, 3), "SRFlow scale"),
        (TINY.clone(stacked_blocks=(0, 2)), (1, 4, 4, 3), "stacked_blocks"),
    ],
)
def test_srflow_refuses(model, low, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(low))


def test_draw_latents_depends_on_the_place_alone():
    draw = jax.jit(functools.partial(draw_latents, jax.random.key(3), heat=0.9))
    eps, z = draw(np.arange(6), np.arange(5))
    assert eps.shape == (24, 20, 6)
    assert z.shape == (6, 5, 96)
    eps_part, z_part = draw(2 + np.arange(3), 1 + np.arange(4))
    np.testing.assert_array_equal(eps_part, eps[8:20, 4:20])
    np.testing.assert_array_equal(z_part, z[2:5, 1:5])


def test_draw_latents_is_white_noise_of_the_heat():
    draw = jax.jit(functools.partial(draw_latents, jax.random.key(0), heat=0.9))
    noise = np.concatenate([np.ravel(latent) for latent in draw(np.arange(20), np.arange(20))])
    assert np.std(noise) == pytest.approx(0.9, rel=0.01)
    assert abs(np.mean(noise)) < 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size
