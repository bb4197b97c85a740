"""The user's cache folder: downloads and unpacked artefacts, safe to remove at any time.

Programs are executed from it, so that nobody else may write there.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

import platformdirs

from lambdeno.errors import BuildError

__all__ = ["cache_folder", "make_private"]

HINT = "set LAMBDENO_CACHE to a folder that only you can write to"
OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """LAMBDENO_CACHE, or the platform's own place for caches.

    It need not be there yet. Raises BuildError where somebody else could write to it.
    """
    given = os.environ.get("LAMBDENO_CACHE")
    folder = Path(given) if given else _platforms()
    _refuse_foreign(folder)
    return folder


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone. Raises OSError, BuildError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(0o700, exist_ok=True)
        _refuse_foreign(path)  # somebody may have been faster
    if not folder.is_dir():
        folder.mkdir()  # raises what is wrong


def _platforms() -> Path:
    """The platform's place for caches. Raises BuildError where the user has no home folder."""
    with suppress(RuntimeError):
        folder = Path(platformdirs.user_cache_dir("lambdeno"))
        if folder.is_absolute():  # older platformdirs: "~/.cache" in the current folder
            return folder
    raise BuildError("Cannot find a cache folder: this user has no home folder", HINT)


def _refuse_foreign(folder: Path) -> None:
    """Raise BuildError for a folder that another user owns, root excepted, or may write to."""
    if sys.platform == "win32":
        return
    try:
        found = folder.stat()
    except OSError:
        return  # whoever writes to it is told why that cannot be
    if found.st_uid not in (os.geteuid(), 0):
        raise BuildError(f'Cannot use the cache folder "{folder}": it belongs to another user', HINT)
    if found.st_mode & OTHERS:
        raise BuildError(
            f'Cannot use the cache folder "{folder}": other users can write to it, and programs run from it',
            f'remove it, or run: chmod go-w "{folder}"; or {HINT}',
        )
