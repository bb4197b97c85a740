"""Interleaved rounds of lambdeno in both shapes and a fetch loop in the same Deno: medians and ratios.

    python bench/run.py [--rounds 20] [--invocations 2000] [--json FILE] [--python PATH]

Runs itself inside bubblewrap, so that /opt and /var/task are what they are on Lambda: the code
caches hold for these paths alone. The sandbox starts once, outside of what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from runtime_api import Figures, drive

from lambdeno import build, project

HERE = Path(__file__).parent
INSIDE = "LAMBDENO_BENCH_WORK"
TMP = "tmp"  # below the work folder
FLAGS = ["run", "--quiet", "--no-prompt", "--no-check", "--cached-only", "--no-config", "--no-lock", "-A"]
AGAINST = {
    "lambdeno": ("fetch loop", "lambdeno, managed"),
    "lambdeno, managed": ("fetch loop",),
    "lambdeno, large": ("lambdeno, large, no cache",),
}
LAMBDA = {"_HANDLER": "function.handler", "LAMBDA_TASK_ROOT": "/var/task", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class Peer:
    """How one contestant is started: its function, and the shape of its start."""

    name: str
    task: str  # folder of the function, laid out as /var/task
    layer: str  # folder of the layers, laid out as /opt
    command: Sequence[str]
    environment: Mapping[str, str]
    warm: bool = False  # whether it takes part in the warm rounds


def main() -> None:
    """Build outside, measure inside the sandbox."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--invocations", type=int, default=2000)
    options.add_argument("--json", type=Path)
    options.add_argument("--python", type=Path, default=Path(sys.executable), help="runs the managed shape")
    chosen = options.parse_args()
    with sandbox() as work:
        peers = list(contestants(work, str(chosen.python.resolve())))
        measure(work, peers, chosen.rounds, chosen.invocations, chosen.json)


@contextlib.contextmanager
def sandbox() -> Iterator[Path]:
    """The work folder, in a process that has /opt and /var/task: this program, started again there."""
    if INSIDE in os.environ:
        yield Path(os.environ[INSIDE])
        return
    with tempfile.TemporaryDirectory(prefix="lambdeno-bench-") as name:
        prepare(Path(name))
        mounts = ["--dev-bind", "/", "/", "--tmpfs", "/var", "--dir", "/var/task"]
        mounts += ["--bind", f"{name}/opt", "/opt", "--bind", f"{name}/var-task", "/var/task"]
        environment = {**os.environ, INSIDE: name}
        command = ["bwrap", "--die-with-parent", *mounts, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


def prepare(work: Path) -> None:
    """Build two functions and the layers of both shapes; unpack them with and without their code caches."""
    (work / "opt").mkdir()
    (work / "var-task").mkdir()
    for name in ("hello", "large"):
        source = work / f"{name}-source"
        shutil.copytree(HERE / "functions" / name, source)
        made = build.build(project.load(source))
        for artefact in made:
            target = work / (name if artefact.kind == "function" else "layers")
            shutil.unpack_archive(artefact.zip.path, target)
    managed = build.build_runtime_layer(msgspec.structs.replace(project.load(source), shape="managed"))
    shutil.unpack_archive(managed.zip.path, work / "managed")
    shutil.copytree(work / "layers/bin", work / "managed/bin", copy_function=os.link)
    for path in (*work.glob("*/bootstrap"), work / "layers/bin/deno"):
        path.chmod(0o755)  # shutil.unpack_archive leaves modes out
    for name, cache in (("layers", "lambdeno/deno_dir"), ("hello", ".deno_dir"), ("large", ".deno_dir")):
        shutil.copytree(work / name, work / f"{name}-plain")
        shutil.rmtree(work / f"{name}-plain" / cache)
    prepared = work / "deno_dir"  # the peer starts with databases that exist: its best case
    subprocess.run([work / "layers/bin/deno", "eval", "0"], env={"DENO_DIR": str(prepared)}, check=True)


def contestants(work: Path, python: str) -> Iterator[Peer]:
    """Everyone, in the order of a round; ``python`` is of the minor version that built the layer."""
    ours = ["/opt/bootstrap"]
    managed = ["/opt/bootstrap", python, "/var/runtime/bootstrap.py"]
    peer = ["/opt/bin/deno", *FLAGS, str(HERE / "peers/fetch_loop.js")]
    theirs = {**LAMBDA, "DENO_DIR": str(work / "deno_dir"), "NO_COLOR": "1", "HOME": "/tmp"}
    yield Peer(
        "fetch loop", "hello-plain", "layers", peer, {**theirs, "DENO_NO_UPDATE_CHECK": "1"}, warm=True
    )
    own = {**LAMBDA, "TMPDIR": str(work / TMP)}
    yield Peer("lambdeno", "hello", "layers", ours, own, warm=True)
    yield Peer("lambdeno, managed", "hello", "managed", managed, own, warm=True)
    yield Peer("lambdeno, large", "large", "layers", ours, own)
    yield Peer("lambdeno, large, no cache", "large-plain", "layers-plain", ours, own)


def measure(work: Path, peers: list[Peer], rounds: int, invocations: int, target: Path | None) -> None:
    """Run the rounds and print the table."""
    cold: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
    warm: dict[str, list[Figures]] = {peer.name: [] for peer in peers if peer.warm}
    load = os.getloadavg()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for peer in peers:
            install(work / peer.task, work / "var-task")  # which is /var/task
            install(work / peer.layer, work / "opt")
            empty(work / TMP)
            cold[peer.name].append(drive(peer.command, peer.environment))
            if peer.warm:
                empty(work / TMP)
                warm[peer.name].append(drive(peer.command, peer.environment, invocations))
    print(table(cold, warm, rounds, load))
    if target:
        record = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {
                "cores": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "load": load,
            },
            "cold": {name: [asdict(row) for row in rows] for name, rows in cold.items()},
            "warm": {name: [asdict(row) for row in rows] for name, rows in warm.items()},
        }
        target.write_text(json.dumps(record, indent=1) + "\n")


def install(source: Path, target: Path) -> None:
    """Make a folder hold just what another one holds, by links to the same files."""
    empty(target)
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)


def empty(folder: Path) -> None:
    """Make a folder that has nothing in it; a new execution environment's /tmp is one."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def table(
    cold: Mapping[str, list[Figures]], warm: Mapping[str, list[Figures]], rounds: int, load: tuple[float, ...]
) -> str:
    """A Markdown table: medians (minimum to maximum), and ratios."""

    def median(rows: list[Figures], field: str) -> float:
        return statistics.median(getattr(row, field) for row in rows)

    def cell(rows: list[Figures], field: str) -> str:
        values = [getattr(row, field) for row in rows]
        return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    lines = [
        f"{rounds} interleaved rounds, load {load[0]:.2f} at the start, Python {platform.python_version()}",
        "",
        "| exec to first /next, ms | median (min to max) | ratio |",
        "|---|---|---|",
    ]

    def ratios(rows: Mapping[str, list[Figures]], name: str, field: str) -> str:
        """Against whom a peer is held, and how it stands."""
        against = AGAINST.get(name, ())
        return ", ".join(
            f"{median(rows[name], field) / median(rows[base], field):.2f} of {base}" for base in against
        )

    for name, rows in cold.items():
        lines.append(f"| {name} | {cell(rows, 'first_next')} | {ratios(cold, name, 'first_next')} |")
    units = {
        "p50": "p50, µs",
        "p99": "p99, µs",
        "cycle": "cycle, µs",
        "cpu": "CPU of the tree, µs",
        "pss": "PSS of the tree, MB",
        "own_pss": "PSS of the first process, MB",
    }
    for field, unit in units.items():
        lines += ["", f"| {unit} | median (min to max) | ratio |", "|---|---|---|"]
        for name, rows in warm.items():
            lines.append(f"| {name} | {cell(rows, field)} | {ratios(warm, name, field)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
