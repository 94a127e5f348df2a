"""Faults of a kind, each with its right value: what a natural program gets must be true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal

# Ranges and certainties


@pytest.mark.parametrize("value", [255.0, -1.0, 1.5])
def test_a_bernoulli_refuses_what_is_no_share(value):
    with pytest.raises(ValueError, match=r"scale pixels to \[0, 1\], or binarise them"):
        Bernoulli(jnp.zeros(3)).log_prob(jnp.full(3, value))


@pytest.mark.parametrize(("logit", "sure"), [(jnp.inf, 1.0), (-jnp.inf, 0.0)])
def test_an_infinite_logit_is_a_certainty(logit, sure):
    logits, value = jnp.full(3, logit), jnp.full(3, sure)
    assert Bernoulli(logits).log_prob(value) == 0
    assert Bernoulli(logits).log_prob(1 - value) < -1e38
    assert np.isfinite(jax.grad(lambda v: Bernoulli(logits).log_prob(v))(value)).all()


@pytest.mark.parametrize(
    ("of", "against", "expected"),
    [
        (np.inf, np.inf, 0.0),
        (-np.inf, -np.inf, 0.0),
        (np.inf, 0.0, np.log(2)),
        (-np.inf, 1.0, np.log1p(np.exp(1.0))),
    ],
)
def test_the_divergence_of_certainties_is_finite_where_it_is(of, against, expected):
    def divergence(logits, prior_logits):
        return vae_jax.kl_divergence(Bernoulli(logits), Bernoulli(prior_logits))

    arguments = jnp.array([of]), jnp.array([against])
    value, gradients = jax.value_and_grad(divergence, (0, 1))(*arguments)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    assert gradients[0] == 0  # a certainty is not moved


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_what_a_certainty_excludes_has_an_infinite_divergence(infinity):
    found = vae_jax.kl_divergence(Bernoulli(jnp.zeros(1)), Bernoulli(jnp.array([infinity])))
    assert found > 1e38


# Narrow numbers


def test_bfloat16_draws_have_their_frequency():
    """At logit 6 a zero comes 494.5 times in 200,000; sigmoid(6) in bfloat16 is 1."""
    drawn = vae_jax.sample(jax.random.key(0), Bernoulli(jnp.full(1, 6.0, jnp.bfloat16)), 200_000)
    zeros = int((drawn == 0).sum())
    assert stats.binomtest(zeros, 200_000, 1 / (1 + np.exp(6.0))).pvalue > 1e-3


@pytest.mark.parametrize(("dtype", "num"), [("uint8", 256), ("int8", 200)])
def test_uniform_classes_in_narrow_integers(dtype, num):
    values = jnp.arange(100).astype(dtype)
    np.testing.assert_allclose(Categorical(jnp.zeros((100, num))).log_prob(values), -np.log(num))


# Shapes


def test_parts_that_would_broadcast_by_luck():
    joint = Joint((Categorical(jnp.zeros((3, 4))), Categorical(jnp.zeros((3, 1, 4)))))
    with pytest.raises(ValueError, match=r"parts of a Joint have batches \(3,\) and \(3, 1\)"):
        joint.log_prob((jnp.zeros(3, int), jnp.zeros((3, 1), int)))


def test_scores_that_would_broadcast_by_luck():
    with pytest.raises(ValueError, match=r"value has shape \(3,\) but log_prob has shape \(3, 1\)"):
        vae_jax.score_function(jnp.zeros(3), jnp.zeros((3, 1)))


def grid_members():
    """[1, K, ...] of each family, a value [S, 1, ...], and SciPy's word for each under each."""
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(1, 10, 2)), np.exp(rng.normal(size=(1, 10, 2)))
    real, logits = rng.normal(size=(64, 1, 2)), rng.normal(size=(1, 10, 2))
    bits, one = (real > 0).astype(float), logits[..., 0]
    probability = special.expit(logits)
    return {
        "Normal": (Normal, (mean, scale), real, stats.norm(mean, scale).logpdf(real).sum(-1)),
        "MultivariateNormal": (
            MultivariateNormal,
            (mean, scale[..., None] * np.eye(2)),
            real,
            stats.norm(mean, scale).logpdf(real).sum(-1),
        ),
        "Bernoulli": (
            Bernoulli,
            (logits,),
            bits,
            stats.bernoulli(probability).logpmf(bits).sum(-1),
        ),
        "Categorical": (
            Categorical,
            (np.stack([np.zeros_like(one), one], -1),),
            bits[..., 0].astype(int),
            stats.bernoulli(special.expit(one)).logpmf(bits[..., 0]),
        ),
    }


@pytest.mark.parametrize("name", grid_members())
def test_each_value_under_each_distribution_where_both_ask_for_it(name):
    make, parameters, value, expected = grid_members()[name]
    distribution = make(*(jnp.asarray(p, jnp.float32) for p in parameters))
    value = jnp.asarray(value, jnp.int32 if value.dtype.kind == "i" else jnp.float32)
    found = jax.jit(lambda d, v: d.log_prob(v))(distribution, value)
    assert found.shape == expected.shape == (64, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        ((10, 8), (1, 8)),  # a batch of 1 for one of 10
        ((1, 8), (10, 8)),
        ((10, 8), (64, 1, 8)),  # by the value alone
        ((1, 10, 8), (64, 1, 1)),  # a part of an event
        ((1, 10, 1), (64, 1, 8)),
        ((1, 10, 8), (64, 2, 8)),
    ],
)
def test_one_side_alone_does_not_stretch_an_axis(of, value):
    with pytest.raises(ValueError, match=r"each under each: \[S, 1, \*event\] and"):
        Normal(jnp.zeros(of), 1.0).log_prob(jnp.zeros(value))


def test_numpy_integers_are_shapes():
    draws = vae_jax.sample(jax.random.key(0), Normal(jnp.zeros(2), 1.0), np.int64(3))
    assert draws.shape == (3, 2)
    draws = vae_jax.sample(jax.random.key(0), Normal(jnp.zeros(2), 1.0), (np.int32(3), 4))
    assert draws.shape == (3, 4, 2)


# Types


def test_a_subclass_has_the_divergence_of_its_family():
    class Mine(Normal):
        pass

    p, q = (jnp.array([0.5, -1.0]), jnp.array([0.3, 2.0])), (jnp.zeros(2), jnp.ones(2))
    expected = vae_jax.kl_divergence(Normal(*p), Normal(*q))
    assert vae_jax.kl_divergence(Mine(*p), Normal(*q)) == expected
    assert vae_jax.kl_divergence(Normal(*p), Mine(*q)) == expected


def test_distributions_can_be_compared():
    one, other = Normal(jnp.zeros(2), 1.0), Normal(jnp.zeros(2), 1.0)
    assert one == one
    assert (one == other) in (True, False)
    assert len({one, other}) == 2


# Distributions of one's own


class Laplace:
    """log_prob alone, of the standard Laplace over a last axis."""

    def log_prob(self, value):
        return -(jnp.abs(value) + np.log(2)).sum(-1)


class Ours(Laplace):
    shape, event_ndims = (4, 2), 1


class Theirs(Laplace):
    batch_shape, event_shape = (4,), (2,)


@pytest.mark.parametrize("made", [Ours, Theirs])
def test_a_distribution_of_ones_own_is_scored(made):
    x, z = jnp.zeros((4, 3)), jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
    posterior, likelihood = Normal(jnp.zeros((4, 2)), 1.0), Normal(x, 1.0)
    found = vae_jax.elbo(x, z, posterior, made(), likelihood, analytic_kl=False).kl
    z = np.asarray(z, np.float64)
    expected = (stats.norm.logpdf(z) - stats.laplace.logpdf(z)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "missing"),
    [
        ({"shape": (4, 2)}, "event_ndims"),
        ({"event_ndims": 1}, "shape"),
        ({"batch_shape": (4,)}, "event_shape"),
        ({"event_shape": (2,)}, "batch_shape"),
        ({}, "shape, event_ndims"),
        ({"shape": (4, 2), "event_ndims": 1, "log_prob": None}, "log_prob"),
        ({"batch_shape": (4,), "log_prob": None}, "event_shape, log_prob"),
    ],
)
@pytest.mark.parametrize("place", ["posterior", "prior", "likelihood"])
def test_what_a_distribution_of_ones_own_lacks_is_named(place, attributes, missing):
    lacking = type("Mine", (Laplace,), attributes)()
    of = {name: Normal(jnp.zeros((4, 2)), 1.0) for name in ("posterior", "prior", "likelihood")}
    with pytest.raises(TypeError, match=rf"^Mine lacks {missing}: a distribution has log_prob"):
        vae_jax.elbo(jnp.zeros((4, 2)), jnp.zeros((4, 2)), **of | {place: lacking})


# Memory and time


def test_one_factor_scores_many_values_without_copies():
    """15 MB of values; a factor for each would be 1 GB."""
    distribution = MultivariateNormal(jnp.zeros(64), jnp.eye(64))
    values = jnp.asarray(np.random.default_rng(0).normal(size=(60_000, 64)), jnp.float32)
    compiled = jax.jit(distribution.log_prob).lower(values).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * values.nbytes
    expected = stats.norm.logpdf(np.asarray(values, np.float64)).sum(axis=1)
    np.testing.assert_allclose(compiled(values), expected, rtol=1e-5)


def test_a_batch_of_factors_scores_many_draws_without_copies():
    """6 MB of draws and 0.8 MB of factors; a factor for each draw would be 400 MB."""
    rng = np.random.default_rng(0)
    factor = np.tril(0.1 * rng.normal(size=(50, 64, 64))) + np.eye(64)
    mean, values = rng.normal(size=(50, 64)), rng.normal(size=(500, 50, 64))
    distribution = MultivariateNormal(*(jnp.asarray(a, jnp.float32) for a in (mean, factor)))
    given = jnp.asarray(values, jnp.float32)
    compiled = jax.jit(distribution.log_prob).lower(given).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * given.nbytes
    found = compiled(given)
    for b in (0, 17, 49):
        exact = stats.multivariate_normal(mean[b], factor[b] @ factor[b].T)
        np.testing.assert_allclose(found[:, b], exact.logpdf(values[:, b]), rtol=1e-4)


def test_a_diagonal_prior_takes_no_solve():
    draws = np.random.default_rng(0).normal(size=(50, 8, 8))
    factor = jnp.asarray(np.tril(0.1 * draws) + np.eye(8), jnp.float32)
    posterior = MultivariateNormal(jnp.ones((50, 8)), factor)
    scale = jnp.linspace(0.5, 2.0, 8)
    prior = Normal(jnp.zeros(8), scale)
    program = jax.jit(vae_jax.kl_divergence).lower(posterior, prior).as_text()
    assert "triangular" not in program
    full = MultivariateNormal(jnp.zeros(8), jnp.diag(scale))
    np.testing.assert_allclose(
        vae_jax.kl_divergence(posterior, prior), vae_jax.kl_divergence(posterior, full), rtol=1e-5
    )


# A closed form that is not the KL: linear Gaussian hierarchies, whose joints are Gaussians


def gaussian(order, weights, scales):
    """Mean and covariance of (z1, z2, z3) where each is weight * the one before it + noise."""
    num = len(order)
    transform = np.zeros((num, num))
    for i, layer in enumerate(order):
        transform[layer, layer] = scales[i]
        if i:
            transform[layer] += weights[i] * transform[order[i - 1]]
    return transform @ transform.T


def exact_kl(q, p):
    num = len(q)
    trace = np.trace(np.linalg.solve(p, q))
    return 0.5 * (trace - num + np.linalg.slogdet(p)[1] - np.linalg.slogdet(q)[1])


def drawn(key, order, weights, scales, num):
    """Draws (z1, z2, ...) [num, 1] and the distribution that each was drawn from."""
    z, parts = {}, {}
    for i, layer in enumerate(order):
        mean = weights[i] * z[order[i - 1]] if i else jnp.zeros((num, 1))
        parts[layer] = Normal(mean, jnp.full((num, 1), scales[i]))
        z[layer] = vae_jax.sample(jax.random.fold_in(key, i), parts[layer])
    return z, parts


def at(z, order, weights, scales):
    """The same factors of another hierarchy, at given draws."""
    return {
        layer: Normal(
            weights[i] * z[order[i - 1]] if i else jnp.zeros_like(z[layer]),
            jnp.full(z[layer].shape, scales[i]),
        )
        for i, layer in enumerate(order)
    }


@pytest.mark.parametrize("num_layers", [2, 3])
@pytest.mark.parametrize("bottom_up", [True, False], ids=["bottom-up", "top-down, a ladder"])
def test_the_kl_of_a_hierarchy_is_the_truth_in_either_order(num_layers, bottom_up):
    layers = list(range(num_layers))
    q_order = layers if bottom_up else layers[::-1]
    q_of = ((0.0, 0.9, 0.7), (0.6, 0.5, 0.4))
    p_order, p_of = layers[::-1], ((0.0, 0.8, 0.6), (1.0, 0.7, 0.5))
    truth = exact_kl(gaussian(q_order, *q_of), gaussian(p_order, *p_of))
    num = 100_000
    z, q = drawn(jax.random.key(0), q_order, *q_of, num)
    p = at(z, p_order, *p_of)
    order = p_order  # as a program lists them: from the top
    ancestral = not bottom_up
    posterior, prior = (Joint(tuple(of[i] for i in order), ancestral=ancestral) for of in (q, p))
    x = jnp.zeros((num, 1))
    bound = vae_jax.elbo(x, tuple(z[i] for i in order), posterior, prior, Normal(x, 1.0))
    error = np.asarray(bound.kl).std() / np.sqrt(num)
    assert abs(float(bound.kl.mean()) - truth) < 5 * error
    if bottom_up:  # what the sum of closed forms would say
        wrong = Joint(posterior.parts, ancestral=True), Joint(prior.parts, ancestral=True)
        closed = vae_jax.elbo(x, tuple(z[i] for i in order), *wrong, Normal(x, 1.0)).kl
        assert abs(float(closed.mean()) - truth) > 20 * error


UNSAID = Joint((Normal(jnp.zeros(1), 1.0), Normal(jnp.ones(1), 1.0)))
SAID = Joint(UNSAID.parts, ancestral=True)
NESTED = Joint((UNSAID,), ancestral=True)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [(UNSAID, UNSAID), (UNSAID, SAID), (SAID, UNSAID), (NESTED, NESTED)],
    ids=["neither", "prior alone", "posterior alone", "nested"],
)
def test_no_closed_form_of_joints_whose_order_is_not_said(posterior, prior):
    with pytest.raises(TypeError, match=r"not ancestral: .* Estimate it from the draws with elbo"):
        vae_jax.kl_divergence(posterior, prior)


def test_a_nested_joint_whose_order_is_not_said_is_estimated():
    z = (jnp.array([0.3]), jnp.array([-0.7]))
    shifted = Joint(tuple(Normal(part.mean + 1, 2.0) for part in UNSAID.parts))
    x = jnp.zeros(1)
    prior = Joint((shifted,), ancestral=True)
    found = vae_jax.elbo(x, (z,), NESTED, prior, Normal(x, 1.0)).kl
    expected = sum(
        stats.norm.logpdf(v, mean, 1.0) - stats.norm.logpdf(v, mean + 1, 2.0)
        for v, mean in zip((0.3, -0.7), (0.0, 1.0), strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# Near each other


def near_pairs(step):
    """Two members of each family, `step` apart, in float32 and as NumPy's float64 has them."""
    key = jax.random.key(5)
    mean, log_scale = 0.1 * jax.random.normal(key, (2, 3))
    scale = jnp.exp(log_scale)
    moved = scale * (1 + step * jnp.array([1.0, -0.5, 0.3]))
    yield Normal(mean, moved), Normal(mean, scale)
    below = jnp.array([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0], [-0.3, 0.2, 0.0]])
    yield (
        MultivariateNormal(mean, below * (1 + step) + jnp.diag(moved)),
        MultivariateNormal(mean, below + jnp.diag(scale)),
    )
    yield MultivariateNormal(mean, step * below + jnp.diag(moved)), Normal(mean, scale)
    logits = jnp.array([0.3, -1.2, 2.0, -0.7])
    moves = step * jnp.array([1.0, -0.6, 0.4, 0.2])
    yield Bernoulli(logits + moves), Bernoulli(logits)
    yield Categorical(logits + moves), Categorical(logits)


def divergence_in_float64(p, q):
    match p:
        case Bernoulli() | Categorical():
            a, b = (np.asarray(d.logits, np.float64) for d in (p, q))
            if isinstance(p, Bernoulli):  # two classes each
                a, b = (np.stack([np.zeros_like(v), v]) for v in (a, b))
            else:
                a, b = a[:, None], b[:, None]
            a, b = special.log_softmax(a, 0), special.log_softmax(b, 0)
            return (np.exp(a) * (a - b)).sum()
    factors = [
        np.asarray(d.scale_tril if isinstance(d, MultivariateNormal) else jnp.diag(d.scale))
        for d in (p, q)
    ]
    s, t = (factor.astype(np.float64) @ factor.astype(np.float64).T for factor in factors)
    ratio = np.linalg.solve(t, s)
    return 0.5 * (np.trace(ratio) - len(s) - np.linalg.slogdet(ratio)[1])


@pytest.mark.parametrize("step", [0.3, 1e-2, 1e-3])
def test_the_divergence_of_near_distributions_keeps_its_digits(step):
    for p, q in near_pairs(step):
        expected = divergence_in_float64(p, q)
        found = vae_jax.kl_divergence(p, q)
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=str(type(p)))


def test_the_divergence_from_itself_is_0():
    for p, _ in near_pairs(0.0):
        assert vae_jax.kl_divergence(p, p) == 0


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 0.4, 0.6, 1.4, 1.6, 1e6])
def test_the_divergence_of_normals_of_very_different_scales(scale):
    expected = 0.5 * (np.float64(scale) ** 2 - 1) - np.log(np.float64(scale))
    for p in (Normal(jnp.zeros(1), jnp.full(1, scale)), diagonal_factor(scale)):
        value, gradient = jax.value_and_grad(
            lambda p: vae_jax.kl_divergence(p, Normal(jnp.zeros(1), jnp.ones(1)))
        )(p)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        slope = gradient.scale if isinstance(p, Normal) else gradient.scale_tril
        np.testing.assert_allclose(slope.item(), scale - 1 / scale, rtol=1e-6)


def diagonal_factor(scale):
    return MultivariateNormal(jnp.zeros(1), jnp.full((1, 1), scale))


@pytest.mark.parametrize("value", [-0.001, 1.001, 255.0])
def test_a_traced_value_that_no_bernoulli_has_is_not_a_number(value):
    values = jnp.array([[0.0, 1.0, 0.5], [0.0, value, 0.5]])
    found = jax.jit(Bernoulli(jnp.zeros(3)).log_prob)(values)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
