"""A VAE on examples that are no images, from options to numbers and pictures.

A run is prepared, begun, said, trained and concluded: see `several.Road`.
"""

import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vae_jax
from vae_jax.run import (
    buckets,
    callbacks,
    card,
    cautions,
    devices,
    extras,
    folder,
    keys,
    kinds,
    measure,
    objective,
    selection,
    training,
)
from vae_jax.run.data import stream
from vae_jax.run.errors import Diverged, UsageError
from vae_jax.run.examples import Examples, Trained, check_same, own, restore
from vae_jax.run.options import Objective
from vae_jax.run.plan import Plan
from vae_jax.run.survival import StopRequest
from vae_jax.run.together import Replica

_VALIDATED_VALUES = 2**23


class _Job(NamedTuple):
    """What a run is made of, once its data are there and its folder is open."""

    kind: kinds.Kind
    chosen: Any
    examples: Examples
    model: vae_jax.VAE
    config: dict[str, Any]
    output: Path
    continued_by: str
    start: float
    widths: np.ndarray | None
    name: str = ""
    stop: StopRequest | None = None
    replica: Replica | None = None

    @property
    def resident(self) -> bool:
        """Whether its steps take their examples from data that are there whole."""
        return self.widths is None and not _streamed(self.examples)

    def buckets(self, x: np.ndarray) -> buckets.Buckets | None:
        """Of sequences, groups of like lengths to measure them in."""
        return _buckets(self.kind, self.config, self.examples, x, self.chosen.training.batch_size)


def _buckets(
    kind: kinds.Kind, config: Mapping[str, Any], examples: Examples, x: Any, least: int
) -> buckets.Buckets | None:
    if examples.lengths is None:
        return None
    return buckets.of_sequences(x, least, lambda width: _cut(kind, config, width))


def _cut(kind: kinds.Kind, config: Mapping[str, Any], width: int) -> vae_jax.VAE:
    """The model of sequences of such a width, under the same parameters."""
    model: vae_jax.VAE = kind.parts.make_model({**config, "length": width})
    return model


class Prepared(NamedTuple):
    """A run before its folder is opened: complete options, and what is learned."""

    kind: kinds.Kind
    chosen: Any
    examples: Examples
    start: float


def prepare(kind: kinds.Kind, chosen: Any, loaded: dict[Any, Examples]) -> Prepared:
    """Checks what can be known before a run begins, and reads its data.

    Args:
      kind: of the data.
      chosen: the options.
      loaded: the data of other runs, by what was asked for; these are put there too.

    Raises:
      UsageError, DataError, RunError: in one line.
    """
    start = time.perf_counter()
    folder.check_writable(chosen.run.output)
    if chosen.training.init_from is not None and not chosen.run.resume:
        folder.read_config_of(kind, chosen.training.init_from)
    extras.check("matplotlib", *(["tensorboardX"] if chosen.run.tensorboard else []))
    devices.use_accelerator(chosen.run.accelerator)
    devices.use_compilation_cache()
    asked = chosen.data, chosen.model
    if asked not in loaded:
        loaded[asked] = kind.parts.load(chosen)
    examples = loaded[asked]
    if _streamed(examples):
        extras.check("grain")
    return Prepared(kind, _settled(kind, chosen, examples), examples, start)


def begin(prepared: Prepared, prog: str) -> _Job:
    """Opens the run's folder."""
    kind, chosen, examples, start = prepared
    output = chosen.run.output
    if chosen.run.resume and output is not None:
        check_same(kind, examples, folder.read_config_of(kind, output))
        folder.lock(output)
    else:
        output = folder.create(output, examples.name, overwrite=chosen.run.overwrite)
    assert output is not None
    config = {
        **folder.stamp(),
        "kind": kind.name,
        "options": kinds.to_json(chosen),
        "dataset": examples.name,
        **examples.stored,
        "digest": examples.digest,
        f"num_{kind.noun}": examples.num,
    }
    folder.write_json(output / "config.json", config)
    model = kind.parts.make_model(config)
    widths = None
    if examples.lengths is not None:
        widths = stream.widths_of(examples.lengths, chosen.training.batch_size)
    continued_by = f"{prog} --output={output} --resume"
    return _Job(kind, chosen, examples, model, config, output, continued_by, start, widths)


def announced(job: _Job) -> list[str]:
    """What is about to be learned, in lines."""
    kind, examples = job.kind, job.examples
    splits = examples.train, examples.validation, examples.test
    sizes = "{:,} training, {:,} validation, {:,} test".format(*(len(of.image) for of in splits))
    said = [f"{examples.name}: {sizes} {kind.noun}, {examples.source}"]
    said += [f"  {line}" for line in examples.lines]
    said += [f"note: {note}" for note in examples.notes]
    if examples.lengths is not None:
        said += _padding(examples.lengths, job.widths)
    streamed = ", data streamed" if _streamed(examples) else ""
    where = f"device: {jax.devices()[0].device_kind}{streamed}"
    return [*said, f"results: {job.output}   {where}"]


def _padding(lengths: np.ndarray, widths: np.ndarray | None) -> list[str]:
    """What training sequences are padded to; all to the longest where there are no widths."""
    longest = int(lengths.max())
    padding = 1 - lengths.mean() / (longest if widths is None else widths.mean())
    said = []
    if widths is not None:
        said.append(
            f"  padded in batches of like lengths, to {', '.join(map(str, np.unique(widths)))} "
            f"steps: {padding:.0%} of what is trained on is padding, and to the longest alone "
            f"{1 - lengths.mean() / longest:.0%}"
        )
    if padding > _MOSTLY_PADDING:
        said.append(
            f"note: {padding:.0%} of the steps that are trained on are padding: cut the long "
            "sequences into pieces to train faster"
        )
    return said


_MOSTLY_PADDING = 0.7


def _loss(job: _Job, aim: Objective, steps: int) -> Any:
    """The loss; of batches that are cut to several widths, under a model of each."""
    num = len(job.examples.train.image)
    if job.widths is None:
        return objective.make_loss(aim, job.model, None, steps, num)

    @functools.cache
    def of_width(width: int) -> Any:
        return objective.make_loss(aim, _cut(job.kind, job.config, width), None, steps, num)

    def loss(params: Any, key: jax.Array, batch: Any, step: Any = None) -> Any:
        return of_width(batch.image.shape[1])(params, key, batch, step)

    return loss


def _streamed(examples: Examples) -> bool:
    return not all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(examples.train))


def _settled(kind: kinds.Kind, chosen: Any, examples: Examples) -> Any:
    """The options with what follows from the number of examples."""
    num, of = len(examples.train.image), chosen.training
    batch_size = of.batch_size or kind.batch_size
    while of.batch_size is None and batch_size > max(8, num // 4):
        batch_size //= 2
    if batch_size > num:
        raise UsageError(
            f"--batch-size is {batch_size} but {examples.name} has {num} {kind.noun} to train on: "
            "make it smaller"
        )
    steps = num // batch_size
    filled = dataclasses.replace(
        of,
        batch_size=batch_size,
        epochs=math.ceil(kind.steps / steps) if of.epochs is None else of.epochs,
        patience=math.ceil(kind.patience / steps) if of.patience is None else of.patience,
    )
    run = dataclasses.replace(chosen.run, select=chosen.run.select or "best")
    return dataclasses.replace(chosen, training=filled, run=run)


def train(job: _Job) -> training.Fitted:
    """Trains to the last epoch, or until patience or time ends."""
    of, train, held_out = job.chosen.training, job.examples.train, job.examples.validation
    num = len(train.image)
    steps = num // of.batch_size
    optimizer = job.kind.parts.optimizer(of.learning_rate, of.epochs * steps)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    of_run = keys.of_run(of.seed)

    def fresh(init_words: Any, train_words: Any) -> vae_jax.TrainState:
        init_key, train_key = map(jax.random.wrap_key_data, (init_words, train_words))
        params = job.model.init(init_key, *job.kind.parts.example(job.config))
        return vae_jax.init_state(train_key, params, optimizer)

    words = [np.asarray(jax.random.key_data(of_run[name])) for name in ("init", "train")]
    sharding = vae_jax.state_sharding(jax.eval_shape(fresh, *words), mesh)
    aim = Objective(kl_warmup=round(job.kind.warmup * of.epochs))
    most = max(1, _VALIDATED_VALUES // math.prod(train.image.shape[1:]))
    setup = training.Setup(
        loss=_loss(job, aim, steps),
        optimizer=optimizer,
        data=train,
        sharding=sharding,
        plan=Plan(
            batch_size=of.batch_size,
            epochs=of.epochs,
            mesh=mesh,
            stream=_streamed(job.examples),
            folder=job.output,
            resume=job.chosen.run.resume,
            keep=job.chosen.run.keep,
            checkpoint_seconds=job.chosen.run.checkpoint_seconds,
            keep_best="validation_elbo" if job.chosen.run.select == "best" else None,
            max_minutes=job.chosen.run.max_minutes or math.inf,
        ),
        validate=measure.validation(
            *(job.model, of_run["validation"], *held_out, most), job.buckets(held_out.image)
        ),
        config=job.config,
        continued_by=job.continued_by,
        start=job.start,
        widths=job.widths,
        stop=job.stop,
        replica=job.replica,
    )
    reporters: list[callbacks.Callback] = [
        callbacks.ProgressBar(job.name),
        callbacks.Collapse("validation_elbo"),
    ]
    if of.patience:
        reporters.append(
            callbacks.EarlyStopping("validation_elbo", patience=of.patience, after=aim.kl_warmup)
        )
    state = jax.jit(fresh, out_shardings=sharding)(*words)
    state = selection.begun(of.init_from, restore, state, job.chosen.run, job.output)
    try:
        if not job.chosen.run.tensorboard:
            return training.train(setup, state, reporters)
        with callbacks.tensorboard(job.output / "tensorboard") as reporter:
            return training.train(setup, state, [*reporters, reporter])
    except Diverged as error:
        raise Diverged(f"{error} --learning-rate=...") from None


def conclude(job: _Job, fitted: training.Fitted) -> None:
    """Measures on the test set, touched here, once; numbers first, then pictures."""
    examples, of = job.examples, job.chosen.training
    key, samples = keys.of_run(of.seed)["evaluation"], job.chosen.evaluation.num_importance_samples
    x, label = examples.test
    test = measure.measure(
        *(key, job.model, fitted.params, x, label, samples, "examples"), job.buckets(x)
    )
    if "conditions" in job.config:
        of_model = job.model, fitted.params, x, label
        test["warnings"] += cautions.unused_conditions(keys.of_run(of.seed)["classes"], *of_model)
    results = {
        "dataset": examples.name,
        "source": examples.source,
        "notes": list(examples.notes),
        "data_digest": examples.digest,
        **examples.said,
        "num_train": len(examples.train.image),
        "num_validation": len(examples.validation.image),
        "num_test": len(examples.test.image),
        "seed": of.seed,
        "epochs": len(fitted.rows),
        **selection.described(fitted, job.chosen.run.select),
        **measure.reported(test),
        "compile_seconds": fitted.compile_seconds,
        "train_seconds": math.fsum(row["seconds"] for row in fitted.rows),
        "parameters_sha256": measure.sha256(fitted.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
        "options": kinds.to_json(job.chosen),
    }
    folder.write_json(job.output / "results.json", results)
    print(selection.summary(results))
    print(measure.summary(results, "examples"))
    step = int(fitted.state.step)
    trained = Trained(job.kind, job.model, fitted.params, step, job.chosen, job.config)
    try:
        from vae_jax.run import figures  # here, as matplotlib takes a second

        job.kind.parts.draw(job.output, trained, examples, test["means"])
        figures.curves(job.output / "curves.png", fitted.rows, fitted.row)
    except Exception as error:  # matplotlib's, of every type; the numbers are there
        brief = f"{type(error).__name__}: {error}".partition("\n")[0]
        warnings.warn(f"a picture could not be made ({brief})", RuntimeWarning, stacklevel=2)
    card.write(job.output, job.config, results)
    print(f"pictures and numbers: {job.output}")


def evaluate(run: Path, where: str | None, num_samples: int, seed: int) -> None:
    """Measures a trained run on its test set again; writes evaluation.json."""
    trained = restore(run)
    examples = own(trained, where)
    key = keys.of_run(seed)["evaluate again"]
    x, label = examples.test
    groups = _buckets(
        trained.kind, trained.config, examples, x, trained.options.training.batch_size
    )
    of_run = key, trained.model, trained.params, x, label
    test = measure.measure(*of_run, num_samples, "examples", groups)
    results = {
        "dataset": examples.name,
        "num_test": len(examples.test.image),
        "seed": seed,
        "step": trained.step,
        "conditional": bool(examples.said.get("conditional")),
        "data_digest": examples.digest,
        **measure.reported(test),
        "parameters_sha256": measure.sha256(trained.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    path = folder.beside(run, "evaluation.json")
    folder.write_json(path, results)
    print(measure.summary(results, "examples"))
    print(f"numbers: {path}")
