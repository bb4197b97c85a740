"""Every message that HTTP/1.1 allows is the same message however it is cut; all else is Closed."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import random
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.layer.conftest import LAYER
from tests.layer.fake_runtime_api import DEADLINE

CRLF = b"\r\n"
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110 §5.6.2
VISIBLE = "".join(map(chr, (*range(0x21, 0x7F), *range(0x80, 0x100))))  # and what is over ASCII
SPACES = st.sampled_from([b"", b" ", b"\t", b" \t  "])
START = b"POST /invocation HTTP/1.1"
LENGTH, CODING = b"content-length", b"transfer-encoding"


def layer_modules(*names: str) -> list[Any]:
    """Modules of the runtime layer, which import each other by plain names; nobody else sees those."""
    before, wrote = dict(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(LAYER / "lambdeno"))
    sys.dont_write_bytecode = True  # the folder is /opt, byte for byte
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.dont_write_bytecode = wrote
        sys.path.pop(0)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(LAYER)):
                del sys.modules[name]
        sys.modules.update(before)


connection, runtime_api = layer_modules("connection", "runtime_api")
BUFFER: int = connection.BUFFER


# --- Messages ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """A message: ``lines`` may be folded, ``wire`` is the body as it is sent."""

    start: bytes
    lines: Sequence[bytes]
    body: bytes
    wire: bytes

    @property
    def data(self) -> bytes:
        """All of it, as it is sent."""
        return CRLF.join([self.start, *self.lines, b"", self.wire])


def latin1(text: str) -> bytes:
    """The bytes of these numbers."""
    return text.encode("latin-1")


def either_case(word: str) -> st.SearchStrategy[bytes]:
    """A word in any mixture of upper and lower case."""
    return st.tuples(*(st.sampled_from([c.lower(), c.upper()]) for c in word)).map("".join).map(str.encode)


NAMES = (
    st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
    | st.sampled_from([b"X-Content-Length", b"Content-Length-X", b"Transfer-Encodin", b"Connection", b"TE"])
).filter(lambda name: name.lower() not in (LENGTH, CODING))
VALUES = st.text(VISIBLE + " \t", max_size=20).map(latin1) | st.sampled_from(
    [b"content-length: 7", b"HTTP/1.1 100 Continue", b"chunked", b"0", b":", b"\xff\xfe"]
)
BODIES = st.binary(max_size=200) | st.sampled_from(
    [
        b"\r\n\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"content-length: 1\r\n",
        b" x\r\n y",
    ]
)


@st.composite
def header_lines(draw: st.DrawFn) -> bytes:
    """Any header line: whitespace at both ends of its value, which may go on in other lines."""
    fold = CRLF + draw(st.sampled_from([b" ", b"\t", b" \t "]))
    value = fold.join(draw(st.lists(VALUES, min_size=1, max_size=3)))
    return draw(NAMES) + b":" + draw(SPACES) + value + draw(SPACES)


@st.composite
def lengths(draw: st.DrawFn, value: int) -> bytes:
    """A Content-Length line."""
    digits = b"%0*d" % (draw(st.integers(0, 6)), value)
    return draw(either_case("content-length")) + b":" + draw(SPACES) + digits + draw(SPACES)


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks of any sizes, with extensions and trailers."""
    sizes = draw(st.lists(st.integers(1, 50), min_size=1, max_size=4))
    extension = draw(st.sampled_from([b"", b";", b";a", b"; a=b", b' ;a="b;c"']))
    trailers = draw(st.lists(header_lines(), max_size=2))
    return in_chunks(body, sizes, draw(st.sampled_from([b"%x", b"%X", b"%05x"])), extension, trailers)


def in_chunks(
    body: bytes,
    sizes: Sequence[int],
    form: bytes = b"%x",
    extension: bytes = b"",
    trailers: Sequence[bytes] = (),
) -> bytes:
    """A body in chunks of these sizes, over and over."""
    parts = []
    at = count = 0
    while at < len(body):
        data = body[at : at + sizes[count % len(sizes)]]
        parts += [form % len(data), extension, CRLF, data, CRLF]
        at += len(data)
        count += 1
    return b"".join([*parts, form % 0, extension, CRLF, *(line + CRLF for line in trailers), CRLF])


@st.composite
def starts(draw: st.DrawFn) -> bytes:
    """The start line of a request, or of a response that is final."""
    if draw(st.booleans()):
        return draw(st.sampled_from([b"GET", b"POST", b"X"])) + b" /a?b=c%20d HTTP/1.1"
    return b"HTTP/1.1 %d " % draw(st.integers(200, 599)) + draw(VALUES)


@st.composite
def messages(draw: st.DrawFn, framings: Sequence[str] = ("none", "length", "chunked", "both")) -> Message:
    """Any message."""
    lines = draw(st.lists(header_lines(), max_size=4))
    body = wire = draw(BODIES)
    framing = draw(st.sampled_from(framings))
    added = []
    if framing == "none":
        body = wire = b""
    elif framing == "length":
        added = [draw(lengths(len(body)))]
    else:
        wire = draw(chunked(body))
        added = [draw(either_case("transfer-encoding")) + b":" + draw(SPACES) + draw(either_case("chunked"))]
        if framing == "both":  # Transfer-Encoding is right then
            added.append(draw(lengths(draw(st.integers(0, 300)))))
    for line in added:
        lines.insert(draw(st.integers(0, len(lines))), line)
    return Message(draw(starts()), lines, body, wire)


@st.composite
def informational(draw: st.DrawFn) -> Message:
    """A 1xx response; our bridge's have bodies."""
    body = draw(BODIES)
    lines = draw(st.lists(header_lines(), max_size=2))
    if body or draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(lengths(len(body))))
    return Message(b"HTTP/1.1 %d Log" % draw(st.integers(100, 199)), lines, body, body)


CUTS = st.lists(st.integers(0, 1500), max_size=6) | st.just(range(1500))  # or every byte on its own


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The data in pieces."""
    at = [0, *sorted({place % len(data) for place in cuts if data}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


def is_same(found: bytes, sent: bytes) -> bool:
    """Whether a header line or value is as it was sent; in a folded one whitespace is whitespace."""
    if CRLF not in sent:
        return found == sent
    return re.sub(rb"[ \t\r\n]+", b" ", found).strip() == re.sub(rb"[ \t\r\n]+", b" ", sent).strip()


# --- Sockets -----------------------------------------------------------------------------------


class Told(socket.socket):
    """A socket whose peer says its next piece when it is read from and empty; then closes, if it is to."""

    def __init__(self, pieces: Iterable[bytes], *, closes: bool = False) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.peer.setblocking(False)
        self.pieces = [piece for piece in pieces if piece]
        self.closes = closes

    def recv_into(self, *arguments: Any) -> int:
        """Read for real."""
        if not self._has_some():
            if self.pieces:
                piece = self.pieces[0]
                sent = self.peer.send(piece)
                self.pieces[:1] = [piece[sent:]] if sent < len(piece) else []
            else:
                assert self.closes, "more is waited for than the message has"
                self.peer.close()
        return super().recv_into(*arguments)

    def _has_some(self) -> bool:
        try:
            return bool(self.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Both ends."""
        self.peer.close()
        super().close()


def arrived(act: Callable[[Any], None]) -> bytes:
    """What arrives at the other end of a connection that something is done with."""

    def read(sock: socket.socket) -> bytes:
        parts = []
        while part := sock.recv(1024 * 1024):
            parts.append(part)
        return b"".join(parts)

    ours, theirs = socket.socketpair()
    with theirs, ThreadPoolExecutor(1) as reader:
        arriving = reader.submit(read, theirs)
        with ours:
            act(connection.Connection(ours))
        return arriving.result(DEADLINE)


def by_body(message: Any) -> bytes:
    """The body, as the bootstrap reads short ones."""
    body: bytes = message.body()
    return body


def by_forward(message: Any) -> bytes:
    """The body, as an event goes to Deno."""
    return arrived(lambda to: message.forward(to, START)).partition(CRLF + CRLF)[2]


def by_forward_body(message: Any) -> bytes:
    """The body, as an answer goes to Lambda."""
    return arrived(lambda to: message.forward_body(to, START)).partition(CRLF + CRLF)[2]


def by_drain(message: Any) -> None:
    """No body, as where it is not wanted."""
    message.drain()


TAKE = {"body": by_body, "forward": by_forward, "forward_body": by_forward_body}
WAYS = st.sampled_from([*TAKE.values()])


# --- What is a message ---------------------------------------------------------------------------


@given(message=messages(), cuts=CUTS)
@settings(max_examples=200)
def test_status_headers_and_body_are_what_was_sent(message: Message, cuts: Sequence[int]) -> None:
    """Wherever the writes end, a message has the status, the first of each header, and the body sent."""
    with Told(cut(message.data, cuts) * 3) as sock:
        it = connection.Connection(sock)
        for _ in range(3):  # the others find a buffer full of the first
            it.receive()
            assert it.head.startswith(message.start.lower() + CRLF)
            if message.start.startswith(b"HTTP/"):
                assert it.status() == int(message.start.split()[1])
            first: dict[bytes, bytes] = {}
            for line in message.lines:
                name, _, value = line.partition(b":")
                first.setdefault(name.lower(), value)
            for name, value in first.items():
                assert is_same(it.header(name), value.strip(b" \t"))
            assert it.header(b"no-such-header") == b""
            assert it.body() == message.body
            assert it.is_whole


@given(message=messages(), cuts=CUTS)
@settings(max_examples=200)
def test_forward_changes_the_start_line_alone(message: Message, cuts: Sequence[int]) -> None:
    """A forwarded message has the new start line, every header line as it came, and the body whole."""
    with Told(cut(message.data, cuts)) as sock:
        it = connection.Connection(sock)
        it.receive()
        head, _, body = arrived(lambda to: it.forward(to, START)).partition(CRLF + CRLF)
    start, *lines = re.split(rb"\r\n(?![ \t])", head)  # at no fold
    assert start == START
    assert body == message.body
    if message.wire != message.body:  # runtime.js goes by the last
        assert lines.pop().lower() == b"content-length: %d" % len(body)
    assert len(lines) == len(message.lines)
    assert all(map(is_same, lines, message.lines))


@given(message=messages(), cuts=CUTS)
@settings(max_examples=100)
def test_forward_body_sends_the_body_alone(message: Message, cuts: Sequence[int]) -> None:
    """A forwarded body stands under the head that is given for it and its length, nothing else."""
    with Told(cut(message.data, cuts)) as sock:
        it = connection.Connection(sock)
        it.receive()
        sent = arrived(lambda to: it.forward_body(to, START + b"\r\nA: b"))
    head = START + b"\r\nA: b\r\nContent-Length: %d\r\n\r\n" % len(message.body)
    assert sent == head + message.body


@given(before=st.lists(informational(), max_size=4), message=messages(), cuts=CUTS, take=WAYS)
@settings(max_examples=150)
def test_informational_responses_come_before_the_message(
    before: list[Message], message: Message, cuts: Sequence[int], take: Callable[[Any], bytes]
) -> None:
    """What 1xx responses say is told in order, and the message after them is as it were alone."""
    said: list[bytes] = []
    data = b"".join(part.data for part in (*before, message))
    with Told(cut(data, cuts)) as sock:
        it = connection.Connection(sock)
        it.on_informational = lambda view: said.append(bytes(view))
        it.receive()
        assert said == [part.body for part in before]
        assert it.head.startswith(message.start.lower() + CRLF)
        assert take(it) == message.body


def test_informational_responses_of_any_size() -> None:
    """1xx responses over the buffer's size pass, and leave no trace in the message after them."""
    said: list[bytes] = []
    sizes = [BUFFER - 100, 3 * BUFFER, 0, BUFFER]
    head = b"HTTP/1.1 103 Log\r\nContent-Length: %d\r\n\r\n"
    bodies = [random.Random(size).randbytes(size) for size in sizes]
    data = (
        b"".join(head % len(body) + body for body in bodies)
        + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    )
    with Told([data]) as sock:
        it = connection.Connection(sock)
        it.on_informational = lambda view: said.append(bytes(view))
        it.receive()
        assert said == bodies
        assert (it.status(), it.body()) == (200, b"{}")


# --- One after the other -------------------------------------------------------------------------

EDGES = [0, 1, BUFFER, 2 * BUFFER]


@st.composite
def sized(draw: st.DrawFn) -> Message:
    """A message whose size, or whose body's, is near that of a buffer."""
    size = draw(st.sampled_from(EDGES)) + draw(st.integers(-4, 4))
    is_chunked = draw(st.booleans())
    start = b"HTTP/1.1 200 OK"
    line = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %06d" % max(0, size)
    if draw(st.booleans()):  # the size of all of it
        size -= len(start + line) + 6
        line = line if is_chunked else b"Content-Length: %06d" % max(0, size)
    body = random.Random(size).randbytes(max(0, size))
    sizes = draw(st.lists(st.sampled_from([1000, 4096, 65536, BUFFER]), min_size=1, max_size=2))
    return Message(start, [line], body, in_chunks(body, sizes) if is_chunked else body)


@given(
    pair=st.tuples(sized(), sized()), cuts=st.tuples(*2 * [st.lists(st.integers(0, 2 * BUFFER), max_size=3)])
)
@settings(max_examples=40)
@pytest.mark.parametrize("take", [*TAKE.values(), by_drain], ids=[*TAKE, "drain"])
def test_a_message_is_not_affected_by_the_one_before(
    take: Callable[[Any], bytes | None], pair: tuple[Message, Message], cuts: tuple[list[int], list[int]]
) -> None:
    """Two messages of any size on one connection: each is whole, in whichever way the first was taken."""
    first, second = pair
    with Told([*cut(first.data, cuts[0]), *cut(second.data, cuts[1])]) as sock:
        it = connection.Connection(sock)
        it.receive()
        assert take(it) in (first.body, None)
        it.receive()
        assert it.status() == 200
        assert it.body() == second.body


@pytest.mark.parametrize("take", [*TAKE.values(), by_drain], ids=[*TAKE, "drain"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_large_message_holds_no_memory(is_chunked: bool, take: Callable[[Any], bytes | None]) -> None:
    """6 MB pass whole, and the next message has the buffer that it has without them."""
    body = random.Random(6).randbytes(6 * 1024 * 1024)
    line = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    large = Message(b"HTTP/1.1 200 OK", [line], body, in_chunks(body, [65536, 1]) if is_chunked else body)
    small = Message(b"HTTP/1.1 202 OK", [b"Content-Length: 2"], b"{}", b"{}")
    with Told([large.data, small.data] * 2) as sock:
        it = connection.Connection(sock)
        for _ in range(2):
            it.receive()
            assert take(it) in (body, None)
            it.receive()
            assert (it.status(), it.body(), len(it.buffer)) == (202, b"{}", BUFFER)


def test_forwarding_needs_no_memory() -> None:
    """A message of a known length is forwarded through a buffer that does not grow."""
    body = random.Random(7).randbytes(5 * BUFFER)
    for take in (by_forward, by_forward_body):
        with Told([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]) as sock:
            it = connection.Connection(sock)
            it.receive()
            assert take(it) == body
            assert len(it.buffer) == BUFFER


@given(body=st.binary(min_size=1, max_size=1000), place=st.integers(0, 1000), after=messages())
@settings(max_examples=50)
@pytest.mark.parametrize("take", [by_forward, by_forward_body, by_drain])
def test_the_rest_of_a_message_is_read_and_no_more(
    take: Callable[[Any], bytes | None], body: bytes, place: int, after: Message
) -> None:
    """Where a body comes after its head, what follows it in the socket is left there."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    place %= len(body)
    with Told([data + body[:place], body[place:] + after.data]) as sock:
        it = connection.Connection(sock)
        it.receive()
        assert take(it) in (body, None)
        it.receive()
        assert it.head.startswith(after.start.lower() + CRLF)
        assert it.body() == after.body


@given(
    sent=st.lists(
        st.tuples(st.lists(informational(), max_size=2), messages(["none", "length"])), min_size=1, max_size=3
    ),
    cuts=CUTS,
    ways=st.tuples(*3 * [WAYS | st.just(by_drain)]),
)
@settings(max_examples=100)
def test_what_comes_along_with_a_message_is_kept(
    sent: list[tuple[list[Message], Message]],
    cuts: Sequence[int],
    ways: Sequence[Callable[[Any], bytes | None]],
) -> None:
    """What the bridge says right after an answer, such as a log event, is said, in whatever read it comes."""
    said: list[bytes] = []
    data = b"".join(part.data for before, message in sent for part in (*before, message))
    with Told(cut(data, cuts)) as sock:
        it = connection.Connection(sock)
        it.on_informational = lambda view: said.append(bytes(view))
        for (before, message), take in zip(sent, ways, strict=False):
            it.receive()
            assert said == [part.body for part in before]
            assert it.head.startswith(message.start.lower() + CRLF)
            assert take(it) in (message.body, None)
            said.clear()


def test_what_comes_along_with_a_chunked_message_is_kept() -> None:
    """The same where the message is chunked."""
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with Told([first + b"HTTP/1.1 202 OK\r\n\r\n"]) as sock:
        it = connection.Connection(sock)
        it.receive()
        assert it.body() == b"{}"
        it.receive()
        assert it.status() == 202


def test_what_is_forgotten_is_not_received() -> None:
    """What came behind a message before a request was sent is no answer to it."""
    answer = b"HTTP/1.1 %d OK\r\nContent-Length: 2\r\n\r\n{}"
    with Told([answer % 200 + answer % 201 + b"HTTP/1.1", answer % 202]) as sock:
        it = connection.Connection(sock)
        it.receive()
        assert (it.status(), it.body()) == (200, b"{}")
        it.forget()
        it.receive()
        assert (it.status(), it.body()) == (202, b"{}")


@pytest.mark.parametrize("take", [by_forward, by_forward_body, by_drain])
def test_headers_outlive_the_body(take: Callable[[Any], bytes | None]) -> None:
    """A header is the same when the body was taken: Connection: close is looked at then."""
    with Told([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n", b"x" * 100]) as sock:
        it = connection.Connection(sock)
        it.receive()
        take(it)
        assert it.header(b"connection") == b"close"


# --- What is none --------------------------------------------------------------------------------


def outcome(data: Iterable[bytes], take: Callable[[Any], bytes]) -> bytes | None:
    """The body of a message that may be none: None where it is Closed; nothing else is raised."""
    with Told(data, closes=True) as sock:
        it = connection.Connection(sock)
        try:
            it.receive()
            it.status()
            return take(it)
        except connection.Closed:
            return None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message of which some bytes are others, more, or fewer."""
    data = draw(messages()).data
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        other = draw(st.binary(max_size=8) | st.sampled_from([CRLF, b"\n", b"\r", b"-", b"\0", b"\r\n\r\n"]))
        data = data[:at] + other + data[at + draw(st.integers(0, 8)) :]
    return data


@given(
    garbage=st.binary(max_size=300) | damaged() | damaged().map(b"HTTP/1.1 ".__add__), cuts=CUTS, take=WAYS
)
@settings(max_examples=300)
@example(garbage=b"\r\n\r\n", cuts=[], take=by_forward)
@example(garbage=b"HTTP/1.1 1\r\n\r\n", cuts=[], take=by_body)
@example(garbage=b"HTTP/1.\r\n\r\n200", cuts=[], take=by_body)
@example(garbage=b"\r\n \r\n\t\r\n\r\n", cuts=[], take=by_forward_body)
def test_garbage_is_closed(garbage: bytes, cuts: Sequence[int], take: Callable[[Any], bytes]) -> None:
    """Whatever comes before a close is a message or Closed: nothing else is raised, nothing waits on."""
    body = outcome(cut(garbage, cuts), take)
    if body is not None:  # a message, then
        assert b"\r\n\r\n" in garbage
        assert len(body) <= len(garbage)


def test_endless_garbage_is_closed() -> None:
    """What never has an end of its head is Closed, before it fills the memory."""
    pieces = [b"a" * 1024 * 1024] * 20
    with Told(pieces) as sock, pytest.raises(connection.Closed, match="over every limit"):
        connection.Connection(sock).receive()


@given(message=messages(), place=st.integers(0, 1500), cuts=CUTS, take=WAYS)
@settings(max_examples=200)
def test_a_part_of_a_message_is_closed(
    message: Message, place: int, cuts: Sequence[int], take: Callable[[Any], bytes]
) -> None:
    """A message that breaks off anywhere is Closed, not shorter."""
    part = message.data[: place % len(message.data)]
    with Told(cut(part, cuts), closes=True) as sock:
        it = connection.Connection(sock)
        with pytest.raises(connection.Closed):  # noqa: PT012 - either of them
            it.receive()
            take(it)


@pytest.mark.parametrize("take", [*TAKE.values(), by_drain], ids=[*TAKE, "drain"])
def test_every_part_of_a_message_is_closed(take: Callable[[Any], bytes | None]) -> None:
    """The same for each place where messages of every kind can break off."""
    rest = b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n"
    for data in (
        rest + b"\r\n",
        rest + b"Content-Length: 3\r\n\r\n{ }",
        rest + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n{\r\n2\r\n }\r\n0\r\nTrailer: t\r\n\r\n",
        b"HTTP/1.1 103 Log\r\nContent-Length: 1\r\n\r\nx" + rest + b"Content-Length: 1\r\n\r\n1",
    ):
        for end in range(len(data)):
            with Told([data[:end]], closes=True) as sock:
                it = connection.Connection(sock)
                with pytest.raises(connection.Closed):  # noqa: PT012 - either of them
                    it.receive()
                    take(it)


@pytest.mark.parametrize(
    "value",
    [
        b"-1",
        b"+5",
        b"5,5",
        b"5, 5",
        b"1" + 30 * b"0",
        b"99999999999",
        b"0x10",
        b"1_0",
        b"5 5",
        b"5.0",
        b"\xb2",
        b"five",
        b"",
        b"2\r\nContent-Length: 5",
        b"5\r\n -1",
    ],
)
def test_absurd_lengths_are_closed(value: bytes) -> None:
    """A Content-Length that is no number is Closed at once: nobody waits for what it means."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: " + value + b"\r\n\r\nhello"
    with Told([data]) as sock, pytest.raises(connection.Closed):
        connection.Connection(sock).receive()


@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_a_length_over_every_limit_is_closed(take: Callable[[Any], bytes]) -> None:
    """A Content-Length that nobody sends in full is Closed when the peer is gone."""
    assert outcome([b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\nhello"], take) is None


@pytest.mark.parametrize(
    "size", [b"-5", b"+5", b"0x5", b"1_0", b"", b" ", b";a", b"g", b"5.", b"5 5", 11 * b"f"]
)
def test_absurd_chunk_sizes_are_closed(size: bytes) -> None:
    """A chunk whose size is no number, or of too many digits, is Closed at once."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    with Told([data]) as sock, pytest.raises(connection.Closed):
        connection.Connection(sock).receive()


@pytest.mark.parametrize("size", [b"ffffffffff", b"1000000", b"4", b"6"])
def test_chunks_of_another_size_are_closed(size: bytes) -> None:
    """A chunk that is longer or shorter than it says is Closed."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    assert outcome([data], by_body) is None


@pytest.mark.parametrize(
    "codings",
    [
        [b"gzip"],
        [b"identity"],
        [b""],
        [b"xchunked"],
        [b"chunked x"],
        [b"gzip, chunked"],
        [b"chunked, gzip"],
        [b"chunked, chunked"],
        [b"gzip", b"chunked"],
        [b"chunked", b"gzip"],
        [b"chunked", b"chunked"],
    ],
)
@pytest.mark.parametrize("length", [b"", b"Content-Length: 2\r\n"], ids=["alone", "with a length"])
def test_unknown_codings_are_closed(length: bytes, codings: list[bytes]) -> None:
    """A Transfer-Encoding that is not chunked alone is Closed, whatever Content-Length says."""
    lines = b"".join(b"Transfer-Encoding: %b\r\n" % coding for coding in codings)
    data = b"HTTP/1.1 200 OK\r\n" + lines + length + b"\r\n2\r\n{}\r\n0\r\n\r\n"
    with Told([data]) as sock, pytest.raises(connection.Closed):
        connection.Connection(sock).receive()


# --- The peer ------------------------------------------------------------------------------------


@given(message=messages(), cuts=st.lists(st.integers(0, 500), max_size=3), take=WAYS)
@settings(max_examples=30)
def test_a_quiet_peer_is_told_of(message: Message, cuts: Sequence[int], take: Callable[[Any], bytes]) -> None:
    """Each time that the socket's timeout is over on_quiet is called, and reading goes on after it."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 500))
    pieces = cut(message.data, cuts)
    with ours, theirs:
        it = connection.Connection(ours)
        it.on_quiet = lambda: theirs.sendall(pieces.pop(0))
        it.receive()
        assert take(it) == message.body
        assert not pieces


def test_a_wait_that_ended_can_go_on() -> None:
    """Where on_quiet has ended a wait in the middle of a message, another receive() has it whole."""

    def give_up() -> None:
        raise connection.Closed

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        it = connection.Connection(ours)
        it.on_quiet = give_up
        theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        it.receive()
        theirs.sendall(b"HTTP/1.1 202 OK\r\nConten")
        with pytest.raises(connection.Closed):
            it.receive()
        theirs.sendall(b"t-Length: 2\r\n\r\n{}")
        it.receive()
        assert (it.status(), it.body()) == (202, b"{}")


@given(size=st.integers(1, 1_000_000), is_forwarded=st.booleans())
@settings(max_examples=20)
def test_a_peer_that_does_not_read_is_told_of(size: int, is_forwarded: bool) -> None:
    """Each time that a send times out on_quiet is called, and the rest is sent after it."""
    data = random.Random(size).randbytes(size)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 500))
    theirs.setblocking(False)
    got = bytearray()

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            while part := theirs.recv(1024 * 1024):
                got.extend(part)

    with ours, theirs, Told([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, data]) as sock:
        to = connection.Connection(ours)
        to.on_quiet = read
        if is_forwarded:
            message = connection.Connection(sock)
            message.receive()
            message.forward(to, START)
        else:
            to.send(data)
        read()
    assert got.endswith(data)
    assert len(got) == size + is_forwarded * len(START + b"\r\nContent-Length: %d\r\n\r\n" % size)


def test_a_socket_that_fails_is_closed() -> None:
    """Whatever else the kernel says instead of data is Closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(connection.Closed):
            connection.Connection(ours).receive()


def test_what_on_quiet_raises_ends_the_wait() -> None:
    """Who waits no longer raises Closed in on_quiet."""

    def give_up() -> None:
        raise connection.Closed

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        it = connection.Connection(ours)
        it.on_quiet = give_up
        with pytest.raises(connection.Closed):
            it.receive()


@given(sent=st.integers(1, 100_000), read=st.integers(0, 100_000), said=st.binary(max_size=20))
@settings(max_examples=100)
@example(sent=1, read=0, said=b"")
@example(sent=10, read=10, said=b"")
def test_a_peer_that_has_not_read_all_is_told_from_one_that_has(sent: int, read: int, said: bytes) -> None:
    """A peer that closes is Unread where bytes for it are left in its queue, else merely Closed."""
    ours, theirs = socket.socketpair()
    with ours:
        it = connection.Connection(ours)
        it.send(b"x" * sent)
        with theirs:
            left = sent
            while left > max(0, sent - read):
                left -= len(theirs.recv(left - max(0, sent - read)))
            theirs.sendall(said)
        with pytest.raises(connection.Closed) as caught:
            it.receive()
    assert type(caught.value) is (connection.Unread if left else connection.Closed)


# --- What goes to the Runtime API ----------------------------------------------------------------


@given(text=st.binary())
@settings(max_examples=200)
@example(text=bytes(range(256)))
def test_a_quoted_segment_is_the_same_segment(text: bytes) -> None:
    """Any request id is one path segment of unreserved characters and escapes, and the same when read."""
    quoted = runtime_api.quote(text)
    assert unquote_to_bytes(quoted) == text
    assert re.fullmatch(rb"([0-9A-Za-z._~-]|%[0-9A-F]{2})*", quoted)


TYPE = b"Lambda-Runtime-Function-Error-Type"
CAUSE = b"Lambda-Runtime-Function-XRay-Error-Cause"
CAUSED = st.binary(max_size=40) | st.text(VISIBLE, max_size=20).map(latin1) | st.just(b"a\r\n X-Injected: b")


@given(error_type=CAUSED, cause=CAUSED, more=CAUSED)
@settings(max_examples=200)
@example(error_type=b"A\nX-Injected: b", cause=b"A\rX-Injected: b", more=b"")
def test_an_error_has_valid_headers_alone(error_type: bytes, cause: bytes, more: bytes) -> None:
    """Whatever a function makes of the bridge's head, Lambda gets these header lines in visible ASCII."""
    lines = [b"HTTP/1.1 500 Error", TYPE + b": " + error_type, CAUSE + b": " + cause, more]
    with Told([CRLF.join(lines) + b"\r\n\r\n"], closes=True) as sock:
        message = connection.Connection(sock)
        try:
            message.receive()
        except connection.Closed:
            return
        head = runtime_api.error_head(message)
    empty, *sent = head.split(CRLF)
    assert empty == b""
    assert all(re.fullmatch(rb"[A-Za-z-]+: [\x20-\x7e]+", line) for line in sent)
    assert [line.partition(b":")[0] for line in sent] in (
        [b"Content-Type", TYPE],
        [b"Content-Type", TYPE, CAUSE],
    )


@pytest.mark.parametrize("size", [1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1])
def test_a_cause_is_passed_on_up_to_its_limit(size: int) -> None:
    """The type and the X-Ray cause are the bridge's own; a cause over 64 KiB, which nobody keeps, goes."""
    cause = b"{" + b"c" * (size - 1)
    lines = [b"HTTP/1.1 500 Error", TYPE + b": Function.Mine", CAUSE + b": " + cause]
    with Told([CRLF.join(lines) + b"\r\n\r\n"]) as sock:
        message = connection.Connection(sock)
        message.receive()
        sent = runtime_api.error_head(message).split(CRLF)
    assert TYPE + b": Function.Mine" in sent
    assert (CAUSE + b": " + cause in sent) == (size <= 64 * 1024)
