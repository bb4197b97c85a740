"""The Deno process: where it is, what it may do, what it finds in its environment, how it ended.

runtime1 talks to it over a Unix socket that it connects to, runtime2 over its standard streams.
"""

import posix
from _socket import AF_INET, AF_UNIX, SOCK_STREAM, socket
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
DUP2 = posix.POSIX_SPAWN_DUP2
PREFIX = "lambdeno"  # of our folders in the writable place: lambdeno.<pid>.<time>, private ones .<time> more
LOCK = "/lock"  # a file in each: locked while the bootstrap lives, whatever its pid and the namespace of that
BRIDGE_VARIABLES = ",".join(  # what runtime.js reads and writes
    (
        "HANDLER_EXT",
        "DENO_PREFIX",
        "LAMBDENO_BASE_PATH",
        "LAMBDENO_INVOKE_MODE",
        "AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA",
        "LAMBDENO_LOGS",
        "LAMBDENO_SIGNAL_MARGIN",
        "LAMBDENO_SOCKET",
        "AWS_LAMBDA_LOG_FORMAT",
        "AWS_LAMBDA_LOG_LEVEL",
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
THIS_HOST = ("127.0.0.0/8", "0.0.0.0/8", "[::1]", "[::]")  # Deno takes no IPv6 network with a port
FORMAT, FOLDER = 0o170000, 0o040000  # of a file's mode
LONGEST_FOLDER = 80  # a Unix socket's path has at most 104 bytes (macOS; 108 on Linux)


class DenoError(Exception):
    """Deno cannot be started; arguments are the error type and the message for Lambda."""


class Deno:
    """One Deno process that runs runtime.js, and its private folder in the writable place.

    runtime1: ``listener`` listens on the Unix socket that runtime.js connects to.
    runtime2: ``input`` and ``output`` are our ends of its standard streams, errors among the output.
    """

    def __init__(self, settings: Settings, home: str = "") -> None:
        self.settings = settings
        self.home = home  # runtime2: where the folders of all its processes are, no function may write there
        self.founded_home = False
        self.lock = -1  # the locked file of a folder that this one has made in the writable place
        self.folder = self.tmp = ""
        self.socket = ""
        self.input = self.output = -1
        self.pid = 0  # once it is started
        self.status: int | None = None  # how it ended, once it has

    def start(self) -> None:
        """Start the process and return at once. Raises DenoError, SettingsError."""
        executable = find(self.settings)
        try:
            if not self.folder:
                self.prepare()
        except OSError as error:
            raise DenoError(
                "Runtime.NoWritableFolder",
                f"Cannot write to {self.settings.tmp}: {error.strerror}; Deno needs a few MB there",
            ) from None
        try:
            permissions = self._permissions()
            flags = self._flags()
        except SettingsError:
            self._abandon()
            raise
        arguments = [executable, *flags, *permissions, self.settings.layer + "/lambdeno/runtime.js"]
        self.status = None
        try:
            self._spawn(executable, arguments)
        except OSError as error:
            self._abandon()
            from fault import not_executable

            raise DenoError(*not_executable(executable, error)) from None

    def prepare(self) -> None:
        """Make the folder, the socket and the caches that Deno is to find. Raises OSError."""
        self.tmp = self.settings.tmp
        if self.settings.runtime == "runtime1":
            self.folder, self.lock = locked_folder(self.tmp)
            self.socket = self.folder + "/bridge"
            self.listener = socket(AF_UNIX, SOCK_STREAM)
            self.listener.bind(self.socket)
            self.listener.listen(1)
        else:
            if not self.home:
                self.home, self.lock = locked_folder(self.tmp)
                self.founded_home = True
            self.folder = fresh_folder(self.home)
        if self.settings.private_tmp:
            self.tmp = f"{self.home}.{time_ns():x}"  # made when nobody else can write into it
        # Before the start, since Deno opens its caches in its first milliseconds: 2.4 MB take 1 ms.
        try:
            copy_caches(self.settings, self.folder)
        except OSError:
            self._abandon()  # no half a cache
            raise

    def _spawn(self, executable: str, arguments: list[str]) -> None:
        """Start it in our process group, which the platform ends as one. Raises OSError."""
        actions: list[tuple[int, ...]] = []
        theirs: tuple[int, ...] = ()
        if not self.socket:
            read, self.input = posix.pipe()  # descriptors that a child does not inherit
            self.output, write = posix.pipe()
            theirs = (read, write)
            actions = [(DUP2, read, 0), (DUP2, write, 1), (DUP2, write, 2)]
        try:
            self.pid = posix.posix_spawn(
                executable,
                arguments,
                self._environment(executable),
                file_actions=actions,
                setsigdef=[SIGPIPE],  # Python ignores it, and a child would inherit that
            )
        except OSError:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                posix.close(descriptor)

    def has_ended(self) -> int | None:
        """The wait status if the process is over; else None."""
        if not self.pid:
            return 0
        if self.status is None:
            pid, status = posix.waitpid(self.pid, WNOHANG)
            if pid:
                self.status = status
        return self.status

    def end(self) -> int:
        """Wait for a process that is about to end, kill it if it does not, give its wait status."""
        for _ in range(100):
            if self.has_ended() is not None:
                break
            sleep(0.01)
        return self.kill()

    def kill(self) -> int:
        """End it if it has not ended, let go of all that it had, give its wait status."""
        status = self.has_ended()
        if status is None:
            posix.kill(self.pid, SIGKILL)
            status = self.status = posix.waitpid(self.pid, 0)[1]
        self.kill_offspring()
        self.close()
        self._clear()
        return status

    def _abandon(self) -> None:
        """Leave nothing of a start that failed."""
        self._clear()
        if self.founded_home:
            remove(self.home)
            self.home = ""
            self.founded_home = False
            self._unlock()

    def _clear(self) -> None:
        remove(self.folder)
        self.folder = ""
        if self.settings.private_tmp:
            remove(self.tmp)
        if not self.founded_home:
            self._unlock()

    def _unlock(self) -> None:
        if self.lock >= 0:
            posix.close(self.lock)
            self.lock = -1

    def kill_offspring(self) -> None:
        """End what the function has started, where its permissions let it start any.

        Whoever was its parent: each has this process's folder in its environment.
        """
        words = self.settings.permissions or ()
        if not any(word.startswith("--allow-run") or is_all(word) for word in words):
            return
        mark = b"DENO_DIR=" + self.folder.encode() + b"\0"
        for name in posix.listdir("/proc"):
            try:
                descriptor = posix.open(f"/proc/{name}/environ", posix.O_RDONLY | posix.O_CLOEXEC)
                found = mark in posix.read(descriptor, 1024 * 1024)
                posix.close(descriptor)
                if found:
                    posix.kill(int(name), SIGKILL)
            except (OSError, ValueError):  # it has just ended, or is no process
                continue

    def close(self) -> None:
        """Let go of its streams."""
        for descriptor in (self.input, self.output):
            if descriptor >= 0:
                posix.close(descriptor)
        self.input = self.output = -1

    def _flags(self) -> list[str]:
        """How Deno finds modules, of which a bundle of ours needs none."""
        flags = list(FLAGS)
        if not self.settings.is_plain:
            from modules import provide

            flags = provide(self.settings, self.folder)
        if self.settings.inspect:
            flags.append("--inspect=" + self.settings.inspect)
        return flags

    def _permissions(self) -> list[str]:
        """The function's permissions, what the bridge itself needs, and no way to the Runtime API."""
        api = self.settings.runtime_api
        host, _, port = api.rpartition(":")
        words = self.settings.permissions_in(self.tmp)
        # Deno checks resolved addresses, so that names need no word; every address of this machine does.
        hosts = (*THIS_HOST, *own_addresses()) if listens_everywhere(host, int(port)) else THIS_HOST
        deny(words, "net", ",".join((api, *(f"{host}:{port}" for host in dict.fromkeys(hosts)))))
        own = f"{self.settings.task_root},{self.settings.layer}/lambdeno"
        setting = self.settings.permission_setting
        if not self.settings.is_bundle:
            own += "," + self.settings.deno_dir  # where packages find their data
        if self.socket:
            grant(setting, words, "net", "N", "unix:" + self.socket)
            grant(setting, words, "write", "W", self.socket)
            own = f"{self.socket},{own}"
        else:
            deny(words, "write", self.home)  # the next process's code cache is there
        grant(setting, words, "read", "R", own)
        grant(setting, words, "env", "E", BRIDGE_VARIABLES)
        return words

    def _environment(self, executable: str) -> dict[bytes, bytes]:
        environment = dict(self.settings.environ)
        folder = executable.rpartition("/")[0]
        if folder not in self.settings.path.split(":"):  # for functions that start deno themselves
            environment[b"PATH"] = f"{self.settings.path}:{folder}".encode("utf-8", "surrogateescape")
        environment.pop(b"AWS_LAMBDA_RUNTIME_API", None)  # denied anyway: nothing for the function
        environment.pop(b"_LAMBDA_TELEMETRY_LOG_FD", None)
        if self.settings.telemetry is not None:  # ours alone: Deno can write to no descriptor of a number
            environment[b"LAMBDENO_LOGS"] = b"frames"
        if self.settings.private_tmp:
            environment[b"HOME"] = environment[b"TMPDIR"] = self.tmp.encode()
        environment.setdefault(b"HOME", self.tmp.encode())  # Lambda sets none; Deno wants one
        environment.setdefault(b"NO_COLOR", b"1")
        environment[b"DENO_NO_UPDATE_CHECK"] = b"1"
        environment[b"DENO_DIR"] = self.folder.encode()
        if self.socket:
            environment[b"LAMBDENO_SOCKET"] = self.socket.encode()
        return environment


def find(settings: Settings) -> str:
    """The Deno binary: beside the bootstrap, in the function, on PATH. Raises DenoError."""
    folders = [settings.layer + "/bin", settings.task_root + "/bin", *settings.path.split(":")]
    for folder in folders:
        if posix.access(folder + "/deno", 1):
            return folder + "/deno"
    for folder in folders[:2]:
        if posix.access(folder + "/deno", 0):
            raise DenoError(
                "Runtime.DenoNotExecutable",
                f"{folder}/deno may not be executed: its mode must be 755 in the zip",
            )
    raise DenoError(
        "Runtime.DenoNotFound",
        f"No executable deno in {folders[0]}, {folders[1]} or on PATH: add the Deno layer to the function",
    )


def grant(setting: str, words: list[str], name: str, letter: str, value: str) -> None:
    """Add a value to a permission; a list where all was granted would narrow it. Raises SettingsError."""
    if f"--deny-{name}" in words:
        raise SettingsError(
            f'{setting} has "--deny-{name}"; leave --allow-{name} out instead:'
            " what is not allowed is denied, and the runtime itself needs a little of it"
        )
    for word in words:
        if is_all(word):
            return
        flag, narrowed, _ = word.partition("=")
        if not narrowed and (flag == f"--allow-{name}" or (flag[1:2] != "-" and letter in flag)):
            return
    words.append(f"--allow-{name}={value}")


def deny(words: list[str], name: str, value: str) -> None:
    """Deny a value; beside a denial of all of it, it would be all that is denied."""
    if f"--deny-{name}" not in words:
        words.append(f"--deny-{name}={value}")


def listens_everywhere(host: str, port: int) -> bool:
    """True unless no server has this port on all addresses: another address's could not be taken then.

    To ask the kernel takes a tenth of the time that reading the addresses takes.
    """
    if ":" in host:
        return True  # its server may leave the port of IPv4 free
    sock = socket(AF_INET, SOCK_STREAM)
    try:
        sock.bind(("127.0.0.2", port))
    except OSError:
        return True
    finally:
        sock.close()
    return False


def own_addresses() -> list[str]:
    """Return what the kernel routes to this machine itself, in Deno's words; nothing without /proc."""
    found = []
    address = b""
    for line in contents("/proc/net/fib_trie").split(b"\n"):
        if b"|-- " in line:
            address = line.rpartition(b" ")[2]
        elif line.endswith(b" host LOCAL"):  # "/32 host LOCAL": a network of the address above
            found.append((address + line.split()[0]).decode())
    for line in contents("/proc/net/if_inet6").split(b"\n")[:-1]:
        digits = line[:32].decode()
        found.append("[" + ":".join(digits[at : at + 4] for at in range(0, 32, 4)) + "]")
    return found


def contents(path: str) -> bytes:
    """Return a file of /proc, which the kernel gives page by page; nothing where there is none."""
    data = b""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        while page := posix.read(descriptor, 4096):
            data += page
        posix.close(descriptor)
    except OSError:
        pass
    return data


def is_all(word: str) -> bool:
    """Whether a permission flag allows everything: --allow-all, -A, -NA."""
    return word == "--allow-all" or (word[1:2] != "-" and "A" in word.partition("=")[0])


def locked_folder(tmp: str) -> tuple[str, int]:
    """Make a folder in the writable place; return it, and the file whose lock says that we live.

    The lock is the kernel's, and ends with this process: a pid in the name could be a predecessor's or,
    in another namespace, a neighbour's. Raises OSError.
    """
    while True:
        folder = fresh_folder(tmp if len(tmp) <= LONGEST_FOLDER else "/tmp")
        try:
            lock = posix.open(folder + LOCK, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # swept by a neighbour before it was locked
        try:
            posix.lockf(lock, posix.F_TLOCK, 0)
            is_ours = posix.fstat(lock).st_nlink > 0
        except (BlockingIOError, PermissionError):
            is_ours = False
        except OSError:
            is_ours = True  # a file system without locks, on which nobody sweeps
        if is_ours:
            return folder, lock
        posix.close(lock)


def fresh_folder(base: str) -> str:
    """Make a new folder that only we can enter. A name that a killed predecessor used would not do."""
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
    for source in (settings.deno_dir, settings.layer + "/lambdeno/deno_dir"):
        if posix.access(f"{source}/{CACHES[0]}", 4):
            for name in CACHES:
                try:
                    copy(f"{source}/{name}", f"{folder}/{name}")
                except FileNotFoundError:  # a DENO_DIR that somebody has filled by hand
                    continue
            return


def copy(source: str, target: str) -> None:
    """Copy a file in the kernel where it can."""
    read = posix.open(source, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        write = posix.open(target, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        try:
            left = posix.fstat(read).st_size
            while left:
                try:
                    left -= posix.sendfile(write, read, None, left)
                except (OSError, TypeError):  # between files on Linux only
                    left -= posix.write(write, posix.read(read, left))
        finally:
            posix.close(write)
    finally:
        posix.close(read)


def sweep(folder: str) -> None:
    """Remove the folders that killed predecessors left: /tmp outlives a process on Lambda.

    A folder of ours is dead when nobody has locked it; a private one (.<time> more) when its home is.
    """
    base, _, own = folder.rpartition("/")
    for name in posix.listdir(base):
        prefix, *numbers = name.split(".")
        home = ".".join((prefix, *numbers[:2]))
        is_named = prefix == PREFIX and 2 <= len(numbers) <= 3 and all(map(is_number, numbers))
        if not is_named or home == own or not is_own_folder(f"{base}/{name}"):
            continue
        try:
            lock = posix.open(f"{base}/{home}{LOCK}", posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        except FileNotFoundError:
            remove(f"{base}/{name}")  # its bootstrap was killed before it could lock it, or it has no home
            continue
        except OSError:
            continue
        try:
            posix.lockf(lock, posix.F_TLOCK, 0)
            remove(f"{base}/{name}")
        except OSError:
            pass  # its bootstrap lives
        posix.close(lock)


def is_number(text: str) -> bool:
    """True for hexadecimal digits alone."""
    return bool(text) and not text.strip("0123456789abcdef")


def is_own_folder(path: str) -> bool:
    """True for a folder of this user: another user could make it a link at any time."""
    try:
        status = posix.lstat(path)
    except OSError:
        return False
    return status.st_mode & FORMAT == FOLDER and status.st_uid == posix.geteuid()


def remove(folder: str) -> None:
    """Remove a folder of ours and all below it, as far as it goes: a function may have filled it."""
    try:
        posix.unlink(folder)  # a link that a function has put in its place
    except OSError:
        pass
    folders = [folder]
    for path in folders:  # which grows: no recursion, however deep it is
        try:
            posix.chmod(path, 0o700)
            names = posix.listdir(path)
        except OSError:
            continue
        for name in names:
            try:
                posix.unlink(f"{path}/{name}")
            except OSError:  # a folder
                folders.append(f"{path}/{name}")
    for path in reversed(folders):
        try:
            posix.rmdir(path)
        except OSError:
            pass
