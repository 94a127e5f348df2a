"""In-painting: one, two or three quadrants of a digit are given, the others are completed.

The setting is that of Sohn et al. 2015, section 5.1, in the protocol of Pyro's tutorial
"Conditional Variational Auto-encoder": the greys as they are, each the target of a Bernoulli, and a
baseline network whose guess goes into the CVAE. The tutorial's negative conditional
log-likelihoods, bounds of 10 draws, are 71.8, 51.0 and 24.2 nats;
docs/pages/conditional.md has those of this one.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from vae_jax import networks, run
from vae_jax.run import command, devices, folder, measure, options
from vae_jax.run.data import Dataset, named
from vae_jax.run.errors import UsageError
from vae_jax.run.job import open_program

PROG = "python -m experiments.quadrants"
_BATCH = 500


@dataclass(frozen=True)
class Options:
    """Completes images of which some quadrants are given, with a CVAE over a baseline network."""

    given: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    """How many quadrants are given; one model for each: the bottom left one, the left half, all
    but the bottom right one."""
    dataset: Literal["auto", "mnist", "fashion_mnist", "binarized_mnist", "digits"] = "auto"
    """auto is MNIST where it can be had within seconds, else scikit-learn's bundled digits."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data."""
    manual_dir: Path | None = None
    """A folder with the original files, for a machine without a network."""
    epochs: int = 20
    """Passes over the training set; the baseline network takes a third as many."""
    batch_size: int = 128
    """Examples a step."""
    learning_rate: float = 1e-3
    """Adam's, at its peak; it falls to 0 by a cosine."""
    latent_dim: int = 50
    """Of z."""
    hidden: tuple[int, ...] = (500, 500)
    """Widths of the hidden layers of every network, as in the tutorial."""
    num_importance_samples: int = 100
    """Draws for each test image's log p(missing | given)."""
    seed: int = 0
    """Of the parameters, the order of the data and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/quadrants-DATASET-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


class Quadrants(NamedTuple):
    """Pixels in [0, 1]: those that are given, [N, G], and those that are missing, [N, M]."""

    given: jax.Array
    missing: jax.Array


def mask(num_given: int, height: int, width: int) -> np.ndarray:
    """Which pixels are given, bool [H, W]."""
    given = np.zeros((height, width), bool)
    given[height // 2 :, : width // 2] = True
    if num_given >= 2:
        given[:, : width // 2] = True
    if num_given == 3:
        given[: height // 2] = True
    return given


def take(images: np.ndarray, given: np.ndarray) -> Quadrants:
    pixels = images.astype(np.float32) / 255
    return Quadrants(jnp.asarray(pixels[:, given, 0]), jnp.asarray(pixels[:, ~given, 0]))


def put(quadrants: Quadrants, given: np.ndarray) -> np.ndarray:
    """The images [N, H, W, 1] again."""
    images = np.zeros((len(quadrants.given), *given.shape, 1), np.float32)
    images[:, given, 0], images[:, ~given, 0] = quadrants
    return images


def fit(
    key: jax.Array,
    loss: Callable[..., Any],
    params: Any,
    train: Any,
    validate: Callable[[Any], jax.Array],
    chosen: Options,
    epochs: int,
    name: str,
) -> Any:
    """The parameters of the epoch that is best on the validation set."""
    steps = epochs * (len(train[0]) // chosen.batch_size)
    plan = run.Plan(batch_size=chosen.batch_size, epochs=epochs, keep_best="validation_bound")
    fitted = run.fit(
        key,
        loss,
        params,
        optax.adam(optax.cosine_decay_schedule(chosen.learning_rate, steps)),
        train,
        plan,
        validate=lambda params: {"bound": validate(params)},
        callbacks=[run.ProgressBar(name)],
    )
    return fitted.params


def fit_baseline(key: jax.Array, train: Quadrants, validation: Quadrants, chosen: Options) -> Any:
    """A network that predicts each missing pixel on its own: given [*b, G] -> Bernoulli [*b, M]."""
    bias = networks.constant_bias(networks.logit(train.missing.mean(axis=0)))
    network = networks.BernoulliDecoder(
        networks.MLP(train.missing.shape[1:], chosen.hidden, activation=nn.silu, bias_init=bias)
    )

    def loss(params: Any, key: jax.Array, batch: Quadrants) -> tuple[jax.Array, None]:
        return -network.apply(params, batch.given).log_prob(batch.missing).mean(), None

    init_key, train_key = jax.random.split(key)
    params = fit(
        train_key,
        loss,
        network.init(init_key, train.given[:1]),
        train,
        jax.jit(lambda params: -loss(params, train_key, validation)[0]),
        chosen,
        -(-chosen.epochs // 3),
        "baseline",
    )
    return jax.jit(lambda given: network.apply(params, given))


def make_model(train: Quadrants, chosen: Options) -> vae_jax.VAE:
    """p(missing | given): the label is the given pixels and the guess at the others, [B, G + M]."""
    num_given, num_missing = train.given.shape[1], train.missing.shape[1]
    condition = networks.FloatCondition((num_given + num_missing,))
    statistics = (2 * chosen.latent_dim,)
    bias = networks.constant_bias(networks.logit(train.missing.mean(axis=0)))
    return vae_jax.make_vae(
        networks.Encoder(
            networks.MLP(statistics, chosen.hidden, activation=nn.silu, condition=condition)
        ),
        networks.BernoulliDecoder(
            networks.MLP(
                (num_missing,),
                chosen.hidden,
                activation=nn.silu,
                bias_init=bias,
                condition=condition,
            )
        ),
        chosen.latent_dim,
        networks.Encoder(networks.MLP(statistics, chosen.hidden, activation=nn.silu)),
    )


def bound(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: jax.Array, c: jax.Array, num: int = 1
) -> vae_jax.Bound:
    """The ELBO of log p(x|c) under num draws, arrays [num, B]."""
    posterior = model.encode(params, x, c)
    z = vae_jax.sample(key, posterior, num)
    return vae_jax.elbo(x, z, posterior, model.prior(params, c), model.decode(params, z, c))


def run_one(num_given: int, dataset: Dataset, chosen: Options, output: Path) -> dict[str, Any]:
    """Trains and measures one model; writes its picture."""
    start = time.perf_counter()
    given = mask(num_given, *dataset.train.images.shape[1:3])
    train, validation, test = (
        take(split.images, given) for split in (dataset.train, dataset.validation, dataset.test)
    )
    key = jax.random.fold_in(jax.random.key(chosen.seed), num_given)
    baseline_key, init_key, train_key, validation_key, test_key, draw_key = jax.random.split(key, 6)
    baseline = fit_baseline(baseline_key, train, validation, chosen)

    def labelled(quadrants: Quadrants) -> vae_jax.Batch:
        condition = jnp.concatenate([quadrants.given, baseline(quadrants.given).mean], axis=-1)
        return vae_jax.Batch(quadrants.missing, condition)

    model = make_model(train, chosen)

    def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, Any]:
        elbo = bound(key, model, params, *batch)
        return -elbo.value.mean(), elbo

    held_out = labelled(validation)
    params = fit(
        train_key,
        loss,
        jax.jit(model.init)(init_key, *jax.tree.map(lambda a: a[:1], held_out)),
        labelled(train),
        jax.jit(lambda params: bound(validation_key, model, params, *held_out).value.mean()),
        chosen,
        chosen.epochs,
        "CVAE",
    )

    # The test set is touched here, once.
    batch = labelled(test)

    @jax.jit
    def test_batch(key: jax.Array, x: jax.Array, c: jax.Array) -> Any:
        elbo_key, weight_key = jax.random.split(key)
        estimate = vae_jax.log_likelihood(
            weight_key,
            x,
            model.encode(params, x, c),
            model.prior(params, c),
            lambda z: model.decode(params, z, c),
            num_samples=chosen.num_importance_samples,
        )
        return bound(elbo_key, model, params, x, c, measure.ELBO_DRAWS).value.mean(axis=0), estimate

    parts = []
    for i, at in enumerate(range(0, len(batch.image), _BATCH)):
        part = jax.tree.map(lambda a, at=at: a[at : at + _BATCH], batch)
        parts.append(jax.device_get(test_batch(jax.random.fold_in(test_key, i), *part)))
    elbo, estimate = jax.tree.map(lambda *p: np.concatenate(p), *parts)
    predicted = np.asarray(baseline(test.given).log_prob(test.missing))
    draw_completions(output, draw_key, model, params, baseline, test, labelled, given, num_given)
    num_test = len(elbo)
    return {
        "given": num_given,
        "baseline_log_likelihood": float(predicted.mean()),
        "baseline_log_likelihood_standard_error": float(predicted.std(ddof=1) / num_test**0.5),
        "elbo": float(elbo.mean()),
        "elbo_standard_error": float(elbo.std(ddof=1) / num_test**0.5),
        "log_likelihood": float(estimate.value.mean()),
        "log_likelihood_standard_error": float(estimate.value.std(ddof=1) / num_test**0.5),
        "seconds": time.perf_counter() - start,
        "parameters_sha256": measure.sha256(params),
    }


def draw_completions(
    output: Path,
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    baseline: Any,
    test: Quadrants,
    labelled: Callable[[Quadrants], vae_jax.Batch],
    given: np.ndarray,
    num_given: int,
) -> None:
    """Writes completions_N.png: in a column, what is given, the truth, the baseline, six draws."""
    from vae_jax.run import figures

    first = jax.tree.map(lambda a: a[:16], test)
    draws = vae_jax.generate(key, model, params, 6, labelled(first).label).mean
    missing = [
        jnp.full_like(first.missing, 0.5),
        first.missing,
        baseline(first.given).mean,
        *draws,
    ]
    rows = [put(Quadrants(first.given, pixels), given) for pixels in missing]
    picture = figures.grid(np.concatenate(rows), len(first.given))
    folder.save_picture(picture, output / f"completions_{num_given}.png")


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    options.check_at_least(
        1, epochs=chosen.epochs, batch_size=chosen.batch_size, latent_dim=chosen.latent_dim
    )
    options.check_at_least(2, num_importance_samples=chosen.num_importance_samples)
    if not chosen.given or len(set(chosen.given)) < len(chosen.given):
        raise UsageError(f"--given is {chosen.given}: give 1, 2, 3 or several of them")
    if not chosen.hidden or min(chosen.hidden) < 1:
        raise UsageError(f"--hidden is {chosen.hidden}: give one positive width or more")
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    check(chosen)
    folder.check_writable(chosen.output)
    devices.use_accelerator(chosen.accelerator)
    devices.use_compilation_cache()
    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    if chosen.batch_size > len(dataset.train.images):
        raise UsageError(
            f"--batch-size is {chosen.batch_size} but {dataset.name} has "
            f"{len(dataset.train.images)} training examples: make it smaller"
        )
    output, plain = open_program(chosen, "quadrants", dataset)
    print("negative conditional log-likelihood, nats\n given  baseline      CVAE, bound   CVAE")
    rows = []
    for num_given in chosen.given:
        row = run_one(num_given, dataset, chosen, output)
        rows.append(row)
        print(
            f"{num_given:6d}{-row['baseline_log_likelihood']:10.2f}{-row['elbo']:17.2f}"
            f"{-row['log_likelihood']:7.2f}"
        )
    results = {
        "dataset": dataset.name,
        "source": dataset.source,
        "notice": dataset.notice,
        "num_train": len(dataset.train.images),
        "num_validation": len(dataset.validation.images),
        "num_test": len(dataset.test.images),
        "protocol": "log p(missing | given) in nats, summed over the missing pixels; the greys "
        "are the targets of a Bernoulli (cross-entropy), not binarised; elbo of "
        f"{measure.ELBO_DRAWS} draws, log_likelihood of num_importance_samples; standard errors "
        "over the test images",
        "num_importance_samples": chosen.num_importance_samples,
        "quadrants": rows,
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
        "options": plain,
    }
    folder.write_json(output / "results.json", results)
    print(f"pictures and numbers: {output}")


if __name__ == "__main__":
    command.run(main)
