"""What is deployed, and what it logs: the built function in a local Lambda that stands where AWS would be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lambdeno import logs, project
from lambdeno.dev import local_function
from lambdeno.emulator import ListSink, local_lambda
from tests.e2e.conftest import LAMBDENO, run


@dataclass(frozen=True)
class Deployed:
    """The function in a Lambda that logs in one of the two formats."""

    endpoint: str
    log: ListSink
    folder: Path

    def invoke(self, event: str) -> subprocess.CompletedProcess[str]:
        """``lambdeno invoke --remote``."""
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody"}
        return subprocess.run(
            [LAMBDENO, "invoke", event, "--remote", "--region", "eu-west-1"],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": self.endpoint, **keys},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module", params=["Text", "JSON"])
def deployed(request: pytest.FixtureRequest, actor: Path) -> Iterator[Deployed]:
    """The built function, elsewhere."""
    log = ListSink()
    function = replace(local_function(project.load(actor)), log_format=request.param, timeout=1)
    with local_lambda(function, log=log) as local:
        yield Deployed(local.endpoint, log, actor)


def test_the_deployed_function_answers_as_the_local_one(deployed: Deployed) -> None:
    """Result and exit code are the same, with the log of the environment that has run it."""
    for event, code in (('{"do": "print"}', 0), ('{"do": "throw"}', 1)):
        remote = deployed.invoke(event)
        local = run("invoke", event, "--endpoint-url", deployed.endpoint, folder=deployed.folder)
        assert (remote.returncode, remote.stdout) == (local.returncode, local.stdout)
        assert remote.returncode == code
        assert len(remote.stderr.splitlines()) == len(local.stderr.splitlines())
    assert json.loads(remote.stdout)["errorType"] == "RangeError"


def test_each_line_that_is_logged_is_understood(deployed: Deployed) -> None:
    """The function's, the runtime's and the platform's, of an end of each kind."""
    start = len(deployed.log.lines)
    for what in ("print", "throw", "exit", "never", "hang"):
        assert deployed.invoke(json.dumps({"do": what})).returncode == (what != "print")
    lines = deployed.log.lines[start:]
    events = [logs.parse({"timestamp": 1_800_000_000_000, "message": line + "\n"}) for line in lines]
    assert [line for line, event in zip(lines, events, strict=True) if not event.level] == []
    assert {event.level for event in events} >= {"PLATFORM", "INFO", "ERROR", "WARN"}
    assert all(len(event.request_id) == 36 for event in events)
    shown = [logs.text_of(event) for event in events]
    assert any(line.endswith("[printed]") for line in shown)
    assert any("RangeError" in line and "  ERROR  " in line for line in shown)
