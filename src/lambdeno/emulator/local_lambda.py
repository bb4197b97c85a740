"""The local Lambda: functions, their environments, and the service API that invokes them."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lambdeno import children
from lambdeno import payload as payloads
from lambdeno.emulator.artifacts import check_total, merge, unpack
from lambdeno.emulator.environment import Deployment
from lambdeno.emulator.events import Event, EventQueue, check_dead_letter
from lambdeno.emulator.function import Function, host_architecture
from lambdeno.emulator.function_url import UrlApi
from lambdeno.emulator.http import Bounds, Server
from lambdeno.emulator.invocation import Context, Invocation, Outcome, ResponseStream
from lambdeno.emulator.invoke_api import InvokeApi
from lambdeno.emulator.logs import LogSink, tail_of
from lambdeno.emulator.pool import Pool
from lambdeno.emulator.refusal import (
    InvalidParameter,
    InvalidRequestContent,
    RequestTooLarge,
    ResourceNotFound,
)
from lambdeno.emulator.sandbox import Sandbox, host_python
from lambdeno.emulator.settings import Settings
from lambdeno.errors import EmulatorError
from lambdeno.scratch import Scratch

__all__ = ["InvokeResult", "LocalLambda", "Streaming"]

NO_CONTEXT = Context()
# Characters; an environment's folder in it has 9 more. Beyond 80 the bootstrap's socket has no room, and it
# makes its folder in /tmp (LONGEST_FOLDER in layer/lambdeno/deno.py), where nobody would remove it.
LONGEST_TEMP = 71
STATUS = {"RequestResponse": 200, "Event": 202, "DryRun": 204}


@dataclass(frozen=True, slots=True)
class InvokeResult:
    """What an invocation came to. ``log_tail`` is the last 4 KB, where it was asked for."""

    status: int
    request_id: str
    payload: bytes = b""
    function_error: str | None = None
    log_tail: bytes | None = None
    content_type: str = "application/json"
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class Streaming:
    """An invocation whose response is still being written: read ``body``, then await ``result``."""

    request_id: str
    body: ResponseStream
    result: asyncio.Task[InvokeResult]


class LocalLambda:
    """An async context manager: inside it, ``endpoint`` answers as the Lambda service does."""

    def __init__(
        self,
        functions: Iterable[Function],
        *,
        host: str = "127.0.0.1",
        port: int = 9000,
        sandbox: Sandbox,
        cache: Path,
        log: LogSink,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.sandbox = sandbox
        self._given = tuple(functions)
        self._host = host
        self._port = port
        self._cache = cache
        self._sink = log
        self._pools: dict[str, Pool] = {}
        self._retired: list[Pool] = []
        self._fronts: dict[str, tuple[Server, UrlApi]] = {}
        self._events = EventQueue(self._attempt, self.settings, log)
        self._bounds = Bounds(self.settings.silence, self.settings.keep_alive, self.settings.connections)
        self._server = Server(InvokeApi(self, host).handle, self._bounds)
        self._said: set[str] = set()

    @property
    def endpoint(self) -> str:
        """What clients take as --endpoint-url."""
        return self._address(self._server.port)

    def url_of(self, name: str) -> str | None:
        """Where a function's URL is; None where it has none."""
        front = self._fronts.get(name)
        return f"{self._address(front[1].port)}/" if front else None

    def _address(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    @property
    def functions(self) -> list[Function]:
        """The functions as they are deployed now, by name."""
        return [pool.deployment.function for _, pool in sorted(self._pools.items())]

    async def __aenter__(self) -> Self:
        """Unpack the artefacts and listen. Raises ArtifactError, EmulatorError."""
        self._scratch = Scratch()  # each environment has its /tmp in it
        if self.sandbox.kind == "paths" and len(str(self._scratch.path)) > LONGEST_TEMP:
            self._scratch.close()
            self._scratch = Scratch(Path("/tmp"))
        children.watch()  # not in the first environment's start
        try:
            for function in self._given:
                if function.name in self._pools:
                    raise EmulatorError(f'Two functions are named "{function.name}"', "rename one of them")
                self._pools[function.name] = Pool(await self._deploy(function))
            await self._listen(self._server, self._port)
            for function in self._given:
                await self._open_url(function)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything: servers, events, environments, folders."""
        await self._close()

    async def replace(self, function: Function, *, at_once: bool = False) -> None:
        """Deploy a function, new or anew: running invocations finish on the old code.

        ``at_once`` ends them, where old and new cannot be side by side: a debugger has one port.
        """
        pool = Pool(await self._deploy(function))
        await self._open_url(function)
        old = self._pools.get(function.name)
        self._pools[function.name] = pool
        if old:
            old.retire()
            self._retired = [p for p in self._retired if p.is_alive]
            self._retired.append(old)
            if at_once:
                await old.close()

    async def warm(self, name: str) -> Outcome | None:
        """Have an environment ready before the first invocation: None, or why its init failed."""
        return await self._find(name, "").warm()

    def uses(self, code: Path) -> bool:
        """Whether any environment runs this code, or may come to."""
        running = [pool for pool in self._retired if pool.is_alive]
        return any(pool.deployment.function.code == code for pool in (*self._pools.values(), *running))

    async def invoke(
        self,
        name: str,
        payload: bytes,
        *,
        invocation_type: str = "RequestResponse",
        wants_tail: bool = False,
        context: Context = NO_CONTEXT,
    ) -> InvokeResult:
        """Invoke a function by name. Raises Refusal; a function's error is a result.

        ``invocation_type`` as in the Lambda API: RequestResponse, Event, DryRun.
        """
        pool = self._find(name, context.qualifier)
        payload = self._checked(payload, invocation_type)
        arn = self.arn_of(name)
        invocation = Invocation(payload, arn=arn, context=context, wants_tail=wants_tail)
        if invocation_type == "RequestResponse":
            return result_of(invocation, await pool.invoke(invocation))
        request_id = invocation.request_id
        if invocation_type == "Event":
            traced = replace(context, trace_id=invocation.trace_id)

            def again() -> Invocation:
                return Invocation(payload, arn=arn, context=traced, request_id=request_id)

            self._events.put(Event(pool.deployment.function, request_id, payload, again))
        return InvokeResult(STATUS[invocation_type], request_id)

    def stream(
        self, name: str, payload: bytes, *, wants_tail: bool = False, context: Context = NO_CONTEXT
    ) -> Streaming:
        """Invoke a function and read its response while it is written. Raises Refusal.

        What only shows later (throttling, say) is raised by the result.
        """
        pool = self._find(name, context.qualifier)
        payload = self._checked(payload, "RequestResponse")
        body = ResponseStream()
        invocation = Invocation(
            payload, arn=self.arn_of(name), context=context, wants_tail=wants_tail, stream=body
        )

        async def run() -> InvokeResult:
            try:
                return result_of(invocation, await pool.invoke(invocation))
            finally:
                body.end()

        task = asyncio.create_task(run())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # of a reader that has gone
        return Streaming(invocation.request_id, body, task)

    def arn_of(self, name: str) -> str:
        """The ARN of a function, without a qualifier."""
        return f"arn:aws:lambda:{self.settings.region}:{self.settings.account}:function:{name}"

    def find(self, name: str, qualifier: str = "") -> Function:
        """The function of that name. Raises ResourceNotFound."""
        return self._find(name, qualifier).deployment.function

    def _find(self, name: str, qualifier: str) -> Pool:
        pool = self._pools.get(name)
        if pool is None or qualifier not in {"", "$LATEST"}:
            raise ResourceNotFound(
                f"Function not found: {self.arn_of(name)}" + (f":{qualifier}" if qualifier else ""),
                f"the local Lambda has {', '.join(sorted(self._pools)) or 'no function'}",
            )
        return pool

    def _checked(self, payload: bytes, invocation_type: str) -> bytes:
        """The payload as the function gets it."""
        if invocation_type not in STATUS:
            raise InvalidParameter(
                f'The invocation type "{invocation_type}" is unknown', f"use {', '.join(STATUS)}"
            )
        is_event = invocation_type == "Event"
        limit = self.settings.event_limit if is_event else self.settings.payload_limit
        if len(payload) > limit:
            raise too_large(len(payload), invocation_type, limit)
        if not payload.strip():
            return b"{}"
        try:
            payloads.check(payload)
        except ValueError as error:
            raise InvalidRequestContent(f"Could not parse request body into json: {error}") from None
        return payload

    async def _attempt(self, name: str, invocation: Invocation) -> Outcome:
        """An attempt at an asynchronous event, on the code deployed by now."""
        return await self._pools[name].invoke(invocation)

    async def _deploy(self, function: Function) -> Deployment:
        check_dead_letter(function)
        if function.architecture != host_architecture():
            raise EmulatorError(
                f'Function "{function.name}" is for {function.architecture},'
                f" this machine is {host_architecture()}",
                f"build it for {host_architecture()} to run it here",
            )
        self._say_version(function)
        task = await asyncio.to_thread(unpack, function.code, self._cache)
        opt = await asyncio.to_thread(merge, function.layers, self._cache)
        check_total((function.code, *function.layers))
        return Deployment(function, task, opt, self.sandbox, self.settings, self._sink, self._scratch.path)

    async def _open_url(self, function: Function) -> None:
        """Have a function's URL as it is to be; one that listens already keeps its port where it may."""
        front = self._fronts.get(function.name)
        url = function.url
        if front and url and url.port in {0, front[1].port}:
            front[1].url = url
            return
        if front:
            del self._fronts[function.name]
            await front[0].close()
        if url:
            api = UrlApi(self, self._host, function.name, url)
            server = Server(api.handle, self._bounds)
            await self._listen(server, url.port)
            api.port = server.port
            self._fronts[function.name] = (server, api)

    def say(self, name: str, text: str) -> None:
        """Write a line of our own to a function's log."""
        self._sink.write(f"lambdeno: {text}", function=name, environment="", request_id=None)

    def _say_version(self, function: Function) -> None:
        """A managed runtime's interpreter is the host's own, whatever its version."""
        have = f"python3.{sys.version_info.minor}"
        if function.is_managed and function.runtime != have and function.name not in self._said:
            self._said.add(function.name)
            text = f"{function.name} asks for {function.runtime} and runs on {have} ({host_python()})"
            self.say(function.name, text)

    async def _listen(self, server: Server, port: int) -> None:
        try:
            await server.start(self._host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EmulatorError(f"Cannot listen on {self._host}:{port}: {error.strerror}") from None
            raise EmulatorError(
                f"Cannot listen on {self._host}:{port}: the port is in use",
                "stop what listens there, or choose another port (0 takes any)",
            ) from None

    async def _close(self) -> None:
        servers = [self._server, *(server for server, _ in self._fronts.values())]
        for server in servers:
            server.stop()
        await self._events.close()
        await asyncio.gather(*(pool.close() for pool in (*self._pools.values(), *self._retired)))
        for server in servers:
            await server.close()
        await asyncio.to_thread(self._scratch.close)


def result_of(invocation: Invocation, outcome: Outcome) -> InvokeResult:
    """What the caller is told."""
    return InvokeResult(
        200,
        invocation.request_id,
        outcome.payload,
        "Unhandled" if outcome.failed else None,
        tail_of(invocation),
        outcome.content_type,
    )


def too_large(size: int, invocation_type: str, limit: int) -> RequestTooLarge:
    """The refusal of a payload over the limit."""
    return RequestTooLarge(
        f"{size} byte payload is too large for the {invocation_type} invocation type (limit {limit} bytes)"
    )
