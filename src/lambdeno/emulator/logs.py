"""What a function writes, and what Lambda writes about it: lines to a sink, the tail to a caller."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

from lambdeno import terminal
from lambdeno.emulator.invocation import Invocation

__all__ = [
    "EnvironmentLog",
    "InitReport",
    "ListSink",
    "LogSink",
    "Report",
    "StreamSink",
    "platform_lines",
    "timestamp",
]

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
        """Write the line as it is; on a terminal, with nothing in it to obey but colours."""
        stream = self._stream or sys.stderr
        if stream.isatty():
            line = terminal.safe(line, colours=True)
        print(line, file=stream, flush=True)


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
        """Write a line of the platform's own, if it is any, after all that came before."""
        self.flush()
        if text:
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


@dataclass(frozen=True, slots=True)
class Report:
    """What the platform says of an invocation; durations in milliseconds, memory in MB."""

    request_id: str
    duration: float
    memory: int
    used: int
    init: float | None  # for an environment's first invocation alone
    status: str  # "", "error" or "timeout"
    error_type: str

    @property
    def billed(self) -> int:
        """The duration as it is billed."""
        return -int(-self.duration // 1)


@dataclass(frozen=True, slots=True)
class InitReport:
    """What the platform says of an init that failed. ``phase`` is "init" or "invoke"."""

    duration: float  # milliseconds
    phase: str
    status: str  # "error" or "timeout"
    error_type: str


class PlatformLines(Protocol):
    """The platform's own lines in one of the two formats; an empty one is not written."""

    def start(self, request_id: str) -> str:
        """An invocation begins."""

    def timed_out(self, request_id: str, seconds: float) -> str:
        """An invocation's time is over."""

    def end(self, report: Report) -> str:
        """The runtime is done with an invocation."""

    def report(self, report: Report) -> str:
        """What an invocation took."""

    def init_report(self, report: InitReport) -> str:
        """What a failed init took."""


class TextLines:
    """The log format "Text", as in CloudWatch Logs."""

    def start(self, request_id: str) -> str:
        """See PlatformLines."""
        return f"START RequestId: {request_id} Version: $LATEST"

    def timed_out(self, request_id: str, seconds: float) -> str:
        """See PlatformLines."""
        return f"{timestamp()} {request_id} Task timed out after {seconds:.2f} seconds"

    def end(self, report: Report) -> str:
        """See PlatformLines."""
        return f"END RequestId: {report.request_id}"

    def report(self, report: Report) -> str:
        """See PlatformLines."""
        line = (
            f"REPORT RequestId: {report.request_id}\tDuration: {report.duration:.2f} ms\t"
            f"Billed Duration: {report.billed} ms\tMemory Size: {report.memory} MB\t"
            f"Max Memory Used: {report.used} MB\t"
        )
        if report.init is not None:
            line += f"Init Duration: {report.init:.2f} ms\t"
        if report.status:
            line += f"Status: {report.status}\t"
        return line + (f"Error Type: {report.error_type}\t" if report.status == "error" else "")

    def init_report(self, report: InitReport) -> str:
        """See PlatformLines."""
        return (
            f"INIT_REPORT Init Duration: {report.duration:.2f} ms\tPhase: {report.phase}"
            f"\tStatus: {report.status}"
            + (f"\tError Type: {report.error_type}" if report.status == "error" else "")
        )


class JsonLines:
    """The log format "JSON", at the system log level INFO, which is Lambda's default.

    https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html has the records.
    At that level a runtime's end shows only where it failed: there is no END.
    """

    def start(self, request_id: str) -> str:
        """See PlatformLines."""
        return event_line("platform.start", {"requestId": request_id, "version": "$LATEST"})

    def timed_out(self, request_id: str, seconds: float) -> str:
        """See PlatformLines."""
        metrics = {"durationMs": round(seconds * 1000, 3)}
        record = {"requestId": request_id, "status": "timeout", "metrics": metrics}
        return event_line("platform.runtimeDone", record)

    def end(self, report: Report) -> str:
        """See PlatformLines."""
        if report.status != "error":
            return ""
        record = {
            "requestId": report.request_id,
            "status": report.status,
            "errorType": report.error_type,
            "metrics": {"durationMs": round(report.duration, 3)},
        }
        return event_line("platform.runtimeDone", record)

    def report(self, report: Report) -> str:
        """See PlatformLines."""
        metrics = {
            "durationMs": round(report.duration, 3),
            "billedDurationMs": report.billed,
            "memorySizeMB": report.memory,
            "maxMemoryUsedMB": report.used,
        }
        if report.init is not None:
            metrics["initDurationMs"] = round(report.init, 3)
        record = {"requestId": report.request_id, "metrics": metrics, "status": report.status or "success"}
        if report.status == "error":
            record["errorType"] = report.error_type
        return event_line("platform.report", record)

    def init_report(self, report: InitReport) -> str:
        """See PlatformLines."""
        record: dict[str, Any] = {
            "initializationType": "on-demand",
            "phase": report.phase,
            "status": report.status,
            "metrics": {"durationMs": round(report.duration, 3)},
        }
        if report.status == "error":
            record["errorType"] = report.error_type
        return event_line("platform.initReport", record)


def platform_lines(log_format: str) -> PlatformLines:
    """The platform's lines in a function's log format."""
    return JsonLines() if log_format == "JSON" else TextLines()


def event_line(kind: str, record: dict[str, Any]) -> str:
    """A platform event as one line of JSON."""
    return json.dumps({"time": timestamp(), "type": kind, "record": record}, separators=(",", ":"))


def timestamp() -> str:
    """The time in the form of Lambda's own log lines."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
