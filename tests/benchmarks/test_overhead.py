"""`elbo` costs nothing: a jitted step has the matrix products of the loss written out, no more."""

import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks import overhead


# Four layers: one product each, and backwards two each but for the first, whose input is data.
@pytest.mark.parametrize(("of", "dots"), [(lambda f: f, 4), (jax.grad, 11)], ids=["loss", "grad"])
@pytest.mark.parametrize("loss", [overhead.with_vae_jax, overhead.by_hand])
def test_optimised_hlo_has_the_dots_of_the_loss_by_hand(loss, of, dots):
    compiled = jax.jit(of(loss)).lower(*overhead.example(batch_size=8)).compile()
    assert len(re.findall(r"= \S+ dot\(", compiled.as_text())) == dots


def test_same_value_as_by_hand():
    params, key, x = overhead.example(batch_size=8)
    got, want = (
        jax.jit(loss)(params, jax.random.clone(key), x)
        for loss in (overhead.with_vae_jax, overhead.by_hand)
    )
    assert jnp.allclose(got, want, rtol=1e-5)
