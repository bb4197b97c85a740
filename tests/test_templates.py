"""What ``lambdeno init`` writes, as a new user meets it: it is in order, is built, and answers."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno import dev, init, project
from lambdeno.emulator import FunctionUrl, Handle, ListSink, local_lambda
from tests.e2e.conftest import run

pytestmark = pytest.mark.xdist_group("templates")
NAMES = init.templates()


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A new project of each template."""
    folder = tmp_path_factory.mktemp("templates")
    for name in NAMES:
        init.init(folder / name, init.Settings(name, name))
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def running(projects: dict[str, Path]) -> Iterator[Handle]:
    """All of them, built, in one local Lambda; each with a URL as its lambdeno.toml has it."""
    functions = []
    for folder in projects.values():
        loaded = project.load(folder)
        is_streaming = bool(loaded.url and loaded.url.invoke_mode == "streaming")
        url = FunctionUrl(is_streaming=is_streaming)
        functions.append(dataclasses.replace(dev.local_function(loaded), url=url))
    with local_lambda(*functions, log=ListSink()) as local:
        yield local


def ask(local: Handle, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON that a client of the function's URL gets."""
    url = local.url_of(name)
    assert url
    port = int(url.rstrip("/").rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        content = response.read().decode()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(content) if is_json else content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "arguments",
    [["test"], ["fmt", "--check"], ["lint"], ["check", "src/main.ts", "src/main_test.ts"]],
    ids=lambda arguments: arguments[0],
)
def test_deno_has_nothing_to_say_against_it(
    projects: dict[str, Path], name: str, arguments: list[str]
) -> None:
    """Its unit tests pass without a flag; format, lint and types are clean."""
    done = run("deno", *arguments, folder=projects[name])
    assert done.returncode == 0, done.stderr


def test_hello(running: Handle) -> None:
    """It greets."""
    result = json.loads(running.invoke("hello", b'{"name": "Ada"}').payload)
    assert result["message"] == "Hello, Ada!"


def test_http(running: Handle) -> None:
    """Its routes answer, mistakes are 400 and 404, and it knows Lambda's context."""
    assert ask(running, "http", "GET", "/")[0] == 200
    status, order = ask(running, "http", "POST", "/orders", {"item": "tea", "count": 2})
    assert (status, order["item"]) == (201, "tea")
    assert ask(running, "http", "GET", f"/orders/{order['id']}") == (200, order)
    assert ask(running, "http", "POST", "/orders", {"item": "tea"})[0] == 400
    assert ask(running, "http", "GET", "/none") == (404, {"error": "There is no /none"})
    status, about = ask(running, "http", "GET", "/about")
    assert status == 200
    assert len(about["requestId"]) == 36
    assert about["address"] == "127.0.0.1"
    assert about["event"]["rawPath"] == "/about"


def test_sqs(running: Handle) -> None:
    """Only the message that failed comes back."""
    bodies = ['{"item": "tea", "count": 2}', "poison", "{}"]
    records = [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]
    result = running.invoke("sqs", json.dumps({"Records": records}).encode(), wants_tail=True)
    failed = [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]
    assert json.loads(result.payload) == {"batchItemFailures": failed}
    assert b"message 1 failed" in (result.log_tail or b"")


def test_streaming(running: Handle) -> None:
    """The first event is there a second before the second one."""
    assert "EventSource" in ask(running, "streaming", "GET", "/")[1]
    port = int((running.url_of("streaming") or "").rstrip("/").rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/events?count=2")
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        times = []
        lines = []
        while line := response.readline():
            if line.strip():
                times.append(time.monotonic())
                lines.append(line.decode().split()[:2])
    assert lines == [["data:", "1"], ["data:", "2"], ["event:", "end"], ["data:"]]
    assert times[1] - times[0] > 0.5
