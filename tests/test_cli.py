"""The command line: what goes to stdout, what to stderr, in which words and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

import lambdeno
from lambdeno.project import DENO_VERSION
from tests.e2e.conftest import LAMBDENO, run

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3|9)\d")  # bold and dim are no colours
COMMANDS = (
    "bench",
    "build",
    "deno",
    "deploy",
    "destroy",
    "dev",
    "doctor",
    "init",
    "invoke",
    "logs",
    "template",
)
QUICK = "[build]\ncheck = false\ncode_cache = false\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that builds in a moment."""
    return write(tmp_path / "project")


def write(folder: Path) -> Path:
    """A project of one file."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.ts").write_text("export const handler = (event: unknown): unknown => event;\n")
    (folder / "lambdeno.toml").write_text(QUICK)
    return folder


def on_a_terminal(*arguments: str | Path, folder: Path, **variables: str) -> str:
    """What the command line shows on a terminal of 300 columns."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "300", **variables}
    command = [LAMBDENO, *map(str, arguments)]
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    return seen.decode()


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """Lambdeno --help names every command with what it does."""
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    found = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert found == list(COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("deno", "init")])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    """-h and --help say the same, and name --project and --json."""
    done = run(command, "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert run(command, "-h", folder=tmp_path).stdout == done.stdout
    assert "--project" in done.stdout
    assert "--json" in done.stdout


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    """--version prints name and version."""
    assert run("--version", folder=tmp_path).stdout == f"lambdeno, version {lambdeno.__version__}\n"


def test_a_build_tells_what_it_made(folder: Path) -> None:
    """The artefacts go to stdout, steps and notes to stderr."""
    done = run("build", "function", folder=folder)
    [title, row] = done.stdout.splitlines()
    assert title.split() == ["artefact", "zipped", "unpacked", "digest"]
    assert row.split()[0] == "dist/function.zip"
    assert done.stderr.splitlines()[0] == "Bundle src/main.ts"
    assert done.stderr.splitlines()[-1].startswith("note: The function has no code cache: ")


def test_a_build_is_one_json_document_when_asked_for(folder: Path) -> None:
    """With --json stdout has the artefact by its kind, stderr nothing."""
    done = run("build", "function", "--json", folder=folder)
    assert done.stderr == ""
    row = json.loads(done.stdout)["function"]
    manifest = json.loads((folder / "dist/manifest.json").read_text())["function"]
    assert row == {
        **{key: value for key, value in manifest.items() if key != "file"},
        "path": "dist/function.zip",
        "notes": ["The function has no code cache: build.code_cache is false in lambdeno.toml"],
    }


def test_a_path_is_shown_as_it_is(tmp_path: Path) -> None:
    """Brackets are no markup, and a long path is not cut."""
    folder = write(tmp_path / "app [red]v2" / "[/b]" / ("long " * 20).strip())
    done = run("build", "function", "--project", folder, folder=tmp_path)
    assert "Traceback" not in done.stderr
    assert f"{folder}/dist/function.zip " in done.stdout
    assert f"{folder}/dist/function.zip" in on_a_terminal(
        "build", "function", "--project", folder, folder=tmp_path, NO_COLOR="1"
    )


def test_terminals_get_colours_unless_no_color_says_otherwise(tmp_path: Path) -> None:
    """https://no-color.org: a variable of any content but the empty one turns colours off."""
    (tmp_path / "lambdeno.toml").touch()
    for command in (["doctor"], ["build", "--project", "gone"]):
        assert COLOUR.search(on_a_terminal(*command, folder=tmp_path))
        assert not COLOUR.search(on_a_terminal(*command, folder=tmp_path, NO_COLOR="1"))


def test_a_reader_that_leaves_is_no_traceback(folder: Path) -> None:
    """`lambdeno build --json | true` ends quietly."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [LAMBDENO, "build", "function", "--json"]
    done = subprocess.run(command, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert done.stderr == ""


def test_errors_are_json_when_asked_for(tmp_path: Path) -> None:
    """With --json an error is one document on stdout, and the exit code stays."""
    done = run("build", "--json", folder=tmp_path)
    assert done.returncode == 3
    error = json.loads(done.stdout)
    assert error["error"].startswith("No lambdeno.toml")
    assert error["exit_code"] == 3
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["build", "--json", "--project", "gone"], 3),
        (["invoke", "{nope", "--json"], 2),
        (["build", "everything", "--json"], 2),
        (["build", "--json", "--nope"], 2),
        (["dev", "--json", "--port", "x"], 2),
        (["--nope", "build", "--json"], 2),
        (["nope", "--json"], 2),
    ],
    ids=["project", "event", "choice", "option", "number", "before the command", "command"],
)
def test_every_error_is_json_when_asked_for(folder: Path, arguments: list[str], code: int) -> None:
    """Whatever is wrong, stdout is one document of the same form, and stderr is empty."""
    done = run(*arguments, folder=folder)
    assert done.returncode == code
    error = json.loads(done.stdout)
    assert {"error", "hint", "exit_code"} <= set(error)
    assert error["exit_code"] == code
    assert done.stderr == ""


def test_an_error_keeps_denos_words_in_json(folder: Path) -> None:
    """A machine gets the whole of what Deno said, as a person does."""
    (folder / "src/main.ts").write_text("export const handler = (;\n")
    person = run("build", "function", folder=folder)
    machine = json.loads(run("build", "function", "--json", folder=folder).stdout)
    assert machine["exit_code"] == person.returncode == 4
    assert machine["detail"] in person.stderr
    assert len(machine["detail"].splitlines()) > 1


def test_an_error_has_two_lines(tmp_path: Path) -> None:
    """What and where in the first, what to do in the second; stdout stays empty."""
    done = run("build", "--project", "gone", folder=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    [error, hint] = done.stderr.splitlines()
    assert error == 'error: No lambdeno.toml in "gone"'
    assert hint.startswith("hint: ")


def test_pipes_get_no_colours(tmp_path: Path) -> None:
    """Escape codes are for terminals."""
    (tmp_path / "lambdeno.toml").touch()
    done = run("doctor", folder=tmp_path)
    assert "\x1b" not in done.stdout + done.stderr


def test_the_pinned_deno_runs(tmp_path: Path) -> None:
    """`lambdeno deno` is Deno, with its own options."""
    done = run("deno", "--version", folder=tmp_path)
    assert done.stdout.startswith(f"deno {DENO_VERSION} ")


def test_deno_ends_as_it_ends(tmp_path: Path) -> None:
    """Its exit code, its options and its standard input are its own."""
    program = "console.log(await new Response(Deno.stdin.readable).text(), Deno.args.length); Deno.exit(7)"
    (tmp_path / "program.ts").write_text(program)
    done = run("deno", "run", "program.ts", "--json", "--help", folder=tmp_path, text="in")
    assert (done.returncode, done.stdout) == (7, "in 2\n")


def test_deno_is_the_projects(tmp_path: Path) -> None:
    """The project file is read for its release, and its mistakes are told."""
    (tmp_path / "lambdeno.toml").write_text('[deno]\nversion = "1.2.3"\n')
    done = run("deno", "--version", folder=tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith('error: Cannot verify Deno "1.2.3"')
    assert run("deno", "info", "--json", folder=tmp_path).stderr == done.stderr


def closed(number: int, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line with a standard stream that the shell has closed."""
    command = ["sh", "-c", f'exec "$@" {number}{"<" if number == 0 else ">"}&-', "sh", LAMBDENO, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.parametrize(
    ("number", "arguments", "code"),
    [
        (0, ("invoke", '"hi"', "--sandbox", "paths"), 0),
        (0, ("invoke", "-"), 2),  # nothing is no JSON
        (0, ("bench", "--rounds", "1", "--invocations", "0", "--sandbox", "paths"), 0),
        (0, ("init", "new"), 0),
        (1, ("build", "function"), 0),
        (1, ("build", "function", "--json"), 0),
        (1, ("init", "new"), 0),
        (2, ("build", "function"), 0),
        (2, ("build", "--project", "gone"), 3),
        (2, ("invoke", '"hi"', "--sandbox", "paths"), 0),
    ],
)
def test_a_closed_stream_is_an_empty_one(
    folder: Path, number: int, arguments: tuple[str, ...], code: int
) -> None:
    """`lambdeno invoke <&-` reads nothing, `lambdeno build >&-` prints nowhere."""
    done = closed(number, *arguments, folder=folder)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    if arguments[:2] == ("invoke", '"hi"'):
        assert done.stdout == '"hi"\n'


def test_ctrl_c_ends_the_first_moments_without_a_word(tmp_path: Path) -> None:
    """While the command line is imported, too: it ends by the signal."""
    slow = tmp_path / "click.py"  # what the command line imports first, and never has
    slow.write_text("print(flush=True)\nimport time\ntime.sleep(30)\n")
    with subprocess.Popen(
        [LAMBDENO, "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        assert (process.returncode, output, errors) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("arguments", [["nope"], ["build", "everything"], ["dev", "--port", "x"]])
def test_a_wrong_command_line_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    """A command line that cannot be is told so, without a traceback."""
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
