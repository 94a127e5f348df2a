"""What does not fit is named."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax
from tests.distributions.cases import eager_and_jitted
from vae_jax import Bernoulli, Categorical, Joint, MultivariateNormal, Normal


@eager_and_jitted
@pytest.mark.parametrize(
    ("of", "arguments", "message"),
    [
        (
            Normal,
            (np.zeros((4, 3)), np.ones((4, 2))),
            r"mean has shape \(4, 3\) but scale has shape \(4, 2\): give",
        ),
        (
            MultivariateNormal,
            (np.zeros((4, 3)), np.ones((3, 3))),
            r"mean has shape \(4, 3\) but scale_tril has shape \(3, 3\): they must be",
        ),
        (
            lambda a: Bernoulli(a, event_ndims=3),
            (np.zeros((4, 3)),),
            r"shape \(4, 3\) cannot have 3 event axes: add axes",
        ),
        (
            lambda a, x: Normal(a, 1.0).log_prob(x),
            (np.zeros((4, 3)), np.zeros((4, 1))),
            r"value has shape \(4, 1\) but Normal has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: Normal(a, 1.0, event_ndims=2).log_prob(x),
            (np.zeros((4, 3)), np.zeros(3)),
            r"value has shape \(3,\) but Normal has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: Bernoulli(a).log_prob(x),
            (np.zeros((4, 3)), np.zeros((3, 3))),
            r"value has shape \(3, 3\) but Bernoulli has .*shape \(4, 3\)",
        ),
        (
            lambda a, x: MultivariateNormal(a, jnp.eye(3)).log_prob(x),
            (np.zeros(3), np.zeros(2)),
            r"value has shape \(2,\) but MultivariateNormal has .*shape \(3,\)",
        ),
        (
            lambda a: Categorical(a).log_prob(jnp.zeros((4, 1), int)),
            (np.zeros((4, 3)),),
            r"value has shape \(4, 1\) but Categorical has .*shape \(4,\)",
        ),
        (
            lambda a: Joint((Bernoulli(a), Bernoulli(a))).log_prob((a,)),
            (np.zeros(3),),
            r"1 values for a Joint of 2 parts: pass one for each",
        ),
        (
            lambda a, b: vae_jax.kl_divergence(Normal(a, 1.0), Normal(b, 1.0)),
            (np.zeros((4, 3)), np.zeros((4, 2))),
            r"posterior has shape \(4, 3\) .* prior has shape \(4, 2\) .*must match",
        ),
        (
            lambda a, b: vae_jax.kl_divergence(
                Normal(a, 1.0, event_ndims=2), MultivariateNormal(b, jnp.eye(3))
            ),
            (np.zeros((4, 3)), np.zeros(3)),
            r"a Normal with 2 event axes beside a MultivariateNormal.*: flatten the event",
        ),
        (
            lambda a: vae_jax.kl_divergence(Joint((Bernoulli(a),)), Joint(())),
            (np.zeros(3),),
            r"posterior is a Joint of 1 parts but prior of 0: give each part its counterpart",
        ),
    ],
)
def test_shapes_that_do_not_match(jit, of, arguments, message):
    arguments = [a.astype(np.float32) for a in arguments]
    with pytest.raises(ValueError, match=message):
        jit(lambda *arrays: jax.tree.leaves(of(*arrays)))(*arguments)


@eager_and_jitted
@pytest.mark.parametrize(
    ("of", "dtype", "message"),
    [
        (lambda a: Normal(a, 1.0), "int32", "mean has dtype int32: pass a floating-point array"),
        (lambda a: Normal(jnp.zeros(3), a), "int32", "scale has dtype int32"),
        (Bernoulli, "uint8", "logits has dtype uint8: pass a floating-point array"),
        (
            lambda a: Bernoulli(jnp.zeros(3)).log_prob(a),
            "uint8",
            "value of a Bernoulli has dtype uint8: pass .*floats",
        ),
        (
            lambda a: Categorical(jnp.zeros((3, 5))).log_prob(a),
            "float32",
            "value of a Categorical has dtype float32: pass integers",
        ),
        (
            lambda a: vae_jax.kl_divergence(Normal(a, 1.0), Bernoulli(a)),
            "float32",
            r"no closed form is known for KL\(Normal \|\| Bernoulli\): .*analytic_kl=False",
        ),
    ],
)
def test_types_that_do_not_match(jit, of, dtype, message):
    with pytest.raises(TypeError, match=message):
        jit(lambda a: jax.tree.leaves(of(a)))(np.ones(3, dtype))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_known_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=f"scale .*{scale}.*: it must be positive"):
        Normal(jnp.zeros(3), scale)
    with pytest.raises(ValueError, match=r"the diagonal of scale_tril .*: it must be positive"):
        MultivariateNormal(jnp.zeros(3), scale * jnp.eye(3))
