"""What draws of a trained run are worth: its prior's against those of mixtures fitted to its codes.

    python -m experiments.mnist --output=runs/mnist
    python -m experiments.samples runs/mnist

A judge, a perceptron trained on real images and on as many that show nothing, says whether it is
sure of each image; precision is the share of the drawn that lies among real ones, recall that of
the real that lies among drawn ones (Kynkäänniemi et al. 2019). docs/pages/method.md has MNIST's
numbers.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import vae_jax
from experiments.tutorial.study import SURE, Study
from vae_jax.run import command, data, folder, measure, options, sampler
from vae_jax.run.commands.generate import check_sampler
from vae_jax.run.errors import UsageError
from vae_jax.run.model import expected
from vae_jax.run.restore import Trained, restore

PROG = "python -m experiments.samples"


@dataclass(frozen=True)
class Options:
    """Compares the draws of a run's prior with those of mixtures fitted to its codes."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of an unconditional run on labelled images in black and white."""
    output: Path = Path("samples.json")
    """The numbers."""
    num: int = 1000
    """Draws of each kind."""
    judge_steps: int = 5000
    """Of the judge's training."""
    data: str | None = None
    """Where the run's own data lie, if they have moved."""
    seed: int = 0
    """Of the draws and of the judge."""


def draws(
    key: jax.Array, trained: Trained, images: np.ndarray, labels: np.ndarray, num: int, seed: int
) -> dict[str, tuple[jax.Array, np.ndarray | None]]:
    """What each sampler draws: E[x|z] [num, H, W, C], and the classes that were asked for.

    Args:
      key: of everything.
      trained: the run.
      images: bytes, whose codes the mixtures are fitted to.
      labels: their classes.
      num: images of each sampler.
      seed: of the mixtures' starts.
    """
    see_key, code_key, prior_key, mixture_key, class_key = jax.random.split(key, 5)
    model, params = trained.model, trained.params
    x = jax.jit(trained.observe)(see_key, images)
    codes = sampler.codes(code_key, model, params, x)
    asked = np.sort(np.arange(num) % trained.num_classes)
    z = jnp.concatenate(
        [
            sampler.fit_mixture(codes[labels == c], seed).sample(
                jax.random.fold_in(class_key, c), (int((asked == c).sum()),)
            )
            for c in np.unique(asked)
        ]
    )
    whole = sampler.fit_mixture(codes, seed).sample(mixture_key, (num,))

    @jax.jit
    def decode(z: jax.Array) -> jax.Array:
        return expected(model.decode(params, z))

    return {
        "prior": (expected(vae_jax.generate(prior_key, model, params, num)), None),
        "mixture": (decode(whole), None),
        "mixture of each class": (decode(z), asked),
    }


def judged(study: Study, images: jax.Array, asked: np.ndarray | None) -> dict[str, float]:
    """The figures of some images; of classes asked for, the share that is surely of its own."""
    probabilities = np.asarray(study.judge(images)[:, :-1])
    sure = probabilities.max(axis=1) >= SURE
    found = {"sure": float(sure.mean()), **study.fidelity(images)}
    if asked is not None:
        right = sure & (probabilities.argmax(axis=1) == asked)
        found["sure_and_as_asked"] = float(right.mean())
    return found


def check(config: dict[str, Any], chosen: Options) -> None:
    """Raises UsageError for a run whose draws are not compared here."""
    options.check_at_least(20, num=chosen.num)
    options.check_at_least(1, judge_steps=chosen.judge_steps)
    options.check_seed(chosen.seed)
    if config["binarization"] != "dynamic" or not config["num_classes"]:
        raise UsageError(
            f"{chosen.run} is of images with {config['num_classes']} classes and "
            f"--binarization={config['binarization']}: name a run of labelled images whose "
            "binarization is dynamic"
        )
    if not chosen.output.absolute().parent.is_dir():
        raise UsageError(f"--output={chosen.output}: make its folder first")


def main() -> None:
    from vae_jax.run.commands import generate

    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    config = folder.read_config(chosen.run)
    check(config, chosen)
    check_sampler(generate.Options(chosen.run, sampler="mixture"), config)
    trained = restore(chosen.run)
    dataset = data.load_of_run(config, options.moved(trained.options.data, chosen.data))
    study = Study(dataset, chosen.seed, chosen.judge_steps)
    images, labels = (np.asarray(a[: sampler.MOST_CODES]) for a in dataset.train)
    of_samplers = draws(study.key("samples"), trained, images, labels, chosen.num, chosen.seed)
    test = jnp.asarray(dataset.test.images[: chosen.num] / np.float32(255), jnp.float32)
    of_samplers["test images"] = test, dataset.test.labels[: chosen.num]
    rows = {name: judged(study, *of) for name, of in of_samplers.items()}
    print(f"{'':24s}{'sure':>8s}{'as asked':>10s}{'precision':>11s}{'recall':>8s}")
    for name, row in rows.items():
        right = row.get("sure_and_as_asked")
        asked = f"{'-':>10s}" if right is None else f"{right:10.1%}"
        print(f"{name:24s}{row['sure']:8.1%}{asked}{row['precision']:11.1%}{row['recall']:8.1%}")
    results = {
        "run": str(chosen.run),
        "dataset": trained.dataset,
        "num": chosen.num,
        "seed": chosen.seed,
        "judge_steps": chosen.judge_steps,
        "protocol": f"sure: the judge gives a class {SURE} or more; as asked: and it is the class "
        "that was asked for; precision and recall of images drawn from E[x|z], among as many "
        "binarised training images, in their principal components, 3 neighbours",
        "samplers": rows,
        "parameters_sha256": measure.sha256(trained.params),
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    folder.write_json(chosen.output, results)
    print(f"numbers: {chosen.output}")


if __name__ == "__main__":
    command.run(main)
