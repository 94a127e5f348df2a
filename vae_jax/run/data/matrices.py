"""Counts, cells by genes, of .h5ad, .npz and .mtx files, as sparse matrices; and back."""

import gzip
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.run import extras
from vae_jax.run.data import beside
from vae_jax.run.data.arrays import brief
from vae_jax.run.errors import DataError, RunError, UsageError

_savez: Any = np.savez_compressed  # whose type has no room for names
_MOST = 2**24
_BARCODE = re.compile(r"[ACGTN]{10,}([-_:].*)?")


class Matrix(NamedTuple):
    """What a file holds.

    Attributes:
      counts: CSR [N, G] of whole numbers.
      genes: the names of G.
      told: a frame of N rows, what is known of the cells beside; None where nothing was asked for.
      source: where it is from.
      notes: lines for the user.
    """

    counts: Any
    genes: tuple[str, ...]
    told: Any
    source: str
    notes: tuple[str, ...] = ()


def are_counts(path: Path) -> bool:
    """Whether a .npz file is of counts: a sparse matrix of scipy's, or an array `counts` [N, G].

    Raises:
      DataError: it holds two-dimensional arrays under other names, or both counts and images.
    """
    try:
        with zipfile.ZipFile(path) as file:
            shapes = {name.removesuffix(".npy"): _shape(file, name) for name in file.namelist()}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        return False  # who reads it says what is wrong
    if {"format", "shape", "data"} <= shapes.keys():
        return True
    images = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    flat = [name for name, shape in shapes.items() if len(shape) == 2 and min(shape) > 1]
    if "counts" not in flat:
        if flat and not images:
            raise DataError(
                f"{path} has {flat[0]} of shape {shapes[flat[0]]}, which are no images: if they "
                "are counts, cells by genes, call the array counts; images are [N, H, W]"
            )
        return False
    if images:
        raise DataError(
            f"{path} has counts of shape {shapes['counts']} and {images[0]} of shape "
            f"{shapes[images[0]]}: save those that are to be learned alone"
        )
    return True


def _shape(file: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with file.open(name) as array:
        version = np.lib.format.read_magic(array)
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape: tuple[int, ...] = header(array)[0]
        return shape


def read(path: Path, told: Sequence[str] = (), layer: str | None = None) -> Matrix:
    """The counts of a file, sparse.

    Args:
      path: .h5ad, .npz, .mtx or .mtx.gz.
      told: columns of a .h5ad's obs, or arrays of a .npz, that are wanted.
      layer: of a .h5ad, in place of X.

    Raises:
      DataError: it cannot be read, or holds no counts; one line that says what to do.
      UsageError: an option is not of such a file.
      RunError: anndata is not installed.
    """
    name = path.name.lower()
    if layer is not None and not name.endswith(".h5ad"):
        raise UsageError(f"--layer is {layer} but {path} is no .h5ad file: leave it out")
    if told and not name.endswith((".h5ad", ".npz")):
        raise UsageError(
            f"--condition is {', '.join(told)} but {path} is no .h5ad or .npz file: leave it out"
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist: name a .h5ad, .npz or .mtx file of counts")
    if name.endswith(".h5ad"):
        extras.check("anndata")
    try:
        if name.endswith(".h5ad"):
            return _read_h5ad(path, told, layer)
        return _read_npz(path, told) if name.endswith(".npz") else _read_mtx(path)
    except (DataError, UsageError):
        raise
    except Exception as error:  # of anndata, h5py, NumPy, SciPy, zipfile and gzip, of every type
        raise DataError(
            f"{path} cannot be read ({brief(error)}): it is damaged, or another format than its "
            "name says; get it anew"
        ) from error


def _read_h5ad(path: Path, told: Sequence[str], layer: str | None) -> Matrix:
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice, which is said below
        data = anndata.read_h5ad(path)
    return of_anndata(data, str(path), told, layer)


def of_anndata(
    data: Any, source: str, told: Sequence[str] = (), layer: str | None = None
) -> Matrix:
    """The counts of an AnnData.

    Raises:
      DataError: as `read`.
    """
    # Of anndata 0.13 X is a layer too, without a name.
    layers = sorted(str(name) for name in data.layers if name is not None)
    if layer is not None and layer not in layers:
        has = f"its layers are {', '.join(layers)}" if layers else "it has none"
        raise DataError(f"{source} has no layer {layer!r}: {has}")
    counts = data.X if layer is None else data.layers[layer]
    if counts is None:
        raise DataError(f"{source} has no X: choose by --layer one of {', '.join(layers)}")
    cells, genes = (tuple(map(str, names)) for names in (data.obs_names, data.var_names))
    if _are_barcodes(genes) and not _are_barcodes(cells):
        raise DataError(
            f"{source} is genes by cells, as var has names such as {genes[0]!r}: save adata.T"
        )
    what = source if layer is None else f"{source}, layer {layer!r},"
    advice = "give raw counts"
    if others := [name for name in layers if name != layer]:
        advice = f"give raw counts, maybe by --layer={others[0]}"
    counts = _checked(counts, genes, what, advice)
    return Matrix(counts, genes, data.obs.reset_index(drop=True) if told else None, source)


def of_matrix(counts: Any, genes: Sequence[str]) -> Matrix:
    """Counts [N, G] of an array or a sparse matrix, whose genes are known.

    Raises:
      DataError: as `read`, or there is another number of genes.
    """
    if np.ndim(counts) != 2 or counts.shape[1] != len(genes):
        shape = np.shape(counts)
        raise DataError(f"the matrix has shape {shape}: give cells by {len(genes):,} genes")
    names = tuple(genes)
    return Matrix(
        _checked(counts, names, "the matrix", "give raw counts"), names, None, "the matrix"
    )


def _are_barcodes(names: tuple[str, ...]) -> bool:
    few = names[:100]
    return sum(bool(_BARCODE.fullmatch(name)) for name in few) > len(few) / 2


def _read_npz(path: Path, told: Sequence[str]) -> Matrix:
    import scipy.sparse

    with np.load(path) as file:
        if {"format", "shape"} <= set(file.files):
            counts = scipy.sparse.load_npz(path)
        elif "counts" in file.files:
            counts = file["counts"]
        else:
            raise DataError(
                f"{path} has the arrays {', '.join(file.files)}: save the counts, cells by genes, "
                "as an array called counts, or by scipy.sparse.save_npz"
            )
        names = file["genes"].tolist() if "genes" in file.files else None
        found = _named(counts, names, path)
        if told:
            columns, _ = beside.of_arrays(path, file, told, "all", found.counts.shape[0])
            found = found._replace(told=columns)
    return found


def _read_mtx(path: Path) -> Matrix:
    import scipy.io

    stem = re.sub(r"\.mtx(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    with _opened(path) as file:
        header = file.readline().decode("utf-8", "replace").lower().split()
        if header[:1] != ["%%matrixmarket"] or len(header) < 5:
            raise DataError(f"{path} does not begin with %%MatrixMarket: it is no .mtx file")
        if header[3] not in ("integer", "real", "unsigned-integer"):
            raise DataError(f"{path} is of {header[3]} values: save counts, whole numbers")
    with _opened(path) as file:
        counts = scipy.io.mmread(file, spmatrix=False)
    own = _first_column(path.parent, f"{stem}.genes.tsv")
    if own is not None:
        return _named(counts, own, path)
    names = _first_column(path.parent, "features.tsv") or _first_column(path.parent, "genes.tsv")
    if names is None:
        note = f"{path.name}: taken as {counts.shape[0]:,} cells by {counts.shape[1]:,} genes, as "
        return _named(counts, None, path, note + "no genes.tsv or features.tsv beside it says more")
    if len(names) == counts.shape[0]:  # as sequencers' programs write it, square ones too
        turned = counts.T
        return _named(turned, names, path, f"{path.name} is genes by cells: it was turned")
    return _named(counts, names, path)


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _first_column(folder: Path, name: str) -> list[str] | None:
    """The names in a .tsv file, or a .tsv.gz; None where there is none."""
    for path in folder / name, folder / f"{name}.gz":
        if path.is_file():
            with _opened(path) as file:
                lines = file.read().decode("utf-8").splitlines()
            return [line.split("\t")[0] for line in lines if line]
    return None


def _named(counts: Any, names: list[str] | None, path: Path, *notes: str) -> Matrix:
    """A matrix with its genes' names, or with numbers for them."""
    if np.ndim(counts) != 2:
        raise DataError(f"{path} has shape {np.shape(counts)}: counts are cells by genes, [N, G]")
    num = counts.shape[1]
    if names is not None and len(names) == counts.shape[0] != num:
        raise DataError(
            f"{path} has {num:,} columns and {len(names):,} genes' names, as many as its rows: it "
            "looks transposed; save cells by genes"
        )
    if names is not None and len(names) != num:
        raise DataError(
            f"{path} has {num:,} columns, and beside it are {len(names):,} genes' names"
        )
    genes = tuple(map(str, range(num) if names is None else names))
    return Matrix(
        _checked(counts, genes, str(path), "give raw counts"), genes, None, str(path), notes
    )


def _checked(counts: Any, genes: tuple[str, ...], what: str, advice: str) -> Any:
    """The counts as CSR, of as few bytes as hold them.

    Raises:
      DataError: they are none.
    """
    import scipy.sparse

    if 0 in counts.shape:
        raise DataError(f"{what} is empty: {counts.shape[0]} cells by {counts.shape[1]} genes")
    seen: set[str] = set()
    for name in genes:
        if name in seen:
            raise DataError(
                f"gene {name!r} is there twice in {what}: make the names unique, as "
                "adata.var_names_make_unique() does"
            )
        seen.add(name)
    if counts.dtype.kind not in "buif":
        raise DataError(f"{what} has {counts.dtype} values: {advice}, whole numbers")
    counts = scipy.sparse.csr_matrix(counts, copy=True)  # what is the caller's stays as it is
    counts.sum_duplicates()
    values = counts.data.astype(np.uint8) if counts.dtype == np.bool_ else counts.data
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((values >= 0) & (values == np.round(values)) & (values < _MOST)))
    if wrong.size:
        i, value = wrong[0], values[wrong[0]]
        cell = int(np.searchsorted(counts.indptr, i, side="right")) - 1
        why = "is no count"
        if np.isfinite(value) and value > 0:
            why = "is more than 2^24" if value >= _MOST else "is no whole number"
        raise DataError(
            f"{what} has {value:g} for gene {genes[counts.indices[i]]!r} in cell {cell}, which "
            f"{why}: {advice}"
        )
    if not values.any():
        raise DataError(f"{what} has no counts at all: every value is 0")
    counts.data = values.astype(np.min_scalar_type(int(values.max())))
    counts.eliminate_zeros()
    return counts


def write_codes(source: Path, means: np.ndarray, path: Path) -> None:
    """Writes a .h5ad file with codes [N, Z] beside its cells, as obsm["X_vae"].

    Raises:
      RunError: it cannot be written, or anndata is not installed.
    """
    data = extras.require("anndata").read_h5ad(source)
    data.obsm["X_vae"] = means
    partial = path.with_name(f".{path.name}.partial.h5ad")
    try:
        data.write_h5ad(partial)
        partial.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error}; name another place") from error


def write(cells: Matrix, path: Path) -> None:
    """Writes cells, as the ending of the name says, with the names of their genes.

    Args:
      cells: what is known of them beside goes into a .h5ad's obs, or into arrays of a .npz.
      path: .h5ad, .npz as `scipy.sparse.load_npz` reads it, or .mtx, beside which a .genes.tsv is.

    Raises:
      RunError: anndata is not installed.
    """
    import scipy.io
    import scipy.sparse

    name = path.name.lower()
    if name.endswith(".h5ad"):
        anndata, pd = extras.require("anndata"), extras.require("pandas")
        index = [str(i) for i in range(cells.counts.shape[0])]
        obs = pd.DataFrame(index=index)
        for column, values in () if cells.told is None else cells.told.items():
            dates = values.dtype.kind == "M"  # which the format does not know
            obs[column] = (values.astype(str) if dates else values).to_numpy()
        var = pd.DataFrame(index=list(cells.genes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata's about what pandas has become
            anndata.AnnData(cells.counts, obs=obs, var=var).write_h5ad(path)
    elif name.endswith(".npz"):
        of = cells.counts
        _savez(
            path,
            indices=of.indices,
            indptr=of.indptr,
            format=np.array(b"csr"),
            shape=np.array(of.shape),
            data=of.data,
            genes=np.array(cells.genes),
            **({} if cells.told is None else _as_arrays(cells.told)),
        )
    else:
        stem = re.sub(r"\.mtx(\.gz)?$", "", path.name, flags=re.IGNORECASE)
        (path.parent / f"{stem}.genes.tsv").write_text("".join(f"{g}\n" for g in cells.genes))
        with gzip.open(path, "wb") if name.endswith(".gz") else path.open("wb") as file:
            scipy.io.mmwrite(file, cells.counts.tocoo(), field="integer", symmetry="general")


def _as_arrays(frame: Any) -> dict[str, np.ndarray]:
    """A frame's columns, texts as such and not as objects, which a .npz file is not to hold."""
    columns = {name: frame[name].to_numpy() for name in frame}
    return {name: a.astype(str) if a.dtype == object else a for name, a in columns.items()}
