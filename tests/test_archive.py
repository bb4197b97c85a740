"""Zips: the same bytes wherever they are made, whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdeno import archive
from lambdeno.archive import Entry
from lambdeno.errors import ArtifactError, BuildError

NAMES = ["b/2", "a", "b/10", "B", "ä", ".hidden"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another umask and another time zone than the usual ones."""
    former = os.umask(0o077)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    yield
    os.umask(former)
    monkeypatch.undo()
    time.tzset()


def files(folder: Path, mtime: float) -> list[Entry]:
    """Entries from files of a folder, as old as given."""
    entries = []
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 100)
        os.utime(path, (mtime, mtime))
        entries.append(Entry(name, path, executable=name == "a"))
    return entries


def test_names_are_sorted_modes_and_times_fixed(tmp_path: Path) -> None:
    """A zip holds sorted files of mode 0644 or 0755, all of the first day that a zip can name."""
    made = archive.write(tmp_path / "a.zip", files(tmp_path / "files", time.time()))
    with zipfile.ZipFile(made.path) as zipped:
        assert zipped.testzip() is None
        items = zipped.infolist()
        assert [item.filename for item in items] == sorted(NAMES)
        assert {item.date_time for item in items} == {(1980, 1, 1, 0, 0, 0)}
        assert {item.filename: item.external_attr >> 16 for item in items} == {
            name: stat.S_IFREG | (0o755 if name == "a" else 0o644) for name in NAMES
        }
        assert {item.create_system for item in items} == {3}
        assert all(zipped.read(name) == (name * 100).encode() for name in NAMES)


@pytest.fixture
def here(tmp_path: Path) -> bytes:
    """A zip as it is made here and now."""
    return archive.write(tmp_path / "here.zip", files(tmp_path / "files", time.time())).path.read_bytes()


@pytest.mark.usefixtures("elsewhere")
def test_place_and_time_leave_no_trace(here: bytes, tmp_path: Path) -> None:
    """Umask, time zone, the files' times and folder, the order of the entries: the same bytes."""
    path = tmp_path / "another folder/and name.zip"
    made = archive.write(path, reversed(files(tmp_path / "other files", 1_000_000_000)))
    assert path.read_bytes() == here
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert made.size == len(here)


def test_a_zip_is_what_it_says(tmp_path: Path) -> None:
    """Path, sizes, entries in order and digest are those of the file written."""
    entries = [Entry("b", b"1" * 5000), Entry("a", b"22")]
    made = archive.write(tmp_path / "new/folder/a.zip", entries)
    assert made.path == tmp_path / "new/folder/a.zip"
    assert made.size == made.path.stat().st_size
    assert made.unpacked == 5002
    assert [entry.name for entry in made.entries] == ["a", "b"]
    assert made.digest == archive.digest(entries)


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    """Whoever watches is told of every byte, once."""
    big = tmp_path / "big"
    big.write_bytes(bytes(archive.CHUNK * 2 + 5))
    seen: list[int] = []
    made = archive.write(tmp_path / "a.zip", [Entry("a", big), Entry("b", b"123")], seen.append)
    assert sum(seen) == made.unpacked
    assert len(seen) == 4


def test_a_digest_does_not_know_the_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another level gives another file and the same identity."""
    entries = [Entry("a", b"".join(b"%d " % number for number in range(20_000)))]
    one = archive.write(tmp_path / "one.zip", entries)
    monkeypatch.setattr(archive, "LEVEL", 1)
    two = archive.write(tmp_path / "two.zip", entries)
    assert one.size != two.size
    assert one.digest == two.digest


def test_a_digest_does_not_know_where_content_comes_from(tmp_path: Path) -> None:
    """A file and its bytes are the same entry, and this is its digest wherever it is computed."""
    (tmp_path / "file").write_bytes(b"hello")
    entries = [Entry("bin/a", tmp_path / "file", executable=True), Entry("b", b"")]
    digest = archive.digest(entries)
    assert digest == archive.digest([Entry("bin/a", b"hello", executable=True), Entry("b", b"")])
    assert digest == "sha256:0eddbe0f86243e4a377c908b89eee020ac73c701b1580b56949cbe5f1834b1fd"


def test_a_name_cannot_pass_for_two(tmp_path: Path) -> None:
    """The digest keeps names apart from what stands beside them."""
    assert archive.digest([Entry("a", b""), Entry("b", b"")]) != archive.digest([Entry("ab", b"")])
    assert archive.digest([Entry("a", b"b")]) != archive.digest([Entry("b", b"a")])
    assert archive.digest([]) != archive.digest([Entry("", b"")])
    assert not list(tmp_path.iterdir())


def test_two_files_of_one_name_leave_what_was_there(tmp_path: Path) -> None:
    """A refusal comes before the first byte is written."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"former")
    with pytest.raises(ArtifactError, match=r'Two files want the name "b" in a\.zip'):
        archive.write(path, [Entry("b", b"1"), Entry("a", b""), Entry("b", b"1")])
    assert path.read_bytes() == b"former"
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    """Ctrl-C in the middle: the former zip is whole and nothing lies beside it."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"former")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.write(path, [Entry("a", b"1")], interrupt)
    assert path.read_bytes() == b"former"
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    """A write that the system ends half-way is one sentence; the former zip is whole."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"former")
    program = (
        "import os, resource, sys; from pathlib import Path; from lambdeno import archive, errors;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: archive.write(Path(sys.argv[1]), [archive.Entry('a', os.urandom(300_000))])\n"
        "except errors.BuildError as error: print(error.message, error.hint, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f'Cannot write "{path}": File too large\nfree some space')
    assert path.read_bytes() == b"former"
    assert [item.name for item in tmp_path.iterdir()] == ["a.zip"]


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    """The path and the system's reason are in the error."""
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file/a.zip"
    with pytest.raises(BuildError) as caught:
        archive.write(path, [Entry("a", b"1")])
    assert caught.value.message.startswith(f'Cannot write "{path}": ')
    assert "Errno" not in caught.value.message
    assert caught.value.message.endswith(f'"{tmp_path / "file"}" is not a folder')
    assert caught.value.hint == "remove it, or move it away"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The error is about the file that is gone, not about the zip."""
    path = tmp_path / "a.zip"
    with pytest.raises(BuildError) as caught:
        archive.write(path, [Entry("a", b"1"), Entry("gone", tmp_path / "gone.json")])
    assert str(tmp_path / "gone.json") in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "words"), [(0, "1 KB"), (1536, "2 KB"), (1024 * 1024, "1.0 MB"), (26_214_400, "25.0 MB")]
)
def test_sizes_are_for_people(size: int, words: str) -> None:
    """Whole kilobytes, then megabytes with one digit."""
    assert archive.megabytes(size) == words
