"""What a trained model does with its own data: the measurements that `diagnosis` judges."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import measure
from vae_jax.run.data.dataset import spread
from vae_jax.run.latents import as_vectors

NUM_SAMPLES, NUM_REPLICATES = 200, 19
_MOST, _BATCH = 1_000, 128


class Probe(NamedTuple):
    """Measurements of a model, each of up to 1,000 examples of a split, in nats.

    Attributes:
      elbo: of each example [N] of train, validation and test, ten draws each.
      mixture: log p(x) of each test example [N] under a mixture that knows of no dependence; None
        of data that are no pictures.
      kl: of the test set, the mean.
      kl_per_dimension: likewise [Z]; None where it is no sum over them.
      moved: variance over the test set of each latent's posterior mean, less the prior's [Z].
      code_gain: log p(x|z) with an example's own z less that with another's [N].
      label_gain: the ELBO under an example's own label less that under another's [N]; None of a
        model without labels.
      pareto_k: of the weights of 200 draws of each test example's posterior [N].
      ranks: counts [20] of the places that the entries of test examples have among 19 draws of
        p(x|z), z from q(z|x): all alike where the likelihood fits.
      codes: draws of q(z|x) of train and test, [N, Z] each.
      of_prior: as many draws of the prior.
    """

    elbo: Mapping[str, np.ndarray]
    mixture: np.ndarray | None
    kl: float
    kl_per_dimension: np.ndarray | None
    moved: np.ndarray
    code_gain: np.ndarray
    label_gain: np.ndarray | None
    pareto_k: np.ndarray
    ranks: np.ndarray
    codes: Mapping[str, np.ndarray]
    of_prior: Mapping[str, np.ndarray]


def probe(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    splits: Mapping[str, vae_jax.Batch],
    baseline: Callable[[Any, Any], np.ndarray] | None = None,
) -> Probe:
    """Measures a model on its own data.

    Args:
      key: of the draws.
      model: the VAE.
      params: its parameters.
      splits: train, validation and test, x [N, *event] as the model sees it, and labels or None.
      baseline: (x of train, x of test) -> log p(x) [N] of the latter.
    """
    some = {name: _some(batch) for name, batch in splits.items()}
    x, label = some["test"]
    size, chunk_size = batched.split(key, model, params, x, label, num_samples=NUM_SAMPLES)
    # What else a model is given, as a cell's library, is no class to exchange.
    labelled = isinstance(label, np.ndarray | jax.Array)
    of_batch = _of_batch(model, chunk_size, labelled=labelled)
    parts = {}
    for i, (name, batch) in enumerate(some.items()):
        own, found = jax.random.fold_in(key, i), []
        for j, rows in enumerate(batched.rows_of(len(batch.image), min(size, _BATCH))):
            of_rows = batched.take(batch, rows)
            found.append(jax.device_get(of_batch(params, jax.random.fold_in(own, j), *of_rows)))
        parts[name] = batched.joined(found, len(batch.image))
    of_test = parts["test"]
    kl = of_test.get("kl_per_dimension")
    counts = np.bincount(of_test["rank"][of_test["rank"] >= 0], minlength=NUM_REPLICATES + 1)
    return Probe(
        elbo={name: of["elbo"] for name, of in parts.items()},
        mixture=None if baseline is None else baseline(some["train"].image, x),
        kl=float(of_test["kl"].mean()),
        kl_per_dimension=None if kl is None else kl.mean(axis=0),
        moved=_flat(of_test["moved"]).var(axis=0),
        code_gain=of_test["code_gain"],
        label_gain=of_test.get("label_gain"),
        pareto_k=of_test["pareto_k"],
        ranks=counts,
        codes={name: _flat(of["code"]) for name, of in parts.items()},
        of_prior={name: _flat(of["of_prior"]) for name, of in parts.items()},
    )


def _some(batch: vae_jax.Batch) -> vae_jax.Batch:
    rows = spread(len(batch.image), _MOST)
    some: vae_jax.Batch = jax.tree.map(lambda a: a[rows], batch)
    return some


def _flat(z: np.ndarray) -> np.ndarray:
    return z.reshape(-1, z.shape[-1])  # of steps, each one's


@functools.lru_cache
def _of_batch(model: vae_jax.VAE, chunk_size: int, *, labelled: bool) -> Callable[..., Any]:
    """(params, key, x, label) -> what is measured of each example, by name; jitted."""
    measured = measure.measure_batch(model, NUM_SAMPLES, chunk_size)

    @jax.jit
    def of_batch(params: Any, key: jax.Array, x: jax.Array, label: Any) -> dict[str, Any]:
        bound_key, z_key, prior_key, x_key, tie_key = jax.random.split(key, 5)
        bound, estimate, kl, _, moved = measured(params, bound_key, x, label)
        z = vae_jax.sample(z_key, model.encode(params, x, label))
        prior: Any = model.prior(params, label)
        likelihood = model.decode(params, z, label)
        another = jax.tree.map(lambda of: jnp.roll(of, 1, axis=0), z)
        of_another = model.decode(params, another, label)
        layers = isinstance(z, tuple)  # of a hierarchy, whose prior has no batch before a draw
        shape = (len(x),) if layers else z.shape[: z.ndim - len(prior.shape)]
        found = {
            "elbo": bound.value,
            "kl": bound.kl,
            "moved": moved,
            "code_gain": likelihood.log_prob(x) - of_another.log_prob(x),
            "pareto_k": estimate.pareto_k,
            "code": as_vectors(z),
            "of_prior": as_vectors(vae_jax.sample(prior_key, prior, shape)),
            "rank": _rank(tie_key, x, vae_jax.sample(x_key, likelihood, NUM_REPLICATES)),
        }
        if "kl_per_dimension" in kl:
            found |= kl
        if labelled:
            others = jnp.roll(label, 1, axis=0)
            of_other, *_ = measured(params, jax.random.clone(bound_key), x, others)
            found["label_gain"] = bound.value - of_other.value
        return found

    return of_batch


def _rank(key: jax.Array, x: jax.Array, drawn: jax.Array) -> jax.Array:
    """Of each entry among draws [S, *shape], ties by lot; -1 where it is missing."""
    of_type = x.astype(drawn.dtype)[None]
    below, alike = (drawn < of_type).sum(axis=0), (drawn == of_type).sum(axis=0)
    rank = below + jax.random.randint(key, x.shape, 0, alike + 1)
    missing = jnp.isnan(x) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(x.shape, bool)
    return jnp.where(missing, -1, rank)
