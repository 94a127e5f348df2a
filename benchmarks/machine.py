"""What a measurement was made on."""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpyro",
    "torch",
    "pythae",
    "avitai-artifex",
    "numpy",
)


def describe() -> dict[str, Any]:
    """Device, cores and versions, for the head of a result."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = jax.devices()[0]
    return {
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def _processor() -> str:
    """The processor's name, and the vector instructions that decide its rates."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(
        line.split(":", 1) for line in info.partition("\n\n")[0].splitlines() if ":" in line
    )
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    special = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    return f"{fields.get('model name', platform.processor())} ({' '.join(special)})"


def positive(text: str) -> int:
    """For argparse: a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def numbers(text: str) -> list[int]:
    """For argparse: numbers from 1 with commas between them."""
    return [positive(item) for item in text.split(",")]


def result_file(text: str) -> Path:
    """For argparse, before anything is measured: a file that can be written."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "is a folder" if path.is_dir() else "would be in a folder that is not there"
        raise argparse.ArgumentTypeError(f"{text} {why}: name a file, such as result.json")
    return path


def on_virtual_devices(num: int, module: str, option: str) -> dict[str, Any]:
    """What a program prints as JSON, in a process in which a CPU shows as so many devices."""
    flags = f"--xla_force_host_platform_device_count={num}"
    process = subprocess.run(
        [sys.executable, "-m", module, option],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise SystemExit(process.stderr)
    measured: dict[str, Any] = json.loads(process.stdout)
    return measured


def run(main: Callable[[], None]) -> None:
    """Calls a program, which an interrupt ends in a line and with status 130.

    At once: threads that are still at a pass are not waited for.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("interrupted: what is not in a file is lost", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    print(json.dumps(describe()))
