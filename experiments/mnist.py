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

import vae_jax
from experiments import command, conditional, data, folder, measure, options, training
from experiments.model import make_loss, make_model, mean_pixel, observe

PROG = "python -m experiments.mnist"


def main() -> None:
    arguments = sys.argv[1:]
    stored = None
    if "--resume" in arguments:
        # What is not said again is as it was: the stored options are the defaults.
        output = command.option_value(arguments, "--output")
        if output is not None:
            stored = folder.read_options(Path(output))
    chosen = command.parse(options.Options, prog=PROG, default=stored)
    options.check(chosen)
    if stored is not None:
        options.check_resumed(chosen, stored)
    run(chosen)


def run(chosen: options.Options) -> None:
    start = time.perf_counter()
    folder.check_writable(chosen.run.output)
    if chosen.run.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise command.RunError(
            'no tensorboardX for --tensorboard: pip install -e ".[tensorboard]", or leave it out'
        )
    command.use_accelerator(chosen.run.accelerator)
    command.use_compilation_cache()
    dataset = data.load(
        chosen.data.dataset, data_dir=chosen.data.data_dir, manual_dir=chosen.data.manual_dir
    )
    if chosen.model.conditional:
        dataset = conditional.labelled(dataset)
    num_train = len(dataset.train.images)
    if chosen.training.batch_size > num_train:
        raise options.UsageError(
            f"--batch-size is {chosen.training.batch_size} but {dataset.name} has {num_train} "
            "training examples: make it smaller"
        )
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
    train_and_measure(chosen, dataset, start)


def train_and_measure(chosen: options.Options, dataset: data.Dataset, start: float) -> None:
    binarization = "static" if dataset.name == "binarized_mnist" else chosen.data.binarization
    output = chosen.run.output
    if not chosen.run.resume:
        name = f"{dataset.name}-instead-of-mnist" if dataset.notice else dataset.name
        output = folder.create(output, name, overwrite=chosen.run.overwrite)
    assert output is not None
    image_shape = dataset.train.images.shape[1:]
    config = {
        "options": options.to_json(chosen),
        "dataset": dataset.name,
        "notice": dataset.notice,
        "binarization": binarization,
        "image_shape": list(image_shape),
        "num_classes": dataset.num_classes,
    }
    folder.write_json(output / "config.json", config)
    if dataset.notice:
        print(f"\n*** {dataset.notice} ***\n")
    sizes = "{:,} training, {:,} validation, {:,} test images".format(
        *(len(split.images) for split in (dataset.train, dataset.validation, dataset.test))
    )
    print(f"{dataset.name}: {sizes}, {dataset.source}; binarization: {binarization}")
    print(f"results: {output}   device: {jax.devices()[0].device_kind}")

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
        jnp.asarray(split.labels) if chosen.model.conditional else None
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    key = jax.random.key(chosen.training.seed)
    init_key, train_key, evaluate_key, picture_key = jax.random.split(key, 4)
    first_label = None if train_label is None else train_label[:1]
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *image_shape)), first_label)
    calls, steps = training.split_epoch(len(dataset.train.images), chosen.training.batch_size)
    optimizer = training.make_optimizer(chosen.training, chosen.training.epochs * calls * steps)
    state = vae_jax.init_state(
        train_key, params, optimizer, average=chosen.training.average_decay > 0
    )
    loss = make_loss(model, see)
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

    with logging_to(output / "tensorboard" if chosen.run.tensorboard else None) as log:
        trained = training.train(
            state,
            loss,
            optimizer,
            vae_jax.Batch(jnp.asarray(dataset.train.images), train_label),
            validate,
            chosen.training,
            config,
            output,
            resume=chosen.run.resume,
            keep=chosen.run.keep,
            checkpoint_seconds=chosen.run.checkpoint_seconds,
            continue_command=f"{PROG} --output={output} --resume",
            on_epoch=log,
        )
    params = training.evaluation_params(trained.state)

    # The test set is touched here, once.
    test_x = measure.observed(see, dataset.test.images, "test")
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
        "total_seconds": time.perf_counter() - start,
        "examples_per_second": sum(r["examples_per_second"] * r["seconds"] for r in trained.rows)
        / train_seconds,
        "device": jax.devices()[0].device_kind,
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
