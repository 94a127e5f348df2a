"""The keys of a run: no stream of random numbers is drawn twice."""

import jax
import numpy as np
import pytest

from vae_jax import train
from vae_jax.run import keys


def words(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_folds_of_ten_seeds_have_the_same_words():
    """Nor a seed's own key, the folds by small numbers, or the order and noise of its training."""
    found = []
    for seed in range(10):
        of_run = keys.of_run(seed)
        folds = (train._ORDER, train._NOISE)
        found += [words(key) for key in of_run.values()]
        found += [words(jax.random.fold_in(of_run["train"], fold)) for fold in folds]
        # The first two are init and train.
        found += [words(jax.random.fold_in(jax.random.key(seed), i)) for i in range(2, 10)]
        found.append(words(jax.random.key(seed)))
    assert len(set(found)) == len(found) == 10 * (15 + 2 + 8 + 1)


@pytest.mark.parametrize("seed", [0, 7])
def test_what_trains_is_as_in_version_0_1(seed):
    """A change of these would be another training of every run that there is."""
    init, trains, *_ = jax.random.split(jax.random.key(seed), 4)
    of_run = keys.of_run(seed)
    assert words(of_run["init"]) == words(init)
    assert words(of_run["train"]) == words(trains)


def test_names_are_told_apart_and_their_words_are_the_same_everywhere():
    """By CRC-32, which no process salts."""
    expected = jax.random.fold_in(jax.random.key(3), 0xFB0663BB)
    assert words(keys.of_run(3)["generate"]) == words(expected)
