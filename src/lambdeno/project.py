"""``lambdeno.toml`` -> a frozen Project. An unknown key or a wrong value is an error that names it.

Every key is optional; docs/reference.md lists them all, held to this file by a test.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from lambdeno import limits
from lambdeno.errors import ProjectError

__all__ = ["Architecture", "Build", "Deno", "Project", "load"]

FILE = "lambdeno.toml"
DENO_VERSION = "2.9.8"

Architecture = Literal["x86_64", "arm64"]

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Handler = Annotated[str, msgspec.Meta(pattern=r"^[^\s.][^\s]*\.[^\s.]+$", max_length=128)]
Version = Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]


class Deno(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[deno]``: the release that runs the function, and what it may do."""

    version: Version = DENO_VERSION
    permissions: tuple[str, ...] = ()  # empty: the least default set
    sha256: dict[str, str] = {}  # "linux-x86_64" -> sha256 of the wheel, for a release without a pin


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[build]``: how TypeScript becomes function.zip."""

    check: bool = True  # types, by deno check
    minify: bool = True
    source_map: bool = False  # ship the map; it always lies beside the artefact
    code_cache: bool = True  # load the function once at build, ship what V8 compiled
    include: tuple[str, ...] = ()  # globs of further files, from the project folder


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One function: what it is made from and how Lambda runs it."""

    root: Path = Path()  # the project folder; never read from the file
    name: Name = ""
    entry: str = "src/main.ts"
    handler: Handler = "function.handler"
    runtime: Literal["runtime1"] = "runtime1"
    shape: Literal["managed"] = "managed"
    architecture: Architecture = "x86_64"
    memory: Annotated[int, msgspec.Meta(ge=128, le=10240)] = 512  # MB
    timeout: Annotated[int, msgspec.Meta(ge=1, le=900)] = 10  # s
    environment: dict[str, str] = {}
    deno: Deno = Deno()
    build: Build = Build()

    @property
    def dist(self) -> Path:
        """Where the artefacts land."""
        return self.root / "dist"


def load(folder: Path) -> Project:
    """Read ``lambdeno.toml`` of a project folder. Raises ProjectError."""
    path = folder / FILE
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ProjectError(
            f'No {FILE} in "{folder}"',
            f"name the project folder with --project, or create {FILE}: an empty file is enough",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f'Cannot read "{path}": {error}', "check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f'"{path}" is not TOML: {error}', "mend that line") from None
    _refuse_unknown(path, values, Project, "")
    try:
        project = msgspec.convert(values, Project)
    except msgspec.ValidationError as error:
        raise ProjectError(*_explain(path, str(error))) from None
    _check_environment(path, project.environment)
    name = project.name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name)[:64] or "function"
    return msgspec.structs.replace(project, root=folder, name=name)


def _refuse_unknown(path: Path, values: object, kind: type[msgspec.Struct], where: str) -> None:
    if not isinstance(values, dict):
        return
    known = [name for name in kind.__struct_fields__ if name != "root"]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ProjectError(
                f'"{path}" has an unknown key "{where}{key}"',
                f'did you mean "{where}{near[0]}"?' if near else f"known keys: {', '.join(known)}",
            )
        if key in ("deno", "build") and not where:
            _refuse_unknown(path, value, Deno if key == "deno" else Build, f"{key}.")


WORDS = {
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "float": "a number",
}
PATTERNS = {
    "name": "1 to 64 letters, digits, - and _",
    "handler": "<file>.<export>, such as function.handler",
    "version": "three numbers, such as 2.9.8",
}


def _explain(path: Path, problem: str) -> tuple[str, str]:
    """Msgspec's words in ours: message and hint."""
    what, _, at = problem.partition(" - at `$.")
    key = at.rstrip("`")
    last = re.sub(r"\[.*", "", key).rpartition(".")[2]
    wanted = re.match(r"Expected `(\w+)`(?:, got `(\w+)`| ([<>]=) (\d+)| matching regex)?", what)
    if not wanted:
        allowed = {
            "runtime": '"runtime1"',
            "shape": '"managed"',
            "architecture": '"x86_64" or "arm64"',
        }
        return f'"{path}": {what} for "{key}"', f"{key} may be {allowed.get(last, 'another value')}"
    kind, got, sign, bound = wanted.groups()
    if sign:
        side = "at least" if sign == ">=" else "at most"
        return f'"{path}": "{key}" is out of range', f"{key} must be {side} {bound}"
    if not got:
        return f'"{path}": "{key}" is malformed', f"{key} must be {PATTERNS.get(last, 'shorter')}"
    return (
        f'"{path}": "{key}" is {WORDS.get(got, got)}',
        f"{key} must be {WORDS.get(kind, kind)}",
    )


def _check_environment(path: Path, environment: dict[str, str]) -> None:
    for key in environment:
        if key in limits.RESERVED | limits.CREDENTIALS:
            raise ProjectError(f'"{path}": environment.{key} is reserved by Lambda', "choose another name")
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]+", key):
            raise ProjectError(
                f'"{path}": environment.{key} is not a name that Lambda takes',
                "use at least two letters, digits and _, a letter first",
            )
    size = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if size > limits.ENVIRONMENT:
        raise ProjectError(
            f'"{path}": the environment has {size} bytes; Lambda takes {limits.ENVIRONMENT}',
            "move large values to a file or a parameter store",
        )
