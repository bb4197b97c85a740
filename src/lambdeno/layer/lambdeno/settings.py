"""What the environment says, read once; a wrong value names its variable and what it may be."""

RUNTIMES = ("runtime1",)

# Least rights that ordinary functions need: the AWS SDK asks for sys (os.release) on its first call.
DEFAULT_PERMISSIONS = (
    "--allow-net",
    "--allow-env",
    "--allow-sys",
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
        self.runtime_api = get("AWS_LAMBDA_RUNTIME_API")
        self.task_root = get("LAMBDA_TASK_ROOT", "/var/task")
        self.tmp = get("TMPDIR", "/tmp")
        self.path = get("PATH", "/usr/local/bin:/usr/bin:/bin")
        if not self.runtime_api.rpartition(":")[2].isdigit():
            raise SettingsError(
                f'AWS_LAMBDA_RUNTIME_API is "{self.runtime_api}"; it must be host:port'
                " (Lambda sets it; the bootstrap does not run outside an execution environment)"
            )
        runtime = get("LAMBDENO_RUNTIME", RUNTIMES[0])
        if runtime not in RUNTIMES:
            raise SettingsError(f'LAMBDENO_RUNTIME is "{runtime}"; it may be {" or ".join(RUNTIMES)}')
        self.permissions = self._permissions(get("LAMBDENO_PERMISSIONS"))

    def _permissions(self, flags: str) -> list[str]:
        """The Deno permission flags: the user's words, or the default set with its folders."""
        if not flags.strip():
            return [
                flag.format(task=self.task_root, layer=self.layer, tmp=self.tmp)
                for flag in DEFAULT_PERMISSIONS
            ]
        words = flags.split()
        for word in words:
            if not word.startswith(PERMISSION_FLAGS):
                raise SettingsError(
                    f'LAMBDENO_PERMISSIONS has "{word}"; it may hold Deno permission flags alone'
                    " (--allow-…, --deny-…, -A), separated by spaces"
                )
        return words
