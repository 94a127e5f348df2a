"""The devices that a run trains on, and where it keeps what it compiled for them."""

import os
from pathlib import Path
from typing import Any

from vae_jax.run import options
from vae_jax.run.errors import RunError, UsageError

INSTALL = {
    "gpu": 'pip install -U "jax[cuda13]" on a machine with an NVIDIA GPU',
    "tpu": 'pip install -U "jax[tpu]" on a TPU machine',
}


def use_accelerator(name: str) -> list[Any]:
    """Makes JAX run on the named kind of device, and returns all of them.

    Raises:
      RunError: there is none.
    """
    import jax

    if name == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        devices = jax.devices()
    except (AssertionError, RuntimeError):  # the first, unsaid, where JAX_PLATFORMS=cuda finds none
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise RunError(
            f"JAX is told by JAX_PLATFORMS to use {asked} and finds none: unset it, or "
            "--accelerator=cpu"
        ) from None
    if name not in ("auto", "cpu"):
        try:
            jax.config.update("jax_default_device", jax.local_devices(backend=name)[0])
        except RuntimeError:
            found = ", ".join(sorted({device.platform for device in devices}))
            raise RunError(
                f"--accelerator={name}, but JAX finds no {name.upper()} (it finds: {found}): "
                f"{INSTALL[name]}, or leave the option out"
            ) from None
    return devices if name == "auto" else jax.devices(name)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or the user's cache."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "vae_jax"))
    # The default of one second leaves out most of what a start-up compiles.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def make_mesh(devices: list[Any], chosen: options.Options) -> Any:
    """The devices that share a batch, as a mesh with an axis `data`.

    Raises:
      UsageError: there are not so many, or they cannot share it evenly.
    """
    import jax

    num, training = chosen.devices.num_devices or len(devices), chosen.training
    if num > len(devices):
        raise UsageError(
            f"--num-devices is {num} but JAX finds {len(devices)}: give as many at most (a CPU is "
            f"{num} with XLA_FLAGS=--xla_force_host_platform_device_count={num})"
        )
    if jax.process_count() > 1 and num < len(devices):
        raise UsageError(
            f"--num-devices is {num} but the processes have {len(devices)}: leave it out, as each "
            "of them trains on all its devices"
        )
    if training.batch_size is not None and training.batch_size % (num * training.accumulate):
        raise UsageError(
            f"--batch-size is {training.batch_size}: it must be a multiple of the {num} devices "
            f"times --accumulate, {num * training.accumulate}"
        )
    return jax.make_mesh((num,), ("data",), (jax.sharding.AxisType.Auto,), devices=devices[:num])
