"""``build``: the three artefacts, each in ``dist/``, and manifest.json about them.

Deno layer      the verified binary
runtime layer   os-only: bootstrap as one binary; managed: layer/ as it is, compiled; + code cache
function        deno check -> deno bundle -> + source map + code cache + included files
                or its modules as they are: unbundled.py
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

import lambdeno
from lambdeno import archive, codecache, deno, interpreter, sbom, unbundled
from lambdeno.archive import Entry, Zip
from lambdeno.emulator import Function, host_architecture
from lambdeno.errors import ArtifactError, BuildError, DenoError, ProjectError
from lambdeno.project import Project, Runtime2

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
    "fill_code_cache",
    "function_stands",
    "lambda_runtime",
    "layer_modules",
    "manifest",
    "up_to_date",
]

KINDS = ("deno-layer", "runtime-layer", "function")
MANIFEST = "manifest.json"
SBOM = "sbom.json"
LAYER = Path(str(resources.files("lambdeno").joinpath("layer")))
BUNDLE = "function.bundle.js"
SOURCE_MAP = "function.bundle.js.map"
PACKAGE = ("deno.json", "deno.jsonc", "package.json")  # one of them makes a folder a package
CACHED = re.compile(r"/npm/(?:[^/]+/)+?((?:@[^/]+/)?[^/@]+)/(\d+\.\d+\.\d+[^/]*)/(.+)")  # in Deno's cache
FOREIGN = re.compile(r"[a-z]+:|(?:.*/)?node_modules/")  # a source that the author did not write
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # of a map's numbers
NEVER = (
    ".env",
    ".env.*",
    ".git",
    ".aws",
    ".npmrc",
    ".ssh",
    "node_modules",
    "*.pem",
    "*.key",
    "dist",
)
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
    return _record(project, Artefact("deno-layer", zipped, facts))


def build_runtime_layer(project: Project, watcher: Watcher = Watcher()) -> Artefact:
    """``runtime-layer.zip``: /opt/bootstrap and /opt/lambdeno."""
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
    return _record(project, Artefact("runtime-layer", zipped, facts, tuple(notes)))


def build_function(project: Project, watcher: Watcher = Watcher()) -> Artefact:
    """``function.zip``: function.bundle.js, its code cache, and what ``build.include`` names."""
    entry = project.root / project.entry
    if not entry.is_file():
        raise ProjectError(
            f'No entry file "{entry}"', 'create it, or name another as "entry" in lambdeno.toml'
        )
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
    entries = list(_included(project))
    if project.build.bundle:
        watcher.step(f"Bundle {project.entry}")
        bundle, source_map = _bundle(host, project)
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
    return _record(project, Artefact("function", zipped, facts, tuple(notes)))


def fill_code_cache(folder: Path, project: Project) -> None:
    """Give a function that lies in a folder a code cache, as ``.deno_dir``. Raises BuildError."""
    _fill_folder(folder, project, _layer_entries(project, Watcher()), Watcher())


def check_types(project: Project) -> None:
    """What ``deno check`` says of the entry. Raises DenoError."""
    _check(_deno(project, deno.host_platform(), Watcher()), project)


def bundle_into(folder: Path, project: Project, *, for_debugger: bool = False) -> None:
    """The function's files in a folder, as fast as they can be had: not minified, without a code cache.

    For a debugger the bundle carries its map and the sources' text. Raises LambdenoError.
    """
    if not project.build.bundle:
        codecache.lay_out(folder, _gathered(_deno(project, deno.host_platform(), Watcher()), project)[0])
        return
    plain = msgspec.structs.replace(project, build=msgspec.structs.replace(project.build, minify=False))
    bundle, source_map = _bundle(_deno(project, deno.host_platform(), Watcher()), plain)
    entries = list(_included(project))
    if for_debugger:
        root = project.root.resolve().as_uri() + "/"  # so that an editor finds its own files
        encoded = base64.b64encode(_compact({**source_map, "sourceRoot": root})).decode()
        bundle += f"//# sourceMappingURL=data:application/json;base64,{encoded}\n"
    else:
        bundle += f"//# sourceMappingURL={SOURCE_MAP}\n"
        entries.append(Entry(SOURCE_MAP, _compact(_own_code(source_map))))
    codecache.lay_out(folder, [*entries, Entry(BUNDLE, bundle.encode())])


def up_to_date(
    project: Project, watcher: Watcher = Watcher(), kinds: Collection[str] = KINDS
) -> dict[str, Any]:
    """The manifest, after building what is missing of these kinds or older than what it is made from."""
    rows = manifest(project)
    deno_facts = {"version": project.deno.version, "architecture": project.architecture}
    if "deno-layer" in kinds and not _stands(project, rows.get("deno-layer"), deno_facts):
        build_deno_layer(project, watcher)
    if kinds == ("deno-layer",):
        return manifest(project)
    runtime = _runtime_facts(project, _layer_entries(project, watcher))
    if "runtime-layer" in kinds and not _stands(project, rows.get("runtime-layer"), runtime):
        build_runtime_layer(project, watcher)
    if "function" in kinds and not function_stands(project):
        build_function(project, watcher)
    return manifest(project)


def function_stands(project: Project) -> bool:
    """Whether ``function.zip`` is there, made from the files, the layer and the Deno that are."""
    source = archive.digest(_layer_entries(project, Watcher()))
    facts = {"runtime": source, "deno": project.deno.version}
    return _stands(project, manifest(project).get("function"), facts) and not _edited(project)


def _stands(project: Project, row: dict[str, Any] | None, facts: dict[str, Any]) -> bool:
    """Whether an artefact is there as the manifest has it, and made from these facts."""
    if row is None or any(row.get(key) != value for key, value in facts.items()):
        return False
    path = project.dist / row["file"]
    return path.is_file() and bool(path.stat().st_size == row["size"])


def _edited(project: Project) -> bool:
    """Whether a file of the project is newer than function.zip."""
    built = (project.dist / "function.zip").stat().st_mtime_ns
    for folder, names, files in os.walk(project.root):
        names[:] = [name for name in names if name not in ("dist", "node_modules", ".git")]
        if any(_changed(Path(folder, name)) > built for name in files):
            return True
    return False


def _changed(path: Path) -> int:
    """When a file was last written, in ns; 0 for what leads nowhere, as an editor's lock does."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


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
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
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
    with tempfile.TemporaryDirectory(prefix="lambdeno-task-") as folder:
        codecache.lay_out(Path(folder), task)
        return _fill_folder(Path(folder), project, layer, watcher, is_dummy=not task)


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
    done = deno.run(binary, ["check", *_lock(project), *project.deno.imports, project.entry], project.root)
    if done.returncode:
        raise _refusal(done.stderr, f'"{project.entry}" does not pass deno check')


def _bundle(binary: deno.Binary, project: Project) -> tuple[str, dict[str, Any]]:
    """The bundle and its source map."""
    with tempfile.TemporaryDirectory(prefix="lambdeno-bundle-") as folder:
        output = Path(folder) / BUNDLE
        arguments = [
            "bundle",
            "--platform",
            "deno",
            "--sourcemap=external",
            *(["--minify"] if project.build.minify else []),
            *(["--keep-names"] if project.build.keep_names else []),
            *_lock(project),
            *project.deno.imports,
        ]
        done = deno.run(binary, [*arguments, "-o", output, project.entry], project.root)
        if done.returncode or not output.is_file():
            raise _refusal(done.stderr, f'Cannot bundle "{project.entry}"')
        source_map = json.loads(Path(folder, SOURCE_MAP).read_bytes())
        # esbuild writes the sources relative to the output folder, which is a new one each time.
        source_map["sources"] = [_from_root(name, folder, project.root) for name in source_map["sources"]]
        bundle = _as_mapped(output.read_bytes().decode())
        places = _places(bundle)
        return places + bundle, _moved(source_map, len(places))


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
    with tempfile.TemporaryDirectory(prefix="lambdeno-modules-") as folder:
        try:
            return unbundled.gather(binary, project, _included(project), Path(folder))
        except unbundled.Refusal as error:
            raise _refusal(error.said, error.message) from None


def _transpiled(opt: list[Entry], project: Project, entries: list[Entry], starts: list[str]) -> list[Entry]:
    """What Deno makes of a function's modules, which it would do at each start; nothing where it cannot."""
    if codecache.obstacle(host_architecture()):
        return []
    with tempfile.TemporaryDirectory(prefix="lambdeno-task-") as folder:
        task = Path(folder)
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


def _from_root(source: str, output: str, root: Path) -> str:
    """A source as the project folder sees it, the same on every machine.

    What lies outside goes by its package, or its folder. Deno writes paths as URLs.
    """
    if re.match("[a-z]+://", source):
        url = urlsplit(source)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"  # no credentials, no token
    path, home = Path(os.path.normpath(Path(output, unquote(source)))), root.resolve()
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


def _lock(project: Project) -> list[str]:
    """deno.lock is law where there is one: no version changes behind the author's back."""
    return ["--frozen"] if (project.root / "deno.lock").exists() else []


def _refusal(said: str, what: str) -> DenoError:
    """Deno's words, without its progress, in an error of ours."""
    lines = [line for line in said.splitlines() if not re.match(r"(Download|Check|Bundled|⚠️) ", line)]
    text = "\n".join(lines).replace("error: ", "").strip()
    if "lockfile is out of date" in text:
        return DenoError(
            "deno.lock does not fit the imports",
            "run: lambdeno deno install, and look at what changes",
            detail=text,
        )
    place = re.search(r"at (?:file://)?(\S+:\d+:\d+)", text)
    where = f" ({place[1].rpartition('/')[2]})" if place else ""
    first = text.partition("\n")[0].rstrip(".")
    hint = "mend it"
    if first.startswith("TS") and "Cannot find" not in first:
        hint = "mend the types, or set build.check = false in lambdeno.toml"
    elif re.search("not found|Cannot find|does not exist|not a dependency", first):
        hint = "check the import, or add the package to the imports of deno.json"
    return DenoError(f"{what}: {first}{where}", hint, detail=text)


def _included(project: Project) -> Iterator[Entry]:
    """The files that ``build.include`` names, each once, without those that must never ship."""
    root = project.root.resolve()
    for path in sorted({path for pattern in project.build.include for path in _matches(root, pattern)}):
        name, real = path.relative_to(root), path.resolve()
        if not real.is_relative_to(root):
            raise ProjectError(
                f'build.include would ship "{name}", a link out of the project',
                "copy the file into the project",
            )
        if not _may_ship(real.relative_to(root)):
            raise ProjectError(
                f'build.include would ship "{name}", a link to "{real.relative_to(root)}"',
                f"leave it out; never shipped: {', '.join(NEVER)}",
            )
        yield Entry(name.as_posix(), path, os.access(path, os.X_OK))


def _matches(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern names and that may ship. Raises ProjectError where there are none."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise ProjectError(
            f'build.include has "{pattern}", which leaves the project folder',
            "name files in the project folder",
        )
    try:
        found = [path for path in root.glob(pattern) if path.is_file() and _may_ship(path.relative_to(root))]
    except (IndexError, ValueError):  # how Python 3.11 refuses "." and "**.json"
        raise ProjectError(
            f'build.include has "{pattern}", which is no pattern', "name files, such as data/*.json"
        ) from None
    if not found:
        raise ProjectError(
            f'build.include has "{pattern}", which matches no file that may ship',
            f"check the pattern; never shipped: {', '.join(NEVER)}",
        )
    return found


def _may_ship(path: Path) -> bool:
    return not any(fnmatch(part.lower(), never) for part in path.parts for never in NEVER)


def _layer_entries(project: Project, watcher: Watcher) -> list[Entry]:
    """/opt of the runtime layer without its code cache; the first entry is ``bootstrap``."""
    return _os_only(project, watcher) if project.shape == "os-only" else _managed()


def _os_only(project: Project, watcher: Watcher) -> list[Entry]:
    """One static binary with the layer's Python in it, the bridge, the dummy, the notices."""
    made = interpreter.bootstrap(project.architecture, layer_modules(), watcher.step)
    return [
        Entry("bootstrap", made.data, executable=True),
        *(Entry(f"lambdeno/{path.name}", path) for path in sorted(LAYER.glob("lambdeno/*.js"))),
        Entry("lambdeno/LICENSES.txt", made.licenses.encode()),
    ]


def layer_modules() -> dict[str, Path]:
    """The layer's Python by its modules' names, the one with main first."""
    paths = {path.stem: path for path in sorted(LAYER.glob("lambdeno/*.py")) if path.stem != "__main__"}
    return {"bootstrap": paths.pop("bootstrap"), **paths}


def _managed() -> list[Entry]:
    """The files of layer/ as they are, and the Python compiled for this minor version.

    Compiling at start takes 8 ms of 37 ms; a .pyc takes a fraction (docs/decisions.md).
    """
    entries = [Entry("bootstrap", LAYER / "bootstrap", executable=True)]
    for path in sorted(path for path in LAYER.glob("lambdeno/*.*") if path.is_file()):
        entries.append(Entry(f"lambdeno/{path.name}", path))
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


def _record(project: Project, artefact: Artefact) -> Artefact:
    """Write the artefact into manifest.json, beside what else was built."""
    zipped = artefact.zip
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
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BuildError(f'Cannot write "{path}": {error.strerror}', "free some space") from None
