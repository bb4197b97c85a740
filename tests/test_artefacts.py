"""The three zips: what is in them, and that they are the same bytes wherever they are made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lambdeno import archive, build, codecache, deno, project
from lambdeno.archive import Entry
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.errors import ArtifactError, BuildError, ProjectError
from tests.e2e.conftest import LAMBDENO

SOURCE = """
import { z } from "zod";
import { double } from "./double.ts";
export const handler = (event: unknown): number => double(z.number().parse(event));
"""
CACHES = ["dep_analysis_cache_v2", "node_analysis_cache_v2", "v8_code_cache_v2"]
NO_CACHE = bool(codecache.obstacle("x86_64"))
MODULES = ["bootstrap", "connection", "debug", "deno", "extension", "fault", "logs", "runtime", "runtime1"]
SCRIPTS = ["function.bundle.js", "runtime.js", "streaming.js", "web.js"]
MODULES += ["modules", "relay", "runtime2", "runtime_api", "settings", "streaming", "streams"]


def write_project(folder: Path, toml: str = "") -> Path:
    """A project of two files and an npm package."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.ts").write_text(SOURCE)
    (folder / "src/double.ts").write_text("export const double = (value: number): number => 2 * value;\n")
    (folder / "deno.json").write_text('{"imports": {"zod": "npm:zod@4.6.7"}}\n')
    (folder / "lambdeno.toml").write_text('name = "doubler"\n' + toml)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all three artefacts."""
    folder = write_project(tmp_path_factory.mktemp("built") / "doubler")
    subprocess.run([LAMBDENO, "build"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The built project, for a test to change."""
    return shutil.copytree(built, tmp_path / "copy")


def listed(path: Path) -> dict[str, str]:
    """Names and modes of a zip, in its order."""
    with zipfile.ZipFile(path) as zipped:
        return {item.filename: oct(item.external_attr >> 16) for item in zipped.infolist()}


def test_the_deno_layer_is_the_binary_alone(built: Path) -> None:
    """/opt/bin/deno, executable, and nothing else."""
    assert listed(built / "dist/deno-layer-x86_64.zip") == {"bin/deno": "0o100755"}


@pytest.mark.skipif(NO_CACHE, reason="no code cache here")
def test_the_runtime_layer_has_these_files(built: Path) -> None:
    """One binary, the bridge and the dummy, the notices, the code cache; sorted."""
    layer = ["LICENSES.txt", *SCRIPTS, *(f"deno_dir/{name}" for name in CACHES)]
    names = sorted(f"lambdeno/{name}" for name in layer)
    found = listed(built / "dist/runtime-layer.zip")
    assert found == {"bootstrap": "0o100755"} | dict.fromkeys(names, "0o100644")
    assert list(found) == sorted(found)
    assert (built / "dist/runtime-layer.zip").stat().st_size <= 2 * 1024 * 1024


@pytest.mark.skipif(NO_CACHE, reason="no code cache here")
def test_the_managed_runtime_layer_has_these_files(copy: Path) -> None:
    """layer/ as it is, its Python compiled, its code cache; sorted, and the bootstrap executable."""
    (copy / "lambdeno.toml").write_text('name = "doubler"\nshape = "managed"\n')
    build.build_runtime_layer(project.load(copy))
    layer = ["__main__.py", *SCRIPTS, *(f"{name}.py" for name in MODULES)]
    tag = sys.implementation.cache_tag
    compiled = [f"__pycache__/{name}.{tag}.pyc" for name in MODULES]
    names = sorted(f"lambdeno/{name}" for name in [*layer, *compiled, *(f"deno_dir/{c}" for c in CACHES)])
    expected = {"bootstrap": "0o100755"} | dict.fromkeys(names, "0o100644")
    found = listed(copy / "dist/runtime-layer.zip")
    assert found == expected
    assert list(found) == sorted(found)
    assert (copy / "dist/runtime-layer.zip").stat().st_size <= 144 * 1024


@pytest.mark.skipif(NO_CACHE, reason="no code cache here")
def test_the_function_is_its_bundle_and_its_code_cache(built: Path) -> None:
    """Everything that the function imports is in the one file; its source map lies beside it."""
    names = [*(f".deno_dir/{name}" for name in CACHES), "function.bundle.js", "function.bundle.js.map"]
    assert listed(built / "dist/function.zip") == dict.fromkeys(names, "0o100644")
    with zipfile.ZipFile(built / "dist/function.zip") as zipped:
        assert b"zod" in zipped.read("function.bundle.js")


def test_the_manifest_tells_digests_sizes_and_versions(built: Path) -> None:
    """A machine finds what was built in dist/manifest.json."""
    rows = json.loads((built / "dist/manifest.json").read_text())
    assert set(rows) == {"deno-layer", "runtime-layer", "function"}
    for row in rows.values():
        assert (built / "dist" / row["file"]).stat().st_size == row["size"]
        assert row["digest"].startswith("sha256:")
    assert rows["deno-layer"]["version"] == project.DENO_VERSION


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Folder, umask, time zone and the files' times change nothing in any of the three zips."""
    other = write_project(tmp_path / "elsewhere/with another name")
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" build', LAMBDENO],
        cwd=other,
        env={**os.environ, "TZ": "Asia/Tokyo"},
        check=True,
        capture_output=True,
    )

    def digests(folder: Path) -> dict[str, str]:
        names = ["deno-layer-x86_64.zip", "runtime-layer.zip", "function.zip", "sbom.json"]
        names.append("function.bundle.js.map")
        return {name: hashlib.sha256((folder / "dist" / name).read_bytes()).hexdigest() for name in names}

    assert digests(other) == digests(built)


def test_a_digest_is_over_names_modes_and_contents() -> None:
    """Each of the three changes it; the order of the entries does not."""
    one, two = Entry("a", b"1"), Entry("b", b"2")
    digest = archive.digest([one, two])
    assert archive.digest([two, one]) == digest
    others = [
        [one],
        [one, Entry("c", b"2")],
        [one, Entry("b", b"3")],
        [one, Entry("b", b"2", executable=True)],
    ]
    assert digest not in {archive.digest(entries) for entries in others}


def test_over_250_mb_unpacked_is_refused(tmp_path: Path) -> None:
    """A function and its layers count together."""
    half = archive.write(tmp_path / "half.zip", [Entry("zeros", bytes(130 * 1024 * 1024))])
    archive.check_limits([half])
    with pytest.raises(ArtifactError, match=r"260\.0 MB unpacked; Lambda takes 250\.0 MB") as caught:
        archive.check_limits([half, half])
    assert "zeros (130.0 MB), zeros (130.0 MB)" in caught.value.hint


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A zip says one thing about a name."""
    with pytest.raises(ArtifactError, match='Two files want the name "a"'):
        archive.write(tmp_path / "a.zip", [Entry("a", b"1"), Entry("a", b"2")])


def test_included_files_ship_and_secrets_never_do(copy: Path) -> None:
    """Globs add files; .env, keys, .git and node_modules stay at home whatever a glob says."""
    for name in ("data/a.json", "data/.env", "data/key.pem", "data/.git/config", "data/node_modules/x.js"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("{}")
    (copy / "lambdeno.toml").write_text('[build]\ninclude = ["data/**/*"]\n')
    made = build.build_function(project.load(copy))
    assert [e.name for e in made.zip.entries if e.name.startswith("data")] == ["data/a.json"]


@pytest.mark.parametrize("pattern", ["../*", "/etc/passwd", "nothing/*", ".env"])
def test_a_glob_that_may_not_be_is_named(copy: Path, pattern: str) -> None:
    """Outside of the project, without a match, or for secrets alone: an error."""
    (copy / ".env").write_text("SECRET=1")
    (copy / "lambdeno.toml").write_text(f'[build]\ninclude = ["{pattern}"]\n')
    with pytest.raises(ProjectError, match=r"build\.include"):
        build.build_function(project.load(copy))


def test_a_link_out_of_the_project_does_not_ship(copy: Path) -> None:
    """What a link leads to is not the project's."""
    (copy / "data").mkdir()
    (copy / "data/hosts").symlink_to("/etc/hosts")
    (copy / "lambdeno.toml").write_text('[build]\ninclude = ["data/*"]\n')
    with pytest.raises(ProjectError, match="a link out of the project"):
        build.build_function(project.load(copy))


def test_the_whole_source_map_lies_beside(built: Path) -> None:
    """Its sources go by the project's folders and by packages' names, with their text."""
    whole = json.loads((built / "dist/function.bundle.js.map").read_text())
    assert {"src/main.ts", "src/double.ts"} <= set(whole["sources"])
    others = set(whole["sources"]) - {"src/main.ts", "src/double.ts"}
    assert others
    assert all(source.startswith("npm:zod@4.6.7/v4/") for source in others)
    assert SOURCE in whole["sourcesContent"]


def test_the_map_that_ships_is_of_the_authors_code(built: Path) -> None:
    """Packages, and the text of the sources, stay at home: Deno reads the map at the start."""
    with zipfile.ZipFile(built / "dist/function.zip") as zipped:
        shipped = json.loads(zipped.read("function.bundle.js.map"))
    assert sorted(shipped) == ["mappings", "names", "sources", "version"]
    assert sorted(shipped["sources"]) == ["src/double.ts", "src/main.ts"]
    assert len(shipped["mappings"]) < 1024


def test_a_packages_frames_stay_in_the_bundle(tmp_path: Path) -> None:
    """A stack through a package has the author's lines, and never an author's line for the package."""
    folder = write_project(tmp_path / "project", "[build]\ncheck = false\ncode_cache = false\n")
    (
        folder / "src/main.ts"
    ).write_text("""import "./double.ts"; // so that the author's code stands before the package's too
import { z } from "zod";
const Name = z.string().transform((name) => {
  throw new Error(`no ${name}`);
});
export const handler = (event: unknown) => Name.parse(event);
""")
    (folder / "src/double.ts").write_text(
        "Object.assign(globalThis, { double: (value: number) => 2 * value });\n"
    )
    build.build_function(project.load(folder))
    task = tmp_path / "task"
    shutil.unpack_archive(folder / "dist/function.zip", task)
    program = f"""
        const {{ handler }} = await import("file://{task}/function.bundle.js");
        try {{ handler("Ada") }} catch (error) {{ console.log(error.stack) }}
    """
    done = deno.run(deno.get(project.DENO_VERSION, deno.host_platform()), ["eval", program], task)
    first, *packages, last, _ = [line for line in done.stdout.splitlines() if line.startswith("    at ")]
    assert f"file://{task}/src/main.ts:4:9" in first
    assert f"file://{task}/src/main.ts:6:49" in last
    assert packages
    assert all(f"file://{task}/function.bundle.js:" in line for line in packages), packages


def test_another_architecture_is_built_without_a_code_cache(copy: Path) -> None:
    """The arm64 Deno ships; the cache is left out, with a word why."""
    (copy / "lambdeno.toml").write_text('architecture = "arm64"\n')
    made = {artefact.kind: artefact for artefact in build.build(project.load(copy))}
    assert made["deno-layer"].zip.path.name == "deno-layer-arm64.zip"
    with zipfile.ZipFile(made["deno-layer"].zip.path) as zipped, zipped.open("bin/deno") as binary:
        assert binary.read(20)[18:] == b"\xb7\x00"  # ELF e_machine: AArch64
    for kind in ("runtime-layer", "function"):
        assert made[kind].facts["code_cache"] is False
        assert "V8 compiles for the machine it runs on" in made[kind].notes[0]


def test_what_is_up_to_date_is_not_built_again(copy: Path) -> None:
    """An edited source rebuilds the function alone; without an edit nothing is built."""
    loaded = project.load(copy)
    build.up_to_date(loaded)
    before = {path.name: path.stat().st_ino for path in (copy / "dist").iterdir()}
    build.up_to_date(loaded)
    assert {path.name: path.stat().st_ino for path in (copy / "dist").iterdir()} == before
    (copy / "src/double.ts").write_text("export const double = (value: number): number => value + value;\n")
    build.up_to_date(loaded)
    after = {path.name: path.stat().st_ino for path in (copy / "dist").iterdir()}
    assert after["function.zip"] != before["function.zip"]
    assert after["deno-layer-x86_64.zip"] == before["deno-layer-x86_64.zip"]


@pytest.mark.skipif(bool(bubblewrap_fault()), reason="no bubblewrap")
def test_a_cache_that_never_holds_is_an_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof can fail: where a start still compiles, there is no artefact that claims otherwise."""
    monkeypatch.setattr(codecache, "MISS", codecache.HIT)
    with pytest.raises(BuildError, match="The code cache does not hold"):
        build.build_function(project.load(copy))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_bridge_is_ascii(name: str) -> None:
    """V8 takes such a source as it lies in memory; any other is decoded at each start."""
    assert (build.LAYER / "lambdeno" / name).read_text("utf-8").isascii()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_bridge_ships_without_comments(built: Path, tmp_path: Path, name: str) -> None:
    """What ships is the program in layer/, as the bundler sees it, in the same lines."""
    source = build.LAYER / "lambdeno" / name
    with zipfile.ZipFile(built / "dist/runtime-layer.zip") as zipped:
        shipped = zipped.read(f"lambdeno/{name}").decode()
    assert shipped.count("\n") == source.read_text("utf-8").count("\n")
    assert not [line for line in shipped.split("\n") if line.lstrip().startswith(("//", "/**", "* "))]
    for place, script in (("source", source.read_text("utf-8")), ("shipped", shipped)):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text(script)
        for other in set(SCRIPTS) - {name}:
            shutil.copyfile(source.with_name(other), tmp_path / place / other)
        binary = deno.get(project.DENO_VERSION, deno.host_platform())
        words = ["bundle", "--minify", "--no-config", "-o", str(tmp_path / place / "out.js"), name]
        done = deno.run(binary, words, tmp_path / place)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "source/out.js").read_bytes() == (tmp_path / "shipped/out.js").read_bytes()
