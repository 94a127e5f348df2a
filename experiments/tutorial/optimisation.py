"""Steps in turn or together, and how many draws a step should have."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vae_jax
from experiments.tutorial import drawing, page
from experiments.tutorial.autoencoder import LATENTS, variational_loss
from experiments.tutorial.study import BATCH_SIZE, Study, Trained

LEARNING_RATE = 1e-3
NUM_DRAWS = (1, 5, 50)
NUM_GRADIENTS, NUM_PAIRS, SGD_RATE = 200, 12, 0.02

TEXT = r"""
The bound has two sets of parameters: the decoder's $\theta$ and the encoder's $\phi$. In
expectation maximisation one is held while the other is improved (Neal & Hinton 1998). Written for
networks and minibatches, that is the **alternating algorithm**. Repeat:

1. Take a minibatch, encode it with $\phi_t$, draw $z = \mu + \sigma \epsilon$, decode it with
$\theta_t$, and take a step in the decoder's parameters:

$$ \theta_{t+1} = \theta_t + \eta\, \nabla_\theta \mathcal{L}(\theta_t, \phi_t) $$

2. Take the next minibatch, encode it with $\phi_t$, draw, decode it *with the new* $\theta_{t+1}$,
and take a step in the encoder's parameters:

$$ \phi_{t+1} = \phi_t + \eta\, \nabla_\phi \mathcal{L}(\theta_{t+1}, \phi_t) $$

until the bound no longer rises. For networks with a reparameterised draw nothing asks for that: one
backward pass gives both gradients, and both can take a **joint step**, each at the old values of
the other.

$$ \theta_{t+1} = \theta_t + \eta\, \nabla_\theta \mathcal{L}(\theta_t, \phi_t) $$

$$ \phi_{t+1} = \phi_t + \eta\, \nabla_\phi \mathcal{L}(\theta_t, \phi_t) $$

![steps]

With steps in turn the curve on the left has two kinds of steps, each of which moves the bound of
one fixed minibatch with fixed draws ([[zoom.num]] pairs from random parameters, plain gradient
steps of rate [[zoom.rate]]): a decoder's step, then an encoder's at the new decoder. In this
stretch the decoder's steps brought [[zoom.theta:.2f]] nats in all and the encoder's
[[zoom.phi:.2f]]; as many joint steps as there are pairs brought [[zoom.joint:.2f]] nats, for half
of the backward passes.

**In turn or together.** The same VAE with [[latent_dim]] latents, Adam at a learning rate of
[[learning_rate]] and [[steps]] steps of [[batch_size]] images. A step in turn changes the decoder
at even and the encoder at odd steps.

![turns]

| | test ELBO after all steps | steps to [[turns.target:.1f]] nats |
| together | [[turns.joint.elbo:.2f]] | [[turns.joint.steps]] |
| in turn | [[turns.alternating.elbo:.2f]] | [[turns.alternating.steps]] |

The target is what the steps in turn reach at the end of training, on the training images. A step in
turn takes about as long as a joint one, so that the clock says the same: here [[steps]] steps took
[[seconds.joint:.1f]] s together and [[seconds.alternating:.1f]] s in turn. Half of the work of a
step in turn is thrown away, since both gradients come out of the same pass; a decoder's step on its
own could spare the encoder's part of the backward pass, but never the forward one.

**How many draws?** The expectation is over the draws *and* over the images. With $S$ draws for each
image the noise of the draws falls like $1/S$. Measured at one minibatch, the variance of the
gradient over [[num_gradients]] repeats, as a multiple of that with 50 draws:

| $S$ | variance, same images | variance, fresh images | test ELBO |
| 1 | [[draws.variance.0:.1f]] | [[draws.total_variance.0:.2f]] | [[draws.elbo.0:.2f]] |
| 5 | [[draws.variance.1:.1f]] | [[draws.total_variance.1:.2f]] | [[draws.elbo.1:.2f]] |
| 50 | 1 | 1 | [[draws.elbo.2:.2f]] |

With fresh images in each minibatch, as in training, their own noise is there whatever $S$ is, and
more draws help by less than their number. The last column is after [[draws.steps]] steps of
[[draws.batch_size]] images each.

![draws]

Step for step more draws are better, each further one by less. By the clock one draw was done in
[[seconds.draws.0:.1f]] s, five in [[seconds.draws.1:.1f]] s and fifty in [[seconds.draws.2:.1f]] s:
the time of many draws buys many more steps of one or a few, as the right-hand graph shows.
"""


EXERCISES = (
    (
        "In step 2 the encoder's gradient is taken at the new decoder. What would change if it "
        "were taken at the old one, with the same minibatch?",
        "It would be the joint step. For small learning rates the two differ by the square of the "
        "learning rate, so neither order is more right than the other.",
    ),
    (
        "Why does a step in turn cost as much as a joint one here?",
        "One forward and one backward pass give both gradients; a step in turn throws one away. "
        "Steps to [[turns.target:.1f]] nats: [[turns.joint.steps]] together, "
        "[[turns.alternating.steps]] in turn.",
    ),
    (
        "With fifty draws instead of one, why is the variance with fresh images not fifty times "
        "smaller?",
        "It falls by a factor of [[draws.total_variance.0:.1f]], and of [[draws.variance.0:.1f]] "
        "with the same images: what the images contribute stays, whatever the number of draws.",
    ),
    (
        "A budget of 100 evaluations of the decoder for each step: 100 images with one draw, or 10 "
        "with ten?",
        "A hundred images: their number divides both parts of the variance, the number of draws "
        "only the part of the draws.",
    ),
    (
        "When would you still alternate?",
        "When the two need different numbers of steps, such as several of an encoder that lags "
        "behind its decoder, which is one remedy for posterior collapse; or when one of them is "
        "given and fixed.",
    ),
)


def alternating_optimizer() -> optax.GradientTransformation:
    """A step in theta, then one in phi, and so on."""
    return vae_jax.alternate(optax.adam(LEARNING_RATE), "decoder", "encoder")


def loss_of_draws(model: vae_jax.VAE, num_draws: int) -> Callable[..., Any]:
    """Minus the ELBO, averaged over so many draws for each image."""

    def loss(params, key, batch):
        binarize_key, draw_key = jax.random.split(key)
        x = vae_jax.binarize(binarize_key, batch.image)
        bound = vae_jax.autoencode(
            draw_key,
            x,
            lambda x: model.encode(params, x),
            model.prior(params),
            lambda z: model.decode(params, z),
            num_draws,
        )
        return -bound.value.mean(), bound

    return loss


def run(study: Study) -> page.Chapter:
    model = study.make_model(LATENTS)
    loss = variational_loss(model)
    turns = {
        "joint": study.train("together", model, loss, optax.adam(LEARNING_RATE)),
        "alternating": study.train("in turn", model, loss, alternating_optimizer()),
    }
    curves = {name: smooth(np.asarray(t.metrics.aux.value)) for name, t in turns.items()}
    target = curves["alternating"][-1]
    num_steps, batch_size = study.steps // 50 * 10, 32
    by_draws = {
        num_draws: study.train(
            f"{num_draws} draws",
            model,
            loss_of_draws(model, num_draws),
            optax.adam(LEARNING_RATE),
            steps=num_steps,
            batch_size=batch_size,
        )
        for num_draws in NUM_DRAWS
    }
    same, fresh = gradient_noise(study, model, turns["joint"].params)
    zoom = zoomed(study, model)
    numbers = {
        "steps": study.steps,
        "latent_dim": LATENTS,
        "learning_rate": LEARNING_RATE,
        "zoom": {
            "num": NUM_PAIRS,
            "rate": SGD_RATE,
            "elbo": zoom,
            "theta": (zoom["alternating"][1::2] - zoom["alternating"][:-1:2]).sum(),
            "phi": (zoom["alternating"][2::2] - zoom["alternating"][1::2]).sum(),
            "joint": zoom["joint"][-1] - zoom["joint"][0],
        },
        "batch_size": BATCH_SIZE,
        "num_gradients": NUM_GRADIENTS,
        "turns": {
            "target": target,
            **{
                name: {
                    "elbo": test_elbo(study, model, trained),
                    "steps": np.argmax(curves[name] >= target) + 1,
                }
                for name, trained in turns.items()
            },
        },
        "draws": {
            "num_draws": NUM_DRAWS,
            "steps": num_steps,
            "batch_size": batch_size,
            "variance": same,
            "total_variance": fresh,
            "elbo": [test_elbo(study, model, trained) for trained in by_draws.values()],
        },
    }
    seconds = {
        **{name: trained.seconds for name, trained in turns.items()},
        "draws": [trained.seconds for trained in by_draws.values()],
    }
    figures = {
        "steps": draw_steps(zoom),
        "turns": draw_turns(curves),
        "draws": draw_draws(by_draws),
    }
    code = (alternating_optimizer, loss_of_draws)
    return page.Chapter(
        "Optimisation", TEXT, page.plain(numbers), figures, code, seconds, EXERCISES
    )


def zoomed(study: Study, model: vae_jax.VAE) -> dict[str, np.ndarray]:
    """The bound of one minibatch with its draws, before and after each step of plain gradient."""
    init_key, pixel_key, draw_key = jax.random.split(study.key("zoom"), 3)
    x = vae_jax.binarize(pixel_key, study.batch.image[:BATCH_SIZE])
    start = model.init(init_key, x[:1])

    def elbo(params: Any) -> jax.Array:
        posterior = model.encode(params, x)
        z = vae_jax.sample(draw_key, posterior)
        likelihood = model.decode(params, z)
        return vae_jax.elbo(x, z, posterior, model.prior(params), likelihood).value.mean()

    @jax.jit
    def step(params: Any, state: Any, parts: Any) -> tuple[Any, Any]:
        gradient = jax.tree.map(lambda g, on: -g * on, jax.grad(elbo)(params), parts)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    def only(*names: str) -> Any:
        return {n: jax.tree.map(lambda _, n=n: float(n in names), p) for n, p in start.items()}

    theta, phi, both = only("decoder"), only("encoder"), only("decoder", "encoder")
    optimizer, curves = optax.sgd(SGD_RATE), {}
    for name, order in (("alternating", [theta, phi] * NUM_PAIRS), ("joint", [both] * NUM_PAIRS)):
        params, state, values = start, optimizer.init(start), [elbo(start)]
        for parts in order:
            params, state = step(params, state, parts)
            values.append(elbo(params))
        curves[name] = np.asarray(values)
    return curves


def smooth(values: np.ndarray, width: int = 50) -> np.ndarray:
    """The mean of the last `width` values at every step, of fewer at the beginning."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    step = np.arange(1, len(values) + 1)
    start = np.maximum(step - width, 0)
    return (total[step] - total[start]) / (step - start)


def test_elbo(study: Study, model: vae_jax.VAE, trained: Trained) -> jax.Array:
    params = trained.params
    bound = vae_jax.autoencode(
        study.key("test elbo"),
        study.x,
        lambda x: model.encode(params, x),
        model.prior(params),
        lambda z: model.decode(params, z),
        10,
    )
    return bound.value.mean()


def gradient_noise(study: Study, model: vae_jax.VAE, params: Any) -> tuple[Any, Any]:
    """Variance of the encoder's gradient for 1, 5 and 50 draws, relative to 50.

    With the same images and pixels in every repeat, and with fresh ones.
    """
    size = 32

    def variance(num_draws: int, *, fresh: bool) -> jax.Array:
        def gradient(key: jax.Array) -> Any:
            minibatch_key, draw_key = jax.random.split(key)
            if not fresh:
                minibatch_key = study.key("one minibatch")
            index_key, pixel_key = jax.random.split(minibatch_key)
            index = jax.random.choice(index_key, len(study.batch.image), (size,), replace=False)
            x = vae_jax.binarize(pixel_key, jnp.take(study.batch.image, index, axis=0))

            def objective(encoder: Any) -> jax.Array:
                new = {**params, "encoder": encoder}
                return vae_jax.autoencode(
                    draw_key,
                    x,
                    lambda x: model.encode(new, x),
                    model.prior(new),
                    lambda z: model.decode(new, z),
                    num_draws,
                ).value.mean()

            return jax.grad(objective)(params["encoder"])

        keys = jax.random.split(study.key("gradient noise"), NUM_GRADIENTS)
        drawn = jax.jit(lambda keys: jax.lax.map(gradient, keys))(keys)
        return sum(jnp.var(leaf, axis=0, ddof=1).sum() for leaf in jax.tree.leaves(drawn))

    tables = []
    for fresh in (False, True):
        variances = np.array([variance(num, fresh=fresh) for num in NUM_DRAWS])
        tables.append(variances / variances[-1])
    return tables[0], tables[1]


def draw_steps(curves: dict[str, np.ndarray]) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.6, sharey=True)
    turns, joint = curves["alternating"], curves["joint"]
    pair = np.arange(len(turns)) / 2
    axes[0].plot(pair, turns, color=drawing.GREY, linewidth=1)
    for first, marker, colour, label in (
        (1, "s", drawing.ORANGE, "after $\\theta$"),
        (2, "o", drawing.BLUE, "after $\\phi$"),
    ):
        settings = {"color": colour, "markersize": 4, "label": label}
        axes[0].plot(pair[first::2], turns[first::2], marker, **settings)
    axes[1].plot(joint, "o-", color=drawing.GREEN, markersize=4, label="after both")
    for panel, title in zip(axes, ("in turn", "together"), strict=True):
        panel.set(title=title, xlabel="pairs of steps")
        panel.legend(loc="lower right")
    axes[0].set_ylabel("ELBO of one minibatch, nats")
    axes[1].set_xlabel("joint steps")
    return page.figure(
        figure,
        "Left, a staircase: the bound after each step of the decoder and each step of the encoder. "
        "Right, a smooth curve of joint steps that rises as high.",
        "The bound of one minibatch with fixed draws, from the same parameters.",
    )


def draw_turns(curves: dict[str, np.ndarray]) -> page.Figure:
    figure, axes = drawing.panels(height=2.6)
    for curve, colour, style, label in zip(
        *(curves.values(), (drawing.BLUE, drawing.ORANGE), ("-", "--"), ("together", "in turn")),
        strict=True,
    ):
        axes.plot(np.arange(1, len(curve) + 1), curve, style, color=colour, label=label)
    end = curves["joint"][-1]
    start = curves["joint"][len(curves["joint"]) // 30]
    axes.set(xlabel="steps", ylabel="ELBO, nats", ylim=(start, end + 0.1 * (end - start)))
    axes.legend(loc="lower right")
    return page.figure(
        figure,
        "Two rising curves of the training ELBO against steps; the joint steps' is above.",
        "The training ELBO, mean of the last 50 steps.",
    )


def draw_draws(by_draws: dict[int, Trained]) -> page.Figure:
    figure, axes = drawing.panels(1, 2, 2.5, sharey=True)
    styles = zip((drawing.BLUE, drawing.ORANGE, drawing.GREEN), ("-", "--", ":"), strict=True)
    for (num_draws, trained), (colour, style) in zip(by_draws.items(), styles, strict=True):
        curve = smooth(np.asarray(trained.metrics.aux.value))
        step = np.arange(1, len(curve) + 1)
        step, curve = step[20:], curve[20:]  # the first means are of a few steps only
        settings = {"color": colour, "linestyle": style, "label": f"$S = {num_draws}$"}
        axes[0].plot(step, curve, **settings)
        axes[1].plot(step * trained.seconds / step[-1], curve, **settings)
    low = smooth(np.asarray(by_draws[1].metrics.aux.value))[len(step) // 20]
    axes[0].set(xlabel="steps", ylabel="ELBO, nats", ylim=(low, None))
    axes[1].set(xlabel="seconds", xscale="log")
    axes[0].legend(loc="lower right")
    return page.figure(
        figure,
        "Training ELBO for 1, 5 and 50 draws: against steps more draws are ahead; against seconds "
        "fifty are far behind.",
        "The training ELBO, mean of the last 50 steps, against steps and against the clock.",
    )
