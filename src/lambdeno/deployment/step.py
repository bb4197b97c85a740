"""A step of a plan: a value that says what it changes, which rights it needs, and how it is carried out.

A step can be repeated: who was interrupted plans anew from what is there then.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lambdeno.aws import DENIED, Aws, Refused
from lambdeno.deployment.changes import Change
from lambdeno.deployment.desired import EVERYWHERE, Code, New
from lambdeno.errors import DeployError

__all__ = [
    "Progress",
    "Step",
    "at",
    "check_arrival",
    "content",
    "guarded",
    "new",
    "remove_statements",
    "revision",
    "settle",
    "with_role",
]

# What Lambda says of a role, or of its rights, until IAM has told it of them; Terraform waits for the same.
UNKNOWN_ROLE = re.compile(
    r"cannot be assumed by Lambda|does not have permissions to call|does not refer to a valid principal"
    r"|invalid for CreateGrant|destination ARN \S* ?is invalid|throttled by EC2"
)
ROLE_PAUSES = (1, 2, 4, 8, 8, 8, 8)  # s: a role that was just made is known everywhere in 10 s or so


@dataclass
class Progress:
    """What the steps so far have made: ARNs by what they are of, and the function's latest revision."""

    arns: dict[str, str] = field(default_factory=dict)
    revision: str | None = None
    code_sha256: str = ""  # of the code that is there
    url: str = ""
    version: str = ""

    def arn(self, reference: str | New) -> str:
        """The ARN itself, or that of what a step has made."""
        return self.arns[reference.what] if isinstance(reference, New) else reference


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One change of one thing."""

    verb: ClassVar[str]
    noun: ClassVar[str]
    part: ClassVar[str] = "configuration"  # of a deployment that does not do all
    name: str
    changes: tuple[Change, ...] = ()

    @abstractmethod
    def apply(self, aws: Aws, progress: Progress) -> None:
        """Carry it out. Raises AwsError, DeployError."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The actions of IAM that it takes."""

    def uses(self) -> tuple[New, ...]:
        """What earlier steps have to make."""
        return ()


def settle(aws: Aws, progress: Progress, name: str, waiter: str) -> None:
    """Wait until a change is through; the next one is of the revision that is there then."""
    aws.wait(waiter, name)
    found = aws.call(aws.lambda_.get_function_configuration, FunctionName=name)
    if progress.code_sha256 and found.get("CodeSha256", "") != progress.code_sha256:
        raise another_deployment("function", name)
    progress.revision = found.get("RevisionId")


def guarded(aws: Aws, operation: Any, name: str, request: Mapping[str, Any]) -> Any:
    """Change the function if it is in the revision that the plan saw. Raises DeployError."""
    try:
        return with_role(aws, operation, {"FunctionName": name, **request})
    except Refused as refused:
        if refused.code == "PreconditionFailedException":
            raise another_deployment("function", name) from None
        if refused.is_missing:
            raise DeployError(
                f'The function "{name}" was deleted in the meantime', "run lambdeno deploy again"
            ) from None
        raise


def with_role(aws: Aws, operation: Any, request: Mapping[str, Any]) -> Any:
    """Make a call that gives Lambda a role; again, while IAM has not told Lambda of it yet."""
    for pause in (*ROLE_PAUSES, None):
        try:
            return aws.call(operation, **request)
        except Refused as refused:
            if pause is None or not UNKNOWN_ROLE.search(refused.said):
                raise
            aws.sleep(pause)
    raise AssertionError  # the last round returns or raises


def another_deployment(noun: str, name: str) -> DeployError:
    """Somebody else was faster."""
    return DeployError(
        f'Somebody else has made or changed the {noun} "{name}" since this deployment looked at it',
        "look at what is there, and run lambdeno deploy again",
    )


def check_arrival(code: Code, told: str | None, name: str) -> None:
    """See that AWS has what was sent. Raises DeployError."""
    if told and told != code.artefact.code_sha256:
        raise DeployError(
            f'What Lambda has received for "{name}" is not {code.artefact.path.name}: '
            f"its SHA-256 is {told}, and not {code.artefact.code_sha256}",
            "run lambdeno deploy again",
        )


def content(aws: Aws, code: Code, bucket: str) -> dict[str, Any]:
    """Where Lambda finds the bytes: in the request, or in the bucket, where they are put now."""
    try:
        data = code.artefact.path.read_bytes()
    except OSError as error:
        raise DeployError(
            f'Cannot read "{code.artefact.path}": {error.strerror}', "run lambdeno build"
        ) from None
    if hashlib.sha256(data).hexdigest() != code.artefact.sha256:
        raise DeployError(
            f'"{code.artefact.path}" has changed since the deployment began', "run lambdeno deploy again"
        )
    if code.bucket is None:
        return {"ZipFile": data}
    _upload(aws, code, data, bucket)
    return {"S3Bucket": bucket, "S3Key": code.key}


def _upload(aws: Aws, code: Code, data: bytes, bucket: str) -> None:
    """Put an artefact into the bucket; S3 compares the checksum. One that is there stays."""
    owner = aws.identity[0]
    try:
        found = aws.find(aws.s3.head_object, Bucket=bucket, Key=code.key, ExpectedBucketOwner=owner)
    except Refused as refused:
        if refused.code not in DENIED:  # so S3 says that there is none to who may not list
            raise
        found = None
    if found and found["ContentLength"] == code.artefact.size:
        return
    aws.call(
        aws.s3.put_object,
        Bucket=bucket,
        Key=code.key,
        Body=data,
        ChecksumAlgorithm="SHA256",
        ChecksumSHA256=code.artefact.code_sha256,
        ExpectedBucketOwner=owner,
    )


def revision(progress: Progress) -> dict[str, str]:
    """The condition under which the function may be changed: nobody else has."""
    return {"RevisionId": progress.revision} if progress.revision else {}


def at(qualifier: str) -> dict[str, Any]:
    """The qualifier as Lambda's calls take it."""
    return {} if qualifier == EVERYWHERE else {"Qualifier": qualifier}


def new(*references: str | New) -> tuple[New, ...]:
    """Those that a step has to make first."""
    return tuple(reference for reference in references if isinstance(reference, New))


def remove_statements(aws: Aws, name: str, qualifier: str, sids: Iterable[str]) -> None:
    """Let callers in no longer."""
    for sid in sids:
        more: Any = at(qualifier)
        aws.find(aws.lambda_.remove_permission, FunctionName=name, StatementId=sid, **more)
