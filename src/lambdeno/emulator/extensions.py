"""The internal extensions of one execution environment: parts of the runtime that wait for its events.

    register ──► event/next ──► (INVOKE ──► event/next)* ──► the environment ends

An extension that subscribes to nothing just waits: for its sake the environment ends with SIGTERM.
Protocol: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html; the types and
texts of refusals are those of AWS's own emulator.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from lambdeno.emulator.function import Function
from lambdeno.emulator.http import BodyTooLarge, Exchange, Header
from lambdeno.emulator.invocation import Invocation

__all__ = ["EVENT_NEXT", "REGISTER", "ExtensionRefused", "Extensions"]

PREFIX = "/2020-01-01/extension"
REGISTER = f"{PREFIX}/register"
EVENT_NEXT = f"{PREFIX}/event/next"
JSON: Header = (b"content-type", b"application/json")
BODY_LIMIT = 64 * 1024  # bytes of a registration, which is a few words
MOST = 10  # extensions of one environment, as on Lambda


class ExtensionRefused(Exception):
    """A call of an extension that is not carried out: 403. ``kind`` is its errorType."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(slots=True)
class Extension:
    """One registered extension. ``event`` is what it has not been given yet."""

    name: str
    takes_invocations: bool
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_waiting: bool = False  # it has asked for the next event: whatever came before is done
    event: bytes | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Extensions:
    """The extensions of one environment. ``on_ready`` is called when one of them asks for more."""

    def __init__(self, function: Function, on_ready: Callable[[], None]) -> None:
        self._function = function
        self._on_ready = on_ready
        self._registered: dict[str, Extension] = {}  # by identifier
        self._is_over = False

    def __bool__(self) -> bool:
        return bool(self._registered)

    @property
    def are_waiting(self) -> bool:
        """Whether each has asked for its next event: neither init nor an invocation is over before.

        Those that are not told of invocations wait for ever.
        """
        return all(extension.is_waiting for extension in self._registered.values())

    async def register(self, exchange: Exchange, is_open: Callable[[], bool]) -> None:
        """Take a new extension while that ``is_open``. Raises ExtensionRefused."""
        name = exchange.header(b"lambda-extension-name")
        if not name:
            raise ExtensionRefused("Extension.InvalidExtensionName", "Empty extension name")
        events = await read_events(exchange)
        for event in events:
            if event == "SHUTDOWN":
                text = "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension"
                raise ExtensionRefused("Extension.InvalidEventType", text)
            if event != "INVOKE":
                raise ExtensionRefused("Extension.InvalidEventType", f"{event}: ErrorInvalidEventType")
        if not is_open():
            text = "Extension registration closed already"
            raise ExtensionRefused("Extension.RegistrationClosed", text)
        if any(name == extension.name for extension in self._registered.values()):
            text = "Extension with this name already registered"
            raise ExtensionRefused("Extension.InvalidExtensionState", text)
        if len(self._registered) >= MOST:
            raise ExtensionRefused("Extension.TooManyExtensions", f"Extension limit ({MOST}) reached")
        extension = Extension(name, bool(events))
        self._registered[extension.identifier] = extension
        answer = {
            "functionName": self._function.name,
            "functionVersion": "$LATEST",
            "handler": self._function.handler,
        }
        identifier = (b"Lambda-Extension-Identifier", extension.identifier.encode())
        await exchange.respond(200, json.dumps(answer).encode(), [JSON, identifier])

    async def next(self, exchange: Exchange) -> None:
        """Answer with the next event, whenever it comes. Raises ExtensionRefused."""
        extension = self._find(exchange.header(b"lambda-extension-identifier"))
        if extension.event is None:
            extension.is_waiting = True
            self._on_ready()
        while extension.event is None and not self._is_over:
            extension.changed.clear()
            await extension.changed.wait()
        if extension.event is None or exchange.is_gone:
            return  # the event is there for the next call
        event, extension.event = extension.event, None
        extension.is_waiting = False
        identifier = (b"Lambda-Extension-Event-Identifier", str(uuid.uuid4()).encode())
        await exchange.respond(200, event, [JSON, identifier])

    def tell(self, invocation: Invocation) -> None:
        """Tell those that want to know of an invocation that begins."""
        for extension in self._registered.values():
            if extension.takes_invocations:
                extension.event = invoke_event(invocation)
                extension.is_waiting = False
                extension.changed.set()

    def let_go(self) -> None:
        """Let no call wait any longer: there will be no more events."""
        self._is_over = True
        for extension in self._registered.values():
            extension.changed.set()

    def _find(self, identifier: str) -> Extension:
        if not identifier:
            text = "Missing Lambda-Extension-Identifier header"
            raise ExtensionRefused("Extension.MissingExtensionIdentifier", text)
        extension = self._registered.get(identifier)
        if extension is None:
            raise ExtensionRefused("Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}")
        return extension


async def read_events(exchange: Exchange) -> list[str]:
    """What a registration subscribes to. Raises ExtensionRefused."""
    try:
        body = json.loads(await exchange.read(BODY_LIMIT))
        events = body.get("events") or []
        if isinstance(events, list) and all(isinstance(event, str) for event in events):
            return events
        text = "events is not a list of strings"
    except (BodyTooLarge, AttributeError, ValueError, RecursionError):
        text = "the body is not a JSON object"
    raise ExtensionRefused("InvalidRequestFormat", text)


def invoke_event(invocation: Invocation) -> bytes:
    """The event that tells of an invocation."""
    event = {
        "eventType": "INVOKE",
        "deadlineMs": invocation.deadline_ms,
        "requestId": invocation.request_id,
        "invokedFunctionArn": invocation.arn,
        "tracing": {"type": "X-Amzn-Trace-Id", "value": invocation.trace_id},
    }
    return json.dumps(event).encode()
