"""The Lambda service API as far as invoking goes: boto3 and the AWS CLI through --endpoint-url.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html and its neighbours. Signatures are
not checked. Calls that a web page could make are refused: the page of a stranger, open in the
developer's browser, must not run functions.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from lambdeno import payload as payloads
from lambdeno.emulator import event_stream
from lambdeno.emulator.function import Function
from lambdeno.emulator.http import BodyTooLarge, Exchange, Header
from lambdeno.emulator.invocation import Context
from lambdeno.emulator.refusal import (
    InvalidParameter,
    InvalidRequestContent,
    Refusal,
    RequestTooLarge,
)

if TYPE_CHECKING:
    from lambdeno.emulator.local_lambda import InvokeResult, LocalLambda

__all__ = ["InvokeApi"]

FUNCTIONS = "/2015-03-31/functions"
INVOKE = re.compile(FUNCTIONS + r"/([^/]+)/invocations")
STREAM = re.compile(r"/2021-11-15/functions/([^/]+)/response-streaming-invocations")
DESCRIBE = re.compile(FUNCTIONS + r"/([^/]+?)(/configuration)?/?")
# arn:partition:lambda:region:account:function:name[:qualifier], or account:function:name, or name
NAMED = re.compile(r"(?:(?:arn:[^:]+:lambda:[^:]+:)?(?:\d{12}:)?function:)?([^:]+)(?::([^:]+))?")
JSON: list[Header] = [(b"content-type", b"application/json")]


class InvokeApi:
    """Routes of one endpoint to a local Lambda."""

    def __init__(self, local: LocalLambda, host: str) -> None:
        self._local = local
        self._host = host

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request."""
        if not exchange.is_for(self._host) or is_from_page(exchange):
            await respond_error(exchange, 403, "AccessDeniedException", "Not for web pages")
            return
        try:
            await self._route(exchange)
        except Refusal as error:
            await respond_error(exchange, error.status, error.code, error.message, error.reason)

    async def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        if method == "POST" and (match := INVOKE.fullmatch(path)):
            await self._invoke(exchange, match[1])
        elif method == "POST" and (match := STREAM.fullmatch(path)):
            await self._stream(exchange, match[1])
        elif INVOKE.fullmatch(path) or STREAM.fullmatch(path):
            await exchange.respond(405, b"{}", [*JSON, (b"allow", b"POST")])
        elif method not in {"GET", "HEAD"}:
            await exchange.respond(404, b"{}", JSON)
        elif path == "/ping":
            await exchange.respond(200, b"pong", [(b"content-type", b"text/plain")])
        elif path.rstrip("/") == FUNCTIONS:
            functions = [self._configuration(f) for f in self._local.functions]
            await exchange.respond(200, json.dumps({"Functions": functions}).encode(), JSON)
        elif match := DESCRIBE.fullmatch(path):
            await self._describe(exchange, match[1], is_brief=bool(match[2]))
        else:
            await exchange.respond(404, b"{}", JSON)

    async def _invoke(self, exchange: Exchange, named: str) -> None:
        name, context = called(exchange, named)
        kind = exchange.header(b"x-amz-invocation-type") or "RequestResponse"
        payload = await self._payload(exchange, kind)
        result = await self._local.invoke(
            name, payload, invocation_type=kind, wants_tail=wants_tail(exchange), context=context
        )
        await exchange.respond(result.status, result.payload, result_headers(result))

    async def _stream(self, exchange: Exchange, named: str) -> None:
        name, context = called(exchange, named)
        payload = await self._payload(exchange, "RequestResponse")
        streaming = self._local.stream(name, payload, wants_tail=wants_tail(exchange), context=context)
        try:
            first = await exchange.while_there(streaming.body.get())
            if not first:
                await streaming.result  # raises here what has no stream: throttling
            headers = [
                (b"content-type", event_stream.CONTENT_TYPE),
                (b"x-amzn-requestid", streaming.request_id.encode()),
                (b"x-amz-executed-version", b"$LATEST"),
            ]
            await exchange.begin(200, headers)
            while first:
                await exchange.write(event_stream.payload_chunk(first))
                first = await exchange.while_there(streaming.body.get())
            result = await streaming.result
            await exchange.write(completion(result))
            await exchange.end()
        finally:
            streaming.body.abandon()

    async def _payload(self, exchange: Exchange, kind: str) -> bytes:
        limit = self._local.settings.payload_limit
        try:
            return await exchange.read(limit)
        except BodyTooLarge as error:
            raise RequestTooLarge(
                f"{error.size} byte payload is too large for the {kind} invocation type (limit {limit} bytes)"
            ) from None

    async def _describe(self, exchange: Exchange, named: str, *, is_brief: bool) -> None:
        name, context = called(exchange, named)
        function = self._local.find(name, context.qualifier)
        configuration = self._configuration(function)
        answer = configuration if is_brief else {
            "Configuration": configuration,
            "Code": {"RepositoryType": "Local", "Location": function.code.resolve().as_uri()},
            "Concurrency": {"ReservedConcurrentExecutions": function.concurrency},
        }  # fmt: skip
        await exchange.respond(200, json.dumps(answer).encode(), JSON)

    def _configuration(self, function: Function) -> dict[str, Any]:
        return {
            "FunctionName": function.name,
            "FunctionArn": self._local.arn_of(function.name),
            "Runtime": function.runtime,
            "Handler": function.handler,
            "Timeout": max(1, round(function.timeout)),
            "MemorySize": function.memory,
            "Architectures": [function.architecture],
            "Environment": {"Variables": dict(function.environment)},
            "LoggingConfig": logging_config(function),
            "PackageType": "Zip",
            "Version": "$LATEST",
            "State": "Active",
            "LastUpdateStatus": "Successful",
        }


def logging_config(function: Function) -> dict[str, str]:
    """How a function logs, as the service describes it."""
    described = {"LogFormat": function.log_format, "LogGroup": f"/aws/lambda/{function.name}"}
    if function.log_format == "JSON":
        described["ApplicationLogLevel"] = function.log_level or "INFO"
        described["SystemLogLevel"] = "INFO"
    return described


def is_from_page(exchange: Exchange) -> bool:
    """True if a browser sent this on behalf of another page."""
    if b"origin" in exchange.headers:
        return True
    return exchange.headers.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}


def called(exchange: Exchange, named: str) -> tuple[str, Context]:
    """The function's name, and what came beside the payload."""
    match = NAMED.fullmatch(unquote(named))
    if not match:
        raise InvalidParameter(f'"{unquote(named)}" names no function')
    qualifier = parse_qs(exchange.query).get("Qualifier", [""])[-1] or match[2] or ""
    return match[1], Context(
        qualifier=qualifier,
        trace_id=exchange.header(b"x-amzn-trace-id"),
        client_context=client_context(exchange),
        cognito_identity=exchange.header(b"x-amz-cognito-identity"),
        tenant_id=exchange.header(b"x-amz-tenant-id"),
    )


def client_context(exchange: Exchange) -> str:
    """The client context as JSON text; the header carries it in base64."""
    header = exchange.headers.get(b"x-amz-client-context", b"")
    if not header:
        return ""
    try:
        decoded = base64.b64decode(header, validate=True)
        payloads.check(decoded)
    except (binascii.Error, ValueError):
        raise InvalidRequestContent("Client context must be a valid Base64-encoded JSON object.") from None
    return payloads.on_one_line(decoded)  # as a header is


def wants_tail(exchange: Exchange) -> bool:
    """Whether the caller asks for the last of the log. Raises InvalidParameter."""
    wish = exchange.header(b"x-amz-log-type") or "None"
    if wish not in {"None", "Tail"}:
        raise InvalidParameter(f'The log type "{wish}" is unknown', "use None or Tail")
    return wish == "Tail"


def result_headers(result: InvokeResult) -> list[Header]:
    """What the service says beside the payload."""
    headers = [
        (b"content-type", result.content_type.encode()),
        (b"x-amzn-requestid", result.request_id.encode()),
    ]
    if result.status == 200:
        headers.append((b"x-amz-executed-version", result.executed_version.encode()))
    if result.function_error:
        headers.append((b"x-amz-function-error", result.function_error.encode()))
    if result.log_tail is not None:
        headers.append((b"x-amz-log-result", base64.b64encode(result.log_tail)))
    return headers


def completion(result: InvokeResult) -> bytes:
    """The last frame of a streamed response."""
    tail = base64.b64encode(result.log_tail).decode() if result.log_tail is not None else ""
    details = result.payload.decode("utf-8", "replace") if result.function_error else ""
    return event_stream.complete(result.function_error or "", details, tail)


async def respond_error(exchange: Exchange, status: int, code: str, message: str, reason: str = "") -> None:
    """An error in the service's form; boto3 finds its class by the header."""
    body = {"Type": "User" if status < 500 else "Service", "message": message}
    if reason:
        body["Reason"] = reason
    headers = [*JSON, (b"x-amzn-errortype", code.encode())]
    await exchange.respond(status, json.dumps(body).encode(), headers)
