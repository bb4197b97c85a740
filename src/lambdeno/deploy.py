"""``deploy``: what the project says and ``dist/`` holds, made true in AWS.

    build what is out of date ─► desired ─► ask AWS ─► plan ─► may these credentials do it? ─► step by step

Nothing is remembered here between two deployments: who was interrupted starts again from what AWS says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import filelock

from lambdeno import build, limits
from lambdeno.archive import megabytes
from lambdeno.aws import Aws, Refused
from lambdeno.build import Watcher
from lambdeno.deployment import Actual, Artefact, Desired, Progress, Step, plan, read, removal, wanted
from lambdeno.deployment.step import another_deployment
from lambdeno.errors import ArtifactError, AwsError, DeployError
from lambdeno.project import Project

__all__ = ["PARTS", "Deployment", "allowed", "artefacts", "carry_out", "deploy", "deploy_artefacts", "locked"]

# What a part of a deployment does: which steps, by their ``part``.
PARTS: Mapping[str, frozenset[str]] = {
    "all": frozenset(
        {"bucket", "deno-layer", "runtime-layer", "function", "code", "configuration", "version"}
    ),
    "deno-layer": frozenset({"bucket", "deno-layer"}),
    "runtime-layer": frozenset({"bucket", "runtime-layer"}),
    "function": frozenset({"bucket", "function", "code", "configuration", "version"}),
    "code": frozenset({"bucket", "code", "version"}),
    "configuration": frozenset({"configuration", "version"}),
}


@dataclass(frozen=True)
class Deployment:
    """What was done, or would be: the steps, and where things are now."""

    steps: tuple[Step, ...]
    arns: Mapping[str, str]  # "deno-layer", "runtime-layer", "role" -> ARN, of what is there
    url: str = ""
    version: str = ""  # that the alias names


def deploy(
    project: Project,
    aws: Aws,
    part: str = "all",
    watcher: Watcher = Watcher(),
    *,
    dry_run: bool = False,
) -> Deployment:
    """Deploy a project, or a part of it. Raises LambdenoError.

    Whatever can be known to be wrong is, before anything is changed. Repeating it is safe at any time.
    """
    with locked(project, wanted=not dry_run):
        built = artefacts(project, part, watcher)
        return deploy_artefacts(project, built, aws, part, watcher, dry_run=dry_run)


def deploy_artefacts(
    project: Project,
    built: Mapping[str, Artefact],
    aws: Aws,
    part: str = "all",
    watcher: Watcher = Watcher(),
    *,
    dry_run: bool = False,
) -> Deployment:
    """Deploy what was built. Raises LambdenoError."""
    watcher.step(f"Look at what is in {aws.region}")
    desired = wanted(
        project, built, runtime=build.lambda_runtime(project), region=aws.region, partition=aws.partition
    )
    actual = read(aws, desired)
    steps = _selected(part, desired, actual)
    progress = _progress(desired, actual)
    if not dry_run:
        allowed(aws, steps)
        carry_out(steps, aws, progress, watcher)
    return Deployment(tuple(steps), progress.arns, progress.url, progress.version)


def artefacts(project: Project, part: str = "all", watcher: Watcher = Watcher()) -> dict[str, Artefact]:
    """The artefacts that a part needs, built where they are not up to date. Raises LambdenoError."""
    kinds = (part,) if part in ("deno-layer", "runtime-layer") else build.KINDS
    rows = build.up_to_date(project, watcher, kinds)
    unpacked = sum(rows[kind]["unpacked"] for kind in kinds)
    if unpacked > limits.UNPACKED:
        raise ArtifactError(
            f"The function and its layers have {megabytes(unpacked)} unpacked; "
            f"Lambda takes {megabytes(limits.UNPACKED)}",
            "leave out what the function does not need (build.include)",
        )
    return {kind: Artefact.of(project.dist, rows[kind]) for kind in kinds}


def carry_out(steps: Sequence[Step], aws: Aws, progress: Progress, watcher: Watcher) -> None:
    """One step after the other. Raises AwsError, DeployError."""
    for number, step in enumerate(steps, 1):
        watcher.step(f"[{number}/{len(steps)}] {step.verb.capitalize()} {step.noun} {step.name}")
        try:
            step.apply(aws, progress)
        except Refused as refused:
            if refused.is_there_already:
                raise another_deployment(step.noun, step.name) from None
            raise


def allowed(aws: Aws, steps: Sequence[Step]) -> None:
    """Ask IAM whether these credentials may do all of it, before the first step. Raises DeployError."""
    if not steps:
        return
    try:
        needed = [(action, _resource(aws, step, action)) for step in steps for action in step.needs]
    except AwsError:
        return  # who the caller is, is of no interest to the steps themselves
    denied = aws.forbidden(needed)
    if denied:
        listed = ", ".join(
            f"{action} on {resource.split(':', 5)[-1].removesuffix(':*')}" for action, resource in denied
        )
        raise DeployError(
            f"These credentials may not do what is needed: {listed}",
            "nothing was changed; use other credentials, or have these rights added",
        )


@contextmanager
def locked(project: Project, *, wanted: bool = True) -> Iterator[None]:
    """One deployment of a project folder at a time. Raises DeployError."""
    if not wanted:
        yield
        return
    path = project.dist / ".deploy.lock"
    if path.is_symlink():  # filelock does not follow it either
        raise DeployError(f'Cannot write "{path}": it is a link', "remove it")
    try:
        project.dist.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, blocking=False)
        lock.acquire()
    except filelock.Timeout:
        raise DeployError(
            f'Another deployment of "{project.name}" is at work', "wait until it has ended, then deploy again"
        ) from None
    except OSError as error:
        raise DeployError(
            f'Cannot write "{path}": {error.strerror}', "make the project folder writable"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _selected(part: str, desired: Desired, actual: Actual) -> list[Step]:
    """The plan's steps that the part does. Raises DeployError where one needs what is not there."""
    if part in ("code", "configuration") and desired.function and not actual.function:
        raise DeployError(
            f'There is no function "{desired.function.name}"', "lambdeno deploy function creates it"
        )
    steps = [step for step in plan(desired, actual, PARTS[part]) if step.part in PARTS[part]]
    made = {step.part for step in steps} | ({"role"} if any(step.noun == "role" for step in steps) else set())
    for step in steps:
        for reference in step.uses():
            if reference.what not in made:
                raise DeployError(
                    f"The {reference.what.replace('-', ' ')} of this project is not deployed",
                    f"deploy it first: lambdeno deploy {reference.what}",
                )
    return steps


def _progress(desired: Desired, actual: Actual) -> Progress:
    """What is there already, as the steps build on it, and the URL if it is wanted."""
    function, found = desired.function, actual.function
    progress = Progress(arns=dict(actual.layers))
    if actual.role:
        progress.arns["role"] = actual.role.arn
    if function and found:
        progress.revision = found.configuration.get("RevisionId")
        progress.code_sha256 = str(found.configuration.get("CodeSha256", ""))
        if function.url is not None:
            progress.url = str(found.urls.get(function.qualifier, {}).get("FunctionUrl", ""))
        progress.version = str((found.version or {}).get("Version", ""))
    return progress


def _resource(aws: Aws, step: Step, action: str) -> str:
    """The ARN of what a step changes."""
    service = action.partition(":")[0]
    account = aws.identity[0]
    if service == "iam":
        return f"arn:{aws.partition}:iam::{account}:role/{step.name}"
    if service == "s3":
        inside = "/*" if action.endswith("Object") else ""
        return f"arn:{aws.partition}:s3:::{step.name}{inside}"
    kind = {"logs": "log-group", "lambda": "layer" if step.noun == "layer" else "function"}[service]
    end = f":{step.version}" if isinstance(step, removal.DeleteLayerVersion) else ""
    end = ":*" if service == "logs" else end  # the form that policies have
    return f"arn:{aws.partition}:{service}:{aws.region}:{account}:{kind}:{step.name}{end}"
