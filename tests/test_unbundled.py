"""A function without a bundle: modules, packages and caches as they are, and nothing made at its start."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lambdeno import build, codecache, project, unbundled
from lambdeno.dev import local_function
from lambdeno.emulator import Function, ListSink, host_architecture, local_lambda
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.errors import DenoError, LambdenoError, ProjectError
from tests.registry import served_packages

pytestmark = pytest.mark.skipif(bool(bubblewrap_fault()), reason="no bubblewrap")

# Its modules are CommonJS, one of them requires node:fs, and one reads a file beside it.
WORDS = {
    "package.json": '{"name": "made-up", "version": "1.2.3", "main": "lib/index.js",'
    ' "dependencies": {"@made/less": "1"}}',
    "lib/index.js": "const words = [require('./words').word, require('@made/less').default];"
    " exports.words = () => words;",
    "lib/words.js": "const { readFileSync } = require('node:fs');"
    " exports.word = readFileSync(__dirname + '/../data/words.txt', 'utf8');",
    "data/words.txt": "data",
    "types/never.d.ts": "export {};",
}
LESS = {
    "package.json": '{"name": "@made/less", "version": "1.0.0", "type": "module", "exports": "./index.js"}',
    "index.js": "export { word as default } from './word.js';",
    "word.js": "export const word = 'less';",
}
UNUSED = {"package.json": '{"name": "unused", "version": "1.0.0"}', "index.js": ""}
TRANSPILED = "Error saving emit data"  # what Deno says then, for it cannot write it down
REMOTE = {"mod.ts": "export const remote: string = 'remote';"}

MAIN = """
import made from "made-up";
import { greet, type Greeting } from "@/greet.ts";
import { remote } from "REMOTE/mod.ts";

const permissions = ["run", "ffi", "read", "env"] as const;

export async function handler(event: { name?: string }): Promise<unknown> {
  if (event.name === "throw") {
    const greeting: Greeting = { name: "nobody" };
    throw new TypeError(greet(greeting));
  }
  if (event.name === "later") return (await import("./later.ts")).later;
  if (event.name === "permissions") {
    return await Promise.all(permissions.map(async (name) => (await Deno.permissions.query({ name })).state));
  }
  if (event.name === "worker") {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    return await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  }
  return [greet({ name: event.name ?? "deno" }), made.words(), remote, import.meta.url, Deno.cwd()];
}
"""
FILES = {
    "src/main.ts": MAIN,
    "src/greet.ts": "export interface Greeting {\n  name: string;\n}\n\n"
    "export const greet = ({ name }: Greeting): string => `hello ${name}`;\n",
    "src/later.ts": "export const later: string = 'later';\n",
    "src/worker.ts": "import { greet } from '@/greet.ts';\n"
    "(self as unknown as Worker).postMessage(greet({ name: 'worker' }));\n",
    "src/never.ts": "export const never = 1;\n",
    "secret.pem": "no\n",
    "deno.json": """{
  // what is not imported is not needed
  "imports": { "made-up": "npm:made-up@1", "unused": "npm:unused@1", "@/": "./src/" }
}
""",
    "lambdeno.toml": 'name = "plain"\nbuild.bundle = false\nbuild.include = ["src/worker.ts"]\n',
}


@dataclass(frozen=True)
class Site:
    """A project, and the address that its packages came from."""

    folder: Path
    address: str


def write(folder: Path, files: Mapping[str, str], address: str) -> Path:
    """A project's files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("REMOTE", address))
    toml = folder / "lambdeno.toml"
    permissions = json.dumps(["--allow-env", f"--allow-import={address.removeprefix('http://')}"])
    head = f'architecture = "{host_architecture()}"\ndeno.permissions = {permissions}\n'
    toml.write_text(head + toml.read_text())
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A built project; when the tests run, what it was built from can no longer be had."""
    folder = tmp_path_factory.mktemp("plain") / "project"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DENO_DIR", str(folder.parent / "cache"))  # the developer's, which is empty
        with served_packages(WORDS, LESS, UNUSED, modules=REMOTE) as address:
            monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
            write(folder, FILES, address)
            build.build(project.load(folder))
        yield Site(folder, address)


@pytest.fixture
def copy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project for a test to change, with the developer's cache and without a network."""
    monkeypatch.setenv("DENO_DIR", str(site.folder.parent / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", site.address)
    return shutil.copytree(site.folder, tmp_path / "copy")


def listed(folder: Path) -> dict[str, bytes]:
    """The files of function.zip."""
    with zipfile.ZipFile(folder / "dist/function.zip") as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def answers(function: Function, *events: Any, sandbox: str = "bubblewrap") -> tuple[list[Any], str]:
    """What the function makes of these events, and Deno's own log."""
    log = ListSink()
    function = replace(function, environment={**function.environment, "DENO_LOG": "debug"})
    found = []
    with local_lambda(function, sandbox=sandbox, log=log) as local:
        for event in events:
            done = local.invoke(function.name, json.dumps(event).encode())
            found.append(json.loads(done.payload))
    return found, "\n".join(log.lines)


EXPECTED: list[Any] = ["hello deno", ["data", "less"], "remote", "file:///var/task/src/main.ts", "/var/task"]


def test_what_ships(site: Site) -> None:
    """The modules that the entry imports, their configuration, their packages, what was compiled of them."""
    found = listed(site.folder)
    npm = f".deno_dir/{unbundled.NPM}/"
    remote = {name for name in found if name.startswith(".deno_dir/remote/http/127.0.0.1")}
    compiled = {name for name in found if name.startswith(".deno_dir/gen/http/127.0.0.1")}
    assert len(remote) == len(compiled) == 1
    assert set(found) - remote - compiled == {
        *("deno.json", "deno.lock", "src/main.ts", "src/greet.ts", "src/later.ts", "src/worker.ts"),
        *(f"{npm}made-up/1.2.3/{name}" for name in WORDS),
        *(f"{npm}@made/less/1.0.0/{name}" for name in LESS),
        *(f".deno_dir/gen/file/var/task/src/{name}.ts.js" for name in ("main", "greet", "later", "worker")),
        *(f".deno_dir/{name}" for name in codecache.FILES),
    }


@pytest.mark.parametrize("shape", ["os-only", "managed"])
@pytest.mark.parametrize("runtime", ["runtime1", "runtime2"])
def test_nothing_is_made_at_its_start(copy: Path, shape: str, runtime: str) -> None:
    """It runs from a task root that cannot be written; Deno fetches nothing, V8 compiles nothing."""
    toml = copy / "lambdeno.toml"
    toml.write_text(f'shape = "{shape}"\nruntime = "{runtime}"\n' + toml.read_text())
    function = local_function(project.load(copy))
    [found], log = answers(function, {})
    assert found == EXPECTED
    assert codecache.misses(log, unpacked(copy)) == set()
    hits = codecache.hits(log)
    modules = [f"file:///var/task/src/{name}.ts" for name in ("main", "greet")]
    packages = [f"made-up/1.2.3/lib/{name}.js" for name in ("index", "words")] + ["@made/less/1.0.0/word.js"]
    npm = f"file:///var/task/.deno_dir/{unbundled.NPM}/"
    assert {*modules, *(npm + name for name in packages), "file:///opt/lambdeno/runtime.js"} <= hits
    assert TRANSPILED not in log


def unpacked(folder: Path) -> Path:
    """The task root of a built project."""
    task = folder.parent / "task"
    shutil.rmtree(task, ignore_errors=True)
    task.mkdir()
    with zipfile.ZipFile(folder / "dist/function.zip") as zipped:
        zipped.extractall(task)
    return task


@pytest.mark.parametrize("part", ["gen/file/var/task/src/greet.ts.js", "v8_code_cache_v2"])
def test_the_proof_can_fail(site: Site, part: str) -> None:
    """What a build has left out is made at each start, which Deno's log tells."""
    task = unpacked(site.folder)
    (task / ".deno_dir" / part).unlink()
    function = replace(local_function(project.load(site.folder)), code=task)
    [found], log = answers(function, {})
    assert found == EXPECTED
    is_found = TRANSPILED in log if part.startswith("gen") else bool(codecache.misses(log, task))
    assert is_found


def test_it_behaves_as_a_bundle_does(site: Site) -> None:
    """Stacks have TypeScript's lines, late imports and workers load, the least permissions hold."""
    function = local_function(project.load(site.folder))
    events = [{"name": name} for name in ("throw", "later", "permissions", "worker")]
    (thrown, later, permissions, worker), log = answers(function, *events)
    assert (thrown["errorType"], thrown["errorMessage"]) == ("TypeError", "hello nobody")
    assert thrown["trace"][1].endswith("file:///var/task/src/main.ts:11:11)")
    assert later == "later"
    assert permissions == ["prompt", "prompt", "prompt", "granted"]
    assert worker == "hello worker"
    assert TRANSPILED not in log


def test_the_same_files_wherever_it_is_built(copy: Path, site: Site) -> None:
    """Neither the folder, nor the time, nor what Deno had in its cache is in the zip."""
    before = listed(copy)
    shutil.rmtree(copy / "dist")
    made = build.build_function(project.load(copy))
    assert listed(copy) == before
    assert made.zip.digest == build.manifest(project.load(site.folder))["function"]["digest"]


def test_a_change_is_in_the_next_build(copy: Path) -> None:
    """Without a network, from the developer's cache."""
    (copy / "src/greet.ts").write_text(FILES["src/greet.ts"].replace("`hello ", "`hi "))
    [found], _ = answers(local_function(project.load(copy)), {})
    assert found == ["hi deno", *EXPECTED[1:]]


def test_without_a_code_cache_nothing_is_transpiled_either(copy: Path) -> None:
    """build.code_cache is about what V8 compiles."""
    toml = copy / "lambdeno.toml"
    toml.write_text("build.code_cache = false\n" + toml.read_text())
    function = local_function(project.load(copy))
    assert not {f".deno_dir/{name}" for name in codecache.FILES} & set(listed(copy))
    [found], log = answers(function, {})
    assert found == EXPECTED
    assert TRANSPILED not in log


def test_it_runs_without_a_sandbox(site: Site) -> None:
    """Under other paths than Lambda's the caches do not serve, and all else does."""
    [found], _ = answers(local_function(project.load(site.folder)), {}, sandbox="paths")
    assert found[:3] == EXPECTED[:3]


def test_dev_has_it_as_it_is(copy: Path, tmp_path: Path) -> None:
    """The modules are laid out, and Deno does what a build would have done ahead."""
    loaded = project.load(copy)
    build.bundle_into(tmp_path / "code", loaded)
    function = local_function(loaded)
    [found], log = answers(replace(function, code=tmp_path / "code"), {})
    assert found == EXPECTED
    assert "V8 code cache hit for ES module: file:///var/task/" not in log


# --- How imports are resolved ------------------------------------------------------------------

PLAIN = {"lambdeno.toml": 'name = "plain"\nbuild.bundle = false\nbuild.check = false\n'}
FIRST = "export const handler = (): string => made.words()[0];\n"


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {"src/main.ts": "import made from 'npm:made-up@1';" + FIRST},
            id="nothing",
        ),
        pytest.param(
            {
                "package.json": '{"type": "module", "dependencies": {"made-up": "1"}}',
                "src/main.ts": "import made from 'made-up';" + FIRST,
            },
            id="package.json",
        ),
        pytest.param(
            {
                "deno.jsonc": '{"importMap": "./maps/map.json"} // a map of its own',
                "maps/map.json": '{"imports": {"made-up": "npm:made-up@1"}}',
                "src/main.ts": "import made from 'made-up';" + FIRST,
            },
            id="import map",
        ),
        pytest.param(
            {
                "deno.json": '{"workspace": ["./parts/one"]}',
                "parts/one/deno.json": '{"name": "@parts/one", "version": "1.0.0", "exports": "./mod.ts",'
                ' "imports": {"made-up": "npm:made-up@1"}}',
                "parts/one/mod.ts": "export { default as made } from 'made-up';",
                "src/main.ts": "import { made } from '@parts/one';" + FIRST,
            },
            id="workspace",
        ),
        pytest.param(
            {
                "deno.json": '{"imports": {"made-up": "npm:made-up@1"}, "lock": false}',
                "src/main.ts": "import made from 'made-up';\n"
                "import data from './data.json' with { type: 'json' };\n" + FIRST.replace("0", "data.number"),
                "src/data.json": '{"number": 0}',
            },
            id="json",
        ),
    ],
)
def test_imports_are_resolved_as_deno_does(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    """By deno.json, a map, package.json, or not at all: what Deno reads for it ships."""
    monkeypatch.setenv("DENO_DIR", str(tmp_path / "cache"))
    with served_packages(WORDS, LESS) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        folder = write(tmp_path / "project", {**PLAIN, **files}, address)
        build.build_function(project.load(folder))
    function = replace(local_function(project.load(site.folder)), code=folder / "dist/function.zip")
    assert answers(function, {})[0] == ["data"]


# --- What cannot be built ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "kind", "parts"),
    [
        (
            {"src/greet.ts": "export * from '../../outside.ts';", "../outside.ts": FILES["src/greet.ts"]},
            ProjectError,
            ["outside.ts", "outside the project folder"],
        ),
        ({"src/greet.ts": FILES["src/greet.ts"] + "import './missing.ts';"}, DenoError, ["missing.ts"]),
        (
            {"src/greet.ts": FILES["src/greet.ts"] + "import 'npm:missing@1';"},
            DenoError,
            ['"missing"', "greet.ts:6:8"],
        ),
        ({"src/greet.ts": "export const greet = ;"}, DenoError, ["greet.ts:1:22"]),
        (
            {"src/greet.ts": FILES["src/greet.ts"] + "throw new RangeError('at once');"},
            LambdenoError,
            ["RangeError", "at once"],
        ),
    ],
)
def test_what_cannot_be_built_is_told(
    copy: Path, files: dict[str, str], kind: type[LambdenoError], parts: list[str]
) -> None:
    """A module that is missing, is outside or does not load fails the build, and is named."""
    toml = copy / "lambdeno.toml"
    toml.write_text("build.check = false\n" + toml.read_text())
    for name, text in files.items():
        (copy / name).write_text(text)
    with pytest.raises(kind) as raised:
        build.build_function(project.load(copy))
    for part in parts:
        assert part in f"{raised.value.message} {raised.value.hint}"


# --- A function that carries its own runtime ---------------------------------------------------

SHAPES: dict[str, dict[str, str]] = {
    "os-only": {},
    "managed": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/bootstrap"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["built", "written"])
def test_a_function_needs_no_layers(copy: Path, tmp_path: Path, shape: str, kind: str) -> None:
    """The bootstrap and bin/deno beside the function's files, all in /var/task; nothing in /opt."""
    toml = copy / "lambdeno.toml"
    toml.write_text(f'shape = "{shape}"\n' + toml.read_text())
    made = local_function(project.load(copy))
    task = tmp_path / "task"
    for path in (*made.layers, made.code):
        with zipfile.ZipFile(path) as zipped:
            for item in zipped.infolist():
                if path != made.code or kind == "built":
                    (task / zipped.extract(item, task)).chmod(item.external_attr >> 16)
    environment = {**made.environment, **SHAPES[shape]}
    if kind == "written":  # as the community layer's users do
        (task / "hello.ts").write_text("export const handler = (event: unknown): unknown => [event];")
        made = replace(made, handler="hello.handler")
        del environment["HANDLER_EXT"]
    function = replace(made, code=task, layers=(), environment=environment)
    [found], _ = answers(function, {})
    assert found == (EXPECTED if kind == "built" else [{}])


def test_packages_that_nobody_imports_are_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dependencies of package.json that the entry does not import are downloaded by no build and no start."""
    folder = tmp_path / "project"
    files = {
        "package.json": '{"name": "mine", "dependencies": {"made-up": "1.2.3", "unused": "1.0.0"},'
        ' "devDependencies": {"@made/less": "1.0.0"}}',
        "src/main.ts": "import made from 'made-up';\nexport const handler = () => made.words();\n",
        "lambdeno.toml": 'name = "plain"\nbuild.bundle = false\nbuild.check = false\n',
    }
    monkeypatch.setenv("DENO_DIR", str(tmp_path / "cache"))
    with served_packages(WORDS, LESS, UNUSED) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        write(folder, files, address)
        build.build(project.load(folder))
    found = listed(folder)
    assert json.loads(found["package.json"])["dependencies"] == {"made-up": "1.2.3"}
    assert json.loads(found["package.json"])["name"] == "mine"
    assert not [name for name in found if "/unused/" in name]
    [words], _ = answers(local_function(project.load(folder)), {})
    assert words == ["data", "less"]
