"""runtime2: a fresh Deno process for every invocation; the next one loads the function meanwhile.

    result posted -> this process told to finish -> the next one started -> the last words of this one
                  -> it is over -> the next one given its mark -> it has loaded the function -> /next

Deno's own start overlaps the end of the process before it; the function is not loaded until that is
over, with its ports and files. The next event is not asked for before (PATIENCE), since Lambda freezes
an environment that waits: a half started process would go on when its event is there, and no sooner.
Standard input brings the event, standard output the result.
"""

import posix

from connection import Closed, Connection
from deno import Deno, sweep
from runtime import Runtime
from streams import Streams

if False:  # for the type checker; importing typing would cost a millisecond
    from fault import Fault
    from runtime_api import RuntimeApi

PATIENCE = 1.0  # s that the next process has to load the function before /next: it is billed
BOUND = 0.5  # s that a process may take to finish: what is billed of one that ignores its end


class Runtime2(Runtime):
    """The process that waits for the next event, where there is one."""

    def __init__(self, deno: Deno) -> None:
        super().__init__(deno)
        self.has_standby = deno.settings.standby
        self.is_started = True  # the bootstrap starts the first one
        self.is_loaded = False
        self.is_possible = True  # to start a process for an event

    def is_ready(self) -> bool:
        """The first process has loaded the function before the first event: its errors are init errors."""
        if not self.connect():
            return False
        sweep(self.deno.home)
        self._prepare_next()
        return self.loaded()

    def answer(self, event: Connection, api: "RuntimeApi") -> bool:
        """Give one event to a process of its own and its outcome to Lambda. False: none can be had."""
        if self._is_warm():
            self._exchange(event, api)
        else:
            event.drain()
            self._refuse(api)
        self._follow()
        return self.is_possible

    def connect(self) -> bool:
        """See Runtime."""
        self.streams = Streams(self.deno)
        if hasattr(self, "bridge"):
            self.bridge.sock = self.streams  # its buffer serves all of them
        else:
            self.bridge = Connection(self.streams)
        try:
            if self.deno.settings.private_tmp:
                posix.mkdir(self.deno.tmp, 0o700)
        except OSError as error:
            end(self.deno, self.streams)
            self.is_started = False
            self.fail("Runtime.NoWritableFolder", f"Cannot make {self.deno.tmp}: {error.strerror}")
            return False
        try:
            self.streams.sendall(self.streams.mark)
        except OSError:
            pass  # it is gone: the first look at it will tell
        return True

    def loaded(self) -> bool:
        """See Runtime."""
        self.is_loaded = super().loaded()
        return self.is_loaded

    def ended(self, when: str) -> "Fault":
        """See Runtime; its last words come before ours."""
        self.streams.finish(BOUND)
        self.is_started = False
        return super().ended(when)

    def _spawn(self) -> bool:
        """Start a process that will load the function when it is connected to."""
        self.is_loaded = False
        self.deno = self.next
        return self.start()

    def _prepare_next(self) -> None:
        """Have the folder of another process ready, while Deno starts."""
        self.next = Deno(self.deno.settings, self.deno.home)
        try:
            self.next.prepare()
        except OSError:
            pass  # its start will try again, and tell

    def _is_warm(self) -> bool:
        """Whether there is a process that has loaded the function; waits for it."""
        if self.is_started and self.deno.has_ended() is not None:
            self.ended("while it waited for an event")  # which it never got: another one can take it
        if not self.is_started:
            self.is_possible = self.is_started = self._spawn() and self.connect()
            self._prepare_next()
        return self.is_started and (self.is_loaded or self.loaded())

    def _exchange(self, event: Connection, api: "RuntimeApi") -> None:
        bridge = self.bridge
        try:
            event.forward(bridge, b"POST /invocation HTTP/1.1")
        except OSError:
            event.drain()
            self._report_end(api)
            return
        try:
            bridge.receive()
            api.answer(b"response" if bridge.status() == 200 else b"error", bridge)
        except Closed:
            self._report_end(api)

    def _report_end(self, api: "RuntimeApi") -> None:
        self.ended(f"while it handled request {api.request_id.decode()}").report(api)

    def _refuse(self, api: "RuntimeApi") -> None:
        """Answer an event that no process could take."""
        if self.fault:
            self.fault.report(api)
        else:
            api.answer(b"error", self.bridge)

    def _follow(self) -> None:
        """End the process with all that it has left open, and have another one follow it."""
        before = (self.deno, self.streams) if self.is_started else None
        if before:
            self.streams.tell_to_finish()
        self.is_started = self.has_standby and self._spawn()
        if before:
            end(*before)
        if self.is_started and self.connect():
            self._prepare_next()
            if not self.streams.has_said(PATIENCE):
                return  # a slow one goes on loading when its event is there
            if not self.loaded() and self.is_started:  # the next event has another process try
                end(self.deno, self.streams)
                self.is_started = False


def end(deno: Deno, streams: Streams) -> None:
    """Have the last words of a process, and let nothing of it remain."""
    streams.finish(BOUND)
    deno.kill()
