"""``bench``: the figures of a real function, and where its start goes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lambdeno import bench as verb
from lambdeno import benchview, codecache
from lambdeno.bench import Figures, Part
from lambdeno.emulator import host_architecture

LAMBDENO = Path(sys.executable).with_name("lambdeno")
SLOW = 300  # ms
SOURCE = f"""
await new Promise((resolve) => setTimeout(resolve, {SLOW}));
export const handler = (event: {{ fail?: boolean }}) => {{
  if (event.fail) throw new RangeError("asked to");
  return event;
}};
"""
CANNOT_LOAD_HERE = codecache.obstacle(host_architecture())

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A project of one file."""

    def make(source: str = SOURCE, toml: str = "") -> Path:
        (tmp_path / "src").mkdir()
        (tmp_path / "src/main.ts").write_text(source)
        (tmp_path / "lambdeno.toml").write_text(f'name = "measured"\n{toml}')
        return tmp_path

    return make


def run(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command, with its exit status looked at."""
    command = [str(LAMBDENO), "bench", "--project", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def figures(folder: Path, *arguments: str) -> dict[str, Any]:
    """What --json says."""
    found: dict[str, Any] = json.loads(run(folder, "--json", "--rounds", "2", *arguments).stdout)
    return found


@pytest.mark.skipif(bool(CANNOT_LOAD_HERE), reason=CANNOT_LOAD_HERE)
@pytest.mark.parametrize("runtime", ["runtime1", "runtime2"])
def test_what_the_function_does_when_it_is_loaded_is_init_code(make: Make, runtime: str) -> None:
    """The parts are all of the start, and its slow one is found."""
    found = figures(make(toml=f'runtime = "{runtime}"\n'), "--invocations", "5")
    assert [len(found[key]) for key in ("start", "first", "warm")] == [2, 2, 10]
    parts = {part["name"]: part["milliseconds"] for part in found["parts"]}
    assert list(parts) == list(verb.PARTS)
    assert all(milliseconds >= 0 for milliseconds in parts.values()), parts
    assert parts["init code"] > SLOW - 10
    assert parts["init code"] > max(parts["bundle load"], parts["Deno and the bridge"])
    assert min(found["start"]) > SLOW - 10
    assert found["memory"] > 10
    assert found["function_size"] > 1000
    assert (found["name"], found["runtime"]) == ("measured", runtime)


def test_the_event_is_the_functions(make: Make) -> None:
    """A file, JSON or standard input; one that it fails on ends the command, and no figure is shown."""
    folder = make()
    done = run(folder, "--rounds", "1", "--invocations", "1", "--event", '{"fail": true}', status=1)
    assert done.stdout == ""
    assert "asked to" in done.stderr
    assert "was not measured" in done.stderr
    run(folder, "--rounds", "1", "--invocations", "0", "--event", "[1]")


def test_a_handler_of_any_name(make: Make) -> None:
    """Also one that is the default export, and one in an object."""
    source = "export default { fetch: () => new Response('x') };\nexport const jobs = { nightly: () => 7 };\n"
    folder = make(source, 'handler = "function.jobs.nightly"\n')
    found = figures(folder, "--invocations", "1")
    assert len(found["warm"]) == 2
    assert bool(found["parts"]) == (not CANNOT_LOAD_HERE)


def test_a_function_that_cannot_be_loaded(make: Make) -> None:
    """One sentence, as a build has it."""
    done = run(make("throw new Error('no database');\nexport const handler = () => 1;"), status=4)
    assert "no database" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--rounds", "many"], "--rounds"),
        (["--invocations", "-1"], "--invocations"),
        (["--event", "{"], "not JSON"),
        (["--sandbox", "docker"], "--sandbox"),
    ],
)
def test_bad_options_are_told(make: Make, arguments: list[str], words: str) -> None:
    """By their names, before anything is built."""
    folder = make()
    assert words in run(folder, *arguments, status=2).stderr
    assert not (folder / "dist").exists()


# --- for a person --------------------------------------------------------------------------------

MEASURED = Figures(
    name="f",
    runtime="runtime1",
    sandbox="bubblewrap",
    load=0.5,
    start=[20.0, 30.0, 40.0],
    first=[2.0, 3.0, 4.0],
    warm=[float(number) for number in range(1, 101)],
    memory=60,
    function_size=123_456,
    parts=[Part(name, ms) for name, ms in zip(verb.PARTS, (5.0, 10.0, 0.1, 15.0), strict=True)],
)


def shown(measured: Figures, **options: Any) -> str:
    """What a console gets."""
    text = io.StringIO()
    benchview.show(measured, Console(file=text, width=100, highlight=False, **options))
    return text.getvalue()


def test_the_bar_is_as_long_as_its_parts() -> None:
    """And each that takes time has a place in it; letters where there are no colours."""
    text = shown(MEASURED)
    (bar,) = re.findall(r"^(s+D+b+i+)$", text, re.MULTILINE)
    lengths = [bar.count(letter) for letter in "sDbi"]
    assert lengths == [10, 20, 1, 30]
    assert [line.split() for line in text.splitlines() if line.startswith("D ")] == [
        ["D", "10.00", "Deno", "and", "the", "bridge"]
    ]
    assert "█" in shown(MEASURED, force_terminal=True)
    assert "█" not in shown(MEASURED, force_terminal=True, no_color=True)


def test_the_table_has_median_and_extremes() -> None:
    """In ms; p99 as it is understood of so many."""
    rows = {
        line.partition(",")[0]: line.split()[-4:] for line in shown(MEASURED).splitlines() if ", ms " in line
    }
    assert rows["start"] == ["30.00", "20.00", "30.00", "40.00"]
    assert rows["warm"] == ["50.50", "1.00", "99.00", "100.00"]
