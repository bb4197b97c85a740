"""What the peers are made of, each brought or built by its own package client, once, in the user's cache.

Each function returns a command; ``Missing`` says why a peer is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lambdeno.cache import cache_folder

__all__ = ["Missing", "go", "node", "python", "web_adapter"]

HERE = Path(__file__).parent
WEB_ADAPTER = "0.9.1"
AUTOTOOLS = ("autoconf", "automake", "libtool", "cmake", "make", "g++")  # AWS's Node client builds libcurl
PATIENCE = 600  # s for any of them


class Missing(Exception):
    """A peer cannot be had on this machine."""


def node() -> list[str]:
    """AWS's client on Node: the interpreter and the client's program."""
    interpreter, npm = _found("node"), _found("npm")
    folder = _folder("node")
    program = folder / "node_modules/aws-lambda-ric/bin/index.mjs"
    if not (folder / ".ready").exists():
        if not shutil.which("autoreconf") and os.geteuid() == 0 and shutil.which("apt-get"):
            _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *AUTOTOOLS])
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "peers/node" / name, folder)
        _run([npm, "ci", "--no-audit", "--no-fund"], folder)
        (folder / ".ready").touch()
    return [interpreter, str(program)]


def python() -> list[str]:
    """AWS's client for Python, which stands in the bench's own requirements."""
    return [os.path.realpath(sys.executable), "-m", "awslambdaric"]


def go() -> list[str]:
    """The original design, rebuilt."""
    compiler = _found("go")
    program = _folder("go") / "bootstrap"
    source = HERE / "peers/go"
    if not program.exists() or program.stat().st_mtime < (source / "main.go").stat().st_mtime:
        command = [compiler, "build", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w"]
        _run([*command, "-o", str(program), "."], source, {"CGO_ENABLED": "0"})
    return [str(program)]


def web_adapter() -> list[str]:
    """AWS's Lambda Web Adapter."""
    folder = _folder(f"web-adapter-{WEB_ADAPTER}")
    program = folder / "bin/lambda-adapter"
    if not program.exists():
        command = [_found("cargo"), "install", "lambda_web_adapter", "--version", WEB_ADAPTER, "--locked"]
        _run([*command, "--root", str(folder)])
    return [str(program)]


def _folder(name: str) -> Path:
    folder = cache_folder() / "bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed")
    return os.path.realpath(path) if name == "node" else path


def _run(command: Sequence[str], folder: Path | None = None, more: Mapping[str, str] | None = None) -> None:
    print(f"bench: {' '.join(Path(word).name for word in command[:3])} …", file=sys.stderr)
    try:
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(more or {})},
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
        )
    except subprocess.CalledProcessError as error:
        last = error.stdout.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Missing(f"{Path(command[0]).name} failed: {' '.join(last)}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{Path(command[0]).name} took longer than {PATIENCE} s") from None
