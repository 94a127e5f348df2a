"""scVI (Lopez et al. 2018): a VAE of single cells' counts, whose library size is observed.

    python -m experiments.papers.lopez2018 --data=pbmc10k_subset_counts.npz

Held-out ELBO and log p(x) of a cell under each likelihood, with scvi-tools' default sizes: 10
latents, a hidden layer of 128. Where scvi-tools can be imported it is trained beside, on the same
cells in the same run.

ELBO and log p(x) of 100 draws, 10,000 cells by 1,000 genes, on one busy core: negative binomial
-193.6 and -192.9 after 12 epochs in 5 s of the core, once compiled, Poisson -194.4 and -193.0,
zero-inflated -193.5 and -193.0. scvi-tools 1.4.2, negative binomial, 60 epochs: -203.7 and -200.3,
about 70 s; on another day -202.9 and -200.0 in 81 s, zero-inflated -204.4 and -201.2, Poisson
-204.2 and -200.9. Its defaults are 400 epochs, over which the KL's weight rises: at 60
it is 0.15.
"""

import functools
import importlib.util
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import vae_jax
from experiments.papers import table
from vae_jax import run
from vae_jax.run import cells, command, count_options, figures, measure, options, schedule
from vae_jax.run.data import counts, matrices
from vae_jax.run.errors import DataError, UsageError

PROG = "python -m experiments.papers.lopez2018"
PROTOCOL = (
    "Nats of a held-out cell given its library size, higher is better: the ELBO, and log p(x) by "
    "importance sampling; test cells: the first 1,000 of numpy.random.default_rng(0)'s "
    "permutation of the cells with counts, a tenth of the others to choose the epoch by; seconds "
    "are of training, with compilation where no cache has it, of the clock and of all cores "
    "together"
)
_NUM_TEST = 1_000
LIKELIHOODS = {
    "poisson": "poisson",
    "negative_binomial": "nb",
    "zero_inflated_negative_binomial": "zinb",
}
"""By their names in scvi-tools."""


@dataclass(frozen=True)
class Options:
    """Trains VAEs of single cells' counts, beside scvi-tools where it is installed."""

    data: Path
    """Counts, cells by genes, 1,200 at least: .h5ad, .npz or .mtx."""
    likelihoods: tuple[
        Literal["poisson", "negative_binomial", "zero_inflated_negative_binomial"], ...
    ] = ("negative_binomial", "poisson", "zero_inflated_negative_binomial")
    """Each a training."""
    epochs: int = 12
    """Passes over the training cells, of which the best on the validation cells is the result."""
    batch_size: int = 128
    """Cells a step."""
    learning_rate: float = count_options.Training.learning_rate
    """Adam's, for the first half of the steps; from there it falls to zero along a line."""
    latent_dim: int = count_options.Model.latent_dim
    """Of z."""
    hidden: tuple[int, ...] = count_options.Model.hidden
    """Widths of the hidden layers of both networks."""
    num_importance_samples: int = 100
    """Draws for log p(x) of each test cell."""
    scvi_epochs: int = 60
    """Of scvi-tools, with its own defaults for all else; 0 leaves it out."""
    scvi_likelihoods: tuple[
        Literal["poisson", "negative_binomial", "zero_inflated_negative_binomial"], ...
    ] = ("negative_binomial",)
    """Those that scvi-tools is trained under."""
    seed: int = 0
    """Of the parameters, the order and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/lopez2018-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


def split(matrix: matrices.Matrix) -> counts.Cells:
    """The protocol's splits of the cells with counts, and the genes with counts."""
    found = matrix.counts[np.flatnonzero(counts.libraries(matrix.counts))]
    num = found.shape[0]
    if num < 1.2 * _NUM_TEST:
        raise DataError(f"{matrix.source} has {num} cells with counts: 1,200 are the least")
    test, rest = np.split(np.random.default_rng(0).permutation(num), [_NUM_TEST])
    validation, train = np.split(rest, [len(rest) // 10])
    kept = np.flatnonzero(np.asarray(found.sum(axis=0)).reshape(-1))
    return counts.in_parts(matrix._replace(counts=found[:, kept]), (test, validation, train), kept)


def ours(
    key: jax.Array, likelihood: str, found: counts.Cells, chosen: Options, output: Path
) -> dict[str, Any]:
    """A row of the table: what one training reaches; the genes of cells that it makes up."""
    init_key, fit_key, validation_key, test_key = jax.random.split(key, 4)
    start, start_cpu = time.perf_counter(), time.process_time()
    of_model = {
        "likelihood": likelihood,
        "latent_dim": chosen.latent_dim,
        "hidden": list(chosen.hidden),
    }
    config = {**cells.stored(found), "options": {"model": of_model}}
    model = cells.make_model(config)
    train, held_out, test = map(cells.batch, (found.train, found.validation, found.test))
    steps = chosen.epochs * (len(found.train.x) // chosen.batch_size)
    fitted = run.fit(
        fit_key,
        vae_jax.make_loss(model, objective=functools.partial(vae_jax.elbo, analytic_kl=None)),
        jax.jit(model.init)(init_key, *cells.example(config)),
        schedule.adam(chosen.learning_rate, steps),
        train,
        run.Plan(
            epochs=chosen.epochs,
            batch_size=chosen.batch_size,
            keep_best="validation_elbo",
            stream=isinstance(train.image, counts.DenseRows),
        ),
        validate=measure.validation(model, validation_key, *held_out, 1_000),
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    num = chosen.num_importance_samples
    measured = measure.measure(test_key, model, fitted.params, *test, num, "cells")
    best = max(fitted.rows, key=lambda row: row["validation_elbo"])
    draw = jax.jit(lambda key: _made_up(key, model, fitted.params, test.label))
    figures.genes(output / f"genes-{likelihood}.png", test.image, np.asarray(draw(test_key)))
    return {
        "name": likelihood,
        "by": "vae_jax",
        **measure.reported(measured),
        "epochs": len(fitted.rows),
        "best_epoch": best["epoch"],
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def _made_up(key: jax.Array, model: vae_jax.VAE, params: Any, label: Any) -> jax.Array:
    """A cell of each library size."""
    z_key, key = jax.random.split(key)
    z = vae_jax.sample(z_key, model.prior(params, label), len(label.library))
    made: jax.Array = vae_jax.sample(key, model.decode(params, z, label))
    return made


def scvi(likelihood: str, found: counts.Cells, chosen: Options) -> dict[str, Any]:
    """A row of scvi-tools' on the same cells: its defaults, a tenth of them to validate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anndata
        import scvi as scvi_tools

        scvi_tools.settings.seed = chosen.seed
        whole = found.matrix.counts.astype(np.float32)
        order = np.random.default_rng(0).permutation(whole.shape[0])
        train, test = (
            anndata.AnnData(whole[np.sort(rows)]) for rows in (order[_NUM_TEST:], order[:_NUM_TEST])
        )
        of_model = scvi_tools.model.SCVI
        of_model.setup_anndata(train)
        start, start_cpu = time.perf_counter(), time.process_time()
        model = of_model(train, gene_likelihood=LIKELIHOODS[likelihood])
        model.train(max_epochs=chosen.scvi_epochs, enable_progress_bar=False, accelerator="cpu")
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        elbo = model.get_elbo(test)
        marginal = model.get_marginal_ll(test, n_mc_samples=chosen.num_importance_samples)
    # Of counts no probability is above 1: versions differ in the sign that they give.
    return {
        "name": likelihood,
        "by": f"scvi-tools {scvi_tools.__version__}",
        "test_elbo": -abs(float(elbo)),
        "test_log_likelihood": -abs(float(marginal)),
        "epochs": chosen.scvi_epochs,
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    options.check_at_least(
        1, epochs=chosen.epochs, batch_size=chosen.batch_size, latent_dim=chosen.latent_dim
    )
    options.check_at_least(0, scvi_epochs=chosen.scvi_epochs)
    options.check_at_least(2, num_importance_samples=chosen.num_importance_samples)
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)
    if not chosen.hidden or min(chosen.hidden) < 1:
        raise UsageError(f"--hidden is {chosen.hidden}: give one positive width or more")
    table.begin(chosen)
    found = split(matrices.read(chosen.data))
    if chosen.batch_size > len(found.train.x):
        raise UsageError(
            f"--batch-size is {chosen.batch_size} but there are {len(found.train.x):,} cells to "
            "train on: make it smaller"
        )
    output = table.open_folder(chosen, "lopez2018")
    rows = table.Table(output, chosen, paper="lopez2018", protocol=PROTOCOL)
    for i, likelihood in enumerate(chosen.likelihoods):
        key = jax.random.fold_in(jax.random.key(chosen.seed), i)
        row = ours(key, likelihood, found, chosen, output)
        rows.add(row, _described(row))
    if importlib.util.find_spec("scvi") is None:
        print("scvi-tools is not installed: it is not trained beside")
    elif chosen.scvi_epochs:
        for likelihood in chosen.scvi_likelihoods:
            row = scvi(likelihood, found, chosen)
            rows.add(row, _described(row))
    rows.end()


def _described(row: dict[str, Any]) -> str:
    return (
        f"{row['by']:16} {row['name']:32} ELBO {row['test_elbo']:.2f}, log p(x) "
        f"{row['test_log_likelihood']:.2f}, {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} of a "
        "core"
    )


if __name__ == "__main__":
    command.run(main)
