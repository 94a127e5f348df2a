"""The VAE of the image programs: its networks, what it observes, its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from vae_jax import networks
from vae_jax.run.options import Model, Training

Observe = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, uint8 images) -> float32 x."""


def observe(binarization: str) -> Observe:
    """How bytes become what the model sees."""
    return {
        "dynamic": vae_jax.binarize,
        "static": lambda key, image: (image > 127).astype(jnp.float32),
        "threshold": lambda key, image: (image > 127).astype(jnp.float32),
        "none": lambda key, image: image.astype(jnp.float32) / 255,
    }[binarization]


_MEAN_ROWS = 2**16


def mean_pixel(images: Any, binarization: str) -> np.ndarray:
    """The mean of x over the training set, [H, W, C], or over the start of a large one."""
    images = images[np.arange(min(len(images), _MEAN_ROWS))]
    if binarization in ("static", "threshold"):
        images = np.where(images > 127, np.uint8(255), np.uint8(0))
    return (images.mean(axis=0, dtype=np.float64) / 255).astype(np.float32)


def make_model(
    options: Model, image_shape: tuple[int, ...], binarization: str, mean: Any, num_classes: int
) -> vae_jax.VAE:
    """The VAE that the options name.

    Args:
      options: the networks.
      image_shape: (H, W, C).
      binarization: "none" for a Normal likelihood, else Bernoulli.
      mean: [H, W, C], the mean of x over the training set, where the output bias starts.
      num_classes: of the labels, for a conditional model.
    """
    grey = binarization == "none"
    bias_init = networks.constant_bias(mean if grey else networks.logit(mean))
    matmul = networks.matmul_bfloat16 if options.precision == "bfloat16" else jnp.matmul
    statistics = (2 * options.latent_dim,)
    condition = prior = None
    if options.conditional:
        condition = networks.ClassCondition(num_classes, options.embedding_dim)
        prior = networks.StandardPrior(options.latent_dim)
        if options.prior == "conditional":
            prior = networks.Encoder(
                nn.Sequential([condition.clone(), networks.MLP(statistics, (100,))])
            )
    shared: dict[str, Any] = {"activation": nn.silu, "matmul": matmul, "condition": condition}
    if options.network == "mlp":
        encoder: nn.Module = networks.MLP(statistics, options.hidden, event_ndims=3, **shared)
        decoder: nn.Module = networks.MLP(
            image_shape, options.hidden[::-1], bias_init=bias_init, **shared
        )
    else:
        encoder = networks.ConvEncoder(statistics, options.channels, **shared)
        decoder = networks.ConvDecoder(
            image_shape, options.channels[::-1], bias_init=bias_init, **shared
        )
    decoder_type = networks.NormalDecoder if grey else networks.BernoulliDecoder
    return vae_jax.make_vae(
        networks.Encoder(encoder), decoder_type(decoder, event_ndims=3), options.latent_dim, prior
    )


def make_loss(model: vae_jax.VAE, observe: Observe) -> Callable[..., Any]:
    """Minus the mean ELBO of a batch, one draw per example."""

    def loss(params: Any, key: jax.Array, batch: vae_jax.Batch) -> tuple[jax.Array, Any]:
        observe_key, draw_key = jax.random.split(key)
        x = observe(observe_key, batch.image)
        posterior = model.encode(params, x, batch.label)
        z = vae_jax.sample(draw_key, posterior)
        likelihood = model.decode(params, z, batch.label)
        bound = vae_jax.elbo(x, z, posterior, model.prior(params, batch.label), likelihood)
        return -bound.value.mean(), bound

    return loss


def make_optimizer(options: Training, total_steps: int) -> optax.GradientTransformation:
    """Adam with a warm-up and a cosine decay, behind gradient clipping."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=options.learning_rate,
        warmup_steps=min(500, total_steps // 10),
        decay_steps=total_steps,
        end_value=options.learning_rate / 100,
    )
    if options.clip_norm == "auto":
        clip = clip_spikes()
    elif np.isfinite(options.clip_norm):
        clip = optax.clip_by_global_norm(options.clip_norm)
    else:  # as long as clipping by a norm, whose state is empty too: one can become the other
        clip = optax.identity()
    return optax.chain(clip, optax.adam(schedule))


class ClipSpikesState(NamedTuple):
    """The moving average of the norm's logarithm, as far as it has been clipped, and its steps."""

    count: jax.Array
    log_norm: jax.Array


def clip_spikes(factor: float = 10.0, decay: float = 0.98) -> optax.GradientTransformation:
    """Scales a gradient down where it is `factor` times as long as those before it.

    "Before" is a geometric moving average over about 1 / (1 - decay) steps, so the rule has no unit:
    it holds for 64 pixels and for 200,000. Gradients that are not so long pass as they are, bit for
    bit; the first 1 / (1 - decay) pass in any case.

    Args:
      factor: how many times the average.
      decay: of the average.
    """
    warm_up = round(1 / (1 - decay))

    def init(params: Any) -> ClipSpikesState:
        return ClipSpikesState(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(
        updates: Any, state: ClipSpikesState, params: Any = None
    ) -> tuple[Any, ClipSpikesState]:
        norm = optax.global_norm(updates)
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
