"""Who takes part: how each is started, and on which layers and function.

All run the same Deno and the same function; the peers get a `deno_dir` with prepared databases, their
best case. Node's and Python's clients run the same function in their own language.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import toolchains

__all__ = ["LAMBDA", "TMP", "Peer", "everyone"]

HERE = Path(__file__).parent
TMP = "tmp"  # below the work folder
FLAGS = ("run", "--quiet", "--no-prompt", "--no-check", "--cached-only", "--no-config", "--no-lock", "-A")
LAMBDA = {
    "_HANDLER": "function.handler",
    "LAMBDA_TASK_ROOT": "/var/task",
    "PATH": "/usr/bin:/bin",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Peer:
    """One contestant on one function."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    task: str = "hello-plain"  # folder of the function, laid out as /var/task
    layer: str = "layers"  # folder of the layers, laid out as /opt


def everyone(work: Path) -> tuple[dict[str, Peer], dict[str, str]]:
    """The contestants by name, in the order of a round, and why others are skipped."""
    found: dict[str, Peer] = {}
    skipped: dict[str, str] = {}
    for name, make in _makers(work):
        try:
            found[name] = make()
        except toolchains.Missing as why:
            skipped[name] = str(why)
    return found, skipped


def _makers(work: Path) -> Iterator[tuple[str, Callable[[], Peer]]]:
    deno = ["/opt/bin/deno", *FLAGS]
    theirs = {
        **LAMBDA,
        "DENO_DIR": str(work / "deno_dir"),
        "NO_COLOR": "1",
        "HOME": "/tmp",
        "DENO_NO_UPDATE_CHECK": "1",
    }
    own = {**LAMBDA, "TMPDIR": str(work / TMP)}
    python_path = os.pathsep.join(
        [str(HERE / "peers"), *(path for path in sys.path if "site-packages" in path)]
    )

    def program(name: str, *command: str, environment: Mapping[str, str] = theirs) -> Callable[[], Peer]:
        return lambda: Peer(name, command, environment)

    def ours(name: str, task: str = "hello", **settings: str) -> Callable[[], Peer]:
        return lambda: Peer(name, ["/opt/bootstrap"], {**own, **settings}, task)

    def plain() -> Peer:
        return Peer("runtime1, no code cache", ["/opt/bootstrap"], own, "hello-plain", "layers-plain")

    def node() -> Peer:
        return Peer("Node client", [*toolchains.node(), "function.handler"], LAMBDA, "node")

    def python() -> Peer:
        environment = {**LAMBDA, "PYTHONPATH": python_path}
        return Peer("Python client", [*toolchains.python(), "function.handler"], environment)

    def go() -> Peer:
        return Peer("design in Go", [*toolchains.go(), *deno, str(HERE / "peers/serve.js")], theirs)

    def adapter() -> Peer:
        # As on Lambda: an extension beside the function's own process.
        script = '"$0" & exec "$@"'
        command = ["/bin/sh", "-c", script, *toolchains.web_adapter(), *deno, str(HERE / "peers/serve.js")]
        settings = {"PORT": "8377", "AWS_LWA_PORT": "8377", "AWS_LWA_PASS_THROUGH_PATH": "/"}
        return Peer("Web Adapter", command, {**theirs, **settings})

    yield "bare deno run", program("bare deno run", *deno, str(HERE / "peers/bare.js"))
    yield "raw loop", program("raw loop", *_raw(), environment=LAMBDA)
    yield "fetch loop", program("fetch loop", *deno, str(HERE / "peers/fetch_loop.js"))
    yield "runtime1", ours("runtime1")
    yield "Node client", node
    yield "runtime1, no code cache", plain
    yield "over 1769 MB", ours("over 1769 MB", AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1770")
    yield "Python client", python
    yield "design in Go", go
    yield "Web Adapter", adapter
    yield "runtime2", ours("runtime2", LAMBDENO_RUNTIME="runtime2")
    yield "naive", ours("naive", LAMBDENO_RUNTIME="runtime2", LAMBDENO_STANDBY="off")


def _raw() -> list[str]:
    return [os.path.realpath(sys.executable), "-ISE", str(HERE / "peers/raw_loop.py")]
