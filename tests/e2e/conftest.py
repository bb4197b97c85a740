"""The product as a user has it: a project built to zips, run by the local Lambda."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from lambdeno import project
from lambdeno.dev import local_function
from lambdeno.emulator import Handle, ListSink, local_lambda
from lambdeno.emulator.sandbox import bubblewrap_fault

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

LAMBDENO = str(Path(sys.executable).with_name("lambdeno"))

# One function that does what its event says: each test needs another behaviour, none another build.
ACTOR = """
import { format } from "./format.ts";
import { z } from "zod";

const Order = z.object({ do: z.string() });

export async function handler(event: unknown, context: Record<string, unknown>) {
  const order = Order.safeParse(event);
  switch (order.success ? order.data.do : "echo") {
    case "throw":
      throw new RangeError("out of range");
    case "exit":
      Deno.exit(7);
      break;
    case "hang":
      await new Promise((resolve) => setTimeout(resolve, 60_000));
      break;
    case "reject":
      Promise.reject(new TypeError("nobody waits"));
      await new Promise((resolve) => setTimeout(resolve, 60_000));
      break;
    case "timer":
      setTimeout(() => {
        throw new TypeError("in a timer");
      }, 1);
      await new Promise((resolve) => setTimeout(resolve, 60_000));
      break;
    case "never":
      await new Promise(() => {});
      break;
    case "block":
      while (Date.now());
      break;
    case "cycle": {
      const cycle: unknown[] = [];
      cycle.push(cycle);
      return cycle;
    }
    case "large":
      return "x".repeat(5_900_000);
    case "too-large":
      return "x".repeat(7_000_000);
    case "undefined":
      return undefined;
    case "print":
      console.log(format("printed"));
      console.error("to stderr");
      return null;
    case "context":
      return { ...context, remaining: (context.getRemainingTimeInMillis as () => number)() };
    case "where":
      return {
        cwd: Deno.cwd(),
        home: Deno.env.get("HOME"),
        greeting: Deno.env.get("GREETING"),
        api: Deno.env.get("AWS_LAMBDA_RUNTIME_API") ?? null,
        url: import.meta.url,
      };
  }
  return event;
}
"""


@dataclass(frozen=True)
class Local:
    """A function in a local Lambda, with an unchanged AWS client."""

    handle: Handle
    client: LambdaClient
    log: ListSink
    folder: Path

    def invoke(self, payload: bytes, **options: Any) -> Any:
        """Invoke the function through boto3."""
        return self.client.invoke(FunctionName="actor", Payload=payload, **options)


def client_of(endpoint: str) -> LambdaClient:
    """An AWS client as anybody has it, but for the endpoint."""
    return boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
    )


def run(*arguments: str | Path, folder: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it."""
    return subprocess.run(
        [LAMBDENO, *map(str, arguments)],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="session")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of several TypeScript files and an npm package, built."""
    folder = tmp_path_factory.mktemp("actor")
    (folder / "src").mkdir()
    (folder / "src/main.ts").write_text(ACTOR)
    (folder / "src/format.ts").write_text("export const format = (text: string) => `[${text}]`;\n")
    (folder / "deno.json").write_text('{"imports": {"zod": "npm:zod@4.6.7"}}\n')
    (folder / "lambdeno.toml").write_text('name = "actor"\ntimeout = 5\n[environment]\nGREETING = "hello"\n')
    built = run("build", folder=folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="session")
def managed_actor(actor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project for Lambda's managed Python."""
    folder = shutil.copytree(actor, tmp_path_factory.mktemp("managed") / "actor")
    toml = folder / "lambdeno.toml"
    toml.write_text('shape = "managed"\n' + toml.read_text())
    return folder


@pytest.fixture(
    scope="session",
    params=itertools.product(
        ["bubblewrap", "paths"], [("os-only", "runtime1"), ("managed", "runtime1"), ("os-only", "runtime2")]
    ),
    ids=lambda param: "-".join([param[0], *param[1]]),
)
def local(request: pytest.FixtureRequest, actor: Path, managed_actor: Path) -> Iterator[Local]:
    """The built zips in a local Lambda, in each kind of sandbox, each shape and each runtime."""
    sandbox, (shape, runtime) = request.param
    if sandbox == "bubblewrap" and bubblewrap_fault():
        pytest.skip(f"no bubblewrap: {bubblewrap_fault()}")
    log = ListSink()
    folder = actor if shape == "os-only" else managed_actor
    function = local_function(project.load(folder))
    function = replace(function, environment={**function.environment, "LAMBDENO_RUNTIME": runtime})
    assert function.is_managed is (shape == "managed")
    with local_lambda(function, sandbox=sandbox, log=log) as handle:
        yield Local(handle, client_of(handle.endpoint), log, folder)
