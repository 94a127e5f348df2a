"""A trained model back from the folder of its run."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax
from vae_jax import checkpoint
from vae_jax.run import devices, folder, published
from vae_jax.run.data import conditions
from vae_jax.run.model import (
    Observe,
    likelihood_of,
    make_model,
    make_optimizer,
    observe,
)
from vae_jax.run.options import Options, from_json
from vae_jax.run.pixels import Pixels


class Trained(NamedTuple):
    """What a run left: its model and parameters, and what it was trained on."""

    model: vae_jax.VAE
    observe: Observe
    params: Any
    step: int
    options: Options
    dataset: str
    binarization: str
    classes: list[str]
    config: dict[str, Any]

    @property
    def likelihood(self) -> str:
        """Its name."""
        return likelihood_of(self.options.model, self.binarization)

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def restore(run: Path) -> Trained:
    """The newest checkpoint of a run.

    Raises:
      UsageError: the folder holds no run.
      RunError: its checkpoint is of other data.
      CheckpointError: it holds no checkpoint, or one of another model than its config.json says.
    """
    if published.is_one(run):
        with published.reading(run):
            config = folder.read_config(run)
            model, options = _model(config)
            params = published.parameters(run, lambda: _init(model, options, config))
            return _trained(model, options, params, config["step"], config)
    config = folder.read_config(run)
    model, options = _model(config)
    optimizer = make_optimizer(options.training, total_steps=1)

    def fresh() -> vae_jax.TrainState:
        average = options.training.average_decay > 0
        key = jax.random.key(0)
        return vae_jax.init_state(key, _init(model, options, config), optimizer, average=average)

    # A run that is under way can be looked at.
    with checkpoint.manager(run / "checkpoints", read_only=True) as checkpoints:
        state = checkpoint.restore(checkpoints, jax.eval_shape(fresh))
        written = checkpoint.restore_config(checkpoints, int(state.step))
        folder.check_checkpoint(run, int(state.step), written, config)
        best = checkpoint.restore_best(checkpoints, int(state.step), state.params)
    params = state.params if state.average is None else state.average
    params = params if best is None else jax.device_put(best)
    return _trained(model, options, params, int(state.step), config)


def _model(config: dict[str, Any]) -> tuple[vae_jax.VAE, Options]:
    options = from_json(config["options"])
    devices.use_compilation_cache()
    image_shape = tuple(config["image_shape"])
    # The mean only initialises the output bias, which the checkpoint replaces.
    of_data = config.get("pixels") or {"residual": 1.0, "centre": 0.0, "spread": 1.0}
    pixels = Pixels(**{**of_data, "mean": np.full(image_shape, 0.5, np.float32)})
    told = conditions.num_classes(conditions.of_run(config))
    model = make_model(
        options.model,
        image_shape,
        config["binarization"],
        pixels,
        config["num_classes"],
        as_before="pixels" not in config,
        told=told,
    )
    return model, options


def _init(model: vae_jax.VAE, options: Options, config: dict[str, Any]) -> Any:
    label: Any = jnp.zeros(1, jnp.int32) if options.model.conditional else None
    if told := conditions.num_classes(conditions.of_run(config)):
        label = jnp.zeros((1, len(told)))
    return model.init(jax.random.key(0), jnp.zeros((1, *config["image_shape"])), label)


def _trained(
    model: vae_jax.VAE, options: Options, params: Any, step: int, config: dict[str, Any]
) -> Trained:
    return Trained(
        model,
        observe(
            config["binarization"],
            likelihood_of(options.model, config["binarization"]),
            dequantize="pixels" in config,
        ),
        params,
        int(step),
        options,
        config["dataset"],
        config["binarization"],
        folder.classes(config),
        config,
    )
