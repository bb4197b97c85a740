"""The processes of one environment: started together, watched together, killed together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lambdeno import children

__all__ = ["Launch", "Process", "exit_reason"]

READ = 64 * 1024  # bytes: what a pipe holds on Linux
FIRST = 256  # bytes of output kept, to see what kept the command from starting
DRAIN = 1024 * 1024  # bytes read at the end of an invocation at most, however fast the function writes
SANDBOXES = frozenset({b"bwrap"})  # their memory is not the function's

# The names that Go gives to signals, for Lambda's own supervisor is written in it.
SIGNALS = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an environment's first process.

    ``wraps_signals``: the sandbox reports the death by signal n as exit status 128 + n.
    ``refusal``: how its output begins where it cannot execute the command.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    wraps_signals: bool = False
    refusal: bytes = b""


class Process:
    """A running process tree; its output goes to ``on_output``, its end to ``on_exit``."""

    def __init__(
        self, process: asyncio.subprocess.Process, pipe: int, on_output: Callable[[bytes], None]
    ) -> None:
        self._process = process
        self._pipe: int | None = pipe
        self._on_output = on_output
        self._is_over = False
        self.first_output = b""
        self._peak = 0
        asyncio.get_running_loop().add_reader(pipe, self._read)

    @classmethod
    async def start(cls, launch: Launch, on_output: Callable[[bytes], None]) -> Process:
        """Start it, both outputs into one pipe so that their order is kept. Raises OSError."""
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=launch.directory,
                env=dict(launch.environment),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        children.guard(process.pid)
        os.set_blocking(reading, False)
        return cls(process, reading, on_output)

    async def wait(self) -> int:
        """Wait for the end of the first process: its exit status, or the negative signal number."""
        return await self._process.wait()

    def kill(self) -> None:
        """Kill the whole tree, with those that left the process group, and leave no time.

        The first process's number may be another's once it is gone: after that, once is enough.
        """
        if self._is_over:
            return
        self._is_over = self._process.returncode is not None
        pids = tree(self._process.pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in pids[1:] if self._is_over else pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        children.release(self._process.pid)

    async def terminate(self, seconds: float) -> None:
        """Ask the runtime to end, with SIGTERM, and wait for a while at most.

        A sandbox's own process must not get the signal: it would take all within down at once.
        """
        if self._process.returncode is not None:
            return
        pids = [pid for pid in tree(self._process.pid) if name_of(pid) not in SANDBOXES]
        if pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pids[0], signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()

    def read_pending(self) -> None:
        """Read what lies in the pipe now."""
        size = 0
        while self._pipe is not None and size < DRAIN:
            got = self._read()
            if not got:
                return
            size += got

    def close(self) -> None:
        """Let go of the pipe."""
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def peak_memory(self) -> int:
        """Bytes: the most that the processes seen at one time had resident, each at its own peak."""
        if self._process.returncode is None:
            self._peak = max(self._peak, sum(map(peak_of, tree(self._process.pid))))
        return self._peak

    def _read(self) -> int:
        assert self._pipe is not None  # noqa: S101 - the reader is removed with it
        try:
            data = os.read(self._pipe, READ)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
            return 0
        if len(self.first_output) < FIRST:
            self.first_output = (self.first_output + data)[:FIRST]
        self._on_output(data)
        return len(data)


def tree(pid: int) -> list[int]:
    """A process and all its descendants, parents first. Linux tells through /proc at little cost."""
    if not sys.platform.startswith("linux"):
        with suppress(psutil.Error):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return [pid]
    pids = [pid]
    for parent in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208 - names alone, fast
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                    pids.extend(map(int, file.read().split()))
    return pids


def name_of(pid: int) -> bytes:
    """The name of a process's program; empty when it is gone."""
    with suppress(psutil.Error):
        return psutil.Process(pid).name().encode()
    return b""


def peak_of(pid: int) -> int:
    """Bytes: the most that one process had resident; 0 when it is gone or belongs to the sandbox."""
    if not sys.platform.startswith("linux"):
        with suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - on the warm path
            status = file.read()
    except OSError:
        return 0
    at = status.find(b"VmHWM:")
    if at < 0 or status[6 : status.index(b"\n")] in SANDBOXES:
        return 0
    return int(status[at + 6 : status.index(b"kB", at)]) * 1024


def exit_reason(status: int, *, wraps_signals: bool) -> str:
    """Why the runtime is gone, in Lambda's words. ``status`` as Process.wait gives it."""
    if status == 0:
        return "Runtime exited without providing a reason"
    if wraps_signals and 128 < status < 128 + 32:
        status = 128 - status
    if status < 0:
        name = SIGNALS.get(signal.Signals(-status), f"signal {-status}")
        return f"Runtime exited with error: signal: {name}"
    return f"Runtime exited with error: exit status {status}"
