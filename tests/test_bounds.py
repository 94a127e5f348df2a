"""The bounds against the linear-Gaussian VAE, whose log p(x) and posterior are known exactly.

With p(z) = N(0, I) and p(x|z) = N(W z + b, s^2 I), x is N(b, W W^T + s^2 I) and z given x is
N(m, C) with C = (I + W^T W / s^2)^-1 and m = C W^T (x - b) / s^2 (Tipping & Bishop 1999).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal

RNG = np.random.default_rng(0)
WEIGHT, BIAS, NOISE_SCALE = RNG.normal(size=(5, 3)), RNG.normal(size=5), 0.7
X = RNG.normal(size=(4, 5)).astype(np.float32)
BATCH, LATENT_DIM = 4, 3

MARGINAL = stats.multivariate_normal(BIAS, WEIGHT @ WEIGHT.T + NOISE_SCALE**2 * np.eye(5))
LOG_PX = MARGINAL.logpdf(X)
COVARIANCE = np.linalg.inv(np.eye(3) + WEIGHT.T @ WEIGHT / NOISE_SCALE**2)
MEAN = (X - BIAS) @ WEIGHT @ COVARIANCE / NOISE_SCALE**2

PRIOR = Normal(jnp.zeros(LATENT_DIM), 1.0)
EXACT = MultivariateNormal(
    jnp.asarray(MEAN, jnp.float32),
    jnp.asarray(np.linalg.cholesky(np.stack([COVARIANCE] * BATCH)), jnp.float32),
)
ELSEWHERE = {
    "diagonal": Normal(EXACT.mean + 0.3, 0.6),
    "full": MultivariateNormal(0.8 * EXACT.mean, 1.3 * EXACT.scale_tril),
    "prior": Normal(jnp.zeros((BATCH, LATENT_DIM)), 1.0),
}
each_posterior = pytest.mark.parametrize("name", ELSEWHERE)
either_kl = pytest.mark.parametrize("analytic_kl", [True, False], ids=["analytic", "estimated"])

elbo = jax.jit(vae_jax.elbo, static_argnames="analytic_kl")
iwae = jax.jit(vae_jax.iwae)


@jax.jit
def decode(z):
    mean = jnp.vectorize(
        lambda z: jnp.asarray(WEIGHT, z.dtype) @ z + jnp.asarray(BIAS, z.dtype),
        signature="(z)->(x)",
    )(z)
    return Normal(mean, NOISE_SCALE)


def factor(posterior):
    if isinstance(posterior, MultivariateNormal):
        return posterior.scale_tril
    return posterior.scale[..., None] * jnp.eye(LATENT_DIM)[None]


def cubature(posterior):
    """2 Z points mean +- sqrt(Z) L e_i, over which the plain mean of a cubic is its expectation.

    In this model every term of the ELBO is quadratic in z.
    """
    steps = math.sqrt(LATENT_DIM) * jnp.moveaxis(factor(posterior), -1, 0)
    return jnp.concatenate([posterior.mean[None] + steps, posterior.mean[None] - steps])


def expected_elbo(posterior, analytic_kl=True):
    z = cubature(posterior)
    bound = elbo(X, z, posterior, PRIOR, decode(z), analytic_kl=analytic_kl)
    return bound.value.mean(axis=0)


def divergence_from_exact(posterior):
    """KL(q(z|x) || p(z|x)) by NumPy, in float64."""
    scale = np.asarray(factor(posterior), np.float64)
    shift = MEAN - np.asarray(posterior.mean, np.float64)
    precision = np.linalg.inv(COVARIANCE)
    return 0.5 * (
        np.einsum("ij,bji->b", precision, scale @ scale.swapaxes(-1, -2))
        + np.einsum("bi,ij,bj->b", shift, precision, shift)
        - LATENT_DIM
        + np.linalg.slogdet(COVARIANCE)[1]
        - 2 * np.linalg.slogdet(scale)[1]
    )


def log_weights(z, posterior):
    """log p(x|z) + log p(z) - log q(z|x) by SciPy."""
    z, mean, scale_tril = (
        np.asarray(a, np.float64) for a in (z, posterior.mean, factor(posterior))
    )
    log_q = np.stack(
        [
            stats.multivariate_normal(m, f @ f.T).logpdf(z[..., i, :])
            for i, (m, f) in enumerate(zip(mean, scale_tril, strict=True))
        ],
        axis=-1,
    )
    log_px = stats.norm(z @ WEIGHT.T + BIAS, NOISE_SCALE).logpdf(X).sum(-1)
    return log_px + stats.norm.logpdf(z).sum(-1) - log_q


# The evidence lower bound


@either_kl
def test_expected_elbo_at_the_exact_posterior_is_log_px(analytic_kl):
    np.testing.assert_allclose(expected_elbo(EXACT, analytic_kl), LOG_PX, rtol=0, atol=1e-4)


def test_estimated_elbo_at_the_exact_posterior_is_log_px_for_every_draw():
    z = vae_jax.sample(jax.random.key(0), EXACT, 500)
    bound = elbo(X, z, EXACT, PRIOR, decode(z), analytic_kl=False)
    expected = np.broadcast_to(LOG_PX, (500, BATCH))
    np.testing.assert_allclose(bound.value, expected, rtol=0, atol=1e-4)


@either_kl
@each_posterior
def test_expected_elbo_is_below_log_px_by_the_divergence_from_the_exact_posterior(
    name, analytic_kl
):
    posterior = ELSEWHERE[name]
    gap = LOG_PX - expected_elbo(posterior, analytic_kl)
    assert (gap > 0.01).all()
    np.testing.assert_allclose(gap, divergence_from_exact(posterior), rtol=1e-5, atol=1e-4)


@either_kl
@each_posterior
def test_mean_over_draws_is_the_expected_elbo(name, analytic_kl):
    posterior = ELSEWHERE[name]
    z = vae_jax.sample(jax.random.key(0), posterior, 2000)
    values = elbo(X, z, posterior, PRIOR, decode(z), analytic_kl=analytic_kl).value
    error = np.std(values, axis=0, ddof=1) / math.sqrt(2000)
    expected = LOG_PX - divergence_from_exact(posterior)
    assert (np.abs(np.mean(values, axis=0) - expected) <= 4 * error).all()


def test_terms_of_each_draw_are_scipys():
    posterior = ELSEWHERE["full"]
    z = vae_jax.sample(jax.random.key(0), posterior, 7)
    bound = elbo(X, z, posterior, PRIOR, decode(z), analytic_kl=False)
    expected = log_weights(z, posterior)
    log_px = stats.norm(np.asarray(z) @ WEIGHT.T + BIAS, NOISE_SCALE).logpdf(X).sum(-1)
    np.testing.assert_allclose(bound.value, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(bound.log_likelihood, log_px, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(bound.kl, log_px - expected, rtol=1e-5, atol=1e-4)


def test_gradient_of_the_expected_elbo_is_that_of_the_divergence():
    posterior = ELSEWHERE["full"]
    gradient = jax.jit(jax.grad(lambda q: expected_elbo(q).sum()))(posterior)
    # d KL / d mean = C^-1 (mean - m); d KL / d L = C^-1 L - L^-T, its lower triangle.
    precision = np.linalg.inv(COVARIANCE)
    scale_tril = np.asarray(posterior.scale_tril, np.float64)
    mean = (MEAN - posterior.mean) @ precision
    lower = np.tril(np.linalg.inv(scale_tril).swapaxes(-1, -2) - precision @ scale_tril)
    np.testing.assert_allclose(gradient.mean, mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.tril(gradient.scale_tril), lower, rtol=1e-3, atol=1e-3)


def test_sticking_the_landing_has_no_gradient_at_the_exact_posterior():
    # Roeder et al. 2017: with the posterior's density held constant, every draw's gradient is zero.
    def loss(posterior):
        z = vae_jax.sample(jax.random.key(0), posterior, 10)
        held = jax.lax.stop_gradient(posterior)
        return elbo(X, z, held, PRIOR, decode(z), analytic_kl=False).value.sum()

    gradient = jax.jit(jax.grad(loss))(EXACT)
    for g in jax.tree.leaves(gradient):
        np.testing.assert_allclose(g, 0, atol=2e-3)


# The importance-weighted bound


def test_iwae_is_the_log_mean_weight():
    posterior = ELSEWHERE["full"]
    z = vae_jax.sample(jax.random.key(0), posterior, 7)
    bound = iwae(X, z, posterior, PRIOR, decode(z))
    weights = log_weights(z, posterior)
    expected = special.logsumexp(weights, axis=0) - math.log(7)
    np.testing.assert_allclose(bound.value, expected, rtol=1e-5, atol=1e-4)
    plain = bound.log_likelihood - bound.kl
    np.testing.assert_allclose(plain, weights.mean(axis=0), rtol=1e-5, atol=1e-4)


def test_iwae_at_the_exact_posterior_is_log_px():
    z = vae_jax.sample(jax.random.key(0), EXACT, 3)
    value = iwae(X, z, EXACT, PRIOR, decode(z)).value
    np.testing.assert_allclose(value, LOG_PX, rtol=0, atol=1e-4)


@each_posterior
def test_iwae_rises_with_the_draws_from_the_elbo_towards_log_px(name):
    posterior = ELSEWHERE[name]
    z = vae_jax.sample(jax.random.key(0), posterior, (16, 2000))
    values = np.stack(
        [iwae(X, z[:num], posterior, PRIOR, decode(z[:num])).value for num in (1, 4, 16)]
    )
    mean = values.mean(axis=1)
    error = values.std(axis=1, ddof=1) / math.sqrt(2000)
    expected_elbo = LOG_PX - divergence_from_exact(posterior)
    assert (np.abs(mean[0] - expected_elbo) <= 4 * error[0]).all()
    rise = np.diff(values, axis=0)
    assert (rise.mean(axis=1) > 4 * rise.std(axis=1, ddof=1) / math.sqrt(2000)).all()
    assert (mean <= LOG_PX + 4 * error).all()


def test_iwae_of_one_draw_is_the_estimated_elbo():
    posterior = ELSEWHERE["full"]
    z = vae_jax.sample(jax.random.key(0), posterior, 1)
    one = iwae(X, z, posterior, PRIOR, decode(z))
    estimated = elbo(X, z[0], posterior, PRIOR, decode(z[0]), analytic_kl=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, estimated)


# The autoencoder, a limit


@pytest.mark.parametrize("scale", [0.3, 0.03])
def test_a_posterior_that_shrinks_leaves_the_autoencoders_log_likelihood(scale):
    """Here E_q[log p(x|z)] falls short of log p(x|E_q[z]) by scale^2 ||W||^2 / (2 s^2)."""
    posterior = Normal(EXACT.mean, scale)
    z = cubature(posterior)
    fidelity = elbo(X, z, posterior, PRIOR, decode(z)).log_likelihood.mean(axis=0)
    model = vae_jax.VAE(
        None, lambda params, x, label=None: posterior, None, lambda params, z, label=None: decode(z)
    )
    deterministic = vae_jax.reconstruct(model, None, X).log_prob(X)
    lost = scale**2 * np.square(WEIGHT).sum() / (2 * NOISE_SCALE**2)
    np.testing.assert_allclose(fidelity, deterministic - lost, rtol=1e-5)


# Shapes, structure, dtypes


@either_kl
@pytest.mark.parametrize("draws", [(), (7,), (2, 7)], ids=str)
def test_nothing_is_reduced(draws, analytic_kl):
    posterior = ELSEWHERE["full"]
    z = vae_jax.sample(jax.random.key(0), posterior, draws)
    bound = elbo(X, z, posterior, PRIOR, decode(z), analytic_kl=analytic_kl)
    assert {a.shape for a in bound} == {(*draws, BATCH)}
    np.testing.assert_allclose(bound.value, bound.log_likelihood - bound.kl, rtol=1e-6)
    if draws:
        bound = iwae(X, z, posterior, PRIOR, decode(z))
        assert {a.shape for a in bound} == {(*draws[1:], BATCH)}


def test_one_example_under_vmap_is_a_scalar():
    posterior = ELSEWHERE["full"]
    z = vae_jax.sample(jax.random.key(0), posterior)

    def of_one(x, z, posterior):
        bound = elbo(x, z, posterior, PRIOR, decode(z))
        assert bound.value.shape == ()
        return bound

    expected = elbo(X, z, posterior, PRIOR, decode(z))
    for transform in (jax.vmap, lambda f: jax.jit(jax.vmap(jax.checkpoint(f)))):
        actual = transform(of_one)(jnp.asarray(X), z, posterior)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), actual, expected)


@either_kl
@pytest.mark.parametrize("leading", [(), (4,), (3, 2, 4)], ids=str)
def test_leading_axes_are_many_of_one_example(leading, analytic_kl):
    rng = np.random.default_rng(0)
    z, mean, raw_scale, x, logits = (
        jnp.asarray(rng.normal(size=(*leading, size)), jnp.float32) for size in (3, 3, 3, 6, 6)
    )

    def bound(x, z, mean, scale, logits):
        arguments = Normal(mean, scale), PRIOR, Bernoulli(logits)
        return vae_jax.elbo(x, z, *arguments, analytic_kl=analytic_kl)

    arguments = (x > 0).astype(jnp.float32), z, mean, jnp.exp(raw_scale), logits
    together = jax.jit(bound)(*arguments)
    for _ in leading:
        bound = jax.vmap(bound)
    for got, want in zip(together, jax.jit(bound)(*arguments), strict=True):
        assert got.shape == leading
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_autoencode_is_the_elbo_of_its_own_draw():
    posterior, key = ELSEWHERE["diagonal"], jax.random.key(0)
    got = vae_jax.autoencode(jax.random.clone(key), X, lambda x: posterior, PRIOR, decode, 5)
    z = vae_jax.sample(key, posterior, 5)
    want = vae_jax.elbo(X, z, posterior, PRIOR, decode(z))
    assert got.value.shape == (5, BATCH)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_joint_likelihood_observes_a_tuple():
    posterior = ELSEWHERE["diagonal"]
    z = vae_jax.sample(jax.random.key(0), posterior)
    likelihood = decode(z)
    both = elbo((X, X + 1), z, posterior, PRIOR, Joint((likelihood, likelihood)))
    one, other = (elbo(x, z, posterior, PRIOR, likelihood) for x in (X, X + 1))
    want = one.log_likelihood + other.log_likelihood
    np.testing.assert_allclose(both.log_likelihood, want, rtol=1e-6)


@either_kl
def test_joint_of_blocks_is_the_whole(analytic_kl):
    whole = ELSEWHERE["diagonal"]
    z = vae_jax.sample(jax.random.key(0), whole, 7)
    blocks = (slice(0, 1), slice(1, 3))
    parts = tuple(Normal(whole.mean[:, b], whole.scale[:, b]) for b in blocks)
    posterior = Joint(parts, ancestral=True)  # none depends on another
    prior = Joint((Normal(jnp.zeros(1), 1.0), Normal(jnp.zeros(2), 1.0)), ancestral=True)
    parts = tuple(z[..., b] for b in blocks)
    for bound in (
        lambda *of: elbo(X, *of, decode(z), analytic_kl=analytic_kl),
        lambda *of: iwae(X, *of, decode(z)),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            bound(parts, posterior, prior),
            bound(z, whole, PRIOR),
        )


def test_discrete_latent_summed_out_is_log_px():
    # A mixture of three Bernoulli vectors: enumerating z gives log p(x) and the exact posterior.
    logits = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)
    x = (RNG.normal(size=(BATCH, 6)) > 0).astype(np.float32)
    prior_logits = jnp.array([0.2, -0.3, 0.1])
    p = special.expit(np.asarray(logits, np.float64))
    joint = stats.bernoulli(p).logpmf(x[:, None]).sum(-1) + special.log_softmax(prior_logits)
    posterior = Categorical(jnp.asarray(joint, jnp.float32))
    z = vae_jax.sample(jax.random.key(0), posterior, 5)
    bound = elbo(
        x, z, posterior, Categorical(prior_logits), Bernoulli(logits[z]), analytic_kl=False
    )
    expected = np.broadcast_to(special.logsumexp(joint, axis=-1), (5, BATCH))
    np.testing.assert_allclose(bound.value, expected, rtol=1e-5)


def test_bfloat16_networks_give_float32_bounds():
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), ELSEWHERE["diagonal"])
    z = vae_jax.sample(jax.random.key(0), half, 3)
    likelihood = jax.tree.map(lambda a: a.astype(jnp.bfloat16), decode(z))
    assert z.dtype == jnp.bfloat16
    for analytic_kl in (True, False):
        bound = elbo(X, z, half, PRIOR, likelihood, analytic_kl=analytic_kl)
        assert {a.dtype for a in bound} == {jnp.dtype("float32")}
    assert iwae(X, z, half, PRIOR, likelihood).value.dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_under_x64_a_bound_has_the_dtype_of_its_arguments(dtype):
    with jax.enable_x64(True):
        x, zeros = jnp.ones((BATCH, 6), dtype), jnp.zeros((BATCH, LATENT_DIM), dtype)
        posterior, prior = Normal(zeros, 1.0), Normal(jnp.zeros(LATENT_DIM, dtype), 1.0)
        z = vae_jax.sample(jax.random.key(0), posterior, 2)
        weight = jnp.ones((LATENT_DIM, 6), dtype)
        of = x, z, posterior, prior, Bernoulli(z @ weight)
        estimate = vae_jax.log_likelihood(
            jax.random.key(0), x, posterior, prior, lambda z: Bernoulli(z @ weight), num_samples=2
        )
        results = z, elbo(*of), elbo(*of, analytic_kl=False), iwae(*of), estimate
    assert {str(array.dtype) for array in jax.tree.leaves(results)} == {dtype}


# Bad input

SHAPES = {
    "x": jnp.zeros((BATCH, 5)),
    "z": jnp.zeros((BATCH, LATENT_DIM)),
    "posterior": Normal(jnp.zeros((BATCH, LATENT_DIM)), 1.0),
    "prior": PRIOR,
    "likelihood": Normal(jnp.zeros((BATCH, 5)), 1.0),
}


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("bound", [vae_jax.elbo, vae_jax.iwae])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"z": jnp.zeros((8, LATENT_DIM))},
            r"z has shape \(8, 3\) but posterior has shape \(4, 3\): draw it with vae_jax\.sample",
        ),
        (
            {"z": jnp.zeros(LATENT_DIM)},
            r"z has shape \(3,\) but posterior has shape \(4, 3\): draw it with vae_jax\.sample",
        ),
        (
            {"likelihood": Normal(jnp.zeros((BATCH, 6)), 1.0)},
            r"likelihood has shape \(4, 6\) but x of shape \(4, 5\) .*: decode z into the shape",
        ),
        (
            {"z": jnp.zeros((7, BATCH, LATENT_DIM))},
            r"likelihood has shape \(4, 5\) but x .* draws of leading shape \(7,\)",
        ),
        ({"prior": Normal(jnp.zeros(2), 1.0)}, r"\(4, 3\).*\(2,\)"),
        ({"prior": Normal(jnp.zeros((2, 3)), 1.0)}, r"\(4, 3\) but prior has shape \(2, 3\)"),
        (
            {
                "x": jnp.zeros((BATCH, 2, 5)),
                "likelihood": Bernoulli(jnp.zeros((BATCH, 2, 5))),
            },
            r"\(4, 3\), but likelihood has 1, of \(4, 2, 5\): .*set event_ndims",
        ),
    ],
)
def test_shapes_that_do_not_match(jit, bound, wrong, message):
    with pytest.raises(ValueError, match=message):
        jit(lambda arguments: bound(**arguments))({**SHAPES, **wrong})


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_bytes_are_no_zeros_and_ones(jit):
    likelihood = Bernoulli(jnp.zeros((BATCH, 5)))
    wrong = {**SHAPES, "x": jnp.zeros((BATCH, 5), jnp.uint8), "likelihood": likelihood}
    with pytest.raises(TypeError, match=r"value of a Bernoulli has dtype uint8: pass .*astype"):
        jit(lambda arguments: vae_jax.elbo(**arguments))(wrong)


def test_iwae_needs_an_axis_of_draws():
    with pytest.raises(
        ValueError, match=r"no axis of draws to reduce: draw it with .*posterior, S"
    ):
        vae_jax.iwae(**SHAPES)


def test_closed_form_that_is_not_known():
    prior = Bernoulli(jnp.zeros(LATENT_DIM))
    with pytest.raises(TypeError, match=r"KL\(Normal \|\| Bernoulli\).*analytic_kl=False"):
        vae_jax.elbo(**{**SHAPES, "prior": prior})


def test_joint_needs_as_many_draws_as_parts():
    posterior = Joint((SHAPES["posterior"], SHAPES["posterior"]))
    with pytest.raises(ValueError, match="parts"):
        vae_jax.elbo(**{**SHAPES, "z": (SHAPES["z"],), "posterior": posterior, "prior": posterior})
