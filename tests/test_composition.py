"""Leading axes, dtypes, signatures and bad input of what the front door lists."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax

Z, D = 3, 6


def example(*leading, dtype=jnp.float32):
    rng = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    posterior = vae_jax.Normal(array(*leading, Z), jnp.exp(array(*leading, Z)))
    prior = vae_jax.Normal(jnp.zeros(Z, dtype), 1.0)
    z, x = array(*leading, Z), (array(*leading, D) > 0).astype(dtype)
    return x, z, posterior, prior, vae_jax.Bernoulli(array(*leading, D))


@pytest.mark.parametrize("leading", [(), (4,), (2, 4), (3, 2, 4)])
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_leading_axes_are_kept_and_equal_one_example_under_vmap(leading, analytic_kl):
    arguments = example(*leading)
    x, z, posterior, prior, likelihood = arguments
    bound = vae_jax.elbo(*arguments, analytic_kl=analytic_kl)

    def single(x, z, posterior, likelihood):
        return vae_jax.elbo(x, z, posterior, prior, likelihood, analytic_kl=analytic_kl)

    for _ in leading:
        single = jax.vmap(single)
    for got, want in zip(bound, single(x, z, posterior, likelihood), strict=True):
        assert got.shape == leading
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_draws_stand_before_the_batch():
    x, _, posterior, prior, _ = example(4)
    z = vae_jax.sample(jax.random.key(0), posterior, (2, 5))
    bound = vae_jax.elbo(x, z, posterior, prior, vae_jax.Bernoulli(jnp.zeros((2, 5, 4, D))))
    assert [array.shape for array in bound] == [(2, 5, 4)] * 3
    bound = vae_jax.iwae(x, z, posterior, prior, vae_jax.Bernoulli(jnp.zeros((2, 5, 4, D))))
    assert [array.shape for array in bound] == [(5, 4)] * 3


def test_autoencode_is_the_elbo_of_its_own_draw():
    x, _, posterior, prior, _ = example(4)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(Z, D)), jnp.float32)

    def decode(z):
        return vae_jax.Bernoulli(z @ weights)

    key = jax.random.key(0)
    bound = vae_jax.autoencode(jax.random.clone(key), x, lambda x: posterior, prior, decode, 5)
    z = vae_jax.sample(key, posterior, 5)
    expected = vae_jax.elbo(x, z, posterior, prior, decode(z))
    for got, want in zip(bound, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_joint_likelihood_observes_a_tuple():
    x, z, posterior, prior, likelihood = example(4)
    both = vae_jax.elbo((x, 1 - x), z, posterior, prior, vae_jax.Joint((likelihood, likelihood)))
    one, other = (vae_jax.elbo(v, z, posterior, prior, likelihood) for v in (x, 1 - x))
    want = one.log_likelihood + other.log_likelihood
    np.testing.assert_allclose(both.log_likelihood, want, rtol=1e-6)


@pytest.mark.relax("numpy_dtype_promotion")
@pytest.mark.parametrize("bound", [vae_jax.elbo, vae_jax.iwae])
def test_bfloat16_networks_give_float32_bounds(bound):
    arguments = example(2, 4, dtype=jnp.bfloat16)
    x, z, posterior, prior, likelihood = arguments
    posterior = jax.tree.map(lambda a: a[0], posterior)
    x = x[0]
    got = bound(x, z, posterior, prior, likelihood)
    accurate = jax.tree.map(lambda a: a.astype(jnp.float32), (x, z, posterior, prior, likelihood))
    for array, want in zip(got, bound(*accurate), strict=True):
        assert array.dtype == jnp.float32
        np.testing.assert_allclose(array, want, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_upcast_and_no_downcast_under_x64(dtype):
    with jax.enable_x64(True):
        arguments = example(2, 4, dtype=dtype)
        x, z, posterior, prior, likelihood = arguments
        batch = jax.tree.map(lambda a: a[0], (x, posterior))
        bounds = (
            vae_jax.elbo(*arguments),
            vae_jax.elbo(*arguments, analytic_kl=False),
            vae_jax.iwae(batch[0], z, batch[1], prior, likelihood),
        )
        assert {str(array.dtype) for bound in bounds for array in bound} == {dtype}
        assert vae_jax.sample(jax.random.key(0), posterior).dtype == dtype
        weights = jnp.ones((Z, D), dtype)
        estimate = vae_jax.log_likelihood(
            jax.random.key(0),
            x,
            posterior,
            prior,
            lambda z: vae_jax.Bernoulli(z @ weights),
            num_samples=2,
        )
        assert {str(array.dtype) for array in estimate} == {dtype}


PUBLIC = {name: getattr(vae_jax, name) for name in vae_jax.__all__ if name != "networks"}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_doctest(name):
    assert ">>> " in inspect.getdoc(PUBLIC[name])


@pytest.mark.parametrize("name", [n for n, f in PUBLIC.items() if inspect.isfunction(f)])
def test_keys_come_first(name):
    parameters = list(inspect.signature(PUBLIC[name]).parameters)
    assert "key" not in parameters[1:]
    assert not {"seed", "rng", "rng_key"} & set(parameters)


def bad_inputs():
    x, z, posterior, prior, likelihood = example(4)
    other = vae_jax.Normal(jnp.zeros(2), 1.0)
    return {
        "prior of another event": (
            (x, z, posterior, other, likelihood),
            ValueError,
            ["3)", "(2,)"],
        ),
        "draw of another batch": (
            (x, z[:2], posterior, prior, likelihood),
            ValueError,
            ["(2, 3)", "(4, 3)", "vae_jax.sample"],
        ),
        "integer images": (
            (x.astype(jnp.uint8), z, posterior, prior, likelihood),
            TypeError,
            ["Bernoulli", "uint8", "astype"],
        ),
        "decoder that is not x": (
            (x[:, :5], z, posterior, prior, likelihood),
            ValueError,
            ["(4, 6)", "(4, 5)", "decode"],
        ),
        "images without event_ndims": (
            (x.reshape(4, 2, 3), z, posterior, prior, vae_jax.Bernoulli(jnp.zeros((4, 2, 3)))),
            ValueError,
            ["(4, 3)", "(4, 2, 3)", "event_ndims"],
        ),
        "prior of another batch": (
            (x, z, posterior, vae_jax.Normal(jnp.zeros((2, 3)), 1.0), likelihood),
            ValueError,
            ["(4, 3)", "(2, 3)"],
        ),
    }


@pytest.mark.parametrize("case", bad_inputs())
@pytest.mark.parametrize("traced", [False, True])
def test_bad_input_is_named_at_trace_time(case, traced):
    arguments, error, words = bad_inputs()[case]
    call = jax.jit(vae_jax.elbo) if traced else vae_jax.elbo
    with pytest.raises(error) as caught:
        call(*arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.relax("legacy_prng_key")
def test_legacy_keys_are_refused():
    key = jax.random.PRNGKey(0)
    x, _, posterior, prior, _ = example(4)

    def decode(z):
        return vae_jax.Bernoulli(jnp.zeros((*z.shape[:-1], D)))

    for call in (
        lambda: vae_jax.sample(key, posterior),
        lambda: vae_jax.autoencode(key, x, lambda x: posterior, prior, decode),
        lambda: vae_jax.log_likelihood(key, x, posterior, prior, decode, num_samples=2),
    ):
        with pytest.raises(TypeError, match=r"uint32.*jax\.random\.key"):
            call()


def test_a_known_scale_must_be_positive_even_inside_jit():
    scale = jnp.array([1.0, -1.0])
    with pytest.raises(ValueError, match=r"scale.*-1.*positive"):
        jax.jit(lambda mean: vae_jax.Normal(mean, scale).log_prob(mean))(jnp.zeros(2))


def test_kl_of_bounds_is_in_nats():
    posterior, prior = vae_jax.Bernoulli(jnp.full(1, 50.0)), vae_jax.Bernoulli(jnp.zeros(1))
    np.testing.assert_allclose(vae_jax.kl_divergence(posterior, prior), math.log(2), rtol=1e-6)
