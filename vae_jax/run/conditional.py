"""What a model of p(x|c) is worth, c the class: bounds, Bayes' rule, and the classes it draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

import vae_jax
from vae_jax.evaluation import batched
from vae_jax.run import classifier
from vae_jax.run.callbacks import counted
from vae_jax.run.data.dataset import Dataset, Split, take
from vae_jax.run.errors import DataError
from vae_jax.run.measure import over
from vae_jax.run.model import expected

NUM_GENERATED = 10_000
_BATCH = 500


def labelled(dataset: Dataset) -> Dataset:
    """The rows that have a label: those with -1, for none, are dropped from every split.

    Marginalising over the missing label instead would train on log sum_c p(c) exp(ELBO(x, c)), at
    num_classes times the cost of every step, for rows that say nothing of p(x|c) but through the
    model's own guess at c.

    Raises:
      DataError: a label is no class, or a split has no labelled row.
    """
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        images, labels = getattr(dataset, name)
        wrong = labels[(labels < -1) | (labels >= dataset.num_classes)]
        if wrong.size:
            raise DataError(
                f"the {name} split of {dataset.name} has the label {wrong[0]}: its classes are 0 "
                f"to {dataset.num_classes - 1}, and -1 is for an image without one"
            )
        known = labels >= 0
        if not known.any():
            raise DataError(
                f"the {name} split of {dataset.name} has no labels: leave --conditional out, or "
                "give them, to a .npy file by --labels"
            )
        splits[name] = Split(take(images, np.flatnonzero(known)), labels[known])
    return dataset._replace(**splits)


def log_likelihoods(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    x: jax.Array,
    num_classes: int,
    num_samples: int,
) -> vae_jax.Estimate:
    """log p(x|c) of every image under every class, by importance sampling, [N, num_classes]."""
    label = np.zeros(len(x), np.int32)
    batch_size, chunk_size = batched.split(key, model, params, x, label, num_samples=num_samples)

    # The parameters are given, not held: one program in the compilation cache serves all runs.
    @jax.jit
    def estimate(params: Any, key: jax.Array, x: jax.Array) -> Any:
        def under(label: jax.Array) -> vae_jax.Estimate:
            return vae_jax.log_likelihood(
                jax.random.fold_in(key, label),
                x,
                model.encode(params, x, label),
                model.prior(params, label),
                lambda z: model.decode(params, z, label),
                num_samples=num_samples,
                chunk_size=chunk_size,
            )

        return jax.lax.map(under, jnp.arange(num_classes))

    batches = list(batched.rows_of(len(x), batch_size))
    found = batched.each(estimate.lower, params, key, (x,), batches)
    told = counted(batches, len(x), f"log p(x|c), all c, {num_samples} draws")
    parts = [part for _, part in zip(told, found, strict=True)]
    joined: vae_jax.Estimate = batched.joined(jax.tree.map(np.transpose, parts), len(x))
    return joined


_PROTOCOL = {
    "log_likelihood": "log p(x|c) under the test labels; its standard error is that of the "
    "draws, num_importance_samples for each image, here and below where another is over the images",
    "marginal_log_likelihood": "log sum_c p(c) p(x|c), p(c) the classes' shares of the "
    "training set; num_importance_samples draws under the test label, num_class_samples "
    "under each other class; standard error of the draws",
    "bayes_accuracy": "argmax_c p(c) p(x|c) against the test label, num_class_samples "
    "draws under every class; standard error over the test images, as below",
    "shuffled_log_likelihood": "log p(x|c) under the test labels permuted, "
    "num_class_samples draws; standard error of the draws",
    "shuffled_labels_cost": "log p(x|c) under the test labels less that under the permuted "
    "ones, num_class_samples draws for both; standard error over the test images",
    "classifier_agreement": "share of num_generated images E[x|z,c], z from p(z|c), all "
    "classes alike, that the classifier takes for c",
    "classifier_test_accuracy": "of the classifier, a perceptron trained on the training "
    "images, on the real test images, both grey",
}


def measure(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    x: jax.Array,
    dataset: Dataset,
    own: vae_jax.Estimate,
    num_samples: int,
) -> dict[str, Any]:
    """The conditional_ fields of results.json.

    Args:
      key: of all draws, and of the classifier.
      model: of p(x|c).
      params: its parameters.
      x: the test images as the model sees them.
      dataset: with labels for all rows.
      own: log p(x|c) of the test images under their own labels.
      num_samples: importance samples under each class.
    """
    class_key, shuffle_key, classifier_key, draw_key = jax.random.split(key, 4)
    labels, num_classes = dataset.test.labels, dataset.num_classes
    rows = np.arange(len(labels))
    counts = np.bincount(dataset.train.labels, minlength=num_classes)
    with np.errstate(divide="ignore"):  # a class that training never shows has probability 0
        log_prior = np.log(counts) - np.log(counts.sum())

    under = log_likelihoods(class_key, model, params, x, num_classes, num_samples)
    correct = (under.value + log_prior).argmax(axis=1) == labels

    # Each p(x|c) is estimated without bias whatever its draws, and so is their sum.
    value, error = np.array(under.value), np.array(under.standard_error)
    value[rows, labels], error[rows, labels] = own.value, own.standard_error
    marginal = scipy.special.logsumexp(value + log_prior, axis=1)
    share = np.exp(value + log_prior - marginal[:, None])

    shuffled = labels[np.asarray(jax.random.permutation(shuffle_key, len(labels)))]
    under_shuffled = under.value[rows, shuffled]
    cost = under.value[rows, labels] - under_shuffled

    classify = classifier.train(classifier_key, dataset.train, num_classes)
    recognised = classify(classifier.unit(jnp.asarray(dataset.test.images))) == labels
    agreed = _agreement(draw_key, model, params, num_classes, classify)
    return {
        **_estimated("conditional_log_likelihood", own.value, own.standard_error),
        **_estimated(
            "conditional_marginal_log_likelihood",
            marginal,
            np.sqrt(np.square(share * error).sum(axis=1)),
        ),
        "conditional_num_class_samples": num_samples,
        **_mean("conditional_bayes_accuracy", correct),
        **_estimated(
            "conditional_shuffled_log_likelihood",
            under_shuffled,
            under.standard_error[rows, shuffled],
        ),
        **_mean("conditional_shuffled_labels_cost", cost),
        **_mean("conditional_classifier_agreement", agreed),
        **_mean("conditional_classifier_test_accuracy", recognised),
        "conditional_num_generated": len(agreed),
        "conditional_protocol": _PROTOCOL,
    }


def unused_label(fields: dict[str, Any]) -> list[str]:
    """What is to be said where the model is no better under the images' own labels than others'."""
    cost = fields["conditional_shuffled_labels_cost"]
    error = fields["conditional_shuffled_labels_cost_standard_error"]
    if cost > _STANDARD_ERRORS * error:
        return []
    return [
        f"the label changes nothing that can be seen: shuffled labels cost {cost:.2f} nats"
        f"{_plus_minus(error, 2)}; see that each image has its own label, train for longer, or "
        "leave --conditional out"
    ]


_STANDARD_ERRORS = 2


def _agreement(
    key: jax.Array,
    model: vae_jax.VAE,
    params: Any,
    num_classes: int,
    classify: classifier.Classify,
) -> np.ndarray:
    """For each generated image, whether it is taken for the class that was asked for."""

    @jax.jit
    def batch(key: jax.Array, label: jax.Array) -> Any:
        return classify(expected(vae_jax.generate(key, model, params, (), label))) == label

    labels = jnp.arange(NUM_GENERATED).reshape(-1, _BATCH) % num_classes
    return np.concatenate([batch(jax.random.fold_in(key, i), c) for i, c in enumerate(labels)])


def _estimated(name: str, values: Any, errors: Any) -> dict[str, float]:
    """The mean of independent estimates, with the error of their draws and that over the images."""
    return {
        name: float(np.asarray(values).mean()),
        f"{name}_standard_error": float(np.sqrt(np.square(errors).sum()) / len(errors)),
        f"{name}_standard_error_over_images": batched.standard_error(values),
    }


def _mean(name: str, values: Any) -> dict[str, float]:
    mean = float(np.asarray(values, np.float64).mean())
    return {name: mean, f"{name}_standard_error": batched.standard_error(values)}


def by_class(key: jax.Array, model: vae_jax.VAE, params: Any, num_classes: int, num: int) -> Any:
    """Images [num_classes * num, H, W, C]: a row for each class, a style for each column.

    A style is one draw of noise, put at the same place in every class's prior.
    """
    label = jnp.arange(num_classes)
    prior = model.prior(params, label)
    style = jax.random.normal(key, (num, 1, prior.mean.shape[-1]))
    z = prior.mean[None] + prior.scale[None] * style
    images = expected(model.decode(params, z, label))
    return images.swapaxes(0, 1).reshape(-1, *images.shape[2:])


def transferred(
    model: vae_jax.VAE, params: Any, x: jax.Array, label: jax.Array, num_classes: int
) -> Any:
    """Images [N * (1 + num_classes), H, W, C]: each x, then its style under every class."""

    def to(new: jax.Array) -> Any:
        return expected(vae_jax.transfer(model, params, x, label, jnp.full_like(label, new)))

    images = jax.vmap(to, out_axes=1)(jnp.arange(num_classes))
    return jnp.concatenate([classifier.unit(x)[:, None], images], axis=1).reshape(-1, *x.shape[1:])


def _plus_minus(error: float, digits: int) -> str:
    return f" +- {error:.{digits}f}" if np.isfinite(error) else ", of too few images for an error"


def summary(results: dict[str, Any]) -> str:
    """The lines that a conditional run adds."""
    name = "conditional_marginal_log_likelihood"
    marginal = (
        f"\n{'log p(x), labels summed out':32s}{results[name]:9.2f} nats, "
        f"{over(results[f'{name}_standard_error_over_images'], results['num_test'], 'images')}, "
        f"+- {results[f'{name}_standard_error']:.3f} of the draws"
    )
    return marginal + "".join(
        f"\n{title:32s}{results[name]:9.{digits}f}{unit}"
        + _plus_minus(results[f"{name}_standard_error"], digits + 1)
        for title, name, digits, unit in (
            ("shuffled labels cost", "conditional_shuffled_labels_cost", 2, " nats"),
            ("Bayes' rule, accuracy", "conditional_bayes_accuracy", 4, ""),
            ("generated images as asked", "conditional_classifier_agreement", 4, ""),
            ("classifier, real test images", "conditional_classifier_test_accuracy", 4, ""),
        )
    )
