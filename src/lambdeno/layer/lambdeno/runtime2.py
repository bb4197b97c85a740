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
from deno import Deno, remove, sweep
from runtime import BOUND, SIGTERM, Runtime
from streams import Streams

if False:  # for the type checker; importing typing would cost a millisecond
    from runtime_api import RuntimeApi


class Runtime2(Runtime):
    """The process that waits for the next event, where there is one."""

    def __init__(self, deno: Deno) -> None:
        super().__init__(deno)
        self.has_standby = deno.settings.standby
        self.next: Deno | None = None  # its folder is there already

    def is_ready(self) -> bool:
        """See Runtime."""
        if not self.connect():
            return False
        sweep(self.deno.home)
        return self.loaded()

    def connect(self, patience: float | None = None) -> bool:  # noqa: ARG002 - there is nothing to wait for
        """See Runtime."""
        self.streams = Streams(self.deno)
        if hasattr(self, "bridge"):
            self.bridge.sock = self.streams  # its buffer serves all of them
            self.bridge.forget()
        else:
            self.bridge = Connection(self.streams)
            self.bridge.on_quiet = self.look
            self.bridge.on_informational = self.take
        self.is_connected = True
        try:
            if self.deno.settings.private_tmp:
                posix.mkdir(self.deno.tmp, 0o700)
        except OSError as error:
            self.let_go()
            self.fail("Runtime.NoWritableFolder", f"Cannot make {self.deno.tmp}: {error.strerror}")
            return False
        try:
            self.streams.send(self.streams.mark)
        except OSError:
            pass  # it is gone: the first look at it will tell
        self._prepare_next()
        return True

    def answer(self, event: Connection, api: "RuntimeApi") -> bool:
        """See Runtime."""
        self.request_id = api.request_id
        if self.is_started and self.deno.has_ended() is not None:
            self.ended("while it waited for an event")  # which it never got: another one can take it
        return super().answer(event, api)

    def last_words(self) -> None:
        """See Runtime."""
        if self.is_connected:
            self._finish(self.streams)

    def shut_down(self) -> None:
        """See Runtime; the streams may be those of a process that is just finishing."""
        if self.is_connected and self.deno.has_ended() is None:
            posix.kill(self.deno.pid, SIGTERM)
        self.streams.finish(BOUND, is_told=True)
        self.streams.deno.kill()
        super().shut_down()
        remove(self.deno.home)

    def start_again(self) -> bool:
        """See Runtime: the next process has a folder of its own."""
        self.deno, self.next = self.next or Deno(self.deno.settings, self.deno.home), None
        return super().start_again()

    def follow(self) -> None:
        """End the process with all that it has left open, and have another one follow it."""
        before = (self.deno, self.streams) if self.is_started else None
        if before:
            self.streams.tell_to_finish()
        self.is_started = self.is_connected = self.is_loaded = False
        if self.has_standby and self.is_possible and self.deaths <= 1:
            self.is_possible = self.start_again()
        if before:
            self._finish(before[1])
            before[0].kill()
        if self.is_started and self.connect():
            self.await_load()

    def _finish(self, streams: Streams) -> None:
        """Have the last words of a process, log events of the bridge among them."""
        streams.finish(BOUND)
        bridge = self.bridge
        bridge.on_quiet = no_more
        try:
            while True:
                bridge.receive()
                bridge.drain()
        except Closed:
            bridge.on_quiet = self.look

    def _prepare_next(self) -> None:
        """Have the folder of another process ready, while this one loads the function."""
        self.next = Deno(self.deno.settings, self.deno.home)
        try:
            self.next.prepare()
        except OSError:
            pass  # its start will try again, and tell


def no_more() -> None:
    """A process that is over says nothing after what it has said."""
    raise Closed
