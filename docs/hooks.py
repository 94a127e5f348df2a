"""Pages of the site that are made: of the API, of papers, of files that stand elsewhere.

MkDocs calls the functions whose names begin with `on_`. Nothing of vae_jax is imported: what is
public is read from the `__init__.py` files, and mkdocstrings reads the docstrings.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(Path(__file__).parent))
import docstrings  # noqa: E402

# Public modules that no front door leads into.
WHOLE = ("vae_jax.checkpoint", "vae_jax.quantization")
# Pages, and the pictures that they show, by where they stand in the repository.
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Names the papers in the navigation."""
    for entry in config.nav or []:
        if "Models" in entry:
            entry["Models"] += [{name: f"models/{name}.md"} for name in programs()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for folder, target in ((".github", "images"), ("benchmarks/results", "results")):
        for picture in sorted((ROOT / folder).glob("*.png")):
            name = f"{target}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    for name in programs():
        text = paper(name)
        files.append(File.generated(config, f"models/{name}.md", content=text))
    for name, text in api():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Fills in the tables of the page of models."""
    if page.file.src_uri != "models/index.md":
        return markdown
    listed = [f"- [{name}]({name}.md): {title(name)}." for name in programs()]
    reached = RESULTS.summary(RESULTS.load())
    return markdown.replace("{{ programs }}", "\n".join(listed)).replace(
        "{{ reached }}", "\n".join(reached)
    )


def _results() -> ModuleType:
    """What makes tables of the papers' results: run by its path, as it needs no package."""
    path = ROOT / "experiments" / "papers" / "__main__.py"
    spec = importlib.util.spec_from_file_location("papers", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RESULTS = _results()


def programs() -> list[str]:
    """The papers' programs, by name: what else is in their folder has no year in its name."""
    folder = ROOT / "experiments" / "papers"
    return sorted(path.stem for path in folder.glob("*[0-9].py"))


def about(name: str) -> str:
    """The first lines of a paper's program."""
    path = ROOT / "experiments" / "papers" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text()))
    if not text:
        raise PluginError(f"experiments/papers/{name}.py does not say what it is")
    return text


def title(name: str) -> str:
    return about(name).splitlines()[0].rstrip(".")


def paper(name: str) -> str:
    """The page of a paper: what its program says of itself, and every result that is committed."""
    lines = [f"# {title(name)}", *docstrings.markdown(about(name)).splitlines()[1:]]
    found = [result for result in RESULTS.load() if result["paper"] == name]
    if not found:
        lines += ["", "No result of this program is committed yet: what it reaches is not here."]
    for result in found:
        lines += ["", *RESULTS.section(result)]
    return "\n".join(lines) + "\n"


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
