"""A VAE on MNIST (or Fashion-MNIST, binarized MNIST, scikit-learn's digits), from data to results.

Expected, with the defaults on MNIST: test ELBO about -93.3 nats, test log p(x) about -89.4 with 500
importance samples; see README.md.
"""

import contextlib
import dataclasses
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import vae_jax
from experiments import command, conditional, data, folder, measure, options, own, training
from experiments.model import make_loss, make_model, mean_pixel, observe


def main(
    kind: type[options.Options] = options.Options, prog: str = "python -m experiments.mnist"
) -> None:
    arguments = sys.argv[1:]
    stored = None
    if "--resume" in arguments:
        # What is not said again is as it was: the stored options are the defaults.
        output = command.option_value(arguments, "--output")
        if output is not None:
            stored = folder.read_options(Path(output))
            kind = type(stored)
    chosen = command.parse(kind, prog=prog, default=stored)
    options.check(chosen)
    if stored is not None:
        options.check_resumed(chosen, stored)
    run(chosen, prog)


def run(chosen: options.Options, prog: str) -> None:
    start = time.perf_counter()
    folder.check_writable(chosen.run.output)
    if chosen.run.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise command.RunError(
            'no tensorboardX for --tensorboard: pip install -e ".[tensorboard]", or leave it out'
        )
    of = chosen.devices
    command.join_processes(of.coordinator, of.num_processes, of.process_id)
    devices = command.use_accelerator(chosen.run.accelerator)
    command.use_compilation_cache()
    mesh = make_mesh(devices, chosen)
    dataset = own.load(chosen.data, stream=of.stream)
    if chosen.model.conditional:
        dataset = conditional.labelled(dataset)
    num_train = len(dataset.train.images)
    if chosen.training.batch_size > num_train:
        raise options.UsageError(
            f"--batch-size is {chosen.training.batch_size} but {dataset.name} has {num_train} "
            "training examples: make it smaller"
        )
    if isinstance(chosen.data, options.Data):
        # The run is of the data set that was found: a resume must not find another one.
        chosen = dataclasses.replace(
            chosen, data=dataclasses.replace(chosen.data, dataset=dataset.name)
        )
    if chosen.run.resume and chosen.run.output is not None:
        dataset = dataset._replace(notice=folder.read_config(chosen.run.output)["notice"])
    if chosen.training.epochs is None:
        epochs = 200 if dataset.name == "digits" else 18
        chosen = dataclasses.replace(
            chosen, training=dataclasses.replace(chosen.training, epochs=epochs)
        )
    train_and_measure(chosen, dataset, mesh, start, prog)


def make_mesh(devices: list[Any], chosen: options.Options) -> jax.sharding.Mesh:
    """The devices that share a batch, as a mesh with an axis `data`.

    Raises:
      UsageError: there are not so many, or they cannot share it evenly.
    """
    num, training = chosen.devices.num_devices or len(devices), chosen.training
    if num > len(devices):
        raise options.UsageError(
            f"--num-devices is {num} but JAX finds {len(devices)}: give as many at most (a CPU is "
            f"{num} with XLA_FLAGS=--xla_force_host_platform_device_count={num})"
        )
    if jax.process_count() > 1 and num < len(devices):
        raise options.UsageError(
            f"--num-devices is {num} but the processes have {len(devices)}: leave it out, as each "
            "of them trains on all its devices"
        )
    if training.batch_size % (num * training.accumulate):
        raise options.UsageError(
            f"--batch-size is {training.batch_size}: it must be a multiple of the {num} devices "
            f"times --accumulate, {num * training.accumulate}"
        )
    return jax.make_mesh((num,), ("data",), (jax.sharding.AxisType.Auto,), devices=devices[:num])


def train_and_measure(
    chosen: options.Options,
    dataset: data.Dataset,
    mesh: jax.sharding.Mesh,
    start: float,
    prog: str,
) -> None:
    binarization = "static" if dataset.name == "binarized_mnist" else chosen.data.binarization
    image_shape = dataset.train.images.shape[1:]
    output = chosen.run.output
    leader = jax.process_index() == 0
    if leader and chosen.run.resume and output is not None:
        folder.lock(output)
    elif leader:
        name = f"{dataset.name}-instead-of-mnist" if dataset.notice else dataset.name
        output = folder.create(output, name, overwrite=chosen.run.overwrite)
    assert output is not None
    config = {
        "options": options.to_json(chosen),
        "dataset": dataset.name,
        "notice": dataset.notice,
        "binarization": binarization,
        "image_shape": list(image_shape),
        "num_classes": dataset.num_classes,
    }
    if leader:
        folder.write_json(output / "config.json", config)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the folder is made")
    if dataset.notice:
        print(f"\n*** {dataset.notice} ***\n")
    sizes = "{:,} training, {:,} validation, {:,} test images".format(
        *(len(split.images) for split in (dataset.train, dataset.validation, dataset.test))
    )
    num_bytes = np.prod(dataset.train.images.shape, dtype=np.int64)
    stream = chosen.devices.stream or jax.process_count() > 1 or num_bytes > own.STREAM_BYTES
    print(f"{dataset.name}: {sizes}, {dataset.source}; binarization: {binarization}")
    print(
        f"results: {output}   device: {f'{mesh.size} ' if mesh.size > 1 else ''}"
        f"{jax.devices()[0].device_kind}{', data streamed' if stream else ''}"
    )

    see = observe(binarization)
    model = make_model(
        chosen.model,
        image_shape,
        binarization,
        mean_pixel(dataset.train.images, binarization),
        dataset.num_classes,
    )
    # The label of each image, for a model that is conditional on it.
    train_label, validation_label, test_label = (
        split.labels if chosen.model.conditional else None
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    key = jax.random.key(chosen.training.seed)
    init_key, train_key, evaluate_key, picture_key = jax.random.split(key, 4)
    steps = len(dataset.train.images) // chosen.training.batch_size
    optimizer = training.make_optimizer(chosen.training, chosen.training.epochs * steps)

    def fresh(init_words: Any, train_words: Any) -> vae_jax.TrainState:
        # The words of keys: a typed key cannot be given to many processes.
        init_key, train_key = map(jax.random.wrap_key_data, (init_words, train_words))
        first_label = None if train_label is None else jnp.zeros(1, jnp.int32)
        params = model.init(init_key, jnp.zeros((1, *image_shape)), first_label)
        average = chosen.training.average_decay > 0
        return vae_jax.init_state(train_key, params, optimizer, average=average)

    words = [np.asarray(jax.random.key_data(key)) for key in (init_key, train_key)]
    sharding = vae_jax.state_sharding(
        jax.eval_shape(fresh, *words), mesh, shard_parameters=chosen.devices.shard_parameters
    )
    state = jax.jit(fresh, out_shardings=sharding)(*words)
    trained_model = model
    if chosen.devices.remat:
        trained_model = model._replace(decode=jax.checkpoint(model.decode))
    loss = make_loss(trained_model, see)
    validation_x = measure.observed(see, dataset.validation.images, "validation")
    validation_key = jax.random.fold_in(evaluate_key, 0)

    @jax.jit
    def validate(params: Any) -> vae_jax.Bound:
        posterior = model.encode(params, validation_x, validation_label)
        z = vae_jax.sample(validation_key, posterior)
        prior = model.prior(params, validation_label)
        likelihood = model.decode(params, z, validation_label)
        bound = vae_jax.elbo(validation_x, z, posterior, prior, likelihood)
        return jax.tree.map(jnp.mean, bound)

    with logging_to(output / "tensorboard" if chosen.run.tensorboard and leader else None) as log:
        trained = training.train(
            state,
            sharding,
            loss,
            optimizer,
            dataset.train.images,
            train_label,
            validate,
            chosen.training,
            config,
            output,
            start=start,
            stream=stream,
            num_workers=chosen.devices.workers,
            resume=chosen.run.resume,
            keep=chosen.run.keep,
            checkpoint_seconds=chosen.run.checkpoint_seconds,
            continue_command=f"{prog} --output={output} --resume",
            on_epoch=log,
        )
    if not leader:
        return
    params = training.evaluation_params(trained.state)

    # The test set is touched here, once.
    test_x = measure.observed(see, dataset.test.images, "test")
    if test_label is not None:
        test_label = jnp.asarray(test_label)
    test = measure.measure(
        jax.random.fold_in(evaluate_key, 1),
        model,
        params,
        test_x,
        test_label,
        chosen.evaluation.num_importance_samples,
    )
    of_classes: dict[str, Any] = {}
    if test_label is not None:
        of_classes = conditional.measure(
            jax.random.fold_in(evaluate_key, 2),
            model,
            params,
            test_x,
            dataset,
            test["estimate"],
            chosen.evaluation.num_class_samples,
        )
        picture_key, class_key = jax.random.split(picture_key)
        draw_classes(output, class_key, model, params, test_x, test_label, dataset.num_classes)
    draw_pictures(
        output,
        picture_key,
        model,
        params,
        test_x,
        test_label,
        dataset,
        test["means"],
        trained.rows,
    )
    train_seconds = sum(row["seconds"] for row in trained.rows)
    results = {
        "dataset": dataset.name,
        "source": dataset.source,
        "notice": dataset.notice,
        "binarization": binarization,
        "likelihood": "normal" if binarization == "none" else "bernoulli",
        "num_train": len(dataset.train.images),
        "num_validation": len(dataset.validation.images),
        "num_test": len(test_x),
        "seed": chosen.training.seed,
        "epochs": chosen.training.epochs,
        "latent_dim": chosen.model.latent_dim,
        "conditional": chosen.model.conditional,
        **measure.reported(test),
        **of_classes,
        "compile_seconds": trained.compile_seconds,
        "train_seconds": train_seconds,
        "total_seconds": trained.seconds_before + time.perf_counter() - start,
        "examples_per_second": sum(r["examples_per_second"] * r["seconds"] for r in trained.rows)
        / train_seconds,
        "device": jax.devices()[0].device_kind,
        "num_devices": mesh.size,
        "num_processes": jax.process_count(),
        "versions": measure.versions(),
        "parameters_sha256": measure.sha256(params),
        "options": options.to_json(chosen),
    }
    folder.write_json(output / "results.json", results)
    print(measure.summary(results) + (conditional.summary(results) if of_classes else ""))
    print(f"pictures and numbers: {output}")


def draw_pictures(
    output: Path,
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    test_x: jax.Array,
    test_label: jax.Array | None,
    dataset: data.Dataset,
    means: np.ndarray,
    rows: list[dict[str, Any]],
) -> None:
    """Writes reconstructions.png, samples.png, latent.png and curves.png."""
    from experiments import figures

    first = test_x[:64]
    label = None if test_label is None else test_label[:64]
    likelihood = vae_jax.reconstruct(model, params, first, label)
    figures.reconstructions(first, likelihood.mean).save(output / "reconstructions.png")
    # With labels, one image for each of the first test labels.
    samples = vae_jax.generate(key, model, params, 64 if label is None else (), label)
    figures.grid(samples.mean, 8).save(output / "samples.png")
    manifold = None
    if means.shape[1] == 2 and label is None:
        # The cell (i, j) of the plane is decoded at the prior's quantiles: equal prior mass each.
        quantiles = jax.scipy.special.ndtri((jnp.arange(20) + 0.5) / 20)
        z = jnp.stack(jnp.meshgrid(quantiles, -quantiles), axis=-1).reshape(-1, 2)
        manifold = figures.grid(model.decode(params, z).mean, 20)
    labels = dataset.test.labels if dataset.num_classes else None
    figures.latent(output / "latent.png", means, labels, manifold)
    figures.curves(output / "curves.png", rows)


def draw_classes(
    output: Path,
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    test_x: jax.Array,
    test_label: jax.Array,
    num_classes: int,
) -> None:
    """Writes samples_by_class.png and style_transfer.png."""
    from experiments import figures

    samples = conditional.by_class(key, model, params, num_classes, 16)
    figures.grid(samples, 16).save(output / "samples_by_class.png")
    # The first test image of each class.
    first = np.unique(test_label, return_index=True)[1]
    pictures = conditional.transferred(model, params, test_x[first], test_label[first], num_classes)
    figures.grid(pictures, 1 + num_classes).save(output / "style_transfer.png")


@contextlib.contextmanager
def logging_to(folder: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes a row of metrics as TensorBoard events; one that does nothing."""
    if folder is None:
        yield lambda row: None
        return
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def log(row: dict[str, Any]) -> None:
            for name, value in row.items():
                writer.add_scalar(name.replace("_", "/", 1), value, row["step"])

        yield log


if __name__ == "__main__":
    command.run(main)
