"""Starting and stopping: ports, signals, HTTP connections that are kept, cut or overfull."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lambdeno.emulator import Function, local_lambda
from lambdeno.errors import EmulatorError
from tests.emulator.conftest import Running, Start

SERVE = """
import sys
from pathlib import Path
from lambdeno.emulator import Function, serve_forever
serve_forever(
    [Function("f", Path(sys.argv[1]))], port=0, cache=Path(sys.argv[2]),
    ready=lambda local: print(local.endpoint, flush=True),
)
"""
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_cleanly(code: Path, cache: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A served local Lambda ends on a signal with status 0, no process and no folder left."""
    temp = tmp_path / "temp"
    temp.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(code), str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(temp), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout
    port = int(process.stdout.readline().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(REQUEST + b"Content-Length: 2\r\n\r\n{}")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert errors.startswith("START RequestId")
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert list(temp.iterdir()) == []


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


def connect(running: Running) -> socket.socket:
    """A bare connection to the endpoint."""
    port = int(running.handle.endpoint.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=10)
