"""Sequences measured in groups of like lengths, each cut to its width; numbers are as of all."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.run.data import stream


@dataclasses.dataclass(frozen=True)
class Buckets:
    """What sequences of a data set are cut to, and the model of such a width.

    Attributes:
      widths: of each sequence [N], its length or more.
      model_of: width -> VAE, under the same parameters.
    """

    widths: np.ndarray
    model_of: Callable[[int], vae_jax.VAE]
    _bounds: dict[int, Any] = dataclasses.field(default_factory=dict)

    def groups(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Of some rows, each width and the places, among these, of those that are cut to it."""
        widths = self.widths[rows]
        for width in np.unique(widths):
            yield int(width), np.flatnonzero(widths == width)

    def bound_of(self, width: int) -> Any:
        """(params, key, num, rows, x, label) -> the mean bound of some of `num` rows; jitted."""
        if width not in self._bounds:
            self._bounds[width] = _bound_of(self.model_of(width))
        return self._bounds[width]


def _bound_of(model: vae_jax.VAE) -> Any:
    @functools.partial(jax.jit, static_argnums=2)
    def bound_of(
        params: Any, key: jax.Array, num: int, rows: jax.Array, x: jax.Array, label: Any
    ) -> vae_jax.Bound:
        posterior, prior = model.encode(params, x, label), model.prior(params, label)
        z = sample_among(key, posterior, rows, num)
        likelihood = model.decode(params, z, label)
        bound = vae_jax.elbo(x, z, posterior, prior, likelihood, analytic_kl=None)
        means: vae_jax.Bound = jax.tree.map(jnp.mean, bound)
        return means

    return bound_of


def of_sequences(
    x: np.ndarray, least: int, model_of: Callable[[int], vae_jax.VAE]
) -> Buckets | None:
    """Groups of sequences [N, T, D], NaN from their ends on; None where they would spare little.

    Args:
      x: the sequences.
      least: of a group; each takes a program.
      model_of: see `Buckets`.
    """
    steps = ~np.isnan(x).all(axis=2)
    lengths = np.where(steps.any(axis=1), x.shape[1] - steps[:, ::-1].argmax(axis=1), 1)
    widths = stream.widths_of(lengths, least)
    return None if widths is None else Buckets(widths, model_of)


def without_padding(x: Any, of_steps: np.ndarray) -> np.ndarray:
    """Values of steps [N, T, Z], NaN after the end of their sequence [N, T, D]."""
    steps = ~np.isnan(np.asarray(x)).all(axis=2)
    ended = ~np.logical_or.accumulate(steps[:, ::-1], axis=1)[:, ::-1]
    return np.where(ended[..., None], np.nan, of_steps)


def joined(parts: list[tuple[np.ndarray, Any]], num: int) -> Any:
    """What groups gave, (rows, arrays [n, ...]) each, as of all rows; NaN after shorter steps."""

    def of_all(*leaves: np.ndarray) -> np.ndarray:
        shape = np.max([leaf.shape[1:] for leaf in leaves], axis=0).astype(int)
        found = np.full((num, *shape), np.nan, leaves[0].dtype)
        for (rows, _), leaf in zip(parts, leaves, strict=True):
            place: Any = (rows, *(slice(size) for size in leaf.shape[1:]))
            found[place] = leaf
        return found

    return jax.tree.map(of_all, *(found for _, found in parts))


def sample_among(key: jax.Array, posterior: Any, rows: jax.Array, num: int) -> Any:
    """Draws of some rows' posterior, those that they have in a batch of `num` rows.

    A validation set is one batch, whose noise is one array: cut to groups it stays what it is, and
    which epoch is the best does not follow from how it is measured.
    """
    if not isinstance(posterior, vae_jax.MarkovChain):
        return vae_jax.sample(key, _Among(posterior, rows, num))
    step = posterior.step
    chain = dataclasses.replace(posterior, step=lambda *of: _Among(step(*of), rows, num))
    return vae_jax.sample(key, chain)


class _Among(NamedTuple):
    """Rows of a Normal [R, Z], drawn with the noise that they have among `num`."""

    distribution: vae_jax.Normal
    rows: jax.Array
    num: int

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        def of_all(some: jax.Array) -> jax.Array:
            zeros = jnp.zeros((self.num, some.shape[-1]), some.dtype)
            return zeros.at[self.rows].set(some)

        whole = jax.tree.map(of_all, self.distribution)
        drawn: jax.Array = vae_jax.sample(key, whole, sample_shape)[..., self.rows, :]
        return drawn
