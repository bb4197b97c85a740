"""``lambdeno invoke --remote``: boto3 as it is, with our own local Lambda where AWS would be."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdeno.emulator import Function, ListSink, Settings, event_stream, local_lambda
from tests.aws_answers import LOST, Answer, answering, refusal
from tests.e2e.conftest import LAMBDENO
from tests.emulator.conftest import BOOTSTRAP
from tests.test_cli import on_a_terminal

TRAILERS = {
    "Lambda-Runtime-Function-Error-Type": "Runtime.Oops",
    "Lambda-Runtime-Function-Error-Body": "eyJlcnJvclR5cGUiOiJPb3BzIn0=",
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Lambda with the function ``shop``; gives the environment of who has credentials for it."""
    folder = tmp_path_factory.mktemp("cloud")
    code = folder / "code"
    code.mkdir()
    shutil.copy(BOOTSTRAP, code / "bootstrap")
    (code / "bootstrap").chmod(0o755)
    functions = [Function("shop", code=code), Function("busy", code=code, concurrency=1)]
    settings = Settings(payload_limit=1000)
    with local_lambda(
        *functions, sandbox="paths", cache=folder / "cache", log=ListSink(), settings=settings
    ) as local:
        yield {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": local.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
            "AWS_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that was never built on this machine."""
    (tmp_path / "lambdeno.toml").write_text('name = "shop"\n')
    return tmp_path


def command(event: Any, *options: str) -> list[str]:
    """The command line."""
    return [LAMBDENO, "invoke", json.dumps(event), "--remote", *options]


def run(cloud: dict[str, str], folder: Path, event: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """Invoke the deployed function."""
    done = subprocess.run(
        command(event, *options),
        cwd=folder,
        env=cloud,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_result_is_on_stdout_and_the_log_on_stderr(cloud: dict[str, str], folder: Path) -> None:
    """As with the local Lambda; nothing is built."""
    done = run(cloud, folder, {"do": "print", "text": "said"})
    assert (done.returncode, done.stdout) == (0, "null\n")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("START RequestId: ")
    assert lines[1] == "said"
    assert lines[-1].startswith("REPORT RequestId: ")
    assert list(folder.iterdir()) == [folder / "lambdeno.toml"]


def test_a_functions_error_is_exit_code_1(cloud: dict[str, str], folder: Path) -> None:
    """The error's document is the result, and the shell learns of it."""
    done = run(cloud, folder, {"do": "error"})
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorType"] == "Oops"
    assert "error: The function answered with an error (Unhandled)\nhint: see the log above" in done.stderr


def test_json_has_the_same_form_as_with_the_local_lambda(cloud: dict[str, str], folder: Path) -> None:
    """One document, in which a machine finds the same."""
    remote = json.loads(run(cloud, folder, [1, "é"], "--json").stdout)
    endpoint = cloud["AWS_ENDPOINT_URL"]
    here = [LAMBDENO, "invoke", '[1, "é"]', "--endpoint-url", endpoint, "--json"]
    local = json.loads(subprocess.run(here, cwd=folder, capture_output=True, check=True).stdout)
    assert (remote["status"], remote["result"], remote["function_error"]) == (200, [1, "é"], None)
    assert remote.keys() == local.keys()
    assert len(remote["log"]) == len(local["log"]) == 3


def test_an_event_can_be_queued(cloud: dict[str, str], folder: Path) -> None:
    """--async is answered with 202 and nothing else."""
    done = run(cloud, folder, {}, "--async")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(run(cloud, folder, {}, "--async", "--json").stdout)["status"] == 202


# --- streams ------------------------------------------------------------------------------------


def test_a_stream_is_printed_as_it_comes(cloud: dict[str, str], folder: Path) -> None:
    """Each chunk is on stdout before the next one is written, with no byte more; the log comes last."""
    event = {"do": "stream", "chunks": ["one", "two\n", "é"], "pause": 0.5}
    with subprocess.Popen(
        command(event, "--stream"), cwd=folder, env=cloud, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        seen: list[tuple[bytes, float]] = []
        while piece := os.read(process.stdout.fileno(), 100):
            seen.append((piece, time.monotonic()))
        log = process.stderr.read().decode()
    assert [piece for piece, _ in seen] == [b"one", b"two\n", "é".encode()]
    assert all(later - sooner > 0.3 for (_, sooner), (_, later) in itertools.pairwise(seen))
    assert process.returncode == 0
    assert log.startswith("START RequestId: ")
    assert "REPORT RequestId: " in log


def test_a_stream_that_fails_midway_keeps_what_came(cloud: dict[str, str], folder: Path) -> None:
    """What was written is on stdout, the error's details and the log on stderr; exit code 1."""
    done = run(cloud, folder, {"do": "stream", "chunks": ["some"], "trailers": TRAILERS}, "--stream")
    assert (done.returncode, done.stdout) == (1, "some")
    assert done.stderr.startswith("START RequestId: ")
    assert '{"errorType":"Oops"}\n\nerror: The function answered with an error (' in done.stderr


def test_a_failure_before_the_stream_is_told_the_same(cloud: dict[str, str], folder: Path) -> None:
    """Nothing is on stdout; the error is whole on stderr."""
    done = run(cloud, folder, {"do": "error"}, "--stream")
    assert (done.returncode, done.stdout) == (1, "")
    assert '"errorMessage": "on purpose"' in done.stderr


def test_a_stream_in_json_is_one_document(cloud: dict[str, str], folder: Path) -> None:
    """The chunks make the result, as they would without --stream; an error's details are beside it."""
    plain = json.loads(
        run(cloud, folder, {"do": "stream", "chunks": ["[1,", "2]"]}, "--stream", "--json").stdout
    )
    assert (plain["result"], plain["function_error"]) == ([1, 2], None)
    event = {"do": "stream", "chunks": ["some"], "trailers": TRAILERS}
    failed = json.loads(run(cloud, folder, event, "--stream", "--json").stdout)
    assert (failed["result"], json.loads(failed["details"])) == ("some", {"errorType": "Oops"})
    assert failed["function_error"]


def test_a_reader_that_has_enough_ends_the_stream_quietly(cloud: dict[str, str], folder: Path) -> None:
    """`lambdeno invoke --remote --stream | head -c 3` says nothing of it."""
    event = {"do": "stream", "chunks": ["one", "two", "three"], "pause": 0.2}
    with subprocess.Popen(
        command(event, "--stream"), cwd=folder, env=cloud, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        os.read(process.stdout.fileno(), 3)
        process.stdout.close()
        assert process.stderr.read() == b""


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--stream",), ("--async",)], ids=["buffered", "stream", "async"])
def test_what_is_not_deployed_is_named_with_its_region(
    cloud: dict[str, str], tmp_path: Path, how: tuple[str, ...]
) -> None:
    """The function, the region, and the command that brings it there; no account id."""
    (tmp_path / "lambdeno.toml").write_text('name = "gone"\n')
    done = run(cloud, tmp_path, {}, *how)
    assert (done.returncode, done.stdout) == (7, "")
    [error, hint] = done.stderr.splitlines()
    assert error == 'error: "gone" is not deployed in eu-west-1'
    assert hint.startswith("hint: run lambdeno deploy")


def test_the_projects_alias_is_invoked(cloud: dict[str, str], tmp_path: Path) -> None:
    """Unless a qualifier says otherwise."""
    (tmp_path / "lambdeno.toml").write_text('name = "shop"\nalias = "live"\n')
    assert 'error: "shop:live" is not deployed' in run(cloud, tmp_path, {}).stderr
    assert 'error: "shop:7" is not deployed' in run(cloud, tmp_path, {}, "--qualifier", "7").stderr
    assert run(cloud, tmp_path, {}, "--qualifier", "$LATEST").stdout == "{}\n"


def test_a_terminal_obeys_no_stream(cloud: dict[str, str], folder: Path) -> None:
    """Control characters become visible as they come, also where a chunk cuts them; colours stay."""
    chunks = ["\x1b[3", "2mgreen \x1b", "]0;title\x07", "\x1b[2", "J é", "\x9b"]
    event = json.dumps({"do": "stream", "chunks": chunks})
    seen = on_a_terminal("invoke", event, "--remote", "--stream", folder=folder, **cloud)
    assert "\x1b[32mgreen " + r"\x1b]0;title\x07\x1b[2J é\x9b" + "\x1b[0m" in seen


def test_a_throttled_invocation_is_told_and_not_repeated(cloud: dict[str, str], tmp_path: Path) -> None:
    """The event was not handled, and the user decides whether it shall be."""
    (tmp_path / "lambdeno.toml").write_text('name = "busy"\n')
    event = {"do": "stream", "chunks": ["busy", "still"], "pause": 20}
    with subprocess.Popen(
        command(event, "--stream"), cwd=tmp_path, env=cloud, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as first:
        assert first.stdout
        assert os.read(first.stdout.fileno(), 100) == b"busy"
        done = run(cloud, tmp_path, {})
        assert first.poll() is None
        first.kill()
    assert done.returncode == 7
    assert done.stderr.startswith('error: Lambda throttles "busy": ')


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["buffered", "stream"])
def test_an_event_that_is_too_large_says_what_fits(
    cloud: dict[str, str], folder: Path, how: tuple[str, ...]
) -> None:
    """Its size, the limits, and where large data goes."""
    done = run(cloud, folder, "x" * 1000, *how)
    assert done.returncode == 7
    assert done.stderr.startswith("error: The event is too large for Lambda: 1002 bytes\nhint: it takes 6 MB")


KIND = {"Content-Type": event_stream.CONTENT_TYPE.decode()}
CHUNK = event_stream.payload_chunk(b"some")


@pytest.mark.parametrize(
    ("answer", "out"),
    [
        (Answer(200, CHUNK, KIND), "some"),
        (Answer(200, CHUNK + CHUNK[:20], KIND), "some"),
        (Answer(200, CHUNK + b"not a frame at all", KIND), "some"),
        (Answer(200, b"ff\r\n" + CHUNK, {**KIND, "Transfer-Encoding": "chunked"}), ""),
    ],
    ids=["no end", "half a frame", "no frame", "half a chunk"],
)
def test_a_stream_that_breaks_off_is_told(
    cloud: dict[str, str], folder: Path, answer: Answer, out: str
) -> None:
    """A part of an answer is not taken for all of it."""
    with answering(answer) as said:
        done = run({**cloud, "AWS_ENDPOINT_URL": said.endpoint}, folder, {}, "--stream")
    assert (done.returncode, done.stdout) == (7, out)
    assert done.stderr.startswith('error: The answer of "shop" broke off: ')
    assert done.stderr.endswith("\nhint: the function was invoked: see lambdeno logs\n")
    assert len(said.requests) == 1


def test_an_answer_that_breaks_off_is_told(cloud: dict[str, str], folder: Path) -> None:
    """Less than Lambda has announced is not printed as a result."""
    with answering(Answer(200, b'{"half', {"Content-Length": "100"})) as said:
        done = run({**cloud, "AWS_ENDPOINT_URL": said.endpoint}, folder, {})
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith('error: The answer of "shop" broke off: ')
    assert len(said.requests) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            refusal(429, "TooManyRequestsException", "Rate Exceeded.", Reason="CallerRateLimitExceeded"),
            'Lambda throttles "shop": Rate Exceeded.',
        ),
        (
            refusal(413, "RequestEntityTooLargeException", "Request must be smaller than 6291456 bytes"),
            "The event is too large for Lambda: 2 bytes",
        ),
        (Answer(413, b"<html>"), "The event is too large for Lambda: 2 bytes"),
        (
            refusal(404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:x:123456789012:y"),
            '"shop" is not deployed in eu-west-1',
        ),
        (
            refusal(
                403, "AccessDeniedException", "User: x is not authorized to perform: lambda:InvokeFunction"
            ),
            "Access denied: lambda:InvokeFunction on shop",
        ),
        (
            refusal(502, "KMSDisabledException", "The key is disabled"),
            "AWS refused lambda:InvokeFunction on shop: The key is disabled",
        ),
        (LOST, "Cannot reach AWS: Connection was closed before we received a valid response"),
    ],
    ids=["429", "413", "413 of a proxy", "404", "403", "502", "lost"],
)
def test_an_invocation_is_never_repeated(
    cloud: dict[str, str], folder: Path, answer: Answer, says: str
) -> None:
    """Whatever is answered, there is one request, one sentence and exit code 7."""
    for how in ((), ("--stream",)):
        with answering(answer) as said:
            done = run({**cloud, "AWS_ENDPOINT_URL": said.endpoint}, folder, {}, *how)
        assert (done.returncode, done.stdout) == (7, "")
        assert done.stderr.startswith(f"error: {says}")
        assert "123456789012" not in done.stderr
        assert len(said.requests) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--remote", "--endpoint-url", "http://x"], "--remote and --endpoint-url exclude each other"),
        (["--remote", "--sandbox", "auto"], "--remote and --sandbox exclude each other"),
        (["--stream"], "--stream needs --remote"),
        (["--qualifier", "live"], "--qualifier needs --remote"),
        (["--profile", "p"], "--profile needs --remote"),
        (["--region", "eu-west-1"], "--region needs --remote"),
        (["--remote", "--stream", "--async"], "--async and --stream exclude each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_refused(folder: Path, options: list[str], says: str) -> None:
    """Before anything is sent anywhere."""
    done = subprocess.run(
        [LAMBDENO, "invoke", "{}", *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {says}\nhint: ")
