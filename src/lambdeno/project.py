"""``lambdeno.toml`` -> a frozen Project. An unknown key or a wrong value is an error that names it.

Every key is optional; docs/reference.md lists them all, held to this file by a test.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from lambdeno import limits
from lambdeno.errors import ProjectError

__all__ = [
    "Architecture",
    "Build",
    "Cors",
    "Deno",
    "EventInvoke",
    "Project",
    "Role",
    "Runtime2",
    "Url",
    "Vpc",
    "load",
    "name_of",
]

FILE = "lambdeno.toml"
DENO_VERSION = "2.9.8"
SIGNAL_MARGIN = 500  # ms

Architecture = Literal["x86_64", "arm64"]

Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
Handler = Annotated[str, msgspec.Meta(pattern=r"\A[^\s.][^\s]*\.[^\s.]+\Z", max_length=128)]
Version = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]+\.[0-9]+\.[0-9]+\Z")]
# Lambda's own patterns, from the API reference of CreateFunction, CreateAlias and PublishLayerVersion
Alias = Annotated[str, msgspec.Meta(pattern=r"\A(?![0-9]+\Z)[A-Za-z0-9_-]{0,128}\Z")]
LayerArn = Annotated[
    str, msgspec.Meta(pattern=r"\Aarn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:layer:[\w-]+:\d+\Z")
]
Arn = Annotated[str, msgspec.Meta(pattern=r"\Aarn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:(?:\d{12}|aws)?:\S+\Z")]
RoleName = Annotated[
    str, msgspec.Meta(pattern=r"\A(?:arn:aws[a-z-]*:iam::\d{12}:role/\S+|[\w+=,.@-]{1,64})?\Z")
]
Bucket = Annotated[str, msgspec.Meta(pattern=r"\A(?:[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?\Z")]
Subnet = Annotated[str, msgspec.Meta(pattern=r"\Asubnet-[0-9a-z]+\Z")]
SecurityGroup = Annotated[str, msgspec.Meta(pattern=r"\Asg-[0-9a-zA-Z]+\Z")]

MODULE = re.compile(
    r"(?:\./)?((?:[^./][^./]*/)*[^./]+)\.(ts|mts|tsx|js|mjs|jsx)"
)  # an entry without a bundle
PLATFORMS = ("linux-x86_64", "linux-arm64", "macos-x86_64", "macos-arm64", "windows-x86_64")
OURS = frozenset(
    {
        "AWS_LAMBDA_EXEC_WRAPPER",
        "HANDLER_EXT",
        "LAMBDENO_INVOKE_MODE",
        "LAMBDENO_PERMISSIONS",
        "LAMBDENO_PRIVATE_TMP",
        "LAMBDENO_RUNTIME",
        "LAMBDENO_SIGNAL_MARGIN",
        "LAMBDENO_STANDBY",
    }
)


class Deno(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[deno]``: the release that runs the function, and what it may do."""

    version: Version = DENO_VERSION
    permissions: tuple[str, ...] = ()  # empty: the least default set
    sha256: dict[str, str] = {}  # "linux-x86_64" -> sha256 of the wheel, for a release without a pin

    @property
    def imports(self) -> list[str]:
        """Of the permissions, those to import modules of other hosts, which Deno asks for at build too."""
        return [word for word in self.permissions if word.startswith(("--allow-import", "-I"))]


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[build]``: how TypeScript becomes function.zip."""

    bundle: bool = True  # one file; or else the modules as they are, with their packages
    check: bool = True  # types, by deno check
    minify: bool = True
    keep_names: bool = True  # of functions and classes, for stacks and error types
    source_map: bool = True  # ship the map of the author's code; the whole one lies beside the artefact
    code_cache: bool = True  # load the function once at build, ship what V8 compiled
    include: tuple[str, ...] = ()  # globs of further files, from the project folder


class Runtime2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[runtime2]``: a Deno process for each invocation."""

    standby: Literal["auto", "on", "off"] = "auto"  # whether the next one loads the function ahead
    private_tmp: bool = False  # an empty folder for each invocation, in place of the shared /tmp


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[role]``: what the function may do. Without a name, one with the least rights is made."""

    name: RoleName = ""  # name or ARN of a role that is there
    policies: tuple[Arn, ...] = ()  # managed policies, attached to the role that is made
    policy: str = ""  # a file with a policy document, put into the role that is made


class Cors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[url.cors]``: which pages of other origins may call the function's URL."""

    origins: tuple[str, ...] = ()
    methods: tuple[Literal["*", "DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"], ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 0  # s
    credentials: bool = False


class Url(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[url]``: a Function URL. The table alone, empty, asks for one."""

    auth: Literal["iam", "none"] = "iam"  # none: anybody may call it
    invoke_mode: Literal["buffered", "streaming"] = "buffered"
    cors: Cors | None = None


class Vpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[vpc]``: the private network that the function is attached to."""

    subnets: tuple[Subnet, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()


class EventInvoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[event_invoke]``: what becomes of events that are queued (invocation type Event)."""

    max_event_age: Annotated[int, msgspec.Meta(ge=60, le=21600)] = 21600  # s
    retries: Annotated[int, msgspec.Meta(ge=0, le=2)] = 2
    on_success: Arn | None = None  # of a queue, a topic, an event bus or a function
    on_failure: Arn | None = None


# The days that CloudWatch Logs takes; 0 is "never expire":
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
Retention = Literal[
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]  # fmt: skip


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One function: what it is made from and how Lambda runs it."""

    root: Path = Path()  # the project folder; never read from the file
    name: Name = ""
    description: Annotated[str, msgspec.Meta(max_length=256)] = ""
    entry: str = "src/main.ts"
    handler: Handler = "function.handler"
    runtime: Literal["runtime1", "runtime2"] = "runtime1"
    shape: Literal["os-only", "managed"] = "os-only"
    architecture: Architecture = "x86_64"
    memory: Annotated[int, msgspec.Meta(ge=128, le=10240)] = 512  # MB
    timeout: Annotated[int, msgspec.Meta(ge=1, le=900)] = 10  # s
    storage: Annotated[int, msgspec.Meta(ge=512, le=10240)] = 512  # MB of /tmp
    signal_margin: Annotated[int, msgspec.Meta(ge=0, le=900_000)] = SIGNAL_MARGIN  # ms before the deadline
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["trace", "debug", "info", "warn", "error", "fatal"] | None = None  # None: all
    log_retention: Retention = 30  # days
    tracing: bool = False  # X-Ray
    alias: Alias = ""  # which follows the newest version; empty: no versions are published
    reserved_concurrency: Annotated[int, msgspec.Meta(ge=0)] | None = None
    layers: tuple[LayerArn, ...] = ()  # further ones, above ours
    bucket: Bucket = ""  # for artefacts that are too large to be sent; empty: one is made
    environment: dict[str, str] = {}
    tags: dict[str, str] = {}
    deno: Deno = Deno()
    build: Build = Build()
    runtime2: Runtime2 = Runtime2()
    role: Role = Role()
    url: Url | None = None
    vpc: Vpc | None = None
    event_invoke: EventInvoke | None = None

    @property
    def dist(self) -> Path:
        """Where the artefacts land."""
        return self.root / "dist"

    @property
    def variables(self) -> dict[str, str]:
        """The deployed function's environment: the user's variables and the runtime's settings."""
        added: dict[str, str] = {"LAMBDENO_RUNTIME": self.runtime}
        if self.signal_margin != SIGNAL_MARGIN:
            added["LAMBDENO_SIGNAL_MARGIN"] = str(self.signal_margin)
        if self.deno.permissions:
            added["LAMBDENO_PERMISSIONS"] = " ".join(self.deno.permissions)
        if not self.build.bundle:
            added["HANDLER_EXT"] = self.entry.rpartition(".")[2]
            added.setdefault("LAMBDENO_PERMISSIONS", "default")  # without it: all is allowed
        if self.runtime2.standby != "auto":
            added["LAMBDENO_STANDBY"] = self.runtime2.standby
        if self.runtime2.private_tmp:
            added["LAMBDENO_PRIVATE_TMP"] = "on"
        if self.url and self.url.invoke_mode == "streaming":
            added["LAMBDENO_INVOKE_MODE"] = "streaming"
        if self.shape == "managed":
            added["AWS_LAMBDA_EXEC_WRAPPER"] = "/opt/bootstrap"
        return {**self.environment, **added}


TABLES: dict[str, type[msgspec.Struct]] = {
    "deno": Deno,
    "build": Build,
    "runtime2": Runtime2,
    "role": Role,
    "url": Url,
    "url.cors": Cors,
    "vpc": Vpc,
    "event_invoke": EventInvoke,
}


def load(folder: Path) -> Project:
    """Read ``lambdeno.toml`` of a project folder. Raises ProjectError."""
    path = folder / FILE
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe has no end, /dev/zero has none
            raise ProjectError(f'Cannot read "{path}": it is not a file', "put a file in its place")
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ProjectError(
            f'No {FILE} in "{folder}"',
            f"name the project folder with --project, or create {FILE}: an empty file is enough",
        ) from None
    except UnicodeDecodeError:
        raise ProjectError(f'"{path}" is not text in UTF-8', "save it as UTF-8") from None
    except OSError as error:
        raise ProjectError(f'Cannot read "{path}": {error.strerror}', "check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f'"{path}" is not TOML: {error}', "mend that line") from None
    except RecursionError:
        raise ProjectError(
            f'Cannot read "{path}": its lists or tables are nested too deep',
            "no key needs more than a list in a table in a table",
        ) from None
    except ValueError:  # a TOMLDecodeError otherwise
        raise ProjectError(
            f'Cannot read "{path}": it has a number of more than {sys.get_int_max_str_digits()} digits',
            "write a smaller one",
        ) from None
    _refuse_nul(path, values)
    _refuse_unknown(path, values, Project, "")
    _check_texts(path, "environment", values.get("environment"))
    _check_texts(path, "tags", values.get("tags"))
    deno = values.get("deno")
    _check_texts(path, "deno.sha256", deno.get("sha256") if isinstance(deno, dict) else None)
    try:
        project = msgspec.convert(values, Project)
    except msgspec.ValidationError as error:
        raise ProjectError(*_explain(path, str(error))) from None
    _check_checksums(path, project.deno.sha256)
    if not project.build.bundle:
        project = _with_module(path, project, "handler" in values)
    _check_environment(path, project)
    _check_deployment(path, project)
    _refuse_link_out(folder)
    if project.runtime2 != Runtime2() and project.runtime != "runtime2":
        raise ProjectError(
            f'"{path}" has settings in [runtime2], and runtime = "{project.runtime}"',
            'set runtime = "runtime2", or take them out',
        )
    if project.log_level and project.log_format != "json":
        raise ProjectError(
            f'"{path}" has log_level = "{project.log_level}", and log_format = "{project.log_format}"',
            'set log_format = "json", or take log_level out: Lambda knows no levels of text',
        )
    return msgspec.structs.replace(project, root=folder, name=project.name or name_of(folder))


def _refuse_link_out(folder: Path) -> None:
    """Raise ProjectError where dist is a link out of the project: a build would write there."""
    root, target = os.path.realpath(folder), os.path.realpath(folder / "dist")
    if os.path.commonpath([root, target]) != root:
        raise ProjectError(
            f'"{folder / "dist"}" is a link out of the project, to "{target}": a build would write there',
            "remove the link",
        )


def _with_module(path: Path, project: Project, has_handler: bool) -> Project:
    """The project with a handler in its entry, which is no bundle."""
    module = MODULE.fullmatch(project.entry)
    if not module:
        raise ProjectError(
            f'"{path}": entry is "{project.entry}", and build.bundle = false',
            "name a module in the project folder, such as src/main.ts, with no other dot in its name",
        )
    if not has_handler:
        return msgspec.structs.replace(project, handler=f"{module[1]}.handler")
    file, _, export = project.handler.removeprefix("./").partition(".")
    if file != module[1]:
        raise ProjectError(
            f'"{path}": handler is "{project.handler}", and with build.bundle = false its file is the entry',
            f'set handler = "{module[1]}.{export}", or take it out',
        )
    return project


def name_of(folder: Path) -> str:
    """The name of a folder's function where nobody names it."""
    try:
        name = Path(os.path.realpath(folder)).name  # resolve() raises for a loop of links
    except OSError:  # the current folder was removed
        name = folder.name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:64] or "function"


def _refuse_nul(path: Path, values: dict[str, Any]) -> None:
    """No path, name or variable can have a NUL, which TOML has an escape for."""
    rest: list[tuple[str, object]] = [("", values)]
    while rest:
        where, value = rest.pop()
        if isinstance(value, str) and "\0" in value:
            raise ProjectError(f'"{path}": "{where}" holds a NUL', "take it out")
        if isinstance(value, dict):
            rest += [(f"{where}.{key}".removeprefix("."), value[key]) for key in value]
        elif isinstance(value, list):
            rest += [(where, item) for item in value]


def _refuse_unknown(path: Path, values: object, kind: type[msgspec.Struct], where: str) -> None:
    if not isinstance(values, dict):
        return
    known = [name for name in kind.__struct_fields__ if name != "root"]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ProjectError(
                f'"{path}" has an unknown key "{where}{key}"',
                f'did you mean "{where}{near[0]}"?' if near else f"known keys: {', '.join(known)}",
            )
        if where + key in TABLES:
            _refuse_unknown(path, value, TABLES[where + key], f"{where}{key}.")


WORDS = {
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "array": "a list",
    "list": "a list",
    "object": "a table",
    "dict": "a table",
    "float": "a number",
    "date": "a day",
    "datetime": "a point in time",
    "time": "a time of day",
}
PATTERNS = {
    "name": "1 to 64 letters, digits, - and _",
    "role.name": "the name or the ARN of a role",
    "handler": "<file>.<export>, such as function.handler",
    "version": "three numbers, such as 2.9.8",
    "alias": "up to 128 letters, digits, - and _, and not a number",
    "layers": "ARNs of layer versions, such as arn:aws:lambda:eu-west-1:<account>:layer:ffmpeg:3",
    "policies": "ARNs of managed policies",
    "on_success": "the ARN of a queue, a topic, an event bus or a function",
    "on_failure": "the ARN of a queue, a topic, an event bus or a function",
    "bucket": "3 to 63 small letters, digits, dots and hyphens",
    "subnets": "ids, such as subnet-0123abcd",
    "security_groups": "ids, such as sg-0123abcd",
}


def _explain(path: Path, problem: str) -> tuple[str, str]:
    """Msgspec's words in ours: message and hint."""
    what, _, at = problem.partition(" - at `$.")
    key, is_item, _ = at.rstrip("`").partition("[")
    last = key.rpartition(".")[2]
    wanted = re.match(r"Expected `(\w+)(?: \| null)?`(?:, got `(\w+)`| ([<>]=) (\d+)| matching regex)?", what)
    if not wanted:
        allowed = {
            "runtime": '"runtime1" or "runtime2"',
            "standby": '"auto", "on" or "off"',
            "shape": '"os-only" or "managed"',
            "architecture": '"x86_64" or "arm64"',
            "log_format": '"text" or "json"',
            "log_level": '"trace", "debug", "info", "warn", "error" or "fatal"',
            "log_retention": f"{', '.join(map(str, get_args(Retention)))} days (0: for ever)",
            "auth": '"iam" or "none"',
            "methods": '"*", "DELETE", "GET", "HEAD", "PATCH", "POST" and "PUT"',
            "invoke_mode": '"buffered" or "streaming"',
        }
        return (
            f'"{path}": "{key}" has a value that is unknown',
            f"{key} may be {allowed.get(last, 'another')}",
        )
    kind, got, sign, bound = wanted.groups()
    if sign:
        side = "at least" if sign == ">=" else "at most"
        return f'"{path}": "{key}" is out of range', f"{key} must be {side} {bound}"
    if not got:
        return (
            f'"{path}": "{key}" is malformed',
            f"{key} must be {PATTERNS.get(key) or PATTERNS.get(last, 'shorter')}",
        )
    subject = f"{key}: each of its values" if is_item else key
    return (
        f'"{path}": "{key}" is or holds {WORDS.get(got, got)}',
        f"{subject} must be {WORDS.get(kind, kind)}",
    )


def _check_texts(path: Path, where: str, table: object) -> None:
    """Msgspec does not name the key of a table whose keys are free."""
    for key, value in table.items() if isinstance(table, dict) else ():
        if not isinstance(value, str):
            kind = WORDS.get(type(value).__name__, "something else")
            raise ProjectError(f'"{path}": "{where}.{key}" is {kind}', f"{where}.{key} must be text")


def _check_checksums(path: Path, sha256: dict[str, str]) -> None:
    for target, value in sha256.items():
        if target not in PLATFORMS:
            raise ProjectError(
                f'"{path}": deno.sha256.{target} is for no platform that Deno has',
                f"known platforms: {', '.join(PLATFORMS)}",
            )
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ProjectError(
                f'"{path}": deno.sha256.{target} is no checksum', "a sha256 has 64 hexadecimal digits"
            )


def _check_environment(path: Path, project: Project) -> None:
    for key in project.environment:
        if key in limits.RESERVED | limits.CREDENTIALS:
            raise ProjectError(f'"{path}": environment.{key} is reserved by Lambda', "choose another name")
        if key == "LAMBDENO_INSPECT":
            raise ProjectError(
                f'"{path}": environment.{key} would deploy a debugger', "use lambdeno dev with a debugger"
            )
        if key in OURS:
            raise ProjectError(
                f'"{path}": environment.{key} is set by lambdeno', "use the key of lambdeno.toml for it"
            )
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]+", key):
            raise ProjectError(
                f'"{path}": environment.{key} is not a name that Lambda takes',
                "use at least two letters, digits and _, a letter first",
            )
    # as Lambda measures it
    size = len(json.dumps(project.variables, separators=(",", ":"), ensure_ascii=False).encode())
    if size > limits.ENVIRONMENT:
        raise ProjectError(
            f'"{path}": the environment has {size} bytes as JSON; Lambda takes {limits.ENVIRONMENT}',
            "move large values to a file or a parameter store",
        )


def _check_deployment(path: Path, project: Project) -> None:
    """What Lambda would refuse and no single key shows."""
    if 2 + len(project.layers) > limits.LAYERS:
        raise ProjectError(
            f'"{path}": layers has {len(project.layers)}, which makes '
            f"{2 + len(project.layers)} with lambdeno's own two; Lambda takes {limits.LAYERS}",
            f"name {limits.LAYERS - 2} at most",
        )
    twice = {arn for arn in project.layers if project.layers.count(arn) > 1}
    if twice:
        raise ProjectError(f'"{path}": layers names "{min(twice)}" twice', "name it once")
    if project.vpc and not (project.vpc.subnets and project.vpc.security_groups):
        raise ProjectError(
            f'"{path}": [vpc] has no subnets or no security_groups', "name at least one of each"
        )
    if project.role.name and (project.role.policies or project.role.policy):
        raise ProjectError(
            f'"{path}": role.policies and role.policy are for a role that lambdeno makes, '
            f'and role.name names "{project.role.name}"',
            "give that role its rights where it is made, or take role.name out",
        )
    _check_tags(path, project.tags)


def _check_tags(path: Path, tags: dict[str, str]) -> None:
    """AWS's rules: https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html."""
    for key, value in tags.items():
        if not re.fullmatch(r"[\w .:/=+@-]{1,128}", key) or key.lower().startswith("aws:"):
            raise ProjectError(
                f'"{path}": tags has the key "{key}", which AWS does not take',
                'use up to 128 letters, digits, spaces and _.:/=+-@, and not "aws:" at its start',
            )
        if not re.fullmatch(r"[\w .:/=+@-]{0,256}", value):
            raise ProjectError(
                f'"{path}": tags.{key} has a value that AWS does not take',
                "use up to 256 letters, digits, spaces and _.:/=+-@",
            )
    if len(tags) > limits.TAGS:
        raise ProjectError(f'"{path}" has {len(tags)} tags', f"use {limits.TAGS} at most")
