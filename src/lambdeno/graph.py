"""The modules of a function, as ``deno info`` resolves them: 7 ms, and no network once Deno has them.

    deno info --frozen ─► modules, packages ─► what the bundle is made from, what ships without one

The lock file is law, wherever Deno finds it: a module graph that it does not cover is refused, and no
command here writes it. Where there is none yet, ``lock`` has Deno write one that covers all that deno.json
and package.json name, so that the next import of such a package is covered as well.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lambdeno import deno
from lambdeno.configuration import LOCK, lock_file, lock_place
from lambdeno.errors import BuildError, ProjectError
from lambdeno.project import Project

__all__ = ["FROZEN", "Graph", "Refusal", "lock", "named", "package_in_node_modules", "read"]

FROZEN = "--frozen"
OUTDATED = "lockfile is out of date"
ABSENT = re.compile(r"^\s*1 \| \+\{$", re.MULTILINE)  # Deno would write the lock file from its first line


class Refusal(BuildError):
    """Deno refuses: ``message`` says what cannot be done, ``said`` is Deno's reason."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(what)
        self.said = said


class Graph:
    """Some modules and all that they import.

    ``modules`` has the file of each module that belongs to no package, by its specifier; a module that
    cannot be found has the file where Deno looked for it. ``packages`` has the folder of each npm package, by
    its id (``zod@4.1.0``). ``edges`` has who imports what: (specifier, words of the import, specifier).
    """

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.modules: dict[str, Path] = {}
        self.packages: dict[str, Path] = {}
        self.edges: set[tuple[str, str, str]] = set()
        for document in documents:
            known = document.get("npmPackages", {})
            wanted = [module["npmPackage"] for module in document["modules"] if "npmPackage" in module]
            for name in wanted:  # which grows
                if name in self.packages or name not in known:
                    continue
                self.packages[name] = Path(known[name]["localPath"])
                wanted += known[name]["dependencies"]
            for module in document["modules"]:
                if path := _file_of(module):
                    self.modules[module["specifier"]] = path
                self.edges |= set(_imports_of(module))

    @property
    def files(self) -> set[Path]:
        """The files of the modules that belong to no package."""
        return set(self.modules.values())

    def package_file(self, name: str) -> Path | None:
        """The file that is named ``npm:zod@4.1.0/v4/index.js`` here; None if Deno has no such package."""
        package, _, file = name.removeprefix("npm:").partition("/")
        if package.startswith("@"):
            scoped, _, file = file.partition("/")
            package = f"{package}/{scoped}"
        folder = self.packages.get(package) if name.startswith("npm:") else None
        return folder / file if folder and folder.is_dir() else None

    def portable_edges(self, root: Path) -> list[tuple[str, str, str]]:
        """Who imports what, the same in whatever folder the project is."""

        def shown(specifier: str) -> str:
            path = self.modules.get(specifier)
            return named(path, root) if path and specifier.startswith("file:") else specifier

        return sorted((shown(start), words, shown(end)) for start, words, end in self.edges)


def read(
    binary: deno.Binary,
    project: Project,
    starts: Sequence[str],
    flags: Sequence[str] = (),
    variables: Mapping[str, str] = {},
) -> Graph:
    """Return the graph of these modules. Raises Refusal, also where the lock file does not cover it."""
    words = ["info", "--json", *flags]
    return Graph([json.loads(_run(binary, project, [*words, name], variables)) for name in starts])


def lock(binary: deno.Binary, project: Project) -> bool:
    """Have Deno write the project's lock file if there is none and it needs one; return whether it did.

    Raises Refusal where there is one that does not cover the entry's modules, ProjectError where it would lie
    outside of the folder whose configuration names it.
    """
    look = ["info", "--json", FROZEN, *project.deno.imports, project.entry]
    done = deno.run(binary, look, project.root)
    if not done.returncode:
        return False
    if OUTDATED not in done.stderr or not ABSENT.search(done.stderr) or lock_file(project):
        raise Refusal(f'Cannot resolve the imports of "{project.entry}"', done.stderr)
    folder, path = lock_place(project) or (project.root, project.root / LOCK)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ProjectError(
            f'deno.json in "{folder}" has its lock file outside of that folder: "{path}"',
            'name a file in the folder as "lock" in deno.json',
        )
    # Both: without an entry point the packages of deno.json, with one those that modules alone name.
    words = ["install", "--quiet", "--lockfile-only", f"{FROZEN}=false", *project.deno.imports]
    _run(binary, project, words)
    _run(binary, project, [*words, "--entrypoint", project.entry])
    return True


def package_in_node_modules(path: Path) -> Path | None:
    """The folder of the package that a file in node_modules belongs to; None for any other file."""
    parts = path.parts
    if "node_modules" not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index("node_modules")
    size = 2 if parts[at + 1].startswith("@") else 1
    return Path(*parts[: at + 1 + size])


def named(path: Path, root: Path, packages: Mapping[str, Path] = {}) -> str:
    """A file's name as the project folder ``root`` sees it, wherever that and Deno's cache are."""
    folders = {folder: name for name, folder in packages.items()}
    for folder in path.parents if packages else ():
        if folder in folders:
            return f"npm:{folders[folder]}/{path.relative_to(folder).as_posix()}"
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # on another drive of Windows
        return path.as_posix()


def _run(
    binary: deno.Binary, project: Project, words: Sequence[str], variables: Mapping[str, str] = {}
) -> str:
    done = deno.run(binary, words, project.root, variables)
    if done.returncode:
        raise Refusal(f'Cannot resolve the imports of "{project.entry}"', done.stderr)
    return done.stdout


def _file_of(module: Mapping[str, Any]) -> Path | None:
    if module.get("local"):
        return Path(module["local"])
    url = urlsplit(module["specifier"])
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def _imports_of(module: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for dependency in module.get("dependencies", ()):
        for kind in ("code", "type"):
            found = dependency.get(kind, {})
            yield (
                module["specifier"],
                dependency["specifier"],
                found.get("specifier") or found.get("error", ""),
            )
