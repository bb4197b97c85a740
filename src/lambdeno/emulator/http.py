"""HTTP/1.1 on asyncio streams, framed by h11: keep-alive, pipelining, trailers, bounded sizes and times.

    Server -> one task for each connection -> handler(Exchange) for each request

h11 holds the rules of RFC 9112; it is one of few parsers that keep request trailers, by which the
Runtime API learns of a failure in the middle of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import h11

__all__ = ["BodyTooLarge", "Bounds", "Exchange", "Handler", "Header", "Server", "Truncated"]

HEAD_LIMIT = 1024 * 1024  # bytes: request line and headers; Lambda's own limit
RECEIVE = 256 * 1024  # bytes: what asyncio reads from a socket at once
DRAIN_LIMIT = 64 * 1024 * 1024  # bytes of a refused body that are read, so that the client can listen
UNREAD = frozenset({h11.SEND_BODY, h11.ERROR})  # states of a client that may still send
WITHOUT_LENGTH = frozenset({204, 304})  # RFC 9110 §8.6
LOOK = 0.1  # seconds between looks whether a client is still there
JOIN_LIMIT = 64 * 1024  # bytes: a body up to it goes out in one write with its head
LINGER = 1.0  # seconds in which a refused client may still send
ABSOLUTE = re.compile(rb"(?i:https?)://([^/?@]+)(/[^?]*)?(?:\?(.*))?")  # a target with its authority
HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
LONGEST_HOST = 260  # bytes: a name has 253, a port 5

T = TypeVar("T")
Header = tuple[bytes, bytes]
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a server puts up with. Seconds; None is for ever, as the Runtime API's clients wait.

    ``silence`` is for a request's whole head, between two parts of its body, and for a client that
    takes nothing of its response; ``idle`` is between two requests.
    """

    silence: float | None = None
    idle: float | None = None
    connections: int = 1000


class Truncated(Exception):
    """The request broke off before its end."""


class TooSlow(Truncated):
    """The client was silent for too long in the middle of its request."""


class BodyTooLarge(Exception):
    """The body has ``size`` bytes, more than was allowed; it was read and let go."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Exchange:
    """One request and its response. Header names are lower-case bytes."""

    __slots__ = (
        "_h11",
        "_has_body",
        "_reader",
        "_silence",
        "_writer",
        "headers",
        "method",
        "path",
        "query",
        "raw_headers",
        "trailers",
    )

    def __init__(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: h11.Request,
        headers: dict[bytes, bytes],
        *,
        silence: float | None,
    ) -> None:
        self._h11 = connection
        self._silence = silence
        self._reader = reader
        self._writer = writer
        self.method = request.method.decode("ascii")
        self.headers = headers
        self.raw_headers: list[Header] = request.headers.raw_items()  # in order, as they were written
        path, _, query = request.target.partition(b"?")
        if path[:1] in b"hH" and (found := ABSOLUTE.fullmatch(request.target)):
            # The host of a URL stands in place of Host (RFC 9112 §3.2.2).
            path, query = found[2] or b"/", found[3] or b""
            headers[b"host"] = found[1]
            others = [pair for pair in self.raw_headers if pair[0].lower() != b"host"]
            self.raw_headers = [(b"Host", found[1]), *others]
        self.path = path.decode("ascii", "replace")
        self.query = query.decode("ascii", "replace")
        self.trailers: dict[bytes, bytes] = {}
        self._has_body = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if not self._has_body:
            connection.next_event()  # the end of the message, which is there already

    def header(self, name: bytes) -> str:
        """A request header as text; empty where there is none."""
        return self.headers.get(name, b"").decode("utf-8", "replace")

    def is_for(self, listening: str) -> bool:
        """True if the request names this machine: ``listening``, or a name or address of its loopback.

        A web page's name can be bound to this machine's address, and the browser then lets the page
        read what it asks here (DNS rebinding); but the request names the page's host.
        """
        host = self.headers.get(b"host", b"")
        return len(host) <= LONGEST_HOST and is_local(host, listening)

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed its side: nobody will read a response."""
        return self._reader.at_eof() or self._writer.is_closing()

    @property
    def peer(self) -> str:
        """The client's address."""
        name = self._writer.get_extra_info("peername")
        return str(name[0]) if name else ""

    async def while_there(self, awaitable: Awaitable[T]) -> T:
        """Wait for something on behalf of the client. Raises ConnectionError when it is gone."""
        task = asyncio.ensure_future(awaitable)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK)
                if not task.done() and self.is_gone:
                    raise ConnectionAbortedError("the client is gone")
            return task.result()
        finally:
            task.cancel()

    def cut(self) -> None:
        """Break the connection off, so that the client sees that something is missing."""
        self._writer.transport.abort()

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLarge and Truncated, TooSlow among it."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size <= limit:
                parts.append(chunk)
            else:
                parts.clear()
                if size > DRAIN_LIMIT:
                    break
        if size > limit:
            raise BodyTooLarge(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; afterwards ``trailers`` is filled. Raises Truncated."""
        if not self._has_body:
            return
        self._has_body = False
        if self._h11.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            try:
                event = await next_event(self._h11, self._reader, self._silence)
            except (h11.RemoteProtocolError, ConnectionError) as error:
                raise Truncated(str(error)) from None
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.trailers = dict(event.headers)
                return
            else:
                raise Truncated("the connection was closed")

    async def respond(self, status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> None:
        """Send a whole response."""
        head = list(headers)
        if status not in WITHOUT_LENGTH:
            head.append((b"content-length", b"%d" % len(body)))
        if self._h11.their_state is not h11.DONE and self._h11.their_state is not h11.MUST_CLOSE:
            # The body was not read: reading its rest as a request would be wrong.
            head.append((b"connection", b"close"))
        if self.method == "HEAD" or status in WITHOUT_LENGTH:
            body = b""  # only the length of one
        connection = self._h11
        out = connection.send(h11.Response(status_code=status, headers=head, reason=REASONS.get(status, b"")))
        sent = connection.send(h11.Data(data=body)) if body else b""
        connection.send(h11.EndOfMessage())
        if len(body) <= JOIN_LIMIT:
            self._writer.write((out or b"") + (sent or b""))
        else:
            self._writer.write(out or b"")
            self._writer.write(sent or b"")
        await self._drain()

    async def begin(self, status: int, headers: Iterable[Header]) -> None:
        """Send the head of a chunked response; ``write`` and ``end`` follow."""
        head = [*headers, (b"transfer-encoding", b"chunked")]
        self._send(h11.Response(status_code=status, headers=head, reason=REASONS.get(status, b"")))

    async def write(self, chunk: bytes) -> None:
        """Send one chunk. Raises ConnectionError when the client is gone."""
        self._send(h11.Data(data=chunk))
        await self._drain()

    async def end(self) -> None:
        """Send the end of a chunked response."""
        self._send(h11.EndOfMessage())
        await self._drain()

    async def _drain(self) -> None:
        """Wait for a client that is far behind, while it takes anything. Raises ConnectionError."""
        transport = self._writer.transport
        while True:
            left = transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._silence):
                    await self._writer.drain()
                    return
            except TimeoutError:
                if transport.get_write_buffer_size() >= left:
                    transport.abort()
                    raise ConnectionAbortedError("the client does not read") from None

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")


Handler = Callable[[Exchange], Awaitable[None]]


class Server:
    """A listening socket and its connections."""

    def __init__(self, handler: Handler, bounds: Bounds) -> None:
        self._handler = handler
        self._bounds = bounds
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int = 0) -> None:
        """Listen; port 0 takes any. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=RECEIVE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def settle(self, seconds: float) -> None:
        """Wait until all connections have said all they had to say, for a while at most."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=seconds)

    def stop(self) -> None:
        """Take no new connections."""
        if self._server:
            self._server.close()

    async def close(self) -> None:
        """Stop listening and cut the connections."""
        self.stop()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._bounds.connections:
            refuse(h11.Connection(h11.SERVER), writer, 503, "too many connections")
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        try:
            await self._serve_all(connection, reader, writer)
            if connection.their_state in UNREAD:
                await linger(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _serve_all(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one request after the other; what is none gets an answer too. Raises ConnectionError."""
        try:
            wait = self._bounds.silence  # the first request is to come at once
            while await self._serve_one(connection, reader, writer, wait):
                connection.start_next_cycle()
                wait = self._bounds.idle
        except h11.RemoteProtocolError as error:
            refuse(connection, writer, error.error_status_hint, str(error))
        except TooSlow as error:
            refuse(connection, writer, 408, str(error))
        except Truncated as error:
            refuse(connection, writer, 400, str(error))
        except ConnectionError:
            raise
        except Exception:
            log.exception("A request could not be served")
            refuse(connection, writer, 500, "the request could not be served")

    async def _serve_one(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        wait: float | None,
    ) -> bool:
        """Serve one request, for which it may ``wait``; False when the connection is over."""
        event = await self._next_head(connection, reader, wait)
        if not isinstance(event, h11.Request):
            return False
        headers = dict(event.headers)
        check(event, headers)
        exchange = Exchange(connection, reader, writer, event, headers, silence=self._bounds.silence)
        if exchange.path == "*":  # OPTIONS for the server as a whole
            await exchange.respond(200)
        else:
            await self._handler(exchange)
        if connection.our_state is not h11.DONE:
            return False
        while connection.their_state is h11.SEND_BODY:
            await next_event(connection, reader, self._bounds.silence)
        return connection.their_state is h11.DONE

    async def _next_head(
        self, connection: h11.Connection, reader: asyncio.StreamReader, wait: float | None
    ) -> h11.Event | type[h11.PAUSED] | None:
        """The next request's head; None where none has begun in that time. Raises TooSlow."""
        if not connection.trailing_data[0]:
            try:
                async with asyncio.timeout(wait):
                    connection.receive_data(await reader.read(RECEIVE))
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(self._bounds.silence):
                return await next_event(connection, reader, None)
        except TimeoutError:
            raise TooSlow(f"the head was not whole after {self._bounds.silence} s") from None


async def next_event(
    connection: h11.Connection, reader: asyncio.StreamReader, silence: float | None
) -> h11.Event | type[h11.PAUSED]:
    """What h11 makes of the next bytes. Raises h11.RemoteProtocolError, ConnectionError, TooSlow."""
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event  # type: ignore[return-value]
        try:
            async with asyncio.timeout(silence):
                connection.receive_data(await reader.read(RECEIVE))
        except TimeoutError:
            raise TooSlow(f"nothing came for {silence} s") from None


def check(request: h11.Request, headers: dict[bytes, bytes]) -> None:
    """Refuse what h11 lets pass and RFC 9112 does not. Raises h11.RemoteProtocolError."""
    if request.http_version != b"1.1" and not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("only HTTP/1.1 and HTTP/1.0 are served", error_status_hint=505)
    if b"transfer-encoding" in headers:  # a request within a request hides behind these (§6.1)
        if b"content-length" in headers:
            raise h11.RemoteProtocolError("Content-Length beside Transfer-Encoding")
        if request.http_version < b"1.1":
            raise h11.RemoteProtocolError("HTTP/1.0 has no Transfer-Encoding")
    target = request.target
    if request.method == b"CONNECT":
        raise h11.RemoteProtocolError("this is no proxy: CONNECT is not served", error_status_hint=501)
    is_path = target[:1] == b"/" or (target == b"*" and request.method == b"OPTIONS")
    if not is_path and not ABSOLUTE.fullmatch(target):
        raise h11.RemoteProtocolError(f"the target {target[:100]!r} is neither a path nor a URL of HTTP")


@functools.lru_cache(maxsize=64)
def is_local(host: bytes, listening: str) -> bool:
    """True if a Host header names ``listening``, or a name or address of the loopback, with any port."""
    found = HOST.fullmatch(host.decode("latin-1").strip().lower())
    if not found:
        return False
    name = found[1]
    if name in {listening.lower(), f"[{listening.lower()}]"}:
        return True
    name = name[1:-1] if name[:1] == "[" else name.removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")  # RFC 6761 §6.3
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


async def linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let a client that still sends read its answer: to close now would reset the connection.

    RFC 9112 §9.6. Raises ConnectionError.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            await writer.drain()
            writer.write_eof()
            while await reader.read(RECEIVE):
                pass


def refuse(connection: h11.Connection, writer: asyncio.StreamWriter, status: int, text: str) -> None:
    """Say why a request is not served, where an answer is still possible."""
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE} or writer.is_closing():
        return
    body = text.encode()
    head = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    reason = REASONS.get(status, b"")
    writer.write(connection.send(h11.Response(status_code=status, headers=head, reason=reason)) or b"")
    with contextlib.suppress(h11.LocalProtocolError):  # HEAD, whose response has no body
        writer.write(connection.send(h11.Data(data=body)) or b"")
