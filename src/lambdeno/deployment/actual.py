"""The actual state: what AWS says, in ten to twelve calls (two more for a bucket), all of them reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambdeno.aws import DENIED, Aws, Refused, mask
from lambdeno.deployment.desired import EVERYWHERE, MARK, MARK_KEY, Desired, Function, Layer, Role, role_name
from lambdeno.errors import DeployError

if TYPE_CHECKING:
    from mypy_boto3_lambda.type_defs import GetFunctionResponseTypeDef

__all__ = [
    "Actual",
    "Deployed",
    "FoundRole",
    "bucket_name",
    "check_mark",
    "is_marked",
    "read",
    "retention_of",
    "tags_of",
    "urls_of",
]


@dataclass(frozen=True)
class FoundRole:
    """A role that is there."""

    arn: str
    is_marked: bool
    permissions: Mapping[str, Any] | None  # the document of ours in it
    managed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployed:
    """A function that is there. Qualifiers are alias names, or ``$LATEST``."""

    configuration: Mapping[str, Any]
    tags: Mapping[str, str]
    concurrency: int | None
    aliases: Mapping[str, Mapping[str, Any]]
    version: Mapping[str, Any] | None  # configuration of the version that the wanted alias names
    urls: Mapping[str, Mapping[str, Any]]
    statements: Mapping[str, Mapping[str, Any]]  # of the resource policy, where the URL is to be
    event_invokes: Mapping[str, Mapping[str, Any]]

    @property
    def arn(self) -> str:
        """Unqualified."""
        return str(self.configuration["FunctionArn"])


@dataclass(frozen=True)
class Actual:
    """What is there of what is wanted."""

    layers: Mapping[str, str] = field(default_factory=dict)  # kind -> ARN of the version with the digest
    role: FoundRole | None = None
    former_role: str = ""  # ours, which the function has left for another
    log_retention: int | None = None  # days, 0: for ever; None: there is no log group
    function: Deployed | None = None
    bucket: str = ""  # for what is too large to be sent; empty: nothing is
    has_bucket: bool = False


def read(aws: Aws, desired: Desired) -> Actual:
    """Ask AWS. Raises AwsError, and DeployError for what can never be deployed."""
    layers = {layer.kind: arn for layer in desired.layers if (arn := _version_of(aws, layer))}
    bucket, has_bucket = _bucket(aws, desired, layers)
    wanted = desired.function
    if wanted is None:
        return Actual(layers, bucket=bucket, has_bucket=has_bucket)
    _check_layers(aws, wanted)
    return Actual(
        layers=layers,
        role=_role(aws, wanted.role),
        former_role=_former_role(aws, wanted),
        log_retention=retention_of(aws, wanted),
        function=_function(aws, wanted),
        bucket=bucket,
        has_bucket=has_bucket,
    )


def is_marked(tags: Mapping[str, str]) -> bool:
    """Whether lambdeno made the thing that has these tags."""
    return tags.get(MARK_KEY) == MARK


def tags_of(role: Mapping[str, Any]) -> dict[str, str]:
    """A role's tags."""
    return {tag["Key"]: tag["Value"] for tag in role.get("Tags", [])}


def check_mark(name: str, answer: Mapping[str, Any], hint: str) -> None:
    """Refuse a function of somebody else's. Raises DeployError."""
    if "TagsError" in answer:
        raise DeployError(
            f"Access denied: lambda:ListTags on {name}", "without its tags nobody knows who made the function"
        )
    if not is_marked(answer.get("Tags", {})):
        raise DeployError(f'There is a function "{name}" that lambdeno did not make', hint)


def bucket_name(aws: Aws) -> str:
    """Of the bucket that lambdeno makes: one for an account and region, without the account's id."""
    account, _ = aws.identity
    return f"lambdeno-{hashlib.sha256(f'{account} {aws.region}'.encode()).hexdigest()[:24]}"


def _version_of(aws: Aws, layer: Layer) -> str | None:
    """The newest version of a layer that has the artefact's digest."""
    versions = aws.pages(aws.lambda_.list_layer_versions, "LayerVersions", LayerName=layer.name)
    digest = layer.code.artefact.digest
    return next((row["LayerVersionArn"] for row in versions if digest in row.get("Description", "")), None)


def _bucket(aws: Aws, desired: Desired, layers: Mapping[str, str]) -> tuple[str, bool]:
    """The bucket for what is too large, and whether it is there; asked only where something is."""
    codes = [layer.code for layer in desired.layers if layer.kind not in layers]
    codes += [desired.function.code] if desired.function else []
    through = [code for code in codes if code.bucket is not None]
    if not through:
        return "", False
    name = through[0].bucket or bucket_name(aws)
    found = aws.find(aws.s3.head_bucket, Bucket=name, ExpectedBucketOwner=aws.identity[0])
    where = found.get("BucketRegion", aws.region) if found else aws.region
    if where != aws.region:
        raise DeployError(
            f'The bucket "{name}" is in {where}, and the function is to be in {aws.region}',
            "name a bucket of the function's region, or none",
        )
    if not found and through[0].bucket:
        raise DeployError(f'There is no bucket "{name}"', "make it, or leave bucket out: lambdeno makes one")
    return name, bool(found)


def _role(aws: Aws, role: Role) -> FoundRole | None:
    name = role.name.rpartition("/")[2]
    try:
        answer = aws.find(aws.iam.get_role, RoleName=name)
    except Refused as refused:
        if refused.code in DENIED and role.name.startswith("arn:"):
            return FoundRole(role.name, False, None)  # who may pass it may be forbidden to look at it
        raise
    if answer is None:
        if role.is_ours:
            return None
        raise DeployError(
            f'There is no role "{name}"',
            "make it, or leave role.name out: lambdeno makes one with the least rights",
        )
    found = answer["Role"]
    trusted = json.dumps(found.get("AssumeRolePolicyDocument", ""))
    if "lambda.amazonaws.com" not in trusted:
        raise DeployError(
            f'Lambda may not take the role "{name}"',
            'its trust policy must allow sts:AssumeRole to the service "lambda.amazonaws.com"',
        )
    if role.name.startswith("arn:") and found["Arn"] != role.name:
        raise DeployError(f'There is no role "{mask(role.name)}" in this account', "correct role.name")
    marked = is_marked(tags_of(found))
    if not role.is_ours:
        return FoundRole(found["Arn"], marked, None)
    if not marked:
        raise DeployError(
            f'There is a role "{name}" that lambdeno did not make',
            "remove it, or name it as role.name to use it",
        )
    inline = aws.find(aws.iam.get_role_policy, RoleName=name, PolicyName=MARK)
    attached = aws.pages(
        aws.iam.list_attached_role_policies, "AttachedPolicies", ("Marker", "Marker"), RoleName=name
    )
    return FoundRole(
        arn=found["Arn"],
        is_marked=marked,
        permissions=dict(inline["PolicyDocument"]) if inline else None,  # type: ignore[arg-type]
        managed=tuple(row["PolicyArn"] for row in attached),
    )


def retention_of(aws: Aws, wanted: Function) -> int | None:
    """Days; what is wanted where a policy of the account decides, for nothing else can."""
    name = wanted.log_group
    groups = aws.pages(
        aws.logs.describe_log_groups, "logGroups", ("nextToken", "nextToken"), logGroupNamePrefix=name
    )
    for row in groups:
        if row["logGroupName"] == name:
            by_policy = row.get("retentionPolicyName")
            return wanted.log_retention if by_policy else int(row.get("retentionInDays", 0))
    return None


def _former_role(aws: Aws, wanted: Function) -> str:
    """Our role's name, where it is there and the project names another."""
    name = role_name(wanted.name, aws.region)
    if wanted.role.is_ours or wanted.role.name.rpartition("/")[2] == name:
        return ""
    try:
        found = aws.find(aws.iam.get_role, RoleName=name)
    except Refused as refused:
        if refused.code in DENIED:  # who may not look may not delete either
            return ""
        raise
    return name if found and is_marked(tags_of(found["Role"])) else ""


def _check_layers(aws: Aws, wanted: Function) -> None:
    for arn in wanted.layers:
        if arn.split(":")[3] != aws.region:
            raise DeployError(
                f'The layer "{":".join(arn.split(":")[6:])}" is in {arn.split(":")[3]}, '
                f"and the function is to be in {aws.region}",
                "name a layer of the function's region",
            )


def _function(aws: Aws, wanted: Function) -> Deployed | None:
    name = wanted.name
    answer = aws.find(aws.lambda_.get_function, FunctionName=name)
    if answer is None:
        return None
    check_mark(
        name,
        answer,
        f'choose another name; or, to hand it over, give it the tag "{MARK_KEY}" with the value "{MARK}"',
    )
    answer = _settled(aws, name, answer)
    aliases = {row["Name"]: row for row in aws.pages(aws.lambda_.list_aliases, "Aliases", FunctionName=name)}
    version = None
    if wanted.alias in aliases:
        number = aliases[wanted.alias]["FunctionVersion"]
        version = aws.find(aws.lambda_.get_function_configuration, FunctionName=name, Qualifier=number)
    urls = urls_of(aws, wanted)
    invokes = {
        _qualifier(row): row
        for row in aws.pages(
            aws.lambda_.list_function_event_invoke_configs, "FunctionEventInvokeConfigs", FunctionName=name
        )
    }
    return Deployed(
        configuration=answer["Configuration"],
        tags=answer.get("Tags", {}),
        concurrency=answer.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
        aliases=aliases,
        version=version,
        urls=urls,
        statements=_statements(aws, wanted) if wanted.url else {},
        event_invokes=invokes,
    )


def urls_of(aws: Aws, wanted: Function) -> dict[str, Mapping[str, Any]]:
    """The function's URLs by qualifier. Raises DeployError where one is wanted and the region has none."""
    operation = aws.lambda_.list_function_url_configs
    try:
        rows = list(aws.pages(operation, "FunctionUrlConfigs", FunctionName=wanted.name))
    except Refused as refused:
        # so Lambda answers in regions that have no URLs
        if "Unable to determine service/operation" not in refused.said:
            raise
        if wanted.url:
            raise DeployError(f"Lambda has no Function URLs in {aws.region}", "take [url] out") from None
        rows = []
    return {_qualifier(row): row for row in rows}


def _settled(aws: Aws, name: str, answer: GetFunctionResponseTypeDef) -> GetFunctionResponseTypeDef:
    """The function when an update that is under way has ended: one of ours that was interrupted, perhaps."""
    found = answer["Configuration"]
    if found.get("State") == "Pending":
        aws.wait("function_active_v2", name)
    elif found.get("LastUpdateStatus") == "InProgress":
        aws.wait("function_updated_v2", name)
    else:
        return answer
    return aws.call(aws.lambda_.get_function, FunctionName=name)


def _statements(aws: Aws, wanted: Function) -> dict[str, Mapping[str, Any]]:
    qualifier = {"Qualifier": wanted.alias} if wanted.alias else {}
    found = aws.find(aws.lambda_.get_policy, FunctionName=wanted.name, **qualifier)
    rows = json.loads(found["Policy"]).get("Statement", []) if found else []
    return {row.get("Sid", ""): row for row in rows}


def _qualifier(row: Mapping[str, Any]) -> str:
    """What the ARN of a URL or of event-invoke settings is of: an alias or ``$LATEST``."""
    parts = str(row["FunctionArn"]).split(":")
    return parts[7] if len(parts) > 7 else EVERYWHERE
