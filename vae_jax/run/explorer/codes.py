"""What the page is told of codes: which latents are used, maps of them, and draws of the prior."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.run import keys
from vae_jax.run.errors import RunError
from vae_jax.run.explorer import program
from vae_jax.run.latents import as_vectors

_ACTIVE = 0.01  # variance of a latent's mean, Burda et al. 2016, section 5.1
_DRAWS, _MOST_DRAWS = 64, 2**17


def of_codes(
    model: vae_jax.VAE, params: Any, codes: Any, label: np.ndarray | None, many: int
) -> dict[str, Any]:
    """Codes, which latents are used, what each costs, where they lie, and draws of the prior.

    Args:
      model: the VAE.
      params: its parameters.
      codes: of examples, see `scores.Codes`.
      label: int32 [N] that the prior is told of them, or None.
      many: labels that there are; 0 for none.

    Raises:
      RunError: codes are no vectors.
    """
    mean = codes.mean
    if not isinstance(mean, np.ndarray) or mean.ndim != 2 or not np.isfinite(mean).all():
        raise RunError("the run has codes that are no vectors of finite numbers: explore another")
    variance = mean.var(axis=0)
    cost, of = variance, "variance of the mean"
    prior = model.prior(params, *given(label))
    if isinstance(prior, vae_jax.Normal) and codes.scale is not None:
        posterior = vae_jax.Normal(jnp.asarray(mean), jnp.asarray(codes.scale))
        cost = np.asarray(vae_jax.kl_per_dimension(posterior, prior)).mean(axis=0)
        of = "KL, nats"
    active = np.flatnonzero(variance > _ACTIVE)
    active = active[np.argsort(-cost[active], kind="stable")]
    reach = np.ceil(10 * np.maximum(3, np.abs(mean).max(axis=0))) / 10
    return {
        "size": mean.shape[1],
        "codes": _floats(mean),
        "num": len(mean),
        "active": active.tolist(),
        "cost": [round(float(v), 4) for v in cost],
        "cost_of": of,
        "reach": [round(float(v), 1) for v in reach],
        "maps": _maps(mean, active),
        "draws": _prior_draws(model, params, many),
    }


def _prior_draws(model: vae_jax.VAE, params: Any, many: int) -> dict[str, Any]:
    """Of the prior, or of that of each class: their number, and [K, S, Z]."""
    key = keys.of_run(0)["generate"]
    if not many:
        z = np.asarray(as_vectors(vae_jax.sample(key, model.prior(params), _DRAWS)))[None]
    else:
        prior = model.prior(params, jnp.arange(many))
        size = prior.shape[-1]
        num = max(1, min(_DRAWS, _MOST_DRAWS // (many * size)))
        z = np.asarray(vae_jax.sample(key, prior, num))
        if z.ndim == 2:  # of a prior that knows no class
            z = z[:, None]
        z = z.swapaxes(0, 1)
    return {"num": z.shape[1], "z": _floats(z)}


def _maps(mean: np.ndarray, active: np.ndarray) -> list[dict[str, Any]]:
    """Codes in two dimensions: by principal components, by two latents, and by UMAP."""
    size = mean.shape[1]
    others = (i for i in range(size) if i not in active[:2])
    used = [*active[:2].tolist(), *others][:2]
    used = sorted(used) if size == 2 else used
    directions = np.zeros((2, size))
    directions[range(len(used)), used] = 1  # of one latent the other direction is none
    names = [f"z{i}" for i in used]
    by_latents = _plane(mean, " and ".join(names), [*names, ""][:2], np.zeros(size), directions)
    if size <= 2:
        return [by_latents]
    centre = mean.mean(axis=0, dtype=np.float64)
    centred = np.concatenate([mean - centre, np.zeros((2, size))])  # two directions in any case
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = np.square(singular[:2]) / max(np.square(singular).sum(), 1e-30)
    axes = [f"component {i + 1} ({of:.0%} of variance)" for i, of in enumerate(share)]
    found = [_plane(mean, "principal components", axes, centre, directions[:2]), by_latents]
    try:
        from umap import UMAP
    except ImportError:
        return found
    if len(mean) > _NEIGHBOURS:
        how = {"n_neighbors": _NEIGHBOURS, "random_state": 0, "n_jobs": 1}
        xy = np.asarray(UMAP(**how).fit_transform(mean))
        found.append({"name": "UMAP", "axes": ["", ""], "xy": _floats(xy)})
    return found


_NEIGHBOURS = 15


def _plane(
    mean: np.ndarray, name: str, axes: list[str], origin: np.ndarray, directions: np.ndarray
) -> dict[str, Any]:
    """A map that is a plane of the latents', which one can walk in."""
    return {
        "name": name,
        "axes": axes,
        "xy": _floats((mean - origin) @ directions.T),
        "origin": origin.tolist(),
        "directions": directions.tolist(),
    }


def _floats(values: np.ndarray) -> str:
    return program.encoded(np.ascontiguousarray(values).astype("<f4").tobytes())


def given(label: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Labels as arguments, if there are any."""
    return () if label is None else (label,)
