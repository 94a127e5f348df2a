"""The options of a run on a table; tyro makes the command line of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vae_jax.run.options import Run


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .csv, .parquet or .feather file, a row an example. A tenth of the rows, chosen by their
    content, is the test set."""
    columns: tuple[str, ...] = ()
    """NAME=KIND for each column that is to be of another kind than is found and printed: number,
    positive, date, count, boolean, ordered, category, discrete (a number of few values), drop."""
    condition: str | None = None
    """NAME or NAME,NAME: columns that encoder, decoder and prior are told and do not learn, so that
    rows can be asked for by them. NAME=KIND is another kind than is found and printed: number,
    positive, date, category, ordered, boolean."""
    missing: tuple[str, ...] = ()
    """Words that stand for a missing value, beside an empty cell and, in a .csv, NA, NaN, null and
    the like."""
    literal: bool = False
    """Of a .csv: NA, NaN, null, None and the like are words as others are."""


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
    """Epochs without a better validation ELBO after which training ends; the best epoch is the
    result, unless --select=last. 0 never ends it. As many as make 1,000 steps when not given."""
    batch_size: int | None = None
    """Rows a step. 256 when not given, and less of few rows."""
    learning_rate: float = 1e-2
    """Muon's, for the first half of the steps; from there it falls to zero along a line. Biases
    take a fifth of it, by Adam."""
    seed: int = 0
    """Of the parameters, the order of the rows and all noise."""
    init_from: Path | None = None
    """Folder of another run, whose parameters this one starts from: fine-tuning, on other data."""


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
