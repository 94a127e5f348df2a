"""Runs whose steps are one program: their numbers are those of each alone, whatever ends one."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax.run import callbacks, training
from vae_jax.run.errors import Interrupted
from vae_jax.run.plan import Plan
from vae_jax.run.survival import StopRequest
from vae_jax.run.together import Together

DATA = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
OPTIMIZER = optax.adam(0.01)
MESH = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))


def loss(params, key, batch):
    noise = jax.random.normal(key, batch.shape)
    error = jnp.square(batch @ params - batch - 0.1 * noise).sum(1)
    return error.mean(), {"error": error}


class Slow(callbacks.AtStart):
    """Ends a run after some epochs, and makes its steps seem long."""

    def __init__(self, epochs=99):
        super().__init__(lambda progress: None)
        self.epochs = epochs

    def steps(self, progress, metrics):
        time.sleep(0.002)

    def epoch(self, progress, row):
        return progress.epoch >= self.epochs


def trained(seed, *, replica=None, ended_after=99, stop=None, folder=None, epochs=6):
    key = jax.random.key(seed)
    state = vae_jax.init_state(key, jax.random.normal(jax.random.key(seed + 9), (3, 3)), OPTIMIZER)
    sharding = vae_jax.state_sharding(state, MESH)
    plan = Plan(batch_size=10, epochs=epochs, mesh=MESH, folder=folder, resume=folder is not None)
    setup = training.Setup(
        loss=loss,
        optimizer=OPTIMIZER,
        data=DATA,
        sharding=sharding,
        plan=plan,
        validate=lambda params: {"size": jnp.abs(params).sum()},
        config={},
        continued_by="",
        start=time.perf_counter(),
        stop=stop,
        replica=replica,
    )
    return training.train(setup, jax.device_put(state, sharding), [Slow(ended_after)])


def together(num, **arguments):
    meeting = Together(num)

    def of_one(who):
        of = {name: values[who] for name, values in arguments.items()}
        try:
            return trained(who, replica=meeting.replica(who), **of)
        finally:
            meeting.leave(who)

    with ThreadPoolExecutor(num) as pool:
        return [pool.submit(of_one, who) for who in range(num)]


@pytest.mark.relax("debug_key_reuse", "numpy_dtype_promotion")
def test_each_has_the_numbers_that_it_has_alone_and_one_may_end_before():
    found = [future.result() for future in together(3, ended_after=[99, 2, 99])]
    for seed, epochs in enumerate((6, 2, 6)):
        alone = trained(seed, ended_after=epochs)
        assert len(found[seed].rows) == epochs
        assert int(found[seed].state.step) == 6 * epochs
        np.testing.assert_allclose(found[seed].params, alone.params, rtol=1e-5, atol=1e-6)
        for mine, its in zip(found[seed].rows, alone.rows, strict=True):
            assert mine["train_error"] == pytest.approx(its["train_error"], rel=1e-5)
            assert mine["validation_size"] == pytest.approx(its["validation_size"], rel=1e-5)


@pytest.mark.relax("debug_key_reuse", "numpy_dtype_promotion")
def test_those_that_resume_at_other_steps_meet_all_the_same(tmp_path: Path):
    folders = [tmp_path / str(seed) for seed in range(2)]
    for place in folders:
        place.mkdir()
    trained(1, folder=folders[1], ended_after=2)  # the other has not begun
    found = [future.result() for future in together(2, folder=folders)]
    for seed in range(2):
        np.testing.assert_allclose(found[seed].params, trained(seed).params, rtol=1e-5, atol=1e-6)


def test_one_error_reaches_all_that_wait():
    meeting = Together(2)

    def fails(values):
        raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meeting.join, who, 1, fails) for who in range(2)]
    assert all(isinstance(future.exception(), ZeroDivisionError) for future in waiting)


@pytest.mark.relax("debug_key_reuse", "numpy_dtype_promotion")
def test_a_signal_stops_all_at_the_same_step(tmp_path: Path):
    stop = StopRequest()
    folders = [tmp_path / str(seed) for seed in range(2)]
    for place in folders:
        place.mkdir()
    stop.signum = 15
    ended = together(2, stop=[stop, StopRequest()], folder=folders)
    assert {type(future.exception()) for future in ended} == {Interrupted}
    assert all((place / "checkpoints" / "1").exists() for place in folders)
