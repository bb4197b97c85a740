"""``doctor``: what is there, what is missing, how to get it."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lambdeno import codecache, deno, interpreter, limits
from lambdeno.archive import megabytes
from lambdeno.build import manifest
from lambdeno.errors import LambdenoError
from lambdeno.project import Project

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``fail`` stands in the way; ``warn`` costs something."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(project: Project | None, port: int) -> list[Finding]:
    """Look at this machine, and at a project where there is one."""
    findings = [_python(), *_programs(project), _bubblewrap(), _port(port)]
    if project:
        findings += _artefacts(project)
    return findings


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", "ok", f"{version} ({sys.executable})")


def _programs(project: Project | None) -> Iterator[Finding]:
    """Deno and bootstrap; or why the cache folder, which they come from, cannot be used."""
    try:
        yield from _deno(project)
        yield _bootstrap(project or Project())
    except LambdenoError as error:
        yield Finding("cache", "fail", error.message, error.hint)


def _deno(project: Project | None) -> Iterator[Finding]:
    version = project.deno.version if project else list(deno.pins())[-1]
    try:
        host = deno.host_platform()
    except LambdenoError as error:
        yield Finding("Deno", "fail", error.message, error.hint)
        return
    binary = deno.cached(version, host, project.deno.sha256 if project else None)
    if not binary:
        yield Finding(
            "Deno",
            "warn",
            f"{version} is not in the cache, or is damaged there",
            "the first build downloads it",
        )
        return
    try:
        said = deno.run(binary, ["--version"], binary.path.parent)
    except LambdenoError as error:
        yield Finding("Deno", "fail", error.message, error.hint)
        return
    if said.returncode:
        yield Finding(
            "Deno",
            "fail",
            f"{binary.path} does not run",
            f"remove {binary.path.parent} and build again",
        )
    else:
        yield Finding("Deno", "ok", f"{version} ({binary.path})")


def _bootstrap(project: Project) -> Finding:
    """The binary that runs on Lambda where there is no Python."""
    if project.shape == "managed":
        return Finding("bootstrap", "ok", f"shape managed: Lambda's python3.{sys.version_info.minor} runs it")
    version = f"CPython {interpreter.pins()['cpython']['version']} for {project.architecture}"
    found = interpreter.whereabouts(project.architecture)
    if found:
        return Finding("bootstrap", "ok", f"shape os-only: {version} ({found})")
    remedy = "the first build makes it, in 1 to 4 minutes"
    return Finding("bootstrap", "warn", f"shape os-only: {version} is not built yet", remedy)


def _bubblewrap() -> Finding:
    machine = "arm64" if platform.machine().lower() in ("aarch64", "arm64") else "x86_64"
    why_not = codecache.obstacle(machine)
    if why_not:
        return Finding(
            "bubblewrap",
            "warn",
            f"not usable: {why_not}",
            "on Linux: apt-get install bubblewrap; without it the local Lambda isolates less"
            " and no code cache is made",
        )
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False)
    return Finding("bubblewrap", "ok", f"{said.stdout.strip()} ({shutil.which('bwrap')})")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding("port", "warn", f"{port} is in use", "lambdeno dev --port takes another")
    return Finding("port", "ok", f"{port} is free")


def _artefacts(project: Project) -> Iterator[Finding]:
    rows = manifest(project)
    for kind in ("deno-layer", "runtime-layer", "function"):
        row = rows.get(kind)
        if not row or not (project.dist / row["file"]).is_file():
            yield Finding(kind, "warn", "not built", f"lambdeno build {kind}")
            continue
        size = (project.dist / row["file"]).stat().st_size
        cache = "" if row.get("code_cache", True) else ", without code cache"
        found = f"{megabytes(size)} zipped, {megabytes(row['unpacked'])} unpacked{cache}"
        through = f"; over {megabytes(limits.DIRECT)}: deployed through S3" if size > limits.DIRECT else ""
        yield Finding(kind, "ok", found + through)
    unpacked = sum(row["unpacked"] for row in rows.values())
    if unpacked > limits.UNPACKED:
        yield Finding(
            "sizes",
            "fail",
            f"{megabytes(unpacked)} unpacked in all; Lambda takes {megabytes(limits.UNPACKED)}",
            "leave out what the function does not need",
        )
