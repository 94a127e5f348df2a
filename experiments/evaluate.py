"""log p(x), or log p(x|c), of a trained run's test set, with as many draws as asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

from experiments import command, conditional, folder, measure, options, own
from experiments.model import observe
from experiments.restore import restore


@dataclass(frozen=True)
class Options:
    """Measures a trained run on its test set again; writes evaluation.json beside its results."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder that experiments.mnist wrote."""
    num_samples: int = 5000
    """Importance samples for each test image."""
    seed: int = 0
    """Of the draws."""


def main() -> None:
    chosen = command.parse(Options, prog="python -m experiments.evaluate")
    if chosen.num_samples < 2:
        raise options.UsageError(f"--num-samples is {chosen.num_samples}: it must be 2 or more")
    options.check_seed(chosen.seed)
    trained = restore(chosen.run)
    dataset = own.load(trained.options.data)
    label = None
    if trained.options.model.conditional:
        dataset = conditional.labelled(dataset)
        label = jnp.asarray(dataset.test.labels)
    x = measure.observed(observe(trained.binarization), dataset.test.images, "test")
    key = jax.random.key(chosen.seed)
    test = measure.measure(key, trained.model, trained.params, x, label, chosen.num_samples)
    results = {
        "dataset": trained.dataset,
        "binarization": trained.binarization,
        "conditional": trained.options.model.conditional,
        "num_test": len(x),
        "seed": chosen.seed,
        "step": trained.step,
        **measure.reported(test),
        "parameters_sha256": measure.sha256(trained.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    folder.write_json(chosen.run / "evaluation.json", results)
    print(measure.summary(results))
    print(f"numbers: {chosen.run / 'evaluation.json'}")


if __name__ == "__main__":
    command.run(main)
