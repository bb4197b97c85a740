"""A function without a bundle: its modules as they were written, and all that they import.

    deno info -> which modules -> deno install -> DENO_DIR with their packages -> transpiled for /var/task

What Deno downloads comes from its own cache where that has it. The files have no times, and nothing
in them differs from build to build: a lock file, made where the project has none, says which packages.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lambdeno import deno
from lambdeno.archive import Entry
from lambdeno.errors import ProjectError
from lambdeno.graph import CONFIGS, FROZEN, Graph, Refusal, lock_file, read
from lambdeno.project import Project

__all__ = ["gather", "package_files", "starts"]

PACKAGE = (*CONFIGS, "package.json")
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

    Raises ProjectError, Refusal.
    """
    included = list(included)
    lock = folder / "deno.lock"  # a copy, for Deno writes into it: from which registry a package is
    its_own = lock_file(project)
    if its_own:
        shutil.copyfile(its_own, lock)
    names = starts(project, included)
    flags = [f"--lock={lock}", "--node-modules-dir=none", *_config(project), *project.deno.imports]
    if its_own:
        flags.append(FROZEN)
    cache = folder / "deno_dir"
    places = json.loads(_run(binary, project, ["info", "--json"], {}))
    _seed(cache, read(binary, project, names, flags), places)
    _run(binary, project, ["install", *flags, "--entrypoint", *names], _cache(cache))
    graph = read(binary, project, names, flags, _cache(cache))
    entries = {entry.name: entry for entry in included}
    entries |= {entry.name: entry for entry in _own(project, graph, cache)}
    if not any(name in entries for name in CONFIGS):
        entries[CONFIGS[0]] = Entry(CONFIGS[0], b"{}\n")  # what makes the task root a project of Deno's
    if lock.is_file():
        entries["deno.lock"] = Entry("deno.lock", _lock_that_ships(lock.read_bytes(), graph))
    entries |= {entry.name: entry for entry in _downloaded(graph, cache)}
    return list(entries.values()), names


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


def _own(project: Project, graph: Graph, cache: Path) -> Iterator[Entry]:
    """The modules of the project folder, and what tells Deno how to resolve their imports."""
    root = project.root.resolve()
    folders = {root}
    for path in sorted(graph.files):
        real = path.resolve()
        if real.is_relative_to(cache.resolve()):
            continue
        if not path.is_relative_to(root) or not real.is_relative_to(root):
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
    for path in sorted(files):
        if path.is_file() and path.resolve().is_relative_to(root):
            yield Entry(path.resolve().relative_to(root).as_posix(), path.read_bytes())


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


def _lock_that_ships(lock: bytes, graph: Graph) -> bytes:
    """The lock file of the packages that ship, without the places that they came from.

    Deno would download whatever else it names before a start. It would take places of a registry of one's own
    for those of the registry that it knows on Lambda, and refuse.
    """
    content = json.loads(lock)
    known = content.get("npm", {})
    content["npm"] = {name: package for name, package in known.items() if name in graph.packages}
    specifiers = content.get("specifiers", {})
    gone = known.keys() - content["npm"].keys()
    content["specifiers"] = {
        words: version for words, version in specifiers.items() if _package_of(words, version) not in gone
    }
    places = [package.pop("tarball", None) for package in content["npm"].values()]
    return (json.dumps(content, indent=2) + "\n").encode() if gone or any(places) else lock


def _package_of(words: str, version: str) -> str:
    """The id of what a specifier of the lock file stands for: npm:zod@4 and 4.1.0 give zod@4.1.0."""
    return f"{words.removeprefix('npm:').rpartition('@')[0]}@{version}" if words.startswith("npm:") else words


def _timeless(found: re.Match[bytes]) -> bytes:
    """What Deno keeps of a response, without what differs from one download to the next."""
    metadata = json.loads(found[1])
    headers = {name: value for name, value in metadata.get("headers", {}).items() if name in HEADERS}
    kept = {"headers": headers, "url": metadata.get("url", ""), "time": 0}
    return b"\n// denoCacheMetadata=" + json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
