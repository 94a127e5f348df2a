"""What the explorer's page is told of a run, as JSON values: codes, maps, pictures, networks."""

import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.run import keys
from vae_jax.run.data import tables
from vae_jax.run.data.columns import from_json
from vae_jax.run.data.dataset import spread
from vae_jax.run.data.examples import Examples
from vae_jax.run.errors import RunError
from vae_jax.run.explorer import program, row
from vae_jax.run.latents import Shapes, as_layers, as_vectors
from vae_jax.run.loaded import TrainedRun, picture
from vae_jax.run.loaded_examples import TrainedExamples
from vae_jax.run.options import OF_BYTES
from vae_jax.run.output import as_bytes

_ACTIVE = 0.01  # variance of a latent's mean, Burda et al. 2016, section 5.1
_DRAWS, _MOST_DRAWS = 64, 2**17
_THUMB, _ATLAS = 64, 64
Function = Callable[..., np.ndarray]


class Explored(NamedTuple):
    """A run, ready to be looked at.

    Attributes:
      contents: JSON values for the page.
      decode: (z [N, Z], labels [N] or None) -> [N, V], what the page shows of p(x|z).
      encode: (x [1, *event] as the model sees it, label [1] or None) -> its code [1, Z]; None of
        data that the page has no way to give.
      image_shape: of x; () of a table.
      cannot: why the page is not able to do without a server, or None.
    """

    contents: dict[str, Any]
    decode: Function
    encode: Function | None
    image_shape: tuple[int, ...]
    cannot: str | None


def of_images(trained: TrainedRun, found: Examples, label: Any, source: str, most: int) -> Explored:
    """A run on images, over images.

    Args:
      trained: the run.
      found: the images.
      label: what a conditional run is told of them, from `open_for`.
      source: where they are from, in words.
      most: how many of them are shown, evenly spaced.

    Raises:
      RunError: the run has latents that are no vector.
    """
    rows = spread(len(found.images), most)
    images, label = found.images[rows], _at(label, rows)
    codes = trained.encode(images, label, progress=True)
    numbers = None if label is None else _numbers(label, trained.classes, len(rows))
    model, params = trained.model, trained.params
    many = len(trained.classes) if trained.options.model.conditional else 0
    shown = _shown(model, params, picture, trained.layers)

    def encode(x: jax.Array, *label: jax.Array) -> jax.Array:
        return as_vectors(location(model.encode(params, x, *label)))

    seen = jnp.uint8 if trained.options.model.likelihood in OF_BYTES else jnp.float32
    x = jax.ShapeDtypeStruct((1, *trained.image_shape), seen)
    contents = {
        "kind": "images",
        "shape": list(trained.image_shape),
        "classes": list(trained.classes) if many else [],
        "spherical": trained.options.model.posterior == "power_spherical",
        **_latents(model, params, codes, numbers, many),
        "colours": [] if found.labels is None else [_classes("label", found.labels[rows])],
        "names": _names(found, rows),
        "atlas": _atlas(images),
        "observed": _observed(trained),
        "told": None if numbers is None else numbers.tolist(),
    }
    networks, cannot = _networks(
        {"decoder": (shown, _code_shape(codes)), "encoder": (encode, x)}, many
    )
    decode, run_encode = jax.jit(shown), jax.jit(encode)
    return Explored(
        {
            **contents,
            **networks,
            **_about(
                trained,
                f"{len(rows):,} of {len(found.images):,} images",
                source,
                codes.mean.shape[1],
            ),
        },
        lambda z, label: np.asarray(decode(z, *_given(label))),
        lambda x, label: np.asarray(run_encode(x.astype(seen), *_given(label))),
        trained.image_shape,
        cannot,
    )


def of_table(trained: TrainedExamples, batch: Any, source: str, most: int) -> Explored:
    """A run on a table, over rows of it.

    Args:
      trained: the run.
      batch: rows as the model sees them.
      source: where they are from, in words.
      most: how many of them are shown, evenly spaced.
    """
    rows = spread(len(batch.image), most)
    x = np.asarray(batch.image)[rows]
    codes = trained.encode(vae_jax.Batch(x), progress=True)
    columns = from_json(trained.config["columns"])
    shown = _shown(trained.model, trained.params, row.shown)
    told, texts = row.columns_of(columns), row.texts(x, columns)
    place = {column.name: i for i, column in enumerate(tables.learned(columns))}
    contents = {
        "kind": "table",
        "classes": [],
        "spherical": False,
        **_latents(trained.model, trained.params, codes, None, 0),
        "columns": told,
        "rows": list(zip(*(texts[of["name"]] for of in told), strict=True)),
        "colours": [_colour(of, x[:, place[of["name"]]], texts[of["name"]]) for of in told],
        "names": [f"row {row}" for row in rows],
        "told": None,
    }
    networks, cannot = _networks({"decoder": (shown, _code_shape(codes))}, 0)
    decode = jax.jit(shown)
    return Explored(
        {
            **contents,
            **networks,
            **_about(
                trained, f"{len(rows):,} of {len(batch.image):,} rows", source, codes.mean.shape[1]
            ),
        },
        lambda z, label: np.asarray(decode(z)),
        None,
        (),
        cannot,
    )


def _shown(
    model: vae_jax.VAE,
    params: Any,
    of: Callable[[Any], jax.Array],
    layers: Shapes | None = None,
) -> Callable[..., Any]:
    """What the page shows of codes, [N, V]."""

    def shown(z: jax.Array, *label: jax.Array) -> jax.Array:
        values = of(model.decode(params, as_layers(z, layers), *label))
        return values.reshape(len(z), -1)

    return shown


def _given(label: np.ndarray | None) -> tuple[np.ndarray, ...]:
    return () if label is None else (label,)


def _code_shape(codes: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, codes.mean.shape[1]), jnp.float32)


def _networks(
    functions: Mapping[str, tuple[Callable[..., Any], jax.ShapeDtypeStruct]], many: int
) -> tuple[dict[str, Any], str | None]:
    """The functions as programs, None for what a page cannot carry, and why it cannot."""
    carried: dict[str, Any] = dict.fromkeys(functions)
    for name, (function, x) in functions.items():
        try:
            carried[name] = program.carried(function, x, many).to_json()
        except program.CannotCarryError as error:
            return dict.fromkeys(functions), f"the {name} {error}"
    return carried, None


def _latents(
    model: vae_jax.VAE, params: Any, codes: Any, label: np.ndarray | None, many: int
) -> dict[str, Any]:
    """Codes, which latents are used, what each costs, where they lie, and draws of the prior."""
    mean = codes.mean
    if not isinstance(mean, np.ndarray) or mean.ndim != 2 or not np.isfinite(mean).all():
        raise RunError("the run has codes that are no vectors of finite numbers: explore another")
    variance = mean.var(axis=0)
    cost, of = variance, "variance of the mean"
    prior = model.prior(params, *_given(label))
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


def _at(label: Any, rows: np.ndarray) -> Any:
    return [label[row] for row in rows] if isinstance(label, list) else label


def _numbers(label: Any, classes: tuple[str, ...], num: int) -> np.ndarray:
    each = label if isinstance(label, list) else [label] * num
    return np.array([classes.index(name) for name in each], np.int32)


def _names(found: Examples, rows: np.ndarray) -> list[str]:
    places = rows if found.places is None else found.places[rows]
    return [str(place) if isinstance(place, str) else f"image {place}" for place in places.tolist()]


def _classes(name: str, values: Any) -> dict[str, Any]:
    """Points by the class that they are of; -1 of none."""
    texts = np.asarray(values).astype(str)
    names = sorted(set(texts.tolist()) - {""}, key=_order)
    number = {of: i for i, of in enumerate(names)}
    return {"name": name, "names": names, "of": [number.get(t, -1) for t in texts.tolist()]}


def _order(text: str) -> tuple[bool, float, str]:
    """Numbers by their size, before other texts."""
    try:
        return (False, float(text), text)
    except ValueError:
        return (True, 0.0, text)


_MOST_CLASSES = 20


def _colour(column: Mapping[str, Any], values: np.ndarray, texts: list[str]) -> dict[str, Any]:
    """Points by a column: its classes, where these are few, or its numbers from least to most."""
    if "levels" in column and len(set(texts)) <= _MOST_CLASSES:
        return _classes(column["name"], texts)
    there = ~np.isnan(values)
    ranks = np.searchsorted(np.sort(values[there]), values, side="right") / max(1, there.sum())
    shares = [round(float(r), 3) if t else None for r, t in zip(ranks, there, strict=True)]
    return {"name": column["name"], "ranks": shares}


def _atlas(images: np.ndarray) -> dict[str, Any]:
    """All images as one PNG, side by side; large ones are made smaller, what is missing grey."""
    pixels = images if images.dtype == np.uint8 else as_bytes(np.nan_to_num(images, nan=0.5))
    num, height, width, channels = pixels.shape
    if channels not in (1, 3):
        pixels, channels = pixels[..., :1], 1
    scale = min(1.0, _THUMB / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    columns = min(num, _ATLAS)
    canvas = Image.new(
        "L" if channels == 1 else "RGB", (columns * size[0], -(-num // columns) * size[1])
    )
    for i, one in enumerate(pixels):
        tile = Image.fromarray(one[..., 0] if channels == 1 else one)
        if scale < 1:
            tile = tile.resize(size, Image.Resampling.BOX)
        canvas.paste(tile, (i % columns * size[0], i // columns * size[1]))
    file = io.BytesIO()
    canvas.save(file, "png", optimize=True)
    return {
        "src": f"data:image/png;base64,{program.encoded(file.getvalue())}",
        "columns": columns,
        "width": size[0],
        "height": size[1],
    }


def _observed(trained: TrainedRun) -> dict[str, Any]:
    """How a byte becomes what the model sees: 0 or 1, or (byte + shift) / most."""
    if trained.options.model.likelihood in OF_BYTES:
        how: dict[str, Any] = {"shift": 0, "most": 1}
    elif trained.config["binarization"] != "none":
        how = {"above": 127}
    elif "pixels" in trained.config:
        how = {"shift": 0.5, "most": 256}
    else:  # of version 0.1
        how = {"shift": 0, "most": 255}
    return {**how, "background": getattr(trained.options.data, "background", "white")}


def _about(trained: Any, shown: str, source: str, size: int) -> dict[str, Any]:
    """What the page's head says."""
    results = trained.results or {}
    config = trained.config
    facts = [
        ("data", config["dataset"]),
        ("shown", f"{shown} of {source}"),
        ("latents", str(size)),
    ]
    given = "log p(x|c)" if results.get("conditional") else "log p(x)"
    for name, title in ("test_log_likelihood", given), ("test_elbo", "ELBO"):
        if isinstance(results.get(name), int | float):
            facts.append((f"{title}, test", f"{results[name]:.2f} nats"))
    if results.get("epochs"):
        facts.append(("epochs", str(results["epochs"])))
    return {"facts": facts, "step": trained.step, "version": vae_jax.__version__}
