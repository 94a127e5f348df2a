"""Each posterior and each prior learns a truth that it contains, to 0.02 nats; and their heads.

The truths are SciPy's or written out, their draws NumPy's; the gap is a divergence, which no
estimate of the library's can lower.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from scipy import stats

import vae_jax
from vae_jax import networks

FACTOR = np.array([[0.9, 0.0], [-1.1, 0.5]])
NORTH = np.array([0.48, 0.6, 0.64])
# For optax's schedules, and the truths as they are written out.
pytestmark = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion")


def gaussian(z):
    """N((0.5, -1), FACTOR FACTOR^T)."""
    noise = (z - jnp.array([0.5, -1.0])) @ jnp.asarray(np.linalg.inv(FACTOR).T, jnp.float32)
    return -0.5 * jnp.square(noise).sum(-1) - np.log(2 * np.pi * FACTOR[0, 0] * FACTOR[1, 1])


def banana(z):
    """z2 about z1^2 / 2, z1 standard normal."""
    noise = jnp.stack([z[..., 0], (z[..., 1] - jnp.square(z[..., 0]) / 2) / 0.5], -1)
    return -0.5 * jnp.square(noise).sum(-1) - np.log(2 * np.pi * 0.5)


def bent(z):
    """A planar map of N(0, I), y1 = z1 + 1.5 tanh(2 z1), by its own inverse: bisection in NumPy."""
    low, high = z[..., 0] - 1.5, z[..., 0] + 1.5
    for _ in range(30):
        middle = (low + high) / 2
        below = middle + 1.5 * jnp.tanh(2 * middle) < z[..., 0]
        low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
    first = jax.lax.stop_gradient(low)
    slope = 1 + 3 / jnp.square(jnp.cosh(2 * first))
    first = first + (z[..., 0] - first - 1.5 * jnp.tanh(2 * first)) / slope  # its derivative too
    slope = 1 + 3 / jnp.square(jnp.cosh(2 * first))
    return -0.5 * (first**2 + z[..., 1] ** 2) - jnp.log(2 * np.pi * slope)


def spherical(z):
    """In proportion to (1 + north z)^5: 6 / (4 pi 2^5) of it."""
    cosine = z @ jnp.asarray(NORTH, jnp.float32)
    return 5 * jnp.log1p(cosine) + np.log(6 / (4 * np.pi)) - 5 * np.log(2)


def network(num):
    return networks.MLP((num,), hidden=())


POSTERIORS = {
    "full": (networks.FullCovarianceEncoder(network(5), 2), gaussian),
    "planar": (
        networks.FlowEncoder(network(5), 2, [networks.PlanarLayer(2) for _ in range(3)]),
        bent,
    ),
    "iaf": (
        networks.FlowEncoder(network(5), 2, [networks.AutoregressiveLayer(2, (16,))]),
        gaussian,
    ),
    "coupling": (
        networks.FlowEncoder(
            network(5), 2, [networks.CouplingLayer(2, (16,), odd=odd) for odd in (False, True)]
        ),
        banana,
    ),
    "power_spherical": (networks.PowerSphericalEncoder(network(4), 3), spherical),
}


def trained(loss, params, steps=1500, rate=2e-2):
    """The parameters after Adam, in one program."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, key), state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return params


@pytest.mark.parametrize("size", [3, 30, 300])
def test_a_sphere_of_any_dimension_starts_at_directions_as_sure(size):
    encoder = networks.PowerSphericalEncoder(network(size + 1), size)
    x = jnp.ones((1, 1))
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), x)
    params = jax.tree.map(lambda a: jnp.full(a.shape, 1e-3, a.dtype), shapes)
    drawn = vae_jax.sample(jax.random.key(1), encoder.apply(params, x), 4000)
    length = np.linalg.norm(np.mean(drawn, axis=0))
    assert 0.4 < length < 0.65  # of the mean; 1 is a point, and 0 the whole sphere


@pytest.mark.long
@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_learns_a_truth_that_it_contains(name):
    encoder, truth = POSTERIORS[name]
    x = jnp.ones((1, 1))

    def gap(params, key, num=64):
        z, posterior = vae_jax.sample_scored(key, encoder.apply(params, x), num)
        return posterior.log_prob(z) - truth(z)

    @jax.jit
    def run():
        params = encoder.init(jax.random.key(0), x)
        params = trained(lambda params, key: gap(params, key).mean(), params)
        return gap(params, jax.random.key(2), 4000)

    found = np.asarray(run(), np.float64)
    assert -4 * found.std() / np.sqrt(found.size) < found.mean() < 0.02


MEANS, SCALES = np.array([[-2.0, 0.0], [1.5, 1.0], [0.5, -2.0]]), np.array([0.5, 0.7, 0.4])
SHARES = np.array([0.5, 0.3, 0.2])


def of_mixture(rng, num):
    which = rng.choice(3, size=num, p=SHARES)
    return MEANS[which] + SCALES[which, None] * rng.normal(size=(num, 2))


def mixture_log_prob(z):
    each = [stats.norm.logpdf(z, m, s).sum(-1) for m, s in zip(MEANS, SCALES, strict=True)]
    return scipy.special.logsumexp(np.stack(each, -1) + np.log(SHARES), axis=-1)


def of_banana(rng, num):
    first, second = rng.normal(size=(2, num))
    return np.stack([first, first**2 / 2 + 0.5 * second], -1)


def prior_gap(prior, params, draws, log_prob, rate=2e-2):
    """E[log truth - log prior] of other draws than those that it learned from."""
    rng = np.random.default_rng(0)
    data, others = (jnp.asarray(draws(rng, num), jnp.float32) for num in (20_000, 4000))

    def loss(params, key):
        rows = jax.random.randint(key, (256,), 0, len(data))
        return -vae_jax.log_prob(prior(params), data[rows]).mean()

    found = jax.jit(lambda p: vae_jax.log_prob(prior(trained(loss, p, rate=rate)), others))(params)
    difference = log_prob(np.asarray(others, np.float64)) - np.asarray(found, np.float64)
    return difference.mean()


def test_a_mixture_prior_learns_a_mixture():
    prior = networks.MixturePrior(2, 6)
    params = prior.init(jax.random.key(0))
    assert -0.01 < prior_gap(prior.apply, params, of_mixture, mixture_log_prob) < 0.02


def test_a_flow_prior_learns_a_curve():
    layers = [networks.CouplingLayer(2, (16,), odd=odd) for odd in (False, True)]
    prior = networks.FlowPrior(2, layers)

    def log_prob(z):
        return stats.norm.logpdf(z[:, 0]) + stats.norm.logpdf(z[:, 1], z[:, 0] ** 2 / 2, 0.5)

    assert -0.01 < prior_gap(prior.apply, prior.init(jax.random.key(0)), of_banana, log_prob) < 0.02


def test_a_vamp_prior_learns_a_mixture_of_its_posteriors():
    """Of an encoder q(z|u) = N(u, 0.6^2): the truth has equal shares and its scale."""
    model = vae_jax.VAE(
        lambda key, x, label=None: {},
        lambda params, x, label=None: vae_jax.Normal(x, 0.6),
        None,
        None,
    )
    model = vae_jax.with_vamp_prior(model, 3)
    means = jnp.asarray(MEANS, jnp.float32)
    params = model.init(jax.random.key(0), 0.3 * means)

    def draws(rng, num):
        return MEANS[rng.choice(3, size=num)] + 0.6 * rng.normal(size=(num, 2))

    def log_prob(z):
        each = [stats.norm.logpdf(z, m, 0.6).sum(-1) for m in MEANS]
        return scipy.special.logsumexp(each, axis=0) - np.log(3)

    assert -0.01 < prior_gap(model.prior, params, draws, log_prob) < 0.02


def test_pseudo_inputs_start_at_the_batch():
    inner = vae_jax.make_vae(
        networks.Encoder(network(4)), networks.BernoulliDecoder(network(3)), latent_dim=2
    )
    model = vae_jax.with_vamp_prior(inner, 5, noise=1e-3)
    x = jnp.asarray(np.eye(3), jnp.float32)
    params = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(params["pseudo_inputs"], x[np.arange(5) % 3], atol=1e-2)
    posterior = inner.encode(params, params["pseudo_inputs"])
    np.testing.assert_array_equal(model.prior(params).components.mean, posterior.mean)
    with pytest.raises(ValueError, match="num_components is 0"):
        vae_jax.with_vamp_prior(inner, 0)
    with pytest.raises(TypeError, match="a VampPrior is unconditional"):
        model.init(jax.random.key(0), x, jnp.zeros(3, jnp.int32))


def test_outputs_that_do_not_suit_the_head():
    x = jnp.ones((2, 1))
    for head, said in (
        (networks.FullCovarianceEncoder(network(4), 2), "has 4 outputs but .* takes 5"),
        (networks.PowerSphericalEncoder(network(4), 2), "has 4 outputs but .* takes 3"),
        (networks.FlowEncoder(network(4), 2, [networks.PlanarLayer(2)]), "takes more than 4"),
        (
            networks.FlowEncoder(network(5), 2, [networks.AutoregressiveLayer(2, (1,))]),
            "make it as wide",
        ),
        (networks.FlowEncoder(network(5), 1, [networks.CouplingLayer(1)]), "latent_dim is 1"),
    ):
        with pytest.raises(ValueError, match=said):
            jax.eval_shape(head.init, jax.random.key(0), x)


def test_an_unconditional_prior_is_called_with_nothing_and_a_conditional_one_with_the_label():
    parts = networks.Encoder(network(4)), networks.BernoulliDecoder(network(3))
    model = vae_jax.make_vae(*parts, 2, prior=networks.MixturePrior(2, 3))
    params = model.init(jax.random.key(0), jnp.zeros((1, 3)))
    assert model.prior(params).shape == (2,)
    assert vae_jax.generate(jax.random.key(0), model, params, 4).logits.shape == (4, 3)
    model = vae_jax.make_vae(*parts, 2, prior=networks.StandardPrior(2))
    with pytest.raises(TypeError, match="label is None but the prior is conditional"):
        model.prior(params)
