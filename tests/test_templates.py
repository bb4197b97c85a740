"""What ``lambdeno init`` writes, as a new user meets it: it is in order, is built, and answers."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import shlex
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno import dev, init, project
from lambdeno.emulator import FunctionUrl, Handle, ListSink, local_lambda
from tests.e2e.conftest import run
from tests.test_dev import layers

__all__ = ["layers"]  # a fixture

NAMES = init.templates()
EVENTS = Path(__file__).parent / "events"
TYPES = """\
import type {
  Context, FetchHandler, Handler, HttpEvent, ServeInfo, StreamHandler,
} from "lambdeno";

export const fetch: FetchHandler = (request, info: ServeInfo) => {
  const id: string | undefined = request.lambda?.context.awsRequestId;
  return new Response(`${id} ${info.remoteAddr.hostname} ${info.requestContext.stage}`);
};

export const yields: StreamHandler<{ most: number }> = async function* ({ most }, context) {
  yield `${most} ${context.awsRequestId}`;
};

export const written = awslambda.streamifyResponse(
  async (event: { most: number }, responseStream, context: Context) => {
    responseStream.setContentType("text/plain");
    const head = { statusCode: 201, headers: { etag: "1" }, cookies: ["a=b"] };
    const stream = awslambda.HttpResponseStream.from(responseStream, head);
    stream.write(`${event.most} ${context.awsRequestId}`);
    await new Promise<void>((resolve) => stream.end(resolve));
  },
);

export function pathOf(event: HttpEvent): string {
  if ("rawPath" in event) return event.requestContext.http.method + event.rawPath;
  if ("httpMethod" in event) return event.httpMethod + event.path;
  return event.requestContext.routeKey;
}

// @ts-expect-error: its result is a number
export const wrong: Handler<unknown, number> = () => "text";
// @ts-expect-error: it has no such member
export const missing = (info: ServeInfo) => info.nothing;
// @ts-expect-error: not every event has one
export const narrowed = (event: HttpEvent): string => event.rawPath;
"""
OF_AWS = """\
import type {
  ALBEvent, APIGatewayProxyEvent, APIGatewayProxyEventV2, APIGatewayProxyWebsocketEventV2,
  LambdaFunctionURLEvent,
} from "aws-lambda";

type Known =
  | ALBEvent | APIGatewayProxyEvent | APIGatewayProxyEventV2 | APIGatewayProxyWebsocketEventV2
  | LambdaFunctionURLEvent;
export const given = (event: Known): HttpEvent => event;
export const known = (event: HttpEvent) => (event as APIGatewayProxyEvent).stageVariables;

"""


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> dict[str, Path]:
    """A new project of each template."""
    folder = tmp_path_factory.mktemp("templates")
    for name in NAMES:
        init.init(folder / name, init.Settings(name, name))
        shutil.copytree(layers, folder / name / "dist", copy_function=os.link)
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def log() -> ListSink:
    """What all of them log."""
    return ListSink()


@pytest.fixture(scope="module")
def running(projects: dict[str, Path], log: ListSink) -> Iterator[Handle]:
    """All of them, built, in one local Lambda; each with a URL as its lambdeno.toml has it."""
    functions = []
    for folder in projects.values():
        loaded = project.load(folder)
        is_streaming = bool(loaded.url and loaded.url.invoke_mode == "streaming")
        url = FunctionUrl(is_streaming=is_streaming)
        functions.append(dataclasses.replace(dev.local_function(loaded), url=url))
    with local_lambda(*functions, log=log) as local:
        yield local


@contextlib.contextmanager
def connected(local: Handle, name: str) -> Iterator[http.client.HTTPConnection]:
    """A connection to the function's URL."""
    address = urllib.parse.urlsplit(local.url_of(name) or "").netloc
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        yield connection


def ask(local: Handle, name: str, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    """Status and JSON that a client of the function's URL gets."""
    with connected(local, name) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        content = response.read().decode()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(content) if is_json else content


def shown_event(name: str) -> bytes:
    """The event that ``lambdeno init`` says to try first."""
    [*_, event] = shlex.split(init.TRY[name])
    return event.encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "arguments",
    [["test"], ["fmt", "--check"], ["lint"], ["check", "src/main.ts", "src/main_test.ts"]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.usefixtures("running")
def test_deno_has_nothing_to_say_against_it(
    projects: dict[str, Path], name: str, arguments: list[str]
) -> None:
    """Its unit tests pass without a flag; format, lint and types are clean, with dist/ there, too."""
    assert (projects[name] / "dist").is_dir()
    done = run("deno", *arguments, folder=projects[name])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["", OF_AWS], ids=["alone", "with @types/aws-lambda"])
def test_the_types_are_those_of_the_runtime(projects: dict[str, Path], tmp_path: Path, first: str) -> None:
    """Every kind of handler passes the type check, what is wrong does not; events typed elsewhere fit."""
    for name in ("deno.json", "lambdeno.d.ts"):
        (tmp_path / name).write_bytes((projects["sqs"] / name).read_bytes())
    (tmp_path / "types.ts").write_text(first + TYPES)
    done = run("deno", "check", "types.ts", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_hello(running: Handle) -> None:
    """It greets."""
    result = json.loads(running.invoke("hello", shown_event("hello")).payload)
    assert result["message"] == "Hello, Ada!"


def test_http(running: Handle) -> None:
    """Its routes answer, mistakes are 400 and 404, and it knows Lambda's context."""
    assert ask(running, "http", "GET", "/")[0] == 200
    status, order = ask(running, "http", "POST", "/orders", '{"item": "tea", "count": 2}')
    assert (status, order["item"]) == (201, "tea")
    assert ask(running, "http", "GET", f"/orders/{order['id']}") == (200, order)
    for wrong in ('{"item": "tea"}', "null"):
        assert ask(running, "http", "POST", "/orders", wrong)[0] == 400
    assert ask(running, "http", "GET", "/none") == (404, {"error": "There is no /none"})
    status, about = ask(running, "http", "GET", "/about")
    assert status == 200
    assert len(about["requestId"]) == 36
    assert about["address"] == "127.0.0.1"
    assert "rawPath" in about["event"]


@pytest.mark.parametrize("form", ["apigateway-v1", "apigateway-v2"])
def test_http_answers_an_api_as_well(running: Handle, form: str) -> None:
    """The same code takes the events of a REST API and of an HTTP API."""
    event = json.loads((EVENTS / f"{form}.json").read_text())
    event |= {"body": '{"item": "tea", "count": 2}', "isBase64Encoded": False}
    event["path" if "path" in event else "rawPath"] = "/orders"
    answer = json.loads(running.invoke("http", json.dumps(event).encode()).payload)
    assert (answer["statusCode"], json.loads(answer["body"])["item"]) == (201, "tea")


def test_sqs(running: Handle) -> None:
    """Only the message that failed comes back."""
    bodies = ['{"item": "tea", "count": 2}', "poison", "{}"]
    records = [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]
    result = running.invoke("sqs", json.dumps({"Records": records}).encode(), wants_tail=True)
    failed = [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]
    assert json.loads(result.payload) == {"batchItemFailures": failed}
    assert b"message 1 failed" in (result.log_tail or b"")
    result = running.invoke("sqs", shown_event("sqs"))
    assert json.loads(result.payload) == {"batchItemFailures": []}


def test_streaming(running: Handle) -> None:
    """The first event is there a second before the second one."""
    assert "EventSource" in ask(running, "streaming", "GET", "/")[1]
    with connected(running, "streaming") as connection:
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


def test_streaming_ends_with_its_reader(running: Handle, log: ListSink) -> None:
    """A reader that leaves after the first event is the last that the function works for."""
    with connected(running, "streaming") as connection:
        connection.request("GET", "/events?count=100")
        connection.getresponse().readline()
    until = time.monotonic() + 30
    while not any("nobody reads any more, after " in line for line in log.lines):
        assert time.monotonic() < until
        time.sleep(0.05)
