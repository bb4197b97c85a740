"""``lambdeno logs``: what a line says, what is shown of it, and that following tells each event once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lambdeno import logs
from lambdeno.errors import AwsError, UsageError
from lambdeno.project import Project
from tests.account import Account, account
from tests.aws_answers import answering, logs_refusal, result
from tests.e2e.conftest import LAMBDENO

PROJECT = Project(name="shop")
GROUP = "/aws/lambda/shop"
AT = 1795575050300  # 2026-11-25T02:50:50.300Z
ID = "f77f8150-dd13-41e4-a069-72c0899f36f9"
NOW = 1_800_000_000.0


def parsed(message: str) -> logs.Event:
    """The event of a line."""
    return logs.parse({"timestamp": AT, "message": message, "logStreamName": "stream", "eventId": "1"})


# --- what a line says: these are of our own local Lambda ----------------------------------------

STAMP = "2026-11-25T02:50:50.284Z"
RECORD = f'{{"timestamp":"{STAMP}","level":"%s","requestId":"{ID}","message":%s}}'
TEXT_LINES = [
    (f"{STAMP}\tundefined\tWARN\tat load", "WARN", "", "at load"),
    (f"{STAMP}\t{ID}\tINFO\t[printed]\n", "INFO", ID, "[printed]"),
    (f"{STAMP}\t{ID}\tDEBUG\ttwo\rlines\r\rand three\n", "DEBUG", ID, "two\rlines\r\rand three"),
    (f"{STAMP}\t{ID}\tERROR\ttwo\nlines", "ERROR", ID, "two\nlines"),
    (f'{STAMP}\t{ID}\tERROR\tInvoke Error\t{{"a":1}}', "ERROR", ID, 'Invoke Error\t{"a":1}'),
    (f"START RequestId: {ID} Version: $LATEST\n", "PLATFORM", ID, f"START RequestId: {ID} Version: $LATEST"),
    (f"END RequestId: {ID}", "PLATFORM", ID, f"END RequestId: {ID}"),
    (
        f"REPORT RequestId: {ID}\tDuration: 4.15 ms\tMemory Size: 512 MB\t\n",
        "PLATFORM",
        ID,
        f"REPORT RequestId: {ID}\tDuration: 4.15 ms\tMemory Size: 512 MB",
    ),
    (
        "INIT_START Runtime Version: provided:al2023.v1",
        "PLATFORM",
        "",
        "INIT_START Runtime Version: provided:al2023.v1",
    ),
    (
        "INIT_REPORT Init Duration: 9.99 ms\tPhase: init",
        "PLATFORM",
        "",
        "INIT_REPORT Init Duration: 9.99 ms\tPhase: init",
    ),
    ("EXTENSION\tName: x\tState: Ready", "PLATFORM", "", "EXTENSION\tName: x\tState: Ready"),
    (
        f"{STAMP} {ID} Task timed out after 2.00 seconds\n\n",
        "ERROR",
        ID,
        f"{STAMP} {ID} Task timed out after 2.00 seconds",
    ),
    (
        f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError",
        "ERROR",
        ID,
        f"RequestId: {ID} Error: Runtime exited with error: exit status 1\nRuntime.ExitError",
    ),
]
JSON_LINES: list[tuple[str, str, str, Any, dict[str, Any]]] = [
    (f'{{"timestamp":"{STAMP}","level":"WARN","message":"at load"}}', "WARN", "", "at load", {}),
    (RECORD % ("DEBUG", r'"two\nlines\r\nand three"') + "\n", "DEBUG", ID, "two\nlines\r\nand three", {}),
    (RECORD % ("INFO", '{"order":7}'), "INFO", ID, {"order": 7}, {}),
    (RECORD % ("info", "null"), "INFO", ID, None, {}),
    (RECORD.replace("}", ',"service":"till"}') % ("INFO", '"m"'), "INFO", ID, "m", {"service": "till"}),
    (
        f'{{"time":"{STAMP}","type":"platform.start","record":{{"requestId":"{ID}","version":"$LATEST"}}}}',
        "PLATFORM",
        ID,
        "platform.start",
        {"version": "$LATEST"},
    ),
    (
        f'{{"time":"{STAMP}","type":"platform.report","record":{{"requestId":"{ID}","metrics":'
        '{"durationMs":2.504,"billedDurationMs":3},"status":"success"}}',
        "PLATFORM",
        ID,
        "platform.report",
        {"metrics": {"durationMs": 2.504, "billedDurationMs": 3}, "status": "success"},
    ),
]
PLAIN_LINES = [
    "raw words",
    "",
    "\t\t",
    "{",
    "{}",
    "[1]",
    '{"a": 1}',
    '{"level": 30, "message": "of another logger"}',
    '{"level": "INFO", "msg": "of another logger"}',
    '{"type": "platform"}',
    "[" * 100_000,
    '{"a":' * 100_000,
    f"{STAMP}\t{ID}\tLOUD\tno level",
    "STARTING",
    "START RequestId:",
    "INIT_STARTED",
]


@pytest.mark.parametrize(("line", "level", "request_id", "message"), TEXT_LINES)
def test_a_line_of_text_is_understood(line: str, level: str, request_id: str, message: str) -> None:
    """Time, request id, level and text; the platform's own lines; its failures as errors."""
    event = parsed(line)
    assert (event.level, event.request_id, event.message) == (level, request_id, message)
    assert event.stream == "stream"


@pytest.mark.parametrize(("line", "level", "request_id", "message", "more"), JSON_LINES)
def test_a_line_of_json_is_understood(
    line: str, level: str, request_id: str, message: Any, more: dict[str, Any]
) -> None:
    """The four fields, any others beside them; the platform's records."""
    event = parsed(line)
    assert (event.level, event.request_id, event.message, event.more) == (level, request_id, message, more)


@pytest.mark.parametrize("line", PLAIN_LINES, ids=lambda line: line[:20])
def test_anything_else_is_an_event_as_it_is(line: str) -> None:
    """Without a level and a request, at the time that CloudWatch gives."""
    event = parsed(line)
    assert event == logs.Event(datetime.fromtimestamp(AT / 1000, UTC), "", "", line, "stream")


def test_an_event_has_its_own_time() -> None:
    """Which is nearer to what happened than that of its arrival; not one that cannot be."""
    arrived = datetime.fromtimestamp(AT / 1000, UTC)
    own = datetime(2026, 11, 25, 2, 50, 50, 284000, UTC)
    assert parsed(f"{STAMP}\t{ID}\tINFO\tx").time == own
    assert parsed(RECORD % ("INFO", '"x"')).time == own
    assert parsed(f"{STAMP} {ID} Task timed out after 2.00 seconds").time == own
    for wrong in ("2026-99-25T02:50:50.284Z", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"):
        assert parsed(f"{wrong}\t{ID}\tINFO\tx").time == arrived
    for wrong in ("7", "null", "[]", '"yesterday"', '"0001-01-01"'):
        assert parsed(f'{{"timestamp":{wrong},"level":"INFO","message":""}}').time == arrived


# --- what is shown ------------------------------------------------------------------------------


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in Greenwich."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"{STAMP}\t{ID}\tINFO\tone\ttwo", "02:50:50.284  INFO   f77f8150  one\ttwo"),
        (f"{STAMP}\tundefined\tWARN\tat load", "02:50:50.284  WARN             at load"),
        (f"END RequestId: {ID}", f"02:50:50.300         f77f8150  END RequestId: {ID}"),
        ("raw words", "02:50:50.300                   raw words"),
        (f"{STAMP}\t{ID}\tINFO\ta\rb\r\nc\nd\n", "02:50:50.284  INFO   f77f8150  a ⏎ b ⏎ c ⏎ d"),
        (RECORD % ("FATAL", '{"é":[1, null]}'), '02:50:50.284  FATAL  f77f8150  {"é":[1,null]}'),
        (
            RECORD.replace("}", ',"errorType":"E","stackTrace":["E: m"],"n":{"x":1}}') % ("ERROR", '"E: m"'),
            '02:50:50.284  ERROR  f77f8150  E: m n={"x":1}',
        ),
        (
            JSON_LINES[-1][0],
            '02:50:50.284         f77f8150  platform.report metrics={"durationMs":2.504,"billedDurationMs":3}'
            " status=success",
        ),
    ],
)
def test_an_event_is_one_line(line: str, shown: str) -> None:
    """Time, level, the start of the request's id, and the text in one line."""
    assert logs.text_of(parsed(line)) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J \x85 \x7f \0 \b \v \f", r"\x9b2J \x85 \x7f \x00 \x08 \x0b \x0c"),
        ("\u202egnp.exe \u2066x \u2028", r"\u202egnp.exe \u2066x \u2028"),
        ("\ud800", r"\ud800"),
        ("Grüße\t🎉 漢字", "Grüße\t🎉 漢字"),
    ],
    ids=["colour", "title", "control", "direction", "half a character", "letters"],
)
def test_a_log_does_not_control_the_terminal(text: str, shown: str) -> None:
    """What a terminal would obey is shown as what it is; letters of all languages stay."""
    assert logs.safe(text) == shown
    assert shown in logs.text_of(parsed(json.dumps({"level": "INFO", "message": text})))


def test_no_field_controls_the_terminal() -> None:
    """Level, request id and the names of further fields are the function's words as well."""
    bad = "\x1b[2J\n"
    event = parsed(json.dumps({"level": bad, "requestId": bad, "message": {bad: bad}, bad: bad}))
    assert not re.search(r"[\x00-\x1f]", logs.text_of(event))


def test_a_row_for_machines_has_the_same_fields_for_all_events() -> None:
    """What an event has not is null; its further fields come first and replace none of these."""
    assert logs.row_of(parsed("raw words")) == {
        "timestamp": "2026-11-25T02:50:50.300Z",
        "level": None,
        "requestId": None,
        "message": "raw words",
        "stream": "stream",
    }
    row = logs.row_of(parsed(RECORD.replace("}", ',"stream":"mine","n":1}') % ("INFO", '{"order":7}')))
    assert row == {
        "timestamp": STAMP,
        "level": "INFO",
        "requestId": ID,
        "message": {"order": 7},
        "stream": "stream",
        "n": 1,
    }


# --- since --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", NOW - 30),
        ("10m", NOW - 600),
        ("2h", NOW - 7200),
        ("1d", NOW - 86400),
        ("0s", NOW),
        ("999999999d", 0),
        ("2026-11-25T02:50:50.284Z", 1795575050.284),
        ("2026-11-25T03:50:50+01:00", 1795575050),
        ("2026-11-25T02:50", 1795575000),
        ("2026-11-25", 1795564800),
    ],
)
def test_since_is_a_while_ago_or_a_time(text: str, seconds: float) -> None:
    """A time without a zone is of this place."""
    assert logs.since(text, NOW) == round(seconds * 1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "m",
        "10 m",
        "10x",
        "-5m",
        "1.5h",
        "1h30m",
        "yesterday",
        "2026-13-01",
        "9999999999s",
        "\u0661\u0660m",
    ],
)
def test_what_is_no_time_is_told_what_one_is(text: str) -> None:
    """In the words that were given."""
    with pytest.raises(UsageError) as caught:
        logs.since(text, NOW)
    assert caught.value.message == f'"{text}" is no time'
    assert caught.value.hint.startswith("give 30s, 10m, 2h or 1d, or a time")


def test_a_time_to_come_is_refused() -> None:
    """Nothing could have been logged since."""
    with pytest.raises(UsageError, match=r'^"2099-01-01" is in the future$'):
        logs.since("2099-01-01", NOW)


# --- reading, against moto ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account for this file."""
    with account(tmp_path_factory.mktemp("account")) as made:
        yield made


@pytest.fixture
def empty(cloud: Account, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The account with nothing in it."""
    cloud.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.endpoint)
    return cloud


Put = Callable[..., None]


@pytest.fixture(scope="module")
def client(cloud: Account) -> Any:
    """CloudWatch Logs for who writes to it."""
    return cloud.client("logs")


@pytest.fixture
def put(empty: Account, client: Any) -> Put:  # noqa: ARG001
    """Log events of the function: their messages, the stream, and how many ms ago."""
    client.create_log_group(logGroupName=GROUP)
    streams: set[str] = set()

    def put(*messages: str, stream: str = "2026/11/25/[$LATEST]a", ago: int = 0) -> None:
        if stream not in streams:
            streams.add(stream)
            client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        at = int(time.time() * 1000) - ago
        events = [{"timestamp": at + number, "message": message} for number, message in enumerate(messages)]
        client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)

    return put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project."""
    (tmp_path / "lambdeno.toml").write_text('name = "shop"\n')
    return tmp_path


def run(cloud: Account, folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``lambdeno logs``."""
    done = subprocess.run(
        [LAMBDENO, "logs", *options],
        cwd=folder,
        env={**cloud.environment, "TZ": "UTC", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_the_log_of_all_streams_is_printed_in_order(empty: Account, put: Put, folder: Path) -> None:
    """A line for each event, oldest first; the platform's lines among the function's."""
    put(f"START RequestId: {ID} Version: $LATEST\n", ago=5000)
    put("of another environment\n", stream="2026/11/25/[$LATEST]b", ago=4000)
    put(f"{stamp(3000)}\t{ID}\tWARN\ttwo\rlines\n", ago=3000)
    put("too old", ago=700_000)
    done = run(empty, folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[14:] for line in lines] == [
        f"       f77f8150  START RequestId: {ID} Version: $LATEST",
        "                 of another environment",
        "WARN   f77f8150  two ⏎ lines",
    ]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3}  ", line) for line in lines)


def stamp(ago: int) -> str:
    """A time in the form of a log, so many ms ago."""
    at = datetime.fromtimestamp(time.time() - ago / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_json_is_a_document_for_each_event(empty: Account, put: Put, folder: Path) -> None:
    """JSON Lines, which jq reads as they come."""
    put(RECORD % ("INFO", r'"two\nlines"'), "\x1b[2J", ago=5000)
    done = run(empty, folder, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["level"], row["message"]) for row in rows] == [("INFO", "two\nlines"), (None, "\x1b[2J")]
    assert rows[0].keys() == {"timestamp", "level", "requestId", "message", "stream"}
    assert rows[1]["stream"] == "2026/11/25/[$LATEST]a"


def test_since_and_filter_choose(empty: Account, put: Put, folder: Path) -> None:
    """Both are CloudWatch's to do."""
    put("one ERROR", ago=100_000)
    put("two ERROR", "two", ago=20_000)
    assert run(empty, folder, "--filter", "ERROR").stdout.count("\n") == 2
    assert (
        run(empty, folder, "--since", "60s", "--filter", "ERROR").stdout.splitlines()[0].endswith("two ERROR")
    )
    assert run(empty, folder, "--since", "60s").stdout.count("\n") == 2
    assert run(empty, folder, "--since", stamp(60_000)).stdout.count("\n") == 2


def test_an_empty_log_is_told(empty: Account, put: Put, folder: Path) -> None:
    """On stderr, which a pipe does not see; a machine sees no document."""
    put("too old", ago=700_000)
    done = run(empty, folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == '"shop" has logged nothing since 10m, or it has not arrived yet\n'
    machine = run(empty, folder, "--json")
    assert (machine.returncode, machine.stdout, machine.stderr) == (0, "", "")


@pytest.mark.parametrize("options", [(), ("--follow",)], ids=["read", "follow"])
def test_no_log_at_all_is_told_with_what_makes_one(
    empty: Account, folder: Path, options: tuple[str, ...]
) -> None:
    """The function, the region and the commands."""
    done = run(empty, folder, *options)
    assert (done.returncode, done.stdout) == (7, "")
    [error, hint] = done.stderr.splitlines()
    assert error == 'error: The function "shop" has no log yet in eu-west-1'
    assert "lambdeno deploy" in hint
    assert "lambdeno invoke --remote" in hint


def test_a_wrong_since_is_a_wrong_command_line(empty: Account, folder: Path) -> None:
    """Told before AWS is asked; as JSON where that is asked for."""
    done = run(empty, folder, "--since", "noon")
    assert done.returncode == 2
    assert done.stderr.startswith('error: "noon" is no time\nhint: ')
    assert json.loads(run(empty, folder, "--since", "noon", "--json").stdout)["exit_code"] == 2
    assert empty.calls() == []


def test_a_wrong_filter_is_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch, cloud: Account) -> None:
    """In CloudWatch's words, with patterns that are right."""
    with answering(logs_refusal(400, "InvalidParameterException", "Invalid filter pattern")) as said:
        monkeypatch.setenv("AWS_ENDPOINT_URL", said.endpoint)
        with pytest.raises(UsageError) as caught:
            list(logs.read(cloud.aws(), PROJECT, 0, "{ $.level"))
    assert caught.value.message == "Cannot filter by '{ $.level': Invalid filter pattern"
    assert "$.level" in caught.value.hint


def test_a_log_of_several_pages_is_read_as_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, cloud: Account
) -> None:
    """A page without events is not the last; who stops reading asks for no more."""
    rows = [{"timestamp": AT, "message": str(number), "eventId": str(number)} for number in range(4)]
    pages = [
        result(events=rows[:2], nextToken="2"),
        result(events=[], nextToken="3"),
        result(events=rows[2:]),
    ]
    with answering(*pages) as said:
        monkeypatch.setenv("AWS_ENDPOINT_URL", said.endpoint)
        read = logs.read(cloud.aws(), PROJECT, 7)
        assert [next(read).message, next(read).message] == ["0", "1"]
        assert len(said.requests) == 1
        assert [event.message for event in read] == ["2", "3"]
    asked = [json.loads(body) for body in said.bodies]
    assert [body.get("nextToken") for body in asked] == [None, "2", "3"]
    assert asked[0] == {"logGroupName": GROUP, "startTime": 7, "interleaved": True}


def test_a_reader_that_has_enough_ends_it_quietly(empty: Account, put: Put, folder: Path) -> None:
    """`lambdeno logs | head -1` says nothing of it."""
    put(*(f"line {number} " + "x" * 1000 for number in range(500)), ago=5000)
    with subprocess.Popen(
        [LAMBDENO, "logs"], cwd=folder, env=empty.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert b"line 0 " in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


# --- colours ------------------------------------------------------------------------------------


def on_a_terminal(cloud: Account, folder: Path, **variables: str) -> list[str]:
    """What ``lambdeno logs`` shows on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**cloud.environment, "TERM": "xterm-256color", **variables}
    with subprocess.Popen([LAMBDENO, "logs"], cwd=folder, env=environment, stdout=theirs, stderr=theirs):
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    return seen.decode().splitlines()


def test_levels_have_colours_on_a_terminal(empty: Account, put: Put, folder: Path) -> None:
    """Red, yellow, dim; none with NO_COLOR, and none of the function's own."""
    levels = ("FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE")
    put(*(f"{stamp(5000)}\t{ID}\t{level}\t\x1b[35mx" for level in levels), f"END RequestId: {ID}", ago=5000)
    shown = on_a_terminal(empty, folder)
    red, yellow, dim = "\x1b[31m", "\x1b[33m", "\x1b[2m"
    starts = [found[0] if (found := re.match(r"\x1b\[\d+m", line)) else "" for line in shown]
    assert starts == [red, red, yellow, "", dim, dim, dim]
    assert all(r"\x1b[35mx" in line for line in shown[:-1])
    assert not any("\x1b" in line for line in on_a_terminal(empty, folder, NO_COLOR="1"))
    assert "\x1b" not in run(empty, folder).stdout


def test_a_terminal_of_another_alphabet_is_no_error(empty: Account, put: Put, folder: Path) -> None:
    """What its encoding has not is written as numbers."""
    put("Grüße 🎉", ago=5000)
    done = run(empty, folder, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.stdout.endswith("Gr\\xfc\\xdfe \\U0001f389\n")


# --- following ----------------------------------------------------------------------------------


class Enough(Exception):
    """A test has seen what it wanted to."""


def follow(cloud: Account, *between: Callable[[], None], start: int | None = None, **more: Any) -> list[str]:
    """What is told while these things happen, one after each poll; then one more poll."""
    steps = iter(between)
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        assert 1 <= seconds <= 2
        step = next(steps, None)
        if step is None:
            raise Enough
        step()

    begin = int(time.time() * 1000) - 600_000 if start is None else start
    with contextlib.suppress(Enough):
        for event in logs.follow(cloud.aws(sleep=sleep), PROJECT, begin, **more):
            seen.append(event.message)  # noqa: PERF401 - it ends by an exception
    return seen


def test_following_tells_what_comes_and_each_event_once(empty: Account, put: Put) -> None:
    """Also events of the same millisecond, and with the same words."""
    put("one", "same", ago=3000)
    seen = follow(
        empty,
        lambda: None,
        lambda: put("same", "two", ago=2000),
        lambda: put("same", stream="b", ago=2000),
        lambda: None,
    )
    assert seen == ["one", "same", "same", "two", "same"]


def test_an_event_that_arrives_late_is_not_lost(empty: Account, put: Put) -> None:
    """Though newer ones were told already."""
    put("new", ago=1000)
    seen = follow(
        empty, lambda: put("late", ago=100_000), lambda: put("newer"), lambda: put("as late", ago=110_000)
    )
    assert seen == ["new", "late", "newer", "as late"]


def test_following_asks_for_no_more_than_the_last_two_minutes(empty: Account, put: Put) -> None:
    """So that a poll stays small, however long it goes on."""
    put("old", ago=500_000)
    seen = follow(empty, lambda: put("new"), lambda: put("later than any", ago=130_000), lambda: None)
    assert seen == ["old", "new"]


def test_an_event_of_the_future_hides_nothing(empty: Account, put: Put) -> None:
    """A stream whose clock is wrong must not move the window past the others."""
    put("of tomorrow's clock", ago=-3_600_000)
    seen = follow(empty, lambda: put("now"), lambda: put("and now"), lambda: None)
    assert seen == ["of tomorrow's clock", "now", "and now"]


def test_following_begins_where_it_was_told_to(empty: Account, put: Put) -> None:
    """The window never reaches back over --since."""
    put("before", ago=60_000)
    put("after", ago=10_000)
    assert follow(empty, lambda: None, start=int(time.time() * 1000) - 30_000) == ["after"]


def test_following_filters(empty: Account, put: Put) -> None:
    """In each poll."""
    put("one ERROR", "one", ago=10_000)
    assert follow(empty, lambda: put("two", "two ERROR"), pattern="ERROR") == ["one ERROR", "two ERROR"]


@pytest.mark.parametrize(
    ("number", "last"), [(signal.SIGINT, "\n"), (signal.SIGTERM, ""), (signal.SIGHUP, "")]
)
def test_follow_prints_at_once_and_ends_with_ctrl_c(
    empty: Account, put: Put, folder: Path, number: signal.Signals, last: str
) -> None:
    """A line is on stdout before the next event is there; it ends by the signal, without a traceback."""
    put("first", ago=1000)
    command = [LAMBDENO, "logs", "--follow"]
    with subprocess.Popen(
        command, cwd=folder, env=empty.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().endswith("first\n")
        for word in ("second", "third"):
            put(word)
            assert process.stdout.readline().endswith(f"{word}\n")
        process.send_signal(number)
        assert process.stdout.read() == ""
        assert process.stderr.read() == last
        assert process.wait(10) == -number


def test_a_fault_of_cloudwatch_is_waited_out(monkeypatch: pytest.MonkeyPatch, cloud: Account) -> None:
    """A read may be repeated; what was told already is not told again."""
    row = {"timestamp": AT, "message": "one", "eventId": "1"}
    answers = [
        result(events=[row]),
        logs_refusal(500, "ServiceUnavailableException", "later"),
        logs_refusal(400, "ThrottlingException", "Rate exceeded"),
        result(events=[row, {**row, "message": "two", "eventId": "2"}]),
    ]
    with answering(*answers) as said:
        monkeypatch.setenv("AWS_ENDPOINT_URL", said.endpoint)
        events = logs.follow(cloud.aws(sleep=lambda _: None), PROJECT, 0)
        assert [event.message for event in itertools.islice(events, 2)] == ["one", "two"]
    assert len(said.requests) == 4


def test_rights_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, cloud: Account) -> None:
    """As everywhere: the action and the thing."""
    with answering(logs_refusal(400, "AccessDeniedException", "")) as said:
        monkeypatch.setenv("AWS_ENDPOINT_URL", said.endpoint)
        with pytest.raises(AwsError, match=rf"^Access denied: logs:FilterLogEvents on {GROUP}$"):
            list(logs.read(cloud.aws(), PROJECT, 0))
