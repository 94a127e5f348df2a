"""The explorer's server: on this machine, for this page, and nothing else."""

import json
import math
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

import numpy as np

from vae_jax.run.errors import RunError
from vae_jax.run.explorer.contents import Explored

_MOST_CODES, _MOST_VALUE = 16, 1e6


class Server(ThreadingHTTPServer):
    """Answers GET / with the page, and POST /decode and /encode with float32 numbers.

    It listens at 127.0.0.1 alone. A page of another site can make a browser send it a request: one
    whose Host or Origin is not its own is refused, as is a body longer than any of the page's.

    Args:
      page: HTML.
      explored: the run.
      port: 0 for any that is free.

    Raises:
      RunError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, page: str, explored: Explored, port: int = 0) -> None:
        self.page, self.explored = page.encode(), explored
        values = max(_MOST_CODES * explored.contents["size"], math.prod(explored.image_shape))
        self.most_bytes = 4096 + 32 * values
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise RunError(
                f"cannot listen at port {port} ({error.strerror}): give another --port, or 0"
            ) from None
        port = self.server_address[1]
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/"


class _RefusedError(Exception):
    """A request that is not answered: status and reason."""


def _refuse(status: int, why: str) -> NoReturn:
    raise _RefusedError(status, why)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vae_jax", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(self._page)

    def do_POST(self) -> None:
        self._answer(self._computed)

    def _answer(self, what: Any) -> None:
        try:
            status, (kind, content) = 200, what()
        except _RefusedError as refused:
            status, why = refused.args
            kind, content = "text/plain; charset=utf-8", f"{why}\n".encode()
            self.close_connection = True  # what is left of the body is not read
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _check_sender(self) -> None:
        """Another name that leads here is a site's, which would read what its visitor has."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            _refuse(403, "this is another host's address: open the address that was printed")
        for origin in self.headers.get_all("Origin") or []:
            if origin not in {f"http://{host}" for host in self.server.hosts}:
                _refuse(403, "a page of another site asks")

    def _page(self) -> tuple[str, bytes]:
        self._check_sender()
        if self.path != "/":
            _refuse(404, "there is the page alone, at /")
        return "text/html; charset=utf-8", self.server.page

    def _computed(self) -> tuple[str, bytes]:
        self._check_sender()
        explored = self.server.explored
        if self.path not in ("/decode", "/encode"):
            _refuse(404, "there are /decode and /encode")
        body = self._body()
        label = self._label(body)
        if self.path == "/decode":
            values = explored.decode(self._codes(body), label)
        elif explored.encode is None:
            _refuse(404, "rows are not encoded here")
        else:
            values = explored.encode(self._picture(body), None if label is None else label[:1])
        return "application/octet-stream", np.asarray(values, "<f4").tobytes()

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            _refuse(415, "the body is no application/json")
        length = self.headers.get("Content-Length") or ""
        if not re.fullmatch(r"[0-9]{1,18}", length):
            _refuse(411, "the body has no length")
        if int(length) > self.server.most_bytes:
            _refuse(413, f"the body has {length} bytes, of which {self.server.most_bytes} are read")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            _refuse(400, "the body is no JSON")
        if not isinstance(body, dict):
            _refuse(400, "the body is no object")
        return body

    def _label(self, body: dict[str, Any]) -> np.ndarray | None:
        """int32 [N] of the N codes, or of the picture."""
        label, many = body.get("label"), len(self.server.explored.contents["classes"])
        if not many:
            return None
        if type(label) is not int or not 0 <= label < many:
            _refuse(400, f"label is no number of the {many} classes")
        num = len(body["z"]) if isinstance(body.get("z"), list) else 1
        return np.full(min(num, _MOST_CODES), label, np.int32)

    def _codes(self, body: dict[str, Any]) -> np.ndarray:
        codes, size = body.get("z"), self.server.explored.contents["size"]
        if not isinstance(codes, list) or not 1 <= len(codes) <= _MOST_CODES:
            _refuse(400, f"z is no list of up to {_MOST_CODES} codes")
        return np.stack([_numbers("z", code, size) for code in codes])

    def _picture(self, body: dict[str, Any]) -> np.ndarray:
        shape = self.server.explored.image_shape
        x = _numbers("x", body.get("x"), math.prod(shape))
        if x.min() < 0 or x.max() > 255:
            _refuse(400, "x has values outside of those of pixels")
        return x.reshape(1, *shape)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is the user's."""


def _numbers(name: str, values: Any, num: int) -> np.ndarray:
    """float32 [num] of a list of finite numbers."""
    if not isinstance(values, list) or len(values) != num:
        _refuse(400, f"{name} has no list of {num} numbers")
    for value in values:  # NaN is not less than anything; True is no number
        if type(value) not in (int, float) or not abs(value) <= _MOST_VALUE:
            _refuse(400, f"{name} has what is no number within {_MOST_VALUE:.0f} of 0")
    return np.array(values, np.float32)
