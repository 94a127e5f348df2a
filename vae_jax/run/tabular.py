"""Rows of tables, as `examples` learns them and gives them back."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax.run import examples, keys, rows, schedule, table_options
from vae_jax.run import holes as holes_of
from vae_jax.run.data import conditions, remote, tables
from vae_jax.run.data.columns import from_json, to_json
from vae_jax.run.scores import Filled

_DRAWS = 200


def load(chosen: table_options.Options) -> examples.Examples:
    """A file's rows in splits, NaN where a value is missing."""
    of = chosen.data
    path, asked = Path(remote.local(of.dataset)), tables.asked_kinds(of.columns)
    condition = {n: kind or asked.get(n) for n, kind in conditions.names(of.condition).items()}
    table = tables.load(path, asked, of.missing, condition, literal=of.literal)
    lines = [str(column) for column in table.columns if column.name not in condition]
    lines += [f"told {column}" for column in table.conditions]
    if missing := int(np.isnan(table.train).sum()):
        lines.append(f"missing: {missing / table.train.size:.1%} of the values that are learned")
    return examples.Examples(
        name=table.name,
        source=table.source,
        train=vae_jax.Batch(table.train, table.told["train"]),
        validation=vae_jax.Batch(table.validation, table.told["validation"]),
        test=vae_jax.Batch(table.test, table.told["test"]),
        digest=table.digest,
        num=table.num_rows,
        stored={
            "columns": to_json(table.columns),
            **conditions.stored(table.conditions, table.told["train"]),
        },
        said={
            "columns": {column.name: column.kind for column in table.columns},
            "conditions": {column.name: column.kind for column in table.conditions},
            "conditional": bool(table.conditions),
        },
        lines=tuple(lines),
        notes=table.notes,
        places=table.places,
    )


def make_model(config: Mapping[str, Any]) -> vae_jax.VAE:
    of = config["options"]["model"]
    columns = from_json(config["columns"])
    told = conditions.num_classes(conditions.of_run(config))
    return rows.make_model(columns, of["latent_dim"], tuple(of["hidden"]), told)


def example(config: Mapping[str, Any]) -> vae_jax.Batch:
    columns, told = from_json(config["columns"]), conditions.of_run(config)
    label = jnp.zeros((1, len(told))) if told else None
    return vae_jax.Batch(jnp.zeros((1, len(tables.learned(columns)))), label)


def given(table: Any, config: Mapping[str, Any]) -> tuple[vae_jax.Batch, list[str]]:
    """The rows of a file, or of a frame of pandas or polars, as the model sees them."""
    frame, source, said = _frame(table, config)
    x, notes = tables.encode(frame, from_json(config["columns"]))
    return vae_jax.Batch(x, _told(frame, config, source)), [*said, *notes]


def _frame(table: Any, config: Mapping[str, Any]) -> tuple[Any, str, list[str]]:
    """The rows of a file, as the run's own were read, or of a frame; where from; and notes."""
    if not isinstance(table, str | Path):
        return tables.as_frame(table), "the table", []
    of = config["options"]["data"]
    frame, notes = tables.read_noted(Path(table), of["missing"], literal=of.get("literal", False))
    return frame, str(table), notes


def _told(frame: Any, config: Mapping[str, Any], source: str) -> np.ndarray | None:
    told = conditions.of_run(config)
    return conditions.given(frame, told, source) if told else None


def returned(
    draws: Iterator[np.ndarray], label: np.ndarray | None, config: Mapping[str, Any], seed: int
) -> tuple[Any, list[str]]:
    """A frame of the table's columns."""
    columns, told = from_json(config["columns"]), conditions.of_run(config)
    left_out = [column.name for column in columns if column.kind == "left out"]
    frame = tables.decode(np.concatenate(list(draws)), columns, seed)
    if label is not None:
        of_label = conditions.frame_of(label, told)
        frame[list(of_label)] = of_label
        left_out = [name for name in left_out if name not in of_label]
    empty = ", ".join(left_out)
    return frame, [f"{empty}: empty, as the run did not learn them"] if empty else []


def draw(output: Path, trained: examples.Trained, of: examples.Examples, means: np.ndarray) -> None:
    """Each column's values beside those of rows that the model makes."""
    columns = from_json(trained.config["columns"])
    key = keys.of_run(trained.options.training.seed)["pictures"]
    made, _ = examples.generate(key, trained, len(of.test.image))
    real = tables.decode(of.test.image, columns)
    from vae_jax.run import figures  # here, as matplotlib takes a second

    figures.marginals(output / "marginals.png", real, made, tables.learned(columns))


def with_classes(values: np.ndarray, draws: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Rows [N, D] whose classes are the most frequent ones of draws [M, N, D]."""
    found = values.copy()
    for i, column in enumerate(tables.learned(from_json(config["columns"]))):
        if column.num_classes:
            counts = np.stack([(draws[..., i] == k).sum(0) for k in range(column.num_classes)])
            found[:, i] = counts.argmax(0)
    return found


def fill(
    key: jax.Array, trained: examples.Trained, data: Any, num_samples: int, num_draws: int
) -> tuple[Filled, list[str]]:
    """Rows of a file or a frame without holes: numbers by their median, classes by the commonest.

    Values that are there stay as they are, in the columns' order of the table.
    """
    columns = from_json(trained.config["columns"])
    frame, source, said = _frame(data, trained.config)
    holes = int(frame.isna().sum().sum())
    x, lines = tables.encode(frame, columns)
    lines = [f"note: {line}" for line in (*said, *lines)]
    learned = [c.name for c in columns if c.kind != "left out" and c.name in frame]
    rows = np.flatnonzero(frame[learned].isna().any(axis=1))
    found = holes_of.imputed(
        *(key, trained.model, trained.params, (x, _told(frame, trained.config, source)), rows),
        source=source,
        num_samples=num_samples,
        quantiles=(0.5,),
        num_draws=max(_DRAWS, num_draws),
    )

    def without_holes(values: np.ndarray) -> Any:
        whole = np.nan_to_num(x)
        whole[rows] = np.where(np.isnan(x[rows]), values, x[rows])
        guess, filled = tables.decode(whole, columns), frame.copy()
        for name in learned:
            if (hole := frame[name].isna()).any():
                filled[name] = frame[name].where(~hole, guess[name])
        return filled

    filled = without_holes(with_classes(found.quantiles[0], found.draws, trained.config))
    left = filled.isna().sum()
    effective = found.effective_sample_size
    lines += holes_of.said(holes - int(left.sum()), holes, num_samples, effective, "row")
    if left.any():
        names = ", ".join(left.index[left > 0][:5])
        lines.append(f"note: {names}: left as they are, as the run did not learn them")
    draws = tuple(without_holes(values) for values in found.draws[:num_draws])
    return Filled(filled, draws, effective), lines


PARTS = examples.Parts(
    load,
    make_model,
    example,
    given,
    returned,
    tables.write,
    draw,
    schedule.muon,
    conditions.drawn,
    fill,
)
