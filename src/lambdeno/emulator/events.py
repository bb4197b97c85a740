"""Asynchronous invocations: held, tried again, and laid down where they cannot be handled.

As Lambda does, a function error is tried twice more, and a throttled event until it is too old:
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lambdeno import payload as payloads
from lambdeno.emulator.function import Function
from lambdeno.emulator.invocation import Invocation, Outcome
from lambdeno.emulator.logs import LogSink, timestamp
from lambdeno.emulator.refusal import TooManyRequests
from lambdeno.emulator.settings import Settings
from lambdeno.errors import EmulatorError

__all__ = ["Event", "EventQueue", "check_dead_letter"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between tries of a throttled event


@dataclass(slots=True)
class Event:
    """An accepted event. ``make`` builds a new attempt of it, with the same request id."""

    function: Function
    request_id: str
    payload: bytes
    make: Callable[[], Invocation]
    accepted: float = field(default_factory=time.monotonic)
    attempts: int = 0


class EventQueue:
    """The events under way, of all functions."""

    def __init__(
        self, invoke: Callable[[str, Invocation], Awaitable[Outcome]], settings: Settings, sink: LogSink
    ) -> None:
        self._invoke = invoke
        self._settings = settings
        self._sink = sink
        self._tasks: dict[asyncio.Task[None], str] = {}

    def put(self, event: Event) -> None:
        """Accept an event. Raises TooManyRequests when too many are held."""
        name = event.function.name
        if sum(held == name for held in self._tasks.values()) >= self._settings.queue_size:
            raise TooManyRequests("Rate Exceeded.", "CallerRateLimitExceeded")
        task = asyncio.create_task(self._deliver(event))
        self._tasks[task] = name
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def close(self) -> None:
        """Drop what is still held, and say so."""
        tasks = list(self._tasks)
        for name in set(self._tasks.values()):
            count = sum(held == name for held in self._tasks.values())
            text = f"lambdeno: {count} asynchronous events of {name} are dropped at shutdown"
            self._sink.write(text, function=name, environment="", request_id=None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, event: Event) -> None:
        delays = self._settings.retry_delays
        wait = FIRST_WAIT
        while True:
            try:
                outcome = await self._invoke(event.function.name, event.make())
            except TooManyRequests:
                if self._is_too_old(event, wait):
                    await self._lay_down(event, None, "EventAgeExceeded")
                    return
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            event.attempts += 1
            if not outcome.failed:
                return
            if event.attempts > len(delays):
                await self._lay_down(event, outcome, "RetriesExhausted")
                return
            delay = delays[event.attempts - 1]
            if self._is_too_old(event, delay):
                await self._lay_down(event, outcome, "EventAgeExceeded")
                return
            await asyncio.sleep(delay)

    def _is_too_old(self, event: Event, delay: float) -> bool:
        return time.monotonic() + delay - event.accepted > self._settings.event_age

    async def _lay_down(self, event: Event, outcome: Outcome | None, condition: str) -> None:
        """Hand a failed event to the function's dead letters, in the form of a destination's."""
        function = event.function
        target = function.dead_letter
        text = f"lambdeno: the asynchronous event {event.request_id} has failed: {condition}"
        if target:
            record = failure_record(event, outcome, condition, self._settings)
            try:
                await asyncio.to_thread(deliver_letter, target, record)
                text += f"; it is in {target}"
            except OSError as error:
                text += f"; {target} does not take it: {error}"
        self._sink.write(text, function=function.name, environment="", request_id=event.request_id)


def failure_record(
    event: Event, outcome: Outcome | None, condition: str, settings: Settings
) -> dict[str, Any]:
    """The record that Lambda sends to an on-failure destination."""
    arn = f"arn:aws:lambda:{settings.region}:{settings.account}:function:{event.function.name}"
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": f"{arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": raw(event.payload),
    }
    if outcome:
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        }
        record["responsePayload"] = json_or_text(outcome.payload)
    return record


def json_or_text(payload: bytes) -> Any:
    """A payload as JSON where it is JSON."""
    try:
        payloads.check(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
    return raw(payload)


def raw(payload: bytes) -> msgspec.Raw:
    """A payload for a line of JSON, as it is: whatever its depth, and the size of its numbers."""
    return msgspec.Raw(payloads.on_one_line(payload).encode())


def check_dead_letter(function: Function) -> None:
    """Raises EmulatorError for an address that is not on this machine."""
    target = function.dead_letter
    if target and "://" in target:
        parts = urlsplit(target)
        if parts.scheme != "http" or parts.hostname not in LOOPBACK:
            raise EmulatorError(
                f'Function "{function.name}" has the dead letters "{target}"',
                "give a file, or an http:// address on 127.0.0.1",
            )


def deliver_letter(target: str, record: dict[str, Any]) -> None:
    """Append to the file or post to the endpoint. Raises OSError."""
    body = msgspec.json.encode(record)
    if "://" not in target:
        with Path(target).open("ab") as file:
            file.write(body + b"\n")
        return
    parts = urlsplit(target)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from None
    finally:
        connection.close()
    if status >= 300:
        raise OSError(f"it answered {status}")
