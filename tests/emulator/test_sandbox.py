"""Where functions run: layers in /opt, managed Python, the two sandboxes."""

from __future__ import annotations

import platform
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from lambdeno.emulator import Function, choose_sandbox, local_lambda
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.errors import EmulatorError
from tests.emulator.conftest import BOOTSTRAP, Start

HOST_RUNTIME = f"python3.{sys.version_info.minor}"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer whose bootstrap is the obedient one; as an exec wrapper it starts it with arguments."""
    path = tmp_path / "layer.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {
            "bootstrap": BOOTSTRAP.read_text(),
            "wrapper": '#!/bin/sh\necho "wrapper $*"\nexec "$1" -ISB "${0%/*}/bootstrap"\n',
        }.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o755 << 16
            archive.writestr(info, text)
        archive.writestr("not-executable", "x")
    return path


def test_layers_are_opt(start: Start, sandbox: str, code: Path, layer: Path) -> None:
    """A bootstrap in a layer serves a function that has none."""
    (code / "bootstrap").unlink()
    (code / "marker").touch()
    with start(sandbox=sandbox, layers=(layer,)) as running:
        assert running.ask("exists", path="marker") == (True, None)
        if sandbox == "bubblewrap":
            assert running.ask("exists", path="/opt/wrapper") == (True, None)


def test_function_zip_is_run(start: Start, sandbox: str, code: Path, tmp_path: Path) -> None:
    """The function is run from its zip, x bits and all."""
    packed = Path(shutil.make_archive(str(tmp_path / "function"), "zip", code))
    with start(sandbox=sandbox, code=packed) as running:
        assert running.ask() == ({"do": "echo"}, None)


def test_managed_python_is_started_through_the_wrapper(start: Start, sandbox: str, layer: Path) -> None:
    """On python3.X the exec wrapper gets the interpreter and the runtime's entry as arguments."""
    with start(
        sandbox=sandbox,
        runtime=HOST_RUNTIME,
        layers=(layer,),
        environment={"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"},
    ) as running:
        seen, _ = running.ask("environ")
    assert seen["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{HOST_RUNTIME}"
    _, interpreter, entry = running.lines[0].split()
    assert interpreter.endswith(f"/bin/{HOST_RUNTIME}")
    assert entry.endswith("/bootstrap.py")
    if sandbox == "bubblewrap":
        assert (interpreter, entry) == (
            f"/var/lang/bin/{HOST_RUNTIME}",
            "/var/runtime/bootstrap.py",
        )


@pytest.mark.parametrize(
    ("wrapper", "fault"),
    [
        ("nowhere", ("/nowhere: does not exist", "exit status 127")),
        ("not-executable", ("/not-executable: is not an executable", "exit status 126")),
    ],
)
def test_wrapper_faults_are_lambdas(
    start: Start, sandbox: str, layer: Path, wrapper: str, fault: tuple[str, str]
) -> None:
    """A wrapper that is not there, or may not run, ends the runtime as AWS's own start script does."""
    with start(
        sandbox=sandbox,
        runtime=HOST_RUNTIME,
        layers=(layer,),
        environment={"AWS_LAMBDA_EXEC_WRAPPER": f"/opt/{wrapper}"},
    ) as running:
        body, _ = running.ask()
    assert running.lines[0].endswith(fault[0])
    assert body["errorMessage"].endswith(fault[1])


def test_managed_python_without_wrapper_says_what_is_missing(start: Start, sandbox: str) -> None:
    """AWS's own Python runtime is not here: a function that needs it is told so."""
    with start(sandbox=sandbox, runtime=HOST_RUNTIME) as running:
        body, _ = running.ask()
    assert "only through AWS_LAMBDA_EXEC_WRAPPER" in running.lines[0]
    assert body["errorMessage"].endswith("exit status 1")


def test_other_python_version_is_said_once(start: Start, layer: Path) -> None:
    """Another minor version than the host's runs on the host's, and the log says so."""
    with start(
        runtime="python3.99",
        layers=(layer,),
        environment={"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"},
    ) as running:
        assert running.ask() == ({"do": "echo"}, None)
    said = f"lambdeno: f asks for python3.99 and runs on {HOST_RUNTIME}"
    assert sum(line.startswith(said) for line in running.lines) == 1


def test_other_architecture_is_refused(code: Path, cache: Path) -> None:
    """A function for another processor cannot run here."""
    other = "x86_64" if platform.machine() in {"arm64", "aarch64"} else "arm64"
    function = Function("f", code, architecture=other)
    with (
        pytest.raises(EmulatorError, match=f"is for {other}, this machine is"),
        local_lambda(function, cache=cache),
    ):
        pass


@pytest.mark.skipif(bool(bubblewrap_fault()), reason="bubblewrap does not work here")
def test_processes_of_others_are_not_to_be_seen(start: Start) -> None:
    """Under bubblewrap a function sees its own processes alone."""
    with start(sandbox="bubblewrap") as running:
        seen, _ = running.ask("environ")
        assert seen["cwd"] == "/var/task"
        assert seen["pid"] < 10


def test_choice_is_explained() -> None:
    """The sandbox in use says which it is and why; an unknown one is an error."""
    assert choose_sandbox("paths").kind == "paths"
    assert choose_sandbox("auto").reason
    with pytest.raises(EmulatorError, match='The sandbox "docker" is unknown'):
        choose_sandbox("docker")
