"""The steps that make and change: the role, the log group, the layers, the function and what is around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambdeno.aws import Aws, Refused
from lambdeno.deployment.desired import LICENSE, MARK, MARK_KEY, Code, Layer, New
from lambdeno.deployment.step import (
    Progress,
    Step,
    at,
    check_arrival,
    content,
    guarded,
    new,
    remove_statements,
    revision,
    settle,
    with_role,
)

EXPIRE = 30  # days that an artefact stays in our bucket; Lambda has copied it long before


# --- what the function needs before it can be ------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateRole(Step):
    """The execution role, with the least rights."""

    verb, noun = "create", "role"
    trust: Mapping[str, Any]
    permissions: Mapping[str, Any]
    managed: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        attach = ("iam:AttachRolePolicy",) if self.managed else ()
        return ("iam:CreateRole", "iam:TagRole", "iam:PutRolePolicy", "iam:PassRole", *attach)

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Three calls or more: one interrupted among them is mended by UpdateRole."""
        made = aws.call(
            aws.iam.create_role,
            RoleName=self.name,
            AssumeRolePolicyDocument=json.dumps(self.trust),
            Description="Execution role of a function that lambdeno deploys",
            Tags=[{"Key": MARK_KEY, "Value": MARK}],
        )
        put_role_policy(aws, self.name, self.permissions)
        for arn in self.managed:
            aws.call(aws.iam.attach_role_policy, RoleName=self.name, PolicyArn=arn)
        progress.arns["role"] = made["Role"]["Arn"]


@dataclass(frozen=True, kw_only=True)
class UpdateRole(Step):
    """The role's rights."""

    verb, noun = "update", "role"
    permissions: Mapping[str, Any] | None  # None: they stay
    attach: tuple[str, ...]
    detach: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return (
            *(("iam:PutRolePolicy",) if self.permissions is not None else ()),
            *(("iam:AttachRolePolicy",) if self.attach else ()),
            *(("iam:DetachRolePolicy",) if self.detach else ()),
        )

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """Put what is missing, then take what is too much."""
        if self.permissions is not None:
            put_role_policy(aws, self.name, self.permissions)
        for arn in self.attach:
            aws.call(aws.iam.attach_role_policy, RoleName=self.name, PolicyArn=arn)
        for arn in self.detach:
            aws.call(aws.iam.detach_role_policy, RoleName=self.name, PolicyArn=arn)


@dataclass(frozen=True, kw_only=True)
class CreateLogGroup(Step):
    """The log group, and how long it keeps."""

    verb, noun = "create", "log group"
    days: int  # 0: for ever

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("logs:CreateLogGroup", *(("logs:PutRetentionPolicy",) if self.days else ()))

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """Two calls: one interrupted between them is mended by SetRetention."""
        aws.call(aws.logs.create_log_group, logGroupName=self.name, tags={MARK_KEY: MARK})
        if self.days:
            put_retention(aws, self.name, self.days)


@dataclass(frozen=True, kw_only=True)
class SetRetention(Step):
    """How long the log is kept."""

    verb, noun = "update", "log group"
    days: int

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("logs:PutRetentionPolicy" if self.days else "logs:DeleteRetentionPolicy",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        put_retention(aws, self.name, self.days)


@dataclass(frozen=True, kw_only=True)
class SetUpBucket(Step):
    """The settings of the bucket for artefacts that no request can carry: private, emptied by itself."""

    verb, noun = "update", "bucket"
    part = "bucket"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("s3:PutBucketPublicAccessBlock", "s3:PutLifecycleConfiguration")

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """Set up what was interrupted when it was made; rules that are there stay."""
        owner = aws.identity[0]
        rules = aws.s3.get_bucket_lifecycle_configuration
        if aws.find(rules, Bucket=self.name, ExpectedBucketOwner=owner):
            return
        aws.call(
            aws.s3.put_public_access_block,
            Bucket=self.name,
            ExpectedBucketOwner=owner,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        aws.call(
            aws.s3.put_bucket_lifecycle_configuration,
            Bucket=self.name,
            ExpectedBucketOwner=owner,
            LifecycleConfiguration={
                "Rules": [
                    {
                        "ID": "lambdeno",
                        "Status": "Enabled",
                        "Filter": {"Prefix": "lambdeno/"},
                        "Expiration": {"Days": EXPIRE},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                    }
                ]
            },
        )


@dataclass(frozen=True, kw_only=True)
class CreateBucket(SetUpBucket):
    """The bucket itself, and its settings."""

    verb = "create"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("s3:CreateBucket", *super().needs)

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Make it in the region, then set it up."""
        where: Any = {"CreateBucketConfiguration": {"LocationConstraint": aws.region}}
        aws.call(aws.s3.create_bucket, Bucket=self.name, **({} if aws.region == "us-east-1" else where))
        super().apply(aws, progress)


@dataclass(frozen=True, kw_only=True)
class PublishLayer(Step):
    """A version of a layer."""

    verb, noun = "publish", "layer"
    layer: Layer
    bucket: str

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:PublishLayerVersion",)

    @property
    def part(self) -> str:  # type: ignore[override]
        """Its kind: ``deno-layer`` or ``runtime-layer``."""
        return self.layer.kind

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Send it, and see that what arrived is what was sent."""
        layer = self.layer
        more: Any = {"CompatibleRuntimes": [layer.runtime]} if layer.runtime else {}
        source: Any = content(aws, layer.code, self.bucket)
        made = aws.call(
            aws.lambda_.publish_layer_version,
            LayerName=layer.name,
            Description=layer.description,
            Content=source,
            CompatibleArchitectures=[layer.architecture],  # type: ignore[list-item]
            LicenseInfo=LICENSE,
            **more,
        )
        check_arrival(layer.code, made["Content"].get("CodeSha256"), layer.name)
        progress.arns[layer.kind] = made["LayerVersionArn"]


# --- the function ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateFunction(Step):
    """The function, with everything that it can be created with."""

    verb, noun = "create", "function"
    part = "function"
    code: Code
    bucket: str
    architecture: str
    configuration: Mapping[str, Any]
    role: str | New
    layers: tuple[str | New, ...]
    tags: Mapping[str, str]

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:CreateFunction", "lambda:TagResource")

    def uses(self) -> tuple[New, ...]:
        """The role and the layers, where they are new."""
        return new(self.role, *self.layers)

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Create it, as soon as Lambda knows its role, and wait until it is active."""
        request: Any = {
            "FunctionName": self.name,
            **self.configuration,
            "Role": progress.arn(self.role),
            "Layers": [progress.arn(layer) for layer in self.layers],
            "Architectures": [self.architecture],
            "Code": content(aws, self.code, self.bucket),
            "Tags": dict(self.tags),
        }
        made = with_role(aws, aws.lambda_.create_function, request)
        check_arrival(self.code, made.get("CodeSha256"), self.name)
        progress.code_sha256 = self.code.artefact.code_sha256
        settle(aws, progress, self.name, "function_active_v2")


@dataclass(frozen=True, kw_only=True)
class UpdateCode(Step):
    """The function's code, and the architecture that goes with it."""

    verb, noun = "update", "code"
    part = "code"
    code: Code
    bucket: str
    architecture: str

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:UpdateFunctionCode",)

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Send it, if nobody has changed the function since the plan, and wait."""
        source: Any = content(aws, self.code, self.bucket)
        request: Any = {"Architectures": [self.architecture], **source, **revision(progress)}
        made = guarded(aws, aws.lambda_.update_function_code, self.name, request)
        check_arrival(self.code, made.get("CodeSha256"), self.name)
        progress.code_sha256 = self.code.artefact.code_sha256
        settle(aws, progress, self.name, "function_updated_v2")


@dataclass(frozen=True, kw_only=True)
class UpdateConfiguration(Step):
    """What differs of the function's configuration."""

    verb, noun = "update", "configuration"
    configuration: Mapping[str, Any]  # only what changes, in UpdateFunctionConfiguration's words
    role: str | New | None  # None: it stays
    layers: tuple[str | New, ...] | None

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:UpdateFunctionConfiguration",)

    def uses(self) -> tuple[New, ...]:
        """The role and the layers, where they are new."""
        return new(*([self.role] if self.role else []), *(self.layers or ()))

    def apply(self, aws: Aws, progress: Progress) -> None:
        """One call, if nobody has changed the function since the plan, and wait."""
        request: Any = {**self.configuration, **revision(progress)}
        if self.role is not None:
            request["Role"] = progress.arn(self.role)
        if self.layers is not None:
            request["Layers"] = [progress.arn(layer) for layer in self.layers]
        guarded(aws, aws.lambda_.update_function_configuration, self.name, request)
        settle(aws, progress, self.name, "function_updated_v2")


@dataclass(frozen=True, kw_only=True)
class TagFunction(Step):
    """The function's tags."""

    verb, noun = "update", "tags"
    arn: str
    put: Mapping[str, str]
    remove: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return (
            *(("lambda:TagResource",) if self.put else ()),
            *(("lambda:UntagResource",) if self.remove else ()),
        )

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """Put what is missing or different, take what is not wanted."""
        if self.put:
            aws.call(aws.lambda_.tag_resource, Resource=self.arn, Tags=dict(self.put))
        if self.remove:
            aws.call(aws.lambda_.untag_resource, Resource=self.arn, TagKeys=list(self.remove))


@dataclass(frozen=True, kw_only=True)
class SetConcurrency(Step):
    """The reserved concurrency."""

    verb, noun = "update", "concurrency"
    reserved: int | None

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return (
            "lambda:DeleteFunctionConcurrency" if self.reserved is None else "lambda:PutFunctionConcurrency",
        )

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        if self.reserved is None:
            aws.call(aws.lambda_.delete_function_concurrency, FunctionName=self.name)
        else:
            aws.call(
                aws.lambda_.put_function_concurrency,
                FunctionName=self.name,
                ReservedConcurrentExecutions=self.reserved,
            )


@dataclass(frozen=True, kw_only=True)
class PublishVersion(Step):
    """A version of the code and configuration, and the alias that follows it."""

    verb, noun = "publish", "version"
    part = "version"
    alias: str
    exists: bool  # the alias
    revision: str = ""  # of the alias, as the plan saw it

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:PublishVersion", "lambda:UpdateAlias" if self.exists else "lambda:CreateAlias")

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Two calls. Lambda publishes nothing new where nothing has changed: repeating is safe."""
        code = {"CodeSha256": progress.code_sha256} if progress.code_sha256 else {}
        made = guarded(aws, aws.lambda_.publish_version, self.name, {**revision(progress), **code})
        version = made["Version"]
        change: Any = {"Name": self.alias, "FunctionVersion": version}
        if self.exists:
            seen = {"RevisionId": self.revision} if self.revision else {}
            change |= {"RoutingConfig": {"AdditionalVersionWeights": {}}, **seen}
            guarded(aws, aws.lambda_.update_alias, self.name, change)
        else:
            aws.call(aws.lambda_.create_alias, FunctionName=self.name, **change, Description=MARK)
        progress.version = version


# --- around it -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CreateUrl(Step):
    """The Function URL, and who may call it."""

    verb, noun = "create", "URL"
    qualifier: str
    configuration: Mapping[str, Any]
    statements: Mapping[str, Mapping[str, Any]]  # that are not there yet
    remove: tuple[str, ...]  # statements that must not be there

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:CreateFunctionUrlConfig", *_permission_calls(self.statements, self.remove))

    def apply(self, aws: Aws, progress: Progress) -> None:
        """Who may call it last: what is interrupted before leaves a URL, which the next plan sees."""
        remove_statements(aws, self.name, self.qualifier, self.remove)
        made = aws.call(
            aws.lambda_.create_function_url_config,
            FunctionName=self.name,
            **at(self.qualifier),
            **self.configuration,
        )
        progress.url = made["FunctionUrl"]
        add_statements(aws, self.name, self.qualifier, self.statements)


@dataclass(frozen=True, kw_only=True)
class UpdateUrl(Step):
    """The URL's settings, and who may call it."""

    verb, noun = "update", "URL"
    qualifier: str
    configuration: Mapping[str, Any] | None  # None: only who may call it
    statements: Mapping[str, Mapping[str, Any]]
    remove: tuple[str, ...]  # statements

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return (
            *(("lambda:UpdateFunctionUrlConfig",) if self.configuration is not None else ()),
            *_permission_calls(self.statements, self.remove),
        )

    def apply(self, aws: Aws, progress: Progress) -> None:
        """What closes it comes first, what opens it last."""
        remove_statements(aws, self.name, self.qualifier, self.remove)
        if self.configuration is not None:
            made = aws.call(
                aws.lambda_.update_function_url_config,
                FunctionName=self.name,
                **at(self.qualifier),
                **self.configuration,
            )
            progress.url = made["FunctionUrl"]
        add_statements(aws, self.name, self.qualifier, self.statements)


@dataclass(frozen=True, kw_only=True)
class PutEventInvoke(Step):
    """What becomes of queued events."""

    verb, noun = "update", "event invoke"
    qualifier: str
    configuration: Mapping[str, Any]

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:PutFunctionEventInvokeConfig",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call: it replaces what was there."""
        request = {"FunctionName": self.name, **at(self.qualifier), **self.configuration}
        with_role(aws, aws.lambda_.put_function_event_invoke_config, request)


# --- calls that several of them make ---


def put_role_policy(aws: Aws, name: str, document: Mapping[str, Any]) -> None:
    """Put our document into a role."""
    aws.call(aws.iam.put_role_policy, RoleName=name, PolicyName=MARK, PolicyDocument=json.dumps(document))


def put_retention(aws: Aws, name: str, days: int) -> None:
    """Let a log group keep its events for so many days; 0: for ever, which is what a new one does."""
    if days:
        aws.call(aws.logs.put_retention_policy, logGroupName=name, retentionInDays=days)
    else:
        aws.find(aws.logs.delete_retention_policy, logGroupName=name)


def add_statements(aws: Aws, name: str, qualifier: str, statements: Mapping[str, Mapping[str, Any]]) -> None:
    """Let callers in, a statement each; one that is there already stays."""
    for sid, statement in statements.items():
        more: Any = {**at(qualifier), **statement}
        try:
            aws.call(aws.lambda_.add_permission, FunctionName=name, StatementId=sid, **more)
        except Refused as refused:
            if not refused.is_there_already:
                raise


def _permission_calls(add: Mapping[str, Any], remove: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *(("lambda:AddPermission",) if add else ()),
        *(("lambda:RemovePermission",) if remove else ()),
    )
