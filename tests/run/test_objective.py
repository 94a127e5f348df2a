"""What the options make of the loss, against the objective written out, and what is reported."""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import networks
from vae_jax.run import objective, options
from vae_jax.run.options import Objective

LATENT_DIM, NUM_PIXELS, STEPS_PER_EPOCH, NUM_EXAMPLES = 3, 6, 10, 50
MODEL = vae_jax.make_vae(
    networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(5,))),
    networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(5,))),
    LATENT_DIM,
)
IMAGES = jnp.asarray(np.random.default_rng(0).integers(256, size=(8, NUM_PIXELS)), jnp.uint8)
PARAMS = MODEL.init(jax.random.key(0), jnp.zeros((1, NUM_PIXELS)))
relaxed = pytest.mark.relax("numpy_dtype_promotion")  # of optax's schedules


def loss_of(chosen, step=0):
    """The loss, and what it reports."""
    loss = objective.make_loss(chosen, MODEL, vae_jax.binarize, STEPS_PER_EPOCH, NUM_EXAMPLES)
    return loss(PARAMS, jax.random.key(1), IMAGES, step=jnp.int32(step))


def written_out(num_draws=()):
    """The bound of the same draws."""
    observe_key, key = jax.random.split(jax.random.key(1))
    x = vae_jax.binarize(observe_key, IMAGES)
    posterior, prior = MODEL.encode(PARAMS, x), MODEL.prior(PARAMS)
    z = vae_jax.sample(key, posterior, num_draws)
    return x, z, posterior, prior, MODEL.decode(PARAMS, z)


def test_the_default_is_make_losss_own():
    loss, bound = vae_jax.make_loss(MODEL, observe=vae_jax.binarize)(
        PARAMS, jax.random.key(1), IMAGES
    )
    actual, reported = loss_of(Objective())
    np.testing.assert_array_equal(actual, loss)
    np.testing.assert_array_equal(reported, bound)


@relaxed
@pytest.mark.parametrize(
    ("chosen", "step", "beta"),
    [
        (Objective(beta=4.0), 0, 4.0),
        (Objective(beta=4.0), 1000, 4.0),
        (Objective(kl_warmup=2), 0, 0.0),
        (Objective(kl_warmup=2), 5, 0.25),
        (Objective(kl_warmup=2, beta=0.5), 10, 0.25),
        (Objective(kl_warmup=2, beta=0.5), 999, 0.5),
    ],
)
def test_the_kl_is_weighted_and_the_elbo_reported(chosen, step, beta):
    bound = vae_jax.elbo(*written_out())
    loss, reported = loss_of(chosen, step)
    np.testing.assert_allclose(loss, -(bound.log_likelihood - beta * bound.kl).mean(), rtol=1e-5)
    np.testing.assert_array_equal(reported, bound)


@relaxed
def test_free_bits_within_a_weighted_kl():
    x, z, posterior, prior, likelihood = written_out()
    bound = vae_jax.elbo(x, z, posterior, prior, likelihood)
    mean = np.asarray(vae_jax.kl_per_dimension(posterior, prior), np.float64).mean(0)
    nats = float(np.median(mean))  # so that some have less and some more
    loss, reported = loss_of(Objective(free_bits=nats, beta=2.0))
    expected = np.mean(bound.log_likelihood) - 2 * np.maximum(mean, nats).sum()
    np.testing.assert_allclose(loss, -expected, rtol=1e-5)
    np.testing.assert_array_equal(reported, bound)


def test_the_iwae_reports_the_elbo_beside_itself():
    of = written_out(5)
    loss, reported = loss_of(Objective(objective="iwae", num_draws=5))
    iwae, elbo = vae_jax.iwae(*of), vae_jax.elbo(*of, analytic_kl=False)
    np.testing.assert_allclose(loss, -iwae.value.mean(), rtol=1e-6)
    assert set(reported) == {"elbo", "iwae", "log_likelihood", "kl"}
    np.testing.assert_array_equal(reported["iwae"], iwae.value)
    np.testing.assert_allclose(reported["elbo"], elbo.value.mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("chosen", "bound_of"),
    [
        ({"objective": "miwae", "num_groups": 2}, functools.partial(vae_jax.miwae, num_groups=2)),
        ({"objective": "ciwae", "elbo_share": 0.3}, functools.partial(vae_jax.ciwae, beta=0.3)),
        ({"objective": "renyi", "alpha": 0.5}, functools.partial(vae_jax.renyi, alpha=0.5)),
    ],
)
def test_bounds_between_the_two(chosen, bound_of):
    of = written_out(4)
    loss, reported = loss_of(Objective(num_draws=4, **chosen))
    expected = bound_of(*of).value
    np.testing.assert_allclose(loss, -expected.mean(), rtol=1e-6)
    np.testing.assert_array_equal(reported[chosen["objective"]], expected)
    elbo = vae_jax.elbo(*of, analytic_kl=False).value.mean(axis=0)
    np.testing.assert_allclose(reported["elbo"], elbo, rtol=1e-5)


def _distance_to_identity(covariance, off, on):
    at = np.eye(len(covariance), dtype=bool)
    return off * (covariance[~at] ** 2).sum() + on * ((covariance[at] - 1) ** 2).sum()


def _log_q(z, mean, scale):
    """Of each draw and latent under each example, [B, B, Z]."""
    return stats.norm(mean, scale).logpdf(z[:, None])


@relaxed
@pytest.mark.parametrize("penalty", ["total_correlation", "dip_vae_i", "dip_vae_ii"])
def test_a_penalty_is_subtracted_and_the_elbo_reported(penalty):
    x, z, posterior, prior, likelihood = written_out()
    bound = vae_jax.elbo(x, z, posterior, prior, likelihood)
    mean, scale = (np.asarray(a, np.float64) for a in (posterior.mean, posterior.scale))
    of_means = np.cov(mean.T, bias=True)
    if penalty == "total_correlation":
        weights = np.where(np.eye(8, dtype=bool), 1 / NUM_EXAMPLES, 49 / (NUM_EXAMPLES * 7))
        log_q = _log_q(np.asarray(z, np.float64), mean, scale)
        each = np.log((weights[..., None] * np.exp(log_q)).sum(axis=1)).sum(axis=-1)
        paid = np.mean(np.log((weights * np.exp(log_q.sum(axis=-1))).sum(axis=1)) - each)
    elif penalty == "dip_vae_i":
        paid = _distance_to_identity(of_means, 1, 10)
    else:
        paid = _distance_to_identity(of_means + np.diag((scale**2).mean(axis=0)), 1, 1)
    chosen = Objective(penalty=penalty, penalty_weight=3.0, beta=0.5)
    loss, reported = loss_of(chosen)
    expected = np.mean(bound.log_likelihood - 0.5 * bound.kl) - 3 * paid
    np.testing.assert_allclose(loss, -expected, rtol=1e-5)
    np.testing.assert_array_equal(reported, bound)


@relaxed
@pytest.mark.parametrize("penalty", ["mmd", "sliced_wasserstein"])
def test_codes_are_drawn_to_where_the_priors_draws_lie(penalty):
    """The penalty is smaller for the codes N(0, I) than for the same moved by two, of any step."""
    prior = vae_jax.Normal(jnp.zeros(LATENT_DIM), 1.0)
    z = jax.random.normal(jax.random.key(5), (200, LATENT_DIM))
    of_batch = objective._of_batch(Objective(penalty=penalty, penalty_weight=2.0), NUM_EXAMPLES)
    near, far = (float(of_batch(None, z + by, None, prior, jnp.int32(3))) for by in (0.0, 2.0))
    assert abs(near) < 0.1 * far
    each = vae_jax.Normal(jnp.zeros((200, LATENT_DIM)) + 2.0, 1.0)  # a conditional prior
    assert float(of_batch(None, z + 2.0, None, each, jnp.int32(3))) < 0.1 * far


def test_draws_and_estimated_kls():
    of = written_out(3)
    for gradient, analytic_kl in (("reparameterized", True), ("estimated_kl", False)):
        loss, reported = loss_of(Objective(num_draws=3, gradient=gradient))
        bound = functools.partial(vae_jax.elbo, analytic_kl=analytic_kl)(*of)
        np.testing.assert_array_equal(reported, bound)
        np.testing.assert_allclose(loss, -bound.value.mean(), rtol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "gradient", [*options.GRADIENTS["elbo"][1:], *options.GRADIENTS["iwae"][1:]]
)
def test_gradients_have_the_value_of_their_bound(gradient):
    """And are finite, and not the reparameterised one."""
    name = "elbo" if gradient in options.GRADIENTS["elbo"] else "iwae"
    of = Objective(objective=name, num_draws=4, gradient=gradient)
    plain = Objective(objective=name, num_draws=4)
    values, both = zip(
        *(
            jax.value_and_grad(
                lambda params, o=o: objective.make_loss(
                    o, MODEL, vae_jax.binarize, STEPS_PER_EPOCH, NUM_EXAMPLES
                )(params, jax.random.key(1), IMAGES, step=jnp.int32(0))[0]
            )(PARAMS)
            for o in (of, plain)
        ),
        strict=True,
    )
    (loss, expected), (gradients, first) = values, both
    rtol = 1e-5 if name == "iwae" else 0.1  # an estimated KL
    np.testing.assert_allclose(loss, expected, rtol=rtol)
    same = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), gradients, first))
    assert not same
    assert jax.tree.all(jax.tree.map(lambda a: bool(np.isfinite(a).all()), gradients))


def test_each_choice_of_the_options_has_its_bound():
    pairs = {(of, gradient) for of, each in options.GRADIENTS.items() for gradient in each}
    assert pairs == set(objective._BOUNDS)
    literal = Objective.__annotations__["objective"]
    assert set(typing.get_args(literal)) == {name for name, _ in pairs}
    literal, none = typing.get_args(Objective.__annotations__["gradient"])
    assert set(typing.get_args(literal)) == {gradient for _, gradient in pairs}
    assert none is type(None)


def test_what_is_said_of_it():
    assert objective.described(Objective()) == ""
    assert objective.described(Objective(gradient="reparameterized")) == ""
    said = objective.described(Objective(gradient="sticking_the_landing"))
    assert said.startswith("objective: elbo, sticking_the_landing gradient")
    said = objective.described(Objective(num_draws=5, beta=4.0, kl_warmup=3, free_bits=0.2))
    assert said == (
        "objective: elbo of 5 draws, reparameterized gradient; beta 4; the KL's weight rising over "
        "3 epochs; 0.2 nats of each latent free. What is reported is the ELBO, and log p(x)"
    )
    said = objective.described(Objective(objective="ciwae", num_draws=8, elbo_share=0.05))
    assert said.startswith("objective: ciwae (elbo share 0.05) of 8 draws, reparameterized")
    said = objective.described(Objective(penalty="dip_vae_i", penalty_weight=10.0))
    assert "gradient; dip vae i at 10. What" in said
