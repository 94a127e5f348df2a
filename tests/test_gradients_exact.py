"""Each estimator's mean gradient against the exact one, which NumPy takes in float64.

A linear-Gaussian VAE with one latent: expectations over K <= 3 draws are Gauss-Hermite sums. A
mixture of categories: they are sums over all outcomes. Derivatives there are complex steps, exact
to the last digits: f(p + 1e-30 i) has the derivative as its imaginary part.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import Bernoulli, Categorical, Normal

K = 3


def log_mean_exp(log_weights):
    """Over the first axis, of complex numbers too."""
    top = log_weights.real.max(axis=0)
    return top + np.log(np.exp(log_weights - top).mean(axis=0))


def renyi(log_weights):
    return log_mean_exp(0.5 * log_weights) / 0.5


def tvo(log_weights):
    weights = np.exp(0.4 * (log_weights - log_weights.real.max(axis=0)))
    tilted = (weights * log_weights).sum(axis=0) / weights.sum(axis=0)
    return 0.4 * log_weights.mean(axis=0) + 0.6 * tilted


def gradient(function, params):
    """Of a real number, by complex steps: an array for each of params."""
    result = {}
    for name, value in params.items():
        result[name] = np.zeros(np.shape(value))
        for index in np.ndindex(np.shape(value)):
            moved = np.array(value, complex)
            moved[index] += 1e-30j
            result[name][index] = function({**params, name: moved}).imag / 1e-30
    return result


def both(params):
    """The same numbers for both sides, those of float32."""
    return {name: np.asarray(np.float32(value), np.float64) for name, value in params.items()}


# The linear-Gaussian VAE: p(z) = N(0, 1), p(x|z) = N(w z + b, exp(t)^2), q = N(a x + c, exp(s)^2).

X = np.array([0.5, -0.3], np.float32)
PARAMS = both({"a": [0.4, 0.2], "c": 0.3, "s": -0.2, "w": [0.9, -0.6], "b": [0.1, 0.2], "t": -0.2})
ENCODER, DECODER = "acs", "wbt"
POINTS = 28


def log_normal(value, mean, log_scale):
    return -0.5 * ((value - mean) / np.exp(log_scale)) ** 2 - log_scale - 0.5 * np.log(2 * np.pi)


def log_weights_at(p, noise):
    """[K, N] of the noise of the draws, [K, N]."""
    z = p["a"] @ X + p["c"] + np.exp(p["s"]) * noise
    log_px = sum(log_normal(X[i], p["w"][i] * z + p["b"][i], p["t"]) for i in range(2))
    return log_px + log_normal(z, 0.0, 0.0) - log_normal(z, p["a"] @ X + p["c"], p["s"])


def nodes(num_draws, points=POINTS):
    """Noise [K, N] and weights [N], whose weighted sum is the expectation."""
    at, weight = np.polynomial.hermite_e.hermegauss(points)
    grid = np.stack(np.meshgrid(*[at] * num_draws)).reshape(num_draws, -1)
    weights = np.stack(np.meshgrid(*[weight] * num_draws)).reshape(num_draws, -1).prod(axis=0)
    return grid, weights / weights.sum()


@functools.cache
def exact(bound, points=POINTS):
    noise, weights = nodes(K, points)
    return gradient(lambda p: weights @ bound(log_weights_at(p, noise)), PARAMS)


def mean(log_weights):
    return log_weights.mean(axis=0)


def encode(p):
    return Normal((p["a"] @ X + p["c"])[None], jnp.exp(p["s"]))


def decode(p):
    return lambda z: Normal(z * p["w"][None] + p["b"][None], jnp.exp(p["t"]))


PRIOR = Normal(jnp.zeros(1), 1.0)


def of_values(bound):
    return lambda p, z, q: bound(X, z, q, PRIOR, decode(p)(z)).value.mean()


def of_decode(bound):
    return lambda p, z, q: bound(X, z, q, PRIOR, decode(p)).value


def sticking_iwae(p, z, q):
    return vae_jax.iwae(X, z, jax.lax.stop_gradient(q), PRIOR, decode(p)(z)).value


def score_elbo(p, z, q, baseline=jnp.zeros_like):
    z = jax.lax.stop_gradient(z)
    bound = vae_jax.elbo(X, z, q, PRIOR, decode(p)(z), analytic_kl=False).value
    return vae_jax.score_function(bound, q.log_prob(z), baseline(bound)).mean()


def score_iwae(p, z, q):
    z = jax.lax.stop_gradient(z)
    bound = vae_jax.iwae(X, z, q, PRIOR, decode(p)(z)).value
    return vae_jax.score_function(bound, q.log_prob(z).sum())


ESTIMATED_ELBO = functools.partial(vae_jax.elbo, analytic_kl=False)
# name: (the estimator, the function of log-weights whose expectation has this gradient)
ESTIMATORS = {
    "reparameterised": (of_values(ESTIMATED_ELBO), mean),
    "analytic KL": (of_values(vae_jax.elbo), mean),
    "sticking the landing": (of_values(vae_jax.sticking_the_landing), mean),
    "score function": (score_elbo, mean),
    "leave-one-out": (functools.partial(score_elbo, baseline=vae_jax.leave_one_out), mean),
    "IWAE": (of_values(vae_jax.iwae), log_mean_exp),
    "DReG": (of_decode(vae_jax.doubly_reparameterized), log_mean_exp),
    "score function of IWAE": (score_iwae, log_mean_exp),
    "VIMCO": (of_decode(vae_jax.vimco), log_mean_exp),
    "MIWAE": (of_values(functools.partial(vae_jax.miwae, num_groups=K)), mean),
    "CIWAE": (
        of_values(functools.partial(vae_jax.ciwae, beta=0.3)),
        lambda w: 0.3 * mean(w) + 0.7 * log_mean_exp(w),
    ),
    "Renyi": (of_values(functools.partial(vae_jax.renyi, alpha=0.5)), renyi),
    "TVO": (of_values(functools.partial(vae_jax.tvo, betas=(0.0, 0.4))), tvo),
}


@functools.cache
def gradients_of(estimator):
    """noise [N, K] -> the gradient of each, as float64."""

    def value(p, noise):
        q = encode(p)
        return estimator(p, q.mean[None] + q.scale[None] * noise[:, None], q)

    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), PARAMS)
    each = jax.jit(jax.vmap(jax.grad(value), in_axes=(None, 0)))
    return lambda noise: jax.tree.map(
        lambda a: np.asarray(a, np.float64), each(params, jnp.asarray(noise, jnp.float32))
    )


def expectation(estimator):
    noise, weights = nodes(K)
    return {n: np.tensordot(weights, g, 1) for n, g in gradients_of(estimator)(noise.T).items()}


def monte_carlo(estimator):
    """Mean gradient and its standard error, of as many draws as there are nodes."""
    noise = np.random.default_rng(0).normal(size=(POINTS**K, K))
    drawn = gradients_of(estimator)(noise)
    scale = 1 / np.sqrt(POINTS**K)
    return {n: (g.mean(axis=0), scale * g.std(axis=0, ddof=1)) for n, g in drawn.items()}


def farthest(estimator, want, names):
    """The largest distance from the exact gradient, in standard errors."""
    found = monte_carlo(estimator)
    return max(np.max(np.abs(found[n][0] - want[n]) / found[n][1]) for n in names)


NUM_COORDINATES = sum(np.size(value) for value in PARAMS.values())
# Of so many coordinates one goes beyond this as often as one number goes beyond 4.
FOUR = stats.norm.isf(stats.norm.sf(4) / NUM_COORDINATES)


@pytest.mark.parametrize("bound", [mean, log_mean_exp, renyi, tvo])
def test_the_oracle_has_converged(bound):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
        exact(bound),
        exact(bound, 44),
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_mean_gradient_is_the_exact_one(name):
    estimator, bound = ESTIMATORS[name]
    want = exact(bound)
    # Their variance is not zero, so that the test can fail.
    assert max(np.max(error) for _, error in monte_carlo(estimator).values()) > 1e-4
    assert farthest(estimator, want, PARAMS) <= FOUR
    # And with the nodes of the quadrature in place of draws, to float32's digits.
    for n, g in expectation(estimator).items():
        np.testing.assert_allclose(g, want[n], rtol=0, atol=3e-5)


def test_sticking_the_landing_is_biased_for_the_iwae():
    """In the encoder alone: its score has no expectation of zero under the weights."""
    want = exact(log_mean_exp)
    assert farthest(sticking_iwae, want, ENCODER) > 10
    assert farthest(sticking_iwae, want, DECODER) <= FOUR
    bias = {n: g - want[n] for n, g in expectation(sticking_iwae).items()}
    assert max(np.abs(bias[n]).max() for n in ENCODER) > 0.02


def test_reweighted_wake_sleep_is_the_bounds_gradient_and_the_weighted_score():
    estimator = of_decode(vae_jax.reweighted_wake_sleep)
    noise, weights = nodes(K)
    log_weights = log_weights_at(PARAMS, noise)
    normalised = np.exp(log_weights - log_weights.max(axis=0))
    normalised /= normalised.sum(axis=0)
    z = PARAMS["a"] @ X + PARAMS["c"] + np.exp(PARAMS["s"]) * noise

    def weighted_score(p):
        return weights @ (normalised * log_normal(z, p["a"] @ X + p["c"], p["s"])).sum(axis=0)

    score = gradient(weighted_score, PARAMS)
    want = {n: score[n] if n in ENCODER else g for n, g in exact(log_mean_exp).items()}
    assert farthest(estimator, want, PARAMS) <= FOUR
    for n, g in expectation(estimator).items():
        np.testing.assert_allclose(g, want[n], rtol=0, atol=3e-5)


# A mixture of three categories, each a vector of four Bernoullis.

RNG = np.random.default_rng(1)
MIXTURE = both(
    {"q": RNG.normal(size=3), "prior": RNG.normal(size=3), "logits": RNG.normal(size=(3, 4))}
)
BITS = np.array([1.0, 0.0, 0.0, 1.0], np.float32)
OUTCOMES = np.array(list(itertools.product(range(3), repeat=K))).T  # [K, 3^K]


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def log_joint_and_q(p):
    log_px = (BITS * p["logits"] - np.log1p(np.exp(p["logits"]))).sum(axis=1)
    return log_px + log_softmax(p["prior"]), log_softmax(p["q"])


def exact_of_mixture(bound):
    def expected(p):
        log_joint, log_q = log_joint_and_q(p)
        return np.exp(log_q[OUTCOMES].sum(axis=0)) @ bound((log_joint - log_q)[OUTCOMES])

    return gradient(expected, MIXTURE)


def mean_of_mixture(estimator):
    """The estimator's mean over all outcomes of its draws, which jax differentiates one by one."""

    def value(p, z):
        return estimator(z, Categorical(p["q"]), Categorical(p["prior"]), p["logits"])

    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), MIXTURE)
    each = jax.jit(jax.vmap(jax.grad(value), in_axes=(None, 0)))(params, jnp.asarray(OUTCOMES.T))
    weights = np.exp(log_joint_and_q(MIXTURE)[1][OUTCOMES].sum(axis=0))
    return {n: np.tensordot(weights, np.asarray(g, np.float64), 1) for n, g in each.items()}


def mixture_elbo(z, q, prior, logits, baseline=jnp.zeros_like):
    bound = vae_jax.elbo(BITS, z, q, prior, Bernoulli(logits[z]), analytic_kl=False).value
    return vae_jax.score_function(bound, q.log_prob(z), baseline(bound)).mean()


def mixture_iwae(z, q, prior, logits):
    bound = vae_jax.iwae(BITS, z, q, prior, Bernoulli(logits[z])).value
    return vae_jax.score_function(bound, q.log_prob(z).sum())


def mixture_of(bound):
    return lambda z, q, prior, logits: (
        bound(BITS, z, q, prior, lambda z: Bernoulli(logits[z])).value
    )


@pytest.mark.parametrize(
    ("estimator", "bound"),
    [
        (mixture_elbo, mean),
        (functools.partial(mixture_elbo, baseline=vae_jax.leave_one_out), mean),
        (mixture_iwae, log_mean_exp),
        (mixture_of(vae_jax.vimco), log_mean_exp),
    ],
    ids=["score function", "leave-one-out", "score function of IWAE", "VIMCO"],
)
def test_mean_gradient_of_an_enumerated_model(estimator, bound):
    want = exact_of_mixture(bound)
    for name, got in mean_of_mixture(estimator).items():
        np.testing.assert_allclose(got, want[name], rtol=0, atol=2e-6)
        assert np.abs(want[name]).max() > 0.01


def test_reweighted_wake_sleep_of_an_enumerated_model():
    log_joint, log_q = log_joint_and_q(MIXTURE)
    log_weights = (log_joint - log_q)[OUTCOMES]
    normalised = np.exp(log_weights - np.log(np.exp(log_weights).sum(axis=0)))
    weights = np.exp(log_q[OUTCOMES].sum(axis=0))

    def weighted_score(p):
        return weights @ (normalised * log_softmax(p["q"])[OUTCOMES]).sum(axis=0)

    want = {**exact_of_mixture(log_mean_exp), "q": gradient(weighted_score, MIXTURE)["q"]}
    for name, got in mean_of_mixture(mixture_of(vae_jax.reweighted_wake_sleep)).items():
        np.testing.assert_allclose(got, want[name], rtol=0, atol=2e-6)


def test_sticking_the_landing_is_unbiased_of_a_learned_prior():
    """log p(z) of a mixture of two, whose weights, means and scales are trained with the rest."""
    params = PARAMS | both({"r": [0.3, -0.4], "m": [0.8, -0.5], "l": [-0.3, 0.2]})
    noise, weights = nodes(1, 80)

    def log_weights(p):
        z = p["a"] @ X + p["c"] + np.exp(p["s"]) * noise[0]
        parts = np.exp(p["r"][:, None] + log_normal(z, p["m"][:, None], p["l"][:, None]))
        log_prior = np.log(parts.sum(axis=0)) - np.log(np.exp(p["r"]).sum())
        return log_weights_at(p, noise)[0] - log_normal(z, 0.0, 0.0) + log_prior

    def bound(p, noise):
        q = encode(p)
        z = (q.mean + q.scale * noise)[None]
        prior = vae_jax.Mixture(p["r"], Normal(p["m"][:, None], jnp.exp(p["l"])[:, None]))
        return vae_jax.sticking_the_landing(X, z, q, prior, decode(p)(z)).value.mean()

    of_draws = jax.vmap(jax.grad(bound), (None, 0))(
        jax.tree.map(jnp.float32, params), jnp.asarray(noise[0], jnp.float32)
    )
    for name, want in gradient(lambda p: weights @ log_weights(p), params).items():
        np.testing.assert_allclose(weights @ of_draws[name], want, rtol=1e-4, atol=1e-5)
