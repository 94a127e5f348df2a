"""What is chosen for data of a kind, where no option says otherwise."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from vae_jax import networks
from vae_jax.run import defaults, options
from vae_jax.run.data.dataset import Dataset, Split
from vae_jax.run.errors import UsageError

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))


def dataset_of(shape, dtype=np.uint8, **changed):
    split = Split(np.zeros((1000, *shape), dtype), np.full(1000, -1, np.int32))
    return Dataset("pets", split, split, split, 0, "pets", **changed)


def complete(dataset, **model):
    chosen = options.OwnOptions(options.OwnData("pets.npy"), options.Model(**model))
    settled = defaults.settled(chosen, dataset, MESH)
    return settled, defaults.described(chosen, settled, dataset)


SHAPES = [(32, 32, 3), (5, 4, 3), (32, 32, 4), (28, 28, 1), (31, 17, 1), (100, 60, 1), (80, 80, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["bytes", "floats", "binary"])
def test_the_table_is_followed_and_says_so(shape, kind):
    dtype = np.float32 if kind == "floats" else np.uint8
    settled, found = complete(dataset_of(shape, dtype, binary=kind == "binary"))
    expected = {
        ("bytes", 3): "discretized_logistic",
        ("bytes", 4): "discretized_logistic",
        ("binary", shape[-1]): "bernoulli",
    }.get((kind, shape[-1]), "normal")
    colours = kind != "binary" and shape[-1] > 1
    conv = min(shape[:2]) >= 16 and (colours or max(shape) > 64)
    model = settled.model
    assert (model.likelihood, model.network) == (expected, "conv" if conv else "mlp")
    assert model.latent_dim == (40 if kind == "binary" else 128)
    assert settled.training.learning_rate == (2e-3 if kind == "binary" else 1e-3)
    assert model.channels == (networks.channels_for(shape) if conv else None)
    assert model.hidden == (None if conv else (400, 400))

    assert settled.training.epochs == -(-(4_000 if conv else 10_000) // 7)
    line = defaults.announced(found)
    assert f"--likelihood={expected} --network={model.network}" in line
    assert f"({expected}: " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ({"hidden": (16,)}, "mlp"),
        ({"channels": (8,)}, "conv"),
        ({"network": "residual_conv"}, "residual_conv"),
        ({"network": "gated", "latent_dim": 3, "likelihood": "laplace"}, "gated"),
    ],
)
def test_what_is_given_stays_and_is_not_explained(given, network):
    settled, found = complete(dataset_of((32, 32, 3)), **given)
    assert settled.model.network == network
    for name, value in given.items():
        assert getattr(settled.model, name) == value
        assert name not in found["options"]
    assert "network" not in found["why"]
    assert ("likelihood" in found["why"]) == ("likelihood" not in given)


@pytest.mark.parametrize(("binarization", "name"), [("none", "normal"), ("dynamic", "bernoulli")])
def test_named_sets_keep_what_their_runs_compare_by(binarization, name):
    chosen = options.Options(options.Data("mnist", binarization=binarization))
    dataset = dataset_of((28, 28, 1))._replace(name="mnist")
    settled = defaults.settled(chosen, dataset, MESH)
    model, training = settled.model, settled.training
    assert (model.likelihood, model.network, model.latent_dim) == (name, "mlp", 40)
    assert model.hidden == (400, 400)
    assert (training.patience, training.batch_size) == (0, 128)
    of_recipe = training.epochs, training.optimizer, training.learning_rate
    assert (*of_recipe, settled.objective.gradient) == (
        (18, "adam", 1e-3, "reparameterized")
        if name == "normal"
        else (22, "nadam", 4e-3, "sticking_the_landing")
    )
    assert settled.run.select == "last"
    assert defaults.described(chosen, settled, dataset) is None


def test_options_of_a_run_of_before_stay():
    chosen = options.Options(
        options.Data("mnist", binarization="dynamic"),
        training=options.Training(epochs=18, optimizer="nadam"),
    )
    dataset = dataset_of((28, 28, 1))._replace(name="mnist")
    assert defaults.settled(chosen, dataset, MESH).training.epochs == 18


def test_fashion_mnist_does_not_stick_the_landing():
    dataset = dataset_of((28, 28, 1))._replace(name="fashion_mnist")
    settled = defaults.settled(options.Options(), dataset, MESH)
    assert (settled.training.optimizer, settled.training.epochs) == ("nadam", 22)
    assert settled.objective.gradient == "reparameterized"


@pytest.mark.parametrize(
    ("given", "rate", "gradient"),
    [
        ({"training": options.Training(optimizer="adam")}, 2e-3, "reparameterized"),
        ({"training": options.Training(learning_rate=0.01)}, 0.01, "sticking_the_landing"),
        ({"model": options.Model(network="conv")}, 2e-3, "reparameterized"),
        ({"model": options.Model(network="ladder")}, 2e-3, "reparameterized"),
        ({"model": options.Model(prior="vamp")}, 2e-3, "reparameterized"),
        ({"model": options.Model(conditional=True)}, 4e-3, "sticking_the_landing"),
        ({"model": options.Model(posterior="iaf")}, 4e-3, "reparameterized"),
        ({"objective": options.Objective(beta=4.0)}, 4e-3, "reparameterized"),
        ({"objective": options.Objective("iwae", num_draws=5)}, 4e-3, "reparameterized"),
        ({"objective": options.Objective(gradient="estimated_kl")}, 4e-3, "estimated_kl"),
    ],
)
def test_the_recipe_of_named_sets_is_of_what_it_was_measured_on(given, rate, gradient):
    chosen = options.Options(**given)
    settled = defaults.settled(chosen, dataset_of((28, 28, 1))._replace(name="mnist"), MESH)
    assert settled.training.learning_rate == rate
    assert settled.objective.gradient == gradient
    assert options.from_json(options.to_json(settled)) == settled


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_the_name_of_ones_own_file_is_no_named_set(name):
    dataset = dataset_of((28, 28, 1))._replace(name=name)
    of_file = options.OwnData(f"{name}.npz", binarization="dynamic")
    chosen = options.OwnOptions(of_file, options.Model(network="mlp"))
    settled = defaults.settled(chosen, dataset, MESH)
    assert (settled.training.optimizer, settled.training.learning_rate) == ("adam", 2e-3)
    assert settled.objective.gradient == "reparameterized"


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_a_run_of_before_goes_on_by_adam_and_the_reparameterized_gradient(version):
    dataset = dataset_of((28, 28, 1))._replace(name="mnist")
    stored = options.to_json(defaults.settled(options.Options(), dataset, MESH))
    del stored["training"]["optimizer"]
    stored["objective"]["gradient"] = "reparameterized"
    if version == "0.1":
        del stored["objective"]
    before = options.from_json(stored)
    settled = defaults.settled(before, dataset, MESH)
    assert (settled.training.optimizer, settled.objective.gradient) == ("adam", "reparameterized")
    by_nadam = dataclasses.replace(settled.training, optimizer="nadam")
    changed = dataclasses.replace(settled, training=by_nadam)
    with pytest.raises(UsageError, match="--optimizer is nadam but the run in None has adam: lea"):
        options.check_resumed(changed, before)


def test_the_best_epoch_is_the_result_where_the_elbo_is_the_aim():
    def selected(own, select=None, patience=None, **objective):
        data = options.OwnData("a.npy") if own else options.Data("mnist")
        run, training = options.Run(select=select), options.Training(patience=patience)
        aim = options.Objective(**objective)
        chosen = options.Options(data, training=training, objective=aim, run=run)
        found = dataset_of((28, 28, 1))._replace(name="mnist")
        return defaults.settled(chosen, found, MESH).run.select

    assert selected(own=True) == selected(own=True, patience=0) == "best"
    assert selected(own=False, patience=3) == "best"
    assert selected(own=False) == selected(own=True, beta=4.0) == "last"
    assert selected(own=True, select="last") == "last"
    assert selected(own=False, select="best", beta=4.0) == "best"


def test_a_run_of_before_has_no_such_entry_and_both_widths():
    chosen, _ = complete(dataset_of((32, 32, 3)), network="conv")
    stored = options.to_json(chosen)
    stored["model"] |= {"hidden": [400, 400], "channels": [32, 64]}
    assert options.from_json(stored).model.hidden is None
    stored["model"] |= {"network": "mlp"}
    model = options.from_json(stored).model
    assert (model.hidden, model.channels) == ((400, 400), None)


def test_what_is_slow_takes_fewer_steps():
    for steps, given in (
        (4_000, {"likelihood": "mixture_of_logistics", "network": "mlp"}),
        (4_000, {"likelihood": "laplace", "network": "conv"}),
        (10_000, {"likelihood": "laplace", "network": "mlp"}),
    ):
        settled, _ = complete(dataset_of((32, 32, 3)), **given)
        assert settled.training.epochs == -(-steps // 7)  # of 7 steps each
        assert settled.training.patience == -(-steps // 70)


@pytest.mark.parametrize("given", [{"network": "residual_conv"}, {"channels": (8,)}])
def test_convolutions_of_a_row_of_pixels_are_refused_before_there_is_a_folder(given):
    with pytest.raises(
        UsageError, match="the data are 1 x 20, too narrow: choose mlp, gated, residual or"
    ):
        complete(dataset_of((1, 20, 1)), **given)


def test_a_likelihood_of_bytes_is_not_of_floats():
    with pytest.raises(UsageError, match="as numbers that are no bytes: choose from normal"):
        complete(dataset_of((32, 32, 3), np.float32), likelihood="mixture_of_logistics")
