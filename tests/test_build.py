"""``lambdeno build``: what is rebuilt, what is kept, what ships, and what the manifest says of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lambdeno
from lambdeno import archive, build, codecache, deno, interpreter, project
from lambdeno.archive import Entry
from lambdeno.build import Watcher
from lambdeno.dev import local_function
from lambdeno.emulator import host_architecture
from lambdeno.errors import ArtifactError, ProjectError
from lambdeno.project import DENO_VERSION
from tests.conftest import PROGRAM, TARGET, VERSION, Put
from tests.e2e.conftest import LAMBDENO, run

MAIN = (
    'import { twice } from "./twice.ts";\nexport const handler = (event: number): number => twice(event);\n'
)
TWICE = "export const twice = (value: number): number => value * 2;\n"
QUICK = "[build]\ncheck = false\ncode_cache = false\n"
ARCHITECTURE = f'architecture = "{host_architecture()}"\n'


def write(folder: Path, toml: str = QUICK) -> Path:
    """A project of two files without a package."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.ts").write_text(MAIN)
    (folder / "src/twice.ts").write_text(TWICE)
    (folder / "lambdeno.toml").write_text(ARCHITECTURE + toml)
    return folder


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose function and runtime layer are built, with what code cache can be had."""
    folder = write(tmp_path_factory.mktemp("original") / "twice", "")
    for kind in ("runtime-layer", "function"):
        built = run("build", kind, folder=folder)
        assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """The built project, for a test to change."""
    return shutil.copytree(original, tmp_path / "twice")


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A project that builds in a moment; nothing is built yet."""
    return write(tmp_path / "quick")


@pytest.fixture
def made_up(tmp_path: Path, cache: Path, put: Put) -> Path:
    """A project on the made-up Deno."""
    (tmp_path / "lambdeno.toml").write_text(
        f'architecture = "x86_64"\n[deno]\nversion = "{VERSION}"\nsha256 = {{ {TARGET} = "{put()}" }}\n'
    )
    assert not cache.exists()
    return tmp_path


def shipped(path: Path) -> dict[str, bytes]:
    """Names and contents of a zip."""
    with zipfile.ZipFile(path) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def rows(folder: Path) -> dict[str, Any]:
    """The manifest."""
    found: dict[str, Any] = json.loads((folder / "dist/manifest.json").read_text())
    return found


# --- the manifest -------------------------------------------------------------------------------


def test_the_functions_row_has_these_facts(folder: Path) -> None:
    """dist/manifest.json says of the function what was built from what."""
    row = rows(folder)["function"]
    contents = shipped(folder / "dist/function.zip")
    assert row == {
        "file": "function.zip",
        "digest": archive.digest(Entry(name, data) for name, data in contents.items()),
        "sha256": hashlib.sha256((folder / "dist/function.zip").read_bytes()).hexdigest(),
        "size": (folder / "dist/function.zip").stat().st_size,
        "unpacked": sum(map(len, contents.values())),
        "bundle": len(contents["function.bundle.js"]),
        "code_cache": not codecache.obstacle(host_architecture()),
        "deno": DENO_VERSION,
        "handler": "function.handler",
        "name": "twice",
        "runtime": rows(folder)["runtime-layer"]["source"],
    }


def test_the_runtime_layers_row_has_these_facts(folder: Path) -> None:
    """The manifest says which versions the runtime layer is for; its digest is that of the zip's files."""
    row = rows(folder)["runtime-layer"]
    contents = shipped(folder / "dist/runtime-layer.zip")
    entries = [Entry(name, data, executable=name == "bootstrap") for name, data in contents.items()]
    source = [entry for entry in entries if not entry.name.startswith("lambdeno/deno_dir/")]
    assert row == {
        "file": "runtime-layer.zip",
        "digest": archive.digest(entries),
        "sha256": hashlib.sha256((folder / "dist/runtime-layer.zip").read_bytes()).hexdigest(),
        "size": (folder / "dist/runtime-layer.zip").stat().st_size,
        "unpacked": sum(map(len, contents.values())),
        "architecture": host_architecture(),
        "bootstrap": f"sha256:{hashlib.sha256(contents['bootstrap']).hexdigest()}",
        "code_cache": not codecache.obstacle(host_architecture()),
        "deno": DENO_VERSION,
        "python": interpreter.pins()["cpython"]["version"],
        "python_patches": interpreter.patches(),
        "python_source": f"sha256:{interpreter.pins()['cpython']['sha256']}",
        "musl": interpreter.pins()["musl"]["version"],
        "zig": interpreter.pins()["ziglang"]["version"],
        "shape": "os-only",
        "source": archive.digest(source),
        "version": lambdeno.__version__,
    }


def test_the_deno_layers_row_has_these_facts(made_up: Path) -> None:
    """The manifest holds the binary's own sha256."""
    assert run("build", "deno-layer", folder=made_up).returncode == 0
    assert shipped(made_up / "dist/deno-layer-x86_64.zip") == {"bin/deno": PROGRAM}
    assert rows(made_up)["deno-layer"] == {
        "file": "deno-layer-x86_64.zip",
        "digest": archive.digest([Entry("bin/deno", PROGRAM, executable=True)]),
        "sha256": hashlib.sha256((made_up / "dist/deno-layer-x86_64.zip").read_bytes()).hexdigest(),
        "size": (made_up / "dist/deno-layer-x86_64.zip").stat().st_size,
        "unpacked": len(PROGRAM),
        "architecture": "x86_64",
        "binary": f"sha256:{hashlib.sha256(PROGRAM).hexdigest()}",
        "version": VERSION,
    }


def test_building_one_kind_keeps_the_rows_of_the_others(folder: Path) -> None:
    """The manifest is about all that lies in dist/."""
    before = rows(folder)
    assert run("build", "function", folder=folder).returncode == 0
    assert rows(folder) == before


@pytest.mark.parametrize("text", ["{", "[" * 5000 + "]" * 5000, "9" * 5000], ids=["cut", "deep", "long"])
def test_a_manifest_that_is_none_is_named(quick: Path, text: str) -> None:
    """What cannot be read is told with the remedy."""
    (quick / "dist").mkdir()
    (quick / "dist/manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json") as caught:
        build.manifest(project.load(quick))
    assert caught.value.hint == "remove it and run lambdeno build"


# --- the Deno layer -----------------------------------------------------------------------------


def test_an_unchanged_deno_layer_is_not_compressed_again(made_up: Path) -> None:
    """The second build leaves the very file in place."""
    loaded = project.load(made_up)
    steps: list[str] = []
    build.build_deno_layer(loaded, Watcher(steps.append))
    zipped = made_up / "dist/deno-layer-x86_64.zip"
    before, row = zipped.stat(), rows(made_up)
    again = build.build_deno_layer(loaded, Watcher(steps.append))
    assert (zipped.stat().st_ino, zipped.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (again.zip.size, again.zip.unpacked) == (before.st_size, len(PROGRAM))
    assert rows(made_up) == row
    assert steps[-1:] == ["Compress the Deno layer"]
    assert steps.count("Compress the Deno layer") == 1


@pytest.mark.parametrize("spoil", ["gone", "cut short", "altered"])
def test_a_spoilt_deno_layer_is_made_anew(made_up: Path, spoil: str) -> None:
    """`lambdeno build` mends what was damaged in dist/."""
    loaded = project.load(made_up)
    path = build.build_deno_layer(loaded).zip.path
    good = path.read_bytes()
    path.unlink()
    if spoil == "cut short":
        path.write_bytes(good[:-9])
    elif spoil == "altered":
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :])
    build.build_deno_layer(loaded)
    assert path.read_bytes() == good


def test_a_binary_altered_in_the_cache_does_not_ship(made_up: Path, cache: Path) -> None:
    """The layer holds what was verified, which is fetched again, or there is no layer."""
    build.build_deno_layer(project.load(made_up))
    [binary] = cache.glob("deno/*/deno")
    for wheels in ("there", "gone"):
        binary.write_bytes(PROGRAM + b"more")
        shutil.rmtree(made_up / "dist")
        if wheels == "gone":
            shutil.rmtree(made_up / "wheels")
        done = run("build", "deno-layer", folder=made_up)
        if wheels == "there":
            assert done.returncode == 0, done.stderr
            assert shipped(made_up / "dist/deno-layer-x86_64.zip") == {"bin/deno": PROGRAM}
    assert done.returncode == 4
    assert f'"{binary}" is damaged, and cannot be replaced: ' in done.stderr
    assert not (made_up / "dist/deno-layer-x86_64.zip").exists()


# --- the function -------------------------------------------------------------------------------


def test_the_map_is_named_in_the_bundle_only_when_it_ships(folder: Path) -> None:
    """With build.source_map = false the bundle ends without a word about a map that is not there."""
    with_map = shipped(folder / "dist/function.zip")
    (folder / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + "source_map = false\n")
    assert run("build", "function", folder=folder).returncode == 0
    without = shipped(folder / "dist/function.zip")
    assert list(without) == ["function.bundle.js"]
    bundle = without["function.bundle.js"]
    assert b"sourceMappingURL" not in bundle
    assert with_map["function.bundle.js"] == bundle + b"//# sourceMappingURL=function.bundle.js.map\n"
    assert json.loads(with_map["function.bundle.js.map"])["sources"] == ["src/twice.ts", "src/main.ts"]


LEGACY = """
const path = require("node:path");
module.exports = { base: (name) => path.basename(name) };
"""
ORDER = """/** Orders, in TypeScript that does not look like what becomes of it. */
export class StockError extends Error {}

interface Line {
  name: string;
}

export function order(name: string): Line {
  const line: Line = { name };
  return checked(line);
}

function checked(line: Line): Line {
  if (line.name) throw new StockError(`no "${line.name}"`);
  return line;
}
"""
SHOP = """import legacy from "./legacy.cjs";
import { order } from "./order.ts";
export const handler = (event: string) => order(legacy.base(event));
"""


@dataclass(frozen=True)
class Thrown:
    """What a built function threw, as the real Deno shows it."""

    type: str
    name: str
    stack: list[str]


def thrown(zipped: Path, task: Path) -> Thrown:
    """Unpack a function, call its handler."""
    shutil.unpack_archive(zipped, task)
    program = f"""
        const {{ handler }} = await import("file://{task}/function.bundle.js");
        try {{
            handler("shelf/tea");
        }} catch ({{ constructor, message, stack }}) {{
            console.log(JSON.stringify([constructor.name, message, stack]));
        }}
    """
    done = deno.run(deno.get(DENO_VERSION, deno.host_platform()), ["eval", program], task)
    assert done.returncode == 0, done.stderr
    kind, message, stack = json.loads(done.stdout)
    return Thrown(kind, message, [line.strip() for line in stack.splitlines()[1:-1]])


@pytest.fixture
def shop(quick: Path) -> Path:
    """A project that throws in its second module, and has a CommonJS module that requires a node: one."""
    for name, text in (("legacy.cjs", LEGACY), ("order.ts", ORDER), ("main.ts", SHOP)):
        (quick / "src" / name).write_text(text)
    return quick


@pytest.mark.parametrize("minify", ["true", "false"])
@pytest.mark.parametrize("keep_names", ["true", "false"])
def test_a_stack_has_the_authors_files_and_lines(
    shop: Path, tmp_path: Path, minify: str, keep_names: str
) -> None:
    """Where the author wrote it, also behind the helpers that Deno writes over in the bundle."""
    toml = f"minify = {minify}\nkeep_names = {keep_names}\n"
    (shop / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + toml)
    task = tmp_path / "task"
    error = thrown(build.build_function(project.load(shop)).zip.path, task)
    assert error.name == 'no "tea"'
    places = [re.search(r"file://\S+:\d+:\d+", line) for line in error.stack]
    assert [place and place[0] for place in places] == [
        f"file://{task}/src/order.ts:14:24",
        f"file://{task}/src/order.ts:10:10",
        f"file://{task}/src/main.ts:3:43",
    ]


@pytest.mark.parametrize("minify", ["true", "false"])
def test_commonjs_knows_the_place_of_the_bundle(tmp_path: Path, minify: str) -> None:
    """__dirname and __filename are the bundle's, where a module asks; and stacks still have their lines."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/place.cjs").write_text("module.exports = [__dirname, __filename];\n")
    (tmp_path / "src/other.cjs").write_text("const __dirname = 'own';\nmodule.exports = __dirname;\n")
    (tmp_path / "src/main.ts").write_text(
        'import place from "./place.cjs";\nexport const handler = (event: string) => {\n'
        '  if (event === "fail") throw new Error("here");\n  return place;\n};\n'
    )
    (tmp_path / "lambdeno.toml").write_text(f'name = "place"\n[build]\ncheck = false\nminify = {minify}\n')
    done = run("invoke", "null", folder=tmp_path)
    assert json.loads(done.stdout) == ["/var/task", "/var/task/function.bundle.js"]
    done = run("invoke", '"fail"', folder=tmp_path)
    assert "src/main.ts:3:" in done.stdout
    main = (tmp_path / "src/main.ts").read_text().replace("place.cjs", "other.cjs")
    (tmp_path / "src/main.ts").write_text(main)
    assert json.loads(run("invoke", "null", folder=tmp_path).stdout) == "own"


def test_names_are_kept_unless_the_project_says_no(shop: Path, tmp_path: Path) -> None:
    """A minified class keeps its name for whoever asks, a function for the stack."""
    error = thrown(build.build_function(project.load(shop)).zip.path, tmp_path / "kept")
    assert error.type == "StockError"
    assert [line.split()[1] for line in error.stack] == ["checked", "order", "handler"]
    (shop / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + "keep_names = false\n")
    error = thrown(build.build_function(project.load(shop)).zip.path, tmp_path / "short")
    assert error.type != "StockError"
    assert "checked" not in error.stack[0]


def test_a_source_outside_of_the_project_gets_the_same_name_everywhere(tmp_path: Path) -> None:
    """By its package or its folder, whichever folder the whole lies in: the zips are the same bytes."""
    zips = []
    for place in ("here", "some/where/else"):
        folder = write(tmp_path / place / "functions/twice")
        money = tmp_path / place / "packages/money"
        (money / "src").mkdir(parents=True)
        (money / "deno.json").write_text("{}\n")
        (money / "src/round.ts").write_text("export const round = (value: number) => Math.round(value);\n")
        (tmp_path / place / "shared").mkdir()
        (tmp_path / place / "shared/tax.ts").write_text("export const tax = (value: number) => value / 5;\n")
        (folder / "src/twice.ts").write_text(
            'import { round } from "../../../packages/money/src/round.ts";\n'
            'import { tax } from "../../../shared/tax.ts";\n'
            "export const twice = (value: number) => round(value * 2) + tax(value);\n"
        )
        zips.append(build.build_function(project.load(folder)).zip.path)
    for path in (zips[0], zips[0].with_name("function.bundle.js.map")):
        assert path.read_bytes() == (zips[1].parent / path.name).read_bytes()
    sources = json.loads(shipped(zips[0])["function.bundle.js.map"])["sources"]
    assert set(sources) == {
        "outside/money/src/round.ts",
        "outside/shared/tax.ts",
        "src/twice.ts",
        "src/main.ts",
    }


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/ada/shop/src/main.ts", "src/main.ts"),
        ("/home/ada/shop/src/Gr%C3%B6%C3%9Fe%20%231.ts", "src/Größe #1.ts"),
        ("/home/ada/shop/node_modules/.deno/zod@4.6.7/node_modules/zod/index.js", None),
        ("/home/ada/node_modules/.deno/zod@4.6.7/node_modules/zod/index.js", "node_modules/zod/index.js"),
        ("/home/ada/.cache/deno/npm/registry.example/zod/4.6.7/v4/core.js", "npm:zod@4.6.7/v4/core.js"),
        ("/home/npm/deno/npm/localhost_80/a/@x/y/1.0.0-b.1_1/z.js", "npm:@x/y@1.0.0-b.1_1/z.js"),
        ("/home/ada/shop/.deno/npm/registry.example/@aws/s3/3.1.0/a/b.js", "npm:@aws/s3@3.1.0/a/b.js"),
        ("/home/ada/lib/a.ts", "outside/lib/a.ts"),
        ("/a.ts", "outside/a.ts"),
        ("https://jsr.io/@std/async/1.0.14/delay.ts", "https://jsr.io/@std/async/1.0.14/delay.ts"),
        ("https://ada:secret@example.com:8443/a.ts?token=secret", "https://example.com:8443/a.ts"),
    ],
)
def test_a_source_is_named_without_the_machines_paths(source: str, name: str | None) -> None:
    """The project's files from its folder, packages by name and version, URLs without credentials."""
    relative = source if "://" in source else f"../..{source}"
    expected = name or source.removeprefix("/home/ada/shop/")
    assert build._from_root(relative, Path("/tmp/bundle"), Path("/home/ada/shop")) == expected


def test_a_bundle_can_be_left_readable(quick: Path) -> None:
    """build.minify = false keeps names and lines."""
    (quick / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + "minify = false\n")
    made = build.build_function(project.load(quick))
    assert b"twice" in shipped(made.zip.path)["function.bundle.js"]


def test_types_are_not_checked_where_the_project_says_so(quick: Path) -> None:
    """build.check = false bundles what the type checker would refuse."""
    (quick / "src/twice.ts").write_text('export const twice = (value: number): number => "x" + value;\n')
    assert run("build", "function", folder=quick).returncode == 0
    (quick / "lambdeno.toml").write_text(ARCHITECTURE + "[build]\ncode_cache = false\n")
    done = run("build", "function", folder=quick)
    assert done.returncode == 4
    assert "twice.ts:1:" in done.stderr


def test_a_project_without_a_code_cache_says_so(quick: Path) -> None:
    """build.code_cache = false is a note, and the zip holds the bundle and its map alone."""
    done = run("build", "function", folder=quick)
    assert "note: The function has no code cache: build.code_cache is false in lambdeno.toml" in done.stderr
    assert list(shipped(quick / "dist/function.zip")) == ["function.bundle.js", "function.bundle.js.map"]
    assert rows(quick)["function"]["code_cache"] is False


def test_the_project_may_lie_anywhere(tmp_path: Path) -> None:
    """Spaces, brackets and letters of every script in the project's path change nothing."""
    folder = write(tmp_path / "my [red] Größe 日本 'quoted'")
    done = run("build", "function", "--project", folder, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    sources = json.loads((folder / "dist/function.bundle.js.map").read_text())["sources"]
    assert sorted(sources) == ["src/main.ts", "src/twice.ts"]


# --- included files -----------------------------------------------------------------------------


def included(folder: Path, *patterns: str) -> list[str]:
    """What build.include with these patterns adds to the function."""
    (folder / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + f"include = {list(patterns)}\n")
    made = build.build_function(project.load(folder))
    return [entry.name for entry in made.zip.entries if not entry.name.startswith("function.bundle.js")]


@pytest.fixture
def data(quick: Path) -> Path:
    """The project with files to include."""
    for name in ("data/a.json", "data/b.json", "data/deep/c.json", "tool"):
        (quick / name).parent.mkdir(parents=True, exist_ok=True)
        (quick / name).write_text(name)
    (quick / "tool").chmod(0o755)
    return quick


def test_two_globs_may_name_one_file(data: Path) -> None:
    """A file ships once, however many patterns match it."""
    assert included(data, "data/*.json", "data/a.json", "data/**/*") == [
        "data/a.json",
        "data/b.json",
        "data/deep/c.json",
    ]


@pytest.mark.parametrize("pattern", ["", ".", "data/**.json", "../x", "/etc/hosts", "gone/*"])
def test_a_pattern_that_ships_nothing_is_named(data: Path, pattern: str) -> None:
    """What is no pattern, leads out of the project or matches no file is told with the key's name."""
    with pytest.raises(ProjectError) as caught:
        included(data, pattern)
    assert caught.value.message.startswith(f'build.include has "{pattern}", which ')


def test_a_program_stays_executable(data: Path) -> None:
    """Of a file's mode, the one bit that matters ships."""
    assert included(data, "tool", "data/a.json") == ["data/a.json", "tool"]
    with zipfile.ZipFile(data / "dist/function.zip") as zipped:
        assert oct(zipped.getinfo("tool").external_attr >> 16) == "0o100755"
        assert oct(zipped.getinfo("data/a.json").external_attr >> 16) == "0o100644"


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".env.production", ".npmrc", "server.pem", "server.key", ".ssh/id", ".aws/credentials"),
        *(".git/config", "node_modules/x/index.js", "dist/function.zip", "server.PEM", ".ENV"),
    ],
)
def test_a_secret_is_refused_by_its_own_name(data: Path, name: str) -> None:
    """Even a pattern that names the file itself does not ship it."""
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    (data / name).write_text("secret")
    with pytest.raises(ProjectError, match=r"never ship, since they may hold secrets|no file that may ship"):
        included(data, name)


def test_what_was_held_back_is_told(data: Path) -> None:
    """One note names the secrets that a wildcard met, a folder of them once, and only so many."""
    for name in ("prod.env", "web/id_rsa", "web/.kube/config", "web/.kube/cache", ".netrc", ".git/config"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("secret")
    (data / "web/index.html").write_text("<p>")
    (data / "lambdeno.toml").write_text(ARCHITECTURE + QUICK + 'include = ["web/**/*", "*", "data/*"]\n')
    made = build.build_function(project.load(data))
    names = {entry.name for entry in made.zip.entries}
    assert {"web/index.html", "tool", "lambdeno.toml", "data/a.json"} <= names
    assert not {name for name in names if "secret" in name or name.startswith((".", "prod", "web/id"))}
    [note] = [note for note in made.notes if "secrets" in note]
    assert note == "Not shipped, since they may hold secrets: .netrc, prod.env, web/.kube/, web/id_rsa"
    for number in range(9):
        (data / f"{number}.pfx").write_text("secret")
    [note] = [note for note in build.build_function(project.load(data)).notes if "secrets" in note]
    assert note.endswith(": .netrc, 0.pfx, 1.pfx, 2.pfx, 3.pfx and 8 more")


def test_a_certificate_ships_and_a_key_does_not(data: Path) -> None:
    """A *.pem is what is in it."""
    (data / "certs").mkdir()
    (data / "certs/ca.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (data / "certs/own.pem").write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n")
    assert included(data, "certs/*") == ["certs/ca.pem"]
    with pytest.raises(ProjectError, match=r"certs/own\.pem \(private keys\)"):
        included(data, "certs/ca.pem", "certs/own.pem")


def test_another_folder_called_dist_ships(data: Path) -> None:
    """Only the project's own dist/ holds artefacts, which are no part of a function."""
    for name in ("web/dist/index.html", "web/node_modules/x/index.js", "dist/other.txt"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    assert included(data, "web/**/*", "**/*.html") == ["web/dist/index.html"]
    with pytest.raises(ProjectError, match="matches no file that may ship"):
        included(data, "**/*.txt")


def test_a_link_to_a_secret_does_not_ship_it(data: Path) -> None:
    """What may not ship by its own name may not by another."""
    (data / ".env").write_text("SECRET=1")
    (data / "data/settings").symlink_to("../.env")
    with pytest.raises(ProjectError, match=r"data/settings|\.env"):
        included(data, "data/settings")


def test_a_link_within_the_project_ships_its_file(data: Path) -> None:
    """A link is its content."""
    (data / "data/link.json").symlink_to("a.json")
    assert included(data, "data/link.json") == ["data/link.json"]
    assert shipped(data / "dist/function.zip")["data/link.json"] == b"data/a.json"


def test_a_linked_folder_out_of_the_project_does_not_ship(data: Path, tmp_path: Path) -> None:
    """A folder behind a link is not the project's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("foreign")
    (data / "data/link").symlink_to(tmp_path / "outside")
    with pytest.raises(ProjectError, match="a link out of the project"):
        included(data, "data/link/*")


def test_no_file_takes_the_bundles_place(data: Path) -> None:
    """A file of the bundle's name in the project is an error, not a silent choice."""
    (data / "function.bundle.js").write_text("export const handler = () => 'foreign';\n")
    with pytest.raises(ArtifactError, match=r'Two files want the name "function\.bundle\.js"'):
        included(data, "function.bundle.js")


# --- links, in a project from elsewhere ---------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, wherever links lead."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("kind", ["function", "runtime-layer"])
def test_nothing_is_written_through_a_link(kind: str, is_there: bool, folder: Path, tmp_path: Path) -> None:
    """A link in place of each file that a build makes, or made on its way there once: all are left alone."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = [path.name for path in (folder / "dist").iterdir()]
    assert {"function.zip", "runtime-layer.zip", "manifest.json", "sbom.json", build.SOURCE_MAP} <= set(names)
    shutil.rmtree(folder / "dist")
    (folder / "dist").mkdir()
    planted = [planted for name in names for planted in (name, f".{name}.new", f".{name}")]
    for name in planted:
        (folder / "dist" / name).symlink_to(outside / name)
        if is_there and not name.endswith("manifest.json"):
            (outside / name).write_text("# mine")
    before = contents(outside)
    built = run("build", kind, folder=folder)
    assert built.returncode == 0, built.stderr
    assert contents(outside) == before
    assert (folder / f"dist/{kind}.zip").is_file()
    made = {path.name for path in (folder / "dist").iterdir() if not path.is_symlink()}
    assert {f"{kind}.zip", "manifest.json", "sbom.json"} <= made <= set(names)


PLACES = ["dist", "deno.lock", "vendor", "vendor/example.com", "node_modules", "node_modules/.deno"]
PLACES += ["node_modules/.bin", "node_modules/@scope", "node_modules/.deno/a@1.0.0/node_modules/a"]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_a_link_out_of_the_project_is_refused(name: str, target: str, quick: Path, tmp_path: Path) -> None:
    """What a build writes in the project, by itself or by Deno, must lie in it."""
    (tmp_path / "outside").mkdir()
    (quick / "deno.json").write_text('{"nodeModulesDir": "auto", "vendor": true}')
    (quick / name).parent.mkdir(parents=True, exist_ok=True)
    (quick / name).symlink_to(tmp_path / target)
    done = run("build", "function", folder=quick)
    assert done.returncode == 3
    assert f'{name}" is a link out of the project, to "{tmp_path / target}"' in done.stderr
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_link_beside_the_project_is_refused(tmp_path: Path) -> None:
    """Packages of a workspace are in its root's folder."""
    quick = write(tmp_path / "shop/quick")
    (tmp_path / "shop/deno.json").write_text('{"workspace": ["./quick"], "nodeModulesDir": "auto"}')
    (quick / "deno.json").write_text("{}")
    (tmp_path / "shop/node_modules").symlink_to(tmp_path / "outside")
    done = run("build", "function", folder=quick)
    assert done.returncode == 3
    assert "is a link out of the project" in done.stderr


def test_a_linked_node_modules_that_nobody_writes_is_fine(quick: Path, tmp_path: Path) -> None:
    """Where Deno makes no packages, those of another tool may lie anywhere."""
    (tmp_path / "packages").mkdir()
    (quick / "node_modules").symlink_to(tmp_path / "packages")
    assert run("build", "function", folder=quick).returncode == 0


def test_a_dist_that_is_a_link_within_the_project_is_fine(quick: Path) -> None:
    """It is written to, and nothing of it ships."""
    (quick / "out").mkdir()
    (quick / "dist").symlink_to("out")
    (quick / "out/page.html").write_text("old")
    (quick / "index.html").write_text("new")
    assert included(quick, "**/*.html") == ["index.html"]
    assert (quick / "out/function.zip").is_file()


def test_a_project_in_a_linked_folder_is_fine(quick: Path, tmp_path: Path) -> None:
    """What is outside is told from where the link leads."""
    (tmp_path / "link").symlink_to(quick)
    done = run("build", "function", folder=tmp_path / "link")
    assert done.returncode == 0, done.stderr


def test_the_zip_of_a_killed_build_goes_with_the_next(quick: Path) -> None:
    """What is half written in dist/ does not stay."""
    program = (
        "import os, sys; from pathlib import Path; from lambdeno import archive\n"
        "archive.write(Path(sys.argv[1]), [archive.Entry('a', b'x')], lambda _: os.kill(os.getpid(), 9))"
    )
    path = quick / "dist/function.zip"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert len(list((quick / "dist").iterdir())) == 1
    assert run("build", "function", folder=quick).returncode == 0
    assert {path.name for path in (quick / "dist").iterdir()} == {
        *("function.zip", "manifest.json", "sbom.json", build.SOURCE_MAP)
    }


# --- what is up to date -------------------------------------------------------------------------


def state(folder: Path) -> dict[str, int]:
    """The files of dist/, each with the inode that it has until it is written anew."""
    return {path.name: path.stat().st_ino for path in (folder / "dist").glob("*.zip")}


def rebuilt(folder: Path) -> set[str]:
    """The artefacts that bringing the project up to date writes anew; the Deno layer aside."""
    before = state(folder)
    build.up_to_date(project.load(folder))
    return {name for name, inode in state(folder).items() if before.get(name) != inode}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick project with all three artefacts; no session before has made its function.zip."""
    folder = write(tmp_path_factory.mktemp("whole") / "quick")
    (folder / "src/main.ts").write_text(f'{MAIN}export const session = "{uuid.uuid4()}";\n')
    build.up_to_date(project.load(folder))
    return folder


@pytest.fixture
def current(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole project that stays as old as it is."""
    return shutil.copytree(whole, tmp_path / "quick")


def test_without_an_edit_nothing_is_built(current: Path) -> None:
    """A second look writes nothing, manifest included."""
    before = (current / "dist/manifest.json").stat().st_mtime_ns
    assert rebuilt(current) == set()
    assert (current / "dist/manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["src/main.ts", "src/twice.ts", "lambdeno.toml", "deno.json"])
def test_an_edited_file_rebuilds_the_function_alone(current: Path, name: str) -> None:
    """Sources and settings: another content is reason enough."""
    with (current / name).open("a") as file:
        file.write("{}\n" if name.endswith(".json") else "\n")
    assert rebuilt(current) == {"function.zip"}
    assert rebuilt(current) == set()


@pytest.mark.parametrize("name", ["dist/notes.txt", "node_modules/x/index.js", ".git/index", "data.json"])
def test_what_is_not_a_source_rebuilds_nothing(current: Path, name: str) -> None:
    """Files that the function is not made from change without it."""
    (current / name).parent.mkdir(parents=True, exist_ok=True)
    (current / name).write_text("new")
    assert rebuilt(current) == set()


@pytest.mark.parametrize("name", ["function.zip", "runtime-layer.zip"])
@pytest.mark.parametrize("spoil", ["gone", "cut short"])
def test_what_is_missing_or_cut_short_is_built(current: Path, name: str, spoil: str) -> None:
    """An artefact that is not as the manifest has it is made anew."""
    good = (current / "dist" / name).read_bytes()
    (current / "dist" / name).unlink()
    if spoil == "cut short":
        (current / "dist" / name).write_bytes(good[:-1])
    assert name in rebuilt(current)
    assert (current / "dist" / name).read_bytes() == good


def test_an_editors_lock_does_not_stop_the_build(current: Path) -> None:
    """A link that leads nowhere, as editors leave beside a file at work, is no error."""
    (current / "src/.#main.ts").symlink_to("ada@host.1234")
    assert rebuilt(current) <= {"function.zip"}


@pytest.mark.parametrize(
    ("toml", "log"),
    [
        ("", ("Text", "")),
        ('log_format = "json"\n', ("JSON", "")),
        ('log_format = "json"\nlog_level = "warn"\n', ("JSON", "WARN")),
    ],
)
def test_the_local_lambda_gets_the_projects_settings(current: Path, toml: str, log: tuple[str, str]) -> None:
    """The log's format and level in Lambda's words; the signal's margin as a variable."""
    (current / "lambdeno.toml").write_text(ARCHITECTURE + "signal_margin = 20\n" + toml + QUICK)
    made = local_function(project.load(current))
    assert (made.log_format, made.log_level) == log
    assert made.environment["LAMBDENO_SIGNAL_MARGIN"] == "20"


# --- ends ---------------------------------------------------------------------------------------


def test_ctrl_c_leaves_dist_as_it_was(current: Path) -> None:
    """An interrupted build ends by SIGINT and without a traceback; nothing half-written stays."""
    (current / "dist/deno-layer-x86_64.zip").unlink(missing_ok=True)
    (current / "dist/deno-layer-arm64.zip").unlink(missing_ok=True)
    before = {path.name: path.read_bytes() for path in (current / "dist").iterdir()}
    command = [LAMBDENO, "build", "deno-layer"]
    with subprocess.Popen(command, cwd=current, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(500):
            if list((current / "dist").glob(".deno-layer*")):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in said
    assert {path.name: path.read_bytes() for path in (current / "dist").iterdir()} == before


def test_a_build_leaves_no_temporary_file(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a build needs on the way is gone when it ends, well or not."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (quick / "lambdeno.toml").write_text(ARCHITECTURE)
    assert run("build", "function", folder=quick).returncode == 0
    (quick / "src/main.ts").write_text("export const other = 1;\n")
    assert run("build", "function", folder=quick).returncode == 4
    assert list(temporary.iterdir()) == []
    assert sorted(os.listdir(quick / "dist")) == [  # noqa: PTH208 - names are enough
        "function.bundle.js.map",
        "function.zip",
        "manifest.json",
        "sbom.json",
    ]
