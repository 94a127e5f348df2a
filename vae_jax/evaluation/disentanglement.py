"""How latents and known factors of the data go together: MIG, SAP and DCI.

Published implementations disagree on each; every docstring says which definition is taken. Factors
of integers are classes, factors of floats are quantities. All are deterministic and run on the host
with scikit-learn, of the extra `metrics`.
"""

import importlib
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, each 1 at best.

    Attributes:
      disentanglement: how far each latent is of one factor, weighted by what the latents matter.
      completeness: how far each factor is in one latent, mean over the factors.
      informativeness: how well each factor is predicted, mean over the factors.
      importance: of each latent for each factor, [Z, F].

    >>> DCI(1.0, 0.9, 0.99, np.eye(2)).completeness
    0.9
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def mutual_information_gap(codes: ArrayLike, factors: ArrayLike, num_bins: int = 20) -> np.ndarray:
    """MIG: the share of a factor's entropy that the best latent tells beyond the next.

    Chen et al. 2018 (section 4.1), by the definition of Locatello et al. 2019: the mutual
    information is that of each latent's mean, in `num_bins` bins of equal width, and the factor,
    not Chen's integral over q(z|x). A histogram of N points has some
    (num_bins - 1) (classes - 1) / 2 N nats where there is nothing.

    Args:
      codes: the posteriors' means, [N, Z].
      factors: integers, [N, F].
      num_bins: of a latent's range.

    Returns:
      float64 [F], from 0 to 1; their mean is the score.

    Raises:
      TypeError: the factors are no integers.
      ValueError: shapes do not match, there is one latent only, or a factor has one value only.

    >>> factors = np.array([[0], [0], [1], [1]])
    >>> mutual_information_gap(
    ...     np.array([[-1.0, 3.0], [-1.0, 4.0], [1.0, 3.0], [1.0, 4.0]]), factors
    ... )
    array([1.])
    """
    mutual_info_score = _sklearn("metrics").mutual_info_score
    codes, factors = _checked(codes, factors)
    if not np.issubdtype(factors.dtype, np.integer):
        raise TypeError(f"factors has dtype {factors.dtype}: give integers, one a class or bin")
    bins = np.stack([np.digitize(c, np.histogram_bin_edges(c, num_bins)[1:-1]) for c in codes.T])
    information = np.array([[mutual_info_score(v, c) for c in bins] for v in factors.T])
    entropy = np.array([mutual_info_score(v, v) for v in factors.T])
    gap: np.ndarray = _gap(information) / entropy
    return gap


def separated_attribute_predictability(codes: ArrayLike, factors: ArrayLike) -> np.ndarray:
    """SAP: how much better the best latent tells a factor than the next.

    By Kumar et al. 2018 (section 3), on the points that it is fitted to: of a quantity the
    squared correlation; of classes the balanced accuracy of thresholds on the one latent, as many
    as a tree of one leaf a class has. Locatello et al. 2019 take a linear support vector machine
    instead, which cannot tell a class that lies between two others.

    Args:
      codes: the posteriors' means, [N, Z].
      factors: [N, F], integers for classes, floats for quantities.

    Returns:
      float64 [F], from 0 to 1; their mean is the score.

    Raises:
      ValueError: shapes do not match, there is one latent only, or a factor has one value only.

    >>> factors = np.array([[0], [0], [1], [1]])
    >>> codes = np.array([[-1.0, 3.0], [-1.0, 4.0], [1.0, 3.0], [1.0, 4.0]])
    >>> separated_attribute_predictability(codes, factors)  # 1 and 1/2
    array([0.5])
    """
    tree, metrics = _sklearn("tree"), _sklearn("metrics")
    codes, factors = _checked(codes, factors)

    def score(code: np.ndarray, factor: np.ndarray) -> float:
        if not np.issubdtype(factor.dtype, np.integer):
            return float(np.corrcoef(code, factor)[0, 1] ** 2) if code.std() > 0 else 0.0
        leaves = len(np.unique(factor))
        fit = tree.DecisionTreeClassifier(
            max_leaf_nodes=leaves, class_weight="balanced", random_state=0
        ).fit(code[:, None], factor)
        return float(metrics.balanced_accuracy_score(factor, fit.predict(code[:, None])))

    return _gap(np.array([[score(code, factor) for code in codes.T] for factor in factors.T]))


def dci(codes: ArrayLike, factors: ArrayLike, num_trees: int = 100) -> DCI:
    """Disentanglement, completeness, informativeness (Eastwood & Williams 2018, section 2).

    By that paper's equations, with importances from random forests, one a factor; completeness is
    the plain mean over factors (Locatello et al. 2019 weight it, and boost their trees).
    Informativeness is on points that a tree has not seen (out of bag): the accuracy of classes, the
    share of the variance of quantities, in place of the paper's error, so that 1 is best.

    Args:
      codes: the posteriors' means, [N, Z].
      factors: [N, F], integers for classes, floats for quantities.
      num_trees: of each forest.

    Returns:
      A `DCI`.

    Raises:
      ValueError: shapes do not match, there is one latent or factor only, or a factor has one value
        only.

    >>> factors = np.random.default_rng(0).integers(3, size=(200, 2))
    >>> score = dci(factors + 0.0, factors)
    >>> score.disentanglement > 0.9, score.completeness > 0.9, score.informativeness
    (True, True, 1.0)
    """
    ensemble = _sklearn("ensemble")
    codes, factors = _checked(codes, factors)
    if factors.shape[1] < 2:
        raise ValueError("there is one factor: which of them a latent tells takes 2 at least")
    classes = np.issubdtype(factors.dtype, np.integer)
    kind = ensemble.RandomForestClassifier if classes else ensemble.RandomForestRegressor
    forests = [
        kind(num_trees, oob_score=True, random_state=0).fit(codes, factor) for factor in factors.T
    ]
    importance = np.stack([forest.feature_importances_ for forest in forests], axis=1)
    return DCI(
        *_disentanglement(importance),
        float(np.mean([forest.oob_score_ for forest in forests])),
        importance,
    )


def _disentanglement(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of importances [Z, F]: their equations 1 to 3."""
    of_latents, of_factors = importance.sum(1), importance.sum(0)
    alone = 1 - _entropy(importance) / np.log(importance.shape[1])
    together = 1 - _entropy(importance.T) / np.log(importance.shape[0])
    share = of_latents / of_latents.sum()
    return float(share @ alone), float(together[of_factors > 0].mean())


def _entropy(rows: np.ndarray) -> np.ndarray:
    """Of each row as shares, in nats; 0 of a row of zeros."""
    total = rows.sum(1, keepdims=True)
    share = np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)
    entropy: np.ndarray = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    return entropy


def _gap(scores: np.ndarray) -> np.ndarray:
    """Of each row, the largest less the next."""
    ordered = np.sort(scores, axis=1)
    gap: np.ndarray = ordered[:, -1] - ordered[:, -2]
    return gap


def _checked(codes: Any, factors: Any) -> tuple[np.ndarray, np.ndarray]:
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or codes.shape[1] < 2:
        raise ValueError(
            f"codes has shape {codes.shape} and factors {factors.shape}: give [N, Z], Z 2 at "
            "least, and [N, F]"
        )
    for index, factor in enumerate(factors.T):
        if (factor == factor[0]).all():
            raise ValueError(f"factor {index} is {factor[0]} throughout: leave it out")
    return codes, factors


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'scikit-learn is not installed: pip install "vae_jax[metrics]"', name="sklearn"
        ) from error
