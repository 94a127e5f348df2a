"""Steps and epochs against NumPy, against each other, and against the best model there is."""

import functools
import math
from pathlib import Path

import chex
import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import _compiler, networks

NUM_EXAMPLES, NUM_PIXELS, BATCH_SIZE, LATENT_DIM = 50, 6, 8, 2
IMAGES = np.random.default_rng(0).integers(256, size=(NUM_EXAMPLES, NUM_PIXELS), dtype=np.uint8)
MODEL = vae_jax.make_vae(
    networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=(5,))),
    networks.BernoulliDecoder(networks.MLP((NUM_PIXELS,), hidden=(5,))),
    LATENT_DIM,
)
ADAM = optax.adam(optax.cosine_decay_schedule(1e-2, 100))


def vae_loss(params, key, batch):
    binarize_key, draw_key = jax.random.split(key)
    x = vae_jax.binarize(binarize_key, batch.image)
    posterior = MODEL.encode(params, x)
    z = vae_jax.sample(draw_key, posterior)
    bound = vae_jax.elbo(x, z, posterior, MODEL.prior(params), MODEL.decode(params, z))
    return -bound.value.mean(), bound


train_step = vae_jax.make_train_step(vae_loss, ADAM, average_decay=0.9)
train_epoch = vae_jax.make_train_epoch(vae_loss, ADAM, average_decay=0.9)
init = jax.jit(MODEL.init)


def fresh_state(seed=0):
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params = init(init_key, jnp.zeros((1, NUM_PIXELS)))
    with jax.numpy_dtype_promotion("standard"):
        return vae_jax.init_state(train_key, params, ADAM, average=True)


def order(key, epoch, batch_size=BATCH_SIZE):
    return vae_jax.shuffle(key, epoch, num_examples=NUM_EXAMPLES, batch_size=batch_size)


def assert_equal(tree, other):
    """Bit for bit, typed keys too."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def squared_error(params, key, batch):
    """Half the squared distance; its gradient is params minus the mean of the batch."""
    error = params["w"][None] - batch
    return 0.5 * jnp.square(error).sum(-1).mean(), {"error": error}


# One step


def test_step_is_gradient_descent():
    data = np.random.default_rng(1).normal(size=(3, 4, 2)).astype(np.float32)
    optimizer = optax.sgd(0.1)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.ones(2)}, optimizer)
    step = vae_jax.make_train_step(squared_error, optimizer)
    w = np.ones(2)
    for i, batch in enumerate(data):
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics.loss, 0.5 * np.square(w - batch).sum(-1).mean(), 1e-5)
        np.testing.assert_allclose(metrics.aux["error"], np.mean(w - batch), rtol=1e-4, atol=1e-6)
        w -= 0.1 * (w - batch.mean(0))
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        assert state.step == i + 1
        assert state.step.dtype == jnp.int32


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_goes_down_in_complex_numbers_too(accumulate):
    """By half of what is between w and the target, as the gradient of |w - t|^2 is 2 (w - t)."""

    def loss(params, key, batch):
        return jnp.square(jnp.abs(params["w"] - batch)).mean(), None

    optimizer = optax.sgd(0.25)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.complex64(3 + 2j)}, optimizer)
    step = vae_jax.make_train_step(loss, optimizer, accumulate=accumulate)
    target = jnp.full((2, 2) if accumulate == 2 else 4, 1 - 4j, jnp.complex64)
    state, _ = step(state, target)
    np.testing.assert_allclose(state.params["w"], 2 - 1j, rtol=1e-6)


def test_schedule_and_clipping_are_optaxs():
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.sgd(optax.piecewise_constant_schedule(0.1, {1: 0.5}))
    )
    with jax.numpy_dtype_promotion("standard"):
        state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optimizer)
    step = vae_jax.make_train_step(squared_error, optimizer)
    batch = np.full((4, 2), 100.0, np.float32)  # gradients far longer than 1
    for travelled in (0.1, 0.15, 0.2):
        state, _ = step(state, batch)
        np.testing.assert_allclose(state.params["w"], travelled / math.sqrt(2), rtol=1e-5)


def test_average_is_exponential_and_its_start_has_no_weight():
    state, decay = fresh_state(), 0.9
    seen = []
    for _ in range(4):
        state, _ = train_step(state, vae_jax.Batch(IMAGES[:BATCH_SIZE]))
        seen.append([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.params)])
        weight = decay ** np.arange(len(seen))[::-1]
        expected = [
            np.average(leaves, axis=0, weights=weight) for leaves in zip(*seen, strict=True)
        ]
        for a, e in zip(jax.tree.leaves(state.average), expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7)
    no_average = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))
    assert no_average.average is None


def test_state_is_donated_and_the_callers_arrays_are_not():
    key, params = jax.random.key(0), {"w": jnp.ones(2)}
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = vae_jax.init_state(key, params, optimizer, average=True)
    vae_jax.make_train_step(squared_error, optimizer)(state, jnp.zeros((4, 2)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(state.params["w"])
    np.testing.assert_array_equal(params["w"], np.ones(2))
    jax.random.normal(key)


def test_noise_follows_from_the_key_and_the_step_alone():
    def loss(params, key, batch):
        return 0 * params["w"].sum(), jax.random.normal(key)

    optimizer = optax.sgd(0.1)
    step = vae_jax.make_train_step(loss, optimizer)

    def fresh(seed):
        return vae_jax.init_state(jax.random.key(seed), {"w": jnp.zeros(2)}, optimizer)

    def noise(state, num):
        drawn = []
        for _ in range(num):
            state, metrics = step(state, jnp.zeros(()))
            drawn.append(float(metrics.aux))
        return drawn

    unbroken = noise(fresh(0), 4)
    assert len(set(unbroken)) == 4
    assert noise(fresh(0)._replace(step=jnp.int32(2)), 2) == unbroken[2:]
    assert not set(unbroken) & set(noise(fresh(1), 4))


def test_bfloat16_parameters_stay_bfloat16():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    optimizer = optax.adam(0.1)
    state = vae_jax.init_state(jax.random.key(0), params, optimizer, average=True)
    step = vae_jax.make_train_step(squared_error, optimizer)
    state, _ = step(state, jnp.zeros((4, 2), jnp.bfloat16))
    assert state.params["w"].dtype == jnp.bfloat16
    assert state.average["w"].dtype == jnp.float32  # which a share of 0.001 still moves
    assert (state.params["w"] < 1).all()


# Narrow parameters


def drift(params, key, batch):
    """A gradient of -1e-3 in each parameter."""
    return (-0.001 * params["w"]).sum(), None


def test_average_of_bfloat16_parameters_arrives():
    """In bfloat16 it would stop where a share of 0.001 is less than half a bit: at 0.5."""
    params = {"w": jnp.zeros(2, jnp.bfloat16)}
    optimizer = optax.sgd(0.0)
    state = vae_jax.init_state(jax.random.key(0), params, optimizer, average=True)
    # As if it had been 0 for 10,000 steps, and is 1 from now on.
    state = state._replace(step=jnp.int32(10_000), params={"w": jnp.ones(2, jnp.bfloat16)})
    epoch = vae_jax.make_train_epoch(drift, optimizer)
    state, _ = epoch(state, jnp.zeros((1, 1)), jnp.zeros((5000, 1), jnp.int32))
    np.testing.assert_allclose(state.average["w"], 1 - 0.999**5000, rtol=1e-3)


def test_parts_of_bfloat16_gradients_are_summed_in_float32():
    """1000 parts of -1e-3 are -1; a bfloat16 sum stops at -0.5."""
    params = {"w": jnp.zeros(2, jnp.bfloat16)}
    optimizer = optax.sgd(1000.0)
    state = vae_jax.init_state(jax.random.key(0), params, optimizer)
    step = vae_jax.make_train_step(drift, optimizer, accumulate=1000)
    state, _ = step(state, jnp.zeros((1000, 1)))
    np.testing.assert_allclose(state.params["w"].astype(jnp.float32), 1.0, rtol=0.01)


# Any optimizer


def rosenbrock(params, key, batch):
    x, y = params["x"], params["y"]
    return (1 - x) ** 2 + 5 * (y - x**2) ** 2 + 0 * batch.sum(), None


@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("optimizer", "num_steps"),
    [
        (optax.lbfgs(), 30),
        (optax.polyak_sgd(max_learning_rate=0.05), 2000),
        (optax.chain(optax.adam(0.05), optax.contrib.reduce_on_plateau(patience=50)), 1000),
    ],
    ids=["lbfgs", "polyak_sgd", "reduce_on_plateau"],
)
def test_optimizers_that_want_the_loss_find_its_minimum(optimizer, num_steps, accumulate):
    params = {"x": jnp.float32(-1.0), "y": jnp.float32(1.0)}
    state = vae_jax.init_state(jax.random.key(0), params, optimizer)
    step = vae_jax.make_train_step(rosenbrock, optimizer, accumulate=accumulate)
    batch = jnp.zeros((2, 3)) if accumulate == 2 else jnp.zeros(3)
    for _ in range(num_steps):
        state, metrics = step(state, batch)
    assert metrics.loss < 1e-3
    np.testing.assert_allclose([state.params["x"], state.params["y"]], 1, atol=0.1)


@pytest.mark.relax("numpy_dtype_promotion", "numpy_rank_promotion", "debug_key_reuse")
def test_a_search_sees_the_whole_batch_in_its_parts():
    """L-BFGS on a quadratic: a step of two parts is the step of the whole batch."""
    optimizer, batch = optax.lbfgs(), np.random.default_rng(0).normal(size=(8, 2))
    batch, ends = jnp.asarray(batch, jnp.float32), []
    for accumulate in (1, 2):
        params = {"w": jnp.zeros(2)}
        state = vae_jax.init_state(jax.random.key(0), params, optimizer)
        step = vae_jax.make_train_step(squared_error, optimizer, accumulate=accumulate)
        parts = batch if accumulate == 1 else batch.reshape(2, 4, 2)
        for _ in range(3):
            state, _ = step(state, parts)
        ends.append(state.params["w"])
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ends[1], batch.mean(axis=0), rtol=1e-3, atol=1e-5)


# Parts of an epoch


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_sees_the_step_if_it_asks_for_it(accumulate):
    """Each step goes down by as much as it has steps before it, in a step and in an epoch."""

    def loss(params, key, batch, step):
        assert step.dtype == jnp.int32
        weight = step.astype(jnp.float32)
        return params["w"] * weight, weight

    optimizer = optax.sgd(1.0)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.float32(0)}, optimizer)
    step = vae_jax.make_train_step(loss, optimizer, accumulate=accumulate)
    expected = -np.cumsum(np.arange(7))
    for i in range(3):
        state, metrics = step(state, jnp.zeros((accumulate, 2)))
        np.testing.assert_allclose(state.params["w"], expected[i])
        np.testing.assert_allclose(metrics.aux, i)
    epoch = vae_jax.make_train_epoch(loss, optimizer, accumulate=accumulate)
    state, metrics = epoch(state, jnp.zeros(8), jnp.zeros((4, accumulate, 2), jnp.int32))
    np.testing.assert_allclose(state.params["w"], expected[-1])
    np.testing.assert_allclose(metrics.aux, [3, 4, 5, 6])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_search_sees_the_loss_of_its_step(accumulate):
    def loss(params, key, batch, step):
        return params["w"] + step.astype(jnp.float32), None

    def update(updates, state, params, *, value, value_fn, **_):
        return updates, state + jnp.abs(value - value_fn(params))

    differences = optax.GradientTransformationExtraArgs(lambda params: jnp.float32(0), update)
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.float32(0)}, differences)
    step = vae_jax.make_train_step(loss, differences, accumulate=accumulate)
    for _ in range(3):
        state, metrics = step(state, jnp.zeros((accumulate, 2)))
    np.testing.assert_allclose(metrics.loss, 2 + 2)  # w rose by its gradient, 1, in each step
    np.testing.assert_array_equal(state.opt_state, 0)


def test_each_way_to_say_start_and_stop_is_one_program():
    chex.clear_trace_counter()
    loss = chex.assert_max_traces(squared_error, n=2)  # for its shapes, and for the loop
    epoch = vae_jax.make_train_epoch(loss, optax.sgd(0.1))
    data, index = jnp.ones((8, 2)), jnp.arange(8).reshape(4, 2)
    ways = [(), (0,), (0, 4), (np.int64(0), np.int32(4)), (jnp.int32(0), jnp.int32(4)), (0, None)]
    ends = []
    for way in ways:
        state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))
        state, _ = epoch(state, data, index, *way)
        ends.append(state.params["w"])
    for end in ends:
        np.testing.assert_array_equal(end, ends[0])


def test_metrics_of_steps_that_were_not_taken_are_nan():
    epoch = vae_jax.make_train_epoch(squared_error, optax.sgd(0.1))
    state = vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))
    _, metrics = epoch(state, jnp.ones((8, 2)), jnp.arange(8).reshape(4, 2), 1, 3)
    for leaf in jax.tree.leaves(metrics):
        np.testing.assert_array_equal(np.isnan(leaf), [True, False, False, True])


@pytest.mark.parametrize("wrong", [8, -1])
def test_an_order_of_examples_that_are_not_there(wrong):
    """`take` fills with NaN, or 255 for bytes: training on white images."""
    epoch = vae_jax.make_train_epoch(squared_error, optax.sgd(0.1))

    def fresh():
        return vae_jax.init_state(jax.random.key(0), {"w": jnp.zeros(2)}, optax.sgd(0.1))

    index = np.array([[0, 1], [2, wrong]])
    with pytest.raises(IndexError, match=f"order has the example {wrong} but the data have 8"):
        epoch(fresh(), jnp.ones((8, 2)), index)
    _, metrics = jax.jit(epoch)(fresh(), jnp.ones((8, 2)), jnp.asarray(index))
    np.testing.assert_array_equal(np.isnan(metrics.loss), [False, True])


# Steps in turn


@pytest.mark.relax("numpy_dtype_promotion")
def test_alternate_is_adam_on_one_group_at_a_time():
    """Of a quadratic in three groups, against Adam written in NumPy, each with its own count."""
    matrix = np.random.default_rng(1).normal(size=(3, 3))
    groups = ("b", "a", "c")

    def loss(params, key, batch):
        x = jnp.stack([params[name] for name in sorted(groups)])
        return jnp.square(jnp.asarray(matrix, jnp.float32) @ x).sum(), None

    optimizer = vae_jax.alternate(optax.adam(0.1), *groups)
    params = {"a": jnp.float32(1.0), "b": jnp.float32(-2.0), "c": jnp.float32(0.5)}
    state = vae_jax.init_state(jax.random.key(0), params, optimizer)
    step = vae_jax.make_train_step(loss, optimizer)
    x, first, second, count = np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3), np.zeros(3)
    for turn in range(7):
        state, _ = step(state, None)
        i = sorted(groups).index(groups[turn % 3])
        gradient = (2 * matrix.T @ matrix @ x)[i]
        count[i] += 1
        first[i] = 0.9 * first[i] + 0.1 * gradient
        second[i] = 0.999 * second[i] + 0.001 * gradient**2
        mean, square = first[i] / (1 - 0.9 ** count[i]), second[i] / (1 - 0.999 ** count[i])
        x[i] -= 0.1 * mean / (np.sqrt(square) + 1e-8)
        np.testing.assert_allclose([state.params[name] for name in "abc"], x, rtol=1e-4)


@pytest.mark.parametrize("groups", [("encoder",), ("encoder", "decoder", "prior")])
def test_alternate_needs_the_groups_that_there_are(groups):
    optimizer = vae_jax.alternate(optax.sgd(0.1), *groups)
    with pytest.raises(
        ValueError, match=r"groups are encoder.* but params has decoder, encoder: name"
    ):
        vae_jax.init_state(jax.random.key(0), fresh_state().params, optimizer)


# An epoch


@pytest.mark.parametrize("label", [None, np.arange(NUM_EXAMPLES)], ids=["no-label", "label"])
def test_epoch_is_its_steps_in_turn(label):
    data = vae_jax.Batch(jnp.asarray(IMAGES), None if label is None else jnp.asarray(label))
    one_by_one, at_once = fresh_state(), fresh_state()
    for number in range(2):
        losses = []
        for index in order(one_by_one.key, number):
            batch = jax.tree.map(lambda array, index=index: array[index], data)
            one_by_one, metrics = train_step(one_by_one, batch)
            losses.append(metrics.loss)
        at_once, metrics = train_epoch(at_once, data, order(at_once.key, number))
        np.testing.assert_array_equal(metrics.loss, losses)
    assert_equal(at_once, one_by_one)
    assert at_once.step == 2 * (NUM_EXAMPLES // BATCH_SIZE)


def test_metrics_are_means_over_the_batch():
    state = fresh_state()
    index = order(state.key, 0)
    _, metrics = train_epoch(state, vae_jax.Batch(jnp.asarray(IMAGES)), index)
    assert isinstance(metrics.aux, vae_jax.Bound)
    assert {a.shape for a in jax.tree.leaves(metrics)} == {(len(index),)}
    np.testing.assert_allclose(metrics.aux.value, -np.asarray(metrics.loss), rtol=1e-6)
    difference = metrics.aux.log_likelihood - metrics.aux.kl
    np.testing.assert_allclose(metrics.aux.value, difference, rtol=1e-5)


def run(seed, num_epochs=2):
    state = fresh_state(seed)
    losses = []
    for number in range(num_epochs):
        state, metrics = train_epoch(
            state, vae_jax.Batch(jnp.asarray(IMAGES)), order(state.key, number)
        )
        losses.append(metrics)
    return state, losses


def test_same_seed_same_metrics():
    first, second = run(0), run(0)
    assert_equal(first, second)
    other, _ = run(1)
    assert not np.array_equal(*(s.params["encoder"]["network"]["bias"] for s in (first[0], other)))


@pytest.mark.parametrize("make", [vae_jax.make_train_step, vae_jax.make_train_epoch])
def test_one_trace_per_shape(make):
    data = vae_jax.Batch(jnp.asarray(IMAGES))

    def arguments(epoch, batch_size):
        index = order(jax.random.key(0), epoch, batch_size)
        if make is vae_jax.make_train_epoch:
            return data, index
        return (vae_jax.Batch(data.image[index[0]]),)

    chex.clear_trace_counter()
    train = make(chex.assert_max_traces(vae_loss, n=1), ADAM)
    state = fresh_state()
    for epoch in range(3):
        state, _ = train(state, *arguments(epoch, BATCH_SIZE))
    smaller = arguments(0, BATCH_SIZE // 2)
    with pytest.raises(AssertionError, match="traced"):
        train(state, *smaller)


def test_linear_vae_learns_the_maximum_of_the_likelihood():
    """A linear VAE's best ELBO is the likelihood of probabilistic PCA (Lucas et al. 2019).

    That maximum is in the eigenvalues of the data's covariance (Tipping & Bishop 1999, equation 3
    with 7 and 8): the largest are kept, the mean of the others is the variance of the noise.
    """
    num, dim = 400, 5
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, 2)) @ rng.normal(size=(2, dim)) + 0.5 * rng.normal(size=(num, dim))
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    noise = values[2:].mean()
    best = -0.5 * (
        dim * math.log(2 * math.pi) + np.log(values[:2]).sum() + (dim - 2) * np.log(noise) + dim
    )
    model = vae_jax.make_vae(
        networks.Encoder(networks.MLP((2 * LATENT_DIM,), hidden=())),
        networks.NormalDecoder(networks.MLP((dim,), hidden=())),
        LATENT_DIM,
    )

    def loss(params, key, batch):
        posterior = model.encode(params, batch)
        z = vae_jax.sample(key, posterior, 4)
        bound = vae_jax.elbo(batch, z, posterior, model.prior(params), model.decode(params, z))
        return -bound.value.mean(), bound

    steps = 1500
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, steps))
    data = jnp.asarray(x, jnp.float32)
    init_key, train_key = jax.random.split(jax.random.key(0))
    params = jax.jit(model.init)(init_key, data[:1])
    with jax.numpy_dtype_promotion("standard"):
        state = vae_jax.init_state(train_key, params, optimizer)
    everything = jnp.broadcast_to(jnp.arange(num), (steps, num))
    state, _ = vae_jax.make_train_epoch(loss, optimizer)(state, data, everything)
    z_key = jax.random.key(1)
    posterior = model.encode(state.params, data)
    z = vae_jax.sample(z_key, posterior, 200)
    bound = vae_jax.elbo(
        data, z, posterior, model.prior(state.params), model.decode(state.params, z)
    )
    error = np.asarray(bound.value.mean(axis=1)).std(ddof=1) / math.sqrt(200)
    assert bound.value.mean() <= best + 4 * error
    np.testing.assert_allclose(bound.value.mean(), best, atol=0.01)


# The order of an epoch


def test_shuffle_shows_every_example_at_most_once():
    key = jax.random.key(0)
    first, second = (np.asarray(order(key, epoch)) for epoch in (0, 1))
    for index in (first, second):
        assert index.shape == (NUM_EXAMPLES // BATCH_SIZE, BATCH_SIZE)
        assert index.dtype == np.int32
        assert len(np.unique(index)) == index.size
        assert index.min() >= 0
        assert index.max() < NUM_EXAMPLES
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(order(jax.random.key(0), 0), first)
    assert not np.array_equal(order(jax.random.key(1), 0), first)
    whole = order(key, 0, NUM_EXAMPLES)
    np.testing.assert_array_equal(np.sort(whole), np.arange(NUM_EXAMPLES)[None])


def test_shuffle_puts_each_example_in_each_place_equally_often():
    shuffle = functools.partial(vae_jax.shuffle, jax.random.key(0), num_examples=7, batch_size=3)
    index = np.asarray(jax.vmap(shuffle)(jnp.arange(2000))).reshape(2000, 6)
    frequency = (index[..., None] == np.arange(7)).mean(axis=0)
    error = math.sqrt(1 / 7 * 6 / 7 / 2000)
    assert (np.abs(frequency - 1 / 7) <= 4 * error).all()


def test_shuffle_is_int32_under_x64_too():
    with jax.enable_x64(True):
        assert order(jax.random.key(0), 0).dtype == jnp.int32


@pytest.mark.parametrize("batch_size", [0, -1, 51])
def test_shuffle_of_a_batch_size_that_cannot_be(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}: it must be from 1 to 50"):
        order(jax.random.key(0), 0, batch_size)


@pytest.mark.parametrize("bounds", [(), (jnp.int32(0), jnp.int32(2))], ids=["all", "from to"])
def test_an_epoch_is_part_of_another_program(bounds, monkeypatch):
    """XLA takes options for a whole program alone, not for what is called in it."""
    options = {"xla_cpu_prefer_vector_width": 256}
    monkeypatch.setattr("vae_jax.train.compiler_options", lambda: options)

    def trained(w):
        epoch = vae_jax.make_train_epoch(squared_error, optax.sgd(0.2))
        state = vae_jax.init_state(jax.random.key(0), {"w": w}, optax.sgd(0.2))
        state, _ = epoch(state, jnp.ones((4, 2)), jnp.arange(4).reshape(2, 2), *bounds)
        return state.params["w"]

    away = 1 - 0.8**2  # two steps from 0 on the way to 1
    np.testing.assert_allclose(trained(jnp.zeros(2)), [away, away], rtol=1e-6)
    constant = jax.jit(lambda: trained(jnp.zeros(2)))
    np.testing.assert_allclose(constant(), [away, away], rtol=1e-6)
    both = jax.vmap(trained)(jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(both, [[away, away], [1, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("backend", "flags", "options"),
    [
        ("cpu", "fpu avx2 avx512f avx512dq", {"xla_cpu_prefer_vector_width": 512}),
        ("cpu", "fpu avx2", {}),
        ("gpu", "fpu avx2 avx512f avx512dq", {}),
    ],
)
def test_programs_have_the_vectors_that_the_cpu_has(backend, flags, options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: f"processor : 0\nflags : {flags}\n")
    _compiler._has_avx512.cache_clear()
    assert _compiler.compiler_options() == options
    _compiler._has_avx512.cache_clear()
