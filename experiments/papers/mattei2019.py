"""MIWAE (Mattei & Frellsen 2019): imputation with a VAE that is trained on what was observed.

    python -m experiments.papers.mattei2019

Scikit-learn's breast-cancer set, standardised, half of its entries missing at random. Published: a
mean squared error of 0.28 (missForest 0.29). The bound is that of K = 20 draws over the observed
entries, the networks are the paper's. Unlike there the encoder is told which entries are missing,
and a part of the others is kept from it while it is trained. 569 rows are soon learned by heart,
and one network is then too sure: several are trained on each mask, and what is missing is drawn
from all of them. Beside it scikit-learn's imputers on the same masks.
"""

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.papers import table, training
from experiments.papers.training import Length
from vae_jax import networks
from vae_jax.run import command, extras, options
from vae_jax.run.errors import UsageError

PROTOCOL = (
    "mean squared error of the missing entries, 569 rows of 30 standardised columns, masks "
    "numpy.random.default_rng(mask).random(shape) < 0.5; coverage: share of the missing entries "
    "within their intervals of 90 %"
)
PUBLISHED = 0.28


@dataclass(frozen=True)
class Options:
    """Imputes scikit-learn's breast-cancer set, half of it missing, and measures the error."""

    masks: int = 5
    """Of what is missing, each a training; the mean and the deviation over them are given."""
    num_draws: int = 20
    """K, of z for each row and step."""
    members: int = 5
    """Trained side by side for each mask, whose draws are taken together."""
    steps: int = 6000
    """Of the optimizer."""
    hide: float = 0.15
    """Share of the observed entries that the encoder is not shown in training, other ones at each
    step; 0 is the paper's training."""
    batch_size: int = 64
    """Rows a step."""
    learning_rate: float = 1e-3
    """Adam's, at each step. Muon learns the rows by heart before it has learned the columns."""
    latent_dim: int = 10
    """Of z."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of both networks."""
    num_samples: int = 1000
    """Importance samples for each row that is imputed."""
    seed: int = 0
    """Of the parameters, the order and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/mattei2019-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


def make_model(num_columns: int, latent_dim: int, hidden: tuple[int, ...]) -> vae_jax.VAE:
    """Student's t distribution of each entry, with a scale of its own, of tanh networks."""
    encoder = networks.MLP((2 * latent_dim,), hidden, activation=nn.tanh)
    decoder = networks.MLP((2 * num_columns,), hidden, activation=nn.tanh)
    return vae_jax.make_vae(
        networks.Encoder(networks.ZeroFilled(encoder)),
        networks.MaskedDecoder(networks.StudentTDecoder(decoder, per_entry=True)),
        latent_dim,
    )


def make_loss(model: vae_jax.VAE, num_draws: int, hide: float) -> Any:
    """(params [R E, ...], key, x [B, R, D]) -> the sum of replicas' losses, E for each mask."""

    def one(params: Any, key: jax.Array, x: jax.Array) -> jax.Array:
        hide_key, draw_key = jax.random.split(key)
        # Any proposal makes a bound of all that was observed; one that must do without a part of it
        # learns to impute, and the decoder to be as sure of what it is not told as it may be.
        hidden = jax.random.bernoulli(hide_key, hide, x.shape)
        posterior = model.encode(params, jnp.where(hidden, jnp.nan, x))
        z = vae_jax.sample(draw_key, posterior, num_draws)
        likelihood = model.decode(params, z)
        return vae_jax.iwae(x, z, posterior, model.prior(params), likelihood).value

    def loss(params: Any, key: jax.Array, x: jax.Array) -> Any:
        num = len(jax.tree.leaves(params)[0])
        keys, of_each = jax.random.split(key, num), jnp.repeat(x, num // x.shape[1], axis=1)
        bounds = jax.vmap(one, in_axes=(0, 0, 1))(params, keys, of_each)
        return -bounds.mean(axis=1).sum(), {"iwae": bounds}

    return loss


def masked(masks: int) -> tuple[np.ndarray, np.ndarray]:
    """The standardised rows [N, D], and with NaN for what each mask hides [N, R, D]."""
    extras.check("sklearn")
    from sklearn.datasets import load_breast_cancer

    whole = load_breast_cancer().data
    whole = ((whole - whole.mean(axis=0)) / whole.std(axis=0)).astype(np.float32)
    hidden = [np.random.default_rng(i).random(whole.shape) < 0.5 for i in range(masks)]
    return whole, np.stack([np.where(of, np.nan, whole) for of in hidden], axis=1)


def rivals(whole: np.ndarray, x: np.ndarray) -> Iterator[tuple[str, list[float]]]:
    """The errors of scikit-learn's imputers, for each mask."""
    import sklearn.experimental.enable_iterative_imputer  # noqa: F401 - it is hidden behind this
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    for imputer in SimpleImputer(), KNNImputer(), IterativeImputer(random_state=0):
        filled = [imputer.fit_transform(of.astype(np.float64)) for of in x.swapaxes(0, 1)]
        yield type(imputer).__name__, [error(whole, of, x[:, i]) for i, of in enumerate(filled)]


def error(whole: np.ndarray, filled: np.ndarray, x: np.ndarray) -> float:
    """The mean squared error of what was missing."""
    return float(np.square(filled - whole)[np.isnan(x)].mean())


def measured(
    key: jax.Array, model: vae_jax.VAE, params: Any, whole: np.ndarray, x: np.ndarray, num: int
) -> dict[str, dict[str, list[float]]]:
    """Of replicas [R E, ...] the errors, the coverage and the effective samples for each mask.

    Of the first of the E alone, and of all of them together.
    """
    members = len(jax.tree.leaves(params)[0]) // x.shape[1]
    found: dict[str, dict[str, list[float]]] = {}
    for i in range(x.shape[1]):
        filled = [
            vae_jax.impute(
                jax.random.fold_in(key, i * members + k),
                model,
                jax.tree.map(lambda leaf: leaf[i * members + k], params),  # noqa: B023
                x[:, i],
                num_samples=num,
                num_draws=_DRAWS,
            )
            for k in range(members)
        ]
        sets = {"MIWAE": filled[:1]}
        if members > 1:
            sets[f"{members} MIWAE"] = filled
        for name, of in sets.items():
            low, high = np.quantile(np.concatenate([f.draws for f in of]), [0.05, 0.95], axis=0)
            inside = ((low <= whole) & (whole <= high))[np.isnan(x[:, i])]
            row = found.setdefault(name, {"values": [], "coverage": [], "effective": []})
            row["values"].append(error(whole, np.mean([f.mean for f in of], axis=0), x[:, i]))
            row["coverage"].append(float(inside.mean()))
            row["effective"].append(float(np.median([f.effective_sample_size for f in of])))
    return found


_DRAWS = 200


def picture(path: Path, rows: list[dict[str, Any]]) -> None:
    """Each imputer's error as a bar, its deviation over the masks, and the published one."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 1 + 0.5 * len(rows)))
    errors, deviations = ([row[n] or 0 for row in rows] for n in ("error", "deviation_over_seeds"))
    axes.barh([row["name"] for row in rows], errors, xerr=deviations)
    axes.axvline(PUBLISHED, color="black", linestyle=":", label=f"published, {PUBLISHED}")
    axes.invert_yaxis()
    axes.set_xlabel("mean squared error of what was missing")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    chosen = command.parse(Options, sys.argv[1:], prog="python -m experiments.papers.mattei2019")
    names = ("masks", "members", "num_draws", "steps", "batch_size", "latent_dim")
    options.check_at_least(1, **{name: getattr(chosen, name) for name in names})
    options.check_at_least(2, num_samples=chosen.num_samples)
    options.check_seed(chosen.seed)
    if not 0 <= chosen.hide < 1:
        raise UsageError(f"--hide is {chosen.hide}: it must be in [0, 1)")
    options.check_learning_rate(chosen.learning_rate)
    table.begin(chosen)
    results = table.Table(
        table.open_folder(chosen, "mattei2019"), chosen, paper="mattei2019", protocol=PROTOCOL
    )
    start = time.perf_counter()
    whole, x = masked(chosen.masks)
    model = make_model(whole.shape[1], chosen.latent_dim, chosen.hidden)
    init_key, train_key, impute_key = jax.random.split(jax.random.key(chosen.seed), 3)
    first, replicas = jnp.asarray(x[:1, 0]), chosen.masks * chosen.members
    params, what = training.fit(
        train_key,
        make_loss(model, chosen.num_draws, chosen.hide),
        jax.vmap(lambda key: model.init(key, first))(jax.random.split(init_key, replicas)),
        x,
        Length(chosen.steps, 0.0),
        batch_size=chosen.batch_size,
        optimizer=lambda _: optax.adam(chosen.learning_rate),
    )
    found = measured(impute_key, model, params, whole, x, chosen.num_samples)
    minutes = (time.perf_counter() - start) / 60
    of_all = {"published": PUBLISHED, "training": what, "minutes": minutes}
    ours: list[dict[str, Any]] = [{"name": name, **of, **of_all} for name, of in found.items()]
    theirs = ({"name": n, "published": None, "values": of} for n, of in rivals(whole, x))
    for row in itertools.chain(ours, theirs):  # ours are written before theirs are made
        values = row["values"]
        row["error"] = float(np.mean(values))
        row["deviation_over_seeds"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        of = f", {np.mean(row['coverage']):.1%} covered" if "coverage" in row else ""
        beside = "" if row["published"] is None else f", published {row['published']}"
        results.add(row, f"{row['name']:16} {row['error']:.3f} mean squared error{of}{beside}")
        picture(results.path.with_name("errors.png"), results.rows)
    results.end()


if __name__ == "__main__":
    command.run(main)
