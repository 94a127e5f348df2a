"""log p(x), or log p(x|c), of a trained run's test set, with as many draws as asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, folder, kinds, options


@dataclass(frozen=True)
class Options:
    """Measures a trained run on its test set again; writes evaluation.json beside its results.

    Of a model of the hub it is written where one is.

    Of labelled images also what the run draws is worth: a classifier is trained on the run's
    training set, and in its last hidden layer drawn images stand beside the test set's, by their
    Fréchet distance, precision and recall. Beside them is what as many validation images have. The
    run's card and `compare` show them too.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or hf:ORG/NAME."""
    num_samples: int = 5000
    """Importance samples for each test image, row or cell."""
    data: str | None = None
    """Where the run's own data lie, if they have moved."""
    num_generated: int = 5000
    """Images to draw and judge, at most as many as the test and the validation set have; 0 for
    none. Of other data than labelled images none are."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_at_least(0, num_generated=chosen.num_generated)
    options.check_seed(chosen.seed)
    if kinds.of_run(folder.read_stamped(chosen.run)) is not None:
        from vae_jax.run import learn  # after the options, as it brings JAX

        learn.evaluate(chosen.run, chosen.data, chosen.num_samples, chosen.seed)
        return
    folder.read_config(chosen.run)
    measure_again(chosen)


def measure_again(chosen: Options) -> None:
    """Writes evaluation.json and prints the summary."""
    import jax
    import jax.numpy as jnp

    from vae_jax.run import card, conditional, data, generated, keys, loaded, measure
    from vae_jax.run.model import num_levels
    from vae_jax.run.restore import restore

    trained = restore(chosen.run)
    where = options.moved(trained.options.data, chosen.data)
    dataset = data.load_of_run(trained.config, where)
    label = None
    if trained.options.model.conditional:
        dataset = conditional.labelled(dataset)
        label = jnp.asarray(dataset.test.labels)
    elif dataset.conditions:
        label = jnp.asarray(dataset.told["test"])
    x = measure.observed(trained.observe, dataset.test.images, "test")
    key = keys.of_run(chosen.seed)["evaluate again"]
    test = measure.measure(key, trained.model, trained.params, x, label, chosen.num_samples)
    levels = num_levels(trained.likelihood)
    test = measure.compared(test, trained.config, dataset.test.images, levels)
    results = {
        "dataset": trained.dataset,
        "binarization": trained.binarization,
        "likelihood": trained.likelihood,
        "conditional": label is not None,
        "num_test": len(x),
        "seed": chosen.seed,
        "step": trained.step,
        "data_digest": dataset.digest,
        **measure.reported(test),
        "parameters_sha256": measure.sha256(trained.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    print(measure.summary(results))
    samples: dict[str, Any] = {}
    if chosen.num_generated:
        run = loaded.TrainedRun(trained, None)
        samples = generated.measure(run, dataset, chosen.num_generated, chosen.seed)
    path = folder.beside(chosen.run, "evaluation.json")
    folder.write_json(path, {**results, **samples})
    for line in generated.lines(samples):
        print(line)
    of_run = loaded.results_of(chosen.run) or {}
    same = of_run.get("parameters_sha256") == results["parameters_sha256"]
    if same and path.parent == chosen.run:
        card.write(chosen.run, trained.config, {**of_run, **samples})
    print(f"numbers: {path}")
