"""What the environment says, read once; a wrong value names its variable and what it may be."""

import posix

if False:  # for the type checker; importing typing would cost a millisecond
    from collections.abc import Callable

RUNTIMES = ("runtime1", "runtime2")
STANDBYS = ("auto", "on", "off")
SWITCH = ("off", "on")
DIGITS = 7  # of a number of milliseconds, or of a descriptor: fewer than that
STANDBY_MEMORY = 256  # MB: below it two Deno processes and a function hardly fit (docs/runtimes.md)

# Least rights that ordinary functions need: the AWS SDK asks for sys (os.release) on its first call.
DEFAULT_PERMISSIONS = (
    "--allow-net",
    "--allow-env",
    "--allow-sys",
    "--deny-sys=setPriority",  # a function could slow the bootstrap down
    "--allow-read={task},{layer},{tmp}",
    "--allow-write={tmp}",
)
PERMISSION_FLAGS = ("--allow-", "--deny-", "--ignore-", "-A", "-N", "-E", "-R", "-W", "-S", "-I")


class SettingsError(Exception):
    """A variable has a value that it cannot have."""


class Settings:
    """The environment of this process as the runtime needs it.

    ``environ`` is ``posix.environ`` (bytes to bytes); ``layer`` is the folder of the bootstrap,
    ``/opt`` on Lambda. Raises SettingsError.
    """

    def __init__(self, environ: dict[bytes, bytes], layer: str) -> None:
        def get(name: str, default: str = "") -> str:
            return environ.get(name.encode(), default.encode()).decode("utf-8", "surrogateescape")

        self.environ = environ
        self.layer = layer
        self.telemetry = self._telemetry(get("_LAMBDA_TELEMETRY_LOG_FD"))  # before a word is logged
        self.runtime_api = get("AWS_LAMBDA_RUNTIME_API")
        self.task_root = get("LAMBDA_TASK_ROOT", "/var/task")
        self.tmp = get("TMPDIR", "/tmp")
        self.path = get("PATH", "/usr/local/bin:/usr/bin:/bin")
        port = self.runtime_api.rpartition(":")[2]
        if not (port.isdigit() and len(port) < DIGITS and 0 < int(port) < 65536):
            raise SettingsError(
                f'AWS_LAMBDA_RUNTIME_API is "{self.runtime_api}"; it must be host:port'
                " (Lambda sets it; the bootstrap does not run outside an execution environment)"
            )

        def choose(name: str, known: tuple[str, ...]) -> str:
            value = get(name, known[0])
            if value not in known:
                raise SettingsError(f'{name} is "{value}"; it may be {" or ".join(filter(None, known))}')
            return value

        self.runtime = choose("LAMBDENO_RUNTIME", RUNTIMES)
        standby = choose("LAMBDENO_STANDBY", STANDBYS)
        memory = get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        is_large = not memory.isdigit() or int(memory) >= STANDBY_MEMORY
        self.standby = standby == "on" or (standby == "auto" and is_large)
        self.private_tmp = choose("LAMBDENO_PRIVATE_TMP", SWITCH) == "on"
        if self.private_tmp and self.runtime == "runtime1":
            raise SettingsError('LAMBDENO_PRIVATE_TMP is "on"; it needs LAMBDENO_RUNTIME=runtime2')
        margin = get("LAMBDENO_SIGNAL_MARGIN", "500")
        if not (margin.isdigit() and len(margin) < DIGITS):
            raise SettingsError(f'LAMBDENO_SIGNAL_MARGIN is "{margin}"; it must be a number of milliseconds')
        self.is_debug = choose("LAMBDENO_DEBUG", ("", "1", "0")) == "1"
        self.note: Callable[[str], None] | None = None  # takes what is done, for LAMBDENO_DEBUG
        self.memory = memory
        self.permissions = self._permissions(get("LAMBDENO_PERMISSIONS"))

    def permissions_in(self, tmp: str) -> list[str]:
        """The Deno permission flags of a process whose writable folder this is."""
        if self.permissions:
            return list(self.permissions)
        return [flag.format(task=self.task_root, layer=self.layer, tmp=tmp) for flag in DEFAULT_PERMISSIONS]

    def _telemetry(self, name: str) -> int | None:
        """The descriptor that takes whole log events, where the platform gives one; no child has it."""
        if not (name.isdigit() and len(name) < DIGITS):
            return None
        try:
            posix.set_inheritable(int(name), False)
        except OSError:
            del self.environ[b"_LAMBDA_TELEMETRY_LOG_FD"]
            return None
        return int(name)

    def _permissions(self, flags: str) -> list[str]:
        """The user's own flags; none means the default set."""
        words = flags.split()
        for word in words:
            if not word.startswith(PERMISSION_FLAGS):
                raise SettingsError(
                    f'LAMBDENO_PERMISSIONS has "{word}"; it may hold Deno permission flags alone'
                    " (--allow-…, --deny-…, -A), separated by spaces"
                )
        return words
