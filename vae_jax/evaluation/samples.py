"""What generated examples are worth, beside real ones, in any space of features.

The space is the caller's, and all of these depend on it. They run on the host in float64.
"""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike


def frechet_distance(real: ArrayLike, generated: ArrayLike) -> float:
    """The squared Fréchet distance of two Gaussians, fitted to real features and generated ones.

    |m - n|^2 + tr(A + B - 2 (A B)^(1/2)), of means m, n and unbiased covariances A, B (Heusel et
    al. 2017, equation 6, who take features of an Inception network). Of few examples it is too
    large, the more so the more features there are: compare it with that of as many real ones.

    Args:
      real: features, [N, D].
      generated: likewise, [M, D].

    Returns:
      In squared units of the features, 0 at best.

    Raises:
      ValueError: shapes do not match, there are fewer than 2 of either, or a value is not finite.

    >>> frechet_distance([[0.0], [2.0]], [[5.0], [7.0]])  # of one spread, 5 apart
    25.0
    """
    of_real, of_generated = _checked(real, generated, 2)
    m, n = of_real.mean(axis=0), of_generated.mean(axis=0)
    # A = R^T R and B = S^T S, so that the eigenvalues of A B are the squared singular values of
    # R S^T: no matrix that rounding could make indefinite has to be rooted.
    r, s = _root(of_real - m), _root(of_generated - n)
    shared = np.linalg.svd(r @ s.T, compute_uv=False).sum()
    squared = np.square(m - n).sum() + np.square(r).sum() + np.square(s).sum() - 2 * shared
    return max(0.0, float(squared))


def _root(centered: np.ndarray) -> np.ndarray:
    """R [min(N, D), D], of which R^T R is the covariance."""
    found: Any = np.linalg.qr(centered / np.sqrt(len(centered) - 1), mode="r")
    root: np.ndarray = found
    return root


class PrecisionRecall(NamedTuple):
    """Whether generated examples lie where real ones lie, and everywhere there.

    Attributes:
      precision: the share of the generated that lies among the real.
      recall: the share of the real that lies among the generated.

    >>> PrecisionRecall(precision=0.9, recall=0.5).recall
    0.5
    """

    precision: float
    recall: float


def precision_and_recall(
    real: ArrayLike, generated: ArrayLike, num_neighbors: int = 3
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2).

    An example lies among others when it is no further from one of them than that one's k-th nearest
    neighbor is, among the others.

    Args:
      real: features, [N, D].
      generated: likewise, [M, D]; as many for a fair comparison.
      num_neighbors: k.

    Raises:
      ValueError: shapes do not match, there are k or fewer of either, or a value is not finite.

    >>> real = [[0.0], [1.0], [2.0], [3.0]]
    >>> precision_and_recall(real, [[0.5], [9.0], [9.1]], num_neighbors=1)
    PrecisionRecall(precision=0.3333333333333333, recall=1.0)
    """
    if num_neighbors < 1:
        raise ValueError(f"num_neighbors is {num_neighbors}: give 1 or more")
    of_real, of_generated = _checked(real, generated, num_neighbors + 1)
    middle = of_real.mean(axis=0)  # where distances lose the least to rounding
    of_real, of_generated = of_real - middle, of_generated - middle
    return PrecisionRecall(
        _share(of_generated, of_real, num_neighbors), _share(of_real, of_generated, num_neighbors)
    )


_ROWS = 1_000  # of distances at once
_ROUNDING = 1e-12  # of squared distances by products, so that twins are at none from each other


def _share(points: np.ndarray, others: np.ndarray, num_neighbors: int) -> float:
    """The share of the points that lie in the ball of at least one of the others."""
    lengths = np.square(others).sum(axis=1)

    def squared(some: np.ndarray) -> np.ndarray:
        """Distances to the others, less what rounding may have made of them, [n, N]."""
        most = np.square(some).sum(axis=1)[:, None] + lengths
        found: np.ndarray = np.maximum(most * (1 - _ROUNDING) - 2 * some @ others.T, 0)
        return found

    radii = []
    for start in range(0, len(others), _ROWS):
        between = squared(others[start : start + _ROWS])
        rows = np.arange(len(between))
        between[rows, start + rows] = np.inf  # no example is its own neighbor
        nearest = np.partition(between, num_neighbors - 1, axis=1)[:, num_neighbors - 1]
        radii.append(nearest)
    radius = np.concatenate(radii) + _ROUNDING * lengths
    starts = range(0, len(points), _ROWS)
    covered = [(squared(points[s : s + _ROWS]) <= radius).any(axis=1) for s in starts]
    return float(np.concatenate(covered).mean())


def _checked(real: ArrayLike, generated: ArrayLike, least: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    for name, of in zip(("real", "generated"), arrays, strict=True):
        if of.ndim != 2 or of.shape[1] != arrays[0].shape[1]:
            shape = arrays[0].shape
            raise ValueError(
                f"{name} has shape {of.shape} and real {shape}: give features [N, D] of one D"
            )
        if len(of) < least:
            raise ValueError(f"there are {len(of)} {name} examples: give {least} or more")
        if not np.isfinite(of).all():
            raise ValueError(f"{name} has a value that is not finite: leave out what has none")
    return arrays
