"""What is up to date: decided by the content of all that an artifact is made from, wherever it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lambdeno import build, project
from lambdeno.build import Watcher
from lambdeno.digests import Digests, is_over, stamp
from lambdeno.errors import BuildError, ProjectError
from lambdeno.inputs import InputsBuilder, remembered
from tests.e2e.conftest import LAMBDENO, run
from tests.test_build import ARCHITECTURE, QUICK

SESSION = uuid.uuid4().hex
FILES = {
    "deno.json": '{"workspace": ["./orders", "./money"]}\n',
    "money/deno.json": '{"name": "@shop/money", "version": "1.0.0", "exports": "./mod.ts"}\n',
    "money/mod.ts": "export const euro = (cents: number): string => `${cents / 100} €`;\n",
    "lib/x.ts": 'export const word = "one";\n',
    "map/word.ts": 'export const other = "mapped";\n',
    "map/words.ts": 'export const other = "another";\n',
    "orders/deno.json": '{"imports": {"other": "../map/word.ts"}}\n',
    "orders/lambdeno.toml": ARCHITECTURE + QUICK.replace("[build]", '[build]\ninclude = ["data/**/*"]'),
    "orders/data/dist/a.txt": "a\n",
    "orders/data/b.txt": "b\n",
    "orders/src/main.ts": """import { euro } from "@shop/money";
import { other } from "other";
import { word } from "../../lib/x.ts";
export const handler = (event: number): string => [word, other, euro(event), "SESSION"].join();
""",
    "orders/README.md": "# orders\n",
    "tsconfig.json": '{"extends": "./base"}',
    "base.json": "{}",
}


def write(folder: Path) -> Path:
    """A workspace of Deno's whose member is a function; other code lies beside it.

    Its zip is one that no session before has made, and has kept a record of.
    """
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("SESSION", SESSION))
    return folder


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace, its function built."""
    folder = write(tmp_path_factory.mktemp("original") / "shop")
    build.up_to_date(project.load(folder / "orders"), kinds=("function",))
    return folder


@pytest.fixture
def shop(original: Path, tmp_path: Path) -> Path:
    """A copy of the workspace, for a test to change."""
    return shutil.copytree(original, tmp_path / "shop")


def is_rebuilt(shop: Path) -> bool:
    """True if bringing the function up to date writes its zip anew."""
    path = shop / "orders/dist/function.zip"
    before = path.stat().st_ino
    build.up_to_date(project.load(shop / "orders"), kinds=("function",))
    return path.stat().st_ino != before


def bundle(shop: Path) -> str:
    """The bundle that would be deployed."""
    with zipfile.ZipFile(shop / "orders/dist/function.zip") as zipped:
        return zipped.read("function.bundle.js").decode()


def edit(path: Path, former: str, text: str) -> None:
    """Change a file's text."""
    content = path.read_text()
    assert former in content
    path.write_text(content.replace(former, text))


def moved(shop: Path) -> None:
    """``mv`` of an older file of the same size over a module."""
    aside = shop / "aside.ts"
    aside.write_text(FILES["lib/x.ts"].replace("one", "two"))
    os.utime(aside, (1_000_000_000, 1_000_000_000))
    aside.replace(shop / "lib/x.ts")


def copied(shop: Path) -> None:
    """``cp -p``: the same size, and the very times of the former file."""
    module, aside = shop / "lib/x.ts", shop / "aside.ts"
    aside.write_text(FILES["lib/x.ts"].replace("one", "two"))
    shutil.copystat(module, aside)
    subprocess.run(["cp", "-p", aside, module], check=True)


def restored(shop: Path) -> None:
    """``tar x``, which sets the times that the archive has."""
    aside = shop / "aside/lib/x.ts"
    aside.parent.mkdir(parents=True)
    aside.write_text(FILES["lib/x.ts"].replace("one", "two"))
    os.utime(aside, (1_000_000_000, 1_000_000_000))
    subprocess.run(["tar", "-C", shop / "aside", "-cf", shop / "old.tar", "lib/x.ts"], check=True)
    subprocess.run(["tar", "-C", shop, "-xf", shop / "old.tar"], check=True)


def edited_in_place(shop: Path) -> None:
    """An edit of the same size, after which the time of the content is set back."""
    path = shop / "lib/x.ts"
    before = path.stat()
    with path.open("r+") as file:
        file.write(FILES["lib/x.ts"].replace("one", "two"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


STALE: dict[str, Callable[[Path], object]] = {
    "a module outside of the folder": lambda shop: edit(shop / "lib/x.ts", "one", "two"),
    "a member of the workspace": lambda shop: edit(shop / "money/mod.ts", "€", "EUR"),
    "an older file moved over a module": moved,
    "a file copied with its times": copied,
    "a file from an archive": restored,
    "an edit that keeps size and time": edited_in_place,
    "an import that leads elsewhere": lambda shop: edit(shop / "orders/deno.json", "word.ts", "words.ts"),
    "the root's deno.json": lambda shop: edit(
        shop / "deno.json", "{", '{"compilerOptions": {"jsx": "react"}, '
    ),
    "a deno.json above": lambda shop: (shop.parent / "deno.json").write_text("{}"),
    "a new package.json": lambda shop: (shop / "orders/package.json").write_text("{}"),
    "a new lock file": lambda shop: (shop / "deno.lock").write_text('{"version": "5"}'),
    "an included file": lambda shop: edit(shop / "orders/data/b.txt", "b", "c"),
    "an included file removed": lambda shop: (shop / "orders/data/b.txt").unlink(),
    "an included file added": lambda shop: (shop / "orders/data/c.txt").touch(),
    "an included file made executable": lambda shop: (shop / "orders/data/b.txt").chmod(0o755),
    "a file of an extended tsconfig.json": lambda shop: (shop / "base.json").write_text(
        '{"compilerOptions": {"jsx": "react"}}'
    ),
    "an included folder called dist": lambda shop: edit(shop / "orders/data/dist/a.txt", "a", "A"),
    "lambdeno.toml": lambda shop: edit(shop / "orders/lambdeno.toml", "[build]", "memory = 256\n[build]"),
}


@pytest.mark.parametrize("change", STALE.values(), ids=STALE)
def test_a_change_of_an_input_rebuilds(shop: Path, change: Callable[[Path], object]) -> None:
    """Whatever went into the function is built again when its content changes, however that came about."""
    change(shop)
    assert is_rebuilt(shop)
    assert not is_rebuilt(shop)


FRESH: dict[str, Callable[[Path], object]] = {
    "a file beside": lambda shop: (shop / "orders/notes.txt").write_text("new"),
    "the page about it": lambda shop: edit(shop / "orders/README.md", "orders", "Orders"),
    "a module that nobody imports": lambda shop: (shop / "orders/src/other.ts").write_text("export {};"),
    "another time": lambda shop: os.utime(shop / "lib/x.ts"),
    "a new file of the same content": lambda shop: (
        shutil.copy(shop / "lib/x.ts", shop / "x.ts"),
        (shop / "x.ts").replace(shop / "lib/x.ts"),
    ),
}


@pytest.mark.parametrize("change", FRESH.values(), ids=FRESH)
def test_what_is_no_input_rebuilds_nothing(shop: Path, change: Callable[[Path], object]) -> None:
    """A file that the function is not made from, or one that is written anew with the same content."""
    change(shop)
    assert not is_rebuilt(shop)


def test_what_was_built_is_what_was_written(shop: Path) -> None:
    """The bundle has the code of now, also where only its place outside of the folder has it."""
    assert '"one"' in bundle(shop)
    moved(shop)
    assert is_rebuilt(shop)
    assert '"two"' in bundle(shop)


def test_an_entry_that_is_gone_is_told(shop: Path) -> None:
    """Nothing is deployed of a function whose entry was removed."""
    (shop / "orders/src/main.ts").unlink()
    with pytest.raises(ProjectError, match="No entry file"):
        is_rebuilt(shop)


def test_an_import_that_is_gone_is_told(shop: Path) -> None:
    """Nothing is deployed of a function that imports a file which was removed."""
    (shop / "lib/x.ts").unlink()
    with pytest.raises(BuildError, match=r"x\.ts"):
        is_rebuilt(shop)


def test_a_pattern_that_matches_no_longer_is_told(shop: Path) -> None:
    """Nothing is deployed where all files of a pattern were removed."""
    shutil.rmtree(shop / "orders/data")
    with pytest.raises(ProjectError, match=r"build\.include"):
        is_rebuilt(shop)


def test_another_zip_in_its_place_is_not_taken(shop: Path) -> None:
    """A zip of the same size that this build did not write is made anew."""
    path = shop / "orders/dist/function.zip"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert is_rebuilt(shop)
    assert path.read_bytes() == good


def test_the_project_may_move(shop: Path, tmp_path: Path) -> None:
    """A workspace in another folder, with other times, has the inputs that it had."""
    shutil.copytree(shop, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    (tmp_path / "elsewhere/orders/data/b.txt").chmod(0o644)
    assert not is_rebuilt(tmp_path / "elsewhere")


def saving(path: Path, former: str, texts: list[str]) -> Watcher:
    """Somebody who saves a file whenever a zip is written, which is after the bundler has read it."""

    def progress(_done: int, _total: int) -> None:
        if texts:
            edit(path, former, texts.pop(0))

    return Watcher(progress=progress)


def test_a_save_during_the_build_is_in_it(shop: Path) -> None:
    """A module that changes after the bundler has read it is bundled again."""
    edit(shop / "orders/README.md", "orders", "Orders")
    edit(shop / "lib/x.ts", "one", "two")
    watcher = saving(shop / "lib/x.ts", "two", ["three"])
    build.up_to_date(project.load(shop / "orders"), watcher, ("function",))
    assert '"three"' in bundle(shop)
    assert not is_rebuilt(shop)


def test_a_file_included_during_the_build_is_in_it(shop: Path) -> None:
    """A file that comes to an included folder after the build has listed it ships as well."""
    edit(shop / "lib/x.ts", "one", "two")
    files = [shop / "orders/data/late.txt"]

    def progress(_done: int, _total: int) -> None:
        if files:
            files.pop().write_text("late")

    build.up_to_date(project.load(shop / "orders"), Watcher(progress=progress), ("function",))
    with zipfile.ZipFile(shop / "orders/dist/function.zip") as zipped:
        assert "data/late.txt" in zipped.namelist()
    assert not is_rebuilt(shop)


def test_an_included_file_may_have_any_name(shop: Path) -> None:
    """The names of files and those of other inputs cannot be mistaken for each other."""
    for name in ("graph", "deno", "settings", "fact"):
        (shop / "orders/data" / name).write_text("one")
        edit(shop / "orders/lambdeno.toml", "include = [", f'include = ["data/{name}", ')
    is_rebuilt(shop)
    (shop / "orders/data/graph").write_text("two")
    assert is_rebuilt(shop)


def test_an_executable_module_is_seen(shop: Path) -> None:
    """The mode of an included file counts also where it is a module."""
    edit(shop / "orders/lambdeno.toml", "include = [", 'include = ["src/*.ts", ')
    is_rebuilt(shop)
    (shop / "orders/src/main.ts").chmod(0o755)
    assert is_rebuilt(shop)


def test_conditions_of_imports_are_inputs(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deno's bundler asks the environment for them."""
    monkeypatch.setenv("DENO_CONDITIONS", "browser")
    assert is_rebuilt(shop)


@pytest.mark.parametrize("is_auto", [True, False])
def test_packages_of_node_modules_are_inputs(tmp_path: Path, *, is_auto: bool) -> None:
    """An edited package is built again, one at rest is not: linked by Deno, or laid there by npm."""
    shop = write(tmp_path / "shop")
    folder = shop / "orders"
    package = folder / ("parts/ms" if is_auto else "node_modules/ms")
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "ms", "version": "2.1.3", "main": "index.js"}')
    (package / "index.js").write_text('require("./side"); module.exports = () => "one";')
    (package / "side.js").write_text("")
    (shop / "deno.json").unlink()
    links = '"links": ["./parts/ms"], "nodeModulesDir": "auto"' if is_auto else '"nodeModulesDir": "manual"'
    (folder / "deno.json").write_text(f'{{{links}, "imports": {{"ms": "npm:ms@2.1.3"}}}}')
    if not is_auto:
        (folder / "package.json").write_text('{"dependencies": {"ms": "2.1.3"}}')
    (folder / "src/main.ts").write_text('import ms from "ms";\nexport const handler = () => ms();\n')
    build.up_to_date(project.load(folder), kinds=("function",))
    assert not is_rebuilt(shop)
    assert not is_rebuilt(shop)
    (package / "new.js").write_text('module.exports = () => "two";')
    (package / "new.js").replace(package / "index.js")
    assert is_rebuilt(shop)
    assert '"two"' in bundle(shop)


def test_a_file_that_never_rests_is_told(shop: Path) -> None:
    """Where files change during each build there is no artifact that claims to be of one moment."""
    edit(shop / "lib/x.ts", "one", "two")
    watcher = saving(shop / "lib/x.ts", "two", ["two" * 2] * 100)
    with pytest.raises(BuildError, match="its files change during each build"):
        build.up_to_date(project.load(shop / "orders"), watcher, ("function",))
    assert is_rebuilt(shop)


def test_the_file_that_a_command_prints_to_is_no_input(tmp_path: Path) -> None:
    """``lambdeno build > build.log`` in the project folder does not ship build.log, and comes to an end."""
    folder = write(tmp_path / "shop") / "orders"
    edit(folder / "lambdeno.toml", "data/**/*", "**/*.*")
    command = 'exec "$0" build function > build.log 2>&1'
    subprocess.run(["sh", "-c", command, LAMBDENO], cwd=folder, check=True, timeout=60)
    with zipfile.ZipFile(folder / "dist/function.zip") as zipped:
        assert "README.md" in zipped.namelist()
        assert "build.log" not in zipped.namelist()


@pytest.mark.parametrize("command", [["template"], ["invoke", "100"]])
def test_commands_take_no_old_zip(shop: Path, command: list[str]) -> None:
    """``template`` and ``invoke`` go by the code of now, wherever it lies."""
    moved(shop)
    done = run(*command, folder=shop / "orders")
    assert done.returncode == 0, done.stderr
    assert '"two"' in bundle(shop)


# --- digests ------------------------------------------------------------------------------------


def test_a_file_at_rest_is_read_once(tmp_path: Path) -> None:
    """The digest of a file that was not touched since is remembered, for the next process too."""
    path = tmp_path / "file"
    path.write_text("one")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    found = stamp(path)
    assert found
    first = Digests(tmp_path / "digests.json")
    digest = first.of(path)
    while not is_over(found, stamp_of_now(tmp_path)):
        pass
    assert first.of(path) == digest
    first.save()
    again = Digests(tmp_path / "digests.json")
    path.chmod(0)  # as nobody else could read it; root can, and the stamp differs
    path.chmod(0o644)
    assert again.of(path) == digest


def stamp_of_now(folder: Path) -> int:
    """The clock of files."""
    (folder / "now").touch()
    return (folder / "now").stat().st_mtime_ns


def test_a_remembered_digest_needs_the_same_stamp(tmp_path: Path) -> None:
    """What is remembered of a damaged or foreign file of digests is not believed."""
    path = tmp_path / "file"
    path.write_text("one")
    for text in ("", "{", "[]", '{"file": 1}', '{"file": [1, 2]}'):
        (tmp_path / "digests.json").write_text(text)
        assert Digests(tmp_path / "digests.json").of(path) == Digests(tmp_path / "none").of(path)


def test_inputs_know_files_that_are_not_there(tmp_path: Path) -> None:
    """A file that comes into being is a change."""
    found = InputsBuilder(remembered(tmp_path))
    found.file("deno.json", tmp_path / "deno.json")
    inputs = found.build()
    assert inputs.digests == {}
    assert inputs.is_untouched()
    (tmp_path / "deno.json").write_text("{}")
    assert not inputs.is_untouched()


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """What would have to be waited for has no content."""
    os.mkfifo(tmp_path / "pipe")
    assert stamp(tmp_path / "pipe") is None
    assert Digests(tmp_path / "digests.json").of(tmp_path / "pipe") == ""
