"""The VAE of the image programs: its networks, what it observes, its loss, its optimizer."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from vae_jax import networks
from vae_jax.run import latents
from vae_jax.run.errors import UsageError
from vae_jax.run.options import BINARY, CONVOLUTIONS, HIERARCHIES, OF_BYTES, Model, Training
from vae_jax.run.pixels import Pixels
from vae_jax.run.schedule import rate_at

Observe = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, images) -> x, float32, or bytes where the likelihood is of bytes."""


def likelihood_of(chosen: Model, binarization: str) -> str:
    """The name of p(x|z): the one chosen, or what there was before it could be."""
    return chosen.likelihood or ("normal" if binarization == "none" else "bernoulli")


def num_levels(likelihood: str) -> int:
    """Of each value of x, which a model that knows nothing takes for alike; 1 of a density."""
    return 2 if likelihood in BINARY else 256 if likelihood in OF_BYTES else 1


def observe(binarization: str, likelihood: str, *, dequantize: bool = True) -> Observe:
    """How images become what the model sees: bytes, or floats in [0, 1].

    Args:
      binarization: of the run.
      likelihood: of the run; of bytes, they stay what they are.
      dequantize: spread each byte over the 256th that it stands for, without which a density has no
        bound; runs of version 0.1 did not.
    """

    def see(key: jax.Array, image: jax.Array) -> jax.Array:
        if likelihood in OF_BYTES:
            return image
        if image.dtype != jnp.uint8:
            if binarization == "none":
                return image
            cut = jax.random.uniform(key, image.shape) if binarization == "dynamic" else 0.5
            seen = (image > cut).astype(jnp.float32)
            return jnp.where(jnp.isnan(image), image, seen)  # what is missing stays so
        if binarization == "dynamic":
            return vae_jax.binarize(key, image)
        if binarization != "none":
            return (image > 127).astype(jnp.float32)
        return vae_jax.dequantize(key, image) if dequantize else image.astype(jnp.float32) / 255

    return see


class Standardized(nn.Module):
    """A network that is given its input with mean 0 and standard deviation 1.

    Attributes:
      network: [*b, *event] -> anything.
      centre: the input's mean, in [0, 1], also of bytes.
      spread: its standard deviation.
    """

    network: nn.Module
    centre: float
    spread: float

    def __call__(self, x: jax.Array, *label: Any) -> jax.Array:
        if x.dtype == jnp.uint8:
            x = (x.astype(jnp.float32) + 0.5) / 256
        output: jax.Array = self.network((x - self.centre) / self.spread, *label)
        return output


def make_model(
    options: Model,
    image_shape: tuple[int, ...],
    binarization: str,
    pixels: Pixels,
    num_classes: int,
    *,
    as_before: bool = False,
    told: tuple[int, ...] = (),
) -> vae_jax.VAE:
    """The VAE that the options name.

    Args:
      options: the networks.
      image_shape: (H, W, C).
      binarization: of the run.
      pixels: of the training set.
      num_classes: of the labels, for a conditional model.
      as_before: greys as in version 0.1, whose scale starts at 1 and whose encoder sees x itself.
      told: numbers of classes of the columns that it is conditional on, as
        `networks.ColumnsCondition` has them.
    """
    grey = binarization == "none"
    name = likelihood_of(options, binarization)
    assert options.latent_dim is not None
    bias = _bias(name, pixels.mean)
    bias_init, output_shape = networks.constant_bias(bias), bias.shape
    check_pictures(options, image_shape)
    if options.network in HIERARCHIES:
        return _hierarchy(options, bias, name, pixels, standardized=grey)
    matmul = networks.matmul_bfloat16 if options.precision == "bfloat16" else jnp.matmul
    condition: networks.ClassCondition | networks.ColumnsCondition | None = None
    if told:
        condition = networks.ColumnsCondition(told, options.embedding_dim)
    elif options.conditional:
        condition = networks.ClassCondition(num_classes, options.embedding_dim)
    prior = latents.prior(options) if condition is None else None
    if condition is not None:
        prior = networks.StandardPrior(options.latent_dim, condition.event_ndims)
        if options.prior == "conditional":
            prior = conditional_prior(condition.clone(), options.latent_dim)
    encoder, decoder = _networks(
        options,
        image_shape,
        output_shape,
        bias_init=bias_init,
        matmul=matmul,
        condition=condition,
    )
    if pixels.missing:
        encoder = networks.ZeroFilled(encoder)
    if options.posterior == "power_spherical":  # of unit vectors, each coordinate 1 / sqrt(Z)
        decoder = Standardized(decoder, 0.0, options.latent_dim**-0.5)
    if as_before and grey:
        likelihood: nn.Module = networks.NormalDecoder(decoder, event_ndims=3)
    else:
        likelihood = _head(name, decoder, image_shape[-1], pixels)
        if grey:
            encoder = Standardized(encoder, pixels.centre, pixels.spread)
    if pixels.missing:
        likelihood = networks.MaskedDecoder(likelihood)
    posterior = latents.encoder(options, encoder)
    model = vae_jax.make_vae(posterior, likelihood, options.latent_dim, prior)
    if options.prior == "vamp":
        num = options.num_components or latents.NUM_COMPONENTS
        model = vae_jax.with_vamp_prior(model, num)
    return model


def conditional_prior(condition: nn.Module, latent_dim: int) -> nn.Module:
    """p(z|c), a Gaussian that is learned (Sohn et al. 2015, section 4.1)."""
    return networks.Encoder(nn.Sequential([condition, networks.MLP((2 * latent_dim,), (100,))]))


def _networks(
    options: Model,
    image_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    *,
    bias_init: Any,
    matmul: Any,
    condition: nn.Module | None,
) -> tuple[nn.Module, nn.Module]:
    """The encoder's network, with the outputs that its posterior takes, and the decoder's."""
    assert options.latent_dim is not None
    statistics, hidden = (latents.num_statistics(options),), options.hidden or HIDDEN
    backwards = hidden[::-1]
    plain: dict[str, Any] = {"matmul": matmul, "condition": condition}
    active: dict[str, Any] = {"activation": nn.silu, **plain}
    match options.network:
        case "mlp" | None:
            return (
                networks.MLP(statistics, hidden, event_ndims=3, **active),
                networks.MLP(output_shape, backwards, bias_init=bias_init, **active),
            )
        case "gated":
            return (
                networks.GatedMLP(statistics, hidden, event_ndims=3, **plain),
                networks.GatedMLP(output_shape, backwards, bias_init=bias_init, **plain),
            )
        case "residual":
            return (
                networks.ResidualMLP(statistics, hidden, event_ndims=3, **active),
                networks.ResidualMLP(output_shape, backwards, bias_init=bias_init, **active),
            )
        case "conv":
            channels = options.channels or (32, 64)
            return (
                networks.ConvEncoder(statistics, channels, **active),
                networks.ConvDecoder(output_shape, channels[::-1], bias_init=bias_init, **active),
            )
        case "residual_conv":
            channels = options.channels or networks.channels_for(image_shape)
            return (
                networks.ResidualConvEncoder(statistics, channels, **active),
                networks.ResidualConvDecoder(
                    output_shape, channels[::-1], bias_init=bias_init, **active
                ),
            )
    raise ValueError(f"network is {options.network}")


def _hierarchy(
    options: Model, bias: np.ndarray, likelihood: str, pixels: Pixels, *, standardized: bool
) -> vae_jax.VAE:
    """The VAE of several layers of latents that the options name.

    Args:
      options: the networks.
      bias: where the output's starts, [H, W, what the likelihood needs of each pixel].
      likelihood: its name.
      pixels: of the training set.
      standardized: give the way up greys with mean 0 and standard deviation 1.
    """
    assert options.latent_dim is not None
    bias_init = networks.constant_bias(bias)

    def head(network: Any) -> nn.Module:
        of_values = _head(likelihood, network, pixels.mean.shape[-1], pixels)
        return networks.MaskedDecoder(of_values) if pixels.missing else of_values

    if options.network == "ladder":
        hidden = options.hidden or LADDER
        dims = tuple(max(1, options.latent_dim >> i) for i in range(len(hidden)))
        output = networks.MLP(bias.shape, hidden[:1] * 2, activation=nn.silu, bias_init=bias_init)
        up: nn.Module = networks.LadderEncoder(dims, hidden, event_ndims=3)
        down: nn.Module = networks.LadderDecoder(head(output), dims, hidden)
    else:
        (width,), blocks = options.channels or (_WIDTH,), options.blocks or blocks_for(bias.shape)
        up = networks.BottomUp(width, blocks)
        down = networks.TopDown(
            bias.shape,
            width,
            blocks,
            options.latent_dim,
            head(lambda image: image),
            bias_init,
        )
    if pixels.missing:
        up = networks.ZeroFilled(up)
    if standardized:
        up = Standardized(up, pixels.centre, pixels.spread)
    return vae_jax.make_top_down(up, down)


# Widths of a ladder's layers, and channels of top_down, where none are given.
LADDER, _WIDTH = (400, 200, 100), 32


def blocks_for(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Residual blocks of top_down at each size, from the pictures' own to 7 x 7 or less.

    >>> blocks_for((28, 28, 1)), blocks_for((64, 64, 3))
    ((0, 1, 2), (0, 1, 1, 1, 2))
    """
    return (0, *[1] * (len(networks.channels_for(image_shape)) - 1), 2)


def check_pictures(options: Model, image_shape: tuple[int, ...]) -> None:
    """Raises UsageError for convolutions of what has nothing to halve, or not so often."""
    size = f"{image_shape[0]} x {image_shape[1]}"
    if options.network in CONVOLUTIONS and min(image_shape[:2]) < _SMALLEST:
        raise UsageError(
            f"--network={options.network} halves height and width, but the data are {size}, too "
            "narrow: choose mlp, gated, residual or ladder"
        )
    most = 1 + (max(image_shape[:2]) - 1).bit_length()  # sizes, down to 1 x 1
    if options.blocks is not None and len(options.blocks) > most:
        raise UsageError(
            f"--blocks has {len(options.blocks)} sizes but pictures of {size} have {most}, each "
            "half of the one before: give as many or fewer"
        )


HIDDEN = (400, 400)
"""Widths of the dense networks' layers, where none are given."""

# Pixels a side of a picture: less has nothing to halve.
_SMALLEST = 4


def _bias(likelihood: str, mean: np.ndarray) -> Any:
    """Where the decoder's output bias starts: the pixels' mean, as the likelihood has it."""
    match likelihood:
        case "bernoulli" | "continuous_bernoulli":
            return networks.logit(mean)
        case "normal_per_pixel":
            return np.concatenate([mean, np.zeros_like(mean)], axis=-1)
        case "mixture_of_logistics" | "categorical":
            return np.zeros((*mean.shape[:2], _FEATURES), np.float32)
        case _:
            return mean


def _head(likelihood: str, network: nn.Module, num_channels: int, pixels: Pixels) -> nn.Module:
    """What makes p(x|z) of the decoder's network."""
    located: dict[str, Any] = {
        "event_ndims": 3,
        "initial_scale": pixels.residual,
        "rate": _SCALE_RATE,
    }
    match likelihood:
        case "bernoulli":
            return networks.BernoulliDecoder(network, event_ndims=3)
        case "continuous_bernoulli":
            return networks.ContinuousBernoulliDecoder(network, event_ndims=3)
        case "normal" | "sigma_vae":
            return networks.NormalDecoder(network, **located)
        case "normal_per_pixel":
            return networks.NormalDecoder(network, **located, per_entry=True)
        case "laplace":
            return networks.LaplaceDecoder(network, **located)
        case "student_t":
            return networks.StudentTDecoder(network, **located)
        case "discretized_logistic":
            return networks.DiscretizedLogisticDecoder(network, **located)
        case "mixture_of_logistics":
            return networks.MixtureOfDiscretizedLogisticsDecoder(
                network, num_channels, initial_mean=pixels.centre, initial_scale=pixels.spread
            )
        case "categorical":
            return networks.CategoricalDecoder(network, num_channels)
    raise ValueError(f"likelihood is {likelihood}: it is none that a run has")


# Of each pixel, which the parameters of its distribution are made of.
_FEATURES = 16


def expected(likelihood: Any) -> jax.Array:
    """What a likelihood expects, as a picture [*b, H, W, C] in [0, 1]."""
    if isinstance(likelihood, vae_jax.Categorical):
        levels = jnp.linspace(0.0, 1.0, likelihood.logits.shape[-1])
        return jax.nn.softmax(likelihood.logits) @ levels
    mean: jax.Array = likelihood.mean
    return mean


# Adam moves each parameter by about its learning rate a step: the scale's logarithm, which has
# further to go than a weight, moves by so many of them.
_SCALE_RATE = 10.0


def make_schedule(options: Training, total_steps: int) -> optax.Schedule:
    """The learning rate at a step: a warm-up; then Adam's falls by a cosine, NAdam's by a line."""
    assert options.learning_rate is not None
    if options.optimizer == "nadam":
        rate, warm_up = options.learning_rate, max(1, min(500, total_steps // 10))
        return lambda step: rate_at(jnp.float32(step), total_steps, rate, warm_up=warm_up)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=min(500, total_steps // 10),
        decay_steps=total_steps,
        end_value=options.learning_rate / 100,
    )


# Sticking the landing, a latent that is not used has a gradient of rounding errors alone, which
# Adam scales up to whole steps: in bfloat16, of 12 passes over Fashion-MNIST, three runs of five
# blew up with 1e-8 and one of ten with this; MNIST's log p(x) is the same.
_NADAM_EPS = 1e-4


def make_optimizer(options: Training, total_steps: int) -> optax.GradientTransformation:
    """That of the options on that schedule, behind gradient clipping; less for very wide layers."""
    schedule = make_schedule(options, total_steps)
    if options.clip_norm == "auto":
        clip = clip_spikes()
    elif np.isfinite(options.clip_norm):
        clip = optax.clip_by_global_norm(options.clip_norm)
    else:  # as long as clipping by a norm, whose state is empty too: one can become the other
        clip = optax.identity()
    moments = partial(optax.nadam, eps=_NADAM_EPS) if options.optimizer == "nadam" else optax.adam
    return optax.chain(clip, slower_where_wide(moments(schedule)))


def slower_where_wide(
    optimizer: optax.GradientTransformation, most: int = 3072
) -> optax.GradientTransformation:
    """Adam for layers of any width: the updates of a kernel are divided by its inputs over `most`.

    Adam moves each weight by about its learning rate, so the sum over n inputs that go together, as
    pixels do, by about n of them: at the 196,608 values of a 256 x 256 colour picture each step
    throws the hidden units further than all of training should (Yang et al. 2021, table 3). A
    kernel of up to `most` inputs, those of 32 x 32, has the updates of the optimizer, bit for bit.

    Args:
      optimizer: whose state it keeps as it is.
      most: inputs of a kernel that the learning rate suits.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(updates, state, params, **extra)

        def scaled(path: Any, moved: jax.Array) -> jax.Array:
            inputs = math.prod(moved.shape[:-1])
            wide = jax.tree_util.keystr(path[-1:]) == "['kernel']" and inputs > most
            return moved * (most / inputs) if wide else moved

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(optimizer.init, update)


class ClipSpikesState(NamedTuple):
    """The moving average of the norm's logarithm, as far as it has been clipped, and its steps."""

    count: jax.Array  # type: ignore[assignment]  # optax's name, and a tuple's method
    log_norm: jax.Array


def clip_spikes(factor: float = 10.0, decay: float = 0.98) -> optax.GradientTransformation:
    """Scales a gradient down where it is `factor` times as long as those before it.

    The average is a geometric one over about 1 / (1 - decay) steps, so the rule has no unit: it
    holds for 64 pixels and for 200,000. Gradients that are not so long pass as they are, bit for
    bit; the first 1 / (1 - decay) pass in any case.

    Args:
      factor: how many times the average.
      decay: of the average.
    """
    warm_up = round(1 / (1 - decay))

    def init(params: Any) -> ClipSpikesState:
        return ClipSpikesState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ClipSpikesState]:
        norm = optax.tree.norm(updates)
        count = state.count + 1
        average = state.log_norm / (1 - decay**state.count)  # not used before the warm-up's end
        most = jnp.where(state.count < warm_up, jnp.inf, factor * jnp.exp(average))
        # A branch, not a selection: fused with the gradient, even a factor of 1 would cost bits.
        clipped = jax.lax.cond(
            norm > most,
            lambda tree: jax.tree.map(lambda g: g * (most / norm).astype(g.dtype), tree),
            lambda tree: tree,
            updates,
        )
        seen = jnp.log(jnp.maximum(jnp.minimum(norm, most), jnp.finfo(norm.dtype).tiny))
        return clipped, ClipSpikesState(count, decay * state.log_norm + (1 - decay) * seen)

    return optax.GradientTransformation(init, update)
