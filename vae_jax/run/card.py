"""The card of a trained model: README.md in the folder of its run, from its config and results."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vae_jax.run import folder, kinds
from vae_jax.run.data import conditions

NAME = "README.md"
_OWN = "<!-- Written by vae_jax. Without this line a later run of it leaves the file as it is. -->"
PICTURES = {
    "samples.png": "Draws from the prior",
    "samples_by_class.png": "Draws of each class, a row a class",
    "reconstructions.png": "Test images above their reconstructions",
    "style_transfer.png": "A test image of each class, in the style that it has, as every class",
    "marginals.png": "Each column's values in test rows and in generated ones",
    "genes.png": "Each gene's mean and share of zeros in test cells and in generated ones",
    "sequences.png": "Test sequences beside generated ones",
    "latent.png": "Codes of the test set",
    "curves.png": "Training and validation",
}


def write(run: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Writes the card, unless its owner has made another of it.

    Args:
      run: the folder.
      config: what its config.json says.
      results: what its results.json says.

    Raises:
      RunError: it cannot be written.
    """
    path = run / NAME
    with folder.writing(path):
        if path.exists() and _OWN not in path.read_text("utf-8", errors="replace"):
            return
    folder.write_bytes(path, text(run, config, results).encode())


def text(run: Path, config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The card: front matter as model hubs read it, and Markdown."""
    kind = kinds.of_run(config)
    noun = "images" if kind is None else kind.noun
    version = results["versions"]["vae_jax"]
    pictures = [f"![{what}]({name})" for name, what in PICTURES.items() if (run / name).is_file()]
    sections = [
        f"---\nlicense: unknown\nlibrary_name: vae_jax\ntags:\n- variational-autoencoder\n- jax\n"
        f"---\n{_OWN}",
        f"# {_plain(run.resolve().name)}",
        f"A variational autoencoder of {noun}, by vae_jax {version}. The licence is not stated: "
        "its owner names it above, under `license`, in mind of that of the data.",
        "## What it was trained on",
        _table(_of_data(config, results, noun)),
        *(f"Note: {_plain(note)}." for note in results.get("notes", ())),
        "## What it is, and how it was trained",
        _table(_of_model(config, results)),
        "## What it is worth",
        f"In nats, higher is better, on the {results['num_test']:,} {noun} of the test set, which "
        "chose nothing. log p(x) is estimated by importance sampling, from below on average; its "
        "first error is over the test set, its second that of the draws.",
        _table(_of_results(results)),
        *(f"Warning: {_plain(warning)}." for warning in results.get("warnings", ())),
        *pictures,
        "## How to use it",
        "With this folder and `vae_jax` (`pip install vae_jax`); nothing else is read:",
        _usage(noun, config, results),
    ]
    return "\n\n".join(sections) + "\n"


def _of_data(
    config: Mapping[str, Any], results: Mapping[str, Any], noun: str
) -> Iterator[tuple[str, Any]]:
    yield "data", results["dataset"]
    sizes = (f"{results[f'num_{split}']:,}" for split in ("train", "validation", "test"))
    yield f"{noun} of training, validation, test", ", ".join(sizes)
    if "image_shape" in config:
        yield "height, width, channels", " x ".join(map(str, config["image_shape"]))
        yield (
            "pixels",
            {"none": "as they are"}.get(
                config["binarization"], f"zeros and ones: {config['binarization']}"
            ),
        )
    if names := results.get("classes"):
        yield "classes", ", ".join(names[:20]) + f", ... ({len(names):,})" * (len(names) > 20)
    if isinstance(columns := results.get("columns"), dict):
        shown = [f"{name} ({kind})" for name, kind in list(columns.items())[:40]]
        yield "columns", ", ".join(shown) + f", ... ({len(columns):,})" * (len(columns) > 40)
    yield "digest of the data", results["data_digest"]


def _of_model(config: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    chosen = config["options"]
    model, training = chosen["model"], chosen["training"]
    for name in "network", "latents", "likelihood", "posterior", "prior":
        value = results.get(name, model.get(name))
        if value is not None:
            yield name, value
    yield "latent dimensions", results["latent_dim"]
    if model.get("hidden"):
        yield "widths of hidden layers", ", ".join(map(str, model["hidden"]))
    if model.get("channels"):
        yield "channels", ", ".join(map(str, model["channels"]))
    if results.get("conditional"):
        yield (
            "given",
            f"{', '.join(conditions.example_of(config)) or 'the class'}, so that it is p(x|c)",
        )
    if "objective" in results:
        plain = results["beta"] == 1 and results["penalty"] == "none" and not results["free_bits"]
        beside = f", beta {results['beta']:g}, free bits {results['free_bits']:g}, penalty "
        by = f", {results['gradient']} gradient" if "gradient" in results else ""
        yield (
            "objective",
            results["objective"] + by + ("" if plain else beside + results["penalty"]),
        )
    by = f"{training['optimizer']}, " if "optimizer" in training else ""
    yield (
        "training",
        f"{results['epochs']} epochs in batches of {training['batch_size']}, {by}learning rate "
        f"{training['learning_rate']:g}, seed {results['seed']}",
    )
    yield "time", f"{results['train_seconds'] / 60:.1f} minutes on {results['device']}"
    yield "versions", ", ".join(f"{name} {of}" for name, of in results["versions"].items())


def _of_results(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    def known(name: str) -> float | None:
        value = results.get(name)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    over = "images" if "test_elbo_standard_error_over_images" in results else "examples"
    title = "log p(x\\|c)" if results.get("conditional") else "log p(x)"
    for name, shown in ("test_log_likelihood", title), ("test_elbo", "ELBO"):
        if (value := known(name)) is not None:
            said = f"{value:.2f}"
            if (error := known(f"{name}_standard_error_over_{over}")) is not None:
                said += f" +- {error:.2f}"
            if (error := known(f"{name}_standard_error")) is not None:
                said += f" +- {error:.3f}, {results['num_importance_samples']} draws"
            yield shown, said
    if (bits := known("test_bits_per_dimension")) is not None:
        yield "bits per dimension", f"{bits:.3f}"
    if (value := known("test_kl")) is not None:
        yield "KL", f"{value:.2f}"
    yield "latents that are used", f"{results['active_units']} of {results['latent_dim']}"
    if (accuracy := known("conditional_bayes_accuracy")) is not None:
        yield "accuracy of Bayes' rule", f"{accuracy:.1%}"
    for name, shown in _OF_SAMPLES.items():
        if (value := known(name)) is not None:
            yield shown, f"{value:.3g}; of validation images {known(f'{name}_of_validation'):.3g}"
    yield "parameters, SHA-256", results["parameters_sha256"]


_OF_SAMPLES = {
    "samples_frechet_distance": "squared Fréchet distance of drawn images from test images, in the "
    "features of a perceptron trained on these data",
    "samples_precision": "precision of drawn images, likewise",
    "samples_recall": "recall of drawn images, likewise",
}


def _table(rows: Iterator[tuple[str, Any]]) -> str:
    """Without a head; what stands in it is no markup."""
    lines = [f"| {name} | {_plain(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _plain(value: Any) -> str:
    """Text that Markdown takes for text, in a line."""
    text = " ".join(str(value).split())
    for sign in "\\`*_{}[]<>#|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _usage(noun: str, config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    asked = label = ""
    if told := conditions.example_of(config):
        asked = f", {'label' if noun == 'images' else 'condition'}={told!r}"
        label = asked if noun == "images" else ""  # rows and cells have their own
    elif results.get("conditional"):
        asked = label = f", label={folder.classes(dict(config))[0]!r}"
    given = "|c" if results.get("conditional") else ""
    lines = [
        "```py",
        "from vae_jax import run",
        "",
        'trained = run.load("path/of/this/folder")',
        f"made = trained.generate(8{asked})",
        f"codes = trained.encode({noun}{label})",
        f"scores = trained.score({noun}{label})  # log p(x{given}), with its standard error",
        "```",
    ]
    return "\n".join(lines)
