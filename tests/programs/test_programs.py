"""Programs as their packages' own pages have them, from npm, unchanged, under both runtimes."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import http.client
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdeno import build, deno, dev, project
from lambdeno.emulator import Function, FunctionUrl, Handle, ListSink, Settings, local_lambda
from tests.account import REGION, Account, account
from tests.test_dev import layers

__all__ = ["layers"]  # a fixture


HERE = Path(__file__).parent
NAMES = sorted(path.parent.name for path in HERE.glob("*/lambdeno.toml"))
WASM = "sql-wasm.wasm"


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> dict[str, project.Project]:
    """All programs, built."""
    folder = tmp_path_factory.mktemp("programs")
    found = {}
    for name in NAMES:
        shutil.copytree(HERE / name, folder / name)
        shutil.copytree(layers, folder / name / "dist", copy_function=os.link)
        if name == "webassembly":
            (folder / name / "data").mkdir()
            shutil.copy(wasm_file(folder / name), folder / name / "data" / WASM)
        found[name] = project.load(folder / name)
        build.build_function(found[name])
    return found


def wasm_file(folder: Path) -> Path:
    """The file that sql.js brings, in Deno's cache."""
    binary = deno.get(project.DENO_VERSION, deno.host_platform())
    deno.run(binary, ["install", "--quiet", "--entrypoint", "src/main.ts"], folder)
    told = json.loads(deno.run(binary, ["info", "--json"], folder).stdout)
    [found] = Path(told["npmCache"]).glob(f"*/sql.js/1.16.0/dist/{WASM}")
    return found


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account with a bucket and a table."""
    with account(tmp_path_factory.mktemp("account")) as found:
        found.client("s3").create_bucket(
            Bucket="things", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        found.client("dynamodb").create_table(
            TableName="things",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield found


@pytest.fixture(scope="module", params=["runtime1", "runtime2"])
def running(
    request: pytest.FixtureRequest, projects: dict[str, project.Project], aws: Account
) -> Iterator[Handle]:
    """All of them in one local Lambda."""
    variables = {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
    }
    functions: list[Function] = []
    for name, loaded in projects.items():
        chosen = msgspec.structs.replace(loaded, runtime=request.param)
        function = dev.local_function(chosen)
        environment = {**function.environment, **(variables if name == "aws-sdk" else {})}
        function = dataclasses.replace(function, environment=environment, url=FunctionUrl())
        functions.append(function)
    sse = next(function for function in functions if function.name == "hono")
    streaming = {**sse.environment, "LAMBDENO_INVOKE_MODE": "streaming"}
    url = FunctionUrl(is_streaming=True)
    functions.append(dataclasses.replace(sse, name="hono-streaming", environment=streaming, url=url))
    page = next(function for function in functions if function.name == "node-streaming")
    functions.append(dataclasses.replace(page, name="page", handler="function.page", url=url))
    with local_lambda(*functions, log=ListSink(), settings=Settings(region=REGION)) as local:
        yield local


@contextlib.contextmanager
def response(
    local: Handle, name: str, method: str = "GET", path: str = "/", body: str | None = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """What a client of a function's URL gets."""
    port = int((local.url_of(name) or "").rstrip("/").rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        yield connection.getresponse()


def ask(local: Handle, name: str, *request: Any, **headers: str) -> tuple[int, str]:
    """Status and body."""
    with response(local, name, *request, **headers) as answer:
        return answer.status, answer.read().decode()


def result(local: Handle, name: str, event: Any) -> Any:
    """A handler's result."""
    told = local.invoke(name, json.dumps(event).encode())
    assert told.function_error is None, told.payload
    return json.loads(told.payload)


@pytest.mark.parametrize(
    ("name", "word"), [("hono", "Hono"), ("h3", "h3"), ("elysia", "Elysia"), ("oak", "Oak")]
)
def test_a_framework_answers(running: Handle, name: str, word: str) -> None:
    """Routes, parameters, bodies, what is not there."""
    assert ask(running, name) == (200, f"Hello {word}!")
    assert ask(running, name, "GET", "/nowhere")[0] == 404
    if name != "hono":
        status, body = ask(
            running, name, "POST", "/echo/ada", '{"count": 1}', **{"content-type": "application/json"}
        )
        assert (status, json.loads(body)) == (200, {"name": "ada", "body": {"count": 1}})


def test_hono(running: Handle) -> None:
    """Queries, forms, cookies."""
    status, body = ask(running, "hono", "GET", "/users/1?tag=a&tag=b%20c")
    assert (status, json.loads(body)) == (200, {"id": "1", "tags": ["a", "b c"]})
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert json.loads(ask(running, "hono", "POST", "/form", "a=1&b=%C3%A9", **form)[1]) == {
        "a": "1",
        "b": "é",
    }
    with response(running, "hono", "GET", "/cookie", cookie="seen=4; other=1") as answer:
        assert answer.status == 204
        assert answer.headers["set-cookie"] == "seen=5; Path=/; HttpOnly"


def test_hono_streams(running: Handle) -> None:
    """Its own server-sent events leave one by one."""
    with response(running, "hono-streaming", "GET", "/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        times = []
        data = []
        while line := answer.readline():
            if line.startswith(b"data:"):
                times.append(time.monotonic())
                data.append(line.decode().strip())
    assert data == ["data: event 1", "data: event 2", "data: event 3"]
    assert times[2] - times[0] > 0.1


def test_the_aws_sdk(running: Handle) -> None:
    """S3 and DynamoDB, with credentials and region from the environment."""
    told = result(running, "aws-sdk", {"key": "k", "text": "some text"})
    assert told == {"object": "some text", "item": "some text"}


def test_webassembly(running: Handle) -> None:
    """Modules in a package's code, and one in a file that ships."""
    told = result(running, "webassembly", {"text": "abc"})
    assert told["blake3"] == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    assert told["argon2"] == "b060b94f47a6c1775092d0cb6bf43e35"
    assert told["words"] == ["ABC", "abc"]


def test_nodes_own_modules(running: Handle) -> None:
    """crypto, stream and zlib, by themselves and through packages."""
    assert result(running, "node", {"text": "abc"}) == {
        "token": "abc",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "verified": True,
        "brotli": "abc",
        "archived": {"a.txt": "abc"},
    }


def test_streams_of_lambdas_node_runtime(running: Handle) -> None:
    """A pipeline into the response, and a page whose first part comes before the second is there."""
    told = running.invoke("node-streaming", b'{"a": 1}')
    assert json.loads(gzip.decompress(told.payload)) == {"a": 1}
    with response(running, "page") as answer:
        assert (answer.status, answer.headers["x-a"]) == (201, "b")
        assert answer.read(12) == b"<p>first</p>"
        began = time.monotonic()
        assert answer.read() == b"<p>page</p>"
        assert time.monotonic() - began > 0.1
