"""Every import is cold-start time: the runtime layer's Python imports what is listed here, no more."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.layer.conftest import LAYER, Environment, Start
from tests.layer.test_start import VERSIONS, python_of

OWN = {"bootstrap", "connection", "deno", "runtime", "runtime_api", "settings"}
OF_RUNTIME = {"runtime1": {"relay", "runtime1"}, "runtime2": {"runtime2", "streams", "select"}}
C_MODULES = {"_socket", "time", "posix"}  # built in or one shared library: no Python source
ON_ERRORS = {"fault", "logs", "connection", "runtime_api", "_json"}  # what tells an error of the runtime
LINE = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)
FLAGS = ("-X", "importtime", "-ISB")


def imported(environment: Environment) -> set[str]:
    """The modules that the bootstrap has imported, besides those of a bare interpreter."""
    return set(LINE.findall(environment.log))


def baseline(python: Path, tmp_path: Path) -> set[str]:
    """What the interpreter imports to run an empty file."""
    (tmp_path / "empty.py").touch()
    done = subprocess.run([python, *FLAGS, tmp_path / "empty.py"], capture_output=True, text=True, check=True)
    return set(LINE.findall(done.stderr))


@pytest.fixture
def combination() -> str:
    """These tests choose the calling themselves."""
    return "managed-runtime1"


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    """Each Python that this machine has."""
    found = python_of(request.param)
    if found is None:
        pytest.skip(f"no Python {request.param} on this machine")
    return found


def command(python: Path) -> list[str | Path]:
    """The bootstrap, with a log of its imports."""
    return [python, *FLAGS, LAYER / "lambdeno/__main__.py", LAYER]


@pytest.mark.parametrize("runtime", OF_RUNTIME)
def test_imports_up_to_the_answers(start: Start, python: Path, tmp_path: Path, runtime: str) -> None:
    """From its start to its answers, handler errors among them, the bootstrap imports these modules."""
    environment = start("export const handler = (e) => { if (!e) throw 1; };", command=command(python))
    environment.invoke("fine")
    environment.error(None)
    assert environment.waits_for_next(3)
    found = imported(environment) - baseline(python, tmp_path)
    own = OWN | OF_RUNTIME[runtime]
    assert found >= own
    assert found <= own | C_MODULES


def test_imports_to_refuse(start: Start, python: Path, tmp_path: Path) -> None:
    """An init error needs no more than what tells it."""
    environment = start(command=command(python), LAMBDENO_RUNTIME="none")
    environment.init_error()
    found = imported(environment) - baseline(python, tmp_path)
    assert {"fault"} <= found <= OWN | C_MODULES | ON_ERRORS
