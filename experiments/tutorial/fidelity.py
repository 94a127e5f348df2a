"""Precision and recall of generated images: do they lie where real ones lie, and everywhere?"""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors


class Fidelity(NamedTuple):
    """Attributes:
    precision: the share of the generated that lies among the real.
    recall: the share of the real that lies among the generated.
    """

    precision: float
    recall: float


def precision_and_recall(
    real: np.ndarray, generated: np.ndarray, num_neighbours: int = 3
) -> Fidelity:
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2).

    A point lies among others when it is no further from one of them than that one's k-th nearest
    neighbour is, among the others.

    Args:
      real: features or pixels, [N, ...].
      generated: [M, ...], as many for a fair comparison.
      num_neighbours: k.

    >>> real = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> precision_and_recall(real, np.array([[0.5], [9.0], [9.1]]), num_neighbours=1)
    Fidelity(precision=0.3333333333333333, recall=1.0)
    """
    real, generated = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (real, generated))
    return Fidelity(
        _share(generated, real, num_neighbours), _share(real, generated, num_neighbours)
    )


def _share(points: np.ndarray, others: np.ndarray, num_neighbours: int) -> float:
    """The share of the points that lie in the ball of at least one of the others."""
    neighbours = NearestNeighbors(n_neighbors=num_neighbours).fit(others)
    radius = neighbours.kneighbors()[0][:, -1]  # of its neighbours, a point itself is none
    near = NearestNeighbors(radius=radius.max()).fit(others)
    distances, indices = near.radius_neighbors(points)
    covered = [(d <= radius[i]).any() for d, i in zip(distances, indices, strict=True)]
    return float(np.mean(covered))
