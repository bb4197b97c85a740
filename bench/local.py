"""The local Lambda beside AWS's own emulator: invocations a second of the same zips.

AWS's emulator dies of two at once, so that it is asked one by one; ours by 1, 8 and 64 clients.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import platform
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
from runtime_api import Figures

from lambdeno import dev, project
from lambdeno.cache import cache_folder
from lambdeno.emulator import ListSink, local_lambda

__all__ = ["CLIENTS", "aws_emulator", "throughput_of_aws", "throughput_of_ours"]

CLIENTS = (1, 8, 64)
SECONDS = 3.0
PATIENCE = 30  # s
SAM_CLI = "aws-sam-cli==1.170.0"  # whose wheel carries the emulator
SAM_CLI_SHA256 = "24ebaf5ecba38dc1758089968cb89ab61e124b84e92a344fc7a2771a47f4d0bf"
MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}
EVENT = b'{"k":"' + b"x" * 92 + b'"}'


def aws_emulator() -> Path:
    """The emulator's program, brought by pip and checked by its wheel's sha256. Raises RuntimeError."""
    folder = cache_folder() / "bench/aws-emulator"
    program = folder / "aws-lambda-rie"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*pip, "--dest", str(folder), SAM_CLI], capture_output=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            raise RuntimeError("pip cannot bring AWS's emulator")
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SAM_CLI_SHA256:
            raise RuntimeError("AWS's emulator has another sha256 than the pinned one")
        with zipfile.ZipFile(wheels[0]) as wheel:
            name = f"samcli/local/rapid/aws-lambda-rie-{MACHINES[platform.machine()]}"
            program.write_bytes(wheel.read(name))
        program.chmod(0o755)
        wheels[0].unlink()
    return program


def throughput_of_aws(work: Path) -> Figures:
    """One client of AWS's emulator, on the layers and the function of the stage."""
    with _running(work) as port:
        return Figures(0.0, rate=_rate(port, "function", 1))


def throughput_of_ours(clients: int) -> Figures:
    """So many clients of the local Lambda, each on an execution environment of its own."""
    source = project.load(Path(__file__).parent / "functions/hello")
    function = replace(dev.local_function(source), concurrency=max(CLIENTS))
    with local_lambda(function, log=ListSink()) as local:
        port = int(local.endpoint.rpartition(":")[2])
        return Figures(0.0, rate=_rate(port, source.name, clients))


@contextlib.contextmanager
def _running(work: Path) -> Iterator[int]:
    port, runtime_port = _free_port(), _free_port()
    command = [str(aws_emulator()), "--log-level", "error"]
    command += ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}", str(work / "layers/bootstrap")]
    environment = {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "LAMBDA_TASK_ROOT": str(work / "hello"),
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
    }
    process = subprocess.Popen(
        [*command, "function.handler"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.wait()


def _free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _rate(port: int, name: str, clients: int) -> float:
    """Invocations a second, once each client has had its first."""
    counts = [0] * clients
    ready = threading.Barrier(clients + 1)
    is_over = threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        _invoke_patiently(connection, name)
        ready.wait(PATIENCE)
        while not is_over.is_set():
            _invoke(connection, name)
            counts[number] += 1
        connection.close()

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait(PATIENCE)
    began = time.perf_counter()
    time.sleep(SECONDS)
    is_over.set()
    done, took = sum(counts), time.perf_counter() - began
    for thread in threads:
        thread.join(PATIENCE)
    return done / took


def _invoke(connection: http.client.HTTPConnection, name: str) -> None:
    connection.request("POST", f"/2015-03-31/functions/{name}/invocations", EVENT)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200 or b'"ok"' not in body:
        raise RuntimeError(f"{response.status} {body[:200]!r}")


def _invoke_patiently(connection: http.client.HTTPConnection, name: str) -> None:
    """The server may not listen yet."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return _invoke(connection, name)
        except (OSError, http.client.HTTPException):
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
