"""Docstrings as Markdown: an extension of griffe, which reads them for the pages of the API.

They are plain text with names in backticks: `[*b, Z]` is a shape and no emphasis, and `>>>` begins
an example and no quotation.
"""

import re

import griffe

_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"([*<\[\]])")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_class_instance(self, *, cls: griffe.Class, **_: object) -> None:
        """Lets the fields of a `pytree` and of a Linen module be the arguments they are."""
        of_fields = {str(decorator.value) for decorator in cls.decorators} & {"pytree"}
        if of_fields or "nn.Module" in map(str, cls.bases):
            name = griffe.ExprName("dataclasses.dataclass")
            cls.decorators.append(griffe.Decorator(name, lineno=None, endlineno=None))


def markdown(text: str) -> str:
    """The text with its examples fenced, and all but names in backticks as it stands."""
    lines, fenced = [], False
    for line in [*text.splitlines(), ""]:
        if not fenced and line.lstrip().startswith(">>> "):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
            fenced = True
        elif fenced and not line.strip():
            lines.append(f"{indent}```")
            fenced = False
        lines.append(line if fenced else escaped(line))
    return "\n".join(lines).rstrip()


def escaped(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(p if p.startswith("`") else _SPECIAL.sub(r"\\\1", p) for p in parts)
