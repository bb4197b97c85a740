"""The direction of imports is a table: a new edge is a change of this file."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import lambdeno
from lambdeno import build, cli, deploy

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/lambdeno"
LAYER = PACKAGE / "layer"

# cli -> commands -> nouns -> leaves. What cli imports lazily counts as well.
ALLOWED = {
    "__main__": {"cli"},
    "cli": {
        "archive",
        "aws",
        "bench",
        "benchview",
        "build",
        "deno",
        "deploy",
        "deployment",
        "destroy",
        "dev",
        "devview",
        "doctor",
        "emulator",
        "errors",
        "init",
        "invoke",
        "logs",
        "payload",
        "project",
        "remote",
        "scratch",
        "signals",
        "template",
        "terminal",
    },
    "build": {
        "archive",
        "atomic",
        "codecache",
        "configuration",
        "deno",
        "emulator",
        "errors",
        "graph",
        "inputs",
        "interpreter",
        "project",
        "sbom",
        "scratch",
        "sensitive",
        "unbundled",
    },
    "unbundled": {"archive", "configuration", "deno", "errors", "graph", "project"},
    "graph": {"configuration", "deno", "errors", "project"},
    "configuration": {"errors", "project"},
    "inputs": {"atomic", "cache", "digests"},
    "init": {"errors", "project"},
    "template": {"atomic", "build", "deployment", "errors", "project"},
    "dev": {"build", "cache", "children", "emulator", "errors", "inputs", "project", "scratch", "signals"},
    "devview": {"emulator", "errors", "project", "terminal"},
    "bench": {"build", "cache", "codecache", "dev", "emulator", "errors", "project", "scratch"},
    "benchview": {"bench"},
    "deploy": {"archive", "aws", "build", "deployment", "errors", "limits", "project"},
    "destroy": {"aws", "build", "deploy", "deployment", "project"},
    "doctor": {"archive", "build", "codecache", "deno", "errors", "interpreter", "limits", "project"},
    "invoke": {"errors", "payload", "project"},
    "remote": {"aws", "errors", "invoke", "project"},
    "logs": {"aws", "deployment", "errors", "project", "terminal"},
    "codecache": {"archive", "children", "emulator", "errors", "scratch"},
    "interpreter": {"cache", "children", "digests", "emulator", "errors"},
    "sbom": set(),
    "aws": {"errors"},
    "deployment": {"archive", "aws", "errors", "limits", "project"},
    "emulator": {"cache", "children", "digests", "errors", "limits", "payload", "scratch", "terminal"},
    "project": {"errors", "limits"},
    "archive": {"atomic", "errors", "limits"},
    "deno": {"cache", "children", "digests", "errors", "scratch"},
    "digests": {"atomic"},
    "cache": {"errors"},
    "sensitive": set(),
    "atomic": set(),
    "children": {"signals"},
    "scratch": set(),
    "signals": set(),
    "limits": set(),
    "errors": set(),
    "payload": set(),
    "terminal": set(),
}

PACKAGES = ("deployment", "emulator")

# What becomes /opt of the runtime layer.
SHIPPED = {
    "bootstrap",
    "lambdeno/__main__.py",
    "lambdeno/bootstrap.py",
    "lambdeno/connection.py",
    "lambdeno/debug.py",
    "lambdeno/deno.py",
    "lambdeno/extension.py",
    "lambdeno/fault.py",
    "lambdeno/function.bundle.js",
    "lambdeno/logs.py",
    "lambdeno/modules.py",
    "lambdeno/runtime.js",
    "lambdeno/runtime.py",
    "lambdeno/relay.py",
    "lambdeno/runtime1.py",
    "lambdeno/runtime2.py",
    "lambdeno/runtime_api.py",
    "lambdeno/settings.py",
    "lambdeno/streaming.js",
    "lambdeno/streaming.py",
    "lambdeno/streams.py",
    "lambdeno/web.js",
}


def imports(path: Path) -> set[str]:
    """The modules of lambdeno that a file imports, by their first name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("lambdeno.")}
    return {name for name in found if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()}


def test_imports_go_one_way() -> None:
    """Every module imports what the table says, and nothing else of ours."""
    real = {path.stem: imports(path) for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    for package in PACKAGES:
        parts = [imports(path) for path in (PACKAGE / package).rglob("*.py")]
        real[package] = set().union(*parts) - {package}
    assert real == ALLOWED


def test_the_layer_knows_nothing_of_the_rest_and_the_rest_nothing_of_it() -> None:
    """layer/ is read as bytes; its modules import each other and the standard library."""
    assert all(imports(path) == set() for path in LAYER.rglob("*.py"))
    assert not (LAYER / "__init__.py").exists()
    assert "layer" not in set().union(*ALLOWED.values())


def test_help_stays_light() -> None:
    """What --help imports is click and nothing heavy."""
    program = "import sys, lambdeno.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"rich", "msgspec", "h11", "psutil", "boto3", "asyncio", "http.client", "sqlite3"}
    assert heavy & set(done.stdout.split()) == set()


def test_the_command_line_knows_every_part_of_a_deployment() -> None:
    """It names them without importing what carries them out."""
    assert tuple(deploy.PARTS) == cli.PARTS
    assert build.KINDS == cli.KINDS


def test_the_changelog_knows_this_version() -> None:
    """The version in the code has a heading in the changelog."""
    assert f"\n## {lambdeno.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_wheel_carries_all_that_is_needed(tmp_path: Path) -> None:
    """Layer, pins and the stand-ins of the managed runtime are in what pip installs."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        names = set(zipped.namelist())
    shipped = {name.removeprefix("lambdeno/layer/") for name in names if name.startswith("lambdeno/layer/")}
    assert shipped == SHIPPED
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {f"lambdeno/{path.relative_to(PACKAGE).as_posix()}" for path in files} <= names
    recipe = [path for path in (ROOT / "interpreter").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {f"lambdeno/recipe/{path.relative_to(ROOT / 'interpreter').as_posix()}" for path in recipe} == {
        name for name in names if name.startswith("lambdeno/recipe/")
    }
    assert not any("__pycache__" in name for name in names)
