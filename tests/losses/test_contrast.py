"""The spatial contrastive loss against its definition in float64, the gradient against differences of it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr

from decloss_jax.checks import UserError
from decloss_jax.losses import similarity, strips
from decloss_jax.losses.contrast import PRECISIONS, contrast_terms, spatial_contrast, spatial_contrast_dense

FORMS = {"dense": spatial_contrast_dense, "strips": partial(spatial_contrast, tile_size=5)}
OPTIONS = {"threshold_db": 0.0, "t_pos": 0.5, "t_neg": 1.5}


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of a with each row of b; 0 where either is zero."""
    products = a @ b.T
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def oracle(
    sr: np.ndarray,
    hr: np.ndarray,
    *,
    threshold_db: float,
    t_pos: float,
    t_neg: float,
    max_value: float = 1.0,
    temperature: str = "exponent",
) -> float:
    """Eq. 18-23 anchor by anchor in float64, with the distance and the logarithm as printed."""
    sr, hr = np.asarray(sr, np.float64), np.asarray(hr, np.float64)

    def term(cosine: np.ndarray, t: float) -> np.ndarray:
        return np.exp(cosine / t) if temperature == "exponent" else np.exp(cosine) / t

    s_sr, s_hr = cosines(sr, sr), cosines(sr, hr)
    losses = []
    for i in range(len(sr)):
        with np.errstate(divide="ignore"):
            similarity_db = -20 * np.log10(np.linalg.norm(hr[i] - hr, axis=1) / max_value)
        positive = similarity_db >= threshold_db
        if positive.all():
            continue
        q_pos = (term(s_sr[i], t_pos) + 2 * term(s_hr[i], t_pos))[positive].sum()
        q_neg = (term(s_sr[i], t_neg) + 2 * term(s_hr[i], t_neg))[~positive].sum()
        losses.append(-np.log(q_pos / q_neg))
    return float(np.mean(losses)) if losses else 0.0


def terms(sr: np.ndarray, hr: np.ndarray, **options) -> tuple[jax.Array, dict[str, jax.Array]]:
    return jax.jit(partial(contrast_terms, **options))(sr, hr)


def value_and_gradient(
    form: Callable, sr: np.ndarray, hr: np.ndarray, **options
) -> tuple[jax.Array, jax.Array]:
    return jax.jit(jax.value_and_grad(partial(form, **options)))(sr, hr)


def central_differences(
    function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6
) -> np.ndarray:
    x = np.array(x, np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        middle = x[index]
        values = []
        for shift in (step, -step):
            x[index] = middle + shift
            values.append(function(x))
        x[index] = middle
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


def random_patches(seed: int, patches: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """SR and HR vectors with duplicates and zero vectors among them, lengths over a decade."""
    rng = np.random.default_rng(seed)
    lengths = 10.0 ** rng.uniform(-0.5, 0.5, (patches, 1))
    hr = lengths * rng.normal(size=(patches, depth)) + rng.normal(size=depth)
    sr = hr + 0.5 * rng.normal(size=hr.shape)
    for target in rng.choice(patches, patches // 4, replace=False):
        source = rng.integers(patches)
        hr[target] = hr[source]
    for array in (sr, hr):
        array[rng.choice(patches, patches // 5, replace=False)] = 0.0
    return sr.astype(np.float32), hr.astype(np.float32)


def threshold_between(hr: np.ndarray, share: float, max_value: float = 1.0) -> float:
    """A threshold in dB with about `share` of the pairs positive, in the middle of a gap of distances."""
    distances = np.linalg.norm(hr[:, None].astype(np.float64) - hr, axis=-1)
    distances = np.unique(distances[distances > 0].round(9))
    at = min(int(share * len(distances)), len(distances) - 2)
    wide = at + int(np.argmax(np.diff(distances[at : at + 8])))
    return float(-20 * np.log10((distances[wide] + distances[wide + 1]) / 2 / max_value))


CASES = [
    # patches, depth, tile_size, share of positives, other options
    (13, 5, 4, 0.3, {}),
    (13, 5, 1, 0.05, {"temperature": "scale"}),
    (16, 3, 8, 0.8, {"t_pos": 2.0, "t_neg": 0.25}),
    (11, 2, 64, 0.5, {"t_pos": 0.1, "t_neg": 0.1}),
    (7, 12, 3, 0.2, {"max_value": 255.0}),
    (9, 2, 5, 0.4, {"temperature": "scale", "t_pos": 3.0}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("form", ["dense", "strips"])
def test_spatial_contrast_equals_definition(form, case):
    patches, depth, tile_size, share, changes = case
    sr, hr = random_patches(patches, patches, depth)
    scale = np.float32(changes.get("max_value", 1.0))
    sr, hr = sr * scale, hr * scale
    options = {
        **OPTIONS,
        "threshold_db": threshold_between(hr, share, changes.get("max_value", 1.0)),
        **changes,
    }
    function = FORMS["dense"] if form == "dense" else partial(spatial_contrast, tile_size=tile_size)
    loss, gradient = value_and_gradient(function, sr, hr, **options)
    expected = central_differences(
        lambda x: oracle(x, hr, **options), sr, step=1e-6 * changes.get("max_value", 1.0)
    )
    expected[np.all(sr == 0, axis=1)] = 0  # the definition has no gradient there
    np.testing.assert_allclose(loss, oracle(sr, hr, **options), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-6 * np.abs(expected).max() + 1e-8)


def assert_equals_dense(sr: np.ndarray, hr: np.ndarray) -> None:
    options = {**OPTIONS, "threshold_db": threshold_between(hr, 0.3)}
    loss, gradient = value_and_gradient(spatial_contrast, sr, hr, **options)
    expected, expected_gradient = value_and_gradient(spatial_contrast_dense, sr, hr, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(
        gradient, expected_gradient, rtol=0, atol=2e-6 * np.abs(expected_gradient).max()
    )


def test_spatial_contrast_of_many_patches_equals_dense():
    """More than one strip of the size chosen for CPUs; the last one is padded."""
    assert_equals_dense(*random_patches(7, 2 * strips.CPU_TILE + 21, 6))


@pytest.mark.parametrize("anchors", [7, 100])
def test_form_for_accelerators_equals_dense(anchors, monkeypatch):
    """Strips of seven anchors or all of them, against all columns at once."""
    sr, hr = random_patches(8, 33, 6)
    monkeypatch.setattr(strips, "STRIP_BYTES", anchors * len(sr) * strips.PAIR_BYTES)
    monkeypatch.setattr(strips.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    assert_equals_dense(sr, hr)


def test_padding_adds_nothing_where_no_pair_is_similar():
    """Ten anchors in strips of four: the two padded places of the last strip have no positive."""
    hr = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    options = {**OPTIONS, "threshold_db": 200.0}
    loss, gradient = value_and_gradient(spatial_contrast, hr, hr, **options, tile_size=4)
    expected, expected_gradient = value_and_gradient(spatial_contrast_dense, hr, hr, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-6)


def test_spatial_contrast_value_alone_equals_value_with_gradient():
    """It does not compute the gradient either: three products (S_sr, S_hr, the mask) instead of six."""
    sr, hr = random_patches(9, 30, 6)
    form = partial(spatial_contrast, **OPTIONS, tile_size=8)
    alone = jax.jit(form).lower(sr, hr).compile()
    both = jax.jit(jax.value_and_grad(form)).lower(sr, hr).compile()
    np.testing.assert_allclose(alone(sr, hr), both(sr, hr)[0], rtol=1e-6)
    assert [program.as_text().count(" dot(") for program in (alone, both)] == [3, 6]


def test_compiled_loops_have_a_known_length():
    """Nothing depends on the data, so that a GPU never waits for the host."""
    sr, hr = random_patches(9, 30, 6)
    form = partial(spatial_contrast, **OPTIONS, tile_size=8)
    program = jax.jit(jax.value_and_grad(form)).lower(sr, hr).compile().as_text()
    loops = [line for line in program.splitlines() if " while(" in line]
    assert loops
    assert all('known_trip_count":{"n":"4"}' in loop for loop in loops)
    assert " conditional(" not in program


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_spatial_contrast_of_nan_is_nan(form):
    sr, hr = random_patches(9, 30, 6)
    assert np.isnan(form(jnp.asarray(sr).at[3, 2].set(np.nan), hr, **OPTIONS))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("patches", [1, 10])
def test_spatial_contrast_is_zero_without_negatives(form, patches):
    sr, hr = random_patches(1, patches, 6)
    loss, gradient = value_and_gradient(form, sr, hr, **{**OPTIONS, "threshold_db": -200.0})
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("tile_size", [4, None])
def test_contrast_terms_count_anchors_and_positives(tile_size):
    sr, hr = random_patches(2, 10, 6)
    _, shares = terms(sr, hr, **{**OPTIONS, "threshold_db": -200.0}, tile_size=tile_size)
    np.testing.assert_allclose((shares["anchors"], shares["positives"]), (0, 1), rtol=1e-6)
    _, shares = terms(sr[:1], hr[:1], **OPTIONS, tile_size=tile_size)
    assert (shares["anchors"], shares["positives"]) == (0, 1)
    distinct = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    _, shares = terms(sr, distinct, **{**OPTIONS, "threshold_db": 200.0}, tile_size=tile_size)
    np.testing.assert_allclose((shares["anchors"], shares["positives"]), (1, 0.1), rtol=1e-6)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_spatial_contrast_of_constant_patches_is_finite(form):
    flat = np.full((12, 48), 0.7, np.float32)
    loss, gradient = value_and_gradient(form, flat, flat, **OPTIONS)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_spatial_contrast_takes_tiny_vectors_for_zero(form):
    """Rounding noise has no direction: cosine 0, gradient 0. A vector a hundred times longer counts."""
    sr, hr = random_patches(3, 12, 8)
    sr[0] = similarity.ZERO_NORM / 100
    options = {**OPTIONS, "threshold_db": threshold_between(hr, 0.3)}
    loss, gradient = value_and_gradient(form, sr, hr, **options)
    assert not gradient[0].any()
    assert np.isfinite(gradient).all()
    zeroed = sr.copy()
    zeroed[0] = 0
    np.testing.assert_allclose(loss, oracle(zeroed, hr, **options), rtol=1e-6)
    sr[0] = similarity.ZERO_NORM * 100
    loss, gradient = value_and_gradient(form, sr, hr, **options)
    np.testing.assert_allclose(loss, oracle(sr, hr, **options), rtol=1e-6)
    assert gradient[0].any()


@pytest.mark.parametrize("depth", [3, 192, 768, 3072])
def test_mask_counts_duplicates_as_positive_at_any_threshold(depth):
    """Flat vectors round worst: the sum of D equal squares drifts in one direction."""
    values = np.linspace(-3.0, 3.0, 48) * np.random.default_rng(depth).uniform(1.0, 1.02, 48)
    hr = np.repeat(np.repeat(values, 2)[:, None], depth, axis=1).astype(np.float32)
    _, shares = terms(hr, hr, **{**OPTIONS, "threshold_db": 200.0}, tile_size=20)
    np.testing.assert_allclose(shares["positives"], 2 / 96, rtol=1e-6)


@pytest.mark.parametrize(
    ("depth", "length", "threshold_db", "distance"), [(192, 5.0, 40.0, 0.02), (768, 7.0, 25.0, 0.08)]
)
def test_mask_leaves_out_pairs_of_long_vectors_beyond_the_threshold(depth, length, threshold_db, distance):
    rng = np.random.default_rng(depth)
    directions = rng.normal(size=(2, 24, depth))
    there, step = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    hr = np.concatenate([length * there, length * there + distance * step]).astype(np.float32)
    _, shares = terms(hr, hr, **{**OPTIONS, "threshold_db": threshold_db}, tile_size=20)
    np.testing.assert_allclose(shares["positives"], 1 / 48, rtol=1e-6)


def test_mask_equals_float64_where_lengths_differ():
    """Lengths over three decades."""
    rng = np.random.default_rng(5)
    directions = rng.normal(size=(300, 4))
    hr = (10.0 ** rng.uniform(-3, 0, (300, 1)) * directions).astype(np.float32)
    sr = rng.normal(size=hr.shape).astype(np.float32)
    distances = np.linalg.norm(hr[:, None].astype(np.float64) - hr, axis=-1)
    for share in (0.1, 0.5):
        threshold = threshold_between(hr, share)
        options = {**OPTIONS, "threshold_db": threshold}
        loss, shares = terms(sr, hr, **options, tile_size=16)
        expected = np.mean(distances <= 10 ** (-threshold / 20))
        np.testing.assert_allclose(shares["positives"], expected, rtol=1e-6)
        np.testing.assert_allclose(loss, oracle(sr, hr, **options), rtol=1e-6)


def test_gradient_into_hr_is_zero():
    sr, hr = random_patches(5, 12, 6)
    options = {**OPTIONS, "threshold_db": threshold_between(hr, 0.3)}
    for form in FORMS.values():
        assert not jax.jit(jax.grad(partial(form, **options), argnums=1))(sr, hr).any()


def precisions_of_products(jaxpr: Jaxpr) -> tuple[list, list]:
    """Lists the precisions of the products whose result is compared (the mask's), and of the others."""
    compared = {var for eqn in jaxpr.eqns if eqn.primitive.name == "ge" for var in eqn.invars[:1]}
    of_mask, others = [], []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (of_mask if eqn.outvars[0] in compared else others).append(eqn.params["precision"])
        for inner in jax.tree.leaves(eqn.params):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                found = precisions_of_products(getattr(inner, "jaxpr", inner))
                of_mask, others = of_mask + found[0], others + found[1]
    return of_mask, others


@pytest.mark.parametrize("precision", ["high", "default", "bf16"])
def test_precision_is_that_of_all_products_but_the_masks(precision):
    """The program is inspected, because CPUs compute the same at any precision."""
    form = partial(spatial_contrast, **OPTIONS, tile_size=16, precision=precision)
    program = jax.make_jaxpr(jax.value_and_grad(form))(*random_patches(6, 40, 16))
    of_mask, others = precisions_of_products(program.jaxpr)
    chosen = PRECISIONS[precision]
    assert set(of_mask) == {(lax.Precision.HIGHEST, lax.Precision.HIGHEST)}
    assert set(others) in ({chosen}, {(chosen, chosen)})  # an algorithm, or one precision for each operand


def test_bfloat16_products_change_the_loss_little():
    sr, hr = random_patches(6, 40, 16)
    options = {**OPTIONS, "threshold_db": threshold_between(hr, 0.3), "tile_size": 16}
    exact, _ = terms(sr, hr, **options)
    loss, _ = terms(sr, hr, **options, precision="bf16")
    np.testing.assert_allclose(loss, exact, rtol=1e-2)


def temporaries(patches: int, depth: int) -> int:
    """Bytes that the compiled value and gradient need in addition to arguments and results."""
    shape = jax.ShapeDtypeStruct((patches, depth), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(partial(spatial_contrast, **OPTIONS))).lower(shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly():
    small, large = temporaries(4608, 48), temporaries(18_432, 48)
    assert large < 1.05 * 4 * small
    assert large < 18_432 * 18_432  # a quarter of one [P,P] matrix


@pytest.mark.parametrize(("patches", "depth", "mebibytes"), [(18_432, 192, 256), (73_728, 48, 512)])
def test_memory_of_the_papers_batch_is_bounded(patches, depth, mebibytes):
    assert temporaries(patches, depth) <= mebibytes * 2**20


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"temperature": "exponents"}, "nearest: exponent"),
        ({"t_pos": 0.0}, "t_pos"),
        ({"t_neg": -1.0}, "t_neg"),
        ({"t_neg": 0.01}, "at least 0.0143"),
        ({"max_value": 0.0}, "max_value"),
        ({"tile_size": 0}, "tile_size"),
        ({"precision": "low"}, "highest, high, default, bf16"),
    ],
)
def test_spatial_contrast_refuses(change, text):
    patches = jnp.zeros((4, 3))
    with pytest.raises(UserError, match=text):
        spatial_contrast(patches, patches, **{**OPTIONS, **change})


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3, 1), (4, 3, 1)), ((0, 3), (0, 3))])
def test_spatial_contrast_refuses_shapes(form, shapes):
    with pytest.raises(UserError, match="sr_patches"):
        form(jnp.zeros(shapes[0]), jnp.zeros(shapes[1]), **OPTIONS)
