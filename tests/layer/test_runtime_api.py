"""A Runtime API that refuses, breaks off or is not there."""

from __future__ import annotations

import socket

import pytest

from tests.layer.conftest import ECHO, Start
from tests.layer.fake_runtime_api import (
    NEXT,
    PREFIX,
    Answer,
    Event,
    FakeRuntimeApi,
    one_by_one,
    status,
)

THROWS = "export const handler = (e) => { if (e === 'throw') throw new Error('thrown'); return e; };"
REFUSED = b'{"errorMessage":"the reason why","errorType":"InvalidRequestID"}'


@pytest.mark.parametrize("code", [400, 403, 410, 413])
@pytest.mark.parametrize("event", ["fine", "throw"])
@pytest.mark.parametrize("ending", ["", "close"])
def test_refused_post(start: Start, api: FakeRuntimeApi, code: int, event: str, ending: str) -> None:
    """A refused post is logged and not repeated, by no other post either; the next event is served."""
    api.answers.put(status(code, REFUSED, ending=ending))
    environment = start(THROWS)
    environment.invoke(event, request_id="refused")
    assert environment.result("next") == "next"
    assert environment.waits_for_next(3)
    assert len([path for path in api.paths("POST") if "/refused/" in path]) == 1
    assert str(code) in environment.log
    assert "the reason why" in environment.log


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_refused_before_the_result_is_read(start: Start, api: FakeRuntimeApi, ending: str) -> None:
    """A server that answers 413 to the head of 7 MB and hangs up costs that invocation alone."""
    api.answers.put(status(413, b'{"errorType":"RequestEntityTooLarge"}', ending=ending, is_early=True))
    environment = start("export const handler = (size) => 'x'.repeat(size);")
    post = environment.invoke(7_000_000, request_id="large")
    assert post.headers["content-length"] == "7000002"
    assert environment.result(3) == "xxx"
    assert [path for path in api.paths("POST") if "/large/" in path] == [post.path]


@pytest.mark.parametrize("event", ["fine", "throw"])
def test_container_error_ends_the_environment(start: Start, api: FakeRuntimeApi, event: str) -> None:
    """500 to a post is a container error: the bootstrap logs it and exits at once."""
    api.answers.put(status(500, b'{"errorType":"InternalServerError"}'))
    environment = start(THROWS)
    environment.invoke(event)
    assert environment.wait() != 0
    assert "500" in environment.log
    assert api.paths("GET") in ([NEXT], [NEXT, NEXT])  # the second one was sent with the post (relay.py)


def test_container_error_after_deno_ended(start: Start, api: FakeRuntimeApi) -> None:
    """500 to the report of a dead Deno ends the environment as well."""
    api.answers.put(status(500))
    environment = start("export const handler = () => Deno.exit(3);")
    environment.invoke()
    assert environment.wait() != 0
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(403),
        status(200, b"no request id"),
        Answer([b""], "close"),
        Answer([b""], "reset"),
        Answer([b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-"], "close"),
        Answer([b"SSH-2.0-garbage\r\n\r\n"], "close"),
        Answer([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"], "close"),
    ],
    ids=["500", "403", "no id", "closed", "reset", "half a head", "not HTTP", "no length"],
)
def test_no_event_ends_the_environment(start: Start, api: FakeRuntimeApi, answer: Answer) -> None:
    """Where /next cannot be had, the bootstrap says so and exits; it does not ask again."""
    environment = start()
    api.events.put(answer)
    assert environment.wait() != 0
    assert "Cannot get the next event" in environment.log
    assert "Traceback" not in environment.log
    assert [request.path for request in api.requests] == [NEXT]


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("chunks", [(), (100,)], ids=["length", "chunked"])
def test_half_an_event_ends_the_environment(
    start: Start, api: FakeRuntimeApi, ending: str, chunks: tuple[int, ...]
) -> None:
    """An event that breaks off never reaches the handler, is answered with that, and ends the environment."""
    environment = start("export const handler = () => console.log('reached');")
    data = Event(b'"' + b"x" * 400_000 + b'"', chunks=chunks).to_bytes()
    api.events.put(Answer([data[:300_000]], ending))
    assert environment.wait() != 0
    assert "reached" not in environment.log
    assert "Traceback" not in environment.log
    [post] = [request for request in api.requests if request.method == "POST"]
    assert (post.path.rpartition("/")[2], post.error_type) == ("error", "Runtime.EventNotHandled")


def test_nobody_listens(start: Start) -> None:
    """A Runtime API that refuses connections ends the environment with its address in the log."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = start(AWS_LAMBDA_RUNTIME_API=address)
    assert environment.wait() != 0
    assert f"Cannot reach the Runtime API at {address}" in environment.log


@pytest.mark.parametrize("address", [None, "", "127.0.0.1", "127.0.0.1:", "http://127.0.0.1/"])
def test_no_address(start: Start, address: str | None) -> None:
    """Outside an execution environment, the bootstrap says what is missing and exits."""
    environment = start(AWS_LAMBDA_RUNTIME_API=address)
    assert environment.wait() == 1
    assert "AWS_LAMBDA_RUNTIME_API" in environment.log
    assert "Traceback" not in environment.log


@pytest.mark.parametrize("ending", ["", "close"])
def test_accepted_with_the_connection_closed(start: Start, api: FakeRuntimeApi, ending: str) -> None:
    """HTTP lets a server close after any answer that says so: the next event is asked for all the same."""
    api.answers.put(status(202, ending=ending))
    environment = start()
    assert environment.result(1) == 1
    assert environment.result(2) == 2


@pytest.mark.parametrize(
    "accepted",
    [
        one_by_one(b'HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'),
        Answer([b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]),
        Answer([b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"]),
        Answer([b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\n", b"abc"]),
        Answer([b"HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n", b'{"status":"OK"}\n']),
        Answer([b"HTTP/1.1 202 Accepted\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000]),
    ],
    ids=["byte by byte", "chunked", "empty", "in two", "its body later", "300 KB"],
)
def test_accepted_in_any_form(start: Start, api: FakeRuntimeApi, accepted: Answer) -> None:
    """202 in any form of HTTP is 202."""
    environment = start(ECHO)
    for number in range(3):
        api.answers.put(accepted)
        assert environment.invoke(number, request_id="an-id").path == f"{PREFIX}/invocation/an-id/response"
    assert environment.waits_for_next(4)
    assert len(api.paths("POST")) == 3


def test_closed_after_a_large_event(start: Start, api: FakeRuntimeApi) -> None:
    """What a large event's head says of the connection holds when its body has been passed on."""
    environment = start(ECHO)
    event = Event(b'"' + b"x" * 1_000_000 + b'"', headers={"Connection": "close"})
    api.events.put(Answer([event.to_bytes()], "close"))
    assert environment.post().body == event.body
    assert environment.result("next") == "next"
    assert len(api.paths("POST")) == 2
