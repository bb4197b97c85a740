"""HTTP as events and results as HTTP: what each service makes of the same request, and of a result."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lambdeno.emulator.http_events import FORMS, Answer, Form, Malformed, Request, answer_of, event_of

ALL = pytest.mark.parametrize("form", FORMS)
PAYLOAD_2 = ("url", "http-api")


def asked(**more: Any) -> Request:
    """A request with a bit of everything."""
    headers = (("Host", "h"), ("X-A", "1"), ("x-a", "2"), ("Cookie", "a=1; b=2"), ("User-Agent", "curl"))
    fields: dict[str, Any] = {
        "method": "POST",
        "path": "/a%20b/c",
        "query": "x=1&x=2&y=a%20b+c&z",
        "headers": headers,
        "address": "127.0.0.1",
        "port": 9001,
        "trace_id": "Root=1-0-0",
    }
    return Request(**{**fields, **more})


def test_payload_2() -> None:
    """Names in lower case, values joined, cookies apart, the query as it came and decoded."""
    event = event_of("url", asked())
    assert event["version"] == "2.0"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/a%20b/c"
    assert event["rawQueryString"] == "x=1&x=2&y=a%20b+c&z"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "a b c", "z": ""}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"] == {
        "host": "h",
        "x-a": "1,2",
        "user-agent": "curl",
        "x-amzn-trace-id": "Root=1-0-0",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-port": "9001",
        "x-forwarded-proto": "http",
    }
    assert event["requestContext"]["stage"] == "$default"
    assert event["requestContext"]["http"]["userAgent"] == "curl"
    assert not event.keys() & {"body", "multiValueHeaders"}
    bare = event_of("url", asked(query="", headers=()))
    assert not bare.keys() & {"cookies", "queryStringParameters"}


def test_a_function_url_is_told_from_an_http_api_by_its_domain() -> None:
    """The runtime has nothing else to see whether a stream is taken."""
    assert ".lambda-url." in event_of("url", asked())["requestContext"]["domainName"]
    assert ".execute-api." in event_of("http-api", asked())["requestContext"]["domainName"]


def test_rest() -> None:
    """Both kinds of maps, names as the client wrote them, the stage in the context alone."""
    event = event_of("rest", asked())
    assert (event["path"], event["requestContext"]["path"]) == ("/a%20b/c", "/local/a%20b/c")
    assert event["multiValueHeaders"]["X-A"] == ["1", "2"]
    assert event["headers"]["X-A"] == "2"
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "y": ["a b c"], "z": [""]}
    assert event["queryStringParameters"] == {"x": "2", "y": "a b c", "z": ""}
    assert event["body"] is None
    assert event_of("rest", asked(query=""))["queryStringParameters"] is None


def test_load_balancers() -> None:
    """Values stay encoded; lists are in place of single values."""
    event = event_of("alb", asked())
    assert event["queryStringParameters"] == {"x": "2", "y": "a%20b+c", "z": ""}
    assert event["headers"]["x-a"] == "2"
    assert "multiValueHeaders" not in event
    event = event_of("alb-multi", asked())
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "y": ["a%20b+c"], "z": [""]}
    assert event["multiValueHeaders"]["x-a"] == ["1", "2"]
    assert "headers" not in event


@ALL
@pytest.mark.parametrize(
    ("kind", "body", "is_base64"),
    [
        ("text/plain", "é".encode(), False),
        ("application/json; charset=utf-8", b"{}", False),
        ("application/problem+json", b"{}", False),
        ("application/x-www-form-urlencoded", b"a=b", False),
        ("image/png", b"a", True),
        ("", b"a", True),
        ("text/plain", b"\xff", True),
    ],
)
def test_bodies_of_requests(form: Form, kind: str, body: bytes, *, is_base64: bool) -> None:
    """Text where its type says so and it is UTF-8, else base64."""
    event = event_of(form, asked(headers=(("Content-Type", kind),) if kind else (), body=body))
    assert event["isBase64Encoded"] == is_base64
    sent = event["body"]
    assert (base64.b64decode(sent) if is_base64 else sent.encode()) == body


def given(form: Form, **result: Any) -> Answer:
    """What a client gets for a result."""
    return answer_of(form, json.dumps(result).encode())


def test_what_has_no_status_is_the_body_of_payload_2() -> None:
    """JSON with 200; other services refuse it."""
    for form in PAYLOAD_2:
        answer = answer_of(form, b'{"a": 1}')  # type: ignore[arg-type]
        assert answer == Answer(200, (("content-type", "application/json"),), b'{"a":1}')
        assert answer_of(form, b'"text"').body == b"text"  # type: ignore[arg-type]
    for form in ("rest", "alb", "alb-multi"):
        with pytest.raises(Malformed):
            answer_of(form, b'{"a": 1}')  # type: ignore[arg-type]


def test_headers_of_results() -> None:
    """Each service reads its own maps."""
    maps = {"headers": {"X-A": "1", "X-B": 2}, "multiValueHeaders": {"x-a": ["3", "4"]}}
    result = {"statusCode": 201, "body": "b", "cookies": ["c=1", "d=2"], **maps}
    answer = given("url", **result)
    assert answer.headers == (
        ("x-a", "1"),
        ("x-b", "2"),
        ("set-cookie", "c=1"),
        ("set-cookie", "d=2"),
        ("content-type", "application/json"),
    )
    assert [value for name, value in given("rest", **result).headers if name == "x-a"] == ["3", "4"]
    assert ("x-b", "2") in given("rest", **result).headers
    assert ("x-a", "1") in given("alb", **result).headers
    assert ("x-a", "4") in given("alb-multi", **result).headers


def test_the_wrong_map_for_a_load_balancer() -> None:
    """It answers 502, as the real one does."""
    with pytest.raises(Malformed, match="reads headers"):
        given("alb", statusCode=200, multiValueHeaders={"a": ["b"]})
    with pytest.raises(Malformed, match="reads multiValueHeaders"):
        given("alb-multi", statusCode=200, headers={"a": "b"})


@ALL
@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "abc"},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": True},
        {"statusCode": 200, "headers": [], "multiValueHeaders": []},
        {"statusCode": 200, "headers": {"a b": "c"}, "multiValueHeaders": {"a b": ["c"]}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}, "multiValueHeaders": {"a": ["b\r\nc: d"]}},
        {"statusCode": 200, "headers": {"a": {}}, "multiValueHeaders": {"a": [{}]}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
    ],
)
def test_malformed_results(form: Form, result: dict[str, Any]) -> None:
    """Nothing of them reaches a client."""
    with pytest.raises(Malformed):
        given(form, **result)


@ALL
def test_bodies_of_results(form: Form) -> None:
    """Text, or the bytes behind base64; none where the status has none; no length from the function."""
    maps = {"headers": {"Content-Length": "9", "Connection": "close"}} if form != "alb-multi" else {}
    assert given(form, statusCode="200", body="é", **maps).body == "é".encode()
    assert not {"content-length", "connection"} & dict(given(form, statusCode=200, **maps).headers).keys()
    assert given(form, statusCode=200, body="/w==", isBase64Encoded=True).body == b"\xff"
    assert given(form, statusCode=204, body="x") == Answer(204)
    assert given(form, statusCode=304) == Answer(304)
