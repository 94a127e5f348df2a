"""Counts from files: what SciPy and anndata read is learned, and each mistake is one line."""

import gzip
import re

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

from vae_jax.run.commands import train
from vae_jax.run.data import counts, matrices, stream
from vae_jax.run.errors import DataError, UsageError

# Of anndata's, about what pandas has become.
pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")

N, G = 60, 7
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(1.0, 2.0, (N, G))).astype(np.int64)
COUNTS[:, 0] += 1  # no cell is without
GENES = [f"gene{i}" for i in range(G)]


def anndata_of(values=COUNTS, genes=GENES, cells=None, **more):
    """An AnnData with a column of two batches; skips where anndata is not installed."""
    anndata = pytest.importorskip("anndata")
    num = values.shape[0]
    obs = pd.DataFrame(
        {"batch": [f"b{i % 2}" for i in range(num)], "depth": np.arange(num) + 0.5},
        index=cells or [f"cell{i}" for i in range(num)],
    )
    var = pd.DataFrame(index=list(genes)[: values.shape[1]])
    return anndata.AnnData(values, obs=obs, var=var, **more)


def write_npz(path, values):
    scipy.sparse.save_npz(path, scipy.sparse.csc_matrix(values))


def write_mtx(path, values):
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        scipy.io.mmwrite(file, scipy.sparse.coo_matrix(values))


WRITERS = {
    "a.npz": write_npz,
    "dense.npz": lambda path, values: np.savez(path, counts=values.astype(np.uint16), genes=GENES),
    "a.mtx": write_mtx,
    "a.mtx.gz": write_mtx,
    "sparse.h5ad": lambda path, v: anndata_of(scipy.sparse.csr_matrix(v, dtype="f4")).write_h5ad(
        path
    ),
    "dense.h5ad": lambda path, v: anndata_of(v.astype(np.float32)).write_h5ad(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_each_format_is_read_as_it_was_written(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, COUNTS)
    matrix = matrices.read(path)
    np.testing.assert_array_equal(matrix.counts.toarray(), COUNTS)
    named = name in ("dense.npz", "sparse.h5ad", "dense.h5ad")
    assert matrix.genes == tuple(GENES if named else map(str, range(G)))
    assert matrix.counts.data.dtype == np.uint8  # as few bytes as hold them


@pytest.mark.parametrize("name", ["out.npz", "out.mtx", "out.mtx.gz", "out.h5ad"])
def test_what_is_written_is_read_by_scipy_and_anndata(name, tmp_path):
    if name == "out.h5ad":
        pytest.importorskip("anndata")
    path = tmp_path / name
    told = pd.DataFrame({"batch": ["b0", "b1"] * (N // 2), "age": np.arange(N) + 0.5})
    told["day"] = pd.Timestamp("2020-01-02")
    given = matrices.Matrix(scipy.sparse.csr_matrix(COUNTS), tuple(GENES), told, "")
    matrices.write(given, path)
    if name == "out.h5ad":
        import anndata

        read = anndata.read_h5ad(path)
        found = read.X.toarray()
        assert list(read.var_names) == GENES
        assert list(read.obs["batch"]) == told["batch"].tolist()
        assert list(read.obs["age"]) == told["age"].tolist()
        assert set(read.obs["day"]) == {"2020-01-02"}
    elif name == "out.npz":
        found = scipy.sparse.load_npz(path).toarray()
        back = matrices.read(path, ("batch", "age")).told
        np.testing.assert_array_equal(back.to_numpy(), told[["batch", "age"]].to_numpy())
    else:
        found = scipy.io.mmread(path, spmatrix=False).toarray()
    np.testing.assert_array_equal(found, COUNTS)
    again = matrices.read(path)
    assert again.genes == tuple(GENES)
    np.testing.assert_array_equal(again.counts.toarray(), COUNTS)


def test_codes_are_written_beside_the_cells(tmp_path):
    anndata_of().write_h5ad(tmp_path / "cells.h5ad")
    codes = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    matrices.write_codes(tmp_path / "cells.h5ad", codes, tmp_path / "coded.h5ad")
    import anndata

    read = anndata.read_h5ad(tmp_path / "coded.h5ad")
    np.testing.assert_array_equal(read.obsm["X_vae"], codes)
    np.testing.assert_array_equal(read.X, COUNTS)
    assert not list(tmp_path.glob(".*"))


def test_sequencers_files_are_turned(tmp_path):
    write_mtx(tmp_path / "matrix.mtx.gz", COUNTS.T)
    with gzip.open(tmp_path / "features.tsv.gz", "wt") as file:
        file.write("".join(f"{name}\tsymbol\tGene Expression\n" for name in GENES))
    matrix = matrices.read(tmp_path / "matrix.mtx.gz")
    np.testing.assert_array_equal(matrix.counts.toarray(), COUNTS)
    assert matrix.genes == tuple(GENES)
    assert matrix.notes == ("matrix.mtx.gz is genes by cells: it was turned",)


def test_cells_and_genes_without_counts_are_left_out_and_said(tmp_path):
    values = COUNTS.copy()
    values[[3, 5]] = 0
    values[:, 4] = 0
    write_npz(tmp_path / "a.npz", values)
    cells = counts.load(tmp_path / "a.npz")
    assert cells.matrix.notes == (
        "2 of 60 cells have no counts: they are left out",
        "1 of 7 genes have no counts: they are not learned, and zero in cells that are made",
    )
    kept = np.delete(np.delete(values, [3, 5], axis=0), 4, axis=1)
    assert cells.kept.tolist() == [0, 1, 2, 3, 5, 6]
    parts = cells.train, cells.validation, cells.test
    rows = np.concatenate([part.x for part in parts])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, kept))
    for part in parts:
        np.testing.assert_array_equal(part.library, part.x.sum(1))
        assert part.told is None


def test_a_cell_never_leaves_the_test_set_where_data_grow(tmp_path):
    values = RNG.poisson(3.0, (1_200, G)) + 1
    write_npz(tmp_path / "few.npz", values[:1_000])
    write_npz(tmp_path / "more.npz", values[::-1])
    few, more = (counts.load(tmp_path / name) for name in ("few.npz", "more.npz"))
    assert few.digest != more.digest
    test, grown = ({tuple(x) for x in of.test.x} for of in (few, more))
    assert 50 < len(test) < 150
    assert test <= grown
    assert not grown & {tuple(x) for x in more.train.x}


def test_streamed_batches_are_the_dense_ones(tmp_path, monkeypatch):
    write_npz(tmp_path / "a.npz", COUNTS)
    dense = counts.load(tmp_path / "a.npz").train
    monkeypatch.setattr(counts, "DENSE_BYTES", 0)
    rows = counts.load(tmp_path / "a.npz").train
    assert isinstance(rows.x, counts.DenseRows)
    assert (rows.x.shape, rows.x.dtype) == (dense.x.shape, dense.x.dtype)
    orders = [RNG.permutation(len(dense.x))[:24].reshape(3, 8) for _ in range(2)]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    how = (lambda epoch: orders[epoch], mesh, 0, 2)
    found = []
    for part, pieces in (dense, stream.resident), (rows, stream.stream):
        batches = []
        for piece in pieces((part.x, part.library), *how):
            order = np.asarray(piece.order)[piece.start : piece.stop]
            if pieces is stream.stream:  # a piece holds its steps' examples alone
                order = np.arange(piece.stop - piece.start)
            batches.append([np.asarray(leaf)[order] for leaf in piece.dataset])
        found.append([np.concatenate(of) for of in zip(*batches, strict=True)])
    for streamed, resident in zip(*found, strict=True):
        np.testing.assert_array_equal(streamed, resident)


def test_a_column_of_obs_is_the_condition(tmp_path):
    data = anndata_of()
    data.obs["batch"] = [None if i == 2 else f"b{i % 11}" for i in range(N)]
    data.write_h5ad(tmp_path / "a.h5ad")
    plain = counts.load(tmp_path / "a.h5ad")
    cells = counts.load(tmp_path / "a.h5ad", {"batch": None, "depth": None})
    assert [column.kind for column in cells.columns] == ["category", "number"]
    levels = cells.columns[0].levels
    assert set(levels) == {f"b{i}" for i in range(11)}
    assert "1 of 60 cells have no batch or no depth: they are left out" in cells.matrix.notes
    of_cell = {tuple(x): (f"b{i % 11}", i + 0.5) for i, x in enumerate(COUNTS)}
    for part in cells.train, cells.validation, cells.test:
        batch, depth = zip(*(of_cell[tuple(x)] for x in part.x.astype(int)), strict=True)
        assert [levels[int(of)] for of in part.told[:, 0]] == list(batch)
        scaled = (np.array(depth) - cells.columns[1].centre) / cells.columns[1].spread
        np.testing.assert_allclose(part.told[:, 1], scaled, rtol=1e-5, atol=1e-6)
    data.obs["depth"] += 1  # what a run is told is its data too
    data.write_h5ad(tmp_path / "b.h5ad")
    assert counts.load(tmp_path / "b.h5ad").digest == plain.digest != cells.digest
    assert counts.load(tmp_path / "b.h5ad", {"depth": None}).digest not in (
        counts.load(tmp_path / "a.h5ad", {"depth": None}).digest,
        cells.digest,
    )


def test_arrays_of_an_npz_are_conditions(tmp_path):
    age = np.arange(N) + 0.25
    np.savez(tmp_path / "a.npz", counts=COUNTS, age=age, site=np.array(["b", "a"] * (N // 2)))
    cells = counts.load(tmp_path / "a.npz", {"site": None, "age": None})
    assert [column.levels for column in cells.columns] == [("b", "a"), ()]
    assert cells.train.told.shape == (len(cells.train.library), 2)
    with pytest.raises(DataError, match="has no array 'sex' to condition on but counts, age, si"):
        counts.load(tmp_path / "a.npz", {"sex": None})


def refused(path, said, *arguments, error=DataError):
    with pytest.raises(error, match=said) as raised:
        matrices.read(path, *arguments)
    assert "\n" not in str(raised.value)


LOGGED = np.log1p(COUNTS).astype(np.float32)
VALUES = {
    "logged": (LOGGED, r"has 1\.09\d* for gene '\d' in cell \d+, which is no whole number: give r"),
    "negative": (COUNTS - 5, r"has -\d for gene '\d' in cell 0, which is no count"),
    "missing": (np.where(COUNTS.max() == COUNTS, np.nan, COUNTS), r"has nan for .* is no count"),
    "huge": (COUNTS * 2**24, r"which is more than 2\^24"),
    "no cells": (COUNTS[:0], "is empty: 0 cells by 7 genes"),
    "no genes": (COUNTS[:, :0], "is empty: 60 cells by 0 genes"),
    "zeros": (0 * COUNTS, "has no counts at all: every value is 0"),
    "complex": (COUNTS * 1j, "has complex128 values: give raw counts"),
    "three axes": (COUNTS[..., None], r"has shape \(60, 7, 1\): counts are cells by genes"),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_no_count_is_one_line(name, tmp_path):
    values, said = VALUES[name]
    np.savez(tmp_path / "a.npz", counts=values)
    refused(tmp_path / "a.npz", said)


def test_files_that_cannot_be_used_are_one_line(tmp_path):
    refused(tmp_path / "no.mtx", r"does not exist: name a \.h5ad, \.npz or \.mtx file of counts")
    write_mtx(tmp_path / "a.mtx.gz", COUNTS)
    whole = (tmp_path / "a.mtx.gz").read_bytes()
    (tmp_path / "torn.mtx.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plain.mtx.gz").write_text("%%MatrixMarket matrix coordinate integer general\n")
    (tmp_path / "text.mtx").write_text("a,b\n1,2\n")
    (tmp_path / "ones.mtx").write_text("%%MatrixMarket matrix coordinate pattern general\n1 1 0\n")
    (tmp_path / "short.mtx").write_text(
        "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 4\n"
    )
    np.savez(tmp_path / "other.npz", genes=GENES)
    np.savez(tmp_path / "names.npz", counts=COUNTS, genes=GENES[1:])
    np.savez(tmp_path / "twice.npz", counts=COUNTS, genes=["a", *GENES[2:], "gene3"])
    for name, said in {
        "torn.mtx.gz": r"cannot be read \(EOFError.*get it anew",
        "plain.mtx.gz": r"cannot be read \(BadGzipFile",
        "text.mtx": "does not begin with %%MatrixMarket",
        "ones.mtx": "is of pattern values: save counts",
        "short.mtx": r"cannot be read \(",
        "other.npz": r"has the arrays genes: save the counts, cells by genes, as an array called c",
        "names.npz": "has 7 columns, and beside it are 6 genes' names",
        "twice.npz": "gene 'gene3' is there twice in .*: make the names unique",
    }.items():
        refused(tmp_path / name, said)
    few = tmp_path / "few.npz"
    write_npz(few, COUNTS[:9])
    with pytest.raises(DataError, match="has 9 cells: 20 are the least"):
        counts.load(few)
    write_npz(tmp_path / "turned.npz", COUNTS.T)
    with pytest.raises(DataError, match="has 7 cells with counts, of 60 genes: it looks transpo"):
        counts.load(tmp_path / "turned.npz")
    np.savez(tmp_path / "named.npz", counts=COUNTS.T, genes=GENES)
    with pytest.raises(DataError, match="60 columns and 7 genes' names, as many as its rows: it l"):
        counts.load(tmp_path / "named.npz")
    refused(few, "--layer is counts but .* is no .h5ad file", (), "counts", error=UsageError)
    said = "--condition is batch but .*a.mtx.gz is no .h5ad or .npz file: leave it out"
    refused(tmp_path / "a.mtx.gz", said, ("batch",), error=UsageError)


def test_h5ad_files_that_cannot_be_used_are_one_line(tmp_path):
    path = tmp_path / "a.h5ad"
    anndata_of(LOGGED, layers={"counts": COUNTS}).write_h5ad(path)
    refused(path, r"which is no whole number: give raw counts, maybe by --layer=counts")
    np.testing.assert_array_equal(matrices.read(path, (), "counts").counts.toarray(), COUNTS)
    refused(path, "has no layer 'raw': its layers are counts", (), "raw")
    with pytest.raises(DataError, match="no column 'lab' to condition on but batch, depth"):
        counts.load(path, {"lab": None}, "counts")
    barcodes = ["".join(RNG.choice(list("ACGT"), 12)) + "-1" for _ in range(N)]
    anndata_of(COUNTS.T, genes=barcodes, cells=GENES).write_h5ad(path)
    refused(path, rf"is genes by cells, as var has names such as '{barcodes[0]}': save adata\.T")
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, r"cannot be read \(OSError")
    data = anndata_of()
    data.obs["batch"] = "one"
    data.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(DataError, match=r"column 'batch' of .* is no condition: constant"):
        counts.load(tmp_path / "b.h5ad", {"batch": None})


def test_an_npz_is_of_counts_or_of_images_by_its_content(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, COUNTS)
    assert matrices.are_counts(path)
    np.savez(path, counts=COUNTS)
    assert matrices.are_counts(path)
    for arrays in ({"x": np.zeros((9, 4, 4))}, {"images": np.zeros((9, 4, 4)), "y": np.eye(9)}):
        np.savez(path, **arrays)
        assert not matrices.are_counts(path)
    np.savez(path, x=COUNTS)
    line = r"has x of shape \(60, 7\), which are no images: if they are counts, .* call the array c"
    with pytest.raises(DataError, match=line):
        matrices.are_counts(path)
    np.savez(path, counts=COUNTS, images=np.zeros((9, 4, 4)))
    line = r"has counts of shape \(60, 7\) and images of shape \(9, 4, 4\): save those that are to"
    with pytest.raises(DataError, match=line):
        train.main([str(path)], "vae-jax train")
    path.write_text("no zip")
    assert not matrices.are_counts(path)


def test_the_subset_of_real_cells_works_as_it_is(shared_data):
    if shared_data is None:
        pytest.skip("no shared data")
    path = shared_data / "counts" / "pbmc10k_subset_counts.npz"
    assert matrices.are_counts(path)
    matrix = matrices.read(path)
    np.testing.assert_array_equal(matrix.counts.toarray(), np.load(path)["counts"])


def test_without_anndata_what_installs_it_is_said(monkeypatch, tmp_path):
    (tmp_path / "a.h5ad").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = re.escape('anndata is not installed: pip install "vae_jax[counts]"')
    with pytest.raises(Exception, match=line):
        matrices.read(tmp_path / "a.h5ad")
