"""Environments of a function: how many there are, which one is taken, when they end."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lambdeno import children
from lambdeno.emulator import Function, Settings
from tests.emulator.conftest import Running, Start, processes_with, wait_until

LIMIT = "ReservedFunctionConcurrentInvocationLimitExceeded"


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of temporary folders that nobody else uses, with a path that leaves room for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def ask_at_once(running: Running, count: int, seconds: float) -> list[str]:
    """Let that many clients wait for ``f``; what each was told, sorted: slept, or the reason why not."""

    def ask(_: int) -> str:
        event = json.dumps({"do": "sleep", "seconds": seconds}).encode()
        try:
            answer = running.client.invoke(FunctionName="f", Payload=event)
        except running.client.exceptions.TooManyRequestsException as error:
            return str(error.response["Reason"])  # type: ignore[typeddict-item]
        return str(json.loads(answer["Payload"].read()))

    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return sorted(threads.map(ask, range(count)))


def test_serial_invocations_share_one_environment(start: Start) -> None:
    """An idle environment is used again: N invocations one after the other need one."""
    with start() as running:
        pids = {running.ask("environ")[0]["pid"] for _ in range(20)}
    assert len(pids) == 1
    assert sum("Init Duration" in line for line in running.lines) == 1


def test_parallel_invocations_have_an_environment_each(start: Start) -> None:
    """N invocations at once run in N environments."""
    with start(concurrency=3) as running:
        assert ask_at_once(running, 3, 0.5) == ["slept"] * 3
        assert len(running.environments) == 3
        assert ask_at_once(running, 3, 0.1) == ["slept"] * 3
    assert len(running.environments) == 3


def test_concurrency_is_limited(start: Start) -> None:
    """The invocation beyond the reserved concurrency is TooManyRequestsException."""
    with start(concurrency=2) as running:
        assert ask_at_once(running, 3, 0.8) == [LIMIT, "slept", "slept"]
        assert running.ask() == ({"do": "echo"}, None)


def test_invocation_waits_for_an_environment_that_has_answered(start: Start) -> None:
    """With a limit of one, serial clients are never throttled."""
    with start(concurrency=1) as running:
        for _ in range(30):
            assert running.ask() == ({"do": "echo"}, None)
    assert len(running.environments) == 1


def test_idle_environments_are_reaped(start: Start, temp: Path) -> None:
    """An environment that was idle for long is ended; the next invocation starts another."""
    with start(settings=Settings(idle_timeout=0.1)) as running:
        first, _ = running.ask("environ")
        wait_for_end(first["pid"])
        wait_until(lambda: [list(root.iterdir()) for root in temp.iterdir()] == [[]])
        second, _ = running.ask("environ")
    assert first["pid"] != second["pid"]
    assert list(temp.iterdir()) == []


def test_nothing_is_left_behind(start: Start, sandbox: str, temp: Path, mark: str) -> None:
    """After the end there is no process of a function, and no folder of an environment."""
    children.watch()  # stays until this process ends
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with start(sandbox=sandbox, environment={mark: "x"}) as running:
        running.ask("child")
        running.ask("write", paths=[running.ask("environ")[0].get("TMPDIR", "/tmp") + "/file"])
        assert len(list(temp.iterdir())) == 1
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before
    wait_until(lambda: processes_with(mark) == [])  # the kernel ends a namespace in its own time
    assert list(temp.iterdir()) == []


def test_environments_have_their_own_tmp(start: Start, sandbox: str) -> None:
    """What one environment writes to /tmp another does not see."""
    with start(sandbox=sandbox, timeout=20) as running:
        seen, _ = running.ask("environ")
        file = seen.get("TMPDIR", "/tmp") + "/mine"
        running.ask("write", paths=[file])
        assert running.ask("exists", path=file) == (True, None)
        running.ask("exit", status=1)
        seen, _ = running.ask("environ")
        again = seen.get("TMPDIR", "/tmp") + "/mine"
        assert running.ask("exists", path=again) == (False, None)


def test_replaced_code_serves_new_invocations_alone(start: Start, code: Path, tmp_path: Path) -> None:
    """After a replacement new invocations run the new code, and running ones finish on the old."""
    new = tmp_path / "new"
    shutil.copytree(code, new)
    (new / "marker").touch()
    with start() as running, concurrent.futures.ThreadPoolExecutor(1) as threads:
        old, _ = running.ask("environ")
        slow = threads.submit(running.ask, "sleep", seconds=0.6)
        wait_for_lines(running, 4)
        running.handle.replace(Function("f", new))
        assert running.ask("exists", path="marker") == (True, None)
        assert slow.result() == ("slept", None)
        wait_for_end(old["pid"])
    assert len(running.environments) == 2


def test_end_during_init_leaves_nothing(start: Start, sandbox: str, temp: Path, mark: str) -> None:
    """An invocation that is still starting its environment ends with the local Lambda."""
    environment = {"INIT": '{"do": "sleep", "seconds": 30}', mark: "x"}
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        with start(sandbox=sandbox, environment=environment) as running:
            asked = threads.submit(running.ask)
            wait_until(lambda: processes_with(mark) != [])
        body, _ = asked.result(timeout=10)
    assert body["errorType"] == "Runtime.ExitError"
    wait_until(lambda: processes_with(mark) == [])  # the kernel ends a namespace in its own time
    assert list(temp.iterdir()) == []


def wait_for_end(pid: int) -> None:
    """Wait until a process is gone."""
    wait_until(lambda: not psutil.pid_exists(pid))


def wait_for_lines(running: Running, count: int) -> None:
    """Wait until the log has that many lines."""
    wait_until(lambda: len(running.lines) >= count)
