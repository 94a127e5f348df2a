"""The options of a run on sequences; tyro makes the command line of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.run.options import Run


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A .jsonl file, a sequence a line: a list of steps, each a list of as many numbers, or one
    number, null where it is missing; or an object whose field "sequence" is one. Sequences may
    differ in length. A tenth of them, chosen by their content, is the test set."""
    condition: str | None = None
    """NAME or NAME,NAME: fields beside the sequence in its line, numbers or classes, that encoder,
    decoder and prior are told, so that sequences can be asked for by them. NAME=KIND is another
    kind than is found and printed: number, positive, date, category, ordered, boolean."""


@dataclass(frozen=True)
class Model:
    """The networks."""

    latents: Literal["state_space", "recurrent"] = "state_space"
    """state_space has latents at every step, each given those before (a deep Markov model, Krishnan
    et al. 2017): it generates, and fills in what is missing. recurrent has one code for a whole
    sequence, which a recurrent network reads and another writes: for embedding and searching."""
    likelihood: Literal["auto", "bernoulli", "normal", "student_t"] = "auto"
    """p(x|z) of a number, given its step's latents. bernoulli is of zeros and ones; normal and
    student_t, which bears outliers, of numbers once standardised, each with a scale of its own.
    auto takes bernoulli where all are 0 or 1, else student_t."""
    latent_dim: int = 32
    """Of each step, or of the sequence."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the decoder's layers; the first is that of the recurrent networks too."""


@dataclass(frozen=True)
class Training:
    """How it learns."""

    epochs: int | None = None
    """Passes over the training sequences; as many as make 2,000 steps when not given."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which training ends; the best epoch is the
    result, unless --select=last. 0 never ends it. As many as make 500 steps when not given."""
    batch_size: int | None = None
    """Sequences a step. 64 when not given, and less of few."""
    learning_rate: float = 3e-3
    """Adam's, for the first half of the steps; from there it falls to zero along a line."""
    seed: int = 0
    """Of the parameters, the order of the sequences and all noise."""
    init_from: Path | None = None
    """Folder of another run, whose parameters this one starts from: fine-tuning, on other data."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured at the end, on the test set."""

    num_importance_samples: int = 100
    """Draws for each test sequence's log p(x)."""


@dataclass(frozen=True)
class Options:
    """A variational autoencoder on sequences, from one command to numbers and new sequences."""

    data: Data
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)
