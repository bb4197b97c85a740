"""The example for CDK: an app that the pinned Deno runs from its lock file, and that takes what was built."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import LAMBDENO, run

CDK = Path(__file__).parent.parent / "docs/cdk"
# CDK lets the function depend on its role, which it names anyway.
UNAVOIDABLE = {"W3005"}


def deno(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The pinned Deno in the example's folder."""
    return subprocess.run(
        [LAMBDENO, "deno", *map(str, arguments)],
        cwd=CDK,
        env={**os.environ, "NO_COLOR": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was built."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src").mkdir()
    (folder / "src/main.ts").write_text("export const other = (event: unknown): unknown => event;\n")
    about = 'name = "shown"\nhandler = "function.other"\n[build]\ncheck = false\ncode_cache = false\n'
    (folder / "lambdeno.toml").write_text(about)
    assert run("build", folder=folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def synthesised(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CDK's output: the template and what it refers to."""
    folder = tmp_path_factory.mktemp("out")
    done = deno("run", "--frozen", "-A", "app.ts", project, CDK_OUTDIR=str(folder))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The resources of one type, by name."""
    return {
        name: row["Properties"] for name, row in template["Resources"].items() if row["Type"].endswith(kind)
    }


def test_the_example_is_in_order() -> None:
    """Deno's formatter, linter and type checker have nothing to say."""
    for arguments in (("fmt", "--check"), ("lint",), ("check", "--frozen", "app.ts")):
        done = deno(*arguments)
        assert done.returncode == 0, done.stderr


def test_cdk_makes_the_function_of_the_zips(project: Path, synthesised: Path) -> None:
    """Both layers in their order, handler, runtime and variable are right; the assets are the very zips."""
    template = json.loads((synthesised / "shown.template.json").read_text())
    [function] = of_type(template, "::Function").values()
    assert (function["FunctionName"], function["Handler"]) == ("shown", "function.other")
    assert (function["Runtime"], function["Architectures"]) == ("provided.al2023", ["x86_64"])
    assert function["Environment"]["Variables"] == {"LAMBDENO_RUNTIME": "runtime1"}
    layers = of_type(template, "::LayerVersion")
    codes = [layers[layer["Ref"]]["Content"] for layer in function["Layers"]] + [function["Code"]]
    manifest = json.loads((project / "dist/manifest.json").read_text())
    assert [
        hashlib.sha256((synthesised / f"asset.{code['S3Key']}").read_bytes()).hexdigest() for code in codes
    ] == [manifest[kind]["sha256"] for kind in ("deno-layer", "runtime-layer", "function")]


def test_cfn_lint_finds_nothing_in_it(synthesised: Path) -> None:
    """No error and no warning but the one that CDK itself brings."""
    command = [Path(sys.executable).with_name("cfn-lint"), "--format", "json", "--"]
    command.append(synthesised / "shown.template.json")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert {row["Rule"]["Id"] for row in json.loads(done.stdout)} == UNAVOIDABLE
