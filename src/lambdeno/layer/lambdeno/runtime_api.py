"""The client of Lambda's Runtime API: one method for each endpoint, one kept-alive connection.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import posix
from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

from connection import Closed, Connection

PREFIX = b"/2018-06-01/runtime"
ERROR_TYPE = b"application/vnd.aws.lambda.error+json"
PLAIN = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~"


class RuntimeApiError(Exception):
    """The Runtime API does not answer as it must: this environment cannot go on."""


class RuntimeApi:
    """The Runtime API at ``host:port``. Raises RuntimeApiError wherever it cannot be reached."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.headers = b" HTTP/1.1\r\nHost: %b\r\nUser-Agent: lambdeno" % address.encode()
        self.init_start = b"POST %b/init/error%b" % (PREFIX, self.headers)
        self.next_request = b"GET %b/invocation/next%b\r\n\r\n" % (PREFIX, self.headers)
        self.connection = self._connect()
        self.request_id = b""
        self.invocation_id = b""

    def _connect(self) -> Connection:
        family = AF_INET6 if ":" in self.address[0] else AF_INET
        sock = socket(family, SOCK_STREAM)
        try:
            sock.connect(self.address)
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError as error:
            raise RuntimeApiError(
                f"Cannot reach the Runtime API at {self.address[0]}:{self.address[1]}: {error}"
            ) from None
        return Connection(sock)

    def next(self) -> Connection:
        """Wait for the next event: the message on the connection is the event, headers and body.

        No timeout: the environment is frozen while it waits.
        """
        connection = self.connection
        try:
            connection.send(self.next_request)
            connection.receive()
            status = connection.status()
        except (OSError, Closed) as error:
            raise RuntimeApiError(f"Cannot get the next event: {error}") from None
        request_id = connection.header(b"lambda-runtime-aws-request-id")
        if status != 200 or not request_id:
            raise RuntimeApiError(f"Cannot get the next event: the Runtime API answered {status}")
        self.request_id = request_id
        self.invocation_id = connection.header(b"lambda-runtime-invocation-id")
        return connection

    def answer(self, outcome: bytes, message: Connection) -> None:
        """Post a received message as this invocation's ``response`` or ``error``.

        Raises Closed where the message breaks off; the half-sent post is cut, so that Lambda
        cannot take it for whole.
        """
        try:
            message.forward(self.connection, self._start(outcome))
        except Closed:
            self._reconnect()
            raise
        except OSError:  # refused before it was read whole: over 6 MB, most likely
            message.drain()
            self._acknowledge(outcome)
            self._reconnect()  # half a post is left in this one
            return
        self._acknowledge(outcome)

    def post_error(self, head: bytes, body: bytes) -> None:
        """Post an error of our own for this invocation; ``head`` is header lines, a CRLF before each."""
        self._post(self._start(b"error"), head, body)
        self._acknowledge(b"error")

    def init_error(self, message: Connection) -> None:
        """Post a received message as the reason why this environment cannot serve."""
        message.forward(self.connection, self.init_start)
        self._acknowledge(b"init/error")

    def post_init_error(self, head: bytes, body: bytes) -> None:
        """Post a reason of our own why this environment cannot serve."""
        self._post(self.init_start, head, body)
        self._acknowledge(b"init/error")

    def _start(self, outcome: bytes) -> bytes:
        start = b"POST %b/invocation/%b/%b%b" % (
            PREFIX,
            quote(self.request_id),
            outcome,
            self.headers,
        )
        if self.invocation_id:  # echoed, so that a late answer cannot meet another attempt
            start += b"\r\nLambda-Runtime-Invocation-Id: " + self.invocation_id
        return start

    def _post(self, start: bytes, head: bytes, body: bytes) -> None:
        try:
            self.connection.send(b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (start, head, len(body), body))
        except OSError as error:
            raise RuntimeApiError(f"Cannot post to the Runtime API: {error}") from None

    def _acknowledge(self, outcome: bytes) -> None:
        """Read the answer to a post: 202 is yes, 4xx are logged, 500 ends the environment."""
        try:
            self.connection.receive()
            status = self.connection.status()
            if status != 202:
                self._refused(outcome, status)
            self.connection.drain()
            if self.connection.header(b"connection").lower() == b"close":
                self._reconnect()
        except Closed as error:
            log(f"lambdeno: the Runtime API closed the connection after {outcome.decode()}: {error}")
            self._reconnect()

    def _refused(self, outcome: bytes, status: int) -> None:
        body = self.connection.body().decode("utf-8", "replace").strip()
        if status >= 500:
            raise RuntimeApiError(f"The Runtime API answered {status} to {outcome.decode()}: {body}")
        log(f"lambdeno: the Runtime API refused the {outcome.decode()} with {status}: {body}")

    def _reconnect(self) -> None:
        self.connection.sock.close()
        self.connection = self._connect()


def quote(text: bytes) -> bytes:
    """Percent-encode a path segment (RFC 3986 §2.1)."""
    if not text.strip(PLAIN):
        return text
    return b"".join(b"%c" % c if c in PLAIN else b"%%%02X" % c for c in text)


def log(line: str) -> None:
    """Write one line to the function's log."""
    posix.write(2, line.replace("\n", "\r").encode("utf-8", "replace") + b"\n")
