"""Functions of the archived community layer (denoland/deno-lambda), with nothing changed but the layer.

The variables are those of its README and bootstrap; what they meant there, they mean here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.layer.conftest import LAYER, Environment, Start, this_python
from tests.layer.fake_runtime_api import FakeRuntimeApi
from tests.registry import served_packages

HELLO = """
export async function handler(event: { name: string }, _context: unknown): Promise<string> {
  return await `hello ${event.name}`;
}
"""
# Runs the JavaScript that its event is.
RUNS = """
export const handler = async (code: string): Promise<unknown> => {
  const AsyncFunction = (async (): Promise<void> => {}).constructor as FunctionConstructor;
  return await new AsyncFunction(code)() ?? null;
};
"""
PERMISSIONS = """const found = {};
for (const name of ["read", "write", "net", "env", "sys", "run", "ffi"]) {
  found[name] = (await Deno.permissions.query({ name })).state;
}
return found;"""
EVERYTHING = dict.fromkeys(("read", "write", "net", "env", "sys", "run", "ffi"), "granted")


@pytest.fixture(params=["source-runtime1", "binary-runtime2"])
def combination(request: pytest.FixtureRequest) -> str:
    """That layer had one shape; ours has these."""
    name: str = request.param
    return name


@pytest.fixture
def hello(start: Start) -> Start:
    """Starts hello.ts, which runs the JavaScript that its event is, with the variables of a test."""

    def hello(files: Mapping[str, str] | None = None, **variables: str | None) -> Environment:
        settings = {"_HANDLER": "hello.handler", **variables}
        return start(None, files={"hello.ts": RUNS, **(files or {})}, **settings)

    return hello


def test_typescript_runs_as_it_is(start: Start) -> None:
    """hello.handler is the export "handler" of hello.ts; nothing is built and nothing set."""
    environment = start(None, files={"hello.ts": HELLO}, _HANDLER="hello.handler")
    assert environment.result({"name": "deno"}) == "hello deno"


@pytest.mark.parametrize("extension", ["js", "mjs", "mts", "tsx", "bundle.js"])
def test_handler_ext_is_the_extension(start: Start, extension: str) -> None:
    """HANDLER_EXT is what follows the file's name, whatever else is there."""
    source = "export const handler = () => import.meta.url.split('/').pop();"
    files = {f"api/hello.{extension}": source, "api/hello.ts": "export const handler = () => 'another';"}
    environment = start(None, files=files, _HANDLER="api/hello.handler", HANDLER_EXT=extension)
    assert environment.result() == f"hello.{extension}"


# --- DENO_PERMISSIONS --------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [None, "ts"])
def test_without_a_word_all_is_allowed(hello: Start, extension: str | None) -> None:
    """What lambdeno has not built may do all where nothing says what it may."""
    environment = hello(HANDLER_EXT=extension)
    assert environment.result(PERMISSIONS) == EVERYTHING


def test_the_runtime_api_is_denied_where_all_is_allowed(hello: Start, api: FakeRuntimeApi) -> None:
    """-A is of the function's world: the Runtime API is none of it."""
    call = f'return await fetch("http://{api.address}/2018-06-01/runtime/invocation/next").catch(String);'
    assert "Requires net access" in hello().result(call)


def test_a_bundle_of_ours_has_the_least_set(start: Start) -> None:
    """A function that lambdeno has built is allowed no more than before, whatever else is there."""
    environment = start(javascript(RUNS), files={"function.ts": RUNS})
    found = environment.result(PERMISSIONS)
    assert (found["run"], found["ffi"], found["net"]) == ("prompt", "prompt", "granted")


def javascript(source: str) -> str:
    """A function of this file without its types."""
    for words in (": string", ": Promise<unknown>", ": Promise<void>", " as FunctionConstructor"):
        source = source.replace(words, "")
    return source


@pytest.mark.parametrize(
    ("variables", "granted"),
    [
        ({"DENO_PERMISSIONS": "--allow-env  --allow-run=deno\t--allow-sys"}, {"env", "sys"}),
        ({"DENO_PERMISSIONS": "--allow-ffi"}, {"ffi"}),
        ({"DENO_PERMISSIONS": ""}, set()),
        ({"DENO_PERMISSIONS": "-A", "LAMBDENO_PERMISSIONS": "--allow-env"}, {"env"}),
        ({"DENO_PERMISSIONS": "-A", "LAMBDENO_PERMISSIONS": "default"}, {"net", "env", "sys"}),
        ({"DENO_PERMISSIONS": "-A", "LAMBDENO_PERMISSIONS": ""}, {"net", "env", "sys"}),
    ],
)
def test_permissions_are_words(hello: Start, variables: dict[str, str], granted: set[str]) -> None:
    """DENO_PERMISSIONS is split at blanks; empty it allows nothing; LAMBDENO_PERMISSIONS goes before it."""
    found = hello(**variables).result(PERMISSIONS)
    assert {name for name, state in found.items() if state == "granted"} == granted


def test_permissions_bind_a_bundle_too(start: Start) -> None:
    """DENO_PERMISSIONS says what a bundle may, as LAMBDENO_PERMISSIONS does."""
    environment = start(javascript(RUNS), DENO_PERMISSIONS="--allow-ffi")
    found = environment.result(PERMISSIONS)
    assert {name for name, state in found.items() if state == "granted"} == {"ffi"}


# --- DENO_CONFIG, DENO_IMPORTMAP, DENO_LOCATION, DENO_UNSTABLE ---------------------------------

MAPPED = "import { word } from 'words/one.ts'; export const handler = (): string => word;"
WORDS = {"lib/one.ts": "export const word: string = 'one';"}
MAP = json.dumps({"imports": {"words/": "./lib/"}})
ABOVE = json.dumps({"imports": {"words/": "../lib/"}})


@pytest.mark.parametrize(
    ("files", "variables"),
    [
        ({"deno.json": MAP}, {}),
        ({"deno.jsonc": "// of a comment\n" + MAP}, {}),
        ({"config/tasks.json": ABOVE}, {"DENO_CONFIG": "config/tasks.json"}),
        ({"config/tasks.json": ABOVE, "deno.json": "{}"}, {"DENO_CONFIG": "./config/tasks.json"}),
        ({"import_map.json": MAP}, {"DENO_IMPORTMAP": "import_map.json"}),
        ({"maps/one.json": ABOVE, "deno.json": "{}"}, {"DENO_IMPORTMAP": "maps/one.json"}),
    ],
)
def test_names_are_mapped(start: Start, files: dict[str, str], variables: dict[str, str]) -> None:
    """By deno.json where it is there, by what DENO_CONFIG or DENO_IMPORTMAP name from the task root on."""
    environment = start(
        None, files={"hello.ts": MAPPED, **WORDS, **files}, _HANDLER="hello.handler", **variables
    )
    assert environment.result() == "one"


def test_settings_of_modules_reach_a_bundle(start: Start) -> None:
    """A bundle that imports at run time has an import map and a location too."""
    bundle = "export const handler = async () => [(await import('words/one.js')).word, location.href];"
    environment = start(
        bundle,
        files={"lib/one.js": "export const word = 1;", "map.json": MAP},
        DENO_IMPORTMAP="map.json",
        DENO_LOCATION="https://example.com/a",
    )
    assert environment.result() == [1, "https://example.com/a"]


def test_the_location_is_told(hello: Start) -> None:
    """DENO_LOCATION is what relative URLs are relative to; without it there is none."""
    code = (
        "return [globalThis.location?.href ?? null, new URL('x', globalThis.location ?? 'https://b/').href];"
    )
    found = hello(DENO_LOCATION="https://example.com/a/").result(code)
    assert found == ["https://example.com/a/", "https://example.com/a/x"]


@pytest.mark.parametrize(
    ("value", "there"),
    [
        ("1", {"openKv", "cron", "listenDatagram"}),
        ("true", {"openKv", "cron", "listenDatagram"}),
        ("kv,cron", {"openKv", "cron"}),
        ("cron", {"cron"}),
        ("sloppy-imports kv", {"openKv"}),
        ("", set()),
        (None, set()),
    ],
)
def test_unstable_is_what_is_named(hello: Start, value: str | None, there: set[str]) -> None:
    """DENO_UNSTABLE holds Deno 2's names; any other word means all that --unstable was."""
    code = "return ['openKv', 'cron', 'listenDatagram'].filter((name) => name in Deno);"
    assert set(hello(DENO_UNSTABLE=value).result(code)) == there


@pytest.mark.parametrize("combination", ["source-runtime1", "source-runtime2"])
def test_paths_are_relative_to_the_task_root(start: Start) -> None:
    """The process stands in the task root, wherever the bootstrap was started."""
    environment = start(
        None,
        files={"hello.ts": RUNS, "data/word.txt": "here"},
        command=["env", "-C", "/", this_python(), "-ISB", LAYER / "lambdeno/__main__.py", LAYER],
        _HANDLER="hello.handler",
    )
    assert environment.result("return Deno.readTextFileSync('data/word.txt');") == "here"


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({}, "-A --no-check"),
        ({"DENO_PERMISSIONS": "--allow-env --allow-net"}, "--allow-env --allow-net --no-check"),
        (
            {"DENO_UNSTABLE": "kv", "DENO_LOCATION": "http://a/"},
            "-A --no-check --location=http://a/ --unstable-kv",
        ),
    ],
)
def test_a_function_can_read_its_flags(hello: Start, variables: dict[str, str], flags: str) -> None:
    """DENO_FLAGS has them, as there."""
    assert hello(**variables).result("return Deno.env.get('DENO_FLAGS');") == flags


def test_deno_is_on_the_path(hello: Start, deno_binary: Path, tmp_path: Path) -> None:
    """A function finds the deno that runs it, at the end of its PATH."""
    task = tmp_path / "task/bin"
    task.mkdir(parents=True)
    (task / "deno").symlink_to(deno_binary)
    code = """const command = new Deno.Command("deno", { args: ["eval", "console.log(6 * 7)"] });
const { stdout } = await command.output();
return [new TextDecoder().decode(stdout), Deno.env.get("PATH")];"""
    environment = hello(PATH="/usr/bin:/bin")
    assert environment.result(code) == ["42\n", f"/usr/bin:/bin:{task}"]


# --- DENO_DIR, DENO_LOCK -----------------------------------------------------------------------


PACKAGE = {
    "package.json": '{"name": "made-up", "version": "1.0.0", "main": "index.js"}',
    "index.js": """const fs = require("node:fs");
exports.word = fs.readFileSync(require("node:path").join(__dirname, "word.txt"), "utf8");""",
    "word.txt": "packaged",
}


Fill = Callable[[str, str], dict[str, str | None]]


@pytest.fixture
def filled(deno_binary: Path, tmp_path: Path) -> Fill:
    """Writes hello.ts, which has "word" from a module of another machine, and .deno_dir with what it needs.

    The other machine is gone when the function starts.
    """

    def fill(address: str, specifier: str) -> dict[str, str | None]:
        task = tmp_path / "task"
        task.mkdir()
        (task / "hello.ts").write_text(
            f"import * as it from '{specifier}';\n"
            "export const handler = (): string => (it as { word: string }).word;\n"
        )
        variables = {"DENO_DIR": str(task / ".deno_dir"), "NPM_CONFIG_REGISTRY": address}
        command: list[str | Path] = [deno_binary, "cache", "--allow-import", "hello.ts"]
        environment = {**os.environ, **variables}
        subprocess.run(command, cwd=task, env=environment, check=True, capture_output=True)
        return {"_HANDLER": "hello.handler", "NPM_CONFIG_REGISTRY": address}

    return fill


@pytest.fixture(params=["http", "npm"])
def cached(request: pytest.FixtureRequest, filled: Fill) -> tuple[str, dict[str, str | None]]:
    """A function with a DENO_DIR: what it answers, and its variables."""
    with served_packages(PACKAGE, modules={"mod.ts": "export const word: string = 'remote';"}) as address:
        if request.param == "http":
            return "remote", filled(address, f"{address}/mod.ts")
        return "packaged", filled(address, "npm:made-up@1")


@pytest.mark.parametrize(
    ("folder", "value"),
    [(".deno_dir", None), (".deno_dir", ""), ("cache/of/deno", "cache/of/deno"), ("there", "./there/")],
)
def test_what_the_function_ships_is_used(
    start: Start,
    cached: tuple[str, dict[str, str | None]],
    tmp_path: Path,
    folder: str,
    value: str | None,
) -> None:
    """DENO_DIR is a folder of the task root; nothing is written there, and nothing comes from the network."""
    word, variables = cached
    shipped = tmp_path / "task" / folder
    if folder != ".deno_dir":
        shipped.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task/.deno_dir").rename(shipped)
    before = contents(shipped)
    environment = start(None, DENO_DIR=value, **variables)
    assert environment.result() == word
    assert contents(shipped) == before


@pytest.mark.parametrize("permissions", ["", "--allow-env --allow-net", "--allow-import=example.com:443"])
def test_what_is_shipped_needs_no_permission(
    start: Start, cached: tuple[str, dict[str, str | None]], permissions: str
) -> None:
    """Modules of any host load, and packages find their data, unless somebody says which hosts."""
    word, variables = cached
    environment = start(None, DENO_PERMISSIONS=permissions, **variables)
    if word == "remote" and "import" in permissions:
        _, error = environment.init_error()
        assert error["errorType"] == "Runtime.PermissionDenied"
    else:
        assert environment.result() == word


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("specifier", ["npm:made-up@1", "http://127.0.0.1:9/mod.ts"])
def test_nothing_is_downloaded(start: Start, specifier: str) -> None:
    """What was not shipped is missing: an environment never waits for another machine's code."""
    source = f"import * as it from '{specifier}'; export const handler = (): unknown => it;"
    environment = start(None, files={"hello.ts": source}, _HANDLER="hello.handler")
    _, error = environment.init_error()
    assert error["errorType"] == "Runtime.ImportModuleError"
    assert "--cached-only" in error["errorMessage"]
    assert specifier.removeprefix("npm:").removesuffix("@1") in error["errorMessage"]


def test_the_lock_file_is_held_to(start: Start, filled: Fill) -> None:
    """A module that is not the one of DENO_LOCK is refused."""
    with served_packages(modules={"mod.ts": "export const word: string = 'remote';"}) as address:
        variables = filled(address, f"{address}/mod.ts")
    lock = json.dumps({"version": "5", "remote": {f"{address}/mod.ts": "0" * 64}})
    files = {"locks/lock.json": lock}
    environment = start(None, files=files, DENO_LOCK="locks/lock.json", **variables)
    environment.init_error()
    assert "Integrity check failed" in environment.log


@pytest.mark.parametrize("name", ["lock.json", "deno.lock"])
def test_a_lock_file_that_lacks_something_is_no_fault(
    start: Start, filled: Fill, tmp_path: Path, name: str
) -> None:
    """Deno would add to it, and the task root cannot be written: it stays as it is."""
    with served_packages(PACKAGE) as address:
        variables = filled(address, "npm:made-up@1")
    if name == "lock.json":
        variables["DENO_LOCK"] = name
    files = {name: '{"version":"5"}', "deno.json": "{}"}
    environment = start(None, files=files, **variables)
    assert environment.result() == "packaged"
    assert (tmp_path / "task" / name).read_text() == '{"version":"5"}'


# --- What cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("DENO_CONFIG", "missing.json", "missing.json"),
        ("DENO_IMPORTMAP", "missing.json", "missing.json"),
        ("DENO_LOCK", "missing.json", "missing.json"),
        ("DENO_LOCATION", "example.com", "http:"),
        ("DENO_PERMISSIONS", "--allow-net example.com", '"example.com"'),
        ("DENO_PERMISSIONS", "--deny-env", '"--deny-env"'),
    ],
)
def test_a_value_that_cannot_be_is_named(hello: Start, name: str, value: str, part: str) -> None:
    """The variable is named at init, with what is wrong."""
    environment = hello(**{name: value})
    _, error = environment.init_error()
    assert error["errorType"] == "Runtime.InvalidSetting"
    assert name in error["errorMessage"]
    assert part in error["errorMessage"]
    assert environment.folders() == []
