"""The configuration that Deno finds for a project: which files it has, where its lock file lies.

Deno looks upwards from the project folder, and a workspace's root rules its members:
https://docs.deno.com/runtime/fundamentals/configuration/, https://docs.deno.com/runtime/fundamentals/workspaces/.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lambdeno.errors import ProjectError
from lambdeno.project import Project

__all__ = ["CONFIGS", "LOCK", "files", "lock_file", "lock_place", "parsed", "refuse_links_out"]

CONFIGS = ("deno.json", "deno.jsonc")
SETTINGS = (*CONFIGS, "package.json", "tsconfig.json")  # in each folder from the project upwards
LOCK = "deno.lock"
# JSONC has comments, and a comma behind the last item: https://jsonc.org. Text is skipped.
TEXT = r'("(?:\\.|[^"\\])*")'
COMMENT = re.compile(rf"{TEXT}|//[^\n]*|/\*.*?\*/", re.DOTALL)
LAST_COMMA = re.compile(rf"{TEXT}|,(?=\s*[}}\]])", re.DOTALL)


def lock_file(project: Project) -> Path | None:
    """The lock file that Deno uses for a project, if there is one."""
    place = lock_place(project)
    return place[1] if place and place[1].is_file() else None


def lock_place(project: Project) -> tuple[Path, Path] | None:
    """Where Deno has the lock file of a project: the folder that it belongs to, and its path; None for none.

    It lies beside the configuration of the workspace's root, or where the key ``lock`` there says:
    https://docs.deno.com/runtime/fundamentals/configuration/#lockfile.
    """
    folder = _home(project.root.resolve())
    path = _lock_of(folder) if folder else None
    return (folder, path) if folder and path else None


def _home(root: Path) -> Path | None:
    """The folder whose configuration rules a project: its workspace's root, or the nearest one."""
    configured = [folder for folder in _upwards(root) if _is_configured(folder)]
    for folder in configured[1:]:
        if any(_is_member(folder, member) for member in configured if member.is_relative_to(folder)):
            return folder
    return configured[0] if configured else None


def refuse_links_out(project: Project) -> None:
    """Raise ProjectError where Deno would write through a link that leads out of the project.

    A project from elsewhere could so have files of its choice written, into the user's own folders.
    """
    root = project.root.resolve()
    home = _home(root) or root
    for folder in {home, root}:
        for path in _written(folder, _settings_of(home)):
            target = os.path.realpath(path) if path.is_symlink() else ""
            if target and os.path.commonpath([home, target]) != str(home):
                raise ProjectError(
                    f'"{path}" is a link out of the project, to "{target}": a build would write there',
                    "remove the link",
                )


def _written(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Where Deno may write: a lock file that is not there yet, packages, modules of other machines."""
    if not (folder / LOCK).is_file():
        yield folder / LOCK
    if settings.get("nodeModulesDir") in ("auto", True):
        yield from _places_of_packages(folder / "node_modules")
    if settings.get("vendor") is True:
        yield folder / "vendor"
        for above, names, others in os.walk(folder / "vendor"):
            yield from (Path(above, name) for name in names + others)


def _places_of_packages(folder: Path) -> Iterator[Path]:
    """``node_modules``, what is in it, and ``.deno/<package>/node_modules/<name>``."""
    yield folder
    for path in _in(folder):
        yield path
        if path.name.startswith("@"):
            yield from _in(path)
    for package in _in(folder / ".deno"):
        yield package
        yield package / "node_modules"
        for path in _in(package / "node_modules"):
            yield path
            if path.name.startswith("@"):
                yield from _in(path)


def _in(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]  # noqa: PTH208 - many, and names are enough
    except OSError:
        return []


def _settings_of(folder: Path) -> Mapping[str, Any]:
    """What the deno.json of a folder says."""
    return next((_settings(folder / name) for name in CONFIGS if (folder / name).is_file()), {})


def files(folders: Iterable[Path]) -> set[Path]:
    """Where Deno looks for settings of the modules in these folders; most of these files do not exist.

    Also the files of packages that a deno.json takes from a folder (``links``, ``vendor``).
    """
    found: set[Path] = set()
    for folder in {above for start in folders for above in _upwards(start)}:
        found |= {folder / name for name in (*SETTINGS, LOCK)}
        for config in (folder / name for name in CONFIGS):
            if not config.is_file():
                continue
            settings = _settings(config)
            other = _lock_of(folder)
            found |= {other} if other else set()
            if isinstance(settings.get("importMap"), str) and "://" not in settings["importMap"]:
                found.add(folder / settings["importMap"])
            links = _list(settings.get("links", settings.get("patch")))
            others = [link for link in links if isinstance(link, str)]
            if settings.get("vendor") is True:
                others.append("vendor")
            for other_folder in others:
                found |= set(_files_below(folder / other_folder))
        found |= _extended(folder / "tsconfig.json", set())
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for above, names, files in os.walk(folder):
        names[:] = [name for name in names if name not in ("node_modules", ".git")]
        yield from (Path(above, name) for name in files)


def _extended(path: Path, found: set[Path]) -> set[Path]:
    """A tsconfig.json and those that it extends or refers to (https://www.typescriptlang.org/tsconfig/)."""
    if path in found or not path.is_file():
        return found
    found.add(path)
    settings = _settings(path)
    extends = settings.get("extends")
    others = [extends] if isinstance(extends, str) else _list(extends)
    others += [row.get("path") for row in _list(settings.get("references")) if isinstance(row, dict)]
    for other in others:
        if isinstance(other, str) and other.startswith("."):
            target = path.parent / other
            for candidate in (target, target.with_name(target.name + ".json"), target / "tsconfig.json"):
                _extended(candidate, found)
    return found


def _upwards(folder: Path) -> tuple[Path, ...]:
    return (folder, *folder.parents)


def _settings(config: Path) -> Mapping[str, Any]:
    """What a deno.json says; empty where it cannot be read."""
    try:
        return parsed(config.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return {}


def parsed(text: str) -> Mapping[str, Any]:
    """The settings in a deno.json or package.json; none where Deno would tell what is wrong with it."""
    try:
        plain = COMMENT.sub(lambda match: match[1] or " ", text.removeprefix("\ufeff"))
        found = json.loads(LAST_COMMA.sub(lambda match: match[1] or " ", plain))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    """A value that is a list; an empty one in place of any other, of which Deno tells what is wrong."""
    return value if isinstance(value, list) else []


def _is_configured(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*CONFIGS, "package.json"))


def _is_member(folder: Path, member: Path) -> bool:
    """True if a folder's configuration names another one as a member of its workspace."""
    keys = [("workspace", "members", name) for name in CONFIGS] + [("workspaces", "packages", "package.json")]
    for key, inner, name in keys:
        patterns = _settings(folder / name).get(key, ())
        if isinstance(patterns, dict):
            patterns = patterns.get(inner, ())
        for pattern in _list(patterns):
            if fnmatch(member.relative_to(folder).as_posix(), os.path.normpath(str(pattern))):
                return member != folder
    return False


def _lock_of(folder: Path) -> Path | None:
    """The lock file of a folder with a configuration; None where that says that there is none."""
    value = _settings_of(folder).get("lock")
    if isinstance(value, dict):
        value = value.get("path")
    if value is False:
        return None
    return folder / (value if isinstance(value, str) else LOCK)
