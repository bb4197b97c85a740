"""The headers of an event as the handler's context, and what of them goes back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.layer.conftest import Start
from tests.layer.fake_runtime_api import PREFIX

CONTEXT = """
export const handler = (_event, context) => ({
  ...context,
  remaining: context.getRemainingTimeInMillis(),
  trace: Deno.env.get("_X_AMZN_TRACE_ID") ?? null,
});
"""
OFTEN_FAILS = """
export const handler = (event) => {
  if (event === "exit") Deno.exit(9);
  if (event === "throw") throw new Error("thrown");
  return event;
};
"""
TRACE = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1"


def test_context_from_the_environment(start: Start) -> None:
    """Name, version, memory and log places come from the environment; the memory is a string."""
    context = start(CONTEXT).result()
    assert context["functionName"] == "f"
    assert context["functionVersion"] == "$LATEST"
    assert context["memoryLimitInMB"] == "256"
    assert context["logGroupName"] == "/aws/lambda/f"
    assert context["logStreamName"] == "2026/01/01/[$LATEST]0123456789abcdef"


def test_context_from_the_headers(start: Start) -> None:
    """Every header of the Runtime API has its field in the context."""
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:alias"
    headers = {
        "Lambda-Runtime-Invoked-Function-Arn": arn,
        "Lambda-Runtime-Trace-Id": TRACE,
        "Lambda-Runtime-Client-Context": '{"custom":{"é":1},"client":{"installation_id":"i"}}',
        "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
        "Lambda-Runtime-Aws-Tenant-Id": "tenant: 1",
    }
    context = start(CONTEXT).result(request_id="the-id", headers=headers)
    assert context["awsRequestId"] == "the-id"
    assert context["invokedFunctionArn"] == arn
    assert context["xRayTraceId"] == context["trace"] == TRACE
    assert context["clientContext"] == {"custom": {"é": 1}, "client": {"installation_id": "i"}}
    assert context["identity"] == {"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"}
    assert context["tenantId"] == "tenant: 1"
    assert 20_000 < context["remaining"] <= 30_000


def test_context_without_headers(start: Start) -> None:
    """What the platform does not send is undefined."""
    context = start(CONTEXT).result()
    for name in ("clientContext", "identity", "tenantId", "xRayTraceId"):
        assert name not in context
    assert context["trace"] is None


def test_header_names_have_no_case(start: Start) -> None:
    """Header names are read in any case, with and without a space after the colon."""
    headers = {"LAMBDA-RUNTIME-AWS-TENANT-ID": "loud", "lambda-runtime-trace-id": "quiet"}
    context = start(CONTEXT).result(headers=headers)
    assert (context["tenantId"], context["trace"]) == ("loud", "quiet")


def test_trace_id_is_of_this_invocation(start: Start) -> None:
    """_X_AMZN_TRACE_ID is set, changed, and gone when the next event has none."""
    environment = start(CONTEXT)
    seen = [
        environment.result(headers={"Lambda-Runtime-Trace-Id": trace} if trace else {})["trace"]
        for trace in ("one", "two", None, "two", None)
    ]
    assert seen == ["one", "two", None, "two", None]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Lambda-Runtime-Client-Context", "ClientContext"),
        ("Lambda-Runtime-Cognito-Identity", "CognitoIdentity"),
    ],
)
def test_malformed_context_fails_the_invocation(start: Start, header: str, name: str) -> None:
    """A context that is not JSON is an error of its own type, and the next invocation works."""
    environment = start(CONTEXT)
    post, error = environment.error(headers={header: "{oops"})
    assert post.error_type == error["errorType"] == "Runtime.LambdaContextUnmarshalError"
    assert f"Cannot parse {name} as json" in error["errorMessage"]
    assert environment.result()["functionName"] == "f"


@pytest.mark.parametrize("event", ["fine", "throw", "exit"])
def test_invocation_id_is_echoed(start: Start, event: str) -> None:
    """Lambda-Runtime-Invocation-Id goes back with every outcome, and only where it came."""
    environment = start(OFTEN_FAILS)
    post = environment.invoke(event, headers={"Lambda-Runtime-Invocation-Id": "attempt-1"})
    assert post.headers["lambda-runtime-invocation-id"] == "attempt-1"
    assert "lambda-runtime-invocation-id" not in environment.invoke(event).headers


@pytest.mark.parametrize("event", ["fine", "throw", "exit"])
def test_request_id_is_percent_encoded(start: Start, event: str) -> None:
    """A request id with any characters in it is one segment of the path."""
    post = start(OFTEN_FAILS).invoke(event, request_id="a b/c?d%e#é~-._")
    outcome = "response" if event == "fine" else "error"
    assert post.path == f"{PREFIX}/invocation/a%20b%2Fc%3Fd%25e%23%C3%A9~-._/{outcome}"


def test_function_does_not_see_the_runtime(start: Start) -> None:
    """Neither the Runtime API's address nor the bridge's socket is in the function's environment."""
    bundle = (
        "const loading = Deno.env.toObject(); export const handler = () => [loading, Deno.env.toObject()];"
    )
    environments: list[dict[str, Any]] = start(bundle, MINE="my own").result()
    for environment in environments:
        assert environment["MINE"] == "my own"
        assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "f"
        assert not {"AWS_LAMBDA_RUNTIME_API", "LAMBDENO_SOCKET"} & environment.keys()
