"""Distributions of distrax, NumPyro and TFP in the bounds, alone and in mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import vae_jax

# Each library's own code mixes dtypes and ranks.
pytestmark = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion")

LIBRARIES = {
    "distrax": "distrax",
    "numpyro": "numpyro.distributions",
    "tfp": "tensorflow_probability.substrates.jax.distributions",
}
B, Z, D, S = 4, 3, 6, 5


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param, pytest.importorskip(LIBRARIES[request.param])


def normal(library, mean, scale, event_ndims=0, **options):
    name, module = library
    distribution = module.Normal(mean, scale, **options)
    if not event_ndims:
        return distribution
    if name == "numpyro":
        return distribution.to_event(event_ndims)
    return module.Independent(distribution, reinterpreted_batch_ndims=event_ndims)


def bernoulli(library, logits, event_ndims=0):
    name, module = library
    distribution = module.Bernoulli(logits=logits)
    if not event_ndims:
        return distribution
    if name == "numpyro":
        return distribution.to_event(event_ndims)
    return module.Independent(distribution, reinterpreted_batch_ndims=event_ndims)


@pytest.fixture
def values():
    rng = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "mean": array(B, Z),
        "scale": jnp.exp(array(B, Z)),
        "prior_mean": array(Z),
        "prior_scale": jnp.exp(array(Z)),
        "z": array(S, B, Z),
        "logits": array(S, B, D),
        "x": (array(B, D) > 0).astype(jnp.float32),
    }


def assert_close(got, want):
    """1e-5 of the largest entry."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def own(v):
    return (
        vae_jax.Normal(v["mean"], v["scale"]),
        vae_jax.Normal(v["prior_mean"], v["prior_scale"]),
        vae_jax.Bernoulli(v["logits"]),
    )


# Which of posterior, prior and likelihood are foreign: 0 ours, 1 with an event, 2 without.
MIXTURES = [
    (q, p, x) for q in range(3) for p in range(3) for x in range(3) if (q, p, x) != (0, 0, 0)
]


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda m: "".join(map(str, m)))
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_any_mixture_gives_the_same_bound(library, values, mixture, analytic_kl):
    v = values
    posterior, prior, likelihood = own(v)
    expected = vae_jax.elbo(v["x"], v["z"], posterior, prior, likelihood, analytic_kl=analytic_kl)
    q, p, x = mixture
    if q:
        posterior = normal(library, v["mean"], v["scale"], 2 - q)
    if p:
        prior = normal(library, v["prior_mean"], v["prior_scale"], 2 - p)
    if x:
        likelihood = bernoulli(library, v["logits"], 2 - x)
    bound = vae_jax.elbo(v["x"], v["z"], posterior, prior, likelihood, analytic_kl=analytic_kl)
    for got, want in zip(bound, expected, strict=True):
        assert got.shape == (S, B)
        assert got.dtype == jnp.float32
        assert_close(got, want)


def test_where_nothing_declares_an_event_the_last_axis_of_z_is_it(library, values):
    v = values
    expected = vae_jax.elbo(v["x"], v["z"], *own(v))
    bound = vae_jax.elbo(
        v["x"],
        v["z"],
        normal(library, v["mean"], v["scale"]),
        normal(library, v["prior_mean"], v["prior_scale"]),
        bernoulli(library, v["logits"]),
    )
    assert_close(bound.value, expected.value)


def test_scalar_latents_of_a_batch_are_ambiguous(library):
    ones = jnp.ones(B)
    arguments = [normal(library, ones, ones), normal(library, 0.0, 1.0)]
    likelihood = bernoulli(library, jnp.zeros((B, D)))
    with pytest.raises(ValueError, match=r"\(4,\).*\(4, 6\).*Independent"):
        vae_jax.elbo(jnp.ones((B, D)), ones, *arguments, likelihood)
    # One that says is enough, whichever it is.
    declared = bernoulli(library, jnp.zeros((B, D)), 1)
    assert vae_jax.elbo(jnp.ones((B, D)), ones, *arguments, declared).value.shape == (B,)
    with pytest.raises(ValueError, match=r"event_ndims=1.*event_ndims=0"):
        vae_jax.kl_divergence(*arguments)
    assert vae_jax.kl_divergence(*arguments, event_ndims=0).shape == (B,)
    assert vae_jax.kl_divergence(*arguments, event_ndims=1).shape == ()


def test_one_example_under_vmap_is_not_ambiguous(library, values):
    v = values

    def bound(x, z, mean, scale, logits):
        posterior, prior = normal(library, mean, scale), normal(library, 0.0, 1.0)
        return vae_jax.elbo(x, z, posterior, prior, bernoulli(library, logits)).value

    got = jax.vmap(bound)(v["x"], v["z"][0], v["mean"], v["scale"], v["logits"][0])
    posterior, _, _ = own(v)
    prior = vae_jax.Normal(jnp.zeros(Z), 1.0)
    likelihood = vae_jax.Bernoulli(v["logits"][0])
    assert_close(got, vae_jax.elbo(v["x"], v["z"][0], posterior, prior, likelihood).value)


@pytest.mark.few(1)
def test_iwae_and_log_likelihood(library, values):
    v = values
    foreign = (
        normal(library, v["mean"], v["scale"], 1),
        normal(library, v["prior_mean"], v["prior_scale"]),
        bernoulli(library, v["logits"]),
    )
    expected = vae_jax.iwae(v["x"], v["z"], *own(v))
    assert_close(vae_jax.iwae(v["x"], v["z"], *foreign).value, expected.value)

    weights = v["logits"][0, :Z]
    key = jax.random.key(0)
    posterior, prior, _ = foreign
    estimate = vae_jax.log_likelihood(
        key,
        v["x"],
        posterior,
        prior,
        lambda z: bernoulli(library, z @ weights),
        num_samples=4000,
        chunk_size=1000,
    )
    ours = vae_jax.log_likelihood(
        jax.random.key(1),
        v["x"],
        *own(v)[:2],
        lambda z: vae_jax.Bernoulli(z @ weights),
        num_samples=4000,
        chunk_size=1000,
    )
    error = np.hypot(estimate.standard_error, ours.standard_error)
    assert (np.abs(estimate.value - ours.value) < 5 * error).all()


@pytest.mark.parametrize("analytic_kl", [True, False])
def test_integer_parameters_are_numbers_too(values, analytic_kl):
    """NumPyro takes Normal(0, 1)."""
    dist = pytest.importorskip("numpyro.distributions")
    v = values
    posterior, _, likelihood = own(v)
    standard = vae_jax.Normal(jnp.zeros(Z), 1.0)
    want = vae_jax.elbo(v["x"], v["z"], posterior, standard, likelihood, analytic_kl=analytic_kl)
    for prior in dist.Normal(0, 1), dist.Normal(jnp.zeros(Z), 1).to_event(1):
        got = vae_jax.elbo(v["x"], v["z"], posterior, prior, likelihood, analytic_kl=analytic_kl)
        assert_close(got.kl, want.kl)


def test_sample_moments_shape_and_gradient(library, values):
    mean, scale = values["mean"], values["scale"]

    def draw(mean, num):
        return vae_jax.sample(jax.random.key(0), normal(library, mean, scale, 1), num)

    z = draw(mean, 20_000)
    assert z.shape == (20_000, B, Z)
    error = scale / 20_000**0.5
    assert (jnp.abs(z.mean(0) - mean) < 5 * error).all()
    assert (jnp.abs(z.std(0) - scale) < 5 * error).all()
    gradient = jax.grad(lambda mean: draw(mean, 2).sum())(mean)
    np.testing.assert_allclose(gradient, 2.0)


def full_covariance(library, mean, scale_tril):
    name, module = library
    match name:
        case "numpyro":
            return module.MultivariateNormal(mean, scale_tril=scale_tril)
        case "distrax":
            return module.MultivariateNormalTri(mean, scale_tril)
        case "tfp":
            return module.MultivariateNormalTriL(mean, scale_tril)


@pytest.mark.parametrize("foreign_side", ["posterior", "prior", "both"])
def test_kl_of_full_covariances_is_exact(library, values, foreign_side):
    """Against the trace formula of NumPy, in float64."""
    rng = np.random.default_rng(1)
    tril = [np.tril(rng.normal(size=(Z, Z))) + 3 * np.eye(Z) for _ in range(2)]
    mean = rng.normal(size=(2, Z))
    (s1, s2), shift = (t @ t.T for t in tril), mean[1] - mean[0]
    inverse = np.linalg.inv(s2)
    expected = 0.5 * (
        np.trace(inverse @ s1)
        + shift @ inverse @ shift
        - Z
        + np.linalg.slogdet(s2)[1]
        - np.linalg.slogdet(s1)[1]
    )
    pair = []
    for side, m, t in zip(("posterior", "prior"), mean, tril, strict=True):
        m, t = jnp.asarray(m, jnp.float32), jnp.asarray(t, jnp.float32)
        foreign = foreign_side in (side, "both")
        pair.append(full_covariance(library, m, t) if foreign else vae_jax.MultivariateNormal(m, t))
    np.testing.assert_allclose(vae_jax.kl_divergence(*pair), expected, rtol=1e-5)


def test_a_library_knows_its_own_pairs(library):
    """KL between Betas, which vae_jax does not have, by quadrature."""
    _, module = library
    p, q = stats.beta(2.0, 3.0), stats.beta(1.5, 1.0)
    expected, _ = integrate.quad(lambda t: p.pdf(t) * (p.logpdf(t) - q.logpdf(t)), 0, 1)
    got = vae_jax.kl_divergence(module.Beta(2.0, 3.0), module.Beta(1.5, 1.0))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_no_closed_form_asks_for_the_estimate(library, values):
    v = values
    _, module = library
    laplace = module.Laplace(v["mean"], v["scale"])
    posterior, _prior, likelihood = own(v)
    with pytest.raises(TypeError, match=r"Normal.*Laplace.*analytic_kl=False"):
        vae_jax.elbo(v["x"], v["z"], posterior, laplace, likelihood)
    bound = vae_jax.elbo(v["x"], v["z"], posterior, laplace, likelihood, analytic_kl=False)
    log_q = stats.norm(v["mean"], v["scale"]).logpdf(v["z"]).sum(-1)
    log_p = stats.laplace(v["mean"], v["scale"]).logpdf(v["z"]).sum(-1)
    assert_close(bound.kl, log_q - log_p)


def test_mixed_libraries_of_gaussians():
    module = [pytest.importorskip(name) for name in LIBRARIES.values()]
    libraries = list(zip(LIBRARIES, module, strict=True))
    expected = vae_jax.kl_divergence(
        vae_jax.Normal(jnp.ones((B, Z)), 2.0), vae_jax.Normal(jnp.zeros(Z), 1.0)
    )
    for q in libraries:
        for p in libraries:
            posterior = normal(q, jnp.ones((B, Z)), jnp.full((B, Z), 2.0), 1)
            for prior in normal(p, 0.0, 1.0), normal(p, jnp.zeros(Z), jnp.ones(Z), 1):
                assert_close(vae_jax.kl_divergence(posterior, prior), expected)


def test_joint_of_ours_and_theirs(library, values):
    v = values
    posterior, prior, likelihood = own(v)
    z = v["z"], v["z"] + 1
    expected = vae_jax.elbo(
        v["x"], z, vae_jax.Joint((posterior, posterior)), vae_jax.Joint((prior, prior)), likelihood
    )
    theirs = normal(library, v["mean"], v["scale"])
    bound = vae_jax.elbo(
        v["x"],
        z,
        vae_jax.Joint((posterior, theirs)),
        vae_jax.Joint((normal(library, v["prior_mean"], v["prior_scale"]), prior)),
        likelihood,
    )
    assert_close(bound.value, expected.value)


def test_integer_images_for_a_bernoulli(library, values):
    v = values
    posterior, prior, _ = own(v)
    for likelihood in bernoulli(library, v["logits"]), bernoulli(library, v["logits"], 1):
        with pytest.raises(TypeError, match=r"Bernoulli.*uint8.*astype"):
            vae_jax.elbo(v["x"].astype(jnp.uint8), v["z"], posterior, prior, likelihood)


def test_a_scale_that_is_not_positive(library, values):
    v = values
    posterior, prior, likelihood = own(v)
    # NumPyro looks itself, unless it is told not to.
    options = {"validate_args": False} if library[0] == "numpyro" else {}
    wrong = normal(library, v["mean"], v["scale"] - 10, 1, **options)
    with pytest.raises(ValueError, match=r"scale of a Normal.*-9.*must be positive"):
        vae_jax.elbo(v["x"], v["z"], wrong, prior, likelihood)
    wrong = normal(library, 0.0, -1.0, **options)
    with pytest.raises(ValueError, match=r"scale.*-1.*must be positive"):
        vae_jax.elbo(v["x"], v["z"], posterior, wrong, likelihood)


def test_shapes_that_do_not_fit_are_named(library, values):
    v = values
    _posterior, prior, likelihood = own(v)
    theirs = normal(library, v["mean"], v["scale"], 1)
    cases = [
        # a draw from another batch
        (v["z"][:, :2], theirs, prior, likelihood, r"\(5, 2, 3\).*\(4, 3\).*sample"),
        # a prior of another event
        (v["z"], theirs, normal(library, jnp.zeros(2), jnp.ones(2)), likelihood, r"3.*\(2,\)"),
        # a decoder whose output is not x
        (v["z"], theirs, prior, bernoulli(library, v["logits"][..., :2]), r"\(5, 4, 2\).*\(4, 6\)"),
        # one axis too many in an event
        (v["z"], theirs, prior, bernoulli(library, v["logits"], 2), "event axes"),
    ]
    for z, q, p, likelihood, message in cases:
        with pytest.raises(ValueError, match=message):
            vae_jax.elbo(v["x"], z, q, p, likelihood)


def test_something_that_is_no_distribution(values):
    v = values
    posterior, prior, likelihood = own(v)
    with pytest.raises(TypeError, match="batch_shape and event_shape"):
        vae_jax.elbo(v["x"], v["z"], posterior, object(), likelihood)
    with pytest.raises(TypeError, match="Joint"):
        vae_jax.elbo((v["x"],), v["z"], posterior, prior, likelihood)
