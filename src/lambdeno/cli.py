"""The command line: the only printer, and the only catcher of our errors.

Results go to stdout, everything else to stderr. ``--json`` makes stdout one JSON document, an
error included. Heavy imports stand in the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lambdeno import __version__, signals, terminal
from lambdeno.errors import FunctionError, LambdenoError, UsageError

if TYPE_CHECKING:
    from lambdeno.build import Artefact, Watcher
    from lambdeno.deploy import Deployment
    from lambdeno.deployment import Step
    from lambdeno.emulator import Form
    from lambdeno.init import Runtime, Settings
    from lambdeno.invoke import Result
    from lambdeno.logs import Event
    from lambdeno.project import Architecture, Project
    from lambdeno.template import Format, Template

KINDS = ("deno-layer", "runtime-layer", "function")
PARTS = ("all", *KINDS, "code", "configuration")
PORT = 9000
URL_PORT = 9001
FORMS = ("url", "http-api", "rest", "alb", "alb-multi")
INSPECT = "127.0.0.1:9229"
SANDBOXES = ("auto", "bubblewrap", "paths")


class _Cli(click.Group):
    """Shows every error in our words, with our exit codes; nobody meets a traceback for a mistake."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        with _told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with signals.caught() as caught:
            try:
                with _told(ctx):
                    return super().invoke(ctx)
            finally:
                if caught.number:
                    _end_by(caught.number)


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
    except click.Abort:  # an answer that is no, or none
        _echo("Nothing was changed", err=True)
        context.exit(1)
    except KeyboardInterrupt as error:
        if not isinstance(error, signals.Ended) or error.number == signal.SIGINT:
            _echo("", err=True)  # behind the terminal's ^C
        context.exit(130)


def _end_by(number: int) -> None:
    """End by the signal that has interrupted the command, and leave nothing behind."""
    from lambdeno import scratch

    scratch.close_all()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    signals.die(number)


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


def _aws_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which account, which region."""
    command = click.option("--region", metavar="NAME", help="AWS's region [default: the profile's].")(command)
    return click.option("--profile", metavar="NAME", help="A profile of ~/.aws/config.")(command)


@main.command()
@click.option(
    "--event", default="{}", show_default=True, metavar="EVENT", help="JSON, a file, or - for stdin."
)
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Execution environments."
)
@click.option(
    "--invocations",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="Of each environment, after its first one.",
)
@click.option(
    "--sandbox", type=click.Choice(SANDBOXES), default="auto", help="How environments are kept apart."
)
@_common
def bench(*, event: str, rounds: int, invocations: int, sandbox: str, folder: Path) -> None:
    """Measure the function in the local Lambda: its start and where that goes, invocations, memory."""
    from lambdeno import bench as verb
    from lambdeno.invoke import read_event

    project = _load(folder)
    payload = read_event(event, sys.stdin.buffer if event == "-" else None)
    with _watcher() as watcher:
        figures = verb.bench(project, payload, rounds, invocations, sandbox, watcher=watcher)
    if _as_json():
        _echo(json.dumps(asdict(figures), indent=2))
        return
    from rich.console import Console

    from lambdeno.benchview import show

    show(figures, Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False))


@main.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--template",
    default="hello",
    show_default=True,
    metavar="NAME",
    help="What it starts from: hello, http (Hono), sqs, or streaming (server-sent events).",
)
@click.option("--name", help="The function's name [default: the folder's].")
@click.option(
    "--runtime",
    type=click.Choice(("runtime1", "runtime2")),
    help="One Deno process for all, or one for each invocation [default: runtime1].",
)
@click.option("--architecture", type=click.Choice(("x86_64", "arm64")), default="x86_64", show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, for machines.")
def init(
    *,
    folder: Path | None,
    template: str,
    name: str | None,
    runtime: Runtime | None,
    architecture: Architecture,
    yes: bool,
    as_json: bool,
) -> None:
    """Write a new project into FOLDER [default: the current one]; never over a file that is there."""
    from lambdeno import init as verb
    from lambdeno.project import name_of

    click.get_current_context().obj = as_json
    is_asking = os.isatty(0) and not (yes or as_json)

    def ask(question: str, default: str, kind: click.Choice[str] | None = None) -> Any:
        if not is_asking:
            return default
        with redirect_stdout(sys.stderr):  # with err=True, click writes the last blank to stdout
            return click.prompt(question, default, type=kind)

    folder = Path(ask("Folder", "hello" if is_asking else ".")) if folder is None else folder
    name = ask("Name of the function", name_of(folder)) if name is None else name
    question = "runtime1: one Deno process for all; runtime2: one for each invocation\nRuntime"
    runtime = runtime or ask(question, "runtime1", click.Choice(("runtime1", "runtime2")))
    settings = verb.Settings(name, template, runtime, architecture)
    _show_project(folder, settings, verb.init(folder, settings), verb.TRY[template])


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
@click.option(
    "--format",
    "form",
    type=click.Choice(("sam", "cloudformation")),
    default="sam",
    show_default=True,
    help="SAM uploads the zips; for CloudFormation they are in a bucket.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it [default: stdout].",
)
@_common
def template(form: Format, output: Path | None, folder: Path) -> None:
    """Write a template of what deploy makes, for SAM or CloudFormation."""
    from lambdeno import template as verb

    project = _load(folder)
    with _watcher() as watcher:
        made = verb.template(project, form, output.parent if output else folder, watcher)
    if output:
        verb.write(output, str(made))
    _show_template(made, form, output)


@main.command()
@click.argument("event", default="{}")
@click.option("--async", "asynchronous", is_flag=True, help="Queue the event and return (Event).")
@click.option(
    "--endpoint-url",
    metavar="URL",
    help=f"A local Lambda [default: port {PORT}, or one for this call].",
)
@click.option("--sandbox", type=click.Choice(SANDBOXES), help="For a local Lambda of this call.")
@click.option("--remote", is_flag=True, help="Invoke the deployed function.")
@click.option("--qualifier", metavar="NAME", help="Its version or alias [default: the project's alias].")
@click.option("--stream", is_flag=True, help="Print its answer as it comes.")
@_aws_options
@_common
def invoke(
    *,
    event: str,
    asynchronous: bool,
    endpoint_url: str | None,
    sandbox: str | None,
    remote: bool,
    qualifier: str | None,
    stream: bool,
    profile: str | None,
    region: str | None,
    folder: Path,
) -> None:
    """Send an EVENT (JSON, a file, or - for stdin) to the function and print its result."""
    from lambdeno import invoke as verb

    here = {"--endpoint-url": endpoint_url, "--sandbox": sandbox}
    there = {"--qualifier": qualifier, "--stream": stream, "--profile": profile, "--region": region}
    _check_place(here, there, remote=remote)
    if stream and asynchronous:
        raise UsageError("--async and --stream exclude each other", "an event that is queued has no answer")
    project = _load(folder)
    payload = verb.read_event(event, sys.stdin.buffer if event == "-" else None)
    kind = "Event" if asynchronous else "RequestResponse"
    if remote:
        from lambdeno import remote as deployed
        from lambdeno.aws import Aws

        aws = Aws(profile, region)
        if stream:
            result = _streamed(lambda write: deployed.stream(aws, project, payload, write, qualifier or ""))
        else:
            result = deployed.invoke(aws, project, payload, kind, qualifier or "")
    else:
        with _endpoint(project, endpoint_url, sandbox or "auto") as endpoint:
            result = verb.invoke(endpoint, project, payload, kind)
    _show_result(result)


def _check_place(here: Mapping[str, object], there: Mapping[str, object], *, remote: bool) -> None:
    """Refuse options of the local Lambda with --remote, and AWS's without it. Raises UsageError."""
    for option, value in (here if remote else there).items():
        if value and remote:
            raise UsageError(f"--remote and {option} exclude each other", f"{option} is for the local Lambda")
        if value:
            raise UsageError(f"{option} needs --remote", f"{option} is for the deployed function")


@main.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--since",
    "start",
    metavar="TIME",
    default="10m",
    show_default=True,
    help="From 30s, 10m, 2h or 1d ago on, or from an ISO 8601 time on.",
)
@click.option("--filter", "pattern", metavar="PATTERN", default="", help="CloudWatch's filter pattern.")
@_aws_options
@_common
def logs(
    *,
    follow: bool,
    start: str,
    pattern: str,
    profile: str | None,
    region: str | None,
    folder: Path,
) -> None:
    """Print the deployed function's log: a line for each event; with --json, a document for each."""
    from lambdeno import logs as verb
    from lambdeno.aws import Aws

    begin = verb.since(start, time.time())
    project = _load(folder)
    read = verb.follow if follow else verb.read
    is_empty = True
    for event in read(Aws(profile, region), project, begin, pattern):
        is_empty = False
        _show_log_event(event)
    if is_empty and not _as_json():
        _echo(f'"{project.name}" has logged nothing since {start}, or it has not arrived yet', err=True)


@main.command()
@click.argument("part", type=click.Choice([*PARTS]), default="all")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@_aws_options
@_common
def deploy(part: str, dry_run: bool, profile: str | None, region: str | None, folder: Path) -> None:
    """Deploy the function and its layers, or one PART: only what differs."""
    from lambdeno import deploy as verb
    from lambdeno.aws import Aws

    project = _load(folder)
    with _watcher() as watcher, _interruptible("lambdeno deploy"):
        aws = Aws(profile, region)
        done = verb.deploy(project, aws, part, watcher, dry_run=dry_run)
    _show_deployment(project, part, aws.region, done, dry_run=dry_run)


@main.command()
@click.option("--layers", is_flag=True, help="The layers and the bucket too, which other functions may use.")
@click.option("--keep-logs", is_flag=True, help="Leave the log group.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_aws_options
@_common
def destroy(
    *,
    layers: bool,
    keep_logs: bool,
    dry_run: bool,
    yes: bool,
    profile: str | None,
    region: str | None,
    folder: Path,
) -> None:
    """Delete the function, its role and its log; the layers only with --layers."""
    from lambdeno import destroy as verb
    from lambdeno.aws import Aws
    from lambdeno.deploy import locked

    project = _load(folder)
    aws = Aws(profile, region)
    with locked(project, wanted=not dry_run):
        steps = verb.plan_of_removal(project, aws, with_layers=layers, keep_logs=keep_logs)
        if steps and not dry_run:
            _confirm(steps, f'Delete this in {aws.region}, for "{project.name}"?', sure=yes)
            with _watcher() as watcher, _interruptible("lambdeno destroy"):
                verb.destroy(steps, aws, watcher)
    if _as_json():
        _echo(json.dumps({"steps": _rows_of(steps), "dry_run": dry_run}, indent=2))
    elif not steps:
        _echo(f'There is nothing of "{project.name}" in {aws.region}', err=True)
    elif dry_run:
        _show_plan(steps)
    else:
        _echo(f'"{project.name}" is gone from {aws.region}', err=True)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option(
    "--url-port",
    type=click.IntRange(0, 65535),
    default=URL_PORT,
    show_default=True,
    help="The port of the function's URL; 0: any.",
)
@click.option(
    "--http",
    "form",
    type=click.Choice(FORMS),
    default="url",
    show_default=True,
    help="Whose events the URL's requests become.",
)
@click.option("--sandbox", type=click.Choice(SANDBOXES), default="auto", show_default=True)
@click.option(
    "--inspect",
    metavar="HOST:PORT",
    is_flag=False,
    flag_value=INSPECT,
    default="",
    help=f"Let a debugger attach [without a value: {INSPECT}].",
)
@_common
def dev(*, port: int, url_port: int, form: Form, sandbox: str, inspect: str, folder: Path) -> None:
    """Run the function in the local Lambda, swap its code when a file changes, until Ctrl-C."""
    from lambdeno import dev as verb
    from lambdeno.devview import Json, Terminal

    options = verb.Options(port, url_port, form, sandbox, inspect)
    view = Json(_echo) if _as_json() else Terminal(folder, inspect)
    with _watcher() as watcher:
        session = verb.begin(folder, options, watcher)
    verb.serve(session, view, view)


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
        _echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for finding in findings:
            state = click.style(f"{finding.state:4}", fg=colours[finding.state])
            _echo(f"{state}  {finding.what:13}  {finding.found}")
            if finding.remedy:
                _echo(click.style(" " * 21 + finding.remedy, dim=True))
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


def _echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print; what a function, AWS or a file put into the text is nothing that a terminal obeys."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        shown = terminal.safe(text, colours=True)
        text = shown.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    click.echo(text, err=err, nl=nl)


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
        _echo(json.dumps(row))
        return
    if error.detail:
        _echo(error.detail + "\n", err=True)
    _echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.hint:
        _echo(click.style("hint: ", fg="cyan") + error.hint, err=True)


def _show_project(folder: Path, settings: Settings, files: list[Path], first: str) -> None:
    if _as_json():
        row = {"folder": str(folder), "name": settings.name, "files": [str(file) for file in files]}
        _echo(json.dumps(row, indent=2))
        return
    for file in files:
        _echo(click.format_filename(file))
    steps = [] if folder == Path() else [f"cd {shlex.quote(click.format_filename(folder))}"]
    steps += ["lambdeno dev", first, "lambdeno deploy"]
    _echo("\n  ".join(["Next:", *steps]), err=True)


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
        _echo(json.dumps(rows, indent=2))
        return
    zips = [artefact.zip for artefact in made]
    width = max(len(str(zipped.path)) for zipped in zips)  # a path is never cut: it is there to be copied
    _echo(click.style(f"{'artefact':{width}}   zipped  unpacked  digest", dim=True))
    for zipped in zips:
        path = click.style(f"{zipped.path!s:{width}}", bold=True)
        digest = click.style(zipped.digest.removeprefix("sha256:")[:12], dim=True)
        _echo(f"{path}  {megabytes(zipped.size):>7}  {megabytes(zipped.unpacked):>8}  {digest}")
    for note in (note for artefact in made for note in artefact.notes):
        _echo(click.style("note: ", fg="yellow") + note, err=True)


def _show_template(made: Template, form: str, output: Path | None) -> None:
    if _as_json():
        row = {
            "format": form,
            "output": str(output) if output else None,
            "parameters": made.parameters,
            "template": made.document,
        }
        _echo(json.dumps(row, indent=2))
    elif output:
        asks = f"; its parameters: {', '.join(made.parameters.values())}" if made.parameters else ""
        _echo(f"Wrote {output}{asks}", err=True)
    else:
        _echo(str(made), nl=False)


def _show_deployment(project: Project, part: str, region: str, done: Deployment, *, dry_run: bool) -> None:
    """A layer's ARN, for whoever deploys the rest by other means; of a function, its URL."""
    arn = done.arns.get(part, "") if part.endswith("-layer") else ""
    if _as_json():
        facts = {"arn": arn} if arn else {"function": project.name, "url": done.url, "version": done.version}
        row = {"region": region, "dry_run": dry_run, "steps": _rows_of(done.steps), **facts}
        _echo(json.dumps(row, indent=2))
        return
    if not done.steps:
        _echo(f"Nothing to do: {region} has all of it", err=True)
    elif dry_run:
        _show_plan(done.steps)
        return
    else:
        count = "1 step" if len(done.steps) == 1 else f"{len(done.steps)} steps"
        _echo(f"Deployed to {region} in {count}", err=True)
    if arn or done.url:
        _echo(arn or done.url)


def _show_plan(steps: Iterable[Step]) -> None:
    """The steps as a table: what, from what, to what."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("step", "name", "what", "from", "to"):
        table.add_column(title, overflow="fold")
    colours = {"create": "green", "publish": "green", "update": "yellow", "delete": "red"}
    for step in steps:
        first = (
            Text(f"{step.verb} {step.noun}", style=colours[step.verb]),
            Text(terminal.safe(step.name), style="bold"),
        )
        rows = [(change.what, change.before, change.after) for change in step.changes] or [("", "", "")]
        for number, row in enumerate(rows):
            table.add_row(*(first if number == 0 else ("", "")), *(Text(terminal.safe(cell)) for cell in row))
    no_colour = bool(os.environ.get("NO_COLOR"))
    width = None if sys.stdout.isatty() else 200  # a file has no edge
    Console(no_color=no_colour, width=width, highlight=False).print(table)


def _rows_of(steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [
        {
            "step": f"{step.verb} {step.noun}",
            "name": step.name,
            "changes": [asdict(change) for change in step.changes],
        }
        for step in steps
    ]


def _confirm(steps: Iterable[Step], question: str, *, sure: bool) -> None:
    """Show what will go, and ask. Raises UsageError where nobody can answer."""
    if sure:
        return
    if _as_json() or not sys.stdin.isatty():
        raise UsageError(
            "Nobody is there to be asked whether to delete this", "give --yes, or --dry-run to look"
        )
    _show_plan(steps)
    with redirect_stdout(sys.stderr):  # with err=True, click writes the last blank to stdout
        click.confirm(question, abort=True)


def _show_result(result: Result) -> None:
    if _as_json():
        _echo(_row_of(result))
    else:
        for line in result.log.removesuffix("\n").split("\n") if result.log else ():
            if sys.stderr.isatty():
                _echo(click.style(line, dim=True), err=True)
            else:
                click.echo(line, err=True, color=True)  # as it is
        if result.payload and sys.stdout.isatty():
            _echo(result.payload.decode("utf-8", "replace"))
        elif result.payload:
            click.echo(result.payload)  # bytes, as they are
    if result.function_error:
        if _as_json():
            click.get_current_context().exit(FunctionError.exit_code)
        raise FunctionError(
            f"The function answered with an error ({result.function_error})",
            "see the log above",
            detail=result.details,
        )


def _row_of(result: Result) -> str:
    """The result as a JSON document; what the function answered is in it as it came."""
    from lambdeno import payload as payloads

    try:
        payloads.check(result.payload)
        answer = payloads.on_one_line(result.payload)
    except ValueError:
        answer = json.dumps(result.payload.decode("utf-8", "replace") or None)
    row = {
        "status": json.dumps(result.status),
        "function_error": json.dumps(result.function_error or None),
        "result": answer,
        "log": json.dumps(result.log.splitlines()),
        "milliseconds": json.dumps(round(result.milliseconds, 3)),
    }
    if result.details:
        row["details"] = json.dumps(result.details)
    return "{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}"


def _streamed(send: Callable[[Callable[[bytes], None]], Result]) -> Result:
    """Send an event; its answer goes to stdout as it comes, or with --json into the result."""
    chunks: list[bytes] = []
    if _as_json():
        return replace(send(chunks.append), payload=b"".join(chunks))
    if not sys.stdout.isatty():
        return send(_write)
    shown = terminal.Stream()
    end = "\n"

    def write(text: str) -> None:
        nonlocal end
        _write(text.encode(sys.stdout.encoding, "backslashreplace"))
        end = text[-1:] or end

    try:
        return send(lambda chunk: write(shown.feed(chunk)))
    finally:
        write(shown.end())
        if end != "\n":
            click.echo()


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _show_log_event(event: Event) -> None:
    from lambdeno import logs

    if _as_json():
        _echo(json.dumps(logs.row_of(event)))
        return
    dim = event.level in (logs.PLATFORM, "TRACE", "DEBUG")
    colour = {"WARN": "yellow", "ERROR": "red", "FATAL": "red"}.get(event.level)
    line, encoding = logs.text_of(event), sys.stdout.encoding
    line = line.encode(encoding, "backslashreplace").decode(encoding)  # in a file, too
    _echo(click.style(line, fg=colour, dim=dim or None))


@contextmanager
def _watcher() -> Iterator[Watcher]:
    """Progress on a terminal: a bar for long work, one line for a step."""
    from lambdeno.build import Watcher

    if _as_json():
        yield Watcher()
        return
    if not sys.stderr.isatty():
        yield Watcher(step=lambda name: _echo(name, err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    step = TextColumn("{task.description}", markup=False)  # a path may have brackets
    columns = (SpinnerColumn(), step, BarColumn(bar_width=30), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("Build", total=None)
        yield Watcher(
            step=lambda name: shown.reset(task, description=terminal.safe(name), total=None),
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )


@contextmanager
def _interruptible(command: str) -> Iterator[None]:
    """Tells who presses Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal is gone
            _echo(f"\nInterrupted: {command} goes on from what is there", err=True)
        raise


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
