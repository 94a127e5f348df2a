"""What the papers' programs share: a cell trained within a budget, measured, and written down."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from experiments.papers import likelihood, table, training
from experiments.papers.training import Length
from vae_jax.run import command, figures, keys, options
from vae_jax.run.data import named
from vae_jax.run.data.dataset import Dataset
from vae_jax.run.errors import UsageError
from vae_jax.run.job import open_program
from vae_jax.run.model import expected

Params = Any


@dataclass(frozen=True)
class Options:
    """Trains the cells of a paper's table, and prints each published number beside its own."""

    cells: tuple[str, ...] = ()
    """Names of those that are trained; all of them when not given."""
    budget: str = "30m"
    """Of training for each cell, all its seeds together: seconds (90s), minutes or hours (2h)."""
    steps: int | None = None
    """Of each cell, in place of a budget: the same numbers again wherever it runs."""
    seeds: int = 1
    """Trained side by side; the mean and the deviation over them are given."""
    seed: int = 0
    """The first of them."""
    learning_rate: float = 1e-2
    """Muon's, for the first half of the steps; from there it falls to zero along a line. All but
    the weights of dense layers take a fifth of it, by Adam."""
    num_importance_samples: int = 5000
    """Draws for log p(x) of each test image, a multiple of 50."""
    num_test: int | None = None
    """Test images that are measured; all when not given."""
    dataset: Literal["mnist", "fashion_mnist", "binarized_mnist", "digits"] = "mnist"
    """Binarised anew at every step, but for binarized_mnist, which is binary. digits are
    scikit-learn's, without a download."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data."""
    manual_dir: Path | None = None
    """A folder with the original files, for a machine without a network."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/PAPER-DATASET-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


Loss = Callable[[vae_jax.VAE, int], Callable[..., Any]]
"""(model, draws) -> a loss of bytes, as `vae_jax.make_loss` gives it."""


class Part(NamedTuple):
    """A part of a training.

    Attributes:
      loss: such as `maximise` gives.
      num_draws: of z, for each image.
      batch_size: images a step.
      share: of the steps, or of the time; those of a training add up to 1.
    """

    loss: Loss
    num_draws: int
    batch_size: int
    share: float = 1.0


class Cell(NamedTuple):
    """A cell of a paper's table.

    Attributes:
      published: negative log p(x), nats, by the data set's name; empty where the paper has none.
      model: mean of the training images, [D] -> a VAE of x [*b, D].
      parts: of its training, one after the other. Few draws bring most of the way in little time.
    """

    published: Mapping[str, float]
    model: Callable[[jax.Array], vae_jax.VAE]
    parts: tuple[Part, ...]


class Study(NamedTuple):
    """What a program is about.

    Attributes:
      paper: the program's name.
      table: which one of the paper it is.
      protocol: what the published numbers are, and how these differ.
      cells: by name.
      defaults: of the options.
      num_train: the first of the training images, and the validation images after them; None for
        all of both. Nothing is chosen by the validation images.
      observe: (key, bytes) -> x, of the test images; of the training it is the loss that says.
    """

    paper: str
    table: str
    protocol: str
    cells: Mapping[str, Cell]
    defaults: Options = Options()
    num_train: int | None = None
    observe: Callable[..., jax.Array] = vae_jax.binarize


def maximise(
    objective: Callable[..., vae_jax.Bound],
    *,
    observe: Callable[..., jax.Array] = vae_jax.binarize,
    penalty: Callable[..., jax.Array] | None = None,
) -> Loss:
    """The loss of an objective; the arguments are those of `vae_jax.make_loss`."""
    return lambda model, num_draws: vae_jax.make_loss(
        model, observe=observe, objective=objective, num_draws=num_draws, penalty=penalty
    )


def warm_up(bound: vae_jax.Bound, z: Any, posterior: Any, prior: Any, step: Any) -> jax.Array:
    """A penalty: the KL's weight rises from 0.1 to 1, lest layers close before they are used."""
    beta = jnp.minimum(0.1 + 0.9 * step.astype(jnp.float32) / _WARM_UP_STEPS, 1.0)
    return vae_jax.weighted_kl(bound.kl, beta)


_WARM_UP_STEPS = 1000


def train(
    key: jax.Array, cell: Cell, model: vae_jax.VAE, images: jax.Array, chosen: Options
) -> tuple[Params, list[dict[str, Any]]]:
    """The trained replicas of a cell [R, ...], and of each part of the training what it was."""
    order_key, _, *seed_keys = jax.random.split(key, chosen.seeds + 2)
    # Images, as some parameters start at them.
    example = images[:_EXAMPLES].astype(jnp.float32) / 255
    params = jax.jit(jax.vmap(lambda key: model.init(key, example)))(jnp.stack(seed_keys))
    report, start = [], 0.0
    for i, part in enumerate(cell.parts):
        shares = (start, start + part.share)
        params, what = training.fit(
            jax.random.fold_in(order_key, i),
            training.side_by_side(part.loss(model, part.num_draws)),
            params,
            images,
            Length.of(chosen).part(part.share),
            batch_size=part.batch_size,
            optimizer=partial(training.make_optimizer, chosen.learning_rate, part=shares),
            average=i == len(cell.parts) - 1,
        )
        start = shares[1]
        report.append({"draws": part.num_draws, "batch_size": part.batch_size} | what)
    return params, report


_EXAMPLES = 500


def check(chosen: Options, cells: Mapping[str, Cell]) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    for name in chosen.cells:
        if name not in cells:
            raise UsageError(f"--cells has {name}: the cells are {', '.join(cells)}")
    training.seconds(chosen.budget)
    names = ("seeds", "steps", "num_test")
    given = {name: getattr(chosen, name) for name in names}
    options.check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    draws = chosen.num_importance_samples
    if draws < likelihood.CHUNK or draws % likelihood.CHUNK:
        raise UsageError(
            f"--num-importance-samples is {draws}: give a multiple of {likelihood.CHUNK}"
        )
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)


def pixels(dataset: Dataset, study: Study, num_test: int | None) -> tuple[jax.Array, jax.Array]:
    """Bytes to train on and test images as they are observed, [N, D] each."""
    splits = (dataset.train.images, dataset.validation.images)
    images = np.concatenate([np.asarray(split) for split in splits])[: study.num_train]
    test = np.asarray(dataset.test.images)[:num_test]
    key = keys.of_run(0)["test pixels"]  # whatever the seed, as of every run
    x = jax.jit(study.observe)(key, jnp.asarray(test.reshape(len(test), -1)))
    return jnp.asarray(images.reshape(len(images), -1)), x


def main(study: Study) -> None:
    """Trains, measures and writes the cells that the command line asks for."""
    prog = f"python -m experiments.papers.{study.paper}"
    chosen = command.parse(Options, sys.argv[1:], prog=prog, default=study.defaults)
    check(chosen, study.cells)
    table.begin(chosen)
    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    images, x = pixels(dataset, study, chosen.num_test)
    output, _ = open_program(chosen, study.paper, dataset)
    of_data = {"dataset": dataset.name, "source": dataset.source, "num_test": len(x)}
    protocol = study.protocol
    if dataset.name == "digits":  # which no paper is about
        protocol += f". Here of the digits instead: {len(images):,} to train on, {len(x):,} to test"
    results = table.Table(
        output, chosen, paper=study.paper, table=study.table, protocol=protocol, **of_data
    )
    pictures = {"test images": x[:_COLUMNS].reshape(-1, *dataset.image_shape)}
    for name in chosen.cells or study.cells:
        cell = study.cells[name]
        row: dict[str, Any] = {"cell": name, "published": cell.published.get(dataset.name)}
        of_cell, samples = reached(cell, images, x, chosen)
        pictures[name] = samples[: len(x)].reshape(-1, *dataset.image_shape)
        row |= of_cell
        if study.observe is vae_jax.dequantize:
            nats = row["negative_log_likelihood"] / x.shape[1]
            row["bits_per_dimension"] = nats / math.log(2) + 8
        results.add(row, described(row))
        figures.rows_of(pictures).save(output / "samples.png")
    results.end()


_COLUMNS = 12


def reached(
    cell: Cell, images: jax.Array, x: jax.Array, chosen: Options
) -> tuple[dict[str, Any], jax.Array]:
    """A cell trained on images [N, D] and measured on x [M, D], and draws of it [12, D]."""
    test_key, train_key = jax.random.split(jax.random.key(chosen.seed))
    start, cpu = time.perf_counter(), time.process_time()
    model = cell.model(jnp.asarray(np.asarray(images).mean(axis=0) / 255, jnp.float32))
    params, parts = train(train_key, cell, model, images, chosen)
    trained = time.perf_counter()
    replicas = [jax.tree.map(itemgetter(i), params) for i in range(chosen.seeds)]
    measured = [
        likelihood.log_likelihood(
            jax.random.fold_in(test_key, seed), model, replica, x, chosen.num_importance_samples
        )
        for seed, replica in enumerate(replicas)
    ]
    values = [-each["value"] for each in measured]
    use = likelihood.use_of_latents(test_key, model, replicas[0], x)
    draw_key = jax.random.fold_in(test_key, chosen.seeds)
    samples = expected(vae_jax.generate(draw_key, model, replicas[0], _COLUMNS))
    row = {
        "negative_log_likelihood": float(np.mean(values)),
        "deviation_over_seeds": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "values": values,
        "measured": measured,
        "active_units": use.active_units,
        "kl_per_layer": use.kl,
        "training": parts,
        "training_minutes": (trained - start) / 60,
        "measuring_minutes": (time.perf_counter() - trained) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
    }
    return row, samples


def described(row: Mapping[str, Any]) -> str:
    """A row as a line."""
    spread = row["deviation_over_seeds"]
    deviation = "" if spread is None else f" +- {spread:.2f} over {len(row['values'])} seeds"
    units = "+".join(map(str, row["active_units"]))
    bits = row.get("bits_per_dimension")
    also = "" if bits is None else f", {bits:.3f} bits per dimension"
    published = "" if row["published"] is None else f", published {row['published']:.2f}"
    closed = [str(i) for i, nats in enumerate(row["kl_per_layer"], start=1) if nats < 0.01]
    collapsed = f"; COLLAPSED: layer {', '.join(closed)}" if closed else ""
    return (
        f"{row['cell']:22} -log p(x) {row['negative_log_likelihood']:.2f}{deviation} nats{also}"
        f"{published}; {units} active units, {row['training_minutes']:.1f} minutes{collapsed}"
    )
