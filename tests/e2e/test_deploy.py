"""From nothing to a deployed function and back, by the command line, on an account of moto's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.account import REGION, Account, account, only
from tests.e2e.conftest import LAMBDENO

ROOT = Path(__file__).parents[2]
NEWER, OLDER = "2.9.8", "2.9.7"
LAYER, CODE = "lambda:PublishLayerVersion", "lambda:UpdateFunctionCode"
CONFIGURATION = "lambda:UpdateFunctionConfiguration"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account for this file."""
    with account(tmp_path_factory.mktemp("account")) as made:
        yield made


@pytest.fixture
def empty(cloud: Account) -> Account:
    """The account with nothing in it."""
    cloud.reset()
    return cloud


def lambdeno(
    made: Account, folder: Path, *arguments: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it who has credentials."""
    done = subprocess.run(
        [LAMBDENO, *arguments],
        cwd=folder,
        env={**made.environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def edit(path: Path, before: str, after: str) -> None:
    """Change a file as an editor does."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def deployed(made: Account, name: str = "hello") -> dict[str, Any]:
    """The function's configuration as Lambda tells it."""
    found: dict[str, Any] = made.client("lambda").get_function(FunctionName=name)["Configuration"]
    made.calls()
    return found


def test_a_function_from_init_to_destroy(empty: Account, tmp_path: Path) -> None:
    """Each deployment makes the calls that its change needs, and no other; destroy leaves the layers."""
    lambdeno(empty, tmp_path, "init", "hello", "--yes", "--architecture", "arm64")
    folder = tmp_path / "hello"
    toml, source = folder / "lambdeno.toml", folder / "src/main.ts"
    edit(toml, f'#version = "{NEWER}"', f'version = "{OLDER}"')
    lambdeno(empty, folder, "build")
    assert empty.calls() == []

    lambdeno(empty, folder, "deploy")
    assert only(
        empty.changes(),
        "iam:CreateRole",
        "iam:PutRolePolicy",
        "logs:CreateLogGroup",
        "logs:PutRetentionPolicy",
        LAYER,
        LAYER,
        "lambda:CreateFunction",
    )
    made = deployed(empty)
    assert (made["Runtime"], made["Architectures"], len(made["Layers"])) == ("provided.al2023", ["arm64"], 2)

    again = lambdeno(empty, folder, "deploy")
    assert "Nothing to do" in again.stderr
    calls = empty.calls()
    assert len(calls) <= 12
    assert all(re.match(r"\w+:(Get|List|Describe)", call) for call in calls), calls

    edit(source, "Hello", "Good day")
    lambdeno(empty, folder, "deploy")
    assert only(empty.changes(), CODE)

    edit(toml, "#memory = 512", "memory = 256")
    lambdeno(empty, folder, "deploy")
    assert only(empty.changes(), CONFIGURATION)
    assert deployed(empty)["MemorySize"] == 256

    edit(toml, OLDER, NEWER)
    lambdeno(empty, folder, "deploy")
    assert only(empty.changes(), LAYER, CONFIGURATION)
    assert deployed(empty)["Layers"][0]["Arn"].endswith(":lambdeno-deno-arm64:2")

    lambdeno(empty, folder, "destroy", "--yes")
    client = empty.client("lambda")
    assert client.list_functions()["Functions"] == []
    assert empty.client("logs").describe_log_groups()["logGroups"] == []
    assert empty.client("iam").list_roles()["Roles"] == []
    assert len(client.list_layer_versions(LayerName="lambdeno-deno-arm64")["LayerVersions"]) == 2

    lambdeno(empty, folder, "destroy", "--yes", "--layers")
    assert client.list_layers()["Layers"] == []


def test_a_new_deno_brings_its_code_caches_along(empty: Account, actor: Path, tmp_path: Path) -> None:
    """What V8 compiled is of one Deno: where caches ship, layer and function come with the new one."""
    folder = copied(actor, tmp_path)
    toml = folder / "lambdeno.toml"
    toml.write_text(f'{toml.read_text()}[deno]\nversion = "{OLDER}"\n')
    lambdeno(empty, folder, "deploy")
    empty.calls()
    edit(toml, OLDER, NEWER)
    lambdeno(empty, folder, "deploy")
    assert only(empty.changes(), LAYER, LAYER, CODE, CONFIGURATION)


def test_the_shape_changes_in_one_deployment(empty: Account, actor: Path, tmp_path: Path) -> None:
    """From os-only to managed: a layer, and runtime, variables and layers in one configuration."""
    folder = copied(actor, tmp_path)
    lambdeno(empty, folder, "deploy")
    empty.calls()
    toml = folder / "lambdeno.toml"
    toml.write_text(f'shape = "managed"\n{toml.read_text()}')
    lambdeno(empty, folder, "deploy")
    changes = empty.changes()
    assert changes[LAYER] == 1
    assert changes[CONFIGURATION] == 1
    assert set(changes) <= {LAYER, CONFIGURATION, CODE}
    found = deployed(empty, "actor")
    assert found["Runtime"].startswith("python3.")
    assert found["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    assert "Nothing to do" in lambdeno(empty, folder, "deploy").stderr


def test_the_parts_are_deployed_one_by_one(empty: Account, actor: Path, tmp_path: Path) -> None:
    """Layers print their ARNs; the function waits for them; code and configuration go alone."""
    folder = copied(actor, tmp_path)
    early = lambdeno(empty, folder, "deploy", "function", code=8)
    assert "deno layer of this project is not deployed" in early.stderr
    assert "lambdeno deploy deno-layer" in early.stderr
    assert empty.changes() == {}
    for part in ("deno-layer", "runtime-layer"):
        done = lambdeno(empty, folder, "deploy", part)
        name = f"lambdeno-{part.removesuffix('-layer')}-x86_64"
        assert re.fullmatch(rf"arn:aws:lambda:{REGION}:\d+:layer:{name}:1\n", done.stdout)
        assert only(empty.changes(), LAYER)
        assert lambdeno(empty, folder, "deploy", part).stdout == done.stdout
        assert empty.changes() == {}
    for part in ("code", "configuration"):
        assert 'There is no function "actor"' in lambdeno(empty, folder, "deploy", part, code=8).stderr
    lambdeno(empty, folder, "deploy", "function")
    assert LAYER not in empty.changes()
    edit(folder / "lambdeno.toml", "timeout = 5", "timeout = 6")
    edit(folder / "src/format.ts", "[", "(")
    lambdeno(empty, folder, "deploy", "code")
    assert only(empty.changes(), CODE)
    assert deployed(empty, "actor")["Timeout"] == 5
    lambdeno(empty, folder, "deploy", "configuration")
    assert only(empty.changes(), CONFIGURATION)


TARGETS = (
    *("build_deno_layer", "deploy_deno_layer", "build_runtime_layer", "deploy_runtime_layer"),
    *("build_function", "create_function", "update_function_code", "update_function_configuration"),
    "delete_function",
    "clean",
)


def test_each_step_is_a_make_target(empty: Account, tmp_path: Path) -> None:
    """In a new project, one after the other, from nothing to nothing; layers print their ARN alone."""
    lambdeno(empty, tmp_path, "init", "hello", "--yes")
    folder = tmp_path / "hello"
    changes: dict[str, set[str]] = {}
    for target in TARGETS:
        arguments = "--yes --layers" if target == "delete_function" else ""
        done = subprocess.run(
            ["make", target, f"LAMBDENO={LAMBDENO}", f"ARGS={arguments}"],
            cwd=folder,
            env=empty.environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        changes[target] = set(empty.changes())
        if target in ("deploy_deno_layer", "deploy_runtime_layer"):
            assert re.fullmatch(r"arn:aws:lambda:\S+:1\n", done.stdout)
            assert changes[target] == {LAYER}
    assert changes["create_function"] >= {"iam:CreateRole", "logs:CreateLogGroup", "lambda:CreateFunction"}
    assert changes["update_function_code"] == changes["update_function_configuration"] == set()
    assert empty.client("lambda").list_functions()["Functions"] == []
    assert empty.client("lambda").list_layers()["Layers"] == []
    assert not (folder / "dist").exists()
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(TARGETS) <= set(rules)


def test_a_dry_run_says_all_and_changes_nothing(empty: Account, actor: Path, tmp_path: Path) -> None:
    """The table names steps and changes; values of variables and account ids are not in it."""
    folder = copied(actor, tmp_path)
    edit(folder / "lambdeno.toml", '"hello"', '"a secret greeting"')
    table = lambdeno(empty, folder, "deploy", "--dry-run").stdout
    assert empty.changes() == {}
    for words in (
        "create role",
        "create log group",
        "publish layer",
        "create function",
        "environment.GREETING",
    ):
        assert words in table
    plan = json.loads(lambdeno(empty, folder, "deploy", "--dry-run", "--json").stdout)
    assert [step["step"] for step in plan["steps"]] == [
        "create role",
        "create log group",
        "publish layer",
        "publish layer",
        "create function",
    ]
    lambdeno(empty, folder, "deploy")
    edit(folder / "lambdeno.toml", '"a secret greeting"', '"another secret"')
    edit(folder / "lambdeno.toml", "timeout = 5", "timeout = 7")
    later = lambdeno(empty, folder, "deploy", "--dry-run").stdout
    assert re.search(r"update configuration +actor +timeout +5 +7", later)
    assert "secret" not in table + json.dumps(plan) + later
    assert not re.search(r"\d{12}", table + json.dumps(plan) + later)


def test_two_deployments_at_once_and_one_wins(empty: Account, actor: Path, tmp_path: Path) -> None:
    """In one folder the second says so at once; from two folders it finds what the first has made."""
    one, other = copied(actor, tmp_path / "one"), copied(actor, tmp_path / "other")
    for folders in ((one, one), (one, other)):
        empty.reset()
        barrier = threading.Barrier(2)
        ended: list[subprocess.CompletedProcess[str]] = []

        def deploy(folder: Path, barrier: threading.Barrier = barrier, ended: list[Any] = ended) -> None:
            barrier.wait()
            command = [LAMBDENO, "deploy"]
            environment = empty.environment
            ended.append(
                subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=100,
                    check=False,
                )
            )

        threads = [threading.Thread(target=deploy, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = sorted(done.returncode for done in ended)
        words = "".join(done.stderr for done in ended)
        assert codes == [0, 8], words
        assert "Another deployment" in words or "Somebody else" in words
        assert "Traceback" not in words
        lambdeno(empty, one, "deploy")
        assert "Nothing to do" in lambdeno(empty, one, "deploy").stderr
        assert len(empty.client("lambda").list_functions()["Functions"]) == 1
        assert len(empty.client("iam").list_roles()["Roles"]) == 1


def test_destroy_asks(empty: Account, actor: Path, tmp_path: Path) -> None:
    """Without --yes and with nobody to ask nothing goes; a dry run shows what would."""
    folder = copied(actor, tmp_path)
    lambdeno(empty, folder, "deploy")
    empty.calls()
    assert "--yes" in lambdeno(empty, folder, "destroy", code=2).stderr
    shown = lambdeno(empty, folder, "destroy", "--dry-run").stdout
    assert "delete function" in shown
    assert "delete log group" in shown
    assert "delete role" in shown
    assert empty.changes() == {}
    lambdeno(empty, folder, "destroy", "--yes", "--keep-logs")
    assert len(empty.client("logs").describe_log_groups()["logGroups"]) == 1
    lambdeno(empty, folder, "destroy", "--yes")
    assert "There is nothing" in lambdeno(empty, folder, "destroy", "--yes").stderr


def copied(project: Path, folder: Path) -> Path:
    """A project with what is built of it, its files' times kept: nothing is built again."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", project, folder / "project"], check=True)
    os.utime(folder / "project/dist/function.zip")
    return folder / "project"


@pytest.mark.parametrize(
    "bad",
    [
        ('name = "two words"', [], 3, '"name" is malformed'),
        (f'name = "{"n" * 65}"', [], 3, '"name" is malformed'),
        ("memory = 10241", [], 3, '"memory" is out of range'),
        ("memory = 64", [], 3, '"memory" is out of range'),
        (
            f"layers = {[f'arn:aws:lambda:eu-west-1:123456789012:layer:l{n}:1' for n in range(4)]}",
            [],
            3,
            "makes 6",
        ),
        ('[role]\nname = "nobody"', [], 8, 'There is no role "nobody"'),
        ('[build]\ninclude = ["large"]', [], 5, r"25\d\.\d MB unpacked; Lambda takes 250\.0 MB"),
        ("", ["--region", "eu-wst-1"], 7, 'no region "eu-wst-1"'),
        ("", ["--profile", "nobody"], 7, "profile"),
        ("", ["everything"], 2, "everything"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_no_change(
    empty: Account, actor: Path, tmp_path: Path, bad: tuple[str, list[str], int, str]
) -> None:
    """Whatever is wrong is said with what to do about it, before AWS is asked to change anything."""
    toml, arguments, code, words = bad
    folder = copied(actor, tmp_path)
    with (folder / "large").open("wb") as file:
        file.truncate(160 * 1024 * 1024)
    text = (folder / "lambdeno.toml").read_text() if "name" not in toml or "[role]" in toml else ""
    (folder / "lambdeno.toml").write_text(text + toml if toml.startswith("[") else f"{toml}\n{text}")
    done = lambdeno(empty, folder, "deploy", *arguments, code=code)
    assert done.stdout == ""
    assert re.search(words, done.stderr), done.stderr
    assert re.search(r"^hint: ", done.stderr, re.MULTILINE), done.stderr
    assert empty.changes() == {}


def test_no_secret_is_anywhere(empty: Account, actor: Path, tmp_path: Path) -> None:
    """No credential, no account id and no variable's value is in what was built, said or planned."""
    folder = copied(actor, tmp_path)
    edit(folder / "lambdeno.toml", '"hello"', '"a-secret-value"')
    arguments = (["build"], ["deploy", "--dry-run"], ["deploy"], ["deploy", "--json"], ["template"])
    said = [lambdeno(empty, folder, *words) for words in (*arguments, ["destroy", "--yes"])]
    texts = {f"output {number}": (done.stdout + done.stderr).encode() for number, done in enumerate(said)}
    for path in (folder / "dist").iterdir():
        texts[path.name] = path.read_bytes()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as zipped:
                names = [name for name in zipped.namelist() if name != "bin/deno"]
                texts |= {f"{path.name}: {name}": zipped.read(name) for name in names}
    assert len(texts) > 20
    for secret in (b"a-secret-value", b"AKIAEXAMPLE", b"a-secret-of-nobody", b"123456789012"):
        assert [where for where, text in texts.items() if secret in text] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_deployment_that_the_next_one_completes(
    empty: Account, actor: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """It ends by the signal, with one line that says how it goes on, and nothing twice."""
    folder = copied(actor, tmp_path)
    command = [LAMBDENO, "deploy"]
    said = []
    with subprocess.Popen(
        command, cwd=folder, env=empty.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr or ():
            said.append(line)
            if line.startswith("[3/5]"):
                process.send_signal(number)
    assert process.returncode == -number, said
    assert "Interrupted: lambdeno deploy goes on from what is there\n" in said
    assert "Traceback" not in "".join(said)
    lambdeno(empty, folder, "deploy")
    client = empty.client("lambda")
    assert len(client.list_functions()["Functions"]) == 1
    for name in ("lambdeno-deno-x86_64", "lambdeno-runtime-x86_64"):
        assert len(client.list_layer_versions(LayerName=name)["LayerVersions"]) == 1
