"""What the papers' programs share: a cell trained within a budget, measured, and written down."""

import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import vae_jax
from vae_jax import run
from vae_jax.evaluation import batched
from vae_jax.run import command, devices, folder, keys, measure, options
from vae_jax.run.callbacks import counted
from vae_jax.run.data import named
from vae_jax.run.errors import UsageError
from vae_jax.run.job import open_program

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
    """Muon's, for the first half of the steps; from there it falls to zero along a line. Biases
    take a fifth of it, by Adam."""
    num_importance_samples: int = 5000
    """Draws for log p(x) of each test image, a multiple of 50."""
    num_test: int | None = None
    """Test images that are measured; all when not given."""
    dataset: Literal["mnist", "fashion_mnist", "digits"] = "mnist"
    """Of which the published numbers are MNIST's. digits are scikit-learn's, without a download."""
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


class Model(NamedTuple):
    """A VAE, of one layer of latents or of several: what is drawn, and the densities at it.

    Attributes:
      init: key -> params.
      draw: (params, key, x [B, D], S) -> z, reparameterised, [S, B, Z] or a tuple of them.
      posterior: (params, x, z) -> q(z|x), whose parts may depend on the draws z.
      prior: (params, z) -> p(z), likewise.
      decode: (params, z) -> p(x|z).
    """

    init: Callable[[jax.Array], Params]
    draw: Callable[[Params, jax.Array, jax.Array, int], Any]
    posterior: Callable[[Params, jax.Array, Any], Any]
    prior: Callable[[Params, Any], Any]
    decode: Callable[[Params, Any], Any]


Objective = Callable[[Model, Params, jax.Array, Any], jax.Array]
"""(model, params, x, z) -> what is maximised, for each example and perhaps each draw."""


class Part(NamedTuple):
    """A part of a training.

    Attributes:
      objective: what it maximises.
      num_draws: of z, for each image.
      batch_size: images a step.
      share: of the steps, or of the time; those of a training add up to 1.
    """

    objective: Objective
    num_draws: int
    batch_size: int
    share: float = 1.0


class Cell(NamedTuple):
    """A cell of a paper's table.

    Attributes:
      published: negative log p(x), nats; None where the paper has none.
      model: mean of the training images, [D] -> a `Model`.
      parts: of its training, one after the other. Few draws bring most of the way in little time.
    """

    published: float | None
    model: Callable[[jax.Array], Model]
    parts: tuple[Part, ...]


def make_loss(model: Model, objective: Objective, num_draws: int) -> Callable[..., Any]:
    """(params [R, ...], key, bytes [B, D]) -> minus the sum of R replicas' objectives.

    One gradient is then each replica's own. They share the order of the images, not the noise.
    """

    def one(params: Params, key: jax.Array, images: jax.Array) -> jax.Array:
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, images)
        z = model.draw(params, draw_key, x, num_draws)
        return -objective(model, params, x, z).mean()

    def loss(params: Params, key: jax.Array, images: jax.Array) -> Any:
        replica_keys = jax.random.split(key, len(jax.tree.leaves(params)[0]))
        losses = jax.vmap(one, in_axes=(0, 0, None))(params, replica_keys, images)
        return losses.sum(), {"negative_bound": losses}

    return loss


def make_optimizer(
    rate: float, num_steps: float, *, constant: float = 0.5, warm_up: int = 500
) -> optax.GradientTransformation:
    """Muon for replicas side by side, at a constant rate and then along a line to zero.

    Muon (Jordan et al. 2024) makes each weight matrix's step orthogonal. With 784-200-200-50 and
    the ELBO it has 86.9 nats after 30,000 steps of 400 images, NAdam 88.9 at its best rate.
    num_steps is in the state, not in the program, which need not be compiled anew for another.
    """
    muon = optax.contrib.muon(1.0, adam_learning_rate=0.2)

    def init(params: Params) -> Any:
        return jax.vmap(muon.init)(params), jnp.float32(num_steps), jnp.int32(0)

    def update(gradient: Params, state: Any, params: Params = None) -> Any:
        of_muon, total, count = state
        updates, of_muon = jax.vmap(muon.update)(gradient, of_muon, params)
        step = count.astype(jnp.float32)
        left = jnp.clip((1 - step / total) / (1 - constant), 0.0, 1.0)
        scale = rate * left * jnp.minimum((step + 1) / warm_up, 1.0)
        return jax.tree.map(lambda u: scale * u, updates), (of_muon, total, count + 1)

    return optax.GradientTransformation(init, update)


class _Clock:
    """A callback that times the steps of a run, without the first call."""

    def __init__(self) -> None:
        self._calls: list[tuple[int, float]] = []

    def start(self, progress: Any) -> None: ...

    def steps(self, progress: Any, metrics: Any) -> None:
        self._calls.append((progress.step, time.perf_counter()))

    def epoch(self, progress: Any, row: Any) -> None: ...

    @property
    def seconds_per_step(self) -> float:
        (first, start), (last, end) = self._calls[0], self._calls[-1]
        return (end - start) / (last - first)


_TIMED_STEPS = 301


def fit(
    key: jax.Array,
    loss: Callable[..., Any],
    params: Params,
    data: Any,
    *,
    batch_size: int,
    rate: float,
    steps: int | None,
    budget: float,
    to_zero: bool = True,
) -> tuple[Params, dict[str, Any]]:
    """Trains replicas for a number of steps, or for as many as a budget has time for.

    Args:
      key: of the order and the noise.
      loss: of `make_loss`, or another sum over replicas.
      params: of each replica, [R, ...].
      data: what the loss takes batches of.
      batch_size: examples a step.
      rate: of `make_optimizer`.
      steps: None for what the budget has time for, by the clock of some first steps.
      budget: seconds.
      to_zero: end at a rate of zero, with an average of the parameters; else at the full rate.

    Returns:
      The parameters, and what the training was.
    """

    def run_for(num_steps: int, planned: float, *callbacks: Any) -> run.Fitted:
        plan = run.Plan(
            steps=num_steps, batch_size=batch_size, average_decay=0.999 if to_zero else 0.0
        )
        return run.fit(
            *(key, loss, params, make_optimizer(rate, planned), data, plan),
            callbacks=[*callbacks, run.ProgressBar(disable=bool(callbacks))],
        )

    if steps is None:
        clock = _Clock()
        run_for(_TIMED_STEPS, math.inf, clock)
        steps = max(1, round(budget / clock.seconds_per_step))
    start = time.perf_counter()
    fitted = run_for(steps, steps if to_zero else math.inf)
    return fitted.params, {
        "steps": steps,
        "epochs": steps * batch_size / len(jax.tree.leaves(data)[0]),
        "seconds": time.perf_counter() - start,
        "compile_seconds": fitted.compile_seconds,
        "loss": fitted.rows[-1]["train_loss"] / len(jax.tree.leaves(params)[0]),
    }


def train(
    key: jax.Array, cell: Cell, model: Model, images: Any, chosen: Options
) -> tuple[Params, list[dict[str, Any]]]:
    """The trained replicas of a cell [R, ...], and of each part of the training what it was."""
    order_key, _, *seed_keys = jax.random.split(key, chosen.seeds + 2)
    params = jax.vmap(model.init)(jnp.stack(seed_keys))
    report = []
    for i, part in enumerate(cell.parts):
        params, what = fit(
            jax.random.fold_in(order_key, i),
            make_loss(model, part.objective, part.num_draws),
            params,
            images,
            batch_size=part.batch_size,
            rate=chosen.learning_rate,
            steps=None if chosen.steps is None else max(1, round(part.share * chosen.steps)),
            budget=part.share * seconds(chosen.budget),
            to_zero=i == len(cell.parts) - 1,
        )
        report.append({"draws": part.num_draws, "batch_size": part.batch_size} | what)
    return params, report


_CHUNK = 50
_BOUNDS = {"elbo": 1, "iwae_5": 5, "iwae_50": 50}


@partial(jax.jit, static_argnums=(0, 1))
def log_weights(
    model: Model, num_chunks: int, params: Params, key: jax.Array, x: jax.Array
) -> tuple[jax.Array, ...]:
    """Of draws in chunks of 50: log sum_s w_s, log sum_s w_s^2, [B]; bounds of fewer, [3, B]."""

    def of_chunk(carry: Any, i: jax.Array) -> Any:
        z = model.draw(params, jax.random.fold_in(key, i), x, _CHUNK)
        densities = model.posterior(params, x, z), model.prior(params, z), model.decode(params, z)
        # Of one draw, the bound estimated from it is the logarithm of its weight.
        log_w = vae_jax.elbo(x, z, *densities, analytic_kl=False).value
        sums = [jax.nn.logsumexp(order * log_w, axis=0) for order in (1, 2)]
        first, second = map(jnp.logaddexp, carry[:2], sums)
        groups = (log_w.reshape(num, -1, len(x)) for num in _BOUNDS.values())
        bounds = [(jax.nn.logsumexp(g, axis=0) - math.log(len(g))).mean(axis=0) for g in groups]
        return (first, second, carry[2] + jnp.stack(bounds) / num_chunks), None

    nothing = jnp.full(len(x), -jnp.inf)
    start = nothing, nothing, jnp.zeros((len(_BOUNDS), len(x)))
    sums: tuple[jax.Array, ...]
    sums, _ = jax.lax.scan(of_chunk, start, jnp.arange(num_chunks, dtype=jnp.int32))
    return sums


def log_likelihood(
    key: jax.Array, model: Model, params: Params, x: jax.Array, num_samples: int
) -> dict[str, float]:
    """Mean log p(x) of images [N, D] by importance sampling, with its errors, and lower bounds."""
    rows = min(len(x), 10 if jax.default_backend() == "cpu" else 500)
    first, second = np.zeros((2, len(x)))
    bounds = np.zeros((len(_BOUNDS), len(x)))
    # The last rows again, where the number does not divide: all batches have one shape.
    starts = (min(start, len(x) - rows) for start in range(0, len(x), rows))
    batches = (np.arange(start, start + rows) for start in starts)
    for here in counted(batches, len(x), f"log p(x), {num_samples} draws"):
        of_batch = (params, jax.random.fold_in(key, here[0]), x[here])
        part = log_weights(model, num_samples // _CHUNK, *of_batch)
        first[here], second[here], bounds[:, here] = map(np.asarray, part)
    value = first - math.log(num_samples)
    effective = np.exp(2 * first - second)
    errors = np.sqrt(np.maximum(1 / effective - 1 / num_samples, 0))
    return {
        "value": float(value.mean()),
        "standard_error_of_draws": float(np.sqrt(np.square(errors).sum()) / len(x)),
        "standard_error_over_images": batched.standard_error(value),
        "effective_sample_size": float(np.median(effective)),
        **{name: float(of.mean()) for name, of in zip(_BOUNDS, bounds, strict=True)},
    }


def active_units(key: jax.Array, model: Model, params: Params, x: jax.Array) -> list[int]:
    """Of each layer, those whose mean varies: Var_x(E_q[z]) > 0.01 (Burda et al. 2016, 5.1)."""

    @jax.jit
    def means(x: jax.Array) -> Any:
        z = model.draw(params, key, x, 20)
        parts = model.posterior(params, x, z)
        parts = parts.parts if isinstance(parts, vae_jax.Joint) else (parts,)
        return [part.mean if part.mean.ndim == 2 else part.mean.mean(axis=0) for part in parts]

    batches = [means(batch) for batch in jnp.split(x, list(range(500, len(x), 500)))]
    return [
        int((np.concatenate(of_layer).var(axis=0) > 0.01).sum())
        for of_layer in zip(*batches, strict=True)
    ]


def seconds(budget: str) -> float:
    """Of a budget such as 90s, 30m or 2h.

    >>> seconds("30m")
    1800.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--budget is {budget}: give a time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def check(chosen: Options, cells: Mapping[str, Cell]) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    for name in chosen.cells:
        if name not in cells:
            raise UsageError(f"--cells has {name}: the cells are {', '.join(cells)}")
    seconds(chosen.budget)
    names = ("seeds", "steps", "num_test")
    given = {name: getattr(chosen, name) for name in names}
    options.check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    if chosen.num_importance_samples < _CHUNK or chosen.num_importance_samples % _CHUNK:
        raise UsageError(
            f"--num-importance-samples is {chosen.num_importance_samples}: give a multiple of "
            f"{_CHUNK}"
        )
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)


def main(paper: str, table: str, protocol: str, cells: Mapping[str, Cell]) -> None:
    """Trains, measures and writes the cells that the command line asks for.

    Args:
      paper: the program's name.
      table: which one of the paper it is.
      protocol: what the published numbers are, and how these differ.
      cells: by name.
    """
    chosen = command.parse(Options, sys.argv[1:], prog=f"python -m experiments.papers.{paper}")
    check(chosen, cells)
    folder.check_writable(chosen.output)
    devices.use_accelerator(chosen.accelerator)
    devices.use_compilation_cache()
    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    # The validation rows too: nothing is chosen by them, and the papers train on all 60,000.
    splits = (dataset.train.images, dataset.validation.images)
    images = np.concatenate([np.asarray(split) for split in splits])
    images = images.reshape(len(images), -1)
    mean = jnp.asarray(images.mean(axis=0) / 255, jnp.float32)
    images = jnp.asarray(images)
    output, plain = open_program(chosen, paper, dataset)
    test_key, train_key = jax.random.split(jax.random.key(chosen.seed))
    pixels_key = keys.of_run(0)["test pixels"]  # whatever the seed, as of every run
    test = np.asarray(dataset.test.images)[: chosen.num_test]
    x = jax.jit(vae_jax.binarize)(pixels_key, jnp.asarray(test.reshape(len(test), -1)))
    rows: list[dict[str, Any]] = []
    for name in chosen.cells or cells:
        start, cpu = time.perf_counter(), time.process_time()
        model = cells[name].model(mean)
        params, parts = train(train_key, cells[name], model, images, chosen)
        trained = time.perf_counter()
        measured = [
            log_likelihood(
                jax.random.fold_in(test_key, seed),
                *(model, jax.tree.map(lambda leaf: leaf[seed], params)),  # noqa: B023
                *(x, chosen.num_importance_samples),
            )
            for seed in range(chosen.seeds)
        ]
        first = jax.tree.map(lambda leaf: leaf[0], params)
        values = [-each["value"] for each in measured]
        row = {
            "cell": name,
            "published": cells[name].published if dataset.name == "mnist" else None,
            "negative_log_likelihood": float(np.mean(values)),
            "deviation_over_seeds": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "values": values,
            "measured": measured,
            "active_units": active_units(test_key, model, first, x),
            "training": parts,
            "training_minutes": (trained - start) / 60,
            "measuring_minutes": (time.perf_counter() - trained) / 60,
            "cpu_minutes": (time.process_time() - cpu) / 60,
        }
        rows.append(row)
        print(described(row), flush=True)
        results = {
            "paper": paper,
            "table": table,
            "protocol": protocol,
            "dataset": dataset.name,
            "source": dataset.source,
            "num_test": len(x),
            "rows": rows,
            "device": jax.devices()[0].device_kind,
            "versions": measure.versions(),
            "options": plain,
        }
        folder.write_json(output / "results.json", results)
    print(f"the table: {output / 'results.json'}")


def described(row: Mapping[str, Any]) -> str:
    """A row as a line."""
    spread = row["deviation_over_seeds"]
    deviation = "" if spread is None else f" +- {spread:.2f} over {len(row['values'])} seeds"
    units = "+".join(map(str, row["active_units"]))
    published = "" if row["published"] is None else f", published {row['published']:.2f}"
    return (
        f"{row['cell']:22} -log p(x) {row['negative_log_likelihood']:.2f}{deviation} nats"
        f"{published}; {units} active units, {row['training_minutes']:.1f} minutes"
    )
