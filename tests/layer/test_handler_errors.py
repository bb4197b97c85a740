"""What a handler can do wrong: it is told to the caller, and the next invocation works."""

from __future__ import annotations

import time

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import PREFIX

ERROR_TYPE = "application/vnd.aws.lambda.error+json"
UNHANDLED = "Function.Unhandled"


def failing(start: Start, statement: str) -> Environment:
    """A function that runs the statement where its event is "fail", and else echoes."""
    return start(
        f"""
        class MyError extends Error {{ name = "MyError"; }}
        const named = (name) => Object.assign(new Error("named"), {{ name }});
        export const handler = async (event) => {{
          if (event === "fail") {{ {statement} }}
          return event;
        }};
        """
    )


@pytest.mark.parametrize(
    ("thrown", "error_type", "message", "header"),
    [
        ("new Error('oops')", "Error", "oops", "Function.Error"),
        ("new RangeError('out of range')", "RangeError", "out of range", "Function.RangeError"),
        ("new MyError('mine')", "MyError", "mine", "Function.MyError"),
        ("new Deno.errors.NotFound('gone')", "NotFound", "gone", "Function.NotFound"),
        ("named('Function.NoStock')", "Function.NoStock", "named", "Function.NoStock"),
        ("named('Runtime.Odd')", "Runtime.Odd", "named", "Runtime.Odd"),
        ("named('Function.lower')", "Function.lower", "named", UNHANDLED),
        ("named('My Function.Name')", "My Function.Name", "named", UNHANDLED),
        ("named('Function.A\\r\\nX: y')", "Function.A\r\nX: y", "named", UNHANDLED),
        ("new Error('é 😀 \\n second \\ud800')", "Error", "é 😀 \n second \ud800", "Function.Error"),
        ("new Error()", "Error", "", "Function.Error"),
        ("'text'", "string", "text", UNHANDLED),
        ("42", "number", "42", UNHANDLED),
        ("null", "object", "null", UNHANDLED),
        ("undefined", "undefined", "undefined", UNHANDLED),
        ("{ a: 1 }", "object", "[object Object]", UNHANDLED),
        ("Symbol('s')", "symbol", "Symbol(s)", UNHANDLED),
    ],
)
def test_thrown_value(start: Start, thrown: str, error_type: str, message: str, header: str) -> None:
    """Anything thrown is posted in Lambda's shape, under a type that the platform keeps."""
    environment = failing(start, f"throw ({thrown});")
    post, error = environment.error("fail", request_id="an-id")
    assert post.path == f"{PREFIX}/invocation/an-id/error"
    assert post.headers["content-type"] == ERROR_TYPE
    assert post.error_type == header
    assert "x" not in post.headers
    assert error.keys() == {"errorType", "errorMessage", "trace"}
    assert (error["errorType"], error["errorMessage"]) == (error_type, message)
    assert environment.result("fine") == "fine"


def test_trace_names_the_place(start: Start) -> None:
    """The trace of an error has its headline and the lines of the bundle."""
    _, error = failing(start, "throw new MyError('mine');").error("fail")
    assert error["trace"][0] == "MyError: mine"
    assert "function.bundle.js:5:" in error["trace"][1]


def test_errors_reach_the_log(start: Start) -> None:
    """What was thrown is in the function's log."""
    environment = failing(start, "throw new MyError('look for me');")
    environment.error("fail")
    assert "look for me" in environment.log


@pytest.mark.parametrize(
    "thrown",
    [
        "Object.defineProperty(new Error('x'), 'message', { get() { throw 1; } })",
        "Object.create(null)",
        "{ toString() { throw new Error('no'); } }",
        "{ toString() { return {}; } }",
    ],
)
def test_unreadable_thrown_value(start: Start, thrown: str) -> None:
    """A thrown value that cannot even be read is an error like others."""
    environment = failing(start, f"throw ({thrown});")
    post, error = environment.error("fail")
    assert (post.error_type, error["errorType"]) == (UNHANDLED, "handled")
    assert environment.result("fine") == "fine"


def test_synchronous_handler_may_throw(start: Start) -> None:
    """A handler that is no async function may throw as well."""
    environment = start("export const handler = () => { throw new TypeError('sync'); };")
    assert environment.error()[1]["errorMessage"] == "sync"
    assert environment.error()[1]["errorType"] == "TypeError"


@pytest.mark.parametrize(
    ("result", "part"),
    [
        ("const a = {}; a.a = a; return a;", "circular"),
        ("return 1n;", "BigInt"),
        ("return { toJSON() { throw new Error('no JSON'); } };", "no JSON"),
    ],
)
def test_result_that_is_no_json(start: Start, result: str, part: str) -> None:
    """A result that cannot be JSON fails its invocation alone, and says why."""
    environment = failing(start, result)
    post, error = environment.error("fail")
    assert post.error_type == error["errorType"] == "Runtime.MarshalError"
    assert part in error["errorMessage"]
    assert environment.result("fine") == "fine"


@pytest.mark.parametrize("event", [b"{oops", b"", b"{} {}", b"undefined"])
def test_event_that_is_no_json(start: Start, event: bytes) -> None:
    """An event that is not JSON fails without the handler's help."""
    environment = start()
    post, error = environment.error(event)
    assert post.error_type == error["errorType"] == "Runtime.UnmarshalError"
    assert "The event is not JSON" in error["errorMessage"]
    assert environment.result("fine") == "fine"


def test_function_may_break_its_globals(start: Start) -> None:
    """A function that replaces JSON's methods harms no later invocation."""
    environment = failing(start, "JSON.parse = JSON.stringify = () => { throw new Error('broken'); };")
    assert environment.result("fail") == "fail"
    assert environment.result("fine") == "fine"
    assert environment.error(b"{oops")[1]["errorType"] == "Runtime.UnmarshalError"


def test_unhandled_rejection_is_not_silent(start: Start) -> None:
    """A rejection that nobody awaits ends Deno: its invocation fails, and the next one works."""
    environment = failing(start, "Promise.reject(new Error('forgotten')); await new Promise(() => {});")
    post, error = environment.error("fail")
    assert post.error_type == error["errorType"] == "Runtime.UnhandledPromiseRejection"
    assert error["errorMessage"] == "Unhandled Promise Rejection: Error: forgotten"
    assert error["cause"]["errorMessage"] == "forgotten"
    assert "forgotten" in environment.log
    assert environment.result("fine") == "fine"


def test_handler_that_can_never_settle(start: Start) -> None:
    """A promise that nothing will settle is an error and no endless wait; the next invocation works."""
    environment = failing(start, "await new Promise(() => {});")
    post, error = environment.error("fail")
    assert post.error_type == error["errorType"] == "Runtime.HandlerNeverSettled"
    assert environment.result("fine") == "fine"


def test_a_late_callback_is_of_no_invocation(start: Start) -> None:
    """A callback that comes when its invocation is long answered does not disturb the running one."""
    environment = start(
        """
        let late;
        export const handler = (event, _context, callback) => {
          if (event === 1) {
            late = callback;
            return Promise.resolve("one");
          }
          callback(null, "two");
          late?.(null, "late");
        };
        """
    )
    assert environment.result(1) == "one"
    assert environment.result(2) == "two"


@pytest.mark.parametrize("thrown", ["Object.create(null)", "Symbol('s')", "Proxy.revocable({}, {})"])
def test_what_nobody_caught_may_be_anything(start: Start, thrown: str) -> None:
    """A rejection with what cannot be written is told under its type, and at once."""
    revoke = "if (reason.revoke) { reason.revoke(); reason = reason.proxy; }"
    environment = failing(
        start,
        f"let reason = {thrown}; {revoke} Promise.reject(reason);"
        " await new Promise((resolve) => setTimeout(resolve, 20_000));",
    )
    post, _ = environment.error("fail")
    assert post.error_type == "Runtime.UnhandledPromiseRejection"
    assert environment.result("fine") == "fine"


def test_what_is_thrown_may_defy_the_log(start: Start) -> None:
    """An error that cannot even be logged is an error like others, and its process lives on."""
    environment = start(
        """
        export const handler = (event) => {
          if (event === "pid") return Deno.pid;
          throw { [Symbol.for("Deno.customInspect")]() { throw new Error("no"); } };
        };
        """
    )
    assert environment.error("fail")[1]["errorType"] == "object"
    assert environment.result("pid")
    assert "Deno exited" not in environment.log


def test_a_message_of_the_clients_costs_no_time(start: Start) -> None:
    """A message that looks like an endless line of a stack is passed over."""
    environment = failing(start, "throw new Error('\\n    at ' + ' ('.repeat(200_000));")
    before = time.monotonic()
    post, _ = environment.error("fail")
    assert post.error_type == "Function.Error"
    assert time.monotonic() - before < 5


def test_a_result_on_its_way_arrives(start: Start) -> None:
    """A rejection behind a large result ends the process, not the result."""
    environment = failing(start, "setTimeout(() => Promise.reject(1), 0); return 'x'.repeat(5_000_000);")
    assert len(environment.result("fail")) == 5_000_000
    assert environment.result("fine") == "fine"
