"""``dev``: the local Lambda for one project, its code swapped as its files change.

build -> serve -> a file changes -> bundle -> swap -> an environment is ready -> … -> a signal
                                      └► types are checked meanwhile: told, and in nobody's way
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from watchfiles import Change, awatch

from lambdeno import children, signals
from lambdeno.build import (
    Watcher,
    bundle_into,
    check_types,
    current_inputs,
    function_inputs,
    lambda_runtime,
    up_to_date,
)
from lambdeno.cache import cache_folder
from lambdeno.emulator import Cors, Form, Function, FunctionUrl, LocalLambda, LogSink, choose_sandbox
from lambdeno.errors import LambdenoError, UsageError
from lambdeno.inputs import Inputs
from lambdeno.project import Project, load
from lambdeno.scratch import Scratch

__all__ = ["Narrator", "Options", "Session", "begin", "local_function", "serve"]

LAYERS = ("deno-layer", "runtime-layer")
STEP, DEBOUNCE = 30, 400  # ms: an editor's burst of writes is over; a longer one is cut
LOOK = 500  # ms between two looks at the inputs, where no event comes (folders above, other file systems)
DEBUG_TIMEOUT = 900  # s: Lambda's longest; at a breakpoint time passes
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Options:
    """How the project is served. Port 0 takes any."""

    port: int = 9000
    url_port: int = 9001
    form: Form = "url"  # of the events behind the URL
    sandbox: str = "auto"
    inspect: str = ""  # where Deno listens for a debugger: host:port


class Narrator(Protocol):
    """Who tells the developer. Called in the event loop."""

    def ready(self, local: LocalLambda, project: Project) -> None:
        """The local Lambda answers."""

    def rebuilt(self, seconds: float) -> None:
        """New code answers from now on."""

    def failed(self, error: LambdenoError) -> None:
        """A change cannot be used: the former code answers on."""

    def types(self, error: LambdenoError | None) -> None:
        """What the type check says; None once it has nothing more to say."""


def begin(folder: Path, options: Options, watcher: Watcher = Watcher()) -> Session:
    """Build a project's function, to be served. Raises LambdenoError."""
    project = load(folder)
    _check_inspect(project, options.inspect)
    session = Session(folder, project, options)
    try:
        session.function = session.build(project, watcher)
    except BaseException:
        session.close()
        raise
    return session


def serve(session: Session, log: LogSink, narrator: Narrator) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. Raises LambdenoError where it cannot begin."""
    try:
        asyncio.run(session.serve(log, narrator))
    finally:
        session.close()


class Session:
    """One project's time in the local Lambda."""

    function: Function  # the first build
    inputs: Inputs  # of the last build

    def __init__(self, folder: Path, project: Project, options: Options) -> None:
        self.folder = folder
        self.project = project  # as it is served
        self.options = options
        self._scratch = Scratch()
        self.temp = self._scratch.path  # each build has a folder below it
        self._numbers = itertools.count(1)
        self._layers: tuple[Path, ...] = ()
        self._layers_for: object = None
        self._changed = asyncio.Event()  # since the last type check

    def build(self, project: Project, watcher: Watcher = Watcher()) -> Function:
        """The function of a project, its files in a fresh folder. Raises LambdenoError."""
        wanted = (project.architecture, project.shape, project.deno)
        if self._layers_for != wanted:
            made = up_to_date(project, watcher, LAYERS)
            self._layers = tuple(project.dist / made[kind]["file"] for kind in LAYERS)
            self._layers_for = wanted
        number = next(self._numbers)
        standing = None if number > 1 or self.options.inspect else current_inputs(project)
        if standing:
            code = project.dist / "function.zip"  # what would be deployed, there already
            self.inputs = standing
        else:
            watcher.step(f"Bundle {project.entry}")
            code = self.temp / f"build-{number}"
            self.inputs = function_inputs(project)  # also of a build that fails
            self.inputs = bundle_into(code, project, for_debugger=bool(self.options.inspect))
        more: dict[str, Any] = {}
        if self.options.inspect:
            more = {"concurrency": 1, "timeout": DEBUG_TIMEOUT}
            more["environment"] = {**project.variables, "LAMBDENO_INSPECT": self.options.inspect}
        return described(project, code, self._layers, {"url": self._url(project), **more})

    def close(self) -> None:
        """Remove all builds."""
        self._scratch.close()

    async def serve(self, log: LogSink, narrator: Narrator) -> None:
        """Serve, and follow the project's files, until a signal comes. Raises LambdenoError."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in {signal.SIGINT, *signals.unignored()}:  # a script's "dev &" must hear its Ctrl-C
            loop.add_signal_handler(number, stopped.set)
        local = LocalLambda(
            [self.function],
            port=self.options.port,
            sandbox=choose_sandbox(self.options.sandbox),
            cache=cache_folder() / "unpacked",
            log=log,
        )
        async with local:
            narrator.ready(local, self.project)
            self._changed.set()
            tasks = [
                asyncio.create_task(self._follow(local, narrator, stopped)),
                asyncio.create_task(self._check(narrator)),
                asyncio.create_task(stopped.wait()),
            ]
            done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            children.end_all()  # what Deno checks or bundles, nobody waits for any more
            await asyncio.wait(tasks)
            for task in done:
                task.result()  # what fails in one of them is no reason to be silent

    async def _follow(self, local: LocalLambda, narrator: Narrator, stopped: asyncio.Event) -> None:
        """Swap the code after each change."""
        await local.warm(self.project.name)  # an init that fails is in the log
        while await self._change(stopped):
            begun = time.perf_counter()
            try:
                await self._swap(local)
            except LambdenoError as error:
                narrator.failed(error)
                continue
            narrator.rebuilt(time.perf_counter() - begun)
            self._changed.set()
            await local.warm(self.project.name)

    async def _change(self, stopped: asyncio.Event) -> bool:
        """Wait until an input has another content. False: the end has come first."""
        while not stopped.is_set():
            watched = Watched(self.inputs, self.project.root.resolve())
            async for events in awatch(
                *watched.folders(),
                watch_filter=watched,
                recursive=False,
                step=STEP,
                debounce=DEBOUNCE,
                rust_timeout=LOOK,
                yield_on_timeout=True,
                stop_event=stopped,
            ):
                if not events and self.inputs.is_untouched():
                    continue
                if await asyncio.to_thread(self._look):
                    return True
                break  # there may be other folders to watch
        return False

    def _look(self) -> bool:
        """Look at the inputs; return whether one differs from those of the last build."""
        former = self.inputs
        try:
            project = load(self.folder)
        except LambdenoError:
            project = self.project  # the build tells what is wrong with lambdeno.toml, itself an input
        try:
            self.inputs = function_inputs(project, known=former.digests)
        except LambdenoError:
            return True  # the build tells why
        return self.inputs.digests != former.digests

    async def _swap(self, local: LocalLambda) -> None:
        """Have the local Lambda run the project as it is now. Raises LambdenoError."""
        project = load(self.folder)
        if project.name != self.project.name:
            raise UsageError(
                f'The function is named "{project.name}" now, and runs as "{self.project.name}"',
                "start lambdeno dev again",
            )
        _check_inspect(project, self.options.inspect)
        function = await asyncio.to_thread(self.build, project)
        await local.replace(function, at_once=bool(self.options.inspect))
        self.project = project
        for code in self.temp.iterdir():
            if not local.uses(code):
                await asyncio.to_thread(shutil.rmtree, code, ignore_errors=True)

    async def _check(self, narrator: Narrator) -> None:
        """Check types after each change, one check at a time."""
        had_error = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self.project.build.check:
                continue
            try:
                await asyncio.to_thread(check_types, self.project)
            except LambdenoError as error:
                had_error = True
                narrator.types(error)
            else:
                if had_error:
                    narrator.types(None)
                had_error = False

    def _url(self, project: Project) -> FunctionUrl:
        url = project.url
        cors = Cors(**msgspec.structs.asdict(url.cors)) if url and url.cors else None
        is_streaming = bool(url and url.invoke_mode == "streaming")
        return FunctionUrl(self.options.url_port, self.options.form, is_streaming, cors)


class Watched:
    """Where changes of the inputs show: in their folders, and in those that lead to them."""

    def __init__(self, inputs: Inputs, root: Path) -> None:
        self._files = {str(path) for path in inputs.files}
        self._open = {str(folder) for folder in inputs.folders}
        here = {path: name for path, (name, *_) in inputs.files.items() if path.exists()}
        own = (path for path, name in here.items() if ":" not in name)
        top = Path(os.path.commonpath([root, *own]))
        places = {*(path.parent for path in here), *inputs.folders, root}
        ways = {above for place in places if place.is_relative_to(top) for above in place.parents}
        self._folders = places | {way for way in ways if way.is_relative_to(top)}

    def folders(self) -> list[Path]:
        """The folders that are there."""
        return [folder for folder in self._folders if folder.is_dir()]

    def __call__(self, change: Change, path: str) -> bool:
        """True if a change of this path may be one of an input."""
        if path in self._files or os.path.dirname(path) in self._open:  # noqa: PTH120 - called for each event
            return True
        return change != Change.modified and Path(path) in self._folders


def local_function(project: Project, watcher: Watcher = Watcher()) -> Function:
    """The project as the local Lambda takes it, its artefacts built where they are not up to date."""
    made = up_to_date(project, watcher)
    if project.layers:
        watcher.step("Further layers (layers in lambdeno.toml) are AWS's, and not in the local Lambda")
    layers = tuple(project.dist / made[kind]["file"] for kind in LAYERS)
    return described(project, project.dist / made["function"]["file"], layers, {})


def described(project: Project, code: Path, layers: tuple[Path, ...], more: Mapping[str, Any]) -> Function:
    """A project's function with these files; ``more`` are fields that differ."""
    fields: dict[str, Any] = {
        "handler": project.handler,
        "runtime": lambda_runtime(project),
        "architecture": project.architecture,
        "memory": project.memory,
        "timeout": project.timeout,
        "log_format": {"text": "Text", "json": "JSON"}[project.log_format],  # Lambda's own words
        "log_level": (project.log_level or "").upper(),
        "environment": project.variables,
        **more,
    }
    return Function(name=project.name, code=code, layers=layers, **fields)


def _check_inspect(project: Project, address: str) -> None:
    """Refuse a debugger that could not be. Raises UsageError."""
    if not address:
        return
    host, _, port = address.rpartition(":")
    if host not in LOOPBACK or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f'--inspect is "{address}"',
            "give a port of this machine: a debugger may do all that the function may (127.0.0.1:9229)",
        )
    if project.runtime != "runtime1":
        raise UsageError(
            f'--inspect needs runtime = "runtime1", and "{project.name}" has "{project.runtime}"',
            "a debugger stays with one process: change the runtime while you debug",
        )
