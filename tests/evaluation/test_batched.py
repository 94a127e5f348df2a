"""log p(x) of a data set: against the exact one, in batches, in bounded memory, compiled once."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vae_jax
from vae_jax import VAE, Normal
from vae_jax.evaluation import batched

RNG = np.random.default_rng(0)
X = RNG.normal(size=(23, 1)).astype(np.float32)
# p(z) = N(0, 1), p(x|z) = N(w z, 1): log p(x) = log N(x; 0, 1 + w^2).
PARAMS = {"weight": jnp.float32(1.5), "spread": jnp.float32(1.3)}


def encode(params, x, label=None):
    precision = 1 + params["weight"] ** 2
    shift = 0 if label is None else label[:, None].astype(x.dtype)
    mean = shift + (x - params["weight"] * shift) * params["weight"] / precision
    return Normal(mean, params["spread"] / jnp.sqrt(precision))


def prior(params, label=None):
    mean = jnp.zeros(1) if label is None else label[:, None].astype(jnp.float32)
    return Normal(mean, 1.0)


def decode(params, z, label=None):
    return Normal(params["weight"] * z, 1.0)


MODEL = VAE(None, encode, prior, decode)


def evaluate(x=X, label=None, *, model=MODEL, params=PARAMS, seed=0, num_samples=200, **options):
    return vae_jax.evaluate(
        jax.random.key(seed), model, params, x, label, num_samples=num_samples, **options
    )


def exact(x, mean=0.0):
    return stats.norm(mean, np.sqrt(1 + 1.5**2)).logpdf(x)[:, 0]


@pytest.mark.parametrize("batch_size", [None, 1, 7, 23, 50])
def test_every_example_and_the_mean(batch_size):
    result = evaluate(batch_size=batch_size)
    estimate = result.estimate
    assert all(array.shape == (23,) for array in estimate)
    assert (np.abs(estimate.value - exact(X)) < 5 * estimate.standard_error).all()
    assert result.mean == pytest.approx(estimate.value.mean(), rel=1e-6)
    assert abs(result.mean - exact(X).mean()) < 4 * result.standard_error_of_draws
    assert result.standard_error_over_examples == pytest.approx(stats.sem(estimate.value), rel=1e-5)


def test_the_error_of_the_draws_is_the_spread_of_repeated_estimates():
    results = [evaluate(seed=seed) for seed in range(200)]
    spread = np.std([result.mean for result in results], ddof=1)
    predicted = np.mean([result.standard_error_of_draws for result in results])
    assert predicted == pytest.approx(spread, rel=4 / np.sqrt(2 * 200))


def test_the_error_over_examples_is_the_spread_over_data_sets():
    rng, means, errors = np.random.default_rng(1), [], []
    for _ in range(200):
        x = rng.normal(size=(50, 1), scale=np.sqrt(1 + 1.5**2)).astype(np.float32)
        result = evaluate(x, num_samples=50)
        means.append(result.mean)
        errors.append(result.standard_error_over_examples)
    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=4 / np.sqrt(2 * 200))
    assert np.isnan(evaluate(X[:1]).standard_error_over_examples)


def test_labels_go_with_their_examples():
    label = np.arange(23) % 3
    result = evaluate(label=label, batch_size=5)
    error = np.abs(result.estimate.value - exact(X, 1.5 * label[:, None]))
    assert (error < 5 * result.estimate.standard_error).all()


@pytest.fixture
def compiled():
    """() -> how many programs XLA has compiled since the test began."""
    found = []

    def listen(event, duration, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: len(found)


class Source:
    """Rows that are read when they are asked for."""

    shape, dtype = X.shape, X.dtype

    def __init__(self):
        self.asked = []

    def __getitem__(self, rows):
        self.asked.append(len(rows))
        return X[rows]


def test_what_holds_the_examples_does_not_matter():
    expected = evaluate(batch_size=10)
    source = Source()
    for x in (jnp.asarray(X), source):
        np.testing.assert_array_equal(evaluate(x, batch_size=10).estimate, expected.estimate)
    assert source.asked == [10, 10, 10]


def test_other_parameters_and_seeds_compile_nothing(compiled):
    traces = []

    def counting(params, z, label=None):
        traces.append(z.shape)
        return decode(params, z, label)

    model = MODEL._replace(decode=counting)
    other = {**PARAMS, "weight": jnp.float32(0.5)}
    before = evaluate(model=model, batch_size=10)
    num_traces = len(traces)
    num_compiled = compiled()
    assert evaluate(model=model, params=other, batch_size=10).mean != before.mean
    assert evaluate(model=model, seed=1, batch_size=10).mean != before.mean
    assert compiled() == num_compiled > 0
    # What a batch decodes to is looked at each time, by shape only.
    assert len(traces) - num_traces <= 2


def test_devices_share_a_batch_and_change_no_number():
    for num, batch_size in (2, 10), (2, 23), (8, None):  # of 23 two have no equal shares
        mesh = jax.make_mesh((num,), ("data",), devices=jax.devices()[:num])
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        params = jax.device_put(PARAMS, everywhere)
        found = evaluate(params=params, batch_size=batch_size).estimate
        expected = evaluate(batch_size=batch_size or 16).estimate
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    x, label = batched._dealt_out((jnp.asarray(X[:16]), None), params)
    assert label is None
    assert [shard.data.shape[0] for shard in x.addressable_shards] == [2] * 8


class Program:
    """As a jitted one that was lowered and compiled, of anything."""

    def __init__(self, call, temporary=0):
        self.call, self.temp_size_in_bytes = call, temporary

    def __call__(self, *arguments):
        return self.call(*arguments)

    def lower(self, *arguments):
        return self

    def compile(self, compiler_options):
        assert compiler_options == batched.compiler_options()
        return self

    def memory_analysis(self):
        return self


def test_cores_are_at_as_many_calls_as_memory_allows(monkeypatch):
    monkeypatch.setattr(batched, "num_cores", lambda: 3)
    together = threading.Barrier(3)
    calls = [(np.full(1, i),) for i in range(6)]

    def wait(value):
        together.wait(timeout=20)  # for two others
        return value

    found = batched.in_turn(Program(wait).lower, calls)
    np.testing.assert_array_equal(np.concatenate(list(found)), range(6))

    at_once, most = [0], [0]

    def count(value):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1
        return value

    large = Program(count, temporary=batched._TEMPORARY_BYTES)
    assert len(list(batched.in_turn(large.lower, calls))) == 6
    assert most == [1]


def test_what_fails_ends_it_and_what_waits_is_not_begun(monkeypatch):
    monkeypatch.setattr(batched, "num_cores", lambda: 2)
    begun = []

    def fail(value):
        begun.append(int(value[0]))
        raise FloatingPointError("in the program")

    calls = ((np.full(1, i),) for i in range(100))
    with pytest.raises(FloatingPointError, match="in the program"):
        list(batched.in_turn(Program(fail).lower, calls))
    assert len(begun) <= 2


def test_numbers_in_double_precision_stay_so():
    exact_model = MODEL._replace(decode=lambda params, z, label=None: Normal(params * z, 1.0))
    exact_model = exact_model._replace(encode=lambda params, x, label=None: Normal(x / 2, 0.5**0.5))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        for params in 1.0, np.float64(1.0):  # no JAX arrays
            assert np.isfinite(evaluate(model=exact_model, params=params, batch_size=10).mean)


def test_what_a_with_sets_holds_for_every_batch():
    def by_product(params, z, label=None):  # whose precision the program has in its text
        return Normal(z @ jnp.full((1, 1), params["weight"]), 1.0)

    def lowered(params, key, x, label):
        found.append(batched._estimate.lower(model, 10, 10, params, key, x, label))
        return found[-1]

    found, model = [], MODEL._replace(decode=by_product)
    with jax.default_matmul_precision("highest"):
        list(batched.each(lowered, PARAMS, jax.random.key(0), (X, None), batched.rows_of(23, 5)))
    (program,) = found
    assert "HIGHEST" in program.as_text()


def test_an_error_in_a_batch_is_raised():
    class Broken(Source):
        def __getitem__(self, rows):
            if rows[0] >= 10:
                raise OSError("the file is gone")
            return super().__getitem__(rows)

    with pytest.raises(OSError, match="the file is gone"):
        evaluate(Broken(), batch_size=10)


def test_batches_follow_from_bytes():
    def wide(num):
        return VAE(
            None,
            lambda params, x, label=None: Normal(x[:, :1], 1.0),
            lambda params, label=None: Normal(jnp.zeros(1), 1.0),
            lambda params, z, label=None: Normal(jnp.zeros((*z.shape[:-1], num)), 1.0),
        )

    def sizes(num, **options):
        x = jax.ShapeDtypeStruct((10_000, num), jnp.float32)
        return batched.split(
            jax.random.key(0), wide(num), None, x, None, num_samples=1000, **options
        )

    budget = batched._CPU_BYTES  # the tests run on a CPU
    for num in (1, 64, 784, 12_288, 196_608, 10**6):
        batch_size, chunk_size = sizes(num)
        assert 1000 % chunk_size == 0
        assert batch_size * chunk_size * num * 4 <= budget or batch_size == chunk_size == 1
    assert sizes(784) == (500, 1)
    assert sizes(12_288)[0] == budget // (4 * 12_288)
    assert sizes(1) == (500, 50)
    assert sizes(1, batch_size=3) == (3, 50)


def test_memory_grows_with_neither_examples_nor_draws():
    def temporary_bytes(num_samples):
        lowered = batched._estimate.lower(
            MODEL, num_samples, 10, PARAMS, jax.random.key(0), X, None
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # From 100,000 draws on the tail's size is bounded too; their indices are 4 bytes each.
    assert temporary_bytes(400_000) - temporary_bytes(100_000) < 300_000 * len(X)


@pytest.mark.parametrize(
    ("x", "label", "options", "error", "message"),
    [
        (X[:0], None, {}, ValueError, "x and label have 0 examples: give as many of each"),
        (X, np.zeros(22, int), {}, ValueError, "x and label have 22 and 23 examples"),
        (X, [0] * 23, {}, TypeError, "label is or holds a int: pass arrays of N examples"),
        (X, None, {"batch_size": 0}, ValueError, "batch_size is 0: give 1 or more"),
        (X, None, {"num_samples": 1}, ValueError, "num_samples is 1: a standard error takes 2"),
    ],
)
def test_what_cannot_be_evaluated(x, label, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(x, label, **options)
