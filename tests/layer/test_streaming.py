"""Results that are streamed: bytes leave when the function makes them, errors come behind them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from tests.layer.conftest import Start
from tests.layer.fake_runtime_api import PREFIX, Answer, Event, FakeRuntimeApi, Request

MODE = "lambda-runtime-function-response-mode"
ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"
PRELUDE = "application/vnd.awslambda.http-integration-response"
OCTETS = "application/octet-stream"
SLEEP = "const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));"


def error_of(post: Request) -> dict[str, Any]:
    """The error in a stream's trailers."""
    error: dict[str, Any] = json.loads(base64.b64decode(post.trailers[ERROR_BODY], validate=True))
    return error


def prelude_of(post: Request) -> tuple[dict[str, Any], bytes]:
    """Status, headers and cookies of a streamed HTTP response, and its body."""
    assert post.headers["content-type"] == PRELUDE
    head, found, body = post.body.partition(bytes(8))
    assert found
    return json.loads(head), body


def url_event(method: str = "GET", path: str = "/", **more: Any) -> dict[str, Any]:
    """An event of a Function URL."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4", "userAgent": "x"}
    domain = "abc.lambda-url.us-east-1.on.aws"
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": domain},
        "requestContext": {"http": http, "stage": "$default", "domainName": domain},
        "isBase64Encoded": False,
        **more,
    }


@pytest.mark.parametrize(
    "handler",
    [
        "async function* () { yield 'one'; yield new Uint8Array([32, 255]); yield { a: 1 }; yield ''; }",
        "() => (async function* () { yield 'one'; yield new Uint8Array([32, 255]).buffer; yield { a: 1 }; })()",
        """async () => new ReadableStream({
          start(c) { c.enqueue('one'); c.enqueue(new Uint8Array([32, 255])); c.enqueue({ a: 1 }); c.close(); }
        })""",
    ],
)
def test_what_a_handler_yields_is_streamed(start: Start, handler: str) -> None:
    """Text and bytes go as they are, anything else as JSON; Lambda is told that it is a stream."""
    environment = start(f"export const handler = {handler};")
    for _ in range(2):
        post = environment.invoke("an event")
        assert post.path.endswith("/response")
        assert (post.headers[MODE], post.headers["content-type"]) == ("streaming", OCTETS)
        assert (
            post.headers["trailer"]
            == "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
        )
        assert post.body == b'one \xff{"a":1}'
        assert not post.trailers
    assert environment.waits_for_next(3)


def test_a_chunk_leaves_when_it_is_yielded(start: Start) -> None:
    """No chunk waits for the next one."""
    environment = start(
        f"""{SLEEP}
        export async function* handler() {{ yield "a"; await sleep(400); yield "b"; await sleep(400); yield "c"; }}"""
    )
    environment.invoke()
    post = environment.invoke()
    (first, a), (second, b), (third, c) = post.chunks
    assert a + b + c == b"abc"
    assert second - first > 0.3
    assert third - second > 0.3


def test_large_chunks_and_many(start: Start) -> None:
    """20 MB pass, in chunks of megabytes and of a byte."""
    environment = start(
        """export async function* handler({ size, count }) {
          for (let i = 0; i < count; i++) yield new Uint8Array(size).fill(i);
        }"""
    )
    post = environment.invoke({"size": 2_000_000, "count": 10})
    assert post.body == b"".join(bytes([i]) * 2_000_000 for i in range(10))
    post = environment.invoke({"size": 1, "count": 20_000})
    assert post.body == bytes(i % 256 for i in range(20_000))


def test_a_late_error_comes_behind_the_bytes(start: Start) -> None:
    """It is told in trailers, the bytes before it stay, the log has it, and the next event is served."""
    environment = start(
        """export async function* handler(event) { yield "some"; if (event === "fail") throw new RangeError("late"); }"""
    )
    post = environment.invoke("fail")
    assert (post.path, post.body) == (f"{PREFIX}/invocation/request-1/response", b"some")
    assert post.trailers[ERROR_TYPE] == "Function.RangeError"
    error = error_of(post)
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "late")
    assert "function.bundle.js" in error["trace"][1]
    assert "runtime" not in "".join(error["trace"])
    assert environment.invoke("fine").body == b"some"
    assert "late" in environment.log


def test_an_error_before_the_first_byte_is_the_invocations(start: Start) -> None:
    """Nothing has begun: Lambda gets an ordinary error."""
    environment = start("""export async function* handler() { throw new RangeError("early"); yield 1; }""")
    post, error = environment.error()
    assert (post.error_type, error["errorMessage"]) == ("Function.RangeError", "early")


def test_a_long_error_fits_into_a_trailer(start: Start) -> None:
    """Of an error that is longer than any header, the beginning is told."""
    environment = start("export async function* handler() { yield 1; throw new Error('x'.repeat(2e6)); }")
    error = error_of(environment.invoke())
    assert error["errorType"] == "Error"
    assert error["errorMessage"].startswith("xxxx")


@pytest.mark.parametrize(
    ("statement", "error_type"),
    [
        ("Deno.exit(3)", "Runtime.ExitError"),
        ("Promise.reject(new Error('nobody')); await sleep(20000)", "Runtime.UnhandledPromiseRejection"),
        ("setTimeout(() => { throw new Error('nobody'); }); await sleep(20000)", "Runtime.UncaughtException"),
    ],
)
def test_a_process_that_ends_in_the_middle(start: Start, statement: str, error_type: str) -> None:
    """The caller hears of it behind the bytes, and another process takes the next event."""
    environment = start(
        f"""{SLEEP}
        export async function* handler(event) {{ yield "some"; await sleep(50); if (event) {{ {statement} }} }}"""
    )
    post = environment.invoke("fail")
    assert (post.body, post.trailers[ERROR_TYPE]) == (b"some", error_type)
    assert error_of(post)["errorType"] == error_type
    assert environment.invoke(None).body == b"some"
    assert environment.waits_for_next(3)


@pytest.mark.parametrize(
    "handler",
    [
        "async function* (event) { yield 'a'; if (event) await new Promise(() => {}); }",
        """async function* (event) {
          yield 'a'; await new Promise((r) => setTimeout(r, 20)); if (event) await new Promise(() => {}); }""",
        """(event) => new ReadableStream({
          start(c) { c.enqueue("a"); if (!event) c.close(); }, pull: () => new Promise(() => {}) })""",
        """awslambda.streamifyResponse(async (event, stream) => {
          stream.write("a"); if (event) await new Promise(() => {}); stream.end(); })""",
    ],
    ids=["generator", "after a timer", "ReadableStream", "streamifyResponse"],
)
def test_a_stream_that_can_never_go_on(start: Start, handler: str) -> None:
    """Where nothing is left that could yield, the caller is told, and need not wait for the deadline."""
    environment = start(f"export const handler = {handler};")
    post = environment.invoke("wait")
    assert (post.body, error_of(post)["errorType"]) == (b"a", "Runtime.HandlerNeverSettled")
    assert environment.invoke(None).body == b"a"


@pytest.mark.parametrize(
    "function",
    [
        "export async function* handler() { await new Promise(() => {}); yield 1; }",
        "export const handler = () => new ReadableStream({});",
        "export const handler = () => new Response(new ReadableStream({}));",
        "export default { fetch: () => new Response(new ReadableStream({})) };",
        "export default { fetch: () => new Promise(() => {}) };",
        "export const handler = awslambda.streamifyResponse(() => new Promise(() => {}));",
    ],
    ids=["generator", "ReadableStream", "Response", "fetch's Response", "fetch", "streamifyResponse"],
)
def test_a_body_that_never_begins(start: Start, function: str) -> None:
    """Without a first byte it is an ordinary error, whoever makes the body."""
    environment = start(function)
    for _ in range(2):
        post, _ = environment.error(url_event())
        assert post.error_type == "Runtime.HandlerNeverSettled"
        assert "exited" not in environment.log


def test_logs_in_the_middle_of_a_stream(start: Start) -> None:
    """What is logged meanwhile is no part of the response."""
    environment = start(
        """export async function* handler() { for (let i = 0; i < 50; i++) { console.log("line", i); yield `${i};`; } }"""
    )
    assert environment.invoke().body == "".join(f"{i};" for i in range(50)).encode()
    assert environment.waits_for_next(2)
    assert all(f"line {i}\n" in environment.log for i in range(50))


def test_nobody_reads_any_more(start: Start, api: FakeRuntimeApi) -> None:
    """Where Lambda cuts the connection, the generator is ended, and the next event is served."""
    environment = start(
        f"""{SLEEP}
        export async function* handler(event) {{
          if (event === "ended") {{ yield "served"; return; }}
          try {{ for (;;) {{ yield "tick"; await sleep(10); }} }} finally {{ console.log("is ended"); }}
        }}"""
    )
    api.most_chunks = 3
    post = environment.invoke()
    assert (post.body, post.is_whole) == (b"tick" * 3, False)
    assert environment.waits_for_next(2)
    api.most_chunks = None
    assert environment.invoke("ended").is_whole
    until = time.monotonic() + 5
    while "is ended" not in environment.log and time.monotonic() < until:
        time.sleep(0.02)
    assert "is ended" in environment.log
    assert "it is cancelled" in environment.log


def test_nobody_reads_while_the_function_waits(start: Start, api: FakeRuntimeApi) -> None:
    """A stream that has nothing to say is cancelled as soon as its reader is gone."""
    environment = start(
        f"""{SLEEP}
        export const handler = (event) => event === "next" ? "served" : new ReadableStream({{
          start(c) {{ c.enqueue("a"); }}, cancel(why) {{ console.log("cancelled:", why.name); }}
        }});
        setInterval(() => {{}}, 1000);"""
    )
    api.most_chunks = 1
    environment.invoke()
    assert environment.waits_for_next(2)
    api.most_chunks = None
    assert environment.result("next") == "served"
    assert "cancelled: AbortError" in environment.log


def test_a_function_waits_for_a_slow_reader(start: Start, api: FakeRuntimeApi) -> None:
    """It makes no more than fits between the two: memory is bounded."""
    environment = start(
        """export async function* handler() {
          for (let i = 0; i < 400; i++) { if (i % 10 === 0) console.log(`made ${i}`); yield new Uint8Array(100_000); }
        }"""
    )
    api.takes_chunks.clear()
    environment.api.events.put(Answer([Event(b"{}", "slow").to_bytes()]))
    time.sleep(1.5)
    assert "made 0\n" in environment.log
    assert "made 390\n" not in environment.log
    api.takes_chunks.set()
    assert len(environment.post().body) == 40_000_000


NODE = """
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
export const handler = awslambda.streamifyResponse(async (event, responseStream, context) => {
  if (event.http) {
    responseStream = awslambda.HttpResponseStream.from(responseStream, event.http);
  }
  if (event.type) responseStream.setContentType(event.type);
  if (event.pipe) return await pipeline(Readable.from(event.pipe), responseStream);
  for (const word of event.words ?? []) responseStream.write(word);
  if (event.late) responseStream.setContentType("text/late");
  if (event.fail) throw new RangeError(event.fail);
  if (event.context) responseStream.write({ id: context.awsRequestId, has: "succeed" in context });
  if (!event.open) responseStream.end();
  return "ignored";
});
"""


def test_a_handler_of_nodes_runtime(start: Start) -> None:
    """StreamifyResponse gives a Node stream: writes, a pipeline, a content type, objects as JSON."""
    environment = start(NODE)
    post = environment.invoke({"words": ["a", {"b": 1}, "c"], "type": "text/plain"})
    assert (post.headers["content-type"], post.body) == ("text/plain", b'a{"b":1}c')
    assert post.headers[MODE] == "streaming"
    assert environment.invoke({"pipe": ["x", "y"]}).body == b"xy"
    assert environment.invoke({"context": True}).body == b'{"id":"request-3","has":false}'
    assert environment.invoke({}).body == b""
    assert not environment.invoke({"words": ["a"]}).trailers


def test_http_of_nodes_runtime(start: Start) -> None:
    """HttpResponseStream puts status, headers and cookies before the first bytes, or before none."""
    environment = start(NODE)
    http = {"statusCode": 201, "headers": {"x-a": "b"}, "cookies": ["c=d"]}
    for words in (["one", "two"], ["", "onetwo"]):
        post = environment.invoke({"http": http, "words": words})
        assert prelude_of(post) == (http, b"onetwo")
    assert prelude_of(environment.invoke({"http": http})) == (http, b"")


def test_errors_of_nodes_runtime(start: Start) -> None:
    """Errors behind bytes are trailers; a stream left open and a late content type are errors."""
    environment = start(NODE)
    post = environment.invoke({"words": ["a"], "fail": "late"})
    assert (post.body, post.trailers[ERROR_TYPE]) == (b"a", "Function.RangeError")
    post, error = environment.error({"fail": "early"})
    assert error["errorMessage"] == "early"
    post = environment.invoke({"words": ["a"], "open": True})
    assert error_of(post)["errorMessage"] == "Response stream is not finished."
    post = environment.invoke({"words": ["a"], "late": True})
    assert error_of(post)["errorMessage"] == "Cannot set content-type, too late."


def test_a_handler_of_nodes_runtime_must_be_async(start: Start) -> None:
    """As there: a handler that returns no promise is refused."""
    environment = start(
        "export const handler = awslambda.streamifyResponse((event, stream) => stream.end());"
    )
    post, error = environment.error()
    assert error["errorMessage"] == "Streaming does not support non-async handlers."
    assert post.error_type == "Runtime.InvalidStreamingOperation"


def test_no_global_awslambda(start: Start) -> None:
    """Node's own switch takes the global away."""
    environment = start(
        "export const handler = () => typeof awslambda;", AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA="true"
    )
    assert environment.result() == "undefined"


WEB = f"""{SLEEP}
export default {{
  fetch(request, info) {{
    const {{ pathname }} = new URL(request.url);
    if (pathname === "/empty") return new Response(null, {{ status: 204 }});
    if (pathname === "/throw") throw new RangeError("early");
    if (pathname === "/abort") {{
      request.signal.addEventListener("abort", () => console.log("request aborted"));
      info.completed.then(() => console.log("completed"));
    }}
    return new Response(new ReadableStream({{
      async start(c) {{
        c.enqueue(new TextEncoder().encode("one"));
        await sleep(300);
        if (pathname === "/late") return c.error(new RangeError("late"));
        c.enqueue(new TextEncoder().encode("two"));
        if (pathname !== "/abort") c.close();
      }},
      cancel() {{ console.log("cancelled"); }},
    }}), {{ status: 201, headers: [["x-a", "b"], ["set-cookie", "c=1"], ["set-cookie", "d=2"], ["content-length", "6"]] }});
  }},
}};
setInterval(() => {{}}, 1000);
"""


def test_a_response_is_streamed_where_the_url_streams(start: Start) -> None:
    """Status, headers and cookies come with the first bytes; what the client's side sets is left out."""
    environment = start(WEB, LAMBDENO_INVOKE_MODE="streaming")
    post = environment.invoke(url_event())
    prelude, body = prelude_of(post)
    assert prelude == {"statusCode": 201, "headers": {"x-a": "b"}, "cookies": ["c=1", "d=2"]}
    assert body == b"onetwo"
    (first, begin), (second, _) = post.chunks
    assert begin.endswith(bytes(8) + b"one")
    assert second - first > 0.2
    assert prelude_of(environment.invoke(url_event(path="/empty"))) == (
        {"statusCode": 204, "headers": {}, "cookies": []},
        b"",
    )


def test_errors_of_a_streamed_response(start: Start) -> None:
    """Before the first byte it is an invocation error, behind it trailers."""
    environment = start(WEB, LAMBDENO_INVOKE_MODE="streaming")
    _, error = environment.error(url_event(path="/throw"))
    assert error["errorMessage"] == "early"
    post = environment.invoke(url_event(path="/late"))
    assert error_of(post)["errorMessage"] == "late"


def test_a_client_that_is_gone_aborts_its_request(start: Start, api: FakeRuntimeApi) -> None:
    """The request's signal and the body's cancel tell the function."""
    environment = start(WEB, LAMBDENO_INVOKE_MODE="streaming")
    api.most_chunks = 1
    environment.invoke(url_event(path="/abort"))
    assert environment.waits_for_next(2)
    for word in ("request aborted", "cancelled", "completed"):
        assert word in environment.log
