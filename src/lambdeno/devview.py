"""What ``dev`` shows: where things are, what changed, and the logs of all environments as one stream.

``Terminal`` is for people, ``Json`` for machines: a document for each line. When nobody can read on
(``| head``, a terminal that is closed), ``dev`` ends as by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

from lambdeno import terminal
from lambdeno.emulator import LocalLambda
from lambdeno.errors import LambdenoError
from lambdeno.project import Project

__all__ = ["Json", "Terminal"]

PLATFORM = re.compile(r"(START|END|REPORT|INIT_REPORT) ")
RECORD = re.compile(r"\S+Z\t[^\t]*\t(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\t(.*)", re.DOTALL)
COLOURS = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_blue")
STYLES = {"TRACE": "dim", "DEBUG": "dim", "WARN": "yellow", "ERROR": "red", "FATAL": "bold red"}


class Terminal:
    """Words and logs on standard error; coloured where it is a terminal."""

    def __init__(self, folder: Path, inspect: str = "", console: Console | None = None) -> None:
        self._folder = folder
        self._inspect = inspect
        self._console = console or Console(stderr=True)

    def ready(self, local: LocalLambda, project: Project) -> None:
        """Say how to reach the function."""
        sandbox = f"{local.sandbox.kind}: {local.sandbox.reason}"
        invocations = f"{local.endpoint}/2015-03-31/functions/{project.name}/invocations"
        self._say(
            f"Local Lambda at {local.endpoint} with {project.name}, {project.shape} ({sandbox})\n"
            f"  curl {local.url_of(project.name)}\n"
            f"  lambdeno invoke '{{}}' --project {shlex.quote(str(self._folder))}"
            f" --endpoint-url {local.endpoint}\n"
            f"  curl -d '{{}}' {invocations}\n"
            f"  aws lambda invoke --endpoint-url {local.endpoint} --function-name {project.name}"
            " --cli-binary-format raw-in-base64-out --payload '{}' /dev/stdout"
        )
        if self._inspect:
            self._say(f"Debugger at {self._inspect}: chrome://inspect, or VS Code's attach")

    def rebuilt(self, seconds: float) -> None:
        """Say that new code answers."""
        self._say(f"New code after {seconds:.2f} s", "green")

    def failed(self, error: LambdenoError) -> None:
        """Show why a change cannot be used."""
        self._error(error, "the code before it answers on", "red")

    def types(self, error: LambdenoError | None) -> None:
        """Show what the type check says."""
        if error:
            self._error(error, "the code runs all the same", "yellow")
        else:
            self._say("Types are in order again", "green")

    def write(self, line: str, *, function: str, environment: str, request_id: str | None) -> None:  # noqa: ARG002
        """Show a log event: environment, request, level and text."""
        name = environment.rpartition("]")[2][:4] or "-"
        colour = COLOURS[zlib.crc32(name.encode()) % len(COLOURS)]
        shown = Text.assemble((f"{name:4}", colour), f" {(request_id or '-')[:8]:8} ")
        indent = "\n" + " " * len(shown.plain)
        record = RECORD.fullmatch(line)
        level, text = (record[1], f"{record[1]:5} {record[2]}") if record else ("", line)
        style = "dim" if PLATFORM.match(line) else STYLES.get(level, "")
        text = re.sub(r"\r\n|\r|\n", indent, text.rstrip("\r\n"))
        with _read_by_somebody(self._console.file):
            if not self._console.is_terminal:
                self._console.file.write(f"{shown.plain}{text}\n")  # as it is
                self._console.file.flush()
                return
            shown.append_text(Text.from_ansi(terminal.safe(text, colours=True), style=style))
            self._console.print(shown, soft_wrap=True, highlight=False)

    def _error(self, error: LambdenoError, meanwhile: str, style: str) -> None:
        detail = f"{error.detail.strip()}\n" if error.detail else ""
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        self._say(f"{detail}{error.message}: {meanwhile}{hint}", style)

    def _say(self, text: str, style: str = "") -> None:
        text = terminal.safe(text.replace("\r\n", "\n"), colours=True)
        with _read_by_somebody(self._console.file):
            self._console.print(Text.from_ansi(text, style=style), soft_wrap=True, highlight=False)


class Json:
    """The same as documents with a ``type``; ``emit`` takes one line."""

    def __init__(self, emit: Callable[[str], object]) -> None:
        self._emit = emit

    def ready(self, local: LocalLambda, project: Project) -> None:
        """See Terminal."""
        self._row(
            "ready",
            endpoint=local.endpoint,
            url=local.url_of(project.name),
            function=project.name,
            shape=project.shape,
            sandbox=f"{local.sandbox.kind}: {local.sandbox.reason}",
        )

    def rebuilt(self, seconds: float) -> None:
        """See Terminal."""
        self._row("rebuilt", seconds=round(seconds, 3))

    def failed(self, error: LambdenoError) -> None:
        """See Terminal."""
        self._row("failed", error=error.message, hint=error.hint, detail=error.detail)

    def types(self, error: LambdenoError | None) -> None:
        """See Terminal."""
        fields = {"error": error.message, "detail": error.detail} if error else {"error": None}
        self._row("types", **fields)

    def write(self, line: str, *, function: str, environment: str, request_id: str | None) -> None:
        """See Terminal."""
        self._row("log", function=function, environment=environment, request_id=request_id, line=line)

    def _row(self, kind: str, **fields: object) -> None:
        with _read_by_somebody(sys.stdout):
            self._emit(json.dumps({"type": kind, **fields}))


@contextmanager
def _read_by_somebody(stream: IO[str]) -> Iterator[None]:
    """Write to a stream; where it takes no more, end ``dev``, and let what it says meanwhile go nowhere."""
    try:
        yield
    except (OSError, SystemExit):  # the latter is what rich makes of a broken pipe
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        signal.raise_signal(signal.SIGINT)
