"""From chapters to one HTML page: text with equations, numbers by name, pictures inside.

A chapter's text is plain: paragraphs with blank lines between them, and in a paragraph *emphasis*,
**strong**, `code`, $mathematics$ in LaTeX, and [[name:.2f]] for the number that tutorial.json has
under that name, and [#bound] for "chapter 4" with a link. A paragraph can also be an equation in
$$...$$, a figure as ![name], a derivation as =[name], a table of lines that begin with | (indented
ones go on), or a warning, which begins with >. A word of `terms.GLOSSARY` becomes a link where the
page first uses it, and so does every citation of `terms.REFERENCES`.
"""

import base64
import html
import inspect
import io
import re
import string
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import matplotlib
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from latex2mathml.converter import convert

from experiments.tutorial.terms import GLOSSARY, REFERENCES

_MATHML = "http://www.w3.org/1998/Math/MathML"
ET.register_namespace("", _MATHML)
_NUMBER = re.compile(r"\[\[([\w.]+)(?::([^\]]+))?\]\]")
_TERM_OF = {spelled: term for term in GLOSSARY for spelled in (term.lower(), f"{term.lower()}s")}
_TERMS = "|".join(sorted(_TERM_OF, key=len, reverse=True)).replace(" ", r"\s+")
_AUTHORS_AND_YEARS = (html.escape(reference).rsplit(" ", 1) for reference in REFERENCES)
_CITATIONS = "|".join(
    rf"{authors} (?:{year}|\({year}\))".replace(" ", r"\s+") for authors, year in _AUTHORS_AND_YEARS
)
_INLINE = re.compile(
    r"\$(?P<math>[^$]+)\$|`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\*(?P<em>[^*]+)\*"
    rf"|\^(?P<sup>[^^ ]+)\^|\[#(?P<chapter>\w+)\]|(?P<reference>{_CITATIONS})"
    rf"|\b(?P<term>(?i:{_TERMS}))\b"
)
_RELATIONS = {"=": "=", r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\approx": "≈"}
_FUNCTION_NAME = re.compile(
    r"(<mi>(?:log|exp)</mi>|<mo>(?:tr|KL|Var)</mo>)(?!<mo stretchy=\"false\">&#x00028;)"
)
_WITH_POINT = re.compile(r"(<math(?:(?!</math>).)*</math>[.,;:)?]+)", re.DOTALL)


class Figure(NamedTuple):
    """A picture for the page: PNG bytes, what it shows in words, and its caption."""

    png: bytes
    alt: str
    caption: str


class Line(NamedTuple):
    """A line of a derivation: two sides, why the relation holds, and what both sides come to.

    Attributes:
      left: LaTeX; shown only where it is not the right side of the line before.
      relation: LaTeX, one of `_RELATIONS`.
      right: LaTeX; a narrow page may break it at each &.
      reason: in the notation of this module.
      values: of the left and the right side, each computed as it is written.
    """

    left: str
    relation: str
    right: str
    reason: str
    values: tuple[Any, Any]


class Chapter(NamedTuple):
    """What a chapter leaves.

    Attributes:
      title: its heading.
      text: in the notation of this module.
      numbers: by name, JSON values; the text and the tests read them. The lines of derivations
        are among them, by name under "derivations", as `derived` makes them.
      figures: by name.
      code: the functions, classes or modules that are shown at the end, as they ran.
      seconds: numbers that are times, and so not the same in every run.
      exercises: questions with their answers, both in the notation of this module.
    """

    title: str
    text: str
    numbers: dict[str, Any]
    figures: dict[str, Figure]
    code: Sequence[Callable[..., Any] | ModuleType]
    seconds: Mapping[str, Any] = MappingProxyType({})
    exercises: Sequence[tuple[str, str]] = ()


class _Scope(NamedTuple):
    """What the notation of a paragraph refers to."""

    numbers: Mapping[str, Any]
    figures: Mapping[str, Figure]
    book: Sequence[str]
    shown: Collection[str]
    linked: dict[str, None]
    """Terms and references, in the order in which the page first used them."""


def figure(picture: Any, alt: str, caption: str) -> Figure:
    """A Matplotlib figure or a PIL image, in 256 colours: a third of the bytes of all."""
    if isinstance(picture, plt.Figure):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png", dpi=200)
        plt.close(picture)
        picture = Image.open(drawn).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return Figure(buffer.getvalue(), alt, caption)


def derived(**derivations: Sequence[Line]) -> dict[str, list[dict[str, Any]]]:
    """Derivations by name, as a chapter's numbers hold them."""
    return {name: [line._asdict() for line in lines] for name, lines in derivations.items()}


def render(chapters: Mapping[str, Chapter], facts: str, book: Sequence[str]) -> str:
    """The page, one self-contained HTML document.

    Args:
      chapters: by name, in order.
      facts: a line that says how the numbers were made.
      book: the names of all chapters, which give each its number.
    """
    template = string.Template((Path(__file__).parent / "page.html").read_text())
    linked: dict[str, None] = {}
    titles = {name: f"{book.index(name) + 1}. {c.title}" for name, c in chapters.items()}
    sections = []
    for name, chapter in chapters.items():
        numbers = {**chapter.numbers, "seconds": chapter.seconds}
        scope = _Scope(numbers, chapter.figures, book, chapters, linked)
        sections.append(_chapter(name, titles[name], chapter, scope))
    scope = _Scope({}, {}, book, chapters, linked)
    for heading, entries in (("Glossary", GLOSSARY), ("References", REFERENCES)):
        titles[heading.lower()] = heading
        sections.append(_entries(heading, entries, scope))
    contents = "".join(f'<li><a href="#{n}">{title}</a></li>' for n, title in titles.items())
    return template.substitute(
        contents=contents, chapters="\n".join(sections), facts=html.escape(facts)
    )


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML, which carries its source as an annotation.

    A thin space follows the name of a function: MathML Core puts none before its argument. And a
    subscript is as tall as a digit with room above it: a browser without a mathematical font would
    leave it on the line, but moves it down until its top is low enough.
    """
    converted = convert(latex, display=display)
    content = ET.fromstring(_FUNCTION_NAME.sub(r'\1<mspace width="0.167em"/>', converted))
    for with_subscript in (
        *content.iter(f"{{{_MATHML}}}msub"),
        *content.iter(f"{{{_MATHML}}}msubsup"),
    ):
        padded = ET.Element(f"{{{_MATHML}}}mpadded", height="0.95em")
        padded.append(with_subscript[1])
        with_subscript[1] = padded
    content.set("style", f"--ems: {_ems(content):.1f}")
    semantics = ET.Element(f"{{{_MATHML}}}semantics")
    semantics.extend(content)
    ET.SubElement(semantics, f"{{{_MATHML}}}annotation", encoding="application/x-tex").text = latex
    content[:] = [semantics]
    return ET.tostring(content, encoding="unicode")


def _ems(element: ET.Element) -> float:
    """About how wide an equation is, rather too much than too little."""
    kind, parts = element.tag.removeprefix(f"{{{_MATHML}}}"), [_ems(part) for part in element]
    if kind == "mspace":
        return float(element.get("width", "0").removesuffix("em"))
    if kind == "mo":
        return (
            0.5
            if element.text and element.text in "()[]|,.\u2223"
            else 1.3 * len(element.text or "")
        )
    if kind in ("mi", "mn", "mtext"):
        return 0.7 * len(element.text or "")
    if kind in ("mfrac", "munder", "mover", "munderover"):
        return max(parts)
    if kind in ("msub", "msup", "msubsup"):
        return parts[0] + 0.75 * max(parts[1:])
    return sum(parts)


def _chapter(name: str, title: str, chapter: Chapter, scope: _Scope) -> str:
    blocks = [f'<h2 id="{name}">{title}</h2>', *_paragraphs(chapter.text, scope)]
    source = "\n\n".join(textwrap.dedent(inspect.getsource(c)).rstrip() for c in chapter.code)
    blocks.append(f"<h3>The code that ran</h3>\n<pre><code>{_highlight(source)}</code></pre>")
    if chapter.exercises:
        items = "".join(_exercise(*exercise, scope) for exercise in chapter.exercises)
        blocks.append(f'<h3>Exercises</h3><ol class="exercises">{items}</ol>')
    return _section(blocks)


def _section(blocks: Sequence[str]) -> str:
    back = '<p class="back"><a href="#contents">↑ Contents</a></p>'
    return "<section>" + "\n".join([*blocks, back]) + "</section>"


def _exercise(question: str, answer: str, scope: _Scope) -> str:
    asked, answered = ("".join(_paragraphs(text, scope)) for text in (question, answer))
    return f"<li>{asked}<details><summary>Answer</summary>{answered}</details></li>"


def _entries(heading: str, entries: Mapping[str, str], scope: _Scope) -> str:
    """The entries that the page refers to, each with a link back to where it first does."""
    items = []
    for name, text in entries.items():
        if name in scope.linked:
            # Another entry's word is not linked from here, but a work that is cited is.
            inside = scope._replace(linked={**dict.fromkeys(GLOSSARY), **scope.linked})
            content = _inline(text, inside)
            scope.linked.update({n: None for n in inside.linked if n in REFERENCES})
            back = f'<a href="#use-{_slug(name)}" aria-label="back to the text">↩</a>'
            title = html.escape(name)
            items.append(f'<dt id="{_slug(name)}">{title}</dt><dd>{content} {back}</dd>')
    return _section([f'<h2 id="{heading.lower()}">{heading}</h2>', f"<dl>{''.join(items)}</dl>"])


def _slug(name: str) -> str:
    # Of its own kind: a chapter can have the name of a term.
    return "entry-" + re.sub(r"\W+", "-", name.lower())


def _paragraphs(text: str, scope: _Scope) -> list[str]:
    return [_paragraph(part.strip(), scope) for part in re.split(r"\n\s*\n", text.strip())]


def _paragraph(text: str, scope: _Scope) -> str:
    if text.startswith("$$"):
        return f'<div class="equation">{mathml(text.strip("$").strip(), "block")}</div>'
    if text.startswith("!["):
        return _figure(scope.figures[text[2:-1]], scope)
    if text.startswith("=["):
        return _derivation(text[2:-1], scope)
    if text.startswith("|"):
        return _table(text.replace("\n  ", " ").splitlines(), scope)
    if text.startswith(">"):
        return f"<aside><p>{_inline(text.removeprefix('>').strip(), scope)}</p></aside>"
    return f"<p>{_inline(text, scope)}</p>"


def _figure(shown: Figure, scope: _Scope) -> str:
    data = base64.b64encode(shown.png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(shown.alt)}">'
        f"<figcaption>{_inline(shown.caption, scope)}</figcaption></figure>"
    )


def _derivation(name: str, scope: _Scope) -> str:
    shown, before = [], None
    for number, line in enumerate(scope.numbers["derivations"][name], start=1):
        relation, (first, *rest) = line["relation"], line["right"].split("&")
        sides = [f"{{}} {relation} {first}", *rest]
        goes_on = line["left"] == before
        if not goes_on:
            sides = [*line["left"].split("&"), *sides]
        equation = "".join(mathml(side, "block") for side in sides)
        values = f" {_RELATIONS[relation]} ".join(
            f"{round(v, 4) + 0.0:.4f}".replace("-", "\N{MINUS SIGN}") for v in line["values"]
        )
        shown.append(
            f'<li id="{name}-{number}"><div class="sides{" on" * goes_on}">{equation}</div>'
            f'<p class="reason">{_inline(line["reason"], scope)}</p>'
            f'<p class="values">{values}</p></li>'
        )
        before = line["right"]
    return f'<ol class="derivation">{"".join(shown)}</ol>'


def _table(lines: Sequence[str], scope: _Scope) -> str:
    def row(line: str, tag: str) -> str:
        line = line.strip().strip("|").replace(" ❘ ", "\N{NO-BREAK SPACE}❘\N{NO-BREAK SPACE}")
        cells = [_inline(cell.strip(), scope) for cell in line.split("|")]
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

    first, *rest = lines
    body = "".join(row(line, "td") for line in rest)
    table = f"<table><thead>{row(first, 'th')}</thead><tbody>{body}</tbody></table>"
    return f'<div class="table">{table}</div>'


def _inline(text: str, scope: _Scope) -> str:
    def number(match: re.Match[str]) -> str:
        value: Any = scope.numbers
        for part in match[1].split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        shown = format(value, match[2] or "")
        mantissa, has_exponent, exponent = shown.partition("e")
        if has_exponent:
            shown = f"{mantissa} \N{MULTIPLICATION SIGN} 10^{int(exponent)}^"
        return shown.replace("-", "\N{MINUS SIGN}")

    def mark(match: re.Match[str]) -> str:
        kind, content = next((k, c) for k, c in match.groupdict().items() if c)
        if kind == "math":
            return mathml(html.unescape(content))
        if kind == "chapter":
            shown = f"chapter {scope.book.index(content) + 1}"
            return f'<a href="#{content}">{shown}</a>' if content in scope.shown else shown
        if kind == "reference":
            name = " ".join(re.sub(r"[()]", "", content).split())
            return link(html.unescape(name), content)
        if kind == "term":
            term = _TERM_OF[" ".join(content.lower().split())]
            return content if term in scope.linked else link(term, content)
        return f"<{kind}>{content if kind == 'code' else _INLINE.sub(mark, content)}</{kind}>"

    def link(name: str, content: str) -> str:
        slug = _slug(name)
        first = "" if name in scope.linked else f' id="use-{slug}"'
        scope.linked[name] = None
        return f'<a{first} class="entry" href="#{slug}">{content}</a>'

    marked = _INLINE.sub(mark, html.escape(_NUMBER.sub(number, text), quote=False))
    return _WITH_POINT.sub(r'<span class="whole">\1</span>', marked)  # no full stop on its own


def _highlight(source: str) -> str:
    """Python as HTML, its comments and strings set apart."""
    token = re.compile(r'(#[^\n]*)|("""[\s\S]*?"""|f?"[^"\n]*")')

    def mark(match: re.Match[str]) -> str:
        kind = "comment" if match[1] else "string"
        return f'<span class="{kind}">{match[0]}</span>'

    return token.sub(mark, html.escape(source, quote=False))


def plain(numbers: Any) -> Any:
    """Numbers as JSON values: arrays become lists and floats."""
    if isinstance(numbers, Mapping):
        return {name: plain(value) for name, value in numbers.items()}
    if isinstance(numbers, list | tuple):
        return [plain(value) for value in numbers]
    return numbers.tolist() if hasattr(numbers, "tolist") else numbers
