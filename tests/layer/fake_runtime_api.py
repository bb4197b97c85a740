"""A Runtime API that does as it is told, well or badly: a real HTTP server, byte by byte if need be.

script (events, answers to posts) -> bootstrap asks and posts -> all of it is recorded
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader

PREFIX = "/2018-06-01/runtime"
NEXT = f"{PREFIX}/invocation/next"
INIT_ERROR = f"{PREFIX}/init/error"
DEADLINE = 30  # s, for anything to happen
SO_LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Request:
    """What the bootstrap sent."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    connection: int  # the how manieth one
    at: float = 0.0  # when it was there, on time.time
    chunks: Sequence[tuple[float, bytes]] = ()  # of a streamed body, and when each was there
    trailers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    is_whole: bool = True

    @property
    def error_type(self) -> str:
        """The header that the platform reads the error's type from."""
        return self.headers["lambda-runtime-function-error-type"]


@dataclass(frozen=True)
class Answer:
    """What the bootstrap gets: bytes, in pieces that arrive one by one."""

    pieces: Sequence[bytes]
    ending: str = ""  # "close" or "reset" the connection afterwards
    is_early: bool = False  # sent when the request's head is there; its body is never read


class FakeRuntimeApi:
    """The server. Posts are accepted unless ``answers`` has something else for them."""

    def __init__(self, *, is_everywhere: bool = False) -> None:
        self.events: queue.Queue[Answer] = queue.Queue()
        self.answers: queue.Queue[Answer] = queue.Queue()
        self.posts: queue.Queue[Request] = queue.Queue()
        self.requests: list[Request] = []  # all, in the order in which they came
        self.asked = 0  # how often the next event was asked for, for those who clear the list
        self.faults: list[str] = []  # what no client may do
        self.connections = 0
        self.most_chunks: int | None = None  # of a streamed body; the connection is cut after them
        self.takes_chunks = threading.Event()  # cleared: streamed bodies are not read
        self.takes_chunks.set()
        self._changed = threading.Condition()
        self._is_open = True
        self._sockets: list[socket.socket] = []
        if is_everywhere:  # on every address of this machine, of both versions of IP
            self._listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def paths(self, method: str) -> list[str]:
        """The paths that were asked for with a method, in order."""
        return [request.path for request in self.requests if request.method == method]

    def wait_for_next(self, count: int) -> bool:
        """Whether the bootstrap asks for its ``count``-th event in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.paths("GET").count(NEXT) >= count, DEADLINE)

    def close(self) -> None:
        """End every connection and thread."""
        self._is_open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while (head := _read_head(stream.readline)) is not None:
                start, headers = head
                words = start.split(" ")
                if len(words) != 3 or words[2] != "HTTP/1.1" or "host" not in headers:
                    self.faults.append(f"not an HTTP/1.1 request: {start!r} {headers}")
                    return
                method, path, _ = words
                if headers.get("transfer-encoding") == "chunked":
                    request = self._read_stream(stream, method, path, headers, number)
                    self._record(request)
                    if not request.is_whole:
                        return
                    connection.sendall(b"".join(status(202, b'{"status":"OK"}\n').pieces))
                    continue
                if method == "POST" and not headers.get("content-length", "").isdigit():
                    self.faults.append(f"a post without its length: {headers}")
                    return
                answer = None
                if method == "POST":
                    with contextlib.suppress(queue.Empty):
                        answer = self.answers.get_nowait()
                body = b""
                if not (answer and answer.is_early):
                    body = stream.read(int(headers.get("content-length", "0")))
                self._record(Request(method, path, headers, body, number, time.time()))
                if method == "GET" and path == NEXT:
                    answer = self._wait_for_event(connection)
                    if answer is None:
                        return
                if not self._send(connection, answer or status(202, b'{"status":"OK"}\n')):
                    return

    def _read_stream(
        self, stream: BufferedReader, method: str, path: str, headers: dict[str, str], number: int
    ) -> Request:
        """A chunked body (RFC 9112 §7.1), chunk by chunk; no further than it is to be read."""
        chunks: list[tuple[float, bytes]] = []
        trailers: dict[str, str] = {}
        is_whole = False
        while self.most_chunks is None or len(chunks) < self.most_chunks:
            self.takes_chunks.wait(DEADLINE)
            line = stream.readline()
            if not line:
                break
            size = int(line.strip(), 16)
            if size == 0:
                while line := stream.readline().strip():
                    name, _, value = line.decode().partition(":")
                    trailers[name.lower()] = value.strip()
                is_whole = True
                break
            chunk = stream.read(size + 2)
            if chunk[-2:] != b"\r\n":
                break
            chunks.append((time.time(), chunk[:-2]))
        body = b"".join(chunk for _, chunk in chunks)
        return Request(method, path, headers, body, number, time.time(), chunks, trailers, is_whole)

    def _record(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)
            self.asked += request.path == NEXT
            self._changed.notify_all()
        if request.method == "POST":
            self.posts.put(request)

    def _wait_for_event(self, connection: socket.socket) -> Answer | None:
        while self._is_open and not _is_gone(connection):
            with contextlib.suppress(queue.Empty):
                answer = self.events.get(timeout=0.02)
                if not _is_gone(connection):
                    return answer
                self.events.put(answer)  # it is another's
        return None

    def _send(self, connection: socket.socket, answer: Answer) -> bool:
        """Whether the connection may be used again."""
        for piece in answer.pieces:
            connection.sendall(piece)
            if len(answer.pieces) > 1:
                time.sleep(0.0005)  # or else the kernel would join them
        if answer.ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, SO_LINGER_RESET)
        is_last = any(b"connection: close" in piece.lower() for piece in answer.pieces)
        if is_last and not answer.ending:
            while connection.recv(64 * 1024):  # RFC 9112 §9.6: none of it is a request any more
                pass
        return not (answer.ending or is_last)


@contextlib.contextmanager
def fake_runtime_api(*, is_everywhere: bool = False) -> Iterator[FakeRuntimeApi]:
    """A server for a while; what its client did against the protocol fails the test."""
    api = FakeRuntimeApi(is_everywhere=is_everywhere)
    try:
        yield api
    finally:
        api.close()
    assert not api.faults


@dataclass(frozen=True)
class Event:
    """An event as it is sent: ``chunks`` are the sizes of a chunked body, over and over."""

    body: bytes
    request_id: str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Sequence[int] = ()
    chunk_extension: bytes = b""
    trailers: bytes = b""

    def to_bytes(self) -> bytes:
        """The whole answer to /next."""
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": self.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 30_000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
            **self.headers,
        }
        lines = [f"{name}: {value}" for name, value in headers.items()]
        lines.append("Transfer-Encoding: chunked" if self.chunks else f"Content-Length: {len(self.body)}")
        head = "HTTP/1.1 200 OK\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
        return head.encode() + (self._chunked() if self.chunks else self.body)

    def _chunked(self) -> bytes:
        parts = bytearray()
        at = 0
        for size in itertools.cycle(self.chunks):
            data = self.body[at : at + size]
            parts += b"%X%b\r\n%b\r\n" % (len(data), self.chunk_extension, data)
            at += size
            if at >= len(self.body):
                break
        if self.body:
            parts += b"0\r\n"
        else:  # its one empty chunk was the last
            del parts[-2:]
        return bytes(parts) + self.trailers + b"\r\n"


def status(code: int, body: bytes = b"{}", *, ending: str = "", is_early: bool = False) -> Answer:
    """An answer with nothing but a status and a body."""
    close = b"Connection: close\r\n" if ending == "close" else b""
    head = b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return Answer([head % (code, close, len(body)) + body], ending, is_early)


def one_by_one(data: bytes) -> Answer:
    """The same bytes, each in a packet of its own."""
    return Answer([data[at : at + 1] for at in range(len(data))])


def _is_gone(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:  # reset: it was killed before it had read all
        return True


def _read_head(readline: object) -> tuple[str, dict[str, str]] | None:
    assert callable(readline)
    start = readline().decode("latin-1")
    if not start:
        return None
    headers: dict[str, str] = {}
    while (line := readline().decode("latin-1")) not in ("\r\n", ""):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return start.rstrip("\r\n"), headers
