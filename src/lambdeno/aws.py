"""AWS, by boto3: the only module that knows it.

Credentials, profile, region and endpoint come from boto3's own chain. Every call goes through ``call``,
which repeats what was refused for the moment and puts what AWS says into our words, without an account id.
"""

from __future__ import annotations

import difflib
import os
import random
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import boto3
import botocore.session
from botocore import eventstream, exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from lambdeno.errors import AwsError, DeployError

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

__all__ = ["DENIED", "Aws", "Refused", "mask"]

P = ParamSpec("P")
T = TypeVar("T")

FAILURES = (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError)
PAUSES = (0.5, 1, 2, 4, 8, 16)  # s at most, before a call is repeated
WAIT = {"Delay": 1, "MaxAttempts": 300}  # s; a function in a VPC is up to 5 minutes in the making
CONFIG = Config(
    # call() knows what may be repeated: botocore would repeat a write whose answer was lost
    retries={"total_max_attempts": 1},
    connect_timeout=10,  # s
    read_timeout=120,  # s; a layer of 40 MB takes some
    user_agent_extra="lambdeno",
)
INVOKING = CONFIG.merge(Config(read_timeout=960))  # s: Lambda's longest invocation and a little

THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "SlowDown",
    }
)
CONFLICT = re.compile(r"Conflict|OperationAborted|ConcurrentModification")
UNSETTLED = re.compile(
    r"in progress|concurrent update|state: Pending|submitted simultaneously", re.IGNORECASE
)
MISSING = frozenset(
    {
        "ResourceNotFoundException",
        "NoSuchEntity",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchTagSet",
        "NoSuchLifecycleConfiguration",
        "404",
    }
)
EXISTS = re.compile(r"already ?exist", re.IGNORECASE)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
UNKNOWN = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
SKEWED = re.compile(r"Signature expired|Signature not yet current|RequestTimeTooSkewed")
NOT_ALLOWED = re.compile(
    r"to perform: ([\w-]+:\w+)(?: on resource: (.+?)(?= because | with an explicit deny|$))?"
)
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})

# Actions of IAM that have another name than the operation:
# https://docs.aws.amazon.com/service-authorization/latest/reference/reference.html
ACTIONS = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "lambda:InvokeWithResponseStream": "lambda:InvokeFunction",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
}


class Refused(AwsError):
    """A call that AWS refused: its code (``ResourceConflictException``), and what it said."""

    def __init__(self, message: str, hint: str = "", *, code: str = "", said: str = "") -> None:
        super().__init__(message, hint)
        self.code = code
        self.said = said

    @property
    def is_missing(self) -> bool:
        """Whether the thing asked for is not there."""
        return self.code in MISSING

    @property
    def is_there_already(self) -> bool:
        """Whether the thing to be made is there already."""
        return bool(EXISTS.search(self.code) or EXISTS.search(self.said))


class _Unanswered(AwsError):
    """The answer to a call was lost."""


def mask(text: str) -> str:
    """The text without account ids."""
    return re.sub(r"(?<!\d)\d{12}(?!\d)", "<account>", text)


class Aws:
    """One account in one region. Raises AwsError where there are no credentials or there is no region."""

    def __init__(
        self,
        profile: str | None = None,
        region: str | None = None,
        *,
        session: boto3.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        with _told():
            # as the AWS CLI does; boto3 reads AWS_DEFAULT_REGION alone
            region = region or os.environ.get("AWS_REGION")
            self._session = session or boto3.Session(profile_name=profile, region_name=region)
            self.region = self._session.region_name or _no_region()
            _check_region(self._session, self.region)
            if _credentials(self._session) is None:
                raise exceptions.NoCredentialsError
        self.sleep = sleep

    @cached_property
    def lambda_(self) -> LambdaClient:
        """The client of Lambda."""
        with _made():
            return self._session.client("lambda", config=CONFIG)

    @cached_property
    def invoking(self) -> LambdaClient:
        """The client of Lambda for invocations, which may take their time."""
        with _made():
            return self._session.client("lambda", config=INVOKING)

    @cached_property
    def iam(self) -> IAMClient:
        """The client of IAM."""
        with _made():
            return self._session.client("iam", config=CONFIG)

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """The client of CloudWatch Logs."""
        with _made():
            return self._session.client("logs", config=CONFIG)

    @cached_property
    def s3(self) -> S3Client:
        """The client of S3."""
        with _made():
            return self._session.client("s3", config=CONFIG)

    @cached_property
    def sts(self) -> STSClient:
        """The client of STS."""
        with _made():
            return self._session.client("sts", config=CONFIG)

    @cached_property
    def identity(self) -> tuple[str, str]:
        """The account's id and the caller's ARN."""
        found = self.call(self.sts.get_caller_identity)
        return found["Account"], found["Arn"]

    @property
    def partition(self) -> str:
        """``aws``, or that of China or GovCloud."""
        return self._session.get_partition_for_region(self.region)

    def call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one call. Raises AwsError (Refused where AWS has answered).

        Repeated, six times at most: whatever was throttled or met an update in progress, for that was not
        carried out; reads, where AWS failed or its answer was lost. A write whose answer is lost is
        not repeated: the next deploy looks at what is there. Nor is what finds no way to AWS.
        """
        for pause in PAUSES:
            try:
                return operation(*args, **kwargs)
            except (exceptions.BotoCoreError, ResponseParserError) as error:
                if not (is_read(operation) and isinstance(error, exceptions.HTTPClientError)):
                    raise _in_words(error, operation, kwargs) from None
            except exceptions.ClientError as error:
                if not is_passing(error, operation):
                    raise _in_words(error, operation, kwargs) from None
            self.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, no secret
        return self.once(operation, *args, **kwargs)

    def once(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one call, and never again. Raises AwsError."""
        with _told(operation, kwargs):
            return operation(*args, **kwargs)

    def parts(self, stream: Iterable[T]) -> Iterator[T]:
        """The events of an answer that is a stream. Raises AwsError where it breaks off."""
        try:
            with _told():
                yield from stream
        except (HTTPError, eventstream.ParserError):  # which boto3 passes on as they are
            raise AwsError("The connection to AWS has broken", "check the network") from None

    def find(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Make one call; None where AWS knows no such thing. Raises AwsError."""
        try:
            return self.call(operation, *args, **kwargs)
        except Refused as refused:
            if refused.is_missing:
                return None
            raise

    def pages(
        self,
        operation: Callable[..., Any],
        key: str,
        token: tuple[str, str] = ("Marker", "NextMarker"),
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The items of all pages of a list, none of what is not there. Raises AwsError.

        ``token`` names the parameter for a page, and where the answer has the next one's.
        """
        into, source = token
        while page := self.find(operation, **kwargs):
            yield from page.get(key, [])
            if not page.get(source):
                return
            kwargs[into] = page[source]

    def wait(self, waiter: str, function: str) -> None:
        """Wait until a function is ``function_active_v2`` or ``function_updated_v2``. Raises DeployError."""
        for pause in (*PAUSES, None):
            try:
                with _told():
                    self.lambda_.get_waiter(waiter).wait(FunctionName=function, WaiterConfig=WAIT)  # type: ignore[call-overload]
            except _Unanswered:
                if pause is None:
                    raise
                self.sleep(pause)
                continue
            except exceptions.WaiterError as error:
                last: dict[str, Any] = getattr(error, "last_response", {})
                found, refusal = last.get("Configuration", {}), last.get("Error", {})
                status = last.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                passes = refusal and (refusal.get("Code") in THROTTLED or status >= 500 or status == 429)
                if pause is not None and passes:
                    self.sleep(pause)
                    continue
                reasons = (
                    found.get("StateReason"),
                    found.get("LastUpdateStatusReason"),
                    refusal.get("Message"),
                )
                why = mask(next(filter(None, reasons), "it takes too long"))
                raise DeployError(
                    f'The function "{function}" does not become ready: {why}',
                    "mend that, and run lambdeno deploy again",
                ) from None
            return

    def forbidden(self, needed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which of these actions on these resources IAM would deny the caller; none where IAM does not say.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
        """
        actions: dict[str, list[str]] = {}
        for action, resource in dict.fromkeys(needed):
            actions.setdefault(resource, []).append(action)
        denied: list[tuple[str, str]] = []
        try:
            source = self._principal()
            for resource, names in actions.items() if source else ():
                found = self.once(
                    self.iam.simulate_principal_policy,
                    PolicySourceArn=source,
                    ActionNames=names,
                    ResourceArns=[resource],
                    ContextEntries=[
                        _context("aws:RequestedRegion", self.region),
                        _context("iam:PassedToService", "lambda.amazonaws.com"),
                    ],
                )
                denied += [
                    (row["EvalActionName"], resource) for row in found["EvaluationResults"] if _is_denial(row)
                ]
        except AwsError:
            return []  # who may not ask learns it from the call itself
        return denied

    def _principal(self) -> str:
        """The user or role that the caller is, or nothing for who may do all (root)."""
        arn = self.identity[1]
        role = re.fullmatch(r"arn:[\w-]+:sts::\d+:assumed-role/([^/]+)/.*", arn)
        if role:
            return self.once(self.iam.get_role, RoleName=role[1])["Role"]["Arn"]
        return arn if ":user/" in arn else ""


def is_read(operation: Callable[..., Any]) -> bool:
    """Whether an operation changes nothing."""
    return operation.__name__.startswith(("get_", "list_", "describe_", "head_", "filter_"))


def is_passing(error: exceptions.ClientError, operation: Callable[..., Any]) -> bool:
    """Whether the same call can do better a little later."""
    code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in THROTTLED or status == 429:
        return True
    if CONFLICT.search(code) and UNSETTLED.search(said):
        return True
    return is_read(operation) and status >= 500 and status != 501


def action_of(operation: Callable[..., Any] | None, error: exceptions.ClientError) -> str:
    """What IAM calls the operation: ``lambda:CreateFunction``."""
    client = getattr(operation, "__self__", None)
    service = client.meta.service_model.signing_name if client else "aws"
    name = f"{service}:{error.operation_name}"
    return ACTIONS.get(name, name)


def _context(name: str, value: str) -> Any:
    return {"ContextKeyName": name, "ContextKeyType": "string", "ContextKeyValues": [value]}


def _is_denial(row: Mapping[str, Any]) -> bool:
    """Whether a simulated call is surely denied.

    Not where a condition asks for what only the call itself would tell, and not where the organization's
    policies decide: IAM does not say which keys those miss.
    """
    parts = [row, *row.get("ResourceSpecificResults", [])]
    is_open = any(part.get("MissingContextValues") for part in parts)
    by_organization = not row.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True)
    return row["EvalDecision"] != "allowed" and not is_open and not by_organization


@contextmanager
def _made() -> Iterator[None]:
    """A client on its way."""
    try:
        # boto3 meets a port that can be none at the first call, and not before
        for name, url in os.environ.items():
            if name.startswith("AWS_ENDPOINT_URL"):
                urllib.parse.urlsplit(url).port  # noqa: B018 - reading it raises
        with _told():
            yield
    except ValueError as error:  # so boto3 says what is no URL
        raise AwsError(
            f"AWS cannot be asked: {error}", "check AWS_ENDPOINT_URL, and endpoint_url in ~/.aws/config"
        ) from None


@contextmanager
def _told(
    operation: Callable[..., Any] | None = None, kwargs: dict[str, Any] | None = None
) -> Iterator[None]:
    try:
        yield
    except exceptions.WaiterError:
        raise
    except FAILURES as error:
        raise _in_words(error, operation, kwargs or {}) from None


def _in_words(
    error: exceptions.BotoCoreError | exceptions.ClientError | ResponseParserError,
    operation: Callable[..., Any] | None,
    kwargs: dict[str, Any],
) -> AwsError:
    """What AWS or botocore said, as an error of ours."""
    if isinstance(error, exceptions.ClientError):
        return _refusal(error, operation, kwargs)
    return _failure(error, mask(" ".join(str(error).split())))


def _failure(error: exceptions.BotoCoreError | ResponseParserError, words: str) -> AwsError:
    """What kept a call from being made, or its answer from being read."""
    match error:
        case ResponseParserError():
            return AwsError(
                "What answered in AWS's place is not AWS",
                "check the network, its proxies, and AWS_ENDPOINT_URL",
            )
        case exceptions.ProfileNotFound():
            known = ", ".join(botocore.session.Session().available_profiles)
            return AwsError(words, f"known profiles: {known or 'none'}; see aws configure list-profiles")
        case (
            exceptions.TokenRetrievalError()
            | exceptions.SSOTokenLoadError()
            | exceptions.UnauthorizedSSOTokenError()
        ):
            return AwsError(f"The sign-on has expired: {words}", "run aws sso login")
        case (
            exceptions.NoCredentialsError()
            | exceptions.PartialCredentialsError()
            | exceptions.CredentialRetrievalError()
        ):
            return AwsError(
                f"No credentials for AWS: {words}", "run aws configure or aws sso login, or set AWS_PROFILE"
            )
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            kind = _Unanswered if isinstance(error, exceptions.HTTPClientError) else AwsError
            return kind(f"Cannot reach AWS: {words}", "check the network, the region and AWS_ENDPOINT_URL")
    return AwsError(f"AWS cannot be asked: {words}")


def _refusal(
    error: exceptions.ClientError, operation: Callable[..., Any] | None, kwargs: dict[str, Any]
) -> Refused:
    code = error.response["Error"].get("Code", "")
    said = mask(" ".join(error.response["Error"].get("Message", "").split()))
    said = said.partition(" String measured")[
        0
    ]  # what follows are the function's variables, with their values
    action = action_of(operation, error)
    if SKEWED.search(f"{code} {said}"):
        return Refused("This machine's clock is not that of AWS", "set the clock", code=code)
    if code in EXPIRED:
        return Refused(
            "The credentials for AWS have expired", "sign in again, for example with aws sso login", code=code
        )
    if code in UNKNOWN:
        return Refused(
            "AWS does not know these credentials",
            "check AWS_PROFILE and the keys, and that the account has this region enabled",
            code=code,
        )
    if code in DENIED:
        # which is not always that of the call: CreateFunction needs iam:PassRole as well
        denied = NOT_ALLOWED.search(said)
        wanted, resource = denied.groups() if denied else (action, None)
        return Refused(
            f"Access denied: {wanted} on {resource or _subject(kwargs)}",
            f"the credentials need that right: {said}" if said else "the credentials need that right",
            code=code,
            said=said,
        )
    return Refused(f"AWS refused {action} on {_subject(kwargs)}: {said or code}", code=code, said=said)


def _subject(kwargs: dict[str, Any]) -> str:
    """The thing that a call is about: the first of its arguments that names one."""
    named = (
        "FunctionName",
        "LayerName",
        "RoleName",
        "logGroupName",
        "logGroupNamePrefix",
        "Bucket",
        "Resource",
    )
    found = next((str(kwargs[key]) for key in named if key in kwargs), "")
    return mask(found) or "the account"


def _credentials(session: boto3.Session) -> Any:
    """The session's credentials. Raises AwsError where a program or a file for them cannot be used."""
    try:
        return session.get_credentials()
    except (OSError, ValueError) as error:
        raise AwsError(
            f"No credentials for AWS: {error}",
            "check credential_process and the files that the profile names",
        ) from None


def _no_region() -> NoReturn:
    raise AwsError("No region is chosen", "give --region, set AWS_REGION, or put it into the profile")


def _check_region(session: boto3.Session, region: str) -> None:
    """Refuse a region that nobody has heard of. Raises AwsError."""
    known = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("lambda", partition)
    ]
    if region not in known:
        near = difflib.get_close_matches(region, known, 1)
        raise AwsError(
            f'Lambda has no region "{region}"',
            f'did you mean "{near[0]}"?' if near else "update boto3 if it is a new one",
        )
