"""HTTP as functions see it: requests as events, results as responses, in the forms of four services.

    url, http-api    payload 2.0 of Function URLs and HTTP APIs
    rest             REST APIs (proxy integration)
    alb, alb-multi   load balancers, with one value or with lists

https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html and, for the others,
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html,
https://docs.aws.amazon.com/lambda/latest/dg/services-alb.html.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus

from lambdeno import payload as payloads

__all__ = [
    "BODILESS",
    "FORMS",
    "Answer",
    "Form",
    "Malformed",
    "Request",
    "answer_from",
    "answer_of",
    "event_of",
    "failure",
    "headers_of",
    "message",
    "throttled",
]

Form = Literal["url", "http-api", "rest", "alb", "alb-multi"]
FORMS: tuple[Form, ...] = ("url", "http-api", "rest", "alb", "alb-multi")
BODILESS = frozenset({204, 205, 304})  # statuses of responses that have no body
TEXT = re.compile(
    r"text/.*|application/([\w.-]+\+)?(json|xml)|application/(javascript|x-www-form-urlencoded)"
)
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # of a header (RFC 9110 §5.6.2)
UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # for a header's value (RFC 9110 §5.5)
STATUS = re.compile(r"[2-5][0-9]{2}")
HOP_BY_HOP = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
DOMAINS = {"url": "{id}.lambda-url.{region}.on.aws", "http-api": "{id}.execute-api.{region}.amazonaws.com"}
ID = "locallocallocallocallocallocal00"  # of the URL, of the API
STAGE = "local"


class Malformed(Exception):
    """The result is none that this service could send to a client."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. ``headers`` are in order and as they were written."""

    method: str
    path: str  # percent-encoded as it came
    query: str  # without a question mark
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    address: str = "127.0.0.1"
    port: int = 80  # of the server
    request_id: str = ""
    trace_id: str = ""
    region: str = "us-east-1"
    account: str = "123456789012"
    time: float = field(default_factory=time.time)

    def header(self, name: str) -> str:
        """A header's values, joined; ``name`` in lower case."""
        return ",".join(value for key, value in self.headers if key.lower() == name)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


# --- request -> event ----------------------------------------------------------------------------


def event_of(form: Form, request: Request) -> dict[str, Any]:
    """The event that the service would invoke the function with."""
    if form in {"url", "http-api"}:
        return payload_2(form, request)
    if form == "rest":
        return rest_event(request)
    return balancer_event(request, is_multiple=form == "alb-multi")


def payload_2(form: Form, request: Request) -> dict[str, Any]:
    """Of a Function URL, or of an HTTP API; the runtime tells them apart by the domain."""
    headers = {name: ",".join(values) for name, values in lists(forwarded(request)).items()}
    cookies = [word for word in headers.pop("cookie", "").split("; ") if word]
    query = {name: ",".join(values) for name, values in parameters(request.query, decoded=True).items()}
    domain = DOMAINS[form].format(id=ID, region=request.region)
    moment = time.gmtime(request.time)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous" if form == "url" else request.account,
            "apiId": ID,
            "domainName": domain,
            "domainPrefix": ID,
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.address,
                "userAgent": request.header("user-agent"),
            },
            "requestId": request.request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", moment),
            "timeEpoch": int(request.time * 1000),
        },
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = query
    body, is_base64 = text_of(request)
    if body:
        event["body"] = body
    event["isBase64Encoded"] = is_base64
    return event


def rest_event(request: Request) -> dict[str, Any]:
    """Of a REST API's proxy integration; names of headers stay as the client wrote them."""
    several = lists(forwarded(request), lower=False)
    query = parameters(request.query, decoded=True)
    body, is_base64 = text_of(request)
    moment = time.gmtime(request.time)
    return {
        "resource": "/{proxy+}",
        "path": request.path,
        "httpMethod": request.method,
        "headers": last(several),
        "multiValueHeaders": several,
        "queryStringParameters": last(query) or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": request.path.strip("/")} if request.path.strip("/") else None,
        "stageVariables": None,
        "requestContext": {
            "accountId": request.account,
            "apiId": ID[:10],
            "domainName": DOMAINS["http-api"].format(id=ID[:10], region=request.region),
            "domainPrefix": ID[:10],
            "httpMethod": request.method,
            "identity": {"sourceIp": request.address, "userAgent": request.header("user-agent")},
            "path": f"/{STAGE}{request.path}",
            "protocol": "HTTP/1.1",
            "requestId": request.request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", moment),
            "requestTimeEpoch": int(request.time * 1000),
            "resourceId": "local0",
            "resourcePath": "/{proxy+}",
            "stage": STAGE,
        },
        "body": body or None,
        "isBase64Encoded": is_base64,
    }


def balancer_event(request: Request, *, is_multiple: bool) -> dict[str, Any]:
    """Of a load balancer: the query as encoded as it came; lists in place of single values."""
    headers = lists(forwarded(request))
    query = parameters(request.query, decoded=False)
    body, is_base64 = text_of(request)
    group = (
        f"arn:aws:elasticloadbalancing:{request.region}:{request.account}:targetgroup/local/0123456789abcdef"
    )
    event: dict[str, Any] = {
        "requestContext": {"elb": {"targetGroupArn": group}},
        "httpMethod": request.method,
        "path": request.path,
    }
    if is_multiple:
        event |= {"multiValueQueryStringParameters": query, "multiValueHeaders": headers}
    else:
        event |= {"queryStringParameters": last(query), "headers": last(headers)}
    return {**event, "body": body, "isBase64Encoded": is_base64}


def forwarded(request: Request) -> list[tuple[str, str]]:
    """The client's headers, and those that every service adds; hop-by-hop ones end at the service."""
    added = {
        "X-Amzn-Trace-Id": request.trace_id,
        "X-Forwarded-For": request.address,
        "X-Forwarded-Port": str(request.port),
        "X-Forwarded-Proto": "http",
    }
    gone = {name.lower() for name in added} | {"connection", "transfer-encoding", "expect"}
    return [*((name, value) for name, value in request.headers if name.lower() not in gone), *added.items()]


def lists(pairs: Iterable[tuple[str, str]], *, lower: bool = True) -> dict[str, list[str]]:
    """Values by name; where case stays, it is that of a name's first appearance."""
    found: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for name, value in pairs:
        key = names.setdefault(name.lower(), name.lower() if lower else name)
        found.setdefault(key, []).append(value)
    return found


def last(values: Mapping[str, list[str]]) -> dict[str, str]:
    """One value each."""
    return {name: several[-1] for name, several in values.items()}


def parameters(query: str, *, decoded: bool) -> dict[str, list[str]]:
    """A query's values by name."""
    found: dict[str, list[str]] = {}
    for word in query.split("&"):
        name, _, value = word.partition("=")
        if decoded:
            name, value = unquote_plus(name), unquote_plus(value)
        if word:
            found.setdefault(name, []).append(value)
    return found


def text_of(request: Request) -> tuple[str, bool]:
    """The body in JSON: text where its type says so, else base64, which is then told."""
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if TEXT.fullmatch(kind) and not request.header("content-encoding"):
        try:
            return request.body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(request.body).decode(), bool(request.body)


# --- result -> response --------------------------------------------------------------------------


def answer_of(form: Form, payload: bytes) -> Answer:
    """What a client gets for a function's result. Raises Malformed where the service would answer 502."""
    try:
        result = payloads.parse(payload)
    except ValueError:
        raise Malformed("the result is not JSON") from None
    try:
        return answer_from(form, result)
    except RecursionError:  # of json.dumps, a few levels before Lambda's limit
        raise Malformed("the result has too many levels of nesting") from None


def answer_from(form: Form, result: object) -> Answer:
    """What a client gets for a function's result, as a value. Raises Malformed, RecursionError."""
    if form in {"url", "http-api"}:
        return answer_2(result)
    if not isinstance(result, dict) or "statusCode" not in result:
        raise Malformed("the result has no statusCode")
    body = result.get("body")
    if body is not None and not isinstance(body, str):
        raise Malformed("the body is no text")
    if form == "rest":
        pairs = rest_headers(result)
        default = "application/json"
    else:
        pairs = balancer_headers(result, is_multiple=form == "alb-multi")
        default = "application/octet-stream"
    return finished(result, pairs, bytes_of(body or "", result), default)


def answer_2(result: object) -> Answer:
    """Payload 2.0: what has no statusCode is the body itself, as JSON."""
    if not isinstance(result, dict) or "statusCode" not in result:
        body = result if isinstance(result, str) else json.dumps(result, separators=(",", ":"))
        return Answer(200, (("content-type", "application/json"),), body.encode())
    pairs = [(name, text(value)) for name, value in mapping(result, "headers").items()]
    cookies = result.get("cookies") or []
    if not isinstance(cookies, list):
        raise Malformed("cookies is no list")
    pairs = [pair for pair in pairs if pair[0].lower() != "set-cookie" or not cookies]
    pairs += [("set-cookie", text(cookie)) for cookie in cookies]
    content = result.get("body")
    if not isinstance(content, str):
        content = "" if content is None else json.dumps(content)
    return finished(result, pairs, bytes_of(content, result), "application/json")


def rest_headers(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Both maps; lists win where both have a name."""
    several = mapping(result, "multiValueHeaders")
    pairs = [(name, text(value)) for name, values in several.items() for value in listed(name, values)]
    have = {name.lower() for name in several}
    pairs += [
        (name, text(value)) for name, value in mapping(result, "headers").items() if name.lower() not in have
    ]
    return pairs


def balancer_headers(result: Mapping[str, Any], *, is_multiple: bool) -> list[tuple[str, str]]:
    """The one map that the target group's setting asks for; without it, the balancer answers 502."""
    wanted, other = "headers", "multiValueHeaders"
    if is_multiple:
        wanted, other = other, wanted
    if result.get(other) and not result.get(wanted):
        raise Malformed(f"the result has {other}, and this target group reads {wanted}")
    found = mapping(result, wanted)
    if is_multiple:
        return [(name, text(value)) for name, values in found.items() for value in listed(name, values)]
    return [(name, text(value)) for name, value in found.items()]


def finished(
    result: Mapping[str, Any], pairs: Iterable[tuple[str, str]], body: bytes, default_type: str
) -> Answer:
    """Status, headers that may be sent, body."""
    status = status_of(result)
    headers = headers_of(pairs)
    if not any(name == "content-type" for name, _ in headers) and status not in BODILESS:
        headers = (*headers, ("content-type", default_type))
    return Answer(status, headers, b"" if status in BODILESS else body)


def headers_of(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names in lower case, without those of the connection. Raises Malformed for what is no header."""
    found = []
    for name, value in pairs:
        if not NAME.fullmatch(name) or UNFIT.search(value):
            raise Malformed(f"{name!r} is no header that can be sent")
        if name.lower() not in HOP_BY_HOP:
            found.append((name.lower(), value.strip()))
    return tuple(found)


def status_of(result: Mapping[str, Any]) -> int:
    """The status, which may be text."""
    status = result.get("statusCode")
    if isinstance(status, str) and STATUS.fullmatch(status):
        status = int(status)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise Malformed(f"statusCode is {status!r}")
    return status


def bytes_of(body: str, result: Mapping[str, Any]) -> bytes:
    """The body's bytes."""
    if result.get("isBase64Encoded") is not True:
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("the body is not base64") from None


def mapping(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A map of the result; none is an empty one."""
    value = result.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{name} is no map")
    return value


def listed(name: str, values: object) -> list[Any]:
    """A list of a header's values."""
    if not isinstance(values, list):
        raise Malformed(f"multiValueHeaders has no list for {name!r}")
    return values


def text(value: object) -> str:
    """A header's value; numbers and truth values are taken as JSON writes them."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return json.dumps(value)
    raise Malformed(f"a header's value is {json.dumps(value)}")


def failure(form: Form) -> Answer:
    """What a client gets for a function that failed, or whose result is malformed."""
    if form == "url":
        return plain(502, "Internal Server Error")
    if form == "http-api":
        return message(500, "Internal Server Error")
    if form == "rest":
        return message(502, "Internal server error")
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
    return Answer(502, (("content-type", "text/html"),), page)


def throttled(form: Form) -> Answer:
    """What a client gets where no more environments may be had."""
    if form == "url":
        return message(429, "Rate Exceeded.")
    if form == "http-api":
        return message(503, "Service Unavailable")
    return failure(form) if form != "rest" else message(500, "Internal server error")


def message(status: int, said: str) -> Answer:
    """A service's own answer in JSON."""
    return Answer(status, (("content-type", "application/json"),), json.dumps({"message": said}).encode())


def plain(status: int, said: str) -> Answer:
    """A service's own answer as text."""
    return Answer(status, (("content-type", "text/plain"),), said.encode())
