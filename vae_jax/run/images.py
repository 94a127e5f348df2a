"""A VAE on images, from options to numbers and pictures: what `vae-jax mnist` and `train` do.

A run is prepared, begun, said, trained and concluded: see `several.Road`.
"""

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import (
    callbacks,
    card,
    cautions,
    conditional,
    data,
    defaults,
    devices,
    extras,
    folder,
    measure,
    objective,
    options,
    processes,
    restore,
    selection,
    training,
)
from vae_jax.run.data.dataset import Dataset, spread
from vae_jax.run.errors import Diverged
from vae_jax.run.job import Job, open_job, streamed
from vae_jax.run.model import make_optimizer, num_levels
from vae_jax.run.plan import Plan


class Prepared(NamedTuple):
    """A run before its folder is opened: complete options, the images, the devices."""

    chosen: options.Options
    dataset: Dataset
    mesh: jax.sharding.Mesh
    of_data: dict[str, Any]
    start: float


def prepare(chosen: options.Options, loaded: dict[Any, Any]) -> Prepared:
    """Checks what can be known before a run begins, and reads its data.

    Args:
      chosen: the options.
      loaded: the data of other runs, by what was asked for; these are put there too.

    Raises:
      UsageError, DataError, RunError: in one line.
    """
    start = time.perf_counter()
    folder.check_writable(chosen.run.output)
    if chosen.training.init_from is not None and not chosen.run.resume:
        folder.read_config(chosen.training.init_from)
    extras.check("matplotlib", "PIL", *(["tensorboardX"] if chosen.run.tensorboard else []))
    of = chosen.devices
    processes.join_processes(of.coordinator, of.num_processes, of.process_id)
    found = devices.use_accelerator(chosen.run.accelerator)
    devices.use_compilation_cache()
    mesh = devices.make_mesh(found, chosen)
    asked = chosen.data, of.stream
    if asked in loaded:
        dataset = loaded[asked]
    elif chosen.run.resume and chosen.run.output is not None:
        stored = folder.read_config(chosen.run.output)
        dataset = data.load_of_run(stored, chosen.data, stream=of.stream)
    else:
        dataset = data.load(chosen.data, stream=of.stream)
    loaded[asked] = dataset
    if chosen.model.conditional:
        dataset = conditional.labelled(dataset)
    if streamed(chosen, dataset):
        extras.check("grain")
    complete = defaults.settled(chosen, dataset, mesh)
    of_data = defaults.described(chosen, complete, dataset)
    return Prepared(complete, dataset, mesh, of_data, start)


def begin(prepared: Prepared, prog: str) -> Job:
    """Opens the run's folder."""
    chosen, dataset, mesh, of_data, start = prepared
    return open_job(chosen, dataset, mesh, prog, start, of_data)


def train(job: Job) -> training.Fitted:
    """Trains to the last epoch, or until patience or time ends.

    Raises:
      Interrupted: SIGINT or SIGTERM came; the state is saved.
      Diverged: a loss was not finite, or the validation ELBO collapsed; the last good checkpoint
        stays.
    """
    chosen, of, saved = job.chosen.training, job.chosen.devices, job.chosen.run
    assert chosen.epochs is not None
    assert chosen.batch_size is not None
    steps = len(job.dataset.train.images) // chosen.batch_size
    optimizer = make_optimizer(chosen, chosen.epochs * steps)
    state, sharding = _fresh(job, optimizer)
    model = job.model
    if of.remat:
        model = model._replace(decode=jax.checkpoint(model.decode))
    setup = training.Setup(
        loss=objective.make_loss(
            job.chosen.objective,
            model,
            job.observe,
            steps,
            len(job.dataset.train.images),
            optimal_scale=job.likelihood == "sigma_vae",
        ),
        optimizer=optimizer,
        data=job.batch("train"),
        sharding=sharding,
        plan=Plan(
            batch_size=chosen.batch_size,
            epochs=chosen.epochs,
            accumulate=chosen.accumulate,
            average_decay=chosen.average_decay,
            mesh=job.mesh,
            stream=job.stream,
            num_workers=of.workers,
            folder=job.output,
            resume=saved.resume,
            keep=saved.keep,
            checkpoint_seconds=saved.checkpoint_seconds,
            keep_best="validation_elbo" if saved.select == "best" else None,
            max_minutes=saved.max_minutes or math.inf,
        ),
        validate=_validation(job),
        config=job.config,
        continued_by=job.continued_by,
        start=job.start,
        stop=job.stop,
        replica=job.replica,
    )
    with _reporters(job) as reporters:
        try:
            return training.train(setup, state, reporters)
        except Diverged as error:
            raise Diverged(f"{error} --learning-rate=... --clip-norm=...") from None


def _fresh(
    job: Job, optimizer: optax.GradientTransformation
) -> tuple[vae_jax.TrainState, vae_jax.TrainState]:
    """The state before the first step, made where it lives, and its sharding."""

    def fresh(init_words: Any, train_words: Any) -> vae_jax.TrainState:
        # The words of keys: a typed key cannot be given to many processes.
        init_key, train_key = map(jax.random.wrap_key_data, (init_words, train_words))
        label = job.labels("train")
        first_label = None if label is None else jnp.zeros_like(label[:1])
        params = job.model.init(init_key, job.example(), first_label)
        average = job.chosen.training.average_decay > 0
        return vae_jax.init_state(train_key, params, optimizer, average=average)

    words = [np.asarray(jax.random.key_data(job.keys[name])) for name in ("init", "train")]
    sharding = vae_jax.state_sharding(
        jax.eval_shape(fresh, *words),
        job.mesh,
        shard_parameters=job.chosen.devices.shard_parameters,
    )
    state: vae_jax.TrainState = jax.jit(fresh, out_shardings=sharding)(*words)
    chosen = job.chosen
    state = selection.begun(
        chosen.training.init_from, restore.restore, state, chosen.run, job.output
    )
    return state, sharding


def _validation(job: Job) -> training.Validate:
    """The bound of the validation set."""
    x = measure.observed(job.observe, job.dataset.validation.images, "validation")
    most = max(1, _VALIDATED_PIXELS // math.prod(job.image_shape))
    label = job.labels("validation")
    return measure.validation(job.model, job.keys["validation"], x, label, most)


# Of one batch of the validation set: an image's activations are some hundred times its pixels.
_VALIDATED_PIXELS = 2**23


@contextlib.contextmanager
def _reporters(job: Job) -> Iterator[list[callbacks.Callback]]:
    """Those of the first process; a bar that shows nothing in the others."""
    leader = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        found: list[callbacks.Callback] = [callbacks.ProgressBar(job.name, disable=not leader)]
        if leader:
            found.append(callbacks.AtStart(lambda _: _settle_config(job)))
        if leader and job.chosen.run.tensorboard:
            found.append(stack.enter_context(callbacks.tensorboard(job.output / "tensorboard")))
        found.append(callbacks.Collapse("validation_elbo"))
        if patience := job.chosen.training.patience:
            found.append(
                callbacks.EarlyStopping(
                    "validation_elbo", patience=patience, after=job.chosen.objective.kl_warmup
                )
            )
        yield found


def _settle_config(job: Job) -> None:
    """Writes config.json anew, once a resumed run is known to be able to go on."""
    folder.write_json(job.output / "config.json", job.config)


def conclude(job: Job, fitted: training.Fitted) -> None:
    """Measures on the test set, touched here, once; numbers first, then pictures."""
    if jax.process_index() > 0:
        return
    test_x = measure.observed(job.observe, job.dataset.test.images, "test")
    label = job.labels("test")
    test_label = None if label is None else jnp.asarray(label)
    params = fitted.params
    test = measure.measure(
        job.keys["evaluation"],
        job.model,
        params,
        test_x,
        test_label,
        job.chosen.evaluation.num_importance_samples,
    )
    levels = num_levels(job.likelihood)
    test = measure.compared(test, job.config, job.dataset.test.images, levels)
    of_classes: dict[str, Any] = {}
    if job.chosen.model.conditional:
        of_classes = conditional.measure(
            job.keys["classes"],
            job.model,
            params,
            test_x,
            job.dataset,
            test["estimate"],
            job.chosen.evaluation.num_class_samples,
        )
        test["warnings"] += conditional.unused_label(of_classes)
    elif test_label is not None:
        test["warnings"] += cautions.unused_conditions(
            job.keys["classes"], job.model, params, test_x, test_label
        )
    results = {
        **_described(job),
        **selection.described(fitted, job.chosen.run.select),
        **measure.reported(test),
        **of_classes,
        **_timed(job, fitted),
        "parameters_sha256": measure.sha256(params),
        "options": options.to_json(job.chosen),
    }
    folder.write_json(job.output / "results.json", results)
    print(selection.summary(results))
    print(measure.summary(results) + (conditional.summary(results) if of_classes else ""))
    try:
        _draw(job, fitted, test_x, test_label, test["means"])
    except Exception as error:  # matplotlib's and Pillow's, of every type; the numbers are there
        brief = f"{type(error).__name__}: {error}".partition("\n")[0]
        warnings.warn(f"a picture could not be made ({brief})", RuntimeWarning, stacklevel=2)
    card.write(job.output, job.config, results)
    print(f"pictures and numbers: {job.output}")


def _described(job: Job) -> dict[str, Any]:
    """The fields of results.json that say what was run."""
    binarization = job.config["binarization"]
    return {
        "dataset": job.dataset.name,
        "source": job.dataset.source,
        "notice": job.dataset.notice,
        "notes": list(job.dataset.notes),
        "classes": list(job.dataset.names),
        "data_digest": job.dataset.digest,
        "binarization": binarization,
        "likelihood": job.likelihood,
        "num_train": len(job.dataset.train.images),
        "num_validation": len(job.dataset.validation.images),
        "num_test": len(job.dataset.test.images),
        "seed": job.chosen.training.seed,
        "epochs": job.chosen.training.epochs,
        "network": job.chosen.model.network,
        "posterior": job.chosen.model.posterior,
        "prior": job.prior,
        "latent_dim": job.chosen.model.latent_dim,
        "conditional": job.conditional,
        "conditions": {column.name: column.kind for column in job.dataset.conditions},
        "defaults": job.config.get("defaults"),
        **dataclasses.asdict(job.chosen.objective),
    }


def _timed(job: Job, fitted: training.Fitted) -> dict[str, Any]:
    """The fields of results.json that say how long it took, and on what."""
    seconds = math.fsum(row["seconds"] for row in fitted.rows)
    examples = math.fsum(row["examples_per_second"] * row["seconds"] for row in fitted.rows)
    return {
        "compile_seconds": fitted.compile_seconds,
        "train_seconds": seconds,
        "total_seconds": fitted.seconds_before + time.perf_counter() - job.start,
        "examples_per_second": examples / seconds,
        "device": jax.devices()[0].device_kind,
        "num_devices": job.mesh.size,
        "num_processes": jax.process_count(),
        "versions": measure.versions(),
    }


def _draw(
    job: Job,
    fitted: training.Fitted,
    test_x: jax.Array,
    test_label: jax.Array | None,
    means: np.ndarray,
) -> None:
    """Writes the run's pictures."""
    from vae_jax.run import figures, pictures  # here, as matplotlib takes a second

    picture_key, params = job.keys["pictures"], fitted.params
    num_classes = job.dataset.num_classes
    if test_label is not None and job.chosen.model.conditional:
        picture_key, class_key = jax.random.split(picture_key)
        drawn = pictures.of_classes(class_key, job.model, params, test_x, test_label, num_classes)
        for name, picture in drawn.items():
            picture.save(job.output / name)
    shown = batched.take((test_x, test_label), spread(len(test_x), 64))
    drawn = pictures.of_images(picture_key, job.model, params, *shown)
    for name, picture in drawn.items():
        picture.save(job.output / name)
    manifold = None
    if means.shape[1] == 2 and test_label is None and job.prior == "standard":
        manifold = pictures.decoded_plane(job.model, params)
    labels = job.dataset.test.labels if num_classes else None
    figures.latent(job.output / "latent.png", means, labels, job.dataset.names, manifold)
    figures.curves(job.output / "curves.png", fitted.rows, fitted.row)
