"""The penalties against NumPy, enumeration and closed forms, and what a loss makes of them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special, stats

import vae_jax
from vae_jax import Normal

RNG = np.random.default_rng(0)
NUM, LATENT_DIM = 6, 3
MEAN, SCALE = RNG.normal(size=(NUM, LATENT_DIM)), np.exp(RNG.normal(size=(NUM, LATENT_DIM)) / 2)
Z = MEAN + SCALE * RNG.normal(size=(NUM, LATENT_DIM))


def normal(rows=slice(None)):
    return Normal(MEAN[rows].astype(np.float32), SCALE[rows].astype(np.float32))


def draws(rows=slice(None)):
    return jnp.asarray(Z[rows], jnp.float32)


def within_four_errors(samples, expected):
    error = np.std(samples, ddof=1) / math.sqrt(len(samples))
    assert abs(np.mean(samples) - expected) < 4 * error
    return error


# The weight of the KL


def test_weighted_kl_is_the_objective_of_the_beta_vae():
    log_likelihood, kl = RNG.normal(size=(2, 5)).astype(np.float32)
    actual = log_likelihood - kl - vae_jax.weighted_kl(jnp.asarray(kl), 4)
    np.testing.assert_allclose(actual, log_likelihood - 4 * kl, rtol=1e-5)
    np.testing.assert_array_equal(vae_jax.weighted_kl(jnp.asarray(kl), 1.0), np.zeros(5))


@pytest.mark.relax("numpy_dtype_promotion")
def test_schedules_of_optax_serve():
    beta = optax.linear_schedule(0.0, 1.0, 4)
    objective = [10 - vae_jax.weighted_kl(jnp.float32(10), beta(step)) for step in range(6)]
    np.testing.assert_allclose(objective, 20 - 10 * np.array([0, 0.25, 0.5, 0.75, 1, 1]))


@pytest.mark.parametrize(
    ("num_steps", "cycles", "ramp"), [(100, 4, 0.5), (10, 3, 1.0), (7, 7, 0.2)]
)
def test_the_cycles_are_those_of_the_paper(num_steps, cycles, ramp):
    t = np.arange(1, num_steps + 1)
    tau = np.mod(t - 1, math.ceil(num_steps / cycles)) / (num_steps / cycles)
    expected = np.where(tau <= ramp, tau / ramp, 1)
    schedule = jax.jit(vae_jax.cyclical_schedule(num_steps, cycles, ramp))
    np.testing.assert_allclose(schedule(jnp.arange(num_steps)), expected, rtol=1e-5)


def test_cycles_that_cannot_be():
    with pytest.raises(ValueError, match="num_cycles is 9: it must be from 1 to num_steps, 8"):
        vae_jax.cyclical_schedule(8, 9)
    with pytest.raises(ValueError, match=r"ramp is 0: it must be a share of a cycle"):
        vae_jax.cyclical_schedule(8, 2, 0)


def test_capacity_holds_the_kl_where_it_is_to_be():
    def objective(kl):  # the log-likelihood is a reward of one nat for each nat of KL
        return kl - kl - vae_jax.kl_capacity(kl, capacity=5.0, weight=3.0)

    kl = jnp.array([0.0, 4.0, 5.0, 9.0])
    np.testing.assert_allclose(objective(kl), kl - 3 * np.abs(kl - 5), rtol=1e-6)
    gradient = jax.vmap(jax.grad(objective))(jnp.array([4.0, 6.0]))
    np.testing.assert_allclose(gradient, [1 + 3, 1 - 3], rtol=1e-6)


def test_free_bits_are_the_larger_of_the_two_over_the_batch():
    kl = RNG.gamma(1.0, size=(8, 4)).astype(np.float32) * np.array([0.1, 0.5, 1, 3], np.float32)
    expected = -np.maximum(kl.mean(0, dtype=np.float64), 0.6).sum()
    actual = -kl.sum(-1).mean() - vae_jax.free_bits(jnp.asarray(kl), 0.6)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # The last axis is that of the latents, however many draws and examples stand before it.
    again = vae_jax.free_bits(jnp.asarray(kl.reshape(2, 4, 4)), 0.6)
    np.testing.assert_allclose(again, vae_jax.free_bits(jnp.asarray(kl), 0.6), rtol=1e-6)


def test_free_bits_leave_no_gradient_below_and_the_kls_above():
    kl = jnp.array([[0.0, 1.0], [0.4, 3.0]])
    gradient = jax.grad(lambda kl: kl.sum(-1).mean() + vae_jax.free_bits(kl, 0.5))(kl)
    np.testing.assert_allclose(gradient, [[0, 0.5], [0, 0.5]], atol=1e-7)


def test_free_bits_need_the_axis_of_the_latents():
    with pytest.raises(ValueError, match=r"kl has shape \(4,\): give that of each latent"):
        vae_jax.free_bits(jnp.ones(4), 0.5)
    with pytest.raises(ValueError, match="nats is -1: it must be 0 or more"):
        vae_jax.free_bits(jnp.ones((4, 2)), -1)


# Total correlation


def density(z, rows=range(NUM)):
    """q(z) and each q(z_k) of a mixture over rows by SciPy, in float64."""
    each = stats.norm(MEAN[list(rows)], SCALE[list(rows)]).logpdf(z)  # [N, Z]
    return np.exp(each.sum(-1)).mean(), np.exp(each).mean(0)


EXACT = [math.log(joint) - np.log(each).sum() for joint, each in map(density, Z)]


def test_stratified_of_the_whole_data_set_is_exact():
    actual = jax.jit(vae_jax.total_correlation, static_argnums=2)(draws(), normal(), NUM)
    np.testing.assert_allclose(actual, EXACT, rtol=1e-4, atol=1e-5)


def test_weighted_of_the_whole_data_set_is_off_by_a_constant():
    actual = vae_jax.total_correlation(draws(), normal(), NUM, vae_jax.minibatch_weighted)
    expected = np.add(EXACT, (LATENT_DIM - 1) * math.log(NUM))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [2, 3, 6])
def test_stratified_density_is_unbiased_over_all_batches(batch_size):
    each = stats.norm(MEAN, SCALE).logpdf(Z[0]).sum(-1)  # log q(z_0|x_n)
    weights = np.exp(np.asarray(vae_jax.minibatch_stratified(batch_size, NUM), np.float64))[0]
    others = itertools.combinations(range(1, NUM), batch_size - 1)
    estimates = [weights @ np.exp(each[[0, *rest]]) for rest in others]
    np.testing.assert_allclose(np.mean(estimates), density(Z[0])[0], rtol=1e-6)


def test_weights_of_the_paper_average_to_these():
    """Chen et al., appendix C.2: 1/N for its own, 1/M for others, (N - M)/(N M) for the last."""
    batch_size, num = 4, 10
    m = batch_size - 1
    others = [1 / m] * (m - 1) + [(num - m) / (num * m)]
    average = np.mean(list(itertools.permutations(others)), axis=0)
    expected = np.where(np.eye(batch_size, dtype=bool), 1 / num, average[0])
    np.testing.assert_allclose(average, average[0])
    actual = jnp.exp(vae_jax.minibatch_stratified(batch_size, num))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(actual.sum(1), np.ones(batch_size), rtol=1e-6)


@pytest.mark.parametrize("weights", [vae_jax.minibatch_stratified, vae_jax.minibatch_weighted])
def test_total_correlation_of_a_batch(weights):
    rows = [0, 2, 5]
    weight = np.exp(np.asarray(weights(3, NUM), np.float64))
    each = stats.norm(MEAN[rows], SCALE[rows]).logpdf(Z[rows][:, None])  # [B, B, Z]
    joint = np.log((weight * np.exp(each.sum(-1))).sum(1))
    marginals = np.log((weight[..., None] * np.exp(each)).sum(1)).sum(-1)
    of = draws(np.array(rows)), normal(rows)
    actual = vae_jax.total_correlation(*of, NUM, weights)
    np.testing.assert_allclose(actual, joint - marginals, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda z: vae_jax.total_correlation(z, of[1], NUM, weights).mean())(of[0])
    assert np.isfinite(gradient).all()


def test_far_apart_posteriors_have_a_finite_total_correlation():
    posterior = Normal(jnp.array([[0.0, 0.0], [1e4, 1e4]]), 0.01)
    value, gradient = jax.value_and_grad(
        lambda z: vae_jax.total_correlation(z, posterior, 2).mean()
    )(posterior.mean)
    # Either latent tells the other: q(z) = q(z_k) / 2 at each.
    np.testing.assert_allclose(value, math.log(2), rtol=1e-3)
    assert np.isfinite(gradient).all()


def test_total_correlation_of_what_has_none():
    with pytest.raises(TypeError, match=r"posterior is a Categorical: pass a vae_jax\.Normal"):
        vae_jax.total_correlation(draws(), vae_jax.Categorical(draws()), NUM)
    with pytest.raises(ValueError, match=r"z has shape \(2, 6, 3\) and posterior \(6, 3\)"):
        vae_jax.total_correlation(jnp.stack([draws()] * 2), normal(), NUM)
    with pytest.raises(ValueError, match="the batch has 6 examples of num_examples, 5"):
        vae_jax.total_correlation(draws(), normal(), 5)
    with pytest.raises(ValueError, match="from 2 to all of them"):
        vae_jax.total_correlation(draws(slice(1)), normal(slice(1)), NUM)


# Covariances


@pytest.mark.parametrize(
    ("penalty", "covariance"),
    [
        (vae_jax.dip_vae_i, np.cov(MEAN.T, bias=True)),
        (vae_jax.dip_vae_ii, np.cov(MEAN.T, bias=True) + np.diag((SCALE**2).mean(0))),
    ],
    ids=["i", "ii"],
)
def test_dip_vae(penalty, covariance):
    difference = np.square(covariance - np.eye(LATENT_DIM))
    expected = 10 * difference.sum() + (7 - 10) * np.trace(difference)
    np.testing.assert_allclose(jax.jit(penalty)(normal(), 10.0, 7.0), expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"posterior has shape \(3,\): give that of a batch"):
        penalty(Normal(jnp.zeros(3), 1.0), 10.0, 7.0)


def test_dip_vae_ii_is_the_covariance_of_the_draws():
    """Law of total covariance: that of z ~ q(z)."""
    z = RNG.normal(size=(20_000, *MEAN.shape)) * SCALE + MEAN
    difference = np.square(np.cov(z.reshape(-1, LATENT_DIM).T) - np.eye(LATENT_DIM))
    actual = vae_jax.dip_vae_ii(normal(), 1.0, 1.0)
    np.testing.assert_allclose(actual, difference.sum(), rtol=0.05)


# Distances between draws


def expected_kernel(shift, variance, bandwidth, dim):
    """E exp(-|d|^2 / 2 h^2) of d ~ N(shift, variance I) in closed form."""
    total = bandwidth**2 + variance
    return (bandwidth**2 / total) ** (dim / 2) * math.exp(-dim * shift**2 / (2 * total))


@pytest.mark.parametrize(
    ("shift", "scale", "bandwidth"), [(0, 1, None), (0.7, 1.5, 0.8), (1, 0.1, 3)]
)
def test_mmd_is_unbiased(shift, scale, bandwidth):
    dim = 2
    h = math.sqrt(dim) if bandwidth is None else bandwidth
    expected = (
        expected_kernel(0, 2 * scale**2, h, dim)
        + expected_kernel(0, 2, h, dim)
        - 2 * expected_kernel(shift, scale**2 + 1, h, dim)
    )

    @jax.jit
    @jax.vmap
    def estimate(key):
        z_key, prior_key = jax.random.split(key)
        z = shift + scale * jax.random.normal(z_key, (8, dim))
        prior_z = jax.random.normal(prior_key, (5, dim))
        return vae_jax.maximum_mean_discrepancy(z, prior_z, bandwidth)

    error = within_four_errors(estimate(jax.random.split(jax.random.key(0), 20_000)), expected)
    assert error < 0.003


def test_expected_kernel_by_quadrature():
    nodes, weights = special.roots_hermitenorm(60)
    by_quadrature = weights @ np.exp(-np.square(0.7 + 1.8 * nodes) / (2 * 0.8**2)) / weights.sum()
    np.testing.assert_allclose(by_quadrature, expected_kernel(0.7, 1.8**2, 0.8, 1), rtol=1e-4)


def test_on_a_line_the_distance_is_that_of_the_best_transport():
    z, prior_z = RNG.normal(size=(2, 20, 1)).astype(np.float32)
    cost = np.square(z - prior_z.T)
    best = cost[optimize.linear_sum_assignment(cost)].mean()
    actual = vae_jax.sliced_wasserstein(jax.random.key(0), jnp.asarray(z), jnp.asarray(prior_z))
    np.testing.assert_allclose(actual, best, rtol=1e-5)


def test_sliced_distance_of_a_shift():
    """Along a direction w it is (w . shift)^2, whose mean over directions is |shift|^2 / Z."""
    z, shift = draws(), jnp.array([1.0, -2.0, 0.5])
    distance = jax.jit(
        lambda key: vae_jax.sliced_wasserstein(key, z + shift[None], z, num_projections=1)
    )
    samples = jax.vmap(distance)(jax.random.split(jax.random.key(0), 20_000))
    within_four_errors(samples, float(shift @ shift) / 3)


def test_sliced_distance_of_two_samples_of_one_distribution():
    """Of pairs from N(0, 1) it is twice the variance of the larger of two, 1 - 1/pi."""
    distance = jax.jit(
        lambda key, z: vae_jax.sliced_wasserstein(key, z[0], z[1], num_projections=1)
    )
    z = jax.random.normal(jax.random.key(1), (20_000, 2, 2, 1))
    samples = jax.vmap(distance)(jax.random.split(jax.random.key(0), 20_000), z)
    within_four_errors(samples, 2 * (1 - 1 / math.pi))


def test_draws_whose_shapes_do_not_match():
    with pytest.raises(ValueError, match=r"z has shape \(6, 3\) and prior_z \(6, 2\)"):
        vae_jax.maximum_mean_discrepancy(draws(), draws()[:, :2])
    with pytest.raises(ValueError, match=r"z has shape \(1, 3\) and prior_z \(6, 3\)"):
        vae_jax.maximum_mean_discrepancy(draws(slice(1)), draws())
    with pytest.raises(ValueError, match="z has 6 draws but prior_z has 4: give as many"):
        vae_jax.sliced_wasserstein(jax.random.key(0), draws(), draws(slice(4)))
    with pytest.raises(ValueError, match="bandwidth has a least value of 0"):
        vae_jax.maximum_mean_discrepancy(draws(), draws(), 0.0)
