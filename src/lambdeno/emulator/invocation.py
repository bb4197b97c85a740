"""One invocation on its way: the event going in, the outcome coming back, streamed or whole."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections import deque
from dataclasses import dataclass

__all__ = ["Context", "Invocation", "Outcome", "ResponseStream", "new_trace_id"]

STREAM_BUFFER = 1024 * 1024  # bytes held for a slow reader before the function has to wait


@dataclass(frozen=True, slots=True)
class Context:
    """What a caller may send beside the payload; empty where it does not."""

    qualifier: str = ""  # a version or alias
    trace_id: str = ""  # X-Ray's header; one is made where it is empty
    client_context: str = ""  # JSON text
    cognito_identity: str = ""  # JSON text
    tenant_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller gets. ``error_type`` is empty unless the function failed."""

    payload: bytes
    error_type: str = ""
    content_type: str = "application/json"
    status: str = ""  # how the environment ended, for the REPORT line: "", "error" or "timeout"

    @property
    def failed(self) -> bool:
        """Whether the caller is to see a FunctionError."""
        return bool(self.error_type)

    @classmethod
    def error(cls, error_type: str, message: str, *, status: str = "") -> Outcome:
        """A failure in the platform's own words."""
        body = json.dumps({"errorType": error_type, "errorMessage": message}).encode()
        return cls(body, error_type, status=status)


class ResponseStream:
    """A response that reaches its reader while the function still writes it.

    Written by one task, read by another; ``put`` waits while the reader is far behind.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._is_over = False
        self._is_abandoned = False
        self._changed = asyncio.Event()
        self._left = asyncio.Event()  # the reader is gone
        self.content_type = "application/json"  # known when the first bytes are

    async def put(self, chunk: bytes) -> None:
        """Add bytes; waits while more than a buffer of them is unread."""
        while self._size > STREAM_BUFFER and not self._is_abandoned:
            self._changed.clear()
            await self._changed.wait()
        if chunk and not self._is_abandoned:
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._changed.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._changed.set()

    def abandon(self) -> None:
        """Nobody reads any more: what is put is dropped."""
        self._is_abandoned = True
        self._chunks.clear()
        self._changed.set()
        self._left.set()

    async def abandoned(self) -> None:
        """Wait until nobody reads any more."""
        await self._left.wait()

    async def get(self) -> bytes:
        """The next bytes; empty at the end."""
        while not self._chunks:
            if self._is_over:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        self._changed.set()
        return chunk


class Invocation:
    """One attempt to handle one event.

    ``deadline_ms`` is epoch milliseconds, ``started`` is time.perf_counter; both are set when the
    environment takes it. ``tail`` gathers the log for LogType=Tail; None where nobody asked.
    """

    def __init__(
        self,
        payload: bytes,
        *,
        arn: str,
        context: Context,
        request_id: str = "",
        wants_tail: bool = False,
        stream: ResponseStream | None = None,
    ) -> None:
        self.payload = payload
        self.arn = f"{arn}:{context.qualifier}" if context.qualifier else arn
        self.context = context
        self.request_id = request_id or str(uuid.uuid4())
        self.attempt_id = str(uuid.uuid4())
        self.trace_id = context.trace_id or new_trace_id()
        self.tail: bytearray | None = bytearray() if wants_tail else None
        self.stream = stream
        self.deadline_ms = 0
        self.started = 0.0
        self.ended = 0.0
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def start(self, timeout: float) -> None:
        """The function's clock starts; ``timeout`` in seconds."""
        self.started = time.perf_counter()
        self.deadline_ms = int((time.time() + timeout) * 1000)

    def settle(self, outcome: Outcome) -> None:
        """Decide the outcome; only the first one counts."""
        if not self.outcome.done():
            self.ended = time.perf_counter()
            self.outcome.set_result(outcome)
            if self.stream:
                self.stream.end()


def new_trace_id() -> str:
    """A trace header that is not sampled, in the form of X-Ray."""
    noise = os.urandom(20).hex()
    return f"Root=1-{int(time.time()):08x}-{noise[:24]};Parent={noise[24:]};Sampled=0"
