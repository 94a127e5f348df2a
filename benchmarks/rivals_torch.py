"""The same training in PyTorch, and with pythae's trainer. Contestants as in `rivals`."""

import contextlib
import io
import logging
import math
import tempfile
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import dense
from benchmarks.rivals import Trainer
from benchmarks.workloads import Workload, rates, smallest

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":
    torch.set_float32_matmul_precision("high")  # TF32, which is what JAX does on a GPU


ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


def _dense(widths: list[int], activation: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), ACTIVATIONS[activation]()]
    return layers


class Block(nn.Module):
    """A pair of 3x3 convolutions with a way around it."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(ACTIVATIONS[activation](), nn.Conv2d(channels, channels, 3, padding=1)),
            *(ACTIVATIONS[activation](), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def _blocks(workload: Workload, channels: int) -> list[nn.Module]:
    """The blocks of one size, and the activation after them."""
    blocks = [Block(channels, workload.activation) for _ in range(workload.blocks)]
    return [*blocks, ACTIVATIONS[workload.activation]()]


def encoder_trunk(workload: Workload) -> nn.Sequential:
    if not workload.channels:
        widths = [*workload.image_shape, *workload.hidden]
        return nn.Sequential(*_dense(widths, workload.activation))
    layers: list[nn.Module] = []
    for i, o in pairwise([workload.image_shape[-1], *workload.channels]):
        layers += [nn.Conv2d(i, o, 3, stride=2, padding=1), *_blocks(workload, o)]
    widths = [math.prod(smallest(workload)), *workload.hidden]
    return nn.Sequential(*layers, nn.Flatten(), *_dense(widths, workload.activation))


def make_decoder(workload: Workload) -> nn.Sequential:
    widths = [workload.latent_dim, *workload.hidden[::-1]]
    layers = _dense(widths, workload.activation)
    if not workload.channels:
        return nn.Sequential(*layers, nn.Linear(widths[-1], *workload.image_shape))
    height, width, last = smallest(workload)
    layers += [nn.Linear(widths[-1], height * width * last), nn.Unflatten(1, (last, height, width))]
    for i, o in pairwise([*workload.channels[::-1], workload.image_shape[-1]]):
        up = nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, output_padding=1)
        layers += [*_blocks(workload, i), up]
    return nn.Sequential(*layers)


def as_pixels(workload: Workload, images: np.ndarray) -> torch.Tensor:
    """uint8 [N, D]; for convolutions [N, C, H, W], in memory still with the channels last."""
    pixels = torch.from_numpy(images.copy()).view(-1, *workload.image_shape)
    return pixels.movedim(-1, 1) if workload.channels else pixels


class TorchVAE(nn.Module):
    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.trunk = encoder_trunk(workload)
        self.mean = nn.Linear(workload.hidden[-1], workload.latent_dim)
        self.log_variance = nn.Linear(workload.hidden[-1], workload.latent_dim)
        self.decoder = make_decoder(workload)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.trunk(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the ELBO, summed over the batch."""
        logits, mean, log_variance = self(x)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return cross_entropy + kl


def linear(layers: nn.Module) -> list[Any]:
    """Kernel [I, O] and bias [O] of each dense layer of a network."""
    found = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    return [(of.weight.detach().cpu().T.numpy(), of.bias.detach().cpu().numpy()) for of in found]


def make_trainer(
    run: Any, workload: Workload, encoder: list[nn.Module], decoder: nn.Module
) -> Trainer:
    def weights() -> dense.Weights:
        return dense.weights([of for part in encoder for of in linear(part)], linear(decoder))

    return Trainer(run, dense.model(workload.activation), weights, workload.image_shape)


def _scheduler(optimizer: Any, workload: Workload) -> Any:
    """The workload's rate at each step; of a constant one nothing is done."""
    if not workload.num_steps:
        return None
    shares = rates(workload) / workload.learning_rate
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: shares[step])


def torch_dataloader(
    workload: Workload, batch_size: int, images: np.ndarray, binarize: str = "afresh", seed: int = 0
) -> Trainer:
    """`pytorch/examples/vae`: a DataLoader over examples, and a loss read back at every step.

    The example's pixels are grey; unless `binarize` is "never" they are drawn from afresh.
    """
    torch.manual_seed(seed)
    grey = as_pixels(workload, images).contiguous().float() / 255
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(grey), batch_size, shuffle=True, drop_last=True
    )
    model = TorchVAE(workload).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate)
    scheduler = _scheduler(optimizer, workload)

    def run() -> float:
        total = 0.0
        for (batch,) in loader:
            x = batch.to(DEVICE)
            if binarize == "afresh":
                x = torch.bernoulli(x)
            optimizer.zero_grad()
            loss = model.loss(x)
            loss.backward()
            total += loss.item()
            optimizer.step()
            if scheduler:
                scheduler.step()
        return total / (len(loader) * batch_size)

    return make_trainer(run, workload, [model.trunk, model.mean, model.log_variance], model.decoder)


def torch_tuned(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    *,
    compiled: bool,
    precision: str = "float32",
    seed: int = 0,
) -> Trainer:
    """Bytes on the device, indexed; fused Adam; no value read before the epoch's end.

    Pictures and kernels of convolutions have their channels last.
    """
    torch.manual_seed(seed)
    data = as_pixels(workload, images).to(DEVICE)
    model = TorchVAE(workload).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=workload.learning_rate, fused=True)
    scheduler = _scheduler(optimizer, workload)
    low = precision == "bfloat16"

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        x = (torch.rand_like(batch, dtype=torch.float32) * 255 < batch).float()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=low):
            return model.loss(x) / batch_size

    if compiled:
        # On a GPU this mode replays CUDA graphs; on a CPU it is the default one.
        loss_of = torch.compile(loss_of, mode="reduce-overhead")

    def run() -> float:
        order = torch.randperm(len(data), device=DEVICE)
        total = torch.zeros((), device=DEVICE)
        steps = len(data) // batch_size
        for i in range(steps):
            optimizer.zero_grad()
            loss = loss_of(data[order[i * batch_size : (i + 1) * batch_size]])
            loss.backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
            total += loss.detach()
        return float(total) / steps

    return make_trainer(run, workload, [model.trunk, model.mean, model.log_variance], model.decoder)


def make_pythae(workload: Workload, binarize: bool = False) -> Any:
    """pythae's own VAE of these widths, with a Bernoulli likelihood."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = encoder_trunk(workload)
            self.mean = nn.Linear(workload.hidden[-1], workload.latent_dim)
            self.log_variance = nn.Linear(workload.hidden[-1], workload.latent_dim)

        def forward(self, x: torch.Tensor) -> ModelOutput:
            hidden = self.trunk(x)
            return ModelOutput(
                embedding=self.mean(hidden), log_covariance=self.log_variance(hidden)
            )

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = make_decoder(workload)

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)))

    logging.disable(logging.INFO)  # its loggers have handlers of their own
    config = VAEConfig(
        input_dim=workload.image_shape,
        latent_dim=workload.latent_dim,
        reconstruction_loss="bce",
    )

    class Binarizing(VAE):
        def forward(self, inputs: Any, **rest: Any) -> ModelOutput:
            return super().forward({"data": torch.bernoulli(inputs["data"])}, **rest)

    return (Binarizing if binarize else VAE)(config, Encoder(), Decoder())


def pythae_trainer(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    binarize: str = "never",
    seed: int = 0,
) -> Trainer:
    """pythae's trainer of its own VAE, with its progress bar and its means of the loss.

    It has no dynamic binarization: its batches are grey, and so are spared that work, unless
    `binarize` is "once", or "afresh" by a model that does it. Its rate changes after a pass.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(seed)
    grey = as_pixels(workload, images).contiguous().float() / 255
    if binarize == "once":
        grey = torch.bernoulli(grey)
    model = make_pythae(workload, binarize == "afresh")
    falling: dict[str, Any] = {}
    if workload.num_steps:
        falling["scheduler_cls"] = "CosineAnnealingLR"
        falling["scheduler_params"] = {
            "T_max": workload.num_steps // (len(images) // batch_size),
            "eta_min": workload.learning_rate / 100,
        }
    trainer = BaseTrainer(
        model,
        BaseDataset(grey, torch.zeros(len(grey))),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch_size,
            learning_rate=workload.learning_rate,
            seed=seed,
            **falling,
        ),
    )
    trainer.prepare_training()
    epoch = 0

    def run() -> float:
        nonlocal epoch
        epoch += 1
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            trainer.callback_handler.on_epoch_begin(
                training_config=trainer.training_config,
                epoch=epoch,
                train_loader=trainer.train_loader,
                eval_loader=None,
            )
            loss = trainer.train_step(epoch)
            trainer._schedulers_step(loss)
        return float(loss)

    encoder, decoder = model.encoder, model.decoder
    parts = [encoder.trunk, encoder.mean, encoder.log_variance]
    return make_trainer(run, workload, parts, decoder.layers)
