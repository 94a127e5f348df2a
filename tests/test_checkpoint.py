"""What is saved comes back bit for bit, and a run goes on from it as if it had never stopped."""

import errno
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import _checksum, checkpoint, networks

ROOT = Path(__file__).parents[1]
NUM_EXAMPLES, NUM_PIXELS, BATCH_SIZE, LATENT_DIM = 20, 4, 5, 2
DATA = vae_jax.Batch(
    np.random.default_rng(0).integers(256, size=(NUM_EXAMPLES, NUM_PIXELS), dtype=np.uint8)
)
ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, 100))


def make_model(hidden=3):
    return vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(hidden,))),
        networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(hidden,))),
        LATENT_DIM,
    )


def fresh_state(seed=0, hidden=3, optimizer=ADAM, average=True):
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params = jax.jit(make_model(hidden).init)(init_key, jnp.zeros((1, NUM_PIXELS)))
    with jax.numpy_dtype_promotion("standard"):
        return vae_jax.init_state(train_key, params, optimizer, average=average)


def loss(params, key, batch):
    model = make_model()
    binarize_key, draw_key = jax.random.split(key)
    x = vae_jax.binarize(binarize_key, batch.image)
    posterior = model.encode(params, x)
    z = vae_jax.sample(draw_key, posterior)
    bound = vae_jax.elbo(x, z, posterior, model.prior(params), model.decode(params, z))
    return -bound.value.mean(), bound


train_epoch = vae_jax.make_train_epoch(loss, ADAM, average_decay=0.9)


def train(state, num_epochs):
    """Goes on for some epochs from wherever the state stands."""
    steps = NUM_EXAMPLES // BATCH_SIZE
    for _ in range(num_epochs):
        epoch = state.step // steps
        order = vae_jax.shuffle(state.key, epoch, num_examples=NUM_EXAMPLES, batch_size=BATCH_SIZE)
        state, metrics = train_epoch(state, DATA, order)
    return state, metrics


def bits(tree):
    """Arrays on the host, the words behind a typed key for the key."""

    def of(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.array(leaf)

    return jax.tree.map(of, tree)


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, bits(tree), bits(other))


@pytest.fixture(scope="module")
def trained():
    """A state after two epochs, on the host; each test takes its own copy."""
    return jax.tree.map(np.array, train(fresh_state(), 2)[0]._replace(key=None))


@pytest.fixture
def state(trained):
    key = fresh_state().key
    return jax.tree.map(jnp.array, trained)._replace(key=key)


@pytest.fixture
def checkpoints(tmp_path):
    with checkpoint.manager(tmp_path / "checkpoints", keep=2) as manager:
        yield manager


def test_restored_is_what_was_saved_though_training_went_on(checkpoints, state):
    saved = bits(state)
    checkpoint.save(checkpoints, state, {})
    train(state, 1)  # donates the buffers that were saved
    assert state.params["encoder"]["network"]["bias"].is_deleted()
    restored = checkpoint.restore(checkpoints, fresh_state(seed=9))
    assert isinstance(restored, vae_jax.TrainState)
    assert_equal(restored, saved)
    assert jax.tree.map(lambda x: x.dtype, restored) == jax.tree.map(lambda x: x.dtype, state)


def test_typed_key_survives(checkpoints, state):
    checkpoint.save(checkpoints, state, {})
    restored = checkpoint.restore(checkpoints, fresh_state(seed=9))
    assert jnp.issubdtype(restored.key.dtype, jax.dtypes.prng_key)
    drawn = jax.random.normal(restored.key, 3)
    np.testing.assert_array_equal(drawn, jax.random.normal(state.key, 3))


def test_resumed_is_unbroken(tmp_path):
    unbroken, unbroken_metrics = train(fresh_state(), 4)
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, train(fresh_state(), 2)[0], {})
    with checkpoint.manager(tmp_path) as checkpoints:  # as another process would
        resumed, metrics = train(checkpoint.restore(checkpoints, fresh_state(seed=9)), 2)
    assert_equal(resumed, unbroken)
    assert_equal(metrics, unbroken_metrics)


def test_restores_into_shapes_alone(checkpoints, state):
    checkpoint.save(checkpoints, state, {})
    restored = checkpoint.restore(checkpoints, jax.eval_shape(fresh_state))
    assert_equal(restored, state)


def test_newest_are_kept_and_the_newest_is_restored(checkpoints, state):
    for step in (3, 7, 11):
        checkpoint.save(checkpoints, state._replace(step=jnp.int32(step)), {"step": step})
    assert checkpoints.all_steps() == [7, 11]
    assert checkpoint.restore(checkpoints, fresh_state()).step == 11
    assert checkpoint.restore_config(checkpoints) == {"step": 11}


def test_config_comes_back(checkpoints, state):
    config = {"hidden": [500, 500], "dataset": "mnist", "seed": 1, "rate": 1e-3, "clip": None}
    checkpoint.save(checkpoints, state, config)
    assert checkpoint.restore_config(checkpoints) == config


def test_distributions_among_the_parameters_survive(checkpoints):
    params = {
        "prior": vae_jax.MultivariateNormal(jnp.ones(2), 2 * jnp.eye(2)),
        "mixture": vae_jax.Joint((vae_jax.Normal(jnp.zeros((2, 3, 1)), 0.5, event_ndims=3),)),
    }
    state = vae_jax.init_state(jax.random.key(0), params, optax.sgd(0.1))
    other = vae_jax.init_state(
        jax.random.key(1), jax.tree.map(jnp.zeros_like, params), optax.sgd(1)
    )
    checkpoint.save(checkpoints, state, {})
    assert_equal(checkpoint.restore(checkpoints, other), state)


# Bad input


def test_no_checkpoint(checkpoints):
    for restore in (
        lambda: checkpoint.restore(checkpoints, fresh_state()),
        lambda: checkpoint.restore_config(checkpoints),
    ):
        with pytest.raises(checkpoint.CheckpointError, match="checkpoints holds no checkpoint"):
            restore()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"hidden": 4},
            r"step 8 is of another model or optimizer: params\.encoder\..* has shape "
            r"\(3, 4\) there and \(4, 4\) here",
        ),
        ({"optimizer": optax.sgd(0.1)}, r"opt_state\..* there and absent here"),
        ({"average": False}, r"average\..* has shape \(\d+,.*\) there and absent here"),
    ],
    ids=["hidden", "optimizer", "average"],
)
def test_checkpoint_of_another_model(checkpoints, state, other, message):
    checkpoint.save(checkpoints, state, {})
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore(checkpoints, jax.eval_shape(lambda: fresh_state(**other)))


# Damage


def test_any_byte_that_changes_on_disk_is_noticed(tmp_path):
    """The values of the file that holds them, wherever it is hit."""
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)}
    state = vae_jax.init_state(jax.random.key(0), params, optax.sgd(0.1))
    with checkpoint.manager(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, state, {})
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    assert len(content) > 3000
    for place in range(100, len(content), 500):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with (
            checkpoint.manager(tmp_path, read_only=True) as checkpoints,
            pytest.warns(RuntimeWarning, match="damaged"),
            pytest.raises(checkpoint.CheckpointError, match="can be read"),
        ):
            checkpoint.restore(checkpoints, state)


def murmur3(x):
    """The finaliser of MurmurHash3, in Python's integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * factor % 2**32
    return x ^ (x >> 16)


def test_the_checksum_tells_values_and_their_places():
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    words = x.view(np.uint32).ravel().tolist()
    (found,) = _checksum.mixed([jnp.asarray(x)])
    assert found == sum(murmur3(word ^ murmur3(i)) for i, word in enumerate(words)) % 2**32
    swapped = x.copy()
    swapped[0, :2] = x[0, 1::-1]
    for other in (-x, x[::-1], x[:, ::-1], swapped, np.where(x == x.max(), -x, x)):
        assert _checksum.mixed([jnp.asarray(other)]) != [found]
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert _checksum.mixed([jax.device_put(x, split)]) == [found]


PASSING = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EMFILE, "Too many open files"),
    MemoryError(),
    ValueError("""UNKNOWN: Error reading local file "/a": Failed to open [os_error_code='5']"""),
    ValueError("UNAVAILABLE: Error opening zarr driver: Error reading /a: OS error 116: stale"),
    ValueError("RESOURCE_EXHAUSTED: Error reading /a: Too many open files"),
]


@pytest.mark.few(3)
@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize("which", ["restore", "item_metadata"])
def test_an_error_that_can_pass_is_tried_again_then_fatal_and_is_no_damage(
    checkpoints, state, monkeypatch, error, which
):
    for step in (1, 2):
        checkpoint.save(checkpoints, state._replace(step=jnp.int32(step)), {})
    read, fails = getattr(checkpoints, which), iter([True, True])

    def fail(*args, **kwargs):
        if next(fails, False):
            raise error
        return read(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(checkpoints, which, fail)
    assert checkpoint.restore(checkpoints, fresh_state()).step == 2  # a warning would be an error
    fails = itertools.repeat(True)
    with pytest.raises(checkpoint.CheckpointError, match=r"step 2 in .* cannot be read now \("):
        checkpoint.restore(checkpoints, fresh_state())
    assert checkpoints.all_steps() == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file"),
        ValueError("NOT_FOUND: Error reading /a: No such file [os_error_code='2']"),
        ValueError("DATA_LOSS: Error decoding"),
    ],
    ids=repr,
)
def test_a_file_that_is_gone_or_wrong_is_damage_at_once(checkpoints, state, monkeypatch, error):
    for step in (1, 2):
        checkpoint.save(checkpoints, state._replace(step=jnp.int32(step)), {})
    read = checkpoints.restore

    def fail(step, **kwargs):
        if step == 2:
            raise error
        return read(step, **kwargs)

    monkeypatch.setattr(checkpoints, "restore", fail)
    with pytest.warns(RuntimeWarning, match="step 2 in .* is damaged"):
        assert checkpoint.restore(checkpoints, fresh_state()).step == 1
    (moved,) = checkpoint.set_aside(checkpoints, 1)
    assert checkpoints.all_steps() == [1]
    assert (moved / "state").is_dir()


def test_a_checkpoint_that_cannot_be_written_leaves_those_before_it(tmp_path):
    """A limit on the size of files stands for a full disk: writing fails half-way.

    What Orbax logs is looked at from there on, and not before: an import changes no logging.
    """
    program = f"""
import logging, resource, sys
sys.path[:0] = [{str(ROOT)!r}]
def filters():
    return [of for name in ("absl", "asyncio") for of in logging.getLogger(name).filters]
import orbax.checkpoint
before = filters()
import jax, jax.numpy as jnp, numpy as np, optax, vae_jax
from vae_jax import checkpoint
params = {{"w": jnp.asarray(np.random.default_rng(0).normal(size=10**5), jnp.float32)}}
state = vae_jax.init_state(jax.random.key(0), params, optax.sgd(0.1))
with checkpoint.manager({str(tmp_path)!r}) as checkpoints:
    checkpoint.save(checkpoints, state, {{"number": 1}})
    assert filters() == before
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, resource.RLIM_INFINITY))
    try:
        checkpoint.save(checkpoints, state._replace(step=jnp.int32(1)), {{}})
    except checkpoint.CheckpointError as error:
        print(error)
    assert len(filters()) == len(before) + 2
    logging.getLogger("absl").error("of another")
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert "the checkpoint of step 1 cannot be written in" in process.stdout, process.stderr
    assert process.returncode == 0, process.stderr
    assert "of another" in process.stderr
    with checkpoint.manager(tmp_path) as checkpoints:
        assert checkpoint.restore_config(checkpoints) == {"number": 1}
