"""A file appears whole or not at all, through no link, and no dead writer's file stays for long."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lambdeno import atomic

WRITER = """
import sys; from pathlib import Path; from lambdeno import atomic
with atomic.replacing(Path(sys.argv[1])) as file:
    file.write(b"half"); file.flush(); print("begun", flush=True); sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a process that has begun to write a file, and goes on when its standard input ends."""

    def start(name: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        return process

    return start


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    """The file that a link at the path leads to is left as it was, and so is one that is not there yet."""
    (tmp_path / "outside").write_bytes(b"outside")
    for target in ("outside", "nowhere"):
        path = tmp_path / f"link-{target}"
        path.symlink_to(tmp_path / target)
        atomic.write(path, b"new")
        assert not path.is_symlink()
        assert path.read_bytes() == b"new"
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert names(tmp_path) == ["link-nowhere", "link-outside", "outside"]


def test_a_second_name_of_a_file_keeps_its_content(tmp_path: Path) -> None:
    """A hard link that somebody has made is not written through either."""
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "path").hardlink_to(tmp_path / "outside")
    atomic.write(tmp_path / "path", b"new")
    assert (tmp_path / "outside").read_bytes() == b"outside"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Neither half of the new file nor a file beside it is left."""
    path = tmp_path / "file"
    path.write_bytes(b"former")

    def interrupted() -> None:
        with atomic.replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"former"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_goes_with_the_next_write(
    tmp_path: Path, writer: Callable[[str], subprocess.Popen[str]]
) -> None:
    """The next write into the folder removes it, whatever that writes; a living writer's file stays."""
    with writer("a") as killed, writer("b") as living:
        killed.kill()
        killed.wait()
        assert len(names(tmp_path)) == 2
        atomic.write(tmp_path / "c", b"c")
        [left, other] = names(tmp_path)
        assert (left.startswith(".b."), other) == (True, "c")
        living.communicate()
    assert names(tmp_path) == ["b", "c"]
    assert (tmp_path / "b").read_bytes() == b"half"


def test_a_link_with_the_name_of_such_a_file_leads_nowhere(tmp_path: Path) -> None:
    """What a dead writer's file would be called is neither followed nor waited for."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(b"outside")
    (folder / f".x.{'0' * 16}.new").symlink_to(tmp_path / "outside")
    (folder / f".y.{'0' * 16}.new").mkdir()
    os.mkfifo(folder / f".z.{'0' * 16}.new")
    atomic.write(folder / "file", b"new")
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert (folder / "file").read_bytes() == b"new"
