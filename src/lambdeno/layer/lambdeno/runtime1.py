"""runtime1: one Deno process for the execution environment; each event is an HTTP request to it.

Deno connects to our Unix socket as soon as runtime.js runs. Then the socket's path goes away, so
that this one connection is the only way to either side.
"""

import posix
from _socket import AF_UNIX, SOCK_STREAM, socket

from connection import Closed, Connection
from deno import sweep
from runtime import Runtime

if False:  # for the type checker; importing typing would cost a millisecond
    from runtime_api import RuntimeApi

LIVENESS = 0.1  # s: how soon a Deno that dies before it connects is noticed
ROOM = 1024 * 1024  # bytes on their way between the two: fewer wake-ups for large bodies
SOL_SOCKET, SO_SNDBUF = 1, 7


class Runtime1(Runtime):
    """The function's process, and the connection to it."""

    def answer(self, event: Connection, api: "RuntimeApi") -> bool:
        """Send one event to the function and its outcome to Lambda. False: Deno cannot be had again."""
        bridge = self.bridge
        try:
            event.forward(bridge, b"POST /invocation HTTP/1.1")
        except OSError:
            event.drain()
            return self._replace(api)
        try:
            bridge.receive()
            api.answer(b"response" if bridge.status() == 200 else b"error", bridge)
        except Closed:
            return self._replace(api)
        return True

    def connect(self) -> bool:
        """See Runtime."""
        listener = self.deno.listener
        listener.settimeout(LIVENESS)
        while True:
            try:
                # socket.accept is Python code in a module of 6 ms; this is the C below it
                descriptor, _ = listener._accept()  # type: ignore[attr-defined]
                break
            except TimeoutError:
                if self.deno.has_ended() is not None:
                    self.ended("before it ran runtime.js")
                    return False
        sock = socket(AF_UNIX, SOCK_STREAM, 0, descriptor)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, ROOM)
        listener.close()
        posix.unlink(self.deno.socket)
        self.bridge = Connection(sock)
        sweep(self.deno.folder)  # while the function loads
        return True

    def _replace(self, api: "RuntimeApi") -> bool:
        """Answer an invocation whose Deno is gone, and start another for the next one."""
        fault = self.ended(f"while it handled request {api.request_id.decode()}")
        self.bridge.sock.close()
        fault.report(api)
        return self.start() and self.is_ready()
