"""The client of Lambda's Runtime API: one method for each endpoint, one kept-alive connection.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SHUT_WR, SOCK_STREAM, TCP_NODELAY, socket

from connection import SO_RCVTIMEO, SOL_SOCKET, TIMEOUT, Closed, Connection

if False:  # for the type checker; importing typing would cost a millisecond
    from collections.abc import Callable

PREFIX = b"/2018-06-01/runtime"
ERROR_TYPE = b"application/vnd.aws.lambda.error+json"
MAY_CLOSE = b"\r\nconnection:"
RESULT = b"\r\nContent-Type: application/json"
VISIBLE = bytes(range(0x20, 0x7F))
LAST_LOOK = 0.1  # s for an event that is on its way when this environment ends
LONGEST_CAUSE = 64 * 1024  # bytes that the platform keeps of an X-Ray cause
PLAIN = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~"


class RuntimeApiError(Exception):
    """The Runtime API does not answer as it must: this environment cannot go on."""


class RuntimeApi:
    """The Runtime API at ``host:port``. Raises RuntimeApiError wherever it cannot be reached."""

    def __init__(self, address: str, note: "Callable[[str], None] | None" = None) -> None:
        self.note = note  # takes what is done here, for LAMBDENO_DEBUG
        self.on_quiet: Callable[[], None] | None = None  # see watch
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.headers = b" HTTP/1.1\r\nHost: %b\r\nUser-Agent: lambdeno" % address.encode()
        self.init_start = b"POST %b/init/error%b" % (PREFIX, self.headers)
        self.next_request = b"GET %b/invocation/next%b\r\n\r\n" % (PREFIX, self.headers)
        self.connection = self.connect()
        self.is_fresh = True  # nothing was asked on it yet
        self.request_id = b""
        self.invocation_id = b""
        self.extension: Connection | None = None  # see extension.py
        self.is_pipelining = True
        self.is_asked = False  # whether the next event is asked for already
        self.post = b""  # sent, and not yet taken; the request for the next event may be behind it

    def connect(self) -> Connection:
        """Another connection to it. Raises RuntimeApiError."""
        family = AF_INET6 if ":" in self.address[0] else AF_INET
        sock = socket(family, SOCK_STREAM)
        try:
            sock.connect(self.address)
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError as error:
            raise RuntimeApiError(
                f"Cannot reach the Runtime API at {self.address[0]}:{self.address[1]}: {error}"
            ) from None
        connection = Connection(sock)
        if self.on_quiet:
            self._watch(connection)
        return connection

    def watch(self, on_quiet: "Callable[[], None]") -> None:
        """Have something called every 50 ms while the next event is waited for.

        Signals are handled then as well: one that comes right before the wait does not end it.
        """
        self.on_quiet = on_quiet
        self._watch(self.connection)

    def _watch(self, connection: Connection) -> None:
        connection.sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, TIMEOUT)  # type: ignore[union-attr]
        connection.on_quiet = self.on_quiet

    def next(self) -> Connection:
        """Wait for the next event: the message on the connection is the event, headers and body.

        No timeout: the environment is frozen while it waits.
        """
        if self.note:
            self.note("asks for the next event")
        try:
            if self.post:
                self.settle()
            try:
                self._receive_next()
            except (OSError, Closed):
                if self.is_fresh or self.connection.head:
                    raise
                self.reconnect()  # the server had closed the connection after a post
                self._receive_next()
            connection = self.connection
            status = connection.status()
        except (OSError, Closed) as error:
            if self._has_event():
                self.decline(f"it broke off on its way: {error}")
            raise RuntimeApiError(f"Cannot get the next event: {error}") from None
        if not self._has_event():
            raise RuntimeApiError(f"Cannot get the next event: the Runtime API answered {status}")
        if self.note:
            self.note(f"has event {self.request_id.decode()} of {connection.total} bytes with its head")
        return connection

    def _has_event(self) -> bool:
        """True if the head of an event is there; the next post answers that event then."""
        connection = self.connection
        request_id = connection.header(b"lambda-runtime-aws-request-id")
        if not request_id or connection.head[:7] != b"http/1." or connection.head[9:12] != b"200":
            return False
        self.request_id = request_id
        self.invocation_id = connection.header(b"lambda-runtime-invocation-id")
        return True

    def decline(self, why: str) -> None:
        """Answer an event that no handler gets with an error, since this environment ends."""
        from fault import Fault

        fault = Fault("Runtime.EventNotHandled", f"Cannot handle the event: {why}", self.request_id)
        left = self.connection  # open until the answer is there: closing it could be taken for an end
        try:
            self.connection = self.connect()
            self._post(b"error", self._start(b"error", fault.head()), fault.body(), is_last=True)
        except RuntimeApiError as error:
            self._log(f"lambdeno: {error}")
        left.sock.close()

    def _decline_next(self, why: str) -> None:
        """Answer the event that was asked for behind a response, if it is there or on its way.

        The request is taken back by closing our side of the connection, so that a server which has no
        event ends it at once; one that has sent an event before it heard of that has LAST_LOOK to arrive.
        """
        sock: socket = self.connection.sock  # type: ignore[assignment]
        try:
            sock.shutdown(SHUT_WR)
            sock.settimeout(LAST_LOOK)
        except OSError:
            pass  # the server has ended it, perhaps behind an event
        try:
            self.connection.receive()
            self.connection.drain()
        except (OSError, Closed):
            pass  # no event, or half of one
        if self._has_event():
            self.decline(why)

    def ask(self) -> None:
        """Ask for the next event, unless that is done. Raises OSError."""
        if not self.is_asked:
            self.connection.forget()
            self.connection.send(self.next_request)
            self.is_asked = True

    def _receive_next(self) -> None:
        self.ask()
        self.connection.receive()
        self.is_asked = False

    def settle(self) -> None:
        """Read the answer to a post that was sent and left. Raises RuntimeApiError."""
        post, self.post = self.post.removesuffix(self.next_request), b""
        try:
            self._read_acknowledgement(b"response")
        except RuntimeApiError as error:
            if self.is_asked:
                self._decline_next(f"this environment ends before it: {error}")
            raise
        except Closed as error:
            self._lose(b"response", error)
            try:
                self.connection.send(post)
                self._acknowledge(b"response")
            except (OSError, Closed) as again:
                raise RuntimeApiError(f"Cannot post to the Runtime API: {again}") from None

    def answer(self, outcome: bytes, message: Connection) -> None:
        """Post a received message as this invocation's ``response`` or ``error``.

        Raises Closed where the message breaks off; the half-sent post is cut, so that Lambda
        cannot take it for whole.
        """
        start = self._start(outcome, RESULT if outcome == b"response" else error_head(message))
        if MAY_CLOSE in self.connection.head:
            self.keep_open()
        try:
            message.forward_body(self.connection, start)
        except Closed:
            self.reconnect()
            raise
        except OSError:  # refused before it was read whole: over 6 MB, most likely
            is_cut = True
            drain(message)
        else:
            is_cut = False
        try:
            self._acknowledge(outcome)
            if is_cut:
                self.reconnect()  # half a post is left in this one
        except Closed as error:
            self._lost(outcome, message, start, error)

    def begin_stream(self, head: bytes) -> Connection:
        """Begin this invocation's response: the connection that takes its chunks. Raises OSError.

        ``head`` is header lines, a CRLF before each.
        """
        self.keep_open()
        self.connection.send(self._start(b"response", head) + b"\r\n\r\n")
        return self.connection

    def end_stream(self, trailers: bytes) -> None:
        """End a streamed response with the last chunk and its trailers, lines with a CRLF each.

        The connection is left then, as Lambda wants it.
        """
        try:
            self.connection.send(b"0\r\n%b\r\n" % trailers)
            self._acknowledge(b"response")
        except (OSError, Closed) as error:
            self._log(f"lambdeno: no answer of the Runtime API to the streamed response: {error}")
        self.reconnect()

    def post_error(self, head: bytes, body: bytes) -> None:
        """Post an error of our own for this invocation; ``head`` is header lines, a CRLF before each."""
        self._post(b"error", self._start(b"error", head), body)

    def init_error(self, message: Connection) -> None:
        """Post a received message as the reason why this environment cannot serve."""
        try:
            message.forward_body(self.connection, self.init_start + error_head(message))
            self._acknowledge(b"init/error")
        except (OSError, Closed) as error:
            raise RuntimeApiError(f"Cannot post to the Runtime API: {error}") from None

    def post_init_error(self, head: bytes, body: bytes) -> None:
        """Post a reason of our own why this environment cannot serve."""
        self._post(b"init/error", self.init_start + head, body)

    def _start(self, outcome: bytes, head: bytes) -> bytes:
        start = b"POST %b/invocation/%b/%b%b%b" % (
            PREFIX,
            quote(self.request_id),
            outcome,
            self.headers,
            head,
        )
        if self.invocation_id:  # echoed, so that a late answer cannot meet another attempt
            start += b"\r\nLambda-Runtime-Invocation-Id: " + self.invocation_id
        return start

    def _post(self, outcome: bytes, head: bytes, body: bytes, *, is_last: bool = False) -> None:
        self.keep_open()
        try:
            self.connection.send(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
            self._acknowledge(outcome)
        except (OSError, Closed) as error:
            if is_last:
                raise RuntimeApiError(f"Cannot post to the Runtime API: {error}") from None
            self._lose(outcome, error)
            self._post(outcome, head, body, is_last=True)

    def keep_open(self) -> None:
        """Have a connection that the server does not close."""
        if b"close" in self.connection.header(b"connection").lower():
            self.reconnect()

    def _acknowledge(self, outcome: bytes) -> None:
        """Read the answer to a post: 202 is yes, 4xx are logged, 500 ends the environment.

        Raises Closed where there is none.
        """
        self.connection.forget()
        self._read_acknowledgement(outcome)

    def _read_acknowledgement(self, outcome: bytes) -> None:
        connection = self.connection
        self.is_fresh = False
        is_cut = False
        said = b""
        try:
            connection.receive()
            if connection.status() == 202:
                connection.drain()
            else:
                said = connection.body()
        except Closed:
            if not connection.head:
                raise
            is_cut = True  # in its body: the status is there
        status = connection.status()
        if self.note:
            self.note(f"has posted {outcome.decode()}: {status}")
        if is_cut:
            self.reconnect()
        elif MAY_CLOSE in connection.head:
            self.keep_open()
        if status != 202:
            self._refused(outcome, status, said.decode("utf-8", "replace").strip())

    def _lost(self, outcome: bytes, message: Connection, start: bytes, why: Exception) -> None:
        """The connection ended without a word about a post: post it once more, or that it is lost.

        The Runtime API takes one answer for each request id and refuses another with 400 or 403, so that
        this cannot answer twice.
        """
        self._lose(outcome, why)
        if message.is_whole:
            try:
                message.forward_body(self.connection, start)
                self._acknowledge(outcome)
            except (OSError, Closed) as error:
                raise RuntimeApiError(f"Cannot post to the Runtime API: {error}") from None
        else:
            from fault import Fault

            what = "The result was cut off on its way to Lambda"
            fault = Fault("Runtime.ResponseLost", what, self.request_id)
            self._post(b"error", self._start(b"error", fault.head()), fault.body(), is_last=True)

    def _lose(self, outcome: bytes, why: Exception) -> None:
        self._log(f"lambdeno: no answer of the Runtime API to the {outcome.decode()}: {why}")
        self.reconnect()

    def _refused(self, outcome: bytes, status: int, body: str) -> None:
        if status >= 500:
            raise RuntimeApiError(f"The Runtime API answered {status} to {outcome.decode()}: {body}")
        self._log(f"lambdeno: the Runtime API refused the {outcome.decode()} with {status}: {body}")

    def _log(self, text: str) -> None:
        from logs import write

        write("WARN", text, self.request_id)

    def reconnect(self) -> None:
        """Leave a connection of which nothing good is to be expected. Raises RuntimeApiError."""
        self.connection.sock.close()
        self.connection = self.connect()
        self.is_fresh = True
        self.is_asked = False


def error_head(message: Connection) -> bytes:
    """Header lines for an error that the bridge sends, in which a function may have had its hand."""
    error_type = message.header(b"lambda-runtime-function-error-type")
    if not error_type or error_type.strip(PLAIN):
        error_type = b"Function.Unhandled"
    head = b"\r\nContent-Type: %b\r\nLambda-Runtime-Function-Error-Type: %b" % (ERROR_TYPE, error_type)
    cause = message.header(b"lambda-runtime-function-xray-error-cause")
    if cause and len(cause) <= LONGEST_CAUSE and not cause.translate(None, VISIBLE):
        head += b"\r\nLambda-Runtime-Function-XRay-Error-Cause: " + cause
    return head


def drain(message: Connection) -> None:
    """Let go of the rest of a message, whose sender may be gone."""
    try:
        message.drain()
    except Closed:
        pass


def quote(text: bytes) -> bytes:
    """Percent-encode a path segment (RFC 3986 §2.1)."""
    if not text.strip(PLAIN):
        return text
    return b"".join(b"%c" % c if c in PLAIN else b"%%%02X" % c for c in text)
