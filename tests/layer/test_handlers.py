"""What _HANDLER names, and what a function may be: handlers, classes, applications, modules as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.layer.conftest import Start
from tests.layer.test_streaming import url_event

TYPED = "export const handler = (event: number): number => event + 1;"


@pytest.mark.parametrize(
    ("handler", "bundle", "files"),
    [
        ("function.handler", "export const handler = (e) => e + 1;", {}),
        ("./function.handler", "export const handler = (e) => e + 1;", {}),
        ("function.default", "export default async (e) => e + 1;", {}),
        ("function.a.b.c", "export const a = { b: { n: 1, c(e) { return e + this.n; } } };", {}),
        ("function.Orders.create", "export class Orders { static n = 1; static create(e) { return e + this.n; } }", {}),
        ("function.Orders.create", "export class Orders { #n = 1; async create(e) { return e + this.#n; } }", {}),
        ("function.default.create", "export default new (class { #n = 1; create(e) { return e + this.#n; } })();", {}),
        ("api/orders/main.handler", None, {"api/orders/main.bundle.js": "export const handler = (e) => e + 1;"}),
        ("main.handler", None, {"main.ts": TYPED}),
        ("main.handler", None, {"main.mts": TYPED}),
        ("main.handler", None, {"main.js": "export const handler = (e) => e + 1;"}),
        ("src/main.handler", None, {"src/main.mjs": "import { n } from './n.mjs'; export const handler = (e) => e + n;",
                                    "src/n.mjs": "export const n = 1;"}),
        ("function.handler", None, {"function.ts": TYPED}),
        ("main.handler", None, {"main.ts": TYPED, "main.js": "export const handler = () => 'js';"}),
        ("main.handler", None, {"main.bundle.js": "export const handler = (e) => e + 1;", "main.ts": "no"}),
    ],
)  # fmt: skip
def test_a_handler_is_found(start: Start, handler: str, bundle: str | None, files: Mapping[str, str]) -> None:
    """A file in any folder, a path of exports with its own this; where there is no bundle, a module as it is."""
    environment = start(bundle, files=files, _HANDLER=handler)
    assert environment.result(41) == 42


@pytest.mark.parametrize(
    ("extension", "result"), [("js", "js"), ("ts", "ts"), ("bundle.js", "bundle"), ("", "bundle")]
)
def test_handler_ext(start: Start, extension: str, result: str) -> None:
    """HANDLER_EXT says which of several files it is; empty is as if it were not there."""
    files = {f"main.{ext}": f"export const handler = () => '{word}';"
             for ext, word in {"js": "js", "ts": "ts", "bundle.js": "bundle"}.items()}  # fmt: skip
    environment = start(None, files=files, _HANDLER="main.handler", HANDLER_EXT=extension)
    assert environment.result() == result


def test_handler_ext_of_a_file_that_is_missing(start: Start) -> None:
    """No other file stands in for the one that was named."""
    environment = start(None, files={"main.ts": TYPED}, _HANDLER="main.handler", HANDLER_EXT="js")
    _, error = environment.init_error()
    assert error["errorType"] == "Runtime.BundleNotFound"
    assert "main.js" in error["errorMessage"]


def test_a_class_is_made_once(start: Start) -> None:
    """Its instance lives as long as the process."""
    environment = start(
        "let n = 0; export class A { constructor() { n++; } get() { return n; } }", _HANDLER="function.A.get"
    )
    assert environment.result() == 1
    assert environment.result() == 1


def test_a_class_that_cannot_be_made(start: Start) -> None:
    """What its constructor throws is an init error."""
    environment = start(
        "export class A { constructor() { throw new RangeError('no'); } get() {} }", _HANDLER="function.A.get"
    )
    _, error = environment.init_error()
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "no")


def test_an_unknown_streaming_mode(start: Start) -> None:
    """As in Node's runtime: the mark of a streaming handler has one value."""
    environment = start(
        "const f = () => 1; f[Symbol.for('aws.lambda.runtime.handler.streaming')] = 'other'; export const handler = f;"
    )
    _, error = environment.init_error()
    assert error["errorType"] == "Runtime.MalformedStreamingHandler"


def answered(result: dict[str, Any]) -> tuple[int, Any]:
    """Status and body of an answer to a Function URL."""
    return result["statusCode"], json.loads(result["body"])


SEEN = """
const seen = (request, info) => Response.json({
  url: request.url, id: info.lambdaContext.awsRequestId, address: info.remoteAddr.hostname,
  path: info.event.rawPath, domain: info.requestContext.domainName,
  same: request.lambda.event === info.event && request.lambda.context === info.lambdaContext,
});
"""
SERVED = """
console.log("addr", Deno.serve({ port: 8080, onListen: ({ port }) => console.log("listens", port) }, seen).addr.port);
"""


@pytest.mark.parametrize(
    "module",
    [
        "export default { fetch: seen };",
        "class App { #seen = seen; fetch(...all) { return this.#seen(...all); } } export default new App();",
        "Deno.serve(seen);",
        "Deno.serve({ handler: seen, port: 80 });",
        SERVED,
        "await Deno.serve({ port: 8080 }, seen).finished;",
        "const listen = async () => { await new Promise((r) => setTimeout(r, 50)); await Deno.serve(seen).finished; }; listen();",
        "using _ = { [Symbol.dispose]() {} }; Deno.serve(seen); await new Promise((r) => setTimeout(r, 20));",
    ],
)
def test_an_application(start: Start, module: str) -> None:
    """Fetch of the default export, or what Deno.serve is given, takes HTTP events, and learns all of them."""
    environment = start(SEEN + module, LAMBDENO_PERMISSIONS="--allow-env")
    for number in (1, 2):
        result = environment.result(url_event(path="/a", rawQueryString="b=c"))
        assert answered(result) == (
            200,
            {
                "url": "https://abc.lambda-url.us-east-1.on.aws/a?b=c",
                "id": f"request-{number}",
                "address": "1.2.3.4",
                "path": "/a",
                "domain": "abc.lambda-url.us-east-1.on.aws",
                "same": True,
            },
        )
    if "listens" in module:
        assert "addr 8080" in environment.log
        assert "listens 8080" in environment.log


def test_other_events_of_an_application(start: Start) -> None:
    """The handler that stands beside it takes them; HTTP events go to the application."""
    environment = start(
        "export default { fetch: () => new Response('web') }; export const handler = (event, context, callback) => callback(null, 'other');"
    )
    assert environment.result(url_event())["body"] == "web"
    assert environment.result({"Records": []}) == "other"
    assert environment.result([1]) == "other"
    assert (
        environment.result({**url_event(), "type": "REQUEST", "routeArn": "arn:aws:execute-api"}) == "other"
    )


def test_other_events_beside_deno_serve(start: Start) -> None:
    """The same where the module goes on behind it; for one that waits for its server there is no handler."""
    environment = start(
        "Deno.serve(() => new Response('web')); await new Promise((r) => setTimeout(r, 30)); export const handler = () => 'other';"
    )
    assert environment.result([1]) == "other"
    assert environment.result(url_event())["body"] == "web"
    environment.close()
    environment = start("await Deno.serve(() => new Response('web')).finished;")
    post, _ = environment.error([1])
    assert post.error_type == "Runtime.NoHandlerForEvent"
    assert environment.result(url_event())["body"] == "web"


def test_an_event_that_nobody_takes(start: Start) -> None:
    """A clear error of the invocation, and the next one is served."""
    environment = start("export default { fetch: () => new Response('web') };")
    post, error = environment.error({"Records": []})
    assert post.error_type == "Runtime.NoHandlerForEvent"
    assert "handler" in error["errorMessage"]
    assert environment.result(url_event())["body"] == "web"


@pytest.mark.parametrize(
    ("handler", "module", "error_type"),
    [
        ("function.handler", "export const other = 1;", "Runtime.HandlerNotFound"),
        ("function.other", "export default { fetch() {} };", "Runtime.HandlerNotFound"),
        ("function.handler", "export default { fetch: 1 };", "Runtime.HandlerNotFound"),
        ("function.handler", "Deno.serve();", "TypeError"),
        ("function.handler", "Deno.serve(() => 1); Deno.serve(() => 2);", "Runtime.ServedTwice"),
        ("function.handler", "Deno.serve(() => 1); throw new RangeError();", "RangeError"),
    ],
)
def test_what_is_no_application(start: Start, handler: str, module: str, error_type: str) -> None:
    """It is told at init."""
    _, error = start(module, _HANDLER=handler).init_error()
    assert error["errorType"] == error_type


def test_an_application_that_fails(start: Start) -> None:
    """What fetch throws is the invocation's error, unless Deno.serve was given an onError; no Response is one."""
    environment = start(
        "export default { fetch(r) { if (r.url.endsWith('/none')) return; throw new RangeError('in fetch'); } };"
    )
    post, error = environment.error(url_event())
    assert (post.error_type, error["errorMessage"]) == ("Function.RangeError", "in fetch")
    assert "/lambdeno/" not in "".join(error["trace"])
    post, error = environment.error(url_event(path="/none"))
    assert (post.error_type, error["errorMessage"]) == (
        "Runtime.NotAResponse",
        "fetch returned undefined, not a Response",
    )


def test_an_application_that_never_answers(start: Start) -> None:
    """Its promise is as good as a handler's: where nothing could settle it, that is the error."""
    environment = start("export default { fetch: () => new Promise(() => {}) };")
    for _ in range(2):
        post, _ = environment.error(url_event())
        assert post.error_type == "Runtime.HandlerNeverSettled"


def test_deno_serves_own_error_handler(start: Start) -> None:
    """It answers as it does in Deno."""
    environment = start(
        "Deno.serve({ onError: (e) => new Response(e.message, { status: 418 }) }, () => { throw new Error('tea'); });"
    )
    result = environment.result(url_event())
    assert (result["statusCode"], result["body"]) == (418, "tea")


def test_a_handler_may_return_a_response(start: Start) -> None:
    """In the form of its event; of any other event, the body."""
    environment = start("export const handler = () => Response.json({ a: 1 }, { status: 201 });")
    assert answered(environment.result(url_event())) == (201, {"a": 1})
    assert environment.result("no HTTP") == {"a": 1}


def test_deno_serve_is_its_own_after_the_load(start: Start) -> None:
    """What is served while an event is handled opens a port, as ever."""
    environment = start(
        """export const handler = async () => {
          const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => new Response("real"));
          const text = await (await fetch(`http://127.0.0.1:${server.addr.port}/`)).text();
          await server.shutdown();
          return text;
        };"""
    )
    assert environment.result() == "real"


@pytest.mark.parametrize(
    ("prefix", "line"),
    [
        ("${level}\\tRequestId: ${requestId}\\r", "INFO\tRequestId: request-1\rsaid\n"),
        ("[${requestId.slice(0, 3)}] ", "[req] said\n"),
        ("", "said\n"),
    ],
)
def test_deno_prefix(start: Start, prefix: str, line: str) -> None:
    """The community layer's variable says what a line of the log begins with."""
    environment = start("export const handler = () => { console.log('said'); };", DENO_PREFIX=prefix)
    environment.result()
    assert environment.log_file.read_bytes() == line.encode()


def test_a_deno_prefix_that_is_none(start: Start) -> None:
    """A template that cannot be is told once, and then there is no prefix."""
    environment = start("export const handler = () => { console.log('said'); };", DENO_PREFIX="${nothing}")
    environment.result()
    assert environment.log == "warn: DENO_PREFIX nothing is not defined\nsaid\n"
