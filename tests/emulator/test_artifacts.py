"""Unpacking: what is refused, what is kept, how layers are laid over each other."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from lambdeno import limits
from lambdeno.emulator.artifacts import check_total, merge, unpack
from lambdeno.errors import ArtifactError


def zip_with(path: Path, members: dict[str, bytes], mode: int = 0o644) -> Path:
    """A zip with these members, all of one mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return path


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Names, contents and modes of all files in a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_and_x_bits_are_kept(tmp_path: Path) -> None:
    """Files come out with their bytes; modes are 0755 where any x bit is set, else 0644."""
    plain = zip_with(tmp_path / "plain.zip", {"a/b": b"1", "c": b""}, 0o600)
    executable = zip_with(tmp_path / "x.zip", {"bootstrap": b"#!"}, 0o711)
    assert files(unpack(plain, tmp_path / "cache")) == {"a/b": (b"1", 0o644), "c": (b"", 0o644)}
    assert files(unpack(executable, tmp_path / "cache")) == {"bootstrap": (b"#!", 0o755)}


def test_a_zip_is_unpacked_once(tmp_path: Path) -> None:
    """The same bytes are one folder, wherever the zip lies; nothing else is left in the cache."""
    first = zip_with(tmp_path / "a.zip", {"a": b"1"})
    second = tmp_path / "b.zip"
    second.write_bytes(first.read_bytes())
    folder = unpack(first, tmp_path / "cache")
    assert unpack(second, tmp_path / "cache") == folder
    assert list((tmp_path / "cache").iterdir()) == [folder.parent]


@pytest.mark.parametrize("damage", ["altered", "added", "gone", "made a link", "not executable"])
def test_what_was_changed_in_the_cache_does_not_run(damage: str, tmp_path: Path) -> None:
    """A folder with another file, fewer files or other bytes than the zip's is unpacked again."""
    path = zip_with(tmp_path / "a.zip", {"bootstrap": b"#!/bin/sh", "lib/b": b"2"}, 0o755)
    folder = unpack(path, tmp_path / "cache")
    whole = files(folder)
    times = (folder / "bootstrap").stat()
    if damage == "altered":
        (folder / "bootstrap").write_bytes(b"#!/bin/SH")
        os.utime(folder / "bootstrap", ns=(times.st_atime_ns, times.st_mtime_ns))
    elif damage == "added":
        (folder / "lib/c").write_bytes(b"3")
    elif damage == "gone":
        (folder / "lib/b").unlink()
    elif damage == "made a link":
        (folder / "lib/b").unlink()
        (folder / "lib/b").symlink_to(tmp_path / "a.zip")
    else:
        (folder / "bootstrap").chmod(0o644)
    assert unpack(path, tmp_path / "cache") == folder
    assert files(folder) == whole
    assert list((tmp_path / "cache").iterdir()) == [folder.parent]


def test_what_was_changed_below_opt_does_not_run(tmp_path: Path) -> None:
    """Merged layers share their files with each layer's own folder: both are made again."""
    layers = [zip_with(tmp_path / f"{name}.zip", {name: b"1"}) for name in ("a", "b")]
    merged = merge(layers, tmp_path / "cache")
    assert merged
    (merged / "a").write_bytes(b"2")
    assert merge(layers, tmp_path / "cache") == merged
    assert files(merged) == {"a": (b"1", 0o644), "b": (b"1", 0o644)}
    assert files(unpack(layers[0], tmp_path / "cache")) == {"a": (b"1", 0o644)}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/passwd", "is not a relative path"),
        ("../up", "leaves the folder"),
        ("a/../../up", "leaves the folder"),
        ("C:/windows", "names a drive"),
        ("a\\b", "has characters"),
        ("a\0b", "has characters"),
        (".", "names no file"),
    ],
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str, fault: str) -> None:
    """A member's name is a relative path that stays inside."""
    placeholder = "?" * len(name)
    path = zip_with(tmp_path / "a.zip", {placeholder: b"1"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name.encode()))
    with pytest.raises(ArtifactError, match=f"cannot be unpacked: .* {fault}"):
        unpack(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [(stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "device"), (stat.S_IFIFO, "special file")],
)
def test_kinds_other_than_files_are_refused(tmp_path: Path, kind: int, fault: str) -> None:
    """A member is a file or a folder."""
    path = zip_with(tmp_path / "a.zip", {"a": b"/etc/passwd"}, kind | 0o777)
    with pytest.raises(ArtifactError, match=fault):
        unpack(path, tmp_path / "cache")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a/b", "a//b")])
def test_duplicates_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    """No file is in a zip twice, however its name is written."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"1")
    with pytest.raises(ArtifactError, match="is there twice"):
        unpack(path, tmp_path / "cache")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A name that is a file and a folder at once is refused."""
    path = zip_with(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"})
    with pytest.raises(ArtifactError, match="a file and a folder at once"):
        unpack(path, tmp_path / "cache")


def test_damage_is_found(tmp_path: Path) -> None:
    """A byte that changed, an end that is missing and what is no zip are errors, and leave nothing."""
    whole = zip_with(tmp_path / "a.zip", {"a": bytes(range(256)) * 10}).read_bytes()
    at = whole.index(b"a", 26) + 20
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for damaged in (changed, whole[:-30], b"no zip"):
        path = tmp_path / "damaged.zip"
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is damaged"):
            unpack(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the limit is refused, by the sizes that are declared and by those that are true."""
    monkeypatch.setattr(limits, "UNPACKED", 1000)
    path = zip_with(tmp_path / "a.zip", {"a": bytes(600), "b": bytes(600)})
    with pytest.raises(ArtifactError, match="1200 bytes unpacked, over the limit of 1000"):
        unpack(path, tmp_path / "cache")
    lying = path.read_bytes().replace(struct.pack("<I", 600), struct.pack("<I", 6))
    path.write_bytes(lying)
    with pytest.raises(ArtifactError):
        unpack(path, tmp_path / "cache")


def test_total_size_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function and its layers may have 250 MB together."""
    monkeypatch.setattr(limits, "UNPACKED", 1000)
    path = zip_with(tmp_path / "a.zip", {"a": bytes(600)})
    check_total([path])
    with pytest.raises(ArtifactError, match="have 1200 bytes unpacked, over the limit of 1000"):
        check_total([path, path])


def test_missing_zip_is_named(tmp_path: Path) -> None:
    """A zip that is not there is an error that says which."""
    with pytest.raises(ArtifactError, match=r'Cannot find ".*nowhere\.zip"'):
        unpack(tmp_path / "nowhere.zip", tmp_path / "cache")


def test_later_layers_win(tmp_path: Path) -> None:
    """Layers are laid over each other in order, folders and zips alike; none is changed by it."""
    first = zip_with(tmp_path / "1.zip", {"lib/a": b"1", "lib/b": b"1", "x": b"1"})
    second = tmp_path / "second"
    (second / "lib").mkdir(parents=True)
    (second / "lib" / "b").write_bytes(b"2")
    (second / "x").mkdir()
    (second / "x" / "y").write_bytes(b"2")
    merged = merge([first, second], tmp_path / "cache")
    assert merged
    assert {name: data for name, (data, _) in files(merged).items()} == {
        "lib/a": b"1",
        "lib/b": b"2",
        "x/y": b"2",
    }
    assert merge([first, second], tmp_path / "cache") == merged
    assert merge([second, first], tmp_path / "cache") != merged
    assert files(unpack(first, tmp_path / "cache"))["lib/b"][0] == b"1"
    assert merge([], tmp_path / "cache") is None


def test_what_nobody_used_for_a_month_is_removed(tmp_path: Path) -> None:
    """The cache of unpacked artefacts does not grow for ever; what is used stays."""
    cache = tmp_path / "cache"
    old, used = (unpack(zip_with(tmp_path / f"{n}.zip", {n: b"x"}), cache) for n in ("old", "used"))
    for folder in (old, used):
        os.utime(folder.parent, (0, 0))
    assert unpack(tmp_path / "used.zip", cache) == used
    unpack(zip_with(tmp_path / "new.zip", {"new": b"x"}), cache)
    assert not old.exists()
    assert used.exists()


def test_an_unwritable_cache_is_one_sentence(tmp_path: Path) -> None:
    """Where nothing can be unpacked, the folder and the remedy are named."""
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(ArtifactError, match="Cannot unpack to") as caught:
        unpack(zip_with(tmp_path / "a.zip", {"a": b"x"}), tmp_path / "cache")
    assert "LAMBDENO_CACHE" in caught.value.hint
