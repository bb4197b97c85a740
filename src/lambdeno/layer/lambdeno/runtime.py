"""What both runtimes have in common: a Deno that loads the function, and a word for each way it can fail."""

from connection import Closed, Connection
from deno import Deno, DenoError

if False:  # for the type checker; importing typing would cost a millisecond
    from fault import Fault
    from runtime_api import RuntimeApi


class Runtime:
    """A Deno process and the connection to its bridge; the bridge's first message is its own.

    It is a response to no request: 200 when the function is loaded, or the error that it failed with.
    """

    bridge: Connection

    def __init__(self, deno: Deno) -> None:
        self.deno = deno
        self.fault: Fault | None = None

    def is_ready(self) -> bool:
        """Wait until the function is loaded, or cannot be."""
        return self.connect() and self.loaded()

    def loaded(self) -> bool:
        """Wait for the bridge's first message: whether it has loaded the function."""
        try:
            self.bridge.receive()
            return self.bridge.status() == 200
        except Closed:
            self.ended("while it loaded the function")
            return False

    def connect(self) -> bool:
        """Have a bridge to talk to; False with a fault where Deno ended before."""
        raise NotImplementedError

    def report_init(self, api: "RuntimeApi") -> None:
        """Tell Lambda why the function cannot be loaded: Deno's end, or what runtime.js answered."""
        if self.fault:
            self.fault.report_init(api)
        else:
            api.init_error(self.bridge)

    def start(self) -> bool:
        """Start another Deno; False with a fault where it cannot be had."""
        self.fault = None
        try:
            self.deno.start()
        except DenoError as error:
            self.fail(*error.args)
            return False
        return True

    def ended(self, when: str) -> "Fault":
        """Deno is gone, or about to be."""
        from fault import ending

        return self.fail("Runtime.ExitError", f"Deno exited {when}: {ending(self.deno.end())}")

    def fail(self, error_type: str, message: str) -> "Fault":
        """Something of ours failed."""
        from fault import Fault

        self.fault = Fault(error_type, message)
        return self.fault
