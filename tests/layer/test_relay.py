"""The short way of runtime1: the same answers, in fewer steps, and the next event asked for at once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.layer.conftest import Environment
from tests.layer.fake_runtime_api import DEADLINE, Answer, Event, FakeRuntimeApi, status

Start = Callable[..., Environment]
ECHO = "export const handler = (event) => event;"
# What replaces the means by which an unbound bridge writes: it must not reach Lambda as a head.
FORGES = """
const { encodeInto } = TextEncoder.prototype;
let isForging = false;
TextEncoder.prototype.encodeInto = function (text, into) {
  const done = encodeInto.call(this, text, into);
  if (isForging) {
    const all = new Uint8Array(into.buffer);
    const at = new TextDecoder().decode(all.subarray(0, 200)).indexOf("Content-Type: application/json");
    if (at > 0) all.set(new TextEncoder().encode("X-Forged: 1\\r\\nX-Other: 1234567"), at);
  }
  return done;
};
export const handler = (event) => { isForging = event === "forge"; return event; };
"""


@pytest.fixture(params=["source-runtime1", "binary-runtime1"])
def combination(request: pytest.FixtureRequest) -> str:
    """Of runtime1 alone: runtime2 has a process to start between two events."""
    return str(request.param)


@dataclass
class Platform:
    """A Runtime API of which each byte is seen."""

    listener: socket.socket
    connection: socket.socket
    environment: Environment

    def read_until(self, end: bytes) -> bytes:
        """What the bootstrap sends, until some bytes are there."""
        data = b""
        while end not in data:
            got = self.connection.recv(64 * 1024)
            assert got, (data, len(data))
            data += got
        return data


EVENT = b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 16\r\n\r\n" + b'{"status":"OK"}\n'
END = b"\r\n\r\n"


@contextmanager
def platform(start: Start, **variables: str) -> Iterator[Platform]:
    """A bootstrap that has asked for its first event, and us on the other side."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        environment = start(ECHO, AWS_LAMBDA_RUNTIME_API=address, **variables)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE)
            seen = Platform(listener, connection, environment)
            assert seen.read_until(END).startswith(b"GET ")
            yield seen


def test_the_next_event_is_asked_for_behind_the_response(start: Start) -> None:
    """Lambda has both before it has answered one: nobody waits for the 202."""
    with platform(start) as seen:
        for body in (b"1", b'"two"', b"3"):
            seen.connection.sendall(EVENT % (b"an-id", len(body), body))
            sent = seen.read_until(body + b"GET ")
            assert sent.startswith(b"POST /2018-06-01/runtime/invocation/an-id/response ")
            if END not in sent.partition(body + b"GET ")[2]:
                seen.read_until(END)
            seen.connection.sendall(ACCEPTED)


def test_without_pipelining_it_waits_for_the_202(start: Start) -> None:
    """LAMBDENO_PIPELINING=off: nothing follows a response before it is taken."""
    with platform(start, LAMBDENO_PIPELINING="off") as seen:
        for _ in range(3):
            seen.connection.sendall(EVENT % (b"an-id", 1, b"7"))
            assert b"/next" not in seen.read_until(END + b"7")
            seen.connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                seen.connection.recv(1)
            seen.connection.settimeout(DEADLINE)
            seen.connection.sendall(ACCEPTED)
            assert seen.read_until(END).startswith(b"GET ")


def test_the_202_and_the_next_event_may_come_as_one(start: Start) -> None:
    """And cut anywhere: both are read for what they are."""
    both = ACCEPTED + EVENT % (b"the-second", 8, b'"second"')
    for cut in (1, 20, len(ACCEPTED) - 1, len(ACCEPTED), len(ACCEPTED) + 30, len(both) - 1):
        with platform(start) as seen:
            seen.connection.sendall(EVENT % (b"the-first", 7, b'"first"'))
            assert b'\r\n\r\n"first"GET' in seen.read_until(b"lambdeno" + END)
            seen.connection.sendall(both[:cut])
            os.sched_yield()
            seen.connection.sendall(both[cut:])
            assert b"/the-second/response" in seen.read_until(b'"second"')


@pytest.mark.parametrize(
    "size", [0, 1, 1000, 21_000, 22_000, 64 * 1024, 100_000, 262_000, 262_144, 300_000, 5_900_000]
)
@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_sizes(start: Start, size: int, letter: str) -> None:
    """Whatever fits no buffer goes the long way, and comes out as it went in; what follows does, too."""
    environment = start(ECHO)
    text = letter * (size // len(letter.encode()))
    for event in ("small", text, "small", [text], "small"):
        assert environment.result(json.dumps(event, ensure_ascii=False).encode()) == event


def test_a_lost_response_is_posted_once_more(start: Start, api: FakeRuntimeApi) -> None:
    """Where the connection ends without a word about it; the next event is asked for again on the new one."""
    environment = start(ECHO)
    assert environment.result("before") == "before"
    api.answers.put(Answer([b""], "reset"))
    first = environment.invoke("lost")
    second = environment.post()
    assert (first.path, first.body, first.connection + 1) == (second.path, second.body, second.connection)
    assert environment.result("after") == "after"
    assert "no answer of the Runtime API to the response" in environment.log


def test_a_refused_response_is_told_by_its_own_request(start: Start, api: FakeRuntimeApi) -> None:
    """It is read when the next event may be there already: the log names the request that it is of."""
    environment = start(ECHO)
    api.answers.put(status(413, b"too large"))
    environment.invoke("x", request_id="the-refused")
    assert environment.result("after", request_id="the-next") == "after"
    line = next(line for line in environment.log.splitlines() if "413" in line)
    assert "the-refused" in line


REFUSED = b"HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\n{}"
NEXT_EVENT = EVENT % (b"the-next", 6, b'"next"')
CHUNKED = b'\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n"next"\r\n0\r\n\r\n'
LARGE_EVENT = EVENT % (b"the-next", 5_000_000, b"7" * 5_000_000)


@pytest.mark.parametrize(
    "pieces",
    [
        [REFUSED + NEXT_EVENT],
        [REFUSED, NEXT_EVENT],
        [REFUSED + NEXT_EVENT[:20], NEXT_EVENT[20:]],
        [REFUSED[:20], REFUSED[20:] + NEXT_EVENT],
        [REFUSED, NEXT_EVENT.partition(b"\r\nContent-Length")[0] + CHUNKED],
        [REFUSED + LARGE_EVENT],
        [REFUSED, NEXT_EVENT[:-3]],
    ],
    ids=["as one", "after it", "in two", "500 in two", "chunked", "large", "half"],
)
def test_an_event_behind_a_container_error_is_answered(start: Start, pieces: list[bytes]) -> None:
    """500 to a response ends the environment; the event that was asked for with it does not end with it."""
    with platform(start) as seen:
        seen.connection.sendall(EVENT % (b"the-first", 1, b"1"))
        seen.read_until(b"1GET ")
        for piece in pieces:
            time.sleep(0.03)
            seen.connection.sendall(piece)
        if pieces[-1].endswith(b'"ne'):
            seen.connection.shutdown(socket.SHUT_WR)
        other, _ = seen.listener.accept()
        with other:
            other.settimeout(DEADLINE)
            post = Platform(seen.listener, other, seen.environment).read_until(b'"trace":[]}')
            assert post.startswith(b"POST /2018-06-01/runtime/invocation/the-next/error ")
            assert b"\r\nLambda-Runtime-Function-Error-Type: Runtime.EventNotHandled\r\n" in post
            assert b"500" in post.partition(END)[2]
            other.sendall(ACCEPTED)
        assert seen.environment.wait() == 1


@pytest.mark.parametrize("listens", [True, False], ids=["it ends the connection", "it does not hear"])
def test_a_container_error_without_an_event_ends_at_once(start: Start, listens: bool) -> None:
    """The request for the next event is taken back; a platform that says nothing is not waited for."""
    with platform(start) as seen:
        seen.connection.sendall(EVENT % (b"the-first", 1, b"1"))
        seen.read_until(b"1GET ")
        began = time.monotonic()
        seen.connection.sendall(REFUSED)
        with contextlib.suppress(AssertionError):
            seen.read_until(b"nothing")  # the end of what the bootstrap sends
        if listens:
            seen.connection.close()
        assert seen.environment.wait() == 1
        assert time.monotonic() - began < 1
        seen.listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            seen.listener.accept()


def test_a_head_that_the_function_has_forged_is_not_passed_on(start: Start, unbound: Path) -> None:
    """One that is not the bridge's own goes the long way, on which the bootstrap writes the head itself."""
    environment = start(FORGES, layer=unbound)
    assert environment.result("fine") == "fine"
    post = environment.invoke("forge")
    assert post.headers["content-type"] == "application/json"
    assert not [name for name in post.headers if name.startswith("x-")]
    assert environment.result("fine") == "fine"


def test_names_of_headers_in_any_case(start: Start) -> None:
    """As HTTP has it; the attempt's id is echoed."""
    environment = start("export const handler = (event, context) => context.awsRequestId;")
    for name in (
        "Lambda-Runtime-Invocation-Id",
        "lambda-runtime-invocation-id",
        "LAMBDA-RUNTIME-INVOCATION-ID",
    ):
        post = environment.send(Event(b"1", "an-id", headers={name: "Attempt-7"}))
        assert json.loads(post.body) == "an-id"
        assert post.headers["lambda-runtime-invocation-id"] == "Attempt-7"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor is all that there is")
@pytest.mark.parametrize(
    ("variables", "is_one"),
    [
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}, True),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769"}, True),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1770"}, False),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "LAMBDENO_AFFINITY": "off"}, False),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008", "LAMBDENO_AFFINITY": "on"}, True),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": None}, False),
    ],
)
def test_both_processes_share_one_processor_where_there_is_no_more(
    start: Start, variables: dict[str, str | None], is_one: bool
) -> None:
    """Up to 1769 MB, from the time on that the function is loaded; V8's own threads go where they want."""
    environment = start(ECHO, **variables)
    assert environment.result("x") == "x"
    (deno,) = environment.children()
    ours, theirs = os.sched_getaffinity(environment.process.pid), os.sched_getaffinity(deno)
    assert (len(ours) == 1, len(theirs) == 1) == (is_one, is_one)
    assert ours == theirs
    others = [int(task.name) for task in Path(f"/proc/{deno}/task").iterdir() if int(task.name) != deno]
    assert any(len(os.sched_getaffinity(thread)) > 1 for thread in others)
