"""Isolating sources of disentanglement (Chen et al. 2018): beta-TCVAE beside beta-VAE, on sprites.

    python -m experiments.papers.chen2018 --budget=10m --seeds=5

Sprites that the program draws itself, with the factors of dSprites in half its resolution. Both
penalise with the same beta: beta-VAE the whole KL, beta-TCVAE the total correlation within it
(stratified weights). Published, on dSprites: a mutual information gap of about 0.5 for beta-TCVAE
by the authors' code, whose gap is an integral over q(z|x); here it is of the means in 20 bins.
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import vae_jax
from experiments import sprites
from experiments.papers import table, training
from experiments.papers.training import Length
from vae_jax import networks
from vae_jax.run import command, figures, options, schedule
from vae_jax.run.errors import UsageError

PROG = "python -m experiments.papers.chen2018"
PROTOCOL = (
    "mutual information gap, mean over the five factors, of posterior means in 20 bins of equal "
    "width (the definition of Locatello et al. 2019), of pictures that were not trained on; ELBO "
    "in nats of the same, binarised"
)


@dataclass(frozen=True)
class Options:
    """Trains beta-TCVAE and beta-VAE on sprites, and measures how far they part the factors."""

    beta: float = 6.0
    """Weight of the total correlation, and of the KL."""
    budget: str = "10m"
    """Of training for each of both, all seeds together: seconds (90s), minutes or hours (2h)."""
    steps: int | None = None
    """Of each, in place of a budget: the same numbers again wherever it runs."""
    seeds: int = 5
    """Trained side by side; the mean and the deviation over them are given."""
    seed: int = 0
    """Of the pictures, the parameters and all noise."""
    num_pictures: int = 100_000
    """Drawn for training, of the 737,280 that there are."""
    num_test: int = 10_000
    """Drawn for the gap; others."""
    batch_size: int = 250
    """Pictures a step; an estimate of the total correlation takes many."""
    learning_rate: float = 1e-3
    """Adam's, for the first half of the steps; from there it falls to zero along a line."""
    latent_dim: int = 10
    """Of z."""
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the hidden layers of both networks."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/chen2018-sprites-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    training.seconds(chosen.budget)
    names = ("seeds", "num_pictures", "num_test", "batch_size", "latent_dim", "steps")
    given = {name: getattr(chosen, name) for name in names}
    options.check_at_least(1, **{name: value for name, value in given.items() if value is not None})
    options.check_at_least(2, latent_dim=chosen.latent_dim, batch_size=chosen.batch_size)
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)
    if not chosen.beta >= 1:
        raise UsageError(f"--beta is {chosen.beta}: give 1 or more")
    if chosen.batch_size > chosen.num_pictures:
        raise UsageError(
            f"--batch-size is {chosen.batch_size} but --num-pictures is {chosen.num_pictures}"
        )


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    check(chosen)
    table.begin(chosen)
    output = table.open_folder(chosen, "chen2018-sprites")
    results = table.Table(output, chosen, paper="chen2018", protocol=PROTOCOL)
    train, test, truth = pictures(chosen)
    model = make_model(chosen, train)
    init_key, train_key, test_key = jax.random.split(jax.random.key(chosen.seed), 3)
    x = jax.jit(vae_jax.binarize)(test_key, test)
    for name, penalty in penalties(chosen).items():
        start, cpu = time.perf_counter(), time.process_time()
        loss = vae_jax.make_loss(model, observe=vae_jax.binarize, penalty=penalty)
        params, what = training.fit(
            train_key,
            training.side_by_side(loss),
            jax.vmap(lambda key: model.init(key, x[:1]))(jax.random.split(init_key, chosen.seeds)),
            train,
            Length.of(chosen),
            batch_size=chosen.batch_size,
            optimizer=partial(schedule.adam, chosen.learning_rate),
        )
        row = {"name": name, "beta": chosen.beta, **measured(model, params, test_key, x, truth)}
        row |= {"training": what, "minutes": (time.perf_counter() - start) / 60}
        row |= {"cpu_minutes": (time.process_time() - cpu) / 60}
        scores = ", ".join(f"{score:.3f}" for score in row["values"])
        gap = f"{name:10} gap {row['mutual_information_gap']:.3f}, of the seeds {scores}"
        results.add(row, f"{gap}; ELBO {row['elbo']:.2f} nats")
        traversed(model, jax.tree.map(itemgetter(0), params), x[:1]).save(
            output / f"traversals-{name}.png"
        )
    results.end()


def pictures(chosen: Options) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Sprites to train on and to measure on, bytes [N, D], and the latter's factors [N, F]."""
    factors = sprites.sample_factors(
        np.random.default_rng(chosen.seed), chosen.num_pictures + chosen.num_test
    )
    pictures = (255 * sprites.draw(factors)).round().astype(np.uint8).reshape(len(factors.x), -1)
    train, test = jnp.asarray(pictures[chosen.num_test :]), jnp.asarray(pictures[: chosen.num_test])
    truth = np.stack(factors, axis=1)[: chosen.num_test]
    return train, test, truth


def make_model(chosen: Options, train: jax.Array) -> vae_jax.VAE:
    bias = networks.constant_bias(networks.logit(train.mean(axis=0) / 255))
    return vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * chosen.latent_dim,), chosen.hidden)),
        networks.BernoulliDecoder(networks.MLP(train.shape[1:], chosen.hidden, bias_init=bias)),
        chosen.latent_dim,
    )


def penalties(chosen: Options) -> dict[str, Any]:
    """Of the objectives by name, as `vae_jax.make_loss` takes them."""
    more = chosen.beta - 1
    return {
        "beta-TCVAE": lambda bound, z, posterior, prior, step: (
            more * vae_jax.total_correlation(z, posterior, chosen.num_pictures)
        ),
        "beta-VAE": lambda bound, z, posterior, prior, step: vae_jax.weighted_kl(
            bound.kl, chosen.beta
        ),
    }


def measured(
    model: vae_jax.VAE, params: Any, key: jax.Array, x: jax.Array, truth: np.ndarray
) -> dict[str, Any]:
    """The gap of each replica [R, ...], by pictures [N, D] and their factors [N, F]; the ELBO."""

    @jax.jit
    def of_batch(params: Any, x: jax.Array) -> Any:
        posterior, prior = model.encode(params, x), model.prior(params)
        z = vae_jax.sample(key, posterior)
        return posterior.mean, vae_jax.elbo(x, z, posterior, prior, model.decode(params, z)).value

    gaps, elbos = [], []
    for replica in range(len(jax.tree.leaves(params)[0])):
        one = jax.tree.map(lambda leaf: leaf[replica], params)  # noqa: B023
        batches = jnp.split(x, list(range(1000, len(x), 1000)))
        of = zip(*(of_batch(one, batch) for batch in batches), strict=True)
        means, elbo = map(np.concatenate, of)
        gaps.append(vae_jax.mutual_information_gap(means, truth))
        elbos.append(elbo.mean())
    scores = np.mean(gaps, axis=1)
    return {
        "mutual_information_gap": float(scores.mean()),
        "deviation_over_seeds": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "values": scores.tolist(),
        "of_each_factor": dict(
            zip(sprites.Factors._fields, np.mean(gaps, axis=0).tolist(), strict=True)
        ),
        "elbo": float(np.mean(elbos)),
    }


def traversed(model: vae_jax.VAE, params: Any, x: jax.Array) -> Image.Image:
    """A row for each latent, from -2 to 2, of the picture x [1, D]."""
    values = jnp.linspace(-2, 2, 9)
    mean = vae_jax.traverse(model, params, x, values).mean
    pictures = mean.reshape(len(mean), len(values), sprites.SIZE, sprites.SIZE, 1)
    return figures.rows_of({f"z{i}": row for i, row in enumerate(pictures, start=1)})


if __name__ == "__main__":
    command.run(main)
