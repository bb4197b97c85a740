"""One execution environment: its processes from init to death, one invocation at a time.

    initialise ──► idle ──► invoke ──► answered ──► (runtime calls next) ──► idle ──► … ──► close

The caller has its outcome when the runtime has answered; the environment is idle again when the
runtime asks for the next event. An environment that fails in any other way than by an answer ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lambdeno.emulator.function import Function
from lambdeno.emulator.invocation import Invocation, Outcome
from lambdeno.emulator.logs import EnvironmentLog, InitReport, LogSink, Report, platform_lines
from lambdeno.emulator.process import Launch, Process, exit_reason
from lambdeno.emulator.runtime_api import RuntimeApi, State
from lambdeno.emulator.sandbox import EntrypointError, Sandbox, Site
from lambdeno.emulator.settings import Settings
from lambdeno.emulator.variables import lambda_variables
from lambdeno.scratch import remove

__all__ = ["Deployment", "Environment", "Hooks"]

LAST_WORDS = 1.0  # seconds: what a dead runtime had sent is read meanwhile
MEMORY_REST = 0.05  # seconds between looks at the memory, however short the invocations


@dataclass(frozen=True, slots=True)
class Deployment:
    """A function with its artefacts unpacked, and where its environments are to live."""

    function: Function
    task: Path
    opt: Path | None
    sandbox: Sandbox
    settings: Settings
    sink: LogSink
    temp: Path  # each environment has its /tmp below it


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an environment tells its pool: it may be used again; it may not."""

    idle: Callable[[Environment], None]
    dead: Callable[[Environment], None]


@dataclass(slots=True)
class Init:
    """The init phase: seconds on time.perf_counter, and whether a REPORT has told of it."""

    started: float = 0.0
    duration: float = 0.0  # milliseconds
    is_reported: bool = False


class Environment:
    """One execution environment of a deployment."""

    def __init__(self, deployment: Deployment, hooks: Hooks, request_id: str) -> None:
        self._deployment = deployment
        self._request_id = request_id  # of the invocation that needs it: init errors name it
        self._function = deployment.function
        self._hooks = hooks
        noise = uuid.uuid4().hex
        self.name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{noise}"  # also its log stream
        self._tmp = deployment.temp / noise[:8]  # short: a Unix socket has its path in it
        self._lines = platform_lines(self._function.log_format)
        self._log = EnvironmentLog(deployment.sink, self._function.name, self.name)
        self._api = RuntimeApi(self._function, deployment.settings, self._became_idle)
        self._init = Init()
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._invocation: Invocation | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._sampler: asyncio.TimerHandle | None = None
        self._sampled = 0.0
        self._memory = 0
        self._is_dead = False
        self._is_reported = self._asks_early = False  # END and REPORT come before the next START
        self._starting = asyncio.Lock()  # a start is never left half done
        self.idle_since = 0.0  # time.monotonic

    @property
    def has_answered(self) -> bool:
        """Whether it has answered its invocation and not yet asked for the next one."""
        return self._invocation is not None and self._invocation.outcome.done()

    async def initialise(self, limit: float | None) -> Outcome | None:
        """Start the processes and wait for the first /next: None, or why it never came.

        ``limit`` in seconds; None where an invocation's own deadline holds.
        """
        self._init.started = time.perf_counter()
        try:
            async with self._starting:
                await self._start()
        except (EntrypointError, OSError) as error:
            return self._init_failed(self._fault("Runtime.InvalidEntrypoint", entry_fault(error)))
        try:
            async with asyncio.timeout(limit):
                outcome = await self._api.initialised
        except TimeoutError:
            self._kill()
            return self._init_failed(self._fault("Sandbox.Timedout", "Init timed out", "timeout"))
        self._init.duration = (time.perf_counter() - self._init.started) * 1000
        self._sample()
        return self._init_failed(outcome) if outcome else None

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Handle one event; initialises first, on the function's time, where that is still to do."""
        function = self._function
        self._invocation = self._log.invocation = invocation
        self._is_reported = self._asks_early = False
        invocation.start(function.timeout)
        self._log.line(self._lines.start(invocation.request_id))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(function.timeout, self._timed_out)
        self._sampler = loop.call_later(self._deployment.settings.memory_interval, self._sample_on)
        if self._process is None:
            self._init.is_reported = True  # it is part of this invocation's duration
            initialising = asyncio.ensure_future(self.initialise(None))
            await asyncio.wait((initialising, invocation.outcome), return_when=asyncio.FIRST_COMPLETED)
            if initialising.done():
                failure = initialising.result()
                if failure:
                    invocation.settle(failure)
            else:
                initialising.cancel()
        if not invocation.outcome.done():
            self._api.offer(invocation)
        try:
            outcome = await asyncio.shield(invocation.outcome)
            self._report(invocation, outcome)
        finally:
            self._is_reported = True
            if self._asks_early:
                self._became_idle()
        return outcome

    def report_failed(self, invocation: Invocation, outcome: Outcome) -> None:
        """Log an invocation that ends with an init that failed."""
        self._log.invocation = invocation
        invocation.start(self._function.timeout)
        self._log.line(self._lines.start(invocation.request_id))
        invocation.settle(outcome)
        self._report(invocation, outcome)

    async def close(self) -> None:
        """End all processes and leave nothing behind. An open invocation gets no more of it.

        As on Lambda, a runtime with an extension is told before; one that failed is dead by now.
        """
        self._is_dead = True
        self._cancel_timers()
        async with self._starting:
            if self._process and self._api.extensions:
                await self._process.terminate(self._deployment.settings.shutdown)
            self._kill()
        if self._watcher:
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._api.close()
        if self._process:
            self._process.close()
        self._log.flush()
        await asyncio.to_thread(remove, self._tmp)

    async def _start(self) -> None:
        if self._is_dead:
            raise EntrypointError("the environment was ended before it began")
        await self._api.start()
        self._tmp.mkdir(parents=True)
        deployment = self._deployment
        variables = lambda_variables(
            self._function,
            deployment.settings,
            runtime_api=self._api.address,
            log_stream=self.name,
        )
        site = Site(deployment.task, deployment.opt, self._tmp)
        launch = deployment.sandbox.launch(self._function, site, variables)
        self._process = await Process.start(launch, self._log.feed)
        self._watcher = asyncio.create_task(self._watch(self._process, launch))

    async def _watch(self, process: Process, launch: Launch) -> None:
        """Wait for the first process's end, then end the rest and say what that means."""
        status = await process.wait()
        process.kill()
        if self._api.state is not State.READY:
            await self._api.settle(LAST_WORDS)
        process.read_pending()
        reason = exit_reason(status, wraps_signals=launch.wraps_signals)
        if not self._api.initialised.done():
            fault = self._fault("Runtime.ExitError", reason, "error")
            if launch.refusal and process.first_output.startswith(launch.refusal):
                text = process.first_output.removeprefix(launch.refusal).partition(b"\n")[0]
                fault = self._fault("Runtime.InvalidEntrypoint", f"fork/exec {text.decode()}")
            self._api.initialised.set_result(fault)
        elif self._invocation:
            self._invocation.settle(self._fault("Runtime.ExitError", reason, "error"))
        self._died()

    def _fault(self, kind: str, message: str, status: str = "") -> Outcome:
        """A failure in the platform's words, named after the request that meets it."""
        request_id = self._invocation.request_id if self._invocation else self._request_id
        return Outcome.error(kind, f"RequestId: {request_id} Error: {message}", status=status)

    def _timed_out(self) -> None:
        """The function's time is over: nothing of it goes on."""
        invocation = self._invocation
        if not invocation:
            return
        self._kill()
        if self._process:
            self._process.read_pending()
        text = f"Task timed out after {self._function.timeout:.2f} seconds"
        self._log.line(self._lines.timed_out(invocation.request_id, self._function.timeout))
        invocation.settle(self._fault("Sandbox.Timedout", text, "timeout"))
        self._died()

    def _became_idle(self) -> None:
        """The runtime has asked for the next event, perhaps in one write with its answer to the last one."""
        if self._invocation and not self._is_reported:
            self._asks_early = True
            return
        self._cancel_timers()
        self._invocation = self._log.invocation = None
        if not self._is_dead:
            self.idle_since = time.monotonic()
            self._hooks.idle(self)

    def _died(self) -> None:
        if not self._is_dead:
            self._is_dead = True
            self._cancel_timers()
            self._hooks.dead(self)

    def _kill(self) -> None:
        if self._process:
            self._sample()
            self._process.kill()

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._sampler):
            if timer:
                timer.cancel()

    def _init_failed(self, outcome: Outcome) -> Outcome:
        duration = (time.perf_counter() - self._init.started) * 1000
        phase = "invoke" if self._init.is_reported else "init"
        report = InitReport(duration, phase, outcome.status or "error", outcome.error_type)
        self._log.line(self._lines.init_report(report))
        self._init.is_reported = True
        return outcome

    def _report(self, invocation: Invocation, outcome: Outcome) -> None:
        """Write END and REPORT after all that the function has written."""
        if self._process:
            self._process.read_pending()
        now = time.monotonic()
        if now - self._sampled > MEMORY_REST:
            self._sample()
        report = Report(
            invocation.request_id,
            duration=(invocation.ended - invocation.started) * 1000,
            memory=self._function.memory,
            used=-(-self._memory // 1_048_576),
            init=None if self._init.is_reported else self._init.duration,
            status=outcome.status,
            error_type=outcome.error_type,
        )
        self._log.line(self._lines.end(report))
        self._log.line(self._lines.report(report))
        self._init.is_reported = True

    def _sample(self) -> None:
        if self._process:
            self._sampled = time.monotonic()
            self._memory = max(self._memory, self._process.peak_memory())

    def _sample_on(self) -> None:
        self._sample()
        loop = asyncio.get_running_loop()
        self._sampler = loop.call_later(self._deployment.settings.memory_interval, self._sample_on)


def entry_fault(error: Exception) -> str:
    """Why the bootstrap could not be started."""
    if isinstance(error, OSError):
        return f"fork/exec bootstrap: {(error.strerror or str(error)).lower()}"
    return str(error)
