"""A trained model as files of numbers and JSON alone, that a stranger may have written.

Nothing in them is executed, nothing outside their folder is read, and no array is made before its
size is known to be that of the file.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from vae_jax.run import extras
from vae_jax.run.errors import DataError, RunError, UsageError

PARAMETERS = "model.safetensors"
FILES = ("config.json", "results.json", PARAMETERS)
_MOST_JSON, _MOST_SIZE, _MOST_VALUES, _MOST_LAYERS = 2**26, 2**24, 2**26, 64
_NAMED = ("auto", "mnist", "fashion_mnist", "binarized_mnist", "digits")
_PLACES = ("data_dir", "manual_dir", "test", "labels")


def is_one(folder: Path) -> bool:
    """Whether the folder has such a model, and no run with checkpoints."""
    return (folder / PARAMETERS).is_file() and not (folder / "checkpoints").exists()


def named(params: Any) -> dict[str, Any]:
    """The leaves of parameters by their names in the tree."""
    import jax  # here, as a shell that reads a config.json needs none of it

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(at, simple=True, separator="."): leaf for at, leaf in leaves}


def to_bytes(params: Any) -> bytes:
    """Parameters as a file of safetensors.

    Raises:
      RunError: what writes it is not installed.
    """
    extras.check("safetensors")
    import numpy as np
    from safetensors.numpy import save

    content: bytes = save({n: np.asarray(leaf, order="C") for n, leaf in named(params).items()})
    return content


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json that names no place of a machine: neither told to others, nor read from them.

    Args:
      config: of a run.
    """
    chosen = {name: dict(group) for name, group in config["options"].items()}
    data = chosen["data"]
    data |= {name: None for name in _PLACES if name in data}
    if data["dataset"] not in _NAMED:
        data["dataset"] = f"the data of {config['dataset']}"
    chosen["run"]["output"] = None
    if "init_from" in chosen["training"]:
        chosen["training"]["init_from"] = None
    return {**config, "options": chosen}


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """What goes wrong with a stranger's files is said in a line, whatever it is.

    Raises:
      UsageError: in place of any error that is no line already.
    """
    try:
        yield
    except (UsageError, RunError, DataError):
        raise
    except Exception as error:  # of every type: any value may stand in any place
        from vae_jax.checkpoint import CheckpointError  # here, as it brings JAX

        if isinstance(error, CheckpointError):
            raise
        brief = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise UsageError(
            f"{folder} holds no model that can be read ({brief}): name one that `vae-jax push` made"
        ) from None


def check(folder: Path) -> None:
    """Looks at the files before anything is made of them.

    Raises:
      UsageError: a file lies elsewhere or is too large, or numbers in config.json are.
    """
    for name in FILES:
        path = folder / name
        if path.exists() and not _inside(path, folder):
            raise UsageError(f"{path} is a link that points out of its folder: it is not read")
        if path.suffix == ".json" and path.exists() and path.stat().st_size > _MOST_JSON:
            raise UsageError(f"{path} has more than {_MOST_JSON >> 20} MB: it is not read")
    config = json.loads((folder / "config.json").read_text())
    model = config["options"]["model"]
    for name, value in model.items():
        if isinstance(value, list) and len(value) > _MOST_LAYERS:
            raise UsageError(f"{name} has {len(value):,} layers: {_MOST_LAYERS} are the most")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not 0 <= one <= _MOST_SIZE:
                raise UsageError(f"{name} is {_shown(one)}: it is not from 0 to {_MOST_SIZE:,}")
    if not 0 <= model.get("num_transforms", 0) <= _MOST_LAYERS:
        raise UsageError(
            f"num_transforms is {model['num_transforms']}: {_MOST_LAYERS} are the most"
        )
    classes, num = config.get("classes"), config.get("num_classes")
    if isinstance(classes, list) and len(classes) != num:
        raise UsageError(f"num_classes is {_shown(num)} but classes has {len(classes):,} names")
    sizes = {
        "image_shape": math.prod(config.get("image_shape", [1])),
        "num_classes": config.get("num_classes", 0),
        "length": config.get("length", 1) * max(1, len(config.get("spread", []))),
    }
    for name, size in sizes.items():
        if not 0 <= size <= _MOST_VALUES:
            raise UsageError(f"{name} is {_shown(config[name])}: it is not within {_MOST_VALUES:,}")


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    return str(value)[:60]


def _inside(path: Path, folder: Path) -> bool:
    """Whether it is in the folder; of the hub's cache, whose files are links, in the model's."""
    real, home = path.resolve(), folder.resolve()
    if home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--"):
        home = home.parent.parent
    return real.is_relative_to(home)


def parameters(folder: Path, made: Callable[[], Any]) -> Any:
    """The parameters, if they are those of the model.

    Args:
      folder: of the model.
      made: () -> parameters of the model, traced for their shapes alone.

    Raises:
      RunError: they are of another model, or no numbers; or safetensors is not installed.
    """
    extras.check("safetensors")
    import jax
    import numpy as np
    from safetensors import SafetensorError, safe_open

    path, wanted = folder / PARAMETERS, jax.eval_shape(made)
    try:
        with safe_open(path, "numpy") as file:
            there = set(file.keys())
            if there != set(named(wanted)):
                other = sorted(there ^ set(named(wanted)))[0][:100]
                raise RunError(f"{path} is of another model than config.json: {other}")

            def read(at: Any, of: Any) -> np.ndarray:
                name = jax.tree_util.keystr(at, simple=True, separator=".")
                shape = tuple(file.get_slice(name).get_shape())
                if shape != of.shape:
                    raise RunError(
                        f"{path} is of another model than config.json: {name} has shape {shape}, "
                        f"not {of.shape}"
                    )
                array: np.ndarray = file.get_tensor(name)
                if array.dtype != of.dtype or not np.isfinite(array).all():
                    raise RunError(f"{path}: {name} has values that are no finite {of.dtype}")
                return array

            return jax.device_put(jax.tree_util.tree_map_with_path(read, wanted))
    except (SafetensorError, OSError, TypeError) as error:
        brief = str(error).partition("\n")[0][:200]
        raise RunError(f"{path} cannot be read ({brief}): download it again") from None


def name_of(place: str) -> str:
    """The last part of a path, of any system."""
    return PurePath(place.replace("\\", "/")).name
