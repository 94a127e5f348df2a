"""The introduction to variational autoencoders, run: one page, its figures and its numbers."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vae_jax.run import command, devices, folder, options
from vae_jax.run.errors import UsageError

PROG = "python -m experiments.tutorial"
CHAPTERS = (
    "autoencoder",
    "latent",
    "attributes",
    "probability",
    "divergence",
    "bound",
    "likelihood",
    "loss_cases",
    "gradient",
    "optimisation",
    "conditional",
    "conditional_bound",
    "program",
)


@dataclass(frozen=True)
class Options:
    """Runs the tutorial, or the named chapters of it, and writes tutorial.html, tutorial.json and
    each figure as PNG."""

    chapters: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help=f"Any of {', '.join(CHAPTERS)}; all when none is given."),
    ] = ()
    dataset: Literal["auto", "digits", "mnist"] = "auto"
    """MNIST, or scikit-learn's bundled 8x8 digits, whose pictures are coarse; auto is MNIST where
    that can be had within seconds. Both take minutes on a CPU."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data; its own default and TFDS_DATA_DIR hold."""
    manual_dir: Path | None = None
    """A folder with the original files of MNIST, for a machine without a network."""
    steps: int = 3000
    """Of the optimizer, for each model that is trained."""
    seed: int = 0
    """Of the parameters, the order of the data and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/tutorial-DATASET-TIME when not given."""


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    for name in chosen.chapters:
        if name not in CHAPTERS:
            raise UsageError(f"no chapter {name!r}: choose from {', '.join(CHAPTERS)}")
    options.check_seed(chosen.seed)
    if chosen.steps < 10 or chosen.steps % 10:
        raise UsageError(f"--steps is {chosen.steps}: it must be a multiple of 10")
    folder.check_writable(chosen.output)
    devices.use_accelerator(chosen.accelerator)
    devices.use_compilation_cache()
    run(chosen)


def run(chosen: Options) -> None:
    import jax
    from tqdm import tqdm

    from experiments.tutorial import drawing, page
    from experiments.tutorial.study import Study
    from vae_jax.run import measure
    from vae_jax.run.data import named

    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    if dataset.notice:
        print(dataset.notice, file=sys.stderr)
    output = folder.create(chosen.output, f"tutorial-{dataset.name}", overwrite=False)
    study = Study(dataset, chosen.seed, chosen.steps)
    # A name given twice is one chapter; they come in the order of the book.
    names = [name for name in CHAPTERS if name in chosen.chapters or not chosen.chapters]
    chapters = {}
    with tqdm(names, unit="chapter", disable=None) as bar, drawing.style():
        for name in bar:
            bar.set_description(name)
            chapters[name] = importlib.import_module(f"experiments.tutorial.{name}").run(study)
            for figure, content in chapters[name].figures.items():
                (output / f"{name}_{figure}.png").write_bytes(content.png)
    protocol: dict[str, Any] = {
        "dataset": dataset.name,
        "source": dataset.source,
        "num_train": len(dataset.train.images),
        "num_test": len(study.x),
        "binarization": "dynamic",
        "steps": chosen.steps,
        "seed": chosen.seed,
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
    }
    numbers = {
        name: {**chapter.numbers, "seconds": dict(chapter.seconds)}
        for name, chapter in chapters.items()
    }
    folder.write_json(output / "tutorial.json", {"protocol": protocol, **numbers})
    facts = (
        f"Made by {PROG} from {dataset.name}: {protocol['num_train']} training and "
        f"{protocol['num_test']} test images, {chosen.steps} steps for each model, seed "
        f"{chosen.seed}, {protocol['device']}, "
        + ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())
    )
    with folder.writing(output):
        (output / "tutorial.html").write_text(page.render(chapters, facts, CHAPTERS))
    print(f"page: {output / 'tutorial.html'}")


if __name__ == "__main__":
    command.run(main)
