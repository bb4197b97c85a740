"""Zips that are the same bytes wherever and whenever they are made.

Names are sorted, times fixed, modes 0644 or 0755, the compression level fixed. An artefact's
identity is `digest`: over names, modes and contents, since two zlib builds may deflate the same
bytes differently.
"""

from __future__ import annotations

import hashlib
import itertools
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lambdeno import atomic, limits
from lambdeno.errors import ArtifactError, BuildError

__all__ = ["Entry", "Zip", "check_limits", "digest", "sha256_of", "write"]

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
LEVEL = 6  # of deflate: 9 makes the Deno layer 0.6 % smaller in twice the time
CHUNK = 1024 * 1024
UNIX = 3  # "made by" Unix: only then are the modes read

Progress = Callable[[int], None]  # called with the bytes done since the last call


@dataclass(frozen=True)
class Entry:
    """One file of an artefact: its name in the zip, its content, whether it can be executed."""

    name: str
    content: bytes | Path
    executable: bool = False

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def read(self) -> bytes:
        """The content, whole."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content

    def chunks(self) -> Iterable[bytes]:
        """The content, a piece at a time."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


@dataclass(frozen=True)
class Zip:
    """A zip as written: where, which, how large (bytes). ``sha256`` is of the file, as Lambda tells it."""

    path: Path
    digest: str
    sha256: str
    size: int
    unpacked: int
    entries: tuple[Entry, ...]


def digest(entries: Iterable[Entry]) -> str:
    """``sha256:`` and 64 hexadecimal digits over names, modes and contents, in the names' order."""
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.name):
        content = hashlib.sha256()
        for chunk in entry.chunks():
            content.update(chunk)
        mode = "755" if entry.executable else "644"
        total.update(f"{mode} {content.hexdigest()} {entry.name}\0".encode())
    return f"sha256:{total.hexdigest()}"


def write(path: Path, entries: Iterable[Entry], progress: Progress = lambda _: None) -> Zip:
    """Write a zip, whole or not at all: what was there before stays until the new one is complete.

    Raises BuildError (folder, disk) and ArtifactError (two entries of one name).
    """
    ordered = sorted(entries, key=lambda entry: entry.name)
    for before, entry in itertools.pairwise(ordered):
        if before.name == entry.name:
            raise ArtifactError(f'Two files want the name "{entry.name}" in {path.name}', "rename one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as file:
            _write(file, ordered, progress)
            size = file.tell()
            Path(file.name).chmod(0o644)
    except OSError as error:
        files = {str(entry.content) for entry in ordered if isinstance(entry.content, Path)}
        if error.filename in files:
            raise BuildError(
                f'Cannot read "{error.filename}": {error.strerror}', "put it back, or leave it out"
            ) from None
        if obstacle := atomic.obstacle(path):
            raise BuildError(f'Cannot write "{path}": {obstacle}', "remove it, or move it away") from None
        raise BuildError(
            f'Cannot write "{path}": {error.strerror or error}',
            "free some space or choose a folder that you can write to",
        ) from None
    unpacked = sum(entry.size for entry in ordered)
    return Zip(path, digest(ordered), sha256_of(path), size, unpacked, tuple(ordered))


def _write(file: BinaryIO, entries: Iterable[Entry], progress: Progress) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, EPOCH)
            info.create_system = UNIX
            info.external_attr = (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            info._compresslevel = LEVEL  # type: ignore[attr-defined]
            info.file_size = entry.size  # tells zipfile whether the entry needs 64-bit fields
            with archive.open(info, "w") as target:
                for chunk in entry.chunks():
                    target.write(chunk)
                    progress(len(chunk))


def sha256_of(path: Path) -> str:
    """A file's SHA-256, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_limits(zips: Iterable[Zip]) -> None:
    """Raise ArtifactError where a function and its layers together are over Lambda's 250 MB."""
    made = list(zips)
    unpacked = sum(item.unpacked for item in made)
    if unpacked > limits.UNPACKED:
        entries = [entry for item in made for entry in item.entries]
        names = " + ".join(item.path.name for item in made)
        largest = sorted(entries, key=lambda entry: -entry.size)[:5]
        files = ", ".join(f"{entry.name} ({megabytes(entry.size)})" for entry in largest)
        raise ArtifactError(
            f"{names} has {megabytes(unpacked)} unpacked; Lambda takes {megabytes(limits.UNPACKED)}",
            f"the largest files are {files}: leave some out",
        )


def megabytes(size: int) -> str:
    """Bytes for people: 1.6 MB, 12 KB."""
    if size < 1024 * 1024:
        return f"{max(1, round(size / 1024))} KB"
    return f"{size / 1024 / 1024:.1f} MB"
