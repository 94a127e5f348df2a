"""Deep Markov models: against the Kalman filter, and that padding changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import Incomplete, MarkovChain, Normal, networks

MODEL = vae_jax.make_state_space(
    networks.Smoother(6),
    networks.Combiner(),
    networks.GatedTransition(4),
    networks.BernoulliDecoder(networks.MLP((3,), (5,)), event_ndims=2),
    latent_dim=2,
    length=7,
)
LENGTHS = (7, 3, 5)


def sequences():
    numbers = np.random.default_rng(0)
    return [numbers.integers(2, size=(length, 3)).astype(np.float32) for length in LENGTHS]


def padded(length):
    return jnp.stack(
        [
            np.concatenate([x, np.full((length - len(x), 3), np.nan, np.float32)])
            for x in sequences()
        ]
    )


PARAMS = jax.tree.map(
    # Away from where the posterior is the prior.
    lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape),
    MODEL.init(jax.random.key(0), padded(7)),
)


def bound_of(params, x, z, gradient="elbo"):
    posterior, prior = MODEL.encode(params, x), MODEL.prior(params)
    return getattr(vae_jax, gradient)(x, z, posterior, prior, MODEL.decode(params, z))


def _draws(x):
    return vae_jax.sample(jax.random.key(1), MODEL.encode(PARAMS, x))


def test_padding_changes_neither_the_bound_nor_its_gradient():
    """Of a padded batch, against the sequences one by one at the same draws."""

    @jax.jit
    def in_batch(params, x):
        def total(params):
            noise = jax.random.normal(jax.random.key(1), (3, 9, 2))
            z = _reparameterised(params, x, noise[:, : x.shape[1]])
            return bound_of(params, x, z).value

        value, pullback = jax.vjp(total, params)
        return value, pullback(jnp.ones_like(value))[0]

    noise = jax.random.normal(jax.random.key(1), (3, 9, 2))
    values, gradients = [], []
    for row, x in enumerate(sequences()):
        x = jnp.asarray(x)[None]

        def one(params, x=x, row=row):
            z = _reparameterised(params, x, noise[row : row + 1, : x.shape[1]])
            return bound_of(params, x, z).value.sum()

        value, gradient = jax.jit(jax.value_and_grad(one))(PARAMS)
        values.append(value)
        gradients.append(gradient)
    alone = jax.tree.map(lambda *leaves: sum(leaves), *gradients)
    for length in (7, 9):
        together, gradient = in_batch(PARAMS, padded(length))
        np.testing.assert_allclose(together, np.stack(values), rtol=1e-5)
        for found, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            assert np.isfinite(found).all()


def _reparameterised(params, x, noise):
    """The posterior's draw by given noise [B, T, Z], step by step and written out."""
    chain = MODEL.encode(params, x)
    z, steps = jnp.zeros((len(x), 2)), []
    for t in range(x.shape[1]):
        step = chain.step(z, jax.tree.map(lambda a, t=t: a[:, t], chain.inputs))
        z = step.mean + step.scale * noise[:, t]
        steps.append(z)
    return jnp.stack(steps, axis=1)


def test_what_stands_behind_a_mask_is_never_seen():
    """A value within a sequence that is missing: its likelihood is left out, and nothing is NaN."""
    x = padded(7).at[0, 2, 1].set(jnp.nan)
    z = _draws(x)
    with_all, without = (bound_of(PARAMS, x, z).log_likelihood for x in (padded(7), x))
    logits = np.asarray(MODEL.decode(PARAMS, z).distribution.logits, np.float64)[0, 2, 1]
    log_p = stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(int(padded(7)[0, 2, 1]))
    np.testing.assert_allclose(with_all[0] - without[0], log_p, rtol=1e-4)
    gradient = jax.grad(lambda params: bound_of(params, x, z).value.sum())(PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


LOADING, DRIFT, NOISE = np.array([[1.0, 0.3]]), np.array([[0.9, 0.2], [-0.1, 0.7]]), 0.5


def _linear(length):
    """z_t = A z_(t-1) + e, x_t = C z_t + noise: a prior, and the joint Gaussian of x, written out."""
    prior = MarkovChain(
        lambda z, _: Normal(z @ jnp.asarray(DRIFT.T, jnp.float32), 1.0),
        jnp.array([1.0, -1.0]),
        length=length,
    )
    powers = [np.linalg.matrix_power(DRIFT, t) for t in range(length + 1)]
    mean = np.concatenate([LOADING @ powers[t] @ [1.0, -1.0] for t in range(1, length + 1)])
    covariance = np.zeros((length, length))
    for s in range(1, length + 1):
        for t in range(1, length + 1):
            covariance[s - 1, t - 1] = sum(
                (LOADING @ powers[s - k] @ powers[t - k].T @ LOADING.T).item()
                for k in range(1, min(s, t) + 1)
            )
    truth = stats.multivariate_normal(mean, covariance + NOISE**2 * np.eye(length))
    return prior, truth


def test_the_likelihood_of_a_linear_state_space_is_the_exact_one():
    length = 4
    prior, truth = _linear(length)
    x = np.random.default_rng(1).normal(size=(3, length, 1)).astype(np.float32)
    posterior = MarkovChain(
        lambda z, x: Normal(0.7 * z @ jnp.asarray(DRIFT.T, jnp.float32) + 0.3 * x, 0.8),
        jnp.array([1.0, -1.0]),
        jnp.asarray(x),
    )

    def decode(z):
        return Normal(z @ jnp.asarray(LOADING.T, jnp.float32), NOISE, event_ndims=2)

    found = jax.jit(
        lambda key: vae_jax.log_likelihood(
            key, jnp.asarray(x), posterior, prior, decode, num_samples=20_000, chunk_size=1000
        )
    )(jax.random.key(2))
    error = np.abs(found.value - truth.logpdf(x[..., 0]))
    assert (error < 4 * found.standard_error).all()
    assert (found.standard_error < 0.05).all()
    # The closed form given the draws before has the mean of the estimate from the draws.
    z = vae_jax.sample(jax.random.key(3), posterior, 4000)
    closed, drawn = (
        vae_jax.elbo(jnp.asarray(x), z, posterior, prior, decode(z), analytic_kl=analytic).kl
        for analytic in (True, False)
    )
    spread = np.std(closed - drawn, axis=0) / np.sqrt(4000)
    assert (np.abs(closed.mean(0) - drawn.mean(0)) < 4 * spread).all()
    assert (np.std(closed, axis=0) < np.std(drawn, axis=0)).all()


def test_draws_of_a_chain_have_its_moments():
    prior, _ = _linear(5)
    z = np.asarray(vae_jax.sample(jax.random.key(4), prior, 20_000), np.float64)
    mean, covariance = np.array([1.0, -1.0]), np.zeros((2, 2))
    for t in range(5):
        mean, covariance = DRIFT @ mean, DRIFT @ covariance @ DRIFT.T + np.eye(2)
        np.testing.assert_allclose(z[:, t].mean(axis=0), mean, atol=0.06)
        np.testing.assert_allclose(np.cov(z[:, t].T), covariance, atol=0.12)
    longer = _linear(8)[0]
    np.testing.assert_array_equal(
        vae_jax.sample(jax.random.key(4), longer, 3)[:, :5],
        vae_jax.sample(jax.random.key(4), prior, 3),
    )


@pytest.mark.parametrize("gradient", ["elbo", "sticking_the_landing", "iwae"])
def test_bounds_and_gradients_take_chains(gradient):
    x = padded(7)
    shape = 4 if gradient == "iwae" else ()
    posterior = MODEL.encode(PARAMS, x)

    def mean(params):
        posterior = MODEL.encode(params, x)
        z = vae_jax.sample(jax.random.key(1), posterior, shape)
        return bound_of(params, x, z, gradient).value.mean()

    value, found = jax.jit(jax.value_and_grad(mean))(PARAMS)
    z = vae_jax.sample(jax.random.key(1), posterior, 4000)
    log_w = bound_of(PARAMS, x, z).log_likelihood
    assert np.isfinite(value)
    assert log_w.shape == (4000, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found["encoder"]))


def test_a_loss_and_a_generated_sequence():
    loss = vae_jax.make_loss(MODEL, num_draws=2, objective=vae_jax.iwae)
    value, bound = jax.jit(loss)(PARAMS, jax.random.key(0), padded(7))
    assert np.isfinite(value)
    assert bound.kl.shape == (3,)
    drawn = vae_jax.generate(jax.random.key(0), MODEL, PARAMS, 4)
    assert drawn.mean.shape == (4, 7, 3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no inputs and no length"):
        MarkovChain(lambda z, _: Normal(z, 1.0), jnp.zeros(2))
    chain = MarkovChain(lambda z, _: Normal(z, 1.0), jnp.zeros(2), length=3)
    with pytest.raises(ValueError, match=r"z has shape \(4, 3, 5\) but the chain \(3, 2\)"):
        chain.log_prob(jnp.zeros((4, 3, 5)))
    with pytest.raises(TypeError, match="a state space is unconditional"):
        MODEL.encode(PARAMS, padded(7), jnp.zeros(3, jnp.int32))
    with pytest.raises(TypeError, match="has no density of an entry alone"):
        Incomplete(vae_jax.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
