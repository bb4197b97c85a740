"""Bad input at the command line: one sentence, an exit code, and what was there before stays."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import run

GOOD = "export const handler = (event: unknown): unknown => event;\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project whose function is built."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.ts").write_text(GOOD)
    (tmp_path / "lambdeno.toml").write_text('name = "small"\n')
    built = run("build", "function", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    """What lies in dist/: names and contents."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "dist").iterdir())
    }


def refused(folder: Path, *says: str, code: int, command: tuple[str, ...] = ("build", "function")) -> None:
    """Run a command that must fail in our words, and leave dist/ as it was."""
    before = state(folder)
    done = run(*command, folder=folder)
    assert done.returncode == code, done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    for words in says:
        assert words in error
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert state(folder) == before


@pytest.mark.parametrize(
    ("code", "source", "says"),
    [
        (4, "export const handler = (event: string): number => event;\n", ("main.ts", "TS2322")),
        (4, "export const handler = (;\n", ("main.ts", "Expression expected")),
        (4, 'import { x } from "./gone.ts";\nexport const handler = () => x;\n', ("main.ts", "gone.ts")),
        (
            4,
            'import x from "npm:lambdeno-no-such-package@1";\nexport const handler = () => x;\n',
            ("no-such",),
        ),
        (4, "export const other = () => 1;\n", ("handler", "not exported", "other")),
        (4, "export const handler = 7;\n", ("handler", "is number, not a function")),
        (4, 'throw new RangeError("at load");\n', ("RangeError", "at load")),
        (4, "Deno.exit(3);\n", ("Deno exited", "exit status 3")),
    ],
    ids=["type", "syntax", "import", "package", "not exported", "not a function", "throws", "exits"],
)
def test_code_that_cannot_be_a_function(folder: Path, code: int, source: str, says: tuple[str, ...]) -> None:
    """Wrong TypeScript is named with its file and reason, and the last good artefact stays."""
    (folder / "src/main.ts").write_text(source)
    refused(folder, *says, code=code)


def test_a_missing_entry(folder: Path) -> None:
    """The entry that is not there is named."""
    (folder / "src/main.ts").unlink()
    refused(folder, "src/main.ts", code=3)


def test_a_stale_lock(folder: Path) -> None:
    """deno.lock is law: an import that it does not know fails the build."""
    (folder / "deno.json").write_text('{"imports": {"hono": "npm:hono@4.13.19"}}\n')
    (folder / "deno.lock").write_text('{"version": "5", "specifiers": {}, "npm": {}}\n')
    (folder / "src/main.ts").write_text(
        'import { Hono } from "hono";\nexport const handler = () => new Hono().routes.length;\n'
    )
    refused(folder, "deno.lock", code=4)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("memroy = 512\n", ("memroy",)),
        ("memory = 64\n", ("memory",)),
        ('memory = "512"\n', ("memory", "text")),
        ('handler = "function"\n', ("handler",)),
        ('runtime = "runtime9"\n', ("runtime",)),
        ("[build]\nminfy = true\n", ("build.minfy",)),
        ("signal_margin = 900001\n", ("signal_margin",)),
        ('log_format = "xml"\n', ("log_format",)),
        ('log_level = "debug"\n', ("log_level", "log_format")),
        ("[environment]\nAWS_REGION = 'x'\n", ("AWS_REGION",)),
        ("name = \n", ("lambdeno.toml",)),
    ],
)
def test_a_wrong_project_file(folder: Path, toml: str, says: tuple[str, ...]) -> None:
    """A wrong key or value is named, with the file that has it."""
    (folder / "lambdeno.toml").write_text(toml)
    refused(folder, "lambdeno.toml", *says, code=3)


def test_a_misspelt_key_gets_the_right_one(folder: Path) -> None:
    """The nearest known key is the hint."""
    (folder / "lambdeno.toml").write_text("memroy = 512\n")
    assert 'hint: did you mean "memory"?' in run("build", folder=folder).stderr


def test_an_unknown_deno(folder: Path) -> None:
    """A release without a pin is refused before anything is downloaded."""
    (folder / "lambdeno.toml").write_text('[deno]\nversion = "1.2.3"\n')
    refused(folder, '"1.2.3"', code=4)
    refused(folder, '"1.2.3"', code=4, command=("build", "deno-layer"))


def test_a_deno_that_the_index_does_not_have(folder: Path) -> None:
    """A pin of one's own for a release that does not exist ends in the index's no, in our words."""
    sha256 = "0" * 64
    pins = "".join(f'"{name}" = "{sha256}"\n' for name in ("linux-x86_64", "linux-arm64"))
    (folder / "lambdeno.toml").write_text(f'[deno]\nversion = "99.0.0"\n[deno.sha256]\n{pins}')
    refused(folder, "no Deno 99.0.0", code=4, command=("build", "deno-layer"))


def test_a_wrong_checksum(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel with another sha256 than the pinned one is not taken, and leaves nothing behind."""
    cache = tmp_path_factory.mktemp("cache")
    (folder / "lambdeno.toml").write_text(f'[deno.sha256]\n"linux-x86_64" = "{"0" * 64}"\n')
    before = state(folder)
    monkeypatch.setenv("LAMBDENO_CACHE", str(cache))
    done = run("build", "deno-layer", folder=folder)
    assert done.returncode == 4
    assert "sha256 differs" in done.stderr
    assert state(folder) == before
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_disk_that_cannot_be_written(folder: Path, what: str, disk: Path) -> None:
    """A full or read-only disk is named, the old artefact stays, nothing half-written is left."""
    if what == "full":
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    (folder / "src/main.ts").write_text(GOOD + f"export const more = '{'x' * 9000}';\n")
    refused(folder, "Cannot write", "dist", code=4)


@pytest.fixture
def disk(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 1 MB in place of dist/, with what was in that."""
    dist = folder / "dist"
    kept = shutil.copytree(dist, tmp_path_factory.mktemp("kept"), dirs_exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dist], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    shutil.copytree(kept, dist, dirs_exist_ok=True)
    yield dist
    subprocess.run(["umount", dist], check=True)


def test_a_dist_that_is_a_file(folder: Path) -> None:
    """An output folder that cannot be is named."""
    shutil.rmtree(folder / "dist")
    (folder / "dist").write_text("in the way")
    done = run("build", "function", folder=folder)
    assert done.returncode == 4
    assert "dist" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "dist").read_text() == "in the way"


@pytest.mark.parametrize("event", ["{nope", "no-such-file.json"])
def test_an_event_that_is_none(folder: Path, event: str) -> None:
    """What is neither JSON nor a file is named."""
    done = run("invoke", event, folder=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


def test_no_project(tmp_path: Path) -> None:
    """Outside a project, the missing file and the remedy are named."""
    done = run("build", folder=tmp_path)
    assert done.returncode == 3
    assert "No lambdeno.toml" in done.stderr
    assert "--project" in done.stderr


def pipe(path: Path) -> None:
    """A named pipe that nobody writes to."""
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("dist", Path.touch, ('"dist" is not a folder',)),
        (
            "dist/function.zip",
            Path.mkdir,
            ('Cannot write "dist/function.zip"', '"dist/function.zip" is a folder'),
        ),
        ("dist/sbom.json", Path.mkdir, ('Cannot write "dist/sbom.json"', '"dist/sbom.json" is a folder')),
        ("dist/manifest.json", Path.mkdir, ('Cannot read "dist/manifest.json"', "is a folder")),
        ("dist/manifest.json", pipe, ('Cannot read "dist/manifest.json": it is not a file',)),
    ],
)
def test_what_is_in_the_way_in_dist_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], None], says: tuple[str, ...]
) -> None:
    """The error says what it is, the hint to remove it; a pipe is not waited for."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.ts").write_text(GOOD)
    (tmp_path / "lambdeno.toml").write_text("[build]\ncheck = false\ncode_cache = false\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    make(tmp_path / name)
    done = run("build", "function", folder=tmp_path)
    error, hint = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert done.returncode == (4 if "Cannot write" in error else 5)
    for words in says:
        assert words in error
    assert hint.startswith("hint: remove it")
