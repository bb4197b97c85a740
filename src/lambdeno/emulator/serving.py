"""The local Lambda for callers that are not asynchronous: tests, commands, benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from lambdeno.cache import cache_folder
from lambdeno.emulator.function import Function
from lambdeno.emulator.local_lambda import InvokeResult, LocalLambda
from lambdeno.emulator.logs import LogSink, StreamSink
from lambdeno.emulator.sandbox import Sandbox, choose_sandbox
from lambdeno.emulator.settings import Settings

__all__ = ["Handle", "local_lambda"]

T = TypeVar("T")


class Handle:
    """A local Lambda that runs in a thread of its own."""

    def __init__(self, local: LocalLambda, loop: asyncio.AbstractEventLoop) -> None:
        self._local = local
        self._loop = loop
        self.endpoint = local.endpoint
        self.sandbox: Sandbox = local.sandbox

    def invoke(self, name: str, payload: bytes = b"{}", **options: Any) -> InvokeResult:
        """As LocalLambda.invoke."""
        return self._run(self._local.invoke(name, payload, **options))

    def url_of(self, name: str) -> str | None:
        """As LocalLambda.url_of."""
        return self._local.url_of(name)

    def replace(self, function: Function) -> None:
        """As LocalLambda.replace."""
        self._run(self._local.replace(function))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@contextlib.contextmanager
def local_lambda(
    *functions: Function,
    host: str = "127.0.0.1",
    port: int = 0,
    sandbox: str = "auto",
    cache: Path | None = None,
    log: LogSink | None = None,
    settings: Settings | None = None,
) -> Iterator[Handle]:
    """Run functions for the length of a ``with``. Raises EmulatorError and ArtifactError."""
    local = LocalLambda(
        functions,
        host=host,
        port=port,
        sandbox=choose_sandbox(sandbox),
        cache=cache or cache_folder() / "unpacked",
        log=log or StreamSink(),
        settings=settings,
    )
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()
    started: Future[None] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        async with local:
            started.set_result(None)
            await stopped.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
            ended.set_result(None)
        except BaseException as error:  # it is the caller's
            (ended if started.done() else started).set_exception(error)

    thread = threading.Thread(target=run, name="local-lambda", daemon=True)
    thread.start()
    try:
        started.result()
        yield Handle(local, loop)
    finally:
        with contextlib.suppress(RuntimeError):  # it has not started, and its loop is closed
            loop.call_soon_threadsafe(stopped.set)
        join(thread)
    ended.result()


def join(thread: threading.Thread) -> None:
    """Wait for a thread's end, also when a signal comes meanwhile: it ends processes and removes folders."""
    try:
        thread.join()
    except KeyboardInterrupt:  # once: see signals
        thread.join()
        raise
