"""The options of a run: what cannot be used is one line, and JSON keeps the rest."""

import json
from pathlib import Path

import pytest

from vae_jax.run import options
from vae_jax.run.errors import UsageError


def test_options_survive_json():
    chosen = options.Options(run=options.Run(output=Path("a/b")))
    assert options.from_json(json.loads(json.dumps(options.to_json(chosen)))) == chosen


def test_conditional_needs_labels_and_an_embedding():
    model = options.Model(conditional=True)
    binarized = options.Data(dataset="binarized_mnist")
    with pytest.raises(UsageError, match=r"--conditional needs labels, which binarized_mn"):
        options.check(options.Options(data=binarized, model=model))
    model = options.Model(conditional=True, embedding_dim=0)
    with pytest.raises(UsageError, match=r"--embedding-dim is 0: it must be 1 or more"):
        options.check(options.Options(model=model))
    with pytest.raises(UsageError, match=r"--num-class-samples is 1: it must be 2"):
        options.check(options.Options(evaluation=options.Evaluation(num_class_samples=1)))
