"""The Runtime API of one execution environment, from Lambda's side.

    Started ──next──► Ready ──event──► Running ──response──► InvocationResponse ─┐
       │                ▲                 └─────error──► InvocationErrorResponse ─┤
       └─init/error     └────────────next──── RuntimeResponseSentState ◄──────────┘

What the table does not allow is refused with 403, as Lambda does. Protocol:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html; the names of states and the texts
of refusals are those of AWS's own emulator (aws-lambda-runtime-interface-emulator).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Callable
from enum import Enum
from urllib.parse import unquote

from lambdeno.emulator.extensions import EVENT_NEXT, REGISTER, ExtensionRefused, Extensions
from lambdeno.emulator.function import Function
from lambdeno.emulator.http import BodyTooLarge, Bounds, Exchange, Header, Server, Truncated
from lambdeno.emulator.invocation import Invocation, Outcome, ResponseStream
from lambdeno.emulator.settings import Settings

__all__ = ["TRANSITIONS", "Call", "RuntimeApi", "State", "known_error_type"]

PREFIX = "/2018-06-01/runtime"
NEXT = f"{PREFIX}/invocation/next"
INIT_ERROR = f"{PREFIX}/init/error"
RESTORE_NEXT = f"{PREFIX}/restore/next"
RESTORE_ERROR = f"{PREFIX}/restore/error"
INVOCATION = re.compile(PREFIX + r"/invocation/([^/]+)/(response|error)")
JSON: list[Header] = [(b"content-type", b"application/json")]
ACCEPTED = b'{"status":"OK"}\n'
ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")


class State(Enum):
    """Where the runtime stands."""

    STARTED = "Started"
    INIT_ERROR = "InitError"
    READY = "Ready"
    RUNNING = "Running"
    RESPONDING = "InvocationResponse"
    ERRING = "InvocationErrorResponse"
    ANSWERED = "RuntimeResponseSentState"


class Call(Enum):
    """What moves it; the value is the state that a refusal names as the one not reached."""

    NEXT = "Ready"
    EVENT = "Running"  # an event was handed out
    RESPONSE = "InvocationResponse"
    ERROR = "InvocationErrorResponse"
    ANSWER = "RuntimeResponseSentState"  # a post was read to its end
    INIT_ERROR = "InitError"
    RESTORE_ERROR = "RuntimeRestoreErrorState"


TRANSITIONS = {
    (State.STARTED, Call.NEXT): State.READY,
    (State.STARTED, Call.INIT_ERROR): State.INIT_ERROR,
    (State.READY, Call.NEXT): State.READY,  # another connection waits
    (State.READY, Call.EVENT): State.RUNNING,
    (State.RUNNING, Call.NEXT): State.RUNNING,  # the same event again
    (State.RUNNING, Call.EVENT): State.RUNNING,
    (State.RUNNING, Call.RESPONSE): State.RESPONDING,
    (State.RUNNING, Call.ERROR): State.ERRING,
    (State.RESPONDING, Call.ANSWER): State.ANSWERED,
    (State.ERRING, Call.ANSWER): State.ANSWERED,
    (State.ANSWERED, Call.NEXT): State.READY,
}


class RuntimeApi:
    """One environment's Runtime API. ``initialised`` is None's promise, or the init error's."""

    def __init__(self, function: Function, settings: Settings, on_idle: Callable[[], None]) -> None:
        self.extensions = Extensions(function, self._go_on)
        self._settings = settings
        self._on_idle = on_idle
        self._server = Server(self._handle, Bounds())
        self._current: Invocation | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._is_invoked = False  # an invocation is not over yet, be it answered or not
        self.state = State.STARTED
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

    @property
    def address(self) -> str:
        """What AWS_LAMBDA_RUNTIME_API says: host:port."""
        return f"127.0.0.1:{self._server.port}"

    async def start(self) -> None:
        """Listen on a free port."""
        await self._server.start("127.0.0.1")

    async def settle(self, seconds: float) -> None:
        """Let what a dead runtime had sent be read."""
        self.extensions.let_go()  # else these connections would be waited for
        await self._server.settle(seconds)

    async def close(self) -> None:
        """Cut all connections."""
        await self._server.close()

    def offer(self, invocation: Invocation) -> None:
        """Give the waiting runtime an event. The state must be Ready."""
        self._current = invocation
        self._is_invoked = True
        self.extensions.tell(invocation)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _move(self, call: Call) -> bool:
        """Take the transition if there is one."""
        to = TRANSITIONS.get((self.state, call))
        if to is None:
            return False
        self.state = to
        return True

    async def _handle(self, exchange: Exchange) -> None:
        route = (exchange.method, exchange.path)
        # A runtime may write any word as Host, as on Lambda; a name with a dot may be a web page's.
        if b"." in exchange.headers.get(b"host", b"") and not exchange.is_for("127.0.0.1"):
            await respond_error(exchange, 403, "AccessDenied", "Not for other hosts")
        elif route == ("GET", NEXT):
            await self._next(exchange)
        elif exchange.method == "POST" and (match := INVOCATION.fullmatch(exchange.path)):
            await self._answer(exchange, unquote(match[1]), match[2])
        elif route == ("POST", INIT_ERROR):
            await self._init_error(exchange)
        elif route == ("POST", RESTORE_ERROR):
            await exchange.read(self._settings.payload_limit)
            await self._forbid(exchange, Call.RESTORE_ERROR)
        elif route in {("POST", REGISTER), ("GET", EVENT_NEXT)}:
            await self._serve_extension(exchange)
        elif route == ("GET", "/ping"):
            await exchange.respond(200, b"pong")
        elif allowed := method_of(exchange.path):
            await exchange.respond(405, headers=[(b"allow", allowed)])
        else:  # restore/next too: SnapStart is not among the initialisation types here
            await exchange.respond(404, b"404 page not found\n", [(b"content-type", b"text/plain")])

    async def _next(self, exchange: Exchange) -> None:
        was = self.state
        if not self._move(Call.NEXT):
            await self._forbid(exchange, Call.NEXT)
            return
        if was is State.ANSWERED:
            self._current = None
        self._go_on()
        while self._current is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        if exchange.is_gone or not self._move(Call.EVENT):
            return  # the connection broke while it waited; the event is there for the next call
        invocation = self._current
        await exchange.respond(200, invocation.payload, next_headers(invocation))

    def _go_on(self) -> None:
        """Init or an invocation is over when the runtime and its extensions have asked for more."""
        if self.state is not State.READY or not self.extensions.are_waiting:
            return
        if not self.initialised.done():
            self.initialised.set_result(None)
        elif self._is_invoked and self._current is None:
            self._is_invoked = False
            self._on_idle()

    async def _serve_extension(self, exchange: Exchange) -> None:
        try:
            if exchange.path == REGISTER:
                await self.extensions.register(exchange, self._is_starting)
            else:
                await self.extensions.next(exchange)
        except ExtensionRefused as error:
            await discard(exchange)
            await respond_error(exchange, 403, error.kind, error.message)

    def _is_starting(self) -> bool:
        return self.state is State.STARTED and not self.initialised.done()

    async def _answer(self, exchange: Exchange, request_id: str, verb: str) -> None:
        invocation = self._current
        if invocation is None or not self._is_meant(invocation, request_id, exchange):
            await discard(exchange)
            await respond_error(exchange, 400, "InvalidRequestID", "Invalid request ID")
            return
        call = Call.RESPONSE if verb == "response" else Call.ERROR
        if not self._move(call):
            await discard(exchange)
            await self._forbid(exchange, call)
            return
        try:
            if call is Call.RESPONSE:
                await self._response(exchange, invocation)
            else:
                await self._error(exchange, invocation)
        except Truncated:
            self._move(Call.ANSWER)
            invocation.settle(failure(invocation, "Runtime.TruncatedResponse", "Truncated response"))
            raise

    def _is_meant(self, invocation: Invocation, request_id: str, exchange: Exchange) -> bool:
        attempt = exchange.header(b"lambda-runtime-invocation-id")
        return request_id == invocation.request_id and attempt in {"", invocation.attempt_id}

    async def _response(self, exchange: Exchange, invocation: Invocation) -> None:
        mode = exchange.headers.get(b"lambda-runtime-function-response-mode", b"")
        if mode not in {b"", b"streaming"}:
            await discard(exchange)
            self._move(Call.ANSWER)
            kind = "Runtime.InvalidResponseModeHeader"
            invocation.settle(failure(invocation, kind, "Invalid response mode header"))
            await respond_error(
                exchange, 400, "InvalidFunctionResponseMode", "Invalid function response mode"
            )
            return
        content_type = exchange.header(b"content-type") or "application/json"
        if invocation.stream and mode:
            invocation.stream.content_type = content_type
        try:
            if mode and invocation.stream:
                if not await self._forward(exchange, invocation.stream):
                    self._move(Call.ANSWER)
                    invocation.settle(Outcome(b"", content_type=content_type))
                    exchange.cut()
                    return
                body = b""
            else:
                body = await exchange.read(self._settings.payload_limit)
        except BodyTooLarge as error:
            await self._too_large(exchange, invocation, error.size)
            return
        outcome = stream_error(invocation, exchange) if mode else None
        if outcome is None:
            outcome = Outcome(body, content_type=content_type)
            if invocation.stream and body:
                await invocation.stream.put(body)
        self._move(Call.ANSWER)
        invocation.settle(outcome)
        await exchange.respond(202, ACCEPTED, JSON)

    async def _forward(self, exchange: Exchange, stream: ResponseStream) -> bool:
        """Pass a streamed response on as it comes; False where its reader has gone meanwhile."""
        passing = asyncio.ensure_future(self._pass_on(exchange, stream))
        leaving = asyncio.ensure_future(stream.abandoned())
        await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if passing.done():
            passing.result()
            return True
        passing.cancel()
        return False

    async def _pass_on(self, exchange: Exchange, stream: ResponseStream) -> None:
        size = 0
        async for chunk in exchange.chunks():
            size += len(chunk)
            if size <= self._settings.stream_limit:
                await stream.put(chunk)
        if size > self._settings.stream_limit:
            raise BodyTooLarge(size)

    async def _too_large(self, exchange: Exchange, invocation: Invocation, size: int) -> None:
        limit = self._settings.payload_limit
        self._move(Call.ANSWER)
        invocation.settle(
            Outcome.error(
                "Function.ResponseSizeTooLarge",
                f"Response payload size ({size} bytes) exceeded maximum allowed payload size"
                f" ({limit} bytes).",
            )
        )
        text = f"Exceeded maximum allowed payload size ({limit} bytes)."
        await respond_error(exchange, 413, "RequestEntityTooLarge", text)

    async def _error(self, exchange: Exchange, invocation: Invocation) -> None:
        try:
            body = await exchange.read(self._settings.payload_limit)
        except BodyTooLarge as error:
            await self._too_large(exchange, invocation, error.size)
            return
        self._move(Call.ANSWER)
        invocation.settle(reported(exchange, body))
        await exchange.respond(202, ACCEPTED, JSON)

    async def _init_error(self, exchange: Exchange) -> None:
        try:
            body = await exchange.read(self._settings.payload_limit)
        except BodyTooLarge as error:
            body = b""
            text = f"Exceeded maximum allowed payload size ({error.size} bytes)."
            await respond_error(exchange, 413, "RequestEntityTooLarge", text)
            return
        if not self._move(Call.INIT_ERROR):
            await self._forbid(exchange, Call.INIT_ERROR)
            return
        if not self.initialised.done():
            self.initialised.set_result(reported(exchange, body))
        await exchange.respond(202, ACCEPTED, JSON)

    async def _forbid(self, exchange: Exchange, call: Call) -> None:
        message = (
            f"State transition from {self.state.value} to {call.value} failed for runtime."
            " Error: State transition is not allowed"
        )
        await respond_error(exchange, 403, "InvalidStateTransition", message)


def method_of(path: str) -> bytes:
    """The one method of a path; empty where there is no such path."""
    if path in {NEXT, EVENT_NEXT, "/ping"}:
        return b"GET"
    if path in {INIT_ERROR, RESTORE_ERROR, REGISTER} or INVOCATION.fullmatch(path):
        return b"POST"
    return b""


def next_headers(invocation: Invocation) -> list[Header]:
    """The headers of an event; those without a value are left out."""
    values = (
        (b"Lambda-Runtime-Aws-Request-Id", invocation.request_id),
        (b"Lambda-Runtime-Deadline-Ms", str(invocation.deadline_ms)),
        (b"Lambda-Runtime-Invoked-Function-Arn", invocation.arn),
        (b"Lambda-Runtime-Trace-Id", invocation.trace_id),
        (b"Lambda-Runtime-Invocation-Id", invocation.attempt_id),
        (b"Lambda-Runtime-Client-Context", invocation.context.client_context),
        (b"Lambda-Runtime-Cognito-Identity", invocation.context.cognito_identity),
        (b"Lambda-Runtime-Aws-Tenant-Id", invocation.context.tenant_id),
    )
    return [*JSON, *((name, value.encode()) for name, value in values if value)]


def known_error_type(text: str) -> str:
    """An error type as the platform keeps it: its own form, or else ``….Unknown``."""
    if not text or ERROR_TYPE.search(text):
        return text
    return "Function.Unknown" if text.startswith("Function.") else "Runtime.Unknown"


def reported(exchange: Exchange, body: bytes) -> Outcome:
    """An error that the runtime posted. Without a body, the header alone speaks."""
    kind = known_error_type(exchange.header(b"lambda-runtime-function-error-type"))
    kind = kind or "Runtime.Unknown"
    payload = body or json.dumps({"errorType": kind}).encode()
    return Outcome(payload, kind)


def stream_error(invocation: Invocation, exchange: Exchange) -> Outcome | None:
    """The failure that a stream's trailers tell of, if they do."""
    kind = exchange.trailers.get(b"lambda-runtime-function-error-type", b"").decode("utf-8", "replace")
    if not kind:
        return None
    encoded = exchange.trailers.get(b"lambda-runtime-function-error-body", b"")
    try:
        body = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        body = b""
    kind = known_error_type(kind)
    return Outcome(body, kind) if body else failure(invocation, kind, "The stream failed")


def failure(invocation: Invocation, kind: str, message: str) -> Outcome:
    """An error in the platform's words, with the request named as Lambda does."""
    return Outcome.error(kind, f"RequestId: {invocation.request_id} Error: {message}")


async def discard(exchange: Exchange) -> None:
    """Read a body that nobody wants, so that the client can read why."""
    with contextlib.suppress(BodyTooLarge):
        await exchange.read(0)


async def respond_error(exchange: Exchange, status: int, kind: str, message: str) -> None:
    """A refusal in the Runtime API's form."""
    body = json.dumps({"errorMessage": message, "errorType": kind}, separators=(",", ":")) + "\n"
    await exchange.respond(status, body.encode(), JSON)
