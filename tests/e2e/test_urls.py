"""One corpus of requests through every form of HTTP events: the same Request, the same answer at the client.

What the services force is told here: a REST API decodes the query, so that ``+`` and ``%20`` are one; a load
balancer without lists keeps the last of several values of a name; each adds its own ``x-forwarded`` headers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from lambdeno import dev, project
from lambdeno.emulator import FORMS, Form, FunctionUrl, Handle, ListSink, local_lambda
from tests.test_dev import layers

__all__ = ["layers"]  # a fixture

SOURCE = """
async function seen(request: Request): Promise<Response> {
  const body = await request.arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", body)).toHex();
  const headers = [...request.headers].filter(([name]) => !name.startsWith("x-") && name !== "host");
  return Response.json({ method: request.method, url: request.url, headers, size: body.byteLength, hash });
}

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (url.pathname !== "/answer") return await seen(request);
    const wanted = JSON.parse(url.searchParams.get("as")!);
    const body = wanted.bytes ? new Uint8Array(wanted.bytes).map((_, at) => at % 256) : wanted.text;
    return new Response(body ?? null, { status: wanted.status, headers: wanted.headers });
  },
};
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> Iterator[Handle]:
    """One function behind every form, and streamed."""
    folder = tmp_path_factory.mktemp("urls")
    (folder / "src").mkdir()
    (folder / "src/main.ts").write_text(SOURCE)
    (folder / "lambdeno.toml").write_text('name = "seen"\n')
    (folder / "dist").mkdir()
    for file in layers.iterdir():
        (folder / "dist" / file.name).hardlink_to(file)
    function = dev.local_function(project.load(folder))
    functions = [dataclasses.replace(function, name=form, url=FunctionUrl(form=form)) for form in FORMS]
    variables = {**function.environment, "LAMBDENO_INVOKE_MODE": "streaming"}
    for form in ("url", "rest"):
        url = FunctionUrl(form=form, is_streaming=True)
        functions.append(
            dataclasses.replace(function, name=f"{form}-streamed", environment=variables, url=url)
        )
    with local_lambda(*functions, log=ListSink()) as running:
        yield running


Request = tuple[str, str, list[tuple[str, str]], bytes]  # method, target, headers, body


def ask(local: Handle, form: str, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body that a client gets."""
    method, target, headers, body = request
    port = int((local.url_of(form) or "").rstrip("/").rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", "shop.localhost"), *headers]:
            connection.putheader(name, value)
        if body or method in {"POST", "PUT"}:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()


NAMES = [*FORMS, "url-streamed", "rest-streamed"]
REQUESTS: dict[str, Request] = {
    "plain": ("GET", "/", [], b""),
    "query": ("GET", "/a?x=1&x=2&y=&z", [], b""),
    "encoded": ("GET", "/a%20b/%C3%A9/%2F?q=%26%3D%20%C3%A9", [], b""),
    "odd path": ("GET", "/a;b=c,d@e/~f!$'()*/./g", [], b""),
    "slashes": ("GET", "//a///b/", [], b""),
    "headers": ("GET", "/", [("Accept", "a"), ("ACCEPT", "b"), ("User-Agent", "corpus")], b""),
    "cookies": ("GET", "/", [("Cookie", "a=1; b=x=y; c=%20")], b""),
    "put": ("PUT", "/", [("Content-Type", "text/plain; charset=utf-8")], "é😀".encode()),
    "patch": ("PATCH", "/", [("Content-Type", "application/json")], b'{"a": [1, null]}'),
    "form": ("POST", "/", [("Content-Type", "application/x-www-form-urlencoded")], b"a=1&b=%20"),
    "empty": ("POST", "/", [], b""),
    "delete": ("DELETE", "/a", [], b""),
    "options": ("OPTIONS", "/a", [], b""),
    "binary": ("POST", "/", [("Content-Type", "image/png")], bytes(range(256)) * 9),
    "no type": ("POST", "/", [], b"\xff\xfe\0"),
    "not its type": ("POST", "/", [("Content-Type", "text/plain")], b"\xff\xfe\0"),
    "large": ("POST", "/", [("Content-Type", "application/octet-stream")], bytes(range(256)) * 16_000),
    "large text": ("POST", "/", [("Content-Type", "text/plain")], b"0123456789abcdef" * 300_000),
}


@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_the_same_in_every_form(local: Handle, form: Form, name: str) -> None:
    """Method, URL, headers and bytes are the client's."""
    method, target, headers, body = REQUESTS[name]
    status, _, content = ask(local, form, REQUESTS[name])
    assert status == 200
    found = json.loads(content)
    assert found["method"] == method
    assert (found["size"], found["hash"]) == (len(body), hashlib.sha256(body).hexdigest())
    asked, seen = urlsplit(f"http://shop.localhost{target}"), urlsplit(found["url"])
    assert (seen.scheme, seen.netloc) == ("http", "shop.localhost")
    assert seen.path == asked.path.replace("/./", "/")
    wanted = parse_qsl(asked.query, keep_blank_values=True)
    if form == "alb":
        wanted = list(dict(wanted).items())
    assert parse_qsl(seen.query, keep_blank_values=True) == wanted
    sent: dict[str, list[str]] = {}
    for header, value in headers:
        sent.setdefault(header.lower(), []).append(value)
    if form == "alb":
        sent = {header: values[-1:] for header, values in sent.items()}
    got = {
        header: value.replace(", ", ",") for header, value in found["headers"] if header != "content-length"
    }
    assert got == {header: ",".join(values).replace(", ", ",") for header, values in sent.items()}


ANSWERS: dict[str, dict[str, Any]] = {
    "text": {"status": 200, "text": "é😀", "headers": [["content-type", "text/plain; charset=utf-8"]]},
    "json": {"status": 201, "text": "{}", "headers": [["content-type", "application/json"], ["x-a", "1, 2"]]},
    "binary": {"status": 200, "bytes": 300, "headers": [["content-type", "image/png"]]},
    "large": {"status": 200, "bytes": 4_000_000, "headers": [["content-type", "image/png"]]},
    "cookies": {
        "status": 200,
        "text": "c",
        "headers": [["content-type", "text/plain"], ["set-cookie", "a=1; Path=/"], ["set-cookie", "b=2"]],
    },
    "redirect": {"status": 302, "headers": [["content-type", "x"], ["location", "https://example.com/?a=b"]]},
    "none": {"status": 204, "headers": [["x-a", "b"]]},
    "unchanged": {"status": 304, "headers": [["etag", '"1"']]},
    "refused": {"status": 418, "text": "no", "headers": [["content-type", "text/plain"]]},
    "failed": {"status": 503, "text": "later", "headers": [["content-type", "text/x"], ["retry-after", "9"]]},
}


@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_same_in_every_form(local: Handle, form: Form, method: str, name: str) -> None:
    """Status, headers, cookies and bytes are the function's."""
    wanted = ANSWERS[name]
    target = "/answer?as=" + "".join(f"%{byte:02X}" for byte in json.dumps(wanted).encode())
    status, headers, content = ask(local, form, (method, target, [], b""))
    assert status == wanted["status"]
    ours = {"x-amzn-requestid", "content-length", "transfer-encoding", "date", "connection"}
    assert sorted([name, value] for name, value in headers if name.lower() not in ours) == sorted(
        wanted["headers"]
    )
    body = bytes(range(256)) * -(-wanted.get("bytes", 0) // 256)
    body = body[: wanted.get("bytes", 0)] or wanted.get("text", "").encode()
    assert content == (b"" if method == "HEAD" else body)
