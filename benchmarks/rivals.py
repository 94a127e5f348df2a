"""The same training written with JAX, NumPyro and Flax as their examples do it.

A contestant is `make(workload, batch_size, images) -> Trainer`, of uint8 images [N, D].
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.training import train_state

import vae_jax
from benchmarks import dense
from benchmarks.workloads import Workload, make_optimizer, make_state, smallest
from vae_jax.evaluation import batched


class Trainer(NamedTuple):
    """Somebody who trains.

    Attributes:
      run: trains for one pass over the images and returns when it is done, with the mean loss per
        example in nats.
      model: what is trained as a VAE of ours on x [*b, *event], for `benchmarks.quality`.
      params: () -> that model's parameters as they are now, copied to NumPy arrays.
      event: shape of one x.
    """

    run: Callable[[], float]
    model: vae_jax.VAE | None = None
    params: Callable[[], Any] | None = None
    event: tuple[int, ...] = (784,)


def vae_jax_epoch(
    workload: Workload, batch_size: int, images: np.ndarray, precision: str = "float32"
) -> Trainer:
    """This library: an epoch is one compiled scan over bytes on the device."""
    started = make_state(workload, precision)
    return compiled_epochs(*started, images.reshape(-1, *workload.image_shape), batch_size)


def compiled_epochs(
    state: vae_jax.TrainState, loss: Any, optimizer: Any, images: np.ndarray, batch_size: int
) -> Trainer:
    """This library's `make_train_epoch`, pass by pass over bytes on the device."""
    train_epoch = vae_jax.make_train_epoch(loss, optimizer)
    dataset = vae_jax.Batch(jnp.asarray(images))
    epoch = 0

    def run() -> float:
        nonlocal state, epoch
        order = vae_jax.shuffle(state.key, epoch, num_examples=len(images), batch_size=batch_size)
        state, metrics = train_epoch(state, dataset, order)
        epoch += 1
        return float(metrics.loss.mean())

    return Trainer(run, params=lambda: jax.tree.map(np.array, state.params), event=images.shape[1:])


def vae_jax_replicas(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    *,
    replicas: int,
    precision: str = "float32",
) -> Trainer:
    """This library, several models of different seeds at once."""
    state, loss, optimizer = make_state(workload, precision)
    states = [state._replace(key=key) for key in jax.random.split(state.key, replicas)]
    dataset = vae_jax.Batch(jnp.asarray(images.reshape(-1, *workload.image_shape)))
    order_of = partial(vae_jax.shuffle, num_examples=len(images), batch_size=batch_size)
    passes = at_once(vae_jax.make_train_epoch(loss, optimizer), states, dataset, order_of)
    return Trainer(lambda: float(passes.run().mean()), params=passes.params)


class Passes(NamedTuple):
    """Trainings that make their passes at once.

    Attributes:
      run: a pass of each, done when it returns; the losses of the steps, [R, steps].
      params: () -> the parameters as they are now, copied to NumPy arrays [R, ...].
      temporary_bytes: of the programs that run at once.
    """

    run: Callable[[], np.ndarray]
    params: Callable[[], Any]
    temporary_bytes: int


def at_once(
    train_epoch: Any,
    states: Sequence[vae_jax.TrainState],
    dataset: Any,
    order_of: Callable[[jax.Array, Any], jax.Array],
) -> Passes:
    """Compiles what takes R states through pass after pass, as `--seeds` does.

    On a CPU a pass is a call of one state's program, in as many threads as there are cores: the
    numbers are those of each alone, and so is the time. Under vmap eight took 1.2 times that: XLA's
    batched products took 1.2 to 1.3 times as long as plain ones, Adam on eight models' moments,
    which no cache holds, 1.5 times. On an accelerator, which has one program after another, vmap it
    is.

    Args:
      train_epoch: from `vae_jax.make_train_epoch`.
      states: copied.
      dataset: as `train_epoch` takes it.
      order_of: key of a state, epoch -> order of its examples.
    """
    keys = [state.key for state in states]
    parts = [jax.tree.map(jnp.copy, state) for state in states]  # a call takes what it is given
    lower = train_epoch.lower
    vmapped = len(states) > 1 and jax.default_backend() != "cpu"
    if vmapped:
        parts, keys = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)], [jnp.stack(keys)]
        of_all = jax.vmap(train_epoch, in_axes=(0, None, 0, None, None))
        # A function of its own: vmap and jit keep the attributes of theirs, `lower` with them.
        lower = jax.jit(lambda *call: of_all(*call), donate_argnums=0).lower
        order_of = jax.vmap(order_of, in_axes=(0, None))
    order = order_of(keys[0], 0)
    bounds = jnp.int32(0), jnp.int32(order.shape[-2])
    program = lower(parts[0], dataset, order, *bounds).compile()
    num_threads = min(len(parts), batched.num_cores())
    pool, epoch = ThreadPoolExecutor(num_threads), 0

    def pass_of(i: int) -> np.ndarray:
        parts[i], metrics = program(parts[i], dataset, order_of(keys[i], epoch), *bounds)
        return np.asarray(metrics.loss)

    def run() -> np.ndarray:
        nonlocal epoch
        losses = np.stack(list(pool.map(pass_of, range(len(parts)))))
        epoch += 1
        return losses.reshape(len(states), -1)

    def params() -> Any:
        of_parts = [part.params for part in parts]
        if vmapped:
            return jax.tree.map(np.array, of_parts[0])
        return jax.tree.map(lambda *leaves: np.stack(leaves), *of_parts)

    return Passes(run, params, num_threads * program.memory_analysis().temp_size_in_bytes)


def vae_jax_step(workload: Workload, batch_size: int, images: np.ndarray) -> Trainer:
    """This library, one call of a compiled step for each minibatch."""
    state, loss, optimizer = make_state(workload, "float32")
    train_step = vae_jax.make_train_step(loss, optimizer)
    take = jax.jit(lambda dataset, order, i: vae_jax.Batch(jnp.take(dataset, order[i], axis=0)))
    dataset = jnp.asarray(images.reshape(-1, *workload.image_shape))
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

    return Trainer(run)


def numpyro_epoch(
    workload: Workload, batch_size: int, images: np.ndarray, seed: int = 0
) -> Trainer:
    """NumPyro's `examples/vae.py`: SVI updates in a `fori_loop` over grey floats on the device.

    Its softplus layers are the workload's here, and its sigmoid is left to the likelihood.
    """
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.module import flax_module

    encoder, decoder = FlaxEncoder(workload), FlaxDecoder(workload)
    event = workload.image_shape

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

    run, params = _numpyro_loop(model, guide, workload, batch_size, images, seed)

    def weights() -> dense.Weights:
        return flax_weights({part: params()[f"{part}$params"] for part in ("encoder", "decoder")})

    return Trainer(run, dense.model(workload.activation), weights, event)


def numpyro_example(
    workload: Workload, batch_size: int, images: np.ndarray, seed: int = 0
) -> Trainer:
    """NumPyro's `examples/vae.py` as it stands: its networks of stax, their small first weights.

    The deviation of q(z|x) is the exponential of a layer, so the log-variance is twice that.
    """
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax

    (event,), (width,), latent_dim = workload.image_shape, workload.hidden, workload.latent_dim

    def layer(units: int) -> Any:
        return stax.Dense(units, W_init=stax.randn())

    deviation = stax.serial(layer(latent_dim), stax.Exp)
    heads = stax.FanOut(2), stax.parallel(layer(latent_dim), deviation)
    encoder = stax.serial(layer(width), stax.Softplus, *heads)
    decoder = stax.serial(layer(width), stax.Softplus, layer(event), stax.Sigmoid)

    def model(x: jax.Array) -> None:
        decode = numpyro.module("decoder", decoder, (len(x), latent_dim))
        with numpyro.plate("batch", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([latent_dim]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(decode(z)).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        mean, scale = numpyro.module("encoder", encoder, (len(x), event))(x)
        with numpyro.plate("batch", len(x)):
            numpyro.sample("z", dist.Normal(mean, scale).to_event(1))

    run, params = _numpyro_loop(model, guide, workload, batch_size, images, seed)

    def weights() -> dense.Weights:
        first, _, _, (mean, (log_scale, _)) = params()["encoder$params"]
        hidden, _, logits, _ = params()["decoder$params"]
        log_variance = [2 * of for of in log_scale]
        return dense.weights([first, mean, log_variance], [hidden, logits])

    return Trainer(run, dense.model("softplus"), weights, (event,))


def _numpyro_loop(
    model: Any, guide: Any, workload: Workload, batch_size: int, images: np.ndarray, seed: int
) -> tuple[Callable[[], float], Callable[[], Any]]:
    """What runs a pass of the example's training, and what gives the parameters."""
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO

    optimizer = numpyro.optim.Adam(workload.learning_rate)
    if workload.num_steps:
        optimizer = numpyro.optim.optax_to_numpyro(make_optimizer(workload))
    svi = SVI(model, guide, optimizer, Trace_ELBO())
    event = workload.image_shape
    grey = jnp.asarray(images.reshape(-1, *event), jnp.float32) / 255
    state = svi.init(jax.random.PRNGKey(seed), jnp.zeros((batch_size, *event)))
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
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        key = jax.random.fold_in(jax.random.PRNGKey(seed), epoch)
        state, total = train(state, key, order)
        return float(total) / (steps * batch_size)

    return run, lambda: svi.get_params(state)


def flax_blocks(workload: Workload, x: jax.Array) -> jax.Array:
    """Within a module: pairs of convolutions with a way around each."""
    activation = getattr(nn, workload.activation)
    for _ in range(workload.blocks):
        inner = nn.Conv(x.shape[-1], (3, 3))(activation(x))
        x = x + nn.Conv(x.shape[-1], (3, 3))(activation(inner))
    return x


class FlaxEncoder(nn.Module):
    """Mean and log-variance."""

    workload: Workload

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        activation = getattr(nn, self.workload.activation)
        for channels in self.workload.channels:
            x = nn.Conv(channels, (3, 3), strides=2)(x)
            x = activation(flax_blocks(self.workload, x))
        x = x.reshape(len(x), -1)
        for width in self.workload.hidden:
            x = activation(nn.Dense(width)(x))
        return nn.Dense(self.workload.latent_dim)(x), nn.Dense(self.workload.latent_dim)(x)


class FlaxDecoder(nn.Module):
    """Logits."""

    workload: Workload

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        activation = getattr(nn, self.workload.activation)
        for width in self.workload.hidden[::-1]:
            z = activation(nn.Dense(width)(z))
        if not self.workload.channels:
            return nn.Dense(*self.workload.image_shape)(z)
        low = smallest(self.workload)
        x = nn.Dense(math.prod(low))(z).reshape(len(z), *low)
        for channels in (*self.workload.channels[-2::-1], self.workload.image_shape[-1]):
            x = activation(flax_blocks(self.workload, x))
            x = nn.ConvTranspose(channels, (3, 3), strides=(2, 2))(x)
        return x


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


def flax_weights(params: Any) -> dense.Weights:
    """Of `FlaxVAE`, of dense layers."""
    encoder, decoder = (
        [(layers[f"Dense_{i}"]["kernel"], layers[f"Dense_{i}"]["bias"]) for i in range(len(layers))]
        for layers in (params["encoder"], params["decoder"])
    )
    return dense.weights(encoder, decoder)


def flax_train_step(
    state: train_state.TrainState, x: jax.Array, key: jax.Array, workload: Workload, binarize: str
) -> tuple[train_state.TrainState, jax.Array]:
    if binarize == "afresh":
        key, binarize_key = jax.random.split(key)
        x = jax.random.bernoulli(binarize_key, x).astype(x.dtype)
    loss, gradient = jax.value_and_grad(flax_loss)(state.params, x, key, workload)
    return state.apply_gradients(grads=gradient), loss


def flax_epoch(
    workload: Workload,
    batch_size: int,
    images: np.ndarray,
    *,
    jit: bool,
    binarize: str = "once",
    seed: int = 0,
) -> Trainer:
    """Flax's `examples/vae`: a step for each minibatch of binary floats, sliced on the host.

    The example does not compile its step. Its input pipeline, not ours to time, is a NumPy slice.
    Its images are binarized once; with `binarize` "afresh" each batch is.
    """
    train_step = partial(flax_train_step, workload=workload, binarize=binarize)
    if jit:
        train_step = jax.jit(train_step)
    event = workload.image_shape
    generator = np.random.default_rng(seed)
    data = images.astype(np.float32) / 255
    if binarize == "once":
        data = (generator.random(images.shape, np.float32) < data).astype(np.float32)
    data = data.reshape(-1, *event)
    key = jax.random.key(seed)
    params = FlaxVAE(workload).init(key, jnp.ones((batch_size, *event)), key)["params"]
    state = train_state.TrainState.create(apply_fn=None, params=params, tx=make_optimizer(workload))

    def run() -> float:
        nonlocal state, key
        order = generator.permutation(len(data))
        losses = []
        for start in range(0, len(data) - batch_size + 1, batch_size):
            key, step_key = jax.random.split(key)
            batch = jnp.asarray(data[order[start : start + batch_size]])
            state, loss = train_step(state, batch, step_key)
            losses.append(loss)
        return float(jnp.stack(losses).mean())

    model = dense.model(workload.activation)
    return Trainer(run, model, lambda: flax_weights(state.params), event)
