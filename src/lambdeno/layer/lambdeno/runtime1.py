"""runtime1: one Deno process for the execution environment; each event is an HTTP request to it.

Deno connects to our Unix socket as soon as runtime.js runs. Then the socket's path goes away, so
that this one connection is the only way to either side. The first message on it is the bridge's:
a response to no request, 200 when the function is loaded, or the error that it failed with.
"""

import posix
from _socket import AF_UNIX, SOCK_STREAM, socket

from connection import Closed, Connection
from deno import Deno, DenoError, sweep

if False:  # for the type checker; importing typing would cost a millisecond
    from fault import Fault
    from runtime_api import RuntimeApi

LIVENESS = 0.1  # s: how soon a Deno that dies before it connects is noticed
ROOM = 1024 * 1024  # bytes on their way between the two: fewer wake-ups for large bodies
SOL_SOCKET, SO_SNDBUF = 1, 7


class Runtime1:
    """The function's process, and the connection to it."""

    def __init__(self, deno: Deno) -> None:
        self.deno = deno
        self.fault: Fault | None = None

    def is_ready(self) -> bool:
        """Wait until the function is loaded, or cannot be."""
        self.fault = None
        if not self._connect():
            return False
        try:
            sweep(self.deno.folder)  # while the function loads
            self.bridge.receive()
            return self.bridge.status() == 200
        except Closed:
            self._ended("while it loaded the function")
            return False

    def report_init(self, api: "RuntimeApi") -> None:
        """Tell Lambda why the function cannot be loaded: Deno's end, or what runtime.js answered."""
        if self.fault:
            self.fault.report_init(api)
        else:
            api.init_error(self.bridge)

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

    def _connect(self) -> bool:
        listener = self.deno.listener
        listener.settimeout(LIVENESS)
        while True:
            try:
                # socket.accept is Python code in a module of 6 ms; this is the C below it
                descriptor, _ = listener._accept()  # type: ignore[attr-defined]
                break
            except TimeoutError:
                status = self.deno.has_ended()
                if status is not None:
                    self._ended("before it ran runtime.js", status)
                    return False
        sock = socket(AF_UNIX, SOCK_STREAM, 0, descriptor)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, ROOM)
        listener.close()
        posix.unlink(self.deno.socket)
        self.bridge = Connection(sock)
        return True

    def _replace(self, api: "RuntimeApi") -> bool:
        """Answer an invocation whose Deno is gone, and start another for the next one."""
        fault = self._ended(f"while it handled request {api.request_id.decode()}")
        self.bridge.sock.close()
        fault.report(api)
        try:
            self.deno.start()
        except DenoError as error:
            self._fail(*error.args)
            return False
        return self.is_ready()

    def _ended(self, when: str, status: int | None = None) -> "Fault":
        from fault import ending

        how = ending(self.deno.end() if status is None else status)
        return self._fail("Runtime.ExitError", f"Deno exited {when}: {how}")

    def _fail(self, error_type: str, message: str) -> "Fault":
        from fault import Fault

        self.fault = Fault(error_type, message)
        return self.fault
