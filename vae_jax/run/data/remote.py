"""Data that lie elsewhere, by their URL: brought here once, whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from vae_jax.run import extras
from vae_jax.run.errors import DataError, RunError

_WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between tries."""


def local(data: str) -> str:
    """The path of what a URL names, a file or a folder; what is no URL as it is.

    It is kept in VAE_JAX_CACHE, or ~/.cache/vae_jax, and read again where the place says that it
    has changed since.

    Args:
      data: such as s3://bucket/cells.h5ad, gs://, https:// or hf://datasets/ORG/NAME/FILE.

    Raises:
      DataError: there is nothing, or it may not be read, or the connection fails time and again.
      RunError: the package of such URLs is not installed, or this machine cannot hold the data.
    """
    if "://" not in data:
        return data
    extras.check("fsspec")
    import fsspec

    try:
        system, place = fsspec.core.url_to_fs(data)
    except (ImportError, ValueError) as error:  # of the package that such a URL wants; of no such
        raise RunError(f"{data} cannot be read: {_brief(error)}") from None
    folder = _cache() / hashlib.sha256(data.encode()).hexdigest()[:16]
    found = _tried(data, _listed, data, system, place)
    stamp = json.dumps(found, default=str)
    path = folder / _safe(data, PurePosixPath(place.rstrip("/")).name)
    if (folder / "stamp.json").is_file() and (folder / "stamp.json").read_text() == stamp:
        return str(path)
    print(f"reading {data}: {len(found)} files, {sum(size for *_, size, _ in found):,} bytes")
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        for key, below, size, _ in found:
            to = partial / path.name / below if below else partial / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            _tried(data, _read, system, key, to, size)
        (partial / "stamp.json").write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise RunError(
            f"{data} cannot be kept in {folder.parent} ({error.strerror}): set VAE_JAX_CACHE to "
            "another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(path)


def _cache() -> Path:
    return Path(os.environ.get("VAE_JAX_CACHE", "~/.cache/vae_jax")).expanduser() / "data"


def _listed(data: str, system: Any, place: str) -> list[tuple[str, str, int, Any]]:
    """Key, path below the folder, size and what tells a change, of each file; one of a file."""
    of_file = system.isfile(place)
    infos = {place: system.info(place)} if of_file else system.find(place, detail=True)
    if not infos:
        system.info(place)  # of HTTP this alone says why
        raise FileNotFoundError(place)
    found = []
    for key, info in sorted(infos.items()):
        below = "" if key == place else _safe(data, key.removeprefix(place.rstrip("/") + "/"))
        marks = ("ETag", "etag", "md5Hash", "crc32c", "LastModified", "mtime", "last_modified")
        changed = next((str(info[mark]) for mark in marks if info.get(mark)), None)
        found.append((key, below, int(info.get("size") or 0), changed))
    return found


def _safe(data: str, name: str) -> str:
    """The name of a file below a folder.

    Raises:
      DataError: it would lie elsewhere.
    """
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise DataError(f"{data} has a file called {name!r}, which would lie outside of its folder")
    return name


def _read(system: Any, key: str, to: Path, size: int) -> None:
    system.get_file(key, str(to))
    if to.stat().st_size < size:  # not every protocol says so itself
        raise ConnectionError(f"{to.stat().st_size:,} of {size:,} bytes came")


def _tried(data: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """What a read gives, tried again where a connection fails.

    Raises:
      DataError: what is read is not there or may not be, or it fails again and again.
      OSError: there is no room for it.
    """
    waits = [*_WAITS, None]
    while True:
        try:
            return read(*arguments)
        except ImportError as error:
            raise RunError(f"{data} cannot be read: {_brief(error)}") from None
        except DataError:
            raise
        except Exception as raised:  # of each protocol's own types
            why: BaseException = raised
            if isinstance(raised, FileNotFoundError):
                # HTTP raises this for a closed port and a status 500 too
                cause = raised.__cause__ if data.startswith("http") else None
                if not isinstance(cause, OSError) and getattr(cause, "status", 404) in (404, 410):
                    raise DataError(f"{data} does not exist") from None
                why = cause or raised
            if getattr(why, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            if isinstance(why, PermissionError) or getattr(why, "status", 0) in (401, 403):
                raise DataError(
                    f"{data} may not be read ({_brief(why)}): is this machine logged in?"
                ) from None
            if (wait := waits.pop(0)) is None:
                tries = len(_WAITS) + 1
                raise DataError(
                    f"{data} cannot be read, tried {tries} times ({_brief(why)})"
                ) from None
            time.sleep(wait)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]
