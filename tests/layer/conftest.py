"""Execution environments: the layer in each of its callings, real Deno, a fake Runtime API."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import lambdeno
from lambdeno import build, deno, interpreter
from lambdeno.emulator import host_architecture
from lambdeno.project import DENO_VERSION
from tests.layer.fake_runtime_api import (
    DEADLINE,
    INIT_ERROR,
    Answer,
    Event,
    FakeRuntimeApi,
    Request,
    fake_runtime_api,
)

LAYER = Path(lambdeno.__file__).parent / "layer"
ECHO = "export const handler = (event) => event;"
COMBINATIONS = ("source-runtime1", "binary-runtime1", "managed-runtime1", "binary-runtime2")


@functools.cache
def real_python(command: str) -> Path | None:
    """The executable behind a command, which may be a version manager's shim; None if it does not run."""
    try:
        done = subprocess.run(
            [command, "-ISc", "import os, sys; print(os.path.realpath(sys.executable))"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return Path(done.stdout.strip()) if done.returncode == 0 else None


@functools.cache
def this_python() -> Path:
    """The interpreter that runs the tests, past its virtual environment."""
    python = real_python(sys.executable)
    assert python
    return python


@dataclass
class Environment:
    """A running bootstrap, and all that it was given."""

    process: subprocess.Popen[bytes]
    api: FakeRuntimeApi
    task: Path
    tmp: Path
    log_file: Path
    ids: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))

    @property
    def log(self) -> str:
        """What the bootstrap, Deno and the function have written."""
        return self.log_file.read_text("utf-8", "replace")

    def invoke(self, event: Any = None, **options: Any) -> Request:
        """Give the function an event, as JSON or as bytes: the post that answers it."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        request_id = options.pop("request_id", f"request-{next(self.ids)}")
        return self.send(Event(body, request_id, **options))

    def send(self, event: Event | Answer) -> Request:
        """Send an event as it is scripted: the post that answers it."""
        self.api.events.put(event if isinstance(event, Answer) else Answer([event.to_bytes()]))
        return self.post()

    def result(self, event: Any = None, **options: Any) -> Any:
        """Give the function an event: its result, which must be one."""
        post = self.invoke(event, **options)
        assert post.path.endswith("/response"), (post, self.log)
        return json.loads(post.body)

    def error(self, event: Any = None, **options: Any) -> tuple[Request, dict[str, Any]]:
        """Give the function an event: its error, which must be one, as it was posted and as JSON."""
        post = self.invoke(event, **options)
        assert post.path.endswith("/error"), (post, self.log)
        return post, json.loads(post.body)

    def init_error(self) -> tuple[Request, dict[str, Any]]:
        """The error of an environment that cannot start, which must be the only thing it says."""
        post = self.post()
        assert self.wait() == 1, self.log
        assert post.path == INIT_ERROR, (post, self.log)
        assert len(self.api.requests) == 1, self.api.requests
        return post, json.loads(post.body)

    def post(self) -> Request:
        """The next post of the bootstrap."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            is_over = self.process.poll() is not None
            with contextlib.suppress(queue.Empty):
                return self.api.posts.get(timeout=0.05)
            assert not is_over, f"exit status {self.process.returncode}: {self.log}"
        raise AssertionError(f"no post in {DEADLINE} s after {self.api.paths('GET')}: {self.log}")

    def wait(self) -> int:
        """The exit status, of a bootstrap that is about to exit."""
        return self.process.wait(DEADLINE)

    def waits_for_next(self, count: int) -> bool:
        """Whether the bootstrap asks for its ``count``-th event and has posted nothing unexpected."""
        return self.api.wait_for_next(count) and self.api.posts.empty()

    def children(self) -> list[int]:
        """The process ids of the bootstrap's children."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def folders(self) -> list[Path]:
        """The folders of the runtime in the writable place."""
        return sorted(self.tmp.glob("lambdeno*"))

    def close(self) -> None:
        """End the bootstrap and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Environment]


@pytest.fixture(scope="session")
def deno_binary() -> Path:
    """The pinned Deno for this machine."""
    return deno.get(DENO_VERSION, deno.host_platform()).path


@pytest.fixture(params=COMBINATIONS)
def combination(request: pytest.FixtureRequest) -> str:
    """How the bootstrap is started and which runtime it has; tests about one of them override those."""
    name: str = request.param
    return name


@pytest.fixture
def calling(combination: str) -> str:
    """How the bootstrap is started.

    source   layer/ as it is, under the Python of the tests
    binary   the one static file, as on provided.al2023
    managed  as an exec wrapper of Lambda's Python
    """
    return combination.partition("-")[0]


@pytest.fixture
def runtime(combination: str) -> str:
    """One Deno process for the environment, or one for each invocation."""
    return combination.partition("-")[2]


Calling = Callable[[Path], tuple[Sequence[str | Path], Path | None]]


@pytest.fixture
def called(calling: str, binary: Path) -> Calling:
    """For a layer's folder: the command, and the executable where it is not the command's first word."""

    def called(layer: Path) -> tuple[Sequence[str | Path], Path | None]:
        if calling == "source":
            return [this_python(), "-ISB", layer / "lambdeno/__main__.py", layer], None
        if calling == "managed":
            return [layer / "bootstrap", this_python(), "/var/runtime/bootstrap.py"], None
        return [layer / "bootstrap"], binary  # by the name it finds the rest of the layer

    return called


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bootstrap as one file, made from the layer's sources."""
    path = tmp_path_factory.mktemp("binary") / "bootstrap"
    path.write_bytes(interpreter.bootstrap(host_architecture(), build.layer_modules()).data)
    path.chmod(0o755)
    return path


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="layer-") as folder:
        yield Path(folder)


@pytest.fixture
def api() -> Iterator[FakeRuntimeApi]:
    """The Runtime API of this test."""
    with fake_runtime_api() as server:
        yield server


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A copy of the layer to put things into, under a path that has a space."""
    return Path(shutil.copytree(LAYER, tmp_path / "opt copy"))


@pytest.fixture
def unbound(layer: Path) -> Path:
    """A layer whose bridge looks its methods up each time: there, a function can forge what it says."""
    bridge = layer / "lambdeno/runtime.js"
    text = bridge.read_text()
    for name in ("encode", "encodeInto"):
        bound = f"{name} = encoder.{name}.bind(encoder);"
        assert bound in text
        text = text.replace(bound, f"{name} = (...values) => encoder.{name}(...values);")
    bridge.write_text(text)
    return layer


@pytest.fixture
def start(  # noqa: PLR0917 - pytest gives them by name
    tmp_path: Path, short_tmp: Path, api: FakeRuntimeApi, deno_binary: Path, called: Calling, runtime: str
) -> Iterator[Start]:
    """Start an execution environment, in the calling of this test.

    ``bundle`` is function.bundle.js, or None for no such file; ``files`` are more of the task
    root's; ``command`` replaces the calling's; all else are environment variables, of which
    None takes one away.
    """
    started: list[Environment] = []

    def start(
        bundle: str | None = ECHO,
        *,
        files: Mapping[str, str] | None = None,
        layer: Path = LAYER,
        command: Sequence[str | Path] | None = None,
        **variables: str | None,
    ) -> Environment:
        task, tmp = tmp_path / "task", short_tmp / "tmp"
        for folder in (task, tmp):
            folder.mkdir(exist_ok=True)
        for name, content in {"function.bundle.js": bundle, **(files or {})}.items():
            if content is not None:
                (task / name).parent.mkdir(parents=True, exist_ok=True)
                (task / name).write_text(content)
        environment = {
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef",
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "LAMBDA_TASK_ROOT": str(task),
            "LAMBDENO_RUNTIME": runtime,
            "LANG": "en_US.UTF-8",
            "PATH": f"{deno_binary.parent}:/usr/bin:/bin",
            "TMPDIR": str(tmp),
            "TZ": ":UTC",
            "_HANDLER": "function.handler",
            **variables,
        }
        words, executable = (command, None) if command else called(layer)
        log_file = tmp_path / f"log-{len(started)}"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                words,
                executable=executable,
                env={name: value for name, value in environment.items() if value is not None},
                cwd=task,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(Environment(process, api, task, tmp, log_file))
        return started[-1]

    yield start
    for environment in started:
        environment.close()
