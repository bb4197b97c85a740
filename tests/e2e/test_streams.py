"""Streams end to end: a real function, the local Lambda, boto3 and raw sockets at the client's end."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdeno import dev, project
from lambdeno.emulator import FunctionUrl, Handle, ListSink, local_lambda
from tests.e2e.conftest import client_of
from tests.test_dev import layers

__all__ = ["layers"]  # a fixture

SOURCE = """
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export async function* handler({ fail, pause }: { fail?: boolean; pause?: number }) {
  yield "first ";
  await sleep(pause ?? 0);
  if (fail) throw new RangeError("too late");
  yield "last";
}

export default {
  fetch: () =>
    new Response(
      new ReadableStream({
        async start(controller) {
          controller.enqueue(new TextEncoder().encode("first"));
          await sleep(200);
          controller.error(new RangeError("too late"));
        },
      }),
    ),
};
"""


@dataclasses.dataclass
class Running:
    """The function in a local Lambda, and its log."""

    local: Handle
    log: ListSink


@pytest.fixture(scope="module", params=["runtime1", "runtime2"])
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    layers: Path,
) -> Iterator[Running]:
    """The function above, under each runtime."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "src").mkdir()
    (folder / "src/main.ts").write_text(SOURCE)
    (folder / "lambdeno.toml").write_text('name = "streams"\n[url]\ninvoke_mode = "streaming"\n')
    (folder / "dist").mkdir()
    for file in layers.iterdir():
        (folder / "dist" / file.name).hardlink_to(file)
    loaded = msgspec.structs.replace(project.load(folder), runtime=request.param)
    function = dataclasses.replace(dev.local_function(loaded), url=FunctionUrl(is_streaming=True))
    log = ListSink()
    with local_lambda(function, log=log) as local:
        yield Running(local, log)


def told(running: Running, event: dict[str, Any]) -> tuple[list[tuple[float, bytes]], dict[str, Any]]:
    """The chunks that boto3 reads, with their times, and how it ended."""
    client = client_of(running.local.endpoint)
    answer = client.invoke_with_response_stream(FunctionName="streams", Payload=json.dumps(event).encode())
    chunks: list[tuple[float, bytes]] = []
    end: dict[str, Any] = {}
    for one in answer["EventStream"]:
        if "PayloadChunk" in one:
            chunks.append((time.monotonic(), one["PayloadChunk"]["Payload"]))
        else:
            end = dict(one["InvokeComplete"])
    client.close()
    return chunks, end


def test_boto3_reads_chunks_as_they_are_made(running: Running) -> None:
    """InvokeWithResponseStream gives each when it was yielded."""
    chunks, end = told(running, {"pause": 500})
    assert b"".join(chunk for _, chunk in chunks) == b"first last"
    assert chunks[-1][0] - chunks[0][0] > 0.3
    assert not end.get("ErrorCode")


def test_a_late_error_is_in_the_streams_last_word(running: Running) -> None:
    """The bytes before it stay; its type and text are in InvokeComplete."""
    chunks, end = told(running, {"fail": True})
    assert b"".join(chunk for _, chunk in chunks) == b"first "
    assert end["ErrorCode"] == "Unhandled"
    details = json.loads(end["ErrorDetails"])
    assert (details["errorType"], details["errorMessage"]) == ("RangeError", "too late")
    assert any("src/main.ts" in line for line in details["trace"])


def test_a_plain_invocation_gets_all_of_it(running: Running) -> None:
    """Invoke waits for the end; an error is the invocation's."""
    assert running.local.invoke("streams", b"{}").payload == b"first last"
    result = running.local.invoke("streams", b'{"fail": true}')
    assert result.function_error == "Unhandled"
    assert json.loads(result.payload)["errorMessage"] == "too late"


def test_a_late_error_breaks_the_urls_response_off(running: Running) -> None:
    """Nobody takes it for whole; the log has why."""
    port = int((running.local.url_of("streams") or "").rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(30)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"5\r\nfirst\r\n")
    assert any("too late" in line for line in running.log.lines)
