"""From chapters to one HTML page: text with equations, numbers by name, pictures inside.

A chapter's text is plain: paragraphs with blank lines between them, and in a paragraph *emphasis*,
**strong**, `code`, $mathematics$ in LaTeX, and [[name:.2f]] for the number that tutorial.json has
under that name. A paragraph can also be an equation in $$...$$, a figure as ![name], a table of
lines that begin with | (indented ones go on), or a warning, which begins with >.
"""

import base64
import html
import inspect
import io
import re
import string
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from latex2mathml.converter import convert

_NUMBER = re.compile(r"\[\[([\w.]+)(?::([^\]]+))?\]\]")
_INLINE = re.compile(r"\$([^$]+)\$|`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\^([^^ ]+)\^")
_TAGS = ("code", "strong", "em", "sup")
_FUNCTION_NAME = re.compile(
    r"(<mi>(?:log|exp)</mi>|<mo>(?:tr|KL|Var)</mo>)(?!<mo stretchy=\"false\">&#x00028;)"
)


class Figure(NamedTuple):
    """A picture for the page: PNG bytes, what it shows in words, and its caption."""

    png: bytes
    alt: str
    caption: str


class Chapter(NamedTuple):
    """What a chapter leaves.

    Attributes:
      title: its heading.
      text: in the notation of this module.
      numbers: by name, JSON values; the text and the tests read them.
      figures: by name.
      code: the functions that are shown at the end, as they ran.
      seconds: numbers that are times, and so not the same in every run.
    """

    title: str
    text: str
    numbers: dict[str, Any]
    figures: dict[str, Figure]
    code: Sequence[Callable[..., Any]]
    seconds: Mapping[str, Any] = MappingProxyType({})


def figure(picture: Any, alt: str, caption: str) -> Figure:
    """A Matplotlib figure or a PIL image as a `Figure`."""
    buffer = io.BytesIO()
    if isinstance(picture, plt.Figure):
        picture.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
        plt.close(picture)
    else:
        picture.save(buffer, format="png", optimize=True)
    return Figure(buffer.getvalue(), alt, caption)


def render(chapters: Mapping[str, Chapter], facts: str, book: Sequence[str]) -> str:
    """The page, one self-contained HTML document.

    Args:
      chapters: by name, in order.
      facts: a line that says how the numbers were made.
      book: the names of all chapters, which give each its number.
    """
    template = string.Template((Path(__file__).parent / "page.html").read_text())
    titles = {name: f"{book.index(name) + 1}. {c.title}" for name, c in chapters.items()}
    contents = "".join(f'<li><a href="#{n}">{title}</a></li>' for n, title in titles.items())
    body = "\n".join(_chapter(name, titles[name], c) for name, c in chapters.items())
    return template.substitute(contents=contents, chapters=body, facts=html.escape(facts))


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML, which carries its source as an annotation.

    A thin space follows the name of a function: MathML Core puts none before its argument.
    """
    converted = convert(latex, display=display)
    content = _FUNCTION_NAME.sub(r'\1<mspace width="0.167em"/>', converted)
    start, end = content.index(">") + 1, content.rindex("</math>")
    annotation = f'<annotation encoding="application/x-tex">{html.escape(latex)}</annotation>'
    semantics = f"<semantics>{content[start:end]}{annotation}</semantics>"
    return content[:start] + semantics + content[end:]


def _chapter(name: str, title: str, chapter: Chapter) -> str:
    values = {**chapter.numbers, "seconds": chapter.seconds}
    paragraphs = re.split(r"\n\s*\n", chapter.text.strip())
    blocks = [_paragraph(p.strip(), values, chapter.figures) for p in paragraphs]
    source = "\n\n".join(textwrap.dedent(inspect.getsource(f)).rstrip() for f in chapter.code)
    blocks.append(f"<h3>The code that ran</h3>\n<pre><code>{_highlight(source)}</code></pre>")
    heading = f'<h2 id="{name}">{title}</h2>'
    return "<section>" + "\n".join([heading, *blocks]) + "</section>"


def _paragraph(text: str, numbers: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    if text.startswith("$$"):
        return f'<div class="equation">{mathml(text.strip("$").strip(), "block")}</div>'
    if text.startswith("!["):
        return _figure(figures[text[2:-1]])
    if text.startswith("|"):
        return _table(text.replace("\n  ", " ").splitlines(), numbers)
    if text.startswith(">"):
        return f"<aside><p>{_inline(text.removeprefix('>').strip(), numbers)}</p></aside>"
    return f"<p>{_inline(text, numbers)}</p>"


def _figure(shown: Figure) -> str:
    data = base64.b64encode(shown.png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(shown.alt)}">'
        f"<figcaption>{_inline(shown.caption, {})}</figcaption></figure>"
    )


def _table(lines: Sequence[str], numbers: Mapping[str, Any]) -> str:
    def row(line: str, tag: str) -> str:
        cells = [_inline(cell.strip(), numbers) for cell in line.strip().strip("|").split("|")]
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

    first, *rest = lines
    body = "".join(row(line, "td") for line in rest)
    table = f"<table><thead>{row(first, 'th')}</thead><tbody>{body}</tbody></table>"
    return f'<div class="table">{table}</div>'


def _inline(text: str, numbers: Mapping[str, Any]) -> str:
    def number(match: re.Match[str]) -> str:
        value: Any = numbers
        for part in match[1].split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        shown = format(value, match[2] or "")
        mantissa, has_exponent, exponent = shown.partition("e")
        if has_exponent:
            shown = f"{mantissa} \N{MULTIPLICATION SIGN} 10^{int(exponent)}^"
        return shown.replace("-", "\N{MINUS SIGN}")

    def mark(match: re.Match[str]) -> str:
        latex, *marked = match.groups()
        if latex:
            return mathml(html.unescape(latex))
        tag, content = next((t, c) for t, c in zip(_TAGS, marked, strict=True) if c)
        return f"<{tag}>{content}</{tag}>"

    return _INLINE.sub(mark, html.escape(_NUMBER.sub(number, text), quote=False))


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
