"""The module graph as Deno resolves it, and its lock file, which is law wherever it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lambdeno import build, configuration, deno, graph, project
from lambdeno.errors import DenoError, ProjectError
from tests.e2e.conftest import run
from tests.test_build import ARCHITECTURE, QUICK

ZOD = '"imports": {"zod": "npm:zod@4.6.7", "ms": "npm:ms@2.1.3"}'
MAIN = (
    'import { z } from "zod";\nexport const handler = (event: unknown): number => z.number().parse(event);\n'
)
# Where the project is, the configuration's files, and the lock file that Deno then has.
LAYOUTS: dict[str, tuple[str, Mapping[str, str], str]] = {
    "a project": ("fn", {"fn/deno.json": f"{{{ZOD}}}"}, "fn/deno.lock"),
    "a workspace": (
        "fn",
        {"deno.json": '{"workspace": ["./fn"]}', "fn/deno.json": f"{{{ZOD}}}"},
        "deno.lock",
    ),
    "a path": ("fn", {"fn/deno.json": f'{{"lock": {{"path": "locks/a.lock"}}, {ZOD}}}'}, "fn/locks/a.lock"),
    "a path as text": ("fn", {"fn/deno.json": f'{{"lock": "a.lock", {ZOD}}}'}, "fn/a.lock"),
    "a path in a workspace": (
        "fn",
        {
            "deno.jsonc": '{ // root\n"workspace": ["./fn"], /* where */ "lock": {"path": "etc/b.lock",},\n}',
            "fn/deno.json": f"{{{ZOD}}}",
        },
        "etc/b.lock",
    ),
    "a deno.json above": ("fn", {"deno.json": f"{{{ZOD}}}"}, "deno.lock"),
}


def write(folder: Path, layout: str) -> Path:
    """A project in its layout; the folder of its lambdeno.toml."""
    place, files, _ = LAYOUTS[layout]
    root = folder / place
    (root / "src").mkdir(parents=True)
    (root / "src/main.ts").write_text(MAIN)
    (root / "lambdeno.toml").write_text(ARCHITECTURE + QUICK)
    for name, text in files.items():
        (folder / name).write_text(text)
    return root


def locks(folder: Path) -> dict[str, str]:
    """The lock files below a folder, with their text."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.lock")}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_first_build_writes_a_lock_file_for_all_packages(tmp_path: Path, layout: str) -> None:
    """It covers what deno.json names, so that the next import of such a package needs no other lock file."""
    root = write(tmp_path, layout)
    loaded = project.load(root)
    steps: list[str] = []
    build.build_function(loaded, build.Watcher(step=steps.append))
    assert list(locks(tmp_path)) == [LAYOUTS[layout][2]]
    assert configuration.lock_file(loaded) == tmp_path / LAYOUTS[layout][2]
    assert [step for step in steps if step.startswith("Wrote ")]
    (root / "src/main.ts").write_text('import ms from "ms";\nconsole.log(ms(1));\n' + MAIN)
    build.build_function(loaded)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bundled", ["", "bundle = false\n"], ids=["bundle", "modules"])
def test_a_lock_file_is_enforced_and_never_written(tmp_path: Path, layout: str, bundled: str) -> None:
    """A build refuses imports that the lock file does not cover, and leaves it as it is."""
    root = write(tmp_path, layout)
    if bundled and layout == "a deno.json above":
        pytest.skip("modules as they are ship with their own configuration alone")
    (root / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + bundled)
    graph.lock(deno.get(project.DENO_VERSION, deno.host_platform()), project.load(root))
    before = locks(tmp_path)
    (root / "src/main.ts").write_text('import "npm:obliterator@2.0.5";\n' + MAIN)
    with pytest.raises(DenoError, match=r"deno\.lock does not fit the imports") as caught:
        build.build_function(project.load(root))
    assert "lambdeno deno install" in caught.value.hint
    assert locks(tmp_path) == before


def test_what_the_hint_says_mends_it(tmp_path: Path) -> None:
    """The command of the hint brings the lock file in order, for a package that a module alone names."""
    root = write(tmp_path, "a workspace")
    build.build_function(project.load(root))
    (root / "src/main.ts").write_text('import "npm:obliterator@2.0.5";\n' + MAIN)
    refused = run("build", "function", folder=root)
    assert refused.returncode == 4
    assert "--entrypoint" in refused.stderr
    words = ["deno", "install", "--frozen=false", "--entrypoint", "src/main.ts"]
    assert run(*words, folder=root).returncode == 0
    assert run("build", "function", folder=root).returncode == 0


@pytest.mark.parametrize("config", ['{"lock": false, "imports": {"zod": "npm:zod@4.6.7"}}', None])
def test_no_lock_file_where_deno_has_none(tmp_path: Path, config: str | None) -> None:
    """A project that turned it off, or has no deno.json, gets none."""
    root = write(tmp_path, "a project")
    (root / "deno.json").unlink()
    if config:
        (root / "deno.json").write_text(config)
    else:
        (root / "src/main.ts").write_text(MAIN.replace('"zod"', '"npm:zod@4.6.7"'))
    build.build_function(project.load(root))
    assert locks(tmp_path) == {}
    assert configuration.lock_file(project.load(root)) is None


def test_a_function_without_packages_gets_no_lock_file(tmp_path: Path) -> None:
    """Deno writes none for it either."""
    root = write(tmp_path, "a project")
    (root / "src/main.ts").write_text("export const handler = () => 1;\n")
    build.build_function(project.load(root))
    assert locks(tmp_path) == {}


def test_a_file_is_named_as_the_project_sees_it(tmp_path: Path) -> None:
    """Relative to the project folder; a package's file by the package."""
    packages = {"@a/b@1.2.3": tmp_path / "cache/b", "c@1.0.0": tmp_path / "cache/c"}
    root = tmp_path / "fn"
    assert graph.named(root / "src/main.ts", root, packages) == "src/main.ts"
    assert graph.named(tmp_path / "lib/x.ts", root, packages) == "../lib/x.ts"
    assert graph.named(tmp_path / "cache/b/x/y.js", root, packages) == "npm:@a/b@1.2.3/x/y.js"


def test_an_edit_of_a_package_rebuilds(tmp_path: Path) -> None:
    """The files of packages that are in the bundle are inputs, in Deno's cache as in node_modules."""
    root = write(tmp_path / "project", "a project")
    (root / "deno.json").write_text(f'{{"nodeModulesDir": "auto", {ZOD}}}')
    build.up_to_date(project.load(root), kinds=("function",))
    assert build.current_inputs(project.load(root))
    [path] = (root / "node_modules/.deno").glob("zod@4.6.7/node_modules/zod/v4/core/core.js")
    text = path.read_text()
    path.unlink()  # a link to Deno's cache, maybe
    path.write_text("globalThis.patched = true;\n" + text)
    assert build.current_inputs(project.load(root)) is None
    build.up_to_date(project.load(root), kinds=("function",))
    assert build.current_inputs(project.load(root))


def test_jsonc_is_read(tmp_path: Path) -> None:
    """Comments, commas behind the last item, a byte order mark; and text that looks like one of these."""
    (tmp_path / "deno.jsonc").write_text(
        '\ufeff{ "lock": "a//b.lock", /* "lock": false, */ "list": [1, 2, ], // no\n}', "utf-8"
    )
    (tmp_path / "lambdeno.toml").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.lock").write_text(json.dumps({"version": "5"}))
    found = configuration.lock_file(project.load(tmp_path))
    assert found
    assert found.samefile(tmp_path / "a/b.lock")
    shutil.rmtree(tmp_path / "a")
    assert configuration.lock_file(project.load(tmp_path)) is None


def test_a_lock_file_out_of_the_project_is_not_written(tmp_path: Path) -> None:
    """A project from elsewhere has Deno write no file outside of its folder."""
    root = write(tmp_path / "project", "a project")
    (root / "deno.json").write_text(f'{{"lock": "../../outside.lock", {ZOD}}}')
    with pytest.raises(ProjectError, match="lock file outside of that folder"):
        build.build_function(project.load(root))
    assert locks(tmp_path) == {}


def test_the_links_that_deno_makes_are_in_order(tmp_path: Path) -> None:
    """Packages in node_modules are links to folders in the project."""
    root = write(tmp_path / "project", "a project")
    (root / "deno.json").write_text(f'{{"nodeModulesDir": "auto", {ZOD}}}')
    build.build_function(project.load(root))
    assert (root / "node_modules/zod").is_symlink()
    build.build_function(project.load(root))


def test_comments_take_no_time(tmp_path: Path) -> None:
    """A deno.jsonc full of comments and URLs is read at once."""
    lines = ["/" * 80, *("// see https://example.com // and /* that */",) * 200]
    text = '{\n "tasks": {},\n' + "\n".join(lines) + '\n "lock": "a.lock"\n}\n'
    (tmp_path / "deno.jsonc").write_text(text)
    (tmp_path / "lambdeno.toml").touch()
    (tmp_path / "a.lock").touch()
    assert configuration.lock_file(project.load(tmp_path)) == tmp_path / "a.lock"


@pytest.mark.parametrize("text", ["", "{}", '{"version":"5"}', '{"version":"5","specifiers":{},"npm":{}}'])
def test_a_lock_file_of_any_form_is_never_written(tmp_path: Path, text: str) -> None:
    """An existing lock file that covers nothing is outdated, and stays as it is."""
    root = write(tmp_path, "a project")
    (root / "deno.lock").write_text(text)
    with pytest.raises(DenoError):
        build.build_function(project.load(root))
    assert (root / "deno.lock").read_text() == text


def test_a_damaged_lock_file_is_told(tmp_path: Path) -> None:
    """The hint is about the lock file, which a merge has left with its marks."""
    root = write(tmp_path, "a project")
    (root / "deno.lock").write_text("<<<<<<< HEAD\n{}\n=======\n")
    with pytest.raises(DenoError, match="lockfile") as caught:
        build.build_function(project.load(root))
    assert "version control" in caught.value.hint


def test_a_workspace_of_others_has_no_say(tmp_path: Path) -> None:
    """The root of a workspace that does not name the project has not its lock file."""
    root = write(tmp_path, "a project")
    (tmp_path / "package.json").write_text('{"workspaces": ["./other"]}')
    build.build_function(project.load(root))
    assert list(locks(tmp_path)) == ["fn/deno.lock"]
    assert configuration.lock_file(project.load(root)) == root / "deno.lock"
