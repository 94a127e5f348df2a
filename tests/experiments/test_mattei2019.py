"""The program of MIWAE: its masks and its rivals are those of the protocol; its row of the page."""

import json

import numpy as np
import pytest
from sklearn.impute import SimpleImputer

from experiments.papers import __main__ as page
from experiments.papers import mattei2019


def test_the_masks_are_the_protocols_and_column_means_have_the_error_of_the_columns():
    whole, x = mattei2019.masked(2)
    assert x.shape == (569, 2, 30)
    for i in range(2):
        hidden = np.isnan(x[:, i])
        np.testing.assert_array_equal(hidden, np.random.default_rng(i).random((569, 30)) < 0.5)
        np.testing.assert_array_equal(x[:, i][~hidden], whole[~hidden])
        filled = SimpleImputer().fit_transform(x[:, i])
        error = mattei2019.error(whole, filled, x[:, i])
        # Of standardised columns about their variance, 1, and a little more: means of half of them.
        np.testing.assert_allclose(error, np.square(whole[hidden] - filled[hidden]).mean())
        assert 0.95 < error < 1.1


def test_the_page_has_a_row_for_each_imputer():
    rows = [
        {
            "name": "MIWAE",
            "published": 0.28,
            "error": 0.2904,
            "deviation_over_seeds": 0.011,
            "values": [0.28, 0.30],
            "coverage": [0.9, 0.88],
        },
        {
            "name": "SimpleImputer",
            "published": None,
            "error": 1.03,
            "deviation_over_seeds": None,
            "values": [1.03],
        },
    ]
    assert page._imputed({"rows": rows})[2:] == [
        "| MIWAE | 0.28 | 0.290 +- 0.011 (2 masks) | 89.0% |",
        "| SimpleImputer |  | 1.030 |  |",
    ]


@pytest.mark.long
def test_a_short_run_leaves_its_table(command, tmp_path):
    small = (
        "--masks=1",
        "--members=2",
        "--steps=3",
        "--num-samples=2",
        "--hidden=8",
        "--latent-dim=2",
    )
    done = command("papers.mattei2019", *small, f"--output={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    ours, both, *theirs = results["rows"]
    assert (ours["name"], both["name"]) == ("MIWAE", "2 MIWAE")
    assert both["values"][0] < ours["values"][0]  # of two guesses the mean is nearer
    assert 0.2 < theirs[-1]["error"] < 0.5 < ours["error"]  # hardly trained
    assert page.page([results])
