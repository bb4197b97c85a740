"""``invoke --remote``: one event to the deployed function. It is never sent twice: it may have happened."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lambdeno.aws import Aws, Refused
from lambdeno.errors import AwsError
from lambdeno.invoke import Result
from lambdeno.project import Project

__all__ = ["invoke", "stream"]

TOO_LARGE = ("RequestTooLargeException", "RequestEntityTooLargeException", "413")


def invoke(
    aws: Aws, project: Project, event: bytes, kind: str = "RequestResponse", qualifier: str = ""
) -> Result:
    """Send one event; ``kind`` is RequestResponse or Event. Raises AwsError.

    ``qualifier`` is a version or an alias; the project's alias by default.
    """
    started = time.perf_counter()
    request = _request(project, event, qualifier)
    request |= {"InvocationType": kind, "LogType": "Tail" if kind == "RequestResponse" else "None"}
    with _explained(aws, project, request):
        answer = aws.once(aws.invoking.invoke, **request)
    with _lost(project):
        payload = aws.once(answer["Payload"].read)
    taken = (time.perf_counter() - started) * 1000
    log = _log(answer.get("LogResult", ""))
    return Result(answer["StatusCode"], payload, answer.get("FunctionError", ""), log, taken)


def stream(
    aws: Aws, project: Project, event: bytes, write: Callable[[bytes], None], qualifier: str = ""
) -> Result:
    """Send one event, and ``write`` what comes of the answer as it comes: the result has no payload.

    Raises AwsError, also where the answer breaks off.
    """
    started = time.perf_counter()
    request = _request(project, event, qualifier) | {"LogType": "Tail"}
    with _explained(aws, project, request):
        answer = aws.once(aws.invoking.invoke_with_response_stream, **request)
    end: Mapping[str, Any] | None = None
    with _lost(project):
        for part in aws.parts(answer["EventStream"]):
            if "PayloadChunk" in part:
                write(part["PayloadChunk"].get("Payload", b""))
            elif "InvokeComplete" in part:
                end = part["InvokeComplete"]
        if end is None:
            raise AwsError("it has no end")
    taken = (time.perf_counter() - started) * 1000
    error, details = end.get("ErrorCode", ""), end.get("ErrorDetails", "")
    return Result(answer["StatusCode"], b"", error, _log(end.get("LogResult", "")), taken, details)


def _request(project: Project, event: bytes, qualifier: str) -> dict[str, Any]:
    qualifier = qualifier or project.alias
    named = {"FunctionName": project.name, "Payload": event}
    return {**named, "Qualifier": qualifier} if qualifier else named


def _log(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "replace")


@contextmanager
def _explained(aws: Aws, project: Project, request: dict[str, Any]) -> Iterator[None]:
    """The refusals that an invocation can expect, told in words that say what to do. Raises Refused."""
    try:
        yield
    except Refused as refused:
        name = ":".join(filter(None, (project.name, request.get("Qualifier", ""))))
        if refused.is_missing:
            message = f'"{name}" is not deployed in {aws.region}'
            hint = "run lambdeno deploy, or choose another --region, --profile or --qualifier"
        elif refused.code == "TooManyRequestsException":
            message = f'Lambda throttles "{name}": {refused.said}'
            hint = "the event was not handled: try again later, or raise the function's concurrency"
        elif refused.code in TOO_LARGE:
            message = f"The event is too large for Lambda: {len(request['Payload'])} bytes"
            hint = "it takes 6 MB, and 1 MB with --async: put the data into S3, and send the key"
        else:
            raise
        raise Refused(message, hint, code=refused.code, said=refused.said) from None


@contextmanager
def _lost(project: Project) -> Iterator[None]:
    """An answer that breaks off. Raises AwsError."""
    try:
        yield
    except AwsError as error:
        raise AwsError(
            f'The answer of "{project.name}" broke off: {error.message}',
            "the function was invoked: see lambdeno logs",
        ) from None
