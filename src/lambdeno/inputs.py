"""What an artifact is made from, by content; and which artifacts on this machine are made from what.

    before the build ─► digests ─► build ─► the same digests? ─► the artifact's record, in the user's cache

An artifact is up to date if its zip is the one that this machine made, and everything it was made from has
the digest that it had then. Times only tell which files need not be read again (digests.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lambdeno import atomic
from lambdeno.cache import cache_folder, make_private
from lambdeno.digests import Digests, Stamp, is_over, stamp

__all__ = ["Inputs", "InputsBuilder", "record", "recorded", "remembered"]

RECORDS, DIGESTS = "built", "digests"  # folders of the cache
SETS = 8  # of one zip: branches whose code is the same, but for a comment
KEPT = 30 * 24 * 3600  # s since a record was written, or a project looked at
NOT_THERE = ""
MADE = frozenset({"dist", "node_modules", "vendor", "deno.lock"})


@dataclass(frozen=True)
class Inputs:
    """The inputs of one artifact as they were at one moment."""

    digests: Mapping[str, str]  # name -> digest of the content, or a fact as it is
    files: Mapping[Path, tuple[str, Stamp | None, str]]  # of these, the files: name, stamp, digest
    folders: Mapping[Path, Collection[str]]  # in which any new file may be an input: the names in each
    taken: int  # ns, on the clock of files

    def is_untouched(self) -> bool:
        """True if no file was written, replaced, made or removed since: also not by the same content.

        Deno makes its links to the files of packages anew at each run: of those, and of files that have only
        got another link or another mode, the content counts.
        """
        return all(self._is_as_it_was(path, *was) for path, was in self.files.items()) and all(
            names_in(folder, names) == names for folder, names in self.folders.items()
        )

    def _is_as_it_was(self, path: Path, name: str, was: Stamp | None, digest: str) -> bool:
        now = stamp(path)
        if now is None or was is None:
            return now == was
        if now == was and is_over(was, self.taken):
            return True
        *content, _ = was
        is_as_written = list(now[:-1]) == content or name.startswith("npm:")
        return is_as_written and _digest(path) == digest


@dataclass
class InputsBuilder:
    """Collects the inputs of one artifact."""

    digests: Digests
    _digests: dict[str, str] = field(default_factory=dict)
    _files: dict[Path, tuple[str, Stamp | None, str]] = field(default_factory=dict)
    _folders: dict[Path, Collection[str]] = field(default_factory=dict)
    _taken: int = field(default_factory=time.time_ns)

    def fact(self, name: str, value: str) -> None:
        """Add what is no file."""
        self._digests[name] = value

    def file(self, name: str, path: Path, *, executable: bool = False) -> None:
        """Add a file; one that does not exist is an input as well, since it could."""
        was = stamp(path)
        digest = self.digests.of(path) if was else NOT_THERE
        self._files[path] = name, was, digest
        if was and not self._digests.get(name, "").endswith(" x"):
            self._digests[name] = f"{digest} x" if executable else digest

    def unseen(self, name: str, digest: str) -> None:
        """Add a file that Deno's cache had: if the cache is without it by now, it counts as it was."""
        self._digests.setdefault(name, digest)

    def folder(self, path: Path) -> None:
        """Add a folder in which any new file may be an input."""
        self._folders[path] = names_in(path)

    def build(self) -> Inputs:
        """Return the inputs; the digests are remembered."""
        self.digests.save()
        return Inputs(self._digests, self._files, self._folders, self._taken)


def names_in(folder: Path, known: Collection[str] = ()) -> Collection[str]:
    """The names in a folder, but for what a build makes there: those are seen only where they are known."""
    try:
        return {name for name in os.listdir(folder) if name not in MADE or name in known}  # noqa: PTH208
    except OSError:
        return set()


def remembered(root: Path) -> Digests:
    """The digests of a project's files."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:32]  # noqa: PTH100 - no error
    return Digests(cache_folder() / DIGESTS / f"{name}.json")


def record(sha256: str, inputs: Mapping[str, str]) -> None:
    """Keep what a zip was made from. Without the record it is only built again: no error is raised."""
    folder = cache_folder() / RECORDS
    sets = [inputs, *(other for other in recorded(sha256) if other != inputs)][:SETS]
    try:
        make_private(folder)
        atomic.write(folder / f"{sha256}.json", json.dumps(sets, indent=1, sort_keys=True).encode())
        for left in (folder, cache_folder() / DIGESTS):
            _prune(left.iterdir())
    except OSError:
        return


def recorded(sha256: str) -> list[dict[str, str]]:
    """The sets of inputs that have given a zip of this machine, the last one first; none for any other."""
    path = cache_folder() / RECORDS / f"{sha256}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [inputs for inputs in found if isinstance(inputs, dict)] if isinstance(found, list) else []


def _prune(paths: Iterable[Path]) -> None:
    oldest = time.time() - KEPT
    for path in paths:
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return NOT_THERE
