"""Small roots of packages from Debian, fetched by its own client, unpacked without installing anything."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache/debian"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def root(suite: str, architecture: str, *packages: str) -> Path:
    """A folder with these packages of a suite, unpacked.

    Skips the test where there is no client or no mirror, and fails it where they give nothing.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("Debian's package client is not on this machine")
    folder = CACHE / f"{suite}-{architecture}-{'-'.join(packages)}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            fetch(new, suite, architecture, packages)
            new.rename(folder)
    return folder / "root"


def fetch(folder: Path, suite: str, architecture: str, packages: tuple[str, ...]) -> None:
    """Download with lists of its own, so that the machine's stay as they are."""
    for name in ("lists/partial", "parts", "root"):
        (folder / name).mkdir(parents=True)
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    mirrors = [uri for uri in listed if re.search(r"/debian/?$", uri)]
    if not mirrors:
        pytest.skip("apt-get knows no mirror of Debian here")
    source = f"Types: deb\nURIs: {mirrors[0]}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYS}\n"
    (folder / "parts/debian.sources").write_text(source)
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::Cache": folder,
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
    }
    (folder / "status").touch()
    apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    for words in (["update"], ["download", *packages]):
        done = subprocess.run([*apt, *words], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(
                f"Debian does not give {', '.join(packages)} of {suite}: {done.stderr.strip()[-300:]}"
            )
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
        package.unlink()
    shutil.rmtree(folder / "lists")
