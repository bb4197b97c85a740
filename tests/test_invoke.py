"""``lambdeno invoke``: where an event comes from, and what an endpoint may answer."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lambdeno import invoke
from lambdeno.errors import EmulatorError, UsageError
from lambdeno.project import Project
from tests.e2e.conftest import LAMBDENO, run
from tests.test_cli import on_a_terminal

PROJECT = Project(name="orders")

# --- the event ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", ["{}", ' {"a": 1}', "[1, 2]", '"text"', "7", "-1.5e3", "null", "true", '{"name": "Grüße 🎉"}']
)
def test_json_is_an_event_as_it_is(event: str) -> None:
    """Every JSON value is one, byte for byte."""
    assert invoke.read_event(event) == event.encode()


def test_a_file_is_an_event(tmp_path: Path) -> None:
    """A path gives the file's bytes."""
    path = tmp_path / "event.json"
    path.write_bytes(b' {"a": "\xc3\xa9"}\n')
    assert invoke.read_event(str(path)) == b' {"a": "\xc3\xa9"}\n'


def test_standard_input_is_an_event() -> None:
    """A dash reads to the end of standard input."""
    assert invoke.read_event("-", io.BytesIO(b'[1,\n2,\n"\xc3\xa9"]\n')) == b'[1,\n2,\n"\xc3\xa9"]\n'


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("{nope", "The event is not JSON"),
        ("[1, 2", "The event is not JSON"),
        ('"open', "The event is not JSON"),
        ("{} {}", "The event is not JSON"),
        ("no-such-file.json", '"no-such-file.json" is neither JSON nor a file'),
        ("/", '"/" is neither JSON nor a file'),
        ("", '"" is neither JSON nor a file'),
        ("NaN", '"NaN" is neither JSON nor a file'),
        ('{"a": Infinity}', "The event is not JSON"),
    ],
)
def test_what_is_no_event_is_told_what_one_is(event: str, says: str) -> None:
    """One sentence with the words given, and what they may be."""
    with pytest.raises(UsageError) as caught:
        invoke.read_event(event)
    assert caught.value.message == says
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["hello " * 100, "[" * 100_000], ids=["long", "deep"])
def test_a_great_deal_of_no_event_is_one_sentence(text: str) -> None:
    """Words too long for a path and brackets too deep for a parser are usage errors as well."""
    with pytest.raises(UsageError) as caught:
        invoke.read_event(text)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "content",
    [b"", b"{nope", b"\xff{}", b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16")],
    ids=["empty", "no JSON", "no text", "byte order mark", "UTF-16"],
)
def test_a_file_that_lambda_would_refuse_is_named(tmp_path: Path, content: bytes) -> None:
    """An event is JSON in UTF-8 without a byte order mark; the error names the file."""
    path = tmp_path / "event.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        invoke.read_event(str(path))
    assert caught.value.message == f'"{path}" is not JSON'


def test_an_event_that_is_too_deep_is_told_as_that() -> None:
    """It is JSON all the same: the sentence names Lambda's limit."""
    with pytest.raises(UsageError) as caught:
        invoke.read_event("[" * 1001 + "]" * 1001)
    assert "more than 1000 levels of nesting" in caught.value.message
    assert "JSON" not in caught.value.message


@pytest.mark.parametrize("event", ["[" * 1000 + "]" * 1000, "9" * 5000, '{"a": 1e999}', '"\\ud800"'])
def test_an_event_is_not_read_but_sent(event: str) -> None:
    """What Lambda takes passes as it is, also where Python has no value for it."""
    assert invoke.read_event(event) == event.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """What is a file, but another's, is not told as something else."""
    path = tmp_path / "event.json"
    path.touch(0o000)
    with pytest.raises(UsageError, match=rf'Cannot read "{path}": Permission denied'):
        invoke.read_event(str(path))


@pytest.mark.parametrize("content", [b"", b"{nope", b"\xff"])
def test_standard_input_that_is_no_event_is_named(content: bytes) -> None:
    """Nothing at all is no JSON either."""
    with pytest.raises(UsageError) as caught:
        invoke.read_event("-", io.BytesIO(content))
    assert caught.value.message == "Standard input is not JSON"


def test_an_empty_pipe_is_one_sentence(tmp_path: Path) -> None:
    """The command line tells it with exit code 2."""
    (tmp_path / "lambdeno.toml").touch()
    done = run("invoke", "-", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Standard input is not JSON\nhint: ")


# --- the endpoint -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:9000", "ftp://localhost", "http://", "127.0.0.1", "http:///path"),
        *("http://localhost:99999", "http://localhost:port", "http://[::1", "http://a..b"),
    ],
)
def test_what_is_no_url_is_told_what_one_is(tmp_path: Path, url: str) -> None:
    """A malformed endpoint is a usage error before anything is sent."""
    (tmp_path / "lambdeno.toml").touch()
    done = run("invoke", "{}", "--endpoint-url", url, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f'error: "{url}" is no endpoint URL\nhint: give one such as http://127.0.0.1:9000\n'


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server on this machine; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.server_port}"
        finally:
            made.shutdown()
            thread.join()


def replies(status: int, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """Always the same answer."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_an_answer_is_taken_apart() -> None:
    """Status, payload, error and log come from where Lambda puts them."""
    headers = {"X-Amz-Function-Error": "Unhandled", "X-Amz-Log-Result": "bMO2ZwpsaW5lCg=="}
    with server(replies(200, b'{"errorType": "E"}', headers)) as url:
        result = invoke.invoke(url, PROJECT, b"{}")
    assert (result.status, result.payload) == (200, b'{"errorType": "E"}')
    assert (result.function_error, result.log) == ("Unhandled", "lög\nline\n")
    assert not result.ok
    assert result.milliseconds > 0


@pytest.mark.parametrize(("kind", "tail"), [("RequestResponse", "Tail"), ("Event", None), ("DryRun", None)])
def test_a_request_is_lambdas(kind: str, tail: str | None) -> None:
    """The path, the kind of invocation and the wish for a log are those of the Invoke API."""
    seen: list[tuple[str, str | None, str | None]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers = handler.headers
        seen.append((handler.path, headers["X-Amz-Invocation-Type"], headers["X-Amz-Log-Type"]))
        replies(202, b"")(handler)

    with server(answer) as url:
        assert invoke.invoke(url, PROJECT, b"{}", kind).ok
    assert seen == [("/2015-03-31/functions/orders/invocations", kind, tail)]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b'{"Type": "User", "Message": "Function not found: x"}', "Function not found: x"),
        (400, b'{"message": "lower case"}', "lower case"),
        (429, b'{"Reason": "other"}', "other"),
        (500, b"not JSON", "not JSON"),
        (403, b'["list"]', "list"),
        (502, b"\xff", "\ufffd"),
    ],
)
def test_a_refusal_is_told_in_the_services_words(status: int, body: bytes, says: str) -> None:
    """Whatever the body, there is one sentence."""
    with server(replies(status, body)) as url, pytest.raises(EmulatorError) as caught:
        invoke.invoke(url, PROJECT, b"{}")
    assert caught.value.message.startswith('Lambda refused to invoke "orders": ')
    assert says in caught.value.message


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def babble(handler: BaseHTTPRequestHandler) -> None:
    """Answers what is no HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def stop_short(handler: BaseHTTPRequestHandler) -> None:
    """Promises more than it gives."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    handler.close_connection = True


NO_BASE64 = replies(200, b"{}", {"X-Amz-Log-Result": "a"})


@pytest.mark.parametrize("answer", [drop, babble, stop_short, NO_BASE64])
def test_a_peer_that_is_no_lambda_is_one_sentence(answer: Answer) -> None:
    """What cannot be understood names function and endpoint."""
    with server(answer) as url, pytest.raises(EmulatorError) as caught:
        invoke.invoke(url, PROJECT, b"{}")
    assert caught.value.message.startswith(f'Cannot invoke "orders" at {url}: ')
    assert len(caught.value.message.splitlines()) == 1
    assert caught.value.hint


def test_nobody_there_is_one_sentence() -> None:
    """A refused connection names function and endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(EmulatorError) as caught:
        invoke.invoke(url, PROJECT, b"{}")
    assert caught.value.message.startswith(f'Cannot invoke "orders" at {url}: ')
    assert "Errno" not in caught.value.message
    assert caught.value.exit_code == 6


def test_a_local_lambda_is_known_by_its_function() -> None:
    """One that answers for the function runs; no other server passes for it."""
    body = json.dumps({"FunctionName": "orders"}).encode()
    with server(replies(200, body)) as url:
        assert invoke.running(url, "orders")
    with server(replies(404, b'{"Message": "Function not found"}')) as url:
        assert not invoke.running(url, "orders")
    with server(babble) as url:
        assert not invoke.running(url, "orders")
    assert not invoke.running(url, "orders")


def test_a_server_that_answers_everything_is_no_local_lambda() -> None:
    """A web application on the same port must not get the event."""
    with server(replies(200, b"<!doctype html>")) as url:
        assert not invoke.running(url, "orders")


# --- what is shown ------------------------------------------------------------------------------

EVIL = "\x1b]52;c;ZXZpbA==\x07 \x1b]0;title\x07 \x1b[2J \x9b2J \r\u202e"  # clipboard, title, clear, direction
SHOWN = r"\x1b]52;c;ZXZpbA==\x07 \x1b]0;title\x07 \x1b[2J \x9b2J \r\u202e"
LOGGED = {"X-Amz-Log-Result": base64.b64encode(f"\x1b[31mlog{EVIL}".encode()).decode()}


def test_a_terminal_obeys_no_function(tmp_path: Path) -> None:
    """Control characters of a log and a result are visible on a terminal; colours stay."""
    (tmp_path / "lambdeno.toml").write_text('name = "orders"\n')
    with server(replies(200, f"\x1b[32mresult{EVIL}".encode(), LOGGED)) as url:
        seen = on_a_terminal("invoke", "{}", "--endpoint-url", url, folder=tmp_path)
        plain = on_a_terminal("invoke", "{}", "--endpoint-url", url, folder=tmp_path, NO_COLOR="1")
    assert f"\x1b[32mresult{SHOWN}\x1b[0m" in seen
    assert f"\x1b[31mlog{SHOWN}\x1b[0m" in seen
    assert f"result{SHOWN}\r\n" in plain
    assert not set(seen.replace("\r\n", "")) & set("\x07\x9b\r\u202e")
    assert not set(plain.replace("\r\n", "")) & set("\x07\x9b\r\u202e\x1b")


def test_a_terminal_obeys_no_error(tmp_path: Path) -> None:
    """What a server says of a refusal is made visible too."""
    (tmp_path / "lambdeno.toml").write_text('name = "orders"\n')
    body = json.dumps({"message": f"said{EVIL}"}).encode()
    with server(replies(404, body)) as url:
        seen = on_a_terminal("invoke", "{}", "--endpoint-url", url, folder=tmp_path)
    assert f"said{SHOWN}" in seen


def test_a_pipe_gets_the_bytes(tmp_path: Path) -> None:
    """A result in a pipe or a file is data: the function's bytes, and a line feed; so is its log."""
    (tmp_path / "lambdeno.toml").write_text('name = "orders"\n')
    payload = f"\x1b[32mresult{EVIL}".encode() + b"\xff\xfe"
    with server(replies(200, payload, LOGGED)) as url:
        command = [LAMBDENO, "invoke", "{}", "--endpoint-url", url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == payload + b"\n"
    assert done.stderr == f"\x1b[31mlog{EVIL}\n".encode()


def test_json_has_the_result_as_it_came(tmp_path: Path) -> None:
    """Numbers of any size, any depth; one line of ASCII, whatever the function wrote."""
    (tmp_path / "lambdeno.toml").write_text('name = "orders"\n')
    payload = '{"a": 12345678901234567890.10, "b":\n"é\x9b", "c": ' + "[" * 900 + "9" * 5000 + "]" * 900 + "}"
    for body in (payload.encode(), b"[" * 5000 + b"]" * 5000, b"NaN", b""):
        with server(replies(200, body, LOGGED)) as url:
            done = run("invoke", "{}", "--json", "--endpoint-url", url, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert len(done.stdout.splitlines()) == 1
        assert "\x1b" not in done.stdout
        if body == payload.encode():
            escaped = payload.replace("\n", " ").replace("é\x9b", r"\u00e9\u009b")
            assert f'"result": {escaped}, "log"' in done.stdout
        else:
            assert json.loads(done.stdout)["result"] == (body.decode() or None)
