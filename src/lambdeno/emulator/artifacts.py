"""From zips to folders: checked, unpacked once for each digest, layers merged into one /opt.

cache/<digest>/    one zip; it appears whole (atomic rename) or not at all
cache/opt-<key>/   several layers, hard-linked from theirs; later ones win

Each has the files in ``files``, and in ``sums.json`` what they were: files are run from here, and what was
damaged since is unpacked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from lambdeno import limits
from lambdeno.cache import make_private
from lambdeno.digests import Digests
from lambdeno.errors import ArtifactError
from lambdeno.scratch import Scratch

__all__ = ["check_total", "digest_of", "merge", "unpack"]

DRIVE = re.compile(r"[A-Za-z]:")
COPY = 1024 * 1024  # bytes
FILES, SUMS, DIGESTS = "files", "sums.json", "digests.json"
KEPT = 30 * 24 * 3600  # seconds since the last use


def digest_of(path: Path) -> str:
    """The SHA-256 of a zip, or of a folder's names, modes and bytes. Raises ArtifactError."""
    try:
        if path.is_dir():
            return digest_of_folder(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ArtifactError(f'Cannot find "{path}"', "build it first") from None
    except OSError as error:
        raise ArtifactError(f'Cannot read "{path}": {error.strerror}') from None


def digest_of_folder(folder: Path) -> str:
    """The SHA-256 over a folder's sorted names, modes and bytes."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        total.update(f"{name}\0{path.lstat().st_mode:o}\0".encode())
        if path.is_file():
            total.update(path.read_bytes())
        total.update(b"\0")
    return total.hexdigest()


def unpack(path: Path, cache: Path) -> Path:
    """The folder with a zip's files; a folder is taken as it is. Raises ArtifactError."""
    if path.is_dir():
        return path.resolve()
    return build_once(cache / digest_of(path), lambda folder: extract(path, folder))


def merge(layers: Iterable[Path], cache: Path) -> Path | None:
    """One folder that holds all layers, as Lambda lays them over /opt; None for no layers."""
    paths = list(layers)
    if not paths:
        return None
    if len(paths) == 1:
        return unpack(paths[0], cache)
    key = hashlib.sha256("".join(map(digest_of, paths)).encode()).hexdigest()

    def fill(target: Path) -> None:
        for path in paths:
            lay_over(unpack(path, cache), target)

    return build_once(cache / f"opt-{key}", fill)


def check_total(paths: Iterable[Path]) -> None:
    """Refuse a function and layers that are too big together. Raises ArtifactError."""
    total = 0
    for path in paths:
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                total += sum(member.file_size for member in archive.infolist())
    if total > limits.UNPACKED:
        raise ArtifactError(
            f"The function and its layers have {total} bytes unpacked, over the limit of {limits.UNPACKED}",
            "leave something out: Lambda takes 250 MB together",
        )


def build_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a folder aside and move it into place; whoever comes second uses the first's."""
    try:
        if is_whole(target):
            os.utime(target)  # used today: see prune
            return target / FILES
        make_private(target.parent)
        prune(target.parent)
        with Scratch(target.parent) as work:
            aside = work / "new"
            files = aside / FILES
            files.mkdir(parents=True)
            files.chmod(0o755)  # it becomes /opt, or /var/task
            fill(files)
            (aside / SUMS).write_text(json.dumps(sums(files, Digests(aside / DIGESTS))), "ascii")
            put(aside, target)
    except OSError as error:
        raise ArtifactError(
            f'Cannot unpack to "{target.parent}": {error.strerror or error}',
            "free some space, or set LAMBDENO_CACHE to a folder that you can write to",
        ) from None
    return target / FILES


def is_whole(target: Path) -> bool:
    """True if a folder has all files that were put there, as they were, and no other."""
    try:
        wanted = json.loads((target / SUMS).read_bytes())
        digests = Digests(target / DIGESTS)
        found = sums(target / FILES, digests)
    except (OSError, ValueError):
        return False
    digests.save()
    return bool(found == wanted)


def sums(folder: Path, digests: Digests) -> dict[str, str]:
    """The mode and the digest of each file, or the place that a link leads to. Raises OSError."""
    found: dict[str, str] = {}
    for root, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[path.relative_to(folder).as_posix()] = f"link {path.readlink()}"
            elif not stat.S_ISDIR(mode):
                found[path.relative_to(folder).as_posix()] = f"{mode:o} {digests.of(path)}"
    return found


def put(aside: Path, target: Path) -> None:
    """Rename a folder to its place, unless another process was faster. Raises OSError."""
    try:
        aside.rename(target)
    except OSError:
        if is_whole(target):
            return
        with suppress(FileNotFoundError):
            target.rename(aside.with_name("damaged"))
        aside.rename(target)


def prune(cache: Path) -> None:
    """Remove what nobody has used for a month: each build of a function leaves a folder here."""
    oldest = time.time() - KEPT
    for folder in cache.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def lay_over(folder: Path, target: Path) -> None:
    """Hard-link a tree over another; where links cannot be, copy."""
    for root, names, files in os.walk(folder):
        place = target / Path(root).relative_to(folder)
        for name in names:
            there = place / name
            if there.exists() and not there.is_dir():
                there.unlink()
            there.mkdir(exist_ok=True)
        for name in files:
            there = place / name
            if there.is_dir():
                shutil.rmtree(there)
            there.unlink(missing_ok=True)
            try:
                os.link(Path(root, name), there)
            except OSError:
                shutil.copy2(Path(root, name), there)


def extract(path: Path, target: Path) -> None:
    """Write a zip's files below ``target``, modes 0755 and 0644. Raises ArtifactError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check(path, members)
            budget = limits.UNPACKED
            for member in members:
                budget -= extract_member(path, archive, member, target, budget)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArtifactError(f'"{path}" is damaged: {error}', "build it again") from None


def check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse names and kinds that could leave the folder, and sizes over Lambda's limit."""
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        fault = fault_of(member, name)
        clean = PurePosixPath(name).as_posix()
        if not fault and clean in seen:
            fault = "is there twice"
        if fault:
            raise ArtifactError(f'"{path}" cannot be unpacked: "{name}" {fault}', "build it again")
        seen.add(clean)
    size = sum(member.file_size for member in members)
    if size > limits.UNPACKED:
        raise too_big(path, size)


def fault_of(member: zipfile.ZipInfo, name: str) -> str:
    """What is wrong with one member, or nothing."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    faults = {
        "names a drive": DRIVE.match(name),
        "is not a relative path": name.startswith("/"),
        "has characters that no path should have": "\\" in name or "\0" in name,
        "leaves the folder": ".." in name.split("/"),
        "names no file": not name.strip("/."),
        "is a symbolic link": kind == stat.S_IFLNK,
        "is a device or another special file": kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK},
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


def extract_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, budget: int
) -> int:
    """Write one member; returns its true size, whatever its header says."""
    place = target / member.filename
    try:
        if member.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            return 0
        place.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with archive.open(member) as source, place.open("xb") as file:
            while chunk := source.read(COPY):
                size += len(chunk)
                if size > budget:
                    raise too_big(path, limits.UNPACKED - budget + size)
                file.write(chunk)
    except (FileExistsError, NotADirectoryError):
        raise ArtifactError(
            f'"{path}" cannot be unpacked: "{member.filename}" is a file and a folder at once',
            "build it again",
        ) from None
    place.chmod(0o755 if (member.external_attr >> 16) & 0o111 else 0o644)
    return size


def too_big(path: Path, size: int) -> ArtifactError:
    """Lambda would refuse it."""
    return ArtifactError(
        f'"{path}" has {size} bytes unpacked, over the limit of {limits.UNPACKED}',
        "a function and its layers may have 250 MB together",
    )
