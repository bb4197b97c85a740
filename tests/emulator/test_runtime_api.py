"""The Runtime API as a bootstrap meets it: states, refusals, limits, streams."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

import pytest

from lambdeno.emulator import Context, Settings
from lambdeno.emulator.runtime_api import TRANSITIONS, Call, State, known_error_type
from tests.emulator.conftest import Running, Start

ALLOWED = {
    (State.STARTED, Call.NEXT),
    (State.STARTED, Call.INIT_ERROR),
    (State.READY, Call.NEXT),
    (State.READY, Call.EVENT),
    (State.RUNNING, Call.NEXT),
    (State.RUNNING, Call.EVENT),
    (State.RUNNING, Call.RESPONSE),
    (State.RUNNING, Call.ERROR),
    (State.RESPONDING, Call.ANSWER),
    (State.ERRING, Call.ANSWER),
    (State.ANSWERED, Call.NEXT),
}
RUNTIME_ERRORS = "Lambda-Runtime-Function-Error-"


@pytest.mark.parametrize(("state", "call"), list(itertools.product(State, Call)))
def test_states_deny_by_default(state: State, call: Call) -> None:
    """A state allows the calls listed here and no other."""
    assert ((state, call) in TRANSITIONS) == ((state, call) in ALLOWED)


def test_next_carries_the_context(start: Start) -> None:
    """The headers of an event are those that a runtime makes the context from."""
    context = Context(
        trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
        client_context='{"custom": {"a": 1}}',
        cognito_identity='{"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"}',
        tenant_id="t1",
    )
    with start() as running:
        result = running.handle.invoke("f", b'{"do": "headers"}', context=context)
        bare, _ = running.ask("headers")
    seen = json.loads(result.payload)
    prefix = "lambda-runtime-"
    assert seen[prefix + "aws-request-id"] == result.request_id
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert seen[prefix + "invoked-function-arn"] == arn
    assert seen[prefix + "trace-id"] == context.trace_id
    assert seen[prefix + "client-context"] == context.client_context
    assert seen[prefix + "cognito-identity"] == context.cognito_identity
    assert seen[prefix + "aws-tenant-id"] == "t1"
    assert int(seen[prefix + "deadline-ms"]) > 1_600_000_000_000
    assert seen["content-type"] == "application/json"
    assert prefix + "client-context" not in bare
    assert prefix + "cognito-identity" not in bare
    assert prefix + "aws-tenant-id" not in bare
    assert bare[prefix + "trace-id"].startswith("Root=1-")
    assert bare[prefix + "invocation-id"] != seen[prefix + "invocation-id"]


def test_accepted_is_said_in_lambdas_words(start: Start) -> None:
    """A response is acknowledged with 202 and {"status":"OK"}."""
    with start() as running:
        running.ask("calls", calls=[["POST", "/invocation/{id}/response", "1"]], answers=False)
        assert told_to(running) == [[202, '{"status":"OK"}\n']]


def test_foreign_request_id_is_refused(start: Start) -> None:
    """An answer to another request is 400 InvalidRequestID, and spoils nothing."""
    calls = [["POST", "/invocation/other/response", "1"], ["POST", "/invocation/other/error", "1"]]
    with start() as running:
        told, error = running.ask("calls", calls=calls)
    assert error is None
    assert [status for status, _ in told] == [400, 400]
    assert json.loads(told[0][1]) == {
        "errorMessage": "Invalid request ID",
        "errorType": "InvalidRequestID",
    }


@pytest.mark.parametrize(
    ("second", "to"), [("response", "InvocationResponse"), ("error", "InvocationErrorResponse")]
)
def test_second_answer_is_refused(start: Start, second: str, to: str) -> None:
    """After an answer nothing but /next is allowed: 403 InvalidStateTransition."""
    calls = [
        ["POST", "/invocation/{id}/response", '"first"'],
        ["POST", f"/invocation/{{id}}/{second}", '"second"'],
    ]
    with start() as running:
        assert running.ask("calls", calls=calls, answers=False) == ("first", None)
        status, body = told_to(running)[1]
        assert running.ask() == ({"do": "echo"}, None)
    assert status == 403
    assert json.loads(body) == {
        "errorMessage": f"State transition from RuntimeResponseSentState to {to}"
        " failed for runtime. Error: State transition is not allowed",
        "errorType": "InvalidStateTransition",
    }


def test_second_next_gets_the_same_event(start: Start) -> None:
    """/next while an event is unanswered gives that event again."""
    with start() as running:
        told, error = running.ask("calls", calls=[["GET", "/invocation/next", ""]])
    assert error is None
    assert told[0][0] == 200
    assert json.loads(told[0][1])["do"] == "calls"


def test_init_error_after_next_is_refused(start: Start) -> None:
    """Init is over with the first /next: init/error is 403 then."""
    with start() as running:
        told, _ = running.ask("calls", calls=[["POST", "/init/error", "{}"]])
    assert told[0][0] == 403
    assert "from Running to InitError failed" in told[0][1]


def test_unknown_paths_and_restore_are_not_there(start: Start) -> None:
    """Without SnapStart there is no restore/next, and no path that is not in the contract."""
    with start() as running:
        told, _ = running.ask(
            "calls", calls=[["GET", "/restore/next", ""], ["GET", "/other", ""], ["PUT", "/", ""]]
        )
    assert [status for status, _ in told] == [404, 404, 404]


def test_handler_error_reaches_the_caller(start: Start) -> None:
    """What is posted to /error is the payload of a FunctionError; the environment lives on."""
    with start() as running:
        body, error = running.ask("error")
        assert running.ask() == ({"do": "echo"}, None)
    assert (body, error) == ({"errorType": "Oops", "errorMessage": "on purpose"}, "Unhandled")
    assert len(running.environments) == 1


def test_response_over_the_limit_fails_the_invocation(start: Start) -> None:
    """6 MB and a byte is 413 for the runtime and Function.ResponseSizeTooLarge for the caller."""
    with start() as running:
        body, error = running.ask("large", size=6_291_556 - 1)
        assert running.ask() == ({"do": "echo"}, None)
        whole, fits = running.ask("large", size=6_291_556 - 2)
    assert error == "Unhandled"
    assert body == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size (6291557 bytes) exceeded maximum allowed payload"
        " size (6291556 bytes).",
    }
    assert (len(whole), fits) == (6_291_554, None)
    assert len(running.environments) == 1


def test_response_mode_other_than_streaming_is_refused(start: Start) -> None:
    """The response mode is "streaming" or absent; else 400 and Runtime.InvalidResponseModeHeader."""
    with start() as running:
        body, error = running.ask("mode")
        status, text = told_to(running)
        assert running.ask() == ({"do": "echo"}, None)
    assert error == "Unhandled"
    assert body["errorType"] == "Runtime.InvalidResponseModeHeader"
    assert (status, json.loads(text)["errorType"]) == (400, "InvalidFunctionResponseMode")


def test_stream_is_collected_for_a_plain_invocation(start: Start) -> None:
    """RequestResponse of a streaming function gives the whole stream and its content type."""
    with start() as running:
        event = json.dumps({"do": "stream", "chunks": ["a", "b", "c"], "type": "text/x"})
        result = running.handle.invoke("f", event.encode())
    assert (result.payload, result.content_type, result.function_error) == (b"abc", "text/x", None)


def test_stream_reaches_boto3_in_chunks(start: Start) -> None:
    """InvokeWithResponseStream gives chunks, then InvokeComplete without an error."""
    with start() as running:
        told = streamed(running, {"do": "stream", "chunks": ["one", "two"], "pause": 0.05})
        plain = streamed(running, {"do": "echo"})
    assert told[:-1] == [b"one", b"two"]
    assert told[-1] == {}
    assert plain == [b'{"do": "echo"}', {}]


def test_trailers_tell_of_a_failure_in_the_stream(start: Start) -> None:
    """A stream that ends with error trailers keeps its bytes and completes with the error."""
    body = json.dumps({"errorType": "Late", "errorMessage": "too late"})
    trailers = {
        RUNTIME_ERRORS + "Type": "Function.Late",
        RUNTIME_ERRORS + "Body": base64.b64encode(body.encode()).decode(),
    }
    event = {"do": "stream", "chunks": ["some"], "trailers": trailers}
    with start() as running:
        told = streamed(running, event)
        plain, error = running.ask("stream", chunks=["some"], trailers=trailers)
        assert running.ask() == ({"do": "echo"}, None)
    assert told == [b"some", {"ErrorCode": "Unhandled", "ErrorDetails": body}]
    assert (plain, error) == (json.loads(body), "Unhandled")


def test_death_in_the_stream_truncates_it(start: Start) -> None:
    """A process that dies before the last chunk ends the stream with Runtime.TruncatedResponse."""
    with start() as running:
        told = streamed(running, {"do": "stream", "chunks": ["some", "die"]})
        assert running.ask() == ({"do": "echo"}, None)
    assert told[0] == b"some"
    assert told[1]["ErrorCode"] == "Unhandled"
    assert json.loads(told[1]["ErrorDetails"])["errorType"] == "Runtime.TruncatedResponse"


def test_failure_before_the_stream_completes_with_it(start: Start) -> None:
    """An error without a stream is an InvokeComplete with its details."""
    with start() as running:
        told = streamed(running, {"do": "error"})
    details = '{"errorType": "Oops", "errorMessage": "on purpose"}'
    assert told == [{"ErrorCode": "Unhandled", "ErrorDetails": details}]


def test_stream_over_its_limit_is_cut(start: Start) -> None:
    """A stream longer than its limit ends with Function.ResponseSizeTooLarge."""
    with start(settings=Settings(stream_limit=5)) as running:
        told = streamed(running, {"do": "stream", "chunks": ["1234", "5678"]})
    assert json.loads(told[-1]["ErrorDetails"])["errorType"] == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Runtime.ImportModuleError", "Runtime.ImportModuleError"),
        ("Function.Oops", "Function.Oops"),
        ("Function.", "Function.Unknown"),
        ("ReferenceError", "Runtime.Unknown"),
        ("", ""),
    ],
)
def test_error_types_are_kept_in_the_platforms_form(given: str, kept: str) -> None:
    """An error type is Runtime.X or Function.X, or it is unknown."""
    assert known_error_type(given) == kept


def told_to(running: Running) -> Any:
    """What the Runtime API answered to the bootstrap's calls, as it logged it."""
    deadline = time.monotonic() + 10
    while not (told := [line for line in running.lines if line.startswith("[")]):
        assert time.monotonic() < deadline, running.lines
        time.sleep(0.01)
    return json.loads(told[0])


def streamed(running: Running, event: Any) -> list[Any]:
    """The chunks and the completion that boto3 makes of a streamed response."""
    answer = running.client.invoke_with_response_stream(FunctionName="f", Payload=json.dumps(event).encode())
    told: list[Any] = []
    for part in answer["EventStream"]:
        if "PayloadChunk" in part:
            told.append(part["PayloadChunk"]["Payload"])
        else:
            told.append(dict(part["InvokeComplete"]))
    return told
