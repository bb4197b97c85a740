"""``invoke``: one event to a function, through Lambda's own Invoke API.

A running local Lambda that knows the function is used; otherwise one is started for this call,
from the artefacts in ``dist/``, which are built first where they are missing or their inputs have changed.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lambdeno import payload as payloads
from lambdeno.errors import EmulatorError, UsageError
from lambdeno.project import Project

__all__ = ["ENDPOINT", "Result", "invoke", "read_event", "running"]

ENDPOINT = "http://127.0.0.1:9000"  # where `lambdeno dev` listens unless told otherwise
WAIT = 910  # s: Lambda's longest timeout and a little
DESCRIPTION = 64 * 1024  # B, more than what a local Lambda says of a function


@dataclass(frozen=True)
class Result:
    """What the Invoke API answered."""

    status: int
    payload: bytes
    function_error: str  # "Unhandled", or empty
    log: str  # the tail, at most 4 KB
    milliseconds: float  # as the client saw it
    details: str = ""  # of an error that ended a stream

    @property
    def ok(self) -> bool:
        """Whether the function answered without an error."""
        return self.status < 300 and not self.function_error


def read_event(source: str, stdin: Iterator[bytes] | None = None) -> bytes:
    """An event from JSON, a file's path, or ``-`` for standard input. Raises UsageError."""
    words = source.encode("utf-8", "surrogatepass")
    if source == "-":
        event, what = b"".join(stdin or ()), "Standard input"
    elif source.lstrip()[:1] in ("{", "[", '"') or _is_json(words):
        event, what = words, "The event"
    else:
        event, what = _read(source), f'"{source}"'
    try:
        payloads.check(event)
    except payloads.TooDeep as error:
        raise UsageError(f"{what} is not an event that Lambda takes: {error}", "flatten it") from None
    except ValueError as error:
        raise UsageError(
            f"{what} is not JSON",
            f"check its quotes and brackets ({error}); it has to be UTF-8 without a byte order mark",
        ) from None
    return event


def _read(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except PermissionError as error:
        raise UsageError(f'Cannot read "{source}": {error.strerror}', "check the file") from None
    except (OSError, ValueError):
        start = source if len(source) <= 100 else f"{source[:100]}…"
        raise UsageError(
            f'"{start}" is neither JSON nor a file',
            """give the event as JSON ('{"name": "Ada"}'), a file's path, or - for standard input""",
        ) from None


def _is_json(text: bytes) -> bool:
    try:
        payloads.check(text)
    except ValueError:
        return False
    return True


def running(endpoint: str, name: str) -> bool:
    """Whether a local Lambda at an endpoint knows the function."""
    try:
        with _connection(endpoint, timeout=2) as connection:
            connection.request("GET", f"/2015-03-31/functions/{name}/configuration")
            found = payloads.parse(connection.getresponse().read(DESCRIPTION))
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return isinstance(found, dict) and found.get("FunctionName") == name


def invoke(endpoint: str, project: Project, event: bytes, kind: str = "RequestResponse") -> Result:
    """Send one event; ``kind`` is RequestResponse, Event or DryRun. Raises EmulatorError."""
    headers = {"X-Amz-Invocation-Type": kind, "Content-Type": "application/json"}
    if kind == "RequestResponse":
        headers["X-Amz-Log-Type"] = "Tail"
    started = time.perf_counter()
    try:
        with _connection(endpoint, timeout=WAIT) as connection:
            path = f"/2015-03-31/functions/{urllib.parse.quote(project.name)}/invocations"
            connection.request("POST", path, event, headers)
            response = connection.getresponse()
            payload = response.read()
            tail = base64.b64decode(response.headers.get("X-Amz-Log-Result", ""))
    except (OSError, http.client.HTTPException, binascii.Error) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())  # on one line
        raise EmulatorError(
            f'Cannot invoke "{project.name}" at {endpoint}: {reason}',
            "is a local Lambda running there?",
        ) from None
    taken = (time.perf_counter() - started) * 1000
    if response.status >= 400:
        raise EmulatorError(f'Lambda refused to invoke "{project.name}": {_said(payload)}')
    function_error = response.headers.get("X-Amz-Function-Error", "")
    return Result(response.status, payload, function_error, tail.decode("utf-8", "replace"), taken)


def _said(payload: bytes) -> str:
    try:
        body = payloads.parse(payload)
        return str(body.get("Message") or body.get("message") or body)
    except (ValueError, AttributeError):
        return payload.decode("utf-8", "replace")


@contextmanager
def _connection(endpoint: str, timeout: float) -> Iterator[http.client.HTTPConnection]:
    scheme, host, port = _parts(endpoint)
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()


def _parts(endpoint: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL. Raises UsageError."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        scheme, host, port = "", "", None
    if scheme not in ("http", "https") or not host:
        raise UsageError(f'"{endpoint}" is no endpoint URL', f"give one such as {ENDPOINT}")
    return scheme, host, port
