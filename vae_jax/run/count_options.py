"""The options of a run on counts; tyro makes the command line of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.run.options import Run


@dataclass(frozen=True)
class Data:
    """What is learned."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Raw counts, cells by genes: a .h5ad file; a .npz of scipy.sparse.save_npz, or with an array
    called counts (and one called genes); a .mtx or .mtx.gz, beside which barcodes.tsv and
    features.tsv may say that it is genes by cells. A tenth of the cells, chosen by their content,
    is the test set."""
    condition: str | None = None
    """NAME or NAME,NAME: columns of a .h5ad's obs, such as the batch or an age, or arrays beside
    the counts of a .npz, that encoder and decoder are told, so that codes need not tell of them and
    cells can be asked for by them. NAME=KIND is another kind than is found and printed: number,
    positive, date, category, ordered, boolean."""
    layer: str | None = None
    """Of a .h5ad, where X does not have the raw counts."""


@dataclass(frozen=True)
class Model:
    """The networks."""

    likelihood: Literal["poisson", "negative_binomial", "zero_inflated_negative_binomial"] = (
        "negative_binomial"
    )
    """p(x|z), whose means are a cell's library size, as observed, times a softmax over the genes.
    negative_binomial has a dispersion for each gene, and is near poisson where there is none;
    zero_inflated_negative_binomial has a probability of a further zero for each entry too, which
    counts of molecules seldom need."""
    latent_dim: int = 10
    """As scVI has: few, as cells vary in few directions."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the encoder's layers, as scVI has; the decoder has them in reverse."""


@dataclass(frozen=True)
class Training:
    """How it learns."""

    epochs: int | None = None
    """Passes over the training cells; as many as make 2,500 steps when not given."""
    patience: int | None = None
    """Epochs without a better validation ELBO after which training ends; the best epoch is the
    result, unless --select=last. 0 never ends it. As many as make 800 steps when not given."""
    batch_size: int | None = None
    """Cells a step. 128 when not given, and less of few cells."""
    learning_rate: float = 1e-2
    """Adam's, for the first half of the steps; from there it falls to zero along a line."""
    seed: int = 0
    """Of the parameters, the order of the cells and all noise."""
    init_from: Path | None = None
    """Folder of another run, whose parameters this one starts from: fine-tuning, on other data."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured at the end, on the test set."""

    num_importance_samples: int = 500
    """Draws for each test cell's log p(x)."""


@dataclass(frozen=True)
class Options:
    """A variational autoencoder on single cells' counts, from one command to numbers and cells."""

    data: Data
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)
