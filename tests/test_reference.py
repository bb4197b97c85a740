"""docs/reference.md says what the code does: each table is held to its source."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from lambdeno import errors
from lambdeno.cli import main
from lambdeno.project import Build, Cors, Deno, EventInvoke, Project, Role, Runtime2, Url, Vpc
from lambdeno.sensitive import GROUPS

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
LAYER = ROOT / "src/lambdeno/layer/lambdeno"


NESTED: dict[str, Callable[[], msgspec.Struct]] = {
    "deno": Deno,
    "build": Build,
    "runtime2": Runtime2,
    "role": Role,
    "url": Url,
    "cors": Cors,
    "vpc": Vpc,
    "event_invoke": EventInvoke,
}


def section(title: str) -> str:
    """The text below a heading, to the next one of its kind."""
    return REFERENCE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> dict[str, list[str]]:
    """A table's rows: the code in the first cell to the other cells."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {first: [cell.strip() for cell in rest.split("|")] for first, rest in found}


def keys(kind: Callable[[], msgspec.Struct], prefix: str = "") -> dict[str, object]:
    """The keys of a table of lambdeno.toml, with their defaults."""
    values = msgspec.structs.asdict(kind())
    found: dict[str, object] = {}
    for name, value in values.items():
        if name in NESTED:
            found |= keys(NESTED[name], f"{prefix}{name}.")
        elif name != "root":
            found[prefix + name] = value
    return found


def test_every_key_of_lambdeno_toml_is_in_the_reference_with_its_default() -> None:
    """A key that is not in the table, or has another default there, fails."""
    table = rows(section("lambdeno.toml"))
    known = keys(Project)
    assert set(table) == set(known)
    for name, default in known.items():
        shown = table[name][0]
        if isinstance(default, bool):
            assert shown == f"`{str(default).lower()}`", name
        elif isinstance(default, str) and default:
            assert shown == f'`"{default}"`', name
        elif isinstance(default, int):
            assert shown == f"`{default}`", name


def test_every_variable_of_ours_is_in_the_reference() -> None:
    """What starts with LAMBDENO_ in the code has a row, and no other row is there."""
    sources = [*LAYER.glob("*.py"), *LAYER.glob("*.js"), ROOT / "src/lambdeno/cache.py"]
    sources.append(ROOT / "interpreter/build.py")
    used = {name for path in sources for name in re.findall(r"LAMBDENO_[A-Z_]+", path.read_text("utf-8"))}
    assert set(rows(section("Environment variables"))) == used


def test_every_name_of_a_secret_is_in_the_reference() -> None:
    """The page and the table of the code have the same groups and names."""
    table = re.findall(r"^\| ([^|`]+) \| (`.*`) \|$", section("Files that never ship"), re.MULTILINE)
    assert {group: tuple(re.findall("`([^`]+)`", names)) for group, names in table} == GROUPS


def test_every_option_is_in_the_reference() -> None:
    """Each option of each command has a row that names the command."""
    table = {re.split(r"[ =]", name)[0]: cells[0] for name, cells in rows(section("Commands")).items()}
    real: dict[str, set[str]] = {}
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                real.setdefault(parameter.opts[0], set()).add(str(command.name))
    assert {name: set(cells.split(", ")) for name, cells in table.items()} == real


def test_every_exit_code_is_in_the_reference() -> None:
    """The error tree and the table have the same names and codes."""
    table = {
        name: int(code)
        for code, names in re.findall(r"^\| (\d) \| (.*?) \|", section("Commands"), re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    tree = {name: getattr(errors, name).exit_code for name in errors.__all__ if name != "LambdenoError"}
    assert table == tree


def test_every_error_type_of_the_runtime_is_in_the_reference() -> None:
    """What the layer can answer as errorType, and nothing else, is in the table."""
    sources = [*LAYER.glob("*.py"), *LAYER.glob("*.js")]
    used = {
        name
        for path in sources
        for name in re.findall(r'"((?:Runtime|Function)\.[A-Z]\w+)"', path.read_text("utf-8"))
    }
    assert set(rows(section("Errors"))) == used


def test_every_module_is_in_the_architecture() -> None:
    """docs/architecture.md names each file of the package and of the layer."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    package = [path.name for path in (ROOT / "src/lambdeno").glob("*.py") if path.name != "__init__.py"]
    layer = [f"lambdeno/{path.name}" for path in LAYER.iterdir() if path.is_file()]
    missing = [name for name in [*package, *layer] if f"`{name}`" not in text]
    assert missing == []
