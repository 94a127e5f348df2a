"""The folder of a run: what is in it, and how it is opened without losing anything."""

import contextlib
import fcntl
import json
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import vae_jax
from vae_jax.run import kinds, overwritten, published
from vae_jax.run.errors import RunError, UsageError
from vae_jax.run.options import Options, from_json

FORMAT = 2
"""Of a run's folder. Every earlier one is read: 1, without the number, is that of version 0.1."""

CONTENTS = (
    "config.json",
    "metrics.jsonl",
    "results.json",
    "evaluation.json",
    "diagnosis.json",
    "README.md",
    "checkpoints",
    "damaged",
    "reconstructions.png",
    "samples.png",
    "samples_by_class.png",
    "style_transfer.png",
    "completions_1.png",
    "completions_2.png",
    "completions_3.png",
    "latent.png",
    "curves.png",
    "marginals.png",
    "genes.png",
    "signal_to_noise.png",
    "tensorboard",
    "runs.csv",
    "runs.png",
)


def create(output: Path | None, name: str, *, overwrite: bool) -> Path:
    """A new run's folder, made, locked and known to be writable.

    Args:
      output: the folder asked for; None for runs/NAME-TIME.
      name: used when output is None.
      overwrite: set a run that is there aside; `overwritten.gone` deletes it.

    Raises:
      UsageError: the folder holds a run, or other files, and may not be overwritten.
      RunError: the folder cannot be written, or another process is at it.
    """
    folder = output or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A run that was killed before it had a config.json left hidden files at most.
        if not (folder / "config.json").exists() and any(
            not path.name.startswith(".") for path in folder.iterdir()
        ):
            raise UsageError(f"{folder} holds files that are no run: name a new folder")
        lock(folder)
        if (folder / "config.json").exists():
            if not overwrite:
                raise UsageError(
                    f"--output={folder} holds a run: give --resume to go on with it, --overwrite "
                    "to delete it, or another folder"
                )
            overwritten.set_aside(folder, (*CONTENTS, *runs_in(folder)))
        sign(folder)
    return folder


def runs_in(folder: Path) -> list[str]:
    """The names of the runs in a folder of several; none where it is no such folder."""
    try:
        config = read_stamped(folder)
    except (UsageError, RunError):
        return []
    found = config.get("runs")
    if config.get("kind") != kinds.SEVERAL or not isinstance(found, dict):
        return []
    # A stranger's must not lead out of it.
    return [name for name in found if name and Path(name).name == name != ".."]


def open_for_fit(folder: Path, made_of: dict[str, Any], *, resume: bool) -> None:
    """The folder of `fit`, made or found, and locked.

    Args:
      folder: the folder.
      made_of: JSON values that a resumed run must share.
      resume: go on with a run that is there.

    Raises:
      RunError: it holds another run, or one that is not to be resumed, or cannot be used.
    """
    path = folder / "config.json"
    if not path.exists():
        create(folder, "", overwrite=False)
        write_json(path, {**stamp(), "program": "vae_jax.run.fit", "made_of": made_of})
        return
    if not resume:
        raise RunError(
            f"{folder} holds a run: go on with it by Plan(resume=True), or name another folder"
        )
    config = read_stamped(folder)
    if "made_of" not in config:
        raise RunError(f"{folder} holds a run of another program: name another folder")
    for name, value in made_of.items():
        if value != (found := config["made_of"].get(name)):
            raise RunError(
                f"{name} is {value} but the run in {folder} has {found}: "
                "leave it as it was, or name another folder"
            )
    lock(folder)


def lock(folder: Path) -> None:
    """Keeps other processes from a run's folder until this one ends, however it ends.

    Changes nothing in it: a run may be refused yet. `sign` says whose it is.

    Raises:
      RunError: another process has it, or the folder cannot be written.
    """
    with writing(folder):
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with reading(folder / ".lock"):
            owner = os.read(descriptor, 200).decode()
        os.close(descriptor)
        last = f", last written by {owner}" if owner else ""
        raise RunError(
            f"{folder} is in use by another process{last}: wait for it, or name another folder"
        ) from None
    except OSError as error:  # of a file system without locks
        os.close(descriptor)
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}): see that no other process writes there",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    _locks[folder] = descriptor


def sign(folder: Path) -> None:
    """Writes into the lock who has the folder, once it is settled that it will be written.

    Raises:
      RunError: it cannot be written.
    """
    if folder in _locks:
        with writing(folder):
            os.ftruncate(_locks[folder], 0)
            os.lseek(_locks[folder], 0, os.SEEK_SET)
            os.write(_locks[folder], f"process {os.getpid()} on {platform.node()}".encode())


# Of the folders that this process has, the open files that hold the locks.
_locks: dict[Path, int] = {}


def unlock(folder: Path) -> None:
    """Lets other processes, and later runs of this one, have the folder."""
    if folder in _locks:
        os.close(_locks.pop(folder))


def check_writable(output: Path | None) -> None:
    """Raises an error where a folder for results cannot be made, before anything is downloaded.

    Raises:
      UsageError: it is a URL.
      RunError: it cannot be written.
    """
    if output is not None and re.match(r"[a-z0-9+]{2,}:/", str(output)):
        raise UsageError(
            f"--output={output} is a URL: name a folder of this machine, and copy it afterwards"
        )
    path = (output or Path("runs")).absolute()
    existing = next(p for p in (path, *path.parents) if os.path.exists(p))  # never raises
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RunError(f"cannot write {path}: {existing} is not a writable folder; name another")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; name another folder") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What is there but cannot be read now is not taken for what is not there."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise RunError(
            f"cannot read {path} ({error.strerror}): nothing was changed; try again"
        ) from error


def beside(run: Path, name: str) -> Path:
    """Where a command writes of a run: in its folder, or of a model as others have it, here."""
    return Path(name) if published.is_one(run) else run / name


def stamp() -> dict[str, Any]:
    """What says who wrote a config.json; see `FORMAT`."""
    return {"format": FORMAT, "vae_jax": vae_jax.__version__}


def read_stamped(folder: Path) -> dict[str, Any]:
    """The config.json of a run of any program, if this version can read it.

    Of a model that a stranger may have written it is looked at before, and names no place.

    Raises:
      UsageError: the folder holds no run, or one of a later format.
      RunError: it cannot be read now.
    """
    path = folder / "config.json"
    of_stranger = published.is_one(folder)
    if of_stranger:
        with published.reading(folder):
            published.check(folder)
    try:
        with reading(path):
            config: dict[str, Any] = json.loads(path.read_text())
        written = int(config.get("format", 1))
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            why = "there is no config.json" if folder.is_dir() else "there is no such folder"
        raise UsageError(f"{folder} holds no run ({why}): name a folder that one wrote") from None
    if written > FORMAT:
        raise UsageError(
            f"{folder} is of format {written}, written by vae_jax {config.get('vae_jax')}: this is "
            f"{vae_jax.__version__}, which reads up to {FORMAT}; pip install -U vae_jax"
        )
    if of_stranger:
        with published.reading(folder):
            return published.without_places(config)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run on images.

    Raises:
      UsageError: the folder holds no such run.
    """
    config = read_stamped(folder)
    if (kind := kinds.of_run(config)) is not None:
        raise UsageError(f"{folder} holds a run on {kind.what}, and this is for runs on images")
    try:
        from_json(config["options"])
        types = {"dataset": str, "notice": str, "binarization": str, "num_classes": int}
        for name, of in {**types, "image_shape": list}.items():
            if not isinstance(config[name], of):
                raise TypeError(f"{name} is {config[name]!r}")
        if not all(isinstance(name, str) for name in config.get("classes", [])):
            raise TypeError(f"classes are {config['classes']!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no run of this program ({type(error).__name__}: {error}): name a "
            "folder that one wrote"
        ) from None
    return config


def kind_in(folder: Path) -> kinds.Kind | None:
    """The kind of the data of a run; None where it is on images, or no run."""
    try:
        return kinds.of_run(read_stamped(folder))
    except (UsageError, RunError):
        return None


def kind_among(arguments: Sequence[str]) -> kinds.Kind | None:
    """The kind of the first run that a command's arguments name; None where it is on images."""
    found = (kind_in(Path(a)) for a in arguments if not a.startswith("-"))
    return next((kind for kind in found if kind is not None), None)


def read_config_of(kind: kinds.Kind, folder: Path) -> dict[str, Any]:
    """The config.json of a run on data of a kind.

    Raises:
      UsageError: the folder holds no such run.
    """
    config = read_stamped(folder)
    try:
        if config.get("kind") != kind.name:
            raise TypeError(f"it is on {config.get('kind', 'images')}")
        kind.stored_options(config)
        kind.check_stored(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no run on {kind.what} ({type(error).__name__}: {error}): name a "
            "folder that one wrote"
        ) from None
    return config


def check_checkpoint(
    folder: Path, step: int, written: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Raises RunError for a checkpoint that another run's data made, copied to this folder.

    Args:
      folder: the run's.
      step: of the checkpoint.
      written: its config. Without a digest, as version 0.1 wrote it, it is taken for the run's own.
      config: of the run.
    """
    if {"digest"} <= written.keys() & config.keys() and written["digest"] != config["digest"]:
        raise RunError(
            f"the checkpoint of step {step} in {folder / 'checkpoints'} is of a run on other data "
            "than config.json is: move it away, to the run that it came from"
        )


def classes(config: dict[str, Any]) -> list[str]:
    """The names of a run's classes, in the order of their numbers."""
    numbers = map(str, range(config["num_classes"]))  # version 0.1 had no names
    names: list[str] = config.get("classes", list(numbers))
    return names


def read_options(folder: Path) -> Options:
    """The options that a run was started with."""
    return from_json(read_config(folder)["options"])


def _strict(value: Any) -> Any:
    """The value with null for what JSON has no word for: infinities, and what is no number."""
    if isinstance(value, dict):
        return {name: _strict(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all.

    Raises:
      RunError: it cannot be written.
    """
    text = json.dumps(_strict(value), indent=2, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Likewise bytes."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        partial.write_bytes(content)
        os.replace(partial, path)


def check_picture(path: Path) -> None:
    """Raises UsageError for a picture whose kind its name does not say, RunError for no folder."""
    from PIL import Image

    if path.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"--output={path} has no ending of a picture: name it, say, grid.png")
    check_place(path)


def check_output(path: Path, kind: kinds.Kind) -> None:
    """Raises UsageError for a name that does not say how to write it, RunError for no folder."""
    if not path.name.lower().endswith(kind.suffixes):
        raise UsageError(
            f"--output={path} has no ending of {kind.what}: name it, say, {kind.output}"
        )
    check_place(path)


def check_place(path: Path) -> None:
    """Raises RunError for a file or folder in a folder that is not there."""
    if not path.absolute().parent.is_dir():
        raise RunError(f"cannot write {path}: make the folder {path.absolute().parent} first")


def save_picture(picture: Any, path: Path) -> None:
    """Writes a picture.

    Raises:
      RunError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    with writing(path):
        picture.save(partial)
        os.replace(partial, path)


def read_metrics(folder: Path, step: int) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl up to a step, null as NaN; a row that was cut short is not one."""
    rows = []
    path = folder / "metrics.jsonl"
    with contextlib.suppress(FileNotFoundError), reading(path):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                rows.append({n: math.nan if v is None else v for n, v in row.items()})
    return [row for row in rows if row["step"] <= step]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_strict(row), allow_nan=False) + "\n"


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all rows of metrics.jsonl."""
    partial = folder / ".metrics.jsonl.partial"
    with writing(folder):
        partial.write_text("".join(_line(row) for row in rows))
        os.replace(partial, folder / "metrics.jsonl")


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    """Adds a row to metrics.jsonl."""
    with writing(folder), (folder / "metrics.jsonl").open("a") as file:
        file.write(_line(row))
