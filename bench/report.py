"""The record of a run as JSON, as Markdown, and as plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TARGETS", "table", "write"]

Rows = Mapping[str, Sequence[Mapping[str, float]]]
UNITS = {
    "first_next": "exec to first /next, ms",
    "first": "first invocation, ms",
    "p50": "p50, µs",
    "p99": "p99, µs",
    "first_byte": "first byte, µs",
    "cycle": "cycle, µs",
    "rate": "per second",
    "cpu": "CPU, µs",
    "own_cpu": "CPU of the first process, µs",
    "idle_pss": "PSS before, MB",
    "pss": "PSS after, MB",
    "own_pss": "PSS of the first process, MB",
}
BASE = "fetch loop"


@dataclass(frozen=True)
class Target:
    """A ratio of medians, and what it may be at most (``is_least``: at least)."""

    figure: str
    scenario: str
    field: str
    ours: str
    peer: str  # its name, or several, of which the best counts
    bound: float
    is_least: bool = False


JAVASCRIPT = "fetch loop|Node client|design in Go|Web Adapter"
TARGETS = (
    Target("exec → first /next, hello", "start, hello", "first_next", "runtime1", "fetch loop", 1.1),
    Target("exec → first /next, hello", "start, hello", "first_next", "runtime1", "Node client", 0.35),
    Target(
        "exec → first /next, 1.1 MB bundle",
        "start, large bundle",
        "first_next",
        "runtime1",
        "fetch loop",
        0.45,
    ),
    Target(
        "exec → first /next, page cache evicted",
        "start, hello, evicted",
        "first_next",
        "runtime1",
        "fetch loop",
        1.05,
    ),
    Target("warm p50, 100 B", "warm, 100 B", "p50", "runtime1", "fetch loop", 0.7),
    Target("warm p50, 100 B", "warm, 100 B", "p50", "runtime1", "Node client", 0.7),
    Target("warm p50, 100 B", "warm, 100 B", "p50", "runtime1", "design in Go", 0.8),
    Target("warm p99, 100 B", "warm, 100 B", "p99", "runtime1", JAVASCRIPT, 1.0),
    Target("p50 with 50 ms between events", "warm, 50 ms apart", "p50", "runtime1", "fetch loop", 0.9),
    Target("CPU per invocation", "warm, 100 B", "cpu", "runtime1", "fetch loop", 0.5),
    Target("CPU per invocation", "warm, 100 B", "cpu", "runtime1", "Node client", 0.55),
    Target("cycle: what is billed, 100 B", "warm, 100 B", "cycle", "runtime1", "fetch loop", 0.5),
    Target("warm p50, 5.9 MB in", "warm, 5.9 MB in", "p50", "runtime1", "fetch loop", 0.85),
    Target("warm p50, 5.9 MB out", "warm, 5.9 MB out", "p50", "runtime1", "fetch loop", 0.85),
    Target("PSS before the first event", "warm, 100 B", "idle_pss", "runtime1", "fetch loop", 0.7),
    Target("PSS after 2,400 events", "warm, 100 B", "pss", "runtime1", "fetch loop", 0.7),
    Target("runtime2, 100 ms apart", "process per invocation, 100 ms apart", "p50", "runtime2", "naive", 0.1),
    Target(
        "local Lambda, one client",
        "local Lambda",
        "rate",
        "ours, 1 at once",
        "AWS's emulator, 1",
        2.0,
        is_least=True,
    ),
)


def write(record: dict[str, Any], folder: Path) -> None:
    """The three forms of a record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "README.md").write_text(markdown(record))
    _plots(record["scenarios"], folder)


def markdown(record: Mapping[str, Any]) -> str:
    """All tables of a record."""
    scenarios = record["scenarios"]
    of = record["machine"]
    load, at_end = of["load"][0], of.get("load at the end", of["load"])[0]
    busy = ", beside a program that computes all the time (`--busy`)" if of.get("busy") else ""
    lines = [
        "# Figures",
        "",
        f"Made by `make bench` on {of['date'][:10]}{busy}: {of['cores']} cores ({of['processor']}),"
        f" Linux {of['kernel']}, load {load:.2f} at the start and {at_end:.2f} at the end."
        " Medians of interleaved rounds (minimum to maximum);"
        " in bold the ratio to the fetch loop in the same Deno. Peers run on what their package"
        " clients bring; the same record as data is [figures.json](figures.json).",
        "",
        "![Start and warm invocations against the peers](plot.png)",
        "",
        "## Against the targets",
        "",
        *target_rows(scenarios),
    ]
    lines += ["", *(f"Without {name}: {why}." for name, why in record["skipped"].items())]
    lines += [table(name, rows) for name, rows in scenarios.items()]
    if "facts" in record:
        lines += ["", "## Sizes in bytes, builds", "", "| what | |", "|---|---|"]
        lines += [
            f"| {what} | {value if isinstance(value, str) else f'{value:,.0f}'} |"
            for what, value in record["facts"].items()
        ]
    return "\n".join(lines) + "\n"


def target_rows(scenarios: Mapping[str, Rows]) -> list[str]:
    """The targets that this record can say something of."""
    lines = ["| figure | against | bound | found |", "|---|---|---|---|"]
    for target in TARGETS:
        ratio = reached(target, scenarios)
        if ratio is None:
            continue
        bound = f"at least {target.bound:g}" if target.is_least else f"{target.bound:g}"
        holds = ratio >= target.bound if target.is_least else ratio <= target.bound
        peer = "best of those that run JavaScript" if "|" in target.peer else target.peer
        lines.append(f"| {target.figure} | {peer} | {bound} | {ratio:.2f}{'' if holds else ' (missed)'} |")
    return lines


def reached(target: Target, scenarios: Mapping[str, Rows]) -> float | None:
    """The ratio; None where one of the two was not measured."""
    rows = scenarios.get(target.scenario, {})
    against = [_median(rows[peer], target.field) for peer in target.peer.split("|") if rows.get(peer)]
    if target.ours not in rows or not against:
        return None
    return _median(rows[target.ours], target.field) / min(against)


def table(name: str, rows: Rows) -> str:
    """One scenario: each peer's medians, and ratios to the fetch loop where it takes part."""
    columns = [field for field in UNITS if any(row[field] for peer in rows.values() for row in peer)]
    lines = [
        f"\n## {name[:1].upper()}{name[1:]}",
        "",
        "| | " + " | ".join(UNITS[field] for field in columns) + " |",
    ]
    lines.append("|---" * (len(columns) + 1) + "|")
    base = rows.get(BASE)
    for peer, figures in rows.items():
        cells = []
        for column in columns:
            values = [row[column] for row in figures]
            cell = f"{statistics.median(values):.4g} ({min(values):.3g} to {max(values):.3g})"
            if base and peer != BASE and (against := _median(base, column)):
                cell += f" **{statistics.median(values) / against:.2f}**"
            cells.append(cell)
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(rows: Sequence[Mapping[str, float]], field: str) -> float:
    return statistics.median(row[field] for row in rows)


PANELS = (
    ("start, hello", "first_next", "exec to first /next, ms"),
    ("warm, 100 B", "p50", "warm p50, µs"),
    ("warm, 100 B", "cycle", "event to next /next, µs"),
    ("warm, 100 B", "cpu", "CPU an invocation, µs"),
)


def _plots(scenarios: Mapping[str, Rows], folder: Path) -> None:
    """Four panels of bars: medians, with minimum and maximum."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, which only a whole run needs

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = [panel for panel in PANELS if panel[0] in scenarios]
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4), squeeze=False)
    for axis, (scenario, field, title) in zip(axes[0], panels, strict=True):
        rows = scenarios[scenario]
        names = [name for name in rows if _median(rows[name], field) and name != "raw loop"][::-1]
        medians = [_median(rows[name], field) for name in names]
        lows = [
            middle - min(row[field] for row in rows[name])
            for name, middle in zip(names, medians, strict=True)
        ]
        highs = [
            max(row[field] for row in rows[name]) - middle
            for name, middle in zip(names, medians, strict=True)
        ]
        colours = ["#2f6f4f" if name.startswith(("runtime", "over")) else "#a7b4bd" for name in names]
        axis.barh(names, medians, xerr=[lows, highs], color=colours, error_kw={"lw": 0.8, "ecolor": "#555"})
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.set_xlim(0, max(medians) * 1.3)
    figure.tight_layout()
    for form in ("png", "svg"):
        figure.savefig(folder / f"plot.{form}", dpi=110, metadata={"Date": None} if form == "svg" else None)
    plt.close(figure)
