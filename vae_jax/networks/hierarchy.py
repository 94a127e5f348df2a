"""Networks of several layers of latents: a ladder of dense layers, and residual convolutions.

A way up, x -> features, and a way down, (choose, features) -> p(x|z), which calls z =
choose(posterior, prior) for each layer in turn, the top one first, and without features
choose(prior): see `vae_jax.make_top_down`. The way down has no batch axes until a draw brings some.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from vae_jax.distributions import Bernoulli, Normal
from vae_jax.networks.conv import Conv, StridedConv, TransposedConv
from vae_jax.networks.heads import Encoder, bounded
from vae_jax.networks.initializers import Initializer
from vae_jax.networks.mlp import MLP, scaled_down

Choose = Callable[..., Any]


def precision_weighted(one: Normal, other: Normal) -> Normal:
    """The Gaussian proportional to the product of two: means weighed by precisions, which add up.

    Evidence from below and the prior from above make a ladder's posterior so (Sonderby et al.
    2016, equations 17 to 19).

    Args:
      one: [*b, Z].
      other: [*b, Z], or with fewer or more batch axes, the last ones.

    >>> both = precision_weighted(Normal(jnp.zeros(1), 1.0), Normal(jnp.ones(1), 0.5))
    >>> both.mean, both.scale.round(4)
    (Array([0.8], dtype=float32), Array([0.4472], dtype=float32))
    """
    mean, scale, other_mean, other_scale = jnp.broadcast_arrays(
        *_aligned(one.mean, one.scale, other.mean, other.scale)
    )
    # In terms of the ratio of the scales, as the precision of a small one overflows.
    weight = jnp.square(other_scale) / (jnp.square(scale) + jnp.square(other_scale))
    return Normal(
        other_mean + weight * (mean - other_mean), scale * jnp.sqrt(weight), one.event_ndims
    )


class LadderEncoder(nn.Module):
    """The way up of a ladder: features d_l of d_(l-1), and of each the evidence N(mean, scale^2).

    Attributes:
      latent_dims: of the layers' latents, the bottom one first.
      hidden: width of the two dense layers of each.
      event_ndims: of x.
      activation: between layers.
    """

    latent_dims: Sequence[int]
    hidden: Sequence[int]
    event_ndims: int = 1
    activation: Callable[[Array], Array] = nn.silu

    @nn.compact
    def __call__(self, x: Array) -> tuple[Normal, ...]:
        """[*b, *event] -> N(mean, scale^2) of each layer, [*b, Z_l], the bottom one first."""
        event_ndims, evidence = self.event_ndims, []
        for width, latent_dim in zip(self.hidden, self.latent_dims, strict=True):
            x = MLP((width,), (width,), event_ndims, self.activation)(x)
            x, event_ndims = self.activation(x), 1
            evidence.append(Encoder(MLP((2 * latent_dim,), ()))(x))
        return tuple(evidence)


class LadderDecoder(nn.Module):
    """The way down of a ladder, p(z_L) ... p(z_1|z_2) p(x|z_1), p(z_L) = N(0, I).

    q(z_l|z_(l+1), x) is p(z_l|z_(l+1)) and the way up's evidence, `precision_weighted` (Sonderby et
    al. 2016, section 2.2).

    Attributes:
      likelihood: z_1 -> p(x|z_1), such as `BernoulliDecoder(MLP(...))`.
      latent_dims: of the layers' latents, the bottom one first.
      hidden: width of the two dense layers of each but the bottom one, whose is the likelihood's.
      activation: between layers.
    """

    likelihood: nn.Module
    latent_dims: Sequence[int]
    hidden: Sequence[int]
    activation: Callable[[Array], Array] = nn.silu

    @nn.compact
    def __call__(self, choose: Choose, features: tuple[Normal, ...] | None = None) -> Any:
        top = self.latent_dims[-1]
        prior = Normal(jnp.zeros(top), jnp.ones(top))
        evidence = None if features is None else features[-1]
        z = choose(prior) if evidence is None else choose(evidence, prior)
        for i in reversed(range(len(self.latent_dims) - 1)):
            width = self.hidden[i + 1]
            network = MLP((2 * self.latent_dims[i],), (width, width), 1, self.activation)
            prior = Encoder(network)(z)
            if features is None:
                z = choose(prior)
            else:
                z = choose(precision_weighted(features[i], prior), prior)
        return self.likelihood(z)


class BottomUp(nn.Module):
    """The way up of a top-down residual VAE: residual convolutions at each size.

    Attributes:
      width: channels.
      blocks: residual blocks at the full size, half of it, a quarter and so on. Where the first are
        0, the image is only made smaller there.
      dtype: of the activations.
    """

    width: int = 64
    blocks: Sequence[int] = (0, 2, 4)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        """[*b, H, W, C] -> features [*b, h, w, width] of each size that has blocks, in turn."""
        depth, features = sum(self.blocks), []
        x = x.astype(self.dtype)
        if self.blocks[0]:
            x = Conv(self.width)(x)
        for size, num_blocks in enumerate(self.blocks):
            if size > 0:
                x = StridedConv(self.width)(x)
            for _ in range(num_blocks):
                x = x + Bottleneck(self.width, self.width // 2, scaled_down(depth))(x)
            if num_blocks:
                features.append(x)
        return tuple(features)


class TopDown(nn.Module):
    """The way down of a top-down residual VAE, a small VDVAE (Child 2021, section 3).

    Each block looks at h, what was drawn above: it makes p(z_l|z_<l) and a residual part of h; with
    the way up's features of its size, q(z_l|z_<l, x); and adds z_l, projected, to h. q is relative
    to p, N(m + s dm, (s ds)^2) of p = N(m, s^2) (Vahdat & Kautz 2020, section 3.2), so that both
    are the same at the start. The last kernel of each residual part starts smaller by 1 /
    sqrt(depth).

    Attributes:
      image_shape: (H, W, C), C being what `likelihood` needs of each pixel.
      width: channels of h.
      blocks: as of `BottomUp`; the way down goes from the smallest size to the full one.
      latent_channels: of each z_l, [*b, h, w, latent_channels].
      likelihood: of the output [*b, H, W, C], p(x|z).
      bias_init: of the output's bias, [H, W, C].
      dtype: of h; distributions are float32.

    >>> import jax, vae_jax
    >>> model = vae_jax.make_top_down(BottomUp(8, (0, 1, 2)), TopDown((9, 6, 1), 8, (0, 1, 2)))
    >>> x = jnp.ones((3, 9, 6, 1))
    >>> mean = lambda key: model.encode(model.init(key, x), x).mean
    >>> [part.shape for part in jax.eval_shape(mean, jax.random.key(0))]
    [(3, 3, 2, 16), (3, 3, 2, 16), (3, 5, 3, 16)]
    """

    image_shape: Sequence[int]
    width: int = 64
    blocks: Sequence[int] = (0, 2, 4)
    latent_channels: int = 16
    likelihood: Callable[[Array], Any] = partial(Bernoulli, event_ndims=3)
    bias_init: Initializer = nn.initializers.zeros_init()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, choose: Choose, features: tuple[Array, ...] | None = None) -> Any:
        sizes = [_halved(self.image_shape, size) for size in range(len(self.blocks))]
        left = None if features is None else list(features)
        start = self.param("start", nn.initializers.normal(1.0), (*sizes[-1], self.width))
        h, depth = start.astype(self.dtype), sum(self.blocks)
        for size in reversed(range(len(self.blocks))):
            if size + 1 < len(self.blocks):
                last = not any(self.blocks[: size + 1])
                channels = self.image_shape[-1] if last and size == 0 else self.width
                h = TransposedConv(channels, name=f"larger_{size}")(nn.silu(h))
                h = h[..., : sizes[size][0], : sizes[size][1], :]
            below = left.pop() if left is not None and self.blocks[size] else None
            for i in range(self.blocks[size]):
                block = _Layer(self.width, self.latent_channels, depth, name=f"layer_{size}_{i}")
                h = block(h, choose, below)
        if self.blocks[0]:
            h = Conv(self.image_shape[-1], name="image")(nn.silu(h))
        image = h.astype(jnp.float32)
        bias = self.param("bias", self.bias_init, tuple(self.image_shape))
        return self.likelihood(image + jnp.broadcast_to(bias, image.shape))


class Bottleneck(nn.Module):
    """A residual part: 1x1 to `inner` channels, 3x3, 1x1 to `features`, each behind a silu.

    With `beside`, an image of the same size, it starts from both.
    """

    features: int
    inner: int
    last_init: Initializer

    @nn.compact
    def __call__(self, x: Array, beside: Array | None = None) -> Array:
        narrow = _pointwise(self.inner, x)(nn.silu(x))
        if beside is not None:
            other = _pointwise(self.inner, x, use_bias=False)(nn.silu(beside))
            narrow = jnp.add(*jnp.broadcast_arrays(*_aligned(narrow, other)))
        narrow = Conv(self.inner)(nn.silu(narrow))
        return _pointwise(self.features, x, kernel_init=self.last_init)(nn.silu(narrow))


class _Layer(nn.Module):
    """One layer of latents on the way down."""

    width: int
    latent_channels: int
    depth: int

    @nn.compact
    def __call__(self, h: Array, choose: Choose, features: Array | None) -> Array:
        inner, latents = self.width // 2, self.latent_channels
        own = Bottleneck(self.width + 2 * latents, inner, scaled_down(self.depth), name="prior")(h)
        h = h + own[..., : self.width]
        mean, log_scale = _statistics(own[..., self.width :])
        prior = Normal(mean, jnp.exp(log_scale), event_ndims=3)
        if features is None:
            z = choose(prior)
        else:
            zeros = nn.initializers.zeros_init()
            change = Bottleneck(2 * latents, inner, zeros, name="posterior")(h, features)
            shift, log_ratio, mean, log_scale = jnp.broadcast_arrays(
                *_aligned(*_statistics(change), mean, log_scale)
            )
            scale = jnp.exp(log_scale)
            posterior = Normal(mean + scale * shift, scale * jnp.exp(log_ratio), event_ndims=3)
            z = choose(posterior, prior)
        init = scaled_down(self.depth)
        added = _pointwise(self.width, h, kernel_init=init, name="latent")(z.astype(h.dtype))
        return jnp.add(*jnp.broadcast_arrays(*_aligned(h, added)))


def _statistics(x: Array) -> tuple[Array, Array]:
    """A mean and the logarithm of a scale, in float32 as what is summed over them."""
    mean, log_scale = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return mean, bounded(log_scale)


def _pointwise(features: int, x: Array, **options: Any) -> nn.Dense:
    """A 1x1 convolution in the dtype of x."""
    return nn.Dense(features, dtype=x.dtype, **options)


def _aligned(*arrays: Array) -> list[Array]:
    """All with as many axes, new ones in front."""
    ndim = max(array.ndim for array in arrays)
    return [array.reshape(*(1,) * (ndim - array.ndim), *array.shape) for array in arrays]


def _halved(image_shape: Sequence[int], times: int) -> tuple[int, int]:
    height, width = image_shape[:2]
    return -(-height // 2**times), -(-width // 2**times)
