"""The pinned Deno: get it, verify it, let it check and bundle.

Deno comes as a wheel of the PyPI package ``deno``, through pip. The wheel's sha256 is pinned in
deno_pins.json; the wheel's own RECORD then holds the binary to its sha256. What is verified lands
in the user's cache folder in one rename, so that no half of it can ever be found there.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lambdeno import children
from lambdeno.cache import cache_folder, make_private
from lambdeno.digests import Digests
from lambdeno.errors import BuildError, DenoError
from lambdeno.scratch import Scratch

__all__ = ["Binary", "cached", "get", "host_platform", "pins", "run", "verify"]

TAGS = {
    "linux-x86_64": "manylinux_2_27_x86_64",
    "linux-arm64": "manylinux_2_27_aarch64",
    "macos-x86_64": "macosx_10_12_x86_64",
    "macos-arm64": "macosx_11_0_arm64",
    "windows-x86_64": "win_amd64",
}
CHUNK = 1024 * 1024
DIGESTS = "digests.json"

Progress = Callable[[int, int], None]  # bytes so far, bytes in all


@dataclass(frozen=True)
class Binary:
    """A verified Deno binary in the cache."""

    version: str
    platform: str  # "linux-x86_64"
    path: Path
    sha256: str


def host_platform() -> str:
    """This machine in the words of the pins. Raises DenoError where Deno has no build for it."""
    system = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    name = f"{system}-{machine}"
    if name not in TAGS:
        raise DenoError(f'Deno has no build for "{name}"', "build on Linux or macOS")
    return name


@functools.cache
def pins() -> Mapping[str, Mapping[str, str]]:
    """Version -> platform -> sha256 of the wheel."""
    text = resources.files("lambdeno").joinpath("deno_pins.json").read_text("utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def get(
    version: str,
    target: str,
    extra_pins: Mapping[str, str] | None = None,
    progress: Progress = lambda _, __: None,
) -> Binary:
    """The verified binary of a release for a platform, downloaded if this machine has none yet.

    ``extra_pins`` (platform -> sha256 of the wheel) vouch for a release that lambdeno does not
    know. Raises DenoError; a failure leaves nothing behind.
    """
    wheel_sha256 = _pin(version, target, extra_pins)
    if not wheel_sha256:
        raise DenoError(
            f'Cannot verify Deno "{version}" for {target}: its checksum is not known',
            f"choose one of {', '.join(sorted(pins(), reverse=True))}"
            f' or give the wheel\'s sha256 as deno.sha256."{target}" in lambdeno.toml',
        )
    folder = _folder(version, target, wheel_sha256)
    if not _is_whole(folder, target):
        is_damaged = (folder / _name(target)).exists()
        try:
            make_private(folder.parent)
            work = Scratch(folder.parent)
        except OSError as error:
            raise BuildError(
                f'Cannot write to the cache folder "{folder.parent}": {error.strerror}',
                "set LAMBDENO_CACHE to a folder that you can write to",
            ) from None
        with work as fresh:
            try:
                wheel = _download(version, target, wheel_sha256, fresh, progress)
            except DenoError as error:
                if not is_damaged:
                    raise
                raise DenoError(
                    f'"{folder / _name(target)}" is damaged, and cannot be replaced: {error.message}',
                    error.hint,
                ) from None
            _unpack(wheel, fresh / "done", target)
            _move(fresh / "done", folder, target)
    return Binary(version, target, folder / _name(target), (folder / "sha256").read_text("ascii"))


def _is_whole(folder: Path, target: str) -> bool:
    """True if a binary is what it was when it got there. It is read again only where it was touched."""
    try:
        wanted = (folder / "sha256").read_text("ascii")
    except (OSError, ValueError):
        return False
    digests = Digests(folder / DIGESTS)
    is_whole = digests.of(folder / _name(target)) == wanted
    digests.save()
    return is_whole


def _move(done: Path, folder: Path, target: str) -> None:
    """Put a verified binary in its place, unless another build was faster."""
    if not _is_whole(folder, target):
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or somebody removed a part of it
    try:
        done.rename(folder)
    except OSError:
        if not _is_whole(folder, target):
            raise


def cached(version: str, target: str, extra_pins: Mapping[str, str] | None = None) -> Binary | None:
    """The verified binary if this machine has it already."""
    sha256 = _pin(version, target, extra_pins)
    folder = _folder(version, target, sha256 or "")
    if not sha256 or not _is_whole(folder, target):
        return None
    return Binary(version, target, folder / _name(target), (folder / "sha256").read_text("ascii"))


def verify(binary: Binary) -> None:
    """Raise DenoError where a binary in the cache is no longer what it was when it got there."""
    if _sha256(binary.path.open("rb")) != binary.sha256:
        raise DenoError(
            f'"{binary.path}" was altered: its sha256 is not the one that was verified',
            f"remove the folder {binary.path.parent} and build again",
        )


def _pin(version: str, target: str, extra_pins: Mapping[str, str] | None) -> str | None:
    return (extra_pins or {}).get(target) or pins().get(version, {}).get(target)


def _folder(version: str, target: str, sha256: str) -> Path:
    return cache_folder() / "deno" / f"{version}-{target}-{sha256[:16]}"


def run(
    binary: Binary, arguments: Sequence[str | Path], folder: Path, variables: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run Deno to its end in a folder, its output captured. Raises DenoError if it cannot start."""
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "DENO_NO_UPDATE_CHECK": "1",
        "DENO_NO_PROMPT": "1",
        "RUST_BACKTRACE": "0",
        **variables,
    }
    try:
        # Signals stay as Python has them: a cache that may not grow (SIGXFSZ) is one that Deno does without.
        return children.run([binary.path, *arguments], cwd=folder, env=environment, restore_signals=False)
    except OSError as error:
        raise DenoError(
            f'Cannot start "{binary.path}": {error.strerror}',
            f"remove the folder {binary.path.parent} and build again",
        ) from None


def _name(target: str) -> str:
    return "deno.exe" if target.startswith("windows") else "deno"


def _download(version: str, target: str, sha256: str, folder: Path, progress: Progress) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"deno=={version} --hash=sha256:{sha256}\n", "ascii")
    command = [
        # -P: Python takes no module out of the current folder, a project's, which may have a pip.py.
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--platform", TAGS[target], "--require-hashes", "--disable-pip-version-check", "--no-input"),
        *(
            "--retries=2",
            "--no-cache-dir",
            "--progress-bar=raw",
            "--dest",
            str(folder),
            "-r",
            str(requirements),
        ),
    ]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with children.started(
            command,
            env={**os.environ, "TMPDIR": str(folder)},  # what it would leave if it was killed
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        ) as pip:
            for line in pip.stdout or ():
                if found := re.match(r"Progress (\d+) of (\d+)", line):
                    progress(int(found[1]), int(found[2]))
        errors.seek(0)
        said = errors.read()
    if pip.returncode:
        raise DenoError(*_explain(version, target, said))
    [wheel] = folder.glob("*.whl")
    if _sha256(wheel.open("rb")) != sha256:
        raise DenoError(*_explain(version, target, "DO NOT MATCH THE HASHES"))
    return wheel


def _explain(version: str, target: str, said: str) -> tuple[str, str]:
    """Pip's failure in a sentence: message and hint."""
    if "DO NOT MATCH THE HASHES" in said:
        return (
            f"The wheel of Deno {version} for {target} is not the pinned one: its sha256 differs",
            "do not use it: check deno.sha256 in lambdeno.toml, or the package index in use",
        )
    lines = [line for line in said.splitlines() if line.strip()]
    unreachable = next((line for line in lines if re.search("Retrying|Connection|timed out", line)), "")
    if not unreachable and ("No matching distribution" in said or "from versions:" in said):
        return (
            f"The package index has no Deno {version} for {target}",
            f"choose another deno.version in lambdeno.toml, such as {list(pins())[-1]}",
        )
    reason = unreachable or next(
        (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1:] or ""
    )
    return (
        f"Cannot download Deno {version} for {target}: {reason}",
        "check the connection to the package index (pip's settings are used), then build again",
    )


def _unpack(wheel: Path, folder: Path, target: str) -> None:
    """Take the binary out of a wheel, held to the sha256 in the wheel's RECORD (PEP 376, PEP 427)."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
            rows = csv.reader(io.StringIO(archive.read(record).decode("utf-8")))
            name, checksum = next(
                (row[0], row[1]) for row in rows if row[0].endswith(f"/scripts/{_name(target)}")
            )
            folder.mkdir()
            binary = folder / _name(target)
            with archive.open(name) as source, binary.open("wb") as file:
                while chunk := source.read(CHUNK):
                    file.write(chunk)
        wanted = base64.urlsafe_b64decode(checksum.removeprefix("sha256=") + "=").hex()
    except (StopIteration, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise DenoError(
            f"The wheel {wheel.name} holds no Deno that its RECORD vouches for: {error or 'no row'}",
            "build again; if it persists, do not use this package index",
        ) from None
    except OSError as error:
        raise BuildError(
            f'Cannot unpack Deno to "{folder.parent.parent}": {error.strerror}',
            "free some space, or set LAMBDENO_CACHE to a folder that you can write to",
        ) from None
    sha256 = _sha256(binary.open("rb"))
    if sha256 != wanted:
        raise DenoError(
            f"The Deno binary in {wheel.name} is damaged: its sha256 is not the one in RECORD",
            "build again; if it persists, do not use this package index",
        )
    binary.chmod(0o755)
    (folder / "sha256").write_text(sha256, "ascii")


def _sha256(file: io.BufferedReader) -> str:
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()
