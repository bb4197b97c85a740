"""What went wrong on our side of the function, in the words that Lambda keeps. Error path only."""

import posix
from _json import encode_basestring_ascii as quoted

from runtime_api import ERROR_TYPE, RuntimeApi, log

# Those that end a process, by their numbers on Linux: the signal module is not part of the binary.
SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}


class Fault:
    """An error of the runtime, not of the handler.

    ``error_type`` is of the form that the platform keeps: ``Runtime.`` or ``Function.`` and letters.
    """

    def __init__(self, error_type: str, message: str) -> None:
        self.error_type = error_type
        self.message = message
        log(f"lambdeno: {error_type}: {message}")

    def head(self) -> bytes:
        """The header lines of the post."""
        return b"\r\nContent-Type: %b\r\nLambda-Runtime-Function-Error-Type: %b" % (
            ERROR_TYPE,
            self.error_type.encode(),
        )

    def body(self) -> bytes:
        """The error as Lambda shows it to the caller."""
        return b'{"errorType":%b,"errorMessage":%b,"trace":[]}' % (
            quoted(self.error_type).encode(),
            quoted(self.message).encode(),
        )

    def report(self, api: RuntimeApi) -> None:
        """Answer the running invocation with this error."""
        api.post_error(self.head(), self.body())

    def report_init(self, api: RuntimeApi) -> None:
        """Say that this environment cannot serve."""
        api.post_init_error(self.head(), self.body())


def ending(status: int) -> str:
    """How a child process ended, from its wait status, in the platform's words."""
    if posix.WIFSIGNALED(status):
        number = posix.WTERMSIG(status)
        return f"signal: {SIGNALS.get(number, number)}"
    return f"exit status {posix.WEXITSTATUS(status)}"
