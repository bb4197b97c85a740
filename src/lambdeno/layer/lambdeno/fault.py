"""What went wrong on our side of the function, in the words that Lambda keeps. Error path only."""

import posix
from _json import encode_basestring_ascii as quoted

from logs import write
from runtime_api import ERROR_TYPE, RuntimeApi

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
SIGTRAP, SIGKILL = 5, 9
CRASHES = frozenset({4, 6, 7, 8, 11, 31})  # signals that a process brings upon itself
ENOENT, ENOEXEC, EACCES = 2, 8, 13
MACHINES = {0x3E: "x86_64", 0xB7: "arm64"}  # of ELF


class Fault:
    """An error of the runtime, not of the handler.

    ``error_type`` is of the form that the platform keeps: ``Runtime.`` or ``Function.`` and letters.
    """

    def __init__(self, error_type: str, message: str, request_id: bytes = b"") -> None:
        self.error_type = error_type
        self.message = message
        write("ERROR", f"lambdeno: {error_type}: {message}", request_id)

    def head(self) -> bytes:
        """The header lines of the post."""
        cause = '{"working_directory":%s,"exceptions":[{"type":%s,"message":%s,"stack":[]}],"paths":[]}'
        return (
            b"\r\nContent-Type: %b\r\nLambda-Runtime-Function-Error-Type: %b"
            b"\r\nLambda-Runtime-Function-XRay-Error-Cause: %b"
        ) % (
            ERROR_TYPE,
            self.error_type.encode(),
            (cause % (task_root(), quoted(self.error_type), quoted(self.message[:512]))).encode(),
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


def task_root() -> str:
    """Where the function is, as JSON."""
    return quoted(posix.environ.get(b"LAMBDA_TASK_ROOT", b"/var/task").decode("utf-8", "replace"))


def ending(status: int, memory: str, was_out_of_memory: bool) -> tuple[str, str]:
    """How a child process ended, from its wait status: an error type, and the platform's words.

    ``memory`` is the function's in MB; ``was_out_of_memory`` where the kernel has ended a process
    for its memory meanwhile.
    """
    if not posix.WIFSIGNALED(status):
        return "Runtime.ExitError", f"exit status {posix.WEXITSTATUS(status)}"
    number = posix.WTERMSIG(status)
    said = f"signal: {SIGNALS.get(number, number)}"
    if number == SIGTRAP:
        return "Runtime.OutOfMemory", f"{said}: so V8 ends where its heap is full; its words are above"
    if number == SIGKILL and was_out_of_memory:
        return "Runtime.OutOfMemory", f"{said}: the memory was used up, of which the function has {memory} MB"
    if number in CRASHES:
        return "Runtime.DenoCrashed", said
    return "Runtime.DenoKilled", said


def not_executable(path: str, error: OSError) -> tuple[str, str]:
    """Why a file cannot be started: an error type and a message."""
    if error.errno not in (ENOENT, ENOEXEC, EACCES):
        return "Runtime.NoProcess", f"Cannot start another process: {error.strerror}"
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        head = posix.read(descriptor, 20)
        posix.close(descriptor)
    except OSError:
        head = b""
    machine = MACHINES.get(int.from_bytes(head[18:20], "little"), "another architecture")
    ours = {"aarch64": "arm64"}.get(posix.uname().machine, posix.uname().machine)
    if head.startswith(b"\x7fELF") and machine != ours:
        return (
            "Runtime.DenoWrongArchitecture",
            f"{path} is for {machine} and the function runs on {ours}:"
            " the Deno layer's architecture must be the function's",
        )
    return (
        "Runtime.DenoNotExecutable",
        f"Cannot start {path}: {error.strerror}; is it the Deno layer that lambdeno build made?",
    )
