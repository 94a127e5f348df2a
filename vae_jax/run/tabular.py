"""A VAE on the rows of a table, from options to numbers, a picture, and rows again."""

import dataclasses
import math
import signal
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import vae_jax
from vae_jax import checkpoint
from vae_jax.run import (
    callbacks,
    devices,
    extras,
    folder,
    keys,
    measure,
    objective,
    rows,
    table_options,
    training,
)
from vae_jax.run.data import tables
from vae_jax.run.data.kinds import Column
from vae_jax.run.errors import DataError, Diverged, Interrupted, UsageError
from vae_jax.run.options import Objective
from vae_jax.run.plan import Plan, named_leaves

_BUDGET, _PATIENCE = 6_000, 1_000


def run(chosen: table_options.Options, prog: str) -> None:
    """Trains, measures and draws, as the options say.

    Raises:
      UsageError, DataError, RunError, Interrupted: in one line.
    """
    start = time.perf_counter()
    folder.check_writable(chosen.run.output)
    extras.check("matplotlib", *(["tensorboardX"] if chosen.run.tensorboard else []))
    devices.use_accelerator(chosen.run.accelerator)
    devices.use_compilation_cache()
    table = tables.load(
        Path(chosen.data.dataset), tables.asked_kinds(chosen.data.columns), chosen.data.missing
    )
    chosen = _settled(chosen, table)
    output = chosen.run.output
    if chosen.run.resume and output is not None:
        _check_same(table, folder.read_table_config(output))
        folder.lock(output)
    else:
        output = folder.create(output, table.name, overwrite=chosen.run.overwrite)
    assert output is not None
    config = {
        **folder.stamp(),
        "kind": "table",
        "options": table_options.to_json(chosen),
        "dataset": table.name,
        "columns": tables.to_json(table.columns),
        "digest": table.digest,
        "num_rows": table.num_rows,
    }
    folder.write_json(output / "config.json", config)
    _announce(table, output)
    model = rows.make_model(table.columns, chosen.model.latent_dim, chosen.model.hidden)
    continued_by = f"{prog} --output={output} --resume"
    fitted = _train(chosen, table, model, config, output, continued_by, start)
    try:
        _conclude(chosen, table, model, fitted, output)
    except KeyboardInterrupt:
        raise Interrupted(
            signal.SIGINT,
            "stopped while measuring; the training is done and saved, and what is missing is made "
            f"by\n  {continued_by}",
        ) from None


def _settled(chosen: table_options.Options, table: tables.Table) -> table_options.Options:
    """The options with what follows from the number of rows."""
    num, of = len(table.train), chosen.training
    batch_size = of.batch_size or 256
    while of.batch_size is None and batch_size > max(8, num // 4):
        batch_size //= 2
    if batch_size > num:
        raise UsageError(
            f"--batch-size is {batch_size} but {table.name} has {num} rows to train on: make it "
            "smaller"
        )
    steps = num // batch_size
    filled = dataclasses.replace(
        of,
        batch_size=batch_size,
        epochs=math.ceil(_BUDGET / steps) if of.epochs is None else of.epochs,
        patience=math.ceil(_PATIENCE / steps) if of.patience is None else of.patience,
    )
    return dataclasses.replace(chosen, training=filled)


def _check_same(table: tables.Table, config: dict[str, Any]) -> None:
    """Raises DataError where a table is not the one that the run saw."""
    if table.digest != config["digest"]:
        raise DataError(
            f"the rows in {table.source} are not those of the run: {table.num_rows:,} where it saw "
            f"{config['num_rows']:,}, or others. Name the table where those are, or start a new run"
        )


def _announce(table: tables.Table, output: Path) -> None:
    sizes = [len(part) for part in (table.train, table.validation, table.test)]
    print(
        "{}: {:,} training, {:,} validation, {:,} test rows".format(table.name, *sizes)
        + f", {table.source}"
    )
    for column in table.columns:
        print(f"  {column}")
    for note in table.notes:
        print(f"note: {note}")
    if missing := int(np.isnan(table.train).sum()):
        print(f"missing: {missing / table.train.size:.1%} of the values that are learned")
    print(f"results: {output}   device: {jax.devices()[0].device_kind}")


def make_optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Muon at a constant rate, and then along a line to zero (Jordan et al. 2024)."""

    def scale(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        left = jnp.clip(2 * (1 - step / num_steps), 0.0, 1.0)
        return left * jnp.minimum((step + 1) / min(500, max(1, num_steps // 10)), 1.0)

    muon = optax.contrib.muon  # type: ignore[attr-defined]
    return optax.chain(muon(rate, adam_learning_rate=0.2 * rate), optax.scale_by_schedule(scale))


def _train(
    chosen: table_options.Options,
    table: tables.Table,
    model: vae_jax.VAE,
    config: dict[str, Any],
    output: Path,
    continued_by: str,
    start: float,
) -> training.Fitted:
    """Trains to the last epoch, or to the last that is better."""
    of = chosen.training
    assert of.epochs is not None
    assert of.batch_size is not None
    steps = len(table.train) // of.batch_size
    optimizer = make_optimizer(of.learning_rate, of.epochs * steps)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    of_run = keys.of_run(of.seed)

    def fresh(init_words: Any, train_words: Any) -> vae_jax.TrainState:
        init_key, train_key = map(jax.random.wrap_key_data, (init_words, train_words))
        params = model.init(init_key, jnp.zeros((1, table.train.shape[1])))
        return vae_jax.init_state(train_key, params, optimizer)

    words = [np.asarray(jax.random.key_data(of_run[name])) for name in ("init", "train")]
    sharding = vae_jax.state_sharding(jax.eval_shape(fresh, *words), mesh)
    setup = training.Setup(
        loss=objective.make_loss(Objective(), model, None, steps, len(table.train)),
        optimizer=optimizer,
        data=table.train,
        sharding=sharding,
        plan=Plan(
            batch_size=of.batch_size,
            epochs=of.epochs,
            mesh=mesh,
            folder=output,
            resume=chosen.run.resume,
            keep=chosen.run.keep,
            checkpoint_seconds=chosen.run.checkpoint_seconds,
            keep_best="validation_elbo" if of.patience else None,
        ),
        validate=_validation(model, table.validation, of_run["validation"]),
        config=config,
        continued_by=continued_by,
        start=start,
    )
    reporters: list[callbacks.Callback] = [
        callbacks.ProgressBar(),
        callbacks.Collapse("validation_elbo"),
    ]
    if of.patience:
        reporters.append(callbacks.EarlyStopping("validation_elbo", patience=of.patience))
    try:
        if not chosen.run.tensorboard:
            return training.train(setup, jax.jit(fresh, out_shardings=sharding)(*words), reporters)
        with callbacks.tensorboard(output / "tensorboard") as reporter:
            state = jax.jit(fresh, out_shardings=sharding)(*words)
            return training.train(setup, state, [*reporters, reporter])
    except Diverged as error:
        raise Diverged(f"{error} --learning-rate=...") from None


def _validation(model: vae_jax.VAE, x: np.ndarray, key: jax.Array) -> training.Validate:
    """The bound of the validation set, one draw a row, the same draws each time."""

    @jax.jit
    def bound_of(params: Any, key: jax.Array, x: jax.Array) -> vae_jax.Bound:
        posterior = model.encode(params, x)
        z = vae_jax.sample(key, posterior)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
        means: vae_jax.Bound = jax.tree.map(jnp.mean, bound)
        return means

    return lambda params: named_leaves(
        jax.device_get(bound_of(params, jax.random.clone(key), jnp.asarray(x)))
    )


def _conclude(
    chosen: table_options.Options,
    table: tables.Table,
    model: vae_jax.VAE,
    fitted: training.Fitted,
    output: Path,
) -> None:
    """Measures on the test set, touched here, once; numbers first, then pictures."""
    key = keys.of_run(chosen.training.seed)["evaluation"]
    samples = chosen.evaluation.num_importance_samples
    test = measure.measure(key, model, fitted.params, table.test, None, samples)
    seconds = math.fsum(row["seconds"] for row in fitted.rows)
    results = {
        "dataset": table.name,
        "source": table.source,
        "notes": list(table.notes),
        "data_digest": table.digest,
        "columns": {column.name: column.kind for column in table.columns},
        "num_train": len(table.train),
        "num_validation": len(table.validation),
        "num_test": len(table.test),
        "seed": chosen.training.seed,
        "epochs": len(fitted.rows),
        **measure.reported(test),
        "compile_seconds": fitted.compile_seconds,
        "train_seconds": seconds,
        "parameters_sha256": measure.sha256(fitted.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
        "options": table_options.to_json(chosen),
    }
    folder.write_json(output / "results.json", results)
    print(summary(results))
    try:
        from vae_jax.run import figures  # here, as matplotlib takes a second

        trained = Trained(model, fitted.params, 0, table.columns, chosen, {})
        frames = (
            tables.decode(table.test, table.columns),
            generate(keys.of_run(chosen.training.seed)["pictures"], trained, len(table.test)),
        )
        figures.marginals(output / "marginals.png", *frames, tables.learned(table.columns))
        figures.curves(output / "curves.png", fitted.rows)
    except Exception as error:  # matplotlib's, of every type; the numbers are there
        brief = f"{type(error).__name__}: {error}".partition("\n")[0]
        warnings.warn(f"a picture could not be made ({brief})", RuntimeWarning, stacklevel=2)
    print(f"pictures and numbers: {output}")


def summary(results: dict[str, Any]) -> str:
    """The lines that a run ends with."""
    over_rows = f"over {results['num_test']:,} rows"
    return "\n".join(
        [
            f"test ELBO        {results['test_elbo']:9.2f} nats, +- "
            f"{results['test_elbo_standard_error_over_images']:.2f} {over_rows}",
            f"test log p(x)    {results['test_log_likelihood']:9.2f} nats, +- "
            f"{results['test_log_likelihood_standard_error_over_images']:.2f} {over_rows}, +- "
            f"{results['test_log_likelihood_standard_error']:.3f} of the "
            f"{results['num_importance_samples']} draws, "
            f"{results['test_effective_sample_size']:.0f} effective",
            f"active units     {results['active_units']:6d} of {results['latent_dim']}",
            *(f"warning: {text}" for text in results["warnings"]),
        ]
    )


class Trained(NamedTuple):
    """What a run left: its model and parameters, and the columns of its table."""

    model: vae_jax.VAE
    params: Any
    step: int
    columns: tuple[Column, ...]
    options: table_options.Options
    config: dict[str, Any]


def restore(run: Path) -> Trained:
    """The newest checkpoint of a run on a table, the best epoch's parameters where it has them.

    Raises:
      UsageError: the folder holds no such run.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint, or one of another model than its config.json says.
    """
    config = folder.read_table_config(run)
    options, columns = (
        table_options.from_json(config["options"]),
        tables.from_json(config["columns"]),
    )
    devices.use_compilation_cache()
    model = rows.make_model(columns, options.model.latent_dim, options.model.hidden)
    optimizer = make_optimizer(options.training.learning_rate, 1)

    def fresh() -> vae_jax.TrainState:
        key = jax.random.key(0)
        params = model.init(key, jnp.zeros((1, len(tables.learned(columns)))))
        return vae_jax.init_state(key, params, optimizer)

    with checkpoint.manager(run / "checkpoints", read_only=True) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.eval_shape(fresh))
        written = checkpoint.restore_config(checkpoints, int(state.step))
        folder.check_checkpoint(run, int(state.step), written, config)
        best = checkpoint.restore_best(checkpoints, int(state.step), state.params)
    params = state.params if best is None else jax.device_put(best)
    return Trained(model, params, int(state.step), columns, options, config)


_AT_ONCE = 1_000


def generate(key: jax.Array, trained: Trained, num: int, seed: int = 0) -> Any:
    """Rows from the model, as a frame of the table's columns."""

    @jax.jit
    def draw(params: Any, key: jax.Array) -> jax.Array:
        prior_key, row_key = jax.random.split(key)
        z = vae_jax.sample(prior_key, trained.model.prior(params), _AT_ONCE)
        x: jax.Array = vae_jax.sample(row_key, trained.model.decode(params, z))
        return x

    parts = [
        np.asarray(draw(trained.params, jax.random.fold_in(key, i)))
        for i in range(-(-num // _AT_ONCE))
    ]
    return tables.decode(np.concatenate(parts)[:num], trained.columns, seed)


def filled(
    key: jax.Array, trained: Trained, frame: Any, num_samples: int
) -> tuple[Any, float, list[str]]:
    """A frame whose holes are filled: numbers by their median, classes by the most probable.

    Values that are there stay as they are, in the columns' order of the frame.

    Returns:
      The frame, the mean effective sample size of its rows, and notes.
    """
    x, notes = tables.encode(frame, trained.columns)
    found = vae_jax.impute(
        *(key, trained.model, trained.params, x),
        num_samples=num_samples,
        quantiles=(0.5,),
        num_draws=_DRAWS,
    )
    values = found.quantiles[0].copy()
    for i, column in enumerate(tables.learned(trained.columns)):
        if column.num_classes:
            codes = found.draws[..., i].astype(np.int64)
            counts = np.stack([(codes == k).sum(0) for k in range(column.num_classes)])
            values[:, i] = counts.argmax(0)
    values = np.where(np.isnan(x), values, x)
    guess = tables.decode(values, trained.columns)
    frame = tables.as_frame(frame)
    for column in trained.columns:
        if column.kind != "left out" and column.name in frame.columns:
            hole = frame[column.name].isna()
            if hole.any():
                frame[column.name] = frame[column.name].where(~hole, guess[column.name])
    return frame, float(found.effective_sample_size.mean()), notes


_DRAWS = 200


def evaluate(run: Path, where: str | None, num_samples: int, seed: int) -> None:
    """Measures a trained run on its test rows again; writes evaluation.json."""
    trained = restore(run)
    of = trained.options.data
    table = tables.load(Path(where or of.dataset), tables.asked_kinds(of.columns), of.missing)
    _check_same(table, trained.config)
    key = keys.of_run(seed)["evaluate again"]
    test = measure.measure(key, trained.model, trained.params, table.test, None, num_samples)
    results = {
        "dataset": table.name,
        "num_test": len(table.test),
        "seed": seed,
        "step": trained.step,
        "data_digest": table.digest,
        **measure.reported(test),
        "parameters_sha256": measure.sha256(trained.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    folder.write_json(run / "evaluation.json", results)
    print(summary(results))
    print(f"numbers: {run / 'evaluation.json'}")
