"""A page to look at a trained run with: its latents, moved by hand."""

import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.run import command, folder, kinds, options, output
from vae_jax.run.data import examples
from vae_jax.run.errors import RunError, UsageError

if TYPE_CHECKING:
    from vae_jax.run.explorer.contents import Explored


@dataclass(frozen=True)
class Options:
    """Opens a page on this machine, in which a trained run's latents are moved by hand.

    It has a map of the codes of images, a slider for each latent that is used, the decoded picture,
    which moves with them, a line between two codes, and takes a picture of one's own. A run that
    was trained with a --condition it does not show: see traverse, interpolate and generate.
    --export=explorer.html writes the page as one file that needs no server and no network.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    images: options.UsedData = field(default_factory=options.UsedData)
    label: str | None = None
    """Of a conditional run: one class for all images; their own when not given."""
    num: int = 2000
    """Images on the map, at most, evenly spaced."""
    export: Path | None = None
    """A .html file to write, in place of a server."""
    port: int = 0
    """Where the page is, at 127.0.0.1; one that is free when not given."""
    browser: bool = True
    """Whether the page is opened in the browser; with --no-browser it is not."""


@dataclass(frozen=True)
class ExampleOptions:
    """Opens a page on this machine, in which the latents of a run are moved by hand.

    It has a map of the codes of rows, cells or sequences, a slider for each latent that is used,
    and the decoded one, which moves with them: a row of a table as bars; of a cell the thirty genes
    in which the decoded cells differ the most, as counts of a cell of the typical total; a sequence
    as a picture of numbers by time, of a run with --latents=recurrent. A run on a table that was
    trained with a --condition it does not show: see generate.
    --export=explorer.html writes the page as one file that needs no server and no network.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or hf:ORG/NAME."""
    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    """A file such as the run's; the run's own test set when not given."""
    data: Path | None = None
    """Where the run's own file lies, if it has moved and DATA is not given."""
    num: int = 2000
    """Rows, cells or sequences on the map, at most, evenly spaced."""
    export: Path | None = None
    """A .html file to write, in place of a server."""
    port: int = 0
    """Where the page is, at 127.0.0.1; one that is free when not given."""
    browser: bool = True
    """Whether the page is opened in the browser; with --no-browser it is not."""


def main(arguments: Sequence[str], prog: str) -> None:
    kind = folder.kind_among(arguments)
    chosen: Any = command.parse(ExampleOptions if kind else Options, arguments, prog=prog)
    options.check_at_least(1, num=chosen.num)
    if not 0 <= chosen.port < 2**16:
        raise UsageError(f"--port is {chosen.port}: give one below 65536, or 0 for any")
    if chosen.export is not None:
        output.check(chosen.export, (".html",))
    explored = _of_images(chosen) if kind is None else _of_examples(chosen, kind)
    title = chosen.run.resolve().name

    from vae_jax.run.explorer.page import page  # after the options, as it brings JAX

    if chosen.export is None:
        _serve(chosen, explored, page(explored.contents, title, served=True))
        return
    if explored.cannot is not None:
        raise RunError(
            f"a page cannot carry the networks of {chosen.run}, as {explored.cannot}: leave "
            "--export out, and a server on this machine computes for it"
        )
    content = page(explored.contents, title, served=False).encode()
    folder.write_bytes(chosen.export, content)
    print(f"page: {chosen.export}, {len(content) / 1e6:.1f} MB")


def _of_images(chosen: Options) -> "Explored":
    config = folder.read_config(chosen.run)
    _check_untold(chosen.run, config)
    names = folder.classes(config)
    found, label = examples.open_for(config, names, chosen.images, chosen.label)

    from vae_jax.run.explorer import contents  # after the options, as it brings JAX
    from vae_jax.run.loaded import load_images

    # Of a file the name alone: where it lies is nobody's business whom the page is sent to.
    source = f"the {chosen.images.split or 'test'} set"
    if chosen.images.dataset is not None:
        source = Path(chosen.images.dataset).name
    return contents.of_images(load_images(chosen.run), found, label, source, chosen.num)


def _of_examples(chosen: ExampleOptions, kind: kinds.Kind) -> "Explored":
    config = folder.read_config_of(kind, chosen.run)
    if kind.name == "sequences" and config["options"]["model"]["latents"] != "recurrent":
        raise UsageError(
            f"{chosen.run} holds a run with latents at every step, and explore is for such with "
            "one code a sequence, of --latents=recurrent: use embed, or generate"
        )

    from vae_jax.run import loaded_examples  # after the options, as it brings JAX
    from vae_jax.run.explorer import contents

    trained = loaded_examples.load_examples(chosen.run)
    _check_untold(chosen.run, trained.config)
    batch, _ = trained.read(_text(chosen.file), _text(chosen.data))
    source = "the test set" if chosen.file is None else chosen.file.name
    of_kind = {
        "table": contents.of_table,
        "counts": contents.of_cells,
        "sequences": contents.of_sequences,
    }
    return of_kind[kind.name](trained, batch, source, chosen.num)


def _check_untold(run: Path, config: Mapping[str, Any]) -> None:
    """Raises UsageError for a run that is told columns, but for cells of one with classes."""
    told = config.get("conditions", [])
    if config.get("kind") == "counts" and len(told) == 1 and told[0].get("levels"):
        return
    if told:
        raise UsageError(
            f"{run} was trained with a --condition, which the explorer cannot show: use traverse, "
            "interpolate or generate"
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _serve(chosen: Any, explored: "Explored", page: str) -> None:
    """Serves the page until it is interrupted."""
    from vae_jax.run.explorer.server import Server

    with Server(page, explored, chosen.port) as server:
        where = "in the page" if explored.cannot is None else f"here, as {explored.cannot}"
        print(f"explorer: {server.url}   networks: {where}   Ctrl-C ends it", flush=True)
        if chosen.browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
