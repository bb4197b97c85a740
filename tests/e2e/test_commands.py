from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lambdeno import archive, codecache, project
from lambdeno.archive import Entry
from lambdeno.dev import local_function
from lambdeno.emulator import ListSink, local_lambda
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.errors import ArtifactError
from tests.e2e.conftest import LAMBDENO, client_of, run


@pytest.fixture
def own(actor: Path, tmp_path: Path) -> Path:
    """A copy of the built project, for a test to spoil."""
    return shutil.copytree(actor, tmp_path / "own")


@pytest.fixture(scope="module")
def dev(actor: Path) -> Iterator[str]:
    """``lambdeno dev`` as a process; gives its endpoint."""
    command = [LAMBDENO, "dev", "--json", "--port", "0", "--url-port", "0"]
    with subprocess.Popen(
        command, cwd=actor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        threading.Thread(target=process.stdout.read, daemon=True).start()  # the log follows
        yield ready["endpoint"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_invoke_prints_the_result_on_stdout_and_the_log_on_stderr(actor: Path) -> None:
    """A result can be piped on; everything else is for the eye."""
    done = run("invoke", '{"do": "print"}', folder=actor)
    assert (done.returncode, done.stdout) == (0, "null\n")
    assert "[printed]" in done.stderr
    assert "REPORT RequestId" in done.stderr


def test_invoke_takes_an_event_from_a_file_and_from_stdin(actor: Path, dev: str, tmp_path: Path) -> None:
    """The event is JSON in the command, in a file, or on stdin."""
    (tmp_path / "event.json").write_text("[1, 2]")
    from_file = run("invoke", tmp_path / "event.json", "--endpoint-url", dev, folder=actor)
    from_stdin = run("invoke", "-", "--endpoint-url", dev, folder=actor, text="[1, 2]")
    assert from_file.stdout == from_stdin.stdout == "[1,2]\n"


def test_a_functions_error_is_exit_code_1(actor: Path, dev: str) -> None:
    """The caller's shell learns that the function failed."""
    done = run("invoke", '{"do": "throw"}', "--endpoint-url", dev, folder=actor)
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorType"] == "RangeError"
    assert "Traceback" not in done.stderr


def test_invoke_with_json_prints_one_document(actor: Path, dev: str) -> None:
    """A machine reads status, result, error and log from one JSON object."""
    done = run("invoke", '{"do": "throw"}', "--json", "--endpoint-url", dev, folder=actor)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert (answer["status"], answer["function_error"]) == (200, "Unhandled")
    assert answer["result"]["errorMessage"] == "out of range"
    assert any("START RequestId" in line for line in answer["log"])


def test_invoke_async_queues_the_event(actor: Path, dev: str) -> None:
    """Event invocations are accepted with 202 and answer nothing."""
    done = run("invoke", "{}", "--async", "--json", "--endpoint-url", dev, folder=actor)
    assert json.loads(done.stdout)["status"] == 202


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_invokes_the_local_lambda(dev: str) -> None:
    """No AWS client is needed."""
    url = f"{dev}/2015-03-31/functions/actor/invocations"
    done = subprocess.run(["curl", "-sS", "-d", "[7]", url], capture_output=True, check=True)
    assert done.stdout == b"[7]"


def test_an_unknown_function_is_boto3s_resource_not_found(dev: str) -> None:
    """The service's errors are the classes that boto3 knows."""
    client = client_of(dev)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody")


def test_a_payload_that_is_not_json_is_refused(dev: str) -> None:
    """Lambda takes JSON alone."""
    client = client_of(dev)
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="actor", Payload=b"{nope")


def test_a_port_in_use_is_one_sentence(actor: Path) -> None:
    """What, where, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("dev", "--port", str(port), folder=actor)
    assert done.returncode == 6
    assert f"127.0.0.1:{port}" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_lambda_at_the_endpoint_is_one_sentence(actor: Path) -> None:
    """A wrong endpoint is named."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    done = run("invoke", "--endpoint-url", url, folder=actor)
    assert done.returncode == 6
    assert f'Cannot invoke "actor" at {url}' in done.stderr


@pytest.mark.parametrize("spoil", ["truncated", "garbage", "flipped"])
def test_a_damaged_zip_never_runs(own: Path, spoil: str) -> None:
    """A zip that was cut, replaced or altered is built again."""
    path = own / "dist/function.zip"
    good = path.read_bytes()
    data = bytearray(good)
    if spoil == "truncated":
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    elif spoil == "garbage":
        data[:] = b"x" * len(data)
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    done = run("invoke", folder=own)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == good


def test_a_zip_that_escapes_its_folder_is_refused(own: Path, tmp_path: Path) -> None:
    """No name in a zip leads out of the folder that it is unpacked to."""
    function = local_function(project.load(own))
    with zipfile.ZipFile(function.code, "a") as zipped:
        zipped.writestr("../../escaped.txt", "out")
    with pytest.raises(ArtifactError, match=r"escaped\.txt"), local_lambda(function, log=ListSink()) as local:
        local.invoke("actor")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_deno_that_does_not_start_is_an_init_error_with_its_cause(own: Path, tmp_path: Path) -> None:
    """A Deno layer of another machine, or a broken one, is named as the reason."""
    function = local_function(project.load(own))
    for content, error_type in [
        (b"\x7fELF" + bytes(14) + b"\xf3\0", "Runtime.DenoWrongArchitecture"),
        (b"not a program", "Runtime.DenoNotExecutable"),
    ]:
        entries = [Entry("bin/deno", content, executable=True)]
        broken = archive.write(tmp_path / "deno-layer.zip", entries)
        function = replace(function, layers=(broken.path, function.layers[1]))
        with local_lambda(function, log=ListSink()) as local:
            answer = local.invoke("actor")
        error = json.loads(answer.payload)
        assert error["errorType"] == error_type
        assert "/opt/bin/deno" in error["errorMessage"]


@pytest.mark.parametrize("sandbox", ["bubblewrap", "paths"])
@pytest.mark.parametrize("runtime", ["runtime1", "runtime2"])
def test_a_function_is_told_of_the_end(own: Path, tmp_path: Path, sandbox: str, runtime: str) -> None:
    """A function that exports shutdown is called before its environment ends, and what it says is logged."""
    if sandbox == "bubblewrap" and bubblewrap_fault():
        pytest.skip(f"no bubblewrap: {bubblewrap_fault()}")
    source = b"""
        export const handler = (event) => event;
        export const shutdown = async () => {
          await new Promise((resolve) => setTimeout(resolve, 20));
          console.log("told of the end");
        };
        """
    code = archive.write(tmp_path / "function.zip", [Entry("function.bundle.js", source)])
    function = local_function(project.load(own))
    environment = {**function.environment, "LAMBDENO_RUNTIME": runtime}
    function = replace(function, code=code.path, environment=environment)
    log = ListSink()
    with local_lambda(function, sandbox=sandbox, log=log) as local:
        assert local.invoke("actor", b"1").payload == b"1"
    said = [line for _, _, line in log.entries if "told of the end" in line]
    # runtime2: its process, and the one that waited, where that had loaded the function
    assert len(said) in ((1,) if runtime == "runtime1" else (1, 2))


def test_a_function_without_a_deno_layer_says_so(own: Path) -> None:
    """The missing layer is named, not a missing file."""
    function = local_function(project.load(own))
    function = replace(
        function, layers=function.layers[1:], environment={**function.environment, "PATH": "/bin"}
    )
    with local_lambda(function, log=ListSink()) as local:
        error = json.loads(local.invoke("actor").payload)
    assert error["errorType"] == "Runtime.DenoNotFound"
    assert "add the Deno layer" in error["errorMessage"]


@pytest.mark.skipif(bool(bubblewrap_fault()), reason="no bubblewrap")
def test_a_start_takes_all_code_from_the_shipped_cache(own: Path) -> None:
    """With the shipped cache V8 compiles nothing of the function or the bridge at start."""
    log = ListSink()
    function = local_function(project.load(own))
    function = replace(function, environment={**function.environment, "DENO_LOG": "debug"})
    with local_lambda(function, sandbox="bubblewrap", log=log) as local:
        assert json.loads(local.invoke("actor", b"5").payload) == 5
    hits = codecache.hits("\n".join(log.lines))
    assert {"file:///var/task/function.bundle.js", "file:///opt/lambdeno/runtime.js"} <= hits
    assert not codecache.MISS.search("\n".join(log.lines))


def test_dev_leaves_no_process_behind(actor: Path) -> None:
    """SIGTERM ends the local Lambda and every process of its functions."""
    command = [LAMBDENO, "dev", "--json", "--port", "0"]
    with subprocess.Popen(
        command, cwd=actor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        endpoint = json.loads(process.stdout.readline())["endpoint"]
        client_of(endpoint).invoke(FunctionName="actor", Payload=b"1")
        tree = psutil.Process(process.pid).children(recursive=True)
        assert any("deno" in child.name() for child in tree)
        process.terminate()
        assert process.wait(20) == 0
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert alive == []
