"""Distributions over several latents, each known once those before it are drawn."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array

from vae_jax.distributions import foreign
from vae_jax.distributions._pytree import check_key, pytree
from vae_jax.distributions.drawn import sample_scored
from vae_jax.distributions.joint import Joint
from vae_jax.distributions.markov import MarkovChain


class Draw(NamedTuple):
    """Draws of z and what a bound takes beside x: `elbo(x, *draw)`.

    Attributes:
      z: from the posterior, [*s, *b, Z], or a tuple of such.
      posterior: q(z|x).
      prior: p(z).
      likelihood: p(x|z).

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal, elbo
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> drawn = draw(jax.random.key(0), posterior, prior, lambda z: Normal(0.0 * z, 1.0))
    >>> elbo(jnp.zeros((4, 2)), *drawn).kl
    Array([0., 0., 0., 0.], dtype=float32)
    """

    z: Any
    posterior: Any
    prior: Any
    likelihood: Any


@pytree
class Ancestral:
    """Several distributions as one, where each depends on draws of those before: q(z1) q(z2|z1).

    A `Joint` holds parts that are known; here a part is known once the draws before it are. So
    `sample` draws as it goes, and `given(z)` is the Joint of the parts at draws z, which is what
    `elbo`, `iwae` and the like look at: the KL of each part in closed form, given the draws before.

    Args:
      walk: (choose) -> anything; calls `choose(part, *beside)` for each part in turn and goes on
        with the draw that it returns. `beside` are distributions of the same draw, such as the
        prior's part beside the posterior's. A `jax.tree_util.Partial` of a function and its
        parameters makes this a pytree of them, which goes through `jax.jit` and `jax.grad`.
      reverse: z is in the reverse order of the walk: p(z2) p(z1|z2) of z = (z1, z2), beside a
        posterior q(z1|x) q(z2|z1). Such a pair has no closed form of its KL, and `elbo` estimates
        it from the draws.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal, log_prob, sample
    >>> def walk(choose):
    ...     first = choose(Normal(jnp.zeros((4, 2)), 1.0))
    ...     choose(Normal(first @ jnp.ones((2, 3)), 1.0))
    >>> chain = Ancestral(walk)
    >>> z = sample(jax.random.key(0), chain, 5)
    >>> [part.shape for part in z], log_prob(chain, z).shape
    ([(5, 4, 2), (5, 4, 3)], (5, 4))
    """

    walk: Callable[[Callable[..., Any]], Any]
    reverse: bool = dataclasses.field(default=False, metadata={"static": True})

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """One draw of each part, a tuple."""
        return self.walked(key, sample_shape)[0]

    def given(self, z: Any) -> Joint:
        """The parts at draws z, one for each, as a `Joint`.

        Raises:
          ValueError: z has another number of values than the walk has parts.
        """
        values, parts = list(z[::-1] if self.reverse else z), []

        def choose(part: Any, *beside: Any) -> Any:
            parts.append(part)
            return values[min(len(parts), len(values)) - 1]

        self.walk(choose)
        if len(parts) != len(values):
            raise ValueError(
                f"{len(values)} values for an Ancestral of {len(parts)} parts: pass one for each"
            )
        return self.joint(parts)

    def joint(self, parts: Sequence[Any]) -> Joint:
        """The parts in the order of the walk as a `Joint` in that of z."""
        return Joint(tuple(parts[::-1] if self.reverse else parts), ancestral=not self.reverse)

    def log_prob(self, value: Any) -> Array:
        return self.given(value).log_prob(value)

    @property
    def mean(self) -> tuple[Any, ...]:
        """The mean of each part at the means of those before it; of the parts after, no mean."""
        means: list[Any] = []

        def choose(part: Any, *beside: Any) -> Any:
            means.append(part.mean)
            return part.mean

        self.walk(choose)
        return tuple(means[::-1] if self.reverse else means)

    def walked(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[tuple[Any, ...], list[tuple[Any, ...]], Any]:
        """Draws, (part, *beside) of each in the order of the walk, and what the walk returns."""
        check_key(key)
        drawn: list[Any] = []
        rows: list[tuple[Any, ...]] = []

        def choose(*parts: Any) -> Any:
            # Of a part that depends on no draw, as many as of the first: its shape has no [*s] yet.
            shape, ndim = foreign.shape(parts[0]), foreign.event_ndims(parts[0])
            batch = shape[: len(shape) - (1 if ndim is None else ndim)]
            if not drawn:
                leading.extend((*sample_shape, *batch))
            missing = tuple(leading[: max(0, len(leading) - len(batch))])
            z, scored = sample_scored(jax.random.fold_in(key, len(drawn)), parts[0], missing)
            drawn.append(z)
            rows.append((scored, *parts[1:]))
            return drawn[-1]

        leading: list[int] = []
        result = self.walk(choose)
        return tuple(drawn[::-1] if self.reverse else drawn), rows, result


def given(distribution: Any, z: Any) -> Any:
    """The distribution itself; of an `Ancestral` or a `MarkovChain` its parts at draws z.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal
    >>> def walk(choose):
    ...     first = choose(Normal(jnp.zeros(2), 1.0))
    ...     choose(Normal(2.0 * first, 1.0))
    >>> given(Ancestral(walk), (jnp.ones(2), jnp.ones(2))).parts[1].mean
    Array([2., 2.], dtype=float32)
    """
    known = not isinstance(distribution, Ancestral | MarkovChain)
    return distribution if known else distribution.given(z)


def draw(
    key: Array,
    posterior: Any,
    prior: Any,
    decode: Callable[[Any], Any],
    sample_shape: int | tuple[int, ...] = (),
) -> Draw:
    """z ~ q(z|x) with all that a bound takes beside x: `elbo(x, *draw(...))`.

    Of an `Ancestral` posterior whose walk meets the prior's parts on the way down to p(x|z), as
    `make_top_down` makes, it is one pass of the networks, and `prior` and `decode` are not used;
    sampled, scored and decoded apart it would be four, and as many of its gradient.

    Args:
      key: a typed PRNG key.
      posterior: q(z|x).
      prior: p(z).
      decode: z -> p(x|z).
      sample_shape: leading axes of the draws; an int S for (S,).

    Returns:
      A `Draw`.

    >>> import jax.numpy as jnp
    >>> from vae_jax import Normal, iwae
    >>> posterior, prior = Normal(jnp.zeros((4, 2)), 1.0), Normal(jnp.zeros(2), 1.0)
    >>> drawn = draw(jax.random.key(0), posterior, prior, lambda z: Normal(0.0 * z, 1.0), 5)
    >>> iwae(jnp.zeros((4, 2)), *drawn).value.round(3)
    Array([-1.838, -1.838, -1.838, -1.838], dtype=float32)
    """
    if not isinstance(posterior, Ancestral):
        z, scored = sample_scored(key, posterior, sample_shape)
        return Draw(z, scored, prior, decode(z))
    sizes = (sample_shape,) if hasattr(sample_shape, "__index__") else sample_shape
    z, rows, result = posterior.walked(key, tuple(map(operator.index, sizes)))
    joint = posterior.joint([row[0] for row in rows])
    if all(len(row) == 2 for row in rows):
        return Draw(z, joint, posterior.joint([row[1] for row in rows]), result)
    return Draw(z, joint, given(prior, z), decode(z))
