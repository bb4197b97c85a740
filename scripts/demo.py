#!/usr/bin/env python3
"""The main job, for the eye: build examples/hello, start the local Lambda, invoke it by three clients."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "examples/hello"
LAMBDENO = str(Path(sys.executable).with_name("lambdeno"))


def main() -> None:
    """Tell the story, step by step."""
    began = time.monotonic()
    say("Build the Deno layer, the runtime layer and the function")
    run([LAMBDENO, "build", "--project", PROJECT])

    say("Start the local Lambda with these very zips")
    command = [LAMBDENO, "dev", "--json", "--project", PROJECT, "--port", "0", "--url-port", "0"]
    lambda_ = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    rows: list[str] = []
    try:
        line = lambda_.stdout.readline() if lambda_.stdout else ""
        if not line:
            sys.exit("demo: the local Lambda did not start")
        threading.Thread(target=lambda: rows.extend(lambda_.stdout or ()), daemon=True).start()
        started = json.loads(line)
        print(f"{started['endpoint']}, {started['sandbox']}; {described(started['shape'])}")
        invoke_three_times(started["endpoint"])
    finally:
        lambda_.terminate()
        lambda_.wait(20)
    shown = (json.loads(row) for row in rows)
    show_log("".join(f"{row['line']}\n" for row in shown if row["type"] == "log"))
    print(f"\nDone in {time.monotonic() - began:.0f} s. Next: lambdeno dev --project {PROJECT}")


def described(shape: str) -> str:
    """What runs the bootstrap."""
    if shape == "managed":
        return "shape managed: Lambda's own Python runs the bootstrap"
    row = json.loads((ROOT / PROJECT / "dist/manifest.json").read_text("utf-8"))["runtime-layer"]
    return f"shape os-only: bootstrap is one static file, CPython {row['python']} in it"


def invoke_three_times(endpoint: str) -> None:
    """The same function, by our command line, by the AWS SDK, by curl."""
    event = '{"name": "Ada"}'
    say("1. lambdeno invoke (a cold start)")
    run([LAMBDENO, "invoke", event, "--project", PROJECT, "--endpoint-url", endpoint])

    say("2. boto3, unchanged but for its endpoint")
    client = boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}),
    )
    answer = client.invoke(FunctionName="hello", Payload=b'{"name": "Grace"}')
    print(answer["StatusCode"], answer["Payload"].read().decode())

    say("3. curl")
    url = f"{endpoint}/2015-03-31/functions/hello/invocations"
    if shutil.which("curl"):
        run(["curl", "--silent", "--show-error", "--data", '{"name": "Linus"}', url])
        print()
    else:
        print(f"(no curl here: curl --data '{event}' {url})")


def show_log(text: str) -> None:
    """The function's log, and the times in it."""
    say("The log of the three invocations")
    lines = [line for line in text.splitlines() if line.strip()]
    print("\n".join(lines))
    reports = [line for line in lines if "REPORT RequestId" in line]
    cold = re.search(r"Init Duration: ([\d.]+) ms", "\n".join(reports))
    warm = [float(found) for found in re.findall(r"\tDuration: ([\d.]+) ms", "\n".join(reports[1:]))]
    if cold and warm:
        print(f"\nCold start {cold[1]} ms, warm invocations {min(warm):.2f} to {max(warm):.2f} ms")


def say(words: str) -> None:
    """A heading."""
    print(f"\n\033[1m{words}\033[0m" if sys.stdout.isatty() else f"\n{words}", flush=True)


def run(command: list[str]) -> None:
    """Run a step; its failure is the demo's."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"demo: {' '.join(command)} failed")


main()
