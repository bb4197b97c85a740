"""The steps that take away what is not wanted any more."""

from __future__ import annotations

from dataclasses import dataclass

from lambdeno.aws import Aws
from lambdeno.deployment import policies
from lambdeno.deployment.step import Progress, Step, at, remove_statements


@dataclass(frozen=True, kw_only=True)
class DeleteUrl(Step):
    """A URL that is not wanted, and its statements."""

    verb, noun = "delete", "URL"
    qualifier: str

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:RemovePermission", "lambda:DeleteFunctionUrlConfig")

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """The statements first: what is interrupted in between leaves a URL, which the next plan sees."""
        remove_statements(aws, self.name, self.qualifier, policies.statements_of_url("none"))
        aws.find(aws.lambda_.delete_function_url_config, FunctionName=self.name, **at(self.qualifier))


@dataclass(frozen=True, kw_only=True)
class DeleteEventInvoke(Step):
    """Settings for queued events that are not wanted."""

    verb, noun = "delete", "event invoke"
    qualifier: str

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:DeleteFunctionEventInvokeConfig",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        aws.find(
            aws.lambda_.delete_function_event_invoke_config, FunctionName=self.name, **at(self.qualifier)
        )


@dataclass(frozen=True, kw_only=True)
class DeleteAlias(Step):
    """An alias that lambdeno made under another name."""

    verb, noun = "delete", "alias"
    alias: str

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:DeleteAlias",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        aws.find(aws.lambda_.delete_alias, FunctionName=self.name, Name=self.alias)


@dataclass(frozen=True, kw_only=True)
class DeleteFunction(Step):
    """The function with its versions, aliases and URLs."""

    verb, noun = "delete", "function"
    part = "function"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:DeleteFunction",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call; a function that is gone already is gone."""
        aws.find(aws.lambda_.delete_function, FunctionName=self.name)


@dataclass(frozen=True, kw_only=True)
class DeleteLogGroup(Step):
    """The log, with all that it holds."""

    verb, noun = "delete", "log group"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("logs:DeleteLogGroup",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        aws.find(aws.logs.delete_log_group, logGroupName=self.name)


@dataclass(frozen=True, kw_only=True)
class DeleteRole(Step):
    """Our role."""

    verb, noun = "delete", "role"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("iam:DeleteRole", "iam:DeleteRolePolicy")

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """IAM deletes no role that has policies: those go first."""
        name = self.name
        for policy in list(
            aws.pages(aws.iam.list_role_policies, "PolicyNames", ("Marker", "Marker"), RoleName=name)
        ):
            aws.find(aws.iam.delete_role_policy, RoleName=name, PolicyName=policy)
        attached = aws.pages(
            aws.iam.list_attached_role_policies, "AttachedPolicies", ("Marker", "Marker"), RoleName=name
        )
        for row in list(attached):
            aws.find(aws.iam.detach_role_policy, RoleName=name, PolicyArn=row["PolicyArn"])
        aws.find(aws.iam.delete_role, RoleName=name)


@dataclass(frozen=True, kw_only=True)
class DeleteLayerVersion(Step):
    """One version of one of our layers. Functions that use it go on; none can be made with it."""

    verb, noun = "delete", "layer"
    version: int

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("lambda:DeleteLayerVersion",)

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """One call."""
        aws.call(aws.lambda_.delete_layer_version, LayerName=self.name, VersionNumber=self.version)


@dataclass(frozen=True, kw_only=True)
class DeleteBucket(Step):
    """Our bucket and what is in it."""

    verb, noun = "delete", "bucket"

    @property
    def needs(self) -> tuple[str, ...]:
        """See Step."""
        return ("s3:DeleteBucket", "s3:DeleteObject")

    def apply(self, aws: Aws, progress: Progress) -> None:  # noqa: ARG002
        """S3 deletes no bucket that holds something: that goes first."""
        rows = aws.pages(
            aws.s3.list_objects_v2,
            "Contents",
            ("ContinuationToken", "NextContinuationToken"),
            Bucket=self.name,
            ExpectedBucketOwner=aws.identity[0],
        )
        for row in list(rows):
            aws.call(aws.s3.delete_object, Bucket=self.name, Key=row["Key"])
        aws.find(aws.s3.delete_bucket, Bucket=self.name, ExpectedBucketOwner=aws.identity[0])
