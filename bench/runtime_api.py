"""A Runtime API that costs as little as Python can: blocking sockets, no threads, one buffer.

Drives one bootstrap and times it from the platform's side. Its own share is what `peers/raw_loop.py`
shows: a client that does nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
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
REGISTERED = b"HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: 1\r\nContent-Length: 2\r\n\r\n{}"
SETTLED = 0.2  # s after which a process that waits for its first event has come to rest
TIMEOUT = 30  # s
TASK_ROOT = "/var/task"  # where Lambda starts a bootstrap
SLICE = 20_000  # µs: of which a function has its share of a processor, as Lambda divides it


@dataclass(frozen=True)
class Load:
    """What one environment is sent after its start."""

    invocations: int = 0
    sent: int = 100  # bytes of an event
    wanted: int = 0  # bytes of a result, where the event asks for that many
    pause: float = 0.0  # s before each event
    is_frozen: bool = False  # stopped meanwhile, as Lambda freezes an environment


@dataclass(frozen=True)
class Figures:
    """One run of one peer."""

    first_next: float  # ms, exec to the first GET /next
    first: float = 0.0  # ms, the first event sent to its response received
    p50: float = 0.0  # µs, event sent to response received
    p99: float = 0.0
    first_byte: float = 0.0  # µs, event sent to the first byte of the result
    cycle: float = 0.0  # µs, event sent to the next GET /next: what Lambda bills
    rate: float = 0.0  # invocations a second, one after the other
    cpu: float = 0.0  # µs of user and system time an invocation, the whole process tree
    own_cpu: float = 0.0  # of its first process: the bootstrap
    idle_pss: float = 0.0  # MB of the whole tree before its first event
    pss: float = 0.0  # MB of the whole tree after the last invocation
    own_pss: float = 0.0  # MB of its first process


def drive(
    command: Sequence[str], environment: Mapping[str, str], load: Load | None = None, share: float = 0.0
) -> Figures:
    """Start a bootstrap, send it events, end it; with a share, on so much of one processor."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with running(command, {**environment, "AWS_LAMBDA_RUNTIME_API": address}, share) as (pid, started):
            platform = _Platform(server)
            platform.request()
            first_next = (time.perf_counter() - started) * 1000
            if load is None:
                return Figures(first_next)
            return _warm(platform, pid, first_next, load)


def first_line(command: Sequence[str], environment: Mapping[str, str]) -> Figures:
    """Start a program that writes a byte with its first line of code."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        process.stdout.read(1)
        took = (time.perf_counter() - started) * 1000
        process.kill()
    return Figures(took)


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], share: float = 0.0
) -> Iterator[tuple[int, float]]:
    """A process tree, as its first process's id and the time of its start; ended at the end."""
    with contextlib.ExitStack() as stack:
        if share:
            group = stack.enter_context(_share_of_processor(share))
            # It joins the group, then waits: the clock starts with exec.
            script = f'echo $$ > {group}/cgroup.procs; read -r _; exec "$@"'
            gate = subprocess.PIPE
            command = ["/bin/sh", "-c", script, "sh", *command]
        else:
            gate = None
        started = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), cwd=TASK_ROOT, stdin=gate)
        if process.stdin:
            while not (Path(str(group)) / "cgroup.procs").read_text().strip():
                time.sleep(0.001)
            time.sleep(2 * SLICE / 1e6)
            started = time.perf_counter()
            process.stdin.write(b"\n")
            process.stdin.close()
        try:
            yield process.pid, started
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    tree = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(tree, timeout=TIMEOUT)


def can_share() -> bool:
    """Whether this machine lets us give a process a share of a processor."""
    try:
        with _share_of_processor(0.5):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _share_of_processor(share: float) -> Iterator[Path]:
    """A control group, of version 1 or 2, that has so much of one processor. Raises OSError."""
    root = Path("/sys/fs/cgroup")
    is_old = (root / "cpu").is_dir()
    group = root / ("cpu" if is_old else "") / f"lambdeno-bench-{os.getpid()}"
    group.mkdir()
    try:
        quota = str(int(SLICE * share))
        if is_old:
            (group / "cpu.cfs_period_us").write_text(str(SLICE))
            (group / "cpu.cfs_quota_us").write_text(quota)
        else:
            (group / "cpu.max").write_text(f"{quota} {SLICE}")
        yield group
    finally:
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                group.rmdir()
                break
            except OSError:  # what was killed is not gone yet
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _warm(platform: _Platform, pid: int, first_next: float, load: Load) -> Figures:
    time.sleep(SETTLED)
    idle = _pss(_tree(pid))
    wanted = b'"size":%d,' % load.wanted if load.wanted else b""
    body = b'{%b"k":"%b"}' % (wanted, b"x" * max(0, load.sent - 8 - len(wanted)))
    answers, cycles, first_bytes = [], [], []
    first, cpu, own_cpu, began = 0.0, 0, 0, 0.0
    warm_up = max(1, load.invocations // 5)
    for number in range(-warm_up, load.invocations):
        if number == 0:
            cpu, own_cpu, began = _cpu(_tree(pid)), _cpu([pid]), time.perf_counter()
        if load.pause:
            _rest(pid, load)
        head = EVENT % (number % 65536, time.time() * 1000 + 3000, number % 256, len(body))
        sent = time.perf_counter()
        platform.connection.sendall(head + body)
        line = platform.request()
        answered = time.perf_counter()
        if b"/response " not in line:
            raise RuntimeError(line)
        platform.connection.sendall(ACCEPTED)
        platform.request()
        if number == -warm_up:
            first = answered - sent
        if number >= 0:
            answers.append(answered - sent)
            first_bytes.append((platform.first_byte or answered) - sent)
            cycles.append(time.perf_counter() - sent)
    took = time.perf_counter() - began
    members = _tree(pid)
    count = max(1, load.invocations)
    for times in (answers, cycles, first_bytes):
        times.sort()
    if not answers:
        return Figures(first_next, first * 1e3, idle_pss=idle, pss=_pss(members), own_pss=_pss([pid]))
    return Figures(
        first_next=first_next,
        first=first * 1e3,
        p50=answers[len(answers) // 2] * 1e6,
        p99=answers[len(answers) * 99 // 100] * 1e6,
        first_byte=first_bytes[len(first_bytes) // 2] * 1e6,
        cycle=cycles[len(cycles) // 2] * 1e6,
        rate=count / took,
        cpu=(_cpu(members) - cpu) / count / 1000,
        own_cpu=(_cpu([pid]) - own_cpu) / count / 1000,
        idle_pss=idle,
        pss=_pss(members),
        own_pss=_pss([pid]),
    )


def _rest(pid: int, load: Load) -> None:
    members = _tree(pid) if load.is_frozen else []
    _signal(members, signal.SIGSTOP)
    time.sleep(load.pause)
    _signal(members, signal.SIGCONT)


def _signal(members: list[int], number: signal.Signals) -> None:
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


class _Platform:
    """The connections of a bootstrap and of its extensions; a client may have several, and pipeline."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.connection = server  # the one that the last request came on
        self.open = {server.fileno(): server}
        self.poll = select.epoll()
        self.poll.register(server, select.EPOLLIN)
        self.buffer = bytearray(1 << 20)  # one for all: a fresh one would be mapped for each message
        self.rest = b""  # what came behind the last request, on the same connection
        self.first_byte = 0.0  # when the first byte of the last streamed result came

    def request(self) -> bytes:
        """Read one request of the runtime, body and all; gives its first line. Answers extensions."""
        while True:
            line = self._request()
            if b"/extension/" not in line:
                return line
            if b"/register " in line:
                self.connection.sendall(REGISTERED)  # its /event/next waits for ever

    def _request(self) -> bytes:
        data, self.rest = self.rest or self._receive(), b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head = data[:end].lower()
        line = data.split(b"\r\n", 1)[0]
        if b"\r\ntransfer-encoding:" in head:
            if b"/response " in line:
                self._read_stream(data[end + 4 :])
            return line
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        total = end + 4 + length
        missing = total - len(data)
        self.rest = data[total:]
        while missing > 0:
            missing -= self.connection.recv_into(self.buffer, min(missing, len(self.buffer)))
        if b"/response " in line:
            self.first_byte = 0.0
        return line

    def _read_stream(self, data: bytes) -> None:
        """Read a chunked body to its end, which nothing in these functions' results looks like."""
        self.first_byte = 0.0
        while not data.endswith(b"0\r\n\r\n"):
            if data and not self.first_byte:
                self.first_byte = time.perf_counter()
            data = data[-4:] + self._receive()

    def _receive(self) -> bytes:
        """Read what comes next, on whichever connection."""
        while True:
            ready = self.poll.poll(TIMEOUT, 1)
            if not ready:
                raise TimeoutError("the peer is silent")
            self.connection = self.open[ready[0][0]]
            if self.connection is self.server:
                connection, _ = self.server.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open[connection.fileno()] = connection
                self.poll.register(connection, select.EPOLLIN)
            elif length := self.connection.recv_into(self.buffer):
                return bytes(memoryview(self.buffer)[:length])
            else:
                self.poll.unregister(self.connection)
                del self.open[self.connection.fileno()]
                self.connection.close()


def _tree(pid: int) -> list[int]:
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


def _cpu(members: list[int]) -> int:
    """Nanoseconds on a core so far, of all threads of processes (schedstat: exact, not in ticks)."""
    total = 0
    for member in members:
        with contextlib.suppress(OSError):  # it has just ended
            for task in Path(f"/proc/{member}/task").iterdir():
                with contextlib.suppress(OSError):
                    total += int((task / "schedstat").read_text().split()[0])
    return total


def _pss(members: list[int]) -> float:
    total = 0
    for member in members:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024
