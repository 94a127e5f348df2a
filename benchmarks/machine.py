"""What a measurement was made on."""

import argparse
import importlib.metadata
import json
import os
import platform
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
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: give 1 or more")
    return value


if __name__ == "__main__":
    print(json.dumps(describe()))
