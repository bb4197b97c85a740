"""``bootstrap`` as one file: a static CPython with the layer's Python in its slot.

    a wheel      carries it finished: bootstraps/bootstrap-<arch>
    a checkout   interpreter/build.py, once on a machine -> cache -> the layer compiled into the slot

The slot (interpreter/slot.h) is a section of the executable that this module writes into, so that an
edit of the layer takes no C compiler and a start reads no file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lambdeno import children
from lambdeno.cache import cache_folder, make_private
from lambdeno.digests import Digests
from lambdeno.emulator import host_architecture
from lambdeno.errors import ArtifactError, BuildError

__all__ = ["Bootstrap", "bootstrap", "interpreter", "patches", "pins", "program", "sources", "whereabouts"]

PACKAGE = Path(str(resources.files("lambdeno")))
SHIPPED = PACKAGE / "bootstraps"
# An installed package carries a copy; a checkout has it at its top.
RECIPE = PACKAGE / "recipe" if (PACKAGE / "recipe").is_dir() else PACKAGE.parents[1] / "interpreter"

MAGIC = b"lambdeno-slot-1\0"
HEAD = struct.Struct("<16sI32s")  # magic, count, sha256 of the sources
ROW = struct.Struct("<24sII")  # name, start, size
ROWS, ROOM, NAME = 24, 192 * 1024, 24
ALIGNED = 16
SUMS = "SHA256SUMS"
DIGESTS = "digests.json"

Step = Callable[[str], None]
Sources = Mapping[str, Path]  # module -> file; the first is the program


@dataclass(frozen=True)
class Bootstrap:
    """The executable for one architecture, and what must go where it goes."""

    data: bytes
    licenses: str

    @property
    def sha256(self) -> str:
        """Of the executable, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def bootstrap(architecture: str, sources: Sources, step: Step = lambda _: None) -> Bootstrap:
    """The layer's program as one executable; its first module's ``main(folder)`` runs.

    Takes the wheel's, or builds the interpreter where this machine has none yet (minutes, told to
    ``step``). Raises BuildError, ArtifactError.
    """
    shipped = SHIPPED / f"bootstrap-{architecture}"
    wanted = _digest(sources)
    if shipped.is_file():
        data = shipped.read_bytes()
        if HEAD.unpack_from(data, _slot(data))[2] != wanted:
            raise ArtifactError(
                f'"{shipped}" was made from other sources than those in "{PACKAGE / "layer"}"',
                "install lambdeno again",
            )
        return Bootstrap(data, (SHIPPED / "LICENSES.txt").read_text("utf-8"))
    path = interpreter(architecture, step)
    licenses = (path.parent / "LICENSES.txt").read_text("utf-8")
    return Bootstrap(program(path, sources), licenses)


def program(path: Path, sources: Sources) -> bytes:
    """An interpreter with a program in its slot. Raises BuildError where it does not compile or fit."""
    native = path.with_name(f"interpreter-{host_architecture()}")
    return _filled(path.read_bytes(), _digest(sources), _compiled(native, sources))


def interpreter(architecture: str, step: Step = lambda _: None) -> Path:
    """The interpreter in the cache, built if this machine has none of this recipe. Raises BuildError."""
    path = _cached(architecture)
    wanted = {path.name, f"interpreter-{host_architecture()}", "LICENSES.txt"}
    if not _is_whole(path.parent, wanted):
        with _lock(step):
            if not _is_whole(path.parent, wanted):  # nobody else has built it meanwhile
                _build(architecture, path.parent, step)
    return path


def whereabouts(architecture: str) -> Path | None:
    """Where bootstrap comes from on this machine: the wheel's, or the cache's; None before it is built."""
    candidates = (SHIPPED / f"bootstrap-{architecture}", _cached(architecture))
    return next((path for path in candidates if path.exists()), None)


@functools.cache
def pins() -> Mapping[str, Any]:
    """What the binary is made from: ``cpython``, ``musl`` and ``ziglang``, each with its ``version``."""
    return json.loads((RECIPE / "pins.json").read_text("utf-8"))  # type: ignore[no-any-return]


def patches() -> list[str]:
    """The names of the patches on top of CPython's release."""
    return [re.sub(r"^\d+-|\.patch$", "", path.name) for path in sorted(RECIPE.glob("patches/*.patch"))]


# --- the interpreter ----------------------------------------------------------------------------


def _cached(architecture: str) -> Path:
    return cache_folder() / "interpreter" / _recipe()[:16] / f"interpreter-{architecture}"


def sources(architecture: str) -> list[Path]:
    """The files that decide what the interpreter is: the wheel's own, or those of the recipe."""
    shipped = SHIPPED / f"bootstrap-{architecture}"
    return [shipped, SHIPPED / "LICENSES.txt"] if shipped.is_file() else _recipe_files()


def _recipe_files() -> list[Path]:
    kinds = (".py", ".c", ".h", ".json", ".patch")
    return sorted(path for path in RECIPE.rglob("*") if path.suffix in kinds)


def _recipe() -> str:
    """The digest of all that decides what the interpreter is."""
    total = hashlib.sha256()
    for path in _recipe_files():
        total.update(f"{path.relative_to(RECIPE).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def _is_whole(folder: Path, names: set[str]) -> bool:
    """Whether a build has ended with these files. Raises ArtifactError where they are not what it made."""
    try:
        rows = (line.split() for line in (folder / SUMS).read_text("utf-8").splitlines())
        sums = {name: sha256 for sha256, name in rows}
        if not names <= set(sums):
            return False
    except (OSError, ValueError):
        return False
    if not all((folder / name).is_file() for name in names):
        return False
    digests = Digests(folder / DIGESTS)
    found = {name: digests.of(folder / name) for name in names}
    digests.save()
    for name, sha256 in found.items():
        if sha256 != sums[name]:
            raise ArtifactError(
                f'"{folder / name}" is damaged: its sha256 is not the one that was built',
                f"remove the folder {folder} and build again",
            )
    return True


@contextmanager
def _lock(step: Step) -> Iterator[None]:
    """One build at a time on a machine; the other waits and finds it done."""
    folder = cache_folder() / "interpreter"
    try:
        make_private(folder)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        lock = os.fdopen(os.open(folder / "lock", flags, 0o600), "w")
    except OSError as error:
        raise BuildError(
            f'Cannot write to the cache folder "{folder}": {error.strerror}',
            "set LAMBDENO_CACHE to a folder that you can write to",
        ) from None
    with lock:
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415 - Windows has none

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                step("Wait for another build of bootstrap")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(architecture: str, folder: Path, step: Step) -> None:
    """Run the recipe; its lines become steps."""
    _remove_work(folder)  # of a build that was killed
    minutes = "1 to 2" if architecture == host_architecture() else "2 to 4"
    command: list[str | Path] = [
        sys.executable,
        RECIPE / "build.py",
        "--output",
        folder,
        "--architecture",
        architecture,
    ]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with children.started(command, **pipes, encoding="utf-8") as process:
            assert process.stdout and process.stderr  # noqa: S101, PT018 - pipes
            for line in process.stdout:
                step(f"Build bootstrap, once on this machine, about {minutes} minutes: {line.strip()}")
            said = process.stderr.read().strip().split("\n")
    finally:
        _remove_work(folder)  # of a recipe that was killed with this process's signal
    if process.returncode:
        if process.returncode != 1 or len(said) < 2:
            said += [
                f"bootstrap cannot be built: the build ended with status {process.returncode}",
                "is there enough memory? Build again",
            ]
        *log, message, hint = said
        raise BuildError(message[:1].upper() + message[1:], hint, detail="\n".join(log))


def _remove_work(folder: Path) -> None:
    for left in folder.glob("work-*"):
        shutil.rmtree(left, ignore_errors=True)


# --- the slot -----------------------------------------------------------------------------------


def _digest(sources: Sources) -> bytes:
    total = hashlib.sha256()
    for name, path in sources.items():
        total.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return total.digest()


def _compiled(native: Path, sources: Sources) -> dict[str, bytes]:
    """Each module's bytecode: only a CPython of the same minor version can make it."""
    arguments = [word for name, path in sources.items() for word in (f"/opt/lambdeno/{name}.py", path)]
    try:
        done = subprocess.run([native, *arguments], env={}, capture_output=True, check=False)
    except OSError as error:
        raise BuildError(
            f'Cannot start "{native}": {error.strerror}', f"remove the folder {native.parent} and build again"
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        reason = said.splitlines()[-1] if said else f"{native.name} ended with status {done.returncode}"
        raise BuildError(f"The runtime layer's Python does not compile: {reason}", "mend it", detail=said)
    codes, rest = {}, done.stdout
    for name in sources:
        size = int.from_bytes(rest[:4], "little")
        codes[name], rest = rest[4 : 4 + size], rest[4 + size :]
    return codes


def _filled(binary: bytes, sources: bytes, codes: Mapping[str, bytes]) -> bytes:
    """The executable with other modules in its slot."""
    at = _slot(binary)
    rows, data = b"", b""
    for name, code in codes.items():
        data = data.ljust(-(-len(data) // ALIGNED) * ALIGNED, b"\0")
        rows += ROW.pack(name.encode(), len(data), len(code))
        data += code
    if len(codes) > ROWS or len(data) > ROOM or any(len(name.encode()) >= NAME for name in codes):
        raise BuildError(
            f"The runtime layer's Python has {len(codes)} modules and {len(data)} bytes of code;"
            f" bootstrap has room for {ROWS} and {ROOM}, and names of {NAME - 1} bytes",
            "make the slot larger: interpreter/slot.h and src/lambdeno/interpreter.py",
        )
    whole = (
        HEAD.pack(MAGIC, len(codes), sources) + rows.ljust(ROWS * ROW.size, b"\0") + data.ljust(ROOM, b"\0")
    )
    return binary[:at] + whole + binary[at + len(whole) :]


def _slot(binary: bytes) -> int:
    at = binary.find(MAGIC)
    if at < 0 or binary.find(MAGIC, at + 1) >= 0:
        raise ArtifactError("An interpreter without its slot", "install lambdeno again, or build it anew")
    return at
