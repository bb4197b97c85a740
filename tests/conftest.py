"""A made-up release of Deno that pip takes from a folder: what needs a Deno, without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Protocol

import pytest

from lambdeno import deno

VERSION, TARGET = "99.0.0", "linux-x86_64"
PROGRAM = b"#!/bin/sh\necho made up\n"
SCRIPT = f"deno-{VERSION}.data/scripts/deno"
INFO = f"deno-{VERSION}.dist-info"
RECORDED = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(PROGRAM).digest()).rstrip(b"=").decode()
RECORD = f"{SCRIPT},{RECORDED},{len(PROGRAM)}\n{INFO}/RECORD,,\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAMBDENO_CACHE", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one place that pip looks for wheels: an empty folder."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class Put(Protocol):
    """Puts a wheel of the made-up release into the index; gives the wheel's sha256."""

    def __call__(
        self,
        record: str | bytes | None = RECORD,
        program: bytes | None = PROGRAM,
        script: str = SCRIPT,
        target: str = TARGET,
    ) -> str:
        """The wheel's RECORD, the binary, its name, its platform."""


@pytest.fixture
def put(index: Path) -> Put:
    """See Put."""

    def wheel(
        record: str | bytes | None = RECORD,
        program: bytes | None = PROGRAM,
        script: str = SCRIPT,
        target: str = TARGET,
    ) -> str:
        tag = f"py3-none-{deno.TAGS[target]}"
        path = index / f"deno-{VERSION}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr(f"{INFO}/METADATA", f"Metadata-Version: 2.1\nName: deno\nVersion: {VERSION}\n")
            zipped.writestr(f"{INFO}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
            if program is not None:
                zipped.writestr(script, program)
            if record is not None:
                zipped.writestr(f"{INFO}/RECORD", record)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return wheel
