"""A function's URL on this machine: HTTP in front of its invocations, streamed where it is to be.

    request -> event -> local_lambda -> result -> response
                                     └> prelude, chunks, as they come

https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lambdeno import payload as payloads
from lambdeno.emulator.function import Cors, FunctionUrl
from lambdeno.emulator.http import BodyTooLarge, Exchange, Header
from lambdeno.emulator.http_events import (
    BODILESS,
    Answer,
    Form,
    Malformed,
    Request,
    answer_from,
    answer_of,
    event_of,
    failure,
    headers_of,
    message,
    throttled,
)
from lambdeno.emulator.invocation import Context, new_trace_id
from lambdeno.emulator.refusal import Refusal, RequestTooLarge, TooManyRequests

if TYPE_CHECKING:
    from lambdeno.emulator.local_lambda import LocalLambda, Streaming

__all__ = ["UrlApi"]

PRELUDE = "application/vnd.awslambda.http-integration-response"
STREAMING = frozenset({"url", "rest"})  # the forms that take streams
DELIMITER = bytes(8)  # between prelude and body
LONGEST_PRELUDE = 16 * 1024  # bytes
TOO_LARGE = Answer(413, (("content-type", "application/json"),), b'{"message":"Request Too Long"}')
ALLOW = "access-control-allow-"


class UrlApi:
    """What listens for one function, whatever is deployed under its name meanwhile."""

    def __init__(self, local: LocalLambda, host: str, name: str, url: FunctionUrl) -> None:
        self._local = local
        self._host = host
        self._name = name
        self.url = url
        self.port = 0  # once it listens

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request."""
        url = self.url
        if not exchange.is_for(self._host):
            host = exchange.header(b"host")
            await respond(exchange, message(403, f'Not for "{host}": name localhost, or 127.0.0.1, as Host'))
            return
        cors = cors_headers(url.cors, exchange) if url.cors and url.form == "url" else []
        if cors and is_preflight(exchange):
            await respond(exchange, Answer(200, tuple(cors)))
            return
        try:
            request = await self._request(exchange)
        except BodyTooLarge:
            await respond(exchange, TOO_LARGE, cors)
            return
        payload = json.dumps(event_of(url.form, request)).encode()
        context = Context(trace_id=request.trace_id)
        try:
            if url.is_streaming and url.form in STREAMING:
                await self._stream(exchange, payload, context, cors)
            else:
                await respond(exchange, await self._answer(payload, context), cors)
        except RequestTooLarge:
            await respond(exchange, TOO_LARGE, cors)
        except TooManyRequests:
            await respond(exchange, throttled(url.form), cors)
        except Refusal:
            await respond(exchange, failure(url.form), cors)

    async def _request(self, exchange: Exchange) -> Request:
        settings = self._local.settings
        return Request(
            method=exchange.method,
            path=exchange.path,
            query=exchange.query,
            headers=tuple((decoded(name), decoded(value)) for name, value in exchange.raw_headers),
            body=await exchange.read(settings.payload_limit),
            address=exchange.peer,
            port=self.port,
            request_id=str(uuid.uuid4()),
            trace_id=exchange.header(b"x-amzn-trace-id") or new_trace_id(),
            region=settings.region,
            account=settings.account,
        )

    async def _answer(self, payload: bytes, context: Context) -> Answer:
        """The whole answer of one invocation."""
        result = await self._local.invoke(self._name, payload, context=context)
        if result.function_error:
            return with_id(failure(self.url.form), result.request_id)
        try:
            answer = answer_of(self.url.form, result.payload)
        except Malformed as error:
            self._local.say(self._name, f"{error}: the client gets {failure(self.url.form).status}")
            answer = failure(self.url.form)
        return with_id(answer, result.request_id)

    async def _stream(
        self, exchange: Exchange, payload: bytes, context: Context, cors: Iterable[tuple[str, str]]
    ) -> None:
        """Send what the function streams as it comes; an error behind the first bytes cuts it off."""
        streaming = self._local.stream(self._name, payload, context=context)
        body = streaming.body
        try:
            head, rest = await self._head(exchange, streaming)
            head = with_id(head, streaming.request_id)
            if head.status in BODILESS or exchange.method == "HEAD" or head.body:
                await respond(exchange, head, cors)
                return
            await exchange.begin(head.status, encoded([*head.headers, *cors]))
            while rest or (rest := await exchange.while_there(body.get())):
                await exchange.write(rest)
                rest = b""
            result = await streaming.result
            if result.function_error:
                exchange.cut()
                return
            await exchange.end()
        finally:
            body.abandon()

    async def _head(self, exchange: Exchange, streaming: Streaming) -> tuple[Answer, bytes]:
        """Status and headers, and what has come of the body; an answer with a body is all there is."""
        body = streaming.body
        data = await exchange.while_there(body.get())
        if not data:
            result = await streaming.result  # raises what was refused
            if result.function_error:
                return failure(self.url.form), b""
        if body.content_type != PRELUDE:
            return Answer(200, (("content-type", body.content_type),)), data
        while DELIMITER not in data and len(data) <= LONGEST_PRELUDE:
            more = await exchange.while_there(body.get())
            if not more:
                break
            data += more
        text, found, rest = data.partition(DELIMITER)
        try:
            if not found:
                raise Malformed("the stream has no prelude")
            return prelude_of(self.url.form, text), rest
        except Malformed as error:
            self._local.say(self._name, f"{error}: the client gets 502")
            return failure(self.url.form), b""


def prelude_of(form: Form, text: bytes) -> Answer:
    """Status and headers before a streamed body. Raises Malformed."""
    try:
        prelude: Any = payloads.parse(text)
    except ValueError:
        raise Malformed("the prelude is not JSON") from None
    if not isinstance(prelude, dict):
        raise Malformed("the prelude is no object")
    return replace(answer_from(form, {"statusCode": 200, **prelude, "body": ""}), body=b"")


async def respond(exchange: Exchange, answer: Answer, more: Iterable[tuple[str, str]] = ()) -> None:
    """Send a whole answer."""
    have = {name for name, _ in more}
    headers = [(name, value) for name, value in answer.headers if name not in have]
    await exchange.respond(answer.status, answer.body, encoded([*headers, *more]))


def with_id(answer: Answer, request_id: str) -> Answer:
    """The answer with the id of its invocation."""
    return replace(answer, headers=(*answer.headers, ("x-amzn-requestid", request_id)))


def encoded(headers: Iterable[tuple[str, str]]) -> list[Header]:
    """Headers as bytes; characters that Latin-1 has not go as UTF-8."""
    found: list[Header] = []
    for name, value in headers_of(headers):
        try:
            found.append((name.encode(), value.encode("latin-1")))
        except UnicodeEncodeError:
            found.append((name.encode(), value.encode("utf-8", "replace")))
    return found


def decoded(data: bytes) -> str:
    """A header's bytes as text."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_preflight(exchange: Exchange) -> bool:
    """Whether a browser asks before it sends another site's request."""
    return exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers


def cors_headers(cors: Cors, exchange: Exchange) -> list[tuple[str, str]]:
    """What the URL's own CORS settings add; nothing for an origin that they do not name."""
    origin = exchange.header(b"origin")
    if not origin or not ({"*", origin} & set(cors.origins)):
        return []
    found = [(f"{ALLOW}origin", origin if cors.credentials or "*" not in cors.origins else "*")]
    if found[0][1] != "*":
        found.append(("vary", "Origin"))
    if cors.credentials:
        found.append((f"{ALLOW}credentials", "true"))
    if cors.expose:
        found.append(("access-control-expose-headers", ",".join(cors.expose)))
    if is_preflight(exchange):
        if cors.methods:
            found.append((f"{ALLOW}methods", ",".join(cors.methods)))
        if cors.headers:
            found.append((f"{ALLOW}headers", ",".join(cors.headers)))
        found.append(("access-control-max-age", str(cors.max_age)))
    return found
