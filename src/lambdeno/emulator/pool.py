"""The environments of one deployed function: reused when idle, started when not, reaped when old."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from lambdeno.emulator.environment import Deployment, Environment, Hooks
from lambdeno.emulator.invocation import Invocation, Outcome
from lambdeno.emulator.refusal import Refusal, TooManyRequests

__all__ = ["Pool"]

# An init that ends in one of these is tried once more, on the invocation's time, as on Lambda:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
RETRIED = frozenset({"Runtime.ExitError", "Sandbox.Timedout"})


class Pool:
    """Environments of one deployment, one for each concurrent invocation up to the limit."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._idle: list[Environment] = []  # the last one used is the next one used
        self._settling: set[Environment] = set()  # have answered, have not asked for more
        self._live: set[Environment] = set()
        self._waiting: deque[asyncio.Future[Environment | None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._hooks = Hooks(idle=self._take_back, dead=self._discard)
        self._warming: asyncio.Future[Outcome | None] | None = None
        self._is_retired = False  # replaced by another pool
        self._is_closed = False

    @property
    def is_alive(self) -> bool:
        """Whether any environment is left, or on its way out."""
        return bool(self._live or self._closing)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Handle one event in an environment. Raises TooManyRequests at the limit, Refusal at the end."""
        if self._warming and not self._warming.done():
            await asyncio.wait({self._warming})
        if self._is_closed:
            raise Refusal("The local Lambda is shutting down")
        environment = self._idle.pop() if self._idle else await self._next_to_settle()
        if environment is None:
            if len(self._live) >= self.deployment.function.concurrency:
                raise TooManyRequests("Rate Exceeded.")
            return await self._invoke_cold(invocation)
        return await self._invoke_warm(environment, invocation)

    async def warm(self) -> Outcome | None:
        """Have an environment ready before its first invocation: None, or why there is none.

        Invocations that come meanwhile wait for it.
        """
        if self._live or self._is_retired:
            return None
        self._warming = asyncio.ensure_future(self._warm())
        return await self._warming

    async def _warm(self) -> Outcome | None:
        environment = Environment(self.deployment, self._hooks, "(none yet)")
        self._live.add(environment)
        failure = await environment.initialise(self.deployment.settings.init_timeout)
        if failure:
            self._discard(environment)
        elif environment in self._live:
            self._take_back(environment)
        return failure

    def retire(self) -> None:
        """Take no new invocations; environments end with the one that they have."""
        self._is_retired = True
        while self._idle:
            self._discard(self._idle.pop())

    async def close(self) -> None:
        """End all environments now."""
        self._is_retired = self._is_closed = True
        if self._reaper:
            self._reaper.cancel()
        for environment in list(self._live):
            self._discard(environment)
        while self._closing:
            await asyncio.gather(*self._closing)

    async def _invoke_warm(self, environment: Environment, invocation: Invocation) -> Outcome:
        self._settling.add(environment)  # until it is idle again or dead
        return await environment.invoke(invocation)

    async def _invoke_cold(self, invocation: Invocation) -> Outcome:
        environment = self._new(invocation)
        failure = await environment.initialise(self.deployment.settings.init_timeout)
        if failure is None:
            return await self._invoke_warm(environment, invocation)
        if failure.error_type in RETRIED and not self._is_closed:
            self._discard(environment)
            environment = self._new(invocation)
            return await self._invoke_warm(environment, invocation)
        environment.report_failed(invocation, failure)
        self._discard(environment)
        return failure

    async def _next_to_settle(self) -> Environment | None:
        """Wait a little for an environment that has answered already; None if there is none."""
        answered = sum(environment.has_answered for environment in self._settling)
        if len(self._waiting) >= answered:
            return None
        future: asyncio.Future[Environment | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self.deployment.settings.settle):
                return await future
        except TimeoutError:
            return None

    def _new(self, invocation: Invocation) -> Environment:
        environment = Environment(self.deployment, self._hooks, invocation.request_id)
        self._live.add(environment)
        return environment

    def _take_back(self, environment: Environment) -> None:
        """An environment is idle again."""
        self._settling.discard(environment)
        if self._is_retired:
            self._discard(environment)
            return
        if not self._hand_over(environment):
            self._idle.append(environment)
            if self._reaper is None:
                self._reap_later(self.deployment.settings.idle_timeout)

    def _hand_over(self, environment: Environment | None) -> bool:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(environment)
                return True
        return False

    def _discard(self, environment: Environment) -> None:
        """An environment is dead, or is to be."""
        if environment not in self._live:
            return
        self._live.discard(environment)
        self._settling.discard(environment)
        if environment in self._idle:
            self._idle.remove(environment)
        task = asyncio.get_running_loop().create_task(environment.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._hand_over(None)

    def _reap_later(self, seconds: float) -> None:
        self._reaper = asyncio.get_running_loop().call_later(seconds, self._reap)

    def _reap(self) -> None:
        """End the environments that were idle for too long."""
        self._reaper = None
        limit = self.deployment.settings.idle_timeout
        now = time.monotonic()
        for environment in [e for e in self._idle if now - e.idle_since >= limit]:
            self._discard(environment)
        if self._idle:
            self._reap_later(max(0.01, limit - (now - min(e.idle_since for e in self._idle))))
