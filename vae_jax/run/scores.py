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


class Typicality(NamedTuple):
    """How far images' log p(x) is from what is usual, each [N].

    Attributes:
      distance: of log p(x) from the mean of the reference, in nats.
      p_value: the share of the reference that is as far or farther, itself counted in, so that of
        images like it a share p is at p or less.
    """

    distance: np.ndarray
    p_value: np.ndarray


def typicality(log_likelihood: Any, reference: Any) -> Typicality:
    """Whether images are of the run's typical set, of one image at a time.

    |log p(x) - mean of log p| over images that are like those of training, as Nalisnick et al.
    2019, "Detecting out-of-distribution inputs to deep generative models using typicality", section
    3, has it for a batch of one. Likelihood alone misleads: plain images, of few edges, may be more
    likely than those that the model was trained on.

    Args:
      log_likelihood: [N], from `TrainedRun.score`.
      reference: [M], of the run's validation set, of as many draws.

    Raises:
      ValueError: the reference is of fewer than 2 images.

    >>> typicality([-91.0, -60.0], reference=[-90.0, -80.0, -100.0])
    Typicality(distance=array([ 1., 30.]), p_value=array([1.  , 0.25]))
    """
    reference = np.asarray(reference, np.float64)
    if reference.ndim != 1 or len(reference) < 2:
        raise ValueError(f"reference has shape {reference.shape}: give [M], of 2 images or more")
    centre = reference.mean()
    usual = np.sort(np.abs(reference - centre))
    distance = np.abs(np.asarray(log_likelihood, np.float64) - centre)
    as_far = len(usual) - np.searchsorted(usual, distance, side="left")
    return Typicality(distance, (1 + as_far) / (1 + len(usual)))


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
