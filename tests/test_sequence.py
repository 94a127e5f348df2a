"""Deep Markov models: against the Kalman filter, and that padding changes nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import MarkovChain, Masked, Normal, networks

MODEL = vae_jax.make_state_space(
    networks.Smoother(6),
    networks.Combiner(),
    networks.GatedTransition(4),
    networks.BernoulliDecoder(networks.MLP((3,), (5,)), event_ndims=2),
    latent_dim=2,
    length=5,
)
LENGTHS = (5, 3)


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
    MODEL.init(jax.random.key(0), padded(5)),
)


@jax.jit
def bound_of(params, x, z):
    posterior, prior = MODEL.encode(params, x), MODEL.prior(params)
    return vae_jax.elbo(x, z, posterior, prior, MODEL.decode(params, z))


@jax.jit
def draws(x):
    return vae_jax.sample(jax.random.key(1), MODEL.encode(PARAMS, x))


def test_padding_changes_neither_draws_nor_bound_nor_gradient():
    """Of a sequence in a padded batch, against the sequence by itself."""

    @jax.jit
    def found(params, x, z):
        return jax.value_and_grad(lambda params: bound_of(params, x, z).value[-1])(params)

    x, short = padded(5), jnp.asarray(sequences()[-1])[None]
    np.testing.assert_allclose(draws(x[-1:])[:, : short.shape[1]], draws(short), rtol=1e-5)
    z = jax.random.normal(jax.random.key(2), (2, 5, 2))
    value, gradient = found(PARAMS, x, z)
    expected, alone = found(PARAMS, short, z[-1:, : short.shape[1]])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(alone["encoder"])) > 0.01


class Growing(nn.Module):
    """A transition whose draws are far out after some steps, and whose scale is none there."""

    @nn.compact
    def __call__(self, z):
        turn = nn.Dense(z.shape[-1], kernel_init=nn.initializers.orthogonal())
        return Normal(1.2 * turn(z), jnp.exp(-jnp.abs(z) / 100))


def test_padding_in_which_the_prior_explodes_changes_nothing():
    model = vae_jax.make_state_space(
        networks.Smoother(6),
        networks.Combiner(),
        Growing(),
        networks.BernoulliDecoder(networks.MLP((3,), (5,)), event_ndims=2),
        latent_dim=2,
        length=60,
    )
    x = jnp.full((1, 60, 3), jnp.nan).at[:, :3].set(sequences()[1])
    params = model.init(jax.random.key(0), x)

    @jax.jit
    def found(params, x, z):
        def bound(params):
            posterior, prior = model.encode(params, x), model.prior(params)
            return vae_jax.elbo(x, z, posterior, prior, model.decode(params, z)).value[0]

        return jax.value_and_grad(bound)(params)

    z = vae_jax.sample(jax.random.key(1), model.encode(params, x))
    assert np.abs(z[:, -1]).max() > 10_000
    value, gradient = found(params, x, z)
    expected, alone = found(params, x[:, :3], z[:, :3])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("times", [1.0, 10.0])
def test_a_gated_transition_does_not_explode(times):
    """Whatever its parameters: over 300 steps from a draw far out no scale or mean runs away."""
    transition = networks.GatedTransition(16)
    params = transition.init(jax.random.key(0), jnp.zeros(8))

    def far(leaf):
        return times * (leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape))

    params = jax.tree.map(far, params)
    step = jax.tree_util.Partial(lambda params, z, _: transition.apply(params, z), params)
    chain = MarkovChain(step, jnp.full(8, 300.0), length=300)
    z = vae_jax.sample(jax.random.key(1), chain, 20)
    assert np.abs(z).max() < 1e6


def test_what_stands_behind_a_mask_is_never_seen():
    """A value within a sequence that is missing: its likelihood is left out, and nothing is NaN."""
    x = padded(5).at[0, 2, 1].set(jnp.nan)
    z = draws(x)
    with_all, without = (bound_of(PARAMS, x, z).log_likelihood for x in (padded(5), x))
    logits = np.asarray(MODEL.decode(PARAMS, z).distribution.logits, np.float64)[0, 2, 1]
    log_p = stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(int(padded(5)[0, 2, 1]))
    np.testing.assert_allclose(with_all[0] - without[0], log_p, rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda params: bound_of(params, x, z).value.sum()))(PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_padding_changes_nothing_of_what_is_told():
    """A sequence beside its columns, in a padded batch and by itself; and they are told."""

    def model_of(length):
        condition = networks.ColumnsCondition((0, 3))
        emission = networks.MLP((3,), (5,), condition=condition)
        return vae_jax.make_state_space(
            networks.Smoother(6, condition=condition),
            networks.Combiner(),
            networks.GatedTransition(4, condition=condition),
            networks.BernoulliDecoder(emission, event_ndims=2),
            latent_dim=2,
            length=length,
        )

    x, label = padded(5), jnp.array([[0.3, 1.0], [-1.2, 2.0]])
    params = model_of(5).init(jax.random.key(0), x, label)
    z = jax.random.normal(jax.random.key(1), (4, 2, 5, 2))  # of each, four

    def terms(model, x, z, label):
        of = model.encode(params, x, label), model.prior(params, label)
        return vae_jax.elbo(x, z, *of, model.decode(params, z, label))

    found = terms(model_of(5), x, z, label)
    alone = terms(model_of(3), x[1:, :3], z[:, 1:, :3], label[1:])
    other = terms(model_of(5), x, z, label.at[1, 1].set(0))
    for one, short, of_other in zip(found, alone, other, strict=True):
        assert one.shape == (4, 2)
        np.testing.assert_allclose(one[:, 1:], short, rtol=1e-5)
        np.testing.assert_array_equal(one[:, 0], of_other[:, 0])
        assert (np.abs(one[:, 1] - of_other[:, 1]) > 1e-3).all()


LOADING, DRIFT, NOISE = np.array([[1.0, 0.3]]), np.array([[0.9, 0.2], [-0.1, 0.7]]), 0.5


def _linear(length):
    """z_t = A z_(t-1) + e, x_t = C z_t + noise: the prior, and the Gaussian of x, written out."""
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
    assert (found.standard_error < 0.1).all()
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


def test_a_loss_and_a_generated_sequence():
    loss = vae_jax.make_loss(MODEL, num_draws=3, objective=vae_jax.doubly_reparameterized)
    both = jax.value_and_grad(lambda params, key, x: loss(params, key, x)[0])
    value, gradient = jax.jit(both)(PARAMS, jax.random.key(0), padded(5))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    drawn = vae_jax.generate(jax.random.key(0), MODEL, PARAMS, 4)
    assert drawn.mean.shape == (4, 5, 3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no inputs and no length"):
        MarkovChain(lambda z, _: Normal(z, 1.0), jnp.zeros(2))
    chain = MarkovChain(lambda z, _: Normal(z, 1.0), jnp.zeros(2), length=3)
    with pytest.raises(ValueError, match=r"z has shape \(4, 3, 5\) but the chain \(3, 2\)"):
        chain.log_prob(jnp.zeros((4, 3, 5)))
    with pytest.raises(TypeError, match="a label was given but the network is unconditional"):
        MODEL.encode(PARAMS, padded(5), jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match="a label of 0 axes, float32: give floats"):
        MODEL.prior(PARAMS, jnp.zeros(()))
    with pytest.raises(TypeError, match="has no density of an entry alone"):
        Masked(vae_jax.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))


def test_a_class_is_no_label_of_a_state_space():
    """Of as many sequences as steps it would pass for a class of each step."""
    model = vae_jax.make_state_space(
        networks.Smoother(4, condition=networks.ClassCondition(5)),
        networks.Combiner(),
        networks.GatedTransition(4, condition=networks.ClassCondition(5)),
        networks.BernoulliDecoder(networks.MLP((3,), ()), event_ndims=2),
        2,
        4,
    )
    with pytest.raises(TypeError, match=r"give floats \[\*b, C\]"):
        model.init(jax.random.key(0), jnp.zeros((4, 4, 3)), jnp.arange(4))
