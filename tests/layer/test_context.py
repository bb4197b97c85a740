"""The headers of an event as the handler's context, and what of them goes back."""

from __future__ import annotations

import time
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


# --- fields and methods (Lambda's Node runtime) -------------------------------------------------

ALL_HEADERS = {
    "Lambda-Runtime-Trace-Id": TRACE,
    "Lambda-Runtime-Client-Context": '{"custom":{"a":1}}',
    "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i"}',
    "Lambda-Runtime-Aws-Tenant-Id": "a tenant",
}
TYPES = {
    "functionName": "string",
    "functionVersion": "string",
    "memoryLimitInMB": "string",
    "logGroupName": "string",
    "logStreamName": "string",
    "clientContext": "object",
    "identity": "object",
    "invokedFunctionArn": "string",
    "awsRequestId": "string",
    "tenantId": "string",
    "xRayTraceId": "string",
    "callbackWaitsForEmptyEventLoop": "boolean",
    "getRemainingTimeInMillis": "function",
    "succeed": "function",
    "fail": "function",
    "done": "function",
}


def test_every_field_has_its_type(start: Start) -> None:
    """The context has what Node's has, of its types, all of it enumerable; and a signal."""
    bundle = """
        const types = (value) => Object.fromEntries(Object.entries(value).map(([k, v]) => [k, typeof v]));
        export const handler = (_event, context) => [
          types(context), types({ ...context }), JSON.parse(JSON.stringify(context)),
          context.signal instanceof AbortSignal,
        ];
        """
    context, spread, as_json, has_signal = start(bundle).result(headers=ALL_HEADERS)
    assert context == spread == TYPES
    assert as_json.keys() == {name for name, kind in TYPES.items() if kind != "function"}
    assert has_signal is True


def test_log_places_may_be_missing(start: Start) -> None:
    """Under SnapStart there are no log group and stream: they are undefined, and nothing fails."""
    variables = dict.fromkeys(("AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"))
    context = start(CONTEXT, **variables).result()
    assert context["functionName"] == "f"
    assert not {"logGroupName", "logStreamName"} & context.keys()


def test_methods_need_no_object(start: Start) -> None:
    """Methods that are taken out of the context work."""
    bundle = """
        export const handler = (event, context) => {
          const { getRemainingTimeInMillis, succeed, fail, done } = { ...context };
          const left = getRemainingTimeInMillis();
          if (event === "succeed") succeed(left);
          if (event === "fail") fail(new Error("x"));
          if (event === "done") done(null, left);
          return new Promise(() => {});
        };
        """
    environment = start(bundle)
    assert 20_000 < environment.result("succeed") <= 30_000
    assert environment.error("fail")[1]["errorMessage"] == "x"
    assert 20_000 < environment.result("done") <= 30_000


def deadline(seconds: float) -> dict[str, str]:
    """The header of an event whose deadline is so many seconds away."""
    return {"Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000))}


def test_remaining_time(start: Start) -> None:
    """The remaining time goes down, by the clock, and below zero: it is a number to compare."""
    bundle = """
        export const handler = async (_event, { getRemainingTimeInMillis }) => {
          const first = getRemainingTimeInMillis();
          await new Promise((resolve) => setTimeout(resolve, 100));
          return [first, getRemainingTimeInMillis()];
        };
        """
    environment = start(bundle)
    first, second = environment.result(headers=deadline(10))
    assert 5_000 < first <= 10_000
    assert 90 <= first - second < 3_000
    first, second = environment.result(headers=deadline(-5))
    assert second < first < -4_000


# --- succeed, fail, done, and the callback ------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "result"),
    [
        ("context.succeed({ a: 1 });", {"a": 1}),
        ("context.succeed();", None),
        ("context.done(null, 1);", 1),
        ("context.done(undefined, 2);", 2),
        ("context.done();", None),
        ("setTimeout(() => context.succeed('later'), 5);", "later"),
        ("context.succeed('first'); context.fail(new Error('second'));", "first"),
        ("context.done(null, 'first'); context.succeed('second');", "first"),
        ("context.succeed('first'); return 'returned';", "first"),
        ("context.succeed('first'); throw new Error('thrown');", "first"),
        ("context.succeed('at once'); setTimeout(() => {}, 60_000);", "at once"),
        ("callback(null, { a: 1 });", {"a": 1}),
        ("callback();", None),
        ("callback(undefined, 0);", 0),
        ("callback(null, 'first'); callback(new Error('second'));", "first"),
        ("callback(null, 'first'); callback(null, 'second');", "first"),
        ("setTimeout(() => callback(null, 'later'), 5);", "later"),
        ("Promise.resolve().then(() => callback(null, 'soon'));", "soon"),
        ("callback(null, 'called'); return 'returned';", "called"),
        ("return 'returned';", "returned"),
        ("return null;", None),
        ("return 0;", 0),
        ("", None),
        ("setTimeout(() => {}, 5);", None),
    ],
)
def test_answers_of_a_function_that_is_not_async(start: Start, statements: str, result: Any) -> None:
    """The first of callback, succeed, fail and done is the answer; a returned value is one as well."""
    bundle = f"export const handler = (event, context, callback) => {{ {statements} }};"
    environment = start(bundle)
    for _ in range(2):
        assert environment.result() == result


@pytest.mark.parametrize(
    ("statements", "error_type", "message"),
    [
        ("context.fail(new RangeError('r'));", "RangeError", "r"),
        ("context.fail('text');", "string", "text"),
        ("context.fail();", "string", "handled"),
        ("context.fail(null);", "string", "handled"),
        ("context.done(new TypeError('t'), 'ignored');", "TypeError", "t"),
        ("context.done('text');", "string", "text"),
        ("context.fail(new Error('first')); context.succeed('second');", "Error", "first"),
        ("callback(new RangeError('r'));", "RangeError", "r"),
        ("callback('text', 'ignored');", "string", "text"),
        ("callback(new Error('first')); callback(null, 'second');", "Error", "first"),
        ("setTimeout(() => callback(new Error('later')), 5);", "Error", "later"),
        ("throw new SyntaxError('s');", "SyntaxError", "s"),
    ],
)
def test_failures_of_a_function_that_is_not_async(
    start: Start, statements: str, error_type: str, message: str
) -> None:
    """An error that is called back or given to fail or done fails the invocation alone."""
    bundle = f"""
        export const handler = (event, context, callback) => {{
          if (event === "fine") return event;
          {statements}
        }};
        """
    environment = start(bundle)
    _, error = environment.error()
    assert (error["errorType"], error["errorMessage"]) == (error_type, message)
    assert environment.result("fine") == "fine"


def test_callback_waits_for_the_empty_event_loop(start: Start) -> None:
    """What is called back is sent when nothing is left to do, unless the context says otherwise."""
    bundle = """
        export const handler = (event, context, callback) => {
          if (event === "at once") context.callbackWaitsForEmptyEventLoop = false;
          const timer = setTimeout(() => console.log(`timer of ${event}`), 300);
          if (event === "at once") Deno.unrefTimer(timer);
          callback(null, [event, context.callbackWaitsForEmptyEventLoop]);
        };
        """
    environment = start(bundle)
    assert environment.result("waits") == ["waits", True]
    assert "timer of waits" in environment.log
    assert environment.result("at once") == ["at once", False]
    assert "timer of at once" not in environment.log


@pytest.mark.parametrize("statements", ["await null; callback(null, 'called');", "callback(null, 'called');"])
def test_an_async_function_may_call_back(start: Start, statements: str) -> None:
    """A function that is async and has called back is answered once: with what it called back first."""
    environment = start(f"export const handler = async (event, context, callback) => {{ {statements} }};")
    post = environment.invoke(request_id="an-id")
    assert post.path.endswith("/response")
    assert environment.waits_for_next(2)


# --- the signal ---------------------------------------------------------------------------------

SIGNALLED = """
export const handler = async (event, context) => {
  const { signal } = context;
  const began = performance.now();
  const before = signal.aborted;
  if (!before) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  return { before, after: performance.now() - began, aborted: signal.aborted, name: signal.reason?.name,
    isException: signal.reason instanceof DOMException, same: signal === context.signal,
    left: context.getRemainingTimeInMillis() };
};
"""


def test_signal_aborts_before_the_deadline(start: Start) -> None:
    """The signal is aborted LAMBDENO_SIGNAL_MARGIN ms before the deadline, with a TimeoutError."""
    environment = start(SIGNALLED, LAMBDENO_SIGNAL_MARGIN="700")
    for _ in range(2):
        seen = environment.result(headers=deadline(1.2))
        assert seen["before"] is False
        assert 200 < seen["after"] < 1_000
        assert seen["left"] <= 710
        assert seen["aborted"] is seen["isException"] is seen["same"] is True
        assert seen["name"] == "TimeoutError"


@pytest.mark.parametrize(
    ("margin", "seconds"), [("700", 0.6), ("700", 0.0), ("700", -1.0), (None, 0.45), ("900000", 800.0)]
)
def test_signal_may_be_aborted_already(start: Start, margin: str | None, seconds: float) -> None:
    """Where less is left than the margin, 500 ms by default, the signal is aborted from the start."""
    seen = start(SIGNALLED, LAMBDENO_SIGNAL_MARGIN=margin).result(headers=deadline(seconds))
    assert seen["before"] is seen["aborted"] is True
    assert seen["name"] == "TimeoutError"


def test_signal_without_a_margin(start: Start) -> None:
    """A margin of 0 aborts at the deadline itself."""
    seen = start(SIGNALLED, LAMBDENO_SIGNAL_MARGIN="0").result(headers=deadline(0.4))
    assert seen["before"] is False
    assert seen["left"] <= 10


@pytest.mark.parametrize("use", ["", "void context.signal;", "if (context.signal.aborted) throw 1;"])
def test_signal_does_not_hold_the_answer(start: Start, use: str) -> None:
    """A signal that is looked at and not listened to keeps no event loop alive, with a callback too."""
    environment = start(
        f"export const handler = (event, context, callback) => {{ {use} callback(null, event); }};"
    )
    began = time.monotonic()
    for number in range(3):
        assert environment.result(number, headers=deadline(60)) == number
    assert time.monotonic() - began < 15


def test_signal_stops_what_it_is_given_to(start: Start) -> None:
    """A fetch that has the signal ends before the deadline: there is time to answer."""
    bundle = """
        const server = Deno.listen({ port: 0, hostname: "127.0.0.1" });
        export const handler = async (_event, { signal, getRemainingTimeInMillis }) => {
          const error = await fetch(`http://127.0.0.1:${server.addr.port}/`, { signal }).catch((e) => e);
          return [error.name, getRemainingTimeInMillis()];
        };
        """
    name, left = start(bundle, LAMBDENO_SIGNAL_MARGIN="1500").result(headers=deadline(2))
    assert name == "TimeoutError"
    assert left > 0


def test_signals_are_of_one_invocation(start: Start) -> None:
    """An invocation's aborted signal is not the next one's."""
    environment = start(SIGNALLED, LAMBDENO_SIGNAL_MARGIN="700")
    assert environment.result(headers=deadline(0.5))["before"] is True
    assert environment.result(headers=deadline(1))["before"] is False


def test_signal_that_is_not_used_costs_nothing(start: Start) -> None:
    """No timer is started for a function that does not look at its signal."""
    bundle = """
        let made = 0;
        const { timeout } = AbortSignal;
        AbortSignal.timeout = (ms) => (made++, timeout.call(AbortSignal, ms));
        export const handler = (event, context) => (event && context.signal, { ...context }, made);
        """
    environment = start(bundle)
    assert environment.result(False) == 0
    assert environment.result(True) == 1
