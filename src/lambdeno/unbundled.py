"""A function without a bundle: its modules as they were written, and all that they import.

    deno info -> which modules -> deno install -> DENO_DIR with their packages -> transpiled for /var/task

What Deno downloads comes from its own cache where that has it. The files have no times, and nothing
in them differs from build to build: a lock file, made where the project has none, says which packages.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lambdeno import deno
from lambdeno.archive import Entry
from lambdeno.configuration import CONFIGS, LOCK, lock_file, parsed
from lambdeno.errors import ProjectError
from lambdeno.graph import FROZEN, Graph, Refusal, read
from lambdeno.project import Project

__all__ = ["gather", "package_files", "starts"]

NPMRC = ".npmrc"
PACKAGE = (*CONFIGS, "package.json")
PACKAGES = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
PACKAGE_URL = re.compile("npm:|jsr:")
MODULE = re.compile(r".*(?<!\.d)\.[mc]?[jt]sx?")
NPM = "npm/" + ".".join(
    ("registry", "npmjs", "org")
)  # where Deno looks on Lambda, whichever registry a package is from
IMPORT_MAP = re.compile(r'"importMap"\s*:\s*"([^"]+)"')
WORKSPACE = re.compile(r'"workspace"\s*:')
METADATA = re.compile(rb"\n// denoCacheMetadata=(\{.*\})\s*\Z")  # behind a remote module
HEADERS = ("content-type", "location", "x-typescript-types")  # of its response, which Deno reads again


def gather(
    binary: deno.Binary, project: Project, included: Iterable[Entry], folder: Path
) -> tuple[list[Entry], list[str]]:
    """The function's files, and the names of its modules that start something; ``folder`` is for work.

    Packages that the graph lacks are neither downloaded nor named in what ships.

    Raises ProjectError, Refusal.
    """
    included = list(included)
    names = starts(project, included)
    lock = folder / LOCK
    its_own = lock_file(project)
    if its_own:
        shutil.copyfile(its_own, lock)  # Deno writes into it: from which registry a package is
    flags = [f"--lock={lock}", "--node-modules-dir=none", *project.deno.imports]
    frozen = [FROZEN] if its_own else []
    graph = read(binary, project, names, [*flags, *frozen, *_config(project)])
    entries = {entry.name: entry for entry in included}
    entries |= {entry.name: entry for entry in _own(project, graph)}
    if not any(name in entries for name in CONFIGS):
        entries[CONFIGS[0]] = Entry(CONFIGS[0], b"{}\n")  # what makes the task root a project of Deno's
    if lock.is_file():
        lock.write_bytes(_lock_of(graph, lock.read_bytes()))
    # In a copy of what ships, Deno wants the packages of what ships and no others.
    copy = msgspec.structs.replace(project, root=folder / "task")
    _lay_out(copy.root, entries.values())
    if (project.root / NPMRC).is_file():
        shutil.copyfile(project.root / NPMRC, copy.root / NPMRC)
    cache = folder / "deno_dir"
    _seed(cache, graph, json.loads(_run(binary, project, ["info", "--json"], {})))
    flags += _config(copy)
    _run(binary, copy, ["install", *flags, "--entrypoint", *names], _cache(cache))
    graph = read(binary, copy, names, flags, _cache(cache))
    if lock.is_file():
        entries[LOCK] = Entry(LOCK, _without_places(lock.read_bytes()))
    entries |= {entry.name: entry for entry in _downloaded(graph, cache)}
    return list(entries.values()), names


def _lay_out(folder: Path, entries: Iterable[Entry]) -> None:
    for entry in entries:
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.read())


def starts(project: Project, included: Iterable[Entry]) -> list[str]:
    """The modules that something starts from: the entry, and those that are shipped by their names."""
    entry = project.entry.removeprefix("./")
    modules = (item.name for item in included if MODULE.fullmatch(item.name))
    return list(dict.fromkeys([entry, *modules]))


def package_files(graph: Graph) -> Iterator[Path]:
    """The files of all packages, as far as Deno has them."""
    for folder in graph.packages.values():
        yield from (path for path in folder.rglob("*") if path.is_file())


def _run(binary: deno.Binary, project: Project, words: list[str], environment: Mapping[str, str]) -> str:
    done = deno.run(binary, words, project.root, environment)
    if done.returncode:
        raise Refusal(f'Cannot gather the modules of "{project.entry}"', done.stderr)
    return done.stdout


def _cache(folder: Path) -> Mapping[str, str]:
    return {"DENO_DIR": str(folder)}


def _config(project: Project) -> list[str]:
    """The configuration is the project's own, not that of a folder above: Lambda has none."""
    for name in CONFIGS:
        if (project.root / name).is_file():
            return [f"--config={name}"]
    return [] if (project.root / "package.json").is_file() else ["--no-config"]


def _seed(cache: Path, graph: Graph, known: Mapping[str, str]) -> None:
    """Take from Deno's own cache what that has, so that a build needs no network a second time."""
    for place, paths in (("npm", graph.packages.values()), ("remote", graph.files)):
        there = Path(known["npmCache" if place == "npm" else "modulesCache"])
        for path in paths:
            if not path.is_relative_to(there):
                continue
            target = cache / place / path.relative_to(there)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            elif path.is_file():
                shutil.copyfile(path, target)


def _own(project: Project, graph: Graph) -> Iterator[Entry]:
    """The modules of the project folder, and what tells Deno how to resolve their imports."""
    root = project.root.resolve()
    folders = {root}
    for path in sorted(path for name, path in graph.modules.items() if name.startswith("file:")):
        if any(path.is_relative_to(package) for package in graph.packages.values()):
            continue
        if not path.is_file():
            continue  # Deno tells who imports it
        if not path.is_relative_to(root) or not path.resolve().is_relative_to(root):
            raise ProjectError(
                f'"{project.entry}" imports "{path}", which is outside the project folder',
                "move it into the project folder, or set build.bundle = true in lambdeno.toml",
            )
        name = path.relative_to(root)
        yield Entry(name.as_posix(), path.read_bytes())
        folders |= {root / parent for parent in name.parents}
    texts = [(root / name).read_text("utf-8") for name in CONFIGS if (root / name).is_file()]
    if any(WORKSPACE.search(text) for text in texts):
        folders |= {path.parent for path in root.rglob("deno.json*") if "node_modules" not in path.parts}
    files = {folder / name for folder in folders for name in PACKAGE}
    files |= {root / found[1] for text in texts for found in IMPORT_MAP.finditer(text)}
    words = {words for _, words, _ in graph.edges}
    for path in sorted(files):
        if path.is_file() and path.resolve().is_relative_to(root):
            place = path.resolve().relative_to(root).as_posix()
            yield Entry(place, _settings_that_ship(path.name, path.read_bytes(), words))


def _settings_that_ship(name: str, content: bytes, words: Collection[str]) -> bytes:
    """A deno.json or package.json without the packages that no module imports.

    Deno would want to have them as well before a start, and before it transpiles.
    """
    settings = dict(parsed(content.decode("utf-8", "replace")))
    is_changed = False
    for table in PACKAGES if name == "package.json" else ("imports",):
        packages = settings.get(table)
        if isinstance(packages, dict):
            kept = {
                key: value
                for key, value in packages.items()
                if _is_imported(key, words) or (table == "imports" and not PACKAGE_URL.match(str(value)))
            }
            is_changed |= kept != packages
            settings[table] = kept
    return (json.dumps(settings, indent=2) + "\n").encode() if is_changed else content


def _is_imported(name: str, words: Collection[str]) -> bool:
    """True if one of these imports is of a package by its name, or of a part of it."""
    return any(word == name or word.startswith(name.removesuffix("/") + "/") for word in words)


def _downloaded(graph: Graph, cache: Path) -> Iterator[Entry]:
    """Packages and modules of other machines, as parts of the shipped DENO_DIR."""
    for package in sorted(graph.packages.values()):
        scope = package.parent.parent.name
        name = f"{scope}/{package.parent.name}" if scope.startswith("@") else package.parent.name
        for path in sorted(package.rglob("*")):
            if path.is_file():
                inside = f"{name}/{package.name}/{path.relative_to(package).as_posix()}"
                yield Entry(f".deno_dir/{NPM}/{inside}", path.read_bytes())
    for path in sorted((cache / "remote").rglob("*")):
        if path.is_file():
            inside = path.relative_to(cache).as_posix()
            yield Entry(f".deno_dir/{inside}", METADATA.sub(_timeless, path.read_bytes()))


def _lock_of(graph: Graph, lock: bytes) -> bytes:
    """A lock file of the packages in a graph alone: Deno downloads whatever else it names."""
    content = json.loads(lock)
    content["npm"] = {
        name: package for name, package in content.get("npm", {}).items() if name in graph.packages
    }
    content["specifiers"] = {
        words: version
        for words, version in content.get("specifiers", {}).items()
        if not words.startswith("npm:") or _package_of(words, version) in graph.packages
    }
    if "workspace" in content:
        content["workspace"] = _only(content["workspace"], content["specifiers"])
    return (json.dumps(content, indent=2) + "\n").encode() if content != json.loads(lock) else lock


def _without_places(lock: bytes) -> bytes:
    """A lock file without the places of packages, which Deno has where they are from a registry of one's own.

    Deno would take them for those of the registry that it knows on Lambda, and refuse.
    """
    content = json.loads(lock)
    places = [package.pop("tarball", None) for package in content.get("npm", {}).values()]
    return (json.dumps(content, indent=2) + "\n").encode() if any(places) else lock


def _only(value: Any, words: Collection[str]) -> Any:
    """What the lock file says of the project's dependencies, of some of them alone."""
    if isinstance(value, dict):
        return {key: _only(item, words) for key, item in value.items()}
    return [item for item in value if item in words] if isinstance(value, list) else value


def _package_of(words: str, version: str) -> str:
    """The id of what a specifier of the lock file stands for: npm:zod@4 and 4.1.0 give zod@4.1.0."""
    return f"{words.removeprefix('npm:').rpartition('@')[0]}@{version}"


def _timeless(found: re.Match[bytes]) -> bytes:
    """What Deno keeps of a response, without what differs from one download to the next."""
    metadata = json.loads(found[1])
    headers = {name: value for name, value in metadata.get("headers", {}).items() if name in HEADERS}
    kept = {"headers": headers, "url": metadata.get("url", ""), "time": 0}
    return b"\n// denoCacheMetadata=" + json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
