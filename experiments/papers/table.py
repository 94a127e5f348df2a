"""How a paper's program begins, and what it leaves: results.json, which the page is made of."""

from pathlib import Path
from typing import Any

import jax

from vae_jax.run import devices, folder, measure, overwritten
from vae_jax.run.job import plain_options


def begin(chosen: Any) -> None:
    """Refuses what cannot be done before anything is downloaded or compiled."""
    folder.check_writable(chosen.output)
    devices.use_accelerator(chosen.accelerator)
    devices.use_compilation_cache()


def open_folder(chosen: Any, name: str) -> Path:
    """The folder of results, runs/NAME-TIME where none is asked for; it says where it is."""
    output = folder.create(chosen.output, name, overwrite=chosen.overwrite)
    overwritten.gone(output)
    folder.write_json(output / "config.json", plain_options(chosen))
    print(f"results: {output}   device: {jax.devices()[0].device_kind}")
    return output


class Table:
    """What a program has reached so far, written anew with each row: an end loses none of them.

    Args:
      output: its folder.
      chosen: its options, a dataclass.
      about: of all rows: paper, protocol.
    """

    def __init__(self, output: Path, chosen: Any, **about: Any) -> None:
        self.path = output / "results.json"
        self.rows: list[dict[str, Any]] = []
        self._about, self._chosen = about, chosen

    def add(self, row: dict[str, Any], described: str) -> None:
        self.rows.append(row)
        results = {
            **self._about,
            "rows": self.rows,
            "device": jax.devices()[0].device_kind,
            "versions": measure.versions(),
            "options": plain_options(self._chosen),
        }
        folder.write_json(self.path, results)
        print(described, flush=True)

    def end(self) -> None:
        print(f"the table: {self.path}")
