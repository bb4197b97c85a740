"""HTTP as RFC 9112 has it, on all three ports: the Invoke API's, a function URL's, a Runtime API's."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator

import pytest

from lambdeno.emulator import FunctionUrl, Settings
from tests.emulator.conftest import Running, Start

PORTS = ("invoke", "url", "runtime")
INVOKE = "/2015-03-31/functions/f/invocations"
PATHS = {"invoke": INVOKE, "url": "/p", "runtime": "/2018-06-01/runtime/init/error"}
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
LENGTH = "Content-Length: 2\r\n"

# What stands behind "POST <path> HTTP/1.1", "Host: localhost", and the status of the one answer.
MALFORMED = {
    "a chunk's size is a word": (f"{CHUNKED}xyz\r\n{{}}\r\n0\r\n\r\n", 400),
    "a chunk's size is negative": (f"{CHUNKED}-2\r\n{{}}\r\n0\r\n\r\n", 400),
    "a chunk is longer than its size": (f"{CHUNKED}2\r\n{{}}XX0\r\n\r\n", 400),
    "a chunk's extension has a line feed": (f"{CHUNKED}2;a\nb\r\n{{}}\r\n0\r\n\r\n", 400),
    "a trailer's name has a blank": (f"{CHUNKED}2\r\n{{}}\r\n0\r\nX A: b\r\n\r\n", 400),
    "a trailer is a length": (f"{CHUNKED}2\r\n{{}}\r\n0\r\nContent-Length: x\r\n\r\n", 400),
    "both framings": (f"{LENGTH}{CHUNKED}2\r\n{{}}\r\n0\r\n\r\n", 400),
    "a request behind both framings": (
        f"Content-Length: 6\r\n{CHUNKED}0\r\n\r\nGET /ping HTTP/1.1\r\n\r\n",
        400,
    ),
    "an unknown coding": ("Transfer-Encoding: gzip\r\n\r\n{}", 501),
    "a coding twice": ("Transfer-Encoding: chunked, chunked\r\n\r\n{}", 501),
    "two lengths": ("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    **{
        f"a length of {length!r}": (f"Content-Length: {length}\r\n\r\n{{}}", 400)
        for length in ("-1", "+2", "2.0", "0x2", "", "2 2", "1_0", "9" * 30)
    },
    "a name with a blank": ("X Y: z\r\n\r\n", 400),
    "a blank before the colon": ("X : z\r\n\r\n", 400),
    "no colon": ("XYZ\r\n\r\n", 400),
    "a NUL": ("X: a\0b\r\n\r\n", 400),
    "a lone carriage return": ("X: a\rb\r\n\r\n", 400),
    "two hosts": ("Host: localhost\r\n\r\n", 400),
    "an end in the middle of the body": ("Content-Length: 100\r\n\r\n{", 400),
}
# Whole requests; {path} is one that the port serves.
REQUESTS = {
    "CONNECT": ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    "CONNECT for a path": ("CONNECT {path} HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    "GET *": ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no path": ("GET foo HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "another scheme": ("GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a password": ("GET http://a:b@localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no host": ("POST {path} HTTP/1.1\r\n\r\n", 400),
    "HTTP/0.9": ("GET {path}\r\n\r\n", 400),
    "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HEAD in HTTP/2.0": ("HEAD {path} HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    "HTTP/9.9": ("POST {path} HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
    "chunks in HTTP/1.0": (f"POST {{path}} HTTP/1.0\r\nHost: localhost\r\n{CHUNKED}0\r\n\r\n", 400),
    "TLS": ("\x16\x03\x01\x02\0\1\0\1\r\n\r\n", 400),
    "a folded first header": ("POST {path} HTTP/1.1\r\n X: a\r\nHost: localhost\r\n\r\n", 400),
    "a head without an end": ("POST {path} HTTP/1.1\r\nHost: loc", 400),
}


@pytest.fixture
def running(start: Start) -> Iterator[Running]:
    """A function with a URL, its environment started."""
    with start(url=FunctionUrl(), settings=Settings(silence=5)) as running:
        running.ask()
        yield running


def address_of(running: Running, port: str) -> tuple[str, int]:
    """Where one of the three servers listens."""
    found = {"invoke": running.handle.endpoint, "url": running.handle.url_of("f") or ""}
    if port == "runtime":
        found[port] = running.ask("environ")[0]["AWS_LAMBDA_RUNTIME_API"]
    return "127.0.0.1", int(found[port].rstrip("/").rpartition(":")[2])


def answer(address: tuple[str, int], sent: bytes) -> bytes:
    """What a client is told that sends this and no more, until the connection is closed."""
    told = b""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            told += part
    return told


def head_of(told: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and all that is behind the first empty line."""
    head, _, rest = told.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, rest


@pytest.mark.parametrize("port", PORTS)
def test_what_is_no_request_is_answered_once(
    running: Running, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Faulty framing, targets, versions and headers get their status, and the connection is closed."""
    address, path = address_of(running, port), PATHS[port]
    start = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
    cases = {name: (start + rest, status) for name, (rest, status) in MALFORMED.items()}
    cases |= {name: (request.replace("{path}", path), status) for name, (request, status) in REQUESTS.items()}
    for name, (sent, status) in cases.items():
        told = answer(address, sent.encode("latin-1"))
        assert told.startswith(b"HTTP/1.1 %d " % status), (name, told)
        assert head_of(told)[1]["connection"] == "close", name
        assert told.count(b"content-length: ") == 1, (name, told)
    assert caplog.records == []
    assert running.ask() == ({"do": "echo"}, None)


@pytest.mark.parametrize("port", PORTS)
def test_head_has_no_body(running: Running, port: str) -> None:
    """HEAD gets the headers alone, and the connection serves on."""
    request = f"HEAD {PATHS[port]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    told = answer(address_of(running, port), 2 * request)
    status, headers, rest = head_of(told)
    assert status == (200 if port == "url" else 405)
    assert (int(headers["content-length"]) > 0) == (port != "runtime")
    assert rest.startswith(b"HTTP/1.1 %d " % status)
    assert rest.endswith(b"\r\n\r\n")


def test_head_of_what_get_has(running: Running) -> None:
    """The Invoke API answers HEAD as it answers GET."""
    told = answer(address_of(running, "invoke"), b"HEAD /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, headers, rest = head_of(told)
    assert (status, headers["content-length"], rest) == (200, "4", b"")


@pytest.mark.parametrize("port", PORTS)
def test_options_of_the_server(running: Running, port: str) -> None:
    """OPTIONS * is for the server, and reaches no function."""
    count = len(running.lines)
    address = address_of(running, port)
    status, _, rest = head_of(answer(address, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert (status, rest) == (200, b"")
    assert len(running.lines) <= count + 3  # of the question for the address


@pytest.mark.parametrize("port", ["invoke", "runtime"])
def test_a_method_that_a_path_does_not_have(running: Running, port: str) -> None:
    """It is 405, with the one that it has."""
    sent = f"PUT {PATHS[port]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    status, headers, _ = head_of(answer(address_of(running, port), sent))
    assert (status, headers["allow"]) == (405, "post")


def test_a_url_as_the_target(running: Running) -> None:
    """Its host stands in place of Host, its path is the path; a URL of another host is refused."""
    sent = "POST http://localhost{} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{{}}"
    status, _, body = head_of(answer(address_of(running, "invoke"), sent.format(INVOKE).encode()))
    assert (status, body) == (200, b"{}")
    address = address_of(running, "url")
    for target, path in (("/a?b=c", "/a"), ("?b=c", "/"), (":80/a?b=c", "/a")):
        event = json.loads(head_of(answer(address, sent.format(target).encode()))[2])
        assert (event["rawPath"], event["rawQueryString"]) == (path, "b=c")
        assert event["headers"]["host"] == "localhost" + (":80" if ":" in target else "")
    for port in PORTS:
        sent = f"POST http://evil.example{PATHS[port]} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert head_of(answer(address_of(running, port), sent.encode()))[0] == 403


@pytest.mark.parametrize("port", PORTS)
def test_hosts(running: Running, port: str) -> None:
    """A request names this machine, in whatever spelling; a name that was bound to it is refused."""
    address = address_of(running, port)
    ours = [
        f"localhost:{address[1]}",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "app.localhost",
        "127.0.0.1:9",
    ]
    ours += ["127.0.0.2", "[::1]", "[::1]:9", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]"]
    theirs = [
        "evil.example",
        f"evil.example:{address[1]}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ]
    theirs += [
        "0.0.0.0",
        "10.0.0.1",
        "[::2]",
        "::1",
        "a@localhost",
        "localhost, evil",
        "localhost:x",
        "",
        "é",
    ]
    theirs += ["x" * 10_000, "notlocalhost", "localhost.."]
    method = "POST"
    if port == "runtime":  # a runtime's client may write what it likes, but no name that a page could have
        method = "DELETE"
        ours += [host for host in theirs if "." not in host]
        theirs = [host for host in theirs if "." in host]
    for host in [*ours, *theirs]:
        sent = f"{method} {PATHS[port]} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        status = head_of(answer(address, sent))[0]
        assert (status == 403) == (host in theirs), host
    sent = f"{method} {PATHS[port]} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    # HTTP/1.0 may come without a name
    assert (head_of(answer(address, sent))[0] == 403) == (port != "runtime")


@pytest.mark.parametrize("port", PORTS)
def test_a_refused_upload_can_read_why(running: Running, port: str) -> None:
    """The answer to a body that nobody reads is not lost in a reset connection."""
    address = address_of(running, port)
    for _ in range(5):
        sent = f"POST {PATHS[port]} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 3000000\r\n\r\n"
        assert head_of(answer(address, sent.encode() + b"x" * 3_000_000))[0] == 403


METHODS = (b"POST", b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"post")
VERSIONS = (b"1.1", b"1.1", b"1.1", b"1.0", b"2.0")
PIECES = [
    piece.encode("latin-1").decode("unicode_escape").encode("latin-1")
    for piece in (
        *(
            r"GET",
            r"POST",
            r"HEAD",
            r"CONNECT",
            r"OPTIONS",
            r" ",
            r"/",
            r"*",
            r"http://localhost",
            r"?",
            r"%00",
        ),
        *(
            r" HTTP/1.1",
            r" HTTP/1.0",
            r" HTTP/2.0",
            r"\r\n",
            r"\r\n\r\n",
            r"\n",
            r"\r",
            r"\0",
            r"\t",
            r":",
            r";",
        ),
        *(r"Host: localhost", r"Host: x", r"Content-Length: 2", r"Content-Length: -1", r"Connection: close"),
        *(
            r"Transfer-Encoding: chunked",
            r"Transfer-Encoding: gzip",
            r"Expect: 100-continue",
            r"Upgrade: h2c",
        ),
        *(r"2\r\n{}\r\n", r"0\r\n\r\n", r"0\r\nA: b\r\n\r\n", r"ffffffffffffffff\r\n", r"\xff\xfe", r"{}"),
        *(r"X-Amz-Client-Context: e30=", r"X-Amz-Log-Type: Tail", r"X-Amz-Invocation-Type: DryRun"),
        *("{" * 2000, "9" * 5000, r"Cookie: a=b", r","),
    )
]


@pytest.mark.parametrize("port", PORTS)
def test_no_input_is_left_without_an_answer(
    running: Running, port: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes, the connection is answered or closed, nothing is logged, and the next one is served."""
    dice = random.Random(port)  # the same inputs each time
    address, path = address_of(running, port), PATHS[port].encode()
    targets = (path, path, b"/", b"*", b"http://localhost" + path, b"localhost:80")
    for _ in range(150):
        sent = bytearray()
        for _ in range(dice.randrange(1, 3)):
            line = (dice.choice(METHODS), dice.choice(targets), dice.choice(VERSIONS))
            sent += b"%b %b HTTP/%b\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}" % line
        for _ in range(dice.randrange(5)):
            at = dice.randrange(len(sent) + 1)
            sent[at : at + dice.choice((0, 0, 1, 8))] = dice.choice(PIECES)
        with contextlib.suppress(ConnectionResetError):
            told = answer(address, bytes(sent))
            assert told == b"" or told.startswith(b"HTTP/1.1 "), sent
            assert not told.startswith(b"HTTP/1.1 500 "), sent
    assert caplog.records == []
    assert running.ask() == ({"do": "echo"}, None)
