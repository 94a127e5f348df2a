"""Each illness is named by its number, and none in what is healthy; no model is trained here."""

import numpy as np
import pytest
import scipy.stats

from vae_jax.run import diagnosis
from vae_jax.run.diagnosis import Course
from vae_jax.run.probe import Probe

RNG = np.random.default_rng(0)
N, Z = 400, 3


def normal(mean, scale=1.0, size=(N,)):
    return RNG.normal(mean, scale, size)


def healthy(**changed):
    """What is measured of a model that has learned, of KL 3 nats; with something else in it."""
    splits = ("train", "validation", "test")
    found = {
        "elbo": {name: normal(-20, 4) for name in splits},
        "mixture": normal(-23, 4),
        "kl": 3.0,
        "kl_per_dimension": np.array([2.0, 0.9, 0.1]),
        "moved": np.array([0.9, 0.5, 0.2]),
        "code_gain": normal(9, 2),
        "label_gain": normal(5, 2),
        "pareto_k": normal(0.4, 0.1),
        "ranks": RNG.multinomial(20_000, np.full(20, 1 / 20)),
        "codes": {name: normal(0, 1, (N, Z)) for name in splits},
        "of_prior": {name: normal(0, 1, (N, Z)) for name in splits},
    }
    return Probe(**{**found, **changed})


def course(**changed):
    elbo = [-24, -22, -21, -20.5, -20.2, -20.1, -20.05, -20.0]
    found = {
        "rows": [{"validation_elbo": float(e)} for e in elbo],
        "ended_by": "epochs",
        "rates": np.linspace(2e-3, 0, 1_000),
        "step": 1_000,
    }
    return Course(**{**found, **changed})


def peaked(num, at):
    """Ranks of values of which a share lies in the middle of what is drawn."""
    return RNG.multinomial(num, at * np.eye(20)[9] + (1 - at) / 20)


CASES = {
    "collapsed latents": lambda: (
        healthy(moved=np.full(Z, 1e-3), kl=0.0, code_gain=normal(0, 0.1)),
        course(),
    ),
    "decoder that ignores z": lambda: (healthy(code_gain=normal(0.1, 1)), course()),
    "decoder that ignores the label": lambda: (healthy(label_gain=normal(0.1, 1)), course()),
    "overfitting": lambda: (
        healthy(elbo={name: normal(-20 + 6 * (name == "train"), 4) for name in healthy().elbo}),
        course(),
    ),
    "underfitting": lambda: (healthy(mixture=normal(-18, 4)), course()),
    "too few latents": lambda: (healthy(kl_per_dimension=np.array([1.1, 1.0, 0.9])), course()),
    "likelihood that cannot fit these data": lambda: (healthy(ranks=peaked(2_000, 0.2)), course()),
    "proposal too narrow": lambda: (healthy(pareto_k=normal(0.9, 0.2)), course()),
    "prior and codes apart": lambda: (
        healthy(codes={n: normal(0, 3, (N, Z)) for n in ("train", "test")}),
        course(),
    ),
    "schedule not finished": lambda: (healthy(), course(ended_by="max_minutes", step=400)),
    "learning rate too small for so few steps": lambda: (
        healthy(),
        course(rates=np.linspace(1e-4, 0, 1_000)),
    ),
    "too few epochs": lambda: (
        healthy(),
        course(rows=[{"validation_elbo": float(e)} for e in (-40, -36, -32, -28, -24)]),
    ),
}


def ill(found, of):
    return [finding.name for finding in diagnosis.diagnose(found, of) if finding.ill]


@pytest.mark.parametrize("name", CASES)
def test_each_illness_is_named_and_no_other(name):
    assert ill(*CASES[name]()) == [name]


def test_the_healthy_have_none_and_every_illness_is_looked_for():
    findings = diagnosis.diagnose(healthy(), course())
    assert [finding.name for finding in findings] == list(CASES)
    assert not any(finding.ill for finding in findings)
    for finding in findings:
        assert finding.remedy
        assert type(finding.ill) is bool
        assert type(finding.number) is type(finding.threshold) is float
    assert diagnosis.lines(findings)[0] == "none of 12 illnesses found"


def test_what_a_run_does_not_have_is_not_judged():
    found = healthy(label_gain=None, mixture=None, kl_per_dimension=None)
    names = {finding.name for finding in diagnosis.diagnose(found, course())}
    missing = {"decoder that ignores the label", "underfitting", "too few latents"}
    assert names == set(CASES) - missing


def test_the_lines_say_number_threshold_and_remedy_the_ill_first():
    findings = diagnosis.diagnose(*CASES["proposal too narrow"]())
    first, said, remedy, *rest = diagnosis.lines(findings)
    assert first == "1 of 12 illnesses found"
    assert said.startswith("ILL   proposal too narrow: for 8")
    assert said.endswith("(Pareto k above 0.7); 50% is the most")
    assert remedy.startswith("      remedy: read log p(x) as a bound")
    assert len(rest) == 11
    assert all(line.startswith("fine  ") for line in rest)


def test_few_examples_are_not_taken_for_an_illness_by_chance():
    """Of twelve examples everything is uncertain; of 1,000 draws of them few are called ill."""
    wrong = 0
    for _ in range(200):
        elbo = {name: normal(-20, 4, 12) for name in ("train", "validation", "test")}
        few = healthy(elbo=elbo, ranks=RNG.multinomial(100, np.full(20, 1 / 20)))
        found = set(ill(few, course()))
        wrong += bool({"overfitting", "likelihood that cannot fit these data"} & found)
    assert wrong <= 10


def test_patience_may_end_a_run_at_any_rate_and_a_warm_up_is_no_fall():
    assert not ill(healthy(), course(ended_by="patience", step=500))
    rising = np.concatenate([np.linspace(0, 2e-3, 500), np.linspace(2e-3, 0, 500)])
    names = ill(healthy(), course(ended_by="max_minutes", rates=rising, step=5))
    assert "schedule not finished" in names
    assert not ill(healthy(), course(ended_by="max_minutes", step=900))


def test_a_gap_of_half_a_standard_deviation_is_the_threshold():
    """Of Gaussians of one scale, the area is Phi(d / sqrt 2)."""
    assert abs(scipy.stats.norm.cdf(0.5 / np.sqrt(2)) - diagnosis._MEDIUM) < 0.005


def test_the_area_under_the_curve_is_scipys():
    a, b = RNG.integers(0, 9, 70).astype(float), RNG.integers(2, 12, 40).astype(float)
    expected = scipy.stats.mannwhitneyu(a, b).statistic / (70 * 40)
    np.testing.assert_allclose(diagnosis.auc(a, b), expected)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_codes_are_told_from_the_prior_as_well_as_can_be(shift):
    """Of N(shift, 1) against N(0, 1) in one of three dimensions, no test has a larger area."""
    move = np.array([shift, 0, 0])
    codes = {name: normal(0, 1, (20_000, Z)) + move for name in ("train", "test")}
    prior = {name: normal(0, 1, (20_000, Z)) for name in ("train", "test")}
    area = diagnosis.told(healthy(codes=codes, of_prior=prior))
    np.testing.assert_allclose(area, scipy.stats.norm.cdf(shift / np.sqrt(2)), atol=0.01)
