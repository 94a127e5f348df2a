"""Structured inference networks (Krishnan, Shalit & Sontag 2017): a deep Markov model of chorales.

    python -m experiments.papers.krishnan2017 --data=jsb-chorales-quarter.json

Bach's chorales as 88 notes that are on or off at each quarter (Boulanger-Lewandowski et al. 2012).
Published, nats a time step, lower is better: 6.87 by Pyro's program of the model, without flows,
after 5,000 epochs. The posterior q(z_t|z_(t-1), x_t, ..., x_T) and the gated transition are the
paper's, but for what keeps the latter from running away. This program's are: 32 latents and layers
of 128; Muon at 1e-2, with weight decay of 0.3, for half of the steps and then along a line to zero;
the average of the parameters over some hundred steps, of the epoch that is best on the validation
chorales; batches of chorales of like lengths.
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.papers import table
from vae_jax import networks, run
from vae_jax.run import buckets, command, figures, measure, options, schedule
from vae_jax.run.errors import UsageError

PROG = "python -m experiments.papers.krishnan2017"
PUBLISHED = 6.87
PROTOCOL = (
    "nats a time step of the test chorales, their sum over the sum of their lengths: minus the "
    "ELBO, as published, and minus log p(x) by importance sampling; 229 chorales to train on, 76 "
    "to choose the epoch by, 77 to test on"
)
_LOWEST, _NUM_NOTES = 21, 88  # of a piano, as MIDI counts


@dataclass(frozen=True)
class Options:
    """Trains a deep Markov model of chorales, and writes some that it makes up as MIDI."""

    data: Path
    """A JSON file of train, valid and test: chorales, lists of steps, lists of MIDI notes."""
    epochs: int = 250
    """Passes over the training chorales."""
    batch_size: int = 20
    """Chorales a step."""
    latent_dim: int = 32
    """Of z, at each step."""
    hidden: int = 128
    """Width of every hidden layer, and of the recurrent state."""
    learning_rate: float = 1e-2
    """Muon's; Adam's of all that is no matrix is a fifth of it."""
    weight_decay: float = 0.3
    """Of the matrices, times the rate: the share of them that a step takes."""
    kl_warmup: int = 20
    """Epochs in which the KL's weight rises to 1."""
    num_importance_samples: int = 200
    """Draws for log p(x) of each test chorale."""
    num_generated: int = 8
    """Chorales that are made up, each a MIDI file."""
    seed: int = 0
    """Of the parameters and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/krishnan2017-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The chorales of each split as zeros and ones, [N, T, 88], padded with NaN."""
    try:
        splits = json.loads(path.read_text())
        return {name: pad([_roll(chorale) for chorale in splits[name]]) for name in SPLITS}
    except OSError as error:
        raise UsageError(f"--data={path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"--data={path} has not train, valid and test of lists of lists of notes "
            f"({type(error).__name__}: {error})"
        ) from error


SPLITS = ("train", "valid", "test")


def _roll(chorale: list[list[Any]]) -> np.ndarray:
    roll = np.zeros((len(chorale), _NUM_NOTES), np.float32)
    for step, notes in enumerate(chorale):
        for note in notes:  # -1 and 60.5 would be other notes than they are
            if not isinstance(note, int) or not _LOWEST <= note < _LOWEST + _NUM_NOTES:
                raise ValueError(f"note {note!r} is none of {_LOWEST} to 108")
            roll[step, note - _LOWEST] = 1
    return roll


def pad(sequences: list[np.ndarray]) -> np.ndarray:
    """[T_i, D] -> [N, T, D] with NaN from the end of each to that of the longest."""
    length = max(map(len, sequences))
    widths = [((0, length - len(sequence)), (0, 0)) for sequence in sequences]
    return np.stack(
        [np.pad(s, w, constant_values=np.nan) for s, w in zip(sequences, widths, strict=True)]
    )


def num_steps(x: Any) -> int:
    """Of all sequences together, without the padding."""
    return int((~np.isnan(x)).any(axis=-1).sum())


def make_model(chosen: Options, mean: np.ndarray, length: int) -> vae_jax.VAE:
    bias = networks.constant_bias(networks.logit(jnp.asarray(mean)))
    emission = networks.MLP((len(mean),), (chosen.hidden, chosen.hidden), bias_init=bias)
    return vae_jax.make_state_space(
        networks.Smoother(chosen.hidden),
        networks.Combiner(),
        networks.GatedTransition(chosen.hidden),
        networks.BernoulliDecoder(emission, event_ndims=2),
        chosen.latent_dim,
        length,
    )


def midi(roll: np.ndarray) -> bytes:
    """A Standard MIDI file of notes [T, 88], a quarter each step; notes that go on are held.

    Format 0 (MIDI Manufacturers Association, Standard MIDI Files 1.0).
    """
    events, delta = bytearray(), 0
    sounding = np.zeros(_NUM_NOTES, bool)
    for step in [*(roll > 0.5), np.zeros(_NUM_NOTES, bool)]:
        for note in np.flatnonzero(step != sounding):
            events += _variable_length(delta)
            events += bytes([0x90 if step[note] else 0x80, note + _LOWEST, 80])
            delta = 0
        sounding, delta = step, delta + _TICKS
    events += bytes([0, 0xFF, 0x2F, 0])
    header = (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + _TICKS.to_bytes(2, "big")
    return b"MThd" + header + b"MTrk" + len(events).to_bytes(4, "big") + bytes(events)


_TICKS = 480  # of a quarter


def _variable_length(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    check(chosen)
    table.begin(chosen)
    data = read(chosen.data)
    if chosen.batch_size > len(data["train"]):
        raise UsageError(
            f"--batch-size is {chosen.batch_size} but there are {len(data['train'])} chorales to "
            "train on: make it smaller"
        )
    output = table.open_folder(chosen, "krishnan2017")
    mean = np.nanmean(data["train"], axis=(0, 1))
    model = make_model(chosen, mean, data["train"].shape[1])
    init_key, train_key, valid_key, test_key, draw_key = jax.random.split(
        jax.random.key(chosen.seed), 5
    )
    params = jax.jit(model.init)(init_key, data["train"][:1])
    start = time.perf_counter()
    fitted = train(train_key, valid_key, model, params, data, chosen)
    minutes = (time.perf_counter() - start) / 60
    tested = test(test_key, model, fitted.params, data["test"], chosen.num_importance_samples)
    valid_elbos = [row["validation_elbo"] for row in fitted.rows]
    best = int(np.argmax(valid_elbos))
    row = {
        "name": "deep Markov model",
        "published": PUBLISHED,
        **tested,
        "best_epoch": best + 1,
        "epochs": len(valid_elbos),
        "validation_elbo": valid_elbos[best],
        "minutes": minutes,
    }
    results = table.Table(output, chosen, paper="krishnan2017", protocol=PROTOCOL)
    results.add(
        row,
        f"{-tested['elbo']:.3f} nats a time step by the ELBO, published {PUBLISHED}; "
        f"{-tested['log_likelihood']:.3f} by importance sampling; best of epoch {best + 1}, "
        f"{minutes:.1f} minutes",
    )
    results.end()
    drawn = vae_jax.generate(draw_key, model, fitted.params, chosen.num_generated)
    rolls = np.asarray(vae_jax.sample(jax.random.fold_in(draw_key, 1), drawn))
    for number, roll in enumerate(rolls):
        (output / f"chorale-{number}.mid").write_bytes(midi(roll))
    real = [roll[~np.isnan(roll).all(axis=1)] for roll in np.asarray(data["test"][: len(rolls)])]
    made = [roll[: len(of)] for roll, of in zip(rolls, real, strict=True)]
    figures.sequences(output / "chorales.png", real, made)
    print(f"{len(rolls)} chorales as MIDI: {output}")


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    names = ("epochs", "batch_size", "latent_dim", "hidden", "num_generated")
    options.check_at_least(1, **{name: getattr(chosen, name) for name in names})
    options.check_at_least(2, num_importance_samples=chosen.num_importance_samples)
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)
    if not 0 <= chosen.weight_decay < math.inf:
        raise UsageError(f"--weight-decay is {chosen.weight_decay}: it must be 0 or more")
    if not 0 <= chosen.kl_warmup < chosen.epochs:
        raise UsageError(
            f"--kl-warmup is {chosen.kl_warmup} of {chosen.epochs} epochs: make it shorter"
        )


def train(
    key: jax.Array,
    valid_key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    data: dict[str, np.ndarray],
    chosen: Options,
) -> run.Fitted:
    """The parameters of the epoch that is best on the validation chorales."""
    steps = len(data["train"]) // chosen.batch_size
    beta = optax.linear_schedule(1 / (chosen.kl_warmup + 1), 1.0, chosen.kl_warmup * steps)
    loss = vae_jax.make_loss(
        model,
        penalty=lambda bound, z, posterior, prior, step: vae_jax.weighted_kl(bound.kl, beta(step)),
    )
    x = data["valid"]
    bound = measure.validation(model, valid_key, x, None, len(x), _alike(model, x, chosen))

    def validate(params: Any) -> dict[str, float]:
        return {name: nats * len(x) / num_steps(x) for name, nats in bound(params).items()}

    plan = run.Plan(
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        average_decay=0.99,
        keep_best="validation_elbo",
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(10.0),
        schedule.muon(chosen.learning_rate, chosen.epochs * steps, chosen.weight_decay),
    )
    alike = _alike(model, data["train"], chosen)
    return run.fit(
        *(key, loss, params, optimizer, vae_jax.Batch(data["train"], None), plan),
        validate=validate,
        widths=None if alike is None else alike.widths,
    )


def _alike(model: vae_jax.VAE, x: np.ndarray, chosen: Options) -> buckets.Buckets | None:
    """Chorales in groups of like lengths, whose padding is not computed with."""
    return buckets.of_sequences(x, chosen.batch_size, lambda width: model)


def test(
    key: jax.Array, model: vae_jax.VAE, params: Any, x: np.ndarray, num_samples: int
) -> dict[str, float]:
    """The ELBO and log p(x) of sequences, in nats a time step."""
    elbo_key, key = jax.random.split(key)
    loss = jax.jit(vae_jax.make_loss(model, num_draws=10))
    _, bound = loss(params, elbo_key, jnp.asarray(x))
    likelihood = vae_jax.evaluate(key, model, params, x, num_samples=num_samples)
    per_step = len(x) / num_steps(x)
    return {
        "elbo": float(bound.value.mean()) * per_step,
        "log_likelihood": likelihood.mean * per_step,
        "standard_error_of_draws": likelihood.standard_error_of_draws * per_step,
    }


if __name__ == "__main__":
    command.run(main)
