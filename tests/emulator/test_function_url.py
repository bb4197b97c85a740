"""The local Lambda as a web server: what clients of a Function URL, an API or a load balancer meet."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lambdeno.emulator import FORMS, Cors, Form, Function, FunctionUrl, Settings
from lambdeno.errors import EmulatorError
from tests.emulator.conftest import Running, Start, wait_until

ALL = pytest.mark.parametrize("form", FORMS)
PRELUDE = "application/vnd.awslambda.http-integration-response"


def port_of(running: Running) -> int:
    """Where the function's URL is."""
    url = running.handle.url_of("f")
    assert url
    assert url.startswith("http://127.0.0.1:")
    return int(url.rstrip("/").rpartition(":")[2])


def ask(
    running: Running, method: str = "GET", target: str = "/", body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request and its whole answer; ``x_do`` is the order for the bootstrap."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(running), timeout=20)
    connection.request(
        method, target, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def order(what: str, **more: Any) -> str:
    """What the bootstrap is to do."""
    return json.dumps({"do": what, **more})


def give(**result: Any) -> str:
    """Have the bootstrap answer with this."""
    return order("give", text=json.dumps(result))


@ALL
def test_a_request_is_an_event(start: Start, form: Form) -> None:
    """The function gets it in the form that was chosen, and its result is the answer."""
    with start(url=FunctionUrl(form=form)) as running:
        shown = give(statusCode=201, body="yes", **{"headers": {"x-a": "b"}} if form != "alb-multi" else {})
        response, content = ask(running, "POST", "/p?q=1", b"sent", x_do=shown)
        assert (response.status, content) == (201, b"yes")
        assert response.headers["x-amzn-requestid"]
        if form in {"url", "http-api"}:
            response, content = ask(running, "POST", "/p%20?q=1", b"sent", content_type="text/plain")
            event = json.loads(content)
            assert (event["rawPath"], event["rawQueryString"], event["body"]) == ("/p%20", "q=1", "sent")
            assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
            assert response.headers["content-type"] == "application/json"


@ALL
def test_a_function_that_fails(start: Start, form: Form) -> None:
    """The client learns that, and nothing of why; the log has it all."""
    with start(url=FunctionUrl(form=form)) as running:
        response, content = ask(running, x_do=order("error"))
        assert response.status == (500 if form == "http-api" else 502)
        assert b"on purpose" not in content
        response, content = ask(running, x_do=order("give", text='{"statusCode": "x"}'))
        assert response.status == (500 if form == "http-api" else 502)
        assert any("statusCode is 'x'" in line for line in running.lines)


@pytest.mark.parametrize(
    "result",
    [
        '{"statusCode": 200, "headers": {"x-a": "a\\u000bb"}, "multiValueHeaders": {"x-a": ["a\\u000bb"]}}',
        '{"statusCode": 200, "headers": {"x-a": "\\u001b"}, "multiValueHeaders": {"x-a": ["\\u001b"]}}',
        '{"statusCode": "' + "2" * 5000 + '"}',
        '{"statusCode": ' + "2" * 5000 + "}",
        '{"statusCode": 200, "headers": ' + "[" * 1500 + "]" * 1500 + "}",
        "NaN",
    ],
    ids=["vertical tab", "escape", "long status", "long number", "deep", "NaN"],
)
@ALL
def test_a_result_that_no_service_could_send(
    start: Start, form: Form, result: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told, the log says why, and the URL serves on."""
    with start(url=FunctionUrl(form=form)) as running:
        response, _ = ask(running, x_do=order("give", text=result))
        assert response.status == (500 if form == "http-api" else 502)
        assert any("the client gets" in line for line in running.lines)
    assert caplog.records == []


def test_each_request_has_an_id(start: Start) -> None:
    """A UUID, another one each time."""
    with start(url=FunctionUrl()) as running:
        ids = [json.loads(ask(running)[1])["requestContext"]["requestId"] for _ in range(2)]
    assert len({str(uuid.UUID(identifier)) for identifier in ids} & set(ids)) == 2


@ALL
def test_no_environment_is_free(start: Start, form: Form) -> None:
    """Beyond the concurrency a client is refused as its service refuses it."""
    with start(url=FunctionUrl(form=form), concurrency=1) as running:
        waiting = socket.create_connection(("127.0.0.1", port_of(running)))
        slow = order("sleep", seconds=1)
        waiting.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Do: {slow}\r\n\r\n".encode())
        wait_until(lambda: any(line.startswith("START") for line in running.lines))
        response, _ = ask(running)
        assert response.status == {"url": 429, "http-api": 503, "rest": 500}.get(form, 502)
        waiting.close()


@ALL
def test_large_bodies(start: Start, form: Form) -> None:
    """Up to the limit they pass, beyond it the client is told."""
    with start(url=FunctionUrl(form=form)) as running:
        headers = {"headers": {"content-type": "image/x"}}
        if form == "alb-multi":
            headers = {"multiValueHeaders": {"content-type": ["image/x"]}}  # type: ignore[dict-item]
        shown = give(statusCode=200, body="ok", **headers)
        response, content = ask(running, "POST", "/", b"x" * 4_600_000, content_type="image/x", x_do=shown)
        assert (response.status, content) == (200, b"ok")
        for size in (6_200_000, 7_000_000):
            response, _ = ask(running, "POST", "/", b"x" * size, content_type="image/x", x_do=shown)
            assert response.status == 413


def test_heads_and_statuses_without_a_body(start: Start) -> None:
    """HEAD has the headers alone; 204 has no length; the connection serves on."""
    with start(url=FunctionUrl()) as running:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(running), timeout=20)
        for method, result, status in (
            ("HEAD", {"statusCode": 200, "body": "text", "headers": {"x-a": "b"}}, 200),
            ("GET", {"statusCode": 204, "body": "text"}, 204),
            ("GET", {"statusCode": 304}, 304),
            ("GET", {"statusCode": 302, "headers": {"location": "/x"}}, 302),
        ):
            connection.request(method, "/", headers={"x-do": give(**result)})
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, b"")
        connection.close()


def test_headers_beyond_ascii(start: Start) -> None:
    """They are bytes on the wire: the function has them as text."""
    with start(url=FunctionUrl()) as running:
        client = socket.create_connection(("127.0.0.1", port_of(running)))
        client.sendall("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: é€\r\nConnection: close\r\n\r\n".encode())
        with client, client.makefile("rb") as stream:
            body = stream.read().partition(b"\r\n\r\n")[2]
        assert json.loads(body)["headers"]["x-a"] == "é€"
        response, _ = ask(running, x_do=give(statusCode=200, headers={"x-a": "é"}))
        assert response.headers["x-a"].encode("latin-1") == b"\xe9"


def test_cors(start: Start) -> None:
    """The URL answers preflight requests itself; its settings stand over what the function says."""
    cors = Cors(origins=("https://a.example",), methods=("GET", "PUT"), headers=("x-b",), max_age=5)
    with start(url=FunctionUrl(cors=cors)) as running:
        response, _ = ask(running, "OPTIONS", origin="https://a.example", access_control_request_method="PUT")
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert response.headers["access-control-allow-methods"] == "GET,PUT"
        assert response.headers["access-control-allow-headers"] == "x-b"
        assert response.headers["access-control-max-age"] == "5"
        assert not running.lines
        mine = give(statusCode=200, headers={"access-control-allow-origin": "*"})
        response, _ = ask(running, origin="https://a.example", x_do=mine)
        assert response.headers.get_all("access-control-allow-origin") == ["https://a.example"]
        response, _ = ask(running, origin="https://b.example", x_do=give(statusCode=200))
        assert "access-control-allow-origin" not in response.headers


def test_a_stream_comes_as_it_is_made(start: Start) -> None:
    """Status, headers and cookies at once, then each chunk."""
    with start(url=FunctionUrl(is_streaming=True)) as running:
        prelude = {"statusCode": 202, "headers": {"x-a": "b"}, "cookies": ["c=1", "d=2"]}
        head = json.dumps(prelude)
        chunks = [head[:9], head[9:] + "\0\0\0", "\0\0\0\0\0one", "two"]
        asked = order("stream", chunks=chunks, pause=0.2, type=PRELUDE)
        connection = http.client.HTTPConnection("127.0.0.1", port_of(running), timeout=20)
        connection.request("GET", "/", headers={"x-do": asked})
        response = connection.getresponse()
        assert (response.status, response.headers["x-a"]) == (202, "b")
        assert response.headers.get_all("set-cookie") == ["c=1", "d=2"]
        begun = time.monotonic()
        assert response.read(3) == b"one"
        assert response.read(3) == b"two"
        assert time.monotonic() - begun > 0.1
        assert response.read() == b""
        connection.close()


def test_what_streams_without_a_prelude(start: Start) -> None:
    """Its bytes are the body, as they are; so is a result that was not streamed."""
    with start(url=FunctionUrl(is_streaming=True)) as running:
        response, content = ask(running, x_do=order("stream", chunks=["a", "b"], type="text/x"))
        assert (response.status, response.headers["content-type"], content) == (200, "text/x", b"ab")
        response, content = ask(running, x_do=give(statusCode=201))
        assert (response.status, content) == (200, b'{"statusCode": 201}')


@pytest.mark.parametrize(
    "chunks", [["none"], ['{"statusCode": 1}' + "\0" * 8], ["not JSON" + "\0" * 8], ["x" * 20_000]]
)
def test_a_prelude_that_is_none(start: Start, chunks: list[str]) -> None:
    """The client gets 502, the log why."""
    with start(url=FunctionUrl(is_streaming=True)) as running:
        response, _ = ask(running, x_do=order("stream", chunks=chunks, type=PRELUDE))
        assert response.status == 502
        assert any("the client gets 502" in line for line in running.lines)
        assert ask(running)[0].status == 200


def test_errors_of_streams(start: Start) -> None:
    """Before the first byte it is 502; behind it the response breaks off, and nobody takes it for whole."""
    late = {
        "Lambda-Runtime-Function-Error-Type": "Function.Late",
        "Lambda-Runtime-Function-Error-Body": "e30=",
    }
    with start(url=FunctionUrl(is_streaming=True)) as running:
        assert ask(running, x_do=order("error"))[0].status == 502
        for chunks in (["some"], ["some", "die"]):
            request = order("stream", chunks=chunks, trailers=late, pause=0.1)
            with socket.create_connection(("127.0.0.1", port_of(running))) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Do: {request}\r\n\r\n".encode())
                content = b""
                with contextlib.suppress(ConnectionResetError):
                    while data := client.recv(65536):
                        content += data
            assert content.endswith(b"4\r\nsome\r\n")
        assert ask(running)[0].status == 200


def test_a_client_that_is_gone(start: Start) -> None:
    """The runtime's connection is cut, so that it can stop; its environment serves on."""
    with start(url=FunctionUrl(is_streaming=True), concurrency=1, timeout=30) as running:
        client = socket.create_connection(("127.0.0.1", port_of(running)))
        asked = order("stream", chunks=["tick"], times=1000, pause=0.02)
        client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Do: {asked}\r\n\r\n".encode())
        assert b"200" in client.recv(100)
        client.close()
        wait_until(lambda: "nobody reads" in running.lines)
        wait_until(lambda: ask(running)[0].status == 200)
        assert len(running.environments) == 1


def test_a_client_of_the_invoke_api_that_is_gone(start: Start) -> None:
    """The same for InvokeWithResponseStream."""
    with start(concurrency=1, timeout=30) as running:
        event = json.dumps({"do": "stream", "chunks": ["tick"], "times": 1000, "pause": 0.02}).encode()
        answer = running.client.invoke_with_response_stream(FunctionName="f", Payload=event)
        next(iter(answer["EventStream"]))
        answer["EventStream"].close()
        running.client.close()
        wait_until(lambda: "nobody reads" in running.lines)
        assert running.ask()[1] is None


def test_new_code_behind_the_same_url(start: Start, code: Path) -> None:
    """A deployment keeps the port and takes the new settings; without a URL there is none."""
    with start(url=FunctionUrl()) as running:
        port = port_of(running)
        running.handle.replace(Function("f", code, url=FunctionUrl(form="rest")))
        assert port_of(running) == port
        assert ask(running)[0].status == 502  # an echo is no answer of a REST API
        running.handle.replace(Function("f", code))
        assert running.handle.url_of("f") is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_taken(start: Start, code: Path) -> None:
    """One sentence says so, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            pytest.raises(EmulatorError, match=f"127.0.0.1:{port}: the port is in use"),
            start(url=FunctionUrl(port)),
        ):
            pass
        with start() as running:
            with pytest.raises(EmulatorError, match="in use"):
                running.handle.replace(Function("f", code, url=FunctionUrl(port)))
            assert running.ask()[1] is None


@pytest.mark.parametrize("url", [FunctionUrl(form="soap"), FunctionUrl(port=70_000)])  # type: ignore[arg-type]
def test_settings_that_cannot_be(code: Path, url: FunctionUrl) -> None:
    """They are refused with the choices."""
    with pytest.raises(EmulatorError) as caught:
        Function("f", code, url=url)
    assert "may be" in str(caught.value.hint)


def test_a_client_that_says_nothing(start: Start) -> None:
    """The URL has the same bounds as the Invoke API."""
    settings = replace(Settings(), silence=0.2)
    with start(url=FunctionUrl(), settings=settings) as running:
        client = socket.create_connection(("127.0.0.1", port_of(running)))
        with client:
            client.settimeout(10)
            client.sendall(b"GET / HT")
            assert client.recv(100).startswith(b"HTTP/1.1 408")
