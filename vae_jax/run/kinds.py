"""The kinds of data that are no pictures: what is known of each before anything is read."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax.run import count_options, sequence_options, table_options
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.options import (
    check_at_least,
    check_init_from,
    check_learning_rate,
    check_run,
    check_seed,
    check_selected,
    check_unchanged,
)


class Kind(NamedTuple):
    """A kind of data; its options and its names, before JAX is loaded.

    Attributes:
      name: in config.json's "kind".
      what: one of them, in a line, "a table".
      noun: what its examples are called, "rows".
      suffixes: of its files.
      options: a dataclass of the groups data, model, training, evaluation and run; its data have a
        dataset, and its training epochs, patience, batch_size, learning_rate and seed.
      output: what examples that were made up are written to, where nothing else is said.
      batch_size: where none is given, and there are enough examples.
      steps: of the optimizer, where no number of epochs is given.
      patience: likewise, steps.
      warmup: share of the steps in which the KL's weight rises to 1.
      fills: whether holes in it are filled.
      check_stored: raises KeyError or TypeError for a config.json that is none.
      room: of vae_jax.run, whose PARTS are an `examples.Parts`: what is done with it.
    """

    name: str
    what: str
    noun: str
    suffixes: tuple[str, ...]
    options: type[Any]
    output: str
    batch_size: int
    steps: int
    patience: int
    warmup: float
    fills: bool
    check_stored: Callable[[Mapping[str, Any]], None]
    room: str

    @property
    def parts(self) -> Any:
        """Brings JAX."""
        return importlib.import_module(f"vae_jax.run.{self.room}").PARTS

    def stored_options(self, config: Mapping[str, Any]) -> Any:
        """The options in a config.json.

        Raises:
          KeyError, TypeError, AttributeError: they are no such options.
        """
        groups = {}
        for group in dataclasses.fields(self.options):
            of: dict[str, Any] = dict(config["options"][group.name])
            for name in "output", "init_from":
                if of.get(name) is not None:
                    of[name] = Path(of[name])
            if group.name == "run" and "select" not in of:  # before it could be chosen
                of["select"] = "best" if config["options"]["training"]["patience"] else "last"
            plain = {k: tuple(v) if isinstance(v, list) else v for k, v in of.items()}
            groups[group.name] = group.type(**plain)  # type: ignore[operator]  # a class
        return self.options(**groups)


SEVERAL = "several"
"""In config.json's "kind", of a folder of several runs."""


def _check_table(config: Mapping[str, Any]) -> None:
    for column in config["columns"]:
        if not isinstance(column["kind"], str):
            raise TypeError(f"kind is {column['kind']!r}")
    _check_conditions(config)


def _check_conditions(config: Mapping[str, Any]) -> None:
    if config["options"]["data"].get("condition") is not None:
        for name in "conditions", "condition_rows":
            if not isinstance(config[name], list):
                raise TypeError(f"{name} is {config[name]!r}")


def _check_counts(config: Mapping[str, Any]) -> None:
    for name in "genes", "kept", "library_quantiles", "shares", "concentrations":
        if not isinstance(config[name], list):
            raise TypeError(f"{name} is {config[name]!r}")
    for value in config["typical_library"], *config["library_quantiles"]:
        float(value)
    _check_conditions(config)


def _check_sequences(config: Mapping[str, Any]) -> None:
    for name in "lengths", "centre", "spread":
        if not all(isinstance(value, int | float) for value in config[name]):
            raise TypeError(f"{name} is {config[name]!r}")
    if not isinstance(config["length"], int) or not isinstance(config["likelihood"], str):
        raise TypeError(f"length is {config['length']!r}")
    _check_conditions(config)


KINDS = {
    "table": Kind(
        name="table",
        what="a table",
        noun="rows",
        suffixes=(".csv", ".parquet", ".feather"),
        options=table_options.Options,
        output="synthetic.csv",
        batch_size=256,
        steps=6_000,
        patience=1_000,
        warmup=0.0,
        fills=True,
        check_stored=_check_table,
        room="tabular",
    ),
    "counts": Kind(
        name="counts",
        what="counts",
        noun="cells",
        suffixes=(".h5ad", ".npz", ".mtx", ".mtx.gz"),
        options=count_options.Options,
        output="cells.h5ad",
        batch_size=128,
        steps=2_500,
        patience=800,
        warmup=0.0,
        fills=False,
        check_stored=_check_counts,
        room="cells",
    ),
    "sequences": Kind(
        name="sequences",
        what="sequences",
        noun="sequences",
        suffixes=(".jsonl", ".jsonl.gz"),
        options=sequence_options.Options,
        output="sequences.jsonl",
        batch_size=64,
        steps=2_000,
        patience=500,
        warmup=0.2,
        fills=True,
        check_stored=_check_sequences,
        room="sequences",
    ),
}


def of_file(name: str) -> Kind | None:
    """The kind that a file's ending says; None for what may be images, as a .npz may."""
    if name.lower().endswith(".npz"):
        return None
    found = (kind for kind in KINDS.values() if name.lower().endswith(kind.suffixes))
    return next(found, None)


def check_file(kind: Kind | None, name: str) -> None:
    """Raises DataError for a file of another kind than a run's, by its name.

    Args:
      kind: of the run; None of one on images.
      name: of the file.
    """
    found = of_file(name)
    if kind is None and found is not None:
        raise DataError(f"the run is on images and {name} is {found.what}: give pictures or arrays")
    if kind is not None and not name.lower().endswith(kind.suffixes):
        of = f"{name} is {found.what}" if found else f"{name} is none by its name"
        raise DataError(f"the run is on {kind.what} and {of}: give {' or '.join(kind.suffixes)}")


def of_run(config: Mapping[str, Any]) -> Kind | None:
    """The kind of a run by its config.json; None of images.

    Raises:
      UsageError: it is one of a later version.
    """
    name = config.get("kind")
    if name is None:
        return None
    if name == SEVERAL:
        first = next(iter(config.get("runs", [])), "seed=0")
        raise UsageError(f"the folder holds several runs: name one of them, such as {first}")
    if not isinstance(name, str) or name not in KINDS:
        raise UsageError(
            f"the run is on {name}, which this version does not know: pip install -U vae_jax"
        )
    return KINDS[name]


def check(options: Any) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    training = options.training
    given = {
        "latent_dim": options.model.latent_dim,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "keep": options.run.keep,
    }
    check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    check_at_least(0, patience=training.patience or 0)
    check_at_least(2, num_importance_samples=options.evaluation.num_importance_samples)
    check_seed(training.seed)
    check_learning_rate(training.learning_rate)
    hidden = options.model.hidden
    if not hidden or min(hidden) < 1:
        raise UsageError(f"--hidden is {hidden}: give one positive width or more")
    check_run(options.run)
    check_init_from(training.init_from, options.run)


def check_resumed(options: Any, stored: Any) -> None:
    """Raises UsageError where a resumed run was asked to become another one."""
    changeable = {"dataset", "epochs", "patience", "learning_rate"}
    check_unchanged(options, stored, ("data", "model", "training"), changeable)
    check_selected(options.run, stored.run)


def to_json(options: Any) -> dict[str, Any]:
    """The options as JSON values."""
    groups = dataclasses.asdict(options)
    for name in "resume", "restartable", "overwrite", "seeds", "sweep":
        del groups["run"][name]
    for group, name in ("run", "output"), ("training", "init_from"):
        path = groups[group][name]
        groups[group][name] = None if path is None else str(path)
    return groups
