"""The os-only layers stand alone: no Python, an old C library, another architecture, an empty root."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from lambdeno import build, deno, interpreter
from lambdeno.emulator import host_architecture
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.project import DENO_VERSION
from tests.layer import debian
from tests.layer.conftest import LAYER, Environment, Start

ARCHITECTURES = ("x86_64", "arm64")
AMAZON_LINUX = (2, 34)  # the C library of Amazon Linux 2023
UNSHARED = ["--unshare-pid", "--unshare-ipc", "--unshare-uts"]
ISOLATED = [shutil.which("bwrap") or "bwrap", "--die-with-parent", *UNSHARED, "--cap-drop", "ALL"]
BUNDLE = """
export const handler = async (event) => {
  if (event === "throw") throw new RangeError("out of range");
  if (event === "exit") Deno.exit(7);
  return { event, debian: await exists("/etc/debian_version"), python: await exists("/usr/bin/python3") };
};
const exists = (path) => Deno.stat(path).then(() => true, () => false);
"""

needs_bubblewrap = pytest.mark.skipif(bool(bubblewrap_fault()), reason=bubblewrap_fault())


@pytest.fixture(params=["binary-runtime1", "binary-runtime2"])
def combination(request: pytest.FixtureRequest) -> str:
    """The binary itself, with each runtime; these tests say how it is started."""
    name: str = request.param
    return name


def opt(folder: Path, architecture: str, deno_binary: Path) -> Path:
    """/opt as both layers make it."""
    target = folder / f"opt-{architecture}"
    (target / "bin").mkdir(parents=True)
    shutil.copytree(
        LAYER / "lambdeno", target / "lambdeno", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    (target / "bootstrap").write_bytes(interpreter.bootstrap(architecture, build.layer_modules()).data)
    (target / "bootstrap").chmod(0o755)
    shutil.copy(deno_binary, target / "bin/deno")
    return target


def answers(environment: Environment) -> None:
    """An event, an error, a crash and a new Deno: all as anywhere else."""
    answer = environment.result({"a": ["é", 1]})
    assert answer["event"] == {"a": ["é", 1]}
    assert environment.error("throw")[1]["errorType"] == "RangeError"
    assert environment.error("exit")[0].error_type == "Runtime.ExitError"
    assert environment.result("again")["event"] == "again"


def alone(start: Start, isolation: list[str | Path]) -> Environment:
    """An environment with Lambda's paths in another root."""
    return start(
        BUNDLE,
        command=[*isolation, "/opt/bootstrap"],
        LAMBDA_TASK_ROOT="/var/task",
        LAMBDENO_PERMISSIONS="--allow-read",  # to look around
        PATH="/nowhere",
        TMPDIR=None,
    )


def libraries(binary: Path) -> Iterator[Path]:
    """What the dynamic linker would load for a binary, itself among it."""
    said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(0x", said):
        yield Path(path)


@needs_bubblewrap
def test_an_empty_root_is_enough(start: Start, tmp_path: Path, deno_binary: Path) -> None:
    """The two layers, the function, /tmp and the libraries that Deno names: no Python, no shell, no /proc."""
    command: list[str | Path] = [
        *ISOLATED,
        "--ro-bind",
        opt(tmp_path, host_architecture(), deno_binary),
        "/opt",
    ]
    for library in libraries(deno_binary):
        command += ["--ro-bind", library.resolve(), library]
    command += ["--ro-bind", tmp_path / "task", "/var/task", "--tmpfs", "/tmp", "--remount-ro", "/"]
    environment = alone(start, command)
    assert environment.result("where") == {"event": "where", "debian": False, "python": False}
    answers(environment)


@needs_bubblewrap
@pytest.mark.skipif(host_architecture() != "x86_64", reason="the root is for x86_64")
def test_an_older_c_library_is_enough(start: Start, tmp_path: Path, deno_binary: Path) -> None:
    """Debian 11 has glibc 2.31, Amazon Linux 2023 has 2.34."""
    root = debian.root("bullseye", "amd64", "base-files", "libc6", "libgcc-s1")
    assert (root / "lib/x86_64-linux-gnu/libc-2.31.so").exists()
    for name in ("opt", "var/task"):
        (root / name).mkdir(parents=True, exist_ok=True)
    layers = opt(tmp_path, "x86_64", deno_binary)
    command: list[str | Path] = [
        *ISOLATED,
        "--ro-bind",
        root,
        "/",
        "--ro-bind",
        layers,
        "/opt",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    command += ["--ro-bind", tmp_path / "task", "/var/task", "--tmpfs", "/tmp"]
    environment = alone(start, command)
    assert environment.result("where") == {"event": "where", "debian": True, "python": False}
    answers(environment)


@pytest.mark.skipif(host_architecture() != "x86_64", reason="here arm64 is no other architecture")
def test_the_other_architecture_answers(start: Start, tmp_path: Path) -> None:
    """Both binaries for arm64 under qemu: built on x86_64, right all the same."""
    qemu = debian.root("bookworm", "amd64", "qemu-user-static") / "usr/bin/qemu-aarch64-static"
    root = debian.root("bookworm", "arm64", "libc6", "libgcc-s1")
    binary = deno.get(DENO_VERSION, "linux-arm64").path
    layers = opt(tmp_path, "arm64", binary)
    # The kernel starts no binary of another architecture: this stands in for the one that bootstrap starts.
    (layers / "bin/deno").unlink()
    (layers / "bin/deno").write_text(f'#!/bin/sh\nexec "{qemu}" -L "{root}" "{binary}" "$@"\n')
    (layers / "bin/deno").chmod(0o755)
    answers(start(BUNDLE, command=[qemu, layers / "bootstrap"]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_deno_needs_no_newer_c_library_than_lambdas(architecture: str) -> None:
    """The newest GLIBC symbol that Deno asks for is at most Amazon Linux 2023's."""
    with deno.get(DENO_VERSION, f"linux-{architecture}").path.open("rb") as file:
        wanted = {
            auxiliary.name
            for section in ELFFile(file).iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, auxiliaries in section.iter_versions()
            for auxiliary in auxiliaries
        }
    versions = {tuple(map(int, name[6:].split("."))) for name in wanted if name.startswith("GLIBC_")}
    assert versions
    assert max(versions) <= AMAZON_LINUX
