"""Illnesses of a run: each its number, its threshold, and what is to be done.

They are rules of measurements, from `vae_jax.run.probe`, and of the run's own rows; they compute
nothing of a model.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.evaluation.batched import standard_error
from vae_jax.run.baseline import NUM_COMPONENTS
from vae_jax.run.plan import Row
from vae_jax.run.probe import NUM_SAMPLES, Probe

# Differences of an ELBO are told in standard deviations over the examples, so that they have no
# unit: 0.2 of them is a small effect, which is hard to see, and 0.5 a medium one (Cohen 1988,
# section 2.2.3). Of Gaussians 0.5 is an area under the curve of 0.64.
_SMALL, _MEDIUM = 0.2, 0.64
# Of what is measured on a sample; by chance one in 700 is beyond.
ERRORS = 3.0


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
      name: of the illness.
      ill: whether the run has it; None where that cannot be told.
      number: what was measured.
      threshold: from where it is one.
      said: both, in words.
      remedy: what to do; of the healthy too.
    """

    name: str
    ill: bool | None
    number: float
    threshold: float
    said: str
    remedy: str


class Course(NamedTuple):
    """How a training went.

    Attributes:
      rows: of its epochs.
      ended_by: as results.json says; "" of a run that is older than it.
      rates: learning rate of each step that was asked for [T], those after the last too.
      step: the last.
    """

    rows: Sequence[Row]
    ended_by: str
    rates: np.ndarray
    step: int


def collapsed(found: Probe) -> Finding:
    """Whether no latent is used: active units of Burda et al. 2016, section 5.1."""
    active, latents = int((found.moved > 0.01).sum()), len(found.moved)
    return Finding(
        "collapsed latents",
        active == 0,
        active if np.isfinite(found.moved).all() else np.nan,
        1,
        f"{active} of {latents} latents are used (their means vary by more than 0.01 over the test "
        f"set), for {found.kl:.2f} nats of KL; 1 is the least",
        "train for longer or with a smaller --learning-rate; of images with a --kl-warmup, "
        "--free-bits or a smaller --beta",
    )


def code_ignored(found: Probe) -> Finding:
    """Whether the decoder gains less by an example's own code than the code costs.

    E[log p(x|z)] under the own z less that under another's is at least the KL wherever using the
    code is better than decoding another's at no cost.
    """
    gain, active = float(found.code_gain.mean()), bool((found.moved > 0.01).any())
    least = found.kl - ERRORS * standard_error(found.code_gain)
    return Finding(
        "decoder that ignores z",
        active and gain < least,
        gain,
        least,
        f"an example's own z is worth {gain:.2f} nats more to the decoder than another's; it costs "
        f"{found.kl:.2f} nats of KL, and should be worth that; below {least:.2f} it is no chance",
        "more --epochs; a decoder that has less to go by beside z, no --likelihood whose channels "
        "tell each other; of images a --kl-warmup in place of --free-bits",
    )


def label_ignored(found: Probe) -> Finding | None:
    """Whether the ELBO is no better under an example's own label than under another's."""
    if found.label_gain is None:
        return None
    gain = float(found.label_gain.mean())
    least = float(np.maximum(ERRORS * standard_error(found.label_gain), _SMALL * _spread(found)))
    return Finding(
        "decoder that ignores the label",
        gain < least,
        gain,
        least,
        f"the right label is worth {gain:.2f} nats of the ELBO more than another's; {least:.2f} is "
        "the least that can be seen",
        "see that each example has its own label; train for longer, or leave --conditional out",
    )


def overfit(found: Probe) -> Finding:
    """Whether training examples are told from test examples by their ELBO."""
    train, test = found.elbo["train"], found.elbo["test"]
    area = auc(train, test)
    error = np.sqrt((len(train) + len(test) + 1) / (12 * len(train) * len(test)))  # of one like
    least = max(_MEDIUM, 0.5 + ERRORS * float(error))
    return Finding(
        "overfitting",
        area > least,
        area,
        least,
        f"a training example's ELBO is above a test example's in {area:.0%} of the pairs "
        f"(validation's in {auc(found.elbo['validation'], test):.0%}), {train.mean():.2f} and "
        f"{test.mean():.2f} nats on average; {least:.0%} is the most",
        "more data, smaller --hidden, or fewer --epochs: --select=best keeps the best",
    )


def underfit(found: Probe) -> Finding | None:
    """Whether a mixture of a few independent-entry components codes the test set better."""
    if found.mixture is None:
        return None
    elbo, mixture = float(found.elbo["test"].mean()), float(found.mixture.mean())
    return Finding(
        "underfitting",
        elbo < mixture,
        elbo,
        mixture,
        f"the test ELBO is {elbo:.2f} nats, where a mixture of {NUM_COMPONENTS} components "
        f"that know of no dependence has {mixture:.2f}",
        "wider --hidden, more of them, or more --epochs",
    )


# Of the 8 x 8 digits with 1, 2 and 16 latents the least used one carries 1.04, 1.07 and 0.02 nats.
_FULL = 0.5


def too_few_latents(found: Probe) -> Finding | None:
    """Whether every latent carries so much that more would be used too."""
    if found.kl_per_dimension is None:
        return None
    least, latents = float(found.kl_per_dimension.min()), len(found.kl_per_dimension)
    if not np.isfinite(found.kl_per_dimension).all():
        least = np.nan
    return Finding(
        "too few latents",
        least > _FULL,
        least,
        _FULL,
        f"the least used of {latents} latents carries {least:.2f} nats of {found.kl:.2f}; where "
        f"there are enough, one carries less than {_FULL:.1f}",
        f"a larger --latent-dim, say {2 * latents}",
    )


# Of the digits a Bernoulli has 0.02, their greys 0.02 by discretized logistics and 0.11 by a Normal
# of one scale, which has the blank border too narrow; overdispersed counts have 0.42 by a Poisson.
_UNEVEN = 0.08


def misfit(found: Probe) -> Finding:
    """Whether data are where p(x|z) does not draw them: ranks that are not alike.

    As of a posterior in Talts et al. 2018, section 4, but of x in p(x|z), z from q(z|x).
    """
    num, places = found.ranks.sum() or np.nan, len(found.ranks)  # of what is there
    uneven = float(np.abs(found.ranks / num - 1 / places).sum() / 2)
    # What chance makes of so many values, on average: half the mean absolute value of Gaussians.
    chance = places / 2 * np.sqrt(2 / np.pi * (1 - 1 / places) / places / num)
    most = _UNEVEN + float(chance)
    return Finding(
        "likelihood that cannot fit these data",
        uneven > most,
        uneven,
        most,
        f"{uneven:.0%} of the values are where draws of p(x|z) around them are not (total "
        f"variation of their ranks from alike); {most:.0%} is the most",
        "another --likelihood: discretized_logistic of bytes, student_t of outliers, "
        "negative_binomial of counts; --binarization of what is black and white",
    )


# Above a Pareto k of 0.7 importance weights are of no use, however many (Vehtari et al. 2024,
# section 3.2.4). Of the digits' test set healthy runs have 8 to 20 % of the examples beyond, one
# that has learned 70 images by heart 88 %.
_PARETO_K, _HEAVY = 0.7, 0.5


def narrow(found: Probe) -> Finding:
    """Whether the weights of log p(x) have no variance for most examples."""
    known = found.pareto_k[~np.isnan(found.pareto_k)]
    heavy = float((known > _PARETO_K).mean()) if len(known) else np.nan
    return Finding(
        "proposal too narrow",
        heavy > _HEAVY,
        heavy,
        _HEAVY,
        f"for {heavy:.0%} of the test examples a few of {NUM_SAMPLES} draws of q(z|x) carry the "
        f"whole of log p(x) (Pareto k above {_PARETO_K}); {_HEAVY:.0%} is the most",
        "read log p(x) as a bound; more --num-importance-samples help where k is not far above; of "
        "images --posterior=full or iaf, or --objective=iwae, come closer to p(z|x)",
    )


# Of the digits with beta 1 the area is 0.52 to 0.74, with beta 0.01 it is 1.00; of greys after 400
# steps, whose codes still go together, 0.98.
_TOLD = 0.8


def apart(found: Probe) -> Finding:
    """Whether draws of the prior are told from codes, so that samples look like no data."""
    area = told(found)
    return Finding(
        "prior and codes apart",
        area > _TOLD,
        area,
        _TOLD,
        f"codes of test examples are told from draws of the prior in {area:.0%} of the pairs, by "
        f"two Gaussians; 50% is alike, {_TOLD:.0%} the most",
        "more --epochs or a smaller --latent-dim; of images generate --sampler=mixture, a learned "
        "--prior=vamp, mixture or flow, or a larger --beta",
    )


# Noise of the gradient falls with the rate: what is left of it at half the peak is in the ELBO.
_FALLEN = 0.5


def unfinished(course: Course) -> Finding:
    """Whether training was ended before the learning rate had fallen."""
    by, peak = course.ended_by, float(course.rates.max())
    # From here on: in a warm-up the rate is low too.
    rate = float(course.rates[min(course.step, len(course.rates)) - 1 :].max()) / peak
    return Finding(
        "schedule not finished",
        by not in ("epochs", "patience", "") and rate > _FALLEN,
        rate,
        _FALLEN,
        f"training ended {f'by {by} ' if by else ''}with the learning rate at {rate:.0%} of its "
        f"peak or still to reach that; {_FALLEN:.0%} is the most where no --patience ends it",
        "as many --epochs as fit in the time, so that the rate falls; or --resume with more time",
    )


# After 15, 30, 60 and 120 epochs at rates that sum to 0.2, 0.4, 0.8 and 1.7 the digits' test ELBO
# is -23.4, -21.6, -20.3 and -19.2 nats.
_MOVED = 0.5


def unmoved(course: Course) -> Finding:
    """Whether no weight can have gone far: Adam moves each by about its rate a step at most.

    Kingma & Ba 2015, section 2.1.
    """
    moved = float(course.rates[: course.step].sum())
    return Finding(
        "learning rate too small for so few steps",
        moved < _MOVED,
        moved,
        _MOVED,
        f"the learning rates of {course.step:,} steps sum to {moved:.2g}, and about so far a "
        f"weight can have gone; {_MOVED:.1f} is the least",
        "more --epochs, a smaller --batch-size, or a larger --learning-rate",
    )


def still_rising(found: Probe, course: Course) -> Finding:
    """Whether the last quarter of the epochs still brought a small effect or more."""
    elbo = np.array([float(row["validation_elbo"]) for row in course.rows])
    cut = max(1, len(elbo) * 3 // 4)
    best, before = (max(part[np.isfinite(part)], default=np.nan) for part in (elbo, elbo[:cut]))
    rise = (best - before) / _spread(found)
    return Finding(
        "too few epochs",
        rise > _SMALL,
        float(rise),
        _SMALL,
        f"the last quarter of {len(elbo)} epochs brought the validation ELBO {rise:.2f} standard "
        f"deviations (over the examples) higher; {_SMALL:.1f} is the most",
        "more --epochs, or a larger --learning-rate",
    )


def _spread(found: Probe) -> float:
    return max(float(found.elbo["test"].std()), 1e-9)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of pairs of which the first is larger, ties by half (Mann & Whitney 1947).

    NaN where one is no finite number.

    >>> auc(np.array([1.0, 3.0]), np.array([0.0, 3.0]))
    0.625
    """
    if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
        return np.nan
    order = np.sort(negative)
    below, up_to = (np.searchsorted(order, positive, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(negative))


def told(found: Probe) -> float:
    """Area under the curve of telling codes of test examples from draws of the prior.

    By the ratio of two Gaussians, fitted to those of the training set and to as many of the prior:
    a classifier two-sample test (Lopez-Paz & Oquab 2017), 0.5 where they are alike.
    """
    if not all(np.isfinite(z).all() for of in (found.codes, found.of_prior) for z in of.values()):
        return np.nan
    fitted = [_gaussian(of["train"]) for of in (found.codes, found.of_prior)]
    ratio = [fitted[0](of["test"]) - fitted[1](of["test"]) for of in (found.codes, found.of_prior)]
    return auc(*ratio)


def _gaussian(z: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The log density of a Gaussian fitted to z [N, Z]."""
    z = z.astype(np.float64)
    centre, size = z.mean(axis=0), z.shape[1]
    # As if 10 Z draws of the mean variance had been seen too: a few hundred codes are few.
    seen = np.cov(z, rowvar=False).reshape(size, size)
    prior = 10 * size / (10 * size + len(z))
    covariance = (1 - prior) * seen + prior * np.trace(seen) / size * np.eye(size)
    inverse, log_det = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]

    def log_prob(z: np.ndarray) -> np.ndarray:
        off = z - centre
        value: np.ndarray = -0.5 * (np.einsum("nd,de,ne->n", off, inverse, off) + log_det)
        return value

    return log_prob
