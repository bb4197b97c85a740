"""What the environment says, read once; a wrong value names its variable and what it may be."""

import posix

if False:  # for the type checker; importing typing would cost a millisecond
    from collections.abc import Callable

RUNTIMES = ("runtime1", "runtime2")
STANDBYS = ("auto", "on", "off")
INVOKE_MODES = ("buffered", "streaming")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SWITCH = ("off", "on")
EXTENSIONS = (".ts", ".mts", ".js", ".mjs")  # of a function that is no bundle
# What Deno is told of a function's modules; the community layer had these names.
OF_MODULES = (b"DENO_CONFIG", b"DENO_IMPORTMAP", b"DENO_LOCATION", b"DENO_LOCK", b"DENO_UNSTABLE")
DIGITS = 7  # of a number of milliseconds, or of a descriptor: fewer than that
ONE_PROCESSOR = 1769  # MB: up to here Lambda gives the time of one processor, though two can be seen
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
DEFAULT = "default"  # names that set where another one would hold
ALL = ["-A"]  # as functions of the community layer have it
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
        self.deno_dir = f"{self.task_root}/{get('DENO_DIR') or '.deno_dir'}"
        self.is_bundle = self._is_bundle(get("_HANDLER"), get("HANDLER_EXT"))
        self.is_plain = self.is_bundle and not any(name in environ for name in OF_MODULES)
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
        affinity = choose("LAMBDENO_AFFINITY", ("auto", *SWITCH))
        is_small = memory.isdigit() and int(memory) <= ONE_PROCESSOR
        self.affinity = affinity == "on" or (affinity == "auto" and is_small)
        self.is_pipelining = choose("LAMBDENO_PIPELINING", ("on", "off")) == "on"
        self.private_tmp = choose("LAMBDENO_PRIVATE_TMP", SWITCH) == "on"
        if self.private_tmp and self.runtime == "runtime1":
            raise SettingsError('LAMBDENO_PRIVATE_TMP is "on"; it needs LAMBDENO_RUNTIME=runtime2')
        margin = get("LAMBDENO_SIGNAL_MARGIN", "500")
        if not (margin.isdigit() and len(margin) < DIGITS):
            raise SettingsError(f'LAMBDENO_SIGNAL_MARGIN is "{margin}"; it must be a number of milliseconds')
        choose("LAMBDENO_INVOKE_MODE", INVOKE_MODES)  # which runtime.js reads
        self.inspect = get("LAMBDENO_INSPECT")
        if self.inspect:
            self._check_inspect()
        self.is_debug = choose("LAMBDENO_DEBUG", ("", "1", "0")) == "1"
        self.note: Callable[[str], None] | None = None  # takes what is done, for LAMBDENO_DEBUG
        self.memory = memory
        self.permission_setting = "LAMBDENO_PERMISSIONS"
        self.permissions = self._permissions(get)  # None: the default set

    def permissions_in(self, tmp: str) -> list[str]:
        """The Deno permission flags of a process whose writable folder this is."""
        if self.permissions is not None:
            return list(self.permissions)
        return [flag.format(task=self.task_root, layer=self.layer, tmp=tmp) for flag in DEFAULT_PERMISSIONS]

    def _is_bundle(self, handler: str, extension: str) -> bool:
        """Whether the function is a bundle of ours, or the dummy, and no module as somebody wrote it."""
        file = f"{self.task_root}/{handler.removeprefix('./').partition('.')[0]}"
        if extension:
            return False
        return posix.access(file + ".bundle.js", 4) or not any(
            posix.access(file + other, 4) for other in EXTENSIONS
        )

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

    def _check_inspect(self) -> None:
        """A debugger may do all that the function may: it gets one process to talk to, on this machine."""
        host, _, port = self.inspect.rpartition(":")
        if host not in LOOPBACK or not (port.isdigit() and len(port) < DIGITS and int(port) < 65536):
            raise SettingsError(
                f'LAMBDENO_INSPECT is "{self.inspect}"; it must be a port of this machine: 127.0.0.1:port'
            )
        if self.runtime != "runtime1":
            raise SettingsError(
                f'LAMBDENO_INSPECT is "{self.inspect}"; it needs LAMBDENO_RUNTIME=runtime1:'
                " a debugger stays with one process"
            )

    def _permissions(self, get: "Callable[..., str]") -> list[str] | None:
        """The user's own flags; None means the default set.

        A function that lambdeno has not built may do all where nobody says what it may, as the
        community layer let it.
        """
        if b"LAMBDENO_PERMISSIONS" in self.environ:
            words = get("LAMBDENO_PERMISSIONS").split()
            if not words or words == [DEFAULT]:
                return None
            for word in words:
                if not word.startswith(PERMISSION_FLAGS):
                    raise SettingsError(
                        f'LAMBDENO_PERMISSIONS has "{word}"; it may hold Deno permission flags alone'
                        f" (--allow-…, --deny-…, -A), separated by spaces, or be {DEFAULT}"
                    )
            return words
        if b"DENO_PERMISSIONS" in self.environ:
            self.permission_setting = "DENO_PERMISSIONS"
            words = get("DENO_PERMISSIONS").split()
            for word in words:
                if not word.startswith("-"):
                    raise SettingsError(
                        f'DENO_PERMISSIONS has "{word}"; it may hold flags of Deno alone, separated by spaces'
                    )
            return words
        return None if self.is_bundle else ALL
