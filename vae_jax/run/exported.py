"""Encoder and decoder of a trained run as files that need no vae_jax: StableHLO and safetensors."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

import vae_jax
from vae_jax.distributions.location import location
from vae_jax.run import extras, folder, published
from vae_jax.run.data import conditions
from vae_jax.run.data.columns import to_json
from vae_jax.run.latents import as_layers, as_vectors
from vae_jax.run.loaded import TrainedRun, picture
from vae_jax.run.options import OF_BYTES

PLATFORMS = ("cpu", "cuda", "tpu")


def export(trained: TrainedRun, path: str | os.PathLike[str]) -> list[Path]:
    """Writes a run's encoder and decoder, or its parameters, as the ending of the name says.

    NAME.stablehlo gives NAME.encoder.stablehlo, NAME.decoder.stablehlo, and NAME.json, which says
    what they take and give. Each is a function with the parameters inside, of any number of
    examples, for CPU, CUDA and TPU, for a process that has jax, and flatbuffers, which it reads
    them with:

        call = jax.export.deserialize(bytearray(path.read_bytes())).call

    NAME.safetensors has the parameters alone, by their names in the tree.

    Args:
      trained: from `load`.
      path: NAME.stablehlo or NAME.safetensors.

    Returns:
      The files.

    Raises:
      ValueError: another ending.
      RunError: a file cannot be written, or what writes it is not installed.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".stablehlo":
            return _write_functions(trained, path)
        case ".safetensors":
            return [_write_parameters(trained, path)]
    raise ValueError(f"{path} has neither ending, .stablehlo or .safetensors: give one")


def _write_functions(trained: TrainedRun, path: Path) -> list[Path]:
    """Encoder, decoder, and what is said of them."""
    extras.check("flatbuffers")
    told = conditions.of_run(trained.config)
    bytes_seen = trained.options.model.likelihood in OF_BYTES
    shapes = {
        "x": (trained.image_shape, jnp.uint8 if bytes_seen else jnp.float32),
        "z": ((trained.latent_dim,), jnp.float32),
    }
    (num,) = jax_export.symbolic_shape("n")
    label: tuple[Any, ...] = ()
    if trained.options.model.conditional:
        label = (jax.ShapeDtypeStruct((num,), jnp.int32),)
    elif told:
        label = (jax.ShapeDtypeStruct((num, len(told)), jnp.float32),)

    def encode(x: jax.Array, *label: jax.Array) -> dict[str, jax.Array]:
        posterior = trained.model.encode(trained.params, x, *label)
        found = {"mean": as_vectors(location(posterior))}
        if isinstance(posterior, vae_jax.Normal):
            found["scale"] = posterior.scale
        return found

    def decode(z: jax.Array, *label: jax.Array) -> dict[str, jax.Array]:
        code = as_layers(z, trained.layers)
        return {"image": picture(trained.model.decode(trained.params, code, *label))}

    files, said = [], {}
    for name, function, given in ("encoder", encode, "x"), ("decoder", decode, "z"):
        shape, dtype = shapes[given]
        arguments = (jax.ShapeDtypeStruct((num, *shape), dtype), *label)
        exported = jax_export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
        file = path.with_suffix(f".{name}.stablehlo")
        folder.write_bytes(file, bytes(exported.serialize()))
        files.append(file)
        outputs = jax.eval_shape(function, *arguments)
        said[name] = {
            "file": file.name,
            "takes": [
                {"name": n, "shape": ["n", *a.shape[1:]], "dtype": a.dtype.name}
                for n, a in zip((given, "label"), arguments, strict=False)
            ],
            "gives": {
                n: {"shape": ["n", *a.shape[1:]], "dtype": a.dtype.name} for n, a in outputs.items()
            },
        }
    about = path.with_suffix(".json")
    folder.write_json(about, {**said, **_described(trained, bytes_seen=bytes_seen)})
    return [*files, about]


def _described(trained: TrainedRun, *, bytes_seen: bool) -> dict[str, Any]:
    """What one has to know to call them."""
    binarization = trained.config["binarization"]
    if bytes_seen:
        seen = "bytes"
    elif binarization == "none":
        dequantized = "pixels" in trained.config  # not by version 0.1
        seen = f"values in [0, 1]; of bytes {'(byte + 0.5) / 256' if dequantized else 'byte / 255'}"
    else:
        seen = "0 and 1, of black and white: of greys in [0, 1], those above 0.5 are 1"
    return {
        "how": "jax.export.deserialize(bytearray(Path(file).read_bytes())).call(...)",
        "x": seen,
        "image": "the expected value of p(x|z), within [0, 1]",
        "classes": list(trained.classes),
        "conditions": to_json(conditions.of_run(trained.config)),
        "dataset": trained.config["dataset"],
        "binarization": binarization,
        "step": trained.step,
        "platforms": list(PLATFORMS),
        "versions": {"jax": jax.__version__, "vae_jax": vae_jax.__version__},
    }


def _write_parameters(trained: TrainedRun, path: Path) -> Path:
    extras.check("safetensors")
    from safetensors.numpy import save

    named = {n: np.asarray(leaf, order="C") for n, leaf in published.named(trained.params).items()}
    said = {"step": str(trained.step), "config": json.dumps(trained.config)}
    folder.write_bytes(path, save(named, said))
    return path
