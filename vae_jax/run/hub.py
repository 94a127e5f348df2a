"""Trained models to and from the Hugging Face hub: safetensors and JSON, and nothing that runs."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from vae_jax.run import card, extras, folder, published
from vae_jax.run.errors import RunError, UsageError

PREFIX = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check(name: str) -> None:
    """Raises UsageError for what is no ORG/NAME."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UsageError(f"{name} is no name of a model on the hub: give ORG/NAME")


def is_of_hub(run: str | os.PathLike[str]) -> bool:
    """Whether it is hf:ORG/NAME; hf://... is a file, of data."""
    text = os.fspath(run)
    return text.startswith(PREFIX) and not text.startswith(f"{PREFIX}//")


def place(run: str | os.PathLike[str]) -> Path:
    """The folder of a run, which is one already or hf:ORG/NAME, a model of the hub.

    Raises:
      UsageError, RunError: as `pull`.
    """
    return pull(os.fspath(run).removeprefix(PREFIX)) if is_of_hub(run) else Path(run)


def pull(name: str) -> Path:
    """The folder of a model of the hub, ORG/NAME or ORG/NAME@REVISION, in the hub's cache.

    Raises:
      UsageError: it is no such name.
      RunError: it is not there, or cannot be had now.
    """
    name, _, revision = name.partition("@")
    check(name)
    extras.check("huggingface_hub", "safetensors")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name, revision=revision or None, allow_patterns=list(published.FILES)
        )
    except Exception as error:  # the hub's and its connections', of every type
        raise _said(error, f"{name} cannot be had from the hub") from None
    path = Path(found)
    if not published.is_one(path):
        raise RunError(
            f"{name} on the hub has no {published.PARAMETERS}: name one that `vae-jax push` wrote"
        )
    return path


def push(trained: Any, run: Path, name: str, *, private: bool = False) -> str:
    """Puts a trained model on the hub, as `write` writes it; its address.

    Args:
      trained: from `load`.
      run: its folder.
      name: ORG/NAME, or hf:ORG/NAME.
      private: where it is new.

    Raises:
      UsageError: it is no such name.
      RunError: it cannot be put there.
    """
    name = name.removeprefix(PREFIX)
    check(name)
    extras.check("huggingface_hub", "safetensors")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        write(trained, run, Path(place))
        try:
            api = HfApi()
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=place, commit_message=f"Step {trained.step}, by vae_jax"
            )
        except Exception as error:  # the hub's and its connections', of every type
            raise _said(error, f"{name} cannot be put on the hub") from None
    return str(address)


def write(trained: Any, run: Path, to: Path) -> None:
    """Writes a model as others may have it: parameters, config, results, card and pictures.

    No file says where on this machine its data lie.

    Args:
      trained: from `load`.
      run: its folder.
      to: an empty folder.

    Raises:
      RunError: it cannot be written, or the run has no results yet.
    """
    results, config = trained.results, dict(trained.config)
    if results is None:
        raise RunError(f"{run} has no results.json: wait until the run is done")
    folder.write_bytes(to / published.PARAMETERS, published.to_bytes(trained.params))
    source = str(results.get("source", ""))

    def told(text: str) -> str:
        """Without the folders that the data lie in."""
        for place in (str(config["options"]["data"]["dataset"]), source):
            if "/" in place or "\\" in place:
                text = text.replace(place, published.name_of(place))
        return text

    own = published.without_places({**config, "step": trained.step})
    kept = {name: value for name, value in results.items() if name not in ("options", "source")}
    for name, value in ("config.json", own), ("results.json", kept):
        folder.write_json(to / name, json.loads(told(json.dumps(value))))
    path = run / card.NAME
    text = path.read_text("utf-8") if path.is_file() else card.text(run, config, results)
    folder.write_bytes(to / card.NAME, told(text).encode())
    for picture in card.PICTURES:
        if (run / picture).is_file():
            folder.write_bytes(to / picture, (run / picture).read_bytes())


def _said(error: Exception, what: str) -> RunError:
    """The hub's error in a line, with what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    advice = {
        401: "log in by `hf auth login`, and see that it is there",
        403: "log in as one who may",
        404: "see that it is there",
    }.get(status or 0, "see that the network is there, or that HF_ENDPOINT is right")
    brief = " ".join(str(error).split())[:160]
    return RunError(f"{what} ({type(error).__name__}: {brief}): {advice}")
