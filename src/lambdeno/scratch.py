"""Folders for work that no end of the process leaves behind for long.

    with Scratch() as folder: ...        removed at the end of the block
    a signal                             removed by close_all, whatever the signal has interrupted
    SIGKILL, a crash, no power           removed by the next process that makes a folder in the same place

The owner holds a lock on the folder itself (flock), which the kernel drops when the owner dies, and which
systemd-tmpfiles respects (https://systemd.io/TEMPORARY_DIRECTORIES/). A process number would not do: numbers
come again, and mean nothing in another container.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = ["Scratch", "close_all", "remove"]

PREFIX = "lambdeno-tmp-"
NAME = re.compile(PREFIX + "[0-9a-f]{8}")
# Where lambdeno tells its own processes to have their files. PWD, OLDPWD or HOME would be those of anybody
# who has merely been in a folder.
OURS = ("TMPDIR", "DENO_DIR", "LAMBDENO_SOCKET")
ROUNDS, PAUSE = 100, 0.02  # s: until no process is found; some start others meanwhile
_open: set[Scratch] = set()


class Scratch:
    """A private folder (mode 0700), in the folder for temporary files or another one.

    Before the first one in a place, the folders of dead owners are removed. Raises OSError.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _sweep(parent)
        self._lock = -1
        while True:
            self.path = parent / f"{PREFIX}{secrets.token_hex(4)}"
            if self._made():
                return

    def _made(self) -> bool:
        _open.add(self)  # before the folder is there: a signal may come at any moment
        try:
            self.path.mkdir(0o700)
        except FileExistsError:
            return False
        except OSError:
            _open.discard(self)
            raise
        try:
            self._lock = _locked(self.path)
        except (BlockingIOError, FileNotFoundError):  # another process's sweep was faster
            return False
        except OSError:  # a file system without locks: nobody can sweep there either
            return True
        return True

    def close(self) -> None:
        """Remove the folder."""
        remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        _open.discard(self)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


def close_all() -> None:
    """Remove this process's folders, at its end by a signal: it may have interrupted their removal."""
    for scratch in tuple(_open):
        scratch.close()


def remove(folder: Path) -> None:
    """Remove a folder, also where somebody has made parts of it read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _sweep(parent: Path) -> None:
    """Remove the folders of dead owners, and end their processes; once for each place."""
    try:
        names = [name for name in os.listdir(parent) if NAME.fullmatch(name)]  # noqa: PTH208 - names are enough
    except OSError:
        return
    locks: dict[Path, int] = {}
    for path in map(parent.joinpath, names):
        with suppress(OSError):
            locks[path] = _locked(path)
    if locks:
        _end_processes({path.name for path in locks})
    for path, lock in locks.items():
        remove(path)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a folder of this user, and give the lock's descriptor.

    Raises BlockingIOError where another process has it, FileNotFoundError where one has removed it, OSError
    where it cannot be locked.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "Windows locks no folders")
    import fcntl  # noqa: PLC0415 - Windows has none

    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another user's", str(folder))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), folder.lstat()):
            raise FileNotFoundError(errno.ENOENT, "another folder by now", str(folder))
    except OSError:
        os.close(lock)
        raise
    return lock


def _end_processes(names: Collection[str]) -> None:
    """Kill the processes that dead owners have left: each was told to have its files in the folder."""
    import psutil  # noqa: PLC0415 - takes 10 ms, and is hardly ever needed

    for _ in range(ROUNDS):
        is_found = False
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # has ended, or is another user's
                environment = process.environ()
                parts = {part for name in OURS for part in Path(environment.get(name, "")).parts}
                if process.pid != os.getpid() and not parts.isdisjoint(names):
                    process.kill()
                    is_found = True
        if not is_found:
            return
        time.sleep(PAUSE)
