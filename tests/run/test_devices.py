"""Many devices compute what one does: the same order, the same noise, the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import vae_jax
from vae_jax import checkpoint, networks
from vae_jax.run.data import stream

NUM_EXAMPLES, NUM_PIXELS, BATCH_SIZE, LATENT_DIM = 200, 48, 16, 4
STEPS = NUM_EXAMPLES // BATCH_SIZE
IMAGES = np.random.default_rng(0).integers(256, size=(NUM_EXAMPLES, NUM_PIXELS), dtype=np.uint8)
MODEL = vae_jax.make_vae(
    networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(32,))),
    networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(32,))),
    LATENT_DIM,
)
ADAM = optax.adam(1e-3)

pytestmark = pytest.mark.relax("numpy_dtype_promotion")  # Adam's


def loss(params, key, batch):
    binarize_key, draw_key = jax.random.split(key)
    x = vae_jax.binarize(binarize_key, batch.image)
    posterior = MODEL.encode(params, x)
    z = vae_jax.sample(draw_key, posterior)
    bound = vae_jax.elbo(x, z, posterior, MODEL.prior(params), MODEL.decode(params, z))
    return -bound.value.mean(), bound


def mesh_of(num_devices):
    devices = jax.devices()[:num_devices]
    return jax.make_mesh((num_devices,), ("data",), (AxisType.Auto,), devices=devices)


def fresh(dtype=jnp.float32):
    init_key, train_key = jax.random.split(jax.random.key(0))
    params = jax.jit(MODEL.init)(init_key, jnp.zeros((1, NUM_PIXELS)))
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    return vae_jax.init_state(train_key, params, ADAM, average=True)


def placed(num_devices, shard_parameters=False, dtype=jnp.float32):
    """A fresh state on some devices, and its sharding."""
    state = fresh(dtype)
    sharding = vae_jax.state_sharding(
        state, mesh_of(num_devices), shard_parameters=shard_parameters
    )
    return jax.device_put(state, sharding), sharding


def train(num_devices, num_epochs, read=stream.resident, shard_parameters=False, accumulate=1):
    """The losses of all steps and the last state."""
    state, sharding = placed(num_devices, shard_parameters)
    key = jax.random.split(jax.random.key(0))[1]
    train_epoch = vae_jax.make_train_epoch(loss, ADAM, sharding=sharding, accumulate=accumulate)

    def order_of(epoch):
        order = vae_jax.shuffle(key, epoch, num_examples=NUM_EXAMPLES, batch_size=BATCH_SIZE)
        shape = (STEPS, BATCH_SIZE) if accumulate == 1 else (STEPS, accumulate, -1)
        return np.asarray(order).reshape(shape)

    losses = []
    for piece in read(vae_jax.Batch(IMAGES), order_of, mesh_of(num_devices), 0, num_epochs):
        stop = piece.stop - piece.start
        state, metrics = train_epoch(state, piece.dataset, piece.order, 0, stop)
        losses.extend(np.asarray(metrics.loss)[:stop])
        assert state.params["encoder"]["network"]["bias"].sharding.num_devices == num_devices
    return np.array(losses), state


@pytest.fixture(scope="module")
def on_one():
    return train(1, 17)


@pytest.mark.few(2)
@pytest.mark.parametrize("read", [stream.resident, stream.stream])
@pytest.mark.parametrize("shard_parameters", [False, True])
@pytest.mark.parametrize("num_devices", [2, 8])
def test_many_devices_lose_what_one_does(on_one, monkeypatch, num_devices, shard_parameters, read):
    monkeypatch.setattr(stream, "_PIECE_BYTES", 5 * BATCH_SIZE * NUM_PIXELS)
    losses, state = train(num_devices, 17, read, shard_parameters)
    assert len(losses) == 17 * STEPS > 200
    np.testing.assert_allclose(losses, on_one[0], rtol=1e-4)
    assert state.step == len(losses)


def test_a_stream_is_the_resident_data_bit_for_bit(on_one, monkeypatch):
    monkeypatch.setattr(stream, "_PIECE_BYTES", 5 * BATCH_SIZE * NUM_PIXELS)
    streamed, state = train(1, 17, stream.stream)
    np.testing.assert_array_equal(streamed, on_one[0])
    jax.tree.map(np.testing.assert_array_equal, state.params, on_one[1].params)


@pytest.mark.long
@pytest.mark.parametrize("shard_parameters", [False, True])
def test_no_deadlock_in_2000_steps(shard_parameters):
    losses, _ = train(8, 2000 // STEPS + 1, shard_parameters=shard_parameters)
    assert len(losses) > 2000
    assert np.isfinite(losses).all()


def test_a_device_holds_its_share_of_a_sharded_state():
    for shard_parameters, share in (False, 1), (True, 8):
        state, _ = placed(8, shard_parameters)
        for leaf in (state.params, state.opt_state[0].mu, state.average):
            weight = leaf["decoder"]["network"]["Dense_0"]["kernel"]
            assert weight.addressable_shards[0].data.size * share == weight.size
    # What 8 does not divide is whole on each.
    odd = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros((3, 5))}, optax.sgd(0.1))
    sharding = vae_jax.state_sharding(odd, mesh_of(8), shard_parameters=True)
    assert sharding.params["w"].spec == PartitionSpec()


def test_a_step_over_devices_is_gradient_descent():
    """Against NumPy, with batches that differ from device to device."""

    def squared_error(params, key, batch):
        return 0.5 * jnp.square(params["w"][None] - batch).sum(-1).mean(), None

    optimizer, mesh = optax.sgd(0.1), mesh_of(4)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.ones(8)}, optimizer)
    sharding = vae_jax.state_sharding(state, mesh, shard_parameters=True)
    step = vae_jax.make_train_step(squared_error, optimizer, sharding=sharding)
    state = jax.device_put(state, sharding)
    w = np.ones(8)
    for batch in np.random.default_rng(0).normal(size=(3, 12, 8)).astype(np.float32):
        split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        state, metrics = step(state, split)
        np.testing.assert_allclose(metrics.loss, 0.5 * np.square(w - batch).sum(-1).mean(), 1e-5)
        w -= 0.1 * (w - batch.mean(0))
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)


# Parts of a batch


@pytest.mark.parametrize("num_devices", [1, 4])
def test_parts_add_up_to_the_gradient_of_the_batch(num_devices):
    def noiseless(params, key, batch):
        return jnp.square(params["w"][None] - batch).mean(), {"error": params["w"][None] - batch}

    batch = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.ones(3)}, ADAM)
    sharding = vae_jax.state_sharding(state, mesh_of(num_devices))
    at_once = vae_jax.make_train_step(noiseless, ADAM)(jax.tree.map(jnp.copy, state), batch)
    step = vae_jax.make_train_step(noiseless, ADAM, accumulate=4, sharding=sharding)
    parts = jax.device_put(
        batch.reshape(4, 4, 3), NamedSharding(sharding.step.mesh, PartitionSpec(None, "data"))
    )
    in_parts = step(jax.device_put(state, sharding), parts)
    np.testing.assert_allclose(in_parts[0].params["w"], at_once[0].params["w"], rtol=1e-6)
    np.testing.assert_allclose(in_parts[1].loss, at_once[1].loss, rtol=1e-6)
    np.testing.assert_allclose(in_parts[1].aux["error"], at_once[1].aux["error"], rtol=1e-5)


def test_parts_have_noise_of_their_own():
    def draw(params, key, batch):
        noise = jax.random.normal(key)
        return noise * params["w"].sum(), noise

    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(1)}, optax.sgd(1.0))
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), 0)
    expected = np.mean([jax.random.normal(k) for k in jax.random.split(key, 4)])
    step = vae_jax.make_train_step(draw, optax.sgd(1.0), accumulate=4)
    state, metrics = step(state, jnp.zeros((4, 1)))
    np.testing.assert_allclose(metrics.aux, expected, rtol=1e-6)
    np.testing.assert_allclose(state.params["w"], -expected, rtol=1e-6)


def test_accumulation_over_devices_is_that_of_one():
    one, _ = train(1, 3, accumulate=2)
    for read in (stream.resident, stream.stream):
        many, _ = train(8, 3, read, accumulate=2)
        np.testing.assert_allclose(many, one, rtol=1e-4)


# Checkpoints


@pytest.mark.few(4)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shard_parameters", [False, True])
@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (8, 2), (1, 8), (2, 8)])
def test_a_checkpoint_goes_to_any_number_of_devices(
    tmp_path, saved_on, restored_on, shard_parameters, dtype
):
    state, _ = placed(saved_on, shard_parameters, dtype)
    other, sharding = placed(restored_on, shard_parameters, dtype)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state, {})
        like = jax.tree.map(jnp.zeros_like, other._replace(key=None))._replace(key=other.key)
        restored = checkpoint.restore(checkpoints, jax.device_put(like, sharding))
    assert jax.tree.map(lambda x: x.sharding, restored) == sharding
    for a, b in zip(
        jax.tree.leaves(restored._replace(key=None)),
        jax.tree.leaves(state._replace(key=None)),
        strict=True,
    ):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    np.testing.assert_array_equal(*(jax.random.key_data(s.key) for s in (restored, state)))


# Rematerialisation


def test_remat_changes_no_loss_and_keeps_no_activation_of_the_decoder():
    """As --remat does. What is kept is counted before XLA, which on a CPU undoes it."""
    pixels, batch_size = 64, 512
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(32,))),
        networks.BernoulliDecoder(networks.MLP((pixels,), hidden=(256,) * 4)),
        LATENT_DIM,
    )
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, pixels)))
    random = np.random.default_rng(0)
    batch = vae_jax.Batch(jnp.asarray(random.integers(256, size=(batch_size, pixels)), jnp.uint8))

    def losses_and_kept(decode):
        loss = vae_jax.make_loss(model._replace(decode=decode), observe=vae_jax.binarize)

        def residuals(params):
            return jax.vjp(lambda params: loss(params, jax.random.key(1), batch)[0], params)[1]

        kept = sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(residuals, params))
        )
        state = vae_jax.init_state(jax.random.key(1), jax.tree.map(jnp.copy, params), ADAM)
        step, losses = vae_jax.make_train_step(loss, ADAM), []
        for _ in range(5):
            state, metrics = step(state, batch)
            losses.append(float(metrics.loss))
        return losses, kept

    losses, kept = losses_and_kept(model.decode)
    again, kept_again = losses_and_kept(jax.checkpoint(model.decode))
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    activations = 4 * batch_size * 256 * 4  # of the hidden layers
    assert kept_again <= kept - activations
