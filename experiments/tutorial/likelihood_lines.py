"""The Gaussian log-likelihood as squared error, and the Bernoulli one, line by line."""

import numpy as np

from experiments.tutorial.integrals import Array, gradient, log_density
from experiments.tutorial.page import Line

LOG_2PI = np.log(2 * np.pi)
SQUARES = r"\sum_{i=1}^{D} (x_i - \hat{x}_i)^2"
OF_PIXEL = r"\log \mathcal{N}(x_i;\, \hat{x}_i,\, \sigma^2)"


def gaussian(x: Array, mean: Array, other: Array, sigma: float) -> list[Line]:
    """For an image x [D], its reconstruction, and another decoder's."""
    num, error = len(x), np.square(x - mean).sum()
    worst = np.abs(x - mean).argmax()
    of_pixels = log_density(x, mean, sigma)
    height = np.exp(-((x - mean)[worst] ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    in_logs = -np.log(sigma) - LOG_2PI / 2 - (x - mean)[worst] ** 2 / (2 * sigma**2)
    covariance = sigma**2 * np.eye(num)
    form = (x - mean) @ np.linalg.solve(covariance, x - mean)
    together = -0.5 * (form + np.linalg.slogdet(covariance)[1] + num * LOG_2PI)
    written_out = -error / (2 * sigma**2) - num * np.log(sigma) - num / 2 * LOG_2PI
    difference = np.square(x - other).sum() - error
    best = np.sqrt(error / num)

    def log_likelihood(sigma: float) -> float:
        return float(log_density(x, mean, sigma).sum())

    return [
        Line(
            r"\log p_\theta(x \mid z)",
            "=",
            rf"\sum_{{i=1}}^{{D}} {OF_PIXEL}",
            "Given the code, the decoder draws each of the $D$ pixels on its own: probabilities "
            "multiply, so their logarithms add. On the left one Gaussian in $D$ dimensions with "
            "the covariance matrix $\\sigma^2 I$.",
            (together, of_pixels.sum()),
        ),
        Line(
            OF_PIXEL,
            "=",
            r"\log\left[\frac{1}{\sigma\sqrt{2\pi}}"
            r" \exp\left({} - \frac{(x_i - \hat{x}_i)^2}{2\sigma^2}\right)\right]",
            "The density of a Gaussian with mean $\\hat{x}_i$. Values for the pixel that is "
            "reconstructed worst.",
            (of_pixels[worst], np.log(height)),
        ),
        Line(
            OF_PIXEL,
            "=",
            r"{} - \log\sigma - \tfrac{1}{2}\log 2\pi & "
            r"{} - \frac{(x_i - \hat{x}_i)^2}{2\sigma^2}",
            "The logarithm of a product is a sum, and undoes the exponential.",
            (np.log(height), in_logs),
        ),
        Line(
            r"\log p_\theta(x \mid z)",
            "=",
            rf"{{}} - \frac{{1}}{{2\sigma^2}} {SQUARES} & "
            r"{} - D\log\sigma & {} - \tfrac{D}{2}\log 2\pi",
            "Line 3 in line 1: the first two terms are the same for every pixel.",
            (together, written_out),
        ),
        Line(
            r"\log \mathcal{N}(x;\, \hat{x},\, \sigma^2 I) & "
            r"{} - \log \mathcal{N}(x;\, \bar{x},\, \sigma^2 I)",
            "=",
            rf"\frac{{1}}{{2\sigma^2}} \left[\sum_{{i=1}}^{{D}} (x_i - \bar{{x}}_i)^2 - {SQUARES}"
            r"\right]",
            "Between two reconstructions of one image the constants cancel: the likelier one is "
            "the one with the smaller **squared error**. Here $\\bar{x}$ is the mean image.",
            (
                together - log_density(x, other, sigma).sum(),
                difference / (2 * sigma**2),
            ),
        ),
        Line(
            r"{} - \log p_\theta(x \mid z)",
            "=",
            rf"{SQUARES} & {{}} + \tfrac{{D}}{{2}}\log\pi",
            "At $\\sigma^2 = \\tfrac{1}{2}$, whose logarithm takes the 2 from $2\\pi$: the squared "
            "error without a factor.",
            (-log_likelihood(np.sqrt(0.5)), error + num / 2 * np.log(np.pi)),
        ),
        Line(
            r"\frac{\partial}{\partial\sigma} \log p_\theta(x \mid z)",
            "=",
            rf"\frac{{1}}{{\sigma^3}} {SQUARES} - \frac{{D}}{{\sigma}}",
            "Line 4, differentiated. On the left by a difference of two values of $\\sigma$.",
            (gradient(log_likelihood, sigma), error / sigma**3 - num / sigma),
        ),
        Line(
            r"\frac{1}{\hat\sigma^3} " + SQUARES + r" - \frac{D}{\hat\sigma}",
            "=",
            "0",
            r"The best $\sigma$ is where the derivative is zero: $\hat\sigma^2 = \frac{1}{D}\sum_i "
            r"(x_i - \hat{x}_i)^2$, the **mean squared error**.",
            (error / best**3 - num / best, 0.0),
        ),
        Line(
            r"\log p_\theta(x \mid z)",
            "=",
            r"{} - \tfrac{D}{2}\left(\log 2\pi\hat\sigma^2 + 1\right)",
            "Line 4 at $\\hat\\sigma$: the squared error is $D\\hat\\sigma^2$. What is left to "
            "make small is the logarithm of the error, which has no $\\sigma$ to choose.",
            (log_likelihood(best), -num / 2 * (np.log(2 * np.pi * best**2) + 1)),
        ),
    ]


def bernoulli(x: Array, mean: Array) -> list[Line]:
    """For a binary image x [D] and the decoder's probabilities of on."""
    log_odds = np.log(mean) - np.log1p(-mean)
    together = -np.logaddexp(0, np.where(x == 1, -log_odds, log_odds)).sum()
    pixel = np.abs(x - mean).argmax()
    probability = mean[pixel] if x[pixel] else 1 - mean[pixel]
    as_power = mean[pixel] ** x[pixel] * (1 - mean[pixel]) ** (1 - x[pixel])
    in_logs = x * np.log(mean) + (1 - x) * np.log1p(-mean)
    return [
        Line(
            r"p_\theta(x_i \mid z)",
            "=",
            r"\hat{x}_i^{x_i} (1 - \hat{x}_i)^{1 - x_i}",
            "A pixel that is on, $x_i = 1$, has probability $\\hat{x}_i$, and one that is off "
            "$1 - \\hat{x}_i$: the exponents choose. Values for the worst pixel.",
            (probability, as_power),
        ),
        Line(
            r"\log p_\theta(x_i \mid z)",
            "=",
            r"x_i \log\hat{x}_i + (1 - x_i) \log(1 - \hat{x}_i)",
            "The logarithm of line 1.",
            (np.log(as_power), in_logs[pixel]),
        ),
        Line(
            r"\log p_\theta(x \mid z)",
            "=",
            r"\sum_{i=1}^{D} & x_i \log\hat{x}_i + (1 - x_i) \log(1 - \hat{x}_i)",
            "Pixels independent given the code: minus the *binary cross-entropy*. The left side is "
            "from the decoder's log-odds.",
            (together, in_logs.sum()),
        ),
    ]
