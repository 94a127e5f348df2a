"""Bias, variance and signal-to-noise ratio of each gradient estimator, against the number of draws.

A small VAE is trained; at its start, half-way and at its end the gradient of a fixed batch is drawn
many times by each estimator, apart for the encoder and the decoder. Rainforth et al. 2018 and
Tucker et al. 2019 show some of these curves; here is the whole table.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import vae_jax
from vae_jax import networks, run
from vae_jax.run import command, devices, folder, measure, options
from vae_jax.run.data import named
from vae_jax.run.errors import UsageError
from vae_jax.run.job import open_program

PROG = "python -m experiments.gradients"
STAGES = ("start", "middle", "end")
NETWORKS = ("encoder", "decoder")
PROTOCOL = (
    "gradients of the mean bound of one batch, binarised once, nats. Each estimator's gradient is "
    "drawn num_replicates times, and its target's, by another estimator that is known to be "
    "unbiased and with other noise, twice as often (see `reference`). variance is the sum over the "
    "network's parameters; signal_to_noise is |mean| / sqrt(variance), |mean|^2 being corrected "
    "for the noise of the mean, and null where nothing is left of it. The first halves of both "
    "sets of draws give the direction of the bias; bias is the distance of the second halves' "
    "means along it, relative to the reference's length, with its standard error; p_value that of "
    "Welch's t-test of this one number, one-sided, not corrected for the number of tests. biased: "
    "p_value is less than 0.001 / number of tests."
)


@dataclass(frozen=True)
class Options:
    """Measures the gradient estimators of vae_jax while a small VAE learns."""

    dataset: Literal["auto", "mnist", "fashion_mnist", "digits"] = "digits"
    """digits are scikit-learn's, 8 x 8, which need no download; auto is MNIST where it can be
    had."""
    data_dir: Path | None = None
    """TensorFlow Datasets' folder of prepared data."""
    manual_dir: Path | None = None
    """A folder with the original files, for a machine without a network."""
    draws: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """K, each measured by itself; those that take a baseline from the other draws begin at 2."""
    num_replicates: int = 400
    """Gradients drawn of each estimator; errors shrink as one over its root."""
    num_examples: int = 8
    """In the batch whose gradient is drawn."""
    epochs: int = 60
    """Of training, on the ELBO of one draw; the middle is half of them."""
    batch_size: int = 64
    """Examples a step of training."""
    learning_rate: float = 2e-3
    """Adam's."""
    latent_dim: int = 8
    """Of z."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers of both networks; all gradients of one cell are in memory."""
    seed: int = 0
    """Of the parameters, the order of the data and all noise."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto is the best there is; a named one that is missing ends the run."""
    output: Path | None = None
    """Folder of the results; runs/gradients-DATASET-TIME when not given."""
    overwrite: bool = False
    """Write into an --output that holds results."""


class Estimator(NamedTuple):
    """A way to estimate a gradient.

    Attributes:
      bound: (x, z, posterior, prior, decode) -> a scalar, or one for each example, or draw too.
      encoder: the name of the estimator whose mean is what the encoder's gradient should be.
      decoder: that for the decoder's.
      least_draws: that it takes.
    """

    bound: Callable[..., jax.Array]
    encoder: str
    decoder: str
    least_draws: int = 1


def of_values(bound: Callable[..., vae_jax.Bound], **settings: Any) -> Callable[..., jax.Array]:
    """Of a bound that takes the likelihood."""
    return lambda x, z, posterior, prior, decode: (
        bound(x, z, posterior, prior, decode(z), **settings).value
    )


def of_decode(bound: Callable[..., vae_jax.Bound]) -> Callable[..., jax.Array]:
    """Of one that decodes itself."""
    return lambda *of: bound(*of).value


def score_function(baseline: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    def bound(x: Any, z: Any, posterior: Any, prior: Any, decode: Any) -> jax.Array:
        z = jax.lax.stop_gradient(z)
        value = vae_jax.elbo(x, z, posterior, prior, decode(z), analytic_kl=False).value
        return vae_jax.score_function(value, posterior.log_prob(z), baseline(value))

    return bound


def sticking_iwae(x: Any, z: Any, posterior: Any, prior: Any, decode: Any) -> jax.Array:
    return vae_jax.iwae(x, z, jax.lax.stop_gradient(posterior), prior, decode(z)).value


ESTIMATORS = {
    "ELBO": Estimator(of_values(vae_jax.elbo, analytic_kl=False), "ELBO, STL", "ELBO, STL"),
    "ELBO, analytic KL": Estimator(of_values(vae_jax.elbo), "ELBO, STL", "ELBO, STL"),
    "ELBO, STL": Estimator(of_values(vae_jax.sticking_the_landing), "ELBO, STL", "ELBO, STL"),
    "ELBO, score": Estimator(score_function(jnp.zeros_like), "ELBO, STL", "ELBO, STL"),
    "ELBO, leave-one-out": Estimator(
        score_function(vae_jax.leave_one_out), "ELBO, STL", "ELBO, STL", 2
    ),
    "IWAE": Estimator(of_values(vae_jax.iwae), "IWAE, DReG", "IWAE, DReG"),
    "IWAE, STL": Estimator(sticking_iwae, "IWAE, DReG", "IWAE, DReG"),
    "IWAE, DReG": Estimator(of_decode(vae_jax.doubly_reparameterized), "IWAE, DReG", "IWAE, DReG"),
    "IWAE, VIMCO": Estimator(of_decode(vae_jax.vimco), "IWAE, DReG", "IWAE, DReG", 2),
    # Its encoder has an objective of its own.
    "RWS": Estimator(of_decode(vae_jax.reweighted_wake_sleep), "RWS", "IWAE, DReG"),
}

REFERENCES = ("ELBO, STL", "IWAE, DReG")


def train(
    key: jax.Array, model: vae_jax.VAE, images: jax.Array, chosen: Options
) -> list[dict[str, Any]]:
    """The parameters at each of STAGES."""
    init_key, key = jax.random.split(key)
    params = jax.jit(model.init)(init_key, jnp.zeros((1, *images.shape[1:]), jnp.float32))
    after = [jax.device_get(params)]  # each epoch

    def keep(params: Any) -> dict[str, float]:
        after.append(jax.device_get(params))
        return {}

    fitted = run.fit(
        key,
        vae_jax.make_loss(model, observe=vae_jax.binarize),
        params,
        optax.adam(chosen.learning_rate),
        vae_jax.Batch(images),
        run.Plan(epochs=chosen.epochs, batch_size=chosen.batch_size),
        validate=keep,
    )
    print(f"trained: loss {fitted.rows[-1]['train_loss']:.2f} nats in the last epoch")
    return [after[0], after[chosen.epochs // 2], after[-1]]


def make_draw(model: vae_jax.VAE, x: jax.Array, estimator: Estimator, num_draws: int) -> Any:
    """(params, key, N) -> gradients of the encoder [N, P] and of the decoder [N, Q]."""

    def mean_bound(params: Any, key: jax.Array) -> jax.Array:
        posterior = model.encode(params, x)
        z = vae_jax.sample(key, posterior, num_draws)
        decode = lambda z: model.decode(params, z)  # noqa: E731
        return estimator.bound(x, z, posterior, model.prior(params), decode).mean()

    def one(params: Any, key: jax.Array) -> Any:
        gradient = jax.grad(mean_bound)(params, key)
        return tuple(ravel_pytree(gradient[name])[0] for name in NETWORKS)

    # A scan over the keys would take as long to compile again.
    at_once = max(1, 2048 // (num_draws * len(x)))
    several = jax.jit(jax.vmap(one, in_axes=(None, 0)))

    def draw(params: Any, key: jax.Array, num: int) -> tuple[np.ndarray, ...]:
        parts = jax.random.split(key, (-(-num // at_once), at_once))
        drawn = zip(*(several(params, keys) for keys in parts), strict=True)
        return tuple(np.concatenate(of)[:num] for of in drawn)

    return draw


class Moments(NamedTuple):
    """What draws [N, P] of a gradient say: their mean, and how much they and it vary."""

    mean: np.ndarray
    variance: float
    squared_length: float

    @classmethod
    def of(cls, drawn: np.ndarray) -> "Moments":
        mean = drawn.mean(axis=0, dtype=np.float64)
        variance = float(np.square(drawn - mean).sum() / (len(drawn) - 1))
        return cls(mean, variance, float(np.square(mean).sum()) - variance / len(drawn))


def compare(drawn: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """The row of one estimator and network, of its gradients [N, P] and those it should have."""
    moments, wanted = Moments.of(drawn), Moments.of(reference)
    first, second = np.array_split(drawn, 2)
    first_wanted, second_wanted = np.array_split(reference, 2)
    direction = first.mean(axis=0, dtype=np.float64) - first_wanted.mean(axis=0, dtype=np.float64)
    direction /= max(float(np.linalg.norm(direction)), 1e-300)
    along, along_wanted = second @ direction, second_wanted @ direction
    bias = float(along.mean() - along_wanted.mean())
    error = math.hypot(*(a.std(ddof=1) / math.sqrt(len(a)) for a in (along, along_wanted)))
    t = bias / error if error > 0 else 0.0
    length = math.sqrt(wanted.squared_length) if wanted.squared_length > 0 else math.nan
    signal = math.sqrt(moments.squared_length) if moments.squared_length > 0 else math.nan
    return {
        "variance": moments.variance,
        "signal_to_noise": signal / math.sqrt(moments.variance) if moments.variance else math.inf,
        "bias": bias / length,
        "bias_standard_error": error / length,
        "t": t,
        "p_value": math.erfc(t / math.sqrt(2)) / 2,
        "gradient_length": length,
    }


def measure_stage(
    key: jax.Array, stages: list[Any], model: vae_jax.VAE, x: jax.Array, chosen: Options
) -> list[dict[str, Any]]:
    """The rows of all estimators, draws and stages; each program is compiled once."""
    rows = []
    num = chosen.num_replicates
    # The encoder of RWS is not that of another bound: it is held against its own limit.
    limit = make_draw(model, x, ESTIMATORS["RWS"], max(chosen.draws))
    for num_draws in sorted(chosen.draws):
        present = {n: e for n, e in ESTIMATORS.items() if num_draws >= e.least_draws}
        draw = {n: make_draw(model, x, e, num_draws) for n, e in present.items()}
        for i, (stage, params) in enumerate(zip(STAGES, stages, strict=True)):
            keys = iter(jax.random.split(jax.random.fold_in(key, 3 * num_draws + i), 16))
            wanted = {
                name: dict(zip(NETWORKS, of(params, next(keys), 2 * num), strict=True))
                for name, of in {**{n: draw[n] for n in REFERENCES}, "RWS": limit}.items()
            }
            for name, estimator in present.items():
                drawn = draw[name](params, next(keys), num)
                for network, gradients in zip(NETWORKS, drawn, strict=True):
                    target = getattr(estimator, network)
                    row = {"stage": stage, "estimator": name, "draws": num_draws}
                    row |= {"network": network, "reference": target}
                    rows.append(row | compare(gradients, wanted[target][network]))
        print(f"K = {num_draws}: done", flush=True)
    for row in rows:
        row["biased"] = row["p_value"] < 1e-3 / len(rows)
    return rows


def draw_picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Signal to noise against draws, on logarithmic axes: a row a network, a column a stage."""
    from experiments.tutorial import drawing

    with drawing.style():
        figure, axes = drawing.plt.subplots(2, 3, figsize=(11, 7), sharex=True, sharey="row")
        for i, network in enumerate(NETWORKS):
            for j, stage in enumerate(STAGES):
                panel = axes[i, j]
                for n, name in enumerate(ESTIMATORS):
                    of = [
                        (row["draws"], row["signal_to_noise"])
                        for row in rows
                        if (row["estimator"], row["network"], row["stage"])
                        == (name, network, stage)
                    ]
                    style = {"marker": "os^Dv"[n % 5], "color": drawing.CLASSES[n], "label": name}
                    panel.plot(*zip(*of, strict=True), markersize=4, **style) if of else None
                panel.set(xscale="log", yscale="log", title=f"{network}, {stage} of training")
        axes[0, 0].set_ylabel("signal to noise")
        axes[1, 0].set_ylabel("signal to noise")
        axes[1, 1].set_xlabel("draws, K")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        with folder.writing(path):
            figure.savefig(path, dpi=100)
        drawing.plt.close(figure)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Signal to noise: a line an estimator and K; - where nothing is left of the signal."""
    print(f"{'':21}{'K':>6}", *(f"{n} {s}".rjust(15) for n in NETWORKS for s in STAGES))
    cells = {(r["estimator"], r["draws"], r["network"], r["stage"]): r for r in rows}
    for name in ESTIMATORS:
        for num_draws in sorted({draws for of, draws, *_ in cells if of == name}):
            found = [cells[name, num_draws, n, s] for n in NETWORKS for s in STAGES]
            texts = [
                ("-" if math.isnan(row["signal_to_noise"]) else f"{row['signal_to_noise']:.3g}")
                + (" biased" if row["biased"] else "")
                for row in found
            ]
            print(f"{name:21}{num_draws:6d}", *(text.rjust(15) for text in texts))


def check(chosen: Options) -> None:
    """Raises UsageError for the first option whose value cannot be used."""
    least = {"num_replicates": 20, "num_examples": 1, "epochs": 2, "batch_size": 1, "latent_dim": 1}
    for name, value in least.items():
        options.check_at_least(value, **{name: getattr(chosen, name)})
    for name in ("draws", "hidden"):
        values = getattr(chosen, name)
        if not values or min(values) < 1 or (name == "draws" and len(set(values)) < len(values)):
            raise UsageError(
                f"--{name} is {values}: give positive numbers, of draws different ones"
            )
    options.check_seed(chosen.seed)
    options.check_learning_rate(chosen.learning_rate)


def main() -> None:
    start = time.perf_counter()
    chosen = command.parse(Options, sys.argv[1:], prog=PROG)
    check(chosen)
    folder.check_writable(chosen.output)
    devices.use_accelerator(chosen.accelerator)
    devices.use_compilation_cache()
    dataset = named.load(chosen.dataset, data_dir=chosen.data_dir, manual_dir=chosen.manual_dir)
    images = jnp.asarray(dataset.train.images.reshape(len(dataset.train.images), -1))
    most = max(chosen.batch_size, chosen.num_examples)
    if most > len(images):
        raise UsageError(
            f"--batch-size is {chosen.batch_size} and --num-examples {chosen.num_examples} but "
            f"{dataset.name} has {len(images)} training examples: make them smaller"
        )
    output, plain = open_program(chosen, "gradients", dataset)
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * chosen.latent_dim,), chosen.hidden)),
        networks.BernoulliDecoder(networks.MLP(images.shape[1:], chosen.hidden)),
        chosen.latent_dim,
    )
    train_key, binarize_key, draw_key = jax.random.split(jax.random.key(chosen.seed), 3)
    stages = train(train_key, model, images, chosen)
    x = vae_jax.binarize(binarize_key, images[: chosen.num_examples])
    rows = measure_stage(draw_key, stages, model, x, chosen)
    results = {
        "dataset": dataset.name,
        "source": dataset.source,
        "notice": dataset.notice,
        "protocol": PROTOCOL,
        "num_tests": len(rows),
        "rows": rows,
        "seconds": time.perf_counter() - start,
        "device": jax.devices()[0].device_kind,
        "versions": measure.versions(),
        "options": plain,
    }
    folder.write_json(output / "results.json", results)
    draw_picture(rows, output / "signal_to_noise.png")
    print_table(rows)
    print(f"the table, with bias and variance, and its picture: {output}")


if __name__ == "__main__":
    command.run(main)
