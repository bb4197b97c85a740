"""AWS's own Python runtime client, unchanged, on the local Lambda: an oracle from outside.

What it expects of the Runtime API it gets; what it posts reaches the caller as on Lambda.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno.emulator import (
    Context,
    Function,
    Handle,
    InvokeResult,
    ListSink,
    choose_sandbox,
    local_lambda,
)
from lambdeno.errors import EmulatorError

HERE = Path(__file__).parent
CLIENT = "awslambdaric==4.2.2"
LAYER = HERE.parents[1] / ".cache" / f"{CLIENT}-{sys.implementation.cache_tag}"
# The interpreter that the client was installed for: in the sandbox it is at /var/lang.
BOOTSTRAP = '#!/bin/sh\nPATH=/var/lang/bin:$PATH\nexec python3 -m awslambdaric "$_HANDLER"\n'

Start = Callable[..., contextlib.AbstractContextManager[tuple[Handle, ListSink]]]


@pytest.fixture(scope="session")
def layer() -> Path:
    """A layer with the client, made once in the repository's cache."""
    if not (LAYER / "python" / "awslambdaric").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--target", str(LAYER / "python"), CLIENT],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"pip cannot install {CLIENT}: {done.stderr.strip()[-300:]}")
    return LAYER


@pytest.fixture(params=["bubblewrap", "paths"])
def start(request: pytest.FixtureRequest, layer: Path, tmp_path: Path, tmp_path_factory: Any) -> Start:
    """Start the local Lambda with one of the handlers, in each sandbox that works here."""
    sandbox: str = request.param
    try:
        choose_sandbox(sandbox)
    except EmulatorError as error:
        pytest.skip(f"{sandbox}: {error.message}")
    (tmp_path / "bootstrap").write_text(BOOTSTRAP)
    (tmp_path / "bootstrap").chmod(0o755)
    for name in ("handlers.py", "broken.py"):
        shutil.copy(HERE / "functions" / name, tmp_path)
    client = "/opt/python" if sandbox == "bubblewrap" else str(layer / "python")

    @contextlib.contextmanager
    def start(handler: str, **options: Any) -> Iterator[tuple[Handle, ListSink]]:
        sink = ListSink()
        function = Function(
            "f",
            tmp_path,
            layers=(layer,),
            handler=handler,
            environment={"PYTHONPATH": client, **options.pop("environment", {})},
            **options,
        )
        cache = tmp_path_factory.mktemp("cache")
        with local_lambda(function, sandbox=sandbox, cache=cache, log=sink) as handle:
            yield handle, sink

    return start


def ask(handle: Handle, event: Any = None, **options: Any) -> tuple[Any, InvokeResult]:
    """Invoke: the payload as JSON, and the whole result."""
    result = handle.invoke("f", json.dumps(event or {}).encode(), **options)
    return json.loads(result.payload), result


def test_success(start: Start) -> None:
    """The context that the client makes holds what was sent and configured."""
    context = Context(
        trace_id="Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
        client_context='{"custom": {"a": "b"}}',
        cognito_identity='{"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"}',
    )
    with start("handlers.succeed", memory=256, timeout=7) as (handle, sink):
        seen, result = ask(handle, {"é": [1, None]}, context=context)
        again, _ = ask(handle)
    assert result.function_error is None
    assert seen["event"] == {"é": [1, None]}
    assert seen["request_id"] == result.request_id
    assert seen["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:f"
    assert 0 < seen["remaining"] <= 7000
    assert seen["memory"] == "256"
    assert seen["log_stream"] == sink.entries[0][0]
    assert seen["custom"] == {"a": "b"}
    assert seen["identity"] == "i"
    assert seen["trace"] == context.trace_id
    assert again["custom"] is None
    assert again["identity"] is None


def test_exception(start: Start) -> None:
    """An exception is a FunctionError with type, message and stack; the next event is handled."""
    with start("handlers.fail") as (handle, sink):
        body, result = ask(handle)
        ask(handle)
    assert result.function_error == "Unhandled"
    assert (body["errorType"], body["errorMessage"]) == ("ValueError", "on purpose")
    assert body["requestId"] == result.request_id
    assert 'raise ValueError("on purpose")' in "".join(body["stackTrace"])
    assert any(line.startswith("[ERROR] ValueError: on purpose") for line in sink.lines)
    assert len({environment for environment, _, _ in sink.entries}) == 1


def test_unserialisable(start: Start) -> None:
    """A result that is not JSON is the client's Runtime.MarshalError."""
    with start("handlers.unserialisable") as (handle, _):
        body, result = ask(handle)
    assert (body["errorType"], result.function_error) == ("Runtime.MarshalError", "Unhandled")


def test_logging(start: Start) -> None:
    """Logged and printed lines stand in the request's tail, between START and END."""
    with start("handlers.log") as (handle, _):
        ask(handle, {"text": "first"})
        _, result = ask(handle, {"text": "second"}, wants_tail=True)
    assert result.log_tail
    lines = result.log_tail.decode().splitlines()
    assert lines[0] == f"START RequestId: {result.request_id} Version: $LATEST"
    assert re.fullmatch(rf"\[INFO\]\t\S+Z\t{result.request_id}\tlogged second", lines[1])
    assert lines[2] == "printed"
    assert lines[3] == f"END RequestId: {result.request_id}"
    assert len(lines) == 5


def test_timeout(start: Start) -> None:
    """A handler that hangs is ended at its time, and the environment replaced."""
    with start("handlers.hang", timeout=0.5) as (handle, sink):
        body, result = ask(handle)
        ask(handle)
    assert result.function_error == "Unhandled"
    assert body["errorType"] == "Sandbox.Timedout"
    assert len({environment for environment, _, _ in sink.entries}) == 2


@pytest.mark.parametrize("status", [0, 3])
def test_exit(start: Start, status: int) -> None:
    """sys.exit in a handler is Runtime.ExitError, unless the client has reported it before."""
    with start("handlers.leave") as (handle, sink):
        body, result = ask(handle, {"status": status})
        ask(handle, {"status": status})
    assert result.function_error == "Unhandled"
    reason = f"with error: exit status {status}" if status else "without providing a reason"
    assert body == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {result.request_id} Error: Runtime exited {reason}",
    }
    assert len({environment for environment, _, _ in sink.entries}) == 2


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("broken.handler", "Runtime.ImportModuleError"),
        ("handlers.nothing", "Runtime.HandlerNotFound"),
        ("nothing", "Runtime.MalformedHandlerName"),
    ],
)
def test_init_errors(start: Start, handler: str, kind: str) -> None:
    """What the client reports at init, or with the first event, is what the caller gets."""
    with start(handler) as (handle, sink):
        body, result = ask(handle)
    assert (body["errorType"], result.function_error) == (kind, "Unhandled")
    assert any(line.startswith("[ERROR]") and kind in line for line in sink.lines)
