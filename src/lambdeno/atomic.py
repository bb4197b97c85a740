"""Files that appear whole or not at all, and are never written through a link.

    a new file of an unguessable name beside the path ─► written ─► renamed over the path

A fixed name could be a link that somebody has planted: in a project from elsewhere, or in a shared folder. A
rename replaces a link at the path itself. The writer holds a lock on its file (flock), which the kernel drops
when the writer dies: the next write into the folder removes the files of dead writers. A process number would
not do: numbers come again, and mean nothing in another container.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

__all__ = ["obstacle", "replacing", "write"]

LEFT = re.compile(r"\..+\.[0-9a-f]{16}\.new")  # what a dead writer may leave


def write(path: Path, content: bytes) -> None:
    """Write a file. Raises OSError; then what was there before is still there."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends without an error. Raises OSError."""
    _sweep(path.parent)
    # A name that is known before the file is there: an interrupt at any moment finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        with _created(temporary) as file:
            yield file
            file.flush()
            if sys.platform != "win32":  # under the lock, or the file could be taken for a dead writer's
                temporary.replace(path)
        if sys.platform == "win32":  # which renames no open file
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def obstacle(path: Path) -> str:
    """What has to go before a file can be there: a folder, or a file in the place of one; empty: nothing."""
    if path.is_dir():
        return f'"{path}" is a folder'
    above = next((folder for folder in path.parents if os.path.lexists(folder)), None)
    return f'"{above}" is not a folder' if above and not above.is_dir() else ""


def _created(path: Path) -> BinaryIO:
    """A new file, open and locked. Raises OSError."""
    while True:
        file = path.open("xb")  # O_EXCL: no file that is there, and through no link
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks: then nothing is swept either
                fcntl.flock(file, fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:  # swept before it was locked
                file.close()
                continue
        return file


def _sweep(folder: Path) -> None:
    """Remove what writers have left that were killed."""
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names alone
            if LEFT.fullmatch(name):
                _remove_dead(folder / name)


def _remove_dead(path: Path) -> None:
    """Remove a file that no writer holds."""
    with suppress(OSError):
        if sys.platform == "win32":
            path.unlink()  # Windows refuses while it is open
            return
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
