"""The same training written with JAX, NumPyro and Flax as their examples do it.

A contestant is `make(workload, batch_size, images) -> run`, where `run()` trains for one pass over
the uint8 images and returns when it is done, with the mean loss per example in nats.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

import vae_jax
from benchmarks.workloads import LEARNING_RATE, Workload, image_shape, make_state

Run = Callable[[], float]


def vae_jax_epoch(
    workload: Workload, batch_size: int, images: np.ndarray, precision: str = "float32"
) -> Run:
    """This library: an epoch is one compiled scan over bytes on the device."""
    state, loss, optimizer = make_state(workload, precision)
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)
    dataset = vae_jax.Batch(jnp.asarray(images.reshape(-1, *image_shape(workload))))
    epoch = 0

    def run() -> float:
        nonlocal state, epoch
        order = vae_jax.shuffle(state.key, epoch, num_examples=len(images), batch_size=batch_size)
        state, metrics = train_epoch(state, dataset, order)
        epoch += 1
        return float(metrics.loss.mean())

    return run


def vae_jax_replicas(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    *,
    replicas: int,
    precision: str = "float32",
) -> Run:
    """This library, several models of different seeds at once: an epoch of each under vmap."""
    state, loss, optimizer = make_state(workload, precision)
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)
    dataset = vae_jax.Batch(jnp.asarray(images.reshape(-1, *image_shape(workload))))
    keys = jax.random.split(state.key, replicas)
    states = jax.vmap(lambda key: state._replace(key=key))(keys)
    train_all = jax.jit(jax.vmap(train_epoch, in_axes=(0, None, 0)), donate_argnums=0)
    epoch = 0

    @jax.jit
    def orders(keys: jax.Array, epoch: int) -> jax.Array:
        shuffle = partial(vae_jax.shuffle, num_examples=len(images), batch_size=batch_size)
        return jax.vmap(shuffle, in_axes=(0, None))(keys, epoch)

    def run() -> float:
        nonlocal states, epoch
        states, metrics = train_all(states, dataset, orders(states.key, epoch))
        epoch += 1
        return float(metrics.loss.mean())

    return run


def vae_jax_step(workload: Workload, batch_size: int, images: np.ndarray) -> Run:
    """This library, one call of a compiled step for each minibatch."""
    state, loss, optimizer = make_state(workload, "float32")
    train_step = vae_jax.make_train_step(loss, optimizer)
    take = jax.jit(lambda dataset, order, i: vae_jax.Batch(jnp.take(dataset, order[i], axis=0)))
    dataset = jnp.asarray(images.reshape(-1, *image_shape(workload)))
    epoch = 0

    def run() -> float:
        nonlocal state, epoch
        order = vae_jax.shuffle(state.key, epoch, num_examples=len(images), batch_size=batch_size)
        losses = []
        for i in range(len(order)):
            state, metrics = train_step(state, take(dataset, order, i))
            losses.append(metrics.loss)
        epoch += 1
        return float(jnp.stack(losses).mean())

    return run


def numpyro_epoch(workload: Workload, batch_size: int, images: np.ndarray) -> Run:
    """NumPyro's `examples/vae.py`: SVI updates in a `fori_loop` over grey floats on the device.

    The example's softplus layers are ReLU here, and its sigmoid is left to the likelihood.
    """
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.module import flax_module
    from numpyro.infer import SVI, Trace_ELBO

    encoder, decoder = FlaxEncoder(workload), FlaxDecoder(workload)
    event = image_shape(workload)

    def model(x: jax.Array) -> None:
        decode = flax_module("decoder", decoder, input_shape=(1, workload.latent_dim))
        with numpyro.plate("batch", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([workload.latent_dim]).to_event(1))
            likelihood = dist.Bernoulli(logits=decode(z)).to_event(len(event))
            numpyro.sample("x", likelihood, obs=x)

    def guide(x: jax.Array) -> None:
        encode = flax_module("encoder", encoder, input_shape=(1, *event))
        mean, log_variance = encode(x)
        with numpyro.plate("batch", x.shape[0]):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    grey = jnp.asarray(images.reshape(-1, *event), jnp.float32) / 255
    state = svi.init(jax.random.PRNGKey(0), jnp.zeros((batch_size, *event)))
    steps, epoch = len(images) // batch_size, 0

    @jax.jit
    def train(state: Any, key: jax.Array, order: jax.Array) -> tuple[Any, jax.Array]:
        def step(i: Any, carry: Any) -> Any:
            state, total = carry
            index = jax.lax.dynamic_slice_in_dim(order, i * batch_size, batch_size)
            batch = jnp.take(grey, index, axis=0)
            x = jax.random.bernoulli(jax.random.fold_in(key, i), batch).astype(batch.dtype)
            state, loss = svi.update(state, x)
            return state, total + loss

        return jax.lax.fori_loop(0, steps, step, (state, jnp.float32(0)))

    def run() -> float:
        nonlocal state, epoch
        epoch += 1
        order = np.random.default_rng(epoch).permutation(len(images))
        state, total = train(state, jax.random.PRNGKey(epoch), order)
        return float(total) / (steps * batch_size)

    return run


class FlaxEncoder(nn.Module):
    """Mean and log-variance."""

    workload: Workload

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for channels in self.workload.channels:
            x = nn.relu(nn.Conv(channels, (3, 3), strides=2)(x))
        x = x.reshape(len(x), -1)
        for width in self.workload.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.workload.latent_dim)(x), nn.Dense(self.workload.latent_dim)(x)


class FlaxDecoder(nn.Module):
    """Logits."""

    workload: Workload

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for width in self.workload.hidden[::-1]:
            z = nn.relu(nn.Dense(width)(z))
        if not self.workload.channels:
            return nn.Dense(784)(z)
        *rest, last = self.workload.channels
        side = 28 // 2 ** len(self.workload.channels)
        x = nn.relu(nn.Dense(side * side * last)(z)).reshape(len(z), side, side, last)
        for channels in rest[::-1]:
            x = nn.relu(nn.ConvTranspose(channels, (3, 3), strides=(2, 2))(x))
        return nn.ConvTranspose(1, (3, 3), strides=(2, 2))(x)


class FlaxVAE(nn.Module):
    workload: Workload

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, log_variance = FlaxEncoder(self.workload, name="encoder")(x)
        noise = jax.random.normal(key, mean.shape)
        z = mean + jnp.exp(0.5 * log_variance) * noise
        return FlaxDecoder(self.workload, name="decoder")(z), mean, log_variance


@jax.vmap
def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_p = nn.log_sigmoid(logits)
    return -jnp.sum(labels * log_p + (1.0 - labels) * jnp.log(-jnp.expm1(log_p)))


@jax.vmap
def _kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(1 + log_variance - jnp.square(mean) - jnp.exp(log_variance))


def flax_loss(params: Any, x: jax.Array, key: jax.Array, workload: Workload) -> jax.Array:
    logits, mean, log_variance = FlaxVAE(workload).apply({"params": params}, x, key)
    return (_cross_entropy(logits, x) + _kl_divergence(mean, log_variance)).mean()


def flax_train_step(
    state: train_state.TrainState, x: jax.Array, key: jax.Array, workload: Workload
) -> tuple[train_state.TrainState, jax.Array]:
    loss, gradient = jax.value_and_grad(flax_loss)(state.params, x, key, workload)
    return state.apply_gradients(grads=gradient), loss


def flax_epoch(workload: Workload, batch_size: int, images: np.ndarray, *, jit: bool) -> Run:
    """Flax's `examples/vae`: a step for each minibatch of binary floats, sliced on the host.

    The example does not compile its step. Its input pipeline, not ours to time, is a NumPy slice.
    """
    train_step = partial(flax_train_step, workload=workload)
    if jit:
        train_step = jax.jit(train_step)
    event = image_shape(workload)
    generator = np.random.default_rng(0)
    binary = (generator.random(images.shape, np.float32) * 255 < images).astype(np.float32)
    binary = binary.reshape(-1, *event)
    key = jax.random.key(0)
    params = FlaxVAE(workload).init(key, jnp.ones((batch_size, *event)), key)["params"]
    state = train_state.TrainState.create(
        apply_fn=None, params=params, tx=optax.adam(LEARNING_RATE)
    )

    def run() -> float:
        nonlocal state, key
        order = generator.permutation(len(binary))
        losses = []
        for start in range(0, len(binary) - batch_size + 1, batch_size):
            key, step_key = jax.random.split(key)
            batch = jnp.asarray(binary[order[start : start + batch_size]])
            state, loss = train_step(state, batch, step_key)
            losses.append(loss)
        return float(jnp.stack(losses).mean())

    return run
