"""A response that the function streams: the bridge's chunks to Lambda as they come; loaded at the first one.

    bridge -> head -> chunk, chunk, a log event among them, ... -> trailers -> Runtime API

Chunks pass as they are, one write for each read, so that the first byte leaves at once; while Lambda
takes no more, nothing is read from the bridge either, and the function waits. An error in the middle
goes behind the body, as trailers; nobody can take the head back.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
"""

from _json import encode_basestring_ascii as quoted
from _socket import MSG_DONTWAIT, MSG_PEEK

from connection import HEXADECIMAL, Closed, Connection, Malformed
from runtime_api import PLAIN, VISIBLE, RuntimeApi

if False:  # for the type checker; importing typing would cost a millisecond
    from fault import Fault
    from runtime import Runtime

HEAD = (
    b"\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked"
    b"\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\nContent-Type: "
)
CANCEL = b"DELETE /invocation HTTP/1.1\r\n\r\n"
LOG = b"log"  # the extension of a chunk that is a log event
LONGEST_SIZE = 16  # bytes of a chunk's first line
DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # of base64


class Gone(Exception):
    """Lambda takes no more of this response."""


def forward(runtime: "Runtime", api: RuntimeApi) -> bool:
    """Stream the bridge's response to Lambda. True where the bridge's process ends with it.

    Raises RuntimeApiError.
    """
    bridge = runtime.bridge
    look = bridge.on_quiet
    chunks = Chunks(runtime)
    try:
        to = api.begin_stream(HEAD + content_type(bridge))

        def look_around() -> None:
            if look:
                look()
            if is_cut(to):
                raise Gone

        bridge.on_quiet = look_around
        chunks.pass_on(to)
    except (Gone, OSError):
        bridge.on_quiet = look
        cancel(chunks, api)
        return False
    except Closed as error:
        bridge.on_quiet = look
        trailers = described(runtime.ended(words(runtime), error))
    else:
        bridge.on_quiet = look
        trailers = chunks.trailers
    api.end_stream(error_trailers(trailers))
    return b"last" in trailers


class Chunks:
    """The chunked body on the bridge's connection (RFC 9112 §7.1), from the first chunk to the trailers."""

    def __init__(self, runtime: "Runtime") -> None:
        self.runtime = runtime
        self.bridge = runtime.bridge
        self.at = self.bridge.total  # in its buffer: what is to be looked at next
        self.left = 0  # bytes of the chunk there, and its line end, that are still to come
        self.trailers: dict[bytes, bytes] = {}  # names in lower case

    def pass_on(self, to: Connection | None) -> None:
        """Send chunks on, to the last. Without a receiver they are let go.

        Raises Closed for the bridge, OSError for the receiver; may be called again after that.
        """
        bridge = self.bridge
        start = self.at  # what is to be sent next
        while True:
            step = min(self.left, bridge.end - self.at)
            self.left -= step
            self.at += step
            end = -1 if self.left else bridge.buffer.find(b"\r\n", self.at, bridge.end)
            if end < 0:
                self._send(to, start)
                start = 0
                self._read()
                continue
            size, _, extension = bytes(bridge.view[self.at : end]).partition(b";")
            if not size or size.strip(HEXADECIMAL):
                raise Malformed("a chunk without a size")
            length = int(size, 16)
            if length and extension != LOG:
                self.at = end + 2
                self.left = length + 2
                continue
            self._send(to, start)
            if not length:
                bridge.total = end + 2
                self._read_trailers()
                return
            bridge._fill(end + 2 + length + 2)
            self.runtime.take(bridge.view[end + 2 : end + 2 + length])
            self.at = start = end + 2 + length + 2

    def _send(self, to: Connection | None, start: int) -> None:
        if to and self.at > start:
            to.send(bytes(self.bridge.view[start : self.at]))

    def _read(self) -> None:
        """Read on, behind what has not been looked at."""
        bridge = self.bridge
        rest = bridge.end - self.at
        if rest > LONGEST_SIZE and not self.left:
            raise Malformed("a chunk without a size")
        bridge.view[:rest] = bridge.view[self.at : bridge.end]
        self.at, bridge.end = 0, rest
        bridge.end += bridge._read(rest)

    def _read_trailers(self) -> None:
        """Read the lines behind the last chunk; what follows them stays for the next message."""
        bridge = self.bridge
        while True:
            end = bridge.buffer.find(b"\r\n", bridge.total, bridge.end)
            while end < 0:
                bridge.end += bridge._read(bridge.end)
                end = bridge.buffer.find(b"\r\n", bridge.total, bridge.end)
            line = bytes(bridge.view[bridge.total : end])
            bridge.total = end + 2
            if not line:
                return
            name, _, value = line.partition(b":")
            self.trailers[name.lower()] = value.strip()


def content_type(bridge: Connection) -> bytes:
    """What the function says that it streams, where that can be a header."""
    value = bridge.header(b"content-type")
    return b"application/octet-stream" if not value or value.translate(None, VISIBLE) else value


def cancel(chunks: Chunks, api: RuntimeApi) -> None:
    """Have the bridge end a stream that nobody reads, and let go of what is on its way."""
    from logs import write

    runtime = chunks.runtime
    write("WARN", "lambdeno: the caller takes no more of the response: it is cancelled", runtime.request_id)
    api.reconnect()
    try:
        runtime.bridge.send(CANCEL)
        chunks.pass_on(None)
    except OSError:
        runtime.ended(words(runtime))
    except Closed as error:
        runtime.ended(words(runtime), error)


def words(runtime: "Runtime") -> str:
    """When it is that a process is gone."""
    return f"while it streamed the response to request {runtime.request_id.decode()}"


def is_cut(connection: Connection) -> bool:
    """Whether Lambda has closed the connection that we write to."""
    try:
        return not connection.sock.recv(1, MSG_PEEK | MSG_DONTWAIT)  # type: ignore[union-attr]
    except BlockingIOError:
        return False
    except OSError:
        return True


def described(fault: "Fault") -> dict[bytes, bytes]:
    """A fault as the bridge would tell of an error."""
    kind = quoted(fault.error_type).encode()
    body = b'{"errorType":%b,"errorMessage":%b,"trace":[]}' % (kind, quoted(fault.message).encode())
    return {
        b"lambda-runtime-function-error-type": fault.error_type.encode(),
        b"lambda-runtime-function-error-body": base64(body),
    }


def error_trailers(trailers: dict[bytes, bytes]) -> bytes:
    """The lines that tell Lambda of an error behind a body; none where there is no error."""
    error_type = trailers.get(b"lambda-runtime-function-error-type", b"")
    body = trailers.get(b"lambda-runtime-function-error-body", b"")
    if not error_type:
        return b""
    return b"Lambda-Runtime-Function-Error-Type: %b\r\nLambda-Runtime-Function-Error-Body: %b\r\n" % (
        b"Function.Unhandled" if error_type.strip(PLAIN) else error_type,
        b"" if body.strip(DIGITS + b"=") else body,
    )


def base64(data: bytes) -> bytes:
    """RFC 4648 §4; binascii is not part of the binary, and this is short."""
    pad = -len(data) % 3
    number = int.from_bytes(data + bytes(pad), "big")
    size = (len(data) + pad) // 3 * 4
    text = bytes(DIGITS[number >> 6 * place & 63] for place in range(size - 1, -1, -1))
    return text[: size - pad] + b"=" * pad
