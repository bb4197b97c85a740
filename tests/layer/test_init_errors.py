"""Why an environment cannot start: each reason has its type, and names what to look at."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.layer.conftest import ECHO, Start
from tests.layer.fake_runtime_api import INIT_ERROR, FakeRuntimeApi, status

AARCH64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00" + bytes(40)


@pytest.mark.parametrize(
    ("handler", "bundle", "error_type", "parts"),
    [
        ("function.missing", ECHO, "Runtime.HandlerNotFound", ["function.bundle.js", '"missing"', "handler"]),
        ("function.handler", "", "Runtime.HandlerNotFound", ["function.bundle.js", '"handler"', "nothing"]),
        ("function.a.b", "export const a = {};", "Runtime.HandlerNotFound", ["function.bundle.js", '"a.b"']),
        ("function.a.b.c", "export const a = 1;", "Runtime.HandlerNotFound", ["function.bundle.js", "a.b.c"]),
        (
            "function.handler",
            "export const handler = 42;",
            "Runtime.HandlerNotFunction",
            ["function.bundle.js", '"handler"', "number", "not a function"],
        ),
        (
            "function.handler",
            "export const handler = null;",
            "Runtime.HandlerNotFunction",
            ["function.bundle.js", '"handler"', "null", "not a function"],
        ),
        ("other.handler", ECHO, "Runtime.BundleNotFound", ["other.bundle.js"]),
        ("folder/other.handler", ECHO, "Runtime.BundleNotFound", ["folder/other.bundle.js"]),
        ("handler", ECHO, "Runtime.MalformedHandlerName", ['"handler"', "<file>.<export>"]),
        ("", ECHO, "Runtime.MalformedHandlerName", ['""', "<file>.<export>"]),
        (".handler", ECHO, "Runtime.MalformedHandlerName", ['".handler"']),
        ("function.", ECHO, "Runtime.MalformedHandlerName", ['"function."']),
        ("../function.handler", ECHO, "Runtime.MalformedHandlerName", ['"../function.handler"']),
        ("function..handler", ECHO, "Runtime.MalformedHandlerName", ['"function..handler"']),
        (
            "function.handler",
            "export const handler = ;",
            "Runtime.UserCodeSyntaxError",
            ["function.bundle.js:1:"],
        ),
        *(
            ("function.handler", source, "Runtime.UserCodeSyntaxError", ["function.bundle.js:1"])
            for source in ("export const handler = () => {", "const a = 1; const a = 2;", "return 1;")
        ),
        (
            "function.handler",
            'import { nothing } from "./function.bundle.js"; export const handler = () => nothing;',
            "Runtime.ImportModuleError",
            ["nothing"],
        ),
        (
            "function.handler",
            'import "./missing.js"; export const handler = () => 1;',
            "Runtime.ImportModuleError",
            ["missing.js", "function.bundle.js"],
        ),
        (
            "function.handler",
            'import "https://unreachable.invalid/mod.js"; export const handler = () => 1;',
            "Runtime.ImportModuleError",
            ["https://unreachable.invalid/mod.js"],
        ),
        (
            "function.handler",
            'import "bare"; export const handler = () => 1;',
            "Runtime.ImportModuleError",
            ['"bare"', "function.bundle.js"],
        ),
    ],
)
def test_function_that_cannot_be_loaded(
    start: Start, handler: str, bundle: str, error_type: str, parts: list[str]
) -> None:
    """A function that cannot be loaded is reported once, with its file and export, and nothing is served."""
    environment = start(bundle, _HANDLER=handler)
    post, error = environment.init_error()
    assert post.error_type == error["errorType"] == error_type, error
    for part in parts:
        assert part in error["errorMessage"]
    assert error_type in environment.log


def test_handler_setting_may_be_missing(start: Start) -> None:
    """No _HANDLER at all is a malformed one."""
    post, _ = start(_HANDLER=None).init_error()
    assert post.error_type == "Runtime.MalformedHandlerName"


@pytest.mark.parametrize(
    ("handler", "file", "source"),
    [
        ("other.handler", "other.bundle.js", "export const handler = () => 'here';"),
        ("folder/other.run", "folder/other.bundle.js", "export const run = () => 'here';"),
        ("function.ns.handler", "function.bundle.js", "export const ns = { handler: () => 'here' };"),
        ("function.default", "function.bundle.js", "export default () => 'here';"),
        ("a b%20é#?.handler", "a b%20é#?.bundle.js", "export const handler = () => 'here';"),
    ],
)
def test_handler_names_file_and_export(start: Start, handler: str, file: str, source: str) -> None:
    """_HANDLER may name any bundle in the task root and any path of exports."""
    assert start(ECHO, files={file: source}, _HANDLER=handler).result() == "here"


@pytest.mark.parametrize(
    ("source", "error_type", "message", "header"),
    [
        ("throw new RangeError('at load');", "RangeError", "at load", "Function.InitError"),
        ("throw 'text';", "string", "text", "Function.InitError"),
        ("await Promise.reject(new TypeError('late'));", "TypeError", "late", "Function.InitError"),
        (
            "throw Object.assign(new Error('known'), { name: 'Function.NoConfig' });",
            "Function.NoConfig",
            "known",
            "Function.NoConfig",
        ),
    ],
)
def test_module_that_throws(start: Start, source: str, error_type: str, message: str, header: str) -> None:
    """What the function's module throws while it loads is the reason, as it was thrown."""
    post, error = start(f"{source} {ECHO}").init_error()
    assert (error["errorType"], error["errorMessage"], post.error_type) == (error_type, message, header)


@pytest.mark.parametrize(
    ("source", "error_type", "end"),
    [
        ("Deno.exit(4);", "Runtime.ExitError", "exit status 4"),
        ("Deno.exit(0);", "Runtime.ExitError", "exit status 0"),
        ("Deno.kill(Deno.pid, 'SIGKILL');", "Runtime.DenoKilled", "signal: SIGKILL"),
        ("Deno.kill(Deno.pid, 'SIGILL');", "Runtime.DenoCrashed", "signal: SIGILL"),
    ],
)
def test_deno_that_ends_while_it_loads(start: Start, source: str, error_type: str, end: str) -> None:
    """A Deno that is gone before the function is loaded is told with how it ended."""
    post, error = start(f"{source} {ECHO}", LAMBDENO_PERMISSIONS="-A").init_error()
    assert post.error_type == error["errorType"] == error_type
    assert "while it loaded the function" in error["errorMessage"]
    assert end in error["errorMessage"]


def test_deno_that_ends_at_once(start: Start, tmp_path: Path) -> None:
    """A Deno that never runs runtime.js is noticed: no endless wait for its connection."""
    script(tmp_path / "bin/deno", b"#!/bin/sh\nexit 5\n")
    post, error = start(PATH=f"{tmp_path}/bin:/usr/bin:/bin").init_error()
    assert post.error_type == error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("exit status 5")


def test_no_deno(start: Start) -> None:
    """Without a Deno the reason says where it was looked for, and what to add."""
    environment = start(PATH="/nowhere")
    post, error = environment.init_error()
    assert post.error_type == error["errorType"] == "Runtime.DenoNotFound"
    assert f"{environment.task}/bin" in error["errorMessage"]
    assert "add the Deno layer" in error["errorMessage"]


@pytest.mark.parametrize(
    ("content", "error_type", "part"),
    [
        (b"not a program", "Runtime.DenoNotExecutable", "Exec format error"),
        (b"", "Runtime.DenoNotExecutable", "Exec format error"),
        (AARCH64, "Runtime.DenoWrongArchitecture", "is for arm64 and the function runs on x86_64"),
    ],
    ids=["text", "empty", "aarch64"],
)
def test_deno_that_cannot_run_here(
    start: Start, tmp_path: Path, content: bytes, error_type: str, part: str
) -> None:
    """A Deno of another architecture, and what is no program at all, have a type each."""
    script(tmp_path / "bin/deno", content)
    post, error = start(PATH=f"{tmp_path}/bin:/usr/bin:/bin").init_error()
    assert post.error_type == error["errorType"] == error_type
    assert f"{tmp_path}/bin/deno" in error["errorMessage"]
    assert part in error["errorMessage"]


def test_deno_without_the_executable_bit(start: Start, layer: Path) -> None:
    """A Deno in the layer that has lost its mode is told apart from one that is missing."""
    (layer / "bin").mkdir()
    (layer / "bin/deno").write_text("")
    post, error = start(layer=layer, PATH="/nowhere").init_error()
    assert post.error_type == error["errorType"] == "Runtime.DenoNotExecutable"
    assert f"{layer}/bin/deno may not be executed" in error["errorMessage"]


NEVER = "await new Promise(() => {});"


@pytest.mark.parametrize(
    ("source", "permissions", "error_type", "part"),
    [
        (NEVER, None, "Runtime.ModuleNeverSettled", "top-level await"),
        (
            f"Promise.reject(new Error('forgotten')); {NEVER}",
            None,
            "Runtime.UnhandledPromiseRejection",
            "forgotten",
        ),
        (
            "setTimeout(() => { throw new Error('in a timer'); }, 1);"
            "await new Promise((resolve) => setTimeout(resolve, 500));",
            None,
            "Runtime.UncaughtException",
            "in a timer",
        ),
        ("Deno.readTextFileSync('/etc/passwd');", None, "Runtime.PermissionDenied", "deno.permissions"),
        ("await import('/etc/hosts.js');", None, "Runtime.PermissionDenied", "/etc/hosts.js"),
        ("await fetch('http://192.0.2.1');", "--allow-env", "Runtime.PermissionDenied", "192.0.2.1"),
    ],
)
def test_module_that_cannot_go_on(
    start: Start, source: str, permissions: str | None, error_type: str, part: str
) -> None:
    """What keeps a module from being loaded has a type of its own, and is told at once."""
    post, error = start(f"{source} {ECHO}", LAMBDENO_PERMISSIONS=permissions).init_error()
    assert post.error_type == error["errorType"] == error_type
    assert part in error["errorMessage"]


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("LAMBDENO_RUNTIME", "runtime9", ['"runtime9"', "runtime1"]),
        ("LAMBDENO_SIGNAL_MARGIN", "soon", ['"soon"', "milliseconds"]),
        ("LAMBDENO_AFFINITY", "one", ['"one"', "auto or off or on"]),
        ("LAMBDENO_PIPELINING", "no", ['"no"', "on or off"]),
        ("LAMBDENO_DEBUG", "yes", ['"yes"', "1 or 0"]),
        ("LAMBDENO_INVOKE_MODE", "stream", ['"stream"', "buffered or streaming"]),
        ("LAMBDENO_INSPECT", "0.0.0.0:9229", ['"0.0.0.0:9229"', "127.0.0.1:port"]),
        ("LAMBDENO_INSPECT", "9229", ['"9229"', "127.0.0.1:port"]),
        ("LAMBDENO_INSPECT", "127.0.0.1:65536", ['"127.0.0.1:65536"', "127.0.0.1:port"]),
        ("LAMBDENO_PERMISSIONS", "--allow-net example.com", ['"example.com"', "permission flags"]),
        ("LAMBDENO_PERMISSIONS", "--v8-flags=--expose-gc", ['"--v8-flags=--expose-gc"']),
        ("LAMBDENO_PERMISSIONS", "--allow-env --deny-read", ['"--deny-read"', "--allow-read"]),
    ],
)
def test_wrong_setting(start: Start, name: str, value: str, parts: list[str]) -> None:
    """A setting with a wrong value is named, with what it may be."""
    post, error = start(**{name: value}).init_error()
    assert post.error_type == error["errorType"] == "Runtime.InvalidSetting"
    for part in [name, *parts]:
        assert part in error["errorMessage"]


@pytest.mark.parametrize("combination", ["binary-runtime2"])
def test_a_debugger_stays_with_one_process(start: Start) -> None:
    """LAMBDENO_INSPECT is for runtime1: in runtime2 each process would want the port."""
    _, error = start(LAMBDENO_INSPECT="127.0.0.1:0").init_error()
    assert error["errorType"] == "Runtime.InvalidSetting"
    assert "LAMBDENO_INSPECT" in error["errorMessage"]
    assert "LAMBDENO_RUNTIME=runtime1" in error["errorMessage"]


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1"])
def test_a_debugger_finds_the_process(start: Start) -> None:
    """With LAMBDENO_INSPECT Deno listens for a debugger, and the function answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # free, when this is closed
    environment = start(LAMBDENO_INSPECT=address)
    assert environment.result("fine") == "fine"
    with urllib.request.urlopen(f"http://{address}/json/list", timeout=5) as answer:
        assert [target["type"] for target in json.load(answer)] == ["node"]


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1"])
def test_no_network_is_no_socket(start: Start) -> None:
    """The bridge of runtime1 is a socket: a refusal of the network without exceptions is a wrong setting."""
    for permissions in ("--deny-net", "-A --deny-net"):
        environment = start(LAMBDENO_PERMISSIONS=permissions)
        _, error = environment.init_error()
        environment.api.requests.clear()
        assert '"--deny-net"' in error["errorMessage"]
        assert "--allow-net" in error["errorMessage"]


def test_permission_that_deno_does_not_know(start: Start) -> None:
    """A permission flag that Deno refuses is an init error, and Deno's own words are in the log."""
    environment = start(LAMBDENO_PERMISSIONS="--allow-nonsense")
    post, _ = environment.init_error()
    assert post.error_type == "Runtime.ExitError"
    assert "--allow-nonsense" in environment.log


@pytest.mark.parametrize("answer", [202, 403, 500])
def test_refused_init_error_changes_nothing(start: Start, api: FakeRuntimeApi, answer: int) -> None:
    """Whatever the Runtime API answers to the reason, the bootstrap exits with status 1."""
    api.answers.put(status(answer))
    environment = start("")
    assert environment.post().path == INIT_ERROR
    assert environment.wait() == 1
    assert len(api.requests) == 1
    assert "Traceback" not in environment.log


def script(path: Path, content: bytes) -> None:
    """Write an executable file."""
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o755)


def test_no_writable_folder(start: Start, tmp_path: Path) -> None:
    """Deno needs a place to write: where there is none, the folder is named."""
    environment = start(TMPDIR=str(tmp_path / "gone"))
    _, error = environment.init_error()
    assert error["errorType"] == "Runtime.NoWritableFolder"
    assert str(tmp_path / "gone") in error["errorMessage"]


def test_a_refused_setting_leaves_no_folder(start: Start, short_tmp: Path) -> None:
    """What is refused before Deno starts leaves nothing in the writable place."""
    start(LAMBDENO_PERMISSIONS="--deny-read").init_error()
    assert list((short_tmp / "tmp").iterdir()) == []
