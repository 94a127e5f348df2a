"""A run on counts, by its commands: train, generate, evaluate, resume; and what it stores."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
import scipy.sparse

import vae_jax
from vae_jax.networks import CellLabel
from vae_jax.run import cells, examples, folder, kinds, loaded_examples, measure
from vae_jax.run.commands import evaluate, generate, impute, train
from vae_jax.run.data import counts, matrices
from vae_jax.run.errors import DataError, UsageError

# Of anndata's, about what pandas has become.
pytestmark = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")

N, G = 200, 9
RNG = np.random.default_rng(0)
LIBRARY = RNG.integers(50, 400, N)
SHARES = RNG.dirichlet(np.full(G, 2.0))
# A quarter overdispersed by a concentration of 2, and the last gene never seen.
RATE = LIBRARY[:, None] * SHARES * np.where(np.arange(G) < 3, RNG.gamma(2.0, 0.5, (N, G)), 1.0)
COUNTS = RNG.poisson(RATE)
COUNTS[:, -1] = 0
GENES = tuple(f"gene{i}" for i in range(G))
BATCH = np.array([f"b{i % 2}" for i in range(N)], object)


def found(categories=None):
    """The cells, split as they come."""
    kept = np.arange(G - 1)
    matrix = matrices.Matrix(
        scipy.sparse.csr_matrix(COUNTS[:, kept].astype(np.uint16)), GENES, categories, "here"
    )
    codes = None if categories is None else np.array([int(c[1]) for c in categories], np.int32)
    names = () if categories is None else ("b0", "b1")
    rows = np.arange(0, 20), np.arange(20, 40), np.arange(40, N)
    return counts.in_parts(matrix, rows, kept, names, codes)


def config_of(of, **model):
    chosen = {"likelihood": "negative_binomial", "latent_dim": 2, "hidden": [4], **model}
    data = {"condition": "batch" if of.names else None, "layer": None}
    return {**cells.stored(of), "options": {"model": chosen, "data": data}}


def test_what_is_stored_is_of_the_training_cells_and_json():
    config = json.loads(json.dumps(config_of(found(BATCH))))
    train_x = COUNTS[40:, :-1].astype(np.float64)
    library = train_x.sum(1)
    shares = (train_x.sum(0) + 0.5) / (train_x.sum() + 0.5 * (G - 1))
    np.testing.assert_allclose(config["shares"], shares, rtol=1e-6)
    mean = library[:, None] * shares
    dispersion = (np.square(train_x - mean) / mean).mean(0)
    np.testing.assert_allclose(cells._of_genes(found(BATCH))[1], dispersion, rtol=1e-6)
    assert (dispersion[:3] > 4).all()
    assert (np.array(config["concentrations"])[:3] < 6).all()
    assert config["typical_library"] == np.median(library)
    assert config["category_shares"] == [80, 80]
    for i in range(2):
        of_batch = library[i::2]
        np.testing.assert_allclose(config["library_quantiles"][i][50], np.median(of_batch))


def test_new_cells_have_the_library_sizes_and_the_categories_of_the_training_cells():
    config = config_of(found(BATCH))
    label = cells.conditions(config, 4_000, {}, 0)[0]
    library = COUNTS[40:].sum(1)
    assert abs(label.category.mean() - 0.5) < 0.05
    for q in 0.1, 0.5, 0.9:
        np.testing.assert_allclose(
            np.quantile(label.library, q), np.quantile(library, q), rtol=0.05
        )
    assert (cells.conditions(config, 5, {"batch": "b1"}, 0)[0].category == 1).all()
    with pytest.raises(UsageError, match="--condition has batch=b7: give one of b0, b1"):
        cells.conditions(config, 5, {"batch": "b7"}, 0)
    with pytest.raises(UsageError, match="--condition has age but the run is conditional on ba"):
        cells.conditions(config, 5, {"age": "1"}, 0)
    assert cells.conditions(config_of(found()), 5, {}, 0)[0].category is None


def test_draws_come_back_as_sparse_counts_of_all_genes():
    config = config_of(found(BATCH))
    x = COUNTS[:5, :-1].astype(np.int32)
    label = CellLabel(x.sum(1), np.array([0, 1, 1, 0, 1], np.int32))
    (made, condition), notes = cells.returned(iter([x[:3], x[3:]]), label, config, 0)
    np.testing.assert_array_equal(made.counts.toarray(), COUNTS[:5])
    assert (made.genes, condition, notes) == (GENES, "batch", [])
    assert made.categories.tolist() == ["b0", "b1", "b1", "b0", "b1"]


def test_genes_are_found_by_their_names_and_cells_by_their_category():
    anndata = pytest.importorskip("anndata")
    pd = pytest.importorskip("pandas")
    config = config_of(found(BATCH))
    order = RNG.permutation(G)
    obs = pd.DataFrame({"batch": BATCH}, index=[str(i) for i in range(N)])
    var = pd.DataFrame(index=np.array(GENES)[order])
    data = anndata.AnnData(scipy.sparse.csr_matrix(COUNTS[:, order]), obs=obs, var=var)
    (x, label), notes = cells.given(data, config)
    np.testing.assert_array_equal(x, COUNTS[:, :-1])
    np.testing.assert_array_equal(label.library, COUNTS.sum(1))
    assert label.category.tolist() == [i % 2 for i in range(N)]
    assert not notes
    with pytest.raises(DataError, match=r"has not the gene 'gene0', nor 0 others of the 8 that"):
        cells.given(data[:, [name != "gene0" for name in data.var_names]].copy(), config)
    data.obs["batch"] = "b7"
    with pytest.raises(DataError, match="has cells of batch 'b7', of which the run saw none"):
        cells.given(data, config)


def test_a_file_of_other_genes_without_names_is_refused(tmp_path):
    config = {**config_of(found()), "genes": [str(i) for i in range(G)]}
    scipy.sparse.save_npz(tmp_path / "more.npz", scipy.sparse.csr_matrix(np.hstack([COUNTS] * 2)))
    with pytest.raises(DataError, match=f"has {2 * G} genes without names and the run {G}: give"):
        cells.given(tmp_path / "more.npz", config)


def test_a_file_that_has_no_layers_and_no_columns(tmp_path):
    """Its counts are taken for those of the run's layer; what the run is told must be there."""
    scipy.sparse.save_npz(tmp_path / "some.npz", scipy.sparse.csr_matrix(COUNTS))
    plain, told = config_of(found()), config_of(found(BATCH))
    for config in plain, told:
        config["options"]["data"]["layer"] = "counts"
        config["genes"] = [str(i) for i in range(G)]
    (x, _), _ = cells.given(tmp_path / "some.npz", plain)
    np.testing.assert_array_equal(x[np.arange(N)], COUNTS[:, :-1])
    told["options"]["data"]["condition"] = "batch"
    with pytest.raises(DataError, match=r"has no batch, which the run is told: give a .h5ad file"):
        cells.given(tmp_path / "some.npz", told)


def test_a_matrix_without_names_is_of_the_runs_genes_in_order():
    config = config_of(found())
    empty = COUNTS[:3].copy()
    empty[1] = 0
    (x, label), notes = cells.given(empty, config)
    np.testing.assert_array_equal(np.asarray(x), empty[:, :-1])
    assert label.library.tolist() == [empty[0].sum(), 1.0, empty[2].sum()]
    assert notes == ["1 cells have no counts: nothing is known of them"]
    with pytest.raises(DataError, match=r"has shape \(3, 8\): give cells by 9 genes"):
        cells.given(empty[:, :8], config)
    with pytest.raises(DataError, match="has no batch, which the run is told"):
        cells.given(empty, config_of(found(BATCH)))


def test_codes_and_scores_of_a_matrix_are_those_of_the_model():
    config = config_of(found())
    model = cells.make_model(config)
    params = jax.jit(model.init)(jax.random.key(0), *cells.example(config))
    trained = examples.Trained(kinds.KINDS["counts"], model, params, 0, None, config)
    loaded = loaded_examples.TrainedExamples(trained, None)
    means, scales, _ = loaded.encode(COUNTS[:5])
    x = jnp.asarray(COUNTS[:5, :-1], jnp.float32)
    posterior = jax.jit(model.encode)(params, x, CellLabel(x.sum(-1)))
    np.testing.assert_allclose(means, posterior.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scales, posterior.scale, rtol=1e-5)
    scored = loaded.score(COUNTS[:5], num_samples=5000).log_likelihood
    expected = vae_jax.evaluate(
        jax.random.key(1), model, params, x, CellLabel(x.sum(-1)), num_samples=5000
    )
    np.testing.assert_allclose(scored, expected.estimate.value, atol=1)


SMALL = ("--hidden", "8", "--latent-dim=2", "--num-importance-samples=5", "--batch-size=50")
relax = pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of two epochs, under a condition, and its file."""
    anndata, pd = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    place = tmp_path_factory.mktemp("cells")
    obs = pd.DataFrame({"batch": BATCH}, index=[str(i) for i in range(N)])
    of = scipy.sparse.csr_matrix(COUNTS.astype(np.float32))
    anndata.AnnData(of, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(place / "pbmc.h5ad")
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.chdir(place)
        arguments = ["pbmc.h5ad", "--condition=batch", "--output=run", "--epochs=2", *SMALL]
        train.main(arguments, "vae-jax train")
        folder.unlock(Path("run"))
    return place


@pytest.mark.long
@relax
def test_a_run_leaves_numbers_pictures_and_cells(trained, monkeypatch, capsys):
    anndata = pytest.importorskip("anndata")
    monkeypatch.chdir(trained)
    results = json.loads(Path("run/results.json").read_text())
    assert (results["num_genes"], results["classes"]) == (G - 1, ["b0", "b1"])
    assert results["num_train"] + results["num_validation"] + results["num_test"] == N
    assert results["test_log_likelihood"] > results["test_elbo"] - 0.1
    assert results["test_elbo_standard_error_over_examples"] > 0
    for name in "genes.png", "latent.png", "curves.png", "metrics.jsonl":
        assert (Path("run") / name).stat().st_size > 0

    generate.main(["run", "--num=50", "--condition=batch=b1"], "vae-jax generate")
    made = anndata.read_h5ad("cells.h5ad")
    assert (made.shape, tuple(made.var_names)) == ((50, G), GENES)
    assert set(made.obs["batch"]) == {"b1"}
    assert not made.X[:, -1].toarray().any()
    readers = scipy.sparse.load_npz, functools.partial(scipy.io.mmread, spmatrix=False)
    for output, read in zip(("c.npz", "c.mtx.gz"), readers, strict=True):
        generate.main(["run", "--num=20", f"--output={output}"], "vae-jax generate")
        assert read(output).shape == (20, G)
    assert "note: c.npz has no place for each cell's batch" in capsys.readouterr().out
    assert Path("c.genes.tsv").read_text().split() == list(GENES)

    evaluate.main(["run", "--num-samples=5"], "vae-jax evaluate")
    again = json.loads(Path("run/evaluation.json").read_text())
    assert again["parameters_sha256"] == results["parameters_sha256"]
    with pytest.raises(UsageError, match="run holds a run on counts, and impute is for"):
        impute.main(["run", "pbmc.h5ad"], "vae-jax impute")
    with pytest.raises(UsageError, match=r"--output=c.png has no ending of counts: name it,"):
        generate.main(["run", "--output=c.png"], "vae-jax generate")


@pytest.mark.long
@relax
def test_a_resumed_run_and_a_streamed_one_are_the_unbroken_one(trained, monkeypatch):
    monkeypatch.chdir(trained)
    arguments = ["pbmc.h5ad", "--condition=batch", *SMALL, "--patience=0", "--epochs=3"]
    train.main([*arguments, "--output=whole"], "vae-jax train")
    monkeypatch.setattr(counts, "DENSE_BYTES", 0)
    train.main([*arguments, "--output=streamed"], "vae-jax train")
    validation = measure.validation

    def failing(*of):
        validate, calls = validation(*of), []

        def once(params):
            calls.append(params)
            if len(calls) == 2:
                raise RuntimeError("the machine fails")
            return validate(params)

        return once

    with monkeypatch.context() as patch:
        patch.setattr(measure, "validation", failing)
        broken = [*arguments, "--output=broken", "--checkpoint-seconds=0"]
        with pytest.raises(RuntimeError, match="the machine fails"):
            train.main(broken, "vae-jax train")
    folder.unlock(Path("broken"))
    train.main(["--output=broken", "--resume"], "vae-jax train")
    whole, streamed, broken = (
        json.loads((Path(name) / "results.json").read_text())
        for name in ("whole", "streamed", "broken")
    )
    for other in streamed, broken:
        assert other["parameters_sha256"] == whole["parameters_sha256"]
        assert other["test_elbo"] == whole["test_elbo"]
        assert other["epochs"] == 3
