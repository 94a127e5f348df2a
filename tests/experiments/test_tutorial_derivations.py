"""Every numbered line of every derivation, against scipy: none of its formulas is the page's."""

import html
import re

import numpy as np
import pytest
from scipy import integrate, special, stats
from tutorial_oracles import CHAPTERS, TOLERANCE, conditional_classes, over, quad, slope

from experiments.tutorial import (
    bound_lines,
    conditional_bound,
    divergence,
    gradient_lines,
    linear,
    page,
    probability_lines,
)

pytestmark = pytest.mark.long  # they read the run of the whole tutorial


# Probability


def probability_oracles(numbers, counted):
    share, c = counted / counted.sum(), probability_lines.CLASS
    joint, p_off, p_class = share[0, c], share[0].sum(), share.sum(axis=0)
    bayes = [
        (joint, joint),
        (joint, joint),
        (joint, joint),
        (counted[0, c] / counted[0].sum(), joint / p_off),
        (p_off, 1 - share[1].sum()),
        (p_off, 1 - p_class @ (counted[1] / counted.sum(axis=0))),
        (counted[0, c] / counted[0].sum(), joint / (1 - share[1].sum())),
    ]
    both = stats.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]])
    x, z = probability_lines.X, probability_lines.Z
    evidence = stats.norm.pdf(x)
    posterior = stats.norm(0.8 * x, 0.6)
    by_quad = quad(lambda z: both.pdf([z, x]))
    densities = [
        (both.pdf([z, x]), stats.norm.pdf(x, 0.8 * z, 0.6) * stats.norm.pdf(z)),
        (evidence, by_quad),
        (by_quad, over(stats.norm(), lambda z: stats.norm.pdf(x, 0.8 * z, 0.6))),
        (posterior.pdf(z), both.pdf([z, x]) / evidence),
        (posterior.mean(), quad(lambda z: z * both.pdf([z, x])) / evidence),
    ]
    return {"bayes": bayes, "densities": densities}


# Divergence


def divergence_oracles(numbers, counted):
    p, q = np.array(divergence.P), np.array(divergence.Q)
    log_ratio, away = -stats.entropy(p, q), 1 - p.sum()
    nonnegative = [
        (-special.rel_entr(p, q).sum(), log_ratio),
        (log_ratio, away),
        (special.kl_div(p, q).sum() - special.rel_entr(p, q).sum(), away),
        (q.sum() - p.sum(), 0),
        (stats.entropy(p, q), 0),
        (log_ratio, special.logsumexp(np.log(q))),
        (special.logsumexp(np.log(q)), 0),
    ]
    mean, scale = np.array(divergence.MEAN), np.sqrt(np.exp(divergence.LOGVAR))
    q, standard = stats.norm(mean[0], scale[0]), stats.norm()
    one = over(q, lambda z: q.logpdf(z) - standard.logpdf(z))
    cross = over(q, standard.logpdf)
    dimensions = [stats.norm(m, s) for m, s in zip(mean, scale, strict=True)]
    every = sum(over(d, lambda z, d=d: d.logpdf(z) - standard.logpdf(z)) for d in dimensions)
    plane = stats.multivariate_normal(mean, np.diag(scale**2))
    both = integrate.dblquad(
        lambda a, b: (
            plane.pdf([a, b]) * (plane.logpdf([a, b]) + np.log(2 * np.pi) + (a * a + b * b) / 2)
        ),
        *(-8, 8, -8, 8),
        epsabs=1e-6,
    )[0]
    diagonal = [
        (one, one),
        (one, -q.entropy() - cross),
        (-q.entropy(), -q.entropy()),
        (q.var(), q.moment(2) - q.mean() ** 2),
        (-q.entropy(), -0.5 * np.log(2 * np.pi * np.e * q.var())),
        (cross, over(q, standard.logpdf)),
        (q.moment(2), over(q, np.square)),
        (one, -q.entropy() - cross),
        (both, every),
        (every, both),
        (every, both),
    ]
    found = numbers["divergence"]["gaussian"]
    (m1, m2), (s1, s2) = np.array(found["means"]), np.array(found["covariances"])
    first, second = (stats.multivariate_normal(m, s) for m, s in ((m1, s1), (m2, s2)))
    # Gauss and Hermite's rule of three points is exact for squares.
    nodes, weights = special.roots_hermitenorm(3)
    noise = np.stack(np.meshgrid(nodes, nodes, nodes), axis=-1).reshape(-1, 3)
    weight = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3
    z = m1 + noise @ np.linalg.cholesky(s1).T
    cross = weight @ second.logpdf(z)
    divergence_ = -first.entropy() - cross
    maha = lambda z, m, s: np.square(np.linalg.solve(np.linalg.cholesky(s), (z - m).T)).sum(0)  # noqa: E731
    own, other, mixed = (weight @ maha(z, m, s) for m, s in ((m1, s1), (m2, s2), (m1, s2)))
    eigenvalues = np.linalg.eigvals(np.linalg.solve(s2, s1)).real.sum()
    shift = maha(m1[None], m2, s2)[0]
    log_2 = second.logpdf(np.zeros(3))
    full = [
        (divergence_, divergence_),
        (log_2, log_2),
        (divergence_, weight @ (first.logpdf(z) - second.logpdf(z))),
        (own, stats.chi2(3).mean()),
        (own, 3),
        (np.linalg.eigvals(np.linalg.solve(s1, s1)).real.sum(), 3),
        (other, mixed + shift),
        (mixed, eigenvalues),
        (divergence_, divergence_),
    ]
    return {"nonnegative": nonnegative, "diagonal": diagonal, "full": full}


# The bound


def bound_oracles(numbers, counted):
    weight, x, noise = np.array(linear.WEIGHT), np.array(linear.OBSERVED), linear.NOISE
    mean, scale = np.array(bound_lines.Q_MEAN), bound_lines.Q_SCALE
    marginal = stats.multivariate_normal(np.zeros(4), weight @ weight.T + noise**2 * np.eye(4))
    log_px = marginal.logpdf(x)
    # The posterior by conditioning the joint Gaussian of z and x.
    gain = weight.T @ np.linalg.inv(marginal.cov)
    posterior = stats.multivariate_normal(gain @ x, np.eye(2) - gain @ weight)
    prior, q = (
        stats.multivariate_normal(m, c)
        for m, c in ((np.zeros(2), np.eye(2)), (mean, scale**2 * np.eye(2)))
    )
    nodes, weights = special.roots_hermitenorm(60)
    z = mean + scale * np.stack(np.meshgrid(nodes, nodes), axis=-1)
    weights = np.outer(weights, weights) / weights.sum() ** 2

    def likelihood(z):
        return stats.norm.logpdf(x, z @ weight.T, noise).sum(axis=-1)

    log_q, log_posterior = -q.entropy(), (weights * posterior.logpdf(z)).sum()
    log_prior, fit = (weights * prior.logpdf(z)).sum(), (weights * likelihood(z)).sum()
    gap, to_prior = log_q - log_posterior, log_q - log_prior
    bound = [
        (gap, gap),
        (gap, log_q - log_posterior),
        (posterior.logpdf(mean), likelihood(mean) + prior.logpdf(mean) - log_px),
        (gap, log_q - fit - log_prior + log_px),
        (log_px, log_px),
        (gap, log_q - fit - log_prior + log_px),
        (to_prior, log_q - log_prior),
        (gap, to_prior - fit + log_px),
        (-gap, fit - to_prior - log_px),
        (log_px - gap, fit - to_prior),
        (gap, 0),
        (log_px, fit - to_prior),
        (-(log_px - gap), to_prior - fit),
    ]
    joint = lambda b, a: np.exp(likelihood(np.array([a, b])) + prior.logpdf([a, b]))  # noqa: E731
    evidence = np.log(integrate.dblquad(joint, -6, 6, -6, 6, epsabs=1e-8)[0])
    ratio = likelihood(z) + prior.logpdf(z) - q.logpdf(z)
    weighted = special.logsumexp(ratio, b=weights)
    by_jensen = [
        (log_px, evidence),
        (evidence, weighted),
        (weighted, weighted),
        (weighted, (weights * ratio).sum()),
        ((weights * ratio).sum(), fit + log_prior - log_q),
        (fit + log_prior - log_q, log_px - gap),
    ]
    return {"bound": bound, "by_jensen": by_jensen}


# Likelihood


def likelihood_oracles(numbers, counted):
    image = {k: np.array(v) for k, v in numbers["likelihood"]["image"].items()}
    x, mean, sigma = image["grey"], image["reconstruction"], 0.3
    num, worst = len(x), np.abs(x - mean).argmax()
    log_p = lambda sigma, mean=mean: stats.norm.logpdf(x, mean, sigma).sum()  # noqa: E731
    together = stats.multivariate_normal(mean, sigma**2 * np.eye(num)).logpdf(x)
    pixel = np.log(stats.norm.pdf(x[worst], mean[worst], sigma))
    best = stats.norm.fit(x - mean, floc=0)[1]  # by maximum likelihood
    # From the density of the sum of squares over sigma^2, chi-squared with D degrees of freedom.
    squares = stats.chi2.logpdf(np.square(x - mean).sum() / sigma**2, num) + (
        -(num / 2 - 1) * np.log(np.square(x - mean).sum() / sigma**2)
        + special.gammaln(num / 2)
        - num / 2 * np.log(np.pi)
        - num * np.log(sigma)
    )
    half = np.sqrt(0.5)
    gaussian = [
        (together, log_p(sigma)),
        (pixel, stats.norm.logpdf(x[worst], mean[worst], sigma)),
        (pixel, stats.norm.logpdf((x - mean)[worst] / sigma) - np.log(sigma)),
        (together, squares),
        (together - log_p(sigma, image["average"]), squares - log_p(sigma, image["average"])),
        (-log_p(half), -stats.multivariate_normal(mean, 0.5 * np.eye(num)).logpdf(x)),
        (slope(log_p, sigma), slope(log_p, sigma, 3e-4)),
        (slope(log_p, best), 0),
        (log_p(best), -num * stats.norm(scale=best).entropy()),
    ]
    x, p = image["binary"], image["probability"]
    worst = np.abs(x - p).argmax()
    mass = stats.bernoulli.pmf(x, p)
    bernoulli = [
        (mass[worst], stats.binom.pmf(x[worst], 1, p[worst])),
        (np.log(mass[worst]), stats.binom.logpmf(x[worst], 1, p[worst])),
        (stats.bernoulli.logpmf(x, p).sum(), np.log(mass.prod())),
    ]
    return {"gaussian": gaussian, "bernoulli": bernoulli}


# The gradient


def gradient_oracles(numbers, counted):
    m, s, at = gradient_lines.MEAN, gradient_lines.SCALE, gradient_lines.AT
    noise, z = gradient_lines.NOISE_AT, m + s * gradient_lines.NOISE_AT
    f = lambda z: special.log_expit(2 * z - 1)  # noqa: E731
    expected = lambda scale: over(stats.norm(m, scale), f)  # noqa: E731
    exact = slope(expected, s)
    moving = quad(lambda z: f(z) * slope(lambda s: stats.norm.pdf(z, m, s), s))
    through = over(stats.norm(), lambda e: slope(lambda s: f(m + s * e), s))
    score = lambda z: slope(lambda s: stats.norm.logpdf(z, m, s), s)  # noqa: E731
    q = stats.norm(m, s)
    inside = [(exact, moving), (exact, moving), (moving, moving), (0, 0), (exact, 0)]
    by_score = [
        (slope(lambda s: stats.norm.pdf(at, m, s), s), q.pdf(at) * score(at)),
        (moving, over(q, lambda z: f(z) * score(z))),
        (over(q, score), 0),
        (exact, over(q, lambda z: (f(z) + 1) * score(z))),
    ]
    draws = numbers["gradient"]["derivations"]["reparameterised"][-1]["values"][1]
    assert abs(draws - exact) < 4 * numbers["gradient"]["line"]["standard_error"] < 0.02
    reparameterised = [
        (q.pdf(z) * s, stats.norm.pdf(noise)),
        (over(q, f), over(stats.norm(), lambda e: f(m + s * e))),
        (expected(s), quad(lambda e: stats.norm.pdf(e) * f(m + s * e))),
        (exact, through),
        (slope(lambda s: f(m + s * noise), s), noise * slope(f, z)),
        (exact, over(stats.norm(), lambda e: e * slope(f, m + s * e))),
        (through, draws),  # held above to four of its standard errors
    ]
    return {"inside": inside, "by_score": by_score, "reparameterised": reparameterised}


# The conditional bound


def conditional_bound_oracles(numbers, counted):
    c, x, p = conditional_bound.CLASS, conditional_bound.X, np.array(conditional_bound.P_CLASS)
    joints = list(conditional_classes())
    joint = joints[c]
    prior = stats.norm(joint.mean[0], np.sqrt(joint.cov[0, 0]))
    marginals = [stats.norm(j.mean[1], np.sqrt(j.cov[1, 1])) for j in joints]
    gain = joint.cov[0, 1] / joint.cov[1, 1]
    posterior = stats.norm(
        joint.mean[0] + gain * (x - joint.mean[1]),
        np.sqrt(joint.cov[0, 0] - gain * joint.cov[0, 1]),
    )
    q = stats.norm(conditional_bound.Q_MEAN, conditional_bound.Q_SCALE)
    likelihood = stats.norm(x - conditional_bound.OFFSET[c], conditional_bound.NOISE)  # of z
    log_px, by_quad = marginals[c].logpdf(x), quad(lambda z: joint.pdf([z, x]))
    gap = over(q, lambda z: q.logpdf(z) - posterior.logpdf(z))
    to_prior = over(q, lambda z: q.logpdf(z) - prior.logpdf(z))
    fit = over(q, likelihood.logpdf)
    evidences = np.array([m.pdf(x) for m in marginals])
    mixture = quad(lambda z: sum(w * j.pdf([z, x]) for w, j in zip(p, joints, strict=True)))
    told = np.log(p[c] * evidences[c] / (p * evidences).sum()) - np.log(p[c])
    z = conditional_bound.Q_MEAN
    conditional = [
        (marginals[c].pdf(x), by_quad),
        (posterior.pdf(z), joint.pdf([z, x]) / by_quad),
        (gap, -q.entropy() - over(q, posterior.logpdf)),
        (gap, -q.entropy() - fit - over(q, prior.logpdf) + log_px),
        (-q.entropy() - over(q, prior.logpdf), to_prior),
        (log_px - gap, fit - to_prior),
        (gap, 0),
        (log_px, fit - to_prior),
        (gap - log_px, to_prior - fit),
        (mixture, p @ evidences),
        (log_px - np.log(mixture), told),
        (log_px - np.log(mixture), -np.log(p[c])),
    ]
    return {"conditional": conditional}


# What all of them must do


@pytest.fixture(scope="module")
def oracles(numbers, counted):
    return {name: globals()[f"{name}_oracles"](numbers, counted) for name in CHAPTERS}


HOLDS = {
    "=": lambda left, right: abs(left - right) < TOLERANCE,
    r"\le": lambda left, right: left < right,
    r"\ge": lambda left, right: left > right,
    r"\ne": lambda left, right: abs(left - right) > 0.1,
    r"\approx": lambda left, right: abs(left - right) < 0.02,
}


@pytest.mark.parametrize("name", CHAPTERS)
def test_both_sides_of_every_line_are_what_scipy_finds(numbers, oracles, name):
    derivations = numbers[name]["derivations"]
    assert derivations.keys() == oracles[name].keys()
    for derivation, lines in derivations.items():
        for number, (line, oracle) in enumerate(
            zip(lines, oracles[name][derivation], strict=True), start=1
        ):
            said = f"{derivation} {number}: {line['values']} and {oracle}"
            np.testing.assert_allclose(
                line["values"], np.array(oracle, float), rtol=0, atol=TOLERANCE, err_msg=said
            )
            assert HOLDS[line["relation"]](*line["values"]), said


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_line_shown_is_tested_and_the_other_way_round(text, numbers, oracles, name):
    section = text.split(f'<h2 id="{name}">')[1].split("</section>")[0]
    shown = re.findall(r'<li id="(\w+)-(\d+)"><div class="sides', section)
    tested = [
        (derivation, str(number))
        for derivation, lines in oracles[name].items()
        for number in range(1, len(lines) + 1)
    ]
    assert sorted(shown) == sorted(tested)
    assert len(shown) == section.count('<p class="values">') == section.count('class="reason"')
    assert all(line["reason"] for d in numbers[name]["derivations"].values() for line in d)


def test_every_derivation_of_the_tutorial_is_among_those_tested(text, numbers, oracles):
    with_lines = {name for name, found in numbers.items() if "derivations" in found}
    assert with_lines == set(CHAPTERS)
    lines = sum(len(d) for of_chapter in oracles.values() for d in of_chapter.values())
    assert text.count('<div class="sides') == lines == 98


def test_the_sides_shown_are_those_of_the_json(text, numbers):
    for name in CHAPTERS:
        for derivation, lines in numbers[name]["derivations"].items():
            for number, line in enumerate(lines, start=1):
                shown = text.split(f'<li id="{derivation}-{number}">')[1].split("</li>")[0]
                values = re.search(r'class="values">(\S+) \S (\S+)</p>', shown).groups()
                for value, side in zip(values, line["values"], strict=True):
                    assert abs(float(value.replace("\N{MINUS SIGN}", "-")) - side) <= 5.1e-5
                for side in line["right"].split("&"):
                    assert html.escape(side, quote=False) in shown


def test_a_side_that_goes_on_is_not_repeated():
    first = page.Line("a", "=", "b & {} + c", "Why.", (1.0, 1.0))
    second = page.Line("b & {} + c", r"\ge", "d", "Because of $x$.", (1.0, -0.00001))
    chapter = page.Chapter(
        "T", "=[proof]", {"derivations": page.derived(proof=[first, second])}, {}, ()
    )
    rendered = page.render({"t": chapter}, "facts", ["t"])
    one, two = re.findall(r'<li id="proof-\d">.*?</li>', rendered, re.DOTALL)
    assert one.count("<math") == 3
    assert two.count("<math") == 2  # the right side, and the reason's
    assert "1.0000 ≥ 0.0000" in two
