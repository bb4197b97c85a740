"""Pages in a real browser, from ``lambdeno dev``: what a developer sees, events included."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from lambdeno import init
from tests.test_dev import SLOWEST, Dev, layers

__all__ = ["layers"]  # a fixture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page of a headless Chromium, over its DevTools protocol."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=SLOWEST, suppress_origin=True)
        self._id = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._id:
                found: dict[str, Any] = message["result"]
                return found

    def open(self, url: str) -> None:
        """Go to a page."""
        assert not self.call("Page.navigate", url=url).get("errorText")

    def value(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, value: Any) -> None:
        """Wait until an expression has a value."""
        until = time.monotonic() + SLOWEST
        while (found := self.value(expression)) != value:
            assert time.monotonic() < until, found
            time.sleep(0.02)

    def close(self) -> None:
        """Leave it."""
        self._socket.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser of its own."""
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    profile = tmp_path / "profile"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + SLOWEST
            port = ""
            while not port:
                assert time.monotonic() < until
                with contextlib.suppress(OSError):
                    port = (profile / "DevToolsActivePort").read_text().partition("\n")[0]
                time.sleep(0.02)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                [target] = [one for one in json.load(answer) if one["type"] == "page"]
            found = Page(target["webSocketDebuggerUrl"])
            yield found
            found.close()
        finally:
            process.terminate()
            process.wait(SLOWEST)


@pytest.fixture
def dev(request: pytest.FixtureRequest, tmp_path: Path, layers: Path) -> Iterator[Dev]:
    """``lambdeno dev`` with a new project of a template."""
    init.init(tmp_path / "new", init.Settings("new", request.param))
    shutil.copytree(layers, tmp_path / "new/dist", copy_function=os.link)
    running = Dev(tmp_path / "new")
    running.row("ready")
    yield running
    running.end()


@pytest.mark.parametrize("dev", ["streaming"], indirect=True)
def test_events_are_shown_as_they_come(dev: Dev, page: Page) -> None:
    """The page of the template streaming shows one event after the other, and knows when it is over."""
    page.open(dev.row("ready")["url"])
    lines = "document.querySelectorAll('#events li').length"
    times = []
    for count in range(1, 4):
        page.wait_for(f"{lines} >= {count}", value=True)
        times.append(time.monotonic())
    assert page.value("document.querySelector('#state').textContent") == "connected"
    assert times[2] - times[0] > 1
    page.wait_for("document.querySelector('#state').textContent", "done")
    assert page.value(lines) == 5


@pytest.mark.parametrize("dev", ["streaming"], indirect=True)
def test_a_page_that_listens_no_more_ends_the_stream(dev: Dev, page: Page) -> None:
    """The function hears of it."""
    url = dev.row("ready")["url"]
    page.open(url)
    page.wait_for("document.querySelectorAll('#events li').length >= 1", value=True)
    page.value("source.close()")
    dev.row("log", lambda row: "nobody reads any more" in row["line"])
    assert dev.get()[0] == 200


@pytest.mark.parametrize("dev", ["http"], indirect=True)
def test_a_page_and_its_requests(dev: Dev, page: Page) -> None:
    """What a page fetches is answered, and new code after the next reload."""
    page.open(dev.row("ready")["url"])
    page.wait_for("document.body.innerText.includes('Orders')", value=True)
    page.value(
        "fetch('/orders', { method: 'POST', body: JSON.stringify({ item: 'tea', count: 2 }) })"
        ".then((answer) => answer.json()).then((order) => { document.title = order.item; })"
    )
    page.wait_for("document.title", "tea")
    after = dev.change("Orders: ", "Changed: ")
    dev.row("rebuilt", after=after)
    page.call("Page.reload")
    page.wait_for("document.body.innerText.includes('Changed')", value=True)
