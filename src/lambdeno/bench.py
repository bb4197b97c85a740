"""``bench``: how long the function takes, cold and warm, and where its start goes.

    function.zip ──► execution environments of the local Lambda, one after the other ──► REPORT lines
              └────► a copy that notes when it is loaded ──► the parts of a start

The whole is measured on the artefacts that would be deployed; its parts on a copy of the function that has
a line more at either end, and a code cache of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lambdeno import build, codecache, dev
from lambdeno.cache import cache_folder
from lambdeno.emulator import Bubblewrap, Function, ListSink, local_lambda
from lambdeno.emulator.artifacts import unpack
from lambdeno.errors import FunctionError
from lambdeno.project import Project
from lambdeno.scratch import Scratch

__all__ = ["Figures", "Part", "bench"]

CACHE = ".deno_dir"
INNER = "inner.bundle.js"
MARK = "lambdeno-bench"
REPORT = re.compile(
    r"REPORT .*?\tDuration: ([\d.]+) ms\t.*?Max Memory Used: (\d+) MB\t(?:Init Duration: ([\d.]+) ms)?"
)
NOTE = re.compile(r"lambdeno: ([\d.]+) ms \(\+[\d.]+\): (has started Deno:|asks for the next event)")
TIMES = re.compile(MARK + r" (\[.*\])")
PARTS = ("sandbox and interpreter", "Deno and the bridge", "bundle load", "init code")
# What stands in the function's place, and the function's first statement and last one.
WRAPPER = """\
const now = () => performance.timeOrigin + performance.now();
const times = globalThis.lambdenoBench = [now()];
const inner = await import("./" + "%s");
console.log("%s " + JSON.stringify(times));
delete globalThis.lambdenoBench;
export const shutdown = inner.shutdown;
%s
"""
STATEMENT = "globalThis.lambdenoBench?.push(performance.timeOrigin + performance.now());"


@dataclass(frozen=True)
class Part:
    """A stretch of the start, in ms: the median of the rounds."""

    name: str
    milliseconds: float


@dataclass(frozen=True)
class Figures:
    """What was measured: milliseconds, one number for each round or invocation; MB; bytes."""

    name: str
    runtime: str
    sandbox: str
    load: float  # of the machine, when it began
    start: list[float] = field(default_factory=list)  # exec to the first /next
    first: list[float] = field(default_factory=list)  # the first invocation of an environment
    warm: list[float] = field(default_factory=list)  # the others
    memory: int = 0  # the most that an environment has used
    function_size: int = 0  # of function.zip
    parts: list[Part] = field(default_factory=list)  # of a start; empty where they cannot be told


def bench(
    project: Project,
    event: bytes,
    rounds: int,
    invocations: int,
    sandbox: str = "auto",
    *,
    watcher: build.Watcher = build.Watcher(),
) -> Figures:
    """Measure a function; what is missing in dist/, or old, is built first.

    Raises FunctionError where it answers with an error, other LambdenoErrors where it cannot be run.
    """
    function = replace(dev.local_function(project, watcher), log_format="Text")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    reports: list[list[tuple[float, int, float]]] = []
    chosen = ""
    with Scratch() as folder:
        marked = marked_copy(function, project, folder / "task")
        starts: list[list[float]] = []
        for number in range(rounds):
            watcher.step(f"Round {number + 1} of {rounds}")
            lines, chosen = _run(function, event, invocations, sandbox)
            reports.append(_reports(lines))
            if marked:
                lines, _ = _run(marked, event, 0, sandbox)
                starts += filter(None, [parts_of(lines)])
    return Figures(
        name=project.name,
        runtime=project.runtime,
        sandbox=chosen,
        load=load,
        start=[rows[0][2] for rows in reports],
        first=[rows[0][0] for rows in reports],
        warm=[duration for rows in reports for duration, _, _ in rows[1:]],
        memory=max(used for rows in reports for _, used, _ in rows),
        function_size=function.code.stat().st_size,
        parts=_medians(starts),
    )


def _run(function: Function, event: bytes, invocations: int, sandbox: str) -> tuple[list[str], str]:
    """The log of one execution environment, and the kind of its sandbox. Raises FunctionError."""
    sink = ListSink()
    with local_lambda(function, log=sink, sandbox=sandbox) as local:
        for _ in range(invocations + 1):
            result = local.invoke(function.name, event)
            if result.function_error:
                said = result.payload.decode("utf-8", "replace")
                raise FunctionError(
                    f"The function answers with an error ({result.function_error}), and was not measured",
                    "give the event that it takes as --event, or see its log with lambdeno invoke",
                    detail=said,
                )
        return sink.lines, "bubblewrap" if isinstance(local.sandbox, Bubblewrap) else "paths"


def _reports(lines: Sequence[str]) -> list[tuple[float, int, float]]:
    """Of each invocation: its duration in ms, the memory in MB, and the init's duration in ms or 0."""
    found = (REPORT.search(line) for line in lines)
    return [(float(match[1]), int(match[2]), float(match[3] or 0)) for match in found if match]


def marked_copy(function: Function, project: Project, folder: Path) -> Function | None:
    """The same function, which notes when it is loaded; with a code cache where the first one has it.

    None where that cannot be had: for a function without a bundle, or a code cache that is not of here.
    """
    if not project.build.bundle:
        return None
    shutil.copytree(unpack(function.code, cache_folder() / "unpacked"), folder)
    folder.chmod(0o755)
    has_cache = (folder / CACHE).is_dir()
    if has_cache and codecache.obstacle(project.architecture):
        return None
    bundle = folder / build.BUNDLE
    (folder / INNER).write_text(f"{STATEMENT}{bundle.read_text('utf-8')}\n;{STATEMENT}\n", "utf-8")
    name = project.handler.partition(".")[2].partition(".")[0]
    exported = "export default inner.default;"
    if name != "default":
        exported += f"\nexport const {name} = inner.{name};"
    bundle.unlink()
    bundle.write_text(WRAPPER % (INNER, MARK, exported), "utf-8")
    if has_cache:
        shutil.rmtree(folder / CACHE)
        build.fill_code_cache(folder, project)
    return replace(function, code=folder, environment={**function.environment, "LAMBDENO_DEBUG": "1"})


def parts_of(lines: Sequence[str]) -> list[float]:
    """The stretches of one start in ms, in the order of PARTS; empty where the log has not all of them."""
    notes = {match[2]: float(match[1]) for match in reversed(_matches(NOTE, lines))}
    times = _matches(TIMES, lines)
    reports = _reports(lines)
    if len(notes) < 2 or not times or not reports:
        return []
    loading, running, done = json.loads(times[0][1])
    with_deno = notes["asks for the next event"] - notes["has started Deno:"]
    load, code = running - loading, done - running
    return [reports[0][2] - with_deno, with_deno - load - code, load, code]


def _medians(starts: Sequence[Sequence[float]]) -> list[Part]:
    columns = itertools.zip_longest(*starts)
    return [Part(name, statistics.median(column)) for name, column in zip(PARTS, columns, strict=False)]


def _matches(pattern: re.Pattern[str], lines: Sequence[str]) -> list[re.Match[str]]:
    search: Callable[[str], re.Match[str] | None] = pattern.search
    return [match for match in map(search, lines) if match]
