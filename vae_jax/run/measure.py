"""What the end of a run measures on a set of images."""

import hashlib
import importlib.metadata
import math
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import vae_jax

ELBO_DRAWS = 10
_BATCH = 500


def observed(observe: Any, images: np.ndarray, split: str) -> jax.Array:
    """The images as the model sees them, binarised once, from a key that all runs share."""
    key = jax.random.fold_in(jax.random.key(0), {"validation": 0, "test": 1}[split])
    x: jax.Array = jax.jit(observe)(key, jnp.asarray(images))
    return x


def measure(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: jax.Array, label: Any, num_samples: int
) -> dict[str, Any]:
    """Bounds and log p(x) of a data set, and how it uses the latents.

    Args:
      key: of the draws.
      model: the VAE.
      params: its parameters.
      x: [N, H, W, C].
      label: [N] or None.
      num_samples: importance samples for each example.

    Returns:
      elbo, log_likelihood and kl of the ELBO (means over N, in nats), the importance-sampled
      log p(x) with its Monte Carlo standard error, active units, the mean KL of each dimension, and
      for each image the posterior mean and the `Estimate` of log p(x). With labels all are of
      p(x|c).
    """
    # One draw of 500 images fits a CPU's cache; an accelerator wants more in flight.
    chunk_size = 1 if jax.default_backend() == "cpu" else math.gcd(num_samples, 50)

    @jax.jit
    def measure_batch(key: jax.Array, x: jax.Array, label: Any) -> Any:
        elbo_key, weight_key = jax.random.split(key)
        posterior, prior = model.encode(params, x, label), model.prior(params, label)
        z = vae_jax.sample(elbo_key, posterior, ELBO_DRAWS)
        bound = vae_jax.elbo(x, z, posterior, prior, model.decode(params, z, label))
        estimate = vae_jax.log_likelihood(
            weight_key,
            x,
            posterior,
            prior,
            lambda z: model.decode(params, z, label),
            num_samples=num_samples,
            chunk_size=chunk_size,
        )
        kl = vae_jax.kl_per_dimension(posterior, prior)
        # What a label alone tells of z is not the use of a unit: the prior's mean is taken off.
        moved = posterior.mean - jnp.broadcast_to(prior.mean, posterior.mean.shape)
        return jax.tree.map(lambda b: b.mean(axis=0), bound), estimate, kl, posterior.mean, moved

    batches = []
    bar = tqdm(total=len(x), unit="image", desc=f"log p(x), {num_samples} draws", disable=None)
    with bar:
        for i, start in enumerate(range(0, len(x), _BATCH)):
            # The last batch is filled up with the first images, or it would compile anew.
            index = np.arange(start, start + min(_BATCH, len(x))) % len(x)
            part = x[index], None if label is None else label[index]
            batches.append(jax.device_get(measure_batch(jax.random.fold_in(key, i), *part)))
            bar.update(min(_BATCH, len(x) - start))
    bound, estimate, kl, means, moved = jax.tree.map(
        lambda *parts: np.concatenate(parts)[: len(x)], *batches
    )
    return {
        "num_importance_samples": num_samples,
        "elbo": float(bound.value.mean()),
        "reconstruction": float(bound.log_likelihood.mean()),
        "kl": float(bound.kl.mean()),
        "log_likelihood": float(estimate.value.mean()),
        "log_likelihood_standard_error": float(
            np.sqrt(np.square(estimate.standard_error).sum()) / len(x)
        ),
        "log_likelihood_standard_deviation": float(estimate.value.std(ddof=1)),
        "active_units": int((moved.var(axis=0) > 0.01).sum()),
        "kl_per_dimension": [float(k) for k in kl.mean(axis=0)],
        "means": means,
        "estimate": estimate,
    }


def reported(test: dict[str, Any]) -> dict[str, Any]:
    """The measurements of the test set under the names of results.json; arrays stay out."""
    as_they_are = ("num_importance_samples", "active_units", "kl_per_dimension")
    return {
        name if name in as_they_are else f"test_{name}": value
        for name, value in test.items()
        if name not in ("means", "estimate")
    }


def summary(results: dict[str, Any]) -> str:
    """The lines that a run ends with."""
    name = "log p(x|c)" if results["conditional"] else "log p(x)"
    return (
        f"test ELBO        {results['test_elbo']:9.2f} nats\n"
        f"test {name:12s}{results['test_log_likelihood']:9.2f} nats, +- "
        f"{results['test_log_likelihood_standard_error']:.3f} over "
        f"{results['num_importance_samples']} draws\n"
        f"active units     {results['active_units']:6d} of {len(results['kl_per_dimension'])}"
    )


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
