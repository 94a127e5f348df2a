"""What the tutorial's numbers are held against: scipy, by none of the page's formulas."""

from scipy import integrate, stats

from experiments.tutorial import conditional_bound

CHAPTERS = ("probability", "divergence", "bound", "likelihood", "gradient", "conditional_bound")
TOLERANCE = 1e-4


def quad(f, reach=12.0):
    """An adaptive integral, where the page adds up a grid."""
    return integrate.quad(f, -reach, reach, epsabs=1e-10, limit=200)[0]


def over(q, f):
    """E_q[f]."""
    return q.expect(f, epsabs=1e-10)


def slope(f, at, step=2e-4):
    """A derivative by five points, where the page takes two."""
    near, far = f(at + step) - f(at - step), f(at + 2 * step) - f(at - 2 * step)
    return (8 * near - far) / (12 * step)


def conditional_classes():
    """The joint Gaussian of z and x of each class."""
    for mean, scale, offset in zip(
        *(conditional_bound.PRIOR_MEAN, conditional_bound.PRIOR_SCALE),
        conditional_bound.OFFSET,
        strict=True,
    ):
        v = scale**2
        covariance = [[v, v], [v, v + conditional_bound.NOISE**2]]
        yield stats.multivariate_normal([mean, mean + offset], covariance)
