"""Each illness is named by its number, and none in what is healthy; no model is trained here."""

import numpy as np
import pytest
import scipy.stats

from vae_jax.run import diagnosis, illnesses
from vae_jax.run.illnesses import Course
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


def of_few(num, **changed):
    """What is measured of so many examples of each split."""
    found = healthy()._asdict()
    for name in "mixture", "code_gain", "label_gain", "pareto_k":
        found[name] = found[name][:num]
    for name in "elbo", "codes", "of_prior":
        found[name] = {split: of[:num] for split, of in found[name].items()}
    return Probe(**{**found, "ranks": RNG.multinomial(100, np.full(20, 1 / 20)), **changed})


def state(found, of, name):
    (finding,) = [f for f in diagnosis.diagnose(found, of) if f.name == name]
    return finding.ill, finding.said


def test_few_examples_are_not_taken_for_an_illness_by_chance():
    """Of twelve examples everything is uncertain; of 200 draws of them few are called ill."""
    beyond = {"overfitting", "likelihood that cannot fit these data", "decoder that ignores z"}
    assert sum(bool(beyond & set(ill(of_few(12), course()))) for _ in range(200)) <= 10


def test_of_few_examples_nothing_is_fine_and_only_what_is_beyond_chance_is_ill():
    findings = diagnosis.diagnose(of_few(12), course())
    judged = {finding.name for finding in findings if finding.ill is not None}
    assert judged == {"schedule not finished", "learning rate too small for so few steps"}
    said = diagnosis.lines(findings)
    assert said[0] == "none of 2 illnesses found, 10 not judged"
    assert sum("not judged, as 12 examples are too few: " in line for line in said) == 10
    assert all(line.startswith("?     ") for line in said[3:])
    apart = {"train": normal(0, 1, 12), "validation": normal(0, 1, 12), "test": normal(-9, 1, 12)}
    assert ill(of_few(12, elbo=apart), course()) == ["overfitting"]
    assert all(f.ill is False for f in diagnosis.diagnose(of_few(36), course()))


def test_a_gain_too_noisy_to_be_seen_and_one_of_no_code_are_not_judged():
    noisy = RNG.permutation(np.repeat([-3_000.0, 2_500.0], N // 2))  # 3 standard errors are 412
    found, said = state(healthy(code_gain=noisy), course(), "decoder that ignores z")
    assert found is None
    assert said.startswith("not judged, as its standard error is too large: an example's own z")
    found, said = state(*CASES["collapsed latents"](), "decoder that ignores z")
    assert found is None
    assert "no latent is used" in said


def test_one_epoch_does_not_tell_whether_more_would_help():
    one = course(rows=[{"validation_elbo": -24.0}])
    found, said = state(healthy(), one, "too few epochs")
    assert found is None
    assert said.startswith("not judged, as one epoch is too few: ")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_illness_is_judged_by_what_is_no_finite_number(bad):
    """Each measurement, one entry of which is bad, and those that are of it."""
    names = {
        "mixture": {"underfitting"},
        "kl": {"decoder that ignores z"},
        "kl_per_dimension": {"too few latents"},
        "moved": {"collapsed latents"},
        "code_gain": {"decoder that ignores z"},
        "label_gain": {"decoder that ignores the label"},
    }
    for name, of in names.items():
        values = np.array(getattr(healthy(), name), copy=True)
        values.flat[0] = bad
        findings = diagnosis.diagnose(healthy(**{name: values}), course())
        assert {f.name for f in findings if f.ill is None} == of, name
        assert not any(f.ill for f in findings)
    for name in "codes", "of_prior":
        values = {split: of.copy() for split, of in getattr(healthy(), name).items()}
        values["test"][3, 1] = bad
        assert state(healthy(**{name: values}), course(), "prior and codes apart")[0] is None
    elbo = healthy().elbo
    elbo["test"][5] = bad
    findings = diagnosis.diagnose(healthy(elbo=elbo), course())
    of_elbo = {"overfitting", "underfitting", "decoder that ignores the label", "too few epochs"}
    assert {f.name for f in findings if f.ill is None} == of_elbo
    lost = course(rows=[{"validation_elbo": bad}] * 8)
    assert state(healthy(), lost, "too few epochs")[0] is None


def test_what_is_missing_everywhere_is_not_judged():
    of = healthy(ranks=np.zeros(20, int), pareto_k=np.full(N, np.nan))
    for name in "likelihood that cannot fit these data", "proposal too narrow":
        assert state(of, course(), name)[0] is None


def test_patience_may_end_a_run_at_any_rate_and_a_warm_up_is_no_fall():
    assert not ill(healthy(), course(ended_by="patience", step=500))
    rising = np.concatenate([np.linspace(0, 2e-3, 500), np.linspace(2e-3, 0, 500)])
    names = ill(healthy(), course(ended_by="max_minutes", rates=rising, step=5))
    assert "schedule not finished" in names
    assert not ill(healthy(), course(ended_by="max_minutes", step=900))


def test_a_gap_of_half_a_standard_deviation_is_the_threshold():
    """Of Gaussians of one scale, the area is Phi(d / sqrt 2)."""
    assert abs(scipy.stats.norm.cdf(0.5 / np.sqrt(2)) - illnesses._MEDIUM) < 0.005


def test_the_area_under_the_curve_is_scipys():
    a, b = RNG.integers(0, 9, 70).astype(float), RNG.integers(2, 12, 40).astype(float)
    expected = scipy.stats.mannwhitneyu(a, b).statistic / (70 * 40)
    np.testing.assert_allclose(illnesses.auc(a, b), expected)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_codes_are_told_from_the_prior_as_well_as_can_be(shift):
    """Of N(shift, 1) against N(0, 1) in one of three dimensions, no test has a larger area."""
    move = np.array([shift, 0, 0])
    codes = {name: normal(0, 1, (20_000, Z)) + move for name in ("train", "test")}
    prior = {name: normal(0, 1, (20_000, Z)) for name in ("train", "test")}
    area = illnesses.told(healthy(codes=codes, of_prior=prior))
    np.testing.assert_allclose(area, scipy.stats.norm.cdf(shift / np.sqrt(2)), atol=0.01)
