"""What is computed with a trained model over many examples: one program for a size of batch."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.evaluation import batched
from vae_jax.run import keys, measure, sampler
from vae_jax.run.callbacks import counted
from vae_jax.run.latents import Shapes, as_layers, as_vectors
from vae_jax.run.scores import Codes, Scores

# At most; of fewer examples the next power of two, so that few programs are compiled. Of large
# images fewer: their activations are some hundred times their values.
_BATCH, _MOST_VALUES = 512, 2**23


class Programs:
    """A model and its parameters, and what was compiled for them.

    Where a `name` is given, a bar shows it.

    Args:
      model: the VAE.
      params: its parameters.
      shown: (likelihood) -> what a likelihood is shown as, an array.
      unit: what an example is called.
      layers: of a hierarchy, the shape of each layer's part of a code.
    """

    def __init__(
        self,
        model: vae_jax.VAE,
        params: Any,
        shown: Callable[[Any], jax.Array],
        unit: str = "image",
        layers: Shapes | None = None,
    ) -> None:
        self._model, self._params, self._shown, self._unit = model, params, shown, unit
        self._layers = layers
        self._compiled: dict[Any, Any] = {}

    def codes(
        self, x: Any, label: Any, *, num_draws: int = 0, seed: int = 0, name: str = ""
    ) -> Codes:
        """Of x [N, *event], NumPy or what is read like it; see `Codes`."""
        model = self._model

        def codes(params: Any, key: jax.Array, x: jax.Array, label: Any, place: Any) -> Any:
            posterior = model.encode(params, x, label)
            scale: Any = posterior.scale if isinstance(posterior, vae_jax.Normal) else None

            def draw(x: jax.Array, label: Any, place: jax.Array) -> Any:
                # A draw's key is that of its place: the first of many are those of few.
                own = jax.random.fold_in(key, place)
                z = vae_jax.sample(own, model.encode(params, x, label), num_draws)
                return as_vectors(z)

            drawn = jax.vmap(draw)(x, label, place) if num_draws else None
            mean: Any = as_vectors(location(posterior))
            return Codes(mean, scale, drawn)

        place = np.arange(len(x), dtype=np.int32)
        program, key = self._jitted(("codes", num_draws), codes), keys.of_run(seed)["codes"]
        found: Codes = self._run(program, key, (x, label, place), name)
        return found

    def reconstructions(self, x: Any, label: Any, *, name: str = "", out: Any = None) -> Any:
        """What p(x|z) of the codes' means is shown as, [N, *event]."""

        def reconstructed(params: Any, key: Any, x: jax.Array, label: Any) -> jax.Array:
            return self._shown(vae_jax.reconstruct(self._model, params, x, label))

        return self._run(self._jitted("reconstructed", reconstructed), None, (x, label), name, out)

    def decoded(self, z: np.ndarray, label: Any) -> np.ndarray:
        """What p(x|z) of codes [N, Z] is shown as."""

        def decoded(params: Any, key: Any, z: jax.Array, label: Any) -> jax.Array:
            return self._shown(self._model.decode(params, as_layers(z, self._layers), label))

        found: np.ndarray = self._run(self._jitted("decoded", decoded), None, (z, label))
        return found

    def drawn(
        self,
        num: int,
        label: Any,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        name: str = "",
        out: Any = None,
    ) -> Any:
        """What p(x|z) of draws from the prior is shown as, [num, *event]."""
        model = self._model
        if temperature != 1:
            model = sampler.tempered(model, temperature)

        def drawn(params: Any, key: jax.Array, place: jax.Array, label: Any) -> jax.Array:
            def one(place: jax.Array, label: Any) -> jax.Array:
                own = jax.random.fold_in(key, place)
                return self._shown(vae_jax.generate(own, model, params, (), label))

            return jax.vmap(one)(place, label)

        place = np.arange(num, dtype=np.int32)
        program, key = self._jitted(("drawn", temperature), drawn), keys.of_run(seed)["generate"]
        return self._run(program, key, (place, label), name, out)

    def scores(
        self, x: Any, label: Any, *, num_samples: int, seed: int = 0, name: str = ""
    ) -> Scores:
        """Of x, by so many draws each; see `Scores`."""
        key = keys.of_run(seed)["evaluation"]
        size, chunk_size = batched.split(
            key, self._model, self._params, x, label, num_samples=num_samples
        )

        def scores(params: Any, key: jax.Array, x: jax.Array, label: Any, batch: Any) -> Scores:
            own = jax.random.fold_in(key, batch[0])
            measured = measure.measure_batch(self._model, num_samples, chunk_size)
            bound, estimate, *_ = measured(params, own, x, label)
            return Scores(
                estimate.value,
                estimate.standard_error,
                bound.value,
                bound.log_likelihood,
                estimate.effective_sample_size,
                estimate.pareto_k,
            )

        program = self._jitted(("scores", num_samples, chunk_size), scores)
        batch = np.arange(len(x), dtype=np.int32) // size
        found: Scores = self._run(program, key, (x, label, batch), name, size=size)
        return found

    def _jitted(self, name: Any, function: Callable[..., Any]) -> Any:
        """The function, jitted once for a name, whose values decide all that it closes over."""
        return self._compiled.setdefault(name, jax.jit(function))

    def _run(
        self,
        program: Any,
        key: Any,
        arrays: tuple[Any, ...],
        name: str = "",
        out: Any = None,
        size: int | None = None,
    ) -> Any:
        """What the batches give, as one.

        Args:
          program: (params, key, *batch) -> arrays, jitted.
          key: of it.
          arrays: each [N, ...], read by rows, or None.
          name: of the bar.
          out: what takes them by `out[rows] = batch`, in place of an array in memory.
          size: of a batch.
        """
        num = len(arrays[0])
        if size is None:
            values = math.prod(arrays[0].shape[1:]) or 1
            most = min(_BATCH, max(1, _MOST_VALUES // values))
            size = min(most, 1 << (num - 1).bit_length())
        batches = list(batched.rows_of(num, size))
        calls = ((self._params, key, *batched.take(arrays, rows)) for rows in batches)
        told = counted(batches, num, name, self._unit) if name else batches
        found = zip(told, batched.in_turn(program.lower, calls), strict=True)
        if out is None:
            return batched.joined([part for _, part in found], num)
        for rows, part in found:
            start = int(rows[0])
            out[start : start + size] = part[: num - start]
        return out
