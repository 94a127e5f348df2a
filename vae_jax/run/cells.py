"""Cells by their counts, as `examples` learns them and gives them back; and their VAE."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax import networks
from vae_jax.networks import CellLabel
from vae_jax.run import count_options, examples, keys, schedule
from vae_jax.run.data import conditions as conditions_of
from vae_jax.run.data import counts, matrices, remote
from vae_jax.run.errors import DataError

_QUANTILES = np.linspace(0, 1, 101)
_DRAWN = 2_000  # for a picture
_SCVI = 10, (128,)


def load(chosen: count_options.Options) -> examples.Examples:
    """A file's cells in splits: each a `Batch` of dense rows under a `CellLabel`."""
    of = chosen.data
    asked = conditions_of.names(of.condition)
    found = counts.load(Path(remote.local(of.dataset)), asked, of.layer)
    library = found.train.library
    low, median, high = np.quantile(library, [0.05, 0.5, 0.95])
    half, tenth = np.quantile(_of_genes(found)[1], [0.5, 0.9])
    sizes = chosen.model.latent_dim, chosen.model.hidden
    lines = [
        f"{len(found.kept):,} genes; a cell has {median:,.0f} counts, 90 % of them {low:,.0f} to "
        f"{high:,.0f}",
        f"{chosen.model.likelihood}: over a Poisson's variance the median gene has {half:.2f} "
        f"times as much, a tenth of them {tenth:.2f} and more",
        f"{chosen.model.latent_dim} latents, {' and '.join(map(str, chosen.model.hidden))} hidden "
        f"units{', as scVI has' if sizes == _SCVI else ''}",
        *(f"told {column}" for column in found.columns),
    ]
    return examples.Examples(
        name=Path(of.dataset).absolute().name.partition(".")[0],
        source=found.matrix.source,
        train=batch(found.train),
        validation=batch(found.validation),
        test=batch(found.test),
        digest=found.digest,
        num=found.matrix.counts.shape[0],
        stored=stored(found),
        said={
            "num_genes": len(found.kept),
            "likelihood": chosen.model.likelihood,
            "conditions": {column.name: column.kind for column in found.columns},
            "conditional": bool(found.columns),
        },
        lines=tuple(lines),
        notes=found.matrix.notes,
    )


def batch(part: counts.Part) -> vae_jax.Batch:
    return vae_jax.Batch(part.x, CellLabel(part.library, part.told))


def stored(found: counts.Cells) -> dict[str, Any]:
    """What config.json says of the training cells: where the model starts, and makes cells from."""
    library, told = found.train.library, found.train.told
    shares, dispersion = _of_genes(found)
    # Of a negative binomial the variance over a Poisson's is 1 + mean / concentration.
    mean = shares * np.square(library, dtype=np.float64).sum() / library.sum(dtype=np.float64)
    concentrations = np.clip(mean / np.maximum(dispersion - 1, 1e-9), 0.1, 10.0)
    return {
        "genes": list(found.matrix.genes),
        "kept": found.kept.tolist(),
        "shares": shares.tolist(),
        "concentrations": concentrations.tolist(),
        "typical_library": float(np.median(library)),
        "library_quantiles": np.quantile(library, _QUANTILES).tolist(),
        # A condition may go with more counts or fewer: each row has its library size at its end.
        **conditions_of.stored(
            found.columns, None if told is None else np.column_stack([told, library])
        ),
    }


def _of_genes(found: counts.Cells) -> tuple[np.ndarray, np.ndarray]:
    """Of the training cells' genes the shares of all counts, and the variance over a Poisson's.

    That is the mean of (x - l s)^2 / (l s), which is 1 of Poisson's counts of mean l s.
    """
    x = found.matrix.counts[found.rows].astype(np.float64)
    library = found.train.library.astype(np.float64)
    totals = np.asarray(x.sum(axis=0)).reshape(-1)
    shares = (totals + 0.5) / (totals.sum() + 0.5 * len(totals))  # of none seen, half of one
    x.data = np.square(x.data) / np.repeat(library, np.diff(x.indptr))
    squares = np.asarray(x.sum(axis=0)).reshape(-1) / shares
    return shares, (squares - 2 * totals + shares * library.sum()) / len(library)


def make_model(config: Mapping[str, Any]) -> vae_jax.VAE:
    """The VAE of cells (Lopez et al. 2018), whose library size is observed.

    The encoder is given log(1 + x) and the log library size. Of the decoder's features dense layers
    make the genes' shares, which start as they are of all training cells together. Both are told
    the conditions, and the prior is not: codes are free of them, as far as z and they can be apart.
    """
    of, num = config["options"]["model"], len(config["kept"])
    hidden, told = tuple(of["hidden"]), conditions_of.num_classes(conditions_of.of_run(config))

    def condition() -> nn.Module | None:
        return networks.ColumnsCondition(told) if told else None

    mlp = networks.MLP((2 * of["latent_dim"],), hidden, condition=condition())
    encoder = networks.Encoder(networks.CountsInput(mlp, config["typical_library"]))
    rest = tuple(reversed(hidden[1:]))
    features = networks.MLP((hidden[0],), rest, condition=condition())
    head = _HEADS[of["likelihood"]](num, tuple(config["shares"]), tuple(config["concentrations"]))
    return vae_jax.make_vae(encoder, networks.LibraryDecoder(features, head), of["latent_dim"])


_Numbers = tuple[float, ...]


def _negative_binomial(num: int, shares: _Numbers, concentrations: _Numbers) -> nn.Module:
    return networks.NegativeBinomialDecoder(nn.Dense(num), shares, concentrations, shared=True)


_HEADS: dict[str, Callable[[int, _Numbers, _Numbers], nn.Module]] = {
    "poisson": lambda num, shares, _: networks.PoissonDecoder(nn.Dense(num), shares),
    "negative_binomial": _negative_binomial,
    # It starts with few zeros of their own: a negative binomial explains the most of them.
    "zero_inflated_negative_binomial": lambda num, *start: networks.ZeroInflatedDecoder(
        _negative_binomial(num, *start),
        nn.Dense(num, bias_init=nn.initializers.constant(-3.0)),
    ),
}


def example(config: Mapping[str, Any]) -> vae_jax.Batch:
    told = conditions_of.of_run(config)
    label = CellLabel(jnp.ones(1), jnp.zeros((1, len(told))) if told else None)
    return vae_jax.Batch(jnp.ones((1, len(config["kept"]))), label)


def given(cells: Any, config: Mapping[str, Any]) -> tuple[vae_jax.Batch, list[str]]:
    """The cells of a file, an AnnData, or a matrix [N, G], as the model sees them.

    Genes are found by their names, in any order; in what has no names, by their place.

    Raises:
      DataError: genes of the run are not there, or what is there is no counts.
    """
    layer, columns = config["options"]["data"]["layer"], conditions_of.of_run(config)
    told = [column.name for column in columns]
    if isinstance(cells, str | Path):
        # Another kind of file has no layers: its counts are the layer.
        layer = layer if str(cells).lower().endswith(".h5ad") else None
        matrix = matrices.read(Path(cells), told, layer)
    elif hasattr(cells, "obs"):
        matrix = matrices.of_anndata(cells, "the AnnData", told, layer)
    else:
        matrix = matrices.of_matrix(cells, config["genes"])
    unnamed = matrix.genes == tuple(map(str, range(len(matrix.genes))))
    if unnamed and len(matrix.genes) != len(config["genes"]):
        raise DataError(
            f"{matrix.source} has {len(matrix.genes):,} genes without names and the run "
            f"{len(config['genes']):,}: give counts of the same genes, or their names"
        )
    place = {name: i for i, name in enumerate(matrix.genes)}
    wanted = [config["genes"][i] for i in config["kept"]]
    if missing := [name for name in wanted if name not in place]:
        raise DataError(
            f"{matrix.source} has not the gene {missing[0]!r}, nor {len(missing) - 1:,} others of "
            f"the {len(wanted):,} that the run has learned: give counts of the same genes"
        )
    found = matrix.counts[:, [place[name] for name in wanted]]
    library = counts.libraries(found)
    notes = []
    if empty := int((library == 0).sum()):
        notes.append(f"{empty:,} cells have no counts: nothing is known of them")
    label = None
    if columns:
        if matrix.told is None:
            raise DataError(
                f"{matrix.source} has no {' and no '.join(told)}, which the run is told: give an "
                "AnnData or a file that has"
            )
        label = conditions_of.given(matrix.told, columns, matrix.source)
    x = counts.DenseRows(found, np.arange(found.shape[0]))
    return vae_jax.Batch(x, CellLabel(np.maximum(library, 1), label)), notes


def conditions(
    config: Mapping[str, Any], num: int, asked: Mapping[str, Any], seed: int
) -> tuple[CellLabel, list[str]]:
    """Library sizes, and what is told beside, as they are of the training cells.

    Raises:
      UsageError: there is no such condition, or it has no such value.
    """
    found, notes = conditions_of.drawn(config, num, asked, seed)
    if found is None:
        place = np.random.default_rng(seed).random(num)
        library = np.interp(place, _QUANTILES, config["library_quantiles"])
        return CellLabel(library.astype(np.float32)), notes
    return CellLabel(found[:, -1], found[:, :-1]), notes


def returned(
    draws: Iterator[np.ndarray], conditions: CellLabel, config: Mapping[str, Any], seed: int
) -> tuple[matrices.Matrix, list[str]]:
    """Sparse counts of all the genes, and what was told of the cells."""
    import scipy.sparse

    found = scipy.sparse.vstack([scipy.sparse.csr_matrix(x) for x in draws], format="csr")
    kept, genes = np.array(config["kept"], np.int32), tuple(config["genes"])
    shape = (found.shape[0], len(genes))
    whole = scipy.sparse.csr_matrix((found.data, kept[found.indices], found.indptr), shape)
    told = None
    if conditions.condition is not None:
        told = conditions_of.frame_of(conditions.condition, conditions_of.of_run(config))
    return matrices.Matrix(whole, genes, told, "the model"), []


def write(made: matrices.Matrix, path: Path) -> None:
    if made.told is not None and path.suffix.lower() not in (".h5ad", ".npz"):
        print(f"note: {path} has no place for each cell's {', '.join(made.told)}: a .h5ad has")
    matrices.write(made, path)


def draw(output: Path, trained: examples.Trained, of: examples.Examples, means: np.ndarray) -> None:
    """The posterior means of the test cells; each gene's mean and zeros, real and generated."""
    from vae_jax.run import figures  # here, as matplotlib takes a second

    config = trained.config
    classes = ((i, c) for i, c in enumerate(conditions_of.of_run(config)) if c.num_classes)
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    for i, column in itertools.islice(classes, 1):  # of several the first has the colours
        labels = of.test.label.condition[:, i].astype(int)
        names = tuple(str(level).strip() for level in column.levels)
    figures.latent(output / "latent.png", means, labels, names, None)
    key = keys.of_run(trained.options.training.seed)["pictures"]
    real = of.test.image[np.arange(min(_DRAWN, len(of.test.image)))]
    made, _ = examples.generate(key, trained, len(real))
    figures.genes(output / "genes.png", real, made.counts[:, config["kept"]].toarray())


PARTS = examples.Parts(
    load, make_model, example, given, returned, write, draw, schedule.adam, conditions
)
