"""What a trained run says of images or rows: codes, scores, and how usual these are."""

from typing import Any, NamedTuple

import numpy as np


class Codes(NamedTuple):
    """q(z|x) of images.

    Attributes:
      mean: [N, Z]; of a posterior without one, of flows, the point that its base's mean goes to.
      scale: standard deviations [N, Z], of Gaussian posteriors of independent latents; else None.
      draws: of each posterior, [N, S, Z]; None where none were asked for.
    """

    mean: np.ndarray
    scale: np.ndarray | None
    draws: np.ndarray | None = None


class Scores(NamedTuple):
    """How likely images are, in nats, each [N].

    Attributes:
      log_likelihood: log p(x), or log p(x|c), by importance sampling.
      standard_error: of it, by the draws.
      elbo: the bound.
      reconstruction: log p(x|z), the mean over draws of q(z|x).
      effective_sample_size: of the draws; of few, log p(x) is low by half its inverse.
      pareto_k: of their weights; above 0.7 the standard error does not hold (Vehtari et al. 2024).
    """

    log_likelihood: np.ndarray
    standard_error: np.ndarray
    elbo: np.ndarray
    reconstruction: np.ndarray
    effective_sample_size: np.ndarray
    pareto_k: np.ndarray


class Filled(NamedTuple):
    """Data without their holes; what was there is as it was.

    Attributes:
      filled: images [N, H, W, C] whose missing pixels are E[x|observed]; a frame whose missing
        numbers are medians of p(missing|observed), and classes the most probable; or sequences
        [T_i, D], of medians.
      draws: the same data M times, each filled by one draw of p(missing|observed): for an analysis
        that is repeated over them (Rubin 1987).
      effective_sample_size: of the importance samples of each example with holes, in their order.
    """

    filled: Any
    draws: tuple[Any, ...]
    effective_sample_size: np.ndarray


class Typicality(NamedTuple):
    """How far images' log p(x) is from what is usual.

    Attributes:
      distance: [N], of log p(x) from the mean of the reference, in nats.
      p_value: [N], the share of the reference that is as far or farther, itself counted in, so that
        of images like it a share p is at p or less.
      of_all: of the images as a set: the distance of their mean from the reference's, in standard
        errors of both. Above 3 they are not like it, though each may be.
    """

    distance: np.ndarray
    p_value: np.ndarray
    of_all: float


def typicality(log_likelihood: Any, reference: Any) -> Typicality:
    """Whether images are of a run's typical set, each alone and all together.

    |mean log p(x) - mean of log p| over images like those of training: Nalisnick et al. 2019,
    "Detecting out-of-distribution inputs to deep generative models using typicality", section 3, of
    a batch of one and of all. Likelihood alone misleads, as plain images may be more likely than
    those that a model was trained on. One image says little: of a model of clothes each digit is as
    likely as many a shirt, and only that so many are so likely is odd.

    Args:
      log_likelihood: [N], from `score`.
      reference: [M], of the run's validation set, of as many draws.

    Raises:
      ValueError: the reference is of fewer than 2 images, or there are none.

    >>> found = typicality([-91.0, -60.0], reference=[-90.0, -80.0, -100.0])
    >>> found.distance, found.p_value
    (array([ 1., 30.]), array([0.75, 0.25]))
    >>> round(found.of_all, 2)
    1.59
    """
    value, reference = (np.asarray(of, np.float64) for of in (log_likelihood, reference))
    if reference.ndim != 1 or len(reference) < 2 or value.ndim != 1 or not len(value):
        raise ValueError(
            f"log_likelihood has shape {value.shape} and reference {reference.shape}: give [N] and "
            "[M], the reference of 2 images or more"
        )
    centre, spread = reference.mean(), reference.std(ddof=1)
    usual = np.sort(np.abs(reference - centre))
    distance = np.abs(value - centre)
    as_far = len(usual) - np.searchsorted(usual, distance, side="left")
    # As if the images had the reference's spread, which is what is asked: one alone has none.
    error = spread * np.sqrt(1 / len(value) + 1 / len(reference))
    of_all = float(np.abs(value.mean() - centre) / error) if error else np.inf
    return Typicality(distance, (1 + as_far) / (1 + len(usual)), of_all)


class Traversal(NamedTuple):
    """Pictures along each latent that is used.

    Attributes:
      latents: [K], their numbers, the one that varies most first.
      values: [K, V], what each is set to.
      pictures: [K, V, H, W, C] in [0, 1].
    """

    latents: np.ndarray
    values: np.ndarray
    pictures: np.ndarray
