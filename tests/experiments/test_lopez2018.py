"""The program of scVI: its splits are those of the protocol; its rows of the page."""

import numpy as np
import pytest
import scipy.sparse

from experiments.papers import __main__ as page
from experiments.papers import lopez2018
from vae_jax.run.data.matrices import Matrix
from vae_jax.run.errors import DataError


def matrix(values):
    genes = tuple(map(str, range(values.shape[1])))
    return Matrix(scipy.sparse.csr_matrix(values), genes, None, "here")


def test_the_splits_are_the_protocols():
    values = np.random.default_rng(1).poisson(1.0, (1_300, 6))
    values[[5, 9]] = 0
    values[:, 2] = 0
    found = lopez2018.split(matrix(values))
    there = values[values.sum(1) > 0]
    order = np.random.default_rng(0).permutation(len(there))
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found.test.x, there[order[:1000]][:, kept])
    rest = order[1000:]
    num = len(rest) // 10
    np.testing.assert_array_equal(found.validation.x, there[rest[:num]][:, kept])
    np.testing.assert_array_equal(found.train.x, there[rest[num:]][:, kept])
    assert found.kept.tolist() == kept
    np.testing.assert_array_equal(found.rows, rest[num:])
    with pytest.raises(DataError, match="here has 900 cells with counts: 1,200 are the least"):
        lopez2018.split(matrix(there[:900]))


def test_the_page_has_a_row_for_each_training():
    row = {"test_elbo": -193.618, "test_log_likelihood": -192.91, "epochs": 12}
    row |= {"seconds": 13.4, "cpu_seconds": 12.7}
    rows = [
        {"name": "negative_binomial", "by": "vae_jax", **row},
        {"name": "negative_binomial", "by": "scvi-tools 1.4.2", **row, "epochs": 60},
    ]
    assert page._of_cells({"rows": rows})[2:] == [
        "| negative binomial | vae_jax | -193.62 | -192.91 | 12 | 13 | 13 |",
        "| negative binomial | scvi-tools 1.4.2 | -193.62 | -192.91 | 60 | 13 | 13 |",
    ]
