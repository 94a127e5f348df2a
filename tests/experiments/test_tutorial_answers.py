"""The answers to the exercises of the derivations' chapters, and their tables, against scipy."""

import importlib
import re

import numpy as np
import pytest
from scipy import optimize, special, stats
from tutorial_oracles import CHAPTERS, TOLERANCE, conditional_classes, over, quad, slope

from experiments.tutorial import (
    bound_lines,
    conditional_bound,
    gradient_lines,
    linear,
    probability_lines,
)

pytestmark = pytest.mark.long  # they read the run of the whole tutorial


@pytest.mark.parametrize("name", CHAPTERS)
def test_five_exercises_whose_answers_were_run(text, numbers, name):
    module = importlib.import_module(f"experiments.tutorial.{name}")
    section = text.split(f'<h2 id="{name}">')[1].split("</section>")[0]
    assert len(module.EXERCISES) == section.count("<details>") == 5
    used = set(re.findall(r"\[\[exercises\.(\w+)", str((module.TEXT, module.EXERCISES))))
    assert used == numbers[name]["exercises"].keys()
    for question, answer in module.EXERCISES:
        assert "exercises." not in question
        assert "[[" in answer


def close(found, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_the_answers_on_probability(numbers, counted):
    found = numbers["probability"]["exercises"]
    total, c = counted.sum(), probability_lines.CLASS
    given_off, given_on = counted / counted.sum(axis=1, keepdims=True)
    assert [found["class_and_on"], found["on"]] == [counted[1, c], counted[1].sum()]
    close(found["class_given_on"], given_on[c])
    assert [found["best_off"], found["best_on"]] == [given_off.argmax(), given_on.argmax()]
    close(
        [found["best_off_probability"], found["best_on_probability"]],
        [given_off.max(), given_on.max()],
    )
    independent = stats.contingency.expected_freq(counted)
    close(found["told"], special.rel_entr(counted / total, independent / total).sum())
    close(found["pixel_entropy"], stats.entropy(counted.sum(axis=1)))
    close(numbers["probability"]["entropy"], stats.entropy(counted.sum(axis=0)))
    close([found["mean"], found["scale"]], [0.4, 0.6])
    # E[N(x; 0.8 z, 0.6^2)^2] = N(x; 0, 0.8^2 + 0.6^2 / 2) / (2 * 0.6 * sqrt(pi))
    square = stats.norm.pdf(probability_lines.X, 0, np.sqrt(0.64 + 0.18)) / (1.2 * np.sqrt(np.pi))
    variance = square - stats.norm.pdf(probability_lines.X) ** 2
    close(found["deviation"], np.sqrt(variance))
    assert abs(found["draws_needed"] - variance * 1e8) <= 1 + 1e-6 * variance * 1e8


def test_the_rules_of_probability_on_counts(numbers, counted):
    found, c = numbers["probability"], probability_lines.CLASS
    assert found["count"] == {
        "all": counted.sum(),
        "class": counted[:, c].sum(),
        "off": counted[0].sum(),
        "both": counted[0, c],
    }
    close(found["p"]["total"], found["p"]["off"], 1e-12)
    close(found["p"]["off"] + found["p"]["on"], 1, 1e-12)
    close(found["p"]["off_given_zero"], counted[0, 0] / counted[:, 0].sum())
    close(found["p"]["zero_given_off"], counted[0, 0] / counted[0].sum())
    assert found["p"]["off_given_zero"] > 0.9 > 0.5 > found["p"]["zero_given_off"]
    for row in found["draws"]:
        assert (
            abs(row["estimate"] - stats.norm.pdf(probability_lines.X)) < 4 * row["standard_error"]
        )
        expected = found["exercises"]["deviation"] / np.sqrt(row["num"])
        np.testing.assert_allclose(row["standard_error"], expected, rtol=0.6 / row["num"] ** 0.1)


def test_the_answers_on_divergence(numbers):
    found = numbers["divergence"]["exercises"]
    wide, narrow = stats.norm(1, 2), stats.norm()
    between = lambda p, q: over(p, lambda z: p.logpdf(z) - q.logpdf(z))  # noqa: E731
    close(found["by_hand"], between(wide, narrow))
    close(found["reverse"], between(narrow, wide))
    close(between(stats.norm(found["one_bit"], 1), narrow), np.log(2))
    close(found["one_of_two"], stats.entropy([1, 0], [0.5, 0.5]))
    assert stats.entropy([0.5, 0.5], [1, 0]) == np.inf
    close(found["nearly_impossible"], stats.entropy([0.5, 0.5], [1 - 1e-6, 1e-6]))
    close(found["special_case"], numbers["divergence"]["diagonal"]["integral"])


def linear_bound(mean, covariance, divergence_to="prior"):
    """E_q[log p(x|z)] and KL(q || p(z)) or KL(q || p(z|x)), by moments."""
    weight, x = np.array(linear.WEIGHT), np.array(linear.OBSERVED)
    precision = np.eye(2) + weight.T @ weight / linear.NOISE**2
    center = np.linalg.solve(precision, weight.T @ x) / linear.NOISE**2
    away, spread = weight @ mean, np.trace(weight @ covariance @ weight.T)
    fit = stats.norm.logpdf(x, away, linear.NOISE).sum() - spread / (2 * linear.NOISE**2)
    other = (np.zeros(2), np.eye(2)) if divergence_to == "prior" else (center, precision)
    q, shift = stats.multivariate_normal(mean, covariance), mean - other[0]
    cross = np.trace(other[1] @ covariance) + shift @ other[1] @ shift
    log_constant = 0.5 * np.linalg.slogdet(other[1])[1] - np.log(2 * np.pi)
    return fit, -q.entropy() - log_constant + cross / 2, center, precision


def test_the_answers_on_the_bound(numbers):
    found, log_px = numbers["bound"]["exercises"], numbers["bound"]["log_px"]
    fit, to_prior, center, precision = linear_bound(np.zeros(2), np.eye(2))
    close([found["prior"], to_prior], [fit, 0])
    fit, to_prior, *_ = linear_bound(center, np.linalg.inv(precision))
    close([found["log_likelihood"], found["to_prior"]], [fit, to_prior])
    close(found["difference"], log_px)
    mean = np.array(bound_lines.Q_MEAN)
    scales = np.linspace(0.2, 0.6, 4001)
    bounds = [np.subtract(*linear_bound(mean, s**2 * np.eye(2))[:2]) for s in scales]
    close(found["best_scale"], scales[np.argmax(bounds)], 2e-4)
    close(found["best_bound"], np.max(bounds))
    close(found["diagonal_gap"], numbers["bound"]["fit"]["diagonal_gap"], 1e-3)
    weight = np.array(linear.WEIGHT)
    marginal = stats.multivariate_normal(
        np.zeros(4), weight @ weight.T + linear.NOISE**2 * np.eye(4)
    )
    close(found["twice"], marginal.logpdf(2 * np.array(linear.OBSERVED)))
    close(found["fall"], log_px - found["twice"])


def test_only_the_bound_and_the_blind_one_stay_below(numbers):
    found, log_px = numbers["bound"]["slips"], numbers["bound"]["log_px"]
    *_, center, precision = linear_bound(np.zeros(2), np.eye(2))
    over_prior = linear_bound(np.zeros(2), np.eye(2))[0]
    for name, mean, covariance in (
        ("q", np.array(bound_lines.Q_MEAN), bound_lines.Q_SCALE**2 * np.eye(2)),
        ("posterior", center, np.linalg.inv(precision)),
    ):
        fit, to_prior, *_ = linear_bound(mean, covariance)
        gap = linear_bound(mean, covariance, "posterior")[1]
        close(found[name]["right"], fit - to_prior)
        close(found[name]["over_prior"], over_prior - to_prior)
        close(found[name]["to_posterior"], fit - gap)
        close(found[name]["added"], fit + to_prior)
        assert max(found[name]["right"], found[name]["over_prior"]) < log_px + TOLERANCE
    assert min(found["posterior"][slip] for slip in ("to_posterior", "added")) > log_px + 1


def test_the_gap_is_the_encoders_and_the_gaussians(numbers):
    found, images = numbers["bound"]["fit_each"], numbers["bound"]["images"]
    # By Gauss and Hermite's rule what the grid says: log p(x) minus the gap.
    close(found["encoder"], images["log_px"] - images["gap"], 1e-3)
    assert found["encoder"] < found["fitted"] < images["log_px"]
    close(found["amortisation"] + found["family"], images["gap"], 2e-3)
    assert min(found["amortisation"], found["family"]) > 0.01


def test_the_grid_takes_longer_with_every_dimension(numbers):
    seconds = numbers["bound"]["seconds"]["grid"]
    assert seconds[4] > 100 * seconds[0]  # of 14 points and of half a million, on any machine


def test_the_answers_on_likelihood(numbers):
    found = numbers["likelihood"]["exercises"]
    image = {k: np.array(v) for k, v in numbers["likelihood"]["image"].items()}
    x, mean = image["grey"], image["reconstruction"]
    log_p = lambda sigma, x=x: stats.norm.logpdf(x, mean, sigma).sum()  # noqa: E731
    doubled = mean + np.sqrt(2) * (x - mean)
    close(found["doubled"], [log_p(s) - log_p(s, doubled) for s in (0.3, 1)])
    best = stats.norm.fit(x - mean, floc=0)[1]
    close(found["best"], best)
    close(found["gain"], log_p(best) - log_p(0.3))
    fall = log_p(found["averaged"]) - log_p(found["averaged"], doubled)
    close(fall, np.square(x - mean).mean())
    gaussians = [stats.norm.logpdf(0, 0, s) - stats.norm.logpdf(1, 0.01, s) for s in (0.3, 1)]
    close(found["pixel"], [-stats.bernoulli.logpmf(1, 0.01), *gaussians])
    close(found["positive"], len(x) * stats.norm.logpdf(0, 0, 0.05))
    assert found["positive"] > 0


def test_the_answers_on_the_gradient(numbers):
    found = numbers["gradient"]["exercises"]
    m, s = gradient_lines.MEAN, gradient_lines.SCALE
    q, f = stats.norm(m, s), lambda z: special.log_expit(2 * z - 1)
    score = lambda z: slope(lambda s: stats.norm.logpdf(z, m, s), s)  # noqa: E731
    close(found["by_mean"], slope(lambda m: over(stats.norm(m, s), f), m))
    close(found["square"], slope(lambda s: stats.norm(m, s).moment(2), s))
    scored = lambda b: over(q, lambda z: ((f(z) - b) * score(z)) ** 2)  # noqa: E731
    exact = slope(lambda s: over(stats.norm(m, s), f), s)
    moved = over(stats.norm(), lambda e: (e * slope(f, m + s * e)) ** 2)
    close(found["draws_worth"], (scored(0) - exact**2) / (moved - exact**2), 1e-3)
    best = optimize.minimize_scalar(scored, (-3, -1))
    close(found["best_baseline"], best.x, 1e-3)
    close(found["left"], (best.fun - exact**2) / (scored(0) - exact**2), 1e-3)
    close(found["discrete"], f(1) - f(0))


def test_the_noise_of_an_estimate_falls_with_the_root_of_its_draws(numbers):
    found = numbers["gradient"]["line"]
    m, s = gradient_lines.MEAN, gradient_lines.SCALE
    exact = numbers["gradient"]["derivations"]["inside"][0]["values"][0]
    terms = {
        "reparameterised": (stats.norm(), gradient_lines.moved),
        "score": (stats.norm(m, s), gradient_lines.scored),
    }
    for row in found["draws"]:
        for name, (q, term) in terms.items():
            variance = over(q, lambda z, term=term: (term(z) - exact) ** 2)
            close(found["deviation"][name], np.sqrt(variance))
            fourth = over(q, lambda z, term=term: (term(z) - exact) ** 4) / variance**2
            # The variance of a sample variance has the kurtosis in it.
            spread = np.sqrt((2 + (fourth - 3) / row["num"]) / (4 * found["repeats"]))
            expected = np.sqrt(variance / row["num"])
            np.testing.assert_allclose(row[name], expected, rtol=4 * spread)
            assert spread < 0.1
        error = row["reparameterised"] / np.sqrt(found["repeats"])
        assert abs(row["mean"] - exact) < 4 * error
    slip = m + s**2 * np.random.default_rng(0).normal(size=100_000)
    np.testing.assert_allclose(found["slip"]["variance"], slip.var(), rtol=0.02)
    assert found["slip"]["right"] == s**2


def test_the_answers_on_the_conditional_bound(numbers):
    found = numbers["conditional_bound"]["exercises"]
    x, p = conditional_bound.X, np.array(conditional_bound.P_CLASS)
    joints = list(conditional_classes())
    evidence = np.array([quad(lambda z, j=j: j.pdf([z, x])) for j in joints])
    close(found["evidence"], evidence)
    close(found["class"], p * evidence / (p @ evidence))
    close(found["second"], np.log(evidence[1]))
    moment = lambda n: quad(lambda z: z**n * joints[1].pdf([z, x])) / evidence[1]  # noqa: E731
    close(
        [found["second_mean"], found["second_scale"]],
        [moment(1), np.sqrt(moment(2) - moment(1) ** 2)],
    )
    # The posterior of the first class, and the bound with the third one's model.
    first = lambda z: joints[0].pdf([z, x]) / evidence[0]  # noqa: E731
    wrong = quad(lambda z: first(z) * (joints[2].logpdf([z, x]) - np.log(first(z))), 5)
    close(found["wrong"], wrong)
    close(found["lowered"], np.log(evidence[0]) - wrong)
    close(found["evidence_change"], np.log(evidence[0]) - np.log(evidence[2]))
    assert found["ten"] == np.log(10)
    generator = np.random.default_rng(0)
    drawn = np.concatenate(
        [
            joint.rvs(int(200_000 * share), random_state=generator)[:, 1]
            for joint, share in zip(joints, p, strict=True)
        ]
    )
    close([found["mean"], found["deviation"]], [drawn.mean(), drawn.std()], 0.02)
    close(found["within"], max(np.sqrt(j.cov[1, 1]) for j in joints))


def test_the_slips_of_the_conditional_bound(numbers):
    found = numbers["conditional_bound"]
    x, p = conditional_bound.X, np.array(conditional_bound.P_CLASS)
    joints = list(conditional_classes())
    evidence = np.array([quad(lambda z, j=j: j.pdf([z, x])) for j in joints])
    posterior = lambda z, c: joints[c].pdf([z, x]) / evidence[c]  # noqa: E731
    offset, noise = conditional_bound.OFFSET[0], conditional_bound.NOISE

    def standard(z):
        fit = stats.norm.logpdf(x, z + offset, noise)
        return posterior(z, 0) * (fit + stats.norm.logpdf(z) - np.log(posterior(z, 0)))

    close(found["slips"]["standard"], quad(standard, 5))
    assert found["slips"]["standard"] > found["log_px"] + 0.1
    # The one q for all classes by search, where the page averages precisions.
    weight = p * evidence / (p @ evidence)

    def regret(phi):
        q = stats.norm(phi[0], np.exp(phi[1]))
        nodes, weights = special.roots_hermitenorm(20)
        z = phi[0] + np.exp(phi[1]) * nodes
        logs = [
            joints[c].logpdf(np.stack([z, np.full_like(z, x)], axis=-1)) - np.log(evidence[c])
            for c in range(3)
        ]
        return -q.entropy() - weights @ (weight @ np.array(logs)) / weights.sum()

    best = optimize.minimize(regret, [0.0, 0.0], method="Nelder-Mead", tol=1e-8)
    close(found["slips"]["without_class"], best.fun)
    close(found["class_entropy"], stats.entropy(p))
    evidences = [stats.norm(j.mean[1], np.sqrt(j.cov[1, 1])) for j in joints]
    mixture = lambda x: p @ [of_class.pdf(x) for of_class in evidences]  # noqa: E731
    entropy = quad(lambda x: -mixture(x) * np.log(mixture(x)), 10)
    close(found["information"], entropy - p @ [of_class.entropy() for of_class in evidences])
    assert 0 < found["information"] < found["class_entropy"]
