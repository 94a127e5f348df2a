"""Pages of the site that are made: API, papers, the tutorial, files that stand elsewhere.

MkDocs calls the functions whose names begin with `on_`. Nothing of vae_jax is imported: what is
public is read from the `__init__.py` files, and mkdocstrings reads the docstrings.
"""

import ast
import base64
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from latex2mathml.converter import convert
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
    """Names the papers and the chapters in the navigation."""
    for entry in config.nav or []:
        if "Models" in entry:
            entry["Models"] += [{name: f"models/{name}.md"} for name in programs()]
        if "Tutorial" in entry:
            entry["Tutorial"] += [f"tutorial/{name}.md" for name in CHAPTERS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for folder, target in (
        (".github", "images"),
        ("benchmarks/results", "results"),
        ("experiments/papers/results", "models/results"),
    ):
        for picture in sorted((ROOT / folder).glob("*.png")):
            name = f"{target}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    for name in programs():
        text = paper(name)
        files.append(File.generated(config, f"models/{name}.md", content=text))
    for name, content in tutorial():
        files.append(File.generated(config, f"tutorial/{name}", content=content))
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


EQUATIONS = tomllib.loads((ROOT / "docs" / "equations.toml").read_text())


def paper(name: str) -> str:
    """The page of a paper: what its program says of itself, equation, results, the program."""
    if name not in EQUATIONS:
        raise PluginError(f"docs/equations.toml has no equation of {name}")
    lines = [f"# {title(name)}", *docstrings.markdown(about(name)).splitlines()[1:]]
    for tex in EQUATIONS[name]["tex"]:
        equation = convert(tex, display="block")
        if "\\" in equation:  # what the converter does not know, it leaves as it is
            raise PluginError(f"docs/equations.toml, {name}: no MathML is known for {tex}")
        lines += ["", f'<div class="equation" tabindex="0">{equation}</div>']
    lines += ["", EQUATIONS[name]["where"]]
    found = [result for result in RESULTS.load() if result["paper"] == name]
    if not found:
        lines += ["", "No result of this program is committed yet: what it reaches is not here."]
    for result in found:
        lines += ["", *RESULTS.section(result)]
    source = (ROOT / "experiments" / "papers" / f"{name}.py").read_text().partition('"""\n\n')[2]
    lines += ["", "## The program", "", "```{ .python }", source.rstrip(), "```"]
    return "\n".join(lines) + "\n"


_SECTION = re.compile(r'<section>(<h2 id="(\w+)">(.*?)</h2>.*?)</section>', re.DOTALL)
TUTORIAL = (ROOT / "docs" / "tutorial" / "tutorial.html").read_text()
CHAPTERS = [name for _, name, _ in _SECTION.findall(TUTORIAL)]


def tutorial() -> Iterator[tuple[str, str | bytes]]:
    """The chapters of the one page that a run of the tutorial leaves, and their pictures."""
    sections = _SECTION.findall(TUTORIAL)
    page_of = {
        anchor: name
        for content, name, _ in sections
        for anchor in re.findall(r' id="([^"]+)"', content)
    }
    (facts,) = re.findall(r"<footer><p>(.*?)</p></footer>", TUTORIAL, re.DOTALL)

    def elsewhere(link: re.Match[str]) -> str:
        page = page_of.get(link[1], "index")
        return f'href="{page}.html"' if page == link[1] else f'href="{page}.html#{link[1]}"'

    for content, name, title in sections:
        pictures: dict[str, bytes] = {}

        def beside(picture: re.Match[str], name: str = name, pictures: Any = pictures) -> str:
            file = f"{name}_{len(pictures)}.png"
            pictures[file] = base64.b64decode(picture[1])
            return f'src="{file}"'

        body = content.partition("</h2>")[2].partition('<p class="back">')[0]
        body = re.sub(r'href="#([^"]+)"', elsewhere, body)
        body = re.sub(r'src="data:image/png;base64,([^"]+)"', beside, body)
        yield f"{name}.md", f'# {title}\n\n<div class="tutorial">{body}</div>\n\n{facts}\n'
        yield from pictures.items()


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
