"""HTTP/1.1 messages over one socket, as bytes: heads are looked at, bodies only passed on.

A received message lies in one buffer from the first byte of its head. `forward` gives it a new
start line and sends the rest as it came. Format: RFC 9112.
"""

if False:  # for the type checker; importing typing would cost a millisecond
    from _socket import socket
    from collections.abc import Callable

    from streams import Streams

BUFFER = 256 * 1024  # bytes: more than a Unix socket holds at once, little enough for 128 MB
LARGEST = 8 * 1024 * 1024  # bytes: over any head (1 MB) or event (6 MB) that Lambda lets through
# How often a socket with a timeout lets its reader look around: struct timeval of 64 bits, 50 ms.
TIMEOUT = (0).to_bytes(8, "little") + (50_000).to_bytes(8, "little")
SOL_SOCKET, SO_RCVTIMEO = 1, 20
DIGITS = 10  # of a length
BLANKS = b" \t"
HEXADECIMAL = b"0123456789abcdefABCDEF"
STREAMED = b"\r\nlambda-runtime-function-response-mode: streaming\r\n"  # the bridge alone says so


class Closed(Exception):
    """The peer is gone, or what it sends is not HTTP."""


class Malformed(Closed):
    """What the peer sends is not the message that is awaited."""


class Unread(Closed):
    """The peer is gone, and has not read all that was sent to it: unix(7) resets the connection then."""


class Connection:
    """One socket, and the message that was received on it last.

    ``on_quiet`` is called each time that the socket's own timeout is over while a message is sent or
    waited for; ``on_informational`` with the body of each 1xx response, which is no message of its own.
    """

    def __init__(self, sock: "socket | Streams") -> None:
        self.sock = sock
        self.on_quiet: Callable[[], None] | None = None
        self.on_informational: Callable[[memoryview], None] = ignore
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.original = b""  # the head up to and with the last line's CRLF
        self.head = b""  # the same in lower case
        self.end = 0  # bytes of the message in the buffer
        self.total = 0  # bytes of the message, head and body
        self.unread = 0  # bytes of the message still to come from the socket
        self.added = b""  # a header line that unchunking adds
        self.is_stream = False  # its body is read by streaming.py, chunk by chunk

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        sent = self._send_some(data)
        if sent < len(data):
            self._send_all(memoryview(data)[sent:])

    def _send_some(self, data: "bytes | memoryview") -> int:
        while True:
            try:
                return self.sock.send(data)
            except BlockingIOError:
                if self.on_quiet:
                    self.on_quiet()

    def _send_all(self, data: memoryview) -> None:
        """As socket.sendall, which would not say how far it came before a timeout."""
        while data:
            data = data[self._send_some(data) :]

    def forget(self) -> None:
        """Drop what came behind the last message: a request is about to be sent, whose answer is to come."""
        self.end = self.total = 0
        self.head = b""

    def receive(self) -> None:
        """Read one message: all of its head, and what came of its body along with it.

        Raises Closed.
        """
        rest = self.end - self.total
        if rest > 0:  # this message has begun in the same read
            self.view[:rest] = self.view[self.total : self.end]
            self.end = rest
        else:
            self.end = 0
            if len(self.buffer) > BUFFER:
                self._resize(BUFFER)
        self.total = 0
        self.head = b""
        self.is_stream = False
        while True:
            self.added = b""
            at = self.buffer.find(b"\r\n\r\n", 0, self.end)
            while at < 0:
                searched = max(0, self.end - 3)
                self.end += self._read(self.end)
                at = self.buffer.find(b"\r\n\r\n", searched, self.end)
            self.original = bytes(self.view[: at + 2])
            self.head = self.original.lower()
            if b"\r\ntransfer-encoding:" in self.head:
                if STREAMED in self.head:
                    self.is_stream = True
                    self.total, self.unread = at + 4, 0
                    return
                self._unchunk(at + 4)
            else:
                lengths = self.head.count(b"\r\ncontent-length:")
                length = self.header(b"content-length") if lengths else b"0"
                if lengths > 1 or not length.isdigit() or len(length) > DIGITS:
                    raise Malformed("a Content-Length that is no number, or two")
                self.total = at + 4 + int(length)
            if not self.head.startswith(b"http/1.1 1"):
                break
            self._pass_informational(at + 4)
        self.unread = max(0, self.total - self.end)

    def _pass_informational(self, at: int) -> None:
        """Give a 1xx response away; what has come of the next message in the same read is kept."""
        self._fill(self.total)
        self.on_informational(self.view[at : self.total])
        rest = self.end - self.total
        self.view[:rest] = self.view[self.total : self.end]
        self.end, self.total = rest, 0
        self.head = b""

    def status(self) -> int:
        """The status of a received response. Raises Closed where there is none."""
        digits = self.original[9:12]
        if not self.head.startswith(b"http/1.") or not digits.isdigit():
            raise Malformed("an answer that is not HTTP")
        return int(digits)

    @property
    def reason(self) -> bytes:
        """The reason phrase of a received response: the bridge has its request's number there."""
        return self.original[13 : self.original.find(b"\r")]

    @property
    def has_more(self) -> bool:
        """Whether bytes came behind the last message, in the same read."""
        return self.end > self.total

    def header(self, name: bytes) -> bytes:
        """A header's value as it came, or nothing. ``name`` is in lower case."""
        at = self.head.find(b"\r\n" + name + b":")
        if at < 0:
            return b""
        at += len(name) + 3
        head = self.head
        end = head.index(b"\r\n", at)
        if end + 2 < len(head) and head[end + 2] in BLANKS:
            return self._folded(at, end)
        return self.original[at:end].strip()

    def _folded(self, at: int, end: int) -> bytes:
        """A header's value that goes on in the next line (RFC 9112 §5.2)."""
        while end + 2 < len(self.head) and self.head[end + 2] in BLANKS:
            end = self.head.index(b"\r\n", end + 2)
        return self.original[at:end].replace(b"\r\n", b"").strip()

    def forward(self, to: "Connection", start: bytes) -> None:
        """Send the message on with ``start`` as its start line (no line break), in bounded memory.

        Raises Closed for this side, OSError for the other.
        """
        after = self.head.index(b"\r\n")
        if self.added:  # after whatever the head says of a length
            at = len(self.head) - 2
            start, after = start + bytes(self.view[after:at]) + self.added, at
        to.send(start + bytes(self.view[after : min(self.end, self.total)]))
        if self.unread:
            self._send_rest(to)

    def forward_body(self, to: "Connection", head: bytes) -> None:
        """Send the body alone on, under a head of ours (no line break at its end), in bounded memory.

        Raises Closed for this side, OSError for the other.
        """
        at = len(self.head) + 2
        body = bytes(self.view[at : min(self.end, self.total)])
        to.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, self.total - at, body))
        if self.unread:
            self._send_rest(to)

    def _send_rest(self, to: "Connection") -> None:
        while self.unread:
            got = self._read(0, self.unread)
            self.unread -= got
            to._send_all(self.view[:got])

    def body(self) -> bytes:
        """The whole body: for short ones. Raises Closed."""
        self._fill(self.total)
        self.unread = 0
        return bytes(self.view[len(self.head) + 2 : self.total])

    @property
    def is_whole(self) -> bool:
        """Whether all of the message is in the buffer, to be sent again if need be."""
        return self.total <= self.end

    def _fill(self, end: int) -> None:
        """Have at least so many bytes in the buffer."""
        while self.end < end:
            self.end += self._read(self.end)

    def drain(self) -> None:
        """Read what is left of the message and let it go. Raises Closed."""
        while self.unread:
            self.unread -= self._read(0, self.unread)

    def _read(self, at: int, most: int = LARGEST) -> int:
        """Read what is there to the buffer at an offset; the count is never 0."""
        if at == len(self.buffer):
            self._resize(2 * at)
        while True:
            try:
                got = self.sock.recv_into(self.view[at : at + most])
                break
            except BlockingIOError:
                if self.on_quiet:
                    self.on_quiet()
            except ConnectionResetError as error:
                raise Unread(str(error)) from None
            except OSError as error:
                raise Closed(str(error)) from None
        if not got:
            raise Closed("the connection was closed")
        return got

    def _resize(self, size: int) -> None:
        if size > 2 * LARGEST:
            raise Malformed("a message over every limit of Lambda")
        old = self.buffer
        self.view.release()
        self.buffer = old[:size] + bytes(max(0, size - len(old)))
        self.view = memoryview(self.buffer)

    def _unchunk(self, start: int) -> None:
        """Read a chunked body whole and close its gaps. Go servers chunk what they write over 2 KB."""
        coding = b"\r\ntransfer-encoding:"
        if self.head.count(coding) > 1 or self.header(coding[2:-1]).lower() != b"chunked":
            raise Malformed("a Transfer-Encoding that is unknown")
        read, to = start, start  # the next chunk's line; where its data goes
        while True:
            line_end = self.buffer.find(b"\r\n", read, self.end)
            while line_end < 0:
                self.end += self._read(self.end)
                line_end = self.buffer.find(b"\r\n", read, self.end)
            word = bytes(self.view[read:line_end]).partition(b";")[0].strip()
            if not word or len(word) > DIGITS or word.strip(HEXADECIMAL):
                raise Malformed("a chunk without a size")
            size = int(word, 16)
            read = line_end + 2
            if size == 0:
                break
            self._fill(read + size + 2)
            if self.buffer[read + size : read + size + 2] != b"\r\n":
                raise Malformed("a chunk longer than its size")
            self.view[to : to + size] = self.view[read : read + size]
            to += size
            read += size + 2
        self._fill(read + 2)
        while self.buffer[read : read + 2] != b"\r\n":  # trailers
            line_end = self.buffer.find(b"\r\n", read, self.end)
            if line_end < 0:
                self.end += self._read(self.end)
            else:
                read = line_end + 2
                self._fill(read + 2)
        rest = self.end - read - 2  # what came behind the message
        self.view[to : to + rest] = self.view[read + 2 : self.end]
        self.end, self.total = to + rest, to
        self.added = b"\r\nContent-Length: %d" % (to - start)


def ignore(_: memoryview) -> None:
    """What a 1xx response says is of no use."""
