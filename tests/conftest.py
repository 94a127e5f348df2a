"""Strict JAX settings for every test, and the data that may stand beside the repository."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# A deadlock among virtual devices ends in a minute. XLA reads this when jax is first imported.
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_collective_call_terminate_timeout_seconds=60 "
    # Half of the suite is compilation, of programs that run for a millisecond.
    f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
)

import jax
import pytest
import tyro  # noqa: F401 - before a doctest leaves an array in builtins._, which its import hashes

# Not by XLA_FLAGS, which the commands that tests start would inherit.
jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).parents[1]

STRICT = {
    "numpy_dtype_promotion": "strict",
    "numpy_rank_promotion": "raise",
    "debug_key_reuse": True,
    "legacy_prng_key": "error",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the parameters of a test marked `few(n)`, n evenly spaced ones are run; others are long.

    What costs seconds to compile is in every run for a few members, and with `-m long` for all.
    """
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few"):
            tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    for of_test in tests.values():
        (num,) = of_test[0].get_closest_marker("few").args
        kept = {round(i * (len(of_test) - 1) / max(1, num - 1)) for i in range(num)}
        for i, item in enumerate(of_test):
            if i not in kept:
                item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test and its fixtures under STRICT, but for what `@pytest.mark.relax` names.

    A test that calls optax itself needs `relax("numpy_dtype_promotion")`: Adam, cosine and
    piecewise schedules mix Python floats with an int32 count. Around a single call
    `with jax.numpy_dtype_promotion("standard")` is enough.
    """
    marker = item.get_closest_marker("relax")
    relaxed = (marker.args or STRICT) if marker else ()
    with contextlib.ExitStack() as stack:
        for name in STRICT.keys() - set(relaxed):
            stack.enter_context(getattr(jax, name)(STRICT[name]))
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the commands that tests start share compiled programs, in a folder of this process.

    The tests themselves compile afresh: JAX has read the variable, and writes to the cache are not
    atomic, so that another process could read half a program.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("compiled")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """The folder of original data files beside the repository, or None where there is none."""
    path = ROOT.parent / "shared" / "data"
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m experiments.NAME ...` to its end; keywords are its environment's."""

    def run(name: str, *arguments: object, cwd: Path = ROOT, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
