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
from vae_jax.run.data import conditions, counts, matrices
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
AGE = (LIBRARY / 10).round(1)  # goes with the library size


def found(*, told=False):
    """The cells, split as they come, under a batch and an age."""
    kept = np.arange(G - 1)
    matrix = matrices.Matrix(
        scipy.sparse.csr_matrix(COUNTS[:, kept].astype(np.uint16)), GENES, None, "here"
    )
    rows = np.arange(0, 20), np.arange(20, 40), np.arange(40, N)
    if not told:
        return counts.in_parts(matrix, rows, kept)
    frame = pytest.importorskip("pandas").DataFrame({"batch": BATCH, "age": AGE})
    columns = conditions.columns_of(frame, {"batch": None, "age": None}, rows[2], "here")
    label = conditions.encode(frame, columns)
    return counts.in_parts(matrix, rows, kept, [label[of] for of in rows], columns)


def config_of(of, **model):
    chosen = {"likelihood": "negative_binomial", "latent_dim": 2, "hidden": [4], **model}
    data = {"condition": "batch,age" if of.columns else None, "layer": None}
    return {**cells.stored(of), "options": {"model": chosen, "data": data}}


def test_what_is_stored_is_of_the_training_cells_and_json():
    config = json.loads(json.dumps(config_of(found())))
    train_x = COUNTS[40:, :-1].astype(np.float64)
    library = train_x.sum(1)
    shares = (train_x.sum(0) + 0.5) / (train_x.sum() + 0.5 * (G - 1))
    np.testing.assert_allclose(config["shares"], shares, rtol=1e-6)
    mean = library[:, None] * shares
    dispersion = (np.square(train_x - mean) / mean).mean(0)
    np.testing.assert_allclose(cells._of_genes(found())[1], dispersion, rtol=1e-6)
    assert (dispersion[:3] > 4).all()
    assert (np.array(config["concentrations"])[:3] < 6).all()
    assert config["typical_library"] == np.median(library)
    assert config["library_quantiles"][50] == np.median(library)
    told = json.loads(json.dumps(config_of(found(told=True))))
    assert [column["name"] for column in told["conditions"]] == ["batch", "age"]
    np.testing.assert_allclose(np.array(told["condition_rows"])[:, -1], library)


@pytest.mark.parametrize("told", [False, True])
def test_new_cells_have_the_library_sizes_and_the_conditions_of_the_training_cells(told):
    config = config_of(found(told=told))
    label = cells.conditions(config, 4_000, {}, 0)[0]
    library = COUNTS[40:].sum(1)
    if not told:
        quantiles = (np.quantile(of, [0.1, 0.5, 0.9]) for of in (label.library, library))
        np.testing.assert_allclose(*quantiles, rtol=0.05)
        assert label.condition is None
        return
    assert np.isin(label.library, library).all()
    np.testing.assert_allclose(label.library.mean(), library.mean(), rtol=0.05)
    assert abs(label.condition[:, 0].mean() - 0.5) < 0.05
    standardised = (AGE[40:] - AGE[40:].mean()) / AGE[40:].std()
    # An age goes with its cell's library size, as it does there.
    slope = np.polyfit(label.library, label.condition[:, 1], 1)
    np.testing.assert_allclose(slope, np.polyfit(library, standardised, 1), rtol=0.1)
    asked = cells.conditions(config, 5, {"batch": "b1", "age": "30"}, 0)[0].condition
    assert (asked[:, 0] == 1).all()
    np.testing.assert_allclose(asked[:, 1], (30 - AGE[40:].mean()) / AGE[40:].std(), rtol=1e-5)
    with pytest.raises(UsageError, match="--condition has batch=b7: give one of b0, b1"):
        cells.conditions(config, 5, {"batch": "b7"}, 0)
    with pytest.raises(UsageError, match="--condition has sex but the run is conditional on ba"):
        cells.conditions(config, 5, {"sex": "1"}, 0)


def test_draws_come_back_as_sparse_counts_of_all_genes():
    of = found(told=True)
    config = config_of(of)
    x = COUNTS[40:45, :-1].astype(np.int32)
    label = CellLabel(x.sum(1), of.train.told[:5])
    made, notes = cells.returned(iter([x[:3], x[3:]]), label, config, 0)
    np.testing.assert_array_equal(made.counts.toarray(), COUNTS[40:45])
    assert (made.genes, list(made.told), notes) == (GENES, ["batch", "age"], [])
    assert made.told["batch"].tolist() == BATCH[40:45].tolist()
    np.testing.assert_allclose(made.told["age"], AGE[40:45], rtol=1e-5)


def test_genes_are_found_by_their_names_and_cells_by_their_conditions():
    anndata = pytest.importorskip("anndata")
    pd = pytest.importorskip("pandas")
    of = found(told=True)
    config = config_of(of)
    order = RNG.permutation(G)
    obs = pd.DataFrame({"batch": BATCH, "age": AGE}, index=[str(i) for i in range(N)])
    var = pd.DataFrame(index=np.array(GENES)[order])
    data = anndata.AnnData(scipy.sparse.csr_matrix(COUNTS[:, order]), obs=obs, var=var)
    (x, label), notes = cells.given(data, config)
    np.testing.assert_array_equal(x, COUNTS[:, :-1])
    np.testing.assert_array_equal(label.library, COUNTS.sum(1))
    assert label.condition[:, 0].tolist() == [i % 2 for i in range(N)]
    np.testing.assert_allclose(label.condition[40:], of.train.told)
    assert not notes
    with pytest.raises(DataError, match=r"has not the gene 'gene0', nor 0 others of the 8 that"):
        cells.given(data[:, [name != "gene0" for name in data.var_names]].copy(), config)
    data.obs["batch"] = "b7"
    with pytest.raises(DataError, match="has the batch b7, which the run does not know: give one"):
        cells.given(data, config)


def test_a_file_of_other_genes_without_names_is_refused(tmp_path):
    config = {**config_of(found()), "genes": [str(i) for i in range(G)]}
    scipy.sparse.save_npz(tmp_path / "more.npz", scipy.sparse.csr_matrix(np.hstack([COUNTS] * 2)))
    with pytest.raises(DataError, match=f"has {2 * G} genes without names and the run {G}: give"):
        cells.given(tmp_path / "more.npz", config)


def test_a_file_that_has_no_layers_and_no_columns(tmp_path):
    """Its counts are taken for those of the run's layer; what the run is told must be there."""
    scipy.sparse.save_npz(tmp_path / "some.npz", scipy.sparse.csr_matrix(COUNTS))
    config = config_of(found())
    config["options"]["data"]["layer"] = "counts"
    config["genes"] = [str(i) for i in range(G)]
    (x, _), _ = cells.given(tmp_path / "some.npz", config)
    np.testing.assert_array_equal(x[np.arange(N)], COUNTS[:, :-1])
    told = {**config_of(found(told=True)), "genes": config["genes"]}
    with pytest.raises(DataError, match=r"has no .*batch"):
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
    with pytest.raises(DataError, match="has no batch and no age, which the run is"):
        cells.given(empty, config_of(found(told=True)))


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
    obs = pd.DataFrame({"batch": BATCH, "age": AGE}, index=[str(i) for i in range(N)])
    of = scipy.sparse.csr_matrix(COUNTS.astype(np.float32))
    anndata.AnnData(of, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(place / "pbmc.h5ad")
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.chdir(place)
        arguments = ["pbmc.h5ad", "--condition=batch,age", "--output=run", "--epochs=2", *SMALL]
        train.main(arguments, "vae-jax train")
        folder.unlock(Path("run"))
    return place


@pytest.mark.long
@relax
def test_a_run_leaves_numbers_pictures_and_cells(trained, monkeypatch, capsys):
    anndata = pytest.importorskip("anndata")
    monkeypatch.chdir(trained)
    results = json.loads(Path("run/results.json").read_text())
    assert results["num_genes"] == G - 1
    assert results["conditions"] == {"batch": "category", "age": "number"}
    assert results["num_train"] + results["num_validation"] + results["num_test"] == N
    assert results["test_log_likelihood"] > results["test_elbo"] - 0.1
    assert results["test_elbo_standard_error_over_examples"] > 0
    for name in "genes.png", "latent.png", "curves.png", "metrics.jsonl":
        assert (Path("run") / name).stat().st_size > 0

    generate.main(["run", "--num=50", "--condition=batch=b1"], "vae-jax generate")
    made = anndata.read_h5ad("cells.h5ad")
    assert (made.shape, tuple(made.var_names)) == ((50, G), GENES)
    assert set(made.obs["batch"]) == {"b1"}
    assert made.obs["age"].between(AGE.min(), AGE.max()).all()
    assert not made.X[:, -1].toarray().any()
    readers = scipy.sparse.load_npz, functools.partial(scipy.io.mmread, spmatrix=False)
    for output, read in zip(("c.npz", "c.mtx.gz"), readers, strict=True):
        generate.main(["run", "--num=20", f"--output={output}"], "vae-jax generate")
        assert read(output).shape == (20, G)
    assert "note: c.mtx.gz has no place for each cell's batch, age: a .h5ad has" in (
        capsys.readouterr().out
    )
    with np.load("c.npz") as file:
        assert set(file["batch"]) <= {"b0", "b1"}
        assert file["age"].dtype.kind == "f"
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
    arguments = ["pbmc.h5ad", "--condition=age", *SMALL, "--patience=0", "--epochs=3"]
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
