"""What AWS and boto3 say, in our words: credentials, regions, refusals; and what is repeated."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lambdeno.aws import PAUSES, Aws, Refused, mask
from lambdeno.errors import AwsError
from tests.aws_answers import (
    LOST,
    Answer,
    Said,
    answering,
    logs_refusal,
    query_refusal,
    refusal,
    result,
    s3_refusal,
)

ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:shop"
ME = f"arn:aws:sts::{ACCOUNT}:assumed-role/Developer/ada"
THROTTLED = refusal(429, "TooManyRequestsException", "Rate exceeded", Reason="CallerRateLimitExceeded")
BUSY = refusal(
    409,
    "ResourceConflictException",
    f"The operation cannot be performed at this time. An update is in progress for resource: {FUNCTION}",
)
BROKEN = refusal(500, "ServiceException", "An internal error has occurred")


CREATE: dict[str, Any] = {
    "FunctionName": "shop",
    "Role": f"arn:aws:iam::{ACCOUNT}:role/shop",
    "Code": {"ZipFile": b"zip"},
}
# Calls of each protocol that AWS speaks.
CALLS: dict[str, Callable[[Aws], object]] = {
    "lambda": lambda aws: aws.call(aws.lambda_.create_function, **CREATE),
    "invoke": lambda aws: aws.once(aws.lambda_.invoke, FunctionName="shop"),
    "logs": lambda aws: aws.call(aws.logs.create_log_group, logGroupName="group"),
    "sts": lambda aws: aws.identity,
    "iam": lambda aws: aws.call(aws.iam.get_role, RoleName="shop"),
    "iam write": lambda aws: aws.call(aws.iam.detach_role_policy, RoleName="shop", PolicyArn="a" * 20),
    "s3": lambda aws: aws.call(aws.s3.put_object, Bucket="bucket", Key="key"),
    "head": lambda aws: aws.call(aws.s3.head_object, Bucket="bucket", Key="key"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nobody has configured anything for AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-nobody")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


@pytest.fixture
def cloud(keys: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:  # noqa: ARG001
    """An AWS that gives these answers; ours to ask it, what was said, and the pauses that were made."""

    @contextmanager
    def cloud(*answers: Answer) -> Iterator[tuple[Aws, Said, list[float]]]:
        with answering(*answers) as said:
            monkeypatch.setenv("AWS_ENDPOINT_URL", said.endpoint)
            pauses: list[float] = []
            yield Aws(sleep=pauses.append), said, pauses

    return cloud


def configure(home: Path, text: str) -> None:
    """Write ~/.aws/config."""
    (home / ".aws").mkdir()
    (home / ".aws/config").write_text(text)


# --- credentials and regions --------------------------------------------------------------------


def test_no_credentials_are_told_with_the_ways_to_have_some() -> None:
    """On a machine without any, before anything is sent."""
    with pytest.raises(AwsError) as caught:
        Aws(region="eu-west-1")
    assert caught.value.message == "No credentials for AWS: Unable to locate credentials"
    assert "aws configure" in caught.value.hint
    assert "AWS_PROFILE" in caught.value.hint
    assert caught.value.exit_code == 7


def test_half_of_the_credentials_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    with pytest.raises(AwsError, match=r"^No credentials for AWS: .*AWS_SECRET_ACCESS_KEY"):
        Aws(region="eu-west-1")


def test_a_program_that_gives_no_credentials_is_told(home: Path) -> None:
    """credential_process may fail."""
    configure(home, "[default]\ncredential_process = /bin/false\n")
    with pytest.raises(AwsError, match=r"^No credentials for AWS: "):
        Aws(region="eu-west-1")


def test_a_sign_on_that_is_over_is_told_to_be_renewed(home: Path) -> None:
    """IAM Identity Center needs aws sso login."""
    configure(
        home,
        "[default]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://example.com/start\n",
    )
    aws = Aws(region="eu-west-1")
    with pytest.raises(AwsError) as caught:
        aws.call(aws.lambda_.get_account_settings)
    assert caught.value.message.startswith("The sign-on has expired: ")
    assert caught.value.hint == "run aws sso login"


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_an_unknown_profile_is_told_the_known_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Wherever its name came from."""
    configure(home, "[profile work]\nregion = eu-west-1\n[profile home]\nregion = eu-west-1\n")
    if by == "variable":
        monkeypatch.setenv("AWS_PROFILE", "wrok")
    with pytest.raises(AwsError) as caught:
        Aws("wrok" if by == "argument" else None)
    assert caught.value.message == "The config profile (wrok) could not be found"
    assert caught.value.hint.startswith("known profiles: work, home; ")


def test_a_configuration_that_cannot_be_read_is_named(home: Path) -> None:
    """The file of boto3's own, not a traceback."""
    configure(home, "region = without a section\n")
    with pytest.raises(AwsError, match=r"\.aws/config"):
        Aws(region="eu-west-1")


def test_without_a_region_three_ways_to_give_one_are_told(
    keys: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no region by default."""
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(AwsError) as caught:
        Aws()
    assert caught.value.message == "No region is chosen"
    assert caught.value.hint == "give --region, set AWS_REGION, or put it into the profile"


@pytest.mark.usefixtures("keys")
def test_the_region_is_chosen_as_the_aws_cli_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--region before AWS_REGION before AWS_DEFAULT_REGION before the profile's."""
    configure(home, "[default]\nregion = us-west-2\n")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Aws(region="us-east-2").region == "us-east-2"
    assert Aws().region == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    assert Aws().region == "eu-north-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert Aws().region == "us-west-2"


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("eu-wset-1", 'did you mean "eu-west-1"?'),
        ("us-gov-wset-1", 'did you mean "us-gov-west-1"?'),
        ("nowhere", "update boto3 if it is a new one"),
    ],
)
def test_a_region_that_is_none_is_told_the_nearest(region: str, hint: str) -> None:
    """Of all partitions; else a request would wait for a name that nobody knows."""
    with pytest.raises(AwsError) as caught:
        Aws(region=region)
    assert caught.value.message == f'Lambda has no region "{region}"'
    assert caught.value.hint == hint


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "url", ["localhost:9000", "nonsense", "http://", "http://[::1", "http://127.0.0.1:99999"]
)
def test_an_endpoint_that_is_no_url_is_told(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """boto3's ValueError does not reach the user."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    aws = Aws()
    for client in ("lambda_", "iam", "logs", "s3", "sts"):
        with pytest.raises(AwsError) as caught:
            getattr(aws, client)
        assert re.match("AWS cannot be asked: (Invalid|Port) ", caught.value.message)
        assert "AWS_ENDPOINT_URL" in caught.value.hint


@pytest.mark.usefixtures("keys")
def test_nobody_at_the_endpoint_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address, and without waiting for a network to appear."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    pauses: list[float] = []
    aws = Aws(sleep=pauses.append)
    with pytest.raises(AwsError) as caught:
        aws.call(aws.lambda_.list_functions)
    assert (
        caught.value.message
        == f'Cannot reach AWS: Could not connect to the endpoint URL: "{url}/2015-03-31/functions"'
    )
    assert caught.value.hint == "check the network, the region and AWS_ENDPOINT_URL"
    assert pauses == []


# --- refusals -----------------------------------------------------------------------------------

EXPIRED = "The security token included in the request is expired"
INVALID = "The security token included in the request is invalid."
MISMATCH = "The request signature we calculated does not match the signature you provided."
LATE = "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)"


@pytest.mark.parametrize(
    ("service", "answer", "says"),
    [
        ("lambda", refusal(403, "ExpiredTokenException", EXPIRED), "The credentials for AWS have expired"),
        ("sts", query_refusal(403, "ExpiredToken", EXPIRED), "The credentials for AWS have expired"),
        ("s3", s3_refusal(400, "ExpiredToken", EXPIRED), "The credentials for AWS have expired"),
        (
            "lambda",
            refusal(403, "UnrecognizedClientException", INVALID),
            "AWS does not know these credentials",
        ),
        (
            "lambda",
            refusal(403, "InvalidSignatureException", MISMATCH),
            "AWS does not know these credentials",
        ),
        ("sts", query_refusal(403, "InvalidClientTokenId", INVALID), "AWS does not know these credentials"),
        ("sts", query_refusal(403, "SignatureDoesNotMatch", MISMATCH), "AWS does not know these credentials"),
        ("s3", s3_refusal(403, "InvalidAccessKeyId", INVALID), "AWS does not know these credentials"),
        (
            "lambda",
            refusal(403, "InvalidSignatureException", LATE),
            "This machine's clock is not that of AWS",
        ),
        ("sts", query_refusal(403, "SignatureDoesNotMatch", LATE), "This machine's clock is not that of AWS"),
        (
            "s3",
            s3_refusal(403, "RequestTimeTooSkewed", "Too large"),
            "This machine's clock is not that of AWS",
        ),
    ],
)
def test_credentials_that_aws_refuses_are_told(
    cloud: Callable[..., Any], service: str, answer: Answer, says: str
) -> None:
    """Expired, unknown, or signed at the wrong time: in a word, and what to do."""
    with cloud(answer) as (aws, said, _), pytest.raises(Refused) as caught:
        CALLS[service](aws)
    assert caught.value.message == says
    assert caught.value.hint
    assert len(said.requests) == 1


def denied(action: str, resource: str) -> str:
    """What AWS says to who may not."""
    why = f"because no identity-based policy allows the {action} action"
    return f"User: {ME} is not authorized to perform: {action} on resource: {resource} {why}"


@pytest.mark.parametrize(
    ("service", "answer", "says"),
    [
        (
            "lambda",
            refusal(403, "AccessDeniedException", denied("lambda:CreateFunction", FUNCTION)),
            "Access denied: lambda:CreateFunction on arn:aws:lambda:eu-west-1:<account>:function:shop",
        ),
        (
            "lambda",
            refusal(
                403, "AccessDeniedException", denied("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/shop")
            ),
            "Access denied: iam:PassRole on arn:aws:iam::<account>:role/shop",
        ),
        (
            "iam",
            query_refusal(403, "AccessDenied", denied("iam:GetRole", "role shop")),
            "Access denied: iam:GetRole on role shop",
        ),
        ("s3", s3_refusal(403, "AccessDenied", "Access Denied"), "Access denied: s3:PutObject on bucket"),
        ("head", Answer(403, b""), "Access denied: s3:GetObject on bucket"),
        ("invoke", refusal(403, "AccessDeniedException", ""), "Access denied: lambda:InvokeFunction on shop"),
    ],
    ids=["create", "pass role", "get role", "put object", "head object", "invoke"],
)
def test_access_denied_says_which_right_on_what_is_missing(
    cloud: Callable[..., Any], service: str, answer: Answer, says: str
) -> None:
    """The right that AWS names, else that of the call; no account id, neither there nor in the hint."""
    with cloud(answer) as (aws, said, _), pytest.raises(Refused) as caught:
        CALLS[service](aws)
    assert caught.value.message == says
    assert caught.value.hint.startswith("the credentials need that right")
    assert ACCOUNT not in caught.value.message + caught.value.hint + caught.value.said
    assert len(said.requests) == 1


def test_any_other_refusal_has_the_action_the_thing_and_aws_words(cloud: Callable[..., Any]) -> None:
    """On one line, without an account id."""
    answer = refusal(
        400, "InvalidParameterValueException", f"The role\n arn:aws:iam::{ACCOUNT}:role/x is bad"
    )
    with cloud(answer) as (aws, _, _), pytest.raises(Refused) as caught:
        CALLS["lambda"](aws)
    assert caught.value.message == (
        "AWS refused lambda:CreateFunction on shop: The role arn:aws:iam::<account>:role/x is bad"
    )
    assert caught.value.code == "InvalidParameterValueException"


def test_what_is_not_there_is_none_for_who_looks_for_it(cloud: Callable[..., Any]) -> None:
    """By each service's own code for it."""
    missing = refusal(404, "ResourceNotFoundException", f"Function not found: {FUNCTION}")
    role = query_refusal(404, "NoSuchEntity", "The role with name shop cannot be found.")
    with cloud(missing, role, Answer(404, b"")) as (aws, said, _):
        assert aws.find(aws.lambda_.get_function, FunctionName="shop") is None
        assert aws.find(aws.iam.get_role, RoleName="shop") is None
        assert aws.find(aws.s3.head_bucket, Bucket="bucket") is None
    assert len(said.requests) == 3


def test_an_answer_that_is_not_of_aws_is_told(cloud: Callable[..., Any]) -> None:
    """The log-in page of a network, for one."""
    page = Answer(200, b"<!doctype html><p>Welcome to the hotel")
    with cloud(page) as (aws, _, _), pytest.raises(AwsError) as caught:
        CALLS["sts"](aws)
    assert caught.value.message == "What answered in AWS's place is not AWS"
    assert "prox" in caught.value.hint


# --- what is repeated ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [THROTTLED, refusal(400, "ThrottlingException", "Rate exceeded"), Answer(429, b"Too Many Requests")],
    ids=["Lambda", "others", "no code"],
)
def test_what_is_throttled_is_repeated_six_times_and_then_told(
    cloud: Callable[..., Any], answer: Answer
) -> None:
    """With pauses that double, each by chance between half and all of it; a write as well as a read."""
    with cloud(answer) as (aws, said, pauses), pytest.raises(Refused) as caught:
        CALLS["lambda"](aws)
    assert len(said.requests) == 7
    assert len(pauses) == len(PAUSES) == 6
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, PAUSES, strict=True))
    assert caught.value.message.startswith("AWS refused lambda:CreateFunction on shop: ")


def test_pauses_are_by_chance(cloud: Callable[..., Any]) -> None:
    """So that many who are throttled together do not come again together."""
    found = set()
    for _ in range(2):
        with cloud(THROTTLED) as (aws, _, pauses), pytest.raises(Refused):
            CALLS["lambda"](aws)
        found.add(tuple(pauses))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("lambda", BUSY),
        (
            "lambda",
            refusal(
                409, "ResourceConflictException", "The function is currently in the following state: Pending"
            ),
        ),
        (
            "s3",
            s3_refusal(
                409,
                "OperationAborted",
                "A conflicting conditional operation is currently in progress against this resource.",
            ),
        ),
        (
            "logs",
            logs_refusal(
                400,
                "OperationAbortedException",
                "A conflicting operation is currently in progress against this resource.",
            ),
        ),
        (
            "iam write",
            query_refusal(
                409,
                "ConcurrentModification",
                "The request was rejected because multiple requests to change this object were submitted "
                "simultaneously.",
            ),
        ),
    ],
)
def test_a_change_that_meets_another_waits_for_it(
    cloud: Callable[..., Any], service: str, answer: Answer
) -> None:
    """An update in progress ends; the call is made again then."""
    body = {"iam write": b"<DetachRolePolicyResponse/>", "s3": b""}.get(service, b"{}")
    with cloud(answer, answer, Answer(200, body)) as (aws, said, pauses):
        CALLS[service](aws)
    assert len(said.requests) == 3
    assert len(pauses) == 2


def test_a_conflict_that_stays_is_told_at_once(cloud: Callable[..., Any]) -> None:
    """What exists already will exist a second later as well."""
    exists = refusal(409, "ResourceConflictException", "Function already exist: shop")
    with cloud(exists) as (aws, said, _), pytest.raises(Refused) as caught:
        CALLS["lambda"](aws)
    assert len(said.requests) == 1
    assert caught.value.is_there_already


@pytest.mark.parametrize(
    "answer",
    [BROKEN, LOST, Answer(503, b"<html>", {"Content-Type": "text/html"})],
    ids=["500", "lost", "503"],
)
def test_a_read_that_fails_is_repeated_and_a_write_is_not(cloud: Callable[..., Any], answer: Answer) -> None:
    """A write whose answer is lost may have happened."""
    with cloud(answer, answer, result(Functions=[])) as (aws, said, pauses):
        assert aws.call(aws.lambda_.list_functions)["Functions"] == []
        assert len(said.requests) == 3
        assert len(pauses) == 2
    with cloud(answer) as (aws, said, _), pytest.raises(AwsError):
        CALLS["lambda"](aws)
    assert len(said.requests) == 1


@pytest.mark.parametrize("answer", [THROTTLED, BROKEN, LOST, BUSY], ids=["throttled", "500", "lost", "busy"])
def test_once_is_once(cloud: Callable[..., Any], answer: Answer) -> None:
    """Whatever the answer: boto3 repeats nothing either."""
    with cloud(answer) as (aws, said, pauses), pytest.raises(AwsError):
        CALLS["invoke"](aws)
    assert len(said.requests) == 1
    assert pauses == []


# --- pages, streams, account ids ----------------------------------------------------------------


def test_a_list_is_all_of_its_pages(cloud: Callable[..., Any]) -> None:
    """Each page is asked for with the token of the one before; one without items is not the last."""
    pages = [
        result(events=[{"eventId": "1"}, {"eventId": "2"}], nextToken="two"),
        result(events=[], nextToken="three"),
        THROTTLED,
        result(events=[{"eventId": "3"}]),
    ]
    token = ("nextToken", "nextToken")
    with cloud(*pages) as (aws, said, _):
        found = [
            row["eventId"] for row in aws.pages(aws.logs.filter_log_events, "events", token, logGroupName="g")
        ]
    assert found == ["1", "2", "3"]
    asked = [json.loads(body).get("nextToken") for body in said.bodies]
    assert asked == [None, "two", "three", "three"]


def test_a_list_of_what_is_not_there_is_empty(cloud: Callable[..., Any]) -> None:
    """Who lists the log groups or layers of nothing finds none."""
    with cloud(refusal(404, "ResourceNotFoundException", "no such layer")) as (aws, _, _):
        assert list(aws.pages(aws.lambda_.list_layer_versions, "LayerVersions", LayerName="layer")) == []


def test_pages_are_asked_for_as_they_are_needed(cloud: Callable[..., Any]) -> None:
    """Who has found what was looked for asks for no more."""
    with cloud(result(Functions=[{"FunctionName": "a"}], NextMarker="m")) as (aws, said, _):
        found = next(aws.pages(aws.lambda_.list_functions, "Functions"))
    assert found["FunctionName"] == "a"
    assert len(said.requests) == 1


def test_a_stream_that_breaks_off_is_an_error_of_ours(cloud: Callable[..., Any]) -> None:
    """In the middle of a chunk, or with what is no message at all."""
    kind = {"Content-Type": "application/vnd.amazon.eventstream"}
    cut = Answer(200, b"f\r\nless", {**kind, "Transfer-Encoding": "chunked"})
    for answer in (cut, Answer(200, b"no event stream" * 10, kind)):
        with cloud(answer) as (aws, _, _):
            stream = aws.once(aws.lambda_.invoke_with_response_stream, FunctionName="shop")["EventStream"]
            with pytest.raises(AwsError, match=r"^The connection to AWS has broken$"):
                list(aws.parts(stream))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (FUNCTION, "arn:aws:lambda:eu-west-1:<account>:function:shop"),
        (f"{ACCOUNT} and {ACCOUNT}.", "<account> and <account>."),
        ("1234567890123 is longer", "1234567890123 is longer"),
        ("12345678901 is shorter", "12345678901 is shorter"),
        ("", ""),
    ],
)
def test_account_ids_are_masked(text: str, shown: str) -> None:
    """Twelve digits, wherever they stand, and no other number."""
    assert mask(text) == shown
