"""Starting and stopping: ports, signals, HTTP connections that are kept, cut or overfull."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from lambdeno.emulator import Function, Settings, local_lambda
from lambdeno.errors import EmulatorError
from tests.emulator.conftest import Running, Start, wait_until

REQUEST = b"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: localhost\r\n"


def test_port_in_use_is_named(start: Start, code: Path, cache: Path) -> None:
    """A second local Lambda on one port says which port it is."""
    with start() as running:
        port = int(running.handle.endpoint.rpartition(":")[2])
        with (
            pytest.raises(EmulatorError) as caught,
            local_lambda(Function("f", code), port=port, cache=cache),
        ):
            pass
    assert caught.value.message == f"Cannot listen on 127.0.0.1:{port}: the port is in use"
    assert "another port" in caught.value.hint


def test_names_are_unique(code: Path, cache: Path) -> None:
    """Two functions of one name are an error."""
    function = Function("f", code)
    with (
        pytest.raises(EmulatorError, match='Two functions are named "f"'),
        local_lambda(function, function, cache=cache),
    ):
        pass


def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    """Requests sent without waiting are served one after the other on one connection."""
    with start() as running, connect(running) as client:
        client.sendall(b"".join(REQUEST + b"Content-Length: 1\r\n\r\n%d" % n for n in range(3)))
        told = b""
        client.settimeout(10)
        while told.count(b"HTTP/1.1 ") < 3 or not told.endswith(b"\n"):
            if told.count(b"\r\n\r\n") == 3 and told.rpartition(b"\r\n\r\n")[2]:
                break
            told += client.recv(65536)
    assert told.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_200_000, b"431"),
    ],
)
def test_what_is_not_http_is_refused(start: Start, sent: bytes, status: bytes) -> None:
    """A malformed or overlong head is answered with an error, and the connection closed."""
    with start() as running, connect(running) as client:
        client.sendall(sent)
        told = b""
        try:
            while part := client.recv(65536):
                told += part
        except ConnectionResetError:
            pass
        assert told.startswith(b"HTTP/1.1 " + status)


def test_client_that_leaves_disturbs_nobody(start: Start) -> None:
    """A request that breaks off is dropped; the next one is served."""
    with start() as running:
        with connect(running) as client:
            client.sendall(REQUEST + b"Content-Length: 100\r\n\r\n{")
        assert running.ask() == ({"do": "echo"}, None)


@pytest.mark.parametrize(
    "sent", [b"POST / HT", REQUEST, REQUEST + b"Content-Length: 100\r\n\r\n{"], ids=["line", "head", "body"]
)
def test_client_that_falls_silent_is_dropped(start: Start, sent: bytes) -> None:
    """A request that stops in its head or body is answered with 408, and the connection closed."""
    with start(settings=Settings(silence=0.3)) as running, connect(running) as client:
        client.sendall(sent)
        told = read_all(client)
        assert running.ask() == ({"do": "echo"}, None)
    assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in told.lower()


def test_head_that_only_drips_is_dropped(start: Start) -> None:
    """A head has to be whole in its time, however steadily its bytes come."""
    with start(settings=Settings(silence=0.5)) as running, connect(running) as client:
        client.sendall(REQUEST)
        client.settimeout(0.05)
        told = b""
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            client.sendall(b"X: x\r\n")
            with contextlib.suppress(TimeoutError):
                told = client.recv(65536)
    assert told.startswith(b"HTTP/1.1 408 ")


def test_body_may_take_its_time(start: Start) -> None:
    """A body that goes on is waited for, however long it takes as a whole."""
    with start(settings=Settings(silence=1.5)) as running, connect(running) as client:
        client.sendall(REQUEST + b"Content-Length: 6\r\n\r\n")
        for part in (b"{", b" ", b" ", b" ", b" ", b"}"):
            time.sleep(0.4)
            client.sendall(part)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_function_may_take_its_time(start: Start) -> None:
    """The bounds are for clients: a function that is silent for longer is waited for."""
    event = b'{"do": "sleep", "seconds": 1}'
    settings = Settings(silence=0.3, keep_alive=0.3)
    with start(settings=settings) as running, connect(running) as client:
        client.sendall(REQUEST + b"Content-Length: %d\r\n\r\n%b" % (len(event), event))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_idle_connections_are_closed(start: Start) -> None:
    """A connection that is kept alive for nothing is closed without a word, a bare one too."""
    settings = Settings(silence=0.3, keep_alive=0.4)
    with start(settings=settings) as running, connect(running) as client, connect(running) as bare:
        client.sendall(REQUEST + b"Content-Length: 2\r\n\r\n{}")
        told = read_all(client)
        assert read_all(bare) == b""
    assert told.startswith(b"HTTP/1.1 200")
    assert told.endswith(b"{}")


def test_kept_connections_may_wait(start: Start) -> None:
    """Between requests a client has more time than within one."""
    with start(settings=Settings(silence=0.3)) as running, connect(running) as client:
        for _ in range(2):
            client.sendall(REQUEST + b"Content-Length: 2\r\n\r\n{}")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)


def test_connections_are_limited(start: Start) -> None:
    """One connection too many is told so; when another ends there is room again."""
    request = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with start(settings=Settings(connections=2)) as running:
        with connect(running) as first, connect(running) as second:
            for client in (first, second):
                client.sendall(request)
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
            with connect(running) as third:
                assert read_all(third).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        wait_until(lambda: ping(running, request).startswith(b"HTTP/1.1 200"))


def test_client_that_does_not_read_is_dropped(start: Start) -> None:
    """A response that nobody takes is given up."""
    event = b'{"do": "large", "size": 6e6}'
    with start(settings=Settings(silence=0.5)) as running, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(running.handle.endpoint.rpartition(":")[2])))
        client.sendall(REQUEST + b"Content-Length: %d\r\n\r\n%b" % (len(event), event))
        wait_until(lambda: any(line.startswith("REPORT") for line in running.lines))
        time.sleep(2.5)
        client.settimeout(10)
        assert len(read_all(client)) < 6_000_000


def read_all(client: socket.socket) -> bytes:
    """What comes until the connection is closed, in whatever way."""
    told = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            told += part
    return told


def ping(running: Running, request: bytes) -> bytes:
    """What a connection of its own is told."""
    with connect(running) as client:
        client.sendall(request)
        try:
            return client.recv(65536)
        except ConnectionResetError:
            return b""


def connect(running: Running) -> socket.socket:
    """A bare connection to the endpoint."""
    port = int(running.handle.endpoint.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=10)
