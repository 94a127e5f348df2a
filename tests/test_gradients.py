"""The score function's gradient against expectations that are known, or sums over all outcomes.

The mean gradient of each estimator is in test_gradients_exact.py.
"""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vae_jax
from vae_jax import Categorical, Joint, MultivariateNormal, Normal, gradients, networks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)
# Nodes and weights whose weighted sum is the expectation over N(0, 1) of any cubic, and more.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@pytest.mark.parametrize("baseline", [0.0, -7.0, "each"])
def test_score_function_gives_the_gradient_of_an_expectation(baseline):
    """Of z^3 under N(m, s^2), whose expectation is m^3 + 3 m s^2."""
    mean, scale = 0.7, 0.4
    z = jnp.asarray(mean + scale * NODES, jnp.float32)
    if baseline == "each":
        baseline = jnp.full(len(NODES), 2.5)

    def expectation(mean, scale):
        posterior = Normal(mean[None], scale[None])
        value = vae_jax.score_function(z**3, posterior.log_prob(z[:, None]), baseline)
        return jnp.asarray(WEIGHTS, jnp.float32) @ value

    value, gradient = jax.value_and_grad(expectation, argnums=(0, 1))(
        jnp.float32(mean), jnp.float32(scale)
    )
    np.testing.assert_allclose(value, mean**3 + 3 * mean * scale**2, rtol=1e-5)
    expected = (3 * mean**2 + 3 * scale**2, 6 * mean * scale)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_score_function_of_a_discrete_latent():
    logits, cost = RNG.normal(size=5), RNG.normal(size=5)
    p = special.softmax(logits)

    def expectation(logits):
        log_probs = Categorical(logits).log_prob(jnp.arange(5))
        value = vae_jax.score_function(jnp.asarray(cost, jnp.float32), log_probs, 0.3)
        return jnp.asarray(p, jnp.float32) @ value

    gradient = jax.grad(expectation)(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(gradient, p * (cost - p @ cost), rtol=0, atol=1e-6)


def test_score_function_keeps_the_value_and_its_own_gradient():
    def total(weight):
        return vae_jax.score_function(weight * X[0], weight * jnp.ones(5), 1.0).sum()

    value, gradient = jax.value_and_grad(total)(jnp.float32(2.0))
    np.testing.assert_allclose(value, 2 * X[0].sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, X[0].sum() + (2 * X[0] - 1).sum(), rtol=1e-5)


def test_leave_one_out_is_the_mean_of_the_others():
    want = np.stack([np.delete(X, i, axis=0).mean(axis=0) for i in range(4)])
    np.testing.assert_allclose(vae_jax.leave_one_out(jnp.asarray(X)), want, rtol=1e-6)
    gradient = jax.grad(lambda x: vae_jax.leave_one_out(x).sum())(jnp.asarray(X))
    np.testing.assert_array_equal(gradient, np.zeros_like(X))


# Estimators of a bound


OBSERVED = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
PRIOR = Normal(jnp.zeros(2), 1.0)
POSTERIOR = Normal(jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32), 0.6)
WEIGHT = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)
BY_DECODE = [vae_jax.doubly_reparameterized, vae_jax.vimco, vae_jax.reweighted_wake_sleep]


def decode(z):
    return Normal(z @ WEIGHT.astype(z.dtype), 0.5)


@pytest.mark.parametrize("estimator", BY_DECODE)
@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_bound_is_that_of_iwae(estimator, jit):
    z = vae_jax.sample(jax.random.key(0), POSTERIOR, 5)
    got = jit(lambda z: estimator(OBSERVED, z, POSTERIOR, PRIOR, decode))(z)
    want = vae_jax.iwae(OBSERVED, z, POSTERIOR, PRIOR, decode(z))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, want)


def test_the_baselines_of_vimco_keep_their_digits():
    """Where one weight is nearly all of the sum, and one next to nothing."""
    log_weights = np.array([-500.0, 2.0, -30.0, 90.0, -3.0])
    means = np.array([np.delete(log_weights, i).mean() for i in range(5)])
    got = gradients._log_mean_exp_replacing(
        jnp.asarray(log_weights, jnp.float32), jnp.asarray(means, jnp.float32)
    )
    replaced = np.where(np.eye(5, dtype=bool), means[:, None], log_weights)
    want = special.logsumexp(replaced, axis=1) - np.log(5)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_no_draw_has_a_gradient_at_the_exact_posterior():
    precision = np.eye(2) + np.asarray(WEIGHT @ WEIGHT.T, np.float64) / 0.25
    covariance = np.linalg.inv(precision)
    scale_tril = np.broadcast_to(np.linalg.cholesky(covariance), (4, 2, 2))
    mean = OBSERVED @ np.asarray(WEIGHT).T @ covariance / 0.25
    exact = MultivariateNormal(*(jnp.asarray(a, jnp.float32) for a in (mean, scale_tril)))

    def bound(posterior):
        z = vae_jax.sample(jax.random.key(0), posterior, 10)
        return vae_jax.sticking_the_landing(OBSERVED, z, posterior, PRIOR, decode(z)).value

    gradient = jax.jacrev(lambda q: bound(q).sum(axis=1))(exact)
    for g in jax.tree.leaves(gradient):
        np.testing.assert_allclose(g, 0, atol=1e-3)


def count_dots(loss, params):
    program = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
    return len(re.findall(r" (?:dot|custom-call)\(", program))


def test_xla_decodes_once_for_both_passes_of_the_doubly_reparameterised_gradient():
    encoder = networks.Encoder(networks.MLP((4,), hidden=(7,)))
    decoder = networks.BernoulliDecoder(networks.MLP((3,), hidden=(9, 11)))
    params = {
        "encoder": encoder.init(jax.random.key(0), OBSERVED),
        "decoder": decoder.init(jax.random.key(1), jnp.zeros((4, 2))),
    }
    x = (OBSERVED > 0).astype(np.float32)

    def loss_of(bound):
        def loss(params):
            posterior = encoder.apply(params["encoder"], x)
            z = vae_jax.sample(jax.random.key(2), posterior, 5)
            decode = lambda z: decoder.apply(params["decoder"], z)  # noqa: E731
            return -bound(x, z, posterior, PRIOR, decode).value.mean()

        return loss

    def once(x, z, posterior, prior, decode):
        return vae_jax.iwae(x, z, jax.lax.stop_gradient(posterior), prior, decode(z))

    def twice(x, z, posterior, prior, decode):
        """Two passes that XLA cannot merge."""
        log_weights = decode(1.0001 * z).log_prob(x)
        z = gradients._scale_tangent(z, jax.nn.softmax(log_weights, axis=0))
        return once(x, z, posterior, prior, decode)

    want = count_dots(loss_of(once), params)
    # Two layers of the encoder, three of the decoder, and their gradients but that of x.
    assert want == 3 * 5 - 1
    assert count_dots(loss_of(vae_jax.doubly_reparameterized), params) == want
    assert count_dots(loss_of(twice), params) == want + 3


@pytest.mark.long
def test_doubly_reparameterised_in_forward_mode_and_under_vmap():
    def value(mean):
        posterior = Normal(mean, 0.6)
        z = vae_jax.sample(jax.random.key(0), posterior, 5)
        return vae_jax.doubly_reparameterized(OBSERVED, z, posterior, PRIOR, decode).value.sum()

    mean, direction = POSTERIOR.mean, jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)
    want = (jax.grad(value)(mean) * direction).sum()
    _, forward = jax.jvp(value, (mean,), (direction,))
    np.testing.assert_allclose(forward, want, rtol=1e-5)
    _, linear = jax.linearize(value, mean)
    np.testing.assert_allclose(linear(direction), want, rtol=1e-5)
    each = jax.vmap(jax.grad(value))(jnp.stack([mean, mean + 1]))
    np.testing.assert_allclose(each[1], jax.grad(value)(mean + 1), rtol=1e-4, atol=1e-5)


def test_bfloat16_draws():
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), POSTERIOR)
    z = vae_jax.sample(jax.random.key(0), half, 5)
    for estimator in BY_DECODE:
        value = lambda q, of=estimator: of(OBSERVED, z + q.mean[None], q, PRIOR, decode).value.sum()  # noqa: E731
        value, gradient = jax.value_and_grad(value)(half)
        assert value.dtype == jnp.float32
        assert gradient.mean.dtype == jnp.bfloat16


def numpyro(mean):
    return importlib.import_module("numpyro.distributions").Normal(mean, 0.6).to_event(1)


def distrax(mean):
    distrax = importlib.import_module("distrax")
    return distrax.Independent(distrax.Normal(mean, 0.6 * jnp.ones_like(mean)), 1)


@pytest.mark.relax
@pytest.mark.parametrize("make", [numpyro, distrax])
@pytest.mark.parametrize(
    "estimator",
    [*BY_DECODE, lambda *of: vae_jax.sticking_the_landing(*of[:-1], decode(of[1]))],
    ids=["DReG", "VIMCO", "RWS", "STL"],
)
def test_distributions_of_other_libraries(estimator, make):
    pytest.importorskip(make.__name__)
    noise = jax.random.normal(jax.random.key(0), (5, 4, 2))

    def value(make, mean):
        z = mean + 0.6 * noise
        return estimator(OBSERVED, z, make(mean), PRIOR, decode).value.sum()

    of = POSTERIOR.mean
    want = jax.grad(lambda mean: value(lambda mean: Normal(mean, 0.6), mean))(of)
    got = jax.grad(lambda mean: value(make, mean))(of)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


class Unregistered:
    """A distribution of a user's own that is no pytree."""

    shape, event_ndims = (4, 2), 1

    def log_prob(self, value):
        return -(value**2).sum(-1)


def without_leaves():
    distrax = pytest.importorskip("distrax")
    tfd = importlib.import_module("tensorflow_probability.substrates.jax.distributions")
    return distrax.Independent(tfd.Normal(POSTERIOR.mean, 0.6), 1)


@pytest.mark.relax
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "z", "error", "message"),
    [
        (Unregistered, jnp.zeros((5, 4, 2)), TypeError, "Unregistered, is no pytree of its param"),
        (without_leaves, jnp.zeros((5, 4, 2)), TypeError, "Independent, is no pytree of its param"),
        (lambda: Joint((POSTERIOR,)), (jnp.zeros((5, 4, 2)),), ValueError, "is a Joint, whose"),
        (
            lambda: Categorical(jnp.zeros((4, 3))),
            jnp.zeros((5, 4), int),
            TypeError,
            "z has dtype int32 and no gradient goes through it: use vimco",
        ),
    ],
    ids=["own", "wrapped", "Joint", "discrete"],
)
def test_a_posterior_that_cannot_be_held(make, z, error, message):
    for estimator in (vae_jax.sticking_the_landing, vae_jax.doubly_reparameterized):
        with pytest.raises(error, match=message):
            estimator(OBSERVED, z, make(), PRIOR, decode)


@pytest.mark.parametrize("estimator", BY_DECODE)
def test_estimators_of_several_draws_need_them(estimator):
    with pytest.raises(ValueError, match="no axis of draws to reduce"):
        estimator(OBSERVED, POSTERIOR.mean, POSTERIOR, PRIOR, decode)


def test_one_draw_has_no_others():
    with pytest.raises(ValueError, match=r"value has shape \(1, 4\): give two draws or more"):
        vae_jax.vimco(OBSERVED, POSTERIOR.mean[None], POSTERIOR, PRIOR, decode)
    with pytest.raises(ValueError, match=r"value has shape \(\): give two"):
        vae_jax.leave_one_out(jnp.float32(1.0))


def test_a_hierarchy_by_the_parts_made_anew():
    """What the error of a Joint tells one to do is the pathwise gradient: of the mean, unbiased."""
    num = 20_000

    def value(scale, hold):
        first = Normal(scale * jnp.ones((num, 1)), 0.5)
        one = vae_jax.sample(jax.random.key(0), first)
        second = Normal(scale * one, 0.5)
        z = one, vae_jax.sample(jax.random.key(1), second)
        held = jax.lax.stop_gradient(scale) if hold else scale
        parts = Normal(held * jnp.ones((num, 1)), 0.5), Normal(held * one, 0.5)
        prior = Joint((Normal(jnp.zeros(1), 1.0), Normal(0.3 * one, 1.0)))
        x, likelihood = jnp.full((num, 1), 0.7), Normal(z[1], 0.6)
        return vae_jax.elbo(x, z, Joint(parts), prior, likelihood, analytic_kl=False).value

    held, plain = (np.asarray(jax.jacfwd(value)(jnp.float32(0.4), hold)) for hold in (True, False))
    error = np.sqrt((held - plain).var() / num)
    assert error > 1e-4
    assert abs((held - plain).mean()) < 4 * error


HIERARCHY = {"q": (0.6, 0.4, 0.5, 0.7), "p": (0.8, 0.9, 1.3, 0.6)}
"""q(h1|x), q(h2|h1), p(h1|h2) and p(x|h1): their slopes a, b; c, d and scales s, t; u, v."""


def iwae_of_a_hierarchy(q, p, x, noise, weights):
    """The expectation over noise [N, S, 2] of a bound of S draws, in float64 and by scipy alone."""
    (a, b, s, t), (c, d, u, v) = q, p
    h1 = a * x + s * noise[..., 0]
    h2 = b * h1 + t * noise[..., 1]
    normal = stats.norm.logpdf
    log_w = normal(x, d * h1, v) + normal(h1, c * h2, u) + normal(h2)
    log_w -= normal(h1, a * x, s) + normal(h2, b * h1, t)
    return weights @ (special.logsumexp(log_w, axis=1) - np.log(noise.shape[1]))


@pytest.mark.parametrize(("estimator", "num_draws"), [("stl", 1), ("dreg", 1), ("dreg", 2)])
def test_gradients_of_a_hierarchy_by_quadrature(estimator, num_draws):
    nodes, of_node = np.polynomial.hermite_e.hermegauss(12)
    of_node = of_node / of_node.sum()
    noise = np.stack(np.meshgrid(*[nodes] * 2 * num_draws, indexing="ij"), -1)
    noise = noise.reshape(-1, num_draws, 2)
    each = np.stack(np.meshgrid(*[of_node] * 2 * num_draws, indexing="ij"), -1)
    weights = each.reshape(len(noise), -1).prod(-1)
    x = 0.9

    def exact(**moved):
        return iwae_of_a_hierarchy(**(HIERARCHY | moved), x=x, noise=noise, weights=weights)

    def gradient_of(name):
        step = 1e-5 * np.eye(4)
        return [
            (exact(**{name: HIERARCHY[name] + e}) - exact(**{name: HIERARCHY[name] - e})) / 2e-5
            for e in step
        ]

    eps = jnp.asarray(noise, jnp.float32).transpose(1, 0, 2)  # [S, N, 2]
    observed = jnp.full((len(noise), 1), x, jnp.float32)

    def mean_bound(params):
        (a, b, s, t), (c, d, u, v) = params["q"], params["p"]
        h1 = (a * observed)[None] + s * eps[..., :1]
        z = h1, b * h1 + t * eps[..., 1:]
        (ha, hb, hs, ht) = jax.lax.stop_gradient(params["q"])
        posterior = lambda z: Joint((Normal(ha * observed, hs), Normal(hb * z[0], ht)))  # noqa: E731
        prior = lambda z: Joint((Normal(c * z[1], u), Normal(jnp.zeros(1), 1.0)))  # noqa: E731
        decode = lambda z: Normal(d * z[0], v)  # noqa: E731
        if estimator == "stl":
            bound = vae_jax.sticking_the_landing(observed, z, posterior, prior(z), decode(z))
            return jnp.asarray(weights, jnp.float32) @ bound.value.mean(axis=0)
        bound = vae_jax.doubly_reparameterized(observed, z, posterior, prior, decode)
        return jnp.asarray(weights, jnp.float32) @ bound.value

    params = jax.tree.map(jnp.float32, HIERARCHY)
    value, gradient = jax.jit(jax.value_and_grad(mean_bound))(params)
    np.testing.assert_allclose(value, exact(), rtol=1e-5)
    np.testing.assert_allclose(gradient["p"], gradient_of("p"), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(gradient["q"], gradient_of("q"), rtol=2e-3, atol=2e-4)
