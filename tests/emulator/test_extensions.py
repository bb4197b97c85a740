"""Internal extensions: how they register, what they are told, and how their environment ends."""

from __future__ import annotations

import concurrent.futures
import json
import time
from typing import Any

import pytest

from lambdeno.emulator import Settings
from tests.emulator.conftest import Running, Start, processes_with, wait_until

REGISTER = "/2020-01-01/extension/register"
NEXT = "/2020-01-01/extension/event/next"
NAMED = [["Lambda-Extension-Name", "x"]]


def with_extension(**event: Any) -> dict[str, str]:
    """The variables by which the bootstrap registers an extension before its first /next."""
    return {"INIT": json.dumps({"do": "extension", **event})}


def at_init(*calls: list[Any]) -> dict[str, str]:
    """The variables by which the bootstrap makes calls before its first /next."""
    return {"INIT": json.dumps({"do": "calls", "calls": calls})}


def told_at_init(running: Running) -> list[Any]:
    """What these calls were answered: status, and the body as JSON."""
    running.ask()
    told = json.loads(next(line for line in running.lines if line.startswith("[")))
    return [[status, json.loads(body)] for status, body in told]


def test_registration_tells_of_the_function(start: Start, sandbox: str) -> None:
    """A registered extension learns the function's name, version and handler."""
    with start(sandbox=sandbox, handler="a.b", environment=with_extension()) as running:
        assert running.ask() == ({"do": "echo"}, None)
    status, body = json.loads(running.lines[0])
    assert status == 200
    assert json.loads(body) == {"functionName": "f", "functionVersion": "$LATEST", "handler": "a.b"}


@pytest.mark.parametrize(
    ("headers", "body", "kind", "message"),
    [
        ([], "{}", "Extension.InvalidExtensionName", "Empty extension name"),
        (
            NAMED,
            '{"events": ["SHUTDOWN"]}',
            "Extension.InvalidEventType",
            "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
        ),
        (NAMED, '{"events": ["X"]}', "Extension.InvalidEventType", "X: ErrorInvalidEventType"),
        (NAMED, "", "InvalidRequestFormat", "the body is not a JSON object"),
        (NAMED, "[]", "InvalidRequestFormat", "the body is not a JSON object"),
        (NAMED, '{"events": 1}', "InvalidRequestFormat", "events is not a list of strings"),
    ],
)
def test_wrong_registrations_are_refused(
    start: Start, headers: list[Any], body: str, kind: str, message: str
) -> None:
    """A registration that Lambda would not take is 403, says why, and registers nothing."""
    with start(environment=at_init(["POST", REGISTER, body, headers])) as running:
        assert told_at_init(running) == [[403, {"errorMessage": message, "errorType": kind}]]
        assert running.ask() == ({"do": "echo"}, None)
        assert len(running.environments) == 1


def test_registrations_are_short(start: Start) -> None:
    """A registration of more than 64 KB is refused, whatever it says."""
    body = json.dumps({"events": ["INVOKE"] * 10_000})
    with start() as running:
        told, error = running.ask("calls", calls=[["POST", REGISTER, body, NAMED]])
    assert error is None
    assert told[0][0] == 403
    assert json.loads(told[0][1])["errorType"] == "InvalidRequestFormat"


def test_names_are_unique_and_ten_at_most(start: Start) -> None:
    """A second extension of one name and an eleventh extension are refused."""
    calls = [["POST", REGISTER, "{}", [["Lambda-Extension-Name", f"n{n}"]]] for n in [*range(10), 0, 10]]
    # None of them asks for events: init is never complete, and the log tells all the same.
    settings = Settings(init_timeout=2)
    with start(environment=at_init(*calls), settings=settings, timeout=0.5) as running:
        told = told_at_init(running)
    assert [status for status, _ in told] == [200] * 10 + [403] * 2
    assert [body["errorType"] for _, body in told[10:]] == [
        "Extension.InvalidExtensionState",
        "Extension.TooManyExtensions",
    ]


def test_registration_ends_with_init(start: Start) -> None:
    """After the first /next no extension can register."""
    with start() as running:
        told, error = running.ask("calls", calls=[["POST", REGISTER, '{"events": []}', NAMED]])
    assert error is None
    assert told[0][0] == 403
    assert json.loads(told[0][1])["errorType"] == "Extension.RegistrationClosed"


def test_unknown_extensions_get_no_events(start: Start) -> None:
    """event/next without an identifier, or with one that nobody has, is 403."""
    unknown = [["Lambda-Extension-Identifier", "7f6a1a2c-0000-4000-8000-000000000000"]]
    calls = [["GET", NEXT, "", []], ["GET", NEXT, "", unknown]]
    with start() as running:
        told, error = running.ask("calls", calls=calls)
    assert error is None
    assert [status for status, _ in told] == [403, 403]
    assert [json.loads(body)["errorType"] for _, body in told] == [
        "Extension.MissingExtensionIdentifier",
        "Extension.UnknownExtensionIdentifier",
    ]


def test_init_is_complete_when_the_extensions_have_asked(start: Start) -> None:
    """The first invocation waits for the first event/next of each extension."""
    with start(environment=with_extension(late=0.7)) as running:
        running.ask()
    duration = float(running.lines[-1].split("Init Duration: ")[1].split()[0])
    assert duration > 700


def test_extension_that_never_asks_keeps_init_from_its_end(start: Start) -> None:
    """An environment with an extension that asks for nothing fails as one that never starts."""
    settings = Settings(init_timeout=0.5)
    with start(environment=with_extension(asks=0), timeout=0.5, settings=settings) as running:
        body, _ = running.ask()
    assert body["errorType"] == "Sandbox.Timedout"


def test_extension_without_events_is_told_nothing(start: Start, sandbox: str) -> None:
    """An extension that subscribed to nothing waits on, and no invocation waits for it."""
    with start(sandbox=sandbox, environment=with_extension()) as running:
        for _ in range(5):
            assert running.ask() == ({"do": "echo"}, None)
        assert len(running.environments) == 1
    assert not any("eventType" in line for line in running.lines)


def test_extension_that_asks_twice_is_no_second_environment(start: Start) -> None:
    """An extension that asks again while its environment is idle makes it no more idle than it is."""
    with (
        start(environment=with_extension(again=0.2)) as running,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        running.ask()
        wait_until(lambda: "asked again" in running.lines)
        time.sleep(0.1)  # what was asked is on its way
        event = json.dumps({"do": "sleep", "seconds": 1}).encode()
        # boto3, since it gives up on what is never answered.
        asked = [threads.submit(running.client.invoke, FunctionName="f", Payload=event) for _ in range(2)]
        assert [call.result()["Payload"].read() for call in asked] == [b'"slept"'] * 2
        assert len(running.environments) == 2


def test_extension_is_told_of_invocations(start: Start) -> None:
    """An extension that subscribed to INVOKE gets one event for each invocation."""
    with start(environment=with_extension(events=["INVOKE"])) as running:
        results = [running.handle.invoke("f", b"{}") for _ in range(3)]
        wait_until(lambda: len(events_of(running)) == 3)
    events = events_of(running)
    assert [event["requestId"] for event in events] == [result.request_id for result in results]
    assert events[0]["eventType"] == "INVOKE"
    assert events[0]["deadlineMs"] > time.time() * 1000 - 60_000
    assert events[0]["invokedFunctionArn"].endswith(":function:f")
    assert events[0]["tracing"]["type"] == "X-Amzn-Trace-Id"
    assert len(running.environments) == 1


def test_environment_is_busy_while_an_extension_is(start: Start) -> None:
    """The caller has its answer at once; the environment is idle when the extension asks for more."""
    settings = Settings(settle=5)
    environment = with_extension(events=["INVOKE"], busy=0.7)
    with start(environment=environment, settings=settings, concurrency=1) as running:
        begun = time.monotonic()
        running.ask()
        first = time.monotonic() - begun
        running.ask()
        second = time.monotonic() - begun
        assert len(running.environments) == 1
    assert second > 0.7
    assert second - first > 0.5


def test_crash_with_an_extension_is_told_at_once(start: Start) -> None:
    """The connection of a waiting extension does not hold up what a dead runtime comes to."""
    with start(environment=with_extension()) as running:
        running.ask()
        begun = time.monotonic()
        body, _ = running.ask("exit", status=1)
        assert time.monotonic() - begun < 0.95
    assert body["errorType"] == "Runtime.ExitError"


def test_idle_environment_with_an_extension_gets_sigterm(start: Start, sandbox: str) -> None:
    """A reaped environment with an extension may say a last word, and end by itself."""
    environment = with_extension(terminate="told")
    settings = Settings(idle_timeout=0.1, shutdown=10)
    with start(sandbox=sandbox, environment=environment, settings=settings) as running:
        running.ask()
        wait_until(lambda: running.lines[-1] == "told and out", seconds=8)
        assert running.lines[-2] == "told"


def test_end_of_the_local_lambda_is_a_shutdown_too(start: Start, sandbox: str, mark: str) -> None:
    """At the end environments get SIGTERM, all at once, and SIGKILL a moment later."""
    environment = {mark: "x", **with_extension(terminate="told", linger=60)}
    settings = Settings(shutdown=1.5)
    with (
        start(sandbox=sandbox, environment=environment, settings=settings) as running,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        for _ in threads.map(lambda _: running.ask("sleep", seconds=1), range(4)):
            pass
        assert len(running.environments) == 4
        begun = time.monotonic()
    taken = time.monotonic() - begun
    assert running.lines.count("told") == 4
    assert "told and out" not in running.lines
    assert 1.5 <= taken < 4.5
    wait_until(lambda: processes_with(mark) == [])  # the kernel ends a namespace in its own time


def test_environment_without_extension_gets_no_sigterm(start: Start, sandbox: str) -> None:
    """Without an extension the end is SIGKILL, whatever handler there is."""
    environment = {"INIT": json.dumps({"do": "handle", "terminate": "told", "linger": 60})}
    with start(sandbox=sandbox, environment=environment, settings=Settings(shutdown=20)) as running:
        running.ask()
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert "told" not in running.lines


def test_timeout_with_an_extension_is_sigkill(start: Start, sandbox: str) -> None:
    """An environment that has failed is not told of its end."""
    environment = with_extension(terminate="told", linger=60)
    settings = Settings(shutdown=20)
    with start(sandbox=sandbox, environment=environment, settings=settings, timeout=0.5) as running:
        body, _ = running.ask("sleep", seconds=30)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert body["errorType"] == "Sandbox.Timedout"
    assert "told" not in running.lines


def events_of(running: Running) -> list[Any]:
    """The events that the extension has logged."""
    return [json.loads(line) for line in running.lines if "eventType" in line]
