"""What a function writes, and what Lambda writes about it: lines to a sink, the tail to a caller."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Protocol, TextIO

from lambdeno.emulator.invocation import Invocation

__all__ = ["EnvironmentLog", "ListSink", "LogSink", "StreamSink", "report_line", "timestamp"]

TAIL = 4096  # bytes of log that LogType=Tail returns
LONGEST = 256 * 1024  # bytes: a longer line is cut, as CloudWatch Logs cuts events


class LogSink(Protocol):
    """Where log lines go. Called in the event loop: it must not block for long."""

    def write(self, line: str, *, function: str, environment: str, request_id: str | None) -> None:
        """Take one line, without its line break."""


class StreamSink:
    """Lines to a text stream, by default standard error as it is at the time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, line: str, *, function: str, environment: str, request_id: str | None) -> None:  # noqa: ARG002
        """Write the line as it is."""
        print(line, file=self._stream or sys.stderr, flush=True)


class ListSink:
    """Lines kept in memory: for tests."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.entries: list[tuple[str, str | None, str]] = []  # environment, request id, line

    def write(self, line: str, *, function: str, environment: str, request_id: str | None) -> None:  # noqa: ARG002
        """Keep the line."""
        self.lines.append(line)
        self.entries.append((environment, request_id, line))


class EnvironmentLog:
    """The log of one environment: cuts output into lines and knows whose they are."""

    def __init__(self, sink: LogSink, function: str, environment: str) -> None:
        self._sink = sink
        self._function = function
        self._environment = environment
        self._partial = b""
        self.invocation: Invocation | None = None

    def feed(self, data: bytes) -> None:
        """Take output of the function's processes, as it comes."""
        if self._partial:
            data = self._partial + data
        lines = data.split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            self._put(line)
        if len(self._partial) > LONGEST:
            self.flush()

    def flush(self) -> None:
        """Write what has no line break yet."""
        if self._partial:
            partial, self._partial = self._partial, b""
            self._put(partial)

    def line(self, text: str) -> None:
        """Write a line of the platform's own, after all that came before."""
        self.flush()
        self._put(text.encode())

    def _put(self, line: bytes) -> None:
        invocation = self.invocation
        if invocation and invocation.tail is not None:
            invocation.tail += line + b"\n"
            if len(invocation.tail) > 16 * TAIL:
                del invocation.tail[:-TAIL]
        self._sink.write(
            line.decode("utf-8", "replace"),
            function=self._function,
            environment=self._environment,
            request_id=invocation.request_id if invocation else None,
        )


def tail_of(invocation: Invocation) -> bytes | None:
    """The last 4 KB of an invocation's log; None where nobody asked."""
    return None if invocation.tail is None else bytes(invocation.tail[-TAIL:])


def report_line(
    request_id: str, *, duration: float, memory: int, used: int, init: float | None, status: str
) -> str:
    """The REPORT line; durations in milliseconds, memory in MB, ``used`` in bytes.

    ``init`` is given for an environment's first invocation alone. Form as in CloudWatch Logs.
    """
    billed = -int(-duration // 1)
    line = (
        f"REPORT RequestId: {request_id}\tDuration: {duration:.2f} ms\t"
        f"Billed Duration: {billed} ms\tMemory Size: {memory} MB\t"
        f"Max Memory Used: {-(-used // 1_048_576)} MB\t"
    )
    if init is not None:
        line += f"Init Duration: {init:.2f} ms\t"
    return line + (f"Status: {status}\t" if status else "")


def timestamp() -> str:
    """The time in the form of Lambda's own log lines."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
