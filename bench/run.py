"""lambdeno against its peers: interleaved rounds, medians, ratios.

make bench                                   # all of it, into bench/results/: about 12 minutes
.venv/bin/python bench/run.py --only "warm, 100 B" --peers "fetch|runtime1$" --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import local
import report
from peers import Peer, everyone
from runtime_api import Figures, Load, can_share, drive, first_line
from stage import evict, prepared, stand

from lambdeno import build, project

HERE = Path(__file__).parent
KB, MB = 1000, 1_000_000
MEMORIES = (128, 512, 1769)  # MB: Lambda gives a whole processor at 1769


@dataclass(frozen=True)
class Scenario:
    """What is measured of whom, so often."""

    name: str
    rounds: int
    peers: list[Peer]
    run: Callable[[Peer], Figures]


def main() -> None:
    """Build outside, measure inside the sandbox."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--only", default="", help="scenarios: a regular expression")
    options.add_argument("--peers", default="", help="peers: a regular expression")
    options.add_argument("--rounds", type=int, default=0, help="in place of each scenario's own number")
    options.add_argument("--busy", action="store_true", help="beside a program that computes all the time")
    options.add_argument("--into", type=Path, help="a folder for the JSON, the Markdown and the plots")
    chosen = options.parse_args()
    with prepared() as work, other_work(is_wanted=chosen.busy):
        peers, skipped = everyone(work)
        for name, why in skipped.items():
            print(f"bench: without {name}: {why}", file=sys.stderr)
        record: dict[str, Any] = {"machine": machine(), "skipped": skipped, "scenarios": {}}
        record["machine"]["busy"] = chosen.busy
        for scenario in scenarios(work, peers):
            if not re.search(chosen.only, scenario.name):
                continue
            taking = [peer for peer in scenario.peers if re.search(chosen.peers, peer.name)]
            rows = measure(work, scenario.name, taking, chosen.rounds or scenario.rounds, scenario.run)
            record["scenarios"][scenario.name] = rows
            print(report.table(scenario.name, rows))
        if not chosen.only:
            record["facts"] = facts(work)
        record["machine"]["load at the end"] = os.getloadavg()
        if chosen.into:
            report.write(record, chosen.into)


@contextlib.contextmanager
def other_work(*, is_wanted: bool) -> Iterator[None]:
    """A neighbour that takes what it can get of one processor."""
    if not is_wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            time.sleep(1)
            yield
        finally:
            neighbour.kill()


def machine() -> dict[str, object]:
    """What a reader must know to read the figures."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def scenarios(work: Path, peers: dict[str, Peer]) -> Iterator[Scenario]:
    """All that is measured, in order."""

    def some(*names: str) -> list[Peer]:
        return [peers[name] for name in names if name in peers]

    def on(task: str, *names: str) -> list[Peer]:
        return [replace(peer, task=task) for peer in some(*names)]

    def loaded(load: Load, share: float = 0.0) -> Callable[[Peer], Figures]:
        return lambda peer: drive(peer.command, peer.environment, load, share)

    def start(peer: Peer) -> Figures:
        run = first_line if peer.name == "bare deno run" else drive
        return run(peer.command, peer.environment)

    def first_start(peer: Peer) -> Figures:
        evict(work, peer)
        return start(peer)

    starting = [peer for name, peer in peers.items() if name not in ("raw loop", "naive", "over 1769 MB")]
    large = on("large-plain", "fetch loop", "runtime1, no code cache") + on("large", "runtime1")
    unbundled = replace(peers["runtime1"], name="runtime1, unbundled", task="unbundled")
    large.append(replace(unbundled, environment={**unbundled.environment, "_HANDLER": "src/main.handler"}))
    yield Scenario("start, hello", 11, starting, start)
    yield Scenario("start, large bundle", 7, large, start)
    yield Scenario("start, hello, evicted", 7, starting, first_start)
    yield Scenario("start, large bundle, evicted", 5, large, first_start)
    without = ("bare deno run", "runtime2", "naive")
    warm = [peer for name, peer in peers.items() if name not in without]
    yield Scenario("warm, 100 B", 7, warm, loaded(Load(2000)))
    yield Scenario("warm, 50 ms apart", 3, warm, loaded(Load(25, pause=0.05)))
    both = [peer for peer in warm if peer.name not in ("runtime1, no code cache", "over 1769 MB")]
    for name, size, count in (("100 KB", 100 * KB, 200), ("1 MB", MB, 40), ("5.9 MB", 59 * MB // 10, 10)):
        yield Scenario(f"warm, {name} in", 3, both, loaded(Load(count, sent=size)))
        yield Scenario(f"warm, {name} out", 3, both, loaded(Load(count, wanted=size)))
    fresh = some("runtime1", "runtime2", "naive")
    yield Scenario("process per invocation, back to back", 3, fresh, loaded(Load(60)))
    frozen = Load(12, pause=0.1, is_frozen=True)
    yield Scenario("process per invocation, 100 ms apart", 3, fresh, loaded(frozen))
    streaming = on("streaming", "runtime1", "runtime2") + on("node-streaming", "Node client")
    yield Scenario("first byte of a stream", 3, streaming, loaded(Load(12, pause=0.1)))
    if can_share():
        small = some("fetch loop", "runtime1", "Node client", "Python client", "runtime2")
        for memory in MEMORIES:
            yield Scenario(f"at {memory} MB", 3, small, loaded(Load(25), memory / 1769))
    else:
        print("bench: without shares of a processor: no control group may be made", file=sys.stderr)
    yield from of_local_lambda(work)


def of_local_lambda(work: Path) -> Iterator[Scenario]:
    """Ours by so many clients, AWS's by one."""
    stands = {f"ours, {clients} at once": clients for clients in local.CLIENTS}
    try:
        local.aws_emulator()
        stands["AWS's emulator, 1"] = 0
    except RuntimeError as why:
        print(f"bench: without AWS's emulator: {why}", file=sys.stderr)

    def run(peer: Peer) -> Figures:
        clients = stands[peer.name]
        return local.throughput_of_ours(clients) if clients else local.throughput_of_aws(work)

    yield Scenario("local Lambda", 3, [Peer(name, [], {}, "hello") for name in stands], run)


def measure(
    work: Path, name: str, peers: list[Peer], rounds: int, run: Callable[[Peer], Figures]
) -> dict[str, list[dict[str, float]]]:
    """The rounds: everyone once, then everyone again."""
    rows: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        print(f"bench: {name}: round {number + 1} of {rounds}", file=sys.stderr)
        for peer in peers:
            stand(work, peer)
            rows[peer.name].append(asdict(run(peer)))
    return rows


def facts(work: Path) -> dict[str, float | str]:
    """Sizes in bytes, times of builds in ms, instructions of the bootstrap where they can be counted."""
    found: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "large"
        shutil.copytree(HERE / "functions/large", source)
        loaded = project.load(source)
        began = time.perf_counter()
        made = build.build_function(loaded)
        found["build of the large function, ms"] = (time.perf_counter() - began) * 1000
        build.build(loaded)
        began = time.perf_counter()
        build.up_to_date(loaded)
        found["build without a change, ms"] = (time.perf_counter() - began) * 1000
        found["function.zip of the large function"] = made.zip.path.stat().st_size
        for path in sorted((source / "dist").glob("*layer*.zip")):
            found[path.name] = path.stat().st_size
    found["function.bundle.js of the large function"] = (work / "large/function.bundle.js").stat().st_size
    found["bootstrap"] = (work / "layers/bootstrap").stat().st_size
    found["instructions of the bootstrap until it starts Deno"] = instructions(work)
    return found


def instructions(work: Path) -> float | str:
    """What the bootstrap executes to find that there is no Deno: all of its own start."""
    bootstrap = work / "alone/bootstrap"
    bootstrap.parent.mkdir(exist_ok=True)
    shutil.copy(work / "layers/bootstrap", bootstrap)
    shutil.copytree(work / "layers/lambdeno", bootstrap.parent / "lambdeno", dirs_exist_ok=True)
    command = ["perf", "stat", "-x,", "-e", "instructions:u", str(bootstrap)]
    environment = {
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
        "LAMBDA_TASK_ROOT": "/nowhere",
        "PATH": "/nowhere",
    }
    try:
        done = subprocess.run(
            command,
            env={**environment, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "perf is not installed"
    count = done.stderr.strip().splitlines()[-1].partition(",")[0]
    return float(count) if count.isdigit() else "this machine counts none"


if __name__ == "__main__":
    main()
