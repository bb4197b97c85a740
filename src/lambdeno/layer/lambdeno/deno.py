"""The Deno process: where it is, what it may do, what it finds in its environment, how it ended."""

import posix
from _socket import AF_UNIX, SOCK_STREAM, socket
from time import sleep, time_ns

from settings import Settings, SettingsError

CACHES = ("v8_code_cache_v2", "dep_analysis_cache_v2", "node_analysis_cache_v2")
FLAGS = (
    "run",
    "--quiet",
    "--no-prompt",
    "--no-check",
    "--cached-only",
    "--no-npm",
    "--no-config",
    "--no-lock",
)
SIGKILL, SIGPIPE = 9, 13
WNOHANG = 1
PREFIX = "lambdeno"  # of our folders in the writable place: lambdeno.<pid>.<time>
BRIDGE_VARIABLES = ",".join(  # what runtime.js reads and writes
    (
        "LAMBDENO_SOCKET",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "LAMBDA_TASK_ROOT",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
    )
)
LONGEST_FOLDER = 80  # a Unix socket's path has at most 104 bytes (macOS; 108 on Linux)


class DenoError(Exception):
    """Deno cannot be started; arguments are the error type and the message for Lambda."""


class Deno:
    """One Deno process that runs runtime.js, and its private folder in the writable place.

    ``listener`` listens on the Unix socket that runtime.js connects to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def start(self) -> None:
        """Start the process and return at once. Raises DenoError, SettingsError."""
        executable = find(self.settings)
        try:
            self._prepare()
        except OSError as error:
            raise DenoError(
                "Runtime.NoWritableFolder",
                f"Cannot write to {self.settings.tmp}: {error.strerror}; Deno needs a few MB there",
            ) from None
        try:
            permissions = self._permissions()
        except SettingsError:
            remove(self.folder)
            raise
        arguments = [executable, *FLAGS, *permissions, self.settings.layer + "/lambdeno/runtime.js"]
        try:
            self.pid = posix.posix_spawn(
                executable,
                arguments,
                self._environment(),
                setsigdef=[SIGPIPE],  # Python ignores it, and a child would inherit that
            )
        except OSError as error:
            raise DenoError(
                "Runtime.DenoNotExecutable",
                f"Cannot start {executable}: {error.strerror};"
                " the Deno layer's architecture must be the function's",
            ) from None

    def _prepare(self) -> None:
        """Make the folder, the socket and the caches that Deno is to find. Raises OSError."""
        self.folder = fresh_folder(self.settings.tmp)
        self.socket = self.folder + "/bridge"
        self.listener = socket(AF_UNIX, SOCK_STREAM)
        self.listener.bind(self.socket)
        self.listener.listen(1)
        # Before the start, since Deno opens its caches in its first milliseconds: 2.4 MB take 1 ms.
        copy_caches(self.settings, self.folder)

    def has_ended(self) -> int | None:
        """The wait status, once, if the process is over; else None."""
        pid, status = posix.waitpid(self.pid, WNOHANG)
        return status if pid else None

    def end(self) -> int:
        """Wait for a process that is about to end, kill it if it does not, give its wait status."""
        status = self.has_ended()
        for _ in range(100):
            if status is not None:
                break
            sleep(0.01)
            status = self.has_ended()
        else:
            posix.kill(self.pid, SIGKILL)
            status = posix.waitpid(self.pid, 0)[1]
        remove(self.folder)
        return status

    def _permissions(self) -> list[str]:
        """The function's permissions, what the bridge itself needs, and no way to the Runtime API."""
        port = self.settings.runtime_api.rpartition(":")[2]
        words = list(self.settings.permissions)
        # The check sees resolved addresses; every spelling of "this host" needs a word of its own.
        hosts = (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"[::1]:{port}", f"[::]:{port}")
        words.append("--deny-net=" + ",".join(dict.fromkeys((self.settings.runtime_api, *hosts))))
        grant(words, "net", "N", "unix:" + self.socket)
        grant(
            words,
            "read",
            "R",
            f"{self.socket},{self.settings.task_root},{self.settings.layer}/lambdeno",
        )
        grant(words, "write", "W", self.socket)
        grant(words, "env", "E", BRIDGE_VARIABLES)
        return words

    def _environment(self) -> dict[bytes, bytes]:
        environment = dict(self.settings.environ)
        environment.pop(b"AWS_LAMBDA_RUNTIME_API", None)  # denied anyway: nothing for the function
        environment.setdefault(b"HOME", self.settings.tmp.encode())  # Lambda sets none; Deno wants one
        environment.setdefault(b"NO_COLOR", b"1")
        environment[b"DENO_NO_UPDATE_CHECK"] = b"1"
        environment[b"DENO_DIR"] = self.folder.encode()
        environment[b"LAMBDENO_SOCKET"] = self.socket.encode()
        return environment


def find(settings: Settings) -> str:
    """The Deno binary: beside the bootstrap, in the function, on PATH. Raises DenoError."""
    folders = [settings.layer + "/bin", settings.task_root + "/bin", *settings.path.split(":")]
    for folder in folders:
        if posix.access(folder + "/deno", 1):
            return folder + "/deno"
    raise DenoError(
        "Runtime.DenoNotFound",
        f"No executable deno in {folders[0]}, {folders[1]} or on PATH: add the Deno layer to the function",
    )


def grant(words: list[str], name: str, letter: str, value: str) -> None:
    """Add a value to a permission; a list where all was granted would narrow it. Raises SettingsError."""
    for word in words:
        flag, narrowed, _ = word.partition("=")
        if flag == "--allow-all" or (flag[1:2] != "-" and "A" in flag):
            return
        if not narrowed and (flag == f"--allow-{name}" or (flag[1:2] != "-" and letter in flag)):
            return
        if not narrowed and flag == f"--deny-{name}":
            raise SettingsError(
                f'LAMBDENO_PERMISSIONS has "{word}"; leave --allow-{name} out instead:'
                " what is not allowed is denied, and the runtime's own socket needs a little of it"
            )
    words.append(f"--allow-{name}={value}")


def fresh_folder(tmp: str) -> str:
    """A new folder that only we can enter. A name that a killed predecessor used would not do."""
    base = tmp if len(tmp) <= LONGEST_FOLDER else "/tmp"
    while True:
        folder = f"{base}/{PREFIX}.{posix.getpid():x}.{time_ns():x}"
        try:
            posix.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        return folder


def copy_caches(settings: Settings, folder: str) -> None:
    """Give Deno the caches that the build filled, where it can write them: it opens none read-only.

    The function's own, which know runtime.js too, or else the layer's.
    """
    for source in (settings.task_root + "/.deno_dir", settings.layer + "/lambdeno/deno_dir"):
        if posix.access(f"{source}/{CACHES[0]}", 4):
            for name in CACHES:
                copy(f"{source}/{name}", f"{folder}/{name}")
            return


def copy(source: str, target: str) -> None:
    """Copy a file in the kernel where it can."""
    read = posix.open(source, posix.O_RDONLY | posix.O_CLOEXEC)
    write = posix.open(target, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    left = posix.fstat(read).st_size
    while left:
        try:
            left -= posix.sendfile(write, read, None, left)
        except (OSError, TypeError):  # between files on Linux only
            left -= posix.write(write, posix.read(read, left))
    posix.close(read)
    posix.close(write)


def sweep(folder: str) -> None:
    """Remove the folders that killed predecessors left: /tmp outlives a process on Lambda."""
    base, _, own = folder.rpartition("/")
    for name in posix.listdir(base):
        prefix, _, rest = name.partition(".")
        if prefix == PREFIX and name != own and not is_alive(rest.partition(".")[0]):
            remove(f"{base}/{name}")


def is_alive(pid: str) -> bool:
    """Whether a process of this number (in hexadecimal) exists; what is no number is left alone."""
    try:
        posix.kill(int(pid, 16), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        pass
    return True


def remove(folder: str) -> None:
    """Remove a folder of ours, as far as it goes: a few files, and Deno's empty npm folder."""
    for name in posix.listdir(folder):
        for attempt in (posix.unlink, posix.rmdir):
            try:
                attempt(f"{folder}/{name}")
                break
            except OSError:
                continue
    try:
        posix.rmdir(folder)
    except OSError:
        pass
