"""A function as Lambda would know it: artefacts and configuration."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lambdeno import limits
from lambdeno.emulator.http_events import FORMS, Form
from lambdeno.errors import EmulatorError

__all__ = ["Cors", "Function", "FunctionUrl", "host_architecture"]

# The credentials are reserved on Lambda too; here a function may bring its own, for there is no
# role to take them from.
KEY = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
RUNTIME = re.compile(r"provided\.al2023|provided\.al2|python3\.[0-9]{1,2}")
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "arm64", "aarch64": "arm64"}
LOG_FORMATS = ("Text", "JSON")
LOG_LEVELS = ("", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may call a Function URL; as Lambda has it."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int = 0  # seconds
    credentials: bool = False


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """HTTP in front of a function, on this machine alone."""

    port: int = 0  # any that is free
    form: Form = "url"  # of the events, and of the results that are understood
    is_streaming: bool = False  # the forms "url" and "rest" alone
    cors: Cors | None = None  # the form "url" alone


@dataclass(frozen=True)
class Function:
    """One deployed function. Raises EmulatorError where Lambda would refuse the configuration."""

    name: str
    code: Path  # a zip, or a folder that is used in place
    layers: tuple[Path, ...] = ()  # zips or folders, unpacked over /opt in this order
    handler: str = "function.handler"
    runtime: str = "provided.al2023"  # or "python3.X", which is managed
    architecture: str = "x86_64"
    memory: int = 512  # MB
    timeout: float = 10  # seconds
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    concurrency: int = 10  # environments; an invocation beyond them is throttled
    dead_letter: str | None = None  # a file (JSON lines) or an http:// endpoint on this machine
    log_format: str = "Text"  # or "JSON"
    log_level: str = ""  # TRACE to FATAL, for the format JSON; empty leaves it to the function
    url: FunctionUrl | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise EmulatorError(
                f'The function name "{self.name}" is none',
                "use 1 to 64 letters, digits, hyphens and underscores",
            )
        self._check("memory", self.memory, 128, 10240, "MB")
        self._check("timeout", self.timeout, 0.001, 900, "seconds")
        self._check("concurrency", self.concurrency, 1, 1000, "environments")
        if not RUNTIME.fullmatch(self.runtime):
            raise EmulatorError(
                f'Function "{self.name}" has the runtime "{self.runtime}"',
                'the local Lambda runs "provided.al2023" and "python3.X"',
            )
        if self.architecture not in MACHINES.values():
            raise EmulatorError(
                f'Function "{self.name}" has the architecture "{self.architecture}"',
                'it may be "x86_64" or "arm64"',
            )
        self._check_choice("log format", self.log_format, LOG_FORMATS)
        self._check_choice("log level", self.log_level, LOG_LEVELS)
        if self.url:
            self._check_choice("event form", self.url.form, FORMS)
            self._check("port", self.url.port, 0, 65535, "(0 takes any)")
        if len(self.layers) > limits.LAYERS:
            raise EmulatorError(
                f'Function "{self.name}" has {len(self.layers)} layers',
                f"Lambda takes at most {limits.LAYERS}",
            )
        self._check_environment()

    @property
    def is_managed(self) -> bool:
        """Whether Lambda brings the interpreter (``python3.X``) rather than the function."""
        return self.runtime.startswith("python3.")

    def _check(self, name: str, value: float, least: float, most: float, unit: str) -> None:
        if not least <= value <= most:
            raise EmulatorError(
                f'Function "{self.name}" has {name} {value}',
                f"it may be {least} to {most} {unit}",
            )

    def _check_choice(self, name: str, value: str, choices: tuple[str, ...]) -> None:
        if value not in choices:
            raise EmulatorError(
                f'Function "{self.name}" has the {name} "{value}"',
                f"it may be {', '.join(filter(None, choices))}",
            )

    def _check_environment(self) -> None:
        for key in self.environment:
            if key in limits.RESERVED:
                raise EmulatorError(
                    f'Function "{self.name}" sets the environment variable "{key}"',
                    "Lambda sets it, and refuses functions that do",
                )
            if not KEY.fullmatch(key):
                raise EmulatorError(
                    f'Function "{self.name}" has an environment variable named "{key}"',
                    "a name is a letter, then letters, digits and underscores: two at least",
                )
        size = sum(len(k.encode()) + len(v.encode()) for k, v in self.environment.items())
        if size > limits.ENVIRONMENT:
            raise EmulatorError(
                f'The environment variables of function "{self.name}" take {size} bytes',
                f"Lambda takes {limits.ENVIRONMENT}, names and values together",
            )


def host_architecture() -> str:
    """This machine's architecture in Lambda's words (``x86_64``, ``arm64``)."""
    machine = platform.machine().lower()
    return MACHINES.get(machine, machine)
