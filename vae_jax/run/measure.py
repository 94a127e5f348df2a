"""What a run measures: on its validation set after each epoch, on its test set at the end."""

import functools
import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.distributions import given
from vae_jax.distributions.drawn import draw_with_density, with_density
from vae_jax.distributions.location import location
from vae_jax.evaluation import batched
from vae_jax.evaluation.latents import mean_shifts
from vae_jax.run import cautions, keys
from vae_jax.run.buckets import Buckets, joined, without_padding
from vae_jax.run.callbacks import counted
from vae_jax.run.latents import as_vectors
from vae_jax.run.plan import named_leaves

ELBO_DRAWS = 10


_IN_MEMORY = 2**28
"""Bytes of observed images that are kept; more are observed when they are asked for."""


def observed(observe: Any, images: Any, split: str) -> Any:
    """The images as the model sees them, with noise from a key that all runs share.

    Returns:
      [N, H, W, C], float32 or bytes, an array, or of many what is read like one.
    """
    key = keys.of_run(0)[f"{split} pixels"]
    if 4 * math.prod(images.shape) <= _IN_MEMORY:
        return jax.jit(observe)(key, jnp.asarray(images))
    return Observed(observe, images, key)


class Observed:
    """Images that are observed when they are asked for, each under a key of its own.

    Attributes:
      shape: [N, H, W, C].
      dtype: float32, or uint8 of bytes that stay what they are.
    """

    def __init__(self, observe: Any, images: Any, key: jax.Array) -> None:
        self._images, self._key, self._of_rows = images, key, _of_rows(observe)
        self.shape: tuple[int, ...] = tuple(images.shape)
        one = jax.ShapeDtypeStruct(self.shape[1:], jax.dtypes.canonicalize_dtype(images.dtype))
        self.dtype = np.dtype(jax.eval_shape(observe, key, one).dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> jax.Array:
        rows = np.arange(len(self))[index]
        x: jax.Array = self._of_rows(
            self._key, jnp.asarray(self._images[rows]), jnp.asarray(rows, jnp.int32)
        )
        return x


@functools.lru_cache
def _of_rows(observe: Any) -> Any:
    """(key, images, rows) -> x, compiled once for all images that are observed so."""

    @jax.jit
    def of_rows(key: jax.Array, images: jax.Array, rows: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        x: jax.Array = jax.vmap(observe)(keys, images)
        return x

    return of_rows


def measure(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    x: Any,
    label: Any,
    num_samples: int,
    noun: str = "images",
    buckets: Buckets | None = None,
) -> dict[str, Any]:
    """Bounds and log p(x) of a data set, and how it uses the latents.

    Args:
      key: of the draws.
      model: the VAE.
      params: its parameters.
      x: [N, H, W, C], or [N, *event] of what is no image.
      label: [N] or None.
      num_samples: importance samples for each example.
      noun: what N are called in the names of the standard errors over them.
      buckets: of sequences, in groups of like lengths.

    Returns:
      elbo, log_likelihood and kl of the ELBO (means over N, in nats), the importance-sampled
      log p(x) with the standard error of its draws, that over the examples and the mean effective
      sample size, active units, the mean KL of each dimension where it is a sum over them, else
      None, and of each layer of a hierarchy, the top one first, warnings, and for each example the
      posterior mean and the `Estimate` of log p(x). With labels all are of p(x|c).
    """
    if buckets is None:
        found = _in_batches(key, model, params, x, label, num_samples)
    else:
        groups = []
        for width, rows in buckets.groups(np.arange(len(x))):
            of = x[rows, :width], jax.tree.map(lambda a, rows=rows: a[rows], label)
            of_width = jax.random.fold_in(key, width), buckets.model_of(width)
            groups.append((rows, _in_batches(*of_width, params, *of, num_samples)))
        found = joined(groups, len(x))
    bound, estimate, kl, means, moved = found
    if moved.ndim == 3:  # of steps, those that are there
        moved = without_padding(x[:, : moved.shape[1]], moved)
        moved = moved[~np.isnan(moved).any(axis=2)]
    kl = {name: [float(k) for k in of.mean(axis=0)] for name, of in kl.items()}
    unused = cautions.collapsed(kl["kl_per_layer"]) if "kl_per_layer" in kl else []
    evaluation = batched.summarize(estimate)
    active_units = int((moved.reshape(-1, moved.shape[-1]).var(axis=0) > 0.01).sum())
    return {
        "num_importance_samples": num_samples,
        "elbo": float(bound.value.mean()),
        f"elbo_standard_error_over_{noun}": batched.standard_error(bound.value),
        "reconstruction": float(bound.log_likelihood.mean()),
        "kl": float(bound.kl.mean()),
        "log_likelihood": float(estimate.value.mean()),
        "log_likelihood_standard_error": evaluation.standard_error_of_draws,
        f"log_likelihood_standard_error_over_{noun}": evaluation.standard_error_over_examples,
        "log_likelihood_standard_deviation": evaluation.standard_error_over_examples
        * math.sqrt(len(x)),
        "effective_sample_size": float(estimate.effective_sample_size.mean()),
        "latent_dim": means.shape[-1],
        "active_units": active_units,
        "kl_per_dimension": None,
        **kl,
        "warnings": [
            *cautions.untrusted(estimate, num_samples),
            *(cautions.unused(active_units, means.shape[-1]) or unused),
        ],
        "means": means,
        "estimate": estimate,
    }


def _in_batches(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: Any, label: Any, num_samples: int
) -> Any:
    """What `measure_batch` gives of all examples."""
    batch_size, chunk_size = batched.split(key, model, params, x, label, num_samples=num_samples)
    of_batch = measure_batch(model, num_samples, chunk_size)
    batches = list(batched.rows_of(len(x), batch_size))
    found = batched.each(of_batch.lower, params, key, (x, label), batches)
    told = counted(batches, len(x), f"log p(x), {num_samples} draws")
    return batched.joined([part for _, part in zip(told, found, strict=True)], len(x))


def measure_batch(model: vae_jax.VAE, num_samples: int, chunk_size: int) -> Any:
    """(params, key, x, label) -> bound, estimate, KL, means, how these move in the prior; jitted.

    The KL is of each latent or of each layer, [N, ...] under the name that results.json has for it.
    """

    # The parameters are given, not held: one program in the compilation cache serves all runs.
    @jax.jit
    def of_batch(params: Any, key: jax.Array, x: jax.Array, label: Any) -> Any:
        elbo_key, weight_key = jax.random.split(key)
        posterior, prior = model.encode(params, x, label), model.prior(params, label)

        def decode(z: jax.Array) -> Any:
            return model.decode(params, z, label)

        def bound_of(drawn: Any) -> vae_jax.Bound:
            scored = with_density(posterior, *drawn)
            return vae_jax.elbo(x, drawn[0], scored, prior, decode(drawn[0]), analytic_kl=None)

        # One after the other, so that no more draws are decoded at once than fit.
        drawn = draw_with_density(elbo_key, posterior, ELBO_DRAWS)
        bound = jax.tree.map(lambda b: b.mean(axis=0), jax.lax.map(bound_of, drawn))
        estimate = vae_jax.log_likelihood(
            weight_key,
            x,
            posterior,
            prior,
            decode,
            num_samples=num_samples,
            chunk_size=chunk_size,
        )
        if isinstance(posterior, vae_jax.Ancestral):
            z = jax.tree.map(lambda part: part[0], drawn[0])
            q, p = given(posterior, z), given(prior, z)
            moved = as_vectors(tuple(mean_shifts(q, p)))
            layers = {"kl_per_layer": vae_jax.kl_per_layer(q, p)}
            return bound, estimate, layers, as_vectors(location(posterior)), moved
        # Of others the KL is no sum over the dimensions.
        diagonal = all(isinstance(d, vae_jax.Normal) for d in (posterior, prior))
        kl = {"kl_per_dimension": vae_jax.kl_per_dimension(posterior, prior)} if diagonal else {}
        # What a label alone tells of z is not the use of a unit: the prior's mean is taken off.
        mean = location(posterior)
        moved = mean - jnp.broadcast_to(location(prior), mean.shape)
        return bound, estimate, kl, mean, moved

    return of_batch


def validation(
    model: vae_jax.VAE,
    key: jax.Array,
    x: Any,
    label: Any,
    most: int,
    buckets: Buckets | None = None,
) -> Callable[[Any], dict[str, Any]]:
    """params -> the bound of the validation set, one draw an example, the same draws each time.

    Args:
      model: the VAE.
      key: of the draws.
      x: [N, *event], an array, or what is read like one.
      label: [N] or None.
      most: examples at once.
      buckets: of sequences, in groups of like lengths, which changes no draw.
    """
    num_batches = -(-len(x) // most)
    batches = list(enumerate(np.array_split(np.arange(len(x)), num_batches)))
    if num_batches == 1 and buckets is None and not isinstance(x, jax.Array):
        x = jnp.asarray(x[np.arange(len(x))])
    cut = [] if buckets is None else [list(buckets.groups(rows)) for _, rows in batches]

    # The examples are given, not held: programs in the compilation cache have none in them.
    @jax.jit
    def bound_of(params: Any, key: jax.Array, x: jax.Array, label: Any) -> vae_jax.Bound:
        posterior = model.encode(params, x, label)
        prior = model.prior(params, label)
        drawn = vae_jax.draw(key, posterior, prior, lambda z: model.decode(params, z, label))
        bound = vae_jax.elbo(x, *drawn, analytic_kl=None)
        means: vae_jax.Bound = jax.tree.map(jnp.mean, bound)
        return means

    def bounds_of(params: Any, key: jax.Array, i: int, rows: np.ndarray) -> Iterator[Any]:
        """Of a batch, or of its groups, each beside the number of its examples."""
        if buckets is None:
            of_rows = jax.tree.map(lambda a: a[rows], label)
            yield bound_of(params, key, x if num_batches == 1 else x[rows], of_rows), len(rows)
            return
        for width, places in cut[i]:
            of = batched.take((x[:, :width], label), rows[places])
            own = jax.random.clone(key), len(rows), jnp.asarray(places, jnp.int32)
            yield buckets.bound_of(width)(params, *own, *of), len(places)

    def validate(params: Any) -> dict[str, Any]:
        found = []
        for i, rows in batches:
            batch_key = jax.random.fold_in(key, i) if num_batches > 1 else jax.random.clone(key)
            found += [
                (jax.device_get(of), num) for of, num in bounds_of(params, batch_key, i, rows)
            ]
        bounds, sizes = zip(*found, strict=True)
        return named_leaves(jax.tree.map(lambda *b: np.average(b, weights=sizes), *bounds))

    return validate


def compared(
    test: dict[str, Any], config: Mapping[str, Any], images: Any, num_levels: int
) -> dict[str, Any]:
    """What was measured, beside a model that knows nothing of the images.

    Args:
      test: from `measure`.
      config: of the run, its config.json.
      images: of the test set, as they were read.
      num_levels: of the likelihood's values, 1 of a density's.

    Returns:
      The same, with a warning more where that model is the better one, and with bits_per_dimension
      where the images are bytes.
    """
    nats, shape = test["log_likelihood"], tuple(images.shape[1:])
    known = shape
    if config.get("pixels", {}).get("missing"):  # of an image so many on average
        known = (round(float((~np.isnan(images)).sum() / len(images))),)
    said = test["warnings"] + cautions.uninformed(nats, known, num_levels)
    # Version 0.1 did not dequantise.
    bytes_seen = images.dtype == np.uint8 and "pixels" in config
    if config["binarization"] != "none" or not bytes_seen:
        return {**test, "warnings": said}
    bits = bits_per_dimension(nats, shape, num_levels)
    return {**test, "warnings": said, "bits_per_dimension": bits}


def bits_per_dimension(
    log_likelihood: float, image_shape: tuple[int, ...], num_levels: int
) -> float:
    """Of bytes: 8 for a model that knows nothing.

    Args:
      log_likelihood: of an image, in nats.
      image_shape: (H, W, C).
      num_levels: 256 where it is of the bytes, 1 where it is a density of x = (byte + u) / 256.
    """
    nats = log_likelihood / math.prod(image_shape)
    return (math.log(256 / num_levels) - nats) / math.log(2)


def reported(test: dict[str, Any]) -> dict[str, Any]:
    """The measurements of the test set under the names of results.json; arrays stay out."""
    as_they_are = (
        "num_importance_samples",
        "latent_dim",
        "active_units",
        "kl_per_dimension",
        "kl_per_layer",
        "warnings",
    )
    return {
        name if name in as_they_are else f"test_{name}": value
        for name, value in test.items()
        if name not in ("means", "estimate")
    }


def over(error: float, num: int, noun: str) -> str:
    """A standard error over `num` examples in words; of one alone there is none.

    >>> over(0.125, 40, "images"), over(math.nan, 1, "images")
    ('+- 0.12 over 40 images', 'of 1 images, too few to tell an error')
    """
    few = f"of {num} {noun}, too few to tell an error"
    return f"+- {error:.2f} over {num:,} {noun}" if math.isfinite(error) else few


def summary(results: dict[str, Any], noun: str = "images") -> str:
    """The lines that a run ends with."""
    name = "log p(x|c)" if results.get("conditional") else "log p(x)"
    errors = [
        over(results[f"test_{of}_standard_error_over_{noun}"], results["num_test"], noun)
        for of in ("elbo", "log_likelihood")
    ]
    lines = [
        f"test ELBO        {results['test_elbo']:9.2f} nats, {errors[0]}",
        f"test {name:12s}{results['test_log_likelihood']:9.2f} nats, {errors[1]}, +- "
        f"{results['test_log_likelihood_standard_error']:.3f} of the "
        f"{results['num_importance_samples']} draws, "
        f"{results['test_effective_sample_size']:.0f} effective",
        *(
            [f"bits per dimension {bits:7.2f}, of bytes; 8 for knowing nothing"]
            if (bits := results.get("test_bits_per_dimension")) is not None
            else []
        ),
        f"active units     {results['active_units']:6d} of {results['latent_dim']}",
        *(
            [f"KL of each layer   {', '.join(f'{kl:.2f}' for kl in layers)} nats, from the top"]
            if (layers := results.get("kl_per_layer")) is not None
            else []
        ),
        *(f"warning: {text}" for text in results["warnings"]),
    ]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of what made the numbers."""
    names = ("jax", "jaxlib", "flax", "optax")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        "vae_jax": vae_jax.__version__,
    }


def sha256(params: Any) -> str:
    """Of the parameters' bytes, in the order of their names."""
    digest = hashlib.sha256()
    for _, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
