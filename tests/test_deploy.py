"""Plan and apply, against an account of moto's: what is there afterwards is what the project says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno import archive, project
from lambdeno.archive import Entry
from lambdeno.aws import Aws
from lambdeno.build import Watcher
from lambdeno.deploy import deploy_artefacts, locked
from lambdeno.deployment import Artefact
from lambdeno.destroy import destroy, plan_of_removal
from lambdeno.errors import AwsError, DeployError, LambdenoError
from tests.account import REGION, Account, account, only, session_of

SMALL = 'name = "shop"\n'
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:failed"
FULL = f"""
name = "shop"
description = "what we sell"
architecture = "arm64"
memory = 1024
timeout = 30
storage = 1024
log_format = "json"
log_level = "warn"
log_retention = 7
tracing = true
alias = "live"
reserved_concurrency = 3
[environment]
TOKEN = "a secret"
[tags]
team = "sales"
[role]
policies = ["arn:aws:iam::123456789012:policy/Reading"]
policy = "policy.json"
[url]
auth = "none"
invoke_mode = "streaming"
[url.cors]
origins = ["https://example.com"]
methods = ["GET"]
max_age = 60
[vpc]
subnets = ["subnet-0123abcd"]
security_groups = ["sg-0123abcd"]
[event_invoke]
retries = 1
on_failure = "{QUEUE}"
"""
POLICY = '{"Statement": {"Sid": "Buy", "Effect": "Allow", "Action": "sns:Publish", "Resource": "*"}}'


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account for this file."""
    with account(tmp_path_factory.mktemp("account")) as made:
        yield made


@pytest.fixture
def empty(cloud: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The account with nothing in it but a network."""
    emptied(cloud)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.endpoint)
    return cloud


def emptied(cloud: Account) -> None:
    """Leave nothing in the account but a managed policy: AWS's own take moto a second to make."""
    cloud.reset()
    reading = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
    document = json.dumps({"Version": "2012-10-17", **reading})
    cloud.client("iam").create_policy(PolicyName="Reading", PolicyDocument=document)
    cloud.calls()


Configured = Callable[[str], project.Project]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """A project folder whose lambdeno.toml can be written."""
    (tmp_path / "policy.json").write_text(POLICY)

    def configure(toml: str) -> project.Project:
        (tmp_path / "lambdeno.toml").write_text(toml)
        return project.load(tmp_path)

    return configure


def built(folder: Path, **content: bytes) -> dict[str, Artefact]:
    """Artefacts that are small; what a layer or the function holds can be told."""
    kinds = ("deno-layer", "runtime-layer", "function")
    facts = {"version": "1.2.3", "shape": "os-only", "deno": "2.9.8"}
    made = {}
    for kind in kinds:
        zipped = archive.write(
            folder / "dist" / f"{kind}.zip",
            [Entry("file", content.get(kind.replace("-", "_"), kind.encode()))],
        )
        made[kind] = Artefact(zipped.path, zipped.digest, zipped.sha256, zipped.size, facts)
    return made


def names(steps: Any) -> list[str]:
    """The steps in words."""
    return [f"{step.verb} {step.noun}" for step in steps]


def deployed(made: Account, shop: project.Project, **content: bytes) -> list[str]:
    """Deploy; the steps that it took."""
    done = deploy_artefacts(shop, built(shop.root, **content), made.aws())
    return names(done.steps)


def snapshot(made: Account, name: str = "shop") -> dict[str, Any]:
    """All that is in the account, but for times and ids."""
    client, iam, logs = made.client("lambda"), made.client("iam"), made.client("logs")
    own = {
        "ResponseMetadata",
        "LastModified",
        "RevisionId",
        "CreationTime",
        "LastModifiedTime",
        "FunctionUrl",
        "CreateDate",
        "CreatedDate",
    }

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: plain(item) for key, item in value.items() if key not in own}
            # no network is the same as none that is empty
            return {key: item for key, item in kept.items() if key != "VpcConfig" or item.get("SubnetIds")}
        return [plain(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = {
        "layers": [
            {row["LayerName"]: client.list_layer_versions(LayerName=row["LayerName"])["LayerVersions"]}
            for row in client.list_layers()["Layers"]
        ],
        "roles": [],
        "groups": [
            (row["logGroupName"], row.get("retentionInDays"))
            for row in logs.describe_log_groups()["logGroups"]
        ],
        "functions": [row["FunctionName"] for row in client.list_functions()["Functions"]],
    }
    for role in iam.list_roles()["Roles"]:
        role_name = role["RoleName"]
        found["roles"].append(
            {
                "name": role_name,
                "inline": [
                    iam.get_role_policy(RoleName=role_name, PolicyName=policy)["PolicyDocument"]
                    for policy in iam.list_role_policies(RoleName=role_name)["PolicyNames"]
                ],
                "attached": iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"],
                "tags": iam.list_role_tags(RoleName=role_name)["Tags"],
            }
        )
    if name in found["functions"]:
        whole = client.get_function(FunctionName=name)
        aliases = client.list_aliases(FunctionName=name)["Aliases"]
        found["function"] = plain(
            {
                "configuration": whole["Configuration"],
                "tags": whole["Tags"],
                "concurrency": whole.get("Concurrency"),
                "aliases": aliases,
                "versions": client.list_versions_by_function(FunctionName=name)["Versions"],
                "urls": client.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"],
                "invokes": client.list_function_event_invoke_configs(FunctionName=name),
                "policy": policies(client, name, aliases),
            }
        )
    made.calls()
    return plain(found)  # type: ignore[no-any-return]


def policies(client: Any, name: str, aliases: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The statements of the function and of its aliases, by id."""
    found = {}
    for qualifier in ("", *[row["Name"] for row in aliases]):
        more = {"Qualifier": qualifier} if qualifier else {}
        try:
            text = client.get_policy(FunctionName=name, **more)["Policy"]
        except client.exceptions.ResourceNotFoundException:
            continue
        found[qualifier] = sorted(row["Sid"] for row in json.loads(text)["Statement"])
    return found


class Interrupt(KeyboardInterrupt):
    """Ctrl-C, at a known place."""


def interrupted_after(made: Account, number: int) -> Aws:
    """A client of AWS whose user presses Ctrl-C after that many calls: AWS has carried out the last."""
    session, left = made.session(), [number]

    def count(**_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupt

    session.events.register("after-call", count)
    return Aws(session=session)


def test_everything_that_a_project_says_is_deployed(empty: Account, configured: Configured) -> None:
    """Each key of lambdeno.toml is where Lambda has it, and a second deployment plans nothing."""
    shop = configured(FULL)
    assert deployed(empty, shop) == [
        "create role",
        "create log group",
        "publish layer",
        "publish layer",
        "create function",
        "publish version",
        "update concurrency",
        "create URL",
        "update event invoke",
    ]
    found = snapshot(empty)
    function = found["function"]
    configuration = function["configuration"]
    assert configuration["Description"] == "what we sell"
    assert configuration["Architectures"] == ["arm64"]
    assert (configuration["MemorySize"], configuration["Timeout"]) == (1024, 30)
    assert configuration["EphemeralStorage"] == {"Size": 1024}
    assert configuration["TracingConfig"] == {"Mode": "Active"}
    assert configuration["LoggingConfig"] == {
        "LogFormat": "JSON",
        "ApplicationLogLevel": "WARN",
        "SystemLogLevel": "INFO",
        "LogGroup": "/aws/lambda/shop",
    }
    assert configuration["VpcConfig"]["SubnetIds"] == ["subnet-0123abcd"]
    variables = configuration["Environment"]["Variables"]
    streaming = {"LAMBDENO_RUNTIME": "runtime1", "LAMBDENO_INVOKE_MODE": "streaming"}
    assert variables == {"TOKEN": "a secret", **streaming}
    assert [layer["Arn"].split(":", 6)[6] for layer in configuration["Layers"]] == [
        "lambdeno-deno-arm64:1",
        "lambdeno-runtime-arm64:1",
    ]
    assert function["tags"] == {"team": "sales", "managed-by": "lambdeno"}
    assert function["concurrency"] == {"ReservedConcurrentExecutions": 3}
    assert [(row["Name"], row["FunctionVersion"]) for row in function["aliases"]] == [("live", "1")]
    assert function["urls"] == [
        {
            "AuthType": "NONE",
            "InvokeMode": "RESPONSE_STREAM",
            "Cors": {"AllowOrigins": ["https://example.com"], "AllowMethods": ["GET"], "MaxAge": 60},
            "FunctionArn": f"arn:aws:lambda:{REGION}:123456789012:function:shop:live",
        }
    ]
    assert function["policy"]["live"] == ["lambdeno-url", "lambdeno-url-invoke"]
    [invoke] = function["invokes"]["FunctionEventInvokeConfigs"]
    assert invoke["MaximumRetryAttempts"] == 1
    assert invoke["DestinationConfig"]["OnFailure"] == {"Destination": QUEUE}
    assert found["groups"] == [("/aws/lambda/shop", 7)]
    [role] = found["roles"]
    assert role["name"] == "lambdeno-shop-eu-west-1"
    assert [policy["PolicyName"] for policy in role["attached"]] == ["Reading"]
    [document] = role["inline"]
    assert [one["Sid"] for one in document["Statement"]] == ["Logs", "Traces", "Network", "OnFailure", "Buy"]
    assert document["Statement"][0]["Resource"] == f"arn:aws:logs:{REGION}:*:log-group:/aws/lambda/shop:*"
    assert deployed(empty, shop) == []
    calls = empty.calls()
    assert len(calls) <= 12
    assert snapshot(empty) == found


def test_everything_that_a_project_says_no_longer_is_taken_away(
    empty: Account, configured: Configured
) -> None:
    """From all keys to none and back: the same as if it had been deployed so at first."""
    deployed(empty, configured(SMALL))
    small = snapshot(empty)
    deployed(empty, configured(FULL))
    full = snapshot(empty)
    assert full != small
    steps = deployed(empty, configured(SMALL))
    for step in ("update role", "delete URL", "delete alias", "delete event invoke", "update tags"):
        assert step in steps
    again = snapshot(empty)
    # what is published stays: layers, and versions of the function
    assert deployed(empty, configured(SMALL)) == []
    for key in ("configuration", "tags", "concurrency", "aliases", "urls", "invokes", "policy"):
        assert again["function"][key] == small["function"][key], key
    assert again["roles"] == small["roles"]
    assert again["groups"] == small["groups"]


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ("memory = 256", ["update configuration"]),
        ("storage = 2048", ["update configuration"]),
        ("tracing = true", ["update role", "update configuration"]),
        ('log_format = "json"', ["update configuration"]),
        ("log_retention = 1", ["update log group"]),
        ("log_retention = 0", ["update log group"]),
        ("reserved_concurrency = 0", ["update concurrency"]),
        ('runtime = "runtime2"', ["update configuration"]),
        ('handler = "function.other"', ["update configuration"]),
        ('alias = "live"', ["publish version"]),
        ("[tags]\na = 'b'", ["update tags"]),
        ("[url]", ["create URL"]),
        ("[event_invoke]\nretries = 0", ["update event invoke"]),
        ("[environment]\nA1 = 'b'", ["update configuration"]),
        ("[role]\npolicies = ['arn:aws:iam::123456789012:policy/Reading']", ["update role"]),
        ('architecture = "arm64"', ["publish layer", "publish layer", "update code", "update configuration"]),
    ],
)
def test_one_key_changes_what_it_is_about(
    empty: Account, configured: Configured, key: str, steps: list[str]
) -> None:
    """And after it, and after it is taken back, nothing is left to do."""
    deployed(empty, configured(SMALL))
    before = snapshot(empty)
    shop = configured(f"{SMALL}{key}\n")
    assert deployed(empty, shop) == steps
    assert deployed(empty, shop) == []
    assert snapshot(empty) != before
    deployed(empty, configured(SMALL))
    after = snapshot(empty)
    assert deployed(empty, configured(SMALL)) == []
    assert after["function"]["configuration"] == before["function"]["configuration"]


@pytest.mark.parametrize("toml", [SMALL, FULL], ids=["small", "full"])
def test_a_deployment_that_stops_after_any_call_is_completed_by_the_next(
    empty: Account, configured: Configured, toml: str
) -> None:
    """Whichever call was the last, the same is there after another deployment, and nothing twice."""
    shop = configured(toml)
    deployed(empty, shop)
    whole = snapshot(empty)
    for number in range(1, 100):
        emptied(empty)
        try:
            deploy_artefacts(shop, built(shop.root), interrupted_after(empty, number))
        except Interrupt:
            deployed(empty, shop)
            assert snapshot(empty) == whole, number
        else:
            assert number > 15
            return
    raise AssertionError("it never ends")


def test_a_change_that_stops_after_any_call_is_completed_by_the_next(
    empty: Account, configured: Configured
) -> None:
    """The same from one deployed state to another, and back to nothing."""
    changed = FULL.replace("1024", "2048").replace('auth = "none"', 'auth = "iam"').replace("live", "now")
    deployed(empty, configured(FULL))
    shop = configured(changed)
    deployed(empty, shop, function=b"new", deno_layer=b"new")
    whole = snapshot(empty)
    for number in range(1, 100):
        emptied(empty)
        deployed(empty, configured(FULL))
        shop = configured(changed)
        artefacts = built(shop.root, function=b"new", deno_layer=b"new")
        try:
            deploy_artefacts(shop, artefacts, interrupted_after(empty, number))
        except Interrupt:
            deployed(empty, shop, function=b"new", deno_layer=b"new")
            assert snapshot(empty) == whole, number
        else:
            assert number > 15
            return
    raise AssertionError("it never ends")


def test_a_version_that_was_not_published_is_published_by_the_next(
    empty: Account, configured: Configured
) -> None:
    """An alias that names an older function than what is there follows, although nothing else changes."""
    shop = configured(f'{SMALL}alias = "live"\n')
    deployed(empty, shop)
    client = empty.client("lambda")
    client.update_function_code(
        FunctionName="shop", ZipFile=built(shop.root, function=b"new")["function"].path.read_bytes()
    )
    assert deployed(empty, shop, function=b"new") == ["publish version"]
    assert client.get_alias(FunctionName="shop", Name="live")["FunctionVersion"] == "2"
    assert deployed(empty, shop, function=b"new") == []


def test_a_removal_that_stops_after_any_call_is_completed_by_the_next(
    empty: Account, configured: Configured
) -> None:
    """In the end nothing is left, whenever it was interrupted."""
    shop = configured(FULL)
    for number in range(1, 100):
        emptied(empty)
        deployed(empty, shop)
        aws = interrupted_after(empty, number)
        try:
            destroy(plan_of_removal(shop, aws, with_layers=True), aws)
        except Interrupt:
            destroy(plan_of_removal(shop, empty.aws(), with_layers=True), empty.aws())
        else:
            assert number > 14
            return
        found = snapshot(empty)
        assert found == {"layers": [], "roles": [], "groups": [], "functions": []}, number
    raise AssertionError("it never ends")


def test_a_deployment_waits_until_lambda_is_ready(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function is pending at first, and busy after each change: the next change waits, none is lost."""
    with account(tmp_path, settles=0.6) as slow:
        monkeypatch.setenv("AWS_ENDPOINT_URL", slow.endpoint)
        shop = configured(SMALL)
        deployed(slow, shop)
        assert slow.calls().count("lambda:GetFunction") > 2
        shop = configured(f'{SMALL}memory = 256\nalias = "live"\n')
        assert deployed(slow, shop, function=b"new") == [
            "update code",
            "update configuration",
            "publish version",
        ]
        assert "lambda:UpdateFunctionConfiguration" in slow.calls()
        assert deployed(slow, shop, function=b"new") == []
        slow.client("lambda").update_function_configuration(
            FunctionName="shop", Description="of somebody else"
        )
        slow.calls()
        assert deployed(slow, shop, function=b"new") == ["update configuration", "publish version"]
        calls = slow.calls()
        change = calls.index("lambda:UpdateFunctionConfiguration")
        assert calls[:change].count("lambda:GetFunction") > 1  # until what was under way had ended
        assert calls.count("lambda:UpdateFunctionConfiguration") == 1


def test_an_update_that_meets_another_in_progress_is_tried_again(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResourceConflict while an update is under way is no failure, and no reason to hurry."""
    with account(tmp_path, settles=0.3) as slow:
        monkeypatch.setenv("AWS_ENDPOINT_URL", slow.endpoint)
        deployed(slow, configured(SMALL))
        client = slow.client("lambda")
        client.get_waiter("function_updated_v2").wait(FunctionName="shop", WaiterConfig={"Delay": 1})
        slept: list[float] = []

        def sleep(pause: float) -> None:
            slept.append(pause)
            time.sleep(0.2)

        aws = slow.aws(sleep=sleep)
        client.update_function_configuration(FunctionName="shop", Description="busy")
        aws.call(aws.lambda_.update_function_configuration, FunctionName="shop", Description="done")
        assert slept
        assert client.get_function_configuration(FunctionName="shop")["Description"] == "done"


def test_somebody_elses_change_is_not_overwritten(empty: Account, configured: Configured) -> None:
    """A function that has changed since it was looked at is left alone, and the user is told."""
    deployed(empty, configured(SMALL))
    shop = configured(f"{SMALL}memory = 256\n")

    def meanwhile(step: str) -> None:
        if "configuration" in step:
            empty.client("lambda").update_function_configuration(FunctionName="shop", Timeout=99)

    with pytest.raises(DeployError, match="Somebody else has made or changed"):
        deploy_artefacts(shop, built(shop.root), empty.aws(), watcher=Watcher(step=meanwhile))
    found = snapshot(empty)["function"]["configuration"]
    assert (found["Timeout"], found["MemorySize"]) == (99, 512)
    assert deployed(empty, shop) == ["update configuration"]


def test_a_url_opens_and_closes(empty: Account, configured: Configured) -> None:
    """Who may call it goes with its authentication, and a statement that is left of it is mended."""
    for auth, sids in (("none", ["lambdeno-url", "lambdeno-url-invoke"]), ("iam", []), ("none", None)):
        shop = configured(f'{SMALL}[url]\nauth = "{auth}"\n')
        deployed(empty, shop)
        found = snapshot(empty)["function"]
        assert [row["AuthType"] for row in found["urls"]] == [{"none": "NONE", "iam": "AWS_IAM"}[auth]]
        assert sids is None or found["policy"].get("", []) == sids
    client = empty.client("lambda")
    client.remove_permission(FunctionName="shop", StatementId="lambdeno-url-invoke")
    assert deployed(empty, shop) == ["update URL"]
    assert deployed(empty, shop) == []
    assert deploy_artefacts(shop, built(shop.root), empty.aws()).url.startswith("https://")
    closed = configured(SMALL)
    done = deploy_artefacts(closed, built(closed.root), empty.aws())
    assert (names(done.steps), done.url) == (["delete URL"], "")  # what is gone is not told
    assert snapshot(empty)["function"]["policy"].get("", []) == []


def test_what_lambdeno_did_not_make_it_does_not_change(empty: Account, configured: Configured) -> None:
    """A function, a role or a log of somebody else's under our names stays as it is."""
    shop = configured(SMALL)
    iam = empty.client("iam")
    trust = json.dumps({"Statement": [{"Principal": {"Service": "lambda.amazonaws.com"}}]})
    arn = iam.create_role(RoleName="lambdeno-shop-eu-west-1", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    empty.calls()
    with pytest.raises(DeployError, match='a role "lambdeno-shop-eu-west-1" that lambdeno did not make'):
        deployed(empty, shop)
    assert empty.changes() == {}
    zipped = built(shop.root)["function"].path.read_bytes()
    client = empty.client("lambda")
    client.create_function(
        FunctionName="shop", Role=arn, Runtime="provided.al2023", Handler="x.y", Code={"ZipFile": zipped}
    )
    with_role = configured(f'{SMALL}[role]\nname = "lambdeno-shop-eu-west-1"\n')
    empty.calls()
    with pytest.raises(DeployError, match='a function "shop" that lambdeno did not make'):
        deployed(empty, with_role)
    with pytest.raises(DeployError, match="that lambdeno did not make"):
        plan_of_removal(shop, empty.aws())
    assert empty.changes() == {}
    found = client.get_function(FunctionName="shop")["Configuration"]
    client.tag_resource(Resource=found["FunctionArn"], Tags={"managed-by": "lambdeno"})
    assert "update configuration" in deployed(empty, with_role)
    assert [step.noun for step in plan_of_removal(shop, empty.aws())] == ["function", "log group"]


def test_a_role_of_ones_own_takes_the_place_of_ours(empty: Account, configured: Configured) -> None:
    """The function moves to it, and the one that was made for it goes."""
    deployed(empty, configured(SMALL))
    trust = json.dumps({"Statement": [{"Principal": {"Service": "lambda.amazonaws.com"}}]})
    empty.client("iam").create_role(RoleName="own", Path="/teams/", AssumeRolePolicyDocument=trust)
    shop = configured(f'{SMALL}[role]\nname = "own"\n')
    assert deployed(empty, shop) == ["update configuration", "delete role"]
    assert [role["name"] for role in snapshot(empty)["roles"]] == ["own"]
    by_arn = configured(f'{SMALL}[role]\nname = "arn:aws:iam::123456789012:role/teams/own"\n')
    assert deployed(empty, by_arn) == []


def test_a_role_s_change_that_stops_after_any_call_is_completed_by_the_next(
    empty: Account, configured: Configured
) -> None:
    """Ours goes, whenever the move to another was interrupted; one that is not ours never does."""
    trust = json.dumps({"Statement": [{"Principal": {"Service": "lambda.amazonaws.com"}}]})
    for number in range(1, 100):
        emptied(empty)
        deployed(empty, configured(SMALL))
        empty.client("iam").create_role(RoleName="own", AssumeRolePolicyDocument=trust)
        shop = configured(f'{SMALL}[role]\nname = "own"\n')
        try:
            deploy_artefacts(shop, built(shop.root), interrupted_after(empty, number))
        except Interrupt:
            deployed(empty, shop)
            assert [role["name"] for role in snapshot(empty)["roles"]] == ["own"], number
        else:
            break
    assert number > 14
    foreign = configured(f'{SMALL}[role]\nname = "lambdeno-shop-eu-west-1"\n')
    empty.client("iam").create_role(RoleName="lambdeno-shop-eu-west-1", AssumeRolePolicyDocument=trust)
    assert deployed(empty, foreign) == ["update configuration"]
    assert deployed(empty, shop) == ["update configuration"]
    assert len(snapshot(empty)["roles"]) == 2


def test_a_zip_that_changes_meanwhile_is_not_deployed(empty: Account, configured: Configured) -> None:
    """What is sent is what was looked at: a layer is known again by that digest."""
    shop = configured(SMALL)
    artefacts = built(shop.root)
    artefacts["deno-layer"].path.write_bytes(b"another")
    with pytest.raises(DeployError, match="has changed since the deployment began"):
        deploy_artefacts(shop, artefacts, empty.aws())
    assert empty.client("lambda").list_layers()["Layers"] == []


def test_code_that_somebody_else_has_sent_is_not_published(empty: Account, configured: Configured) -> None:
    """A version is of the code that this deployment knows."""
    shop = configured(f'{SMALL}alias = "live"\n')
    deployed(empty, shop)
    client = empty.client("lambda")
    other = built(shop.root, function=b"of somebody else")["function"].path.read_bytes()

    class Meanwhile(Aws):
        """Somebody else sends code as soon as ours is through."""

        def wait(self, waiter: str, function: str) -> None:
            client.update_function_code(FunctionName=function, ZipFile=other)
            super().wait(waiter, function)

    with pytest.raises(DeployError, match="Somebody else has made or changed"):
        deploy_artefacts(shop, built(shop.root, function=b"new"), Meanwhile(session=empty.session()))
    assert client.get_alias(FunctionName="shop", Name="live")["FunctionVersion"] == "1"


def test_a_part_that_changes_nothing_publishes_nothing(empty: Account, configured: Configured) -> None:
    """A version belongs to the code and configuration that the part deploys."""
    shop = configured(f'{SMALL}alias = "live"\n')
    deployed(empty, shop)
    done = deploy_artefacts(shop, built(shop.root, function=b"new"), empty.aws(), "configuration")
    assert names(done.steps) == []


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            'layers = ["arn:aws:lambda:us-east-1:123456789012:layer:extra:1"]',
            'The layer "extra:1" is in us-east-1',
        ),
        ('[role]\nname = "arn:aws:iam::999999999999:role/own"', "There is no role"),
    ],
)
def test_what_is_of_another_region_or_account_is_refused(
    empty: Account, configured: Configured, toml: str, words: str
) -> None:
    """Before anything is changed."""
    trust = json.dumps({"Statement": [{"Principal": {"Service": "lambda.amazonaws.com"}}]})
    empty.client("iam").create_role(RoleName="own", AssumeRolePolicyDocument=trust)
    empty.calls()
    with pytest.raises(DeployError, match=words):
        deployed(empty, configured(f"{SMALL}{toml}\n"))
    assert empty.changes() == {}


def test_a_large_artefact_goes_through_a_bucket(
    empty: Account, configured: Configured, tmp_path: Path
) -> None:
    """Over 50 MB: a private bucket is made, S3 compares the checksum, and nothing is sent twice."""
    noise = (tmp_path / "noise").open("wb")
    with noise, Path("/dev/urandom").open("rb") as source:
        noise.write(source.read(52 * 1024 * 1024))
    large = (tmp_path / "noise").read_bytes()
    shop = configured(SMALL)
    assert deployed(empty, shop, deno_layer=large)[2:4] == ["create bucket", "publish layer"]
    s3 = empty.client("s3")
    [bucket] = [row["Name"] for row in s3.list_buckets()["Buckets"]]
    assert not re.search(r"\d{12}", bucket)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["Expiration"] == {"Days": 30}
    [stored] = s3.list_objects_v2(Bucket=bucket)["Contents"]
    told = s3.head_object(Bucket=bucket, Key=stored["Key"], ChecksumMode="ENABLED")
    assert told["ChecksumSHA256"] == built(shop.root, deno_layer=large)["deno-layer"].code_sha256
    empty.calls()
    assert deployed(empty, shop, deno_layer=large) == []
    assert not any(call.startswith("s3:") for call in empty.calls())
    empty.client("lambda").delete_layer_version(LayerName="lambdeno-deno-x86_64", VersionNumber=1)
    s3.delete_bucket_lifecycle(Bucket=bucket)  # as if it had been interrupted before
    empty.calls()
    assert deployed(empty, shop, deno_layer=large) == [
        "update bucket",
        "publish layer",
        "update configuration",
    ]
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert not any(call.startswith(f"s3:PUT /{bucket}/lambdeno/") for call in empty.calls())
    own = configured(f'{SMALL}bucket = "releases"\n')
    with pytest.raises(DeployError, match='There is no bucket "releases"'):
        deployed(empty, own, function=large)
    s3.create_bucket(Bucket="releases", CreateBucketConfiguration={"LocationConstraint": REGION})
    assert deployed(empty, own, deno_layer=large, function=large) == ["update code"]
    assert len(s3.list_objects_v2(Bucket="releases")["Contents"]) == 1
    destroy(plan_of_removal(own, empty.aws(), with_layers=True), empty.aws())
    assert [row["Name"] for row in s3.list_buckets()["Buckets"]] == ["releases"]


@pytest.mark.parametrize(
    ("toml", "error", "words"),
    [
        ('name = "x"\n[role]\nname = "nobody"', DeployError, 'There is no role "nobody"'),
        ('name = "x"\n[role]\npolicy = "none.json"', LambdenoError, 'Cannot read ".*none.json"'),
        (
            'name = "x"\n[event_invoke]\non_failure = "arn:aws:iam::aws:policy/X"',
            LambdenoError,
            "no destination",
        ),
    ],
)
def test_what_can_be_known_to_be_wrong_is_told_before_anything_changes(
    empty: Account, configured: Configured, toml: str, error: type[LambdenoError], words: str
) -> None:
    """No call that changes anything is made for a project that cannot be deployed."""
    with pytest.raises(error, match=words) as caught:
        deployed(empty, configured(toml))
    assert caught.value.hint
    assert empty.changes() == {}


def test_a_role_that_lambda_may_not_take_is_refused(empty: Account, configured: Configured) -> None:
    """Its trust policy is read before anything changes."""
    trust = json.dumps({"Statement": [{"Principal": {"Service": "ec2.amazonaws.com"}}]})
    empty.client("iam").create_role(RoleName="other", AssumeRolePolicyDocument=trust)
    empty.calls()
    with pytest.raises(DeployError, match='Lambda may not take the role "other"'):
        deployed(empty, configured('name = "x"\n[role]\nname = "other"'))
    assert empty.changes() == {}


def reader(made: Account, *, may_ask: bool) -> Aws:
    """Credentials that may read everything, and perhaps ask IAM what they may."""
    iam = made.client("iam")
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    reading = ["iam:Get*", "iam:List*", "logs:Describe*", "sts:*"]
    reading += ["lambda:Get*", "lambda:List*"]
    reading += ["iam:SimulatePrincipalPolicy"] if may_ask else []
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": reading, "Resource": "*"}],
    }
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(document))
    made.enforce()
    made.calls()
    return Aws(session=session_of(key["AccessKeyId"], key["SecretAccessKey"]))


def test_credentials_that_may_only_read_are_found_out_before_anything_changes(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IAM is asked first, and the user learns every right that is missing, on what."""
    shop = configured(SMALL)
    with account(tmp_path) as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.endpoint)
        aws = reader(strict, may_ask=True)
        with pytest.raises(DeployError, match="These credentials may not do what is needed") as caught:
            deploy_artefacts(shop, built(shop.root), aws)
        assert strict.changes() == {}
        message = caught.value.message
        for right in (
            "iam:CreateRole on role/lambdeno-shop-eu-west-1",
            "logs:CreateLogGroup on log-group:/aws/lambda/shop",
            "lambda:PublishLayerVersion on layer:lambdeno-deno-x86_64",
            "lambda:CreateFunction on function:shop",
        ):
            assert right in message
        assert not re.search(r"\d{12}", message)


def test_credentials_that_may_not_even_ask_stop_at_the_first_change(
    tmp_path: Path, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS refuses it, and the user learns which action on what."""
    shop = configured(SMALL)
    with account(tmp_path) as strict:
        monkeypatch.setenv("AWS_ENDPOINT_URL", strict.endpoint)
        aws = reader(strict, may_ask=False)
        with pytest.raises(AwsError, match="Access denied: iam:CreateRole on ") as caught:
            deploy_artefacts(shop, built(shop.root), aws)
        assert not re.search(r"\d{12}", caught.value.message + caught.value.hint)
        assert only(strict.changes(), "iam:CreateRole")  # the one that was refused


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A project from elsewhere cannot choose which file is opened, or made."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/.deploy.lock").symlink_to(tmp_path / "outside")
    with pytest.raises(DeployError, match="it is a link"), locked(project.Project(root=tmp_path)):
        pass
    assert not (tmp_path / "outside").exists()
