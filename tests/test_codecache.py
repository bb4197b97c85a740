"""The shipped code cache serves: a start takes everything from it, and the proof of that can fail."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lambdeno import build, codecache, deno
from lambdeno.archive import Entry
from lambdeno.codecache import FILES, LoadFailure
from lambdeno.emulator import Function, ListSink, host_architecture, local_lambda
from lambdeno.project import DENO_VERSION, Project, load
from tests.e2e.conftest import run

OBSTACLE = codecache.obstacle(host_architecture())
needs_loading = pytest.mark.skipif(bool(OBSTACLE), reason=f"no code cache here: {OBSTACLE}")

BUNDLE = "file:///var/task/function.bundle.js"
BRIDGE = "file:///opt/lambdeno/runtime.js"
SOURCE = "export const handler = (event) => ({ event, url: import.meta.url });\n"


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """The runtime layer's files, its code cache among them."""
    folder = tmp_path_factory.mktemp("layer")
    (folder / "lambdeno.toml").write_text(f'architecture = "{host_architecture()}"\n')
    project = load(folder)
    return list(build.build_runtime_layer(project).zip.entries)


@pytest.fixture(scope="session")
def bare(layer: list[Entry]) -> list[Entry]:
    """/opt with Deno and without a code cache."""
    binary = deno.get(DENO_VERSION, f"linux-{host_architecture()}")
    files = [entry for entry in layer if not entry.name.startswith("lambdeno/deno_dir/")]
    return [*files, Entry("bin/deno", binary.path, executable=True)]


@pytest.fixture(scope="session")
def opt(layer: list[Entry], bare: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/opt as it ships."""
    folder = tmp_path_factory.mktemp("opt") / "opt"
    codecache.lay_out(folder, {entry.name: entry for entry in [*bare, *layer]}.values())
    return folder


def function(folder: Path, source: str = SOURCE) -> Function:
    """A function from the text of its bundle."""
    task = folder / "task"
    task.mkdir()
    (task / "function.bundle.js").write_text(source)
    return Function(
        name="cached",
        code=task,
        runtime=build.lambda_runtime(Project()),
        architecture=host_architecture(),
    )


@pytest.fixture(scope="session")
def filled(bare: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Function:
    """A function whose folder holds its code cache."""
    made = function(tmp_path_factory.mktemp("filled"))
    codecache.fill(bare, made)
    return made


@pytest.fixture
def own(filled: Function, tmp_path: Path) -> Function:
    """The filled function, for a test to spoil."""
    return replace(filled, code=shutil.copytree(filled.code, tmp_path / "own"))


def start(made: Function, opt: Path) -> tuple[set[str], set[str]]:
    """What a start takes from the cache, and what V8 compiles."""
    log = ListSink()
    made = replace(made, layers=(opt,), environment={**made.environment, "DENO_LOG": "debug"})
    with local_lambda(made, sandbox="bubblewrap", log=log) as local:
        assert b"file:///var/task/" in local.invoke("cached", b"1").payload
    text = "\n".join(log.lines)
    return codecache.hits(text), {name for _, name in codecache.MISS.findall(text)}


@needs_loading
def test_a_start_takes_every_module_from_the_shipped_cache(filled: Function, opt: Path) -> None:
    """Function and bridge come from the cache; V8 compiles nothing."""
    hits, misses = start(filled, opt)
    assert {BUNDLE, BRIDGE} <= hits
    assert misses == set()


def change(sql: str) -> Callable[[Path], None]:
    """Spoils a cache by a statement."""

    def spoil(folder: Path) -> None:
        path = folder / ".deno_dir/v8_code_cache_v2"
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute(sql).rowcount > 0
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size > 0

    return spoil


def edit(folder: Path) -> None:
    """Changes the function under its cache."""
    (folder / "function.bundle.js").write_text(SOURCE + "export const more = 1;\n")


@needs_loading
@pytest.mark.parametrize(
    "spoil",
    [
        change("UPDATE codecache SET specifier = replace(specifier, '/var/task/', '/home/ada/')"),
        change("UPDATE codecache SET data = zeroblob(length(data))"),
        change("UPDATE codecache SET data = substr(data, 1, length(data) / 2)"),
        edit,
    ],
    ids=["made for another path", "damaged", "cut short", "made for another source"],
)
def test_a_cache_that_does_not_fit_is_seen(own: Function, opt: Path, spoil: Callable[[Path], None]) -> None:
    """The function runs, without the cache: present is not accepted, and the log tells which."""
    spoil(own.code)
    hits, misses = start(own, opt)
    assert BUNDLE not in hits
    assert BUNDLE in misses


@needs_loading
def test_the_same_code_gives_the_same_bytes(bare: list[Entry], filled: Function, tmp_path: Path) -> None:
    """Folder and time leave no trace in the cache's files, and they are what the folder got."""
    again = function(tmp_path)
    caches = codecache.fill(bare, again)
    assert set(caches) == set(FILES)
    for name, data in caches.items():
        assert (filled.code / ".deno_dir" / name).read_bytes() == data
        assert (again.code / ".deno_dir" / name).read_bytes() == data


@needs_loading
@pytest.mark.parametrize("name", FILES)
def test_each_file_is_a_whole_database(
    filled: Function, layer: list[Entry], tmp_path: Path, name: str
) -> None:
    """Rows need no write-ahead log beside the file, and Deno finds the journal mode that it would set."""
    [shipped] = [entry.content for entry in layer if entry.name == f"lambdeno/deno_dir/{name}"]
    assert isinstance(shipped, bytes)
    (tmp_path / "layer").write_bytes(shipped)
    shutil.copy(filled.code / ".deno_dir" / name, tmp_path / "function")
    for path in (tmp_path / "layer", tmp_path / "function"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert tables
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@needs_loading
def test_the_cache_holds_the_modules_of_lambda(filled: Function) -> None:
    """What is cached is named as it is on Lambda; nothing of this machine is in it."""
    path = filled.code / ".deno_dir/v8_code_cache_v2"
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as database:
        rows = {
            row[0] for row in database.execute("SELECT specifier FROM codecache WHERE length(data) > 100")
        }
    assert {BUNDLE, BRIDGE} <= rows
    assert all(row.startswith(("file:///var/task/", "file:///opt/")) for row in rows)
    assert str(Path.home()).encode() not in path.read_bytes()


@needs_loading
@pytest.mark.parametrize(
    ("source", "error_type", "says"),
    [
        ("export const other = 1;\n", "Runtime.HandlerNotFound", "it exports: other"),
        ("export const handler = 7;\n", "Runtime.HandlerNotFunction", "is number, not a function"),
        ("throw new RangeError('at load');\n", "RangeError", "at load"),
        ("export const handler = (;\n", "SyntaxError", "SyntaxError"),
        ("import 'file:///var/task/gone.js';\n", "", "gone.js"),
        ("Deno.exit(3);\n", "", "exit status 3"),
        ("await new Promise(() => {});\nexport const handler = () => 1;\n", "", "loads"),
    ],
    ids=["not exported", "not a function", "throws", "syntax", "import", "exits", "never settles"],
)
def test_what_cannot_be_loaded_is_a_load_failure(
    bare: list[Entry], tmp_path: Path, source: str, error_type: str, says: str
) -> None:
    """The error that Lambda would report at its first start is the build's error."""
    with pytest.raises(LoadFailure) as caught:
        codecache.fill(bare, function(tmp_path, source))
    assert error_type in caught.value.error_type
    assert says in caught.value.message
    assert caught.value.hint
    assert caught.value.message.startswith(
        {
            "Runtime.HandlerNotFound": "Cannot find the handler: ",
            "Runtime.HandlerNotFunction": "Cannot use the handler: ",
        }.get(error_type, "The function fails while it loads: ")
    )
    assert caught.value.exit_code == 4
    assert "\n" not in caught.value.message


@needs_loading
def test_a_function_that_never_loads_is_ended(
    bare: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop at load is a load failure after a while, and no process of it stays."""
    monkeypatch.setattr(codecache, "LOAD_TIME", 2)
    made = function(tmp_path, "for (;;);\n")
    made = replace(made, environment={**made.environment, "MARK": str(tmp_path)})
    with pytest.raises(LoadFailure, match="it ended or hung while it loaded"):
        codecache.fill(bare, made)
    psutil.wait_procs(marked(tmp_path), timeout=5)
    assert marked(tmp_path) == []


def marked(mark: Path) -> list[psutil.Process]:
    """The processes that run with a test's mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MARK") == str(mark):
                found.append(process)
    return found


def test_another_architecture_is_an_obstacle() -> None:
    """V8 compiles for the machine that it runs on, and the reason says so."""
    other = "arm64" if host_architecture() == "x86_64" else "x86_64"
    reason = codecache.obstacle(other)
    assert f"this machine is {host_architecture()}" in reason


@needs_loading
def test_a_machine_that_can_load_has_no_obstacle() -> None:
    """No reason means that a cache is made."""
    assert codecache.obstacle(host_architecture()) == ""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")
def test_temporary_files_may_lie_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is often a file system of its own: the build copies what it cannot link."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    (tmp_path / "lambdeno.toml").write_text(f'architecture = "{host_architecture()}"\n')
    done = run("build", "runtime-layer", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_laying_out_leaves_the_sources_as_they_are(tmp_path: Path) -> None:
    """The mode of a file in an artefact is not forced upon the file that it comes from."""
    source = tmp_path / "source"
    source.write_text("content")
    source.chmod(0o640)
    codecache.lay_out(tmp_path / "out", [Entry("bin/a", source, executable=True), Entry("b", b"2")])
    assert (tmp_path / "out/bin/a").read_text() == "content"
    assert (tmp_path / "out/bin/a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/b").stat().st_mode & 0o777 == 0o644
    assert source.stat().st_mode & 0o777 == 0o640


def test_without_bubblewrap_there_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build goes on without a cache, and says why."""
    (tmp_path / "lambdeno.toml").write_text(f'architecture = "{host_architecture()}"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("build", "runtime-layer", folder=tmp_path)
    assert done.returncode == 0
    assert "note: The runtime layer has no code cache: " in done.stderr
    assert "bwrap" in done.stderr or "bubblewrap" in done.stderr


def test_a_cache_without_denos_release_is_not_whole(filled: Function, tmp_path: Path) -> None:
    """Deno drops a cache that does not say which release wrote it: such a one never ships."""
    for file in FILES:
        path = Path(shutil.copy(filled.code / ".deno_dir" / file, tmp_path))
        assert codecache._is_whole(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("DELETE FROM info")
            assert not codecache._is_whole(path)
            database.execute("DROP TABLE info")
            assert not codecache._is_whole(path)
