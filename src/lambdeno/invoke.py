"""``invoke``: one event to a function, through Lambda's own Invoke API.

A running local Lambda that knows the function is used; otherwise one is started for this call,
from the artefacts in ``dist/``, which are built first where they are missing or older than a source.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lambdeno.errors import EmulatorError, UsageError
from lambdeno.project import Project

__all__ = ["ENDPOINT", "Result", "invoke", "read_event", "running"]

ENDPOINT = "http://127.0.0.1:9000"  # where `lambdeno dev` listens unless told otherwise
WAIT = 910  # s: Lambda's longest timeout and a little


@dataclass(frozen=True)
class Result:
    """What the Invoke API answered."""

    status: int
    payload: bytes
    function_error: str  # "Unhandled", or empty
    log: str  # the tail, at most 4 KB
    milliseconds: float  # as the client saw it

    @property
    def ok(self) -> bool:
        """Whether the function answered without an error."""
        return self.status < 300 and not self.function_error


def read_event(source: str, stdin: Iterator[bytes] | None = None) -> bytes:
    """An event from JSON, a file's path, or ``-`` for standard input. Raises UsageError."""
    if source == "-":
        text, where = b"".join(stdin or ()), "standard input"
    elif source.lstrip()[:1] in ("{", "[", '"') or _is_json(source):
        text, where = source.encode(), "the event"
    elif Path(source).is_file():
        text, where = Path(source).read_bytes(), f'"{source}"'
    else:
        raise UsageError(
            f'"{source}" is neither JSON nor a file',
            """give the event as JSON ('{"name": "Ada"}'), a file's path, or - for standard input""",
        )
    if not _is_json(text):
        raise UsageError(f"{where[0].upper()}{where[1:]} is not JSON", "check its quotes and brackets")
    return text


def _is_json(text: bytes | str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def running(endpoint: str, name: str) -> bool:
    """Whether a local Lambda at an endpoint knows the function."""
    try:
        with _connection(endpoint, timeout=2) as connection:
            connection.request("GET", f"/2015-03-31/functions/{name}/configuration")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


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
    except (OSError, http.client.HTTPException) as error:
        raise EmulatorError(
            f'Cannot invoke "{project.name}" at {endpoint}: {error}',
            "is a local Lambda running there?",
        ) from None
    taken = (time.perf_counter() - started) * 1000
    if response.status >= 400:
        raise EmulatorError(f'Lambda refused to invoke "{project.name}": {_said(payload)}')
    log = base64.b64decode(response.headers.get("X-Amz-Log-Result", "")).decode("utf-8", "replace")
    function_error = response.headers.get("X-Amz-Function-Error", "")
    return Result(response.status, payload, function_error, log, taken)


def _said(payload: bytes) -> str:
    try:
        body = json.loads(payload)
        return str(body.get("Message") or body.get("message") or body)
    except (ValueError, AttributeError):
        return payload.decode("utf-8", "replace")


@contextmanager
def _connection(endpoint: str, timeout: float) -> Iterator[http.client.HTTPConnection]:
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f'"{endpoint}" is no endpoint URL', f"give one such as {ENDPOINT}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()
