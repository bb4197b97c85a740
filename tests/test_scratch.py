"""However a command ends, no folder and no process of it stays: at once, or after the next start."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from lambdeno import archive, build, codecache, project
from lambdeno.emulator import host_architecture
from lambdeno.emulator.sandbox import bubblewrap_fault
from lambdeno.scratch import Scratch

LAMBDENO = str(Path(sys.executable).with_name("lambdeno"))
SLOWEST = 30  # s for anything to happen
SOURCE = """
const MARK = `${Deno.env.get("TMPDIR") ?? "/tmp"}/mark`;
export const handler = async (event: { do?: string }): Promise<void> => {
  if (event.do === "nothing") return;
  Deno.writeTextFileSync(MARK, "");
  if (event.do === "spin") while (Date.now());
  await new Promise((resolve) => setTimeout(resolve, 60_000));
};
"""
QUICK = f'architecture = "{host_architecture()}"\n[build]\ncheck = false\ncode_cache = false\n'
SANDBOXES = [
    "paths",
    pytest.param("bubblewrap", marks=pytest.mark.skipif(bool(bubblewrap_fault()), reason="needs bubblewrap")),
]
WAIT = ("invoke", "{}", "--sandbox")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose artefacts are built."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "src").mkdir()
    (folder / "src/main.ts").write_text(SOURCE)
    (folder / "lambdeno.toml").write_text(QUICK)
    build.build(project.load(folder))
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """The built project, for a test to use."""
    return shutil.copytree(built, tmp_path / "project", copy_function=shutil.copy2)


@pytest.fixture
def temp() -> Iterator[Path]:
    """A folder for temporary files, with a path as short as usual; its processes are ended."""
    path = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield path
    for process in processes(path):
        process.kill()
    shutil.rmtree(path)


@dataclass
class Running:
    """A command in a process group of its own."""

    temp: Path
    process: subprocess.Popen[bytes]
    said: Path
    before: dict[str, bytes] = field(default_factory=dict)

    def seen(self, moment: str) -> bool:
        """Wait until the command is where it says so, or the function is; False if it ends before."""
        for _ in range(SLOWEST * 100):
            if self.is_at(moment):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        raise AssertionError(self.said.read_text())

    def is_at(self, moment: str) -> bool:
        """A line on stderr, a program that runs, or the function's mark."""
        if moment == "mark":
            return bool(list(self.temp.glob("*/**/mark")))
        if moment.startswith("runs "):
            return any(moment.removeprefix("runs ") in line for line in command_lines(self.temp))
        return moment in self.said.read_text()

    def end(self, number: int) -> int:
        """Send a signal; how the command has ended."""
        self.process.send_signal(number)
        return self.process.wait(SLOWEST)


Start = Callable[..., Running]
T = TypeVar("T")


@pytest.fixture
def start(folder: Path, temp: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a command in the project."""
    started: list[Running] = []

    def start(*words: str, wrapper: tuple[str, ...] = ()) -> Running:
        said = tmp_path / f"said-{len(started)}"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*wrapper, LAMBDENO, *words],
                cwd=folder,
                env={**os.environ, "TMPDIR": str(temp)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(Running(temp, process, said, contents(folder / "dist")))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def contents(dist: Path) -> dict[str, bytes]:
    """Names and contents of the files."""
    return {path.name: path.read_bytes() for path in dist.iterdir() if path.name != ".deploy.lock"}


def processes(temp: Path) -> list[psutil.Process]:
    """The processes whose folder for temporary files this is, or one in it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(temp) in value for value in process.environ().values()):
                found.append(process)
    return found


def command_lines(temp: Path) -> list[str]:
    """Of these processes, and of those that they have started."""
    found = processes(temp)
    for process in tuple(found):
        with contextlib.suppress(psutil.Error):
            found += process.children(recursive=True)
    lines = []
    for process in found:
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


def gone(look: Callable[[], list[T]]) -> list[T]:
    """What is still found after a moment."""
    found = look()
    for _ in range(250):
        if not found:
            break
        time.sleep(0.02)
        found = look()
    return found


def alive(found: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; nobody may be there to ask for the status of an orphan."""
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def nothing_is_left(temp: Path, *, folders: bool = True) -> None:
    """No process a moment later, and no folder."""
    assert gone(lambda: command_lines(temp)) == []
    assert not folders or list(temp.iterdir()) == []


# --- signals ------------------------------------------------------------------------------------


MANY = "".join(f"export const f{number} = (x: number): number => x + {number};\n" for number in range(50_000))


def slow_down(folder: Path, *, load: bool = False) -> None:
    """Have a build check and bundle for half a minute, or load the function for a few seconds."""
    main = folder / "src/main.ts"
    if load:
        more = "await new Promise((resolve) => setTimeout(resolve, 5000));\n"
    else:
        (folder / "src/many.ts").write_text(MANY)
        more = 'export * as many from "./many.ts";\n'
    main.write_text(more + main.read_text())


needs_loading = pytest.mark.skipif(bool(codecache.obstacle(host_architecture())), reason="needs bubblewrap")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("kind", "toml", "moment"),
    [
        pytest.param("function", QUICK, "Bundle", id="bundle"),
        pytest.param("function", QUICK.replace("check = false", ""), "Check", id="check"),
        pytest.param(
            "function",
            QUICK.replace("code_cache = false", ""),
            "Load",
            id="code-cache",
            marks=needs_loading,
        ),
        pytest.param("deno-layer", QUICK, "Compress", id="compress"),
    ],
)
def test_a_signal_ends_a_build(  # noqa: PLR0917 - what a case is made of
    start: Start, folder: Path, temp: Path, kind: str, toml: str, moment: str, number: int
) -> None:
    """Ends by the signal, with no word of its own; dist is as it was."""
    (folder / "lambdeno.toml").write_text(toml)
    slow_down(folder, load=moment == "Load")
    (folder / "dist" / f"deno-layer-{host_architecture()}.zip").unlink()
    running = start("build", kind)
    assert running.seen(moment), running.said.read_text()
    time.sleep(0.1)
    assert running.end(number) == -number
    nothing_is_left(temp)
    assert contents(folder / "dist") == running.before
    assert len(running.said.read_text().splitlines()) <= 3  # steps, and an empty line behind ^C


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize(
    ("words", "number"),
    [
        (WAIT, signal.SIGTERM),
        (("invoke", '{"do": "spin"}', "--sandbox"), signal.SIGHUP),
        (("bench", "--rounds", "1", "--sandbox"), signal.SIGTERM),
        (("bench", "--rounds", "1", "--sandbox"), signal.SIGHUP),
    ],
)
def test_a_signal_ends_the_local_lambda(
    start: Start, temp: Path, words: tuple[str, ...], number: int, sandbox: str
) -> None:
    """The functions' processes end with it, whatever they do."""
    running = start(*words, sandbox)
    assert running.seen("mark"), running.said.read_text()
    assert running.end(number) == -number
    nothing_is_left(temp)
    assert "Traceback" not in running.said.read_text()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8])
def test_a_signal_at_any_moment(start: Start, temp: Path, delay: float) -> None:
    """Also while the local Lambda starts."""
    running = start(*WAIT, "paths")
    time.sleep(delay)
    assert running.end(signal.SIGTERM) == -signal.SIGTERM
    nothing_is_left(temp)
    assert "Traceback" not in running.said.read_text()


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_hanging_up_ends_dev(start: Start, temp: Path, sandbox: str) -> None:
    """As Ctrl-C and SIGTERM do: a server that is told to stop has not failed."""
    running = start("dev", "--json", "--port", "0", "--url-port", "0", "--sandbox", sandbox)
    assert running.seen('"ready"'), running.said.read_text()
    assert running.end(signal.SIGHUP) == 0
    nothing_is_left(temp)
    assert "Traceback" not in running.said.read_text()


@pytest.mark.parametrize(
    "words", [(*WAIT, "paths"), ("dev", "--sandbox", "paths", "--port", "0", "--url-port", "0")]
)
def test_a_terminal_that_is_closed_ends_a_command(folder: Path, temp: Path, words: tuple[str, ...]) -> None:
    """Nothing can be written to it any more, and nothing is left."""
    pid, master = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execve(LAMBDENO, [LAMBDENO, *words], {**os.environ, "TMPDIR": str(temp)})
    said = b""
    while b"127.0.0.1" not in said and not list(temp.glob("*/**/mark")):
        os.set_blocking(master, False)
        with contextlib.suppress(BlockingIOError):
            said += os.read(master, 4096)
        time.sleep(0.01)
    os.close(master)
    for _ in range(SLOWEST * 100):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("it runs on")
    assert os.waitstatus_to_exitcode(status) == (0 if words[0] == "dev" else -signal.SIGHUP)
    nothing_is_left(temp)


def test_a_long_tmpdir_has_no_room_for_sockets(start: Start, temp: Path) -> None:
    """The environments' folders are in a scratch folder all the same, in /tmp."""
    deep = temp / ("d" * 80)
    deep.mkdir()
    running = start(*WAIT, "paths", wrapper=("env", f"TMPDIR={deep}"))
    assert running.seen("runs runtime.js"), running.said.read_text()
    tree = psutil.Process(running.process.pid).children(recursive=True)
    [environment] = [one.environ() for one in tree if "runtime.js" in " ".join(one.cmdline())]
    scratch = Path(environment["TMPDIR"]).parent
    assert scratch.parent == Path("/tmp")
    assert Path(environment["DENO_DIR"]).is_relative_to(scratch)
    running.end(signal.SIGTERM)
    assert not scratch.exists()
    assert list(deep.iterdir()) == []


def test_nohup_holds(start: Start, temp: Path) -> None:
    """A signal that a command was started to ignore stays ignored."""
    running = start(*WAIT, "paths", wrapper=("nohup",))
    assert running.seen("mark"), running.said.read_text()
    running.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert running.process.poll() is None
    assert running.end(signal.SIGTERM) == -signal.SIGTERM
    nothing_is_left(temp)


PROGRAM = """
import signal, time
from lambdeno import signals
with signals.caught() as caught:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print(caught.number, flush=True)
        time.sleep(3)
        print("cleaned up", flush=True)
        signals.die(caught.number)
"""


@pytest.mark.parametrize(("pause", "last"), [(0.1, "cleaned up"), (1.2, str(int(signal.SIGTERM)))])
def test_a_second_signal_ends_what_cleans_up(pause: float, last: str) -> None:
    """Not within a second: a closed terminal hangs up twice, and wrappers repeat Ctrl-C."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
        time.sleep(pause)
        process.send_signal(signal.SIGHUP)
        rest = process.stdout.read().split("\n")[:-1]
        assert (process.wait(SLOWEST), rest) == (
            (-signal.SIGTERM, ["cleaned up"]) if last == "cleaned up" else (-signal.SIGHUP, [])
        )


# --- SIGKILL ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_killed_its_processes_end_and_the_next_start_removes_the_rest(
    start: Start, temp: Path, sandbox: str
) -> None:
    """Processes end at once; folders stay until another command makes some."""
    running = start("invoke", '{"do": "spin"}', "--sandbox", sandbox)
    assert running.seen("mark"), running.said.read_text()
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    nothing_is_left(temp, folders=False)
    assert list(temp.iterdir())
    assert start("invoke", '{"do": "nothing"}', "--sandbox", sandbox).process.wait(SLOWEST) == 0
    nothing_is_left(temp)


def test_a_killed_build_ends_deno_and_the_next_one_removes_the_rest(
    start: Start, folder: Path, temp: Path
) -> None:
    """So do the programs of a build."""
    source = (folder / "src/main.ts").read_text()
    slow_down(folder)
    running = start("build", "function")
    assert running.seen("Bundle"), running.said.read_text()
    time.sleep(0.1)
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    nothing_is_left(temp, folders=False)
    assert list(temp.iterdir())
    (folder / "src/main.ts").write_text(source)
    assert start("build", "function").process.wait(SLOWEST) == 0
    nothing_is_left(temp)


def test_processes_that_nobody_watched_end_at_the_next_start(start: Start, temp: Path) -> None:
    """They are known by their dead owner's folder; those of a living owner run on."""
    dead, living = start(*WAIT, "paths"), start(*WAIT, "paths")
    for _ in range(SLOWEST * 100):
        if len(list(temp.glob("*/**/mark"))) == 2:
            break
        time.sleep(0.01)
    for watchdog in psutil.Process(dead.process.pid).children():
        if "lambdeno-watchdog" in watchdog.cmdline():
            watchdog.kill()
    left = [one for one in psutil.Process(dead.process.pid).children(recursive=True) if one.name() != "sh"]
    others = psutil.Process(living.process.pid).children(recursive=True)
    assert dead.end(signal.SIGKILL) == -signal.SIGKILL
    time.sleep(0.5)
    assert alive(left)
    assert start("invoke", '{"do": "nothing"}', "--sandbox", "paths").process.wait(SLOWEST) == 0
    assert gone(lambda: alive(left)) == []
    assert alive(others) == others
    living.end(signal.SIGTERM)
    nothing_is_left(temp)


def test_a_program_that_merely_names_a_dead_folder_runs_on(temp: Path) -> None:
    """A shell that was there has the folder in PWD and OLDPWD; only lambdeno's own processes are killed."""
    dead = dead_folder(temp)
    bystanders = [
        subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], name: f"{dead}{below}"})
        for name in ("PWD", "OLDPWD", "HOME", "_", "EDITED", "LS_COLORS")
        for below in ("", "/a/b")
    ]
    bystanders.append(subprocess.Popen(["sleep", "60"], env={**os.environ, "TMPDIR": f"{dead}-2/x"}))
    ours = [
        subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], name: f"{dead}/1234abcd"})
        for name in ("TMPDIR", "DENO_DIR", "LAMBDENO_SOCKET")
    ]
    try:
        sweep(temp)
        assert not dead.exists()
        assert [process.wait(SLOWEST) for process in ours] == [-signal.SIGKILL] * len(ours)
        assert [process.poll() for process in bystanders] == [None] * len(bystanders)
    finally:
        for process in (*bystanders, *ours):
            process.kill()
            process.wait()


def test_what_a_program_has_started_ends_with_its_caller() -> None:
    """The whole process group, whether the caller is interrupted or killed."""
    program = (
        "from lambdeno import children, signals\n"
        "with signals.caught() as caught:\n"
        "    children.run(['sh', '-c', 'sleep 60 & echo $! >&3; sleep 60'], pass_fds=[3])\n"
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        reading, writing = os.pipe()
        move = f"import os; os.dup2({writing}, 3) if {writing} != 3 else 0; os.set_inheritable(3, True)\n"
        with subprocess.Popen(
            [sys.executable, "-c", move + program], pass_fds=[writing], stderr=subprocess.DEVNULL
        ) as process:
            os.close(writing)
            grandchild = psutil.Process(int(os.read(reading, 20)))
            os.close(reading)
            time.sleep(0.1)  # it is known to the watchdog
            process.send_signal(number)
            process.wait(SLOWEST)
        assert gone(lambda: alive([grandchild])) == []  # noqa: B023 - looked for at once


# --- the folders --------------------------------------------------------------------------------


def sweep(temp: Path, *words: str) -> None:
    """Run another process that makes a folder in this place, or a command."""
    make = [sys.executable, "-c", "from lambdeno.scratch import Scratch\nwith Scratch(): pass"]
    command = [LAMBDENO, *words] if words else make
    environment = {**os.environ, "TMPDIR": str(temp)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def dead_folder(temp: Path) -> Path:
    """What a killed owner leaves."""
    program = (
        "import os\nfrom lambdeno.scratch import Scratch\n"
        "path = Scratch().path\n(path / 'a/b').mkdir(parents=True)\n(path / 'a').chmod(0o500)\n"
        "print(path, flush=True)\nos.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(temp)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


def test_folders_of_the_dead_go_and_no_others(temp: Path) -> None:
    """Not a living owner's, not one of another name, no link, no file."""
    others = [temp / "lambdeno-tmp-notes", temp / "lambdeno-tmp-0123456789", temp / "lambdeno-1234abcd"]
    for other in others:
        other.mkdir()
    (temp / "target").mkdir()
    (temp / "lambdeno-tmp-00000001").symlink_to(temp / "target")
    (temp / "lambdeno-tmp-00000002").touch()
    with Scratch(temp) as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        dead = dead_folder(temp)
        before = set(temp.iterdir())
        sweep(temp)
        assert before - set(temp.iterdir()) == {dead}
    assert not mine.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_left_alone(temp: Path) -> None:
    """Whoever made it has to remove it."""
    folder = temp / "lambdeno-tmp-00000003"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    sweep(temp)
    assert folder.exists()


def test_a_command_that_makes_no_folder_removes_none(temp: Path) -> None:
    """--help looks at nothing."""
    dead = dead_folder(temp)
    sweep(temp, "--help")
    assert dead.exists()


def test_many_at_once_remove_each_folder_and_never_a_living_ones(temp: Path) -> None:
    """Processes that start at the same time sweep at the same time."""
    for _ in range(3):
        dead_folder(temp)
    program = (
        "from lambdeno.scratch import Scratch\nfor _ in range(20):\n"
        "    with Scratch() as folder:\n        (folder / 'file').write_text('x')\n"
        "        assert (folder / 'file').exists()\n"
    )
    environment = {**os.environ, "TMPDIR": str(temp)}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(6)]
    assert [process.wait(SLOWEST) for process in running] == [0] * 6
    assert list(temp.iterdir()) == []


# --- dist ---------------------------------------------------------------------------------------


def vouches(folder: Path, word: str) -> None:
    """The manifest has the digest of the zip on disk, or the next check builds it again."""
    made = project.load(folder)
    path = folder / "dist/function.zip"
    row = build.manifest(made)["function"]
    if row["sha256"] != archive.sha256_of(path):
        assert build.current_inputs(made) is None
    row = build.up_to_date(made, kinds=("function",))["function"]
    assert row["sha256"] == archive.sha256_of(path)
    with zipfile.ZipFile(path) as zipped:
        assert word.encode() in zipped.read("function.bundle.js")


@pytest.mark.parametrize("seed", range(8))
def test_the_manifest_never_vouches_for_another_zip(start: Start, folder: Path, seed: int) -> None:
    """A build is killed at any moment, and above all between the zip and the manifest."""
    path, word = folder / "dist/function.zip", f"word{seed:04}"
    main = folder / "src/main.ts"
    main.write_text(main.read_text().replace('"/tmp"', f'"/{word}"'))
    former = path.stat().st_ino
    running = start("build", "function")
    if seed % 2:  # the zip has just been replaced
        while path.stat().st_ino == former and running.process.poll() is None:
            pass
    else:
        time.sleep(random.Random(seed).uniform(0.2, 0.6))
    running.end(signal.SIGKILL)
    vouches(folder, word)


def test_a_zip_of_the_same_size_is_another_zip(folder: Path) -> None:
    """What is left where a build was killed between the two: the size tells nothing."""
    path = folder / "dist/function.zip"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"x")
    os.utime(path)
    assert build.current_inputs(project.load(folder)) is None
    assert build.up_to_date(project.load(folder), kinds=("function",))
    assert path.read_bytes() == before
