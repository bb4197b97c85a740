"""SHA-256 of files, remembered: a file that nobody has touched since is not read again.

As git does it: a file counts as untouched when its size, inode and both of its times are what they were, and
these times were over when it was read (https://git-scm.com/docs/racy-git). The kernel sets the second of the
two times at every change and every rename, so that ``mv``, ``cp -p``, ``tar`` and ``touch`` cannot deceive.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from stat import S_ISREG

from lambdeno import atomic

__all__ = ["Digests", "Stamp", "stamp"]

TICK = 50_000_000  # ns: the clock of files goes in steps of up to 10 ms
COARSE = 2_000_000_000  # ns: the longest step, of FAT
SECOND = 1_000_000_000  # ns

Stamp = tuple[int, int, int, int]  # size, inode, time of the content, time of any change


def stamp(path: Path) -> Stamp | None:
    """What tells that a file was touched; None where there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not S_ISREG(found.st_mode):  # a folder, or a pipe that would be waited for
        return None
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


class Digests:
    """The digests of one project's inputs; ``path`` is where they are remembered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[Stamp, str]] = {}
        self._has_news = False
        try:
            rows = json.loads(path.read_bytes())
            self._known = {name: ((a, b, c, d), digest) for name, (a, b, c, d, digest) in rows.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            pass  # every file is read again

    def of(self, path: Path) -> str:
        """The digest of a file's content in hexadecimal; empty where there is no such file."""
        found = stamp(path)
        if found is None:
            return ""
        name = str(path)
        if self._known.get(name, (None, ""))[0] == found:
            return self._known[name][1]
        read = time.time_ns()
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""
        if found == stamp(path) and is_over(found, read):
            self._known[name] = found, digest
            self._has_news = True
        return digest

    def save(self) -> None:
        """Remember them for the next time; where that cannot be, they are made again."""
        if not self._has_news:
            return
        rows = {name: [*known, digest] for name, (known, digest) in self._known.items()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic.write(self._path, json.dumps(rows).encode())
        except OSError:
            return
        self._has_news = False


def is_over(found: Stamp, now: int) -> bool:
    """True if a change at ``now`` (ns) would show in a file's times."""
    *_, content, change = found
    if sys.platform == "win32":
        return False  # the second time is that of the file's creation
    step = COARSE if content % SECOND == 0 and change % SECOND == 0 else TICK
    return max(content, change) < now - step
