"""The service API, called with boto3 as it is and with what browsers send."""

from __future__ import annotations

import base64
import http.client
import json

import pytest
from botocore.exceptions import ClientError

from lambdeno.emulator import Settings
from tests.emulator.conftest import Running, Start


def test_request_response(start: Start) -> None:
    """A plain invocation gives status, payload and version."""
    with start() as running:
        answer = running.client.invoke(FunctionName="f", Payload=b'{"a": 1}')
        payload = answer["Payload"].read()
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    assert payload == b'{"a": 1}'
    assert answer["ResponseMetadata"]["RequestId"] in running.lines[0]


def test_function_error(start: Start) -> None:
    """A function's failure is 200 with FunctionError Unhandled."""
    with start() as running:
        answer = running.client.invoke(FunctionName="f", Payload=b'{"do": "error"}')
        payload = json.loads(answer["Payload"].read())
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert payload["errorType"] == "Oops"


def test_log_tail_is_the_last_of_this_invocations_log(start: Start) -> None:
    """LogType=Tail gives at most 4 KB: this request's lines, REPORT last."""
    with start() as running:
        client = running.client
        running.ask("print", text="before")
        event = json.dumps({"do": "print", "text": "x" * 5000 + "\nlast words"})
        answer = client.invoke(FunctionName="f", LogType="Tail", Payload=event)
        without = client.invoke(FunctionName="f")
        answer["Payload"].read()
        without["Payload"].read()
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert len(tail) == 4096
    assert tail.startswith("x")
    assert "\nlast words\nEND RequestId: " in tail
    assert tail.splitlines()[-1].startswith("REPORT RequestId: ")
    assert "before" not in tail
    assert "LogResult" not in without


def test_dry_run_runs_nothing(start: Start) -> None:
    """DryRun is 204 and starts no environment."""
    with start() as running:
        answer = running.client.invoke(FunctionName="f", InvocationType="DryRun")
    assert answer["StatusCode"] == 204
    assert running.lines == []


def test_client_context_is_decoded(start: Start) -> None:
    """The client context arrives as JSON, also where it is not ASCII."""
    context = {"custom": {"name": "Zoë"}}
    encoded = base64.b64encode(json.dumps(context, ensure_ascii=False).encode()).decode()
    with start() as running:
        client = running.client
        answer = client.invoke(FunctionName="f", Payload=b'{"do": "headers"}', ClientContext=encoded)
        seen = json.loads(answer["Payload"].read())
    assert json.loads(seen["lambda-runtime-client-context"]) == context


def test_names(start: Start) -> None:
    """A function is called by its name, its ARN, or either with $LATEST."""
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f"
    with start() as running:
        client = running.client
        for name in ("f", arn, f"{arn}:$LATEST", "f:$LATEST", "123456789012:function:f"):
            answer = client.invoke(FunctionName=name)
            assert answer["Payload"].read() == b"{}"
        answer = client.invoke(FunctionName="f", Qualifier="$LATEST", Payload=b'{"do": "headers"}')
        seen = json.loads(answer["Payload"].read())
    assert seen["lambda-runtime-invoked-function-arn"] == f"{arn}:$LATEST"


@pytest.mark.parametrize(("name", "qualifier"), [("g", "$LATEST"), ("f", "7"), ("f", "production")])
def test_unknown_functions_and_versions(start: Start, name: str, qualifier: str) -> None:
    """What is not deployed is ResourceNotFoundException."""
    with start() as running:
        client = running.client
        with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
            client.invoke(FunctionName=name, Qualifier=qualifier)
    assert f":function:{name}:{qualifier}" in str(caught.value)


def test_payload_that_is_not_json(start: Start) -> None:
    """A payload must be JSON."""
    with start() as running:
        client = running.client
        with pytest.raises(client.exceptions.InvalidRequestContentException):
            client.invoke(FunctionName="f", Payload=b"{")
    assert running.lines == []


@pytest.mark.parametrize(
    "payload",
    [
        b"NaN",
        b"[Infinity]",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'"\xff"',
        b"[" * 1001 + b"]" * 1001,
    ],
    ids=["NaN", "Infinity", "byte order mark", "UTF-16", "Latin-1", "1001 levels"],
)
def test_payload_that_lambda_would_refuse(start: Start, payload: bytes) -> None:
    """JSON is UTF-8 without a byte order mark, has no NaN and at most 1000 levels."""
    with start() as running:
        client = running.client
        for kind in ("RequestResponse", "Event", "DryRun"):
            with pytest.raises(client.exceptions.InvalidRequestContentException):
                client.invoke(FunctionName="f", InvocationType=kind, Payload=payload)
    assert running.lines == []


def test_payload_of_any_depth_and_size_of_numbers(start: Start) -> None:
    """1000 levels and a number of 5,000 digits are JSON that Lambda takes."""
    with start() as running:
        for payload in (b"[" * 1000 + b"]" * 1000, b"9" * 5000, b'"\\ud800"'):
            answer = running.client.invoke(FunctionName="f", InvocationType="DryRun", Payload=payload)
            assert answer["StatusCode"] == 204


@pytest.mark.parametrize("context", ["[" * 5000 + "]" * 5000, "NaN", "{", "\ufeff{}"])
def test_client_context_that_is_not_json(start: Start, context: str) -> None:
    """A client context that no runtime could read is refused."""
    with start() as running:
        client = running.client
        encoded = base64.b64encode(context.encode()).decode()
        with pytest.raises(client.exceptions.InvalidRequestContentException):
            client.invoke(FunctionName="f", ClientContext=encoded)


def test_client_context_is_one_line(start: Start) -> None:
    """Line breaks between its words, and a number of 5,000 digits, reach the runtime in one header."""
    context = '{\n\t"custom": {"a": "\\n😀"},\r\n"b": ' + "9" * 5000 + "}"
    with start() as running:
        encoded = base64.b64encode(context.encode()).decode()
        answer = running.client.invoke(FunctionName="f", Payload=b'{"do": "headers"}', ClientContext=encoded)
        seen = json.loads(answer["Payload"].read())["lambda-runtime-client-context"]
    words = context.replace("\n\t", "  ").replace("\r\n", "  ").replace("😀", "\\ud83d\\ude00")
    assert seen == words


def test_empty_payload_is_an_empty_object(start: Start) -> None:
    """Without a payload the event is {}."""
    with start() as running:
        answer = running.client.invoke(FunctionName="f")
        assert answer["Payload"].read() == b"{}"


def test_payload_limits(start: Start) -> None:
    """6 MB go in synchronously and 1 MB asynchronously; more is RequestTooLargeException."""
    settings = Settings(payload_limit=100, event_limit=10)
    with start(settings=settings) as running:
        client = running.client
        too_large = client.exceptions.RequestTooLargeException
        fits = b'"' + b"x" * 98 + b'"'
        answer = client.invoke(FunctionName="f", Payload=b'{"a": "' + b"x" * 80 + b'"}')
        assert "FunctionError" not in answer
        answer["Payload"].read()
        with pytest.raises(too_large):
            client.invoke(FunctionName="f", Payload=b" " + fits)
        with pytest.raises(too_large):
            client.invoke(FunctionName="f", InvocationType="Event", Payload=b'"1234567890"')


def test_six_megabytes_go_in_and_out(start: Start) -> None:
    """An event and a response at the limit pass whole."""
    event = json.dumps({"a": "x" * (6_291_556 - 10)}).encode()
    assert len(event) <= 6_291_556
    with start() as running:
        answer = running.client.invoke(FunctionName="f", Payload=event)
        assert answer["Payload"].read() == event


def test_descriptions(start: Start) -> None:
    """boto3 can list the functions and read their configuration."""
    with start(environment={"AB": "1"}, memory=256) as running:
        client = running.client
        listed = client.list_functions()["Functions"]
        configuration = client.get_function_configuration(FunctionName="f")
        function = client.get_function(FunctionName="f")
        with pytest.raises(ClientError):
            client.get_function(FunctionName="g")
    assert [f["FunctionName"] for f in listed] == ["f"]
    assert configuration["Environment"]["Variables"] == {"AB": "1"}
    assert configuration["MemorySize"] == 256
    assert function["Configuration"]["State"] == "Active"
    assert function["Concurrency"]["ReservedConcurrentExecutions"] == 10


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example.com"},
        {"Host": "127.0.0.1.example.com:9000"},
    ],
)
def test_web_pages_are_refused(start: Start, headers: dict[str, str]) -> None:
    """No page in a browser can invoke a function, also not under a name bound to this address."""
    with start() as running:
        assert post(running, headers)[0] == 403
    assert running.lines == []


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "none"}, {"Host": "localhost:1"}, {"Host": "[::1]:9000"}]
)
def test_local_clients_are_served(start: Start, headers: dict[str, str]) -> None:
    """Command-line clients are served under every name of this machine."""
    with start() as running:
        assert post(running, headers) == (200, b"{}")


def test_ping_and_unknown_paths(start: Start) -> None:
    """/ping answers, other paths are 404."""
    with start() as running:
        connection = http.client.HTTPConnection(running.handle.endpoint.removeprefix("http://"))
        told = []
        for method, path in (("GET", "/ping"), ("GET", "/x"), ("DELETE", "/2015-03-31/functions/f")):
            connection.request(method, path)
            response = connection.getresponse()
            told.append((response.status, response.read()))
        connection.close()
    assert told == [(200, b"pong"), (404, b"{}"), (404, b"{}")]


def post(running: Running, headers: dict[str, str]) -> tuple[int, bytes]:
    """Invoke ``f`` with these headers."""
    connection = http.client.HTTPConnection(running.handle.endpoint.removeprefix("http://"))
    connection.request("POST", "/2015-03-31/functions/f/invocations", b"", headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body
