"""V8's code cache, filled at build for the paths that the code has on Lambda, and proven to serve.

    unpack as on Lambda -> start as on Lambda -> take the caches -> start again: all hits, or once more

Deno keeps what V8 compiled in SQLite files of DENO_DIR, by module URL and source hash: a cache
made under another path is never found. So the real bootstrap starts the real Deno in a mount
namespace with /opt and /var/task (bubblewrap), up to its first ``GET /next``, and Deno's own
debug log tells hits from misses.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lambdeno import children
from lambdeno.archive import Entry
from lambdeno.emulator import Bubblewrap, Function, Settings, host_architecture
from lambdeno.emulator.sandbox import Site, bubblewrap_fault, bwrap_environment, folders, isolation
from lambdeno.emulator.variables import lambda_variables
from lambdeno.errors import BuildError
from lambdeno.scratch import Scratch

__all__ = ["FILES", "LoadFailure", "fill", "lay_out", "obstacle", "transpile"]

FILES = ("dep_analysis_cache_v2", "node_analysis_cache_v2", "v8_code_cache_v2")
SHIPPED = ("npm", "remote")  # parts of a DENO_DIR that Deno takes as they are
ROUNDS = 6  # starts at most until a start compiles nothing: two in practice
LOAD_TIME = 60  # s, for one start
EXTENSION = "/extension/register"  # what a function that wants to be told of the end comes first with
HIT = re.compile(r"V8 code cache hit for (ES module|script): (\S+),")
MISS = re.compile(r"Updating V8 code cache for (ES module|script): (\S+),")
COMPILED = re.compile(r"Updating V8 code cache for ES module: (\S+), \[(\d+)\]")


class LoadFailure(BuildError):
    """The function cannot be loaded: ``error_type`` is what Lambda would report."""

    def __init__(self, error_type: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.error_type = error_type


@dataclass(frozen=True)
class _Start:
    """What one start of the execution environment gave."""

    log: str
    error: tuple[str, str] | None  # type and message, where the function could not be loaded
    folder: Path  # Deno's


def obstacle(architecture: str) -> str:
    """Why no code cache can be made here for a target architecture; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux to load the function as Lambda does"
    if host_architecture() != architecture:
        return f"this machine is {host_architecture()} and V8 compiles for the machine it runs on"
    fault = bubblewrap_fault()
    return f"the function cannot have its paths on Lambda here: {fault}" if fault else ""


def fill(opt: Iterable[Entry], function: Function) -> dict[str, bytes]:
    """The cache files (name -> content) for a function over the layers' files.

    ``function.code`` is a folder, and gets the cache as ``.deno_dir``; where it is empty, the
    layer's dummy is loaded. Raises LoadFailure where the function cannot be loaded, BuildError
    where the cache will not hold.
    """
    with Scratch() as work:
        lay_out(work / "opt", opt)
        caches: dict[str, bytes] = {}
        # Deno analyses CommonJS in threads, unless it has done so: modules would load in any order, and V8
        # number what it compiles in that order. So the first start gives the analysis, the second the code.
        is_analysed = not (function.code / ".deno_dir/npm").is_dir()
        for _ in range(ROUNDS):
            start = _start(work, function)
            if start.error:
                raise LoadFailure(start.error[0], *_explain(*start.error))
            if caches and not misses(start.log, function.code):
                return caches
            if all(_is_whole(start.folder / file) for file in FILES):
                left_out = "" if is_analysed else "codecache"
                found = {file: _canonical(start.folder / file, left_out) for file in FILES}
                lay_out(function.code, [Entry(f".deno_dir/{file}", found[file]) for file in FILES])
                caches, is_analysed = found if is_analysed else {}, True
        again = ", ".join(sorted(misses(start.log, function.code))[:3])
        raise BuildError(
            f"The code cache does not hold: V8 compiles {again} anew at every start",
            "set build.code_cache = false in lambdeno.toml",
        )


def transpile(opt: Iterable[Entry], function: Function, modules: Sequence[str]) -> list[Entry]:
    """The JavaScript that Deno makes of a function's modules, for their paths on Lambda.

    ``function.code`` is a folder, and ``modules`` are names in it; ``opt`` is for this machine.
    """
    with Scratch() as work:
        lay_out(work / "opt", opt)
        made = work / "tmp/deno"
        made.mkdir(parents=True)
        for part in SHIPPED:
            if (function.code / ".deno_dir" / part).is_dir():
                (made / part).symlink_to(f"/var/task/.deno_dir/{part}")
        lock = function.code / "deno.lock"
        if lock.is_file():
            shutil.copyfile(lock, made / "deno.lock")
        config = next(file for file in ("deno.json", "deno.jsonc") if (function.code / file).is_file())
        site = Site(function.code, work / "opt", work / "tmp")
        command = [
            *("bwrap", *isolation(), *folders(site), "--remount-ro", "/", "--chdir", "/var/task"),
            *("--clearenv", "--setenv", "DENO_DIR", "/tmp/deno", "--setenv", "NO_COLOR", "1"),
            *("--setenv", "DENO_NO_UPDATE_CHECK", "1", "--", "/opt/bin/deno", "cache", "--quiet"),
            *("--no-check", "--allow-import", "--node-modules-dir=none"),
            *(f"--config={config}", "--lock=/tmp/deno/deno.lock", *modules),
        ]
        done = children.run(command, env=bwrap_environment())
        if done.returncode:
            raise BuildError(
                f'Cannot transpile "{modules[0]}"', "mend it, or set build.bundle = true", detail=done.stderr
            )
        files = sorted(path for path in (made / "gen").rglob("*") if path.is_file())
        return [Entry(f".deno_dir/{path.relative_to(made).as_posix()}", path.read_bytes()) for path in files]


def hits(log: str) -> set[str]:
    """The modules that a start took from the cache, from Deno's debug log."""
    return {name for _, name in set(HIT.findall(log)) - set(MISS.findall(log))}


def misses(log: str, task: Path) -> set[str]:
    """The modules that a start had V8 compile, from Deno's debug log, though the function has the caches.

    Not the first module of a package that was imported by its name: Deno 2.9 looks it up under that
    name, keeps it under its file's, and so compiles it at each start, whatever it has.
    """
    path = task / ".deno_dir" / FILES[-1]
    kept: dict[str, int] = {}
    if path.is_file():
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        ) as cache:
            rows = cache.execute("SELECT specifier, source_hash FROM codecache WHERE type = 1")  # ES modules
            kept = dict(rows.fetchall())
    found = set(HIT.findall(log))
    lost = {
        ("ES module", name)
        for name, digest in COMPILED.findall(log)
        if "/.deno_dir/npm/" in name and kept.get(name, 0) % 2**64 == int(digest)
    } - found
    return {name for _, name in set(MISS.findall(log)) - lost}


def lay_out(folder: Path, entries: Iterable[Entry]) -> None:
    """Write an artefact's files below a folder."""
    folder.mkdir(exist_ok=True)
    for entry in entries:
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry.content, Path):
            shutil.copyfile(entry.content, path)  # not a link: its mode is set below
        else:
            path.write_bytes(entry.content)
        path.chmod(0o755 if entry.executable else 0o644)


def _start(work: Path, function: Function) -> _Start:
    """Start the bootstrap as Lambda does and end it at its first word to the Runtime API."""
    tmp = Path(tempfile.mkdtemp(dir=work, prefix="tmp-"))
    log = work / "log"
    with socket.create_server(("127.0.0.1", 0)) as server, log.open("wb") as output:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        variables = lambda_variables(function, Settings(), runtime_api=address, log_stream="build")
        site = Site(function.code, work / "opt", tmp)
        launch = Bubblewrap().launch(function, site, {**variables, "DENO_LOG": "debug"})
        with children.started(
            launch.command,
            env=launch.environment,
            cwd=launch.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process:
            try:
                said = _first_word(server, process)
            finally:
                process.kill()
    text = log.read_text("utf-8", "replace")
    if said is None:
        tail = " ".join(text.strip().splitlines()[-1:])
        return _Start(text, ("Runtime.ExitError", f"it ended or hung while it loaded: {tail}"), tmp)
    if said.startswith("POST") and EXTENSION not in said.partition("\r\n")[0]:
        return _Start(text, _reported(said), tmp)
    return _Start(text, None, next(tmp.glob("lambdeno.*")))


def _first_word(server: socket.socket, process: subprocess.Popen[str]) -> str | None:
    """The first request on the Runtime API, whole; None if the process ends or stays silent."""
    server.settimeout(0.2)
    for _ in range(LOAD_TIME * 5):
        try:
            connection, _ = server.accept()
            break
        except TimeoutError:
            if process.poll() is not None:
                return None
    else:
        return None
    with connection:
        connection.settimeout(LOAD_TIME)
        data = b""
        try:
            while piece := connection.recv(65536):
                data += piece
                head, end, body = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                if end and len(body) >= int(length[1] if length else 0):
                    return data.decode("utf-8", "replace")
        except OSError:
            pass
    return None


def _reported(request: str) -> tuple[str, str]:
    error = json.loads(request.partition("\r\n\r\n")[2])
    return error["errorType"], " ".join(error["errorMessage"].split())  # one sentence, one line


def _explain(error_type: str, message: str) -> tuple[str, str]:
    if error_type == "Runtime.HandlerNotFound":
        return (
            f"Cannot find the handler: {message}",
            "export it, or name another as handler in lambdeno.toml",
        )
    if error_type == "Runtime.HandlerNotFunction":
        return (
            f"Cannot use the handler: {message}",
            "export a function, or name another as handler in lambdeno.toml",
        )
    return (
        f"The function fails while it loads: {error_type}: {message}",
        "mend it, or set build.code_cache = false in lambdeno.toml if it can only load on Lambda",
    )


def _is_whole(path: Path) -> bool:
    """Whether Deno has written its release into a cache: beside all else, and without it drops all.

    A process that was ended before that leaves a file without the row, rarely, on a busy machine.
    """
    source = sqlite3.connect(path)
    try:
        return bool(source.execute("SELECT 1 FROM info WHERE key = 'CLI_VERSION'").fetchone())
    except sqlite3.OperationalError:  # not even the table
        return False
    finally:
        source.close()


def _canonical(path: Path, left_out: str = "") -> bytes:
    """An SQLite file with the same rows, its write-ahead log folded in, as the same bytes each time.

    One table can be left empty.
    """
    with Scratch() as folder:
        copy = folder / "copy"
        source, target = sqlite3.connect(path), sqlite3.connect(copy, isolation_level=None)
        try:
            target.execute("PRAGMA page_size = 4096")
            target.execute("BEGIN")
            tables = source.execute(
                "SELECT name, sql FROM sqlite_master"
                " WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            ).fetchall()
            for name, sql in tables:
                target.execute(sql)
                rows = sorted(source.execute(f'SELECT * FROM "{name}"').fetchall())  # noqa: S608
                if rows and name != left_out:
                    places = ", ".join("?" * len(rows[0]))
                    target.executemany(f'INSERT INTO "{name}" VALUES ({places})', rows)  # noqa: S608
            target.execute("COMMIT")
        finally:
            source.close()
            target.close()
        data = bytearray(copy.read_bytes())
    # https://sqlite.org/fileformat.html §1.3: 18-19 say "write-ahead log", as Deno would set at
    # its first opening; 96-99 name the library that wrote the file and mean nothing to a reader.
    data[18:20] = b"\x02\x02"
    data[96:100] = bytes(4)
    return bytes(data)
