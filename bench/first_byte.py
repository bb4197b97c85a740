"""How soon the first byte of a stream is at the client, while the function goes on for 2 s: medians.

    python bench/first_byte.py [--rounds 20]

A warm function behind the local Lambda's URL, under both runtimes, by turns, 0.1 s after its last answer;
them the same function without a stream, which answers when all of it is there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import os
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from lambdeno import dev, project
from lambdeno.emulator import FunctionUrl, Handle, ListSink, local_lambda

PAUSE = 0.1  # s: runtime2 has its next process by then
SOURCE = """
export default {
  fetch: () => new Response(new ReadableStream({
    async start(controller) {
      controller.enqueue(new TextEncoder().encode("first"));
      await new Promise((resolve) => setTimeout(resolve, 2000));
      controller.enqueue(new TextEncoder().encode("last"));
      controller.close();
    },
  })),
};
"""


def first_byte(local: Handle, name: str) -> float:
    """From the request to the first byte of the body, in ms."""
    port = int((local.url_of(name) or "").rstrip("/").rpartition(":")[2])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.connect()
        time.sleep(PAUSE)
        began = time.perf_counter()
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read(1)
        took = (time.perf_counter() - began) * 1000
        response.read()
        return took


def main() -> None:
    """Build once, then rounds of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "src").mkdir()
        (root / "src/main.ts").write_text(SOURCE)
        (root / "lambdeno.toml").write_text('name = "first"\n')
        loaded = project.load(root)
        functions = []
        for runtime in ("runtime1", "runtime2"):
            made = dev.local_function(msgspec.structs.replace(loaded, runtime=runtime))
            variables = {**made.environment, "LAMBDENO_INVOKE_MODE": "streaming"}
            url = FunctionUrl(is_streaming=True)
            functions.append(dataclasses.replace(made, name=runtime, environment=variables, url=url))
            functions.append(dataclasses.replace(made, name=f"{runtime}-buffered", url=FunctionUrl()))
        found: dict[str, list[float]] = {function.name: [] for function in functions}
        with local_lambda(*functions, log=ListSink()) as local:
            for number in range(rounds + 1):
                for name, times in found.items():
                    took = first_byte(local, name)
                    if number:  # the first one is a cold start
                        times.append(took)
    print(f"load {os.getloadavg()[0]:.2f}, {rounds} rounds")
    print("| first byte, ms | median (min to max) |\n|---|---|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) |")


if __name__ == "__main__":
    main()
