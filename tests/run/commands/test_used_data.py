"""What a trained run is used on: data of every place, and what is refused before it is loaded."""

import json

import numpy as np
import pytest

from tests.run.commands.after import SHAPE, read, write_pictures
from vae_jax.run import loaded, options
from vae_jax.run.commands import (
    compare,
    embed,
    export,
    generate,
    interpolate,
    reconstruct,
    score,
    traverse,
)
from vae_jax.run.data import examples, pictures
from vae_jax.run.errors import DataError, RunError, UsageError

pytestmark = pytest.mark.usefixtures("one_program_for_all")


def test_pictures_of_another_size_and_kind_become_the_runs(trained, tmp_path):
    of_run, _ = trained
    config = json.loads((of_run / "config.json").read_text())
    square = {**config, "image_shape": [4, 4, 3]}
    greys = np.random.default_rng(0).integers(0, 256, (3, 8, 10), np.uint8)
    write_pictures(tmp_path / "greys", greys)
    chosen = options.UsedData(str(tmp_path / "greys"), resize=True)
    found = examples.read(square, chosen)
    assert found.images.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(found.images[..., 0], found.images[..., 2])
    one = examples.picture(tmp_path / "greys" / "cat" / "00.png", square, resize=True)
    np.testing.assert_array_equal(one, found.images[0])
    with pytest.raises(UsageError, match="but the run's pictures are 6 x 5: leave"):
        examples.read(config, chosen)


def test_splits_of_ones_own(trained, tmp_path):
    of_run, pictures = trained
    config = json.loads((of_run / "config.json").read_text())
    images = read(pictures)
    np.savez(
        tmp_path / "a.npz",
        x_train=images[:50],
        x_test=images[50:],
        y_test=np.arange(10),
        y_train=np.arange(50),
    )
    path = str(tmp_path / "a.npz")
    np.testing.assert_array_equal(
        np.asarray(examples.read(config, options.UsedData(path)).images)[..., 0], images[50:]
    )
    of_train = examples.read(config, options.UsedData(path, split="train"))
    assert len(of_train.images) == 50
    assert of_train.labels.tolist() == list(map(str, range(50)))
    with pytest.raises(UsageError, match=r"--split is validation but .* has train and test"):
        examples.read(config, options.UsedData(path, split="validation"))


def test_of_a_conditional_run_classes_are_the_images_own_or_given(trained, tmp_path):
    config = json.loads((trained[0] / "config.json").read_text())
    config["options"]["model"]["conditional"] = True
    names = ["cat", "dog"]
    images = np.zeros((4, *SHAPE), np.uint8)
    found = examples.Examples(images, np.array(["cat", "", "dog", "cat"]), None, "here")
    kept, labels = examples.with_classes(found, config, names, None)
    assert labels == ["cat", "dog", "cat"]
    assert kept.places.tolist() == [0, 2, 3]
    assert kept.notes == ("1 images without a label are left out",)
    assert examples.with_classes(found, config, names, "dog") == (found, "dog")
    for labels, label, error, said in (
        (None, None, UsageError, "here has no labels: give --label, one of the classes cat, dog"),
        (["cow"] * 4, None, DataError, "here has the class cow, which the run does not know"),
        ([""] * 4, None, UsageError, "no image of here has a label"),
        (["cat"] * 4, "cow", UsageError, "--label is cow: give one of the classes cat, dog"),
    ):
        others = found._replace(labels=None if labels is None else np.array(labels))
        with pytest.raises(error, match=said):
            examples.with_classes(others, config, names, label)


@pytest.mark.parametrize(
    ("module", "arguments", "error", "said"),
    [
        (embed, ["RUN", "--output=a.txt"], UsageError, "has none of the endings .npz, .csv, .parq"),
        (embed, ["RUN", "--output=no/a.npz"], RunError, "make the folder .*no first"),
        (embed, ["RUN", "--num-draws=-1"], UsageError, "--num-draws is -1: it must be 0 or more"),
        (embed, ["RUN", "--num-draws=1", "--output=a.npy"], UsageError, "holds the means alone"),
        (embed, ["RUN", "--label=cat"], UsageError, "--label is cat but the run is unconditional"),
        (embed, ["nothing"], UsageError, "nothing holds no run"),
        (embed, ["RUN", "nothing"], DataError, "nothing does not exist: name an array, a folder"),
        (embed, ["RUN", "other.npy"], DataError, "has images of 3 x 3 x 1 and the run of 6"),
        (embed, ["RUN", "other.npy", "--resize"], UsageError, "--resize is given but other.npy is"),
        (embed, ["RUN", "other.npy", "--split=test"], UsageError, "other.npy has no splits: leave"),
        (embed, ["RUN", "digits"], DataError, "has images of 8 x 8 x 1 and the run of 6"),
        (
            embed,
            ["RUN", "other.npy", "--data=a.npy"],
            UsageError,
            "--data is given but it is of the",
        ),
        (embed, ["RUN", "--labels=a.npy"], UsageError, "--labels is given but the run's own data"),
        (embed, ["RUN", "--data=other.npy"], DataError, "other.npy has 9 images: 20 are the least"),
        (score, ["RUN", "--num-samples=1"], UsageError, "--num-samples is 1: it must be 2 or more"),
        (score, ["RUN", "--num-reference=1"], UsageError, "--num-reference is 1: it must be 2"),
        (score, ["RUN", "--seed=-1"], UsageError, "--seed is -1"),
        (score, ["RUN", "--output=a.npy"], UsageError, "none of the endings .npz, .csv, .pa"),
        (reconstruct, ["RUN", "--output=full"], UsageError, "full is there and not empty"),
        (reconstruct, ["RUN", "--output=."], UsageError, "is there and not empty: name a new"),
        (reconstruct, ["RUN", "--output=a.csv"], UsageError, "has no ending of a picture"),
        (interpolate, ["RUN", "0", "999"], UsageError, "row 999 is not in the test set: give"),
        (interpolate, ["RUN", "0", "no.png"], DataError, "no.png does not exist: name a picture"),
        (interpolate, ["RUN", "0", "1", "--steps=1"], UsageError, "--steps is 1: it must be 2"),
        (interpolate, ["RUN", "0"], UsageError, "Missing from PROG: B"),
        (traverse, ["RUN", "--of=999"], UsageError, "--of is 999: give a row from 0 to"),
        (traverse, ["RUN", "--output=a.npy"], UsageError, "has no ending of a picture"),
        (generate, ["RUN", "--temperature=0"], UsageError, "--temperature is 0.0: it must"),
        (generate, ["RUN", "--output=full"], UsageError, "full is there and not empty"),
        (compare, ["RUN"], UsageError, "nothing to compare: name two runs or more"),
        (compare, ["RUN", "RUN"], UsageError, "is given twice: name it once"),
        (compare, ["RUN", "full"], UsageError, "full holds no run"),
        (export, ["RUN", "--output=model.onnx"], UsageError, "none of the endings .stablehlo"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_loaded(
    trained, tmp_path, monkeypatch, module, arguments, error, said
):
    monkeypatch.chdir(tmp_path)
    np.save("other.npy", np.random.default_rng(0).integers(0, 256, (9, 3, 3), np.uint8))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "digits").mkdir()  # the named set is meant nevertheless
    monkeypatch.setattr(loaded, "load_images", None)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(error, match=said) as raised:
        module.main([str(trained[0]) if a == "RUN" else a for a in arguments], "PROG")
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_images_of_an_array_without_the_columns_that_a_run_is_told(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    config["options"]["data"]["condition"] = "age"
    with pytest.raises(DataError, match=r"a.npy is a .npy file, which has no columns, and the run"):
        examples.read(config, options.UsedData("a.npy"))


def test_a_folder_that_does_not_fit_is_read_batch_by_batch(trained, of, monkeypatch):
    """None of its pictures is kept, and the codes are the same."""
    config = json.loads((trained[0] / "config.json").read_text())
    chosen = options.UsedData(str(trained[1]))
    kept = examples.read(config, chosen).images
    monkeypatch.setattr(pictures, "STREAM_BYTES", 0)
    streamed = examples.read(config, chosen).images
    assert isinstance(kept, np.ndarray)
    assert isinstance(streamed, pictures.Pictures)
    np.testing.assert_array_equal(of.encode(streamed).mean, of.encode(kept).mean)
