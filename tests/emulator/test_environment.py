"""One execution environment: what a function sees, and every way in which it can end."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from lambdeno.emulator import Settings
from lambdeno.emulator.sandbox import bubblewrap_fault
from tests.emulator.conftest import Start, processes_with, wait_until


def test_event_reaches_the_function_and_its_response_the_caller(start: Start, sandbox: str) -> None:
    """What the bootstrap posts is what the caller gets, byte for byte."""
    with start(sandbox=sandbox) as running:
        result = running.handle.invoke("f", '{"do": "echo", "text": "é\\u0000"}'.encode())
    assert json.loads(result.payload) == {"do": "echo", "text": "é\0"}
    assert result.function_error is None


def test_function_sees_lambdas_variables_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, sandbox: str
) -> None:
    """Nothing of the host's environment reaches a function; Lambda's variables and its own do."""
    monkeypatch.setenv("HOST_SECRET", "secret")
    monkeypatch.setenv("AWS_CA_BUNDLE_OF_HOST", "mine")
    with start(sandbox=sandbox, environment={"OWN": "1"}, memory=256) as running:
        seen, _ = running.ask("environ")
    assert "HOST_SECRET" not in seen
    assert "AWS_CA_BUNDLE_OF_HOST" not in seen
    assert "HOME" not in seen
    assert seen["OWN"] == "1"
    assert seen["_HANDLER"] == "function.handler"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "f"
    assert seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert seen["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert seen["AWS_LAMBDA_LOG_GROUP_NAME"] == "/aws/lambda/f"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", seen["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert seen["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert seen["TZ"] == ":UTC"
    assert seen["cwd"] == seen["LAMBDA_TASK_ROOT"]
    assert "AWS_EXECUTION_ENV" not in seen


@pytest.mark.parametrize(
    ("status", "reason"),
    [(1, "Runtime exited with error: exit status 1"), (0, "Runtime exited without providing a reason")],
)
def test_exit_in_an_invocation_is_an_exit_error(start: Start, sandbox: str, status: int, reason: str) -> None:
    """A runtime that exits fails its invocation with Runtime.ExitError; the next one works."""
    with start(sandbox=sandbox) as running:
        body, error = running.ask("exit", status=status)
        assert running.ask() == ({"do": "echo"}, None)
    assert error == "Unhandled"
    assert body["errorType"] == "Runtime.ExitError"
    assert re.fullmatch(rf"RequestId: \S{{36}} Error: {reason}", body["errorMessage"])
    assert len(running.environments) == 2
    report = next(line for line in running.lines if line.startswith("REPORT"))
    assert report.endswith("Status: error\tError Type: Runtime.ExitError\t")


@pytest.mark.parametrize(("name", "words"), [("SIGKILL", "killed"), ("SIGSEGV", "segmentation fault")])
def test_death_by_signal_names_the_signal(start: Start, sandbox: str, name: str, words: str) -> None:
    """A runtime killed by a signal fails its invocation with the signal's name."""
    with start(sandbox=sandbox) as running:
        body, error = running.ask("signal", name=name)
    assert error == "Unhandled"
    assert body["errorMessage"].endswith(f"Error: Runtime exited with error: signal: {words}")


def test_timeout_kills_and_replaces(start: Start, sandbox: str, mark: str) -> None:
    """An invocation over its time ends with Sandbox.Timedout, and its whole tree with it."""
    with start(sandbox=sandbox, timeout=0.5, environment={mark: "x"}) as running:
        body, error = running.ask("child", hang=True)
        assert running.ask() == ({"do": "echo"}, None)
        wait_until(lambda: len(processes_with(mark)) == 1)
    assert error == "Unhandled"
    assert body["errorType"] == "Sandbox.Timedout"
    assert body["errorMessage"].endswith("Error: Task timed out after 0.50 seconds")
    assert any(
        re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z \S{36} Task timed out after 0.50 seconds", line)
        for line in running.lines
    )
    assert any(line.endswith("Status: timeout\t") for line in running.lines)
    assert processes_with(mark) == []


def test_process_that_exits_after_its_answer_has_answered(start: Start, sandbox: str) -> None:
    """An exit between /response and /next fails nobody; the environment is replaced."""
    with start(sandbox=sandbox) as running:
        assert running.ask("answer and exit") == ("answered", None)
        assert running.ask() == ({"do": "echo"}, None)
    assert len(running.environments) == 2


def test_work_after_the_answer_has_the_functions_time(start: Start) -> None:
    """A runtime that answers and never asks for more is killed at the deadline."""
    with start(timeout=0.5) as running:
        assert running.ask("answer and stay", seconds=30) == ("answered", None)
        wait_until(lambda: any("Task timed out" in line for line in running.lines))
        assert running.ask() == ({"do": "echo"}, None)
    assert len(running.environments) == 2


def test_init_error_is_the_callers_answer(start: Start, sandbox: str) -> None:
    """What a runtime posts to init/error reaches the caller, at once and once."""
    with start(sandbox=sandbox, environment={"INIT": '{"do": "init/error"}'}) as running:
        body, error = running.ask()
    assert (body, error) == ({"errorType": "Oops", "errorMessage": "at init"}, "Unhandled")
    assert sum(line.startswith("INIT_REPORT") for line in running.lines) == 1
    assert "Phase: init\tStatus: error\tError Type: Runtime.Oops" in running.lines[0]


def test_crash_at_init_is_tried_again_once(start: Start, sandbox: str) -> None:
    """A runtime that exits before its first /next is started once more, then fails the caller."""
    with start(sandbox=sandbox, environment={"INIT": '{"do": "exit", "status": 5}'}) as running:
        body, error = running.ask()
    assert error == "Unhandled"
    assert body["errorType"] == "Runtime.ExitError"
    assert body["errorMessage"].endswith("Error: Runtime exited with error: exit status 5")
    phases = [line.split("\t")[1] for line in running.lines if line.startswith("INIT_REPORT")]
    assert phases == ["Phase: init", "Phase: invoke"]


def test_second_init_may_succeed(start: Start, tmp_path: Path) -> None:
    """An invocation whose first init crashed is served by the second."""
    once = json.dumps({"do": "exit", "status": 5, "once": str(tmp_path / "once")})
    with start(environment={"INIT": once}) as running:
        assert running.ask() == ({"do": "echo"}, None)
    assert "Init Duration" not in running.lines[-1]


def test_init_over_its_time_goes_on_in_the_invocation(start: Start, sandbox: str) -> None:
    """Init has its own limit; over it, init starts anew on the function's time."""
    environment = {"INIT": '{"do": "sleep", "seconds": 30}'}
    settings = Settings(init_timeout=0.3)
    with start(sandbox=sandbox, environment=environment, timeout=0.5, settings=settings) as running:
        body, _ = running.ask()
    assert body["errorType"] == "Sandbox.Timedout"
    assert re.fullmatch(
        r"INIT_REPORT Init Duration: [\d.]+ ms\tPhase: init\tStatus: timeout", running.lines[0]
    )
    assert running.lines[1].startswith("START")


def test_missing_bootstrap_is_an_invalid_entrypoint(start: Start, sandbox: str, code: Path) -> None:
    """A function without bootstrap fails each invocation with Runtime.InvalidEntrypoint."""
    (code / "bootstrap").unlink()
    with start(sandbox=sandbox) as running:
        body, error = running.ask()
    assert error == "Unhandled"
    assert body["errorType"] == "Runtime.InvalidEntrypoint"
    assert body["errorMessage"].endswith(
        "Error: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"
    )


def test_bootstrap_without_x_bit_is_an_invalid_entrypoint(start: Start, sandbox: str, code: Path) -> None:
    """A bootstrap that may not be executed is no entry point."""
    (code / "bootstrap").chmod(0o644)
    with start(sandbox=sandbox) as running:
        body, _ = running.ask()
    assert body["errorType"] == "Runtime.InvalidEntrypoint"
    assert body["errorMessage"].endswith("permission denied")


def test_bootstrap_that_cannot_be_executed_is_an_invalid_entrypoint(
    start: Start, sandbox: str, code: Path
) -> None:
    """An interpreter that is not there makes the entry point invalid."""
    (code / "bootstrap").write_text("#!/no/such/interpreter\n")
    with start(sandbox=sandbox) as running:
        body, _ = running.ask()
    assert body["errorType"] == "Runtime.InvalidEntrypoint"


def test_log_has_start_end_and_report_around_the_functions_lines(start: Start, sandbox: str) -> None:
    """A function's output stands between START and END, whole or partial lines alike."""
    with start(sandbox=sandbox) as running:
        running.ask("print", text="one\ntwo", end="")
        running.ask("print", text="three")
    first, second = running.lines[:5], running.lines[5:]
    request_id = first[0].split()[2]
    assert first[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert first[1:3] == ["one", "two"]
    assert first[3] == f"END RequestId: {request_id}"
    assert re.fullmatch(
        rf"REPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 512 MB\tMax Memory Used: \d+ MB\tInit Duration: [\d.]+ ms\t",
        first[4],
    )
    assert second[1] == "three"
    assert "Init Duration" not in second[3]
    assert {entry[1] for entry in running.sink.entries[:5]} == {request_id}


def test_output_before_the_answer_is_before_the_end(start: Start) -> None:
    """What a function wrote before it answered never comes after END."""
    with start() as running:
        for _ in range(60):
            running.ask("print", text="written")
    ends = [n for n, line in enumerate(running.lines) if line.startswith("END")]
    assert len(ends) == 60
    assert all(running.lines[n - 1] == "written" for n in ends)


def test_max_memory_is_the_peak_of_the_tree(start: Start, sandbox: str) -> None:
    """The REPORT shows the most memory that was resident, also after it was given back."""
    with start(sandbox=sandbox) as running:
        running.ask("allocate", size=60_000_000)
        time.sleep(0.1)  # the next look at the memory is not before
        running.ask()
    match = re.search(r"Max Memory Used: (\d+) MB", running.lines[-1])
    assert match
    assert 57 < int(match[1]) < 120


@pytest.mark.skipif(bool(bubblewrap_fault()), reason="bubblewrap does not work here")
def test_only_tmp_is_writable(start: Start) -> None:
    """Under bubblewrap a function can write to /tmp and nowhere else."""
    with start(sandbox="bubblewrap") as running:
        done, _ = running.ask("write", paths=["/var/task/x", "/opt/x", "/x", "/usr/x", "/tmp/x"])
        other, _ = running.ask("write", paths=["/tmp/x"])
    refused = "Read-only file system"
    assert done == {
        "/var/task/x": refused, "/opt/x": refused, "/x": refused, "/usr/x": refused, "/tmp/x": "ok",
    }  # fmt: skip
    assert other == {"/tmp/x": "ok"}
