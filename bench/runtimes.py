"""Interleaved rounds of runtime1, runtime2, and runtime2 without standby (naive: a process for each).

python bench/runtimes.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from run import LAMBDA, TMP, empty, install, sandbox
from runtime_api import Figures, drive

PAUSED, PAUSE = 15, 0.1  # events, seconds before each
BUSY = {"runtime1": 1000, "runtime2": 100, "naive": 100}  # events back to back
SETTINGS = {
    "runtime1": {},
    "runtime2": {"LAMBDENO_RUNTIME": "runtime2"},
    "naive": {"LAMBDENO_RUNTIME": "runtime2", "LAMBDENO_STANDBY": "off"},
}


def main() -> None:
    """Run the rounds and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args().rounds
    with sandbox() as work:
        install(work / "hello", work / "var-task")
        install(work / "layers", work / "opt")
        load = os.getloadavg()[0]
        paused: dict[str, list[Figures]] = {name: [] for name in SETTINGS}
        busy: dict[str, list[Figures]] = {name: [] for name in SETTINGS}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for name, settings in SETTINGS.items():
                environment = {**LAMBDA, **settings, "TMPDIR": str(work / TMP)}
                empty(work / TMP)
                paused[name].append(drive(["/opt/bootstrap"], environment, PAUSED, pause=PAUSE))
                empty(work / TMP)
                busy[name].append(drive(["/opt/bootstrap"], environment, BUSY[name]))
        print(f"{rounds} interleaved rounds, load {load:.2f} at the start\n")
        print("| | runtime1 | runtime2 | naive | runtime2 of runtime1 | runtime2 of naive |")
        print("|---|---|---|---|---|---|")
        row("exec to first /next, ms", paused, "first_next", 1)
        row(f"answer after {PAUSE} s frozen, ms", paused, "p50", 1000)
        row(f"whole cycle after {PAUSE} s frozen, ms", paused, "cycle", 1000)
        row("answer, back to back, ms", busy, "p50", 1000)
        row("whole cycle, back to back, ms", busy, "cycle", 1000)
        row("PSS of the tree, waiting, MB", paused, "pss", 1)


def row(title: str, figures: dict[str, list[Figures]], field: str, unit: float) -> None:
    """One line: medians and what they are of each other."""
    medians = {
        name: statistics.median(getattr(each, field) for each in rows) / unit
        for name, rows in figures.items()
    }
    cells = " | ".join(f"{value:.2f}" for value in medians.values())
    one, two, naive = medians.values()
    print(f"| {title} | {cells} | {two / one:.2f} | {two / naive:.2f} |")


if __name__ == "__main__":
    main()
