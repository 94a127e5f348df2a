"""The same training with artifex, whose epoch is one compiled loop. Contestants as in `rivals`."""

from typing import Any

import jax
import numpy as np
from artifex.generative_models.core.configuration import DecoderConfig, EncoderConfig, VAEConfig
from artifex.generative_models.models.vae import VAE
from artifex.generative_models.training import train_epoch_staged
from artifex.generative_models.training.trainers import VAETrainer, VAETrainingConfig
from flax import nnx

from benchmarks import dense
from benchmarks.rivals import Trainer
from benchmarks.workloads import Workload, make_optimizer


def artifex_epoch(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    *,
    binarize: str = "afresh",
    kl_warmup_steps: int = 0,
    seed: int = 0,
) -> Trainer:
    """Its trainer's loss in its staged epoch, of its dense VAE.

    That takes the images in the order in which they lie, and grey. Where `binarize` is "afresh" the
    loss binarizes them and they are shuffled before each pass. Its quickstart trains convolutions:
    on a CPU, inside a compiled loop, a step of those took 0.2 s on 8 x 8 images already.
    """
    event = workload.image_shape
    shared: dict[str, Any] = {"latent_dim": workload.latent_dim, "activation": workload.activation}
    # The decoder reverses its widths.
    shared["hidden_dims"] = workload.hidden
    encoder = EncoderConfig(name="encoder", input_shape=event, use_batch_norm=False, **shared)
    decoder = DecoderConfig(name="decoder", output_shape=event, batch_norm=False, **shared)
    config = VAEConfig(name="vae", encoder=encoder, decoder=decoder, encoder_type="dense")
    vae = VAE(config, rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(vae, make_optimizer(workload), wrt=nnx.Param)
    annealing: Any = "linear" if kl_warmup_steps else "none"
    of_kl = VAETrainingConfig(kl_annealing=annealing, kl_warmup_steps=max(1, kl_warmup_steps))
    grey_loss = VAETrainer(of_kl).create_loss_fn(loss_type="bce")

    def loss(model: Any, batch: Any, key: jax.Array, step: jax.Array) -> Any:
        x = batch["image"]
        if binarize == "afresh":
            x = jax.random.bernoulli(key, x).astype(x.dtype)
        return grey_loss(model, {"image": x}, key, step)

    grey = jax.device_put(images.astype(np.float32) / 255)
    generator = np.random.default_rng(seed)
    epoch, step = 0, 0

    def run() -> float:
        nonlocal epoch, step
        staged = grey[generator.permutation(len(grey))] if binarize == "afresh" else grey
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        step, metrics = train_epoch_staged(
            vae, optimizer, staged, batch_size, key, loss, base_step=step
        )
        epoch += 1
        return float(metrics["loss"])

    def layers(of: list[Any]) -> list[Any]:
        return [(layer.kernel[...], layer.bias[...]) for layer in of]

    def weights() -> dense.Weights:
        into, out = vae.encoder, vae.decoder
        return dense.weights(
            layers([*into.backbone.layers, into.mean_proj, into.logvar_proj]),
            layers([*out.backbone.layers, out.output_layer]),
        )

    return Trainer(run, dense.model(workload.activation), weights, event)
