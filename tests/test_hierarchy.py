"""Hierarchies: exact evidence by linear algebra and quadrature, KL of each layer, one pass."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import vae_jax
from vae_jax import Normal, networks

identity = lambda x: x  # noqa: E731


def perturbed(params, seed=1, size=0.3):
    """None of them 0, so that q is not p, and no two layers are alike."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + jnp.float32(size * rng.normal(size=a.shape)), params)


def ladder(activation=identity, likelihood=None):
    """Two layers of one latent each, three pixels; linear unless told otherwise."""
    dims, hidden = (1, 1), (3, 2)
    if likelihood is None:
        likelihood = networks.NormalDecoder(networks.MLP((3,), ()), initial_scale=0.8)
    return vae_jax.make_top_down(
        networks.LadderEncoder(dims, hidden, activation=activation),
        networks.LadderDecoder(likelihood, dims, hidden, activation=activation),
    )


def top_down():
    """Two scales of one scalar latent each under a picture of 2 x 2."""
    encoder = networks.BottomUp(4, (0, 1, 1))
    return vae_jax.make_top_down(encoder, networks.TopDown((2, 2, 1), 4, (0, 1, 1), 1))


def chain():
    """Burda's two layers, from the bottom up."""
    mlp = partial(networks.MLP, hidden=(4,), activation=jnp.tanh)
    return vae_jax.make_chain(
        [networks.Encoder(mlp((2,))), networks.Encoder(mlp((2,)))],
        [networks.NormalDecoder(mlp((3,)), initial_scale=0.8), networks.Encoder(mlp((2,)))],
        latent_dim=1,
    )


NORMALS = jnp.float32(np.random.default_rng(0).normal(size=(4, 3)))
BINARY = jnp.float32(np.random.default_rng(0).integers(0, 2, size=(4, 2, 2, 1)))
MODELS = {"ladder": (ladder, NORMALS), "top-down": (top_down, BINARY), "chain": (chain, NORMALS)}
each_model = pytest.mark.parametrize("name", MODELS)


def made(name):
    build, x = MODELS[name]
    model = build()
    return model, perturbed(model.init(jax.random.key(0), x)), x


def densities(model, params, x):
    """At every pair of draws on a grid, in NumPy: log q and log p of each layer, log p(x|z).

    [G, G], or [G, 1] of what does not depend on the second latent of the walk.
    """
    grid = np.linspace(-14, 14, 281)  # fine enough for scales of 0.1
    pair = np.meshgrid(grid, grid, indexing="ij")
    z = tuple(jnp.asarray(part, jnp.float32)[..., None, None] for part in pair)
    ndims = [part.ndim - 1 for part in model.encode(params, x[None]).mean]
    z = tuple(a.reshape(*a.shape[:2], *(1,) * (1 + n)) for a, n in zip(z, ndims, strict=True))
    posterior = vae_jax.given(model.encode(params, x[None]), z)
    prior = vae_jax.given(model.prior(params), z)

    def scored(part, value):
        mean, scale = (np.asarray(a, np.float64) for a in (part.mean, part.scale))
        mean, scale = (
            a.reshape(-1) if a.size == 1 else a.reshape(pair[0].shape) for a in (mean, scale)
        )
        return scipy.stats.norm.logpdf(value, mean, scale)

    log_q = [scored(part, value) for part, value in zip(posterior.parts, pair, strict=True)]
    log_p = [scored(part, value) for part, value in zip(prior.parts, pair, strict=True)]
    likelihood = model.decode(params, z)
    if isinstance(likelihood, Normal):
        mean, scale = np.asarray(likelihood.mean, np.float64), np.asarray(likelihood.scale)
        log_x = scipy.stats.norm.logpdf(np.asarray(x), mean, scale).sum(-1)[..., 0]
    else:
        logits = np.asarray(likelihood.logits, np.float64)
        log_x = scipy.stats.bernoulli.logpmf(np.asarray(x), 1 / (1 + np.exp(-logits)))
        log_x = log_x.sum((-3, -2, -1))[..., 0]
    return log_q, log_p, log_x, (grid[1] - grid[0]) ** 2


def integrals(model, params, x):
    """log p(x), the ELBO and the KL of each layer given those before, by quadrature."""
    log_q, log_p, log_x, cell = densities(model, params, x)
    joint = log_x + sum(log_p)
    q = np.exp(sum(log_q))
    assert q.sum() * cell == pytest.approx(1, abs=1e-4)
    log_evidence = np.log(np.exp(joint).sum() * cell)
    elbo = (q * (joint - sum(log_q))).sum() * cell
    kls = [(q * (a - b)).sum() * cell for a, b in zip(log_q, log_p, strict=True)]
    return log_evidence, elbo, kls


@pytest.mark.few(1)
@each_model
def test_bounds_are_those_of_quadrature(name):
    model, params, x = made(name)
    num = 2000

    @jax.jit
    def bounds(params, key):
        posterior, prior = model.encode(params, x), model.prior(params)
        drawn = vae_jax.draw(key, posterior, prior, partial(model.decode, params), num)
        elbo = vae_jax.elbo(x, *drawn)
        log_weights = vae_jax.elbo(x, *drawn, analytic_kl=False).value
        layers = None if name == "chain" else vae_jax.kl_per_layer(drawn.posterior, drawn.prior)
        return elbo, vae_jax.iwae(x, *drawn).value, log_weights, layers

    elbo, iwae, log_weights, layers = jax.device_get(bounds(params, jax.random.key(2)))
    for i in range(2):
        log_evidence, expected, kls = integrals(model, params, x[i])
        assert expected < log_evidence - 0.01  # q is not exact, or this would show nothing
        error = elbo.value[:, i].std() / num**0.5
        assert abs(elbo.value[:, i].mean() - expected) < 4 * error + 1e-4
        weights = np.exp(log_weights[:, i] - log_evidence)
        error = weights.std() / num**0.5
        assert error < 0.1
        assert abs(np.exp(iwae[i] - log_evidence) - 1) < 4 * error
        if layers is not None:
            for of_layer, kl in zip(layers[:, i].T, kls, strict=True):
                assert abs(of_layer.mean() - kl) < 4 * of_layer.std() / num**0.5 + 1e-4
            np.testing.assert_allclose(layers[:, i].sum(axis=-1), elbo.kl[:, i], rtol=1e-4)


def test_a_linear_ladder_has_the_evidence_of_its_gaussian():
    """x = b + B z1 + noise, z1 = a + A z2 + noise: a Gaussian, whose covariance is known."""
    model, params, x = made("ladder")
    # Scales that do not depend on what is above: the model is linear then.
    network = params["decoder"]["MLP_0"]
    last = sorted(name for name in network if name.startswith("Dense"))[-1]
    network[last]["kernel"] = network[last]["kernel"].at[:, 1].set(0.0)

    def parts(z2, z1):
        z = tuple(jnp.full((1,), float(v)) for v in (z2, z1))
        return vae_jax.given(model.prior(params), z).parts[1], model.decode(params, z)

    def affine(f):
        start = np.asarray(f(0.0), np.float64)
        return start, np.asarray(f(1.0), np.float64) - start

    a, slope = affine(lambda z2: parts(z2, 0.0)[0].mean)
    b, columns = affine(lambda z1: parts(0.0, z1)[1].mean)
    s1, noise = float(parts(0.3, 0.0)[0].scale[0]), float(parts(0.0, 0.0)[1].scale[0])
    covariance = np.outer(columns, columns) * (slope**2 + s1**2) + noise**2 * np.eye(3)
    exact = scipy.stats.multivariate_normal(b + columns * a, covariance).logpdf(np.asarray(x))
    result = vae_jax.evaluate(
        jax.random.key(3), model, params, np.asarray(x), num_samples=4000, batch_size=4
    )
    error = result.estimate.standard_error
    assert (error < 0.1).all()
    assert (np.abs(result.estimate.value - exact) < 4 * error + 1e-4).all()
    drawn = vae_jax.generate(jax.random.key(4), model, params, 20_000)
    pixels = np.asarray(drawn.mean, np.float64)
    np.testing.assert_allclose(np.cov(pixels.T), covariance - noise**2 * np.eye(3), atol=0.1)


def test_precision_weighted_is_the_product_of_densities():
    one, other = (
        Normal(jnp.array([0.3]), jnp.array([0.5])),
        Normal(jnp.array([-1.0]), jnp.array([2.0])),
    )
    grid = np.linspace(-20, 20, 40_001)
    product = scipy.stats.norm.pdf(grid, 0.3, 0.5) * scipy.stats.norm.pdf(grid, -1, 2)
    mean = (grid * product).sum() / product.sum()
    scale = np.sqrt((np.square(grid - mean) * product).sum() / product.sum())
    both = networks.precision_weighted(one, other)
    np.testing.assert_allclose([both.mean[0], both.scale[0]], [mean, scale], rtol=1e-5)
    tiny = networks.precision_weighted(Normal(jnp.zeros(1), 1e-25), other)
    assert np.isfinite([tiny.mean, tiny.scale]).all()
    assert tiny.scale[0] == pytest.approx(1e-25, rel=1e-5)


@pytest.mark.few(1)
@each_model
def test_one_pass_gives_what_separate_passes_give(name):
    model, params, x = made(name)
    # A pytree: it comes out of jit.
    posterior, prior = jax.jit(model.encode)(params, x), jax.jit(model.prior)(params)
    drawn = vae_jax.draw(jax.random.key(1), posterior, prior, partial(model.decode, params), 3)
    z = vae_jax.sample(jax.random.key(1), posterior, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), drawn.z, z)
    one = vae_jax.elbo(x, *drawn)
    apart = vae_jax.elbo(x, z, posterior, prior, model.decode(params, z))
    assert one.value.shape == (3, len(x))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), one, apart)
    with_estimate = vae_jax.log_prob(posterior, z) - vae_jax.log_prob(prior, z)
    estimated = vae_jax.elbo(x, *drawn, analytic_kl=False)
    np.testing.assert_allclose(estimated.kl, with_estimate, rtol=1e-3, atol=1e-4)
    if name == "chain":  # of opposite order: no closed form, so the estimate is what is used
        np.testing.assert_array_equal(one.kl, estimated.kl)


@pytest.mark.few(1)
@each_model
def test_a_loss_trains_and_the_same_model_generates_and_reconstructs(name):
    model, params, x = made(name)
    with jax.numpy_dtype_promotion("standard"):
        step = vae_jax.make_train_step(vae_jax.make_loss(model), optax.adam(1e-2))
        state = vae_jax.init_state(jax.random.key(0), params, optax.adam(1e-2))
        losses = []
        for _ in range(2):
            state, metrics = step(state, x)
            losses.append(float(metrics.loss))
    assert np.isfinite(losses).all()
    for path, (before, after) in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda *p: tuple(map(np.asarray, p)), made(name)[1], state.params),
        is_leaf=lambda node: isinstance(node, tuple),
    ):
        assert np.abs(before - after).max() > 0, path
    params = made(name)[1]
    assert vae_jax.generate(jax.random.key(1), model, params, 5).mean.shape == (5, *x.shape[1:])
    assert vae_jax.reconstruct(model, params, x).mean.shape == x.shape
    between = vae_jax.interpolate(model, params, x[:1], x[1:2], 3)
    assert between.mean.shape == (3, 1, *x.shape[1:])
    with pytest.raises(TypeError, match="z is a tuple of several latents"):
        vae_jax.traverse(model, params, x, jnp.zeros(1))
    with pytest.raises(TypeError, match="hierarchies are unconditional"):
        model.encode(params, x, jnp.zeros(4, jnp.int32))


def test_sticking_the_landing_has_the_elbos_gradient_on_average():
    """Of an Ancestral posterior held constant: its parts still move with the draws before them."""
    model, params, x = made("ladder")

    @jax.jit
    def gradients(params, key):
        def loss(params, stick):
            posterior, prior = model.encode(params, x[0]), model.prior(params)
            z = vae_jax.sample(key, posterior)
            values = x[0], z, posterior, prior, model.decode(params, z)
            if stick:
                return vae_jax.sticking_the_landing(*values).value
            return vae_jax.elbo(*values).value

        flat = [jax.flatten_util.ravel_pytree(jax.grad(loss)(params, s))[0] for s in (True, False)]
        return tuple(flat)

    keys = jax.random.split(jax.random.key(1), 3000)
    stuck, plain = (np.asarray(g, np.float64) for g in jax.vmap(gradients, (None, 0))(params, keys))
    difference = stuck - plain
    error = difference.std(axis=0) / len(keys) ** 0.5
    assert (np.abs(difference.mean(axis=0)) < 5 * error + 1e-4).all()
    assert error.max() > 0


def test_a_collapsed_layer_is_shown_as_collapsed():
    """z2 carries x; q(z1|z2, x) is p(z1|z2), whose mean moves with z2 alone."""
    x = jnp.float32(np.linspace(-2, 2, 50))[:, None]

    def walk(choose):
        z2 = choose(Normal(x, 0.5), Normal(jnp.zeros(1), 1.0))
        choose(Normal(2 * z2, 0.7), Normal(2 * z2, 0.7))

    posterior = vae_jax.Ancestral(walk)
    drawn = vae_jax.draw(jax.random.key(0), posterior, None, None, 20)
    kl = vae_jax.kl_per_layer(drawn.posterior, drawn.prior)
    assert kl.shape == (20, 50, 2)
    expected = 0.5 * (np.square(np.asarray(x[:, 0])) + 0.25 - 1) - np.log(0.5)
    np.testing.assert_allclose(kl[..., 0], np.broadcast_to(expected, (20, 50)), rtol=1e-4)
    np.testing.assert_array_equal(kl[..., 1], 0)
    top, bottom = vae_jax.active_units_per_layer(drawn.posterior, drawn.prior)
    assert top.all()
    assert not bottom.any()
    with pytest.raises(TypeError, match="not an ancestral Joint"):
        vae_jax.kl_per_layer(posterior, drawn.prior)


# Ancestral itself


def two(choose):
    first = choose(Normal(jnp.ones((4, 2)), 0.1))
    choose(Normal(3 * first[..., :1], 0.1))


def test_draws_depend_on_draws_and_their_density_is_the_product():
    joint = vae_jax.Ancestral(two)
    z = vae_jax.sample(jax.random.key(0), joint, 1000)
    assert [part.shape for part in z] == [(1000, 4, 2), (1000, 4, 1)]
    residual = np.asarray(z[1] - 3 * z[0][..., :1])
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose(
        joint.log_prob(z),
        scipy.stats.norm.logpdf(np.asarray(z[0]), 1, 0.1).sum(-1)
        + scipy.stats.norm.logpdf(residual[..., 0], 0, 0.1),
        rtol=1e-4,
        atol=1e-3,
    )
    reverse = vae_jax.Ancestral(two, reverse=True)
    again = vae_jax.sample(jax.random.key(0), reverse, 1000)
    jax.tree.map(np.testing.assert_array_equal, again, z[::-1])
    np.testing.assert_array_equal(reverse.log_prob(again), joint.log_prob(z))
    with pytest.raises(ValueError, match="1 values for an Ancestral of 2 parts"):
        joint.log_prob(z[:1])


def test_parts_that_depend_on_no_draw_have_as_many_draws():
    apart = vae_jax.Ancestral(
        lambda choose: (
            choose(Normal(jnp.zeros((3, 2)), 1.0)),
            choose(Normal(jnp.zeros((3, 1)), 1.0)),
        )
    )
    z = vae_jax.sample(jax.random.key(0), apart, (5, 6))
    assert [part.shape for part in z] == [(5, 6, 3, 2), (5, 6, 3, 1)]
    assert len(np.unique(z[1])) == 90


def test_chains_need_as_many_encoders_as_decoders():
    encoder = networks.Encoder(networks.MLP((2,)))
    with pytest.raises(ValueError, match="1 encoders and 2 decoders"):
        vae_jax.make_chain([encoder], [encoder, encoder], 1)
