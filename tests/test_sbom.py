"""dist/sbom.json: what a scanner needs to know of the two layers."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import lambdeno
from lambdeno import build, interpreter, project, sbom
from tests.test_artefacts import built as built  # noqa: PLC0414 - a fixture

CVE = "CVE-2026-2297"


def components(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The components by their names."""
    return {component["name"]: component for component in document["components"]}


@pytest.fixture
def document(built: Path) -> dict[str, Any]:
    """The document of a whole build."""
    found: dict[str, Any] = json.loads((built / "dist/sbom.json").read_text())
    return found


def test_it_is_cyclonedx(built: Path) -> None:
    """The schema's own validator finds nothing, not even an unknown key."""
    text = (built / "dist/sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_names_everything_in_the_layers(document: dict[str, Any]) -> None:
    """CPython, musl, the compiler's routines, our code and Deno, each with its version."""
    versions = {name: component["version"] for name, component in components(document).items()}
    pins = interpreter.pins()
    assert versions == {
        "compiler-rt of zig": pins["ziglang"]["version"],
        "cpython": pins["cpython"]["version"],
        "deno": project.DENO_VERSION,
        "lambdeno": lambdeno.__version__,
        "musl": pins["musl"]["version"],
    }


def test_its_checksums_are_those_of_the_files(built: Path, document: dict[str, Any]) -> None:
    """The executables can be told apart by it."""
    with zipfile.ZipFile(built / "dist/runtime-layer.zip") as zipped:
        bootstrap = hashlib.sha256(zipped.read("bootstrap")).hexdigest()
    with zipfile.ZipFile(built / "dist/deno-layer-x86_64.zip") as zipped:
        deno = hashlib.sha256(zipped.read("bin/deno")).hexdigest()
    found = components(document)
    assert found["lambdeno"]["hashes"] == [{"alg": "SHA-256", "content": bootstrap}]
    assert found["deno"]["hashes"] == [{"alg": "SHA-256", "content": deno}]


def test_it_tells_the_vulnerabilities_that_are_mended(document: dict[str, Any]) -> None:
    """Each patch on top of CPython's release is there, so that a scanner need not warn of it."""
    patches = components(document)["cpython"]["pedigree"]["patches"]
    resolved = [entry for patch in patches for entry in patch["resolves"]]
    assert {"type": "security", "id": CVE} in resolved
    assert len(patches) == len(interpreter.patches()) >= 4


def test_lambdas_python_is_not_ours(built: Path, tmp_path: Path) -> None:
    """The shape managed ships no CPython and no musl."""
    folder = shutil.copytree(built, tmp_path / "managed")
    (folder / "lambdeno.toml").write_text('name = "doubler"\nshape = "managed"\n')
    build.build_runtime_layer(project.load(folder))
    found = components(json.loads((folder / "dist/sbom.json").read_text()))
    assert set(found) == {"deno", "lambdeno"}


def test_an_older_bootstrap_keeps_its_facts(built: Path, tmp_path: Path) -> None:
    """What another lambdeno has built is told as it was, and not at all where the manifest does not know."""
    folder = shutil.copytree(built, tmp_path / "older")
    rows = json.loads((folder / "dist/manifest.json").read_text())
    rows["runtime-layer"] |= {"python": "3.13.4", "python_patches": []}
    cpython = components(sbom.document("f", rows))["cpython"]
    assert (cpython["version"], cpython["pedigree"]["patches"]) == ("3.13.4", [])
    del rows["runtime-layer"]["python_patches"]
    assert "cpython" not in components(sbom.document("f", rows))
