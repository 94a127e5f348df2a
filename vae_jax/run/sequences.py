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
from vae_jax.run.data import conditions, remote, sequences
from vae_jax.run.data.columns import Column
from vae_jax.run.data.dataset import content_hash, digest_of, splits_of
from vae_jax.run.errors import DataError, UsageError
from vae_jax.run.model import conditional_prior
from vae_jax.run.scores import Filled

_QUANTILES = np.linspace(0, 1, 101)


def load(chosen: sequence_options.Options) -> examples.Examples:
    """A file's sequences in splits, padded to the longest with NaN; numbers are standardised."""
    path, asked = Path(remote.local(chosen.data.dataset)), conditions.names(chosen.data.condition)
    items = sequences.read(path)
    found, fields = (
        sequences.steps_of(items),
        sequences.beside(items, asked, str(path)) if asked else None,
    )
    hashes = np.array([content_hash(one.astype(np.float32)) for one in found], np.uint64)
    splits, columns, labels, notes = _told(fields, asked, hashes, str(path))
    test, _, train = splits
    learned = np.concatenate([found[i] for i in train])
    likelihood, why = _likelihood(chosen.model.likelihood, found)
    lengths = np.array([len(one) for one in found])
    stored = {
        "length": int(lengths.max()),
        "likelihood": likelihood,
        "lengths": np.quantile(lengths[train], _QUANTILES, method="nearest").tolist(),
        **_scaled(learned, likelihood, str(path)),
        **conditions.stored(columns, labels[2]),
    }
    x = {
        name: _seen([found[i] for i in rows], stored, label)
        for name, rows, label in zip(("test", "validation", "train"), splits, labels, strict=True)
    }
    low, median, high = np.quantile(lengths, [0, 0.5, 1], method="nearest")
    lines = [
        f"{learned.shape[1]} numbers a step; {low} to {high} steps, half of the sequences "
        f"{median} or fewer",
        f"{likelihood}: {why}; {chosen.model.latents} of {chosen.model.latent_dim} latents",
        *(f"told {column}" for column in columns),
    ]
    if same := int((np.nanmax(learned, axis=0) == np.nanmin(learned, axis=0)).sum()):
        notes.append(f"{same} of the numbers of a step never change: leave them out")
    if missing := np.isnan(learned).mean():
        lines.append(f"missing: {missing:.1%} of the numbers")
    if cut := sum(np.isnan(one[-1]).all() for one in found):
        notes.append(f"{cut:,} sequences end in missing steps, which are taken for no part of them")
    if not asked and (names := sequences.fields_of(items)):
        notes.append(f"not read: {', '.join(names[:10])}; --condition tells the model of them")
    return examples.Examples(
        name=path.absolute().stem,
        source=str(path),
        train=x["train"],
        validation=x["validation"],
        test=x["test"],
        digest=_digest(hashes, fields, asked),
        num=len(found),
        stored=stored,
        said={
            "likelihood": likelihood,
            "latents": chosen.model.latents,
            "num_test_steps": int(lengths[test].sum()),
            "conditions": {column.name: column.kind for column in columns},
            "conditional": bool(columns),
        },
        lines=tuple(lines),
        notes=tuple(notes),
        lengths=lengths[train],
    )


def _told(
    fields: Any, asked: Mapping[str, str | None], hashes: np.ndarray, source: str
) -> tuple[list[np.ndarray], tuple[Column, ...], list[np.ndarray | None], list[str]]:
    """The rows of test, validation and training, the columns that are told, and them; and notes.

    Raises:
      DataError: a field is not there, or none that a model can be told.
    """
    if not asked:
        return list(splits_of(hashes, source, "sequences")), (), [None] * 3, []
    there = np.flatnonzero(conditions.present(fields, asked, source))
    splits = [there[rows] for rows in splits_of(hashes[there], source, "sequences")]
    columns = conditions.columns_of(fields, asked, splits[2], source)
    labels, known, notes = conditions.encode_known(fields, columns, splits, source)
    if missing := len(fields) - len(there):
        lack = f"{missing:,} of {len(fields):,} sequences lack {' or '.join(asked)}"
        notes = [f"{lack}, which the model is told: they are left out", *notes]
    return known, columns, labels, notes


def _digest(hashes: np.ndarray, fields: Any, asked: Mapping[str, str | None]) -> str:
    """Of the sequences, and of what the model is told of each."""
    told = ("\x1f".join(map(str, fields[name].tolist())).encode() for name in asked)
    return digest_of(hashes, *(np.frombuffer(of, np.uint8) for of in told))


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


def _seen(
    found: list[np.ndarray], config: Mapping[str, Any], label: np.ndarray | None
) -> vae_jax.Batch:
    """Sequences as the model sees them, [N, T, D], and what it is told of them."""
    if config["likelihood"] != "bernoulli":
        centre, spread = np.array(config["centre"]), np.array(config["spread"])
        found = [(one - centre) / spread for one in found]
    return vae_jax.Batch(sequences.pad(found, config["length"]), label)


def _as_given(x: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    if config["likelihood"] == "bernoulli":
        return x
    return x * np.array(config["spread"], np.float32) + np.array(config["centre"], np.float32)


def make_model(config: Mapping[str, Any]) -> vae_jax.VAE:
    """A deep Markov model, or a VAE of a whole sequence by recurrent networks."""
    of = config["options"]["model"]
    likelihood, length, width = config["likelihood"], config["length"], len(config["centre"])
    size, hidden = of["latent_dim"], tuple(of["hidden"])
    told = conditions.num_classes(conditions.of_run(config))
    condition = networks.ColumnsCondition(told) if told else None
    recurrent = of["latents"] == "recurrent"
    output: dict[str, Any] = {"condition": None if recurrent else condition}
    if likelihood == "bernoulli":
        centre = jnp.asarray(config["centre"], jnp.float32)
        output["bias_init"] = networks.constant_bias(networks.logit(centre))
    else:
        width *= 2
    network, head = networks.MLP((width,), hidden, **output), _HEADS[likelihood]
    if recurrent:
        summary = networks.Summary(
            networks.MLP((2 * size,), hidden, condition=condition), hidden[0]
        )
        decoder = head(networks.Unrolled(network, length, hidden[0], condition=condition))
        prior = None if condition is None else conditional_prior(condition.clone(), size)
        encoder = networks.Encoder(summary)
        return vae_jax.make_vae(encoder, networks.MaskedDecoder(decoder), size, prior)
    return vae_jax.make_state_space(
        networks.Smoother(hidden[0], condition=condition),
        networks.Combiner(),
        networks.GatedTransition(hidden[0], condition=condition),
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
    told = conditions.of_run(config)
    x = jnp.zeros((1, config["length"], len(config["centre"])))
    return vae_jax.Batch(x, jnp.zeros((1, len(told))) if told else None)


def given(data: Any, config: Mapping[str, Any]) -> tuple[vae_jax.Batch, list[str]]:
    """The sequences of a file, or arrays [T_i, D], as the model sees them.

    Of a run with conditions each is a mapping of its fields, in which the sequence is an array.

    Raises:
      DataError: they are no such sequences, or longer than the run's, or lack a condition.
    """
    return _of_items(_like_the_runs(data, config), config, _source(data)), []


def _of_items(items: list[Any], config: Mapping[str, Any], source: str) -> vae_jax.Batch:
    told, label = conditions.of_run(config), None
    if told:
        fields = sequences.beside(items, [column.name for column in told], source)
        label = conditions.given(fields, told, source)
    return _seen(sequences.steps_of(items), config, label)


def _source(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "what was given"


def _like_the_runs(data: Any, config: Mapping[str, Any]) -> list[Any]:
    source, is_file = _source(data), isinstance(data, str | Path)
    items = sequences.read(Path(data)) if is_file else sequences.checked(data, source)
    found = sequences.steps_of(items)
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
    return items


def returned(
    draws: Iterator[np.ndarray],
    label: np.ndarray | None,
    config: Mapping[str, Any],
    seed: int,
) -> tuple[list[Any], list[str]]:
    """Sequences [T_i, D], as long as those of training were, with what they were asked to be."""
    x = _as_given(np.concatenate(list(draws)), config)
    rng = np.random.default_rng(seed)
    lengths = rng.choice(np.array(config["lengths"], np.int64), len(x))
    made = [one[:length] for one, length in zip(x, lengths, strict=True)]
    if label is None:
        return made, []
    rows = conditions.frame_of(label, conditions.of_run(config)).to_dict("records")
    return [
        {sequences.FIELD: one, **{name: conditions.literal(of) for name, of in row.items()}}
        for one, row in zip(made, rows, strict=True)
    ], []


def fill(
    key: jax.Array, trained: examples.Trained, data: Any, num_samples: int, num_draws: int
) -> tuple[Filled, list[str]]:
    """Sequences of a file, or arrays, without holes: each missing number by its median.

    Steps at the end that are missing as a whole are what comes next: a forecast.
    """
    items, source = _like_the_runs(data, trained.config), _source(data)
    found = sequences.steps_of(items)
    missing = np.array([int(np.isnan(one).sum()) for one in found])
    rows = np.flatnonzero(missing)
    batch = _of_items(items, trained.config, source)
    imputed = holes.imputed(
        *(key, trained.model, trained.params, batch, rows),
        source=source,
        num_samples=num_samples,
        quantiles=(0.5,),
        num_draws=num_draws,
    )

    def without_holes(values: np.ndarray) -> list[Any]:
        whole = list(found)
        for row, guess in zip(rows, _as_given(values, trained.config), strict=True):
            one = found[row]
            whole[row] = np.where(np.isnan(one), guess[: len(one)], one)
        return sequences.with_steps(items, whole)

    effective, num = imputed.effective_sample_size, int(missing.sum())
    filled = without_holes(imputed.quantiles[0])
    draws = tuple(without_holes(values) for values in imputed.draws)
    lines = holes.said(num, num, num_samples, effective, "sequence")
    return Filled(filled, draws, effective), lines


def draw(output: Path, trained: examples.Trained, of: examples.Examples, means: np.ndarray) -> None:
    """Sequences of the test set beside some that the model makes."""
    from vae_jax.run import figures  # here, as matplotlib takes a second

    key = keys.of_run(trained.options.training.seed)["pictures"]
    x = _as_given(np.asarray(of.test.image[:_SHOWN]), trained.config)
    there = [np.flatnonzero(~np.isnan(one).all(axis=1)) for one in x]
    real = [one[: steps[-1] + 1] for one, steps in zip(x, there, strict=True) if steps.size]
    made, _ = examples.generate(key, trained, len(real))
    figures.sequences(output / "sequences.png", real, sequences.steps_of(made))


_SHOWN = 6


PARTS = examples.Parts(
    load,
    make_model,
    example,
    given,
    returned,
    sequences.write,
    draw,
    schedule.clipped_adam,
    conditions.drawn,
    fill,
)
