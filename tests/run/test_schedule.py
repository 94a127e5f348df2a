"""The rate of a step: a warm-up, a constant part, a line to zero, against the words of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.run import schedule


@pytest.mark.parametrize("part", [(0.0, 1.0), (0.25, 0.75)])
def test_the_rate_rises_stays_and_falls_along_the_lines_of_the_whole_training(part):
    step, constant, warm_up, num = np.arange(400, dtype=np.float32), 0.4, 20, 400
    how = {"part": part, "constant": constant, "warm_up": warm_up}
    found = jax.jit(jax.vmap(lambda s: schedule.rate_at(s, num, 0.3, **how)))(jnp.asarray(step))
    share = part[0] + (part[1] - part[0]) * step / num
    falling = np.interp(share, [0, constant, 1], [1, 1, 0])
    rising = np.interp(step + 1, [0, warm_up], [0, 1])
    np.testing.assert_allclose(found, 0.3 * falling * rising, rtol=1e-5, atol=1e-7)
