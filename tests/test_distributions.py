"""Densities, draws and divergences against SciPy, NumPy's linear algebra and quadrature."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, optimize, special, stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal

NUM_DRAWS = 2000


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cholesky(seed, *shape):
    """Well-conditioned lower factors [*b, D, D]."""
    factor = 0.4 * noise(seed, *shape)
    return np.tril(factor, -1) + np.exp(factor) * np.eye(shape[-1], dtype=np.float32)


def covariance(distribution):
    if isinstance(distribution, Normal):
        scale = np.asarray(distribution.scale, np.float64)
        return np.square(scale)[..., None] * np.eye(scale.shape[-1])
    factor = np.asarray(distribution.scale_tril, np.float64)
    return factor @ factor.swapaxes(-1, -2)


def within_standard_errors(draws, expected, num=4):
    """Whether the mean over the first axis is within `num` standard errors of what is expected."""
    draws = np.asarray(draws, np.float64)
    error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
    return np.all(np.abs(draws.mean(axis=0) - expected) <= num * error)


GAUSSIANS = {
    "diagonal": lambda seed: Normal(noise(seed, 4, 3), np.exp(0.5 * noise(seed + 1, 4, 3))),
    "full": lambda seed: MultivariateNormal(noise(seed, 4, 3), cholesky(seed + 1, 4, 3, 3)),
}
DISTRIBUTIONS = {
    **{name: make(0) for name, make in GAUSSIANS.items()},
    "image": Normal(noise(0, 4, 2, 3, 1), np.exp(noise(1, 4, 2, 3, 1)), event_ndims=3),
    "bernoulli": Bernoulli(3 * noise(0, 4, 3)),
    "categorical": Categorical(2 * noise(0, 4, 5)),
    "joint": Joint((GAUSSIANS["diagonal"](2), GAUSSIANS["full"](4))),
}
each_distribution = pytest.mark.parametrize(
    "distribution", DISTRIBUTIONS.values(), ids=list(DISTRIBUTIONS)
)
each_pair = pytest.mark.parametrize(("of", "against"), list(itertools.product(GAUSSIANS, repeat=2)))
eager_and_jitted = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])


# Densities


def test_normal_density():
    x, mean, scale = noise(0, 4, 3), noise(1, 4, 3), np.exp(noise(2, 4, 3))
    expected = stats.norm(mean, scale).logpdf(x).sum(-1)
    np.testing.assert_allclose(Normal(mean, scale).log_prob(x), expected, rtol=1e-5, atol=1e-5)


def test_normal_density_of_an_image_sums_its_three_axes():
    x, mean, scale = noise(0, 4, 2, 3, 1), noise(1, 4, 2, 3, 1), np.exp(noise(2, 4, 2, 3, 1))
    expected = stats.norm(mean, scale).logpdf(x).sum((1, 2, 3))
    actual = Normal(mean, scale, event_ndims=3).log_prob(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_multivariate_normal_density():
    x, distribution = noise(0, 4, 3), GAUSSIANS["full"](1)
    expected = [
        stats.multivariate_normal(m, c).logpdf(v)
        for v, m, c in zip(x, distribution.mean, covariance(distribution), strict=True)
    ]
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-5)


def test_bernoulli_density():
    logits = 3 * noise(0, 4, 50)
    x = (noise(1, 4, 50) > 0).astype(np.float32)
    expected = stats.bernoulli(special.expit(logits.astype(np.float64))).logpmf(x).sum(-1)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected, rtol=1e-5)


def test_bernoulli_density_of_a_grey_pixel_is_the_negative_cross_entropy():
    logits, x = 3 * noise(0, 4, 50), special.expit(noise(1, 4, 50))
    p = special.expit(logits.astype(np.float64))
    expected = (special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(-1)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected, rtol=1e-5)


def test_categorical_density():
    logits = 2 * noise(0, 4, 5)
    p = special.softmax(logits.astype(np.float64), axis=-1)
    p /= p.sum(-1, keepdims=True)
    for k in range(5):
        expected = stats.multinomial(1, p).logpmf(np.eye(5, dtype=int)[k])
        actual = Categorical(logits).log_prob(np.full(4, k))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("k", [-1, 3])
@eager_and_jitted
def test_a_class_out_of_range(jit, k):
    categorical = Categorical(np.array([0.1, 0.2, 0.7], np.float32))
    # A constant is known inside jit too.
    with pytest.raises(ValueError, match=rf"Categorical is {k} .* 3 classes: .* from 0 to 2"):
        jit(lambda offset: offset + categorical.log_prob(np.array([0, k])))(np.zeros(2))


@pytest.mark.parametrize("k", [-1, 0, 2, 3])
def test_a_class_that_is_traced_may_be_out_of_range(k):
    p = np.exp([0.1, 0.2, 0.7]) / np.exp([0.1, 0.2, 0.7]).sum()
    density = stats.rv_discrete(values=(range(3), p))
    log_prob = jax.jit(lambda logits, k: Categorical(logits).log_prob(k))
    logits = np.array([0.1, 0.2, 0.7], np.float32)
    np.testing.assert_allclose(log_prob(logits, k), density.logpmf(k), rtol=1e-5)
    assert np.isfinite(jax.grad(log_prob)(logits, k)).all()


def test_joint_density_is_the_sum_of_its_parts():
    parts = DISTRIBUTIONS["joint"].parts
    x = noise(0, 7, 4, 3), noise(1, 4, 3)
    expected = stats.norm(parts[0].mean, parts[0].scale).logpdf(x[0]).sum(-1) + [
        stats.multivariate_normal(m, c).logpdf(v)
        for v, m, c in zip(x[1], parts[1].mean, covariance(parts[1]), strict=True)
    ]
    np.testing.assert_allclose(vae_jax.log_prob(Joint(parts), x), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (7, 4, 3)], ids=str)
def test_leading_axes_broadcast(shape):
    x, mean, scale = noise(0, *shape), noise(1, 4, 3), np.exp(noise(2, 4, 3))
    expected = stats.norm(mean, scale).logpdf(x).sum(-1)
    np.testing.assert_allclose(Normal(mean, scale).log_prob(x), expected, rtol=1e-5)
    x, shared = noise(0, 7, 4, 3), GAUSSIANS["full"](1)
    shared = MultivariateNormal(shared.mean[0], shared.scale_tril[0])
    expected = stats.multivariate_normal(shared.mean, covariance(shared)).logpdf(x)
    np.testing.assert_allclose(shared.log_prob(x), expected, rtol=1e-5)


def test_gradient_of_density_is_the_finite_difference_of_scipy():
    x, mean, scale = noise(0, 3), noise(1, 3), np.exp(noise(2, 3))
    gradient = jax.grad(lambda d: d.log_prob(x))(Normal(mean, scale))
    for name, of in (
        ("mean", lambda mean: stats.norm(mean, scale).logpdf(x).sum()),
        ("scale", lambda scale: stats.norm(mean, scale).logpdf(x).sum()),
    ):
        at = {"mean": mean, "scale": scale}[name].astype(np.float64)
        expected = optimize.approx_fprime(at, of)
        np.testing.assert_allclose(getattr(gradient, name), expected, rtol=1e-3)


def test_bfloat16_parameters_lose_nothing_in_the_sum():
    logits = jnp.asarray(2 * noise(0, 4, 784), jnp.bfloat16)
    x = jnp.asarray(noise(1, 4, 784) > 0, jnp.bfloat16)
    actual = Bernoulli(logits).log_prob(x)
    expected = stats.bernoulli(special.expit(np.asarray(logits, np.float64))).logpmf(x).sum(-1)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


# Extremes


def test_bernoulli_at_extreme_logits():
    logits = jnp.array([-1e4, -1e4, -89.0, 0.0, 89.0, 1e4, 1e4])
    x = jnp.array([0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    expected = np.where(x == 1, special.log_expit(logits), special.log_expit(-logits))
    each = Bernoulli(logits, event_ndims=0)
    np.testing.assert_allclose(each.log_prob(x), expected, rtol=1e-6)
    np.testing.assert_allclose(Bernoulli(logits).log_prob(x), expected.sum(), rtol=1e-6)
    gradient = jax.grad(lambda d: d.log_prob(x))(Bernoulli(logits)).logits
    np.testing.assert_allclose(gradient, x - special.expit(logits), atol=1e-7)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 48, 784])
def test_bernoulli_normaliser_of_any_number_of_pixels(size):
    logits = 20 * noise(0, 4, size)
    expected = special.log_expit(-logits.astype(np.float64)).sum(-1)
    actual = Bernoulli(logits).log_prob(jnp.zeros((4, size)))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("logits", [1e4, -1e4])
@pytest.mark.parametrize("make", [Bernoulli, Categorical])
def test_divergence_at_extreme_logits_is_finite_with_finite_gradient(make, logits):
    def divergence(logits, other):
        return vae_jax.kl_divergence(make(logits), make(other))

    extreme = jnp.array([logits, 0.0, 1.0])
    for pair in ((extreme, jnp.zeros(3)), (jnp.zeros(3), extreme), (extreme, -extreme)):
        value, gradients = jax.value_and_grad(divergence, argnums=(0, 1))(*pair)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(g).all() for g in gradients)


def test_categorical_with_an_impossible_class():
    impossible = Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    possible = Categorical(jnp.zeros(3))
    p = [0.5, 0.5, 0.0]

    def divergence(logits):
        return vae_jax.kl_divergence(Categorical(logits), possible)

    value, gradient = jax.value_and_grad(divergence)(impossible.logits)
    np.testing.assert_allclose(value, stats.entropy(p, np.full(3, 1 / 3)), rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    assert vae_jax.kl_divergence(possible, impossible) == jnp.inf
    np.testing.assert_allclose(vae_jax.kl_divergence(impossible, impossible), 0, atol=1e-7)
    assert impossible.log_prob(jnp.array(2)) == -jnp.inf


# Draws


@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussian_draws_have_their_mean_and_covariance(name):
    distribution = GAUSSIANS[name](0)
    z = np.asarray(vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS), np.float64)
    centred = z - np.asarray(distribution.mean)
    assert within_standard_errors(centred, 0)
    products = centred[..., :, None] * centred[..., None, :]
    assert within_standard_errors(products, covariance(distribution))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_gaussian_draws_are_mean_plus_scale_times_noise(name):
    distribution = GAUSSIANS[name](0)
    key = jax.random.key(0)
    standard = np.asarray(jax.random.normal(jax.random.clone(key), (5, 4, 3)))
    scaled = {
        "diagonal": lambda: np.asarray(distribution.scale) * standard,
        "full": lambda: np.einsum("bij,sbj->sbi", distribution.scale_tril, standard),
    }[name]()
    actual = vae_jax.sample(key, distribution, 5)
    np.testing.assert_allclose(actual, np.asarray(distribution.mean) + scaled, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_draw_reaches_the_parameters():
    distribution = GAUSSIANS["diagonal"](0)
    z = vae_jax.sample(jax.random.key(0), distribution)
    gradient = jax.grad(lambda d: vae_jax.sample(jax.random.key(0), d).sum())(distribution)
    np.testing.assert_allclose(gradient.mean, np.ones((4, 3)))
    expected = (z - distribution.mean) / distribution.scale
    np.testing.assert_allclose(gradient.scale, expected, rtol=1e-4, atol=1e-5)


def test_what_stands_above_the_diagonal_is_ignored():
    lower = GAUSSIANS["full"](0)
    above = np.triu(np.full((3, 3), 9.0, np.float32), 1)
    full = dataclasses.replace(lower, scale_tril=np.asarray(lower.scale_tril) + above)
    standard = Normal(jnp.zeros(3), 1.0)
    for of in (
        lambda d: d.log_prob(noise(2, 4, 3)),
        lambda d: vae_jax.sample(jax.random.key(0), d),
        lambda d: vae_jax.kl_divergence(d, standard),
        lambda d: vae_jax.kl_divergence(GAUSSIANS["diagonal"](5), d),
    ):
        of = jax.jit(of)
        np.testing.assert_array_equal(of(full), of(lower))
        gradient = jax.jit(jax.grad(lambda d, of=of: of(d).sum()))(full)
        assert not np.triu(gradient.scale_tril, 1).any()


def test_bernoulli_draws_have_their_frequency():
    distribution = DISTRIBUTIONS["bernoulli"]
    x = vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert within_standard_errors(x, special.expit(distribution.logits))
    np.testing.assert_allclose(distribution.mean, special.expit(distribution.logits), rtol=1e-6)


def test_categorical_draws_have_their_frequency():
    distribution = DISTRIBUTIONS["categorical"]
    x = vae_jax.sample(jax.random.key(0), distribution, NUM_DRAWS)
    one_hot = np.asarray(x)[..., None] == np.arange(5)
    assert within_standard_errors(one_hot, special.softmax(distribution.logits, axis=-1))


def test_joint_draws_its_parts_independently():
    joint = Joint((Normal(jnp.zeros(3), 1.0), Normal(jnp.zeros(3), 1.0)))
    first, second = vae_jax.sample(jax.random.key(0), joint, NUM_DRAWS)
    assert within_standard_errors(first * second, 0)


@pytest.mark.parametrize(
    ("sample_shape", "leading"), [((), ()), (5, (5,)), ((2, 5), (2, 5))], ids=str
)
@each_distribution
def test_shapes_of_draws_and_densities(distribution, sample_shape, leading):
    def draw_and_density(key):
        draws = vae_jax.sample(key, distribution, sample_shape)
        return draws, distribution.log_prob(draws)

    draws, density = jax.eval_shape(draw_and_density, jax.random.key(0))
    if isinstance(distribution, Joint):
        assert [z.shape for z in draws] == [(*leading, 4, 3), (*leading, 4, 3)]
    else:
        assert draws.shape == (*leading, *distribution.shape)
    assert density.shape == (*leading, 4)


# Divergences


@each_pair
def test_gaussian_divergence_is_the_formula(of, against):
    posterior, prior = GAUSSIANS[of](0), GAUSSIANS[against](10)
    s, t = covariance(posterior), covariance(prior)
    shift = (np.asarray(prior.mean) - np.asarray(posterior.mean)).astype(np.float64)
    expected = 0.5 * (
        np.trace(np.linalg.solve(t, s), axis1=-2, axis2=-1)
        + np.einsum("bi,bi->b", shift, np.linalg.solve(t, shift[..., None])[..., 0])
        - 3
        + np.linalg.slogdet(t)[1]
        - np.linalg.slogdet(s)[1]
    )
    np.testing.assert_allclose(vae_jax.kl_divergence(posterior, prior), expected, rtol=1e-4)


@each_pair
def test_gaussian_divergence_is_the_mean_log_ratio(of, against):
    posterior, prior = GAUSSIANS[of](0), GAUSSIANS[against](10)
    z = np.asarray(vae_jax.sample(jax.random.key(0), posterior, NUM_DRAWS), np.float64)

    def log_density(distribution):
        parts = zip(np.asarray(distribution.mean), covariance(distribution), strict=True)
        return np.stack(
            [stats.multivariate_normal(m, c).logpdf(z[:, i]) for i, (m, c) in enumerate(parts)], -1
        )

    log_ratio = log_density(posterior) - log_density(prior)
    assert within_standard_errors(log_ratio, vae_jax.kl_divergence(posterior, prior))


@each_pair
def test_gaussian_divergence_is_the_integral(of, against):
    one = {
        "diagonal": lambda m, s: Normal(jnp.array([m]), s),
        "full": lambda m, s: MultivariateNormal(jnp.array([m]), jnp.array([[s]])),
    }
    for p, q in (((0.3, 0.7), (0.0, 1.0)), ((-1.0, 2.0), (0.5, 0.9))):
        log_p, log_q = stats.norm(*p).logpdf, stats.norm(*q).logpdf
        expected, _ = integrate.quad(
            lambda z, p=log_p, q=log_q: np.exp(p(z)) * (p(z) - q(z)), -25, 25, points=[p[0]]
        )
        actual = vae_jax.kl_divergence(one[of](*p), one[against](*q))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@each_pair
def test_gradient_of_gaussian_divergence_is_its_finite_difference(of, against):
    check_grads(
        lambda p, q: vae_jax.kl_divergence(p, q).sum(),
        (GAUSSIANS[of](0), GAUSSIANS[against](10)),
        order=1,
        modes=["rev"],
        rtol=1e-2,
        atol=1e-2,
    )


@each_pair
def test_prior_without_batch_axes_stands_for_every_example(of, against):
    posterior = GAUSSIANS[of](0)
    shared = jax.tree.map(lambda a: a[0], GAUSSIANS[against](10))
    repeated = jax.tree.map(lambda a: jnp.stack([a] * 4), shared)
    actual = vae_jax.kl_divergence(posterior, shared)
    assert actual.shape == (4,)
    np.testing.assert_allclose(actual, vae_jax.kl_divergence(posterior, repeated), rtol=1e-6)


def test_bernoulli_divergence():
    logits, prior_logits = 3 * noise(0, 4, 50), 3 * noise(1, 4, 50)
    p, q = (special.expit(a.astype(np.float64)) for a in (logits, prior_logits))
    expected = (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)).sum(-1)
    actual = vae_jax.kl_divergence(Bernoulli(logits), Bernoulli(prior_logits))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    shared = vae_jax.kl_divergence(Bernoulli(logits), Bernoulli(prior_logits[0]))
    expected = (special.rel_entr(p, q[0]) + special.rel_entr(1 - p, 1 - q[0])).sum(-1)
    np.testing.assert_allclose(shared, expected, rtol=1e-5)


def test_categorical_divergence():
    logits, prior_logits = 2 * noise(0, 4, 5), 2 * noise(1, 4, 5)
    p, q = (special.softmax(a.astype(np.float64), axis=-1) for a in (logits, prior_logits))
    actual = vae_jax.kl_divergence(Categorical(logits), Categorical(prior_logits))
    np.testing.assert_allclose(actual, stats.entropy(p, q, axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (DISTRIBUTIONS["bernoulli"], Bernoulli(noise(9, 3))),
        (DISTRIBUTIONS["categorical"], Categorical(noise(9, 5))),
        (DISTRIBUTIONS["image"], Normal(jnp.zeros((2, 3, 1)), 1.0, event_ndims=3)),
        (
            DISTRIBUTIONS["joint"],
            Joint((Normal(jnp.zeros(3), 1.0), Normal(jnp.zeros(3), 2.0))),
        ),
    ],
    ids=["bernoulli", "categorical", "image", "joint"],
)
def test_divergence_is_the_mean_log_ratio_of_the_densities(posterior, prior):
    # The densities are checked against SciPy above.
    x = vae_jax.sample(jax.random.key(0), posterior, NUM_DRAWS)
    log_ratio = posterior.log_prob(x) - prior.log_prob(x)
    assert within_standard_errors(log_ratio, vae_jax.kl_divergence(posterior, prior))


@each_distribution
def test_divergence_from_itself_is_zero(distribution):
    np.testing.assert_allclose(vae_jax.kl_divergence(distribution, distribution), 0, atol=1e-5)


# Pytrees


def total_log_prob(distribution, value):
    return distribution.log_prob(value).sum()


@each_distribution
def test_crosses_jit_and_checkpoint(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    expected = distribution.log_prob(x)
    for transform in (jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))):
        same, actual = transform(lambda d, x: (d, d.log_prob(x)))(distribution, x)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
        assert type(same) is type(distribution)
        jax.tree.map(np.testing.assert_array_equal, same, distribution)


@each_distribution
def test_crosses_vmap_and_scan(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    expected = distribution.log_prob(x)
    np.testing.assert_allclose(
        jax.vmap(lambda d, x: d.log_prob(x))(distribution, x), expected, rtol=1e-5
    )
    carried, scanned = jax.lax.scan(
        lambda d, row: (d, row[0].log_prob(row[1])), distribution, (distribution, x)
    )
    np.testing.assert_allclose(scanned, expected, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, carried, distribution)


@each_distribution
def test_crosses_grad(distribution):
    x = vae_jax.sample(jax.random.key(0), distribution)
    gradient = jax.jit(jax.grad(total_log_prob))(distribution, x)
    assert jax.tree.structure(gradient) == jax.tree.structure(distribution)
    remat = jax.grad(jax.checkpoint(total_log_prob))(distribution, x)
    for g, r in zip(jax.tree.leaves(gradient), jax.tree.leaves(remat), strict=True):
        assert jnp.isfinite(g).all()
        np.testing.assert_allclose(g, r, rtol=1e-4, atol=1e-5)


@each_distribution
@pytest.mark.parametrize(
    "leaf", [None, object(), "sharding", -1.0], ids=lambda leaf: type(leaf).__name__
)
def test_carries_any_leaf(distribution, leaf):
    strange = jax.tree.map(lambda _: leaf, distribution)
    assert type(strange) is type(distribution)
    leaves, structure = jax.tree.flatten(strange, is_leaf=lambda x: x is leaf)
    assert all(x is leaf for x in leaves)
    again = jax.tree.unflatten(structure, leaves)
    assert jax.tree.structure(again) == jax.tree.structure(strange)


def test_leaves_are_named_and_event_ndims_is_static():
    paths = jax.tree_util.tree_leaves_with_path(DISTRIBUTIONS["image"])
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".mean", ".scale"]
    assert jax.jit(lambda d: d)(DISTRIBUTIONS["image"]).event_ndims == 3


@each_distribution
def test_is_frozen(distribution):
    name = dataclasses.fields(distribution)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(distribution, name, None)


def test_constants_known_while_tracing():
    constant = jnp.full(3, 2.0)  # concrete, where all around it is traced

    def density(mean):
        return Normal(mean, constant).log_prob(mean)

    expected = stats.norm(0, 2).logpdf(0) * 3
    np.testing.assert_allclose(jax.jit(density)(jnp.zeros(3)), expected, rtol=1e-6)
    _, scanned = jax.lax.scan(
        lambda c, _: (c, Normal(constant, constant).log_prob(constant)), 0, jnp.arange(2)
    )
    np.testing.assert_allclose(scanned, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"scale .*0\.0.*: it must be positive"):
        jax.jit(lambda mean: Normal(mean, 0.0))(jnp.zeros(3))


# Bad input


@eager_and_jitted
@pytest.mark.parametrize(
    ("of", "arguments", "message"),
    [
        (
            Normal,
            (np.zeros((4, 3)), np.ones((4, 2))),
            r"mean has shape \(4, 3\) but scale has shape \(4, 2\): give",
        ),
        (
            MultivariateNormal,
            (np.zeros((4, 3)), np.ones((3, 3))),
            r"mean has shape \(4, 3\) but scale_tril has shape \(3, 3\): they must be",
        ),
        (
            lambda a: Bernoulli(a, event_ndims=3),
            (np.zeros((4, 3)),),
            r"shape \(4, 3\) cannot have 3 event axes: add axes",
        ),
        (
            lambda a, x: Normal(a, 1.0).log_prob(x),
            (np.zeros((4, 3)), np.zeros((4, 1))),
            r"value has shape \(4, 1\) but Normal has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: Normal(a, 1.0, event_ndims=2).log_prob(x),
            (np.zeros((4, 3)), np.zeros(3)),
            r"value has shape \(3,\) but Normal has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: Bernoulli(a).log_prob(x),
            (np.zeros((4, 3)), np.zeros((3, 3))),
            r"value has shape \(3, 3\) but Bernoulli has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: MultivariateNormal(a, jnp.eye(3)).log_prob(x),
            (np.zeros(3), np.zeros(2)),
            r"value has shape \(2,\) but MultivariateNormal has .*shape \(3,\)",
        ),
        (
            lambda a: Categorical(a).log_prob(jnp.zeros((4, 1), int)),
            (np.zeros((4, 3)),),
            r"value has shape \(4, 1\) but Categorical has .*shape \(4,\)",
        ),
        (
            lambda a: Joint((Bernoulli(a), Bernoulli(a))).log_prob((a,)),
            (np.zeros(3),),
            r"1 values for a Joint of 2 parts: pass one for each",
        ),
        (
            lambda a, b: vae_jax.kl_divergence(Normal(a, 1.0), Normal(b, 1.0)),
            (np.zeros((4, 3)), np.zeros((4, 2))),
            r"posterior has shape \(4, 3\) .* prior has shape \(4, 2\) .*must match",
        ),
        (
            lambda a, b: vae_jax.kl_divergence(
                Normal(a, 1.0, event_ndims=2), MultivariateNormal(b, jnp.eye(3))
            ),
            (np.zeros((4, 3)), np.zeros(3)),
            r"a Normal with 2 event axes beside a MultivariateNormal.*: flatten the event",
        ),
        (
            lambda a: vae_jax.kl_divergence(Joint((Bernoulli(a),)), Joint(())),
            (np.zeros(3),),
            r"posterior is a Joint of 1 parts but prior of 0: give each part its counterpart",
        ),
    ],
)
def test_shapes_that_do_not_match(jit, of, arguments, message):
    arguments = [a.astype(np.float32) for a in arguments]
    with pytest.raises(ValueError, match=message):
        jit(lambda *arrays: jax.tree.leaves(of(*arrays)))(*arguments)


@eager_and_jitted
@pytest.mark.parametrize(
    ("of", "dtype", "message"),
    [
        (lambda a: Normal(a, 1.0), "int32", "mean has dtype int32: pass a floating-point array"),
        (lambda a: Normal(jnp.zeros(3), a), "int32", "scale has dtype int32"),
        (Bernoulli, "uint8", "logits has dtype uint8: pass a floating-point array"),
        (
            lambda a: Bernoulli(jnp.zeros(3)).log_prob(a),
            "uint8",
            "value of a Bernoulli has dtype uint8: pass .*floats",
        ),
        (
            lambda a: Categorical(jnp.zeros((3, 5))).log_prob(a),
            "float32",
            "value of a Categorical has dtype float32: pass integers",
        ),
        (
            lambda a: vae_jax.kl_divergence(Normal(a, 1.0), Bernoulli(a)),
            "float32",
            r"no closed form is known for KL\(Normal \|\| Bernoulli\): .*analytic_kl=False",
        ),
    ],
)
def test_types_that_do_not_match(jit, of, dtype, message):
    with pytest.raises(TypeError, match=message):
        jit(lambda a: jax.tree.leaves(of(a)))(np.ones(3, dtype))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_known_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=f"scale .*{scale}.*: it must be positive"):
        Normal(jnp.zeros(3), scale)
    with pytest.raises(ValueError, match=r"the diagonal of scale_tril .*: it must be positive"):
        MultivariateNormal(jnp.zeros(3), scale * jnp.eye(3))
