"""The stage: functions and layers built once, and a sandbox that has them at Lambda's own paths.

The code caches hold for /opt and /var/task alone, so the bench starts itself again inside bubblewrap, once,
outside of what is timed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from peers import TMP, Peer

from lambdeno import build, project

__all__ = ["evict", "prepared", "stand"]

HERE = Path(__file__).parent
INSIDE = "LAMBDENO_BENCH_WORK"
FUNCTIONS = ("hello", "large", "streaming")


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """The work folder, in a process that has /opt and /var/task: this program, started again there."""
    if INSIDE in os.environ:
        yield Path(os.environ[INSIDE])
        return
    with tempfile.TemporaryDirectory(prefix="lambdeno-bench-") as name:
        _build(Path(name))
        mounts = ["--dev-bind", "/", "/", "--tmpfs", "/var", "--dir", "/var/task"]
        mounts += ["--bind", f"{name}/opt", "/opt", "--bind", f"{name}/var-task", "/var/task"]
        environment = {**os.environ, INSIDE: name}
        command = ["bwrap", "--die-with-parent", *mounts, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def stand(work: Path, peer: Peer) -> None:
    """Put a peer's layers into /opt and its function into /var/task, and empty its /tmp."""
    _install(work / peer.task, work / "var-task")  # which is /var/task
    _install(work / peer.layer, work / "opt")
    _empty(work / TMP)
    # A new environment's: what Deno has compiled in another one is not there.
    _empty(work / "deno_dir")
    shutil.copytree(work / "deno_dir-new", work / "deno_dir", dirs_exist_ok=True)


def evict(work: Path, peer: Peer) -> None:
    """Have the kernel forget a peer's layers, function and program, as if this machine never ran them."""
    files = [path for folder in ("opt", "var-task") for path in (work / folder).rglob("*")]
    files += [Path(word) for word in peer.command if word.startswith("/")]
    os.sync()
    for path in files:
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _build(work: Path) -> None:
    """Build the functions and the layers of both shapes; unpack them with and without their code caches."""
    (work / "opt").mkdir()
    (work / "var-task").mkdir()
    for name in FUNCTIONS:
        source = work / f"{name}-source"
        shutil.copytree(HERE / "functions" / name, source)
        for artefact in build.build(project.load(source)):
            target = work / (name if artefact.kind == "function" else "layers")
            shutil.unpack_archive(artefact.zip.path, target)
    unbundled = msgspec.structs.replace(
        project.load(work / "large-source"), name="unbundled", handler="src/main.handler"
    )
    unbundled = msgspec.structs.replace(
        unbundled, build=msgspec.structs.replace(unbundled.build, bundle=False)
    )
    shutil.unpack_archive(build.build_function(unbundled).zip.path, work / "unbundled")
    managed = build.build_runtime_layer(msgspec.structs.replace(project.load(source), shape="managed"))
    shutil.unpack_archive(managed.zip.path, work / "managed")
    shutil.copytree(work / "layers/bin", work / "managed/bin", copy_function=os.link)
    for path in (*work.glob("*/bootstrap"), work / "layers/bin/deno"):
        path.chmod(0o755)  # shutil.unpack_archive leaves modes out
    plain = [("layers", "lambdeno/deno_dir"), *((name, ".deno_dir") for name in FUNCTIONS)]
    for name, cache in plain:
        shutil.copytree(work / name, work / f"{name}-plain")
        shutil.rmtree(work / f"{name}-plain" / cache)
    for name, source_name in (("node", "function.cjs"), ("node-streaming", "streaming.cjs")):
        (work / name).mkdir()
        shutil.copy(HERE / "peers" / source_name, work / name / "function.cjs")
    databases = work / "deno_dir-new"  # the peers start with databases that exist: their best case
    subprocess.run([work / "layers/bin/deno", "eval", "0"], env={"DENO_DIR": str(databases)}, check=True)
    time.sleep(0.1)


def _install(source: Path, target: Path) -> None:
    """Make a folder hold just what another one holds, by links to the same files."""
    _empty(target)
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)


def _empty(folder: Path) -> None:
    """Make a folder that has nothing in it; a new execution environment's /tmp is one."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
