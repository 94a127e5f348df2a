"""The explorer in a browser: exported pages without a network, and one that asks its server."""

import contextlib
import io
import json
import threading

import jax
import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from tests.run.explorer import browser
from vae_jax import run
from vae_jax.networks import CellLabel
from vae_jax.run import classifier, folder
from vae_jax.run.commands import explore, train
from vae_jax.run.data import examples
from vae_jax.run.explorer import contents, heatmap, program
from vae_jax.run.explorer.page import page
from vae_jax.run.explorer.server import Server
from vae_jax.run.options import UsedData

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason="there is no chromium"),
]
SIZES = [(1280, 900), (390, 844)]


def train_quietly(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), jax.numpy_dtype_promotion("standard"):
        train.main(list(map(str, arguments)), "train")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(scope="module")
def tab(place):
    opened = browser.Browser(place / "profile")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def digits(place):
    """A conditional run on digits of 28 x 28 with the default networks: its folder."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.kron(found.images[:, 1:8, 1:8], np.ones((4, 4)))
    np.savez(place / "digits.npz", images=(images * 15.9375).astype(np.uint8), labels=found.target)
    how = ("--conditional", "--binarization=dynamic", "--network=mlp", "--latent-dim=40")
    short = ("--epochs=8", "--num-importance-samples=2", "--num-class-samples=2")

    def hardly(key, split, num_classes):
        """Its judge of classes is not what is looked at."""
        judge = classifier.train_probabilities(key, split, num_classes, num_steps=20)
        return lambda images: judge(images).argmax(axis=-1)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(classifier, "train", hardly)
        train_quietly(place / "digits.npz", *how, *short, f"--output={place / 'digits'}")
    folder.unlock(place / "digits")
    return place / "digits"


@pytest.fixture(scope="module")
def exported(digits, place):
    """Its page, as one file."""
    with contextlib.redirect_stdout(io.StringIO()):
        explore.main([str(digits), f"--export={place / 'page.html'}", "--num=150"], "explore")
    return place / "page.html"


def decoded(tab):
    """The bytes of the picture that is seen, [H, W]."""
    tab.settle()
    return np.array(
        tab.run(
            "(() => { const c = document.getElementById('decoded'); return [c.height, c.width, "
            "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; })()"
        )[2]
    ).reshape(28, 28, 4)[..., :3]


def state(tab):
    found = tab.run("({ z: [...explorer.state.z], label: explorer.state.label })")
    return np.array([found["z"]], np.float32), found["label"]


def check_picture(tab, trained, channels=1):
    """The picture that is seen is the Python decoder's, to a level of the 256."""
    seen = decoded(tab)
    z, label = state(tab)
    expected = np.round(255 * trained.decode(z, label))[0]
    assert np.abs(seen - expected).max() <= 1
    return seen


def center(tab, selector):
    tab.run(f"document.querySelector('{selector}').scrollIntoView({{ block: 'center' }})")
    box = tab.run(
        f"((b) => [b.x, b.y, b.width, b.height])"
        f"(document.querySelector('{selector}').getBoundingClientRect())"
    )
    return np.array([box[0] + box[2] / 2, box[1] + box[3] / 2]), np.array(box[2:])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_an_exported_page_without_a_network(tab, digits, exported, width, height):
    trained = run.load(digits)
    tab.said.clear()
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    tab.do("Network.emulateNetworkConditions", **offline)
    tab.open(exported.as_uri(), width, height)
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert "run in this page" in tab.run("document.getElementById('made').textContent")
    first = check_picture(tab, trained)

    # A slider, by its keys.
    tab.run("document.querySelector('#sliders input').focus()")
    before, _ = state(tab)
    latent = int(tab.run("document.querySelector('#sliders input').id")[1:])
    towards = -np.sign(before[0, latent])
    for _ in range(60):
        tab.key(*(("ArrowLeft", 37) if towards < 0 else ("ArrowRight", 39)))
    after, _ = state(tab)
    assert after[0, latent] == pytest.approx(before[0, latent] + 0.6 * towards, abs=0.02)
    second = check_picture(tab, trained)
    assert np.abs(first - second).max() > 10
    # And dragged.
    middle, size = center(tab, "#sliders input")
    value = state(tab)[0][0, latent]
    reach = float(tab.run("document.querySelector('#sliders input').max"))
    grip = middle + np.array([size[0] / 2 * value / reach * (1 - 16 / size[0]), 0])
    tab.drag(grip, grip - [15, 0], grip - [40, 0])
    assert state(tab)[0][0, latent] < value - 0.3
    check_picture(tab, trained)

    # Another class, a draw of the prior, the line to another code.
    tab.run("document.querySelectorAll('#classes button')[7].click()")
    assert state(tab)[1] == 7
    third = check_picture(tab, trained)
    assert np.abs(second - third).max() > 10
    tab.run("document.getElementById('draw').click()")
    check_picture(tab, trained)
    tab.run("document.getElementById('keep-1').click()")
    end, _ = state(tab)
    middle, size = center(tab, "#share")
    half = np.array([size[0] / 2, 0])
    tab.drag(middle - half + np.array([8, 0]), middle, middle + half)
    np.testing.assert_allclose(state(tab)[0], end, rtol=1e-5)
    check_picture(tab, trained)

    # The map: a brush shows pictures, one of which is chosen; a walk moves the code in the plane.
    middle, size = center(tab, "#map")
    tab.drag(middle - size / 4, middle, middle + size / 4)
    num = int(tab.run("document.getElementById('count').textContent").split(" ")[0])
    assert 10 < num < 150
    tab.run("document.querySelectorAll('#brushed button')[3].click()")
    named = tab.run("document.querySelectorAll('#brushed button')[3].ariaLabel")
    assert tab.run("document.getElementById('original').ariaLabel").endswith(named)
    z, label = state(tab)
    assert named.endswith(f"label {label}")
    tab.run("document.querySelector('[value=walk]').click()")
    tab.run("document.getElementById('map').focus()")
    tab.key("ArrowLeft", 37)
    moved, _ = state(tab)
    told = json.loads(tab.run("document.getElementById('contents').textContent"))
    directions = np.array(told["maps"][0]["directions"])
    np.testing.assert_allclose(
        (moved - z)[0] @ directions.T @ directions, (moved - z)[0], atol=1e-5
    )
    assert (moved - z)[0] @ directions[0] < -0.05
    check_picture(tab, trained)
    assert tab.said == []


def test_ones_own_picture_is_encoded(tab, digits, exported, place):
    trained = run.load(digits)
    tab.open(exported.as_uri())
    picture = np.kron(np.eye(4), np.ones((7, 7)))
    Image.fromarray((255 * picture).astype(np.uint8)).save(place / "own.png")
    tab.files("#file", place / "own.png")
    tab.wait("document.getElementById('original-name').textContent === 'own.png'")
    z, label = state(tab)
    binary = (255 * picture).astype(np.uint8)[None, ..., None]
    expected = trained.encode(binary, label).mean  # of black and white no noise changes a pixel
    np.testing.assert_allclose(z, expected, atol=2e-4)
    check_picture(tab, trained)
    # Colours become greys, another size the run's.
    colours = Image.fromarray((255 * picture).astype(np.uint8)).resize((56, 56), 0).convert("RGB")
    colours.save(place / "large.png")
    tab.files("#file", place / "large.png")
    tab.wait("document.getElementById('original-name').textContent === 'large.png'")
    np.testing.assert_allclose(state(tab)[0], z, atol=1e-2)
    (place / "none.png").write_bytes(b"no picture")
    tab.files("#file", place / "none.png")
    tab.wait("document.getElementById('said').textContent.startsWith('none.png cannot be')")


def test_thirty_frames_a_second(tab, exported):
    """Of the default networks, decoded and painted at each frame while a slider moves."""
    tab.open(exported.as_uri())
    seconds = min(
        tab.run(
            """(async () => {
        const slider = document.querySelector("#sliders input");
        const start = performance.now();
        for (let i = 0; i < 60; i++) {
          slider.value = i / 20 - 1.5;
          slider.dispatchEvent(new Event("input"));
          await new Promise(requestAnimationFrame);
        }
        return (performance.now() - start) / 1000; })()"""
        )
        for _ in range(5)
    )  # the best, as the machine may have other work
    of_one = tab.run(
        """(async () => {
        const start = performance.now();
        for (let i = 0; i < 200; i++) await explorer.decode([explorer.state.z]);
        return (performance.now() - start) / 200; })()"""
    )
    print(f"{60 / seconds:.0f} frames a second; {of_one:.2f} ms to decode")
    assert 60 / seconds > 30


def test_a_served_page_asks_its_server(tab, digits, monkeypatch):
    """Where the page cannot carry the networks."""
    monkeypatch.setattr(program, "MOST_BYTES", 1000)
    trained = run.load(digits)
    with contextlib.redirect_stdout(io.StringIO()):
        found = examples.open_for(trained.config, list(trained.classes), UsedData(), None)
    explored = contents.of_images(trained, *found, "the test set", 50)
    assert "the decoder has arrays of" in explored.cannot
    with Server(page(explored.contents, "digits", served=True), explored) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        tab.said.clear()
        tab.do(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
        tab.open(server.url)
        assert "run in the server" in tab.run("document.getElementById('made').textContent")
        tab.wait("document.getElementById('end-1').width === 28")
        check_picture(tab, trained)
        tab.run("document.querySelectorAll('#classes button')[3].click()")
        check_picture(tab, trained)
        z = tab.run("explorer.encode(new Float32Array(784)).then((z) => [...z])")
        black = np.zeros((1, 28, 28, 1), np.uint8)
        np.testing.assert_allclose([z], trained.encode(black, 3).mean, atol=2e-4)
        assert tab.said == []
        server.shutdown()


def test_a_row_of_a_table(tab, place):
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    height = rng.normal(170, 10, 600).round(1)
    frame = pd.DataFrame(
        {
            "height": height,
            "income": np.exp(height / 20).round(2),
            "children": rng.poisson(height / 100),
            "sex": np.where(height > 170, "m", "f"),
            "smokes": rng.random(600) < 0.3,
            "born": pd.to_datetime("1980-01-01") + pd.to_timedelta(rng.integers(0, 9000, 600), "D"),
        }
    )
    frame.to_csv(place / "people.csv", index=False)
    short = ("--epochs=10", "--num-importance-samples=2", "--columns", "children=count")
    train_quietly(place / "people.csv", *short, f"--output={place / 'people'}")
    folder.unlock(place / "people")
    with contextlib.redirect_stdout(io.StringIO()):
        explore.main([str(place / "people"), f"--export={place / 'people.html'}"], "explore")
    trained = run.load(place / "people")
    tab.said.clear()
    for width, height in SIZES:
        tab.open((place / "people.html").as_uri(), width, height)
        assert tab.run("document.documentElement.scrollWidth") <= width
        tab.settle()
        cells = tab.run(
            "[...document.querySelectorAll('#row tbody tr')].map("
            "(row) => [...row.querySelectorAll('th, .value')].map((c) => c.textContent))"
        )
        assert [cell[0] for cell in cells] == list(frame.columns)
        # Medians of many draws, by the program that writes tables.
        made = trained.reconstruct(trained.data()[0]._replace(image=trained.data()[0].image[:1]))
        written = {name: value for name, value, _ in cells}
        assert abs(float(written["height"]) - made["height"][0]) < 2
        assert abs(float(written["income"]) / made["income"][0] - 1) < 0.2
        assert written["sex"].startswith(str(made["sex"][0]))
        days = pd.to_datetime(written["born"]) - pd.to_datetime(made["born"][0])
        assert abs(days.days) < 1500
        own = pd.read_csv(place / "people.csv").iloc[trained.data()[1][0]]
        assert cells[3][2] == own["sex"]
        assert float(cells[0][2]) == own["height"]
    assert tab.said == []


def exported_of(place, name, data, *arguments):
    """A short run on data that are no pictures, and its page, opened."""
    short = ("--hidden", "16", "--latent-dim=2", "--num-importance-samples=2")
    train_quietly(place / data, *short, *arguments, f"--output={place / name}")
    folder.unlock(place / name)
    with contextlib.redirect_stdout(io.StringIO()):
        explore.main([str(place / name), f"--export={place / name}.html"], "explore")
    return run.load(place / name), place / f"{name}.html"


def test_the_genes_of_a_cell(tab, place):
    rng = np.random.default_rng(0)
    groups = rng.gamma(0.5, 1.0, (2, 40))
    rates = groups[rng.integers(2, size=300)] * rng.gamma(5.0, 1.0, (300, 1))
    scipy.sparse.save_npz(place / "cells.npz", scipy.sparse.csr_matrix(rng.poisson(rates)))
    trained, file = exported_of(place, "cells", "cells.npz", "--epochs=20")
    for width, height in SIZES:
        tab.said.clear()
        tab.open(file.as_uri(), width, height)
        assert tab.run("document.documentElement.scrollWidth") <= width
        tab.settle()
        tab.run("document.querySelector('#sliders input').focus()")
        for _ in range(10):
            tab.key("ArrowRight", 39)
        tab.settle()
        z = np.array([tab.run("[...explorer.state.z]")], np.float32)
        genes = tab.run(
            "[...document.querySelectorAll('#row tbody tr')].map("
            "(row) => ['th', '.value'].map((of) => row.querySelector(of).textContent))"
        )
        label = CellLabel(np.float32([trained.config["typical_library"]]))
        means = np.asarray(trained.model.decode(trained.params, z, label).mean)[0]
        names = [trained.config["genes"][i] for i in trained.config["kept"]]
        assert len(genes) == 30
        for name, written in genes:
            assert float(written) == pytest.approx(means[names.index(name)], abs=0.0051)
        assert tab.run("document.getElementById('own').hidden")
        tab.run("document.querySelector('[value=brush]').click()")
        assert "cells in it" in tab.run("document.getElementById('map-help').textContent")
        assert tab.said == []


def test_a_sequence_by_time(tab, place):
    rng = np.random.default_rng(0)
    steps = np.arange(24)
    with (place / "waves.jsonl").open("w") as file:
        for phase in rng.uniform(0, 6, 80):
            wave = np.stack([np.sin(steps / 3 + phase), np.cos(steps / 3 + phase)], axis=1)
            file.write(json.dumps(wave[: rng.integers(12, 25)].round(3).tolist()) + "\n")
    trained, file = exported_of(place, "waves", "waves.jsonl", "--latents=recurrent", "--epochs=20")
    heat = heatmap.scaled_by(np.asarray(trained.data()[0].image))
    for width, height in SIZES:
        tab.said.clear()
        tab.open(file.as_uri(), width, height)
        assert tab.run("document.documentElement.scrollWidth") <= width
        tab.settle()
        tab.run("document.getElementById('draw').click()")
        tab.settle()
        z = np.array([tab.run("[...explorer.state.z]")], np.float32)
        of = "document.getElementById('decoded')"
        assert (tab.run(f"{of}.height"), tab.run(f"{of}.width")) == (8, 24)
        pixels = tab.run(f"[...{of}.getContext('2d').getImageData(0, 0, 24, 8).data]")
        seen = np.array(pixels).reshape(8, 24, 4)[..., 0]
        expected = np.asarray(heat(trained.model.decode(trained.params, z).mean))[0, ..., 0]
        assert np.abs(seen - 255 * expected).max() <= 1
        assert tab.run("document.getElementById('own').hidden")
        assert tab.said == []
