"""The pinned Deno: only verified bytes reach the cache, and every refusal is one sentence.

The wheels here are made up, and pip takes them from a folder: no network.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lambdeno import deno
from lambdeno.errors import BuildError, DenoError
from lambdeno.project import DENO_VERSION
from tests.conftest import PROGRAM, RECORDED, SCRIPT, TARGET, VERSION, Put
from tests.e2e.conftest import run


def files(folder: Path) -> list[str]:
    """Every file and folder below a folder, but for the way to where releases lie."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return sorted(found - {"deno"})


def get(sha256: str, target: str = TARGET) -> deno.Binary:
    """The made-up release, vouched for by this sha256."""
    return deno.get(VERSION, target, {target: sha256})


def test_a_verified_wheel_becomes_an_executable_in_the_cache(cache: Path, put: Put) -> None:
    """The binary has its sha256 beside it; nothing else is left of the download."""
    sha256 = put()
    seen: list[tuple[int, int]] = []
    binary = deno.get(VERSION, TARGET, {TARGET: sha256}, lambda done, total: seen.append((done, total)))
    assert (binary.version, binary.platform) == (VERSION, TARGET)
    assert binary.path.read_bytes() == PROGRAM
    assert stat.S_IMODE(binary.path.stat().st_mode) == 0o755
    assert binary.sha256 == hashlib.sha256(PROGRAM).hexdigest()
    name = f"deno/{VERSION}-{TARGET}-{sha256[:16]}"
    assert files(cache) == [name, f"{name}/deno", f"{name}/sha256"]
    assert deno.run(binary, ["--version"], cache).stdout == "made up\n"


def test_what_is_in_the_cache_is_not_asked_for_again(cache: Path, index: Path, put: Put) -> None:
    """The second time needs no index."""
    sha256 = put()
    assert deno.cached(VERSION, TARGET, {TARGET: sha256}) is None
    first = get(sha256)
    for wheel in index.iterdir():
        wheel.unlink()
    assert get(sha256) == first == deno.cached(VERSION, TARGET, {TARGET: sha256})
    assert first.path.is_relative_to(cache)


@pytest.mark.usefixtures("cache")
def test_the_current_folder_has_no_say_in_the_download(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project with a pip of its own, or a module named as one of Python's, runs nothing of it."""
    for name in ("pip/__init__.py", "pip/__main__.py", "logging.py", "sitecustomize.py"):
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text("from pathlib import Path; Path('ran').touch()\n")
    sha256 = put()
    monkeypatch.chdir(tmp_path / "project")
    get(sha256)
    assert not (tmp_path / "project/ran").exists()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("damage", ["altered", "cut short", "emptied"])
def test_a_damaged_binary_does_not_run(damage: str, put: Put) -> None:
    """It is fetched again; the size, the times or the inode tell that it was touched."""
    sha256 = put()
    binary = get(sha256)
    assert get(sha256) == binary
    data = {"altered": PROGRAM.replace(b"made", b"MADE"), "cut short": PROGRAM[:-1], "emptied": b""}[damage]
    times = binary.path.stat()
    binary.path.write_bytes(data)
    os.utime(binary.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert deno.cached(VERSION, TARGET, {TARGET: sha256}) is None
    assert get(sha256).path.read_bytes() == PROGRAM


@pytest.mark.usefixtures("cache")
def test_a_damaged_binary_that_cannot_be_fetched_is_told(put: Put, index: Path) -> None:
    """The reason is the damage; that there is no other is the second half."""
    sha256 = put()
    binary = get(sha256)
    binary.path.write_bytes(b"")
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(DenoError) as caught:
        get(sha256)
    assert caught.value.message.startswith(f'"{binary.path}" is damaged, and cannot be replaced: ')


@pytest.mark.usefixtures("cache")
def test_a_binary_that_only_moved_is_not_damaged(put: Put) -> None:
    """Copied elsewhere and back it is another file with the same content, which is good."""
    sha256 = put()
    binary = get(sha256)
    binary.path.rename(binary.path.with_name("aside"))
    shutil.copy(binary.path.with_name("aside"), binary.path)
    binary.path.with_name("aside").unlink()
    assert deno.cached(VERSION, TARGET, {TARGET: sha256}) == binary


def test_another_checksum_is_another_release(put: Put, cache: Path) -> None:
    """A cached binary answers for the wheel that it came from alone."""
    get(put())
    with pytest.raises(DenoError, match="sha256 differs"):
        get("0" * 64)
    assert deno.cached(VERSION, TARGET, {TARGET: "0" * 64}) is None
    assert len([name for name in files(cache) if name.endswith("/deno")]) == 1


def test_windows_has_its_own_name(cache: Path, put: Put) -> None:
    """The wheel for Windows holds deno.exe."""
    record = f"{SCRIPT}.exe,{RECORDED},1\n"
    binary = get(put(record, script=SCRIPT + ".exe", target="windows-x86_64"), "windows-x86_64")
    assert binary.path.name == "deno.exe"
    assert binary.path.is_relative_to(cache)


def test_two_at_once_both_have_it(cache: Path, put: Put) -> None:
    """Builds side by side do not disturb each other, and leave one folder."""
    sha256 = put()
    program = (
        "import sys; from lambdeno import deno; v, t, s = sys.argv[1:]; print(deno.get(v, t, {t: s}).path)"
    )
    command = [sys.executable, "-c", program, VERSION, TARGET, sha256]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0].strip() for process in both}
    name = f"deno/{VERSION}-{TARGET}-{sha256[:16]}"
    assert [process.returncode for process in both] == [0, 0]
    assert said == {str(cache / name / "deno")}
    assert set(files(cache)) - {f"{name}/digests.json"} == {name, f"{name}/deno", f"{name}/sha256"}


def test_a_wheel_with_another_checksum_is_refused(cache: Path, put: Put) -> None:
    """A wheel that is not the pinned one leaves nothing behind."""
    put()
    with pytest.raises(DenoError) as caught:
        get("0" * 64)
    assert caught.value.message == (
        f"The wheel of Deno {VERSION} for {TARGET} is not the pinned one: its sha256 differs"
    )
    assert "deno.sha256" in caught.value.hint
    assert files(cache) == []


OTHER = "sha256=" + base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("record", "program"),
    [
        (f"{SCRIPT},{OTHER},1\n", PROGRAM),
        (f"{SCRIPT},,\n", PROGRAM),
        (f"{SCRIPT}\n", PROGRAM),
        (f"{SCRIPT},md5=abcd,1\n", PROGRAM),
        (f"{SCRIPT},sha256=!,1\n", PROGRAM),
        ("\n\n", PROGRAM),
        (b"\xff\xfe,\xff,1\n", PROGRAM),
        (None, PROGRAM),
        ("other,,\n", PROGRAM),
        (f"{SCRIPT},{RECORDED},1\n", None),
    ],
    ids=[
        *("another sha256", "no sha256", "no columns", "md5", "no base64"),
        *("empty", "not text", "no record", "not recorded", "no program"),
    ],
)
def test_a_binary_that_the_record_does_not_vouch_for_is_refused(
    cache: Path, put: Put, record: str | bytes | None, program: bytes | None
) -> None:
    """The wheel's own list of sha256s must name the binary, rightly; else nothing is left."""
    sha256 = put(record, program)
    with pytest.raises(DenoError, match="Deno") as caught:
        get(sha256)
    assert f"deno-{VERSION}" in caught.value.message
    assert caught.value.hint
    assert files(cache) == []


def test_a_binary_cut_short_is_refused(cache: Path, put: Put, index: Path) -> None:
    """A wheel whose sha256 is right and whose content is broken leaves nothing behind."""
    put(program=PROGRAM)
    [wheel] = index.iterdir()
    wheel.write_bytes(wheel.read_bytes().replace(b"made up", b"made UP"))
    with pytest.raises(DenoError, match="Deno"):
        get(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert files(cache) == []


def test_an_unknown_release_is_refused_without_the_network(cache: Path) -> None:
    """What cannot be verified is not even asked for; the hint lists what can be."""
    began = time.monotonic()
    with pytest.raises(DenoError) as caught:
        deno.get("1.2.3", TARGET)
    assert time.monotonic() - began < 0.1
    assert caught.value.message == f'Cannot verify Deno "1.2.3" for {TARGET}: its checksum is not known'
    assert "2.9.8" in caught.value.hint
    assert f'deno.sha256."{TARGET}"' in caught.value.hint
    assert not cache.exists()
    assert deno.cached("1.2.3", TARGET) is None


@pytest.mark.usefixtures("index")
def test_a_release_that_the_index_does_not_have_is_named(cache: Path) -> None:
    """The index's no, in our words, with a release that is there."""
    with pytest.raises(DenoError) as caught:
        get("0" * 64)
    assert caught.value.message == f"The package index has no Deno {VERSION} for {TARGET}"
    assert caught.value.hint.endswith("such as 2.9.8")
    assert files(cache) == []


def test_an_index_that_does_not_answer_is_not_one_without_deno(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network the error is about the connection, not about the release."""
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    with pytest.raises(DenoError) as caught:
        deno.get("2.9.8", TARGET)
    assert caught.value.message.startswith(f"Cannot download Deno 2.9.8 for {TARGET}: ")
    assert "check the connection" in caught.value.hint
    assert files(cache) == []


def test_a_cache_folder_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the variable that chooses another."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAMBDENO_CACHE", str(tmp_path / "file"))
    with pytest.raises(BuildError, match="Cannot write to the cache folder") as caught:
        deno.get("2.9.8", TARGET)
    assert str(tmp_path / "file") in caught.value.message
    assert "LAMBDENO_CACHE" in caught.value.hint


def test_a_cache_folder_that_takes_no_file_is_named(cache: Path) -> None:
    """A folder that is there but cannot be written to is told like one that cannot be made."""
    (cache / "deno").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", cache / "deno"], check=False).returncode:
        pytest.skip("only root mounts a read-only disk")
    try:
        with pytest.raises(BuildError, match="Cannot write to the cache folder") as caught:
            deno.get("2.9.8", TARGET)
    finally:
        subprocess.run(["umount", cache / "deno"], check=True)
    assert "LAMBDENO_CACHE" in caught.value.hint


@pytest.fixture
def lost(cache: Path, tmp_path: Path) -> Path:
    """A project, and a cache that has lost the binary of its Deno."""
    target = deno.host_platform()
    folder = cache / "deno" / f"2.9.8-{target}-{deno.pins()['2.9.8'][target][:16]}"
    folder.mkdir(parents=True)
    (folder / "sha256").write_text("0" * 64)
    (tmp_path / "lambdeno.toml").write_text("architecture = 'arm64'\n" if "arm64" in target else "")
    return tmp_path


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("command", [("build", "deno-layer"), ("deno", "--version")])
def test_a_lost_binary_is_no_traceback(lost: Path, command: tuple[str, ...]) -> None:
    """Whoever removed the binary from the cache is told, or it is fetched anew."""
    done = run(*command, folder=lost)
    assert done.returncode == 4
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_deno_that_does_not_start_is_named(tmp_path: Path) -> None:
    """The path, the reason, and which folder to remove."""
    binary = deno.Binary("1.0.0", TARGET, tmp_path / "no/deno", "")
    with pytest.raises(DenoError) as caught:
        deno.run(binary, [], tmp_path)
    assert caught.value.message == f'Cannot start "{tmp_path}/no/deno": No such file or directory'
    assert str(tmp_path / "no") in caught.value.hint


def test_deno_speaks_without_colours_and_asks_nothing(tmp_path: Path) -> None:
    """Whoever captures Deno's words gets text, from a process with an empty standard input."""
    script = tmp_path / "deno"
    script.write_text('#!/bin/sh\necho "$NO_COLOR $DENO_NO_PROMPT $DENO_NO_UPDATE_CHECK" "$@"; cat; pwd\n')
    script.chmod(0o755)
    done = deno.run(deno.Binary("1.0.0", TARGET, script, ""), ["a b", tmp_path], tmp_path)
    assert done.stdout == f"1 1 1 a b {tmp_path}\n{tmp_path}\n"


def test_every_pin_is_a_sha256_for_a_platform() -> None:
    """Each release is pinned for the two platforms that Lambda has, and for known ones alone."""
    for version, platforms in deno.pins().items():
        assert {"linux-x86_64", "linux-arm64"} <= set(platforms) <= set(deno.TAGS), version
        assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in platforms.values())


def test_the_default_release_is_pinned_for_this_machine() -> None:
    """What `lambdeno build` downloads unasked can be verified."""
    assert deno.host_platform() in deno.pins()[DENO_VERSION]
