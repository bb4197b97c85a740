"""The command line: the only printer, and the only catcher of our errors.

Results go to stdout, everything else to stderr. ``--json`` makes stdout one JSON document, an
error included. Heavy imports stand in the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lambdeno import __version__
from lambdeno.errors import FunctionError, LambdenoError, UsageError

if TYPE_CHECKING:
    from lambdeno.build import Artefact, Watcher
    from lambdeno.emulator import LocalLambda
    from lambdeno.invoke import Result
    from lambdeno.project import Project

KINDS = ("deno-layer", "runtime-layer", "function")
PORT = 9000
SANDBOXES = ("auto", "bubblewrap", "paths")


class _Cli(click.Group):
    """Shows every error in our words, with our exit codes; nobody meets a traceback for a mistake."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        with _told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _told(ctx):
            return super().invoke(ctx)


@contextmanager
def _told(context: click.Context) -> Iterator[None]:
    """Whatever ends the command line before its time becomes words and an exit code."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = (error.ctx or context).command_path
        _end(context, UsageError(error.format_message().rstrip("."), f"see {command} --help"))
    except LambdenoError as error:
        _end(context, error)
    except KeyboardInterrupt:
        click.echo("", err=True)
        context.exit(130)


@click.group(
    cls=_Cli,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "color": False if os.environ.get("NO_COLOR") else None,  # https://no-color.org
    },
)
@click.version_option(__version__, prog_name="lambdeno")
def main() -> None:
    """Run Deno on AWS Lambda."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    folder = click.Path(file_okay=False, path_type=Path)

    @click.option("--project", "folder", type=folder, default=".", help="The project folder (lambdeno.toml).")
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, for machines.")
    @wraps(command)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> Any:
        click.get_current_context().obj = as_json
        return command(*args, **kwargs)

    return wrapped


@main.command()
@click.argument("kind", type=click.Choice(["all", *KINDS]), default="all")
@_common
def build(kind: str, folder: Path) -> None:
    """Build the artefacts into dist/: all of them, or one KIND."""
    from lambdeno import build as verbs

    project = _load(folder)
    makers = {
        "deno-layer": verbs.build_deno_layer,
        "runtime-layer": verbs.build_runtime_layer,
        "function": verbs.build_function,
    }
    with _watcher() as watcher:
        made = verbs.build(project, watcher) if kind == "all" else [makers[kind](project, watcher)]
    _show_artefacts(made)


@main.command()
@click.argument("event", default="{}")
@click.option("--async", "asynchronous", is_flag=True, help="Queue the event and return (Event).")
@click.option(
    "--endpoint-url",
    metavar="URL",
    help=f"A local Lambda [default: port {PORT}, or one for this call].",
)
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOXES),
    default="auto",
    help="For a local Lambda of this call.",
)
@_common
def invoke(event: str, asynchronous: bool, endpoint_url: str | None, sandbox: str, folder: Path) -> None:
    """Send an EVENT (JSON, a file, or - for stdin) to the function and print its result."""
    from lambdeno import invoke as verb

    project = _load(folder)
    payload = verb.read_event(event, sys.stdin.buffer)
    kind = "Event" if asynchronous else "RequestResponse"
    with _endpoint(project, endpoint_url, sandbox) as endpoint:
        result = verb.invoke(endpoint, project, payload, kind)
    _show_result(result)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--sandbox", type=click.Choice(SANDBOXES), default="auto", show_default=True)
@_common
def dev(port: int, sandbox: str, folder: Path) -> None:
    """Start the local Lambda with the function, and stay until Ctrl-C."""
    from lambdeno.dev import local_function
    from lambdeno.emulator import serve_forever

    project = _load(folder)
    with _watcher() as watcher:
        function = local_function(project, watcher)

    def ready(local: LocalLambda) -> None:
        sandbox_words = f"{local.sandbox.kind}: {local.sandbox.reason}"
        if _as_json():
            row = {
                "endpoint": local.endpoint,
                "function": project.name,
                "shape": project.shape,
                "sandbox": sandbox_words,
            }
            click.echo(json.dumps(row))
            return
        url = f"{local.endpoint}/2015-03-31/functions/{project.name}/invocations"
        click.echo(
            f"Local Lambda at {local.endpoint} with {project.name}, {project.shape} ({sandbox_words})\n"
            f"  lambdeno invoke '{{}}' --project {shlex.quote(str(folder))} --endpoint-url {local.endpoint}\n"
            f"  curl -d '{{}}' {url}\n"
            f"  aws lambda invoke --endpoint-url {local.endpoint} --function-name {project.name}"
            " --cli-binary-format raw-in-base64-out --payload '{}' /dev/stdout",
            err=True,
        )

    serve_forever([function], port=port, sandbox=sandbox, ready=ready)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, help="The local Lambda's port.")
@_common
def doctor(port: int, folder: Path) -> None:
    """Say what is there, what is missing, and how to get it."""
    from lambdeno import project as projects
    from lambdeno.doctor import examine

    found = projects.load(folder) if (folder / projects.FILE).exists() else None
    findings = examine(found, port)
    if _as_json():
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for finding in findings:
            state = click.style(f"{finding.state:4}", fg=colours[finding.state])
            click.echo(f"{state}  {finding.what:13}  {finding.found}")
            if finding.remedy:
                click.echo(click.style(" " * 21 + finding.remedy, dim=True))
    if any(finding.state == "fail" for finding in findings):
        click.get_current_context().exit(1)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def deno(arguments: tuple[str, ...]) -> None:
    """Run the pinned Deno of this machine (as: lambdeno deno fmt)."""
    from lambdeno import deno as noun
    from lambdeno import project as projects

    here = Path()
    project = projects.load(here) if (here / projects.FILE).exists() else projects.Project()
    with _watcher() as watcher:
        binary = noun.get(project.deno.version, noun.host_platform(), project.deno.sha256, watcher.progress)
    environment = {**os.environ, "DENO_NO_UPDATE_CHECK": "1"}
    os.execve(binary.path, ["deno", *arguments], environment)  # noqa: S606 - no shell is wanted


# --- what people see ----------------------------------------------------------------------------


def _as_json() -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.obj)


def _end(context: click.Context, error: LambdenoError) -> NoReturn:
    """Show an error, and end with its code."""
    _show_error(error)
    context.exit(error.exit_code)


def _show_error(error: LambdenoError) -> None:
    if "--json" in sys.argv and sys.argv[1] != "deno":  # whose options are not ours
        row = {
            "error": error.message,
            "hint": error.hint,
            "detail": error.detail,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps(row))
        return
    if error.detail:
        click.echo(error.detail + "\n", err=True)
    click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.hint:
        click.echo(click.style("hint: ", fg="cyan") + error.hint, err=True)


def _show_artefacts(made: list[Artefact]) -> None:
    from lambdeno.archive import megabytes

    if _as_json():
        rows = {
            artefact.kind: {
                "path": str(artefact.zip.path),
                "digest": artefact.zip.digest,
                "sha256": artefact.zip.sha256,
                "size": artefact.zip.size,
                "unpacked": artefact.zip.unpacked,
                **artefact.facts,
                "notes": artefact.notes,
            }
            for artefact in made
        }
        click.echo(json.dumps(rows, indent=2))
        return
    zips = [artefact.zip for artefact in made]
    width = max(len(str(zipped.path)) for zipped in zips)  # a path is never cut: it is there to be copied
    click.echo(click.style(f"{'artefact':{width}}   zipped  unpacked  digest", dim=True))
    for zipped in zips:
        path = click.style(f"{zipped.path!s:{width}}", bold=True)
        digest = click.style(zipped.digest.removeprefix("sha256:")[:12], dim=True)
        click.echo(f"{path}  {megabytes(zipped.size):>7}  {megabytes(zipped.unpacked):>8}  {digest}")
    for note in (note for artefact in made for note in artefact.notes):
        click.echo(click.style("note: ", fg="yellow") + note, err=True)


def _show_result(result: Result) -> None:
    payload = result.payload.decode("utf-8", "replace")
    if _as_json():
        try:
            value = json.loads(payload) if payload else None
        except ValueError:
            value = payload
        row = {
            "status": result.status,
            "function_error": result.function_error or None,
            "result": value,
            "log": result.log.splitlines(),
            "milliseconds": round(result.milliseconds, 3),
        }
        click.echo(json.dumps(row))
    else:
        for line in result.log.splitlines():
            click.echo(click.style(line, dim=True), err=True)
        if payload:
            click.echo(payload)
    if result.function_error:
        if _as_json():
            click.get_current_context().exit(FunctionError.exit_code)
        raise FunctionError(
            f"The function answered with an error ({result.function_error})", "see the log above"
        )


@contextmanager
def _watcher() -> Iterator[Watcher]:
    """Progress on a terminal: a bar for long work, one line for a step."""
    from lambdeno.build import Watcher

    if _as_json():
        yield Watcher()
        return
    if not sys.stderr.isatty():
        yield Watcher(step=lambda name: click.echo(name, err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    step = TextColumn("{task.description}", markup=False)  # a path may have brackets
    columns = (SpinnerColumn(), step, BarColumn(bar_width=30), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("Build", total=None)
        yield Watcher(
            step=lambda name: shown.reset(task, description=name, total=None),
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )


@contextmanager
def _endpoint(project: Project, url: str | None, sandbox: str) -> Iterator[str]:
    """A local Lambda that knows the function: the one named, the one that runs, or one for now."""
    from lambdeno import invoke as verb

    if url or verb.running(verb.ENDPOINT, project.name):
        yield url or verb.ENDPOINT
        return
    from lambdeno.dev import local_function
    from lambdeno.emulator import ListSink, local_lambda

    with _watcher() as watcher:
        function = local_function(project, watcher)
    with local_lambda(function, sandbox=sandbox, log=ListSink()) as local:
        yield local.endpoint


def _load(folder: Path) -> Project:
    from lambdeno import project as projects

    return projects.load(folder)
