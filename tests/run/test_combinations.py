"""Every likelihood, prior, posterior and network together: two steps, or one line of refusal.

All that make sense are two hours of a core. `-m "" -k pairs` are those 77 of them in which each two
choices meet, as faults seldom take three (Kuhn et al. 2004): six minutes.
"""

import itertools
import random
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import vae_jax
from vae_jax.run import defaults, latents, model, objective, options
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.errors import UsageError
from vae_jax.run.pixels import measure_pixels

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))
BYTES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
LABELS = np.arange(6, dtype=np.int32) % 2
LIKELIHOODS = (*options.BINARY, *options.DENSITIES, *options.OF_BYTES)


def choices(name):
    hint = typing.get_type_hints(options.Model)[name]
    hint = typing.get_args(hint)[0] if type(None) in typing.get_args(hint) else hint
    return typing.get_args(hint)


NETWORKS, POSTERIORS, PRIORS = map(choices, ("network", "posterior", "prior"))
ALL = list(itertools.product(LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS, (False, True)))


def refused(network, posterior, prior, conditional):
    """What no likelihood can mend, in the test's own words."""
    if network in ("ladder", "top_down"):  # their layers are Gaussian, and know no label
        return conditional or posterior != "normal" or prior not in ("conditional", "standard")
    if posterior == "power_spherical":  # its codes are unit vectors, and its prior knows no label
        return conditional or prior in ("mixture", "flow")
    return conditional and prior in ("mixture", "vamp", "flow")  # these know no label either


# Without labels the conditional prior is the standard one. In no order, so that the few that are in
# every run differ in all.
SENSIBLE = [of for of in ALL if not refused(*of[1:]) and (of[4] or of[3] != "conditional")]
random.Random(2251).shuffle(SENSIBLE)


def covering(combinations):
    """A few in which all pairs of choices occur that occur in any, each time one with the most."""

    pairs = {of: set(itertools.combinations(enumerate(of), 2)) for of in combinations}
    missing, found = set().union(*pairs.values()), []
    while missing:
        found.append(max(combinations, key=lambda of: len(pairs[of] & missing)))
        missing -= pairs[found[-1]]
    return found


PAIRS = covering(SENSIBLE)


def chosen(likelihood, network, posterior, prior, conditional, **changed):
    asked = "threshold" if likelihood in options.BINARY else "none"
    data = options.OwnData("tiny.npy", binarization=asked)
    small = {
        "hidden": None if network in options.CONVOLUTIONS else (4,) * (1 + (network == "ladder")),
        "channels": (2,) if network in options.CONVOLUTIONS else None,
        "latent_dim": 2,
        "num_components": 3 if prior in ("mixture", "vamp") else None,
        "num_transforms": 2,
        "embedding_dim": 2,
    }
    of = {"network": network, "posterior": posterior, "prior": prior, "conditional": conditional}
    made = options.Model(likelihood=likelihood, **small, **of)
    return options.OwnOptions(data, made, **changed)


def settled(given, images=BYTES):
    options.check(given)
    split = Split(images, LABELS)
    return defaults.settled(given, Dataset("tiny", split, split, split, 2, ""), MESH)


@pytest.mark.few(7)
@pytest.mark.parametrize(
    "of", SENSIBLE, ids=lambda of: "-".join(map(str, ("pairs",) * (of in PAIRS) + of))
)
def test_what_makes_sense_trains_two_steps(of, monkeypatch):
    likelihood, *_, conditional = of
    for name, value in ("_HIDDEN", (4,)), ("_CONTEXT", 2):
        monkeypatch.setattr(latents, name, value)
    monkeypatch.setattr(model, "_FEATURES", 2)
    complete = settled(chosen(*of))
    binarization = complete.data.binarization
    pixels = measure_pixels(BYTES, binarization)
    vae = model.make_model(complete.model, BYTES.shape[1:], binarization, pixels, 2)
    loss = objective.make_loss(
        complete.objective,
        vae,
        model.observe(binarization, likelihood),
        1,
        len(BYTES),
        optimal_scale=likelihood == "sigma_vae",
    )
    batch = vae_jax.Batch(BYTES, LABELS if conditional else None)

    def step(params, key):
        (value, bound), gradient = jax.value_and_grad(loss, has_aux=True)(params, key, batch)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), value, bound, gradient

    # In the shapes of `init`, but no bias is zero and nothing is compiled; the step but lightly.
    label = LABELS[:3] if conditional else None
    shapes = jax.eval_shape(vae.init, jax.random.key(0), jnp.zeros((3, *BYTES.shape[1:])), label)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(0.2 * rng.normal(size=a.shape), a.dtype), shapes)
    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
    for i in range(2):
        params, value, bound, gradient = step(params, jax.random.key(i))
        assert np.isfinite(value)
        np.testing.assert_allclose(bound.value, bound.log_likelihood - bound.kl, rtol=1e-4)
        learned = jax.tree.map(lambda g: bool(jnp.isfinite(g).all() & (g != 0).any()), gradient)
        assert all(jax.tree.leaves(learned)), learned


def test_every_combination_is_settled_or_refused_in_a_line():
    for of in ALL:
        if not refused(*of[1:]):
            complete = settled(chosen(*of)).model
            assert (complete.likelihood, complete.network) == of[:2]
            continue
        with pytest.raises(UsageError) as error:
            settled(chosen(*of))
        said = str(error.value)
        assert "\n" not in said
        named = f"--network={of[1]}", f"--posterior={of[2]}", f"--prior={of[3]}"
        assert any(option in said for option in named)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("kind", ["zeros and ones", "floats"])
def test_a_likelihood_of_other_data_is_refused_in_a_line(likelihood, kind):
    given = chosen(likelihood, "mlp", "normal", "standard", False)
    asked = "threshold" if kind == "zeros and ones" else "none"
    given = options.OwnOptions(options.OwnData("tiny.npy", binarization=asked), given.model)
    images = BYTES if kind == "zeros and ones" else (BYTES / 255).astype(np.float32)
    if likelihood in (options.BINARY if kind == "zeros and ones" else options.DENSITIES):
        assert settled(given, images).model.likelihood == likelihood
        return
    with pytest.raises(UsageError, match=f"--likelihood is {likelihood} but .* choose from") as e:
        settled(given, images)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("network", options.CONVOLUTIONS)
def test_convolutions_of_a_row_of_pixels_are_refused_in_a_line(network):
    given = chosen("normal", network, "normal", "standard", False)
    row = np.zeros((2, 1, 20, 1), np.uint8)
    pixels = measure_pixels(row, "none")
    with pytest.raises(UsageError, match="too narrow: choose mlp, gated, residual or"):
        model.make_model(given.model, row.shape[1:], "none", pixels, 0)
