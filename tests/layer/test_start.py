"""How the bootstrap is called, what it finds, and every Python that it runs on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.layer.conftest import ECHO, LAYER, Start, real_python, this_python

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
WHICH = "export const handler = () => Deno.env.get('DENO_FROM') ?? 'none';"


@pytest.fixture
def combination() -> str:
    """These tests choose the calling themselves."""
    return "managed-runtime1"


def python_of(version: str) -> Path | None:
    """The real executable of a Python version, on PATH or among pyenv's."""
    candidates = [found] if (found := shutil.which(f"python{version}")) else []
    if pyenv := shutil.which("pyenv"):
        root = Path(
            subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        )
        candidates += map(str, sorted(root.glob(f"versions/{version}.*/bin/python{version}")))
    return next((real for command in candidates if (real := real_python(command))), None)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python(start: Start, version: str) -> None:
    """The layer's source runs on every Python from 3.11 on: results, errors, a new Deno, init errors."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    environment = start(
        "export const handler = (e) => { if (e === 'exit') Deno.exit(3); if (!e) throw 1; return e; };",
        command=[python.parent / "../bin" / python.name, *bootstrap_arguments()],
    )
    assert environment.process.poll() is None
    assert environment.result({"a": "x" * 300_000}) == {"a": "x" * 300_000}
    assert environment.error(None)[1]["errorType"] == "number"
    assert environment.error("exit")[0].error_type == "Runtime.ExitError"
    assert environment.result("fine") == "fine"
    assert Path(f"/proc/{environment.process.pid}/exe").readlink() == python


def bootstrap_arguments() -> list[str]:
    """What /opt/bootstrap gives to the interpreter."""
    return ["-ISB", str(LAYER / "lambdeno/__main__.py"), str(LAYER)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_refuses(start: Start, version: str) -> None:
    """Errors before the first event are told by every Python as well."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    post, _ = start(command=[python, *bootstrap_arguments()], LAMBDENO_RUNTIME="none").init_error()
    assert post.error_type == "Runtime.InvalidSetting"


def test_as_exec_wrapper(start: Start, layer: Path) -> None:
    """Called with an interpreter and an entry, the bootstrap takes the interpreter and leaves the entry."""
    environment = start(command=[layer / "bootstrap", this_python(), "/var/runtime/no-such-entry.py"])
    assert environment.result("wrapped") == "wrapped"
    assert runs(environment.process.pid) == this_python()


@pytest.mark.parametrize("arguments", [[], ["function.handler"]], ids=["none", "handler"])
def test_alone(start: Start, layer: Path, tmp_path: Path, deno_binary: Path, arguments: list[str]) -> None:
    """Called as the runtime's own bootstrap, it takes the Python on PATH, whatever its arguments."""
    link(tmp_path / "bin/python3", this_python())
    path = f"{tmp_path}/bin:{deno_binary.parent}"
    environment = start(command=[layer / "bootstrap", *arguments], PATH=path)
    assert environment.result("alone") == "alone"
    assert runs(environment.process.pid) == this_python()


def test_alone_with_its_own_python(start: Start, layer: Path, tmp_path: Path, deno_binary: Path) -> None:
    """A Python beside the bootstrap comes before the one on PATH."""
    link(layer / "bin/python3", this_python())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "bin/python3").chmod(0o755)
    path = f"{tmp_path}/bin:{deno_binary.parent}"
    assert start(command=[layer / "bootstrap"], PATH=path).result("own") == "own"


def test_alone_without_python(start: Start, layer: Path) -> None:
    """Where there is no Python at all, it says which shape has one, and exits with 127."""
    environment = start(command=[layer / "bootstrap"], PATH="/nowhere")
    assert environment.wait() == 127
    assert "no Python beside" in environment.log
    assert "AWS_LAMBDA_EXEC_WRAPPER=/opt/bootstrap" in environment.log


def test_dummy_answers_without_a_bundle(start: Start) -> None:
    """Without function.bundle.js in the task root the layer's dummy answers, and the log says so."""
    environment = start(None)
    answer = environment.result({"a": 1}, request_id="an-id")
    assert "dummy function" in answer["message"]
    assert answer["event"] == {"a": 1}
    assert answer["context"]["awsRequestId"] == "an-id"
    assert answer["deno"]["deno"]
    assert "dummy function answers" in environment.log


def test_bundle_takes_the_dummys_place(start: Start) -> None:
    """With function.bundle.js in the task root there is no trace of the dummy."""
    environment = start(ECHO)
    assert environment.result({"a": 1}) == {"a": 1}
    assert "dummy" not in environment.log


@pytest.mark.parametrize(
    "places",
    [("layer", "task", "path"), ("task", "path"), ("path",), ("layer", "path")],
    ids=" ".join,
)
def test_where_deno_is_found(
    start: Start, layer: Path, tmp_path: Path, deno_binary: Path, places: tuple[str, ...]
) -> None:
    """Deno is looked up in the layer's bin, in the function's bin, then on PATH."""
    folders = {"layer": layer / "bin", "task": tmp_path / "task/bin", "path": tmp_path / "path"}
    for place in places:
        folders[place].mkdir(parents=True)
        wrapper = folders[place] / "deno"
        wrapper.write_text(f'#!/bin/sh\nDENO_FROM={place} exec {deno_binary} "$@"\n')
        wrapper.chmod(0o755)
    path = f"{tmp_path}/path:/usr/bin:/bin"
    assert start(WHICH, layer=layer, PATH=path).result() == places[0]


def test_deno_that_is_not_executable_is_passed_over(
    start: Start, layer: Path, deno_binary: Path, tmp_path: Path
) -> None:
    """A file without the executable bit is no Deno: the next place is looked at."""
    (layer / "bin").mkdir()
    (layer / "bin/deno").write_text("not this one")
    assert start(layer=layer, PATH=f"{tmp_path}:{deno_binary.parent}:/usr/bin").result(1) == 1


def test_home_and_tmp_may_be_missing(start: Start) -> None:
    """Lambda sets neither HOME nor TMPDIR: the writable place is /tmp."""
    bundle = "export const handler = () => Deno.env.get('HOME');"
    assert start(bundle, TMPDIR=None).result() == "/tmp"


def test_long_tmp(start: Start, short_tmp: Path) -> None:
    """A TMPDIR too long for a Unix socket's path does no harm."""
    tmp = short_tmp / ("long" * 30)
    tmp.mkdir()
    assert start(TMPDIR=str(tmp)).result("fine") == "fine"


@pytest.mark.parametrize("stream", ["log", "error"])
def test_output_of_the_function_is_logged(start: Start, stream: str) -> None:
    """What the function prints is in the log before its invocation is answered."""
    environment = start(f"export const handler = (e) => console.{stream}(`said ${{e}}`);")
    for number in range(20):
        environment.invoke(number)
        assert f"said {number}\n" in environment.log


def link(path: Path, target: Path) -> None:
    """A symbolic link in a new folder."""
    path.parent.mkdir()
    path.symlink_to(target)


def runs(pid: int) -> Path:
    """The executable that a process runs."""
    return Path(f"/proc/{pid}/exe").readlink()
