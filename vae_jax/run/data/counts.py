"""Cells by their counts, in splits: sparse, and dense where a batch is."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run.data import matrices
from vae_jax.run.data.dataset import LEAST, content_hash, digest_of, natural, splits_of
from vae_jax.run.data.matrices import Matrix
from vae_jax.run.errors import DataError

DENSE_BYTES = 10**9
"""Training cells that are larger, dense, are made dense batch by batch while it trains."""

_MOST_CATEGORIES = 1_000


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
      category: int32 [N], or None.
    """

    x: Any
    library: np.ndarray
    category: np.ndarray | None


class Cells(NamedTuple):
    """Cells in three splits by their content.

    Attributes:
      matrix: all of them that have counts, and of their genes those that have.
      kept: numbers of the genes that have counts.
      names: of the categories, in the order of their numbers.
      rows: of `matrix`, that are to train on.
      train: see `Part`.
      validation: likewise.
      test: likewise.
      digest: of all, in their order.
    """

    matrix: Matrix
    kept: np.ndarray
    names: tuple[str, ...]
    rows: np.ndarray
    train: Part
    validation: Part
    test: Part
    digest: str


def libraries(counts: Any) -> np.ndarray:
    """The totals of the cells [N], float32."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).reshape(-1).astype(np.float32)


def load(path: Path, condition: str | None = None, layer: str | None = None) -> Cells:
    """A file's cells in splits, which follow from their content as pictures' do.

    Cells without counts are left out, and genes without, and cells without a category.

    Raises:
      DataError: it cannot be used; one line that says what to do.
    """
    matrix = matrices.read(path, condition, layer)
    notes = list(matrix.notes)
    whole, whole_genes = matrix.counts.shape
    there = libraries(matrix.counts) > 0
    if empty := int((~there).sum()):
        notes.append(f"{empty:,} of {whole:,} cells have no counts: they are left out")
    if matrix.categories is not None:
        known = np.array([value is not None for value in matrix.categories])
        if unknown := int((~known).sum()):
            notes.append(f"{unknown:,} of {whole:,} cells have no {condition}: they are left out")
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
    categories = None if matrix.categories is None else matrix.categories[there]
    names, codes = _numbered(categories, condition, matrix.source)
    if len(hashes) < LEAST <= whole_genes:
        raise DataError(
            f"{matrix.source} has {len(hashes)} cells with counts, of {whole_genes:,} genes: it "
            "looks transposed; save cells by genes, or more cells"
        )
    rows = splits_of(hashes, matrix.source, "cells")
    described = () if codes is None else (codes, np.frombuffer("\x1f".join(names).encode(), "u1"))
    return in_parts(
        matrix._replace(counts=counts, categories=categories, notes=tuple(notes)),
        rows,
        kept,
        names,
        codes,
        digest_of(hashes, *described),
    )


def in_parts(
    matrix: Matrix,
    rows: Sequence[np.ndarray],
    kept: np.ndarray,
    names: tuple[str, ...] = (),
    codes: np.ndarray | None = None,
    digest: str = "",
) -> Cells:
    """Cells in splits that are chosen.

    Args:
      matrix: whose counts are those of the genes that are kept.
      rows: to test, to validate and to train on.
      kept: numbers of those genes.
      names: of the categories.
      codes: int32 [N], numbers of the cells' categories; or None.
      digest: of all.
    """
    counts, library = matrix.counts, libraries(matrix.counts)

    def part(rows: np.ndarray) -> Part:
        x: Any = DenseRows(counts, rows)
        if 4 * x.shape[0] * x.shape[1] <= DENSE_BYTES:
            x = np.asarray(x)
        return Part(x, library[rows], None if codes is None else codes[rows])

    test, validation, train = map(part, rows)
    return Cells(matrix, kept, names, rows[2], train, validation, test, digest)


def _numbered(
    categories: np.ndarray | None, condition: str | None, source: str
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """The names of categories in natural order, and the number of each cell's."""
    if categories is None:
        return (), None
    names = tuple(sorted(set(categories.tolist()), key=natural))
    if len(names) < 2 or len(names) > _MOST_CATEGORIES:
        raise DataError(
            f"column {condition!r} of {source} has {len(names):,} values: a condition has 2 to "
            f"{_MOST_CATEGORIES:,}; choose another, or leave it out"
        )
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number[value] for value in categories], np.int32)
