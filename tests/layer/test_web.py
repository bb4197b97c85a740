"""HTTP events and the web's Request and Response, in each of the forms that Lambda has."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.layer.conftest import Environment, Start

Event = dict[str, Any]

# What the application saw of the request, and an answer as the path wants it.
APPLICATION = """
const bytes = (n) => Uint8Array.from({ length: n }, (_, i) => i % 256);
const ANSWERS = {
  "/text": () => new Response("é", { headers: { "content-type": "text/plain; charset=utf-8" } }),
  "/latin": () => new Response(new Uint8Array([233]), { headers: { "content-type": "text/plain; charset=iso-8859-1" } }),
  "/not-utf8": () => new Response(new Uint8Array([255]), { headers: { "content-type": "text/plain" } }),
  "/untyped": () => new Response(new TextEncoder().encode("plain")),
  "/untyped-bytes": () => new Response(new Uint8Array([255, 0])),
  "/bom": () => new Response(new Uint8Array([0xef, 0xbb, 0xbf, 65]), { headers: { "content-type": "text/plain" } }),
  "/zipped": () => new Response("text", { headers: { "content-type": "text/plain", "content-encoding": "gzip" } }),
  "/svg": () => new Response("<svg/>", { headers: { "content-type": "image/svg+xml" } }),
  "/problem": () => new Response("{}", { headers: { "content-type": "application/problem+json" } }),
  "/image": () => new Response(bytes(256), { headers: { "content-type": "image/png" } }),
  "/large": () => new Response(bytes(4_000_000), { headers: { "content-type": "image/png" } }),
  "/forty": () => new Response("", { headers: Array.from({ length: 40 }, (_, at) => ["set-cookie", `c${at}=1`]) }),
  "/cookies": () => new Response("c", { headers: [["set-cookie", "a=1; Path=/"], ["set-cookie", "b=2, 3"], ["x-a", "1"], ["x-a", "2"]] }),
  "/none": () => new Response(null, { status: 204 }),
  "/redirect": () => Response.redirect("https://example.com/", 302),
  "/not-modified": () => new Response(null, { status: 304, headers: { etag: '"1"' } }),
  "/empty": () => new Response(""),
  "/error": () => new Response("no", { status: 418, statusText: "Teapot" }),
  "/hop": () => new Response("a", { headers: { connection: "close", "transfer-encoding": "chunked", "keep-alive": "1", "content-length": "1" } }),
  "/breaks": () => new Response(new ReadableStream({ pull(c) { c.error(new RangeError("broken")); } })),
};
export default {
  async fetch(request, info) {
    const url = new URL(request.url);
    const answer = ANSWERS[url.pathname];
    if (answer) return answer();
    const body = new Uint8Array(await request.arrayBuffer());
    return Response.json({
      method: request.method, url: request.url, headers: [...request.headers], address: info.remoteAddr.hostname,
      body: body.length > 99 ? body.length : body.toBase64(),
      hash: body.reduce((sum, byte) => (sum * 31 + byte) % 65521, 0),
    });
  },
};
"""


def v2(path: str = "/", method: str = "GET", query: str = "", **more: Any) -> Event:
    """A Function URL's event, and an HTTP API's."""
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4", "userAgent": "x"}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "h.example", "x-forwarded-proto": "https"},
        "requestContext": {"http": http, "stage": "$default", "domainName": "d.example"},
        "isBase64Encoded": False,
        **more,
    }


def v1(path: str = "/", method: str = "GET", query: str = "", **more: Any) -> Event:
    """A REST API's event."""
    words = [word.partition("=") for word in query.split("&") if word]
    several: dict[str, list[str]] = {}
    for name, _, value in words:
        several.setdefault(name, []).append(value)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"Host": "h.example", "X-Forwarded-Proto": "https"},
        "multiValueHeaders": {"Host": ["h.example"], "X-Forwarded-Proto": ["https"]},
        "queryStringParameters": {name: values[-1] for name, values in several.items()} or None,
        "multiValueQueryStringParameters": several or None,
        "requestContext": {"stage": "prod", "path": "/prod" + path, "identity": {"sourceIp": "1.2.3.4"}},
        "body": None,
        "isBase64Encoded": False,
        **more,
    }


def alb(path: str = "/", method: str = "GET", query: str = "", **more: Any) -> Event:
    """A load balancer's event with one value for a header."""
    words = [word.partition("=") for word in query.split("&") if word]
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:::targetgroup/t/1"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {name: value for name, _, value in words},
        "headers": {"host": "h.example", "x-forwarded-proto": "https", "x-forwarded-for": "1.2.3.4, 5.6.7.8"},
        "body": "",
        "isBase64Encoded": False,
        **more,
    }


def alb_multi(path: str = "/", method: str = "GET", query: str = "", **more: Any) -> Event:
    """A load balancer's event with lists of values."""
    several: dict[str, list[str]] = {}
    for word in query.split("&"):
        name, _, value = word.partition("=")
        if name:
            several.setdefault(name, []).append(value)
    event = alb(path, method, **more)
    del event["headers"], event["queryStringParameters"]
    values = {"host": ["h.example"], "x-forwarded-proto": ["https"], "x-forwarded-for": ["1.2.3.4"]}
    return {"multiValueHeaders": values, "multiValueQueryStringParameters": several, **event}


Form = Callable[..., Event]
FORMS = pytest.mark.parametrize("form", [v2, v1, alb, alb_multi])


@pytest.fixture
def combination() -> str:
    """The same JavaScript runs in all of them."""
    return "source-runtime1"


@pytest.fixture
def application(start: Start) -> Environment:
    """The application above."""
    return start(APPLICATION)


def seen(environment: Environment, event: Event) -> dict[str, Any]:
    """What the application saw."""
    found: dict[str, Any] = json.loads(environment.result(event)["body"])
    return found


def content(result: dict[str, Any]) -> bytes:
    """The body that the client gets."""
    body = result.get("body", "")
    return base64.b64decode(body) if result["isBase64Encoded"] else body.encode()


@FORMS
@pytest.mark.parametrize(
    ("path", "query", "url"),
    [
        ("/", "", "/"),
        ("/a/b", "x=1&x=2&y=", "/a/b?x=1&x=2&y="),
        ("/a%20b/%C3%A9", "q=a%20b", "/a%20b/%C3%A9?q=a%20b"),
        ("//double//", "", "//double//"),
        ("/100%", "", "/100%25"),
        ("/é €", "", "/%C3%A9%20%E2%82%AC"),
        ("/a?b#c", "", "/a%3Fb%23c"),
        ("/a;b=c,d@e:f!$&'()*+~", "", "/a;b=c,d@e:f!$&'()*+~"),
        ("no-slash", "", "/no-slash"),
        ("", "", "/"),
    ],
)
def test_the_url(application: Environment, form: Form, path: str, query: str, url: str) -> None:
    """Path and query are the client's, whether the event has them encoded or not."""
    if form is v1:
        query = query.replace("%20", " ")  # these events have it decoded
    if form is alb:
        query, url = query.replace("x=1&x=2", "x=2"), url.replace("x=1&x=2", "x=2")  # the last one wins
    found = seen(application, form(path, query=query))
    assert found["url"] == f"https://h.example{url}"
    assert found["address"] == "1.2.3.4"


@FORMS
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_methods(application: Environment, form: Form, method: str) -> None:
    """Any method passes; what has no body has none."""
    result = application.result(form("/", method, body="text"))
    if method == "HEAD":
        assert "body" not in result
        return
    found = json.loads(result["body"])
    assert found["method"] == method
    assert base64.b64decode(found["body"]) == (b"" if method == "GET" else b"text")


@FORMS
@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_no_request_has(application: Environment, form: Form, method: str) -> None:
    """The web's Request refuses them: the client is told."""
    assert application.result(form("/", method))["statusCode"] == 501


@FORMS
def test_bodies(application: Environment, form: Form) -> None:
    """Text as UTF-8, bytes from base64, megabytes of them; no type is made up."""
    found = seen(application, form("/", "POST", body="é😀"))
    assert base64.b64decode(found["body"]) == "é😀".encode()
    assert "content-type" not in dict(found["headers"])
    data = bytes(range(256)) * 16_000
    found = seen(application, form("/", "POST", body=base64.b64encode(data).decode(), isBase64Encoded=True))
    total = 0
    for byte in data:
        total = (total * 31 + byte) % 65521
    assert (found["body"], found["hash"]) == (len(data), total)


def test_headers_and_cookies(application: Environment) -> None:
    """Lists are joined as HTTP joins them, cookies come back as one header."""
    event = v2(headers={"host": "h", "x-a": "1,2", "X-B": "3"}, cookies=["a=1", "b=2"])
    headers = dict(seen(application, event)["headers"])
    assert headers == {"host": "h", "x-a": "1,2", "x-b": "3", "cookie": "a=1; b=2"}
    event = v1(headers={"X-A": "2"}, multiValueHeaders={"X-A": ["1", "2"], "Cookie": ["a=1; b=2"]})
    headers = dict(seen(application, event)["headers"])
    assert headers == {"x-a": "1, 2", "cookie": "a=1; b=2"}


def test_headers_that_are_none(application: Environment) -> None:
    """Characters that only JSON has are the bytes of their UTF-8; an impossible name is left out."""
    event = v2(headers={"x-a": "é€", "not a name": "1", "x-b": "é"})
    headers = dict(seen(application, event)["headers"])
    assert headers["x-a"].encode("latin-1").decode() == "é€"
    assert headers["x-b"] == "é"
    assert "not a name" not in headers


@pytest.mark.parametrize(
    ("stage", "path", "seen_path"),
    [
        ("$default", "/prod/a", "/prod/a"),
        ("prod", "/prod/a", "/a"),
        ("prod", "/prod", "/"),
        ("prod", "/production", "/production"),
        ("prod", "/prod/prod/a", "/prod/a"),
    ],
)
def test_the_stage_is_no_part_of_the_path(
    application: Environment, stage: str, path: str, seen_path: str
) -> None:
    """An application has the same routes in every stage."""
    event = v2(path)
    event["requestContext"]["stage"] = stage
    assert seen(application, event)["url"] == f"https://h.example{seen_path}"


@pytest.mark.parametrize("base", ["/v1/api", "v1/api/"])
@pytest.mark.parametrize(
    ("path", "seen_path"), [("/v1/api/a", "/a"), ("/v1/api", "/"), ("/v1/apis", "/v1/apis"), ("/a", "/a")]
)
def test_a_base_path(start: Start, base: str, path: str, seen_path: str) -> None:
    """LAMBDENO_BASE_PATH is taken off once, where a segment ends."""
    environment = start(APPLICATION, LAMBDENO_BASE_PATH=base)
    for form in (v2, v1, alb):
        assert seen(environment, form(path))["url"] == f"https://h.example{seen_path}"


@FORMS
@pytest.mark.parametrize(
    ("path", "is_text", "body"),
    [
        ("/text", True, "é".encode()),
        ("/latin", False, b"\xe9"),
        ("/not-utf8", False, b"\xff"),
        ("/untyped", True, b"plain"),
        ("/untyped-bytes", False, b"\xff\0"),
        ("/bom", True, b"\xef\xbb\xbfA"),
        ("/zipped", False, b"text"),
        ("/svg", True, b"<svg/>"),
        ("/problem", True, b"{}"),
        ("/image", False, bytes(range(256))),
        ("/large", False, (bytes(range(256)) * 15_625)),
        ("/empty", True, b""),
    ],
)
def test_bodies_of_responses(
    application: Environment, form: Form, path: str, is_text: bool, body: bytes
) -> None:
    """Text goes as text where the client gets the same bytes so, all else in base64."""
    result = application.result(form(path))
    assert result["isBase64Encoded"] == (not is_text)
    assert content(result) == body


@FORMS
def test_statuses(application: Environment, form: Form) -> None:
    """Each is the response's own; what may have no body has none."""
    for path, status in {"/none": 204, "/redirect": 302, "/not-modified": 304, "/error": 418}.items():
        result = application.result(form(path))
        assert result["statusCode"] == status
        if status in {204, 304}:
            assert "body" not in result
        if form in {alb, alb_multi}:
            reason = {204: "No Content", 302: "Found", 304: "Not Modified", 418: "Teapot"}[status]
            assert result["statusDescription"] == f"{status} {reason}"


def test_headers_of_responses(application: Environment) -> None:
    """Each caller gets repeated headers and cookies where it looks for them."""
    cookies = ["a=1; Path=/", "b=2, 3"]
    result = application.result(v2("/cookies"))
    assert (result["cookies"], result["headers"]["x-a"]) == (cookies, "1, 2")
    assert "set-cookie" not in result["headers"]
    result = application.result(v1("/cookies"))
    assert (result["headers"], result["multiValueHeaders"]["set-cookie"]) == ({}, cookies)
    assert result["multiValueHeaders"]["x-a"] == ["1, 2"]
    result = application.result(alb_multi("/cookies"))
    assert "headers" not in result
    assert result["multiValueHeaders"]["set-cookie"] == cookies
    result = application.result(alb("/cookies"))
    assert "multiValueHeaders" not in result
    assert cookies_of(result) == cookies


def cookies_of(result: Any) -> list[str]:
    """Those of a map that has one value for a name."""
    return [value for name, value in result["headers"].items() if name.lower() == "set-cookie"]


def test_a_load_balancer_gets_every_cookie(application: Environment) -> None:
    """However many there are, no one takes another's place in the map."""
    result = application.result(alb("/forty"))
    assert cookies_of(result) == [f"c{number}=1" for number in range(40)]


@FORMS
def test_headers_of_the_connection_are_not_sent(application: Environment, form: Form) -> None:
    """They belong to whoever speaks to the client."""
    result = application.result(form("/hop"))
    names = {**result.get("headers", {}), **result.get("multiValueHeaders", {})}
    assert not names.keys() & {"connection", "transfer-encoding", "keep-alive", "content-length"}


@FORMS
def test_a_body_that_breaks(application: Environment, form: Form) -> None:
    """Nothing was sent yet: it is the invocation's error."""
    _, error = application.error(form("/breaks"))
    assert error["errorMessage"] == "broken"


@pytest.mark.parametrize(
    ("route", "kind", "method"),
    [
        ("$connect", "CONNECT", "GET"),
        ("$default", "MESSAGE", "POST"),
        ("send", "MESSAGE", "POST"),
        ("$disconnect", "DISCONNECT", "GET"),
    ],
)
def test_routes_of_a_websocket(application: Environment, route: str, kind: str, method: str) -> None:
    """Each is a path; a message is a POST."""
    event = {
        "requestContext": {"routeKey": route, "eventType": kind, "connectionId": "c=", "stage": "prod",
                           "domainName": "d.example", "identity": {"sourceIp": "1.2.3.4"}},
        "headers": {"Host": "h.example"} if kind == "CONNECT" else None,
        "body": "said" if kind == "MESSAGE" else None,
        "isBase64Encoded": False,
    }  # fmt: skip
    found = seen(application, event)
    host = "h.example" if kind == "CONNECT" else "d.example"
    assert (found["method"], found["url"]) == (method, f"https://{host}/{route}")
    assert base64.b64decode(found["body"]) == (b"said" if kind == "MESSAGE" else b"")


@pytest.mark.parametrize("form", [v1, alb, v2])
def test_what_is_never_streamed(start: Start, form: Form) -> None:
    """A load balancer and an HTTP API take no stream, a REST API does."""
    environment = start(APPLICATION, LAMBDENO_INVOKE_MODE="streaming")
    post = environment.invoke(form("/text"))
    assert ("lambda-runtime-function-response-mode" in post.headers) == (form is v1)
    if form is not v1:
        assert json.loads(post.body)["body"] == "é"


def test_cookies_of_a_stream(start: Start) -> None:
    """A REST API looks for them among lists of headers, a Function URL has a list of its own."""
    environment = start(APPLICATION, LAMBDENO_INVOKE_MODE="streaming")
    cookies = ["a=1; Path=/", "b=2, 3"]
    url = v2("/cookies")
    url["requestContext"]["domainName"] = "x.lambda-url.eu-west-1.on.aws"
    for event, wanted in (
        (url, {"cookies": cookies}),
        (v1("/cookies"), {"multiValueHeaders": {"set-cookie": cookies}}),
    ):
        prelude = json.loads(environment.invoke(event).body.partition(bytes(8))[0])
        assert prelude == {"statusCode": 200, "headers": prelude["headers"], **wanted}
        assert prelude["headers"]["x-a"] == "1, 2"


def test_a_host_that_is_none(application: Environment) -> None:
    """A client may send any Host: the application still gets a URL."""
    found = seen(application, v2("/a", headers={"host": "a b<>", "x-forwarded-proto": "javascript"}))
    assert found["url"] == "https://localhost/a"
