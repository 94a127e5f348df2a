"""What makes a distribution of a network's output."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vae_jax.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Laplace,
    MixtureOfDiscretizedLogistics,
    NegativeBinomial,
    Normal,
    OrderedLogistic,
    StudentT,
)

_MAX_LOG_SCALE = 10.0


class Encoder(nn.Module):
    """q(z|x) = N(mean(x), diag(scale(x)^2)) from a network with twice as many outputs as latents.

    A conditional prior p(z|c) is an encoder of the condition alone, such as
    `Encoder(nn.Sequential([ClassCondition(10), MLP((2 * Z,))]))` for classes and
    `Encoder(MLP((2 * Z,), event_ndims=3))` for images.

    The log-scale is bounded smoothly, to (-10, 10): exp of an unbounded one overflows, and a hard
    clip would end its gradient.

    Attributes:
      network: [*b, *event] -> [*b, 2 Z].
    """

    network: nn.Module

    def __call__(self, x: Array, label: Any = None) -> Normal:
        mean, log_scale = jnp.split(_apply(self.network, x, label), 2, axis=-1)
        return Normal(mean, jnp.exp(bounded(log_scale)))


class BernoulliDecoder(nn.Module):
    """p(x|z) = Bernoulli(logits(z)), for binary x.

    Attributes:
      network: [*b, Z] -> [*b, *event].
      event_ndims: number of axes of one x.
    """

    network: nn.Module
    event_ndims: int = 1

    def __call__(self, z: Array, label: Any = None) -> Bernoulli:
        return Bernoulli(_apply(self.network, z, label), event_ndims=self.event_ndims)


class ContinuousBernoulliDecoder(nn.Module):
    """p(x|z) = ContinuousBernoulli(logits(z)), for x in [0, 1].

    Attributes:
      network: [*b, Z] -> [*b, *event].
      event_ndims: number of axes of one x.
    """

    network: nn.Module
    event_ndims: int = 1

    def __call__(self, z: Array, label: Any = None) -> ContinuousBernoulli:
        return ContinuousBernoulli(_apply(self.network, z, label), event_ndims=self.event_ndims)


class NormalDecoder(nn.Module):
    """p(x|z) = N(mean(z), scale^2), for real x, with one learned scale for all of x.

    Learning the scale replaces the guess of a weight between squared error and KL (Rybkin et al.
    2021, "sigma-VAE").

    Attributes:
      network: [*b, Z] -> [*b, *event].
      event_ndims: number of axes of one x.
      initial_scale: where the scale starts; the standard deviation of x about its mean is the best
        for a decoder that ignores z. Far above it the KL weighs too much, and z is not used.
      rate: how many times as fast as another parameter the scale's logarithm moves under Adam.
      per_entry: a scale for each entry of x from the network, whose last axis is then twice the
        event's: the means, then the logarithms of the scales over `initial_scale`.
    """

    network: nn.Module
    event_ndims: int = 1
    initial_scale: float = 1.0
    rate: float = 1.0
    per_entry: bool = False

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Normal:
        return Normal(*_mean_and_scale(self, z, label), event_ndims=self.event_ndims)


class LaplaceDecoder(nn.Module):
    """p(x|z) = Laplace(mean(z), scale), for real x; attributes are those of `NormalDecoder`."""

    network: nn.Module
    event_ndims: int = 1
    initial_scale: float = 1.0
    rate: float = 1.0
    per_entry: bool = False

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Laplace:
        return Laplace(*_mean_and_scale(self, z, label), event_ndims=self.event_ndims)


class StudentTDecoder(nn.Module):
    """p(x|z) = StudentT(mean(z), scale, df), for real x, with learned degrees of freedom for all.

    Attributes are those of `NormalDecoder`, and

    Attributes:
      initial_df: where the degrees of freedom start; their logarithm is learned as the scale's is.
    """

    network: nn.Module
    event_ndims: int = 1
    initial_scale: float = 1.0
    rate: float = 1.0
    per_entry: bool = False
    initial_df: float = 5.0

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> StudentT:
        mean, scale = _mean_and_scale(self, z, label)
        df = _learned(self, "log_df", self.initial_df).astype(mean.dtype)
        return StudentT(mean, scale, df, event_ndims=self.event_ndims)


class DiscretizedLogisticDecoder(nn.Module):
    """p(x|z) = DiscretizedLogistic(mean(z), scale), for bytes x.

    Attributes are those of `NormalDecoder`, and

    Attributes:
      num_levels: 256 of bytes. The mean and the scale are on the scale on which these fill [0, 1].
    """

    network: nn.Module
    event_ndims: int = 1
    initial_scale: float = 0.1
    rate: float = 1.0
    per_entry: bool = False
    num_levels: int = 256

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> DiscretizedLogistic:
        mean, scale = _mean_and_scale(self, z, label)
        return DiscretizedLogistic(mean, scale, self.event_ndims, self.num_levels)


class MixtureOfDiscretizedLogisticsDecoder(nn.Module):
    """p(x|z) = MixtureOfDiscretizedLogistics of features(z), for bytes x [*b, *pixels, C].

    A dense layer, the same for all pixels, makes the parameters of a pixel's features: a network
    with an output for each of the parameters would be many times as large. The components start
    spread over the levels. Coefficients are bounded to (-1, 1) (Salimans et al. 2017).

    Attributes:
      network: [*b, Z] -> [*b, *pixels, F], of any F; 16 will do.
      num_channels: C.
      num_components: K; 5 are enough for bytes of pictures (Salimans et al. 2017, section 2.1).
      event_ndims: number of axes of one x.
      initial_mean: of all levels, on the scale on which they fill [0, 1].
      initial_scale: their standard deviation on it.
      num_levels: 256 of bytes.
    """

    network: nn.Module
    num_channels: int = 3
    num_components: int = 5
    event_ndims: int = 3
    initial_mean: float = 0.5
    initial_scale: float = 0.25
    num_levels: int = 256

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> MixtureOfDiscretizedLogistics:
        channels, num = self.num_channels, self.num_components
        pairs = channels * (channels - 1) // 2
        features = nn.silu(_apply(self.network, z, label))
        output = _DenseOverPixels((1 + 2 * channels + pairs) * num, name="Dense_0")(features)
        output = output.reshape(-1, num, *output.shape[1:])
        ends = 1, 1 + channels, 1 + 2 * channels
        logits, means, log_scales, coefficients = jnp.split(output, ends)
        spread = jax.scipy.special.ndtri((jnp.arange(num, dtype=output.dtype) + 0.5) / num)
        means = means + jnp.broadcast_to(spread.reshape(-1, *(1,) * (means.ndim - 2)), means.shape)
        scales = 0.5 * self.initial_scale * jnp.exp(bounded(log_scales))
        means = self.initial_mean + self.initial_scale * means
        last = (0, 1), (-2, -1)
        return MixtureOfDiscretizedLogistics(
            jnp.moveaxis(logits[0], 0, -1),
            jnp.moveaxis(means, *last),
            jnp.moveaxis(scales, *last),
            jnp.moveaxis(jnp.tanh(coefficients), *last),
            event_ndims=self.event_ndims,
            num_levels=self.num_levels,
        )


class _DenseOverPixels(nn.Module):
    """`nn.Dense` whose outputs are the first axis, so that a CPU's loops are along the pixels."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[*b, F] -> [features, *b]."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        rows = x.reshape(-1, x.shape[-1])
        output = jax.lax.dot_general(kernel, rows, (((0,), (1,)), ((), ())))
        return (output + jnp.broadcast_to(bias[:, None], output.shape)).reshape(-1, *x.shape[:-1])


class CategoricalDecoder(nn.Module):
    """p(x|z) = Categorical(logits of features(z)), for integers x [*b, *places, C], as bytes are.

    A dense layer, the same at all places, makes the logits of C integers of a place's features: a
    network with 256 outputs for each byte would be many times as large.

    Attributes:
      network: [*b, Z] -> [*b, *places, F], of any F; 16 will do.
      num_channels: C.
      event_ndims: number of axes of one x.
      num_classes: 256 of bytes.
    """

    network: nn.Module
    num_channels: int = 3
    event_ndims: int = 3
    num_classes: int = 256

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Categorical:
        features = nn.silu(_apply(self.network, z, label))
        logits = nn.Dense(self.num_channels * self.num_classes)(features)
        logits = logits.reshape(*logits.shape[:-1], self.num_channels, self.num_classes)
        return Categorical(logits, event_ndims=self.event_ndims)


class ClassDecoder(nn.Module):
    """p(x|z) = Categorical of one class, x [*b, 1], by a dense layer of z.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> Categorical:
        logits = _apply(nn.Dense(self.num_classes), z, label)
        return Categorical(logits[..., None, :], event_ndims=1)


class OrderedLogisticDecoder(nn.Module):
    """p(x|z) = OrderedLogistic of one class of an order, x [*b, 1], with learned cutpoints.

    They start where the classes are equally probable.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> OrderedLogistic:
        location = _apply(nn.Dense(1), z, label)
        num = self.num_classes - 1
        first = self.param("first", nn.initializers.zeros_init(), ())
        steps = self.param("log_steps", nn.initializers.zeros_init(), (num - 1,))
        even = jax.scipy.special.logit(jnp.arange(1, num + 1) / (num + 1))
        steps = jnp.diff(even) * jnp.exp(bounded(steps))
        cutpoints = even[0] + first + jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
        return OrderedLogistic(location, cutpoints.astype(location.dtype))


class NegativeBinomialDecoder(nn.Module):
    """p(x|z) = NegativeBinomial(mean(z), concentration), for counts, one concentration an entry.

    Attributes:
      network: [*b, Z] -> log of the mean over `initial_mean`, [*b, D].
      initial_mean: where the means start, a number, or one for each entry.
      initial_concentration: likewise of the concentrations.
      shared: keep the concentrations [D], which `NegativeBinomial` scores faster, and not quite to
        the last bit as one for each example.
    """

    network: nn.Module
    initial_mean: float | tuple[float, ...] = 1.0
    initial_concentration: float | tuple[float, ...] = 1.0
    shared: bool = False

    @nn.compact
    def __call__(self, z: Array, label: Any = None) -> NegativeBinomial:
        log_mean = _apply(self.network, z, label)
        log_r = self.param("log_concentration", nn.initializers.zeros_init(), log_mean.shape[-1:])
        initial = jnp.broadcast_to(jnp.asarray(self.initial_mean, log_mean.dtype), log_mean.shape)
        concentration = jnp.exp(bounded(log_r))
        if self.initial_concentration != 1.0:
            initial_r = jnp.asarray(self.initial_concentration, log_r.dtype)
            concentration = jnp.broadcast_to(initial_r, log_r.shape) * concentration
        if not self.shared:
            concentration = jnp.broadcast_to(concentration, log_mean.shape)
        return NegativeBinomial(initial * jnp.exp(bounded(log_mean)), concentration)


class StandardPrior(nn.Module):
    """p(z|c) = N(0, I) for every label, with the label's batch axes.

    Attributes:
      latent_dim: Z.
      label_ndims: number of axes of one label, 0 for a class.
    """

    latent_dim: int
    label_ndims: int = 0

    def __call__(self, label: ArrayLike) -> Normal:
        batch = jnp.shape(label)[: jnp.ndim(label) - self.label_ndims]
        return Normal(jnp.zeros((*batch, self.latent_dim)), jnp.ones(()))


def _mean_and_scale(head: Any, z: Array, label: Any) -> tuple[Array, Array]:
    """What a network says of a location and its scale; or its mean, and the one learned scale."""
    if head.per_entry:
        mean, log_scale = jnp.split(_apply(head.network, z, label), 2, axis=-1)
        return mean, head.initial_scale * jnp.exp(bounded(log_scale))
    scale = _learned(head, "log_scale", head.initial_scale)
    mean = _apply(head.network, z, label)
    return mean, scale.astype(mean.dtype)


def _learned(head: Any, name: str, initial: float) -> Array:
    """A positive number that is learned, by the logarithm of what it is of its start."""
    log: Array = head.param(name, nn.initializers.zeros_init(), ())
    return initial * jnp.exp(bounded(head.rate * log))


def _apply(network: Any, x: Array, label: Any) -> Array:
    """Gives the label only where there is one: a network without labels need not know of them."""
    output: Array = network(x) if label is None else network(x, label)
    return output


def bounded(log_scale: Array) -> Array:
    """Smoothly within (-10, 10), and as it is near 0."""
    return _MAX_LOG_SCALE * jnp.tanh(log_scale / _MAX_LOG_SCALE)
