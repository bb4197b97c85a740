"""A function without a bundle: its modules as they were written, and all that they import.

    deno info -> which modules -> deno install -> DENO_DIR with their packages -> transpiled for /var/task

What Deno downloads comes from its own cache where that has it. The files have no times, and nothing
in them differs from build to build: a lock file, made where the project has none, says which packages.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lambdeno import deno
from lambdeno.archive import Entry
from lambdeno.errors import BuildError, ProjectError
from lambdeno.project import Project

__all__ = ["Graph", "Refusal", "gather"]

CONFIGS = ("deno.json", "deno.jsonc")
PACKAGE = (*CONFIGS, "package.json")
MODULE = re.compile(r".*(?<!\.d)\.[mc]?[jt]sx?")
NPM = "npm/" + ".".join(
    ("registry", "npmjs", "org")
)  # where Deno looks on Lambda, whichever registry a package is from
IMPORT_MAP = re.compile(r'"importMap"\s*:\s*"([^"]+)"')
WORKSPACE = re.compile(r'"workspace"\s*:')
METADATA = re.compile(rb"\n// denoCacheMetadata=(\{.*\})\s*\Z")  # behind a remote module
HEADERS = ("content-type", "location", "x-typescript-types")  # of its response, which Deno reads again


class Refusal(BuildError):
    """Deno has refused: ``what`` could not be done, ``said`` is why."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(what)
        self.said = said


class Graph:
    """What ``deno info`` knows of some modules and all that they import."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.files: set[Path] = set()  # of modules that are neither a package's nor Node's
        self.packages: dict[str, Path] = {}  # id -> folder in DENO_DIR
        for document in documents:
            known = document.get("npmPackages", {})
            wanted = [module["npmPackage"] for module in document["modules"] if "npmPackage" in module]
            for name in wanted:  # which grows
                if name in self.packages or name not in known:
                    continue
                self.packages[name] = Path(known[name]["localPath"])
                wanted += known[name]["dependencies"]
            self.files |= {Path(module["local"]) for module in document["modules"] if module.get("local")}


def gather(
    binary: deno.Binary, project: Project, included: Iterable[Entry], folder: Path
) -> tuple[list[Entry], list[str]]:
    """The function's files, and the names of its modules that start something; ``folder`` is for work.

    Raises ProjectError, Refusal.
    """
    included = list(included)
    lock = folder / "deno.lock"
    is_locked = (project.root / "deno.lock").is_file()
    if is_locked:
        shutil.copyfile(project.root / "deno.lock", lock)
    starts = [project.entry.removeprefix("./")]
    starts += [entry.name for entry in included if MODULE.fullmatch(entry.name) and entry.name not in starts]
    flags = [f"--lock={lock}", "--node-modules-dir=none", *_config(project), *project.deno.imports]
    if is_locked:
        flags.append("--frozen")
    run = _Run(binary, project, flags)
    cache = folder / "deno_dir"
    _seed(cache, run.info(starts, {}), json.loads(run("info", "--json", flags=[])))
    run("install", "--entrypoint", *starts, environment=_cache(cache))
    graph = run.info(starts, _cache(cache))
    entries = {entry.name: entry for entry in included}
    entries |= {entry.name: entry for entry in _own(project, graph, cache)}
    if not any(name in entries for name in CONFIGS):
        entries[CONFIGS[0]] = Entry(CONFIGS[0], b"{}\n")  # what makes the task root a project of Deno's
    if lock.is_file():
        entries["deno.lock"] = Entry("deno.lock", _of_no_registry(lock.read_bytes()))
    entries |= {entry.name: entry for entry in _downloaded(graph, cache)}
    return list(entries.values()), starts


class _Run:
    """Deno in the project folder, with the flags that each of its commands gets."""

    def __init__(self, binary: deno.Binary, project: Project, flags: list[str]) -> None:
        self.binary, self.project, self.flags = binary, project, flags

    def __call__(
        self, command: str, *words: str, flags: list[str] | None = None, environment: Mapping[str, str] = {}
    ) -> str:
        arguments = [command, *(self.flags if flags is None else flags), *words]
        done = deno.run(self.binary, arguments, self.project.root, environment)
        if done.returncode:
            raise Refusal(f'Cannot gather the modules of "{self.project.entry}"', done.stderr)
        return done.stdout

    def info(self, starts: Sequence[str], environment: Mapping[str, str]) -> Graph:
        """The graph of these modules; packages that the lock file lacks are added to it."""
        return Graph([json.loads(self("info", "--json", name, environment=environment)) for name in starts])


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


def _of_no_registry(lock: bytes) -> bytes:
    """A lock file without the places of packages, which Deno has where they are from a registry of one's own.

    Deno would take them for those of the registry that it knows on Lambda, and refuse.
    """
    content = json.loads(lock)
    places = [package.pop("tarball", None) for package in content.get("npm", {}).values()]
    return (json.dumps(content, indent=2) + "\n").encode() if any(places) else lock


def _timeless(found: re.Match[bytes]) -> bytes:
    """What Deno keeps of a response, without what differs from one download to the next."""
    metadata = json.loads(found[1])
    headers = {name: value for name, value in metadata.get("headers", {}).items() if name in HEADERS}
    kept = {"headers": headers, "url": metadata.get("url", ""), "time": 0}
    return b"\n// denoCacheMetadata=" + json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
