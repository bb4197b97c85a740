"""``build``: the three artefacts, each in ``dist/``, and manifest.json about them.

Deno layer      the verified binary
runtime layer   os-only: bootstrap as one binary; managed: layer/ as it is, compiled; + code cache
function        deno check -> deno bundle -> + source map + code cache + included files
                or its modules as they are: unbundled.py
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

import lambdeno
from lambdeno import (
    archive,
    atomic,
    codecache,
    configuration,
    deno,
    graph,
    interpreter,
    sbom,
    sensitive,
    unbundled,
)
from lambdeno.archive import Entry, Zip
from lambdeno.emulator import Function, host_architecture
from lambdeno.errors import ArtifactError, BuildError, DenoError, LambdenoError, ProjectError
from lambdeno.inputs import Inputs, InputsBuilder, record, recorded, remembered
from lambdeno.project import FILE, Project, Runtime2
from lambdeno.scratch import Scratch

__all__ = [
    "KINDS",
    "Artefact",
    "Watcher",
    "build",
    "build_deno_layer",
    "build_function",
    "build_runtime_layer",
    "bundle_into",
    "check_types",
    "current_inputs",
    "fill_code_cache",
    "function_inputs",
    "lambda_runtime",
    "layer_modules",
    "manifest",
    "up_to_date",
]

KINDS = ("deno-layer", "runtime-layer", "function")
# Inputs that are no files have a colon in their name, as what comes from elsewhere: https://…, npm:….
GRAPH, PROBLEM = "fact:graph", "fact:problem"
OWN = ("fact:", "lambdeno:")
ATTEMPTS = 3  # builds of a function whose files change meanwhile
MANIFEST = "manifest.json"
SBOM = "sbom.json"
LAYER = Path(str(resources.files("lambdeno").joinpath("layer")))
BUNDLE = "function.bundle.js"
SOURCE_MAP = "function.bundle.js.map"
PACKAGE = ("deno.json", "deno.jsonc", "package.json")  # one of them makes a folder a package
CACHED = re.compile(r"/npm/(?:[^/]+/)+?((?:@[^/]+/)?[^/@]+)/(\d+\.\d+\.\d+[^/]*)/(.+)")  # in Deno's cache
REMOTE = re.compile("[a-z]+://")  # a source that came from another machine
FOREIGN = re.compile(r"[a-z]+:|(?:.*/)?node_modules/")  # a source that the author did not write
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # of a map's numbers
NEVER = (".git", ".hg", ".svn", "node_modules")  # no part of a function, in whatever folder
TOLD = 5  # names of files that were held back
# Lines that are nothing but a comment: "//", or all of "/** … */".
SCRIPT_COMMENT = re.compile(r"^[ \t]*(?://.*|/\*\*(?:(?!\*/)[\s\S])*\*/[ \t]*)\n", re.MULTILINE)
# esbuild's require(), which Deno 2.9 writes over after the map is made, and does not find where there
# are names to keep: then each package that requires a node: module would fail at load.
MINIFIED_REQUIRE = (
    """(e=>typeof require<"u"?require:typeof Proxy<"u"?new Proxy(e,{get:(t,n)=>(typeof require<"u"?require"""
    """:t)[n]}):e)(function(e){if(typeof require<"u")return require.apply(this,arguments);throw Error('"""
    """Dynamic require of "'+e+'" is not supported')})"""
)
ESBUILD_REQUIRE = re.compile(
    r"(?:/\* @__PURE__ \*/\s*)?\(\(?[\w$]+\)?\s*=>\s*typeof require\b[^;]*;"
    r"\s*throw Error\([^;]*?Dynamic require of [^;]*?\)[;\s]*\}\)"
)
OUR_REQUIRE = 'globalThis.process.getBuiltinModule("node:module").createRequire(import.meta.url)'
DENO_REQUIRE = re.compile(
    r'import\{createRequire as __deno_internal_createRequire\} from "node:module";'
    r"var ([\w$]+)=__deno_internal_createRequire\(import\.meta\.url\);"
)
DENO_REQUIRE_LINES = re.compile(
    r'import \{ createRequire as __deno_internal_createRequire \} from "node:module";\n'
    r"var __require = __deno_internal_createRequire\(import\.meta\.url\);\n"
)
# The default export of a CommonJS module: Deno writes "1 ?" over "t||!e||!e.__esModule?".
INTEROP = re.compile(r"\(([\w$]+),([\w$]+),([\w$]+)\)=>\(\3=\1!=null\?[^?]{1,60}:\{\},[\w$]+\(1 \?")


@dataclass(frozen=True)
class Artefact:
    """What a build step made."""

    kind: str  # "deno-layer", "runtime-layer", "function"
    zip: Zip
    facts: dict[str, Any] = field(default_factory=dict)  # what the manifest says besides
    notes: tuple[str, ...] = ()  # what the user should know


@dataclass(frozen=True)
class Watcher:
    """Whom to tell how far long work is: ``step`` names it, ``progress`` has done and total bytes."""

    step: Callable[[str], None] = lambda _: None
    progress: Callable[[int, int], None] = lambda _, __: None


def build(project: Project, watcher: Watcher = Watcher()) -> list[Artefact]:
    """All three, checked together against Lambda's limits. Raises LambdenoError."""
    made = [
        build_function(project, watcher),
        build_runtime_layer(project, watcher),
        build_deno_layer(project, watcher),
    ]
    archive.check_limits(artefact.zip for artefact in made)
    return made


def build_deno_layer(project: Project, watcher: Watcher = Watcher()) -> Artefact:
    """``deno-layer-<arch>.zip``: /opt/bin/deno and nothing else."""
    inputs = _deno_layer_inputs(project, watcher)
    binary = _deno(project, f"linux-{project.architecture}", watcher)
    deno.verify(binary)
    entries = [Entry("bin/deno", binary.path, executable=True)]
    path = project.dist / f"deno-layer-{project.architecture}.zip"
    facts: dict[str, Any] = {
        "version": binary.version,
        "architecture": project.architecture,
        "binary": f"sha256:{binary.sha256}",
    }
    zipped = _unchanged(project, "deno-layer", path, entries)
    if zipped is None:
        watcher.step("Compress the Deno layer")
        zipped = _write(path, entries, watcher)
    return _record(project, Artefact("deno-layer", zipped, facts), inputs)


def build_runtime_layer(project: Project, watcher: Watcher = Watcher()) -> Artefact:
    """``runtime-layer.zip``: /opt/bootstrap and /opt/lambdeno."""
    inputs = _runtime_layer_inputs(project, watcher)
    entries = _layer_entries(project, watcher)
    facts = _runtime_facts(project, entries)
    notes: list[str] = []
    why_not = codecache.obstacle(project.architecture)
    if why_not:
        notes.append(f"The runtime layer has no code cache: {why_not}")
    else:
        watcher.step("Fill the runtime layer's code cache")
        caches = _fill(project, entries, [], watcher)
        entries += [Entry(f"lambdeno/deno_dir/{name}", data) for name, data in caches.items()]
    facts["code_cache"] = not why_not
    if not project.build.bundle:
        facts["files"] = len(entries)
    zipped = _write(project.dist / "runtime-layer.zip", entries, watcher)
    return _record(project, Artefact("runtime-layer", zipped, facts, tuple(notes)), inputs)


def build_function(project: Project, watcher: Watcher = Watcher()) -> Artefact:
    """``function.zip``: function.bundle.js, its code cache, and what ``build.include`` names.

    Built again where a file changes meanwhile: the artefact is of one moment. Raises LambdenoError.
    """
    entry = project.root / project.entry
    if not entry.is_file():
        raise ProjectError(
            f'No entry file "{entry}"', 'create it, or name another as "entry" in lambdeno.toml'
        )
    for _ in range(ATTEMPTS):
        _lock(project, watcher)
        before = function_inputs(project, watcher)
        try:
            artefact, packaged = _function(project, watcher)
        except LambdenoError:
            if before.is_untouched():
                raise
        else:
            after = function_inputs(project, watcher, packaged)
            if _is_same_moment(before, after):
                return _record(project, artefact, after)
        watcher.step("Files changed during the build: build again")
    raise BuildError(
        f'Cannot build "{project.entry}": its files change during each build',
        "wait until nothing writes them any more, and build again",
    )


def _is_same_moment(before: Inputs, after: Inputs) -> bool:
    """True if nothing changed between two looks at the inputs; the second one may know of more packages."""
    return before.is_untouched() and before.digests.items() <= after.digests.items()


def _function(project: Project, watcher: Watcher) -> tuple[Artefact, tuple[Path, ...]]:
    """One build of function.zip, and the files of packages that are in its bundle."""
    host = _deno(project, deno.host_platform(), watcher)
    layer = _layer_entries(project, watcher)
    if project.build.check:
        watcher.step(f"Check {project.entry}")
        _check(host, project)
    notes: list[str] = []
    facts: dict[str, Any] = {
        "name": project.name,
        "handler": project.handler,
        "deno": project.deno.version,
        "runtime": archive.digest(layer),
    }
    held_back: set[str] = set()
    entries = list(_included(project, held_back))
    if held_back:
        notes.append(_told(held_back))
    packaged: tuple[Path, ...] = ()
    if project.build.bundle:
        watcher.step(f"Bundle {project.entry}")
        bundle, source_map, packaged = _bundle(host, project)
        if project.build.source_map:
            bundle += f"//# sourceMappingURL={SOURCE_MAP}\n"
            entries.append(Entry(SOURCE_MAP, _compact(_own_code(source_map))))
        entries.append(Entry(BUNDLE, bundle.encode()))
        facts["bundle"] = len(bundle.encode())
    else:
        watcher.step(f"Gather the modules of {project.entry}")
        entries, starts = _gathered(host, project)
        opt = [*layer, Entry("bin/deno", host.path, executable=True)]
        entries += _transpiled(opt, project, entries, starts)
    why_not = (
        codecache.obstacle(project.architecture)
        if project.build.code_cache
        else "build.code_cache is false in lambdeno.toml"
    )
    if why_not:
        notes.append(f"The function has no code cache: {why_not}")
    else:
        watcher.step("Load the function and keep what V8 compiled")
        caches = _fill(project, layer, entries, watcher)
        entries += [Entry(f".deno_dir/{name}", data) for name, data in caches.items()]
    facts["code_cache"] = not why_not
    if not project.build.bundle:
        facts["files"] = len(entries)
    zipped = _write(project.dist / "function.zip", entries, watcher)
    if project.build.bundle:
        _write_beside(project.dist / SOURCE_MAP, _compact(source_map))
    return Artefact("function", zipped, facts, tuple(notes)), packaged


def fill_code_cache(folder: Path, project: Project) -> None:
    """Give a function that lies in a folder a code cache, as ``.deno_dir``. Raises BuildError."""
    _fill_folder(folder, project, _layer_entries(project, Watcher()), Watcher())


def check_types(project: Project) -> None:
    """What ``deno check`` says of the entry. Raises DenoError."""
    _check(_deno(project, deno.host_platform(), Watcher()), project)


def bundle_into(folder: Path, project: Project, *, for_debugger: bool = False) -> Inputs:
    """Write the function's files to a folder, as fast as they can be had: not minified, without a code cache.

    Return the inputs; where one changes meanwhile, those of before: a look at them shows that they changed.
    For a debugger the bundle carries its map and the sources' text. Raises LambdenoError.
    """
    _lock(project, Watcher())
    before = function_inputs(project)
    packaged = _write_function(folder, project, for_debugger=for_debugger)
    after = function_inputs(project, packaged=packaged)
    return after if _is_same_moment(before, after) else before


def _write_function(folder: Path, project: Project, *, for_debugger: bool) -> tuple[Path, ...]:
    """Write the function's files to a folder; return the files of packages that are in its bundle."""
    binary = _deno(project, deno.host_platform(), Watcher())
    if not project.build.bundle:
        codecache.lay_out(folder, _gathered(binary, project)[0])
        return ()
    plain = msgspec.structs.replace(project, build=msgspec.structs.replace(project.build, minify=False))
    bundle, source_map, packaged = _bundle(binary, plain)
    entries = list(_included(project))
    if for_debugger:
        root = project.root.resolve().as_uri() + "/"  # so that an editor finds its own files
        encoded = base64.b64encode(_compact({**source_map, "sourceRoot": root})).decode()
        bundle += f"//# sourceMappingURL=data:application/json;base64,{encoded}\n"
    else:
        bundle += f"//# sourceMappingURL={SOURCE_MAP}\n"
        entries.append(Entry(SOURCE_MAP, _compact(_own_code(source_map))))
    codecache.lay_out(folder, [*entries, Entry(BUNDLE, bundle.encode())])
    return packaged


def up_to_date(
    project: Project, watcher: Watcher = Watcher(), kinds: Collection[str] = KINDS
) -> dict[str, Any]:
    """The manifest, after building each artefact of these kinds that is missing, or of other inputs."""
    if "deno-layer" in kinds and not _stands(project, "deno-layer", _deno_layer_inputs(project, watcher)):
        build_deno_layer(project, watcher)
    if "runtime-layer" in kinds and not _stands(
        project, "runtime-layer", _runtime_layer_inputs(project, watcher)
    ):
        build_runtime_layer(project, watcher)
    if "function" in kinds and current_inputs(project, watcher) is None:
        build_function(project, watcher)
    return manifest(project)


def current_inputs(project: Project, watcher: Watcher = Watcher()) -> Inputs | None:
    """The inputs of ``function.zip`` if it was built from just these; None if it has to be built."""
    row = _row_of_whole(project, "function")
    for known in recorded(row["sha256"]) if row else ():
        inputs = function_inputs(project, watcher, known=known)
        if inputs.digests == known:
            return inputs
    return None


def function_inputs(
    project: Project,
    watcher: Watcher = Watcher(),
    packaged: Iterable[Path] = (),
    known: Mapping[str, str] = MappingProxyType({}),
) -> Inputs:
    """All that ``function.zip`` is made from, as it is now.

    ``packaged`` are files of packages that are in the artefact; ``known`` are the inputs of an earlier build,
    which tell of such files as well. Where imports cannot be resolved, that is an input: there is no artefact
    then. But if it is Deno's cache or the network that is gone, and no file is another, nothing has changed.
    """
    binary = _deno(project, deno.host_platform(), watcher)
    found = InputsBuilder(remembered(project.root))
    _add_layer(found, project)
    found.fact("fact:deno", f"{binary.version} {binary.sha256}")
    found.fact("fact:conditions", os.environ.get("DENO_CONDITIONS", ""))  # of imports, for the bundler
    found.fact("fact:settings", hashlib.sha256(_settings(project)).hexdigest())
    modules, included, problem = _resolved(project, binary)
    _add_project(found, project, modules, included)
    _add_packages(found, project, modules, packaged)
    for name, digest in known.items():
        if package_file := modules.package_file(name):
            found.file(name, package_file)
        elif ":" not in name:
            found.file(name, project.root.resolve() / name)
        elif not name.startswith(OWN):
            found.unseen(name, digest)
    inputs = found.build()
    return inputs if problem is None else _unresolved(inputs, problem, known)


def _resolved(project: Project, binary: deno.Binary) -> tuple[graph.Graph, list[Entry], LambdenoError | None]:
    """The function's modules and included files, as far as they can be had; or what is wrong with them."""
    included: list[Entry] = []
    try:
        included = list(_included(project))
        starts = [project.entry] if project.build.bundle else unbundled.starts(project, included)
        configuration.refuse_links_out(project)
        return graph.read(binary, project, starts, [graph.FROZEN, *project.deno.imports]), included, None
    except LambdenoError as error:
        return graph.Graph(()), included, error


def _add_project(
    found: InputsBuilder, project: Project, modules: graph.Graph, included: Iterable[Entry]
) -> None:
    """The files of the project, and of what it imports beside it."""
    root = project.root.resolve()
    found.file(FILE, root / FILE)
    for folder in _included_folders(project):
        found.folder(folder)
    for entry in included:
        found.file(entry.name, root / entry.name, executable=entry.executable)
    for specifier, path in {"file:": root / project.entry, **modules.modules}.items():
        found.file(graph.named(path, root) if specifier.startswith("file:") else specifier, path)
    for path in configuration.files({root, *(path.parent for path in modules.files)}):
        found.file(graph.named(path, root), path)
    found.fact(GRAPH, hashlib.sha256(repr(modules.portable_edges(root)).encode()).hexdigest())


def _add_packages(
    found: InputsBuilder, project: Project, modules: graph.Graph, packaged: Iterable[Path]
) -> None:
    """The files of packages that are in the artefact, and what says which files those are."""
    for name, folder in modules.packages.items():
        found.file(f"npm:{name}/package.json", folder / "package.json")
    if not project.build.bundle:
        packaged = unbundled.package_files(modules)
    paths = set(packaged)
    # In node_modules files get edited, also those of which the bundler has taken nothing.
    for package in {package for path in paths if (package := graph.package_in_node_modules(path))}:
        paths |= {path for path in package.rglob("*") if path.is_file()}
    for path in sorted(paths):
        found.file(graph.named(path, project.root.resolve(), modules.packages), path)


def _unresolved(inputs: Inputs, problem: LambdenoError, known: Mapping[str, str]) -> Inputs:
    """The inputs where Deno cannot resolve imports: an earlier build's, if all files are the same."""
    digests = {**inputs.digests, GRAPH: known.get(GRAPH, "")}
    if digests != known:
        digests[PROBLEM] = f"{problem} {problem.detail} {getattr(problem, 'said', '')}"
    return replace(inputs, digests=digests)


def _settings(project: Project) -> bytes:
    """The settings as bytes, without where the project is."""
    return msgspec.json.encode(msgspec.structs.replace(project, root=Path()), enc_hook=str)


def _add_layer(found: InputsBuilder, project: Project) -> None:
    """What the runtime layer is made from: its files, the interpreter's recipe, the way it is compiled."""
    found.fact("fact:lambdeno", lambdeno.__version__)
    found.fact("fact:shape", f"{project.shape} {project.architecture}")
    if project.shape == "managed":
        found.fact("fact:python", str(sys.implementation.cache_tag))
    paths = [*LAYER.glob("*"), *LAYER.glob("lambdeno/*")]
    if project.shape == "os-only":
        paths += interpreter.sources(project.architecture)
    for path in sorted(path for path in paths if path.is_file()):
        found.file(f"lambdeno:{path.parent.name}/{path.name}", path)


def _runtime_layer_inputs(project: Project, watcher: Watcher) -> Inputs:
    binary = _deno(project, deno.host_platform(), watcher)
    found = InputsBuilder(remembered(project.root))
    _add_layer(found, project)
    found.fact("fact:deno", f"{binary.version} {binary.sha256}")
    return found.build()


def _deno_layer_inputs(project: Project, watcher: Watcher) -> Inputs:
    binary = _deno(project, f"linux-{project.architecture}", watcher)
    found = InputsBuilder(remembered(project.root))
    found.fact("fact:lambdeno", lambdeno.__version__)
    found.fact("fact:deno", f"{binary.platform} {binary.version} {binary.sha256}")
    return found.build()


def _stands(project: Project, kind: str, inputs: Inputs) -> bool:
    """True if an artefact is there as this machine made it, from these inputs."""
    row = _row_of_whole(project, kind)
    return bool(row) and inputs.digests in recorded(row["sha256"])


def _row_of_whole(project: Project, kind: str) -> dict[str, Any]:
    """The manifest's row of an artefact whose zip is the one that it names; empty if it has to be built.

    One without a code cache has to be, where it could have one by now.
    """
    row: dict[str, Any] = manifest(project).get(kind, {})
    if not row:
        return {}
    digests = remembered(project.root)
    is_whole = digests.of(project.dist / row["file"]) == row["sha256"]
    digests.save()
    lacks_cache = row.get("code_cache") is False and project.build.code_cache
    if not is_whole or (lacks_cache and not codecache.obstacle(project.architecture)):
        return {}
    return row


def _runtime_facts(project: Project, layer: list[Entry]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "version": lambdeno.__version__,
        "shape": project.shape,
        "architecture": project.architecture,
        "python": f"3.{sys.version_info.minor}",
        "deno": project.deno.version,
        "source": archive.digest(layer),
    }
    if project.shape == "os-only":
        pins = interpreter.pins()
        facts["python"] = pins["cpython"]["version"]
        facts["python_source"] = f"sha256:{pins['cpython']['sha256']}"
        facts["python_patches"] = interpreter.patches()
        facts["musl"] = pins["musl"]["version"]
        facts["zig"] = pins["ziglang"]["version"]
        facts["bootstrap"] = f"sha256:{hashlib.sha256(layer[0].read()).hexdigest()}"
    return facts


def lambda_runtime(project: Project) -> str:
    """Lambda's identifier of the runtime; a managed one is the Python that the layer is compiled for."""
    return "provided.al2023" if project.shape == "os-only" else f"python3.{sys.version_info.minor}"


def manifest(project: Project) -> dict[str, Any]:
    """What ``dist/manifest.json`` says; empty where nothing was built yet. Raises ArtifactError."""
    path = project.dist / MANIFEST
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise OSError(atomic.obstacle(path) or "it is not a file")
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise ArtifactError(
            f'Cannot read "{path}": {atomic.obstacle(path)}', "remove it, or move it away"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f'Cannot read "{path}": {error}', "remove it and run lambdeno build") from None
    return {kind: row for kind, row in found.items() if _is_row(row)} if isinstance(found, dict) else {}


def _is_row(row: object) -> bool:
    """Whether the manifest's row of an artefact has what every row has."""
    wanted = {"file": str, "digest": str, "sha256": str, "size": int, "unpacked": int}
    return isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in wanted.items())


def _deno(project: Project, target: str, watcher: Watcher) -> deno.Binary:
    step = f"Download Deno {project.deno.version} for {target}"
    started = False

    def progress(done: int, total: int) -> None:
        nonlocal started
        if not started:
            watcher.step(step)
            started = True
        watcher.progress(done, total)

    return deno.get(project.deno.version, target, project.deno.sha256, progress)


def _fill(project: Project, layer: list[Entry], task: list[Entry], watcher: Watcher) -> dict[str, bytes]:
    """The code cache of a function's files over a runtime layer's; without files, of the dummy."""
    with Scratch() as folder:
        codecache.lay_out(folder, task)
        return _fill_folder(folder, project, layer, watcher, is_dummy=not task)


def _fill_folder(
    folder: Path, project: Project, layer: list[Entry], watcher: Watcher, *, is_dummy: bool = False
) -> dict[str, bytes]:
    function = Function(
        name=project.name,
        code=folder,
        handler="function.handler" if is_dummy else project.handler,
        runtime=lambda_runtime(project),
        architecture=project.architecture,
        memory=project.memory,
        environment=_loading(Project(shape=project.shape) if is_dummy else project).variables,
    )
    return codecache.fill([*layer, _deno_entry(project, watcher)], function)


def _loading(project: Project) -> Project:
    """The project as it is loaded at build: what V8 compiles is the same for both runtimes."""
    return msgspec.structs.replace(project, runtime="runtime1", runtime2=Runtime2())


def _deno_entry(project: Project, watcher: Watcher) -> Entry:
    binary = _deno(project, f"linux-{project.architecture}", watcher)
    return Entry("bin/deno", binary.path, executable=True)


def _check(binary: deno.Binary, project: Project) -> None:
    done = deno.run(binary, ["check", graph.FROZEN, *project.deno.imports, project.entry], project.root)
    if done.returncode:
        raise _refusal(done.stderr, f'"{project.entry}" does not pass deno check')


def _bundle(binary: deno.Binary, project: Project) -> tuple[str, dict[str, Any], tuple[Path, ...]]:
    """The bundle, its source map, and the files that are in it."""
    with Scratch() as folder:
        output = folder / BUNDLE
        arguments = [
            "bundle",
            "--platform",
            "deno",
            "--sourcemap=external",
            *(["--minify"] if project.build.minify else []),
            *(["--keep-names"] if project.build.keep_names else []),
            graph.FROZEN,
            *project.deno.imports,
        ]
        done = deno.run(binary, [*arguments, "-o", output, project.entry], project.root)
        if done.returncode or not output.is_file():
            raise _refusal(done.stderr, f'Cannot bundle "{project.entry}"')
        source_map = json.loads((folder / SOURCE_MAP).read_bytes())
        files = tuple(_source_file(name, folder) for name in source_map["sources"] if not REMOTE.match(name))
        # esbuild writes the sources relative to the output folder, which is a new one each time.
        source_map["sources"] = [_from_root(name, folder, project.root) for name in source_map["sources"]]
        bundle = _as_mapped(output.read_bytes().decode())
        places = _places(bundle)
        return places + bundle, _moved(source_map, len(places)), files


def _source_file(source: str, output: Path) -> Path:
    """The file of a source, which the map has relative to the output folder. Deno writes paths as URLs."""
    return Path(os.path.normpath(Path(output, unquote(source))))


def _places(bundle: str) -> str:
    """What CommonJS modules know of their place, where a package asks: that of the bundle.

    Before all else on the first line, so that no line moves.
    """
    asked = [
        f"{name}=import.meta.{name.strip('_')}"
        for name in ("__dirname", "__filename")
        if re.search(rf"(?<![\w$.]){name}\b", bundle) and not re.search(rf"[\s,;{{]{name}\s*=[^=]", bundle)
    ]
    return f"var {','.join(asked)};" if asked else ""


def _moved(source_map: dict[str, Any], columns: int) -> dict[str, Any]:
    """The map of a bundle whose first line begins so much later."""
    first, line_end, rest = source_map["mappings"].partition(";")
    segment, comma, others = first.partition(",")
    if columns and segment:
        column, *place = _numbers(segment)
        first = _digits([column + columns, *place]) + comma + others
    return {**source_map, "mappings": first + line_end + rest}


def _gathered(binary: deno.Binary, project: Project) -> tuple[list[Entry], list[str]]:
    """The files of a function without a bundle, and those of them that something starts from."""
    with Scratch() as folder:
        try:
            return unbundled.gather(binary, project, _included(project), folder)
        except graph.Refusal as error:
            raise _refusal(error.said, error.message) from None


def _transpiled(opt: list[Entry], project: Project, entries: list[Entry], starts: list[str]) -> list[Entry]:
    """What Deno makes of a function's modules, which it would do at each start; nothing where it cannot."""
    if codecache.obstacle(host_architecture()):
        return []
    with Scratch() as task:
        codecache.lay_out(task, entries)
        return codecache.transpile(opt, Function(name=project.name, code=task), starts)


def _as_mapped(bundle: str) -> str:
    """The bundle with every place where its source map has it, and a require() that works.

    Deno writes over helpers of esbuild when the map is made, and all that stands behind them moves:
    columns in a minified bundle, three lines in a readable one. Blanks move it back.
    """
    bundle = ESBUILD_REQUIRE.sub(lambda found: _as_long(OUR_REQUIRE, found[0]), bundle, count=1)
    bundle = DENO_REQUIRE.sub(
        lambda found: found[0].ljust(len(f"var {found[1]}={MINIFIED_REQUIRE};")), bundle, count=1
    )
    bundle = DENO_REQUIRE_LINES.sub(lambda found: found[0] + "\n" * 3, bundle, count=1)
    return INTEROP.sub(
        lambda found: found[0].ljust(
            len(found[0].removesuffix("1 ?") + f"{found[2]}||!{found[1]}||!{found[1]}.__esModule?")
        ),
        bundle,
    )


def _as_long(text: str, former: str) -> str:
    """A text in the place of a longer one: as many lines, and as much on the last."""
    *lines, last = former.split("\n")
    return text + "\n" * len(lines) + " " * len(last) if lines else text.ljust(len(last))


def _from_root(source: str, output: Path, root: Path) -> str:
    """A source as the project folder sees it, the same on every machine.

    What lies outside goes by its package, or its folder.
    """
    if REMOTE.match(source):
        url = urlsplit(source)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"  # no credentials, no token
    path, home = _source_file(source, output), root.resolve()
    inside = path.is_relative_to(home)
    if cached := CACHED.search(f"/{path.relative_to(home).as_posix()}" if inside else path.as_posix()):
        return f"npm:{cached[1]}@{cached[2]}/{cached[3]}"
    if inside:
        return path.relative_to(home).as_posix()
    if "node_modules" in path.parts:
        return "node_modules/" + path.as_posix().rpartition("/node_modules/")[2]
    shared = Path(os.path.commonpath([path, home]))
    for folder in path.relative_to(shared).parents:
        if folder.name and any((shared / folder / name).is_file() for name in PACKAGE):
            return f"outside/{folder.name}/{path.relative_to(shared / folder).as_posix()}"
    return "/".join(("outside", *path.relative_to(shared).parts[-2:]))


def _own_code(source_map: Mapping[str, Any]) -> dict[str, Any]:
    """The map of what the author wrote, without the text: what ships.

    Deno reads the map at every start of a bundle that imports a node: module: 17 ms of 106 where it
    has all packages, nothing to be measured for the author's files (docs/decisions.md).
    """
    sources: dict[int, int] = {}  # number in the whole map -> in this one
    lines: list[str] = []
    at, last, mapped = (0, 0, 0), (0, 0, 0), False
    for line in source_map["mappings"].split(";"):
        column = last_column = 0
        segments: list[str] = []
        for segment in line.split(",") if line else ():
            move, *moved = _numbers(segment)
            column += move
            if moved:
                at = (at[0] + moved[0], at[1] + moved[1], at[2] + moved[2])
            own = bool(moved) and not FOREIGN.match(source_map["sources"][at[0]])
            if own:
                place = (sources.setdefault(at[0], len(sources)), at[1], at[2])
                steps = [there - here for here, there in zip(last, place, strict=True)]
                segments.append(_digits([column - last_column, *steps]))
                last = place
            elif mapped:
                segments.append(_digits([column - last_column]))  # here the author's code ends
            if own or mapped:
                last_column = column
            mapped = own
        lines.append(",".join(segments))
    names = [source_map["sources"][number] for number in sources]
    return {"version": 3, "sources": names, "names": [], "mappings": ";".join(lines)}


@functools.cache
def _numbers(segment: str) -> tuple[int, ...]:
    """The numbers of a map's segment: 5 bits to a digit, the least first, the sign in the lowest bit."""
    numbers: list[int] = []
    number = shift = 0
    for digit in map(DIGITS.index, segment):
        number |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            numbers.append(-(number >> 1) if number & 1 else number >> 1)
            number = shift = 0
    return tuple(numbers)


def _digits(numbers: Sequence[int]) -> str:
    """A map's segment of these numbers."""
    text = ""
    for number in numbers:
        rest = -number << 1 | 1 if number < 0 else number << 1
        while rest > 31:
            text += DIGITS[rest & 31 | 32]
            rest >>= 5
        text += DIGITS[rest]
    return text


def _lock(project: Project, watcher: Watcher) -> None:
    """See that the lock file covers the entry's modules; say so where it had to be written."""
    configuration.refuse_links_out(project)
    binary = _deno(project, deno.host_platform(), watcher)
    try:
        is_new = graph.lock(binary, project)
    except graph.Refusal as error:
        raise _refusal(error.said, error.message) from None
    if is_new:
        path = configuration.lock_file(project) or configuration.LOCK
        watcher.step(f"Wrote {path}: from now on it decides the packages' versions")


def _refusal(said: str, what: str) -> DenoError:
    """Deno's words, without its progress, in an error of ours."""
    lines = [line for line in said.splitlines() if not re.match(r"(Download|Check|Bundled|⚠️) ", line)]
    text = "\n".join(lines).replace("error: ", "").strip()
    if "lockfile is out of date" in text:
        return DenoError(
            "deno.lock does not fit the imports",
            "run: lambdeno deno install --frozen=false, for a package that deno.json does not name with"
            " --entrypoint and the module that imports it; look at what changes",
            detail=text,
        )
    place = re.search(r"at (?:file://)?(\S+:\d+:\d+)", text)
    where = f" ({place[1].rpartition('/')[2]})" if place else ""
    first = text.partition("\n")[0].rstrip(".")
    hint = "mend it"
    if first.startswith("TS") and "Cannot find" not in first:
        hint = "mend the types, or set build.check = false in lambdeno.toml"
    elif "ailed reading lockfile" in text:
        hint = "take the lock file from version control, or remove it and have the build write another"
    elif re.search("error sending request|dns error|tcp connect error|[Cc]onnection refused", text):
        hint = "check the connection to the package registry, then build again"
    elif re.search("not found|Cannot find|does not exist|not a dependency", first):
        hint = "check the import, or add the package to the imports of deno.json"
    return DenoError(f"{what}: {first}{where}", hint, detail=text)


def _included(project: Project, held_back: set[str] | None = None) -> Iterator[Entry]:
    """The files that ``build.include`` names, each once, without those that must never ship.

    The names of those that may hold secrets are added to ``held_back``.
    """
    root = project.root.resolve()
    dist = project.dist.resolve()
    found: set[Path] = set()
    for pattern in project.build.include:
        ships, secrets = _matches(root, dist, pattern)
        found |= set(ships)
        if held_back is not None:
            held_back |= secrets
    for path in sorted(found):
        if _is_our_output(path):
            continue
        name, real = path.relative_to(root), path.resolve()
        if not real.is_relative_to(root):
            raise ProjectError(
                f'build.include would ship "{name}", a link out of the project',
                "copy the file into the project",
            )
        if real != path and (_never(root, dist, real) or sensitive.secret(_posix(root, real), real)):
            raise ProjectError(
                f'build.include would ship "{name}", a link to "{real.relative_to(root)}", which never ships',
                "leave it out",
            )
        yield Entry(name.as_posix(), path, os.access(path, os.X_OK))


def _included_folders(project: Project) -> Iterator[Path]:
    """The folders whose files a pattern of ``build.include`` may name."""
    root, dist = project.root.resolve(), project.dist.resolve()
    for pattern in project.build.include:
        parts = PurePosixPath(pattern).parts
        if _leaves(pattern):
            continue
        fixed = list(itertools.takewhile(lambda part: not re.search(r"[*?[]", part), parts[:-1]))
        seen: set[str] = set()
        for folder, names, _ in os.walk(root.joinpath(*fixed), followlinks=True):
            if os.path.realpath(folder) in seen:  # a link that leads to a folder above it
                names.clear()
                continue
            seen.add(os.path.realpath(folder))
            names[:] = [name for name in names if not _never(root, dist, Path(folder, name))]
            yield Path(folder)


def _is_our_output(path: Path) -> bool:
    """True for the file that this command prints to (``lambdeno dev > dev.log``): it is never at rest."""
    with contextlib.suppress(OSError, ValueError):
        return any(os.path.samestat(path.stat(), os.fstat(descriptor)) for descriptor in (1, 2))
    return False


def _leaves(pattern: str) -> bool:
    """True for a pattern that leads out of the project folder."""
    return PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts


def _matches(root: Path, dist: Path, pattern: str) -> tuple[list[Path], set[str]]:
    """The files that a pattern names and that may ship, and the names of those that may hold secrets.

    Raises ProjectError where no file may ship.
    """
    if _leaves(pattern):
        raise ProjectError(
            f'build.include has "{pattern}", which leaves the project folder',
            "name files in the project folder",
        )
    try:
        found = [path for path in root.glob(pattern) if not _never(root, dist, path) and path.is_file()]
    except (IndexError, ValueError):  # how Python 3.11 refuses "." and "**.json"
        raise ProjectError(
            f'build.include has "{pattern}", which is no pattern', "name files, such as data/*.json"
        ) from None
    secrets = {path: secret for path in found if (secret := sensitive.secret(_posix(root, path), path))}
    ships = [path for path in found if path not in secrets]
    if not ships and secrets:
        secret = next(iter(secrets.values()))
        raise ProjectError(
            f'build.include has "{pattern}", which names only files that never ship,'
            f" since they may hold secrets: {secret.name} ({secret.group})",
            "take it out; docs/reference.md has the list",
        )
    if not ships:
        raise ProjectError(
            f'build.include has "{pattern}", which matches no file that may ship',
            f"check the pattern; never shipped: dist, {', '.join(NEVER)}",
        )
    return ships, {secret.name for secret in secrets.values()}


def _never(root: Path, dist: Path, path: Path) -> bool:
    """True for files that are no part of a function: those of version control, npm, and the artefacts."""
    names = [part.lower() for part in path.relative_to(root).parts]
    return any(never in names for never in NEVER) or path.is_relative_to(dist)


def _posix(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _told(held_back: Collection[str]) -> str:
    """The note about files that may hold secrets."""
    names = sorted(held_back)
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return f"Not shipped, since they may hold secrets: {', '.join(names[:TOLD])}{more}"


def _layer_entries(project: Project, watcher: Watcher) -> list[Entry]:
    """/opt of the runtime layer without its code cache; the first entry is ``bootstrap``."""
    return _os_only(project, watcher) if project.shape == "os-only" else _managed()


def _os_only(project: Project, watcher: Watcher) -> list[Entry]:
    """One static binary with the layer's Python in it, the bridge, the dummy, the notices."""
    made = interpreter.bootstrap(project.architecture, layer_modules(), watcher.step)
    return [
        Entry("bootstrap", made.data, executable=True),
        *(Entry(f"lambdeno/{path.name}", _script(path)) for path in sorted(LAYER.glob("lambdeno/*.js"))),
        Entry("lambdeno/LICENSES.txt", made.licenses.encode()),
    ]


@functools.cache
def _script(path: Path) -> bytes:
    """A script of the layer with blank lines in place of comments, which Deno would read at each start.

    The lines keep their numbers, for stacks and for the debugger.
    """
    return SCRIPT_COMMENT.sub(lambda found: "\n" * found[0].count("\n"), path.read_text("utf-8")).encode()


def layer_modules() -> dict[str, Path]:
    """The layer's Python by its modules' names, the one with main first."""
    paths = {path.stem: path for path in sorted(LAYER.glob("lambdeno/*.py")) if path.stem != "__main__"}
    return {"bootstrap": paths.pop("bootstrap"), **paths}


def _managed() -> list[Entry]:
    """The files of layer/, and its Python compiled for this minor version.

    Compiling at start takes 8 ms of 37 ms; a .pyc takes a fraction (docs/decisions.md).
    """
    entries = [Entry("bootstrap", LAYER / "bootstrap", executable=True)]
    for path in sorted(path for path in LAYER.glob("lambdeno/*.*") if path.is_file()):
        entries.append(Entry(f"lambdeno/{path.name}", _script(path) if path.suffix == ".js" else path))
        if path.suffix == ".py" and path.stem != "__main__":
            tag = sys.implementation.cache_tag
            entries.append(Entry(f"lambdeno/__pycache__/{path.stem}.{tag}.pyc", _compiled(path)))
    return entries


@functools.cache
def _compiled(path: Path) -> bytes:
    """A .pyc that is taken unchecked (PEP 552), compiled in a fresh interpreter.

    In a running one the bytes depend on which strings happen to be shared.
    """
    program = (
        "import importlib._bootstrap_external as b, sys;"
        "source = open(sys.argv[1], 'rb').read();"
        "code = compile(source, sys.argv[2], 'exec', dont_inherit=True, optimize=2);"
        "sys.stdout.buffer.write(b._code_to_hash_pyc(code, b'\\0' * 8, False))"
    )
    # Without columns, which only mark places below a traceback's line: a third smaller.
    command = [
        sys.executable,
        "-ISB",
        "-X",
        "no_debug_ranges",
        "-c",
        program,
        str(path),
        f"/opt/lambdeno/{path.name}",
    ]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _write(path: Path, entries: list[Entry], watcher: Watcher) -> Zip:
    total = sum(entry.size for entry in entries)
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        watcher.progress(done, total)

    return archive.write(path, entries, progress)


def _unchanged(project: Project, kind: str, path: Path, entries: list[Entry]) -> Zip | None:
    """The zip of the last build, if it holds just these entries: its name is their digest."""
    last = manifest(project).get(kind, {})
    wanted = archive.digest(entries)
    if last.get("digest") != wanted or not path.is_file() or archive.sha256_of(path) != last.get("sha256"):
        return None
    unpacked = sum(entry.size for entry in entries)
    return Zip(path, wanted, last["sha256"], path.stat().st_size, unpacked, tuple(entries))


def _record(project: Project, artefact: Artefact, inputs: Inputs) -> Artefact:
    """Write the artefact into manifest.json, beside what else was built."""
    zipped = artefact.zip
    record(zipped.sha256, inputs.digests)
    row = {
        "file": zipped.path.name,
        "digest": zipped.digest,
        "sha256": zipped.sha256,
        "size": zipped.size,
        "unpacked": zipped.unpacked,
        **artefact.facts,
    }
    rows = {**manifest(project), artefact.kind: row}
    _write_beside(project.dist / SBOM, _json(sbom.document(project.name, rows)))
    _write_beside(project.dist / MANIFEST, _json(rows))
    return artefact


def _compact(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _write_beside(path: Path, content: bytes) -> None:
    try:
        atomic.write(path, content)
    except OSError as error:
        if obstacle := atomic.obstacle(path):
            raise BuildError(f'Cannot write "{path}": {obstacle}', "remove it, or move it away") from None
        raise BuildError(f'Cannot write "{path}": {error.strerror}', "free some space") from None
