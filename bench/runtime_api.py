"""A Runtime API that costs as little as Python can: one blocking socket, one connection at a time.

Drives one bootstrap and times it from the platform's side.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVENT = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/json\r\n"
    b"Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c%04x\r\n"
    b"Lambda-Runtime-Deadline-Ms: %d\r\n"
    b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:123456789012:function:bench\r\n"
    b"Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e7%02x;Sampled=1\r\n"
    b"Content-Length: %d\r\n\r\n"
)
ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n{"status":"OK"}\n'


@dataclass(frozen=True)
class Figures:
    """One run of one peer."""

    first_next: float  # ms, exec to the first GET /next
    p50: float = 0.0  # µs, event sent to response received
    p99: float = 0.0
    cycle: float = 0.0  # µs, event sent to the next GET /next: what Lambda bills
    cpu: float = 0.0  # µs of user and system time an invocation, the whole process tree
    pss: float = 0.0  # MB of the whole tree after the last invocation
    own_pss: float = 0.0  # MB of its first process: the bootstrap


def drive(
    command: Sequence[str],
    environment: Mapping[str, str],
    invocations: int = 0,
    size: int = 100,
    pause: float = 0.0,
) -> Figures:
    """Start a bootstrap, send it events of a size (bytes), end it.

    With a pause (s) the environment is frozen for so long before each event, as Lambda does it.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        started = time.perf_counter()
        process = subprocess.Popen(command, env={**environment, "AWS_LAMBDA_RUNTIME_API": address})
        try:
            peer = _Peer(server)
            peer.request()
            first_next = (time.perf_counter() - started) * 1000
            return _warm(peer, process.pid, first_next, invocations, size, pause)
        finally:
            tree = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in tree:
                if child.is_running():
                    child.kill()


def _warm(  # noqa: PLR0917 - a private one
    peer: _Peer, pid: int, first_next: float, invocations: int, size: int, pause: float
) -> Figures:
    if not invocations:
        return Figures(first_next, pss=_pss(_tree(pid)), own_pss=_pss([pid]))
    body = b'{"k":"' + b"x" * (size - 8) + b'"}'
    answers, cycles, cpu = [], [], 0
    for number in range(-invocations // 5, invocations):  # a fifth to warm up
        if number == 0:
            cpu = _cpu(pid)
        if pause:
            _signal(pid, signal.SIGSTOP)
            time.sleep(pause)
            _signal(pid, signal.SIGCONT)
        head = EVENT % (number % 65536, time.time() * 1000 + 3000, number % 256, len(body))
        sent = time.perf_counter()
        peer.connection.sendall(head + body)
        line = peer.request()
        answered = time.perf_counter()
        if b"/response " not in line:
            raise RuntimeError(line)
        peer.connection.sendall(ACCEPTED)
        peer.request()
        if number >= 0:
            answers.append(answered - sent)
            cycles.append(time.perf_counter() - sent)
    cpu = _cpu(pid) - cpu
    answers.sort()
    cycles.sort()
    return Figures(
        first_next,
        answers[len(answers) // 2] * 1e6,
        answers[len(answers) * 99 // 100] * 1e6,
        cycles[len(cycles) // 2] * 1e6,
        cpu / invocations / 1000,
        _pss(_tree(pid)),
        _pss([pid]),
    )


class _Peer:
    """The bootstrap's connections: a client may open a second one while the first is not quite free."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.connection = server  # the one that the last request came on
        self.open = {server.fileno(): server}
        self.poll = select.epoll()
        self.poll.register(server, select.EPOLLIN)
        self.buffer = bytearray(1 << 20)  # one for all: a fresh one would be mapped for each message

    def _receive(self) -> int:
        """Read what comes next, on whichever connection; gives its length in the buffer."""
        while True:
            ready = self.poll.poll(60, 1)
            if not ready:
                raise TimeoutError("the peer is silent")
            self.connection = self.open[ready[0][0]]
            if self.connection is self.server:
                connection, _ = self.server.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open[connection.fileno()] = connection
                self.poll.register(connection, select.EPOLLIN)
            elif length := self.connection.recv_into(self.buffer):
                return length
            else:
                self.poll.unregister(self.connection)
                del self.open[self.connection.fileno()]
                self.connection.close()

    def request(self) -> bytes:
        """Read one request, body and all; gives its first line."""
        data = self.buffer[: self._receive()]
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self.buffer[: self._receive()]
        head = data[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        missing = end + 4 + length - len(data)
        while missing > 0:
            missing -= self.connection.recv_into(self.buffer, missing)
        return bytes(data.split(b"\r\n", 1)[0])


def _signal(pid: int, number: signal.Signals) -> None:
    for member in _tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


def _tree(pid: int) -> list[int]:
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


def _cpu(pid: int) -> int:
    """Nanoseconds on a core so far, of all threads of the tree (schedstat: exact, not in ticks)."""
    total = 0
    for member in _tree(pid):
        for task in Path(f"/proc/{member}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                total += int((task / "schedstat").read_text().split()[0])
    return total


def _pss(members: list[int]) -> float:
    total = 0
    for member in members:
        rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024
