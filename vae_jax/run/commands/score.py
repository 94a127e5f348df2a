"""How likely images or rows are to a trained run, and which of them are odd."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.run import command, folder, kinds, options, output
from vae_jax.run.data import examples
from vae_jax.run.data.dataset import spread
from vae_jax.run.errors import DataError

_ODDEST = 100
_ERRORS = 4.0  # which one set in 16,000 is beyond by chance


@dataclass(frozen=True)
class Options:
    """Scores images by a trained run: how likely each is, and how usual, in a file.

    The columns are `log_likelihood`, log p(x) by importance sampling, its `standard_error`, the
    `elbo` and its `reconstruction`, log p(x|z), all in nats, `effective_sample_size` and `pareto_k`
    of the draws, before them `row`, `name` and `label` as of embed, and after them:

    `typicality`, |log p(x) - m|, m the mean of the run's validation set, and `p_value`, the share
    of that set which is as far from m or farther (Nalisnick et al. 2019, of one image at a time).
    Plain images can be more likely to a model than those that it was trained on, and are far from m
    then. But one image may be as likely as usual and odd nevertheless: how far the mean of all is
    from m, in standard errors, is printed too. The hundred farthest from m are drawn beside the
    file. A run on a table, counts or sequences has other options: score RUN --help.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    images: options.UsedData = field(default_factory=options.UsedData)
    label: str | None = None
    """Of a conditional run, whose scores are of p(x|c): one class for all images; their own when
    not given."""
    num_samples: int = 500
    """Importance samples for each image."""
    num_reference: int = 1000
    """Images of the run's validation set that tell what is usual, at most. 0 leaves typicality out,
    for where the run's own data are not at hand; the oddest are then the least likely."""
    output: Path = Path("scores.csv")
    """The file; .csv, .npz or .parquet. The picture is NAME_oddest.png."""
    seed: int = 0
    """Of the noise that binarises or dequantises, and of the draws."""


@dataclass(frozen=True)
class ExampleOptions:
    """Scores rows of a table, cells or sequences by a run on such: how likely each is, and usual.

    The columns are as of a run on images: `log_likelihood`, of what is there of a row, its
    `standard_error`, `elbo`, `reconstruction`, `effective_sample_size`, `pareto_k`; `typicality`,
    |log p(x) - m|, m the mean of the run's validation set, and `p_value`, the share of that set
    which is as far from m or farther.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    file: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    """A file such as the run's, or its URL: with its columns, its genes, or as many numbers a step;
    the run's own test set when not given."""
    data: str | None = None
    """Where the run's own file lies, if it has moved."""
    num_samples: int = 500
    """Importance samples for each."""
    num_reference: int = 1000
    """Of the run's validation set, that tell what is usual, at most; 0 leaves typicality out, for
    where the run's own file is not at hand."""
    output: Path = Path("scores.csv")
    """The file; .csv, .npz or .parquet."""
    seed: int = 0
    """Of the draws."""


def main(arguments: Sequence[str], prog: str) -> None:
    kind = folder.kind_among(arguments)
    chosen: Any = command.parse(ExampleOptions if kind else Options, arguments, prog=prog)
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_at_least(0, num_reference=chosen.num_reference)
    if chosen.num_reference:
        options.check_at_least(2, num_reference=chosen.num_reference)
    options.check_seed(chosen.seed)
    output.check(chosen.output, output.COLUMNS)
    if kind is None:
        _score_images(chosen)
    else:
        _score_examples(chosen, kind)


def _score_images(chosen: Options) -> None:
    config = folder.read_config(chosen.run)
    names = folder.classes(config)
    own = chosen.images
    given = own if own.dataset is None else dataclasses.replace(own, data=None)
    found, label = examples.open_for(config, names, given, chosen.label)
    reference = None
    if chosen.num_reference:
        of_own = own.data_dir if own.dataset is None else None
        where = options.UsedData(data=own.data, data_dir=of_own)
        reference = _or_without(lambda: examples.own(config, "validation", where))
        reference, own_label = examples.with_classes(reference, config, names, None)

    from vae_jax.run.loaded import load_images  # after the options, as it brings JAX

    trained = load_images(chosen.run)
    how: dict[str, Any] = {"num_samples": chosen.num_samples, "seed": chosen.seed, "progress": True}
    scores = trained.score(found.images, label, **how)
    usual = None
    if reference is not None:
        given_of = examples.some(reference, own_label, chosen.num_reference)
        usual = trained.score(*given_of, **how).log_likelihood
    far = _write(chosen, scores, usual, found.columns(), "images")
    _draw(found.images, far, chosen.output)


def _score_examples(chosen: ExampleOptions, kind: kinds.Kind) -> None:
    import jax

    from vae_jax.run import loaded_examples  # after the options, as it brings JAX

    trained = loaded_examples.load_examples(chosen.run)
    batch, beside = trained.read(chosen.file, chosen.data)
    reference: Any = None
    if chosen.num_reference:
        reference, _ = _or_without(lambda: trained.data("validation", chosen.data))
    how: dict[str, Any] = {"num_samples": chosen.num_samples, "seed": chosen.seed, "progress": True}
    scores = trained.score(batch, **how)
    usual = None
    if reference is not None:
        rows = spread(len(reference.image), chosen.num_reference)
        some = jax.tree.map(lambda of: of[rows], reference)
        usual = trained.score(some, **how).log_likelihood
    _write(chosen, scores, usual, beside, kind.noun)


def _or_without(read: Any) -> Any:
    """The run's validation set; where it cannot be read, what does without it is said."""
    try:
        return read()
    except DataError as error:
        raise DataError(f"{error}; or leave typicality out by --num-reference=0") from None


def _write(chosen: Any, scores: Any, usual: Any, beside: dict[str, Any], what: str) -> Any:
    """Writes the scores, says what they are on average, and returns how far each is off."""
    import numpy as np

    from vae_jax.evaluation import batched
    from vae_jax.run import cautions, measure
    from vae_jax.run.scores import typicality

    value = scores.log_likelihood
    error = measure.over(batched.standard_error(value), len(value), what)
    print(f"log p(x): {value.mean():.2f} nats, {error}")
    for text in cautions.untrusted(scores, chosen.num_samples):
        print(f"warning: {text.replace('--num-importance-samples', '--num-samples')}")
    columns, far = scores._asdict(), -value
    if usual is not None and len(usual) < 2:
        print(f"note: of {len(usual)} {what} of the validation set nothing is usual: no typicality")
        usual = None
    if usual is not None:
        typical = typicality(value, usual)
        columns |= {"typicality": typical.distance, "p_value": typical.p_value}
        far, odd = typical.distance, int((typical.p_value < 0.01).sum())
        centre = np.mean(usual, dtype=np.float64)
        least = 1 / (len(usual) + 1)
        print(
            f"typicality: distance from {centre:.2f} nats, the mean of "
            f"{len(usual):,} {what} of the validation set; "
            + (
                f"{odd:,} of {len(far):,} {what} have p < 0.01, where {len(far) / 100:,.0f} would "
                "be chance"
                if least < 0.01
                else f"so few that no p is below {least:.2g}: go by the distance"
            )
        )
        print(
            f"all together: their mean is {abs(np.mean(value, dtype=np.float64) - centre):.2f} "
            f"nats from it, {typical.of_all:.1f} standard errors"
            + "; they are not like the run's data"
            * (typical.of_all > _ERRORS)
        )
    output.write_columns(beside, columns, chosen.output)
    print(f"scores: {chosen.output}")
    return far


def _draw(images: Any, far: Any, path: Path) -> None:
    """Writes the oddest images, in rows, as NAME_oddest.png."""
    import numpy as np

    from vae_jax.run import classifier, figures  # here, as matplotlib takes a second

    rows = np.argsort(-far)[:_ODDEST]
    picture = figures.grid(classifier.unit(images[rows]), min(10, len(rows)))
    place = path.with_name(f"{path.stem}_oddest.png")
    folder.save_picture(picture, place)
    print(f"the {len(rows)} oddest: {place}")
