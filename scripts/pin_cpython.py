#!/usr/bin/env python3
"""Bump the CPython that bootstrap is made of: newest source in Debian, and its patches that concern us.

    scripts/pin_cpython.py     -> interpreter/pins.json and patches/; look at the diff, run make test

Debian's stable release keeps CPython's version and adds patches, security fixes above all. Taken are
those that touch a file which is compiled into the binary (of headers, any of a module), cut down to these
files; the rest (tarfile, http, ssl, …) is about code that bootstrap does not have.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "interpreter"
sys.path.insert(0, str(HERE))

import build  # noqa: E402 - interpreter/build.py

PINS = HERE / "pins.json"


def main() -> None:
    """Fetch, choose, write."""
    pins = json.loads(PINS.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pin = pins["cpython"]
        apt = build.debian(folder / "apt", pin["suite"], pin["version"])
        subprocess.run([*apt, "source", "--download-only", pin["package"]], cwd=folder, check=True)
        [tarball] = folder.glob("*.orig.tar.xz")
        pin["version"] = tarball.name.split("_")[1].removesuffix(".orig.tar.xz")
        pin["sha256"] = hashlib.sha256(tarball.read_bytes()).hexdigest()
        for packed in (tarball, next(folder.glob("*.debian.tar.xz"))):
            with tarfile.open(packed) as archive:
                archive.extractall(folder, filter="tar")
        rows = (folder / "debian/patches/series").read_text().splitlines()
        series = [row.split()[0] for row in rows if row.partition("#")[0].strip()]
        ours = compiled(next(folder.glob("Python-*")))
        shutil.rmtree(HERE / "patches", ignore_errors=True)
        (HERE / "patches").mkdir()
        taken = 0
        for row in series:
            patch = folder / "debian/patches" / row
            kept = cut(patch.read_text("utf-8"), ours)
            is_fix = patch.suffix == ".patch"  # Debian's own ways of packaging are .diff
            print(("applies" if is_fix else "packaging, left out") if kept else "left out", row)
            if kept and is_fix:
                taken += 1
                (HERE / f"patches/{taken:02}-{patch.name}").write_text(kept, "utf-8")
    PINS.write_text(json.dumps(pins, indent=2) + "\n")
    print(f"CPython {pin['version']}: look at git diff, then make test")


def compiled(source: Path) -> re.Pattern[str]:
    """A pattern of the files that end up in the binary."""
    setup = (source / "Modules/Setup.bootstrap.in").read_text() + (
        source / "Modules/Setup.stdlib.in"
    ).read_text()
    always = re.findall(r"^\w+ (.+\.c)", (source / "Modules/Setup.bootstrap.in").read_text(), re.MULTILINE)
    chosen = [
        re.search(rf"^@\w+@{name} (.+\.c)", setup, re.MULTILINE)[1]  # type: ignore[index]
        for name in build.MODULES
    ]
    modules = [*" ".join([*always, *chosen]).split(), "main.c", "gcmodule.c", "getpath.c", "getpath.py"]
    modules.append("getbuildinfo.c")
    frozen = re.findall(r"\$\(srcdir\)/(Lib/\S+\.py)", (source / "Makefile.pre.in").read_text())
    lib = [f"Lib/{name.replace('.', '/')}.py" for name in build.ENCODINGS[1:]]
    exact = [*(f"Modules/{name}" for name in modules), *frozen, *lib, "Lib/encodings/__init__.py"]
    core = r"(?:Include|Objects|Parser|Python)/.*|Modules/(?:.*/)?[^/]+\.h"
    return re.compile("|".join([core, *map(re.escape, exact)]))


def cut(patch: str, ours: re.Pattern[str]) -> str:
    """A patch without the files that are not compiled; empty where none is left."""
    head, *files = re.split(r"^(?=--- .+\n\+\+\+ )", patch, flags=re.MULTILINE)
    kept = []
    for text in files:
        path = re.match(r"--- \S+.*\n\+\+\+ [^/\s]+/(\S+)", text)
        if path and ours.fullmatch(path[1]):
            hunks = re.split(r"^(?:diff --git |-- \n)", text, flags=re.MULTILINE)[0]
            kept.append(
                re.sub(r"^(---|\+\+\+) [^/\s]+/(\S+).*", r"\1 python/\2", hunks, count=2, flags=re.MULTILINE)
            )
    subject = re.search(r"^Subject: (.+(?:\n .+)*)", head, re.MULTILINE)
    origin = re.search(r"^From ([0-9a-f]{40}) ", head)
    notes = [subject[1].replace("\n", "") if subject else "", f"CPython {origin[1]}" if origin else ""]
    return "\n".join([*filter(None, notes), "".join(kept)]) if kept else ""


main()
