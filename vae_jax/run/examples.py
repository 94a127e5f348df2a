"""Examples that are no images, rows of a table or cells, and a run on them, restored and used.

What they are their kind alone knows: see `Parts`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import vae_jax
from vae_jax import checkpoint
from vae_jax.run import devices, folder, kinds, published
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.scores import Filled

_DRAWN_VALUES, _DRAWN = 2**24, 1_000


class Examples(NamedTuple):
    """What is learned, in three splits by its content.

    Attributes:
      name: of it.
      source: where it came from.
      train: x [N, *event] and what the model is given beside it, or None; of what has an array's
        shape and dtype and gives source[rows], it is streamed.
      validation: likewise.
      test: likewise.
      digest: of all of it, in its order.
      num: of all examples.
      stored: JSON values of which the model and the examples can be made again, in config.json.
      said: JSON values for results.json.
      lines: for the user.
      notes: for the user too, and in results.json.
      places: of each split, its examples' numbers in the file, where they have such.
      lengths: of sequences that are trained on, [N].
    """

    name: str
    source: str
    train: vae_jax.Batch
    validation: vae_jax.Batch
    test: vae_jax.Batch
    digest: str
    num: int
    stored: dict[str, Any]
    said: dict[str, Any]
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    places: Mapping[str, np.ndarray] = MappingProxyType({})
    lengths: np.ndarray | None = None


class Trained(NamedTuple):
    """What a run left: its kind, its model and parameters, and what it was trained on."""

    kind: kinds.Kind
    model: vae_jax.VAE
    params: Any
    step: int
    options: Any
    config: Mapping[str, Any]


class Parts(NamedTuple):
    """What is done with a kind of data.

    Attributes:
      load: options -> `Examples`.
      make_model: config.json -> VAE.
      example: config.json -> a batch of one, of any values, from which parameters are made.
      given: file or what Python has, config.json -> a batch, and notes.
      returned: draws of x in turn [b, *event], their conditions, config.json, seed -> what the user
        gets, and notes.
      write: that, path -> a file.
      draw: folder, `Trained`, `Examples`, means of q(z|x) of the test set -> pictures.
      optimizer: rate, number of steps -> optimizer.
      conditions: config.json, number, values asked for by their names, seed -> what so many new
        examples are given beside z, and notes; None of what has no conditions.
      fill: key, `Trained`, file or what Python has, number of importance samples, of whole data
        sets that are drawn -> `Filled`, and lines; None of what has no holes.
    """

    load: Callable[[Any], Examples]
    make_model: Callable[[Mapping[str, Any]], vae_jax.VAE]
    example: Callable[[Mapping[str, Any]], vae_jax.Batch]
    given: Callable[[Any, Mapping[str, Any]], tuple[vae_jax.Batch, list[str]]]
    returned: Callable[[Iterator[np.ndarray], Any, Mapping[str, Any], int], tuple[Any, list[str]]]
    write: Callable[[Any, Path], None]
    draw: Callable[[Path, Trained, Examples, np.ndarray], None]
    optimizer: Callable[[float, int], optax.GradientTransformation]
    conditions: (
        Callable[[Mapping[str, Any], int, Mapping[str, Any], int], tuple[Any, list[str]]] | None
    ) = None
    fill: Callable[[jax.Array, Trained, Any, int, int], tuple[Filled, list[str]]] | None = None


def restore(run: Path) -> Trained:
    """The newest checkpoint of a run, the best epoch's parameters where it has them.

    Raises:
      UsageError: the folder holds no run of these kinds.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint, or one of another model than its config.json says.
    """
    kind = kinds.of_run(folder.read_stamped(run))
    if kind is None:
        raise UsageError(f"{run} holds a run on images, and this is for runs on other data")
    if published.is_one(run):
        with published.reading(run):
            config = folder.read_config_of(kind, run)
            options, model = kind.stored_options(config), kind.parts.make_model(config)
            init = lambda: model.init(jax.random.key(0), *kind.parts.example(config))  # noqa: E731
            params = published.parameters(run, init)
            return Trained(kind, model, params, int(config["step"]), options, config)
    config = folder.read_config_of(kind, run)
    options = kind.stored_options(config)
    devices.use_compilation_cache()
    model = kind.parts.make_model(config)
    optimizer = kind.parts.optimizer(options.training.learning_rate, 1)

    def fresh() -> vae_jax.TrainState:
        key = jax.random.key(0)
        return vae_jax.init_state(key, model.init(key, *kind.parts.example(config)), optimizer)

    with checkpoint.manager(run / "checkpoints", read_only=True) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.eval_shape(fresh))
        written = checkpoint.restore_config(checkpoints, int(state.step))
        folder.check_checkpoint(run, int(state.step), written, config)
        best = checkpoint.restore_best(checkpoints, int(state.step), state.params)
    params = state.params if best is None else jax.device_put(best)
    return Trained(kind, model, params, int(state.step), options, config)


def generate(
    key: jax.Array,
    trained: Trained,
    num: int,
    asked: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
) -> tuple[Any, list[str]]:
    """Examples from the model, as the user has them; and notes.

    Args:
      key: of the draws.
      trained: the run.
      num: how many.
      asked: of a run with conditions, values by the columns' names; the others are as in training.
      seed: of what is drawn beside x.

    Raises:
      UsageError: the run is not conditional on them, or knows no such value.
    """
    parts, config = trained.kind.parts, trained.config
    conditions, notes = _conditions(trained, num, asked, seed)
    values = math.prod(parts.example(config).image.shape)
    size = max(1, min(_DRAWN, _DRAWN_VALUES // values))

    @jax.jit
    def draw(params: Any, key: jax.Array, conditions: Any) -> jax.Array:
        prior_key, row_key = jax.random.split(key)
        prior = trained.model.prior(params, conditions)
        of_each = conditions is not None and len(prior.shape) > 1
        z = vae_jax.sample(prior_key, prior, () if of_each else size)
        x: jax.Array = vae_jax.sample(row_key, trained.model.decode(params, z, conditions))
        return x

    def drawn() -> Iterator[np.ndarray]:
        for i in range(-(-num // size)):
            rows = np.arange(i * size, (i + 1) * size) % num
            of_rows = jax.tree.map(lambda a, rows=rows: a[rows], conditions)
            x = np.asarray(draw(trained.params, jax.random.fold_in(key, i), of_rows))
            yield x[: num - i * size]

    made, more = parts.returned(drawn(), conditions, config, seed)
    return made, [*notes, *more]


def _conditions(
    trained: Trained, num: int, asked: Mapping[str, Any], seed: int
) -> tuple[Any, list[str]]:
    """What new examples are given beside z, and notes.

    Raises:
      UsageError: as `generate`.
    """
    of_kind, config = trained.kind.parts.conditions, trained.config
    told = config["options"]["data"].get("condition") is not None
    if asked and not (of_kind and told):
        name = next(iter(asked))
        raise UsageError(
            f"--condition asks for {name} but the run was trained without --condition: leave it out"
        )
    return (None, []) if of_kind is None else of_kind(config, num, asked, seed)


def own(trained: Trained, where: str | None = None) -> Examples:
    """The data of a run, read again, from where they lie now.

    Raises:
      DataError: they are not there, or are others.
    """
    of = trained.options.data
    if where is not None:
        of = dataclasses.replace(of, dataset=where)
    found: Examples = trained.kind.parts.load(dataclasses.replace(trained.options, data=of))
    check_same(trained.kind, found, trained.config)
    return found


def check_same(kind: kinds.Kind, found: Examples, config: Mapping[str, Any]) -> None:
    """Raises DataError where the data are not those that the run saw."""
    if found.digest != config["digest"]:
        raise DataError(
            f"the {kind.noun} in {found.source} are not those of the run: {found.num:,} "
            f"where it saw {config[f'num_{kind.noun}']:,}, or others. Name the place where those "
            "are, or start a new run"
        )
