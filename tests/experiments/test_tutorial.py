"""The tutorial, run once on digits: what its page claims, from the numbers beside it."""

import html
import importlib
import itertools
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from experiments.tutorial import divergence, likelihood, page
from experiments.tutorial.__main__ import CHAPTERS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long  # a minute and a half on two cores


# The page


def test_the_page_needs_no_network(text):
    addresses = set(
        re.findall(r"(?:https?:)?//[\w.-]+[^\"'\s<]*", re.sub(r"base64,[^\"]+", "", text))
    )
    assert addresses == {"http://www.w3.org/1998/Math/MathML"}  # a name, never fetched
    assert "<script" not in text
    assert "<link" not in text.replace('<link rel="icon" href="data:,">', "")


def test_every_image_is_embedded_and_described(text, output):
    class Images(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                found.append(dict(attributes))

    found = []
    Images().feed(text)
    assert len(found) == len(list(output.glob("*.png"))) >= 2 * len(CHAPTERS)
    for image in found:
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"].split()) > 8
    assert len({image["alt"] for image in found}) == len(found)


def test_every_equation_is_well_formed_mathml(text):
    equations = re.findall(r"<math.*?</math>", text, re.DOTALL)
    assert len(equations) > 100
    for equation in equations:
        source = re.compile(r"<annotation.*?</annotation>", re.DOTALL)  # some are of two lines
        tree = ET.fromstring(source.sub("", equation))
        content = "".join(tree.itertext())
        assert "\\" not in content, f"not converted: {content}"
        assert content.strip()


def test_nothing_is_left_of_the_notation(text):
    prose = re.sub(r"<(math|pre|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    prose = re.sub(r"data:image[^\"]*", "", prose)  # letters at random
    assert not re.search(r"\[\[|\]\]|\$|\*\*|!\[|\bnan\b|\binf\b", prose)


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_code_shown_is_the_code_that_ran(text, name):
    section = text.split(f'<h2 id="{name}">')[1].split("</section>")[0]
    shown = re.findall(r"<pre>(.*?)</pre>", section, re.DOTALL)
    # A chapter may show what it takes from another, or from the whole program.
    source = "".join(path.read_text() for path in (ROOT / "experiments/tutorial").glob("*.py"))
    (code,) = (html.unescape(re.sub(r"<[^>]+>", "", block)) for block in shown)
    assert "vae_jax" in code
    for function in re.split(r"\n\n(?=def |class )", code.strip()):
        assert function in source


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_number_in_the_text_is_in_the_json(numbers, name):
    module = importlib.import_module(f"experiments.tutorial.{name}")
    references = re.findall(r"\[\[([\w.]+)", module.TEXT)
    assert references
    for reference in references:
        value = numbers[name]
        for part in reference.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert np.isfinite(value)


def test_the_protocol_says_how_the_numbers_were_made(numbers):
    protocol = numbers["protocol"]
    assert {"dataset": "digits", "seed": 0, "num_train": 1297}.items() <= protocol.items()
    assert {"python", "jax", "flax", "optax", "vae_jax"} <= protocol["versions"].keys()
    assert protocol["device"]


def test_a_chapter_alone_has_the_numbers_it_has_in_the_book(numbers, tmp_path, tutorial):
    process = tutorial("conditional", f"--output={tmp_path / 'same'}")
    assert process.returncode == 0, process.stderr
    same = json.loads((tmp_path / "same" / "tutorial.json").read_text())
    assert same == {name: numbers[name] for name in ("protocol", "conditional")}


def test_another_seed_has_other_numbers(numbers, tmp_path, tutorial):
    process = tutorial("divergence", "--seed=1", f"--output={tmp_path / 'other'}")
    assert process.returncode == 0, process.stderr
    other = json.loads((tmp_path / "other" / "tutorial.json").read_text())["divergence"]
    assert other["gaussian"]["monte_carlo"] != numbers["divergence"]["gaussian"]["monte_carlo"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["loss_case"], 2, ["'loss_case'", *CHAPTERS]),
        (["--dataset=cifar"], 2, ["auto", "digits", "mnist"]),
        (["--steps=7"], 2, ["--steps is 7"]),
        (["--seed=-1"], 2, ["--seed is -1"]),
        (
            ["--dataset=mnist", "--data-dir=/nonexistent", "--manual-dir=/nonexistent"],
            1,
            ["--manual-dir=/nonexistent"],
        ),
        (["--output=/proc/page"], 1, ["cannot write /proc/page"]),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments, status, said, tmp_path, tutorial):
    process = tutorial(*arguments)
    assert process.returncode == status
    assert "Traceback" not in process.stderr
    for words in said:
        assert words in process.stderr


# 1 Autoencoder and VAE


def test_the_vaes_draws_are_digits_and_the_autoencoders_are_not(numbers):
    found = numbers["autoencoder"]
    assert found["sure_real"] > 0.8 > 0.05 > found["sure_noise"]
    assert found["sure"]["vae"] > found["sure"]["autoencoder"] + 0.4
    assert found["sure_fitted"]["vae"] > found["sure_fitted"]["autoencoder"] + 0.1
    assert found["sure_far"]["vae"] > found["sure_far"]["autoencoder"] + 0.2


def test_a_plane_is_too_crowded_for_the_autoencoder_to_be_much_worse(numbers):
    found = numbers["autoencoder"]
    assert found["sure_2"]["autoencoder"] > found["sure"]["autoencoder"] + 0.4
    assert found["sure_2"]["autoencoder"] > found["sure_2"]["vae"] - 0.1
    assert min(found["sure_reconstructed"].values()) > 0.6


def test_the_autoencoder_reconstructs_better_and_puts_its_codes_anywhere(numbers):
    found = numbers["autoencoder"]
    assert found["log_likelihood"]["autoencoder"] > found["log_likelihood"]["vae"] + 2
    assert found["code_spread"]["autoencoder"] > 2 * found["code_spread"]["vae"]
    assert 0.7 < found["code_spread"]["vae"] < 1.3


def test_the_autoencoder_is_the_limit_of_a_vae_without_its_kl(numbers):
    limit, latents = numbers["autoencoder"]["limit"], numbers["autoencoder"]["latent_dim"]
    distance = np.abs(np.array(limit["log_likelihood"]) - limit["deterministic"])
    assert (np.diff(distance) < 0).all()
    assert distance[-1] < 0.01
    # KL(N(m, s^2) || N(0, 1)) depends on s by s^2 / 2 - log s, whatever m is.
    scale = np.array([1, 0.1, 0.01, 0.001])
    expected = latents * np.diff(scale**2 / 2 - np.log(scale))
    np.testing.assert_allclose(np.diff(limit["kl"]), expected, rtol=1e-4)


# 2 Latent variables


def test_halfway_between_codes_is_a_digit_more_often_than_between_pixels(numbers):
    found = numbers["latent"]
    assert found["sure_midpoint"]["latent"] > found["sure_midpoint"]["pixels"] + 0.1
    assert 2 <= found["active_units"] <= found["latent_dim"]
    kl = np.sort(found["kl_per_dimension"])
    assert (kl >= 0).all()
    # The variance of an active one's mean is above 0.01, and its KL at least half of that.
    assert kl[-found["active_units"]] > 0.005


# 3 Divergence


def test_the_discrete_divergence_is_scipys_and_has_an_order(numbers):
    found = numbers["divergence"]
    p, q = found["p"], found["q"]
    np.testing.assert_allclose(found["discrete"]["forward"], stats.entropy(p, q), rtol=1e-5)
    np.testing.assert_allclose(found["discrete"]["reverse"], stats.entropy(q, p), rtol=1e-5)
    assert abs(found["discrete"]["forward"] - found["discrete"]["reverse"]) > 0.01
    assert found["discrete"]["itself"] == 0 <= found["least"]


def test_one_order_covers_both_peaks_and_the_other_takes_one(numbers):
    fits = numbers["divergence"]["fits"]
    # Least KL(P || Q) has the moments of P, mean 0 and variance 0.6^2 + 2^2.
    np.testing.assert_allclose(fits["forward"]["mean"], 0, atol=0.05)
    np.testing.assert_allclose(fits["forward"]["scale"], np.sqrt(0.6**2 + 4), atol=0.025)
    # One of two peaks that hardly overlap is log 2 from the whole.
    np.testing.assert_allclose(abs(fits["reverse"]["mean"]), 2, atol=0.05)
    np.testing.assert_allclose(fits["reverse"]["scale"], 0.6, atol=0.025)
    np.testing.assert_allclose(fits["reverse"]["divergence"], np.log(2), atol=0.01)


def evaluate(latex, translation, values):
    """A formula of the page, as Python."""
    for pattern, replacement in translation:
        latex = re.sub(pattern, replacement, latex)
    assert "\\" not in latex, latex
    return eval(latex, {**vars(np), **vars(np.linalg), **values})


def test_the_formula_of_full_covariances_as_it_is_printed(numbers, text):
    found = numbers["divergence"]["gaussian"]
    (m1, m2), (s1, s2) = np.array(found["means"]), np.array(found["covariances"])
    translation = [
        (r"\\tfrac\{1\}\{2\}", "0.5 * "),
        (r"\\left\[", "("),
        (r"\\right\]", ")"),
        (r"\|\\Sigma_(\d)\|", r"det(s\1)"),
        (r"\\log\\frac\{([^{}]*)\}\{([^{}]*)\}", r"log(\1 / \2)"),
        (r"\\operatorname\{tr\}", "trace"),
        (r"\\Sigma_(\d)\^\{-1\}", r"@ inv(s\1) @ "),
        (r"\\Sigma_(\d)", r"s\1"),
        (r"\\mu_(\d)", r"m\1"),
        (r"\^\\top", ""),
        (r"\(@", "("),
    ]
    values = {"m1": m1, "m2": m2, "s1": s1, "s2": s2, "k": len(m1)}
    printed = evaluate(divergence.FULL, translation, values)
    assert html.escape(divergence.FULL) in text
    np.testing.assert_allclose(found["closed_form"], printed, rtol=1e-5)
    np.testing.assert_allclose(found["equation"], printed, rtol=1e-5)
    assert abs(found["monte_carlo"] - printed) < 4 * found["standard_error"] < 0.05
    draws = np.random.default_rng(0).multivariate_normal(m1, s1, 200_000)
    first, second = (stats.multivariate_normal(m, s) for m, s in ((m1, s1), (m2, s2)))
    np.testing.assert_allclose(
        (first.logpdf(draws) - second.logpdf(draws)).mean(), printed, atol=0.02
    )


def test_the_diagonal_formula_as_it_is_printed_and_its_misprints(numbers, text):
    found = numbers["divergence"]["diagonal"]
    mean, logvar = np.array(found["mean"]), np.array(found["logvar"])
    translation = [
        (r"\\tfrac\{1\}\{2\}", "0.5 * "),
        (r"\\sum_\{i=1\}\^\{k\}\\left\(", "sum("),
        (r"\\right\)", ")"),
        (r"\\exp", "exp"),
        (r"\\ell_i", "logvar"),
        (r"\\mu_i\^2", "mu**2"),
    ]
    printed = evaluate(divergence.DIAGONAL, translation, {"mu": mean, "logvar": logvar})
    assert html.escape(divergence.DIAGONAL) in text
    integral = 0.0
    for m, s in zip(mean, np.exp(logvar / 2), strict=True):
        q, p = stats.norm(m, s), stats.norm()
        terms = lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z))  # noqa: E731
        integral += integrate.quad(terms, -12, 12)[0]
    for value in (printed, found["integral"], found["right"]):
        np.testing.assert_allclose(value, integral, rtol=1e-6)
    for misprint in ("stray_exponential", "scale_for_variance", "swapped"):
        assert abs(found[misprint] - integral) > 0.1


# 4 The bound


def test_the_decomposition_of_log_px(numbers):
    found = numbers["bound"]
    weight, x = np.array(found["weight"]), np.array(found["x"])
    covariance = weight @ weight.T + found["noise"] ** 2 * np.eye(len(x))
    log_px = stats.multivariate_normal(np.zeros(len(x)), covariance).logpdf(x)
    np.testing.assert_allclose(found["log_px"], log_px, rtol=0, atol=1e-4)
    for row in found["exact"].values():
        np.testing.assert_allclose(row["elbo"] + row["gap"], log_px, rtol=0, atol=1e-4)
        assert row["elbo"] < log_px + 1e-4
    assert found["largest_error"] < 1e-4
    gaps = [found["exact"][q]["gap"] for q in ("prior", "between", "diagonal", "posterior")]
    assert (np.diff(gaps) < 0).all()
    np.testing.assert_allclose(gaps[-1], 0, atol=1e-5)


def test_the_gap_closes_but_for_what_a_diagonal_cannot(numbers):
    found = numbers["bound"]
    weight = np.array(found["weight"])
    precision = np.eye(2) + weight.T @ weight / found["noise"] ** 2
    # The closest diagonal Gaussian has the precisions on the diagonal (Bishop 2006, 10.1.2).
    expected = 0.5 * (np.log(np.diag(precision)).sum() - np.log(np.linalg.det(precision)))
    np.testing.assert_allclose(found["fit"]["diagonal_gap"], expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["fit"]["full_gap"], 0, atol=1e-3)
    assert expected > 0.1


def test_the_decomposition_on_images_by_three_ways(numbers):
    found = numbers["bound"]["images"]
    assert abs(found["sum"] - found["log_px"]) < 4 * found["elbo_standard_error"]
    assert abs(found["importance"] - found["log_px"]) < 4 * found["importance_standard_error"]
    assert found["elbo_standard_error"] < 0.03 < 0.1 < found["gap"]
    assert min(found["gaps"]) > 0


def test_a_grid_is_a_power_of_the_dimension_and_importance_sampling_is_not(numbers):
    found = numbers["bound"]["quadrature"]
    nodes, dimensions = np.array(found["nodes"]), np.array(found["dimensions"])
    np.testing.assert_array_equal(found["points"], nodes**dimensions)
    assert nodes.min() >= 8
    assert found["years_20"] > 1e6
    assert found["importance_error"] < 4 * found["importance_standard_error"] < 0.5


# 5 Likelihood


def test_the_gaussian_log_likelihood_as_it_is_printed(numbers, text):
    found = numbers["likelihood"]["identity"]
    sigma, num_pixels = 0.3, found["num_pixels"]
    translation = [
        (r"\\frac\{([^{}]*)\}\{2\\sigma\^2\}", r"\1 / (2 * sigma**2) * "),
        (r"\\sum_\{i=1\}\^\{D\}\(x_i - \\hat\{x\}_i\)\^2", "sum((x - mean)**2)"),
        (r"D\\log\\sigma", "D * log(sigma)"),
        (r"\\frac\{D\}\{2\}\\log 2\\pi", "D / 2 * log(2 * pi)"),
    ]
    generator = np.random.default_rng(0)
    mean = generator.uniform(size=num_pixels)
    away = generator.normal(size=num_pixels)
    x = mean + away * np.sqrt(found["squared_error"] / np.square(away).sum())
    values = {"x": x, "mean": mean, "sigma": sigma, "D": num_pixels}
    printed = evaluate(likelihood.GAUSSIAN, translation, values)
    assert html.escape(likelihood.GAUSSIAN) in text
    scipys = stats.norm(mean, sigma).logpdf(x).sum()
    for value in (printed, found["log_prob"], found["from_squared_error"]):
        np.testing.assert_allclose(value, scipys, rtol=1e-4)


def test_sigma_is_an_exchange_rate(numbers):
    found = numbers["likelihood"]
    error, kl, active = (
        np.array([row[name] for row in found["fixed"]]) for name in ("error", "kl", "active_units")
    )
    assert (np.diff(error) > 0).all()
    assert (np.diff(kl) < 0).all()
    assert (np.diff(active) <= 0).all()
    assert kl[-1] < 0.05
    assert active[-1] == 0


def test_the_learned_sigma_is_the_error(numbers):
    learned = numbers["likelihood"]["learned"]
    np.testing.assert_allclose(learned["sigma"], learned["train_error"], rtol=0.1)


# 6 The three loss cases


def test_each_loss_case_fails_where_the_page_says(numbers):
    found = numbers["loss_cases"]
    fidelity, regulariser, both = (found[n] for n in ("fidelity", "regulariser", "both"))
    assert fidelity["log_likelihood"] > both["log_likelihood"] + 1
    assert both["log_likelihood"] > regulariser["log_likelihood"] + 3
    assert fidelity["kl"] > both["kl"] + 5 > both["kl"] > regulariser["kl"] + 1
    for case in (fidelity, regulariser):
        assert both["elbo"] > case["elbo"] + 2
        assert both["log_px"] > case["log_px"] + 0.5
        assert both["digits"] > case["digits"] + 0.5
    for case in (fidelity, regulariser, both):
        assert case["elbo_of_these"] < case["log_px"] + 0.05
        np.testing.assert_allclose(case["elbo"], case["log_likelihood"] - case["kl"], rtol=1e-4)


def test_the_regulariser_alone_makes_every_posterior_the_prior(numbers):
    found = numbers["loss_cases"]["regulariser"]
    np.testing.assert_allclose(found["kl"], 0, atol=1e-3)
    np.testing.assert_allclose(found["scale"], 1, atol=0.01)
    np.testing.assert_allclose(found["spread"], 0, atol=0.02)
    assert found["sure"] < 0.05


def test_fidelity_alone_makes_specks_outside_the_prior(numbers):
    found = numbers["loss_cases"]
    assert found["fidelity"]["scale"] < 0.05 < 0.1 < found["both"]["scale"]
    assert found["fidelity"]["spread"] > 2 * found["both"]["spread"]
    assert found["fidelity"]["inside"] < 0.6 < 0.9 < found["both"]["inside"]


# 7 The gradient problem


def test_both_gradients_are_right_and_one_is_quieter(numbers):
    found = numbers["gradient"]
    assert found["worst_z"] < 4.5
    exact = np.array(found["exact"])
    for name, mean in found["mean"].items():
        deviation = np.abs(np.array(mean) - exact) / np.array(found["standard_error"][name])
        assert deviation.max() <= found["worst_z"] + 1e-6
    for latents, ratio in found["ratio"].items():
        variance = found["variance"][latents]
        logarithms = np.log(variance["score"]) - np.log(variance["reparameterised"])
        np.testing.assert_allclose(ratio["score"], np.exp(logarithms.mean()), rtol=1e-4)
        assert ratio["score"] > 10 > ratio["score_baseline"] > 1
    assert found["ratio"]["10"]["score_baseline"] > found["ratio"]["2"]["score_baseline"]


# 8 Optimisation


def test_the_noise_of_the_draws_falls_with_their_number_and_the_images_noise_stays(numbers):
    found = numbers["optimisation"]["draws"]
    np.testing.assert_allclose(found["variance"], [50, 10, 1], rtol=0.35)
    assert 1 < found["total_variance"][1] < found["total_variance"][0] < found["variance"][0] / 2


def test_steps_together_are_ahead_of_steps_in_turn(numbers):
    found = numbers["optimisation"]["turns"]
    assert found["joint"]["steps"] < 0.9 * found["alternating"]["steps"]
    assert found["joint"]["elbo"] > found["alternating"]["elbo"] - 0.1


def test_more_draws_are_better_and_take_longer(numbers):
    found = numbers["optimisation"]
    one, five, fifty = found["draws"]["elbo"]
    assert fifty > five > one
    assert fifty - five < 2 * (five - one), "ten times the draws are not worth ten times as much"
    seconds = found["seconds"]["draws"]
    assert seconds[2] > seconds[0]  # five times as long on an idle machine


# 9 Conditional VAE


def test_a_conditional_model_can_be_asked(numbers):
    found = numbers["conditional"]
    assert 0.02 < found["unconditional_share"] < 0.25
    assert found["share_asked"] > 0.7
    assert found["agreement"] > 0.7
    assert found["agreement"] + found["confusion"] < 1 + 1e-6
    assert found["elbo"]["conditional"] > found["elbo"]["unconditional"] + 1
    assert found["elbo"]["shuffled"] < found["elbo"]["conditional"] - 4
    assert found["kl"]["conditional"] < found["kl"]["unconditional"]  # no code spent on the class


def test_the_learned_priors_are_close_to_each_other(numbers):
    found = numbers["conditional"]
    assert found["prior_spread"] < 0.5 * found["prior_scale"]


# The notation


def test_the_notation_of_the_text():
    shown = page.Figure(b"png", 'alt "text"', "caption of $x$")
    blocks = (
        "A *b* **c** `d_e` [[n.0:.1f]] [[m:.0e]] <",
        *(r"$$ \frac{1}{2} $$", "![f]", "> No.", "| a | b |\n| 1\n  | 2 |"),
    )
    text = "\n\n".join(blocks)
    chapter = page.Chapter("T", text, {"n": [-1.25], "m": 2e-5}, {"f": shown}, (evaluate,))
    rendered = page.render({"t": chapter}, "facts", ["t"])
    for part in (
        "<p>A <em>b</em> <strong>c</strong> <code>d_e</code> \N{MINUS SIGN}1.2 2 "
        "\N{MULTIPLICATION SIGN} 10<sup>\N{MINUS SIGN}5</sup> &lt;</p>",
        "<mfrac>",
        'alt="alt &quot;text&quot;"',
        "<aside><p>No.</p></aside>",
        "<tbody><tr><td>1</td><td>2</td></tr></tbody>",
        '<h2 id="t">1. T</h2>',
    ):
        assert part in rendered
    with pytest.raises(KeyError, match="missing"):
        page.render({"t": chapter._replace(text="[[missing]]")}, "facts", ["t"])


def test_the_chapters_are_named_in_the_help(tutorial):
    process = tutorial("--help")
    assert process.returncode == 0
    for name in itertools.chain(CHAPTERS, ["--dataset", "--steps", "--seed"]):
        assert name in process.stdout
