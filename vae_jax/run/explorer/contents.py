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
from vae_jax.run.data import conditions, tables
from vae_jax.run.data.columns import from_json
from vae_jax.run.data.dataset import spread
from vae_jax.run.data.examples import Examples
from vae_jax.run.explorer import cell, heatmap, program, row
from vae_jax.run.explorer.codes import given, of_codes
from vae_jax.run.latents import Shapes, as_layers, as_vectors
from vae_jax.run.loaded import TrainedRun, picture
from vae_jax.run.loaded_examples import TrainedExamples
from vae_jax.run.model import expected
from vae_jax.run.options import OF_BYTES
from vae_jax.run.output import as_bytes

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
        "noun": "picture",
        "shape": list(trained.image_shape),
        "classes": list(trained.classes) if many else [],
        "spherical": trained.options.model.posterior == "power_spherical",
        **of_codes(model, params, codes, numbers, many),
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
        lambda z, label: np.asarray(decode(z, *given(label))),
        lambda x, label: np.asarray(run_encode(x.astype(seen), *given(label))),
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
        "noun": "row",
        "classes": [],
        "spherical": False,
        **of_codes(trained.model, trained.params, codes, None, 0),
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


def of_cells(trained: TrainedExamples, batch: Any, source: str, most: int) -> Explored:
    """A run on counts, over cells: the genes in which their decoded means differ the most.

    Args:
      trained: the run.
      batch: cells as the model sees them, under their `CellLabel`.
      source: where they are from, in words.
      most: how many of them are shown, evenly spaced.
    """
    rows = spread(len(batch.image), most)
    x, label = np.asarray(batch.image[rows]), jax.tree.map(lambda a: a[rows], batch.label)
    codes = trained.encode(vae_jax.Batch(x, label), progress=True)
    config, typical = trained.config, trained.config["typical_library"]
    told = conditions.of_run(config)  # one of classes, if any
    classes = [str(level) for column in told for level in column.levels]
    classes += ["others" for column in told if column.rest]
    of = None if label.condition is None else label.condition[:, 0].astype(np.int32)
    means = cell.means(trained.model, trained.params, typical)
    some = spread(len(rows), cell.LOOKED_AT)
    found = np.asarray(jax.jit(means)(codes.mean[some], *given(None if of is None else of[some])))
    genes = cell.telling(found)
    of_genes = cell.columns_of(config, genes, found)
    own = x[:, genes] * (typical / np.maximum(label.library, 1))[:, None]
    shown = cell.of_genes(means, genes, found.shape[1])
    by_class = [] if of is None else [_classes(told[0].name, np.array(classes)[of])]
    contents = {
        "kind": "table",
        "noun": "cell",
        "classes": classes,
        "spherical": False,
        **of_codes(trained.model, trained.params, codes, of, len(classes)),
        "columns": of_genes,
        "rows": [[f"{v:.2f}" for v in row] for row in own.tolist()],
        "colours": by_class + [_colour(g, v, []) for g, v in zip(of_genes, own.T, strict=True)],
        "names": [f"cell {row}" for row in rows],
        "told": None if of is None else of.tolist(),
    }
    networks, cannot = _networks({"decoder": (shown, _code_shape(codes))}, len(classes))
    decode = jax.jit(shown)
    about = _about(
        trained, f"{len(rows):,} of {len(batch.image):,} cells", source, codes.mean.shape[1]
    )
    most_told = f"of a cell of {typical:,.0f}, the {len(genes)} genes that differ most"
    about["facts"].append(("counts", most_told))
    return Explored(
        {**contents, **networks, **about},
        lambda z, label: np.asarray(decode(z, *given(label))),
        None,
        (),
        cannot,
    )


def of_sequences(trained: TrainedExamples, batch: Any, source: str, most: int) -> Explored:
    """A run on sequences of one code each, over some: numbers by time, as pictures.

    Args:
      trained: the run.
      batch: sequences as the model sees them, NaN where they have ended.
      source: where they are from, in words.
      most: how many of them are shown, evenly spaced.

    Raises:
      RunError: the run has codes at every step.
    """
    rows = spread(len(batch.image), most)
    x = np.asarray(batch.image)[rows]
    codes = trained.encode(vae_jax.Batch(x), progress=True)
    heat = heatmap.scaled_by(x)
    shown = _shown(trained.model, trained.params, lambda of: heat(expected(of)))
    images = np.asarray(heat(jnp.asarray(x)))
    contents = {
        "kind": "images",
        "noun": "sequence",
        "shape": list(images.shape[1:]),
        "classes": [],
        "spherical": False,
        **of_codes(trained.model, trained.params, codes, None, 0),
        "colours": [],
        "names": [f"sequence {row}" for row in rows],
        "atlas": _atlas(images),
        "observed": None,
        "told": None,
    }
    networks, cannot = _networks({"decoder": (shown, _code_shape(codes))}, 0)
    decode = jax.jit(shown)
    about = _about(
        trained, f"{len(rows):,} of {len(batch.image):,} sequences", source, codes.mean.shape[1]
    )
    about["facts"].append(("picture", "time to the right, a row a number, white where it is high"))
    return Explored(
        {**contents, **networks, **about},
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
