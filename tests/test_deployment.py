"""Plans and steps against Lambda's answers as its API reference has them, where moto has them otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.stub import ANY, Stubber

from lambdeno import project
from lambdeno.archive import Entry, write
from lambdeno.aws import Aws, Refused
from lambdeno.deployment import Actual, Artefact, Desired, Progress, plan, policies, steps, wanted
from lambdeno.deployment.actual import Deployed, FoundRole, check_mark, retention_of, urls_of
from lambdeno.deployment.desired import role_name
from lambdeno.deployment.step import with_role
from lambdeno.errors import DeployError, ProjectError
from tests.account import REGION, session_of

ACCOUNT = "123456789012"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:shop"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambdeno-shop-{REGION}"
LAYERS = [f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:lambdeno-{kind}-x86_64:1" for kind in ("deno", "runtime")]


@pytest.fixture
def shop(tmp_path: Path) -> project.Project:
    """A small project."""
    (tmp_path / "lambdeno.toml").write_text('name = "shop"\n[environment]\nTOKEN = "a secret"\n')
    return project.load(tmp_path)


@pytest.fixture
def artefacts(tmp_path: Path) -> dict[str, Artefact]:
    """Small artefacts."""
    facts = {"version": "2.9.8", "shape": "os-only", "deno": "2.9.8"}
    made = {}
    for kind in ("deno-layer", "runtime-layer", "function"):
        zipped = write(tmp_path / f"{kind}.zip", [Entry("file", kind.encode())])
        made[kind] = Artefact(zipped.path, zipped.digest, zipped.sha256, zipped.size, facts)
    return made


def desired_of(shop: project.Project, artefacts: dict[str, Artefact]) -> Desired:
    """The desired state in one region."""
    return wanted(shop, artefacts, runtime="provided.al2023", region=REGION)


def actual_of(shop: project.Project, artefacts: dict[str, Artefact], **configuration: Any) -> Actual:
    """The same, deployed, as GetFunction and the others answer for a function that is in use."""
    told = {
        "FunctionName": "shop",
        "FunctionArn": ARN,
        "Runtime": "provided.al2023",
        "Role": ROLE,
        "Handler": "function.handler",
        "CodeSize": artefacts["function"].size,
        "Description": "",
        "Timeout": 10,
        "MemorySize": 512,
        "LastModified": "2026-01-01T00:00:00.000+0000",
        "CodeSha256": artefacts["function"].code_sha256,
        "Version": "$LATEST",
        "VpcConfig": {
            "SubnetIds": [],
            "SecurityGroupIds": [],
            "VpcId": "",
            "Ipv6AllowedForDualStack": False,
        },
        "Environment": {"Variables": {"TOKEN": "a secret", "LAMBDENO_RUNTIME": "runtime1"}},
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": "c1f5b1a3-0000-0000-0000-000000000000",
        "Layers": [{"Arn": arn, "CodeSize": 1} for arn in LAYERS],
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "RuntimeVersionConfig": {"RuntimeVersionArn": f"arn:aws:lambda:{REGION}::runtime:0123"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/shop"},
        **configuration,
    }
    function = desired_of(shop, artefacts).function
    assert function
    return Actual(
        layers=dict(zip(("deno-layer", "runtime-layer"), LAYERS, strict=True)),
        role=FoundRole(ROLE, True, function.role.permissions),
        log_retention=30,
        function=Deployed(
            configuration={key: value for key, value in told.items() if value is not None},
            tags={"managed-by": "lambdeno", "aws:cloudformation:stack-name": "of AWS itself"},
            concurrency=None,
            aliases={},
            version=None,
            urls={},
            statements={},
            event_invokes={},
        ),
    )


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"Environment": {"Variables": {"LAMBDENO_RUNTIME": "runtime1", "TOKEN": "a secret"}}},
        {"VpcConfig": None, "TracingConfig": None, "EphemeralStorage": None, "Architectures": None},
        {"Description": None, "LoggingConfig": None},
        {
            "LoggingConfig": {
                "LogFormat": "Text",
                "ApplicationLogLevel": "INFO",
                "NotKnownToday": "x",
                "LogGroup": "/aws/lambda/shop",
            }
        },
    ],
)
def test_what_lambda_tells_of_a_deployed_function_needs_no_step(
    shop: project.Project, artefacts: dict[str, Artefact], told: dict[str, Any]
) -> None:
    """Fields that Lambda adds, leaves out or orders otherwise are no difference."""
    assert plan(desired_of(shop, artefacts), actual_of(shop, artefacts, **told)) == []


def test_a_url_as_lambda_tells_it_needs_no_step(
    shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Empty and false values of CORS, and another order, are no difference."""
    cors = project.Cors(origins=("https://b.example", "https://a.example"), methods=("GET",))
    changed = msgspec.structs.replace(shop, url=project.Url(cors=cors))
    actual = actual_of(changed, artefacts)
    assert actual.function
    url = {
        "FunctionUrl": "https://x.lambda-url.eu-west-1.on.aws/",
        "FunctionArn": ARN,
        "AuthType": "AWS_IAM",
        "InvokeMode": "BUFFERED",
        "Cors": {
            "AllowCredentials": False,
            "AllowHeaders": [],
            "AllowMethods": ["GET"],
            "AllowOrigins": ["https://a.example", "https://b.example"],
            "MaxAge": 0,
        },
    }
    actual = replace(actual, function=replace(actual.function, urls={"$LATEST": url}))
    assert plan(desired_of(changed, artefacts), actual) == []


def test_headers_of_cors_are_one_in_large_and_small_letters(
    shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Lambda keeps them in small ones."""
    cors = project.Cors(headers=("Content-Type",), expose=("X-Request-Id",))
    changed = msgspec.structs.replace(shop, url=project.Url(cors=cors))
    actual = actual_of(changed, artefacts)
    assert actual.function
    kept = {"AllowHeaders": ["content-type"], "ExposeHeaders": ["x-request-id"]}
    url = {"FunctionUrl": "x", "FunctionArn": ARN, "AuthType": "AWS_IAM", "Cors": kept}
    actual = replace(actual, function=replace(actual.function, urls={"$LATEST": url}))
    assert plan(desired_of(changed, artefacts), actual) == []


@pytest.mark.parametrize(
    "told",
    [
        {"State": "Failed", "StateReason": "no address left in the subnet"},
        {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no address left in the subnet"},
    ],
)
def test_a_function_that_has_failed_is_tried_again(
    shop: project.Project, artefacts: dict[str, Artefact], told: dict[str, Any]
) -> None:
    """That its configuration is the wanted one does not make it work."""
    [step] = plan(desired_of(shop, artefacts), actual_of(shop, artefacts, **told))
    assert (step.verb, step.noun) == ("update", "code")
    assert step.changes[0].before == "no address left in the subnet"


def test_rights_for_a_network_go_after_the_function_has_left_it(
    shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Lambda takes the interfaces away with the function's own role."""
    network = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    actual = actual_of(shop, artefacts, VpcConfig=network)
    inside = msgspec.structs.replace(shop, vpc=project.Vpc(("subnet-1",), ("sg-1",)))
    before = desired_of(inside, artefacts).function
    assert before
    actual = replace(actual, role=FoundRole(ROLE, True, before.role.permissions))
    assert [step.noun for step in plan(desired_of(shop, artefacts), actual)] == ["configuration", "role"]
    outside = actual_of(shop, artefacts)
    assert [step.noun for step in plan(desired_of(inside, artefacts), outside)] == ["role", "configuration"]


def test_what_an_alias_of_somebody_else_has_stays(
    shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Its URL and its settings are no more ours than the alias."""
    actual = actual_of(shop, artefacts)
    assert actual.function
    rows = {"beta": {"FunctionArn": f"{ARN}:beta"}, "live": {"FunctionArn": f"{ARN}:live"}}
    function = replace(
        actual.function,
        urls=rows,
        event_invokes=rows,
        aliases={
            "beta": {"FunctionVersion": "1"},
            "live": {"FunctionVersion": "1", "Description": "lambdeno"},
        },
    )
    made = plan(desired_of(shop, artefacts), replace(actual, function=function))
    assert [step.noun for step in made] == ["URL", "event invoke", "alias"]
    assert all(step.verb == "delete" for step in made)


def test_tags_are_shown_without_account(shop: project.Project, artefacts: dict[str, Artefact]) -> None:
    """A tag may well name one."""
    tagged = msgspec.structs.replace(shop, tags={"account": ACCOUNT})
    [step] = plan(desired_of(tagged, artefacts), actual_of(shop, artefacts))
    assert step.changes[0].after == "<account>"


def test_a_plan_names_what_changes_and_no_secret(
    shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Variables are named, their values are not; ARNs are shown without account."""
    actual = actual_of(
        shop,
        artefacts,
        MemorySize=128,
        Role=f"arn:aws:iam::{ACCOUNT}:role/former",
        Environment={"Variables": {"TOKEN": "an older secret", "OLD": "gone"}},
        Layers=[{"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:lambdeno-deno-x86_64:9"}],
    )
    [step] = plan(desired_of(shop, artefacts), actual)
    assert (step.verb, step.noun, step.name) == ("update", "configuration", "shop")
    changes = {change.what: (change.before, change.after) for change in step.changes}
    assert changes["memory"] == ("128", "512")
    assert changes["role"] == ("former", f"lambdeno-shop-{REGION}")
    assert changes["layers"] == (
        "lambdeno-deno-x86_64:9",
        "lambdeno-deno-x86_64:1, lambdeno-runtime-x86_64:1",
    )
    assert changes["environment.OLD"] == ("****", "")
    assert changes["environment.TOKEN"] == ("****", "**** (another value)")
    assert changes["environment.LAMBDENO_RUNTIME"] == ("", "runtime1")
    words = json.dumps([[change.what, change.before, change.after] for change in step.changes])
    assert ACCOUNT not in words
    assert "secret" not in words


def test_a_role_has_the_least_rights(shop: project.Project) -> None:
    """Two actions on the function's own log; each further right has a key that asks for it."""

    def actions(**keys: Any) -> dict[str, tuple[list[str], str]]:
        changed = msgspec.structs.replace(shop, **keys)
        document = policies.permissions(changed, "arn:aws:logs:eu-west-1:*:log-group:/aws/lambda/shop")
        return {one["Sid"]: (one["Action"], one["Resource"]) for one in document["Statement"]}

    logs = (
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        "arn:aws:logs:eu-west-1:*:log-group:/aws/lambda/shop:*",
    )
    assert actions() == {"Logs": logs}
    assert set(actions(tracing=True)) == {"Logs", "Traces"}
    assert set(actions(vpc=project.Vpc(("subnet-1",), ("sg-1",)))) == {"Logs", "Network"}
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:failed"
    assert actions(event_invoke=project.EventInvoke(on_failure=queue))["OnFailure"] == (
        ["sqs:SendMessage"],
        queue,
    )
    bucket = actions(event_invoke=project.EventInvoke(on_failure="arn:aws:s3:::failed"))
    assert bucket["OnFailure"] == (["s3:PutObject"], "arn:aws:s3:::failed/*")


@pytest.mark.parametrize("text", ["{", "[" * 5000 + "]" * 5000, "9" * 5000], ids=["cut", "deep", "long"])
def test_a_policy_that_is_not_json_is_named(shop: project.Project, text: str) -> None:
    """The error is one sentence with the file."""
    (shop.root / "policy.json").write_text(text)
    changed = msgspec.structs.replace(shop, role=project.Role(policy="policy.json"))
    with pytest.raises(ProjectError, match=r'policy\.json" is not JSON'):
        policies.permissions(changed, "arn:aws:logs:::x")


def test_a_policy_s_statements_have_names_of_their_own(shop: project.Project) -> None:
    """IAM takes no Sid twice, and says so only when the role is there."""
    (shop.root / "policy.json").write_text('{"Statement": [{"Sid": "Logs", "Effect": "Allow"}]}')
    changed = msgspec.structs.replace(shop, role=project.Role(policy="policy.json"))
    with pytest.raises(ProjectError, match='has a statement "Logs", which lambdeno has too'):
        policies.permissions(changed, "arn:aws:logs:::x")


def test_a_role_s_name_fits_and_is_the_function_s_own() -> None:
    """IAM takes 64 characters, and is one for all regions."""
    long = "n" * 64
    found = {
        role_name(name, region)
        for name in ("shop", long, f"{long[:-1]}m")
        for region in (REGION, "ap-southeast-2")
    }
    assert len(found) == 6
    assert all(len(name) <= 64 for name in found)
    assert role_name("shop", REGION) == "lambdeno-shop-eu-west-1"


# --- answers that moto cannot give -----------------------------------------------------------------


@pytest.fixture
def aws() -> Aws:
    """A client that pauses for no time; its answers are recorded ones."""
    slept: list[float] = []
    made = Aws(session=session_of("AKIAEXAMPLE", "nobody's"), sleep=slept.append)
    made.slept = slept  # type: ignore[attr-defined]
    return made


@pytest.fixture
def lambda_api(aws: Aws) -> Iterator[Stubber]:
    """Lambda's answers, in order; each has to be asked for."""
    with Stubber(aws.lambda_) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "said",
    [
        "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
        "KMS key is invalid for CreateGrant. (…) ARN does not refer to a valid principal",
        "The destination ARN arn:aws:sqs:eu-west-1:1:q is invalid.",
    ],
)
def test_rights_that_lambda_has_not_heard_of_are_waited_for(aws: Aws, lambda_api: Stubber, said: str) -> None:
    """A role's new rights take seconds, as the role itself does."""
    operation = "put_function_event_invoke_config"
    lambda_api.add_client_error(operation, "InvalidParameterValueException", said, 400)
    lambda_api.add_response(operation, {})
    steps.PutEventInvoke(name="shop", qualifier="$LATEST", configuration={}).apply(aws, Progress())
    assert aws.slept == [1]  # type: ignore[attr-defined]


def test_no_variable_is_in_what_lambda_says_of_them(aws: Aws, lambda_api: Stubber) -> None:
    """Lambda itself repeats an environment that is too large."""
    said = 'exceeded the 4KB limit. String measured: {"DB_PASSWORD":"hunter2"}'
    lambda_api.add_client_error("create_function", "InvalidParameterValueException", said, 400)
    with pytest.raises(Refused, match="exceeded the 4KB limit") as caught:
        aws.call(aws.lambda_.create_function, FunctionName="shop", Role=ROLE, Code={"ZipFile": b""})
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.said}"


UNASSUMED = "The role defined for the function cannot be assumed by Lambda."


def test_a_role_that_is_still_unknown_to_lambda_is_waited_for(aws: Aws, lambda_api: Stubber) -> None:
    """IAM tells Lambda of a new role some seconds later."""
    for _ in range(3):
        lambda_api.add_client_error("create_function", "InvalidParameterValueException", UNASSUMED, 400)
    lambda_api.add_response("create_function", {"FunctionArn": ARN})
    request = {"FunctionName": "shop", "Role": ROLE, "Code": {"ZipFile": b""}}
    assert with_role(aws, aws.lambda_.create_function, request)["FunctionArn"] == ARN
    assert aws.slept == [1, 2, 4]  # type: ignore[attr-defined]


def test_a_role_that_lambda_never_learns_of_is_told(aws: Aws, lambda_api: Stubber) -> None:
    """The wait has an end, in AWS's own words."""
    for _ in range(8):
        lambda_api.add_client_error("create_function", "InvalidParameterValueException", UNASSUMED, 400)
    request = {"FunctionName": "shop", "Role": ROLE, "Code": {"ZipFile": b""}}
    with pytest.raises(Refused, match="cannot be assumed by Lambda"):
        with_role(aws, aws.lambda_.create_function, request)


def test_a_function_that_cannot_become_active_says_why(aws: Aws, lambda_api: Stubber) -> None:
    """State Failed is an end, with Lambda's reason and without an account."""
    failed = {"State": "Failed", "StateReason": f"no rights to create an ENI in account {ACCOUNT}"}
    lambda_api.add_response("get_function", {"Configuration": failed})
    with pytest.raises(DeployError, match="no rights to create an ENI in account <account>"):
        aws.wait("function_active_v2", "shop")


@pytest.mark.parametrize(
    ("row", "is_denied"),
    [
        ({"EvalDecision": "allowed"}, False),
        ({"EvalDecision": "implicitDeny"}, True),
        ({"EvalDecision": "explicitDeny"}, True),
        ({"EvalDecision": "implicitDeny", "MissingContextValues": ["aws:RequestTag/team"]}, False),
        (
            {
                "EvalDecision": "implicitDeny",
                "ResourceSpecificResults": [
                    {
                        "EvalResourceName": "*",
                        "EvalResourceDecision": "implicitDeny",
                        "MissingContextValues": ["aws:SourceIp"],
                    }
                ],
            },
            False,
        ),
        (
            {
                "EvalDecision": "explicitDeny",
                "OrganizationsDecisionDetail": {"AllowedByOrganizations": False},
            },
            False,
        ),
    ],
)
def test_only_a_sure_denial_stops_a_deployment(aws: Aws, row: dict[str, Any], is_denied: bool) -> None:
    """What IAM cannot decide without the call is left to the call."""
    user = f"arn:aws:iam::{ACCOUNT}:user/someone"
    with Stubber(aws.sts) as sts, Stubber(aws.iam) as iam:
        sts.add_response("get_caller_identity", {"Account": ACCOUNT, "Arn": user, "UserId": "x"})
        results = [{"EvalActionName": "lambda:CreateFunction", **row}]
        iam.add_response("simulate_principal_policy", {"EvaluationResults": results})
        denied = aws.forbidden([("lambda:CreateFunction", ARN)])
    assert denied == ([("lambda:CreateFunction", ARN)] if is_denied else [])


def test_a_region_without_urls_is_one_without_urls(
    aws: Aws, lambda_api: Stubber, shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Lambda's strange refusal there matters to those alone who want one."""
    said = "Unable to determine service/operation name to be authorized"
    for _ in range(2):
        lambda_api.add_client_error("list_function_url_configs", "AccessDeniedException", said, 403)
    function = desired_of(shop, artefacts).function
    wanting = desired_of(msgspec.structs.replace(shop, url=project.Url()), artefacts).function
    assert function
    assert wanting
    assert urls_of(aws, function) == {}
    with pytest.raises(DeployError, match="Lambda has no Function URLs in eu-west-1"):
        urls_of(aws, wanting)


def test_a_retention_that_the_account_decides_is_left_to_it(
    aws: Aws, shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """What a policy of the account sets, no deployment can."""
    function = desired_of(shop, artefacts).function
    assert function
    group = {"logGroupName": "/aws/lambda/shop", "retentionInDays": 365, "retentionPolicyName": "all"}
    with Stubber(aws.logs) as logs:
        logs.add_response("describe_log_groups", {"logGroups": [group]})
        assert retention_of(aws, function) == function.log_retention


def test_tags_that_may_not_be_seen_are_no_proof_of_somebody_else() -> None:
    """The right that is missing is named."""
    with pytest.raises(DeployError, match="Access denied: lambda:ListTags on shop"):
        check_mark("shop", {"TagsError": {"ErrorCode": "AccessDeniedException"}}, "")


def test_a_wait_that_is_throttled_goes_on(aws: Aws, lambda_api: Stubber) -> None:
    """To be asked less often is no failure of the function."""
    lambda_api.add_client_error("get_function", "TooManyRequestsException", "Rate exceeded", 429)
    lambda_api.add_response("get_function", {"Configuration": {"State": "Active"}})
    aws.wait("function_active_v2", "shop")
    assert len(aws.slept) == 1  # type: ignore[attr-defined]


def test_what_arrives_otherwise_than_it_was_sent_is_an_error(
    aws: Aws, lambda_api: Stubber, shop: project.Project, artefacts: dict[str, Artefact]
) -> None:
    """Lambda tells the checksum of what it has."""
    layer = desired_of(shop, artefacts).layers[0]
    content = {"CodeSha256": "another"}
    lambda_api.add_response(
        "publish_layer_version",
        {"LayerVersionArn": LAYERS[0], "Content": content},
        {
            "LayerName": layer.name,
            "Description": layer.description,
            "Content": {"ZipFile": artefacts["deno-layer"].path.read_bytes()},
            "CompatibleArchitectures": ["x86_64"],
            "LicenseInfo": "MIT",
        },
    )
    step = steps.PublishLayer(name=layer.name, layer=layer, bucket="")
    with pytest.raises(DeployError, match=r"is not deno-layer\.zip"):
        step.apply(aws, Progress())


def test_a_layer_that_was_never_published_has_no_versions(aws: Aws, lambda_api: Stubber) -> None:
    """Whether Lambda answers with an empty list or says that there is none."""
    lambda_api.add_client_error("list_layer_versions", "ResourceNotFoundException", "none", 404)
    assert list(aws.pages(aws.lambda_.list_layer_versions, "LayerVersions", LayerName="x")) == []
    lambda_api.add_response("list_layer_versions", {"LayerVersions": [{"Version": 2}], "NextMarker": "m"})
    lambda_api.add_response(
        "list_layer_versions", {"LayerVersions": [{"Version": 1}]}, {"LayerName": ANY, "Marker": "m"}
    )
    rows = list(aws.pages(aws.lambda_.list_layer_versions, "LayerVersions", LayerName="x"))
    assert [row["Version"] for row in rows] == [2, 1]
