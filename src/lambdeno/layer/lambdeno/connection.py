"""HTTP/1.1 messages over one socket, as bytes: heads are looked at, bodies only passed on.

A received message lies in one buffer from the first byte of its head. `forward` gives it a new
start line and sends the rest as it came. Format: RFC 9112.
"""

if False:  # for the type checker; importing typing would cost a millisecond
    from _socket import socket

    from streams import Streams

BUFFER = 256 * 1024  # bytes: more than a Unix socket holds at once, little enough for 128 MB
LARGEST = 8 * 1024 * 1024  # bytes: over any head (1 MB) or event (6 MB) that Lambda lets through


class Closed(Exception):
    """The peer is gone, or what it sends is not HTTP."""


class Connection:
    """One socket, and the message that was received on it last."""

    def __init__(self, sock: "socket | Streams") -> None:
        self.sock = sock
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.head = b""  # up to and with the last line's CRLF, in lower case
        self.end = 0  # bytes of the message in the buffer
        self.total = 0  # bytes of the message, head and body
        self.unread = 0  # bytes of the message still to come from the socket
        self.added = b""  # a header line that unchunking adds

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.sendall(memoryview(data)[sent:])

    def receive(self) -> None:
        """Read one message: all of its head, and what came of its body along with it.

        Raises Closed.
        """
        if len(self.buffer) > BUFFER:
            self._resize(BUFFER)
        self.added = b""
        end = self._read(0)
        at = self.buffer.find(b"\r\n\r\n", 0, end)
        while at < 0:
            searched = max(0, end - 3)
            end += self._read(end)
            at = self.buffer.find(b"\r\n\r\n", searched, end)
        self.end = end
        self.head = bytes(self.view[: at + 2]).lower()
        length = self.header(b"content-length")
        if length.isdigit():
            self.total = at + 4 + int(length)
        elif length:
            raise Closed("a Content-Length that is no number")
        elif self.header(b"transfer-encoding").lower() == b"chunked":
            self._unchunk(at + 4)
        else:
            self.total = at + 4
        self.unread = max(0, self.total - self.end)

    def status(self) -> int:
        """The status of a received response. Raises Closed where there is none."""
        digits = bytes(self.view[9:12])
        if not self.head.startswith(b"http/1.") or not digits.isdigit():
            raise Closed("an answer that is not HTTP")
        return int(digits)

    def header(self, name: bytes) -> bytes:
        """A header's value as it came, or nothing. ``name`` is in lower case."""
        at = self.head.find(b"\r\n" + name + b":")
        if at < 0:
            return b""
        at += len(name) + 3
        return bytes(self.view[at : self.head.index(b"\r\n", at)]).strip()

    def forward(self, to: "Connection", start: bytes) -> None:
        """Send the message on with ``start`` as its start line (no line break), in bounded memory.

        Raises Closed for this side, OSError for the other.
        """
        after = self.head.index(b"\r\n")
        to.send(start + self.added + bytes(self.view[after : min(self.end, self.total)]))
        while self.unread:
            got = self._read(0, self.unread)
            self.unread -= got
            to.sock.sendall(self.view[:got])

    def body(self) -> bytes:
        """The whole body: for short ones. Raises Closed."""
        while self.unread:
            got = self._read(self.end)
            self.end += got
            self.unread -= got
        return bytes(self.view[len(self.head) + 2 : self.total])

    def drain(self) -> None:
        """Read what is left of the message and let it go. Raises Closed."""
        while self.unread:
            self.unread -= self._read(0, self.unread)

    def _read(self, at: int, most: int = LARGEST) -> int:
        """Read what is there to the buffer at an offset; the count is never 0."""
        if at == len(self.buffer):
            self._resize(2 * at)
        try:
            got = self.sock.recv_into(self.view[at : at + most])
        except OSError as error:
            raise Closed(str(error)) from None
        if not got:
            raise Closed("the connection was closed")
        return got

    def _resize(self, size: int) -> None:
        if size > 2 * LARGEST:
            raise Closed("a message over every limit of Lambda")
        old = self.buffer
        self.view.release()
        self.buffer = old[:size] + bytes(max(0, size - len(old)))
        self.view = memoryview(self.buffer)

    def _unchunk(self, start: int) -> None:
        """Read a chunked body whole and close its gaps. Go servers chunk what they write over 2 KB."""
        read, to = start, start  # the next chunk's line; where its data goes
        while True:
            line_end = self.buffer.find(b"\r\n", read, self.end)
            while line_end < 0:
                self.end += self._read(self.end)
                line_end = self.buffer.find(b"\r\n", read, self.end)
            try:
                size = int(bytes(self.view[read:line_end]).partition(b";")[0], 16)
            except ValueError:
                raise Closed("a chunk without a size") from None
            read = line_end + 2
            while self.end < read + size + 2:
                self.end += self._read(self.end)
            if size == 0:
                break
            self.view[to : to + size] = self.view[read : read + size]
            to += size
            read += size + 2
        while self.buffer[read : read + 2] != b"\r\n":  # trailers
            line_end = self.buffer.find(b"\r\n", read, self.end)
            if line_end < 0:
                self.end += self._read(self.end)
            else:
                read = line_end + 2
        self.end = self.total = to
        self.added = b"\r\nContent-Length: %d" % (to - start)
