"""The explorer's page: one file of HTML with its style, its program and what it is told."""

import base64
import hashlib
import html
import importlib.resources
import json
import string
from typing import Any

_SCRIPTS = ("program.js", "map.js", "row.js", "picture.js", "page.js")


def page(contents: dict[str, Any], title: str, *, served: bool) -> str:
    """The page. It asks no other host for anything, which its policy makes sure of.

    Args:
      contents: of `explorer.contents`.
      title: of it.
      served: it may ask the server that it is from.
    """
    files = importlib.resources.files(__package__)
    style = f"\n{files.joinpath('page.css').read_text('utf-8')}\n"
    script = "\n".join(files.joinpath(name).read_text("utf-8") for name in _SCRIPTS)
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash_of(style),
        "script-src": _hash_of(script),
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    told = json.dumps(contents, allow_nan=False, separators=(",", ":"))
    return string.Template(files.joinpath("page.html").read_text("utf-8")).substitute(
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        title=html.escape(title),
        style=style[1:-1],
        script=script,
        contents=told.replace("<", "\\u003c"),  # no end of the script that holds it
    )


def _hash_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
