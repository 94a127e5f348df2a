"""VQ-VAE (van den Oord et al. 2017): images as a grid of codes, and how many of the codes are used.

    python -m experiments.papers.oord2017 --budget=10m

Codes that are moving averages of what they stand for (their appendix A.1), `revived` where they
stand for nothing, or left as they are (`plain`); and finite scalars, which have no codebook to
collapse (Mentzer et al. 2024). No number of the paper's stands beside these, which is of CIFAR-10
by a PixelCNN over the codes; the aim is a use above 90 %. What is reached stands on the page.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.papers import table, training
from experiments.papers.training import Length
from vae_jax import networks, quantization
from vae_jax.run import command, figures, keys, options
from vae_jax.run.data import named
from vae_jax.run.errors import UsageError
from vae_jax.run.job import open_program

PROG = "python -m experiments.papers.oord2017"
PROTOCOL = (
    "share of the codes that occur in the test images, binarised once, and their perplexity; "
    "minus the ELBO in nats of the same, under a uniform prior of the codes, and under one of each "
    "place's frequencies in the training images"
)
Params = Any


@dataclass(frozen=True)
class Options:
    """Trains vector-quantised autoencoders, and measures the use of their codes."""

    cells: tuple[Literal["revived", "plain", "finite"], ...] = ("revived", "plain", "finite")
    """Those that are trained."""
    num_codes: int = 512
    """Of a codebook."""
    budget: str = "10m"
    """Of training for each cell: seconds (90s), minutes or hours (2h)."""
    steps: int | None = None
    """Of each cell, in place of a budget: the same numbers again wherever it runs."""
    seed: int = 0
    """Of the parameters and all noise."""
    batch_size: int = 100
    """Images a step."""
    learning_rate: float = 1e-2
    """Muon's, for the first half of the steps; from there it falls to zero along a line. All but
    the weights of dense layers take a fifth of it, by Adam."""
    num_test: int | None = None
    """Test images that are measured; all when not given."""
    dataset: Literal["mnist", "fashion_mnist", "digits"] = "mnist"
    """Binarised anew at every step. digits are scikit-learn's, without a download."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data."""
    manual_dir: Path | None = None
    """A folder with the original files, for a machine without a network."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/oord2017-DATASET-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


class Encoder(nn.Module):
    """[B, H, W, 1] -> [B, H / 4, W / 4, size]."""

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels in (32, 64):
            x = nn.silu(networks.StridedConv(channels)(x))
        x = x + nn.Dense(64)(nn.silu(networks.Conv(64)(x)))
        return nn.Dense(self.size)(x)


class Decoder(nn.Module):
    """[B, h, w, D] -> p(x|z) of x [B, 4 h, 4 w, 1]."""

    @nn.compact
    def __call__(self, z: jax.Array) -> vae_jax.Bernoulli:
        z = nn.Dense(64)(z)
        z = z + nn.Dense(64)(nn.silu(networks.Conv(64)(nn.silu(z))))
        z = networks.TransposedConv(32)(nn.silu(z))
        return vae_jax.Bernoulli(networks.TransposedConv(1)(nn.silu(z)), event_ndims=3)


class Model(NamedTuple):
    """An autoencoder with codes between.

    Attributes:
      num_codes: K.
      init: (key, x) -> params.
      codes: (params, x) -> int [B, h, w], and p(x|z) of what they stand for.
      loss: (params, key, bytes, step) -> (what is minimised, figures).
    """

    num_codes: int
    init: Callable[..., Params]
    codes: Callable[..., tuple[jax.Array, Any]]
    loss: Callable[..., Any]


def with_codebook(num_codes: int, revive_below: float, size: int = 16) -> Model:
    encoder, decoder = Encoder(size), Decoder()

    def init(key: jax.Array, x: jax.Array) -> Params:
        encoder_key, decoder_key, book_key = jax.random.split(key, 3)
        phi = encoder.init(encoder_key, x)
        z = encoder.apply(phi, x)
        book = quantization.init_codebook(book_key, z, num_codes)
        return {"encoder": phi, "decoder": decoder.init(decoder_key, z), "codebook": book}

    def quantized(params: Params, x: jax.Array) -> tuple[Any, Any, Any]:
        z = encoder.apply(params["encoder"], x)
        nearest = quantization.quantize(z, jax.lax.stop_gradient(params["codebook"].codes))
        return z, nearest, decoder.apply(params["decoder"], nearest.value)

    def codes(params: Params, x: jax.Array) -> tuple[jax.Array, Any]:
        _, nearest, likelihood = quantized(params, x)
        return nearest.index, likelihood

    def loss(params: Params, key: jax.Array, images: jax.Array, step: Any = None) -> Any:
        observe_key, book_key = jax.random.split(key)
        x = vae_jax.binarize(observe_key, images)
        z, nearest, likelihood = quantized(params, x)
        log_prob, commitment = likelihood.log_prob(x), nearest.commitment.sum(axis=(1, 2))
        book = params["codebook"]
        held = jax.lax.stop_gradient(book)
        moved = quantization.update_codebook(
            book_key, held, z, nearest.index, revive_below=revive_below
        )
        # Of value zero. Its gradient is how far the codebook is from where it belongs: descent at a
        # rate of one, see `make_optimizer`, puts it there.
        way = jax.tree.map(lambda a, b, c: ((a - b) * (b - c)).sum(), book, held, moved)
        value = (0.25 * commitment - log_prob).mean() + sum(jax.tree.leaves(way))
        return value, {"log_likelihood": log_prob, "commitment": commitment}

    return Model(num_codes, init, codes, loss)


def finite(levels: tuple[int, ...] = (8, 8, 8)) -> Model:
    encoder, decoder = Encoder(len(levels)), Decoder()

    def init(key: jax.Array, x: jax.Array) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        phi = encoder.init(encoder_key, x)
        return {"encoder": phi, "decoder": decoder.init(decoder_key, encoder.apply(phi, x))}

    def codes(params: Params, x: jax.Array) -> tuple[jax.Array, Any]:
        z, index = quantization.finite_scalar(encoder.apply(params["encoder"], x), levels)
        return index, decoder.apply(params["decoder"], z)

    def loss(params: Params, key: jax.Array, images: jax.Array, step: Any = None) -> Any:
        x = vae_jax.binarize(key, images)
        log_prob = codes(params, x)[1].log_prob(x)
        return -log_prob.mean(), {"log_likelihood": log_prob}

    return Model(math.prod(levels), init, codes, loss)


def make_optimizer(rate: float, num_steps: float) -> optax.GradientTransformation:
    """Muon, and for a codebook plain descent at a rate of one: see the loss."""
    transforms = {"learned": training.make_optimizer(rate, num_steps), "moved": optax.sgd(1.0)}
    labels = {"encoder": "learned", "decoder": "learned", "codebook": "moved"}
    return optax.partition(transforms, lambda params: {name: labels[name] for name in params})


def measure(model: Model, params: Params, images: jax.Array, x: jax.Array) -> dict[str, Any]:
    """The use of the codes by test images x [M, H, W, 1], and their bounds.

    Args:
      model: the autoencoder.
      params: trained.
      images: bytes [N, H, W, 1], of whose codes the frequencies are taken.
      x: test images, binary.
    """

    @jax.jit
    def of_batch(x: jax.Array) -> Any:
        index, likelihood = model.codes(params, x)
        return index.reshape(len(x), -1), likelihood.log_prob(x)

    def of_all(x: jax.Array) -> list[np.ndarray]:
        parts = [of_batch(part) for part in jnp.split(x, list(range(500, len(x), 500)))]
        return [np.concatenate(of) for of in zip(*parts, strict=True)]

    train, _ = of_all(jax.jit(vae_jax.binarize)(jax.random.key(0), images))
    index, log_prob = of_all(x)
    num, places = model.num_codes, np.arange(train.shape[1])
    counts = np.ones((len(places), num))  # one of each code that has not been seen
    np.add.at(counts, (np.broadcast_to(places, train.shape), train), 1)
    log_prior = np.log(counts / counts.sum(axis=1, keepdims=True))
    use = quantization.codebook_use(jnp.asarray(index), num)
    return {
        "num_codes": num,
        "codebook_use": float(use.share),
        "perplexity": float(use.perplexity),
        "negative_log_likelihood_given_codes": float(-log_prob.mean()),
        "negative_elbo": float(-log_prob.mean() + len(places) * math.log(num)),
        "negative_elbo_by_frequency": float(-(log_prob + log_prior[places, index].sum(1)).mean()),
    }


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    names = ("steps", "num_test", "batch_size")
    given = {name: getattr(chosen, name) for name in names}
    options.check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    options.check_at_least(2, num_codes=chosen.num_codes)
    training.seconds(chosen.budget)
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)
    if not chosen.cells:
        raise UsageError("--cells is empty: give revived, plain or finite")


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG, default=Options())
    check(chosen)
    table.begin(chosen)
    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    images = jnp.concatenate([dataset.train.images, dataset.validation.images])
    test = jnp.asarray(dataset.test.images[: chosen.num_test])
    x = jax.jit(vae_jax.binarize)(keys.of_run(0)["test pixels"], test)
    output, _ = open_program(chosen, "oord2017", dataset)
    about = {"paper": "oord2017", "protocol": PROTOCOL, "dataset": dataset.name}
    results = table.Table(output, chosen, **about, num_test=len(x))
    models: dict[str, Callable[[], Any]] = {
        "revived": partial(with_codebook, chosen.num_codes, 0.1),
        "plain": partial(with_codebook, chosen.num_codes, 0.0),
        "finite": finite,
    }
    init_key, train_key = jax.random.split(jax.random.key(chosen.seed))
    example = images[:500].astype(jnp.float32) / 255
    pictures = {"test images": x[:_COLUMNS]}
    for name in chosen.cells:
        start, model = time.perf_counter(), models[name]()
        params, what = training.fit(
            train_key,
            training.side_by_side(model.loss),
            jax.jit(jax.vmap(partial(model.init, x=example)))(init_key[None]),
            images,
            Length.of(chosen),
            batch_size=chosen.batch_size,
            optimizer=partial(make_optimizer, chosen.learning_rate),
        )
        first = jax.tree.map(itemgetter(0), params)
        row = measure(model, first, images, x)
        minutes = (time.perf_counter() - start) / 60
        row = {"name": name, **row, "training": what, "minutes": minutes}
        used = f"{row['codebook_use']:.1%} of {row['num_codes']} codes used"
        results.add(
            row,
            f"{name:10} {used}, perplexity {row['perplexity']:.0f}, -log p(x|codes) "
            f"{row['negative_log_likelihood_given_codes']:.2f}, -ELBO {row['negative_elbo']:.2f} "
            f"or, by frequency, {row['negative_elbo_by_frequency']:.2f} nats",
        )
        pictures[name] = model.codes(first, x[:_COLUMNS])[1].mean
        figures.rows_of(pictures).save(output / "reconstructions.png")
    results.end()


_COLUMNS = 12


if __name__ == "__main__":
    command.run(main)
