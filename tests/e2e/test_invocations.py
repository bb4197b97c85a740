from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Local

EVENTS = sorted((Path(__file__).parent.parent / "events").glob("*.json"))
VALUES: list[Any] = [
    "a string",
    "",
    [1, [2, {}]],
    -0.5,
    0,
    True,
    None,
    {},
    {"🦕": "\U0001f995 beyond the BMP, \u0000 and \ud7ff"},
]


def result(answer: Any) -> Any:
    """What the function returned, in a response that says all is well."""
    assert answer["StatusCode"] == 200
    payload = answer["Payload"].read()
    assert "FunctionError" not in answer, payload
    return json.loads(payload)


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_lambdas_real_events_reach_the_handler_whole(local: Local, path: Path) -> None:
    """What AWS's services send comes to the handler, and back, as it is."""
    event = json.loads(path.read_bytes())
    assert result(local.invoke(path.read_bytes())) == event


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_json_value_is_an_event_and_a_result(local: Local, value: Any) -> None:
    """Strings, numbers, lists, null and Unicode of every plane pass through unchanged."""
    assert result(local.invoke(json.dumps(value).encode())) == value


def test_an_event_of_almost_6_mb_passes(local: Local) -> None:
    """5.9 MB in and 5.9 MB out are within Lambda's limit."""
    event = {"text": "é" * 2_950_000}
    assert result(local.invoke(json.dumps(event, ensure_ascii=False).encode())) == event


def test_a_result_of_almost_6_mb_passes(local: Local) -> None:
    """A large result comes back whole."""
    assert result(local.invoke(b'{"do": "large"}')) == "x" * 5_900_000


def test_a_result_over_6_mb_is_an_error_and_the_next_invocation_works(local: Local) -> None:
    """Lambda refuses the result; the environment goes on."""
    answer = local.invoke(b'{"do": "too-large"}')
    assert answer["FunctionError"] == "Unhandled"
    assert json.load(answer["Payload"])["errorType"] == "Function.ResponseSizeTooLarge"
    assert result(local.invoke(b"1")) == 1


def test_undefined_is_null(local: Local) -> None:
    """A handler that returns nothing answers null."""
    assert result(local.invoke(b'{"do": "undefined"}')) is None


def test_a_thrown_error_reaches_the_caller_and_the_next_invocation_works(local: Local) -> None:
    """The caller sees type, message and trace, as from Lambda's Node runtime."""
    answer = local.invoke(b'{"do": "throw"}')
    assert answer["FunctionError"] == "Unhandled"
    error = json.load(answer["Payload"])
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "out of range")
    assert error["trace"][0] == "RangeError: out of range"
    assert re.search(r"/src/main\.ts:\d+:\d+\)?$", error["trace"][1])
    assert result(local.invoke(b"2")) == 2


def test_a_function_that_exits_is_an_error_and_the_next_invocation_works(local: Local) -> None:
    """Deno's end has a name and a status; another Deno takes over."""
    answer = local.invoke(b'{"do": "exit"}')
    assert answer["FunctionError"] == "Unhandled"
    error = json.load(answer["Payload"])
    assert error["errorType"] == "Runtime.ExitError"
    assert "exit status 7" in error["errorMessage"]
    assert result(local.invoke(b"3")) == 3


@pytest.mark.parametrize(
    ("order", "error_type", "message"),
    [
        ("reject", "Runtime.UnhandledPromiseRejection", "TypeError: nobody waits"),
        ("timer", "Runtime.UncaughtException", "TypeError: in a timer"),
        ("never", "Runtime.HandlerNeverSettled", "pending"),
        ("cycle", "Runtime.MarshalError", "circular"),
        ("block", "Runtime.EventLoopBlocked", "computed"),
    ],
)
def test_a_fault_has_a_name_and_the_next_invocation_works(
    local: Local, order: str, error_type: str, message: str
) -> None:
    """Whatever keeps the function from answering is told to the caller, and costs that invocation alone."""
    answer = local.invoke(json.dumps({"do": order}).encode(), LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    error = json.load(answer["Payload"])
    assert error["errorType"] == error_type
    assert message in error["errorMessage"]
    assert message in base64.b64decode(answer["LogResult"]).decode()
    assert result(local.invoke(b"5")) == 5


def test_a_timeout_kills_the_environment_and_the_next_invocation_works(local: Local) -> None:
    """An invocation over its time is answered by the platform, and replaced."""
    answer = local.invoke(b'{"do": "hang"}')
    assert answer["FunctionError"] == "Unhandled"
    assert "Task timed out after 5.00 seconds" in json.load(answer["Payload"])["errorMessage"]
    assert result(local.invoke(b"4")) == 4


def test_output_is_in_the_log_tail_between_start_and_end(local: Local) -> None:
    """What the function prints is the invocation's log."""
    answer = local.invoke(b'{"do": "print"}', LogType="Tail")
    lines = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert lines[0].startswith("START RequestId: ")
    request_id = lines[0].split(" ")[2]
    assert [line.split("\t", 1)[1] for line in lines[1:3]] == [
        f"{request_id}\tINFO\t[printed]",
        f"{request_id}\tERROR\tto stderr",
    ]
    assert lines[-2].startswith("END RequestId: ")
    assert lines[-1].startswith("REPORT RequestId: ")


def test_the_context_is_lambdas(local: Local) -> None:
    """The handler learns what Lambda tells about the invocation."""
    context = result(local.invoke(b'{"do": "context"}'))
    assert context["functionName"] == "actor"
    assert context["functionVersion"] == "$LATEST"
    assert context["memoryLimitInMB"] == "512"
    assert context["invokedFunctionArn"].endswith(":function:actor")
    assert 0 < context["remaining"] <= 5000


def test_the_function_has_its_environment_and_not_the_runtimes(local: Local) -> None:
    """The user's variables are there, the way to the Runtime API is not."""
    where = result(local.invoke(b'{"do": "where"}'))
    assert where["greeting"] == "hello"
    assert where["home"]
    assert where["api"] is None
    if local.handle.sandbox.kind == "bubblewrap":
        assert where["cwd"] == "/var/task"
        assert where["url"] == "file:///var/task/function.bundle.js"
        assert where["home"] == "/tmp"


def test_memory_is_of_processes_at_one_time(local: Local) -> None:
    """Max Memory Used does not add up processes that follow each other."""
    for _ in range(6):
        log = base64.b64decode(local.invoke(b"{}", LogType="Tail")["LogResult"]).decode()
    [used] = re.findall(r"Max Memory Used: (\d+) MB", log)
    assert 30 <= int(used) <= 250
