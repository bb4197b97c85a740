"""The desired state: lambdeno.toml and the built artefacts, in the words of Lambda's API."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambdeno import limits
from lambdeno.deployment import policies
from lambdeno.project import Project

__all__ = [
    "EVERYWHERE",
    "LICENSE",
    "MARK",
    "MARK_KEY",
    "Artefact",
    "Code",
    "Desired",
    "Function",
    "Layer",
    "New",
    "Role",
    "layer_of",
    "log_group_name",
    "role_name",
    "sorted_cors",
    "wanted",
]

MARK_KEY, MARK = "managed-by", "lambdeno"  # the tag of what this tool has made, and may change and delete
EVERYWHERE = "$LATEST"  # the qualifier of what no alias or version names
LICENSE = "MIT"  # of the layers
LAYER_NAMES = {"deno-layer": "lambdeno-deno", "runtime-layer": "lambdeno-runtime"}


@dataclass(frozen=True)
class New:
    """The ARN of something that a step of the same plan makes: ``role`` or an artefact's kind."""

    what: str

    def __str__(self) -> str:
        return f"the new {self.what.replace('-', ' ')}"


@dataclass(frozen=True)
class Artefact:
    """A zip that was built: where, which, how large (bytes)."""

    path: Path
    digest: str  # sha256:…, over names, modes and contents
    sha256: str  # of the file
    size: int
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, dist: Path, row: Mapping[str, Any]) -> Artefact:
        """The artefact that a row of ``dist/manifest.json`` is about."""
        return cls(dist / row["file"], row["digest"], row["sha256"], row["size"], row)

    @property
    def code_sha256(self) -> str:
        """The file's SHA-256 as Lambda and S3 tell it: in base64."""
        return base64.b64encode(bytes.fromhex(self.sha256)).decode()


@dataclass(frozen=True)
class Code:
    """An artefact on its way to Lambda: in the request, or through a bucket (``""``: one to be made)."""

    artefact: Artefact
    bucket: str | None

    @property
    def key(self) -> str:
        """Its place in the bucket."""
        return f"lambdeno/{self.artefact.sha256}.zip"


@dataclass(frozen=True)
class Layer:
    """One of our two layers, in the version that the artefact is."""

    kind: str
    name: str
    description: str  # has the digest, by which a version is known again
    architecture: str
    runtime: str | None  # the only one that it fits
    code: Code


@dataclass(frozen=True)
class Role:
    """The execution role: one that is there (``name``: a name or an ARN), or ours."""

    name: str
    is_ours: bool
    permissions: policies.Document
    managed: tuple[str, ...]  # ARNs


@dataclass(frozen=True)
class Function:
    """What Lambda is to know: ``configuration`` in CreateFunction's words, but for layers and role."""

    name: str
    code: Code
    architecture: str
    configuration: Mapping[str, Any]
    layers: tuple[str, ...]  # further ones: ARNs
    role: Role
    log_group: str
    log_retention: int  # days, 0: for ever
    tags: Mapping[str, str]
    concurrency: int | None
    alias: str
    url: Mapping[str, Any] | None  # in CreateFunctionUrlConfig's words
    url_statements: Mapping[str, Mapping[str, Any]]
    event_invoke: Mapping[str, Any] | None  # in PutFunctionEventInvokeConfig's words

    @property
    def qualifier(self) -> str:
        """What its URL and its settings for queued events are of: the alias, or the function itself."""
        return self.alias or EVERYWHERE


@dataclass(frozen=True)
class Desired:
    """All of it; ``function`` is None where only layers are deployed."""

    layers: tuple[Layer, ...]
    function: Function | None


def wanted(
    project: Project,
    artefacts: Mapping[str, Artefact],
    *,
    runtime: str,
    region: str,
    partition: str = "aws",
) -> Desired:
    """The desired state. ``runtime`` is Lambda's identifier. Raises ProjectError."""
    layers = [layer_of(kind, project, artefacts[kind], runtime) for kind in LAYER_NAMES if kind in artefacts]
    if "function" not in artefacts:
        return Desired(tuple(layers), None)
    group = log_group_name(project.name)
    group_arn = f"arn:{partition}:logs:{region}:*:log-group:{group}"
    function = Function(
        name=project.name,
        code=_code(project, artefacts["function"]),
        architecture=project.architecture,
        configuration=_configuration(project, runtime, group),
        layers=project.layers,
        role=Role(
            name=project.role.name or role_name(project.name, region),
            is_ours=not project.role.name,
            permissions=policies.permissions(project, group_arn),
            managed=project.role.policies,
        ),
        log_group=group,
        log_retention=project.log_retention,
        tags={**project.tags, MARK_KEY: MARK},
        concurrency=project.reserved_concurrency,
        alias=project.alias,
        url=_url(project),
        url_statements=policies.statements_of_url(project.url.auth) if project.url else {},
        event_invoke=_event_invoke(project),
    )
    return Desired(tuple(layers), function)


def layer_of(kind: str, project: Project, artefact: Artefact, runtime: str) -> Layer:
    """A layer as it is published: one name for an account, a version for each digest."""
    facts = artefact.facts
    if kind == "deno-layer":
        words = f"Deno {facts['version']}"
    else:
        words = f"lambdeno {facts['version']}, {facts['shape']}, Deno {facts['deno']}"
    return Layer(
        kind=kind,
        name=f"{LAYER_NAMES[kind]}-{project.architecture}",
        description=f"{words}, {artefact.digest}",
        architecture=project.architecture,
        runtime=None if kind == "deno-layer" else runtime,
        code=_code(project, artefact),
    )


def role_name(function: str, region: str) -> str:
    """Of our role: IAM is one for all regions, and takes 64 characters."""
    name = f"lambdeno-{function}-{region}"
    if len(name) <= 64:
        return name
    return f"{name[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def log_group_name(function: str) -> str:
    """Where Lambda writes a function's log."""
    return f"/aws/lambda/{function}"


def _code(project: Project, artefact: Artefact) -> Code:
    through_bucket = artefact.size > limits.DIRECT
    return Code(artefact, project.bucket if through_bucket else None)


def _configuration(project: Project, runtime: str, log_group: str) -> dict[str, Any]:
    logging = {"LogFormat": "Text", "LogGroup": log_group}
    if project.log_format == "json":
        logging = {
            "LogFormat": "JSON",
            # Lambda has no "all", and INFO for who says nothing
            "ApplicationLogLevel": (project.log_level or "trace").upper(),
            "SystemLogLevel": "INFO",
            "LogGroup": log_group,
        }
    vpc = project.vpc
    return {
        "Description": project.description,
        "Runtime": runtime,
        "Handler": project.handler,
        "MemorySize": project.memory,
        "Timeout": project.timeout,
        "EphemeralStorage": {"Size": project.storage},
        "Environment": {"Variables": project.variables},
        "TracingConfig": {"Mode": "Active" if project.tracing else "PassThrough"},
        "VpcConfig": {
            "SubnetIds": sorted(vpc.subnets) if vpc else [],
            "SecurityGroupIds": sorted(vpc.security_groups) if vpc else [],
        },
        "LoggingConfig": logging,
    }


def _url(project: Project) -> dict[str, Any] | None:
    url = project.url
    if not url:
        return None
    cors: dict[str, Any] = {}
    if url.cors:
        cors = {
            "AllowOrigins": url.cors.origins,
            "AllowMethods": url.cors.methods,
            "AllowHeaders": url.cors.headers,
            "ExposeHeaders": url.cors.expose,
            "MaxAge": url.cors.max_age,
            "AllowCredentials": url.cors.credentials,
        }
    return {
        "AuthType": {"iam": "AWS_IAM", "none": "NONE"}[url.auth],
        "InvokeMode": {"buffered": "BUFFERED", "streaming": "RESPONSE_STREAM"}[url.invoke_mode],
        "Cors": {
            key: sorted_cors(key, value) if isinstance(value, tuple) else value
            for key, value in cors.items()
            if value
        },
    }


def sorted_cors(key: str, values: Iterable[str]) -> list[str]:
    """A list of CORS in one order; Lambda keeps the names of headers in small letters."""
    return sorted(value.lower() if key.endswith("Headers") else value for value in values)


def _event_invoke(project: Project) -> dict[str, Any] | None:
    wanted = project.event_invoke
    if not wanted:
        return None
    destinations = {"OnSuccess": wanted.on_success, "OnFailure": wanted.on_failure}
    return {
        "MaximumEventAgeInSeconds": wanted.max_event_age,
        "MaximumRetryAttempts": wanted.retries,
        "DestinationConfig": {name: {"Destination": arn} for name, arn in destinations.items() if arn},
    }
