"""The options of a run: what cannot be used is one line, and JSON keeps the rest."""

import ast
import itertools
import json
import re
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


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"num_draws": 0}, "--num-draws is 0: it must be 1 or more"),
        ({"beta": -1.0}, "--beta is -1.0: it must be 0 or more, and finite"),
        ({"beta": float("nan")}, "--beta is nan: it must be 0 or more"),
        ({"free_bits": float("inf")}, "--free-bits is inf: it must be 0 or more, and finite"),
        ({"kl_warmup": -1}, "--kl-warmup is -1: it must be 0 or more"),
        ({"objective": "iwae"}, "--objective=iwae of one draw is the elbo: give --num-draws=5"),
        (
            {"objective": "iwae", "num_draws": 5, "kl_warmup": 3},
            "--kl-warmup is of the KL, which --objective=iwae has not apart",
        ),
        (
            {"objective": "iwae", "num_draws": 5, "gradient": "estimated_kl"},
            "--gradient=estimated_kl is not one of --objective=iwae: choose from reparameterized, "
            "doubly_reparameterized, vimco",
        ),
        (
            {"objective": "miwae", "num_draws": 4},
            "--objective=miwae needs --num-groups: see --help",
        ),
        ({"num_groups": 2}, "--num-groups is of --objective=miwae: leave it out"),
        (
            {"objective": "miwae", "num_draws": 5, "num_groups": 2},
            "--num-groups is 2 but --num-draws is 5: let it divide them",
        ),
        (
            {"objective": "renyi", "num_draws": 5, "alpha": 1.5},
            "--alpha is 1.5: give a number from 0 to 1",
        ),
        ({"penalty": "mmd"}, "--penalty=mmd needs --penalty-weight: see --help"),
        ({"penalty_weight": 2.0}, "--penalty-weight is of a --penalty: give one, or leave it out"),
        (
            {"penalty": "mmd", "penalty_weight": float("nan")},
            "--penalty-weight is nan: it must be above 0, and finite",
        ),
        (
            {"penalty": "mmd", "penalty_weight": 1.0, "num_draws": 2},
            "--penalty=mmd takes one draw of z for each image",
        ),
        (
            {"objective": "iwae", "num_draws": 5, "penalty": "mmd", "penalty_weight": 1.0},
            "--penalty is of the KL, which --objective=iwae has not apart",
        ),
        ({"beta": 0.0, "free_bits": 0.1}, "--beta is 0, which leaves no KL: leave --free-bits out"),
        (
            {"free_bits": 0.1, "gradient": "estimated_kl"},
            "--free-bits takes the exact KL and --gradient=estimated_kl does not",
        ),
    ],
)
def test_objectives_that_make_no_sense(chosen, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        options.check(options.Options(objective=options.Objective(**chosen)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"run": options.Run(checkpoint_seconds=float("nan"))}, "--checkpoint-seconds is nan: it"),
        ({"run": options.Run(checkpoint_seconds=-1.0)}, "--checkpoint-seconds is -1.0: it must be"),
        ({"run": options.Run(checkpoint_seconds=float("inf"))}, "--checkpoint-seconds is inf: it"),
        ({"run": options.Run(resume=True)}, "--resume needs --output=DIR"),
        ({"run": options.Run(max_minutes=0.0)}, "--max-minutes is 0.0: it must be above 0, and"),
        ({"run": options.Run(max_minutes=float("nan"))}, "--max-minutes is nan: it must be above"),
        ({"training": options.Training(seed=-1)}, "--seed is -1: it must be from 0 to 2^63 - 1"),
        ({"training": options.Training(seed=2**63)}, f"--seed is {2**63}: it must be from 0"),
        ({"training": options.Training(average_decay=1.0)}, "--average-decay is 1.0: it must be"),
    ],
)
def test_numbers_that_mean_nothing(changed, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        options.check(options.Options(**changed))


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("free-bits", {"free_bits": 0.1}), ("penalty", {"penalty": "mmd", "penalty_weight": 1.0})],
)
def test_free_bits_and_penalties_are_of_a_whole_batch(name, chosen):
    chosen = options.Options(
        objective=options.Objective(**chosen), training=options.Training(accumulate=2)
    )
    with pytest.raises(UsageError, match=f"--{name} is of the mean over a batch"):
        options.check(chosen)


def test_penalties_are_of_gaussian_posteriors():
    chosen = options.Options(
        objective=options.Objective(penalty="mmd", penalty_weight=1.0),
        model=options.Model(posterior="planar"),
    )
    with pytest.raises(UsageError, match="--penalty=mmd is of Gaussian posteriors and not of"):
        options.check(chosen)


def test_options_of_a_run_that_is_older_than_the_objective():
    stored = options.to_json(options.Options())
    del stored["objective"]
    before = options.Options(objective=options.Objective(gradient="reparameterized"))
    assert options.from_json(stored) == before


def test_a_run_does_not_start_from_what_it_would_overwrite():
    for output in Path("a"), Path("b/../a"):
        chosen = options.Options(
            training=options.Training(init_from=Path("a")),
            run=options.Run(output=output, overwrite=True),
        )
        with pytest.raises(UsageError, match="--init-from and --output are both a: name another"):
            options.check(chosen)


@pytest.mark.parametrize(("patience", "select"), [(0, "last"), (5, "best")])
def test_a_run_that_is_older_than_the_selection_has_what_its_patience_said(patience, select):
    stored = options.to_json(options.Options(training=options.Training(patience=patience)))
    del stored["run"]["select"], stored["run"]["max_minutes"]
    assert options.from_json(stored).run.select == select


def test_a_resumed_run_keeps_its_selection_and_may_have_more_time():
    stored = options.Options(run=options.Run(output=Path("a"), select="last", max_minutes=1.0))
    longer = options.Run(output=Path("a"), select="last", max_minutes=9.0)
    options.check_resumed(options.Options(run=longer), stored)
    asked = options.Options(run=options.Run(output=Path("a"), select="best"))
    with pytest.raises(UsageError, match="--select is best but the run in a has last: leave it"):
        options.check_resumed(asked, stored)


def test_a_resumed_run_keeps_its_objective():
    stored = options.Options(run=options.Run(output=Path("a")))
    asked = options.Options(objective=options.Objective(beta=2.0), run=stored.run)
    with pytest.raises(UsageError, match=r"--beta is 2\.0 but the run in a has 1\.0"):
        options.check_resumed(asked, stored)


def test_a_flag_that_is_on_says_what_switching_it_off_does():
    """Of it --help shows --no-NAME alone, beside what NAME does."""
    folder, seen = Path(options.__file__).parents[1], []
    for path in folder.rglob("*.py"):
        classes = (of for of in ast.walk(ast.parse(path.read_text())) if type(of) is ast.ClassDef)
        for field, said in (pair for of in classes for pair in itertools.pairwise(of.body)):
            on = isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Constant)
            if on and field.value.value is True and isinstance(said, ast.Expr):
                seen.append(field.target.id)
                text = said.value.value
                assert text.startswith("Whether ")
                assert f"--no-{field.target.id} " in text
    assert seen == ["browser", "browser"]  # of images and of tables
