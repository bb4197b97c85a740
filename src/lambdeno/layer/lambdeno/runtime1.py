"""runtime1: one Deno process for the execution environment; each event is an HTTP request to it.

Deno connects to our Unix socket as soon as runtime.js runs. Then the socket's path goes away, so
that this one connection is the only way to either side.
"""

import posix
from _socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic

from connection import SO_RCVTIMEO, SOL_SOCKET, TIMEOUT, Closed, Connection, Malformed
from deno import sweep
from relay import relay
from runtime import BOUND, Runtime

LIVENESS = 0.1  # s: how soon a Deno that dies before it connects is noticed
ROOM = 1024 * 1024  # bytes on their way between the two: fewer wake-ups for large bodies
SO_SNDBUF, SO_SNDTIMEO = 7, 21

if False:  # for the type checker; importing typing would cost a millisecond
    from runtime_api import RuntimeApi


class Runtime1(Runtime):
    """The function's process, and the connection to it."""

    def serve(self, api: "RuntimeApi") -> bool:
        """See Runtime: the short way, where nothing else is to be done between two events."""
        if self.is_loaded and self.telemetry is None and not (api.on_quiet or api.note):
            return relay(self, api)
        return super().serve(api)

    def answer(self, event: Connection, api: "RuntimeApi") -> bool:
        """See Runtime; a process that has said what nobody asked for is replaced before it gets an event."""
        if self.is_loaded and self.bridge.has_more:
            self.pass_late_logs()
        return super().answer(event, api)

    def loaded(self) -> bool:
        """See Runtime; from then on, both processes share one processor where there is no more."""
        if super().loaded() and self.deno.settings.affinity:
            share_processor(self.deno.pid)
        return self.is_loaded

    def resume(self, event: Connection, api: "RuntimeApi", *, is_unread: bool) -> bool:
        """Go on with an event that the bridge may have read; what it gives: see Runtime.answer."""
        self.conclude(event, api, is_unread=is_unread)
        self.follow()
        return self.is_possible

    def follow(self) -> None:
        """See Runtime."""
        if self.telemetry is not None:
            self.pass_late_logs()  # before the environment may freeze
        if not self.is_started:
            super().follow()

    def pass_late_logs(self) -> None:
        """Pass on what was logged after the answer; end a process that says anything else."""
        if self.is_loaded:
            try:
                self._pass_logs(0)
            except Malformed as error:
                self.ended("after it had answered", error)

    def connect(self, patience: float | None = None) -> bool:
        """See Runtime."""
        listener = self.deno.listener
        listener.settimeout(LIVENESS)
        until = monotonic() + patience if patience is not None else None
        while True:
            try:
                # socket.accept is Python code in a module of 6 ms; this is the C below it
                descriptor, _ = listener._accept()  # type: ignore[attr-defined]
                break
            except TimeoutError:
                if self.deno.has_ended() is not None:
                    self.ended("before it ran runtime.js")
                    return False
                if until and monotonic() > until:
                    return False
        sock = socket(AF_UNIX, SOCK_STREAM, 0, descriptor)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, ROOM)
        for option in (SO_RCVTIMEO, SO_SNDTIMEO):
            sock.setsockopt(SOL_SOCKET, option, TIMEOUT)
        listener.close()
        try:
            posix.unlink(self.deno.socket)
        except FileNotFoundError:
            pass  # the function has emptied the folder
        self.sock, self.bridge = sock, Connection(sock)
        self.bridge.on_quiet = self.look
        self.bridge.on_informational = self.take
        self.is_connected = True
        sweep(self.deno.folder)  # while the function loads
        return True

    def last_words(self) -> None:
        """See Runtime; of one that was never connected to, there are none."""
        if self.is_connected:
            self._pass_logs(BOUND)
            self.sock.close()

    def _pass_logs(self, bound: float) -> None:
        """Pass log events on until the process is over, for ``bound`` s at most; 0: those that are there.

        Raises Malformed where there is anything else and the process is to live on.
        """
        bridge = self.bridge
        until = monotonic() + (bound or LIVENESS)

        def expire() -> None:
            is_late = monotonic() > until
            if bridge.end == 0 and (not bound or is_late):
                raise Closed
            if is_late:
                raise Malformed("half a message")

        def take(said: memoryview) -> None:
            self.take(said)
            if monotonic() > until:
                raise Closed

        bridge.on_quiet, bridge.on_informational = expire, take
        self.sock.setblocking(bool(bound))
        try:
            while True:
                bridge.receive()
                if not bound:
                    raise Malformed("an answer that nothing has asked for")
                bridge.drain()
        except Malformed:
            if not bound:
                raise
        except Closed:
            pass
        finally:
            self.sock.setblocking(True)
            bridge.on_quiet, bridge.on_informational = self.look, self.take


def share_processor(pid: int) -> None:
    """Have this thread and the main one of a process on the same processor.

    They take turns: a processor that has just been waited on is awake, and one that sleeps has to be sent an
    interrupt (0.61 of the fetch loop's time against 0.73, docs/decisions.md).
    """
    try:
        one = {max(posix.sched_getaffinity(0))}
        for thread in (0, pid):
            posix.sched_setaffinity(thread, one)
    except OSError:
        pass  # it is slower then, or has just ended
