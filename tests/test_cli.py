from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import run


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """Lambdeno --help names every command with what it does."""
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    for name in ("build", "invoke", "dev", "doctor", "deno"):
        assert f"\n  {name} " in done.stdout


def test_errors_are_json_when_asked_for(tmp_path: Path) -> None:
    """With --json an error is one document on stdout, and the exit code stays."""
    done = run("build", "--json", folder=tmp_path)
    assert done.returncode == 3
    error = json.loads(done.stdout)
    assert error["error"].startswith("No lambdeno.toml")
    assert error["exit_code"] == 3
    assert done.stderr == ""


def test_pipes_get_no_colours(tmp_path: Path) -> None:
    """Escape codes are for terminals."""
    (tmp_path / "lambdeno.toml").touch()
    done = run("doctor", folder=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr


def test_doctor_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    """What is not built is a warning with its command; nothing stands in the way."""
    (tmp_path / "lambdeno.toml").touch()
    done = run("doctor", "--json", folder=tmp_path)
    assert done.returncode == 0
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["Python"]["state"] == "ok"
    assert findings["function"] == {
        "what": "function",
        "state": "warn",
        "found": "not built",
        "remedy": "lambdeno build function",
    }


def test_doctor_warns_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without bubblewrap learns what it costs and how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("doctor", "--json", folder=tmp_path)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["bubblewrap"]["state"] == "warn"
    assert "apt-get install bubblewrap" in findings["bubblewrap"]["remedy"]


def test_the_pinned_deno_runs(tmp_path: Path) -> None:
    """`lambdeno deno` is Deno, with its own options."""
    done = run("deno", "--version", folder=tmp_path)
    assert done.stdout.startswith("deno 2.9.8 ")


@pytest.mark.parametrize("arguments", [["nope"], ["build", "everything"], ["dev", "--port", "x"]])
def test_a_wrong_command_line_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    """A command line that cannot be is told so, without a traceback."""
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
