"""bootstrap as one file: what it is, what its CPython can and cannot, how a program gets into it."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from lambdeno import build, interpreter
from lambdeno.emulator import host_architecture
from lambdeno.errors import ArtifactError, BuildError
from tests.layer.conftest import LAYER

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "interpreter"
ARCHITECTURES = ("x86_64", "arm64")
MACHINES = {"x86_64": "EM_X86_64", "arm64": "EM_AARCH64"}


@pytest.fixture(scope="session")
def own() -> Path:
    """The interpreter that runs here."""
    return interpreter.interpreter(host_architecture())


@dataclass(frozen=True)
class Program:
    """A program of a test, in the interpreter."""

    path: Path

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it in an environment that has these variables alone."""
        return subprocess.run(
            [self.path, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def program(own: Path, tmp_path: Path) -> Callable[..., Program]:
    """Put a program into an interpreter: its source, the lines of ``main``."""

    def program(*lines: str) -> Program:
        source = tmp_path / "probe.py"
        source.write_text("def main(folder):\n" + "".join(f"    {line}\n" for line in lines))
        path = tmp_path / "program"
        path.write_bytes(interpreter.program(own, {"probe": source}))
        path.chmod(0o755)
        return Program(path)

    return program


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bootstrap_is_one_static_file(architecture: str, tmp_path: Path) -> None:
    """No loader, no shared library, nothing to be found at start; for the architecture it is named after."""
    path = tmp_path / "bootstrap"
    path.write_bytes(interpreter.bootstrap(architecture, build.layer_modules()).data)
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == MACHINES[architecture]
        assert elf["e_type"] == "ET_EXEC"
        kinds = {segment["p_type"] for segment in elf.iter_segments()}
        # Lambda's kernels may have pages of 64 KB on arm64
        aligned = {segment["p_align"] for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"}
    assert kinds & {"PT_INTERP", "PT_DYNAMIC"} == set()
    assert architecture == "x86_64" or min(aligned) >= 0x10000
    if shutil.which("file"):
        said = subprocess.run(["file", path], capture_output=True, text=True, check=True).stdout
        assert "statically linked" in said


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_path_of_this_machine_is_in_it(architecture: str) -> None:
    """Whoever builds it gets the same bytes: neither home, checkout nor cache are in them."""
    data = interpreter.bootstrap(architecture, build.layer_modules()).data
    for path in (Path.home(), ROOT, interpreter.interpreter(architecture).parent):
        if len(path.parts) > 2:
            assert str(path).encode() not in data


def test_notices_of_all_that_is_in_it_go_along() -> None:
    """The licences of CPython and musl want their text where the binary is."""
    licenses = interpreter.bootstrap(host_architecture(), build.layer_modules()).licenses
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licenses
    assert "musl as a whole is licensed under the following standard MIT license" in licenses
    assert "Copyright (c) Zig contributors" in licenses


# --- the program in it --------------------------------------------------------------------------


def test_the_slot_has_one_layout() -> None:
    """What C reads and what Python writes have the same sizes and the same order."""
    text = (RECIPE / "slot.h").read_text()
    assert int(re.search(r"#define SLOT_MODULES (\d+)", text)[1]) == interpreter.ROWS  # type: ignore[index]
    assert eval(re.search(r"#define SLOT_BYTES \((.+)\)", text)[1]) == interpreter.ROOM  # type: ignore[index]
    fields = re.findall(r"^    (?:unsigned |struct )?\w+ (\w+)[\[,;]", text, re.MULTILINE)
    assert fields == ["name", "start", "magic", "count", "sources", "modules", "bytes"]
    assert interpreter.HEAD.size == 16 + 4 + 32
    assert interpreter.ROW.size == 24 + 4 + 4


def test_an_edit_takes_no_compiler(own: Path, tmp_path: Path) -> None:
    """A changed source is in the next bootstrap, and the interpreter is the same."""
    (tmp_path / "probe.py").write_text("def main(folder): return 3\n")
    first = interpreter.program(own, {"probe": tmp_path / "probe.py"})
    (tmp_path / "probe.py").write_text("def main(folder): return 4\n")
    second = interpreter.program(own, {"probe": tmp_path / "probe.py"})
    for data, status in ((first, 3), (second, 4)):
        path = tmp_path / f"program-{status}"
        path.write_bytes(data)
        path.chmod(0o755)
        assert subprocess.run([path], env={}, check=False).returncode == status
    at = first.index(interpreter.MAGIC)
    assert (first[:at], len(first)) == (second[:at], len(second))


def test_the_same_sources_give_the_same_bytes(own: Path) -> None:
    """Nothing of the moment or the process gets into a bootstrap."""
    assert interpreter.program(own, build.layer_modules()) == interpreter.program(own, build.layer_modules())


def test_the_program_gets_folder_and_arguments(program: Callable[..., Program], tmp_path: Path) -> None:
    """``main`` is given the folder that the file was started from; sys.argv has the words."""
    show = program("import sys, posix", "posix.write(1, repr([folder, sys.argv[1:]]).encode())", "return 0")
    assert show("a", "é").stdout == repr([str(tmp_path), ["a", "é"]])
    bare = subprocess.run(
        ["program"], executable=show.path, cwd="/", env={}, capture_output=True, text=True, check=True
    )
    assert bare.stdout == repr([str(tmp_path), []])


def test_a_module_of_the_layer_that_does_not_compile_is_told(own: Path, tmp_path: Path) -> None:
    """A mistake in the layer's Python is an error of the build, with its place."""
    (tmp_path / "probe.py").write_text("def main(folder:\n")
    with pytest.raises(BuildError, match=r"does not compile: SyntaxError: .* \(probe.py, line 1\)"):
        interpreter.program(own, {"probe": tmp_path / "probe.py"})


def test_a_program_that_does_not_fit_is_told(own: Path, tmp_path: Path) -> None:
    """Nothing is cut off."""
    (tmp_path / "probe.py").write_text(f"TEXT = {'x' * 200_000!r}\ndef main(folder): return 0\n")
    with pytest.raises(BuildError, match="room for 24 and 196608"):
        interpreter.program(own, {"probe": tmp_path / "probe.py"})
    (tmp_path / "probe.py").write_text("")
    for name in ("a_name_of_twenty_four_xx", "é" * 12):
        with pytest.raises(BuildError, match="names of 23 bytes"):
            interpreter.program(own, {name: tmp_path / "probe.py"})


# --- CPython, half initialised ------------------------------------------------------------------


def test_the_core_has_what_the_layer_needs(program: Callable[..., Program]) -> None:
    """Sockets, posix, time, JSON's quoting, bytes and text in UTF-8: all without io and codecs."""
    done = program(
        "import sys, posix, time, _socket, _json, fcntl, select, errno, marshal",
        "assert not {'io', 'codecs', 'encodings', 'os', 'site'} & set(sys.modules), sys.modules",
        "assert sys.flags.isolated and sys.flags.optimize == 2 and sys.flags.utf8_mode == 1",
        "assert _json.encode_basestring_ascii('é\"') == '\"\\\\u00e9\\\\\"\"'",
        "assert 'é'.encode() == b'\\xc3\\xa9' and b'\\xff'.decode('utf-8', 'replace') == '\\ufffd'",
        "assert b'\\xff'.decode('utf-8', 'surrogateescape').encode('utf-8', 'surrogateescape') == b'\\xff'",
        "a, b = _socket.socketpair()",
        "a.send(b'x')",
        "assert b.recv(1) == b'x' and time.time_ns() > 0 and posix.getpid() > 0",
        "posix.write(1, ' '.join([sys.version.split()[0], sys.platform]).encode())",
        "return 0",
    )()
    version = interpreter.pins()["cpython"]["version"]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version} linux", "")


def test_the_second_half_comes_when_asked_for(program: Callable[..., Program]) -> None:
    """_boot.init_main() is private API of CPython below: what it adds must be whole."""
    done = program(
        "import sys, _boot",
        "assert getattr(sys, 'stdout', None) is None",
        "_boot.init_main()",
        "_boot.init_main()",
        "print('prínted', sys.stdout.encoding)",
        "print('to stderr', file=sys.stderr)",
        "assert open('/dev/null').read() == '' and 'encodings.utf_8' in sys.modules",
        "import signal_that_is_not_there",
    )(LANG="C")
    assert done.stdout == "prínted utf-8\n"
    assert done.stderr.startswith("to stderr\n")
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'signal_that_is_not_there'\n")


def test_an_uncaught_exception_is_a_traceback(program: Callable[..., Program]) -> None:
    """The error path completes the initialisation before it prints: place and message, status 1."""
    done = program("raise RuntimeError('bröken')")()
    assert done.returncode == 1
    assert done.stdout == ""
    assert 'File "/opt/lambdeno/probe.py", line 2, in main' in done.stderr
    assert done.stderr.endswith("RuntimeError: bröken\n")


def test_a_peer_that_is_gone_is_an_exception(program: Callable[..., Program]) -> None:
    """SIGPIPE does not kill the bootstrap."""
    done = program(
        "import posix", "a, b = posix.pipe()", "posix.close(a)", "try:", "    posix.write(b, b'x')",
        "except BrokenPipeError:", "    return 7",
    )()  # fmt: skip
    assert done.returncode == 7


def test_the_c_library_tells_the_truth(program: Callable[..., Program]) -> None:
    """Answers that a C library under CPython got wrong in another release of the compiler."""
    done = program(
        "import posix, errno",
        "try:",
        "    posix.posix_fallocate(posix.open('/proc/self/exe', posix.O_RDONLY), 0, 1)",
        "except OSError as error:",
        "    assert error.errno == errno.EBADF, error",
        "else:",
        "    raise AssertionError",
        "assert posix.major(posix.makedev(5, 7)) == 5 and posix.minor(posix.makedev(5, 7)) == 7",
        "assert abs(1e308 ** 0.5 - 1e154) < 1e140 and 2.0 ** -1074 > 0 and float('1e-308') == 1e-308",
        "assert OSError(2, posix.strerror(2)).strerror == 'No such file or directory'",
        "return 0",
    )()
    assert (done.returncode, done.stderr) == (0, "")


def test_deep_recursion_is_an_exception(program: Callable[..., Program]) -> None:
    """Threads of musl have small stacks unless told otherwise: not a crash, in no thread."""
    done = program(
        "import _thread, time",
        "found = []",
        "def deep(value):",
        "    try:",
        "        for _ in range(100_000): value = [value]",
        "        repr(value)",
        "    except RecursionError as error:",
        "        found.append(error)",
        "_thread.start_new_thread(deep, (1,))",
        "while not found: time.sleep(0.01)",
        "deep(1)",
        "return len(found)",
    )()
    assert (done.returncode, done.stderr) == (2, "")


# --- where it comes from ------------------------------------------------------------------------


def test_it_is_built_once() -> None:
    """An interpreter of this recipe in the cache is taken as it is."""
    interpreter.interpreter(host_architecture())
    steps: list[str] = []
    interpreter.interpreter(host_architecture(), steps.append)
    assert steps == []


def test_another_build_is_waited_for(
    own: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two builds at once are one: the second says that it waits, and takes what the first has made."""
    monkeypatch.setenv("LAMBDENO_CPYTHON_SOURCE", str(tmp_path / "gone"))  # a build of its own would fail
    folder = cache / "interpreter"
    folder.mkdir(parents=True)
    said: queue.Queue[str] = queue.Queue()
    with ThreadPoolExecutor() as pool, (folder / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = pool.submit(interpreter.interpreter, host_architecture(), said.put)
        assert said.get(timeout=10) == "Wait for another build of bootstrap"
        shutil.copytree(
            own.parent, folder / own.parent.name, ignore=shutil.ignore_patterns("*.json", "*.new")
        )
        fcntl.flock(first, fcntl.LOCK_UN)
        assert second.result(timeout=10) == folder / own.parent.name / own.name
        fcntl.flock(first, fcntl.LOCK_EX)
        pool.submit(interpreter.interpreter, host_architecture(), said.put).result(timeout=10)
        assert said.empty()  # what is there is taken without waiting


def test_another_recipe_is_another_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is found by all that decides what comes out: sources, pins, patches."""
    before = interpreter.whereabouts(host_architecture())
    assert before
    copy = shutil.copytree(RECIPE, tmp_path / "recipe")
    monkeypatch.setattr(interpreter, "RECIPE", copy)
    assert interpreter.whereabouts(host_architecture()) == before
    for path in [path for path in sorted(copy.rglob("*.*")) if path.suffix not in (".md", ".pyc")]:
        path.write_text(path.read_text() + "\n")
        assert interpreter.whereabouts(host_architecture()) is None
        path.write_text(path.read_text()[:-1])
    assert interpreter.whereabouts(host_architecture()) == before


def recipe(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the recipe where it cannot succeed."""
    command: list[str | Path] = [sys.executable, RECIPE / "build.py", "--output", folder / "out"]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def only(folder: Path, *names: str) -> str:
    """A PATH with these programs alone."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or name)
    return str(folder)


def test_missing_tools_are_named(tmp_path: Path) -> None:
    """What a C build needs besides the compiler is asked for at once."""
    done = recipe(tmp_path, PATH=only(tmp_path / "bin"))
    assert done.returncode == 1
    assert done.stderr == "bootstrap cannot be built without make and git\ninstall it\n"


def test_a_machine_without_debians_client_learns_of_other_ways(tmp_path: Path) -> None:
    """The source can be given, the wheel has it built, the other shape needs none."""
    done = recipe(tmp_path, PATH=only(tmp_path / "bin", "make", "git"))
    assert done.returncode == 1
    [message, hint] = done.stderr.splitlines()
    version = interpreter.pins()["cpython"]["version"]
    assert message == f"the source of CPython {version} cannot be had: this machine has no apt-get"
    assert f"set LAMBDENO_CPYTHON_SOURCE to the file Python-{version}.tar.xz" in hint
    assert "a lambdeno wheel" in hint
    assert 'shape = "managed"' in hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """What the system refuses is a sentence and a hint, as every failure of the recipe is."""
    (tmp_path / "out").write_text("a file")
    done = recipe(tmp_path)
    [message, hint] = done.stderr.splitlines()
    assert (done.returncode, message.startswith("bootstrap cannot be built: [Errno ")) == (1, True)
    assert str(tmp_path / "out") in message
    assert hint


def test_nothing_of_the_users_environment_decides_what_is_built() -> None:
    """The C build sees where its programs and folders are, and nothing else that was set outside."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True;"
        "import build; build.close_environment('/zig'); print(*sorted(os.environ))"
    )
    leaks = ("CPPFLAGS", "LIBS", "CONFIG_SITE", "MAKEFLAGS", "CC", "ZIG_LIB_DIR", "PYTHONPATH")
    environment = {"PATH": os.environ["PATH"], "HOME": "/home", **dict.fromkeys(leaks, "/leaked")}
    command = [sys.executable, "-c", program, str(RECIPE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ours = ("LC_ALL", "SOURCE_DATE_EPOCH", "ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    assert done.stdout.split() == sorted({"HOME", "PATH", *ours})


@pytest.mark.parametrize("script", ["test", "wheel"])
def test_the_scripts_tell_a_failed_build(script: str, tmp_path: Path) -> None:
    """A build that fails under a script is message and hint and a status, without a traceback."""
    (tmp_path / "tarball").write_bytes(b"")
    variables = {"LAMBDENO_CACHE": str(tmp_path), "LAMBDENO_CPYTHON_SOURCE": str(tmp_path / "tarball")}
    command = [str(ROOT / "scripts" / script), str(tmp_path / "wheels")]
    done = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False
    )
    [message, hint] = done.stderr.splitlines()
    assert (done.returncode, hint.startswith("hint: it must be ")) == (1, True)
    assert "is not the source of CPython" in message


def test_another_source_is_refused(tmp_path: Path) -> None:
    """Only the pinned bytes are built; what was there is untouched."""
    tarball = tmp_path / "Python.tar.xz"
    tarball.write_bytes(b"something else")
    done = recipe(tmp_path, LAMBDENO_CPYTHON_SOURCE=str(tarball))
    [message, hint] = done.stderr.splitlines()
    assert (done.returncode, message.startswith(f'"{tarball}" is not the source of CPython')) == (1, True)
    assert hint == f"it must be {interpreter.pins()['cpython']['sha256']}"
    assert tarball.read_bytes() == b"something else"
    gone = recipe(tmp_path, LAMBDENO_CPYTHON_SOURCE=str(tmp_path / "gone"))
    assert "is no file" in gone.stderr


def test_a_failed_build_is_ours_to_tell(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line shows the recipe's sentence and hint, and nothing of the build stays."""
    (tmp_path / "tarball").write_bytes(b"")
    monkeypatch.setenv("LAMBDENO_CPYTHON_SOURCE", str(tmp_path / "tarball"))
    with pytest.raises(BuildError, match="is not the source of CPython") as caught:
        interpreter.interpreter(host_architecture())
    assert caught.value.hint.startswith("it must be ")
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]
    assert list(cache.rglob("work-*")) == []


def test_the_wheel_has_it_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who installs a wheel builds nothing, for either architecture; and it holds the layer's own program."""
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([ROOT / "scripts/wheel", wheels], check=True, capture_output=True)
    [wheel] = wheels.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True, capture_output=True)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PATH", only(tmp_path / "bin"))  # neither make nor apt-get
    for architecture in ARCHITECTURES:
        program = (
            "import sys, lambdeno; from lambdeno import build, interpreter;"
            "assert lambdeno.__file__.startswith(sys.argv[2]), lambdeno.__file__;"
            "made = interpreter.bootstrap(sys.argv[1], build.layer_modules(), print);"
            "sys.stdout.write(made.sha256)"
        )
        command = [sys.executable, "-c", program, architecture, str(site)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ours = interpreter.bootstrap(architecture, build.layer_modules()).sha256
        assert done.stdout == ours
    (site / "lambdeno/layer/lambdeno/fault.py").write_text("")
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "was made from other sources than those in" in done.stderr


def test_a_file_that_is_no_interpreter_is_refused(tmp_path: Path, own: Path) -> None:
    """Damage in the cache is told, with the way out."""
    shutil.copy(own, tmp_path / own.name)
    (tmp_path / own.name).write_bytes(own.read_bytes().replace(interpreter.MAGIC, b"x" * 16))
    with pytest.raises(ArtifactError, match="without its slot"):
        interpreter.program(tmp_path / own.name, {"fault": LAYER / "lambdeno/fault.py"})


@pytest.mark.parametrize("spoil", ["altered", "cut short", "gone"])
def test_a_damaged_interpreter_does_not_ship(spoil: str, own: Path, cache: Path) -> None:
    """What is in the cache is what was built, or it is told, or built again."""
    folder = cache / "interpreter" / own.parent.name
    shutil.copytree(own.parent, folder, ignore=shutil.ignore_patterns("*.json", "*.new"))
    assert interpreter.interpreter(host_architecture()) == folder / own.name
    path = folder / own.name
    data = path.read_bytes()
    if spoil == "gone":
        path.unlink()
        assert not interpreter._is_whole(folder, {own.name})
        return
    path.write_bytes(data[: len(data) // 2] if spoil == "cut short" else data[:-100] + bytes(100))
    with pytest.raises(ArtifactError, match="is damaged: its sha256") as caught:
        interpreter.bootstrap(host_architecture(), build.layer_modules())
    assert caught.value.hint == f"remove the folder {folder} and build again"


def test_a_build_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The kernel's killer leaves no words: ours say what there is to know. Its folder goes."""
    recipe = shutil.copytree(RECIPE, tmp_path / "recipe")
    (recipe / "build.py").write_text(
        "import os, pathlib, sys; pathlib.Path(sys.argv[2], f'work-{os.getpid()}').mkdir(parents=True);"
        "os.kill(os.getpid(), 9)"
    )
    monkeypatch.setattr(interpreter, "RECIPE", recipe)
    for _ in range(2):
        with pytest.raises(
            BuildError, match="Bootstrap cannot be built: the build ended with status -9"
        ) as caught:
            interpreter.interpreter(host_architecture())
        assert caught.value.hint
        assert list(cache.rglob("work-*")) == []
