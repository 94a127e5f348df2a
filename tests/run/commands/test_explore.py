"""The page of a run: its contents, and what it refuses; tests/run/explorer has a browser."""

import base64
import hashlib
import io
import json
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from tests.run.commands.after import of_command
from vae_jax.run import folder, kinds, sequence_options
from vae_jax.run.commands import explore
from vae_jax.run.errors import RunError, UsageError
from vae_jax.run.explorer import codes, program

pytestmark = pytest.mark.usefixtures("one_program_for_all")


def test_a_page_of_its_own(trained, of, tmp_path):
    """Its codes, its map and its pictures, read as a browser does; it asks nobody for anything."""
    of_run, pictures = trained
    file = tmp_path / "page.html"
    assert "MB\n" in of_command(explore, of_run, pictures, f"--export={file}", "--num=20")
    page = file.read_text()
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://(?!www\.w3\.org/)""", page
    )
    assert str(pictures.parent) not in page  # where things lie is nobody's business
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["connect-src"]) == ("'none'", "'none'")
    for tag, rule in ("style", "style-src"), ("script", "script-src"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    (told,) = re.findall(r'id="contents">(.*?)</script>', page, re.DOTALL)
    told = json.loads(told)

    def floats(text):
        return np.frombuffer(base64.b64decode(text), "<f4")

    names = sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))[::3]
    assert told["names"] == names
    assert [told["colours"][0]["names"][i] for i in told["colours"][0]["of"]] == [
        n[:3] for n in names
    ]
    images = np.stack([np.asarray(Image.open(pictures / name)) for name in names])
    code = of.encode(images)
    np.testing.assert_array_equal(floats(told["codes"]).reshape(20, 2), code.mean)
    np.testing.assert_array_equal(floats(told["maps"][0]["xy"]).reshape(20, 2), code.mean)
    kl = (code.mean**2 + code.scale**2 - 1) / 2 - np.log(code.scale)
    np.testing.assert_allclose(told["cost"], kl.mean(axis=0), atol=1e-4)
    assert set(told["active"]) == set(np.flatnonzero(code.mean.var(axis=0) > 0.01).tolist())
    atlas = Image.open(io.BytesIO(base64.b64decode(told["atlas"]["src"].partition(",")[2])))
    np.testing.assert_array_equal(np.hsplit(np.asarray(atlas), 20), images)
    assert told["decoder"] is not None


def test_what_is_not_explored(trained, tmp_path):
    said = {
        "--port=65536": "--port is 65536",
        "--export=page.htm": "has none of the endings .html",
        "--num=0": "--num is 0",
    }
    for option, message in said.items():
        with pytest.raises(UsageError, match=message):
            of_command(explore, trained[0], option)
    of_steps = {
        **folder.stamp(),
        "kind": "sequences",
        "options": kinds.to_json(sequence_options.Options(sequence_options.Data("a.jsonl"))),
        "lengths": [3],
        "centre": [0.0],
        "spread": [1.0],
        "length": 3,
        "likelihood": "normal",
    }
    (tmp_path / "config.json").write_text(json.dumps(of_steps))
    with pytest.raises(UsageError, match=r"a run with latents at every step, and explore is for"):
        of_command(explore, tmp_path)


def test_a_network_that_a_page_cannot_carry(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "MOST_BYTES", 10)
    with pytest.raises(
        RunError, match=r"a page cannot carry .*, as the decoder has arrays of 0 MB"
    ):
        of_command(explore, trained[0], f"--export={tmp_path / 'page.html'}", "--num=5")
    assert not list(tmp_path.iterdir())


def test_latents_of_more_than_two_dimensions_are_seen_by_components(monkeypatch):
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(40, 3)) * [3, 0.1, 1] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]) + 5
    umap = types.SimpleNamespace(UMAP=lambda **how: PCA(2))  # in its place: it takes a minute
    monkeypatch.setitem(sys.modules, "umap", umap)
    of_components, by_latents, by_umap = codes._maps(mean, np.array([2, 0, 1]))
    assert (by_umap["name"], "directions" in by_umap) == ("UMAP", False)
    xy = np.frombuffer(base64.b64decode(of_components["xy"]), "<f4").reshape(40, 2)
    expected = PCA(2).fit(mean)
    np.testing.assert_allclose(np.abs(xy), np.abs(expected.transform(mean)), atol=1e-4)
    shares = [f"({share:.0%} of variance)" for share in expected.explained_variance_ratio_]
    assert [axis.partition(" (")[2] for axis in of_components["axes"]] == [s[1:] for s in shares]
    xy = np.frombuffer(base64.b64decode(by_latents["xy"]), "<f4").reshape(40, 2)
    np.testing.assert_allclose(xy, mean[:, [2, 0]], rtol=1e-6)
