"""`elbo` costs nothing: a jitted step has the matrix products of the loss written out, no more."""

import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks import overhead


@pytest.mark.parametrize("differentiate", [False, True], ids=["loss", "gradient"])
def test_same_number_of_dots_as_by_hand(differentiate):
    params, key, x = overhead.example(batch_size=8)
    counts = []
    for loss in (overhead.with_vae_jax, overhead.by_hand):
        function = jax.grad(loss) if differentiate else loss
        hlo = jax.jit(function).lower(params, jax.random.clone(key), x).compile().as_text()
        # XLA's own dot, or a call of the CPU's matrix library in its place.
        counts.append(len(re.findall(r"= \S+ dot\(|custom_call_target=\"[^\"]*matmul", hlo)))
    assert counts[0] == counts[1] == (10 if differentiate else 4) or counts[0] == counts[1] > 0


def test_same_value_as_by_hand():
    params, key, x = overhead.example(batch_size=8)
    got, want = (
        jax.jit(loss)(params, jax.random.clone(key), x)
        for loss in (overhead.with_vae_jax, overhead.by_hand)
    )
    assert jnp.allclose(got, want, rtol=1e-5)
