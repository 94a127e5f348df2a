"""Transforms against their own Jacobians, draws that know their density, and what may go wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from vae_jax import Coupling, Flow, InverseAutoregressive, Joint, Normal, Planar
from vae_jax.distributions.drawn import Drawn
from vae_jax.distributions.transforms import autoregressive_masks

Z, HIDDEN, NUM = 5, 8, 6
RNG = np.random.default_rng(0)


def array(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def layers():
    return (
        (array(Z, HIDDEN, scale=0.4), array(HIDDEN, scale=0.3)),
        (array(HIDDEN, 2 * Z, scale=0.4), array(2 * Z, scale=0.3)),
    )


# The second planar has w u = -6 before it is moved; its map would not be invertible.
TRANSFORMS = {
    "planar": Planar(array(Z), array(Z), array()),
    "planar, moved": Planar(jnp.eye(Z)[0] * 2, -jnp.eye(Z)[0] * 3, jnp.array(0.3)),
    "planar, of each": Planar(array(NUM, Z), array(NUM, Z), array(NUM)),
    "iaf": InverseAutoregressive(layers()),
    "iaf, reversed": InverseAutoregressive(layers(), reverse=True),
    "iaf, of each": InverseAutoregressive(layers(), array(NUM, HIDDEN)),
    "coupling": Coupling(layers()),
    "coupling, odd": Coupling(layers(), odd=True),
    "coupling, of each": Coupling(layers(), array(NUM, HIDDEN)),
}
each_transform = pytest.mark.parametrize("name", TRANSFORMS)


def one(transform, i):
    """The transform of row i alone."""
    return jax.tree.map(lambda a: a[i] if a.shape[:1] == (NUM,) else a, transform)


@each_transform
def test_the_log_determinant_is_that_of_the_jacobian_and_the_inverse_inverts(name):
    transform, z = TRANSFORMS[name], array(NUM, Z)
    y, log_det = jax.jit(transform.forward_and_log_det)(z)

    def value(z, i):
        return one(transform, i).forward_and_log_det(z)[0]

    jacobian = np.stack([np.asarray(jax.jacfwd(value)(z[i], i), np.float64) for i in range(2)])
    sign, expected = np.linalg.slogdet(jacobian)
    assert (sign > 0).all()
    np.testing.assert_allclose(log_det[:2], expected, atol=1e-5)
    back, inverse_log_det = jax.jit(transform.inverse_and_log_det)(y)
    np.testing.assert_allclose(back, z, atol=1e-5)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-5)


def test_a_planar_map_of_no_direction_changes_nothing():
    z = array(NUM, Z)
    y, log_det = Planar(array(Z), jnp.zeros(Z), jnp.array(0.7)).forward_and_log_det(z)
    np.testing.assert_allclose(y, z, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_output_sees_the_inputs_before_it_alone(reverse):
    """Which paths there are is what the masks' product says."""
    masks = autoregressive_masks([Z, 11, 7], reverse=reverse)
    paths = np.linalg.multi_dot(masks)
    order = np.arange(Z)[::-1] if reverse else np.arange(Z)
    for outputs in np.split(paths, 2, axis=1):
        assert ((outputs[order][:, order] > 0) == np.triu(np.ones((Z, Z)), 1)).all()


def flow(*names):
    base = Normal(array(NUM, Z), jnp.exp(0.3 * array(NUM, Z)))
    return Flow(base, tuple(TRANSFORMS[name] for name in names or TRANSFORMS))


@pytest.mark.long
def test_a_draw_knows_its_density():
    posterior = flow()
    z, scored = jax.jit(lambda key: vae_jax.sample_scored(key, posterior, 3))(jax.random.key(0))
    np.testing.assert_allclose(z, posterior.sample(jax.random.key(0), (3,)), atol=1e-5)
    np.testing.assert_allclose(scored.density, posterior.log_prob(z), atol=1e-2)
    assert scored.shape == posterior.shape
    with jax.enable_x64(True):
        wide = posterior._wide(jnp.float64)
        z, scored = vae_jax.sample_scored(jax.random.key(0), wide, 3)
        np.testing.assert_allclose(scored.density, wide.log_prob(z), rtol=1e-9)


def test_what_is_not_the_draw_is_scored_by_the_flow():
    """A density that was kept would be wrong of it: of another value, or with another gradient."""
    posterior = flow("planar", "coupling")
    z, scored = vae_jax.sample_scored(jax.random.key(0), posterior)
    assert scored.log_prob(z) is scored.density
    np.testing.assert_allclose(scored.log_prob(z + 1), posterior.log_prob(z + 1), rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda s, z: s.log_prob(z))(scored, z), scored.density, rtol=1e-4
    )

    def held(flow, through):
        z, scored = vae_jax.sample_scored(jax.random.key(0), flow)
        return through(scored, jax.lax.stop_gradient(z)).sum()

    cases = (lambda s, z: s.log_prob(z)), (lambda s, z: s.distribution.log_prob(z))
    found, expected = (jax.grad(held)(posterior, case) for case in cases)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_most_distributions_come_back_as_they_are():
    normal = Normal(jnp.zeros(2), 1.0)
    z, same = vae_jax.sample_scored(jax.random.key(0), normal, 4)
    assert same is normal
    np.testing.assert_array_equal(z, vae_jax.sample(jax.random.key(0), normal, 4))
    joint = Joint((normal, flow("planar")), ancestral=True)
    values, scored = vae_jax.sample_scored(jax.random.key(0), joint)
    expected = vae_jax.sample(jax.random.key(0), joint)
    jax.tree.map(np.testing.assert_array_equal, tuple(values), expected)
    assert scored.ancestral
    assert isinstance(scored.parts[1], Drawn)


@pytest.mark.parametrize("names", [("planar", "planar, of each"), ("coupling", "iaf, of each")])
def test_sticking_the_landing_goes_through_the_draw_alone(names):
    """Of the path derivative, the definition: parameters that score are held, those that draw not.

    Roeder et al. 2017, equation 8, written out with the flow's own density of any value.
    """
    posterior, prior = flow(*names), Normal(jnp.zeros(Z), 1.0)
    x = array(NUM, 2)

    def decode(z):
        return Normal(z[..., :2], 1.0)

    def loss(flow):
        z, scored = vae_jax.sample_scored(jax.random.key(0), flow)
        return vae_jax.sticking_the_landing(x, z, scored, prior, decode(z)).value.sum()

    def written_out(drawing, scoring):
        z = drawing.sample(jax.random.key(0))
        return (decode(z).log_prob(x) + prior.log_prob(z) - scoring.log_prob(z)).sum()

    found = jax.jit(jax.grad(loss))(posterior)
    expected = jax.jit(jax.grad(written_out))(posterior, posterior)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_kl_of_a_flow_is_estimated():
    posterior, prior = flow("planar"), Normal(jnp.zeros(Z), 1.0)
    z, scored = vae_jax.sample_scored(jax.random.key(0), posterior)
    of = jnp.zeros((NUM, 2)), z, scored, prior, Normal(jnp.zeros((NUM, 2)), 1.0)
    with pytest.raises(TypeError, match=r"KL\(Flow \|\| Normal\).*analytic_kl=False"):
        vae_jax.elbo(*of)
    estimated = vae_jax.elbo(*of, analytic_kl=None)
    np.testing.assert_allclose(estimated.kl, scored.density - prior.log_prob(z), rtol=1e-5)
    normal = (*of[:2], posterior.base, *of[3:])
    np.testing.assert_array_equal(
        vae_jax.elbo(*normal, analytic_kl=None), vae_jax.elbo(*normal, analytic_kl=True)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planar(jnp.zeros(2), jnp.zeros(3), jnp.zeros(())), r"\(2,\), direction \(3,\)"),
        (lambda: InverseAutoregressive(layers()[:1]), "layers of a InverseA.*give two or more"),
        (lambda: Coupling(layers()[::-1]), "give two or more that fit each other"),
        (lambda: Coupling(layers(), array(HIDDEN + 1)), "the first layer of the Coupling has 8"),
        (lambda: Flow(Normal(jnp.zeros((3, Z)), 1.0, event_ndims=2), ()), "base has 2 event axes"),
        (
            lambda: Flow(Normal(jnp.zeros(Z), 1.0), (TRANSFORMS["planar, of each"],)),
            "batch axes must be the last of the base's, or none",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion")
def test_a_bijector_of_distrax_is_a_transform():
    distrax = pytest.importorskip("distrax")
    scale = distrax.Block(distrax.ScalarAffine(0.5, 2.0), 1)
    found = Flow(Normal(jnp.zeros(Z), 1.0), (scale,)).log_prob(jnp.ones((3, Z)))
    np.testing.assert_allclose(found, Normal(jnp.full(Z, 0.5), 2.0).log_prob(jnp.ones((3, Z))))


def flowjax_flow():
    flows = pytest.importorskip("flowjax.flows")
    distributions = pytest.importorskip("flowjax.distributions")
    return lambda cond_dim: flows.coupling_flow(
        jax.random.key(0),
        base_dist=distributions.StandardNormal((2,)),
        cond_dim=cond_dim,
        flow_layers=1,
        nn_width=4,
    )


@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")
def test_flowjaxs_distributions_are_priors_and_posteriors():
    make = flowjax_flow()
    prior, conditional = make(None), make(3)

    class Posterior:
        """A flow of flowjax under a condition for each example."""

        shape, event_ndims = (4, 2), 1
        condition = array(4, 3)

        def log_prob(self, value):
            return conditional.log_prob(value, self.condition)

        def sample_and_log_prob(self, key, sample_shape=()):
            return conditional.sample_and_log_prob(key, sample_shape, self.condition)

    z, posterior = vae_jax.sample_scored(jax.random.key(0), Posterior(), 5)
    likelihood = Normal(jnp.zeros((5, 4, 3)), 1.0)
    bound = vae_jax.elbo(jnp.zeros((4, 3)), z, posterior, prior, likelihood, analytic_kl=None)
    expected = conditional.log_prob(z, Posterior.condition) - prior.log_prob(z)
    np.testing.assert_allclose(bound.kl, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match=r"wants a condition of shape \(3,\)"):
        vae_jax.elbo(jnp.zeros((4, 3)), z, posterior, conditional, likelihood, analytic_kl=None)
