"""Where an environment's processes run: in Lambda's file system, or in folders that stand for it.

Bubblewrap   /opt and /var/task real and read-only, /tmp its own, no other process to be seen
PlainPaths   the same processes in the host's file system, told where their folders are
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lambdeno.emulator.function import Function
from lambdeno.emulator.process import Launch
from lambdeno.errors import EmulatorError

__all__ = [
    "SANDBOXES",
    "Bubblewrap",
    "EntrypointError",
    "PlainPaths",
    "Sandbox",
    "Site",
    "choose_sandbox",
    "host_python",
]

SANDBOXES = ("auto", "bubblewrap", "paths")
VAR_RUNTIME = Path(__file__).parent / "var_runtime"
ROOT_FOLDERS = ("bin", "lib", "lib32", "lib64", "sbin")
# What name resolution, TLS and the dynamic linker read.
CONFIGURATION = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
)


class EntrypointError(Exception):
    """The function has no bootstrap that could be started: Runtime.InvalidEntrypoint."""


@dataclass(frozen=True, slots=True)
class Site:
    """One environment's folders on this machine."""

    task: Path
    opt: Path | None
    tmp: Path


class Sandbox(Protocol):
    """How to start an environment's first process."""

    @property
    def kind(self) -> str:
        """``bubblewrap`` or ``paths``."""

    @property
    def reason(self) -> str:
        """Why this one runs, as half a sentence."""

    def launch(self, function: Function, site: Site, variables: Mapping[str, str]) -> Launch:
        """The command for a function, given Lambda's variables. Raises EntrypointError."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Namespaces by bubblewrap: https://github.com/containers/bubblewrap."""

    reason: str = "asked for"
    kind: str = "bubblewrap"

    def launch(self, function: Function, site: Site, variables: Mapping[str, str]) -> Launch:
        """See Sandbox."""
        variables = dict(variables)
        if function.is_managed:
            interpreter = f"/var/lang/bin/{host_python().name}"
            command: tuple[str, ...] = ("/var/runtime/bootstrap", interpreter, "/var/runtime/bootstrap.py")
        else:
            command = (entrypoint(site, "/var/task", "/opt"),)
            # A local convenience: Lambda has no Python there.
            variables["PATH"] = variables["PATH"] + ":/var/lang/bin"
        arguments = [*isolation(), *folders(site), "--remount-ro", "/", "--chdir", "/var/task"]
        arguments.append("--clearenv")
        for name, value in variables.items():  # after --clearenv, which would clear them too
            arguments += ("--setenv", name, value)
        return Launch(
            ("bwrap", *arguments, "--", *command),
            bwrap_environment(),
            Path("/"),
            wraps_signals=True,
            refusal=b"bwrap: execvp ",
        )


@dataclass(frozen=True, slots=True)
class PlainPaths:
    """Plain processes: no isolation, paths of the host instead of Lambda's."""

    reason: str = "asked for"
    kind: str = "paths"

    def launch(self, function: Function, site: Site, variables: Mapping[str, str]) -> Launch:
        """See Sandbox."""
        python = host_python()
        opt = site.opt or site.tmp / "no-layers"
        search = [f"{opt}/bin", str(python.parent), os.environ.get("PATH", "/usr/bin:/bin")]
        own = dict(variables)
        if "PATH" not in function.environment:
            own["PATH"] = ":".join(search)
        if "LD_LIBRARY_PATH" not in function.environment:
            own["LD_LIBRARY_PATH"] = f"{site.task}:{site.task}/lib:{opt}/lib"
        own["LAMBDA_TASK_ROOT"] = str(site.task)
        own["LAMBDA_RUNTIME_DIR"] = str(VAR_RUNTIME)
        own["TMPDIR"] = str(site.tmp)
        wrapper = own.get("AWS_LAMBDA_EXEC_WRAPPER", "")
        for root, folder in (("/opt/", opt), ("/var/task/", site.task)):
            if wrapper.startswith(root):
                own["AWS_LAMBDA_EXEC_WRAPPER"] = str(folder / wrapper.removeprefix(root))
        if function.is_managed:
            command: tuple[str, ...] = (
                str(VAR_RUNTIME / "bootstrap"),
                str(python),
                str(VAR_RUNTIME / "bootstrap.py"),
            )
        else:
            command = (entrypoint(site, str(site.task), str(opt)),)
        return Launch(command, own, site.task)


def choose_sandbox(wish: str = "auto") -> Sandbox:
    """The sandbox that is wished for, or the best there is. Raises EmulatorError."""
    if wish not in SANDBOXES:
        raise EmulatorError(f'The sandbox "{wish}" is unknown', f"it may be {' or '.join(SANDBOXES)}")
    if wish == "paths":
        return PlainPaths()
    fault = bubblewrap_fault()
    if not fault:
        return Bubblewrap("it works on this machine" if wish == "auto" else "asked for")
    if wish == "auto":
        return PlainPaths(fault)
    raise EmulatorError(
        f"Cannot use bubblewrap: {fault}", 'install it and allow user namespaces, or use "paths"'
    )


@functools.cache
def bubblewrap_fault() -> str:
    """Why bubblewrap cannot be used here; empty where it can. Tried once, by using it."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap runs on Linux alone"
    command = ["bwrap", *isolation(), *folders(None), "--remount-ro", "/", "/bin/true"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, env=bwrap_environment()
        )
    except FileNotFoundError:
        return "bubblewrap is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if done.returncode:
        return f"bubblewrap fails: {done.stderr.strip() or done.returncode}"
    return ""


@functools.cache
def host_python() -> Path:
    """The interpreter that runs this, past virtual environments and version managers' shims."""
    name = f"python3.{sys.version_info.minor}"
    python = Path(sys.base_prefix, "bin", name)
    return python if python.exists() else Path(sys.executable).resolve()


def isolation() -> list[str]:
    """Namespaces of its own but for the network, no capabilities, death with its parent."""
    flags = ["--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc"]
    return [*flags, "--unshare-uts", "--cap-drop", "ALL"]


def folders(site: Site | None) -> list[str]:
    """The file system: the host's system read-only, Lambda's folders, and /tmp."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ROOT_FOLDERS:
        path = Path("/", name)
        if path.is_symlink():
            arguments += ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            arguments += ("--ro-bind", str(path), str(path))
    for file in CONFIGURATION:
        arguments += ("--ro-bind-try", file, file)
    arguments += ("--proc", "/proc", "--dev", "/dev", "--dir", "/var")
    arguments += ("--ro-bind", str(host_python().parent.parent), "/var/lang")
    arguments += ("--ro-bind", str(VAR_RUNTIME), "/var/runtime")
    if site is None:
        return arguments
    arguments += ("--ro-bind", str(site.task), "/var/task", "--bind", str(site.tmp), "/tmp")
    return arguments + (["--ro-bind", str(site.opt), "/opt"] if site.opt else ["--dir", "/opt"])


def bwrap_environment() -> dict[str, str]:
    """All that bubblewrap itself needs."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def entrypoint(site: Site, task: str, opt: str) -> str:
    """The bootstrap that Lambda would start, as the function sees its path.

    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html. Raises EntrypointError.
    """
    for folder, seen in ((site.task, task), (site.opt, opt)):
        bootstrap = folder / "bootstrap" if folder else None
        if bootstrap and bootstrap.is_file():
            if not os.access(bootstrap, os.X_OK):
                raise EntrypointError(f"fork/exec {seen}/bootstrap: permission denied")
            return f"{seen}/bootstrap"
    raise EntrypointError("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")
