"""The site in a browser: every page, wide and narrow, its links, its search, and no other host."""

import functools
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from tests.run.explorer import browser

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(browser.EXECUTABLE is None, reason="there is no chromium"),
]
ROOT = Path(__file__).parents[1]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with warnings as errors."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    subprocess.run(
        [*command, "--config-file", "docs/mkdocs.yml", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(_Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def show(tab, page, width):
    """Opens a page; what the console said, and every address that was asked."""
    tab.said.clear()
    tab.open(page, width, until=f"document.readyState === 'complete' && location.href == '{page}'")
    tab.settle()
    asked = tab.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    return list(tab.said), asked


def test_every_page_wide_and_narrow_has_its_links_and_asks_no_other_host(site, address, tab):
    pages = sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    assert {"index.html", "models/burda2016.html", "api/bounds.html"} <= {*pages}
    anchors, links = {}, {}
    for page in pages:
        for width in 1280, 390:
            said, asked = show(tab, address + page, width)
            assert said == [], page
            assert all(url.startswith((address, "data:")) for url in asked), (page, asked)
            wide = tab.run("document.documentElement.scrollWidth")
            assert wide <= width, (page, width)
        anchors[page] = {*tab.run("[...document.querySelectorAll('[id]')].map((e) => e.id)")}
        links[page] = tab.run("[...document.links].map((link) => link.getAttribute('href'))")
        assert tab.run("[...document.images].every((image) => image.alt)"), page
        assert tab.run("[...document.images].every((image) => image.naturalWidth)"), page
    for page, found in links.items():
        for link in found:
            where, anchor = urldefrag(urljoin(address + page, link.partition("?")[0]))
            if page == "404.html" or not where.startswith(address):  # its links are from the root
                continue
            to = unquote(where.removeprefix(address)) or "index.html"
            assert (site / to).is_file(), (page, link)
            if anchor and to in anchors:
                assert unquote(anchor) in anchors[to], (page, link)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("kl_divergence", "kl_divergence"),
        ("posterior collapse", "Posterior collapse"),
        ("missing pixels", "pictures"),
        ("sweep", "--sweep"),
    ],
)
def test_search_finds(address, tab, words, found):
    tab.said.clear()
    page = f"{address}index.html?q={words.replace(' ', '+')}"
    tab.open(page, until="document.querySelectorAll('.md-search-result__item').length > 0")
    first = tab.run(
        "[...document.querySelectorAll('.md-search-result__item')].slice(0, 3)"
        ".map((item) => item.textContent).join(' ')"
    )
    assert found.lower() in first.lower()
    assert tab.said == []
