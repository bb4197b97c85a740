"""``lambdeno doctor``: what is there, what is missing, and how to get it."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from lambdeno import deno, doctor, limits
from lambdeno.project import DENO_VERSION, Project
from tests.e2e.conftest import run

MACHINE = ["Python", "Deno", "bootstrap", "bubblewrap", "port"]
KINDS = ("deno-layer", "runtime-layer", "function")


def examined(folder: Path, *options: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What doctor finds, by what it looked at."""
    done = run("doctor", "--json", *options, folder=folder)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of which nothing is built."""
    (tmp_path / "lambdeno.toml").touch()
    return tmp_path


def manifest(folder: Path, **changes: dict[str, Any]) -> None:
    """Writes a manifest of three small artefacts, and the artefacts."""
    (folder / "dist").mkdir()
    row = {"digest": "sha256:", "sha256": "", "size": 3, "unpacked": 5_000_000}
    rows = {kind: {"file": f"{kind}.zip", **row} for kind in KINDS}
    for kind in KINDS:
        (folder / "dist" / f"{kind}.zip").write_bytes(b"zip")
        rows[kind] |= changes.get(kind.replace("-", "_"), {})
    (folder / "dist/manifest.json").write_text(json.dumps(rows))


def test_a_finding_has_four_parts(folder: Path) -> None:
    """What was looked at, how it is, what was found, what to do."""
    findings = examined(folder)
    assert list(findings) == [*MACHINE, *KINDS]
    for finding in findings.values():
        assert set(finding) == {"what", "state", "found", "remedy"}
        assert finding["state"] in ("ok", "warn", "fail")
        assert finding["found"]
        assert bool(finding["remedy"]) == (finding["state"] != "ok")


def test_what_is_not_built_has_its_command(folder: Path) -> None:
    """Nothing built is a warning for each artefact, and nothing stands in the way."""
    findings = examined(folder)
    for kind in KINDS:
        assert findings[kind] == {
            "what": kind,
            "state": "warn",
            "found": "not built",
            "remedy": f"lambdeno build {kind}",
        }


def test_a_row_without_its_zip_is_not_built(folder: Path) -> None:
    """The manifest alone proves nothing."""
    manifest(folder)
    (folder / "dist/function.zip").unlink()
    assert examined(folder)["function"]["found"] == "not built"


def test_what_is_built_has_its_sizes(folder: Path) -> None:
    """Zipped and unpacked, and whether a code cache is missing."""
    manifest(folder, function={"code_cache": False}, runtime_layer={"code_cache": True})
    findings = examined(folder)
    assert findings["deno-layer"]["found"] == "1 KB zipped, 4.8 MB unpacked"
    assert findings["runtime-layer"]["found"] == "1 KB zipped, 4.8 MB unpacked"
    assert findings["function"]["found"] == "1 KB zipped, 4.8 MB unpacked, without code cache"


def test_too_much_for_lambda_stands_in_the_way(folder: Path) -> None:
    """Over 250 MB unpacked in all is a failure and exit code 1."""
    manifest(folder, function={"unpacked": limits.UNPACKED})
    findings = examined(folder, code=1)
    assert findings["sizes"]["state"] == "fail"
    assert findings["sizes"]["found"] == "259.5 MB unpacked in all; Lambda takes 250.0 MB"


def test_a_large_zip_is_said_to_go_through_s3(folder: Path) -> None:
    """A request carries 50 MB; what is larger can be deployed all the same."""
    manifest(folder)
    with (folder / "dist/deno-layer.zip").open("r+b") as file:
        file.truncate(limits.DIRECT + 1)
    finding = examined(folder)["deno-layer"]
    assert finding["state"] == "ok"
    assert finding["found"].endswith("; over 50.0 MB: deployed through S3")


@pytest.mark.parametrize("content", ["{", "[]", '{"function": 7}', '{"function": {"file": "function.zip"}}'])
def test_a_manifest_of_something_else_is_no_traceback(folder: Path, content: str) -> None:
    """A manifest that lambdeno did not write is named, or its artefacts count as not built."""
    manifest(folder)
    (folder / "dist/manifest.json").write_text(content)
    done = run("doctor", folder=folder)
    assert "Traceback" not in done.stderr
    assert "manifest.json" in done.stderr or "not built" in done.stdout


def test_without_bubblewrap_there_is_less_isolation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without bubblewrap learns what that costs and how to get it."""
    monkeypatch.setenv("PATH", str(folder))
    finding = examined(folder)["bubblewrap"]
    assert finding["state"] == "warn"
    assert "apt-get install bubblewrap" in finding["remedy"]
    assert "code cache" in finding["remedy"]


@pytest.mark.usefixtures("cache")
def test_a_deno_that_is_not_here_yet_is_a_warning(folder: Path) -> None:
    """The first build downloads it; doctor itself downloads nothing."""
    finding = examined(folder)["Deno"]
    assert finding["state"] == "warn"
    assert DENO_VERSION in finding["found"]
    assert finding["remedy"] == "the first build downloads it"


@pytest.mark.parametrize("program", ["no program", "#!/bin/sh\nexit 1\n"], ids=["broken", "fails"])
def test_a_deno_that_does_not_run_stands_in_the_way(folder: Path, cache: Path, program: str) -> None:
    """The folder to remove is the remedy."""
    target = deno.host_platform()
    place = cache / "deno" / f"{DENO_VERSION}-{target}-{deno.pins()[DENO_VERSION][target][:16]}"
    place.mkdir(parents=True)
    (place / "sha256").write_text(hashlib.sha256(program.encode()).hexdigest())
    (place / "deno").write_text(program)
    (place / "deno").chmod(0o755)
    finding = examined(folder, code=1)["Deno"]
    assert finding["state"] == "fail"
    assert str(place / "deno") in finding["found"]
    assert f"remove {place}" in finding["remedy"].replace("the folder ", "")


def test_a_cache_that_others_can_write_to_stands_in_the_way(folder: Path, cache: Path) -> None:
    """Whatever lies there is not looked at."""
    cache.mkdir()
    cache.chmod(0o777)
    found = examined(folder, code=1)
    assert found["cache"]["state"] == "fail"
    assert "chmod go-w" in found["cache"]["remedy"]
    assert "Deno" not in found


def test_a_port_in_use_is_a_warning(folder: Path) -> None:
    """The local Lambda could listen at another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finding = examined(folder, "--port", str(port))["port"]
    assert (finding["state"], finding["found"]) == ("warn", f"{port} is in use")
    assert "--port" in finding["remedy"]
    assert examined(folder, "--port", str(port))["port"]["found"] == f"{port} is free"


def test_the_machine_alone_can_be_examined(tmp_path: Path) -> None:
    """Without a project there is nothing to say of artefacts, and nothing is created."""
    assert [finding.what for finding in doctor.examine(None, 9000)] == MACHINE
    assert list(examined(tmp_path)) == MACHINE
    assert list(tmp_path.iterdir()) == []


def test_a_project_is_examined_where_it_lies(tmp_path: Path) -> None:
    """Nothing is created in a project that has no dist/."""
    findings = doctor.examine(Project(root=tmp_path), 9000)
    assert [finding.what for finding in findings][-3:] == list(KINDS)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_project_file_is_the_first_thing_to_mend(folder: Path) -> None:
    """Its own error, with its own exit code."""
    (folder / "lambdeno.toml").write_text("memroy = 1\n")
    done = run("doctor", folder=folder)
    assert done.returncode == 3
    assert 'hint: did you mean "memory"?' in done.stderr


def test_a_person_reads_the_same(folder: Path) -> None:
    """Without --json every finding and remedy is on stdout, one line each."""
    done = run("doctor", folder=folder)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for finding in examined(folder).values():
        [line] = [line for line in lines if line.split()[1:2] == [finding["what"]]]
        assert line.startswith(finding["state"])
        assert finding["found"] in line
