"""The cache folder: programs run from it, so that it is its user's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdeno.cache import cache_folder, make_private
from lambdeno.errors import BuildError
from tests.e2e.conftest import run


@pytest.fixture
def loose() -> Iterator[None]:
    """A user whose files everybody may write, as in some containers."""
    former = os.umask(0)
    yield
    os.umask(former)


@pytest.mark.usefixtures("loose")
def test_it_is_made_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask says, nobody else may look into it; nor into the folders that it is made in."""
    monkeypatch.setenv("LAMBDENO_CACHE", str(tmp_path / "a/cache"))
    make_private(cache_folder() / "deno")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/cache", "a/cache/deno")]
    assert modes == [0o700] * 3


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(cache: Path, mode: int) -> None:
    """One sentence says whose mistake it is and what to do."""
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(BuildError, match="other users can write to it") as caught:
        cache_folder()
    assert f'chmod go-w "{cache}"' in caught.value.hint
    assert "LAMBDENO_CACHE" in caught.value.hint
    cache.chmod(0o755)
    assert cache_folder() == cache


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to somebody else")
def test_a_folder_of_another_user_is_refused(cache: Path) -> None:
    """Whoever owns a folder can write to it, whatever its mode says."""
    cache.mkdir(0o700)
    os.chown(cache, 54321, 54321)
    with pytest.raises(BuildError, match="belongs to another user"):
        cache_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to somebody else")
def test_a_folder_of_another_user_is_not_filled(cache: Path) -> None:
    """Somebody who is faster in making it gets nothing to run."""
    cache.mkdir(0o700)
    os.chown(cache, 54321, 54321)
    done = run("deno", "--version", folder=cache.parent)
    assert (done.returncode, done.stderr.count("belongs to another user")) == (4, 1)
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user that nobody knows")
def test_a_user_without_a_home_names_a_folder() -> None:
    """No cache in the current folder: it would be the project's, and so would be what runs from it."""
    program = (
        "import os, platformdirs, platformdirs.unix; from lambdeno import cache, errors; os.setuid(54321)\n"
        "try: print(cache.cache_folder())\n"
        "except errors.BuildError as error: print(error.message, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True)
    assert "no home folder" in done.stdout
    assert "LAMBDENO_CACHE" in done.stdout
