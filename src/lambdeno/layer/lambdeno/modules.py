"""Deno's flags and folder for a function that is no bundle of ours: its modules, as they were written.

Also for a bundle with settings of the community layer (docs/migrating.md). Nothing is downloaded;
packages and transpiled code are used where they are, in a DENO_DIR that cannot be written.
"""

import posix

from deno import FLAGS, copy
from settings import Settings, SettingsError

SHIPPED = ("npm", "remote", "gen")  # parts of a DENO_DIR that Deno takes as they are
CONFIGS = ("deno.json", "deno.jsonc")
# What Deno 1 meant by --unstable, which Deno 2 has not.
UNSTABLE = (
    *("broadcast-channel", "cron", "ffi", "fs", "http"),
    *("kv", "net", "temporal", "webgpu", "worker-options"),
)
OTHERS = (  # that may be named as well
    *("bare-node-builtins", "bundle", "byonm", "detect-cjs", "lazy-dynamic-imports", "no-legacy-abort"),
    *("node-globals", "npm-lazy-caching", "otel", "process", "raw-imports", "sloppy-imports"),
    *("subdomain-wildcards", "tsgo", "unsafe-proto", "vsock"),
)


def provide(settings: Settings, folder: str) -> list[str]:
    """Give Deno's folder the function's packages; the flags of its process. Raises SettingsError."""
    try:
        posix.chdir(settings.task_root)  # what relative paths of the function are relative to
    except OSError:
        pass  # no such folder: there is no such function either
    flags = list(FLAGS)
    told = [*configuration(settings, folder, flags), *names(settings), *features(settings)]
    if not settings.is_bundle:
        link(settings, folder, flags)
        permissions = settings.permissions or ()
        value = " ".join((*permissions, "--no-check", *told))
        settings.environ[b"DENO_FLAGS"] = value.encode("utf-8", "surrogateescape")
    return flags + told


def link(settings: Settings, folder: str, flags: list[str]) -> None:
    """Have Deno find packages and transpiled code where they were shipped: it resolves the links."""
    flags.remove("--no-npm")
    if not posix.access(settings.task_root + "/node_modules", 0):
        flags.append("--node-modules-dir=none")
    for name in SHIPPED:
        if posix.access(f"{settings.deno_dir}/{name}", 4):
            posix.symlink(f"{settings.deno_dir}/{name}", f"{folder}/{name}")


def configuration(settings: Settings, folder: str, flags: list[str]) -> list[str]:
    """The configuration and lock file that are named, as flags; those that are found go to ``flags``."""
    told: list[str] = []
    config = file_of(settings, b"DENO_CONFIG")
    if config:
        told.append("--config=" + config)
    elif not settings.is_bundle:
        config = first_of(settings.task_root, CONFIGS)
        if config:
            flags.append("--config=" + config)
    if config:
        flags.remove("--no-config")
    named = file_of(settings, b"DENO_LOCK")
    lock = named or (first_of(config.rpartition("/")[0], ("deno.lock",)) if config else "")
    if lock:
        flags.remove("--no-lock")
        # A copy: Deno adds to a lock file what it lacks, and ends where it cannot write that down.
        copy(lock, folder + "/deno.lock")
        (told if named else flags).append(f"--lock={folder}/deno.lock")
    return told


def names(settings: Settings) -> list[str]:
    """What maps names to modules, and what relative URLs are relative to, as flags."""
    told: list[str] = []
    import_map = value_of(settings, b"DENO_IMPORTMAP")
    if import_map:
        if "://" not in import_map:
            import_map = file_of(settings, b"DENO_IMPORTMAP")
        told.append("--import-map=" + import_map)
    location = value_of(settings, b"DENO_LOCATION")
    if location:
        if not location.startswith(("http://", "https://")):
            raise SettingsError(f'DENO_LOCATION is "{location}"; it must be a URL of http: or https:')
        told.append("--location=" + location)
    return told


def features(settings: Settings) -> list[str]:
    """Unstable features as flags: those that are named, or all where the value is "1", or "true"."""
    words = value_of(settings, b"DENO_UNSTABLE").replace(",", " ").split()
    if any(word not in UNSTABLE and word not in OTHERS for word in words):
        words = list(UNSTABLE)
    return ["--unstable-" + word for word in words]


def value_of(settings: Settings, name: bytes) -> str:
    """A variable's value; one that is empty is none."""
    return settings.environ.get(name, b"").decode("utf-8", "surrogateescape")


def file_of(settings: Settings, name: bytes) -> str:
    """The path of a file that a variable names, from the task root on; empty if it names none."""
    value = value_of(settings, name)
    if not value:
        return ""
    path = value if value.startswith("/") else f"{settings.task_root}/{value.removeprefix('./')}"
    if not posix.access(path, 4):
        raise SettingsError(f'{name.decode()} is "{value}"; there is no file {path}')
    return path


def first_of(folder: str, names: tuple[str, ...]) -> str:
    """The first of some files that a folder has; empty if it has none."""
    for name in names:
        if posix.access(f"{folder}/{name}", 4):
            return f"{folder}/{name}"
    return ""
