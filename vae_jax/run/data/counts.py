"""Cells by their counts, in splits: sparse, and dense where a batch is."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run.data import conditions, matrices
from vae_jax.run.data.columns import Column
from vae_jax.run.data.dataset import LEAST, content_hash, digest_of, splits_of
from vae_jax.run.data.matrices import Matrix
from vae_jax.run.errors import DataError

DENSE_BYTES = 10**9
"""Training cells that are larger, dense, are made dense batch by batch while it trains."""


class DenseRows:
    """Rows of a sparse matrix, dense when they are asked for.

    Attributes:
      shape: [N, D].
      dtype: float32.
    """

    def __init__(self, matrix: Any, rows: np.ndarray) -> None:
        self._matrix, self._rows = matrix, rows
        self.shape = (len(rows), matrix.shape[1])
        self.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index]
        found: np.ndarray = self._matrix[rows.reshape(-1)].toarray()
        return found.astype(np.float32).reshape(*rows.shape, self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]


class Part(NamedTuple):
    """Cells of a split: dense rows [N, D] of the genes that have counts, and what is beside them.

    Attributes:
      x: float32, an array or `DenseRows`.
      library: float32 [N], the total of each.
      told: float32 [N, C], or None.
    """

    x: Any
    library: np.ndarray
    told: np.ndarray | None


class Cells(NamedTuple):
    """Cells in three splits by their content.

    Attributes:
      matrix: all of them that have counts, and of their genes those that have.
      kept: numbers of the genes that have counts.
      columns: that the model is told.
      rows: of `matrix`, that are to train on.
      train: see `Part`.
      validation: likewise.
      test: likewise.
      digest: of all, in their order.
    """

    matrix: Matrix
    kept: np.ndarray
    columns: tuple[Column, ...]
    rows: np.ndarray
    train: Part
    validation: Part
    test: Part
    digest: str


def libraries(counts: Any) -> np.ndarray:
    """The totals of the cells [N], float32."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).reshape(-1).astype(np.float32)


def load(
    path: Path,
    condition: Mapping[str, str | None] = MappingProxyType({}),
    layer: str | None = None,
) -> Cells:
    """A file's cells in splits, which follow from their content as pictures' do.

    Cells without counts are left out, and genes without, and cells without a condition.

    Args:
      path: of the file.
      condition: columns that the model is told, each with its kind, None to find it.
      layer: of a .h5ad.

    Raises:
      DataError: it cannot be used; one line that says what to do.
    """
    matrix = matrices.read(path, tuple(condition), layer)
    notes = list(matrix.notes)
    whole, whole_genes = matrix.counts.shape
    there = libraries(matrix.counts) > 0
    if empty := int((~there).sum()):
        notes.append(f"{empty:,} of {whole:,} cells have no counts: they are left out")
    if condition:
        known = conditions.present(matrix.told, condition, matrix.source)
        if unknown := int((~known).sum()):
            lack = f"{unknown:,} of {whole:,} cells have no {' or no '.join(condition)}"
            notes.append(f"{lack}: they are left out")
        there &= known
    counts = matrix.counts[np.flatnonzero(there)]
    bounds = counts.indptr
    hashes = np.array(
        [
            content_hash(np.stack([counts.indices[a:b], counts.data[a:b]]).astype(np.int64))
            for a, b in itertools.pairwise(bounds)
        ],
        np.uint64,
    )
    of_genes = np.asarray(counts.sum(axis=0, dtype=np.float64)).reshape(-1)
    kept = np.flatnonzero(of_genes)
    if len(kept) < len(of_genes):
        notes.append(
            f"{len(of_genes) - len(kept):,} of {len(of_genes):,} genes have no counts: they are "
            "not learned, and zero in cells that are made"
        )
        counts = counts[:, kept]
    told: Any = matrix.told.loc[there].reset_index(drop=True) if condition else None
    if len(hashes) < LEAST <= whole_genes:
        raise DataError(
            f"{matrix.source} has {len(hashes)} cells with counts, of {whole_genes:,} genes: it "
            "looks transposed; save cells by genes, or more cells"
        )
    rows = splits_of(hashes, matrix.source, "cells")
    columns = conditions.columns_of(told, condition, rows[2], matrix.source)
    labels, rows, lines = conditions.encode_known(told, columns, rows, matrix.source)
    described = ("\x1f".join(map(str, told[name].tolist())).encode() for name in condition)
    return in_parts(
        matrix._replace(counts=counts, told=told, notes=(*notes, *lines)),
        rows,
        kept,
        labels,
        columns,
        digest_of(hashes, *(np.frombuffer(of, np.uint8) for of in described)),
    )


def in_parts(
    matrix: Matrix,
    rows: Sequence[np.ndarray],
    kept: np.ndarray,
    labels: Sequence[np.ndarray | None] = (None, None, None),
    columns: tuple[Column, ...] = (),
    digest: str = "",
) -> Cells:
    """Cells in splits that are chosen.

    Args:
      matrix: whose counts are those of the genes that are kept.
      rows: to test, to validate and to train on.
      kept: numbers of those genes.
      labels: float32 [N, C], what the model is told of those of each split; or None.
      columns: that it is told.
      digest: of all.
    """
    counts, library = matrix.counts, libraries(matrix.counts)

    def part(rows: np.ndarray, label: np.ndarray | None) -> Part:
        x: Any = DenseRows(counts, rows)
        if 4 * x.shape[0] * x.shape[1] <= DENSE_BYTES:
            x = np.asarray(x)
        return Part(x, library[rows], label)

    test, validation, train = map(part, rows, labels)
    return Cells(matrix, kept, columns, rows[2], train, validation, test, digest)
