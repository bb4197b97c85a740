"""The programs that lambdeno starts: none outlives it, and none of what they start.

Each has a process group of its own, which is killed when an exception (Ctrl-C, SIGTERM) ends the wait for it.
If lambdeno itself is killed, a watchdog kills the groups: a shell that reads their numbers from a pipe, until
the pipe's other end closes with this process.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lambdeno import signals

__all__ = ["end_all", "guard", "release", "run", "started", "watch"]

WATCHDOG = """
trap '' HUP INT QUIT TERM
groups=
while read -r sign group; do
  case $sign in
    +) groups="$groups $group" ;;
    -) kept=
       for one in $groups; do [ "$one" = "$group" ] || kept="$kept $one"; done
       groups=$kept ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""
_lock = threading.Lock()
_running: set[subprocess.Popen[str]] = set()


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program, and wait for its end; on an exception, kill it with all that it has started.

    ``options`` are Popen's. Raises OSError where it cannot be started.
    """
    watch()
    process: subprocess.Popen[str] | None = None
    try:
        with signals.deferred():  # a signal between start and assignment would lose it
            process = subprocess.Popen(command, process_group=0, **options)
            guard(process.pid)
            _running.add(process)
        yield process
    except BaseException:
        if process:
            _kill(process)
        raise
    finally:
        if process:
            with process:  # closes its pipes and waits
                pass
            release(process.pid)
            _running.discard(process)


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end without input, and capture its output. Raises OSError if it cannot start."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, **pipes, encoding="utf-8", errors="replace", **options) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def end_all() -> None:
    """Kill the programs that other threads wait for."""
    for process in tuple(_running):
        _kill(process)


def watch() -> None:
    """Start the watchdog, so that guard takes no time."""
    with _lock, suppress(OSError):  # there is no shell
        _watchdog()


def guard(group: int) -> None:
    """Have a process group killed if this process is killed."""
    _tell(f"+ {group}\n")


def release(group: int) -> None:
    """Take back guard: the group is gone, and its number may become another's."""
    _tell(f"- {group}\n")


@functools.cache
def _watchdog() -> int:
    """Start the watchdog; the descriptor that it reads from."""
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", WATCHDOG, "lambdeno-watchdog"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    atexit.register(watchdog.communicate)
    assert watchdog.stdin  # noqa: S101 - a pipe
    return watchdog.stdin.fileno()


def _tell(line: str) -> None:
    with _lock, suppress(OSError):  # there is no shell, or somebody has killed it
        os.write(_watchdog(), line.encode())


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:  # its number is its own until then
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
