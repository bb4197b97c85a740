"""The two log formats: what the function is told of them, and the platform's own lines."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lambdeno.emulator import Settings
from tests.emulator.conftest import Running, Start, wait_until


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("Text", None)),
        ({"log_level": "DEBUG"}, ("Text", None)),
        ({"log_format": "JSON"}, ("JSON", None)),
        ({"log_format": "JSON", "log_level": "DEBUG"}, ("JSON", "DEBUG")),
    ],
)
def test_function_knows_its_log_format(
    start: Start, options: dict[str, str], expected: tuple[str, str | None]
) -> None:
    """The log format is in the environment, and the log level where the format is JSON."""
    with start(**options) as running:
        seen, _ = running.ask("environ")
    assert (seen["AWS_LAMBDA_LOG_FORMAT"], seen.get("AWS_LAMBDA_LOG_LEVEL")) == expected


def test_functions_own_variables_win(start: Start) -> None:
    """Lambda reserves none of these variables: the function's own are kept."""
    own = {"AWS_LAMBDA_LOG_FORMAT": "Text", "AWS_LAMBDA_LOG_LEVEL": "WARN"}
    with start(log_format="JSON", log_level="DEBUG", environment=own) as running:
        seen, _ = running.ask("environ")
    assert {name: seen[name] for name in own} == own


def test_service_describes_the_log_format(start: Start) -> None:
    """GetFunctionConfiguration tells how a function logs; levels are for JSON alone."""
    with start() as running:
        text = running.client.get_function_configuration(FunctionName="f")["LoggingConfig"]
    with start(log_format="JSON", log_level="WARN") as running:
        described = running.client.get_function_configuration(FunctionName="f")["LoggingConfig"]
    assert text == {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}
    assert described == {
        "LogFormat": "JSON",
        "LogGroup": "/aws/lambda/f",
        "ApplicationLogLevel": "WARN",
        "SystemLogLevel": "INFO",
    }


def test_json_has_start_and_report_around_the_functions_lines(start: Start) -> None:
    """In JSON an invocation begins with platform.start and ends with platform.report."""
    with start(log_format="JSON", memory=256) as running:
        request_id = running.handle.invoke("f", b'{"do": "print", "text": "one"}').request_id
        running.ask()
    first, second = running.lines[:3], running.lines[3:]
    assert first[1] == "one"
    begin, report = json.loads(first[0]), json.loads(first[2])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", begin.pop("time"))
    assert begin == {"type": "platform.start", "record": {"requestId": request_id, "version": "$LATEST"}}
    assert (report["type"], report["record"]["requestId"]) == ("platform.report", request_id)
    assert report["record"]["status"] == "success"
    metrics = report["record"]["metrics"]
    assert metrics["billedDurationMs"] - 1 < metrics["durationMs"] <= metrics["billedDurationMs"]
    assert metrics["memorySizeMB"] == 256
    assert metrics["maxMemoryUsedMB"] > 0
    assert metrics["initDurationMs"] > 0
    assert "initDurationMs" not in json.loads(second[1])["record"]["metrics"]


def test_json_tells_of_a_timeout(start: Start) -> None:
    """A time-out is platform.runtimeDone and the status of platform.report; no text says it."""
    with start(log_format="JSON", timeout=0.5) as running:
        running.ask("sleep", seconds=30)
    done, report = records(running, "platform.runtimeDone"), records(running, "platform.report")
    assert [(record["status"], record["metrics"]) for record in done] == [("timeout", {"durationMs": 500})]
    assert [record["status"] for record in report] == ["timeout"]
    assert "errorType" not in report[0]
    assert not any("Task timed out" in line for line in running.lines)


def test_json_tells_of_a_crash(start: Start) -> None:
    """A crash has its error type in platform.runtimeDone and platform.report."""
    with start(log_format="JSON") as running:
        running.ask("exit", status=1)
    told = records(running, "platform.runtimeDone") + records(running, "platform.report")
    assert [(record["status"], record["errorType"]) for record in told] == [
        ("error", "Runtime.ExitError")
    ] * 2


def test_json_tells_of_a_failed_init(start: Start) -> None:
    """A failed init is platform.initReport, with its phase, status and error type."""
    environment = {"INIT": '{"do": "exit", "status": 5}'}
    with start(log_format="JSON", environment=environment) as running:
        running.ask()
    told = records(running, "platform.initReport")
    assert [record["phase"] for record in told] == ["init", "invoke"]
    assert told[0].pop("metrics")["durationMs"] > 0
    assert told[0] == {
        "initializationType": "on-demand",
        "phase": "init",
        "status": "error",
        "errorType": "Runtime.ExitError",
    }


def test_json_tells_of_an_init_over_its_time(start: Start) -> None:
    """An init that takes too long has the status timeout, and no error type."""
    environment = {"INIT": '{"do": "sleep", "seconds": 30}'}
    settings = Settings(init_timeout=0.3)
    with start(log_format="JSON", environment=environment, timeout=0.3, settings=settings) as running:
        running.ask()
        wait_until(lambda: records(running, "platform.report") != [])
    told = records(running, "platform.initReport")[0]
    assert told["status"] == "timeout"
    assert "errorType" not in told


def records(running: Running, kind: str) -> list[Any]:
    """The records of the platform's events of a kind."""
    events = [json.loads(line) for line in running.lines if line.startswith('{"time":')]
    return [event["record"] for event in events if event["type"] == kind]
