"""Events to the handler and results back, byte for byte, however the Runtime API sends them."""

from __future__ import annotations

import json

import pytest

from tests.layer.conftest import Start
from tests.layer.fake_runtime_api import NEXT, PREFIX, Answer, Event, FakeRuntimeApi, one_by_one

LARGE = 5_900_000  # bytes: just within Lambda's 6 MB
SMALL_RESULT = 64 * 1024 // 3  # UTF-16 units: where runtime.js takes another way
BUFFERS = (64 * 1024, 128 * 1024, 256 * 1024, 512 * 1024)  # bytes: of runtime.js and of the bootstrap

VALUES = [
    b'{"hello":"deno","list":[1,2.5,-3e-7,true,false,null,{"deep":[[]]}]}',
    b"{}",
    b'[1,"two",[3]]',
    b"[]",
    b'"text"',
    b'""',
    b"42",
    b"-1.5e+300",
    b"true",
    b"null",
    '"é 漢 😀 𐍈 \u2028"'.encode(),
    b'{"\xf0\x9f\x98\x80":"a\\nb\\u0000c\\"d\\\\e"}',
]


def test_next_is_asked_for_once_the_function_is_loaded(start: Start, api: FakeRuntimeApi) -> None:
    """The first request is GET /next, and it comes when the function's module has run to its end."""
    environment = start(
        """
        await new Promise((resolve) => setTimeout(resolve, 300));
        console.log("loaded");
        export const handler = () => null;
        """
    )
    assert environment.waits_for_next(1)
    assert "loaded" in environment.log
    [request] = api.requests
    assert (request.method, request.path, request.body) == ("GET", NEXT, b"")
    assert request.headers["host"] == api.address
    assert request.headers["user-agent"].startswith("lambdeno")


@pytest.mark.parametrize("value", VALUES, ids=[value.decode()[:20] for value in VALUES])
def test_every_type_comes_back_byte_for_byte(start: Start, value: bytes) -> None:
    """An event of any JSON type reaches the handler, and what it returns comes back as that JSON."""
    post = start().invoke(value, request_id="an-id")
    assert (post.method, post.path) == ("POST", f"{PREFIX}/invocation/an-id/response")
    assert post.body == value
    assert post.headers["content-type"] == "application/json"


def test_the_handler_gets_values_and_not_text(start: Start) -> None:
    """The event is parsed: the handler sees numbers, null and arrays as such."""
    environment = start("export const handler = (e) => [typeof e, e === null, Array.isArray(e)];")
    assert environment.result(b"42") == ["number", False, False]
    assert environment.result(b"null") == ["object", True, False]
    assert environment.result(b" [ 1 ] ") == ["object", False, True]
    assert environment.result(b'"x"') == ["string", False, False]


RESULTS = {
    "undefined": b"null",
    "null": b"null",
    "(() => 1)": b"null",
    "Symbol('s')": b"null",
    "NaN": b"null",
    "false": b"false",
    "''": b'""',
    "Promise.resolve({ a: undefined, b: [undefined] })": b'{"b":[null]}',
    "new Date(0)": b'"1970-01-01T00:00:00.000Z"',
    "{ toJSON: () => 'mine' }": b'"mine"',
    "{ then: (resolve) => resolve('thenable') }": b'"thenable"',
    "'\\ud800'": b'"\\ud800"',
    "'\\u{1f600}'": b'"\xf0\x9f\x98\x80"',
}


@pytest.mark.parametrize("expression", RESULTS)
def test_results_are_what_json_makes_of_them(start: Start, expression: str) -> None:
    """A result is awaited and sent as JSON.stringify has it, and as null where it has nothing."""
    assert start(f"export const handler = () => ({expression});").invoke().body == RESULTS[expression]


def test_large_event_and_result(start: Start) -> None:
    """5.9 MB pass in both directions, in text of one and of three bytes a character."""
    environment = start()
    for text in ("x" * (LARGE - 2), "漢" * ((LARGE - 2) // 3)):
        event = json.dumps(text, ensure_ascii=False).encode()
        assert environment.invoke(event).body == event
    assert environment.invoke(b"1").body == b"1"


def test_results_of_every_length_around_the_buffers(start: Start) -> None:
    """No length of event or result is special: those at the edges of the buffers come back whole."""
    environment = start()
    lengths = [SMALL_RESULT + difference for difference in range(-4, 4)]
    lengths += [size + difference for size in BUFFERS for difference in (*range(-520, 0, 40), -2, -1, 0, 1)]
    for length in lengths:
        event = b'"' + b"y" * (length - 2) + b'"'
        assert environment.invoke(event).body == event, length


def test_every_split_of_head_and_body_is_one_message(start: Start) -> None:
    """An event may arrive in two parts, cut anywhere around the end of its head."""
    environment = start()
    data = Event(b'{"split":true}').to_bytes()
    end_of_head = data.index(b"\r\n\r\n")
    for cut in (1, 12, 17, *range(end_of_head - 1, len(data))):
        assert environment.send(Answer([data[:cut], data[cut:]])).body == b'{"split":true}', cut


def test_event_byte_by_byte(start: Start) -> None:
    """An event may arrive one byte at a time."""
    post = start().send(one_by_one(Event(b'{"slow":"\xf0\x9f\x98\x80"}').to_bytes()))
    assert post.body == b'{"slow":"\xf0\x9f\x98\x80"}'


@pytest.mark.parametrize(
    "event",
    [
        Event(b'{"chunked":[1,2,3]}', chunks=[1]),
        Event(b'{"chunked":[1,2,3]}', chunks=[1000]),
        Event(b'{"chunked":[1,2,3]}', chunks=[3, 1, 7]),
        Event(b'{"chunked":[1,2,3]}', chunks=[5], chunk_extension=b';name="value"'),
        Event(b'{"chunked":[1,2,3]}', chunks=[5], trailers=b"One: 1\r\nTwo: 2\r\n"),
        Event(b'{"chunked":[1,2,3]}', chunks=[10], headers={"Lambda-Runtime-Trace-Id": "t"}),
    ],
    ids=["bytes", "one chunk", "uneven", "extensions", "trailers", "more headers"],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "byte by byte"])
def test_chunked_event(start: Start, event: Event, is_slow: bool) -> None:
    """A chunked event is the same event, whatever its chunks; the next one is not harmed by it."""
    environment = start()
    data = event.to_bytes()
    assert environment.send(one_by_one(data) if is_slow else Answer([data])).body == event.body
    assert environment.invoke(b'"after"').body == b'"after"'


@pytest.mark.parametrize("chunks", [[4096], [65536, 1, 8192], [LARGE]], ids=["4 KB", "uneven", "one"])
def test_large_chunked_event(start: Start, chunks: list[int]) -> None:
    """5.9 MB in chunks arrive whole."""
    body = b'"' + bytes(ord("a") + at % 26 for at in range(LARGE - 2)) + b'"'
    environment = start()
    assert environment.send(Event(body, chunks=chunks)).body == body
    assert environment.invoke(b"1").body == b"1"


def test_head_over_every_buffer(start: Start) -> None:
    """A head of 300 KB passes, and the environment goes on."""
    environment = start("export const handler = (e, c) => [e, c.clientContext.custom.length];")
    headers = {"Lambda-Runtime-Client-Context": json.dumps({"custom": "c" * 300_000})}
    assert environment.result("event", headers=headers) == ["event", 300_000]
    headers = {"Lambda-Runtime-Client-Context": '{"custom": "c"}'}
    assert environment.result("event", headers=headers) == ["event", 1]


def test_one_connection_serves_all(start: Start, api: FakeRuntimeApi) -> None:
    """The connection to the Runtime API is kept: one for all requests."""
    environment = start()
    for number in range(5):
        assert environment.result(number) == number
    assert environment.waits_for_next(6)
    assert {request.connection for request in api.requests} == {0}
    assert [request.method for request in api.requests] == ["GET", "POST"] * 5 + ["GET"]
