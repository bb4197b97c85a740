"""The templates: what ``deploy`` makes, in the words of SAM and of CloudFormation; no secret, no account.

AWS's own judges read them: cfn-lint, ``sam validate --lint``, SAM's translator, and moto as an account.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lambdeno import project as projects
from lambdeno.build import lambda_runtime
from lambdeno.deployment import Actual, Artefact, Step, plan, policies, steps, wanted
from lambdeno.deployment.desired import MARK_KEY
from lambdeno.project import Project
from lambdeno.template import FORMATS, Format, Template, document, parameters
from tests.account import Account, account
from tests.e2e.conftest import LAMBDENO, run
from tests.test_reference import rows, section

ROOT = Path(__file__).parent.parent
SAM = ROOT / ".cache/sam"
SAM_LOCK = ROOT / "tests/sam-requirements.lock"
REGION, ACCOUNT = "eu-west-1", "210987654321"

EVERYTHING = """
name = "everything"
description = "Ähnlich wie: alles"
entry = "src/other.ts"
handler = "function.other"
runtime = "runtime2"
architecture = "arm64"
memory = 1024
timeout = 60
storage = 2048
signal_margin = 700
log_format = "json"
log_level = "warn"
log_retention = 7
tracing = true
alias = "live-1_b"
reserved_concurrency = 3
layers = ["arn:aws:lambda:eu-west-1:345678901234:layer:ffmpeg:3"]
bucket = "my-bucket"

[environment]
GREETING = "a value of nobody's business"
DATABASE_URL = "postgres://user:pass@db"
database_url = "of the other database"
Mixed9 = "with 'quotes' and: colons"

[tags]
team = "tests: one"
"cost centre" = "12/3"

[deno]
permissions = ["--allow-net=api.example.com:443", "--allow-env=API_KEY"]

[build]
check = false

[runtime2]
standby = "on"
private_tmp = true

[role]
policies = ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"]
policy = "policy.json"

[url]
auth = "none"
invoke_mode = "streaming"

[url.cors]
origins = ["https://example.com"]
methods = ["GET", "POST"]
headers = ["content-type"]
expose = ["x-request-id"]
max_age = 600
credentials = true

[vpc]
subnets = ["subnet-0123456789abcdef1", "subnet-0123456789abcdef0"]
security_groups = ["sg-0123456789abcdef0"]

[event_invoke]
max_event_age = 3600
retries = 0
on_success = "arn:aws:sqs:eu-west-1:345678901234:results"
on_failure = "arn:aws:s3:::dead-letters"
"""
CASES = {
    "minimal": "",
    "everything": EVERYTHING,
    "managed": 'shape = "managed"\n[url]\n[url.cors]\norigins = ["*"]\n[environment]\nNAME = "of none"\n',
    "no alias": EVERYTHING.replace('alias = "live-1_b"\n', "").replace(
        '"json"\nlog_level = "warn"', '"text"'
    ),
    "other destinations": """
    log_retention = 0
    alias = "live"
    [event_invoke]
    on_success = "arn:aws:events:eu-west-1:345678901234:event-bus/default"
    on_failure = "arn:aws:lambda:eu-west-1:345678901234:function:mourner"
    """,
    "role by name": 'reserved_concurrency = 0\n[role]\nname = "their.role"\n[url]\nauth = "none"\n',
    "role by arn": '[role]\nname = "arn:aws:iam::345678901234:role/path/theirs"\n[url]\n',
}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::bucket/${aws:PrincipalTag/team}/*",
        },
        {"Sid": "Table", "Effect": "Allow", "Action": ["dynamodb:GetItem"], "Resource": "*"},
    ],
}


@dataclass(frozen=True)
class Case:
    """A project, and artefacts as a build would have left them."""

    project: Project
    artefacts: Mapping[str, Artefact]

    def document(self, form: Format) -> dict[str, Any]:
        """The template in a form, beside the project."""
        return document(self.project, self.artefacts, form, self.project.root)

    def text(self, form: Format) -> str:
        """The same as it is written."""
        return str(Template(self.document(form), {}))

    def steps(self) -> list[Step]:
        """What ``deploy`` would do in an empty account."""
        runtime = lambda_runtime(self.project)
        return plan(wanted(self.project, self.artefacts, runtime=runtime, region=REGION), Actual(bucket="b"))


def case(folder: Path, toml: str, code: bytes = b"code") -> Case:
    """A project with tiny zips."""
    (folder / "dist").mkdir(parents=True, exist_ok=True)
    (folder / "lambdeno.toml").write_text(toml, "utf-8")
    (folder / "policy.json").write_text(json.dumps(POLICY))
    project = projects.load(folder)
    facts: dict[str, dict[str, Any]] = {
        "deno-layer": {"version": "2.9.8"},
        "runtime-layer": {"version": "0.1.0", "shape": project.shape, "deno": "2.9.8"},
        "function": {},
    }
    artefacts = {}
    for kind, fact in facts.items():
        path = folder / "dist" / f"{kind}.zip"
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr(zipfile.ZipInfo("file"), code if kind == "function" else kind)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        artefacts[kind] = Artefact(path, f"sha256:{sha256[::-1]}", sha256, path.stat().st_size, fact)
    return Case(project, artefacts)


@pytest.fixture(params=CASES)
def any_case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """Each of the projects."""
    return case(tmp_path / "some", CASES[request.param])


@pytest.fixture
def everything(tmp_path: Path) -> Case:
    """The project that uses every key."""
    return case(tmp_path / "everything", EVERYTHING)


@pytest.fixture(scope="session")
def sam() -> Path:
    """The folder of an environment's programs, with SAM's command line in it."""
    SAM.mkdir(parents=True, exist_ok=True)
    wanted = f"{sys.version} {hashlib.sha256(SAM_LOCK.read_bytes()).hexdigest()}"
    python, made = SAM / "venv/bin/python", SAM / "made-from"
    with (SAM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.read_text() != wanted:
            made.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", SAM / "venv"], check=True)
            # no dependencies: all are in the lock, and pip 23 takes one with extras for another
            install = ("-m", "pip", "install", "-q", "--no-compile", "--no-deps", "--require-hashes")
            done = subprocess.run(
                [python, *install, "-r", SAM_LOCK], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"the package index does not give SAM: {done.stderr.strip()[-300:]}")
            made.write_text(wanted)
    return python.parent


# --- AWS's judges ----------------------------------------------------------------------------------


def test_the_cases_use_every_key() -> None:
    """A key of lambdeno.toml that could be in a template is in one of these."""
    used = {name for toml in CASES.values() for name in names(tomllib.loads(toml))}
    known = set(rows(section("lambdeno.toml")))
    of_the_build = {name for name in known if name.startswith("build.")} | {"deno.version", "deno.sha256"}
    assert known - of_the_build - used == set()


def names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of what a table has."""
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key not in ("environment", "tags"):
            yield from names(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("form", FORMATS)
def test_cfn_lint_finds_nothing(tmp_path: Path, form: Format) -> None:
    """No error, no warning, no remark, in any of the projects' templates."""
    paths = []
    for name, toml in CASES.items():
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(case(tmp_path / name, toml).text(form), "utf-8")
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [cfn_lint, "--include-checks", "I", "--regions", REGION, "--", *paths]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", ["minimal", "everything", "managed"])
def test_sam_finds_nothing(sam: Path, tmp_path: Path, name: str) -> None:
    """``sam validate --lint`` takes the template."""
    some = case(tmp_path / "some", CASES[name])
    path = tmp_path / "template.yaml"
    path.write_text(some.text("sam"), "utf-8")
    done = subprocess.run(
        [sam / "sam", "validate", "--lint", "--region", REGION, "--template", path],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "is a valid SAM Template" in done.stdout


# Artefact -> its resource, and where SAM and CloudFormation say where it is.
PLACES = {
    "deno-layer": ("DenoLayer", "ContentUri", "Content"),
    "runtime-layer": ("RuntimeLayer", "ContentUri", "Content"),
    "function": ("Function", "CodeUri", "Code"),
}
# Run by SAM's Python: a template on stdin -> what CloudFormation gets of it, on stdout.
TRANSLATE = """
import json, sys
from samtranslator.translator.transform import transform

class NoPolicies:
    load = dict

json.dump(transform(json.load(sys.stdin), {}, NoPolicies()), sys.stdout)
"""


@pytest.mark.parametrize("name", ["everything", "managed", "no alias"])
def test_both_formats_make_the_same(sam: Path, tmp_path: Path, name: str) -> None:
    """SAM's translator turns one into the other, but for its own tag and its names of layers."""
    some = case(tmp_path, CASES[name])
    plain, before = some.document("cloudformation"), some.document("sam")
    for kind, place in PLACES.items():
        before["Resources"][place[0]]["Properties"][place[1]] = (
            f"s3://zips/lambdeno/{some.artefacts[kind].sha256}.zip"  # where sam deploy has put it
        )
        plain["Resources"][place[0]]["Properties"][place[2]]["S3Bucket"] = "zips"
        plain["Resources"][place[0]].pop("UpdateReplacePolicy", None)  # SAM replaces no layer: it adds one
    translated = subprocess.run(
        [str(sam / "python"), "-c", TRANSLATE],
        input=json.dumps(before),
        env={"AWS_DEFAULT_REGION": REGION},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    after = json.loads(re.sub(r'"((?:Deno|Runtime)Layer)[0-9a-f]{10}"', r'"\1"', translated))
    plain["Resources"]["Function"]["Properties"].setdefault("Tags", []).append(
        {"Key": "lambda:createdBy", "Value": "SAM"}
    )
    for resources in (plain["Resources"], after["Resources"]):
        resources["Function"]["Properties"]["Tags"].sort(key=str)
    assert after["Resources"] == plain["Resources"]
    assert after["Outputs"] == plain["Outputs"]


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account."""
    with account(tmp_path_factory.mktemp("account")) as running:
        yield running


def test_who_uploads_the_zips_by_their_sha256_can_make_the_stack(tmp_path: Path, aws: Account) -> None:
    """The bucket and the values are all that CloudFormation has to be told."""
    stack, store = aws.client("cloudformation"), aws.client("s3")
    store.create_bucket(Bucket="zips", CreateBucketConfiguration={"LocationConstraint": REGION})
    some = case(tmp_path, 'name = "made"\nmemory = 640\n[environment]\nGREETING = "Hello"\n')
    for zipped in (tmp_path / "dist").glob("*.zip"):
        content = zipped.read_bytes()
        key = f"lambdeno/{hashlib.sha256(content).hexdigest()}.zip"
        store.put_object(Bucket="zips", Key=key, Body=content)
    values = {"ArtefactBucket": "zips", "EnvironmentGreeting": "Hi"}
    stack.create_stack(
        StackName="stack",
        TemplateBody=some.text("cloudformation"),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
    )
    made = aws.client("lambda").get_function_configuration(FunctionName="made")
    assert made["CodeSha256"] == some.artefacts["function"].code_sha256
    assert made["Environment"]["Variables"] == {"GREETING": "Hi", "LAMBDENO_RUNTIME": "runtime1"}
    assert (made["MemorySize"], made["LoggingConfig"]["LogGroup"]) == (640, "/aws/lambda/made")
    [found] = stack.describe_stacks(StackName="stack")["Stacks"]
    assert [row["OutputValue"] for row in found["Outputs"]] == [made["FunctionArn"]]


def test_sam_uploads_the_very_zips(sam: Path, tmp_path: Path, aws: Account) -> None:
    """``sam package`` finds them from the template's folder, and sends their bytes as they are."""
    some = case(tmp_path / "project", "")
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/t.yaml").write_text(
        str(Template(document(some.project, some.artefacts, "sam", tmp_path / "infra"), {}))
    )
    store = aws.client("s3")
    store.create_bucket(Bucket="sams", CreateBucketConfiguration={"LocationConstraint": REGION})
    subprocess.run(
        [sam / "sam", "package", "--region", REGION, "--template", "infra/t.yaml", "--s3-bucket", "sams"],
        env={**aws.environment, "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    keys = [row["Key"] for row in store.list_objects_v2(Bucket="sams")["Contents"]]
    sent = {store.get_object(Bucket="sams", Key=key)["Body"].read() for key in keys}
    assert sent == {artefact.path.read_bytes() for artefact in some.artefacts.values()}


# --- the same as deploy ----------------------------------------------------------------------------


def resolved(value: Any, known: Mapping[str, str]) -> Any:
    """A part of a template with its references in place, as CloudFormation puts them."""
    if isinstance(value, list):
        return [resolved(one, known) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Ref"}:
        return known[value["Ref"]]
    if set(value) == {"Fn::GetAtt"}:
        return known[".".join(value["Fn::GetAtt"])]
    if set(value) == {"Fn::Sub"}:
        return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], value["Fn::Sub"])
    return {key: resolved(one, known) for key, one in value.items()}


def by_deploy(some: Case) -> dict[str, Any]:
    """What ``deploy`` would make in an empty account, thing by thing."""
    made: dict[str, Any] = {"layers": []}
    for step in some.steps():
        match step:
            case steps.CreateRole():
                made["role"] = (step.trust, step.permissions, list(step.managed))
            case steps.CreateLogGroup():
                made["log group"] = (step.name, step.days)
            case steps.PublishLayer(layer=layer):
                runtimes = [layer.runtime] if layer.runtime else None
                made["layers"].append((layer.name, layer.description, [layer.architecture], runtimes))
            case steps.CreateFunction():
                made["function"] = {
                    "FunctionName": step.name,
                    "Architectures": [step.architecture],
                    "Layers": [*map(str, step.layers)],
                    **{key: value for key, value in step.configuration.items() if value != ""},
                }
                made["tags"] = {key: value for key, value in step.tags.items() if key != MARK_KEY}
            case steps.SetConcurrency():
                made["concurrency"] = step.reserved
            case steps.PublishVersion():
                made["alias"] = step.alias
            case steps.CreateUrl():
                made["url"] = (step.qualifier, step.configuration)
                made["callers"] = list(step.statements.values())
            case steps.PutEventInvoke():
                configuration = {key: value for key, value in step.configuration.items() if value != {}}
                made["event invoke"] = (step.qualifier, configuration)
            case _:
                raise AssertionError(step)
    return made


def by_template(resources: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """The same of a template's resources, their references in place."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in resources.values():
        rows.setdefault(row["Type"].rpartition("::")[2], []).append(dict(row["Properties"]))
    about = ("LayerName", "Description", "CompatibleArchitectures", "CompatibleRuntimes")
    [function], [group] = rows.pop("Function"), rows.pop("LogGroup")
    made: dict[str, Any] = {
        "layers": [tuple(row.get(key) for key in about) for row in rows.pop("LayerVersion")],
        "log group": (group["LogGroupName"], group.get("RetentionInDays", 0)),
        "tags": function.pop("Tags", {}),
    }
    if isinstance(made["tags"], list):  # CloudFormation's
        made["tags"] = {tag["Key"]: tag["Value"] for tag in made["tags"]}
    if "Tracing" in function:  # SAM's
        function["TracingConfig"] = {"Mode": function.pop("Tracing")}
    if "ReservedConcurrentExecutions" in function:
        made["concurrency"] = function.pop("ReservedConcurrentExecutions")
    made["function"] = without(function, "Role", "Code", "CodeUri")
    for row in rows.pop("Role", []):
        [policy] = row["Policies"]
        managed = row.get("ManagedPolicyArns", [])
        made["role"] = (row["AssumeRolePolicyDocument"], policy["PolicyDocument"], managed)
    for row, version in zip(rows.pop("Alias", []), rows.pop("Version", []), strict=True):
        assert (version, row["FunctionVersion"]) == ({"FunctionName": "the function"}, "the new version")
        made["alias"] = row["Name"]
    callers = rows.pop("Permission", [])
    for row in rows.pop("Url", []):
        made["url"] = (row.get("Qualifier", "$LATEST"), without(row, "Qualifier", "TargetFunctionArn"))
        assert {caller["FunctionName"] for caller in callers} <= {alias or "the function"}
        made["callers"] = [without(caller, "FunctionName") for caller in callers]
    for row in rows.pop("EventInvokeConfig", []):
        made["event invoke"] = (row["Qualifier"], without(row, "Qualifier", "FunctionName"))
    assert rows == {}
    return made


def without(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A copy that has not got these."""
    return {key: value for key, value in row.items() if key not in keys}


@pytest.mark.parametrize("form", FORMATS)
def test_a_template_makes_what_deploy_makes(any_case: Case, form: Format) -> None:
    """Thing by thing, the values are those of ``deploy`` in an empty account; the mark alone is not there."""
    project = any_case.project
    known = {
        "AWS::Region": REGION,
        "AWS::Partition": "aws",
        "AWS::AccountId": ACCOUNT,
        "ArtefactBucket": "b",
        "LogGroup": f"/aws/lambda/{project.name}",
        "Function": "the function",
        "Alias": project.alias,
        "DenoLayer": "the new deno layer",
        "RuntimeLayer": "the new runtime layer",
        "Role.Arn": "the new role",
    }
    known |= {name: project.environment[key] for key, name in parameters(project.environment).items()}
    resources = any_case.document(form)["Resources"]
    known |= {f"{name}.Version": "the new version" for name in resources if name.startswith("Version")}
    assert by_template(resolved(resources, known), project.alias) == by_deploy(any_case)


@pytest.mark.parametrize("form", FORMATS)
def test_the_role_has_the_least_rights(everything: Case, form: Format) -> None:
    """Its statements are those of policies.permissions, with pseudo parameters where an ARN has a place."""
    group = "arn:${AWS::Partition}:logs:${AWS::Region}:*:log-group:/aws/lambda/everything"
    [policy] = everything.document(form)["Resources"]["Role"]["Properties"]["Policies"]
    wanted = policies.permissions(everything.project, group)
    [logs, *others] = wanted["Statement"]
    assert logs["Resource"] == f"{group}:*"
    assert policy["PolicyDocument"]["Statement"] == [{**logs, "Resource": {"Fn::Sub": f"{group}:*"}}, *others]


@pytest.mark.parametrize("form", FORMATS)
def test_a_role_that_is_there_is_named(tmp_path: Path, form: Format) -> None:
    """By its ARN as given, by its name in the account of the stack; none is made."""
    named = "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/their.role"
    for name, role in (
        ("role by name", {"Fn::Sub": named}),
        ("role by arn", "arn:aws:iam::345678901234:role/path/theirs"),
    ):
        resources = case(tmp_path, CASES[name]).document(form)["Resources"]
        assert resources["Function"]["Properties"]["Role"] == role
        assert "Role" not in resources


# --- what a template must not hold -----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_no_value_of_the_environment_is_in_a_template(everything: Case, form: Format) -> None:
    """Each is a parameter without a default that is not shown; the runtime's own settings stand there."""
    text = everything.text(form)
    for value in everything.project.environment.values():
        assert value not in text
        assert yaml.safe_dump(value).strip() not in text
        assert hashlib.sha256(value.encode()).hexdigest() not in text
    template = yaml.safe_load(text)
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    for name in everything.project.environment:
        parameter = template["Parameters"][variables[name]["Ref"]]
        assert (parameter["Type"], parameter["NoEcho"], "Default" in parameter) == ("String", True, False)
    assert variables["LAMBDENO_RUNTIME"] == "runtime2"
    assert variables["LAMBDENO_PERMISSIONS"] == "--allow-net=api.example.com:443 --allow-env=API_KEY"


@pytest.mark.parametrize("form", FORMATS)
def test_a_template_is_of_no_account_and_region(any_case: Case, form: Format) -> None:
    """What looks like an account or a region stands in lambdeno.toml."""
    pattern = r"(?<![0-9a-f])\d{12}(?![0-9a-f])|\b[a-z]{2}-[a-z]+-\d\b"
    toml = (any_case.project.root / "lambdeno.toml").read_text()
    assert set(re.findall(pattern, any_case.text(form))) <= set(re.findall(pattern, toml))


def test_each_variable_has_a_parameter_of_its_own() -> None:
    """Names are letters and digits, 255 at most, and no two the same; one that is alone is readable."""
    variables = ["API_KEY", "V1", "V_1", "v_1", "A_B", "a_b", "x" * 300, "x" * 301, "Mixed9"]
    names = parameters(variables)
    assert names["API_KEY"] == "EnvironmentApiKey"
    assert len(set(names.values())) == len(variables)
    assert all(re.fullmatch("[A-Za-z0-9]{1,255}", name) for name in names.values())
    # the parameter of one never becomes that of another, or it would get its former value
    assert parameters(["A_B"])["A_B"] not in names.values()


# --- how it is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_template_is_the_same_each_time(tmp_path: Path, form: Format) -> None:
    """The same project, in another folder, in another process, gives the same bytes in the same order."""
    texts = {case(tmp_path / folder, EVERYTHING).text(form) for folder in ("one", "two")}
    program = (
        "import sys, pathlib, tests.test_template as t\n"
        f"sys.stdout.write(t.case(pathlib.Path(sys.argv[1]), t.EVERYTHING).text({form!r}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "three")]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=True)
    [text] = texts | {done.stdout.decode()}
    assert not re.search(r"(?m)(: |- )[&*]\w", text)
    assert json.dumps(yaml.safe_load(text)) == json.dumps(case(tmp_path / "one", EVERYTHING).document(form))


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_version_consists_of_names_it(tmp_path: Path, form: Format) -> None:
    """Code, layers or settings changed: a new version; tags, concurrency or the bucket: the same."""

    def version(toml: str, code: bytes = b"code") -> str:
        resources = case(tmp_path, f'alias = "live"\n{toml}', code).document(form)["Resources"]
        [name] = [name for name, row in resources.items() if row["Type"] == "AWS::Lambda::Version"]
        assert resources["Alias"]["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [name, "Version"]}
        assert resources[name]["DeletionPolicy"] == "Retain"
        return str(name)

    same = {version(toml) for toml in ("", "reserved_concurrency = 2", '[tags]\na = "b"', 'bucket = "other"')}
    others = [
        version("", b"other code"),
        version("timeout = 11"),
        version('layers = ["arn:aws:lambda:eu-west-1:345678901234:layer:ffmpeg:3"]'),
        version('[environment]\nGREETING = "Hi"'),
        version('[role]\nname = "theirs"'),
        version('architecture = "arm64"'),
    ]
    assert len(same) == 1
    assert len({*same, *others}) == 1 + len(others)


@pytest.mark.parametrize("form", FORMATS)
def test_layers_outlive_the_stack(everything: Case, form: Format) -> None:
    """A version of a layer that is replaced is kept: a function's former version may need it."""
    resources = everything.document(form)["Resources"]
    for layer in ("DenoLayer", "RuntimeLayer"):
        row = resources[layer]
        kept = (
            row["Properties"].get("RetentionPolicy"),
            row.get("DeletionPolicy"),
            row.get("UpdateReplacePolicy"),
        )
        assert kept == {"sam": ("Retain", None, None), "cloudformation": (None, "Retain", "Retain")}[form]


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that a first call of the command has built."""
    folder = tmp_path_factory.mktemp("built") / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.ts").write_text("export const handler = (event: unknown): unknown => event;\n")
    quick = 'name = "built"\nbucket = "zips"\n[environment]\nSECRET_KEY = "of nobody"\n'
    (folder / "lambdeno.toml").write_text(quick + "[build]\ncheck = false\ncode_cache = false\n")
    done = run("template", folder=folder)
    assert (done.returncode, "Bundle src/main.ts" in done.stderr) == (0, True)
    return folder


def test_the_template_goes_to_stdout(built: Path) -> None:
    """SAM's by default, paths relative to the project; what is up to date is not built again."""
    done = run("template", "--project", "project", folder=built.parent)
    assert (done.returncode, done.stderr) == (0, "")
    template = yaml.safe_load(done.stdout)
    assert template["Transform"] == "AWS::Serverless-2016-10-31"
    assert template["Resources"]["Function"]["Properties"]["CodeUri"] == "dist/function.zip"
    assert done.stdout == run("template", folder=built).stdout


def test_the_paths_are_relative_to_the_file(built: Path) -> None:
    """Wherever the template is written, through a link or not, they lead from there to the zips."""
    (built / "infra/deep").mkdir(parents=True)
    (built.parent / "link").symlink_to(built / "infra/deep", target_is_directory=True)
    for output in ("template.yaml", "infra/deep/t.yaml", "../t.yaml", "../link/linked.yaml"):
        done = run("template", "-o", output, folder=built)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.splitlines()[-1] == f"Wrote {output}; its parameters: EnvironmentSecretKey"
        path = built / output
        assert path.stat().st_mode == (built / "lambdeno.toml").stat().st_mode
        resources = yaml.safe_load(path.read_text("utf-8"))["Resources"]
        rows = [row["Properties"] for row in resources.values()]
        zips = {path.parent / uri for row in rows for key, uri in row.items() if key.endswith("Uri")}
        assert {zipped.resolve() for zipped in zips} == set((built / "dist").glob("*.zip"))
        path.unlink()  # a file that is newer than function.zip would have the next test build


def test_the_template_takes_a_links_place(built: Path, tmp_path: Path) -> None:
    """A project from elsewhere cannot choose which file is written over."""
    (tmp_path / "outside").write_text("mine")
    for name in ("t.yaml", ".t.yaml.new"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
    assert run("template", "-o", tmp_path / "t.yaml", folder=built).returncode == 0
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "t.yaml").is_symlink()


def test_cloudformation_finds_the_zips_by_their_sha256(built: Path) -> None:
    """The keys are those of ``sha256sum``, the bucket is that of lambdeno.toml."""
    template = yaml.safe_load(run("template", "--format", "cloudformation", folder=built).stdout)
    keys = {
        f"lambdeno/{hashlib.sha256(path.read_bytes()).hexdigest()}.zip"
        for path in (built / "dist").glob("*.zip")
    }
    assert set(re.findall(r"lambdeno/\w{64}\.zip", json.dumps(template))) == keys
    assert template["Parameters"]["ArtefactBucket"]["Default"] == "zips"
    assert "Transform" not in template


def test_machines_get_one_document(built: Path, tmp_path: Path) -> None:
    """--json: the template, which parameter has which variable's value, and where it was written."""
    done = run("template", "--json", "--output", tmp_path / "t.yaml", folder=built)
    assert done.stderr == ""
    row = json.loads(done.stdout)
    assert row["template"] == yaml.safe_load((tmp_path / "t.yaml").read_text("utf-8"))
    assert (row["format"], row["output"]) == ("sam", str(tmp_path / "t.yaml"))
    assert row["parameters"] == {"SECRET_KEY": "EnvironmentSecretKey"}


def test_a_template_is_written_whole_or_not_at_all(built: Path, tmp_path: Path) -> None:
    """What cannot be written is an error, and what was there before stays."""
    path = tmp_path / "t.yaml"
    path.write_text("before")

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    command = [LAMBDENO, "template", "--project", str(built), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=small)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f'error: Cannot write "{path}": File too large\nhint: ')
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("t.yaml", "before")]


def test_what_is_no_file_is_not_replaced_by_one(built: Path, tmp_path: Path) -> None:
    """A pipe, as a device, is left alone."""
    os.mkfifo(tmp_path / "pipe")
    done = run("template", "-o", tmp_path / "pipe", folder=built)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f'error: "{tmp_path}/pipe" is no file\nhint: ')
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("gone/t.yaml", 'Cannot write "gone/t.yaml": No such file or directory'),
        ("src/main.ts/t.yaml", 'Cannot write "src/main.ts/t.yaml": Not a directory'),
        ("src", "Invalid value for '--output' / '-o': File 'src' is a directory"),
    ],
)
def test_where_no_file_can_be_is_an_error_of_the_command_line(built: Path, output: str, said: str) -> None:
    """It is said in one line, with what to do."""
    done = run("template", "-o", output, folder=built)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}\nhint: ")
