"""Build the interpreter that bootstrap is made of: CPython as one static file for each architecture.

    source -> patches -> compiler -> native CPython -> headers -> (the other architecture's) -> link

    python3 interpreter/build.py --output FOLDER [--architecture x86_64|arm64] [--keep]

Gives interpreter-<arch> for this machine's architecture and the one asked for, LICENSES.txt, SHA256SUMS.
Everything is pinned in pins.json. stdout has one line for each step; a failure is one line
and a hint on stderr, exit status 1. README.md beside this file has the reasons for the flags.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE_VARIABLE = "LAMBDENO_CPYTHON_SOURCE"

# Lambda's word -> the compiler's.
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}

# Linked besides those that CPython always has (Modules/Setup.bootstrap.in).
MODULES = ("_json", "_socket", "fcntl", "select")
ENCODINGS = ("encodings", "encodings.aliases", "encodings.utf_8")

# zig adds its sanitizer unless told not to. Sections that nothing refers to fall away in the link.
FLAGS = "-O2 -g0 -fno-sanitize=undefined -ffunction-sections -fdata-sections"
# zig builds musl with the link's -O: at its default, memcpy goes byte by byte.
LINK = "-s -O2 -static -Wl,--gc-sections"
# musl gives threads the 8 MB only if asked; with 1 MB deep recursion in a thread is a crash.
OPT = "-DNDEBUG -fwrapv -DTHREAD_STACK_SIZE=0x800000"
OPTIONS = (
    "CXX=false",
    "READELF=:",
    "LINKFORSHARED= ",
    "--prefix=/",
    "--disable-shared",
    "--disable-test-modules",
    "--without-ensurepip",
    "--without-doc-strings",
    "--with-computed-gotos",
    "--without-readline",
    "--with-pkg-config=no",
    "--with-builtin-hashlib-hashes=",
    "MODULE_BUILDTYPE=static",
    "ac_cv_func_dlopen=no",
)
# What configure guesses wrong where it cannot run its tests: with these, both pyconfig.h are alike.
CROSS = (
    "ac_cv_file__dev_ptmx=yes",
    "ac_cv_file__dev_ptc=no",
    "ac_cv_aligned_required=no",
    "ac_cv_computed_gotos=yes",
    "ac_cv_broken_sem_getvalue=no",
    "ac_cv_working_tzset=yes",
    "ac_cv_buggy_getaddrinfo=no",
)


LOG = "the end of the log is above"
SPACE = "free some space: the build takes 1 GB for a while"
SUMS = "SHA256SUMS"  # written last: where it is, the output is whole


class BuildFailure(Exception):
    """What stands in the way, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def main() -> int:
    """Build into a folder of its own below the output's, and move what is finished."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--architecture", choices=list(MACHINES), help="this machine's unless given")
    options.add_argument("--keep", action="store_true", help="leave the work folder for a look")
    chosen = options.parse_args()
    output = chosen.output.resolve()  # commands run in other folders
    work = output / f"work-{os.getpid()}"
    try:
        work.mkdir(parents=True)
        native = native_architecture()
        build(work, output, dict.fromkeys((native, chosen.architecture or native)))
    except BuildFailure as failure:
        print(failure, failure.hint, sep="\n", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bootstrap cannot be built: {error}", SPACE, sep="\n", file=sys.stderr)
        return 1
    finally:
        if not chosen.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


def build(work: Path, output: Path, architectures: Iterable[str]) -> None:
    """The whole recipe; the first architecture is this machine's."""
    pins = json.loads((HERE / "pins.json").read_text())
    check_tools()
    say(f"the source of CPython {pins['cpython']['version']}")
    source(work, pins["cpython"], output)
    say(f"the compiler, zig {pins['ziglang']['version']}")
    zig = compiler(work, pins["ziglang"])
    close_environment(str(work / "zig-cache"))
    native, *others = architectures
    cpython(work, native)
    headers(work, native)
    for architecture in others:
        cpython(work, architecture)
    say("link")
    made = [link(work, name) for name in (native, *others)]
    made.append(licenses(work, zig))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (output / SUMS).unlink(missing_ok=True)
    for path in made:
        path.replace(output / path.name)
    (work / SUMS).write_text("".join(sums))
    (work / SUMS).replace(output / SUMS)


def close_environment(zig_cache: str) -> None:
    """From here on nothing of the user's decides what comes out: no CPPFLAGS, MAKEFLAGS, PYTHONHOME."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
    os.environ.clear()
    os.environ |= {**kept, "ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}
    os.environ |= {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "1700000000"}  # the date in sys.version
    os.umask(0o022)


def native_architecture() -> str:
    """This machine in Lambda's words. Raises BuildFailure where Linux does not run on it."""
    found = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    if not sys.platform.startswith("linux") or not found:
        raise BuildFailure(
            f"bootstrap cannot be built on {sys.platform} ({platform.machine()}):"
            " it takes Linux on x86_64 or arm64",
            'install a lambdeno wheel, which carries it, or set shape = "managed" in lambdeno.toml',
        )
    return found


def check_tools() -> None:
    """Raise BuildFailure where a program is missing that a C build needs."""
    missing = [name for name in ("make", "git") if not shutil.which(name)]
    if missing:
        raise BuildFailure(f"bootstrap cannot be built without {' and '.join(missing)}", "install it")


# --- what comes from elsewhere ------------------------------------------------------------------


def compiler(work: Path, pin: Mapping[str, object]) -> Path:
    """zig, out of the wheel that pip brings and checks."""
    checks = " ".join(f"--hash=sha256:{sha256}" for sha256 in pin["sha256"])  # type: ignore[attr-defined]
    (work / "requirements.txt").write_text(f"ziglang=={pin['version']} {checks}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wanted = ["--only-binary=:all:", "--require-hashes", "--dest", ".", "-r", "requirements.txt"]
    run([*pip, *wanted], work, "the compiler cannot be had", "check the network and the package index")
    [wheel] = work.glob("ziglang-*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        zipped.extractall(work)  # checked by its hash
    wheel.unlink()
    zig = work / "ziglang/zig"
    zig.chmod(0o755)
    for architecture, machine in MACHINES.items():
        # Without -Wno-date-time CPython's getbuildinfo.c fails: zig makes that warning an error.
        words = f'exec {shlex.quote(str(zig))} cc -target {machine}-linux-musl "$@" -Wno-date-time'
        script(work / f"cc-{architecture}", words)
    for tool in ("ar", "ranlib"):
        script(work / tool, f'exec {shlex.quote(str(zig))} {tool} "$@"')
    return zig


def source(work: Path, pin: Mapping[str, str], output: Path) -> None:
    """CPython's source tree in src/, patched. The tarball stays beside the output for the next time."""
    kept = output.parent / f"cpython-{pin['sha256'][:16]}.tar.xz"
    named = os.environ.get(SOURCE_VARIABLE)
    if named:
        tarball = Path(named)
        if not tarball.is_file():
            raise BuildFailure(f'{SOURCE_VARIABLE} names "{named}", which is no file', "name the tarball")
    elif is_whole(kept, pin["sha256"]):
        tarball = kept
    else:
        tarball = from_debian(work / "apt", pin)
    if not is_whole(tarball, pin["sha256"]):
        raise BuildFailure(
            f'"{tarball}" is not the source of CPython {pin["version"]}: its sha256 is another',
            f"it must be {pin['sha256']}",
        )
    if tarball.parent == work / "apt":
        tarball = tarball.replace(kept)
    with tarfile.open(tarball) as packed:
        packed.extraction_filter = lambda member, _: member  # checked by its hash; 3.11.2 has no filters
        packed.extractall(work)
    next(work.glob("Python-*")).rename(work / "src")
    for patch in sorted((HERE / "patches").glob("*.patch")):
        # git takes no notice of a repository around the work folder: it would patch that one's files
        run(
            ["git", "apply", "-p1", str(patch)],
            work / "src",
            f"the patch {patch.name} does not fit",
            "run scripts/pin_cpython.py",
            GIT_CEILING_DIRECTORIES=str(work),
        )


def is_whole(tarball: Path, sha256: str) -> bool:
    """Whether a file is there and is the one that is pinned."""
    if not tarball.is_file():
        return False
    with tarball.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def from_debian(folder: Path, pin: Mapping[str, str]) -> Path:
    """The tarball out of Debian's source package: the package client knows its mirror and checks it."""
    apt = debian(folder, pin["suite"], pin["version"])
    command = [*apt, "source", "--download-only", "--tar-only", pin["package"]]
    run(command, folder, "Debian does not give the source of CPython", wanted_source(pin["version"]))
    found = list(folder.glob("*.orig.tar.xz"))
    if not found:
        raise BuildFailure("Debian does not give the source of CPython", wanted_source(pin["version"]))
    return found[0]


def debian(folder: Path, suite: str, version: str) -> list[str]:
    """apt-get with a suite's source packages, in lists of its own: the machine's stay as they are."""
    why = f"the source of CPython {version} cannot be had"
    if not shutil.which("apt-get"):
        raise BuildFailure(f"{why}: this machine has no apt-get", wanted_source(version))
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    mirrors = [uri for uri in dict.fromkeys(listed) if re.search(r"/debian/?$", uri)]
    security = [uri for uri in dict.fromkeys(listed) if re.search(r"/debian-security/?$", uri)]
    if not mirrors:
        raise BuildFailure(f"{why}: apt-get knows no mirror of Debian here", wanted_source(version))
    signed = "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    entries = [f"Types: deb-src\nURIs: {mirrors[0]}\nSuites: {suite}\n{signed}"]
    if security:
        entries.append(f"Types: deb-src\nURIs: {security[0]}\nSuites: {suite}-security\n{signed}")
    (folder / "parts").mkdir(parents=True)
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "parts/debian.sources").write_text("\n".join(entries))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": folder / "parts",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    run([*apt, "update"], folder, f"{why}: apt-get cannot read Debian's list", wanted_source(version))
    return apt


def wanted_source(version: str) -> str:
    """What to do where Debian's package client cannot help."""
    return (
        f"set {SOURCE_VARIABLE} to the file Python-{version}.tar.xz, or install a lambdeno wheel,"
        ' or set shape = "managed" in lambdeno.toml'
    )


# --- the C build --------------------------------------------------------------------------------


def cpython(work: Path, architecture: str) -> None:
    """Configure and make one architecture's libpython; this machine's comes first."""
    folder = work / architecture
    folder.mkdir()
    machine = MACHINES[architecture]
    native = native_architecture()
    if architecture == native:
        # "musl" on both sides: not a cross build, so configure runs its tests instead of guessing
        where = [f"--build={machine}-linux-musl", f"--host={machine}-linux-musl"]
    else:
        script(work / "python3.13", f'exec {shlex.quote(str(work / native / "python"))} "$@"')
        host = f"--build={MACHINES[native]}-linux-gnu", f"--host={machine}-linux-musl"
        where = [*host, f"--with-build-python={work / 'python3.13'}", *CROSS]
    # Relative, so that no path of the build folder gets into the binary.
    tools = [f"CC={work / f'cc-{architecture}'}", f"AR={work / 'ar'}", f"RANLIB={work / 'ranlib'}"]
    flags = [f"CFLAGS={FLAGS} -ffile-prefix-map=../src=cpython", f"OPT={OPT}", f"LDFLAGS={LINK}"]
    said = f"CPython for {architecture}"
    say(f"{said}: configure")
    failure = f"{said} cannot be built"
    words = ["../src/configure", *where, *tools, *flags, *OPTIONS, *left_out(work)]
    run(words, folder, failure, LOG)
    say(f"{said}: compile")
    command = ["make", f"-j{os.cpu_count()}", "python"]
    run(command, folder, failure, LOG, progress=counted(folder, said))


def left_out(work: Path) -> list[str]:
    """The modules that are not linked, as configure wants to be told."""
    known = set(re.findall(r"py_cv_module_(\w+)=", (work / "src/configure").read_text("utf-8")))
    return [f"py_cv_module_{name}=n/a" for name in sorted(known - {*MODULES, "_io", "time", "_typing"})]


def counted(folder: Path, said: str) -> Callable[[str], None]:
    """Says each quarter of the compilation, from make's lines."""
    dry = subprocess.run(["make", "-n", "python"], cwd=folder, capture_output=True, text=True, check=False)
    total = len(re.findall(r" -c ", dry.stdout)) or 1
    done = 0

    def progress(line: str) -> None:
        nonlocal done
        if " -c " not in line:
            return
        done += 1
        if done % max(1, total // 4) == 0 and done < total:
            say(f"{said}: compile, {100 * done // total} %")

    return progress


def headers(work: Path, native: str) -> None:
    """The Python that is compiled into the binary, as C: encodings.h and compiler.h.

    encodings is what the second half of the initialisation imports, compiler.py the slot's first program.
    """
    lines, rows = [], []
    for number, name in enumerate(ENCODINGS):
        path = "encodings/__init__.py" if name == "encodings" else name.replace(".", "/") + ".py"
        code = bytecode(work, native, f"Lib/{path}", f"<frozen {name}>")
        lines.append(f"static const unsigned char code{number}[] = {{{numbers(code)}}};")
        rows.append(f'{{"{name}", code{number}, {len(code)}, {int(name == "encodings")}}},')
    text = "\n".join([*lines, "static const struct _frozen encodings[] = {", *rows, "{0, 0, 0, 0}};", ""])
    (work / "encodings.h").write_text(text)
    code = bytecode(work, native, str(HERE / "compiler.py"), "compiler.py")
    (work / "compiler.h").write_text(
        f"#define COMPILER_SIZE {len(code)}\n#define COMPILER_CODE {numbers(code)}\n"
    )


def bytecode(work: Path, native: str, path: str, shown: str) -> bytes:
    """A source marshalled by the CPython that was just built, the only one that knows its own bytecode."""
    program = (
        "import marshal, sys; code = compile(open(sys.argv[1], 'rb').read(), sys.argv[2], 'exec',"
        " dont_inherit=True, optimize=2); sys.stdout.buffer.write(marshal.dumps(code))"
    )
    command = [str(work / native / "python"), "-ISB", "-c", program, path, shown]
    return run(command, work / "src", f"{path} cannot be compiled", LOG)


def numbers(code: bytes) -> str:
    """Bytes as C writes them."""
    return ",".join(map(str, code))


def link(work: Path, architecture: str) -> Path:
    """One static executable."""
    linked = work / f"interpreter-{architecture}"
    sources = [str(HERE / "main.c"), str(HERE / "slot.c")]
    places = ["-Isrc/Include", f"-I{architecture}", "-I.", f"-ffile-prefix-map={HERE}=interpreter"]
    library = f"{architecture}/libpython3.13.a"
    flags = ["-Wall", "-Wextra", "-Werror=implicit-function-declaration", *FLAGS.split(), *LINK.split()]
    command = [f"./cc-{architecture}", *flags, *places, *sources, library, "-lm", "-o", linked.name]
    run(command, work, f"bootstrap for {architecture} cannot be linked", LOG)
    return linked


def licenses(work: Path, zig: Path) -> Path:
    """The notices that must go where the binary goes."""
    parts = {
        "CPython": work / "src/LICENSE",
        "musl, the C library in it": zig.parent / "lib/libc/musl/COPYRIGHT",
        "zig, whose compiler-rt is in it": zig.parent / "LICENSE",
    }
    path = work / "LICENSES.txt"
    texts = [f"=== {name} ===\n\n{file.read_text('utf-8').strip()}\n" for name, file in parts.items()]
    path.write_text("\n".join(texts), "utf-8")
    return path


# --- processes ----------------------------------------------------------------------------------


def run(
    command: list[str],
    folder: Path,
    failure: str,
    hint: str,
    progress: Callable[[str], None] = lambda _: None,
    **variables: str,
) -> bytes:
    """Run to the end and give its standard output. Raises BuildFailure with the log's last lines."""
    environment = {**os.environ, **variables}
    output = b""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise BuildFailure(f"{failure}: {command[0]}: {error.strerror}", hint) from None
        assert process.stdout  # noqa: S101 - a pipe
        for line in process.stdout:
            output += line
            progress(line.decode("utf-8", "replace"))
        if process.wait():
            errors.seek(0)
            log = (output + errors.read()).decode("utf-8", "replace").strip().splitlines()
            raise BuildFailure("\n".join([*log[-12:], f"{failure} (exit status {process.returncode})"]), hint)
    return output


def script(path: Path, words: str) -> None:
    """A shell script of one line."""
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)


def say(step: str) -> None:
    """One line for whoever waits."""
    print(step, flush=True)


if __name__ == "__main__":
    sys.exit(main())
