"""The explorer's server: what it answers, and what it refuses without doing anything."""

import http.client
import json
import re
import threading

import numpy as np
import pytest

from vae_jax.run.errors import RunError
from vae_jax.run.explorer.contents import Explored
from vae_jax.run.explorer.page import page
from vae_jax.run.explorer.server import Server

SIZE, SHAPE = 2, (3, 2, 1)


@pytest.fixture(scope="module")
def server():
    """Of a model whose pictures are sums of their codes, with three classes."""
    explored = Explored(
        {"size": SIZE, "classes": ["cat", "dog", "eel"]},
        lambda z, label: z.sum(axis=1, keepdims=True) + label[:, None],
        lambda x, label: np.array([[x.sum(), label[0]]]),
        SHAPE,
        None,
    )
    with Server("<p>the page", explored) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, method="POST", path="/decode", body=None, raw=None, **headers):
    """The status, and what is answered."""
    port = server.server_address[1]
    content = json.dumps(body).encode() if raw is None else raw
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(content if method == "POST" else None)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_the_page_and_what_it_asks_for(server):
    port = server.server_address[1]
    status, content, headers = ask(server, "GET", "/")
    assert (status, content) == (200, b"<p>the page")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    for own in {"Host": f"localhost:{port}"}, {"Origin": f"http://127.0.0.1:{port}"}:
        body = {"z": [[1, 2], [3.5, -1]], "label": 2}
        status, content, _ = ask(server, body=body, **own)
        assert status == 200
        np.testing.assert_array_equal(np.frombuffer(content, "<f4"), [5, 4.5])
    status, content, _ = ask(server, path="/encode", body={"x": [1] * 6, "label": 1})
    np.testing.assert_array_equal(np.frombuffer(content, "<f4"), [6, 1])
    assert server.server_address[0] == "127.0.0.1"


GOOD = {"z": [[1, 2]], "label": 0}


@pytest.mark.parametrize(
    ("how", "status"),
    [
        *(
            ({"Host": host, "method": method, "path": path}, 403)
            for host in ("evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", None)
            for method, path in (("GET", "/"), ("POST", "/decode"))
        ),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1"}, 403),
        ({"method": "GET", "path": "/", "Origin": "http://evil.example"}, 403),
        *(
            ({"method": method, "path": path}, 404)
            for method in ("GET", "POST")
            for path in ("/config.json", "/../config.json", "/%2e%2e/config.json", "//etc/passwd")
        ),
        ({"method": "GET", "path": "http://evil.example/"}, 404),
        ({"method": "GET", "path": "/decode"}, 404),
        ({"path": "/"}, 404),
        ({"method": "DELETE", "path": "/"}, 501),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Length": "99999999999"}, 413),
        ({"Content_Length": "9" * 30}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "0x10"}, 411),
        ({"Content_Length": None}, 411),
        ({"raw": b"x" * 100_000}, 413),
        ({"raw": b"{"}, 400),
        ({"raw": b"\xff\xfe"}, 400),
        ({"raw": b"[" * 5000}, 400),
        ({"raw": b"[]"}, 400),
        ({"raw": b'{"z": [[1, ' + b"9" * 5200 + b"]]}"}, 413),
        ({"raw": b'{"z": [[1, ' + b"9" * 4400 + b"]]}"}, 400),
        ({"raw": b'{"z": [[1, ' + b"9" * 400 + b']], "label": 0}'}, 400),
        ({"raw": b'{"z": [[1, NaN]], "label": 0}'}, 400),
        ({"raw": b'{"z": [[1, Infinity]], "label": 0}'}, 400),
        ({"raw": b'{"z": [[1, 1e999]], "label": 0}'}, 400),
        ({"body": {**GOOD, "z": [[1, 1e7]]}}, 400),
        ({"body": {**GOOD, "z": [[1, True]]}}, 400),
        ({"body": {**GOOD, "z": [[1, "2"]]}}, 400),
        ({"body": {**GOOD, "z": [[1, None]]}}, 400),
        ({"body": {**GOOD, "z": [[1]]}}, 400),
        ({"body": {**GOOD, "z": [1, 2]}}, 400),
        ({"body": {**GOOD, "z": []}}, 400),
        ({"body": {**GOOD, "z": [[1, 2]] * 17}}, 400),
        ({"body": {**GOOD, "z": {"0": 1}}}, 400),
        ({"body": {"label": 0}}, 400),
        *(
            ({"body": {**GOOD, "label": label}}, 400)
            for label in (3, -1, True, 1.0, "cat", None, [])
        ),
        ({"path": "/encode", "body": {"x": [1] * 5, "label": 0}}, 400),
        ({"path": "/encode", "body": {"x": [256] * 6, "label": 0}}, 400),
        ({"path": "/encode", "body": {"x": [-1] * 6, "label": 0}}, 400),
    ],
)
def test_all_else_is_refused_in_a_line(server, how, status):
    found, content, headers = ask(server, **{"body": GOOD, **how})
    assert found == status, content
    if status != 501:  # of the standard library, as an unknown method is
        assert content.count(b"\n") == 1
        assert b"Traceback" not in content
        assert headers["Connection"] == "close"
    assert ask(server, body=GOOD)[0] == 200  # and it goes on


def test_a_port_that_is_taken(server):
    with pytest.raises(RunError, match=r"cannot listen at port \d+ \(Address already in use\)"):
        Server("", server.explored, server.server_address[1])


def test_names_are_no_markup():
    told = {"names": ["</script><script>alert(1)</script>", "<!--"]}
    text = page(told, "<b>&", served=True)
    assert text.count("<script") == text.count("</script>") == 2
    assert "<title>&lt;b&gt;&amp;: " in text
    assert "connect-src 'self'" in text
    (held,) = re.findall(r'id="contents">(.*?)</script>', text, re.DOTALL)
    assert json.loads(held) == told
