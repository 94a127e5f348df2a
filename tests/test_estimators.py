"""The bounds against other libraries' estimators, on the same parameters, draws and data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax

pytestmark = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion")

B, D, Z, S = 3, 6, 2, 7


def parameters():
    rng = np.random.default_rng(0)
    shapes = {"mean": (D, Z), "log_scale": (D, Z), "decoder": (Z, D)}
    return {n: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for n, s in shapes.items()}


def observed():
    return jnp.asarray(np.random.default_rng(1).random((B, D)) < 0.5, jnp.float32)


def encode(params, x):
    return x @ params["mean"], jnp.exp(x @ params["log_scale"])


def our_bound(params, x, noise, bound):
    posterior = vae_jax.Normal(*encode(params, x))
    z = posterior.mean + posterior.scale * noise
    likelihood = vae_jax.Bernoulli(z @ params["decoder"])
    return bound(x, z, posterior, vae_jax.Normal(jnp.zeros(Z), 1.0), likelihood).value


def estimated_elbo(*args):
    return vae_jax.elbo(*args, analytic_kl=False)


def assert_same(got, want):
    """Values and gradients: 1e-5 of the largest entry of each array."""
    for got_array, want_array in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        atol = 1e-5 * np.abs(want_array).max()
        np.testing.assert_allclose(got_array, want_array, rtol=0, atol=atol)


@pytest.fixture
def numpyro():
    """A model and a guide over a batch, and what the guide adds to its mean in one particle."""
    numpyro = pytest.importorskip("numpyro")
    dist = pytest.importorskip("numpyro.distributions")

    def guide(params, x):
        with numpyro.plate("batch", B):
            numpyro.sample("z", dist.Normal(*encode(params, x)).to_event(1))

    def model(params, x):
        with numpyro.plate("batch", B):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(Z), 1).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=z @ params["decoder"]).to_event(1), obs=x)

    def noise(key, params, x):
        _, guide_key = jax.random.split(key)
        trace = numpyro.handlers.trace(numpyro.handlers.seed(guide, guide_key))
        mean, scale = encode(params, x)
        return (trace.get_trace(params, x)["z"]["value"] - mean) / scale

    return model, guide, noise


def test_elbo_is_numpyros_trace_elbo(numpyro):
    from numpyro.infer import Trace_ELBO

    model, guide, noise = numpyro
    key, params, x = jax.random.key(2), parameters(), observed()

    def theirs(params):
        return -Trace_ELBO().loss(jax.random.clone(key), {}, model, guide, params, x)

    eps = noise(jax.random.clone(key), params, x)

    def ours(params):
        return our_bound(params, x, eps, estimated_elbo).sum()

    assert_same(jax.value_and_grad(ours)(params), jax.value_and_grad(theirs)(params))


@pytest.mark.long
def test_iwae_is_numpyros_renyi_elbo(numpyro):
    from numpyro.infer import RenyiELBO

    model, guide, noise = numpyro
    key, params, x = jax.random.key(3), parameters(), observed()
    objective = RenyiELBO(alpha=0, num_particles=S)

    def theirs(params):
        return -objective.loss(jax.random.clone(key), {}, model, guide, params, x)

    _plate_key, particles_key = jax.random.split(jax.random.clone(key))
    eps = jnp.stack([noise(k, params, x) for k in jax.random.split(particles_key, S)])

    def ours(params):
        return our_bound(params, x, eps, vae_jax.iwae).sum()

    assert_same(jax.value_and_grad(ours)(params), jax.value_and_grad(theirs)(params))


@pytest.mark.parametrize(
    ("bound", "sizes"),
    [
        (estimated_elbo, {"sample_size": S}),
        (vae_jax.iwae, {"sample_size": 1, "importance_sample_size": S}),
    ],
    ids=["elbo", "iwae"],
)
def test_bounds_are_tfps_monte_carlo_variational_loss(bound, sizes):
    tfp = pytest.importorskip("tensorflow_probability.substrates.jax")
    tfd = tfp.distributions
    params, x = parameters(), observed()
    drawn = []

    def theirs(params):
        def target_log_prob(z):
            drawn.append(z)
            likelihood = tfd.Independent(tfd.Bernoulli(logits=z @ params["decoder"]), 1)
            return tfd.MultivariateNormalDiag(jnp.zeros(Z)).log_prob(z) + likelihood.log_prob(x)

        posterior = tfd.MultivariateNormalDiag(*encode(params, x))
        loss = tfp.vi.monte_carlo_variational_loss(
            target_log_prob, posterior, seed=jax.random.key(4), **sizes
        )
        return -loss.mean()

    theirs(params)
    mean, scale = encode(params, x)
    eps = (drawn[0].reshape(S, B, Z) - mean) / scale

    def ours(params):
        return our_bound(params, x, eps, bound).mean()

    assert_same(jax.value_and_grad(ours)(params), jax.value_and_grad(theirs)(params))


@pytest.mark.long
def test_log_likelihood_of_numpyro_distributions_is_exact_under_the_exact_posterior():
    """A linear-Gaussian model, whose log p(x) is a Gaussian density."""
    dist = pytest.importorskip("numpyro.distributions")
    rng = np.random.default_rng(5)
    w = jnp.asarray(rng.normal(size=(Z, D)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(B, D)), jnp.float32)
    covariance = w.T @ w + jnp.eye(D)
    exact = dist.MultivariateNormal(jnp.zeros(D), covariance).log_prob(x)
    # The exact posterior makes every weight p(x): no error but rounding.
    precision = w @ w.T + jnp.eye(Z)
    mean = jnp.linalg.solve(precision, w @ x.T).T
    posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
    estimate = vae_jax.log_likelihood(
        jax.random.key(6),
        x,
        posterior,
        dist.Normal(0.0, 1.0),
        lambda z: dist.Normal(z @ w, 1.0),
        num_samples=10,
        chunk_size=5,
    )
    np.testing.assert_allclose(estimate.value, exact, rtol=1e-5)
    assert (estimate.standard_error < 1e-4).all()
