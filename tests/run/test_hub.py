"""Models to a hub and back, a small one in place of Hugging Face's, and strangers' models."""

import base64
import hashlib
import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vae_jax import run
from vae_jax.checkpoint import CheckpointError
from vae_jax.run import folder, hub, loaded, main, measure, options, published, restore
from vae_jax.run.errors import DataError, RunError, UsageError

numpy_files = pytest.importorskip("safetensors.numpy")
LINES = (UsageError, RunError, DataError, CheckpointError)
IMAGES = np.random.default_rng(0).integers(256, size=(3, 4, 3, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned nothing, on two classes, and its folder, without a checkpoint."""
    place = tmp_path_factory.mktemp("mine") / "secret" / "run"
    place.mkdir(parents=True)
    chosen = options.OwnOptions(
        options.OwnData(str(place.parent / "pictures"), binarization="threshold"),
        options.Model(network="mlp", hidden=(5,), latent_dim=2, conditional=True),
        options.Training(epochs=1, batch_size=5, learning_rate=1e-3),
    )
    config = {
        **folder.stamp(),
        "options": options.to_json(chosen),
        "dataset": "pictures",
        "notice": "",
        "binarization": "threshold",
        "num_classes": 2,
        "classes": ["cat", "dog"],
        "image_shape": [4, 3, 1],
        "pixels": {"residual": 0.3, "centre": 0.4, "spread": 0.5},
    }
    model, of_config = restore._model(config)
    params = restore._init(model, of_config, config)
    (place / "samples.png").write_bytes(b"a picture")
    results = {
        **{f"num_{split}": 10 for split in ("train", "validation", "test")},
        "dataset": "pictures",
        "source": str(place.parent / "pictures"),
        "notes": [f"{place.parent / 'pictures'}: 3 files passed over"],
        "data_digest": "0",
        "latent_dim": 2,
        "active_units": 1,
        "test_elbo": -1.5,
        "epochs": 1,
        "seed": 0,
        "train_seconds": 1.0,
        "device": "cpu",
        "conditional": True,
        "parameters_sha256": measure.sha256(params),
        "versions": measure.versions(),
        "options": options.to_json(chosen),
    }
    found = restore._trained(model, of_config, params, 7, config)
    return loaded.TrainedRun(found, results), place


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    place = tmp_path_factory.mktemp("written")
    hub.write(*trained, place)
    return place


def test_what_is_written_is_the_model_and_says_nothing_of_this_machine(trained, written):
    of, place = trained
    names = {"config.json", "results.json", "README.md", "model.safetensors", "samples.png"}
    assert {path.name for path in written.iterdir()} == names
    for path in written.iterdir():
        assert b"secret" not in path.read_bytes()
    found = run.load(written)
    assert measure.sha256(found.params) == measure.sha256(of.params)
    np.testing.assert_array_equal(found.encode(IMAGES, "dog").mean, of.encode(IMAGES, "dog").mean)
    assert (found.step, found.classes, found.results["test_elbo"]) == (7, ("cat", "dog"), -1.5)
    scalar = published.to_bytes({"scale": np.float32(2)})
    assert numpy_files.load(scalar)["scale"].shape == ()
    with pytest.raises(DataError, match="the data of pictures"):
        found.data()
    with pytest.raises(RunError, match=r"has no results.json: wait until the run is done"):
        hub.write(loaded.TrainedRun(of_trained(of), None), place, written)


def of_trained(of):
    return restore._trained(of.model, of.options, of.params, of.step, of.config)


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as keeps models: files by their names, one revision of each."""

    protocol_version = "HTTP/1.1"
    models: ClassVar[dict] = {}

    def answer(self, status, content, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @property
    def address(self):
        return f"http://{self.headers['Host']}"

    def refuse(self, status=404):
        self.answer(status, {"error": "no"}, X_Error_Code="RepoNotFound")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_mine":
            self.refuse(401)
        elif self.path == "/api/repos/create":
            told = json.loads(body)
            name = "/".join(filter(None, (told.get("organization"), told["name"])))
            self.models.setdefault(name, {})
            self.answer(200, {"url": f"{self.address}/{name}", "name": name})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            name = re.match("/api/models/(.+)/commit/", self.path).group(1)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.models[name][line["value"]["path"]] = content
            self.answer(
                200,
                {
                    "commitUrl": f"{self.address}/{name}/commit/{'a' * 40}",
                    "commitOid": "a" * 40,
                    "success": True,
                },
            )
        else:
            self.answer(200, {})

    def do_GET(self):
        if match := re.match("/api/models/([^/]+/[^/?]+)", self.path):
            name = match.group(1)
            if name not in self.models:
                return self.refuse()
            files = [{"rfilename": path} for path in self.models[name]]
            tree = [
                {"type": "file", "path": path, "size": len(of), "oid": "b" * 40}
                for path, of in self.models[name].items()
            ]
            about = {"id": name, "sha": "a" * 40, "siblings": files, "private": False, "tags": []}
            return self.answer(200, tree if "/tree/" in self.path else about)
        match = re.match("/(.+?/.+?)/resolve/[^/]+/(.+)", unquote(self.path))
        content = self.models.get(match.group(1), {}).get(match.group(2)) if match else None
        if content is None:
            return self.refuse()
        tag = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit="a" * 40)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Its models; huggingface_hub goes there, as it does with HF_ENDPOINT when it is imported."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        monkeypatch.setattr(Hub, "models", {})
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Hub.models
        server.shutdown()


def test_there_and_back(trained, stand_in, monkeypatch):
    of, place = trained
    assert hub.push(of, place, "me/pictures").endswith("me/pictures")
    assert {"config.json", "results.json", "README.md", "model.safetensors", "samples.png"} <= set(
        stand_in["me/pictures"]
    )
    stand_in["me/pictures"]["train.py"] = b"raise SystemExit"
    found = run.load("hf:me/pictures")
    assert measure.sha256(found.params) == measure.sha256(of.params)
    there = {path.name for path in hub.pull("me/pictures").iterdir()}
    assert there == set(published.FILES)  # and no more is brought
    for name in "config.json", "model.safetensors":
        assert not any(b"secret" in content for content in stand_in["me/pictures"].values()), name
    with pytest.raises(
        RunError, match=r"me/none cannot be had from the hub .*: see that it is the"
    ):
        run.load("hf:me/none")
    del stand_in["me/pictures"]["model.safetensors"]
    stand_in["me/other"] = {"config.json": b"{}"}
    with pytest.raises(RunError, match=r"me/other on the hub has no model.safetensors: name one"):
        run.load("hf:me/other")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(RunError, match=r"cannot be put on the hub .*: log in by `hf auth login`"):
        hub.push(of, place, "me/pictures")
    for name in "pictures", "../pictures", "me/../x", "me/pictures/x", "-/x", "me/", "a b/c", "":
        with pytest.raises(UsageError, match="is no name of a model on the hub: give ORG/NAME"):
            run.load(f"hf:{name}")


def copied(written, place, **changed):
    """The model with files replaced."""
    place.mkdir(exist_ok=True)
    for name in published.FILES:
        content = changed.get(name.split(".")[0], (written / name).read_bytes())
        (place / name).write_bytes(content)
    return place


def with_value(config, path, value):
    changed = json.loads(config)
    *above, last = path
    of = changed
    for name in above:
        of = of[name]
    of[last] = value
    return json.dumps(changed).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("image_shape",), [10**9, 10**9, 3], "image_shape is .*: it is not within 67,108,864"),
        (("image_shape",), [10**6, 10, 1], "is of another model than config.json"),
        (("num_classes",), 10**12, "num_classes is 1000000000000 but classes has 2"),
        (("num_classes",), 10**400, "num_classes is a number of more than 18 digits but"),
        (("options", "model", "latent_dim"), 10**30, "latent_dim is a number of more than 18"),
        (("options", "model", "latent_dim"), 3, "has shape .*, not"),
        (("options", "model", "latent_dim"), -1, "latent_dim is -1: it is not from 0"),
        (("options", "model", "hidden"), [1] * 10**5, "hidden has 100,000 layers: 64 are"),
        (("options", "model", "hidden"), [2**24] * 3, "is of another model than config.json"),
        (("options", "model", "num_transforms"), 10**7, "num_transforms is 10000000: 64 are"),
        (("options", "model", "network"), "os.system", "holds no model that can be read"),
        (("options", "model", "network"), {}, "holds no"),
        (("kind",), "../../evil", "which this version does not know"),
        (("classes",), None, "holds no"),
        (("classes",), ["cat", 1], "classes are "),
        (("classes",), ["cat"], "num_classes is 2 but classes has 1 names"),
        (("step",), "x", "holds no model that can be read"),
        (("kind",), [], "which this version does not know"),
        (("format",), math.inf, "holds no run"),
        (("format",), 99, "is of format 99"),
    ],
)
def test_a_strangers_config_is_a_line(written, tmp_path, path, value, said):
    config = with_value((written / "config.json").read_text(), path, value)
    with pytest.raises(LINES, match=said) as found:
        run.load(copied(written, tmp_path, config=config))
    assert "\n" not in str(found.value)


def test_a_strangers_parameters_are_a_line(written, tmp_path):
    content = (written / "model.safetensors").read_bytes()
    arrays = numpy_files.load(content)
    first = next(iter(arrays))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[first]["data_offsets"] = [0, 2**50]
    lying = json.dumps(header).encode()
    for changed, said in (
        (b"", "cannot be read"),
        (b"\xff" * 100, "cannot be read"),
        ((2**60).to_bytes(8, "little") + b"{}", "cannot be read"),
        (content[:-8], "cannot be read"),
        (len(lying).to_bytes(8, "little") + lying + content[8 + size :], "cannot be read"),
        (numpy_files.save({**arrays, "more": np.zeros(1)}), "is of another model than .*: more"),
        (numpy_files.save({**arrays, first: arrays[first][:0]}), "has shape"),
        (numpy_files.save({**arrays, first: arrays[first] * np.nan}), "no finite float32"),
        (
            numpy_files.save({**arrays, first: arrays[first].astype(np.float64)}),
            "no finite float32",
        ),
    ):
        with pytest.raises(RunError, match=said) as found:
            run.load(copied(written, tmp_path, model=changed))
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", published.FILES)
def test_a_link_that_points_out_is_not_followed(written, tmp_path, name):
    place = copied(written, tmp_path / "model")
    (place / name).rename(tmp_path / name)
    (place / name).symlink_to(tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} is a link that points out of its folder"):
        run.load(place)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 10**9, 10**20, 1e300, math.nan, math.inf, "", "x", "../..", [], {}]),
    st.lists(st.integers(-1, 10**9), max_size=3),
)


def paths_of(value, before=()):
    yield before
    if isinstance(value, dict):
        for name, of in value.items():
            yield from paths_of(of, (*before, name))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_any_value_in_any_place_is_a_line_or_a_model(written, tmp_path, data):
    config = (written / "config.json").read_text()
    every = [path for path in paths_of(json.loads(config)) if path]
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(every))
        try:
            config = with_value(config, path, data.draw(VALUES)).decode()
        except (KeyError, TypeError):  # within what was replaced before
            continue
    try:
        found = run.load(copied(written, tmp_path, config=config.encode()))
        assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype(np.float32)}
    except LINES as error:
        assert "\n" not in str(error)  # noqa: PT017 - one or the other


# Commands


def said_by(capsys, *arguments):
    main._choose(list(map(str, arguments)))
    return capsys.readouterr().out


@pytest.fixture
def there(trained, written, stand_in, monkeypatch, tmp_path):
    """The model on the hub, and its images here."""
    stand_in["me/pictures"] = {path.name: path.read_bytes() for path in written.iterdir()}
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", IMAGES)
    return stand_in


@pytest.mark.relax("numpy_dtype_promotion")
def test_commands_take_a_model_of_the_hub(trained, there, capsys, tmp_path):
    """Each as of a folder; of those that share their way to it, one."""
    of, _ = trained
    run_, images = "hf:me/pictures", "images.npy"
    said_by(capsys, "embed", run_, images, "--label=dog", "--output=codes.npy")
    np.testing.assert_array_equal(np.load("codes.npy"), of.encode(IMAGES, "dog").mean)
    said_by(capsys, "generate", "--seed=3", run_, "--num=2", "--label=cat", "--output=a.npy")
    made = np.round(255 * of.generate(2, "cat", seed=3)).astype(np.uint8)
    np.testing.assert_array_equal(np.load("a.npy"), made)
    said_by(capsys, "export", f"{run_}@main", "--output=params.safetensors")
    assert numpy_files.load_file("params.safetensors").keys() == published.named(of.params).keys()
    said_by(capsys, "push", run_, "hf:you/pictures")
    assert there["you/pictures"]["config.json"] == there["me/pictures"]["config.json"]
    assert "minutes" not in said_by(capsys, "compare", run_, "hf:you/pictures")
    said = said_by(capsys, "compare", run_, "hf:you/pictures")
    assert said.splitlines()[0].split() == ["pictures", "pictures"]
    with pytest.raises(RunError, match=r"no metrics.jsonl.*name the folder that it was trained"):
        main._choose(["diagnose", run_])
    with pytest.raises(DataError, match="the data of pictures"):
        main._choose(["evaluate", run_])
    with pytest.raises(RunError, match="me/none cannot be had from the hub"):
        main._choose(["reconstruct", "hf:me/none", images])
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_what_stands_in_for_a_folder():
    """RUN alone: data of hf:// and the name that a model is pushed to are what they are."""
    for arguments in (
        ["embed", "run", "hf:me/pictures"],
        ["push", "run", "hf:me/pictures"],
        ["embed", "hf://datasets/me/pictures/a.npy"],
        ["train", "a.npy", "--init-from=runs/a"],
        ["compare", "hf:me/a", "hf:me/b"],
        ["embed", "hf:me/a", "--help"],
    ):
        assert main._brought(arguments[0], arguments[1:]) == arguments[1:]


def test_a_run_starts_from_a_model_of_the_hub(there):
    arguments = ["images.npy", "--init-from=hf:me/pictures", "--epochs=1"]
    first, init_from, last = main._brought("train", arguments)
    assert (first, last) == ("images.npy", "--epochs=1")
    assert published.is_one(Path(init_from.removeprefix("--init-from=")))


def test_of_a_model_of_others_is_written_here_and_no_place_is_read(written, trained, tmp_path):
    _, place = trained
    assert folder.beside(written, "evaluation.json") == Path("evaluation.json")
    assert folder.beside(place, "evaluation.json") == place / "evaluation.json"
    config = (written / "config.json").read_text()
    lying = with_value(config, ("options", "data", "dataset"), "/etc")
    found = folder.read_config(copied(written, tmp_path, config=lying))
    assert found["options"]["data"]["dataset"] == "the data of pictures"
