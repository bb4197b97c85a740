"""Asynchronous invocations: accepted at once, tried again, laid down at last."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno.emulator import Function, Settings, local_lambda
from lambdeno.errors import EmulatorError
from tests.emulator.conftest import Running, Start

FAST = Settings(retry_delays=(0.01, 0.02))


def send(running: Running, what: str, **event: Any) -> str:
    """Send an event to ``f``; its request id."""
    answer = running.client.invoke(
        FunctionName="f", InvocationType="Event", Payload=json.dumps({"do": what, **event})
    )
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    return str(answer["ResponseMetadata"]["RequestId"])


def wait_for(running: Running, text: str, count: int = 1) -> None:
    """Wait until so many log lines hold the text."""
    deadline = time.monotonic() + 10
    while sum(text in line for line in running.lines) < count:
        assert time.monotonic() < deadline, running.lines
        time.sleep(0.01)


def test_event_is_accepted_and_handled(start: Start) -> None:
    """An event is 202 at once, and the function runs."""
    with start() as running:
        request_id = send(running, "print", text="handled")
        wait_for(running, f"END RequestId: {request_id}")
    assert "handled" in running.lines


def test_dead_letters_have_any_json(start: Start, tmp_path: Path) -> None:
    """An event of 900 levels, with a number of 5,000 digits and line breaks, is one line as it was sent."""
    letters = tmp_path / "letters"
    event = '{"do":\n"error", "a": ' + "[" * 900 + "9" * 5000 + "]" * 900 + ', "b": "é\\n"}'
    with start(settings=FAST, dead_letter=str(letters)) as running:
        running.client.invoke(FunctionName="f", InvocationType="Event", Payload=event.encode())
        wait_for(running, "has failed: RetriesExhausted")
    [line] = letters.read_text().splitlines()
    assert event.replace("\n", " ").replace("é", "\\u00e9") in line


def test_failed_event_is_tried_twice_more(start: Start, tmp_path: Path) -> None:
    """A function error is tried three times under one request id, then laid down with all it was."""
    letters = tmp_path / "letters"
    with start(settings=FAST, dead_letter=str(letters)) as running:
        request_id = send(running, "error")
        wait_for(running, f"the asynchronous event {request_id} has failed: RetriesExhausted")
    assert sum(line.startswith(f"START RequestId: {request_id}") for line in running.lines) == 3
    (letter,) = [json.loads(line) for line in letters.read_text().splitlines()]
    assert letter.pop("timestamp").endswith("Z")
    assert letter == {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"do": "error"},
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "responsePayload": {"errorType": "Oops", "errorMessage": "on purpose"},
    }


def test_throttled_event_waits_for_room(start: Start) -> None:
    """Events beyond the concurrency limit are handled when an environment is free."""
    with start(concurrency=1, settings=FAST) as running:
        for _ in range(3):
            send(running, "sleep", seconds=0.1)
        wait_for(running, "END RequestId", 3)
    assert len(running.environments) == 1


def test_throttled_event_grows_too_old(start: Start, tmp_path: Path) -> None:
    """An event that finds no room for too long is laid down without a response."""
    letters = tmp_path / "letters"
    settings = Settings(event_age=0.1)
    with start(concurrency=1, settings=settings, dead_letter=str(letters)) as running:
        send(running, "sleep", seconds=1)
        wait_for(running, "START")
        send(running, "echo")
        wait_for(running, "EventAgeExceeded")
    letter = json.loads(letters.read_text())
    assert letter["requestContext"]["condition"] == "EventAgeExceeded"
    assert letter["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in letter


def test_queue_is_bounded(start: Start) -> None:
    """More events than the queue holds are throttled."""
    with start(settings=Settings(queue_size=1)) as running:
        send(running, "sleep", seconds=1)
        with pytest.raises(running.client.exceptions.TooManyRequestsException):
            send(running, "echo")
    assert any("1 asynchronous events of f are dropped" in line for line in running.lines)


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP endpoint, and what was posted to it."""
    posted: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/letters", posted
        server.shutdown()
        thread.join()


def test_dead_letters_go_to_an_endpoint(start: Start, mailbox: tuple[str, list[bytes]]) -> None:
    """Dead letters can be posted to an address on this machine."""
    address, posted = mailbox
    with start(settings=Settings(retry_delays=()), dead_letter=address) as running:
        send(running, "exit", status=1)
        wait_for(running, f"it is in {address}")
    (letter,) = map(json.loads, posted)
    assert letter["responsePayload"]["errorType"] == "Runtime.ExitError"


@pytest.mark.parametrize("target", ["http://example.com/", "https://127.0.0.1/", "sqs://queue"])
def test_dead_letters_stay_on_this_machine(code: Path, cache: Path, target: str) -> None:
    """Dead letters go to a file or to this machine, nowhere else."""
    function = Function("f", code, dead_letter=target)
    with pytest.raises(EmulatorError, match="has the dead letters"), local_lambda(function, cache=cache):
        pass
