"""What a run on images is made of, once its data are there and its folder is open."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import vae_jax
from vae_jax.run import defaults, folder, keys, latents, objective, options, overwritten
from vae_jax.run.data import conditions
from vae_jax.run.data.dataset import Dataset
from vae_jax.run.model import (
    likelihood_of,
    make_model,
    make_schedule,
    observe,
)
from vae_jax.run.pixels import measure_pixels
from vae_jax.run.survival import StopRequest
from vae_jax.run.together import Replica


class Job(NamedTuple):
    """What a run is made of, once its data are there and its folder is open.

    Attributes:
      chosen: the options, complete.
      dataset: the images.
      mesh: the devices.
      output: the folder.
      config: what config.json holds.
      observe: (key, bytes) -> x.
      model: the VAE.
      keys: of the run, from `keys.of_run`.
      continued_by: the command that goes on with it.
      start: of the process, by time.perf_counter.
      name: among several runs of one command; empty where it is the only one.
      stop: whether they are asked to stop.
      replica: of those whose steps are one program.
    """

    chosen: options.Options
    dataset: Dataset
    mesh: jax.sharding.Mesh
    output: Path
    config: dict[str, Any]
    observe: Any
    model: vae_jax.VAE
    keys: dict[str, jax.Array]
    continued_by: str
    start: float
    name: str = ""
    stop: StopRequest | None = None
    replica: Replica | None = None

    @property
    def resident(self) -> bool:
        """Whether its steps take their examples from data that are there whole."""
        return not self.stream

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.dataset.image_shape

    @property
    def likelihood(self) -> str:
        """Its name."""
        return likelihood_of(self.chosen.model, self.config["binarization"])

    @property
    def stream(self) -> bool:
        return streamed(self.chosen, self.dataset)

    @property
    def prior(self) -> str:
        """Which it is: without labels none is conditional."""
        model = self.chosen.model
        if model.posterior == "power_spherical" and model.prior != "vamp":
            return "uniform"
        unconditional = model.prior == "conditional" and not self.conditional
        return "standard" if unconditional else model.prior

    def example(self) -> jax.Array:
        """Images that parameters are made from: a shape, or where pseudo-inputs start."""
        if self.chosen.model.prior != "vamp":
            return jnp.zeros((1, *self.image_shape))
        num = self.chosen.model.num_components or latents.NUM_COMPONENTS
        images = self.dataset.train.images
        first = np.asarray(images[np.arange(min(num, len(images)))])
        most = 255 if first.dtype == np.uint8 else 1
        return jnp.asarray(first / most, jnp.float32)

    def batch(self, split: str) -> vae_jax.Batch:
        images: Any = getattr(self.dataset, split).images
        labels: Any = self.labels(split)
        return vae_jax.Batch(images, labels)

    @property
    def conditional(self) -> bool:
        """Whether the model is told anything, a class or columns."""
        return self.chosen.model.conditional or bool(self.dataset.conditions)

    def labels(self, split: str) -> np.ndarray | None:
        """Of a split's images, for a model that is conditional on them."""
        if self.dataset.conditions:
            told: np.ndarray = self.dataset.told[split]
            return told
        labels: np.ndarray = getattr(self.dataset, split).labels
        return labels if self.chosen.model.conditional else None


def streamed(chosen: options.Options, dataset: Dataset) -> bool:
    return chosen.devices.stream or jax.process_count() > 1 or dataset.large


def open_job(
    chosen: options.Options,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
    prog: str,
    start: float,
    of_data: dict[str, Any] | None = None,
) -> Job:
    """Opens the folder and builds what the run is made of.

    Args:
      chosen: the options, complete.
      dataset: the images.
      mesh: the devices.
      prog: the command, for the line that goes on with the run.
      start: of the process, by time.perf_counter.
      of_data: from `defaults.described`.
    """
    output, leader = chosen.run.output, jax.process_index() == 0
    if chosen.run.resume and output is not None:
        dataset = dataset._replace(notice=folder.read_config(output)["notice"])
    if leader and chosen.run.resume and output is not None:
        folder.lock(output)
    elif leader:
        output = folder.create(output, _name(dataset), overwrite=chosen.run.overwrite)
    assert output is not None
    binarization = defaults.binarization(chosen, dataset)
    pixels = measure_pixels(dataset.train.images, binarization, missing=dataset.missing)
    config = {
        **folder.stamp(),
        "options": options.to_json(chosen),
        "dataset": dataset.name,
        "notice": dataset.notice,
        "binarization": binarization,
        "image_shape": list(dataset.image_shape),
        "num_classes": dataset.num_classes,
        "classes": list(dataset.names),
        "num_images": dataset.num_images,
        "digest": dataset.digest,
        "pixels": {**pixels._asdict(), "mean": None},
        "defaults": of_data,
        **conditions.stored(dataset.conditions, dataset.told.get("train")),
    }
    if chosen.run.resume:
        stored = folder.read_config(output)
        config["defaults"] = stored.get("defaults")
        _say_longer(chosen.training, stored["options"]["training"]["epochs"], dataset)
        if "pixels" not in stored:  # a run of version 0.1
            for name in "pixels", "digest":
                del config[name]
    if leader and not chosen.run.resume:
        folder.write_json(output / "config.json", config)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the folder is made")
    return Job(
        chosen=chosen,
        dataset=dataset,
        mesh=mesh,
        output=output,
        config=config,
        observe=observe(
            binarization,
            likelihood_of(chosen.model, binarization),
            dequantize="pixels" in config,
        ),
        model=make_model(
            chosen.model,
            dataset.image_shape,
            binarization,
            pixels,
            dataset.num_classes,
            as_before="pixels" not in config,
            told=conditions.num_classes(dataset.conditions),
        ),
        keys=keys.of_run(chosen.training.seed),
        continued_by=f"{prog} --output={output} --resume",
        start=start,
    )


def open_program(chosen: Any, program: str, dataset: Dataset) -> tuple[Path, dict[str, Any]]:
    """Opens the folder of a program that is no run to resume, and says what is about to be done.

    Args:
      chosen: its options, a dataclass with `output` and `overwrite`.
      program: its name, which a folder that is not asked for begins with.
      dataset: what it is about.

    Returns:
      The folder, and the options as JSON values, which its config.json holds.
    """
    name = f"{program}-{_name(dataset)}"
    output = folder.create(chosen.output, name, overwrite=chosen.overwrite)
    overwritten.gone(output)
    plain = plain_options(chosen)
    folder.write_json(output / "config.json", plain)
    if dataset.notice:
        print(_notice(dataset))
    for note in dataset.notes:
        print(f"note: {note}")
    print(f"results: {output}   device: {jax.devices()[0].device_kind}")
    return output, plain


def plain_options(chosen: Any) -> dict[str, Any]:
    """A program's options, a dataclass, as JSON values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(chosen).items()}


def _name(dataset: Dataset) -> str:
    return f"{dataset.name}-instead-of-mnist" if dataset.notice else dataset.name


def _notice(dataset: Dataset) -> str:
    return f"\n*** {dataset.notice} ***\n"


def _say_longer(training: options.Training, before: int, dataset: Dataset) -> None:
    """Says what a resumed run's other length does to the learning rate, if it has one."""
    assert training.epochs is not None
    assert training.batch_size is not None
    if training.epochs == before:
        return
    steps = len(dataset.train.images) // training.batch_size
    then, now = (
        np.asarray(make_schedule(training, of * steps)(min(before, training.epochs) * steps)).item()
        for of in (before, training.epochs)
    )
    print(
        f"--epochs is {training.epochs} where the run had {before}: the learning rate at the end "
        f"of epoch {min(before, training.epochs)} becomes {now:.1e}, which was to be {then:.1e}"
    )


def announced(job: Job) -> list[str]:
    """What is about to run, in lines."""
    dataset, binarization = job.dataset, job.config["binarization"]
    said = [_notice(dataset)] if dataset.notice else []
    sizes = "{:,} training, {:,} validation, {:,} test images".format(
        *(len(split.images) for split in (dataset.train, dataset.validation, dataset.test))
    )
    said.append(
        f"{dataset.name}: {sizes}, {dataset.source}; binarization: {binarization}; likelihood: "
        f"{job.likelihood}"
    )
    if dataset.names:
        more = f", ... ({len(dataset.names)} in all)" if len(dataset.names) > 20 else ""
        said.append(f"classes: {', '.join(dataset.names[:20])}{more}")
    if (of_data := job.config["defaults"]) is not None:
        said.append(defaults.announced(of_data))
    said += [f"note: {note}" for note in dataset.notes]
    if aim := objective.described(job.chosen.objective):
        said.append(aim)
    number = f"{job.mesh.size} " if job.mesh.size > 1 else ""
    streamed = ", data streamed" if job.stream else ""
    where = f"device: {number}{jax.devices()[0].device_kind}{streamed}"
    return [*said, f"results: {job.output}   {where}"]
