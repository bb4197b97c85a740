"""``lambdeno init``: what a new project holds, that all of it works at once, and what is left alone."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from lambdeno import init as verb
from lambdeno import project
from lambdeno.errors import UsageError
from lambdeno.init import Settings, init
from lambdeno.project import FILE, Project
from tests.e2e.conftest import LAMBDENO, run

LAYER = Path(project.__file__).parent / "layer/lambdeno"
FILES = [
    ".gitignore",
    "Makefile",
    "README.md",
    "deno.json",
    "lambdeno.d.ts",
    "lambdeno.toml",
    "src/main.ts",
    "src/main_test.ts",
]
LONGEST = "n" * 64
KEY = re.compile(r"^#(?=\[|\w+ = )", re.MULTILINE)  # "#key = value" and "#[table]"; prose is "# words"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project with the longest name, its function built, nothing in it changed."""
    folder = tmp_path_factory.mktemp("new") / LONGEST
    done = run("init", folder, folder=folder.parent)
    assert done.returncode == 0, done.stderr
    done = run("build", "function", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A new project."""
    init(tmp_path / "hello", Settings("hello"))
    return tmp_path / "hello"


def answering(*arguments: str, folder: Path, answers: str) -> subprocess.CompletedProcess[str]:
    """``lambdeno init`` on a terminal where somebody types these answers, and Ctrl-D after them."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answers}\x04".encode())
    done = subprocess.run(
        [LAMBDENO, "init", *arguments],
        cwd=folder,
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    return done


def contents(folder: Path) -> list[str]:
    """Every path below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def defaults(kind: type[msgspec.Struct], prefix: str = "") -> dict[str, object]:
    """Each key that lambdeno.toml may have, with its default."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        kinds = (field.type, *get_args(field.type))
        [*tables] = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        if tables:
            found |= defaults(tables[0], f"{prefix}{field.name}.")
        elif field.name != "root":
            found[prefix + field.name] = getattr(kind(), field.name)
    return found


def flat(values: dict[str, object], known: dict[str, object], prefix: str = "") -> dict[str, object]:
    """The keys of a file; a table whose keys are free is a value."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict) and prefix + name not in known:
            found |= flat(value, known, f"{prefix}{name}.")
        else:
            found[prefix + name] = tuple(value) if isinstance(value, list) else value
    return found


# --- what works at once ---------------------------------------------------------------------------


def test_the_function_builds_and_answers(built: Path) -> None:
    """A new project is a working function, without a change."""
    done = run("invoke", '{"name":"Ada"}', folder=built)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["message"] == "Hello, Ada!"
    assert "greeting Ada" in done.stderr


def test_the_settings_are_in_the_project(tmp_path: Path) -> None:
    """Name, runtime and architecture are what was asked for, the rest is as Lambda and we have it."""
    init(tmp_path / "new", Settings("greeter", runtime="runtime2", architecture="arm64"))
    wanted = Project(
        root=tmp_path / "new",
        name="greeter",
        runtime="runtime2",
        architecture="arm64",
    )
    assert project.load(tmp_path / "new") == wanted
    assert (tmp_path / "new/README.md").read_text().startswith("# greeter\n")


# --- what is in the files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "own"),
    [("hello", {}), ("http", {}), ("sqs", {}), ("streaming", {"url.invoke_mode": "streaming"})],
)
def test_every_key_is_in_lambdeno_toml_with_its_default(
    tmp_path: Path, template: str, own: dict[str, object]
) -> None:
    """Each key that project.py knows stands there, as a comment if not set, and no other."""
    init(tmp_path / "new", Settings("new", template))
    known = defaults(Project)
    text = (tmp_path / "new" / FILE).read_text()
    shown = flat(tomllib.loads(KEY.sub("", text)), known)
    assert set(shown) == set(known)
    for key, default in known.items():
        is_example = default is None or isinstance(default, dict) or key.startswith("vpc.")
        assert is_example or key == "name" or shown[key] == own.get(key, default), key
    always = {"name", "entry", "runtime", "architecture", "environment", "tags"}
    assert set(flat(tomllib.loads(text), known)) == {*always, *own}
    assert ("url" in tomllib.loads(text)) == (template in {"http", "streaming"})


@pytest.mark.parametrize("template", verb.templates())
def test_a_templates_deno_json_adds_imports_alone(tmp_path: Path, template: str) -> None:
    """What all templates have in deno.json is the same in each; a package is there in one exact version."""
    init(tmp_path, Settings("new", template))
    own = json.loads((tmp_path / "deno.json").read_text())
    shared = json.loads((verb.TEMPLATES / "shared/deno.json").read_text())
    packages = dict(own["imports"].items() - shared["imports"].items())
    assert own == {**shared, "imports": {**packages, **shared["imports"]}}
    assert [at for at in packages.values() if not re.fullmatch(r"npm:[@\w/-]+@\d+\.\d+\.\d+", at)] == []


def test_every_key_of_lambdeno_toml_has_a_few_words(hello: Path) -> None:
    """Each line with a key says what it is for."""
    lines = (hello / FILE).read_text().splitlines()
    assert [line for line in lines if re.match(r"#?\w+ = ", line) and "  # " not in line] == []


def test_lambdeno_toml_loads_with_every_comment_taken_away(hello: Path) -> None:
    """What stands in the comments are values that may be set."""
    text = KEY.sub("", (hello / FILE).read_text())
    text = text.replace('log_format = "text"', 'log_format = "json"')  # without which there are no levels
    (hello / FILE).write_text(text)
    loaded = project.load(hello)
    assert loaded.url
    assert loaded.url.cors
    assert loaded.vpc
    assert loaded.event_invoke
    assert loaded.log_level


def test_the_types_have_what_the_runtime_gives() -> None:
    """Context in lambdeno.d.ts has the members of the class in runtime.js, no more and no less."""
    source = (LAYER / "runtime.js").read_text()
    shared = source.split("\nconst environment = {\n")[1].split("\n};")[0]
    given = source.split("\nclass Context {\n")[1].split("\n}\n")[0]
    members = set(re.findall(r"^  (\w+):", shared, re.MULTILINE))
    members |= set(re.findall(r"^    this\.(\w+) =", given, re.MULTILINE))
    members |= set(re.findall(r"^  (?:get )?(\w+)(?: = |\(\) \{)", given, re.MULTILINE))
    types = (verb.TEMPLATES / "shared/lambdeno.d.ts").read_text()
    context = types.split("\nexport interface Context {\n")[1].split("\n}\n")[0]
    assert set(re.findall(r"^  (?:readonly )?(\w+)\??[:(]", context, re.MULTILINE)) == members


def test_the_types_have_what_fetch_is_given() -> None:
    """ServeInfo in lambdeno.d.ts has the members of the second argument that web.js makes."""
    source = (LAYER / "web.js").read_text()
    made = source.split("\nfunction infoOf(")[1].split("\n  return {\n")[1].split("\n  };")[0]
    types = (verb.TEMPLATES / "shared/lambdeno.d.ts").read_text()
    info = types.split("\nexport interface ServeInfo {\n")[1].split("\n}\n")[0]
    members = set(re.findall(r"^  readonly (\w+):", info, re.MULTILINE))
    assert members == set(re.findall(r"^    (\w+)[:,]", made, re.MULTILINE))


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_each_target_is_one_call(hello: Path) -> None:
    """What the Makefile runs, with ARGS passed on; ``make`` alone lists every target."""
    calls = {
        "test": "deno test",
        "dev": "dev",
        "build_deno_layer": "build deno-layer",
        "build_runtime_layer": "build runtime-layer",
        "build_function": "build function",
        "deploy": "deploy",
        "deploy_deno_layer": "deploy deno-layer",
        "deploy_runtime_layer": "deploy runtime-layer",
        "create_function": "deploy function",
        "update_function_code": "deploy code",
        "update_function_configuration": "deploy configuration",
        "delete_function": "destroy",
        "invoke": "invoke --remote",
        "logs": "logs",
    }

    def make(*arguments: str) -> list[str]:
        command = ["make", "-s", *arguments]
        return subprocess.run(
            command, cwd=hello, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    run_by = make("LAMBDENO=echo", "ARGS=--json -x", *calls)
    assert run_by == [f"{call} --json -x" for call in calls.values()]
    assert {line.split()[0] for line in make()} == {*calls, "clean", "help"}
    (hello / "dist").mkdir()
    make("clean")
    assert contents(hello) == sorted([*FILES, "src"])


def test_git_ignores_what_is_built_and_what_is_secret(hello: Path) -> None:
    """What is built, and what is secret, is not committed."""
    subprocess.run(["git", "init", "-q"], cwd=hello, check=True)
    ignored = ["dist/function.zip", ".env", ".env.local", "node_modules/zod/index.js"]
    command = ["git", "check-ignore", "--no-index", *ignored, *FILES, "deno.lock"]
    done = subprocess.run(command, cwd=hello, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ignored


# --- the name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["hello", "My shop (v2)", "größe", "a" * 80, "数", "under_score-1", ".x"])
def test_the_name_is_the_folders(tmp_path: Path, folder: str) -> None:
    """Where nobody names it the function has the name that an empty lambdeno.toml gives it."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / FILE).touch()
    name = project.load(tmp_path / folder).name
    (tmp_path / folder / FILE).unlink()
    done = run("init", folder, "--json", folder=tmp_path)
    assert json.loads(done.stdout)["name"] == name
    assert project.load(tmp_path / folder).name == name


@pytest.mark.parametrize("name", ["", "two words", "a.b", "n" * 65, "é", 'quo"te', "line\n", "$name"])
def test_a_wrong_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """The rule is that of lambdeno.toml."""
    done = run("init", "hello", "--name", name, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'error: "{name}" cannot be the name of a function\nhint: use {project.PATTERNS["name"]}\n'
    )
    assert contents(tmp_path) == []


# --- what is left alone ---------------------------------------------------------------------------


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A file, a folder or a link to nowhere in the way: all are named, and nothing has changed."""
    folder = tmp_path / "taken"
    (folder / "README.md").mkdir(parents=True)
    (folder / FILE).write_text("mine")
    (folder / "Makefile").symlink_to("nowhere")
    (folder / "src").write_text("a file, not a folder")
    (folder / "LICENSE").write_text("not in the way")
    before = contents(tmp_path)
    done = run("init", "taken", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'error: "taken" has what would be written over: "Makefile", "README.md", "lambdeno.toml", "src"',
        "hint: move it away, or name another folder",
    ]
    assert contents(tmp_path) == before
    assert (folder / FILE).read_text() == "mine"


@pytest.mark.parametrize("target", ["outside", "taken/code", "nowhere"])
def test_nothing_is_written_through_a_linked_folder(target: str, tmp_path: Path) -> None:
    """A folder of the project that is a link is named, and nothing has changed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "taken/code").mkdir(parents=True)
    (tmp_path / "taken/src").symlink_to(tmp_path / target)
    before = contents(tmp_path)
    done = run("init", "taken", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'error: Cannot write into "taken/src": it is a link',
        "hint: remove it, or name another folder",
    ]
    assert contents(tmp_path) == before


def test_a_folder_with_other_files_is_fine(tmp_path: Path) -> None:
    """Git and a licence may be there first; without FOLDER the current one is taken."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "LICENSE").write_text("mine")
    (tmp_path / "src").mkdir()
    done = run("init", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == FILES
    assert contents(tmp_path) == sorted([*FILES, ".git", "LICENSE", "src"])


@pytest.mark.parametrize("place", ["file", "file/below", "link", "far", "loop", "loop/below"])
def test_a_place_that_can_be_no_folder_is_named(tmp_path: Path, place: str) -> None:
    """A file, a link to nowhere, a link to itself: one sentence, and nothing has changed."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "far").symlink_to("x" * 300)  # to a name that no file can have
    (tmp_path / "loop").symlink_to("loop")
    done = run("init", place, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f'error: "{place.partition("/")[0]}" is there, and is no folder',
        "hint: name another folder",
    ]
    assert contents(tmp_path) == ["far", "file", "link", "loop"]


def test_a_name_that_the_file_system_does_not_take_is_a_sentence(tmp_path: Path) -> None:
    """What the system says is told with the path, and folders made on the way are gone."""
    done = run("init", f"new/{'x' * 300}", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: Cannot write "new/{"x" * 300}": File name too long\nhint: ')
    assert contents(tmp_path) == []


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    """A shell may stand in a folder that somebody has removed."""
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" init'
    command = ["sh", "-c", script, LAMBDENO]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: Cannot write ".gitignore": No such file or directory\nhint: ')


@pytest.mark.parametrize("existing", [[], ["a"], ["a", "a/b", "a/b/mine"]], ids=["none", "one", "all"])
def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path, existing: list[str]) -> None:
    """Where a file cannot be written to its end, it and all before it are gone, new folders too."""
    for name in existing:
        (tmp_path / name).mkdir()
    command = ["sh", "-c", 'ulimit -f 1; exec "$0" init a/b', LAMBDENO]  # no file over 512 bytes, or 1024
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('error: Cannot write "a/b": File too large\nhint: nothing was left behind')
    assert contents(tmp_path) == existing


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    """Each file is made as a new one; what is in the way then stays, and ours are gone."""
    (tmp_path / "b").write_text("mine")
    with pytest.raises(FileExistsError):
        verb._write(tmp_path, {"a": b"ours", "b": b"ours", "c": b"ours"})
    assert contents(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "mine"


# --- the command ----------------------------------------------------------------------------------


def test_it_lists_what_was_written_and_what_comes_next(tmp_path: Path) -> None:
    """The files go to stdout, the next commands to stderr, ready to be copied."""
    done = run("init", "my shop", folder=tmp_path)
    assert done.stdout.splitlines() == [f"my shop/{name}" for name in FILES]
    assert all((tmp_path / line).is_file() for line in done.stdout.splitlines())
    assert done.stderr.splitlines() == [
        "Next:",
        "  cd 'my shop'",
        "  lambdeno dev",
        """  lambdeno invoke '{"name":"Ada"}'""",
        "  lambdeno deploy",
    ]
    (tmp_path / "here").mkdir()
    assert "cd " not in run("init", folder=tmp_path / "here").stderr


def test_with_json_it_prints_one_document(tmp_path: Path) -> None:
    """Folder, name and files, for a machine."""
    done = run("init", "new", "--name", "greeter", "--json", folder=tmp_path)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "folder": "new",
        "name": "greeter",
        "files": [f"new/{name}" for name in FILES],
    }


def test_help_names_every_choice(tmp_path: Path) -> None:
    """-h and --help say the same."""
    done = run("init", "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("init", "-h", folder=tmp_path).stdout == done.stdout
    for word in (
        "FOLDER",
        *verb.templates(),
        "runtime1|runtime2",
        "x86_64|arm64",
        "--name",
        "--yes",
        "--json",
    ):
        assert word in done.stdout


def test_a_template_is_a_folder_of_the_package(tmp_path: Path) -> None:
    """Another name is an error that lists them."""
    folders = {path.name for path in verb.TEMPLATES.iterdir()} - {"shared"}
    assert set(verb.templates()) == folders == set(verb.TRY)
    for name in ("nope", "", ".", "../layer", "hello/src", "shared"):
        with pytest.raises(UsageError) as caught:
            init(tmp_path / "new", Settings("new", template=name))
        assert f'"{name}"' in caught.value.message
        assert "hello" in caught.value.hint
    assert contents(tmp_path) == []


def test_on_a_terminal_it_asks_for_what_is_missing(tmp_path: Path) -> None:
    """Folder, name and runtime, in this order; questions are on stderr, only results on stdout."""
    done = answering(folder=tmp_path, answers="shop\ngreeter\nruntime2\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"shop/{name}" for name in FILES]
    made = project.load(tmp_path / "shop")
    assert (made.name, made.runtime) == ("greeter", "runtime2")
    assert re.findall(r"\[(\w+)\]: ", done.stderr) == ["hello", "shop", "runtime1"]  # the defaults


def test_on_a_terminal_enter_takes_the_default(tmp_path: Path) -> None:
    """Folder "hello", the folder's name, runtime1."""
    done = answering(folder=tmp_path, answers="\n\n\n")
    assert done.returncode == 0, done.stderr
    made = project.load(tmp_path / "hello")
    assert (made.name, made.runtime) == ("hello", "runtime1")


@pytest.mark.parametrize(
    "arguments",
    [["new", "--name", "new", "--runtime", "runtime1"], ["new", "--yes"], ["new", "--json"], ["--yes"]],
    ids=" ".join,
)
def test_on_a_terminal_it_asks_nothing_that_is_known(tmp_path: Path, arguments: list[str]) -> None:
    """Flags that say all, --yes and --json leave nothing to be asked."""
    done = answering(*arguments, folder=tmp_path, answers="")
    assert done.returncode == 0, done.stderr
    assert "Name of" not in done.stderr
    assert (tmp_path / ("new" if "new" in arguments else ".") / FILE).is_file()


def test_leaving_a_question_writes_nothing(tmp_path: Path) -> None:
    """Ctrl-D at a question ends it, without a traceback."""
    done = answering(folder=tmp_path, answers="shop\n")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == []
