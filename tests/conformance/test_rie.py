"""The built layers under AWS's own Runtime Interface Emulator: an outside judge of the bootstrap.

    wheel of aws-sam-cli -> the emulator's binary -> our zips, unpacked -> one invocation at a time

The emulator dies of parallel invocations, tells no function error by header, and says a timeout in
plain text; what Lambda itself says there is for the local Lambda to know.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lambdeno import build, project
from lambdeno.emulator.sandbox import bubblewrap_fault, host_python

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/rie"
EVENTS = sorted((ROOT / "tests/events").glob("*.json"))
INVOKE = "/2015-03-31/functions/function/invocations"

SAM_CLI = "aws-sam-cli==1.170.0"
SAM_CLI_SHA256 = "24ebaf5ecba38dc1758089968cb89ab61e124b84e92a344fc7a2771a47f4d0bf"
MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}

FUNCTION = """
export async function handler(event: unknown): Promise<unknown> {
  const order = (event as { do?: string } | null)?.do;
  if (order === "throw") throw new RangeError("out of range");
  if (order === "exit") Deno.exit(7);
  if (order === "reject") Promise.reject(new TypeError("nobody waits"));
  if (order === "never") await new Promise(() => {});
  if (order === "block") while (Date.now());
  if (order === "kill") Deno.kill(Deno.pid, "SIGKILL");
  if (order === "reject" || order === "kill") await new Promise((resolve) => setTimeout(resolve, 60_000));
  if (order === "hang") await new Promise((resolve) => setTimeout(resolve, 60_000));
  if (order === "too large") return "x".repeat(7_000_000);
  if (order === "length") return JSON.stringify(event).length;
  return event;
}
export const notAFunction = 42;
export const shutdown = () => console.log("told of the end");
"""
SETTINGS = 'name = "rie"\n[deno]\npermissions = ["-A"]\n[build]\ncheck = false\n'


@dataclass(frozen=True)
class Prepared:
    """What every test needs: the emulator, and /opt and /var/task."""

    emulator: Path
    opt: Path
    task: Path
    shape: str
    runtime: str


@pytest.fixture(
    scope="session",
    params=[("os-only", "runtime1"), ("managed", "runtime1"), ("os-only", "runtime2")],
    ids="-".join,
)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The emulator and the built zips of each shape, unpacked as Lambda unpacks them, for each runtime."""
    shape, runtime = request.param
    if not sys.platform.startswith("linux") or platform.machine() not in MACHINES:
        pytest.skip("AWS's emulator runs on Linux on x86_64 and arm64 alone")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        emulator = get_emulator()
        dist = built(shape)
        folder = tmp_path_factory.mktemp("rie")
        for name, target in (
            (f"deno-layer-{MACHINES[platform.machine()]}.zip", "opt"),
            ("runtime-layer.zip", "opt"),
            ("function.zip", "task"),
        ):
            unpack(dist / name, folder / target)
    return Prepared(emulator, folder / "opt", folder / "task", shape, runtime)


def get_emulator() -> Path:
    """The emulator's binary, out of the pinned wheel."""
    wheel = CACHE / "aws_sam_cli-1.170.0-py3-none-any.whl"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(CACHE), SAM_CLI]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the package index does not give {SAM_CLI}: {done.stderr.strip()[-300:]}")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SAM_CLI_SHA256
    name = f"samcli/local/rapid/aws-lambda-rie-{MACHINES[platform.machine()]}"
    binary = CACHE / Path(name).name
    if not binary.exists():
        new = binary.with_suffix(".new")
        new.write_bytes(zipfile.ZipFile(wheel).read(name))
        new.chmod(0o755)
        new.rename(binary)
    return binary


def built(shape: str) -> Path:
    """The three zips of the test function, built anew only where something changed."""
    folder = CACHE / f"project-{shape}"
    (folder / "src").mkdir(parents=True, exist_ok=True)
    keys = f'architecture = "{MACHINES[platform.machine()]}"\nshape = "{shape}"\n'
    for name, content in (("lambdeno.toml", keys + SETTINGS), ("src/main.ts", FUNCTION)):
        if not (folder / name).exists() or (folder / name).read_text() != content:
            (folder / name).write_text(content)
    build.up_to_date(project.load(folder))
    return folder / "dist"


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip with the modes that it carries."""
    with zipfile.ZipFile(archive) as unzipped:
        for entry in unzipped.infolist():
            path = Path(unzipped.extract(entry, folder))
            path.chmod(entry.external_attr >> 16 & 0o777 or 0o755)


@dataclass
class Emulator:
    """AWS's emulator with our layers; ``invoke`` is a plain HTTP client."""

    port: int
    log_file: Path
    process: int  # bubblewrap's, or its own

    @property
    def log(self) -> str:
        """What the emulator and everything below it wrote."""
        return self.log_file.read_text("utf-8", "replace")

    def invoke(self, payload: bytes) -> tuple[int, bytes]:
        """Status and body of one invocation."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", INVOKE, payload)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, what: str, **more: Any) -> tuple[int, bytes]:
        """Invoke with {"do": what, …}."""
        return self.invoke(json.dumps({"do": what, **more}).encode())

    def end(self) -> None:
        """Ask the emulator, and not the sandbox around it, to end."""
        tree = [psutil.Process(self.process), *psutil.Process(self.process).children(recursive=True)]
        next(one for one in tree if "emulator" in one.name() or "rie" in one.name()).terminate()

    def works(self) -> bool:
        """Whether an event comes back."""
        return self.invoke(b'{"works":true}') == (200, b'{"works":true}')


@contextlib.contextmanager
def running(
    prepared: Prepared, folder: Path, timeout: int, handler: str = "function.handler"
) -> Iterator[Emulator]:
    """The emulator, in Lambda's file system where bubblewrap works, else on plain paths."""
    port, api = free_ports(2)
    is_isolated = not bubblewrap_fault()
    tmp = folder / "tmp"
    tmp.mkdir()
    opt, task, lang = (
        ("/opt", "/var/task", "/var/lang")
        if is_isolated
        else (
            str(prepared.opt),
            str(prepared.task),
            str(host_python().parent.parent),
        )
    )
    environment = {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": "rie",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout),
        "LAMBDA_TASK_ROOT": task,
        "LAMBDENO_PERMISSIONS": "-A",
        "LAMBDENO_RUNTIME": prepared.runtime,
        "LANG": "en_US.UTF-8",
        "PATH": (f"{lang}/bin:" if prepared.shape == "managed" else "") + "/usr/bin:/bin",
        "TMPDIR": "/tmp" if is_isolated else str(tmp),
        "TZ": ":UTC",
    }
    emulator = "/emulator" if is_isolated else str(prepared.emulator)
    addresses = (
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{api}"),
    )
    command = [emulator, *addresses, f"{opt}/bootstrap", handler]
    if is_isolated:
        command = [*bubblewrap(prepared, tmp, environment), *command]
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"]} if is_isolated else environment,
            cwd=prepared.task,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(port, process, log_file)
        yield Emulator(port, log_file, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def bubblewrap(prepared: Prepared, tmp: Path, environment: Mapping[str, str]) -> list[str]:
    """A file system like Lambda's; ports are shared with the host."""
    arguments = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"]
    arguments += ("--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", "--dir", "/var")
    for name in ("bin", "lib", "lib64"):
        if (path := Path("/", name)).is_symlink():
            arguments += ("--symlink", str(path.readlink()), str(path))
        elif path.exists():
            arguments += ("--ro-bind", str(path), str(path))
    arguments += ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    if prepared.shape == "managed":
        arguments += ("--ro-bind", str(host_python().parent.parent), "/var/lang", "--dir", "/var/runtime")
    arguments += ("--ro-bind", str(prepared.opt), "/opt", "--ro-bind", str(prepared.task), "/var/task")
    arguments += ("--ro-bind", str(prepared.emulator), "/emulator", "--bind", str(tmp), "/tmp")
    arguments += ("--remount-ro", "/", "--chdir", "/var/task", "--clearenv")
    for name, value in environment.items():
        arguments += ("--setenv", name, value)
    return [*arguments, "--"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


def wait_for(port: int, process: subprocess.Popen[bytes], log_file: Path) -> None:
    """Wait until somebody listens on a port."""
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, log_file.read_text()
            assert time.monotonic() < until, log_file.read_text()
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="module")
def emulator(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulator for the tests that its environment survives."""
    with running(prepared, tmp_path_factory.mktemp("shared"), timeout=20) as shared:
        yield shared


@pytest.mark.parametrize("event", EVENTS, ids=[path.stem for path in EVENTS])
def test_event_comes_back(emulator: Emulator, event: Path) -> None:
    """An event of every source reaches the handler, and its result the caller."""
    status, body = emulator.invoke(event.read_bytes())
    assert status == 200
    assert json.loads(body) == json.loads(event.read_text("utf-8"))


def test_handler_error(emulator: Emulator) -> None:
    """A handler's error is the caller's answer, in the shape of Lambda's Node runtime."""
    status, body = emulator.ask("throw")
    error = json.loads(body)
    assert status == 200
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "out of range")
    assert error["trace"][0] == "RangeError: out of range"
    assert emulator.works()


def test_large_event(emulator: Emulator) -> None:
    """5.9 MB go in whole."""
    event = json.dumps({"do": "length", "text": "x" * 5_900_000}, separators=(",", ":")).encode()
    assert emulator.invoke(event) == (200, str(len(event)).encode())


def test_large_result(emulator: Emulator) -> None:
    """5.9 MB come back whole."""
    event = json.dumps("漢" * 1_960_000, ensure_ascii=False).encode()
    assert emulator.invoke(event) == (200, event)


def test_too_large_result(emulator: Emulator) -> None:
    """A result over 6 MB is Function.ResponseSizeTooLarge, and the same environment serves on."""
    status, body = emulator.ask("too large")
    assert status == 200
    assert json.loads(body)["errorType"] == "Function.ResponseSizeTooLarge"
    assert emulator.works()
    assert "413" in emulator.log


def test_exit(prepared: Prepared, tmp_path: Path) -> None:
    """Deno.exit is Runtime.ExitError with its status, and the same bootstrap serves on."""
    with running(prepared, tmp_path, timeout=20) as emulator:
        assert emulator.works()
        for _ in range(2):
            status, body = emulator.ask("exit")
            assert status == 200
            assert json.loads(body)["errorType"] == "Runtime.ExitError"
            assert "exit status 7" in json.loads(body)["errorMessage"]
            assert emulator.works()


@pytest.mark.parametrize(
    ("order", "error_type"),
    [
        ("reject", "Runtime.UnhandledPromiseRejection"),
        ("never", "Runtime.HandlerNeverSettled"),
        ("kill", "Runtime.DenoKilled"),
        ("block", "Runtime.EventLoopBlocked"),
    ],
)
def test_fault(prepared: Prepared, tmp_path: Path, order: str, error_type: str) -> None:
    """Each fault is the caller's answer under its name, and the same bootstrap serves on."""
    with running(prepared, tmp_path, timeout=2) as emulator:
        assert emulator.works()
        for _ in range(2):
            status, body = emulator.ask(order)
            assert status == 200
            assert json.loads(body)["errorType"] == error_type
            assert emulator.works()


def test_shutdown(prepared: Prepared, tmp_path: Path) -> None:
    """The emulator knows the runtime's extension, and ends the environment with the function's hook."""
    with running(prepared, tmp_path, timeout=20) as emulator:
        assert emulator.works()
        emulator.end()
        until = time.monotonic() + 10
        while "told of the end" not in emulator.log:
            assert time.monotonic() < until, emulator.log
            time.sleep(0.02)


def test_timeout(prepared: Prepared, tmp_path: Path) -> None:
    """A handler that takes too long is killed with its environment; the next event gets a new one."""
    with running(prepared, tmp_path, timeout=1) as emulator:
        assert emulator.works()
        assert emulator.ask("hang") == (200, b"Task timed out after 1.00 seconds")
        assert emulator.works()


@pytest.mark.parametrize(
    ("handler", "error_type"),
    [
        ("function.missing", "Runtime.HandlerNotFound"),
        ("function.notAFunction", "Runtime.HandlerNotFunction"),
        ("handler", "Runtime.MalformedHandlerName"),
    ],
)
def test_init_error(prepared: Prepared, tmp_path: Path, handler: str, error_type: str) -> None:
    """A function that cannot be loaded is told to the caller, each time it is tried."""
    with running(prepared, tmp_path, timeout=10, handler=handler) as emulator:
        for _ in range(2):
            status, body = emulator.ask("echo")
            assert status == 502
            assert json.loads(body)["errorType"] == error_type
