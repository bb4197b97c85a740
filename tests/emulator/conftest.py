"""Functions to run, places to run them, and boto3 to call them."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
from botocore.config import Config

from lambdeno.emulator import Function, Handle, ListSink, Settings, choose_sandbox, local_lambda
from lambdeno.errors import EmulatorError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

BOOTSTRAP = Path(__file__).parent / "bootstrap.py"


@dataclass
class Running:
    """A local Lambda with one function ``f``, its log, and its client."""

    handle: Handle
    sink: ListSink
    client: LambdaClient

    @property
    def lines(self) -> list[str]:
        """The log so far."""
        return self.sink.lines

    @property
    def environments(self) -> set[str]:
        """The environments that have logged so far."""
        return {environment for environment, _, _ in self.sink.entries if environment}

    def ask(self, what: str = "echo", **event: Any) -> tuple[Any, str | None]:
        """Invoke ``f`` with {"do": what, …}: its payload as JSON, and the function error."""
        result = self.handle.invoke("f", json.dumps({"do": what, **event}).encode())
        return json.loads(result.payload), result.function_error


Start = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of unpacked artefacts."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def mark() -> str:
    """The name of an environment variable by which this test knows its processes."""
    return f"MARK_{uuid.uuid4().hex}"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with the obedient bootstrap."""
    folder = tmp_path / "code"
    folder.mkdir()
    shutil.copy(BOOTSTRAP, folder / "bootstrap")
    (folder / "bootstrap").chmod(0o755)
    return folder


@pytest.fixture(params=["bubblewrap", "paths"])
def sandbox(request: pytest.FixtureRequest) -> str:
    """Each sandbox that works here, one after the other."""
    name: str = request.param
    try:
        choose_sandbox(name)
    except EmulatorError as error:
        pytest.skip(f"{name}: {error.message}")
    return name


@pytest.fixture
def start(code: Path, cache: Path) -> Start:
    """Start a local Lambda with the function ``f``; options go to the function."""

    @contextlib.contextmanager
    def start(
        *, sandbox: str = "paths", settings: Settings | None = None, **options: Any
    ) -> Iterator[Running]:
        sink = ListSink()
        function = Function("f", **{"code": code, **options})
        with local_lambda(
            function, sandbox=sandbox, cache=cache, log=sink, settings=settings or Settings()
        ) as handle:
            client = client_of(handle)
            yield Running(handle, sink, client)
            client.close()

    return start


def client_of(handle: Handle) -> LambdaClient:
    """boto3 as anyone would use it, but without retries."""
    return boto3.client(
        "lambda",
        endpoint_url=handle.endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=40),
    )


def processes_with(variable: str) -> list[psutil.Process]:
    """Processes that have the variable in their environment, but for sandboxes and zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if variable in process.environ() and process.name() != "bwrap":
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a fact that is on its way."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
