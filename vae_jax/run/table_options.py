"""The options of a run on a table; tyro makes the command line of them."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run.errors import UsageError
from vae_jax.run.options import (
    Run,
    check_at_least,
    check_learning_rate,
    check_run,
    check_seed,
)

SUFFIXES = (".csv", ".parquet", ".feather")
"""Of a table's file."""


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .csv, .parquet or .feather file, a row an example. A tenth of the rows, chosen by their
    content, is the test set."""
    columns: tuple[str, ...] = ()
    """NAME=KIND for each column that is to be of another kind than is found and printed: number,
    positive, date, count, boolean, ordered, category, discrete (a number of few values), drop."""
    missing: tuple[str, ...] = ()
    """Words that stand for a missing value, beside what pandas takes for one of a .csv: NA, NaN,
    null and the like."""


@dataclass(frozen=True)
class Model:
    """The networks."""

    latent_dim: int = 32
    """Dimensions that do not pay for their KL switch themselves off."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the encoder's layers; the decoder has them in reverse."""


@dataclass(frozen=True)
class Training:
    """How it learns."""

    epochs: int | None = None
    """Passes over the training rows; as many as make 6,000 steps when not given."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which training ends; the parameters of the best
    epoch are the result. 0 never ends it, and takes the last. As many as make 1,000 steps when not
    given."""
    batch_size: int | None = None
    """Rows a step. 256 when not given, and less of few rows."""
    learning_rate: float = 1e-2
    """Muon's, for the first half of the steps; from there it falls to zero along a line. Biases
    take a fifth of it, by Adam."""
    seed: int = 0
    """Of the parameters, the order of the rows and all noise."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured at the end, on the test set."""

    num_importance_samples: int = 500
    """Draws for each test row's log p(x)."""


@dataclass(frozen=True)
class Options:
    """A variational autoencoder on the rows of a table, from one command to numbers and rows."""

    data: Data
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)


def check(options: Options) -> None:
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


def check_resumed(options: Options, stored: Options) -> None:
    """Raises UsageError where a resumed run was asked to become another one."""
    changeable = {"dataset", "epochs", "patience", "learning_rate"}
    for group in ("data", "model", "training"):
        for item in dataclasses.fields(getattr(options, group)):
            now, then = (getattr(getattr(o, group), item.name) for o in (options, stored))
            if now != then and item.name not in changeable:
                raise UsageError(
                    f"--{item.name.replace('_', '-')} is {now} but the run in "
                    f"{options.run.output} has {then}: leave it out, or start a new run"
                )


def to_json(options: Options) -> dict[str, Any]:
    """The options as JSON values."""
    groups = dataclasses.asdict(options)
    for name in "resume", "overwrite":
        del groups["run"][name]
    groups["run"]["output"] = None if options.run.output is None else str(options.run.output)
    return groups


def from_json(config: dict[str, Any]) -> Options:
    """The options that `to_json` wrote.

    Raises:
      KeyError, TypeError: config is not such options.
    """
    data, model, of_run = (dict(config[group]) for group in ("data", "model", "run"))
    data |= {name: tuple(data[name]) for name in ("columns", "missing")}
    of_run["output"] = None if of_run["output"] is None else Path(of_run["output"])
    return Options(
        Data(**data),
        Model(**model | {"hidden": tuple(model["hidden"])}),
        Training(**config["training"]),
        Evaluation(**config["evaluation"]),
        Run(**of_run),
    )
