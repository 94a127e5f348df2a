"""Pages of the site that are made: of the API, of the papers' results, of files that stand elsewhere.

MkDocs calls the functions whose names begin with `on_`. Nothing of vae_jax is imported: what is
public is read from the `__init__.py` files, and mkdocstrings reads the docstrings.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Public modules that no front door leads into.
WHOLE = ("vae_jax.checkpoint", "vae_jax.quantization")
# Pages, and the pictures that they show, by where they stand in the repository.
ELSEWHERE = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for folder, target in ((".github", "images"), ("benchmarks/results", "results")):
        for picture in sorted((ROOT / folder).glob("*.png")):
            name = f"{target}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    for name, text in api():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def api() -> Iterator[tuple[str, str]]:
    """Each page of the API: one of a room of vae_jax, one of `networks`, one of `run`."""
    for room, names in public("vae_jax").items():
        yield (
            room.rpartition(".")[2],
            "\n".join([whole(room, 1, members=False), *map(entry, names)]),
        )
    for package in ("vae_jax.networks", "vae_jax.run"):
        entries = [
            entry(f"{package}.{name.rpartition('.')[2]}")
            for names in public(package).values()
            for name in names
        ]
        yield (
            package.rpartition(".")[2],
            "\n".join([whole(package, 1, members=False), *entries]),
        )
    for module in WHOLE:
        yield module.rpartition(".")[2], whole(module, 1, members=True)


def entry(name: str) -> str:
    return f"::: {name}\n"


def whole(module: str, level: int, *, members: bool) -> str:
    """A module under its own name, with or without what is in it."""
    options = f"    options: {{heading_level: {level}, members: {str(members).lower()}}}"
    return f"::: {module}\n{options}\n"


def public(package: str) -> dict[str, list[str]]:
    """{module: the names that `package` offers of it}, by the imports of its front door."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    offered: set[str] = set()
    rooms: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            offered.update(ast.literal_eval(node.value))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            rooms[str(node.module)] = [f"{package}.{alias.name}" for alias in node.names]
    found = {name.rpartition(".")[2] for names in rooms.values() for name in names}
    if missing := offered - found - {"networks"}:
        raise PluginError(f"{package} offers {sorted(missing)}, which no page of the API has")
    return rooms
