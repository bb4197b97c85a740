"""``init``: a new project from a template, whole or not at all.

settings -> the template's files, filled in -> nothing in their way? -> written, each as a new one

A template is a folder in ``templates/``, over ``templates/shared``; written as it is, but for what ``FILLED``
and ``RENAMED`` say.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

import msgspec

from lambdeno import project
from lambdeno.errors import UsageError

__all__ = ["TRY", "Runtime", "Settings", "init", "templates"]

Runtime = Literal["runtime1", "runtime2"]

TEMPLATES = Path(str(resources.files("lambdeno").joinpath("templates")))
SHARED = "shared"  # what all templates have
FILLED = frozenset({"lambdeno.toml", "README.md"})  # "$name" in these; in a Makefile, "$" is make's
# What lambdeno.toml sets in one template and shows as a comment in the others.
DEFAULTS = {"url": "#[url]", "invoke_mode": '#invoke_mode = "buffered"'}
SET = {
    "http": {"url": "[url]"},
    "streaming": {"url": "[url]", "invoke_mode": 'invoke_mode = "streaming"'},
}
TRY = {  # the first thing to do with the function while ``lambdeno dev`` runs
    "hello": """lambdeno invoke '{"name":"Ada"}'""",
    "http": "curl http://127.0.0.1:9001/",
    "sqs": r"""lambdeno invoke '{"Records":[{"messageId":"1","body":"{\"item\":\"tea\",\"count\":2}"}]}'""",
    "streaming": "curl -N http://127.0.0.1:9001/events",
}
RENAMED = {"gitignore": ".gitignore"}  # under its own name it would rule the template's folder, too


@dataclass(frozen=True)
class Settings:
    """What a new project is to be."""

    name: str
    template: str = "hello"
    runtime: Runtime = "runtime1"
    architecture: project.Architecture = "x86_64"


def init(folder: Path, settings: Settings) -> list[Path]:
    """Write a new project into a folder, which is made where it is missing; gives the files, sorted.

    Raises UsageError where anything is wrong or in the way; then nothing has changed.
    """
    files = _filled(settings)
    _refuse_taken(folder, list(files))
    try:
        return _write(folder, files)
    except OSError as error:
        raise UsageError(
            f'Cannot write "{error.filename or folder}": {error.strerror}',
            "nothing was left behind: choose a folder that you can write to, or free some space",
        ) from None


def templates() -> list[str]:
    """The names of all templates."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir() and path.name != SHARED)


def _filled(settings: Settings) -> dict[str, bytes]:
    """The path of each file in the project -> its content."""
    if settings.template not in templates():
        raise UsageError(f'No template "{settings.template}"', f"choose one of: {', '.join(templates())}")
    try:
        msgspec.convert(settings.name, project.Name)
    except msgspec.ValidationError:
        raise UsageError(
            f'"{settings.name}" cannot be the name of a function', f"use {project.PATTERNS['name']}"
        ) from None
    values = {
        "name": settings.name,
        "runtime": settings.runtime,
        "architecture": settings.architecture,
        "deno": project.DENO_VERSION,
        **DEFAULTS,
        **SET.get(settings.template, {}),
    }
    files: dict[str, bytes] = {}
    for folder in (TEMPLATES / SHARED, TEMPLATES / settings.template):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if path.name in FILLED:
                content = Template(content.decode()).substitute(values).encode()
            relative = path.relative_to(folder)
            files[relative.with_name(RENAMED.get(path.name, path.name)).as_posix()] = content
    return dict(sorted(files.items()))


def _refuse_taken(folder: Path, files: list[str]) -> None:
    """Raise UsageError if anything is where a file or a folder shall be, a link to nowhere included."""
    for path in (folder, *folder.parents):
        if _is_taken(path):
            raise UsageError(f'"{path}" is there, and is no folder', "name another folder")
    for name in files:
        for above in Path(name).parents[:-1]:
            if (folder / above).is_symlink():
                raise UsageError(
                    f'Cannot write into "{folder / above}": it is a link',
                    "remove it, or name another folder",
                )
    taken = {name for name in files if os.path.lexists(folder / name)}
    taken |= {above.as_posix() for name in files for above in Path(name).parents if _is_taken(folder / above)}
    if taken:
        names = ", ".join(f'"{name}"' for name in sorted(taken))
        raise UsageError(
            f'"{folder}" has what would be written over: {names}', "move it away, or name another folder"
        )


def _is_taken(path: Path) -> bool:
    """Whether a path that shall be a folder is something else. Never raises, as Path.is_dir may."""
    return os.path.lexists(path) and not os.path.isdir(path)  # noqa: PTH112


def _write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write them all; if one fails, remove what is written by then."""
    with ExitStack() as undo:
        for name, content in files.items():
            path = folder / name
            for missing in reversed([above for above in path.parents if not above.exists()]):
                missing.mkdir()
                undo.callback(_remove, missing)
            with path.open("xb") as file:
                undo.callback(_remove, path)
                file.write(content)
        undo.pop_all()
    return [folder / name for name in files]


def _remove(path: Path) -> None:
    """Remove a file, or a folder if nothing is in it."""
    with suppress(OSError):  # somebody else's file is in the folder by now
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
