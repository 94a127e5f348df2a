"""Sequences, as `examples` learns them and gives them back; and their VAE."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax import networks
from vae_jax.run import examples, holes, keys, schedule, sequence_options
from vae_jax.run.data import remote, sequences
from vae_jax.run.data.dataset import content_hash, digest_of, splits_of
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.scores import Filled

_QUANTILES = np.linspace(0, 1, 101)


def load(chosen: sequence_options.Options) -> examples.Examples:
    """A file's sequences in splits, padded to the longest with NaN; numbers are standardised."""
    path = Path(remote.local(chosen.data.dataset))
    found = sequences.read(path)
    hashes = np.array([content_hash(one.astype(np.float32)) for one in found], np.uint64)
    test, validation, train = splits_of(hashes, str(path), "sequences")
    learned = np.concatenate([found[i] for i in train])
    likelihood, why = _likelihood(chosen.model.likelihood, found)
    lengths = np.array([len(one) for one in found])
    stored = {
        "length": int(lengths.max()),
        "likelihood": likelihood,
        "lengths": np.quantile(lengths[train], _QUANTILES, method="nearest").tolist(),
        **_scaled(learned, likelihood, str(path)),
    }
    x = {
        name: _seen([found[i] for i in rows], stored)
        for name, rows in _named(train, validation, test)
    }
    low, median, high = np.quantile(lengths, [0, 0.5, 1], method="nearest")
    lines = [
        f"{learned.shape[1]} numbers a step; {low} to {high} steps, half of the sequences "
        f"{median} or fewer",
        f"{likelihood}: {why}; {chosen.model.latents} of {chosen.model.latent_dim} latents",
    ]
    notes = []
    if same := int((np.nanmax(learned, axis=0) == np.nanmin(learned, axis=0)).sum()):
        notes.append(f"{same} of the numbers of a step never change: leave them out")
    if missing := np.isnan(learned).mean():
        lines.append(f"missing: {missing:.1%} of the numbers")
    if cut := sum(np.isnan(one[-1]).all() for one in found):
        notes.append(f"{cut:,} sequences end in missing steps, which are taken for no part of them")
    return examples.Examples(
        name=path.absolute().stem,
        source=str(path),
        train=x["train"],
        validation=x["validation"],
        test=x["test"],
        digest=digest_of(hashes),
        num=len(found),
        stored=stored,
        said={
            "likelihood": likelihood,
            "latents": chosen.model.latents,
            "num_test_steps": int(lengths[test].sum()),
        },
        lines=tuple(lines),
        notes=tuple(notes),
        lengths=lengths[train],
    )


def _named(*rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    return zip(("train", "validation", "test"), rows, strict=True)


def _likelihood(asked: str, found: list[np.ndarray]) -> tuple[str, str]:
    """The likelihood, and why it is that.

    Raises:
      UsageError: it is not one of these numbers.
    """
    other = next((v for one in found for v in one[~np.isnan(one) & (one != 0) & (one != 1)]), None)
    if asked == "bernoulli" and other is not None:
        raise UsageError(
            f"--likelihood=bernoulli is of zeros and ones but the sequences hold {other:g}: "
            "choose normal or student_t"
        )
    if asked != "auto":
        return asked, "as asked for"
    if other is None:
        return "bernoulli", "all numbers are 0 or 1"
    return "student_t", f"there are numbers such as {other:g}; --likelihood=normal has no tails"


def _scaled(learned: np.ndarray, likelihood: str, source: str) -> dict[str, list[float]]:
    """The means and the standard deviations of all steps, where a likelihood wants them."""
    empty = np.isnan(learned).all(axis=0)
    if empty.any():
        raise DataError(
            f"number {int(empty.argmax()) + 1} of every step in {source} is missing wherever it is "
            "to be learned: leave it out"
        )
    centre = np.nanmean(learned, axis=0)
    spread = np.nanstd(learned, axis=0)
    if likelihood == "bernoulli":
        spread = np.ones_like(spread)
    return {"centre": centre.tolist(), "spread": np.where(spread > 0, spread, 1.0).tolist()}


def _seen(found: list[np.ndarray], config: Mapping[str, Any]) -> vae_jax.Batch:
    """Sequences as the model sees them, [N, T, D]."""
    if config["likelihood"] != "bernoulli":
        centre, spread = np.array(config["centre"]), np.array(config["spread"])
        found = [(one - centre) / spread for one in found]
    return vae_jax.Batch(sequences.pad(found, config["length"]))


def _as_given(x: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    if config["likelihood"] == "bernoulli":
        return x
    return x * np.array(config["spread"], np.float32) + np.array(config["centre"], np.float32)


def make_model(config: Mapping[str, Any]) -> vae_jax.VAE:
    """A deep Markov model, or a VAE of a whole sequence by recurrent networks."""
    of = config["options"]["model"]
    likelihood, length, width = config["likelihood"], config["length"], len(config["centre"])
    size, hidden = of["latent_dim"], tuple(of["hidden"])
    if likelihood == "bernoulli":
        bias = networks.constant_bias(networks.logit(jnp.asarray(config["centre"], jnp.float32)))
        network = networks.MLP((width,), hidden, bias_init=bias)
    else:
        network = networks.MLP((2 * width,), hidden)
    head = _HEADS[likelihood]
    if of["latents"] == "recurrent":
        summary = networks.Summary(networks.MLP((2 * size,), hidden), hidden[0])
        decoder = head(networks.Unrolled(network, length, hidden[0]))
        return vae_jax.make_vae(networks.Encoder(summary), networks.MaskedDecoder(decoder), size)
    return vae_jax.make_state_space(
        networks.Smoother(hidden[0]),
        networks.Combiner(),
        networks.GatedTransition(hidden[0]),
        head(network),
        size,
        length,
    )


_HEADS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bernoulli": lambda network: networks.BernoulliDecoder(network, event_ndims=2),
    "normal": lambda network: networks.NormalDecoder(network, event_ndims=2, per_entry=True),
    "student_t": lambda network: networks.StudentTDecoder(network, event_ndims=2, per_entry=True),
}


def example(config: Mapping[str, Any]) -> vae_jax.Batch:
    return vae_jax.Batch(jnp.zeros((1, config["length"], len(config["centre"]))))


def given(data: Any, config: Mapping[str, Any]) -> tuple[vae_jax.Batch, list[str]]:
    """The sequences of a file, or arrays [T_i, D], as the model sees them.

    Raises:
      DataError: they are no such sequences, or longer than the run's.
    """
    return _seen(_like_the_runs(data, config), config), []


def _like_the_runs(data: Any, config: Mapping[str, Any]) -> list[np.ndarray]:
    is_file = isinstance(data, str | Path)
    source = str(data) if is_file else "what was given"
    found = sequences.read(Path(data)) if is_file else sequences.checked(data, source)
    width, length = len(config["centre"]), config["length"]
    if found[0].shape[1] != width:
        raise DataError(
            f"{source} has steps of {found[0].shape[1]} numbers and the run's have {width}"
        )
    if longest := max((len(one) for one in found if len(one) > length), default=0):
        raise DataError(
            f"{source} has a sequence of {longest} steps and the run's longest has {length}: cut it"
        )
    if config["likelihood"] == "bernoulli":
        for one in found:
            if (wrong := one[~np.isnan(one) & (one != 0) & (one != 1)]).size:
                raise DataError(f"{source} holds {wrong[0]:g} and the run is of zeros and ones")
    return found


def returned(
    draws: Iterator[np.ndarray], conditions: None, config: Mapping[str, Any], seed: int
) -> tuple[list[np.ndarray], list[str]]:
    """Sequences [T_i, D], as long as those of training were."""
    x = _as_given(np.concatenate(list(draws)), config)
    rng = np.random.default_rng(seed)
    lengths = rng.choice(np.array(config["lengths"], np.int64), len(x))
    return [one[:length] for one, length in zip(x, lengths, strict=True)], []


def fill(
    key: jax.Array, trained: examples.Trained, data: Any, num_samples: int, num_draws: int
) -> tuple[Filled, list[str]]:
    """Sequences of a file, or arrays, without holes: each missing number by its median.

    Steps at the end that are missing as a whole are what comes next: a forecast.
    """
    found = _like_the_runs(data, trained.config)
    missing = np.array([int(np.isnan(one).sum()) for one in found])
    rows = np.flatnonzero(missing)
    imputed = holes.imputed(
        *(key, trained.model, trained.params, _seen(found, trained.config), rows),
        source=str(data) if isinstance(data, str | Path) else "the sequences",
        num_samples=num_samples,
        quantiles=(0.5,),
        num_draws=num_draws,
    )

    def without_holes(values: np.ndarray) -> list[np.ndarray]:
        whole = list(found)
        for row, guess in zip(rows, _as_given(values, trained.config), strict=True):
            one = found[row]
            whole[row] = np.where(np.isnan(one), guess[: len(one)], one)
        return whole

    effective, num = imputed.effective_sample_size, int(missing.sum())
    filled = without_holes(imputed.quantiles[0])
    draws = tuple(without_holes(values) for values in imputed.draws)
    return (
        Filled(filled, draws, effective),
        holes.said(num, num, num_samples, effective, "sequence"),
    )


def draw(output: Path, trained: examples.Trained, of: examples.Examples, means: np.ndarray) -> None:
    """Sequences of the test set beside some that the model makes."""
    from vae_jax.run import figures  # here, as matplotlib takes a second

    key = keys.of_run(trained.options.training.seed)["pictures"]
    x = _as_given(np.asarray(of.test.image[:_SHOWN]), trained.config)
    there = [np.flatnonzero(~np.isnan(one).all(axis=1)) for one in x]
    real = [one[: steps[-1] + 1] for one, steps in zip(x, there, strict=True) if steps.size]
    made, _ = examples.generate(key, trained, len(real))
    figures.sequences(output / "sequences.png", real, made)


_SHOWN = 6


PARTS = examples.Parts(
    load,
    make_model,
    example,
    given,
    returned,
    sequences.write,
    draw,
    schedule.adam,
    fill=fill,
)
