"""Images from a trained run: draws from the prior, of a class, or test images in another class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vae_jax.run import command, folder, kinds, options, output
from vae_jax.run.data import conditions
from vae_jax.run.errors import UsageError

if TYPE_CHECKING:
    from vae_jax.run.restore import Trained


@dataclass(frozen=True)
class Options:
    """Draws images from a trained run and writes them as one picture, as files, or as an array.

    A picture, such as .png, is a grid. A folder gets a PNG file for each image, 00000.png and so
    on, as measures of samples read them; a .npz file bytes `images` [N, H, W, C], and `label` of a
    conditional run; a .npy file the bytes alone. These are drawn batch by batch, each by a key of
    its own: the first of many are those of few. A run on a table, counts or sequences has other
    options: generate RUN --help.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or hf:ORG/NAME."""
    num: int | None = None
    """How many images; with --label=all, how many of each class. 64, and 16, when not given."""
    label: str | None = None
    """Of a conditional run: the class to draw, or all for a row of each class, in which a column
    is a style; where a class is called all, it is that class."""
    condition: str | None = None
    """NAME=VALUE or NAME=VALUE,NAME=VALUE, of a run with a --condition; what is not given is as it
    was in training."""
    reconstruct_as: str | None = None
    """Of a conditional run: take test images, evenly spaced, and change their class to this one, in
    the style that they have; each stands above its change."""
    sampler: Literal["prior", "mixture"] = "prior"
    """Where the codes of new images are drawn from: the model's prior, or a mixture of up to ten
    Gaussians, fitted to the codes of the run's own training images, up to 10,000, which it reads
    again. Draws of N(0, I) may fall where no code lies; those of the mixture do not."""
    temperature: float = 1.0
    """What the standard deviation of codes is multiplied by: below 1 images are more alike and less
    odd. Of a mixture it is that of each part, of a flow that of what it bends."""
    output: Path = Path("grid.png")
    """A picture, PNG or what else its name's ending says; a new folder, or a .npz or .npy file."""
    data: str | None = None
    """With --reconstruct-as or --sampler=mixture: where the run's own data lie, if they have
    moved."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True)
class ExampleOptions:
    """Draws rows of a table, cells or sequences from a run on such, and writes them as one file."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or hf:ORG/NAME."""
    num: int | None = None
    """How many; as many as the run's data have when not given."""
    condition: str | None = None
    """NAME=VALUE or NAME=VALUE,NAME=VALUE, of a run with a --condition; what is not given is as it
    was in training."""
    output: Path | None = None
    """A table with the columns of the run's, .csv, .parquet or .feather; synthetic.csv when not
    given. Of counts .h5ad, .npz, .mtx or .mtx.gz, with the genes of the run's; cells.h5ad. Of
    sequences .jsonl; sequences.jsonl."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    if (kind := folder.kind_among(arguments)) is not None:
        generate_examples(kind, command.parse(ExampleOptions, arguments, prog=prog))
        return
    chosen = command.parse(Options, arguments, prog=prog)
    options.check_at_least(1, num=1 if chosen.num is None else chosen.num)
    output.check_pictures(chosen.output)
    config = folder.read_config(chosen.run)
    check_sampler(chosen, config)
    check_label(chosen, config)
    check_temperature(chosen, config)
    options.check_seed(chosen.seed)
    every = chosen.label == "all" and "all" not in folder.classes(config)
    if chosen.label == "all" and not every:
        print("note: --label=all is the class of that name; samples_by_class.png has every class")
    num = (16 if every else 64) if chosen.num is None else chosen.num

    from vae_jax.run.restore import restore  # after the options, as it brings JAX

    trained = restore(chosen.run)
    if not output.is_picture(chosen.output):
        draw_files(chosen, num, trained, every=every)
        return
    picture = draw(chosen, num, trained, every=every)
    folder.save_picture(picture, chosen.output)
    print(f"picture: {chosen.output}")


def generate_examples(kind: kinds.Kind, chosen: ExampleOptions) -> None:
    """Writes examples from a run on data that are no images."""
    options.check_at_least(1, num=1 if chosen.num is None else chosen.num)
    options.check_seed(chosen.seed)
    path = Path(kind.output) if chosen.output is None else chosen.output
    folder.check_output(path, kind)
    config = folder.read_config_of(kind, chosen.run)
    asked = conditions.values(chosen.condition)
    num = config[f"num_{kind.noun}"] if chosen.num is None else chosen.num

    from vae_jax.run import examples, keys  # after the options, as it brings JAX

    key, trained = keys.of_run(chosen.seed)["generate"], examples.restore(chosen.run)
    made, notes = examples.generate(key, trained, num, asked, chosen.seed)
    kind.parts.write(made, path)
    for note in notes:
        print(f"note: {note}")
    print(f"{kind.noun}: {path}, {num:,}")


def draw(chosen: Options, num: int, trained: "Trained", *, every: bool) -> Any:
    """The picture that the options ask for; of `every` class a row of `num`."""
    import jax.numpy as jnp

    import vae_jax
    from vae_jax.run import conditional, figures, keys
    from vae_jax.run.model import expected

    key, params = keys.of_run(chosen.seed)["generate"], trained.params
    model = with_prior(chosen, trained)
    if chosen.reconstruct_as is not None:
        return reconstructed_as(chosen, num, trained)
    if every:
        images = conditional.by_class(key, model, params, trained.num_classes, num)
        return figures.grid(images, num)
    label: Any = None if chosen.label is None else jnp.int32(trained.classes.index(chosen.label))
    if (told := drawn_conditions(chosen, num, trained)) is not None:
        label = jnp.asarray(told)
    likelihood = vae_jax.generate(key, model, params, num if told is None else (), label)
    return figures.grid(expected(likelihood), min(num, round(num**0.5)))


def drawn_conditions(chosen: Options, num: int, trained: "Trained") -> Any:
    """What each image is of, [num, C]; None of a run without conditions."""
    asked = conditions.values(chosen.condition)
    told, notes = conditions.drawn(trained.config, num, asked, chosen.seed)
    for note in notes:
        print(f"note: {note}")
    return told


def draw_files(chosen: Options, num: int, trained: "Trained", *, every: bool) -> None:
    """Writes the images that the options ask for as files or an array; of `every` class `num`."""
    import numpy as np

    from vae_jax.run.loaded import TrainedRun

    run = TrainedRun(trained._replace(model=with_prior(chosen, trained)), None)
    label: Any = chosen.label
    if every:
        label, num = np.repeat(trained.classes, num).tolist(), num * len(trained.classes)
    columns = {} if label is None else {"label": np.broadcast_to(np.array(label), num)}
    if (told := drawn_conditions(chosen, num, trained)) is not None:
        label, of_run = told, conditions.of_run(trained.config)
        frame = conditions.frame_of(told, of_run)
        columns = {name: np.array(frame[name].tolist()) for name in frame}  # no objects
    shape = (num, *run.image_shape)
    with output.pictures(chosen.output, shape, columns=columns) as out:
        run.generate(num, label, seed=chosen.seed, out=out, progress=True)
    print(f"images: {chosen.output}, {num:,}")


def with_prior(chosen: Options, trained: "Trained") -> Any:
    """The run's model with the prior that the options draw from."""
    from vae_jax.run import sampler

    model = trained.model
    if chosen.sampler == "mixture":
        model = with_fitted_prior(chosen, trained)
    return model if chosen.temperature == 1 else sampler.tempered(model, chosen.temperature)


def with_fitted_prior(chosen: Options, trained: "Trained") -> Any:
    """The run's model with a mixture fitted to the codes of its training images for a prior."""
    import jax
    import numpy as np

    from vae_jax.run import data, sampler

    where = options.moved(trained.options.data, chosen.data)
    images: Any = data.load_of_run(trained.config, where).train.images
    images = images[np.arange(min(sampler.MOST_CODES, len(images)))]
    see_key, code_key = jax.random.split(jax.random.fold_in(jax.random.key(chosen.seed), 1))
    x = jax.jit(trained.observe)(see_key, images)
    return sampler.with_fitted_prior(code_key, trained.model, trained.params, x, chosen.seed)


def check_sampler(chosen: Options, config: dict[str, Any]) -> None:
    """Raises UsageError for a run whose codes no mixture of Gaussians is fitted to."""
    if chosen.sampler == "prior":
        return
    model = config["options"]["model"]
    if model.get("conditional") or conditions.of_run(config):
        raise UsageError(
            f"--sampler={chosen.sampler} knows no classes but {chosen.run} is a conditional run: "
            "leave it out"
        )
    if model.get("network") in options.HIERARCHIES:
        raise UsageError(
            f"--sampler={chosen.sampler} is of one layer of latents but {chosen.run} has several: "
            "leave it out"
        )
    if model.get("posterior") == "power_spherical":
        raise UsageError(
            f"--sampler={chosen.sampler} is of all vectors but the codes of {chosen.run} are unit "
            "ones: leave it out"
        )


def check_temperature(chosen: Options, config: dict[str, Any]) -> None:
    """Raises UsageError for a temperature that is none, or of what has no standard deviation."""
    if not 0 < chosen.temperature < math.inf:
        raise UsageError(f"--temperature is {chosen.temperature}: it must be positive, and finite")
    if chosen.temperature == 1:
        return
    if chosen.reconstruct_as is not None:
        raise UsageError(
            f"--temperature is of draws and --reconstruct-as={chosen.reconstruct_as} draws no "
            "codes: leave it out"
        )
    if config["options"]["model"].get("posterior") == "power_spherical":
        raise UsageError(
            f"--temperature is {chosen.temperature} but the codes of {chosen.run} are unit "
            "vectors, which have none: leave it out"
        )


def check_label(chosen: Options, config: dict[str, Any]) -> None:
    """Raises UsageError for a label that the run cannot use, before anything is compiled."""
    asked = {"--label": chosen.label, "--reconstruct-as": chosen.reconstruct_as}
    given = {option: label for option, label in asked.items() if label is not None}
    names = folder.classes(config)
    classes = f"one of the classes {', '.join(names[:20])}{', ...' * (len(names) > 20)}"
    if columns := conditions.of_run(config):
        told = ", ".join(column.name for column in columns)
        for option, label in given.items():
            raise UsageError(
                f"{option} is {label} but {chosen.run} is conditional on {told}: ask for these by "
                "--condition=NAME=VALUE"
            )
        return
    if chosen.condition is not None:
        raise UsageError(
            f"--condition is {chosen.condition} but {chosen.run} was trained without --condition: "
            "leave it out"
        )
    if not config["options"]["model"].get("conditional"):
        for option, label in given.items():
            raise UsageError(
                f"{option} is {label} but {chosen.run} is an unconditional run: leave it out, or "
                "train one with --conditional"
            )
    elif not given:
        raise UsageError(
            f"{chosen.run} is a conditional run: give --label or --reconstruct-as, {classes}, or "
            "--label=all"
        )
    if chosen.reconstruct_as is not None and not output.is_picture(chosen.output):
        raise UsageError(
            f"--reconstruct-as makes one picture but --output is {chosen.output}: name it, say, "
            "grid.png"
        )
    if len(given) == 2:
        raise UsageError(
            "--label draws new images and --reconstruct-as changes those of the test set: give one "
            "of them"
        )
    for option, label in given.items():
        if label not in names and (option, label) != ("--label", "all"):
            also = ", or all" if option == "--label" else ""
            raise UsageError(f"{option} is {label}: give {classes}{also}")


def reconstructed_as(chosen: Options, num: int, trained: "Trained") -> Any:
    """Test images, evenly spaced, each above itself as another class."""
    import jax.numpy as jnp

    import vae_jax
    from vae_jax.run import classifier, conditional, data, figures, measure
    from vae_jax.run.data.dataset import spread
    from vae_jax.run.model import expected

    assert chosen.reconstruct_as is not None
    where = options.moved(trained.options.data, chosen.data)
    dataset = conditional.labelled(data.load_of_run(trained.config, where))
    rows = spread(len(dataset.test.images), num)
    # All are binarised, so that each is as the run's results have it.
    x = measure.observed(trained.observe, dataset.test.images, "test")[rows]
    label_now = jnp.asarray(dataset.test.labels[rows])
    likelihood = vae_jax.transfer(
        trained.model,
        trained.params,
        x,
        label_now,
        jnp.full_like(label_now, trained.classes.index(chosen.reconstruct_as)),
    )
    names = ("test", f"as {chosen.reconstruct_as[:20]}")
    return figures.reconstructions(classifier.unit(x), expected(likelihood), names)
