"""The card's program is one that runs: what it tells the model is what the run can be told."""

import ast
import json
import re

import numpy as np
import pandas as pd
import pytest

from vae_jax.run import card, given
from vae_jax.run.data import conditions

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(17, 91, 200),
        "dose": np.exp(RNG.normal(size=200)),
        "site": RNG.choice(["a", 'the "b"'], 200),
        "ward": RNG.integers(1, 4, 200),
        "smokes": RNG.random(200) < 0.5,
        "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(RNG.integers(0, 99, 200), unit="D"),
    }
)
RESULTS = {"conditional": True}


def config_of(frame):
    columns = conditions.columns_of(frame, dict.fromkeys(frame), np.arange(len(frame)), "here")
    stored = conditions.stored(columns, conditions.encode(frame, columns))
    return columns, json.loads(json.dumps(stored))


def calls(config, noun, results=RESULTS):
    """What each method of the card's program is called with, by its name."""
    code = re.search(r"```py\n(.*)```", card._usage(noun, config, results), re.DOTALL)[1]
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return {
        call.func.attr: {of.arg: ast.literal_eval(of.value) for of in call.keywords}
        for call in found
    }


@pytest.mark.parametrize("days", ["dates", "texts", "times"])
def test_the_program_tells_a_run_on_images_what_it_was_told(days):
    of = {"dates": FRAME["day"], "texts": FRAME["day"].astype(str)}
    of["times"] = FRAME["day"] + pd.to_timedelta(RNG.integers(1, 86_400, 200), unit="s")
    frame = FRAME.assign(day=of[days])
    columns, config = config_of(frame)
    found = calls(config, "images")
    label = found["generate"]["label"]
    assert list(label) == list(frame)
    assert all(type(value) in (int, float, str, bool) for value in label.values())
    assert found["encode"] == found["score"] == {"label": label}
    asked, notes = conditions.drawn(config, 8, label, 0)
    told = given.told(label, 8, columns)
    expected = np.tile(np.float32(config["condition_rows"][0]), (8, 1))
    np.testing.assert_allclose(asked, expected, atol=1e-4)
    np.testing.assert_allclose(told, expected, atol=1e-4)
    assert not notes


def test_the_program_asks_a_run_on_a_table_by_its_columns():
    _, config = config_of(FRAME[["age", "site"]])
    found = calls(config, "rows")
    assert list(found["generate"]["condition"]) == ["age", "site"]
    conditions.drawn(config, 8, found["generate"]["condition"], 0)
    assert found["encode"] == found["score"] == {}  # a row has its own


def test_the_program_names_a_class_of_images():
    found = calls({"num_classes": 2, "classes": ["cat", "dog"]}, "images")
    assert found["generate"] == found["encode"] == found["score"] == {"label": "cat"}
    alone = {"conditional": False}
    assert calls({"num_classes": 2}, "images", alone)["generate"] == {}
    assert calls({}, "cells", alone)["score"] == {}
