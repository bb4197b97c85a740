"""The function's log: console as Lambda's Node runtime has it, and whole events for the platform."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.layer.conftest import LAYER, Calling, Environment, Start, this_python
from tests.layer.fake_runtime_api import DEADLINE, Answer, Event, FakeRuntimeApi
from tests.layer.test_bridge import HANDLER, MESSAGES, WRITES
from tests.layer.test_deno_ends import holds

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
METHODS = {
    "trace": "TRACE",
    "debug": "DEBUG",
    "log": "INFO",
    "info": "INFO",
    "warn": "WARN",
    "error": "ERROR",
    "fatal": "FATAL",
}
EVERY_METHOD = "".join(f'console.{method}("said by {method}");' for method in METHODS)
JSON_LOGS = {"AWS_LAMBDA_LOG_FORMAT": "JSON"}
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\t([^\t]*)\t([A-Z]+)\t(.*)", re.DOTALL)


def handling(statements: str, *, loading: str = "") -> str:
    """A function that runs the statements for each event, and others while it loads."""
    return f"{loading}\nexport const handler = async (event, context) => {{ {statements} }};\n"


def lines(environment: Environment) -> list[str]:
    """The lines of the log; no reader that takes a carriage return for a line's end."""
    text = environment.log_file.read_bytes().decode()
    assert not text or text.endswith("\n"), text
    return text.split("\n")[:-1]


def texts(environment: Environment) -> list[tuple[str, str, str]]:
    """Request id, level and text of each line, all of which must have Node's format."""
    found = [LINE.fullmatch(line) for line in lines(environment)]
    assert all(found), environment.log
    return [(match[2], match[3], match[4]) for match in found if match]


def records(environment: Environment) -> list[dict[str, Any]]:
    """The lines of the log, all of which must be JSON."""
    return [json.loads(line) for line in lines(environment)]


def is_now(stamp: str) -> bool:
    """Whether a time in the log is of this test."""
    seconds = time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return abs(time.time() - seconds) < 60


# --- as text ------------------------------------------------------------------------------------


def test_level_and_request_of_each_method(start: Start) -> None:
    """Each method of console has its level, and its line the time and the id of its request."""
    environment = start(handling(EVERY_METHOD))
    environment.result(request_id="an-id")
    environment.result(request_id="the-next")
    said = texts(environment)
    levels = list(METHODS.values())
    assert [(request, level) for request, level, _ in said] == [
        (request, level) for request in ("an-id", "the-next") for level in levels
    ]
    for method, (_, _, text) in zip([*METHODS, *METHODS], said, strict=True):
        assert f"said by {method}" in text
    assert all(is_now(line.split("\t")[0]) for line in lines(environment))


def test_nothing_is_requested_while_the_function_loads(start: Start) -> None:
    """Before the first event the request id is undefined, as in Node's runtime."""
    environment = start(handling("", loading='console.log("loading");'))
    environment.result()
    assert texts(environment)[0] == ("undefined", "INFO", "loading")


@pytest.mark.parametrize(
    ("statement", "level", "text"),
    [
        ("console.log('plain')", "INFO", "plain"),
        ("console.log()", "INFO", ""),
        ("console.log('%s is %d, %i, %f', 'x', 1.5, 2.7, 3.5)", "INFO", "x is 1, 2, 3.5"),
        (
            "console.log('%j %o %O %% %c.', {a:1}, [1], {b:2}, 'color: red')",
            "INFO",
            '{"a":1} [ 1 ] { b: 2 } % .',
        ),
        ("console.log('%s %s', 'a')", "INFO", "a %s"),
        ("console.warn('a', '%s', 1)", "WARN", "a %s 1"),
        ("console.log(undefined, null, 1n, Symbol('s'), true)", "INFO", "undefined null 1n Symbol(s) true"),
        ("console.log({ a: [1, { b: 'c' }] })", "INFO", '{ a: [ 1, { b: "c" } ] }'),
        ("console.log(new Map([['a', 1]]), new Set([1]))", "INFO", 'Map(1) { "a" => 1 } Set(1) { 1 }'),
        ("const a = {}; a.a = a; console.log(a)", "INFO", "<ref *1> { a: [Circular *1] }"),
        ("console.error('é 😀 \\u2028 \\0')", "ERROR", "é 😀 \u2028 \0"),
        ("console.info('a\\tb')", "INFO", "a\tb"),
        ("console.log('one\\ntwo\\r\\nthree\\n')", "INFO", "one\rtwo\r\rthree\r"),
        ("console.dir({ a: 1 })", "INFO", "{ a: 1 }"),
        ("console.dirxml({ a: 1 })", "INFO", "{ a: 1 }"),
        ("console.assert(false, 'not %d', 1)", "ERROR", "Assertion failed: not 1"),
        ("console.assert(false)", "ERROR", "Assertion failed"),
        ("console.count()", "INFO", "default: 1"),
        ("console.timeEnd('never')", "WARN", "Timer 'never' does not exist"),
    ],
)
def test_text_of_one_call(start: Start, statement: str, level: str, text: str) -> None:
    """What a method of console is given is formatted as Deno does; one call is one line."""
    environment = start(handling(f"{statement};"))
    environment.result(request_id="id")
    assert texts(environment) == [("id", level, text)]


def test_errors_have_their_stack_in_one_line(start: Start) -> None:
    """An error is logged with its stack, its cause and its properties, in one line."""
    environment = start(
        handling(
            """
            const error = new RangeError("outer", { cause: new TypeError("inner") });
            console.error("failed:", Object.assign(error, { code: "E1" }));
            """
        )
    )
    environment.result(request_id="id")
    [(_, level, text)] = texts(environment)
    assert level == "ERROR"
    assert text.startswith("failed: RangeError: outer\r    at ")
    for part in ("function.bundle.js:3:", "TypeError: inner", 'code: "E1"'):
        assert part in text


def test_trace_tells_where_it_was_called(start: Start) -> None:
    """console.trace formats its values and adds the function's frames, none of the bridge above them."""
    environment = start("function inner() { console.trace('at %s', 'x'); }\n" + handling("inner();"))
    environment.result()
    [(_, level, text)] = texts(environment)
    assert level == "TRACE"
    head, first, second, *_ = text.split("\r")
    assert head == "Trace: at x"
    assert re.search(r"at inner \(file://.*function\.bundle\.js:1:\d+\)", first)
    assert re.search(r"at handler \(file://.*function\.bundle\.js:3:\d+\)", second)
    assert "at trace" not in text.lower()


def test_groups_indent(start: Start) -> None:
    """console.group indents what follows, every line of it, until it ends."""
    environment = start(
        handling(
            """
            console.group("outer");
            console.log("one\\ntwo");
            console.groupCollapsed("inner");
            console.warn("deep");
            console.groupEnd();
            console.error("back");
            console.groupEnd();
            console.log("out");
            """
        )
    )
    environment.result()
    assert [(level, text) for _, level, text in texts(environment)] == [
        ("INFO", "outer"),
        ("INFO", "  one\r  two"),
        ("INFO", "  inner"),
        ("WARN", "    deep"),
        ("ERROR", "  back"),
        ("INFO", "out"),
    ]


COUNTING = """
console.table([{ a: 1 }, { a: 2 }]);
console.count("x"); console.count("x"); console.countReset("x"); console.count("x");
console.time("t"); console.timeLog("t", "half"); console.timeEnd("t");
console.assert(true, "fine");
"""


def test_tables_counts_and_timers(start: Start) -> None:
    """The rest of console is logged at INFO, a table too is one line, and what holds says nothing."""
    environment = start(handling(COUNTING))
    environment.result()
    said = texts(environment)
    assert {level for _, level, _ in said} == {"INFO"}
    table, *counts, half, end = [text for _, _, text in said]
    assert table.count("\r") == 5
    assert "│ (idx) │ a │" in table
    assert counts == ["x: 1", "x: 2", "x: 1"]
    assert re.fullmatch(r"t: [\d.]+ms half", half)
    assert re.fullmatch(r"t: [\d.]+ms", end)


# --- as JSON ------------------------------------------------------------------------------------


def test_record_of_each_method(start: Start) -> None:
    """A record has time, level and message; request and tenant from the first event on."""
    environment = start(handling(EVERY_METHOD, loading='console.log("loading");'), **JSON_LOGS)
    environment.result(request_id="an-id", headers={"Lambda-Runtime-Aws-Tenant-Id": "a tenant"})
    environment.result(request_id="the-next")
    every = records(environment)
    assert every[0].keys() == {"timestamp", "level", "message"}
    assert every[0]["message"] == "loading"
    said = [record for record in every if record["message"] != "loading"]  # runtime2: each process does
    levels = list(METHODS.values())
    of_first, of_next = said[: len(levels)], said[len(levels) :]
    for requested, of_request in (("an-id", of_first), ("the-next", of_next)):
        assert [record["level"] for record in of_request] == levels
        assert {record["requestId"] for record in of_request} == {requested}
        assert all(is_now(record["timestamp"]) for record in of_request)
        for method, record in zip(METHODS, of_request, strict=True):
            assert f"said by {method}" in record["message"]
    assert all(list(r) == ["timestamp", "level", "requestId", "tenantId", "message"] for r in of_first)
    assert {record["tenantId"] for record in of_first} == {"a tenant"}
    assert all(list(r) == ["timestamp", "level", "requestId", "message"] for r in of_next)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("'plain'", "plain"),
        ("'100 %s'", "100 %s"),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ("[1, 'a', null]", [1, "a", None]),
        ("{ a: { b: [1] } }", {"a": {"b": [1]}}),
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("{ toJSON: () => 'its own' }", "its own"),
        ("'a\\nb\\u2028\\0\\ud800'", "a\nb\u2028\0\ud800"),
        ("'%s is %d', 'x', 2", "x is 2"),
        ("'a', { b: 1 }", "a { b: 1 }"),
        ("", ""),
        ("1n", "1n"),
        ("{ a: 1n }", "{ a: 1n }"),
        ("cyclic", "<ref *1> { a: [Circular *1] }"),
        ("{ toJSON() { throw new Error('no'); } }", "{ toJSON: [Function: toJSON] }"),
        ("undefined", "undefined"),
        ("Symbol('s')", "Symbol(s)"),
    ],
)
def test_message_of_a_record(start: Start, values: str, message: Any) -> None:
    """One value stays as it is in JSON; several, and what JSON does not have, are formatted."""
    statements = f"const cyclic = {{}}; cyclic.a = cyclic; console.log({values});"
    environment = start(handling(statements), **JSON_LOGS)
    environment.result()
    [record] = records(environment)
    assert record.keys() == {"timestamp", "level", "requestId", "message"}
    assert record["message"] == message


def test_error_in_a_record(start: Start) -> None:
    """An error alone is an object: type, message, stack, own properties, cause, and collected errors."""
    environment = start(
        handling(
            """
            class MyError extends Error { code = "E1"; big = 1n; nested = { a: 1 }; }
            const collected = new AggregateError([new RangeError("first"), "second"], "several");
            console.error(new MyError("outer", { cause: collected }));
            """
        ),
        **JSON_LOGS,
    )
    environment.result()
    [record] = records(environment)
    assert record["level"] == "ERROR"
    error = record["message"]
    assert error.keys() == {"errorType", "errorMessage", "stackTrace", "code", "big", "nested", "cause"}
    assert (error["errorType"], error["errorMessage"]) == ("MyError", "outer")
    assert (error["code"], error["big"], error["nested"]) == ("E1", "1n", {"a": 1})
    assert error["stackTrace"][0] == "Error: outer"
    assert "function.bundle.js:5:" in error["stackTrace"][1]
    cause = error["cause"]
    assert (cause["errorType"], cause["errorMessage"]) == ("AggregateError", "several")
    assert [one if isinstance(one, str) else one["errorType"] for one in cause["errors"]] == [
        "RangeError",
        "second",
    ]


def test_error_among_several_values(start: Start) -> None:
    """Several values are one text, beside which the first error has its type, message and stack."""
    environment = start(
        handling("console.warn('failed:', 1, new TypeError('a'), new RangeError('b'));"), **JSON_LOGS
    )
    environment.result()
    [record] = records(environment)
    assert record["message"].startswith("failed: 1 TypeError: a\n    at ")
    assert "RangeError: b" in record["message"]
    assert (record["errorType"], record["errorMessage"]) == ("TypeError", "a")
    assert record["stackTrace"][0] == "TypeError: a"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("{ error: new TypeError('inner') }", ["error"]),
        ("[new TypeError('inner')]", [0]),
        ("Object.assign(new Error('outer'), { reason: new TypeError('inner') })", ["reason"]),
    ],
)
def test_error_inside_a_value(start: Start, value: str, path: list[str | int]) -> None:
    """An error in an object, a list or another error is not an empty object, as in Node's runtime."""
    environment = start(handling(f"console.log({value});"), **JSON_LOGS)
    environment.result()
    [record] = records(environment)
    found = record["message"]
    for key in path:
        found = found[key]
    assert (found["errorType"], found["errorMessage"]) == ("TypeError", "inner")


@pytest.mark.parametrize(
    "value",
    [
        "Object.assign(new Error('x'), { self: cyclic })",
        "Object.assign(new Error('x'), { big: 1n, symbol: Symbol('s'), f() {}, nothing: undefined })",
        "(cyclic.cause = cyclic, Object.assign(new Error('x'), { cause: cyclic }))",
        "(() => { const e = new Error('x'); e.cause = e; return e; })()",
        "(() => { const e = new AggregateError([], 'x'); e.errors.push(e); return e; })()",
        "Object.defineProperty(new Error('x'), 'code', { enumerable: true, get() { throw 1; } })",
        "Object.defineProperty(new Error('x'), 'stack', { get() { throw 1; } })",
        "{ name: 'Like', message: 'x', stack: 'Like: x' }",
    ],
)
@pytest.mark.parametrize("more", ["", ", 'more'"])
def test_no_error_is_too_odd_for_a_record(start: Start, value: str, more: str) -> None:
    """Cycles, what JSON does not have and getters that throw: there is a record, and console never throws."""
    environment = start(
        handling(f"const cyclic = {{}}; cyclic.a = cyclic; console.error({value}{more}); return 'fine';"),
        **JSON_LOGS,
    )
    assert environment.result() == "fine"
    [record] = records(environment)
    error = record if more else record["message"]
    assert error["errorMessage"] == "x"


def test_the_rest_of_console_in_records(start: Start) -> None:
    """Tables, counts, groups and timers are records too, each with its text."""
    environment = start(
        handling(COUNTING + 'console.group("g"); console.dir({ a: 1 }); console.assert(false, "no");'),
        **JSON_LOGS,
    )
    environment.result()
    said = [(record["level"], record["message"].strip()) for record in records(environment)]
    assert "│ (idx) │ a │" in said[0][1]
    assert said[1:4] == [("INFO", "x: 1"), ("INFO", "x: 2"), ("INFO", "x: 1")]
    assert said[6:] == [("INFO", "g"), ("INFO", "{ a: 1 }"), ("ERROR", "Assertion failed: no")]


FAULTS = {
    "thrown": (handling("throw new RangeError('thrown \\n twice');"), "Function.RangeError"),
    "exit": (handling("Deno.exit(3);"), "Runtime.ExitError"),
    "rejection": (
        handling("Promise.reject(new Error('forgotten')); await new Promise(() => {});"),
        "Runtime.UnhandledPromiseRejection",
    ),
    "no result": (handling("return 1n;"), "Runtime.MarshalError"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_line_is_a_document(start: Start, name: str) -> None:
    """With JSON logs what fails is told in JSON too, by the bridge and by the bootstrap, at level ERROR."""
    bundle, error_type = FAULTS[name]
    environment = start(bundle, **JSON_LOGS)
    post, error = environment.error(request_id="an-id")
    assert post.error_type == error_type
    said = records(environment)
    assert said
    assert {record["level"] for record in said} == {"ERROR"}
    assert {record.get("requestId") for record in said} == {"an-id"}
    assert error["errorMessage"].split(": ")[-1][:6] in json.dumps(said)


@pytest.mark.parametrize(
    ("bundle", "variables"),
    [
        ('throw new Error("broken");', {}),
        ("export const other = 1;", {}),
        (None, {"_HANDLER": "other.handler"}),
        ("export const handler = () => 1;", {"LAMBDENO_STANDBY": "perhaps"}),
        ("Deno.exit(3);", {}),
    ],
)
def test_every_line_of_a_failed_start_is_a_document(
    start: Start, bundle: str | None, variables: dict[str, str]
) -> None:
    """An environment that cannot start says why in JSON."""
    environment = start(bundle, **JSON_LOGS, **variables)
    _, error = environment.init_error()
    said = records(environment)
    assert {record["level"] for record in said} == {"ERROR"}
    messages = [record["message"] for record in said]
    assert error["errorMessage"] in [
        message["errorMessage"] if isinstance(message, dict) else message.split(": ", 2)[2]
        for message in messages
        if isinstance(message, dict) or message.startswith("lambdeno: ")
    ]


def test_a_missing_function_is_a_warning(start: Start) -> None:
    """Where the layer's own function answers, the log says so in the function's format."""
    environment = start(None, **JSON_LOGS)
    environment.invoke()
    assert records(environment)[0]["level"] == "WARN"
    assert "dummy function" in records(environment)[0]["message"]


# --- levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize(
    ("level", "least"),
    [
        *((level, level) for level in LEVELS),
        *((level.lower(), level) for level in LEVELS),
        ("Warn", "WARN"),
        ("", "TRACE"),
        ("LOUD", "TRACE"),
        (None, "TRACE"),
    ],
)
def test_level_filters(start: Start, log_format: str, level: str | None, least: str) -> None:
    """What is below AWS_LAMBDA_LOG_LEVEL is not logged, in both formats; an unknown level filters nothing."""
    environment = start(
        handling(EVERY_METHOD + "console.table([1]); console.assert(false, 'a');"),
        AWS_LAMBDA_LOG_FORMAT=log_format,
        AWS_LAMBDA_LOG_LEVEL=level,
    )
    environment.result()
    if log_format == "JSON":
        levels = [record["level"] for record in records(environment)]
    else:
        levels = [said for _, said, _ in texts(environment)]
    passing = LEVELS[LEVELS.index(least) :]
    assert levels == [said for said in [*METHODS.values(), "INFO", "ERROR"] if said in passing]


@pytest.mark.parametrize(("level", "is_told"), [("ERROR", True), ("FATAL", False)])
def test_level_filters_our_own_words(start: Start, level: str, is_told: bool) -> None:
    """What the runtime has to say obeys the function's level."""
    environment = start(handling("Deno.exit(3);"), AWS_LAMBDA_LOG_LEVEL=level)
    environment.error()
    assert ("exit status 3" in environment.log) is is_told


# --- the telemetry descriptor -------------------------------------------------------------------

# Opens the pipe of the test, under a number, and becomes the bootstrap.
GIVE = """
import os, sys
pipe, number, executable, *words = sys.argv[1:]
opened = os.open(pipe, os.O_WRONLY)
os.dup2(opened, int(number))
os.set_inheritable(int(number), True)
if opened != int(number):
    os.close(opened)
os.execve(executable, words, {**os.environ, "_LAMBDA_TELEMETRY_LOG_FD": number})
"""
NUMBER = 62  # of the descriptor: none that a process opens by itself
TEXT, JSON = 0xA55A0003, 0xA55A0002


@dataclass(frozen=True)
class Frame:
    """One log event as the platform gets it."""

    kind: int
    microseconds: int
    text: str


@dataclass
class Telemetry:
    """The platform's end of the descriptor; reads all the time, since a writer must never wait."""

    pipe: Path
    data: bytearray = field(default_factory=bytearray)
    environment: Environment | None = None

    def frames(self) -> list[Frame]:
        """All whole events so far; nothing else may be between them."""
        found = []
        data = bytes(self.data)
        at = 0
        while len(data) >= at + 16:
            kind, length, microseconds = struct.unpack_from(">IIQ", data, at)
            assert kind & 0xFFFFFF00 == 0xA55A0000, data[at : at + 64]
            if len(data) < at + 16 + length:
                break
            found.append(Frame(kind, microseconds, data[at + 16 : at + 16 + length].decode()))
            at += 16 + length
        return found

    def messages(self) -> list[str]:
        """What was logged: the last field of a text event, then of those that came as lines."""
        return [text.split("\t", 3)[-1] for text in (frame.text for frame in self.frames())] + self.lines()

    def lines(self) -> list[str]:
        """What of the log events came as lines: what might not have left Deno in time as a frame."""
        log = self.environment.log_file.read_bytes().decode() if self.environment else ""
        lines = re.findall(r"^\d{4}-\S+Z\t[^\t\n]*\t[A-Z]+\t([^\n]*)$", log, re.MULTILINE)
        return [line.replace("\r", "\n") for line in lines]

    def has(self, *texts: str) -> bool:
        """Whether events with these texts come in time."""
        return holds(lambda: all(any(text in said for said in self.messages()) for text in texts))


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    """A pipe to write log events to."""
    pipe = tmp_path / "telemetry"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # both, so that it has no end
    platform = Telemetry(pipe)
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            if select.select([reading], [], [], 0.02)[0]:
                with contextlib.suppress(BlockingIOError):
                    platform.data += os.read(reading, 1024 * 1024)

    thread = threading.Thread(target=read)
    thread.start()
    yield platform
    is_over.set()
    thread.join(DEADLINE)
    os.close(reading)


@pytest.fixture
def start_told(start: Start, called: Calling, telemetry: Telemetry) -> Start:
    """Start an execution environment whose platform takes log events."""

    def start_told(bundle: str | None, **options: Any) -> Environment:
        words, executable = called(LAYER)
        launch = [this_python(), "-ISBc", GIVE, telemetry.pipe, str(NUMBER), executable or words[0], *words]
        telemetry.environment = start(bundle, command=launch, **options)
        return telemetry.environment

    return start_told


@pytest.mark.parametrize(("log_format", "base"), [("Text", TEXT), ("JSON", JSON)])
def test_events_have_their_level_and_time(
    start_told: Start, telemetry: Telemetry, log_format: str, base: int
) -> None:
    """Each call is an event of its format's type and its level, with the time in microseconds, in order."""
    environment = start_told(handling(EVERY_METHOD), AWS_LAMBDA_LOG_FORMAT=log_format)
    environment.result(request_id="an-id")
    assert telemetry.has("said by fatal")
    frames = telemetry.frames()
    assert [frame.kind for frame in frames] == [
        base | 4 * (LEVELS.index(level) + 1) for level in METHODS.values()
    ]
    for frame, (method, level) in zip(frames, METHODS.items(), strict=True):
        assert abs(frame.microseconds / 1_000_000 - time.time()) < 60
        if log_format == "JSON":
            record = json.loads(frame.text)
            said = (record["requestId"], record["level"], record["message"])
        else:
            line = LINE.fullmatch(frame.text)
            assert line
            said = (line[2], line[3], line[4])
        assert said[:2] == ("an-id", level)
        assert f"said by {method}" in said[2]
    assert environment.log == ""


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1"])
@pytest.mark.parametrize("written", ["a result", "a word", "the start of a message"])
def test_a_late_message_costs_no_invocation(start_told: Start, telemetry: Telemetry, written: str) -> None:
    """Log events are read between two events: a process that wrote anything else is replaced then."""
    environment = start_told(WRITES + HANDLER)
    assert environment.result({"returns": 1, "late": MESSAGES[written]}) == 1
    assert telemetry.has("Runtime.AnswerMismatch")
    for number in range(2, 5):
        assert environment.result({"returns": number}) == number


def test_events_keep_their_newlines(start_told: Start, telemetry: Telemetry) -> None:
    """An event has no need to be one line."""
    start_told(handling("console.log('one\\ntwo\\r\\nthree\\n'); console.log('é😀');")).result()
    assert telemetry.has("é😀")
    assert telemetry.messages() == ["one\ntwo\r\nthree\n", "é😀"]


def test_events_of_every_time(start_told: Start, telemetry: Telemetry) -> None:
    """What is logged while the function loads and in the handler: all of it, in order."""
    bundle = handling(
        """
        console.log(`${event} begins`);
        await new Promise((resolve) => setTimeout(resolve, 5));
        console.log(`${event} ends`);
        """,
        loading='console.log("loading");',
    )
    environment = start_told(bundle)
    for name in ("first", "second"):
        environment.result(name)
    assert telemetry.has("second ends")
    said = telemetry.messages()
    assert said[0] == "loading"
    # runtime2 has a process for each event, and each of them loads the function
    wanted = [f"{name} {what}" for name in ("first", "second") for what in ("begins", "ends")]
    assert [text for text in said if text != "loading"] == wanted


# runtime2 ends the process, with its timers, when the answer is there.
one_process = pytest.mark.parametrize(
    "combination", ["source-runtime1", "binary-runtime1", "managed-runtime1"]
)


@one_process
def test_events_after_the_answer_come_with_the_next(start_told: Start, telemetry: Telemetry) -> None:
    """What is logged after the answer is there by the next one, before what that logs, under its own id."""
    environment = start_told(
        handling("setTimeout(() => console.log(`after ${event}`), 100); console.log(event);")
    )
    environment.result("first", request_id="id-1")
    assert environment.waits_for_next(2)
    time.sleep(0.4)
    environment.result("second", request_id="id-2")
    assert telemetry.has("second")
    assert telemetry.messages()[:3] == ["first", "after first", "second"]
    assert [frame.text.split("\t")[1] for frame in telemetry.frames()[:3]] == ["id-1", "id-1", "id-2"]


@one_process
def test_events_after_the_answer_do_not_wait(start_told: Start, telemetry: Telemetry) -> None:
    """What is logged after the answer is with the platform though no other event comes."""
    environment = start_told(handling("setTimeout(() => console.log('after'), 50);"))
    environment.result()
    assert environment.waits_for_next(2)
    time.sleep(1)
    assert telemetry.messages() == ["after"]


# Logs in the turn of the answer, right behind it.
BEHIND = """
(async () => {
  for (let i = 0; i < 40; i++) await null;
  console.log(`after ${event} `.padEnd(SIZE, "."));
})();
"""


@one_process
def test_events_right_behind_the_answer(start_told: Start, telemetry: Telemetry) -> None:
    """What is logged in the very turn of the answer is not lost."""
    environment = start_told(handling(BEHIND.replace("SIZE", "0")))
    for number in range(40):
        environment.result(number)
    environment.result("last")
    assert telemetry.has("after 39")
    said = [text for text in telemetry.messages() if "last" not in text]
    assert said == [f"after {number} " for number in range(40)]


@one_process
def test_large_events_right_behind_the_answer(
    start_told: Start, telemetry: Telemetry, api: FakeRuntimeApi
) -> None:
    """A large event that begins in the turn of the answer holds no invocation up."""
    environment = start_told(handling(BEHIND.replace("SIZE", "300 * 1024")))
    for number in range(40):
        api.events.put(Answer([Event(b"%d" % number, f"id-{number}").to_bytes()]))
        assert api.posts.get(timeout=10).path.endswith(f"/id-{number}/response")
    environment.result("last")
    assert telemetry.has("after 39")


def test_events_before_the_answer_are_there_first(start_told: Start, telemetry: Telemetry) -> None:
    """What a handler logs is with the platform when its answer is: the environment may freeze then."""
    environment = start_told(handling("for (let i = 0; i < 50; i++) console.log(event, i);"))
    for name in ("a", "b", "c"):
        environment.result(name)
        assert telemetry.has(f"{name} 49")
    assert telemetry.messages() == [f"{name} {number}" for name in "abc" for number in range(50)]


LARGE = 300 * 1024


def test_large_events_are_whole(start_told: Start, telemetry: Telemetry) -> None:
    """Events of 300 KB, and small ones between them, arrive whole; so does the result."""
    environment = start_told(
        handling(
            """
            for (let i = 0; i < 4; i++) {
              console.log(`${i}`.repeat(300 * 1024));
              console.log(`after ${i}`);
            }
            return "r".repeat(300 * 1024);
            """
        )
    )
    assert environment.result() == "r" * LARGE
    assert telemetry.has("after 3")
    wanted = [text for number in range(4) for text in (f"{number}" * LARGE, f"after {number}")]
    assert sorted(telemetry.messages()) == sorted(wanted)


def test_very_many_events(start_told: Start, telemetry: Telemetry) -> None:
    """Ten thousand events in one turn of the event loop arrive, as frames or as lines."""
    environment = start_told(
        handling("for (let i = 0; i < 10_000; i++) console.log(`number ${i}`); return 1;")
    )
    assert environment.result() == 1
    assert telemetry.has("number 9999")
    assert sorted(telemetry.messages()) == sorted(f"number {number}" for number in range(10_000))


@pytest.mark.parametrize(
    ("end", "part"),
    [
        ("Deno.exit(3);", "exit status 3"),
        ("process.exit(4);", "exit status 4"),
        ('Deno.kill(Deno.pid, "SIGKILL");', "signal: SIGKILL"),
        ("Promise.reject(new Error('forgotten')); await new Promise(() => {});", "forgotten"),
    ],
)
def test_events_before_a_crash(
    start_told: Start,
    telemetry: Telemetry,
    end: str,
    part: str,
) -> None:
    """A hundred events in the turn in which Deno ends are not lost, and the bootstrap's words follow them."""
    environment = start_told(
        "import process from 'node:process';\n"
        + handling(f"for (let i = 0; i < 100; i++) console.log(`word ${{i}}`); {end}"),
        LAMBDENO_PERMISSIONS="-A",
    )
    _, error = environment.error()
    assert part in error["errorMessage"]
    assert telemetry.has(part)
    said = telemetry.messages()
    assert [text for text in said if text.startswith("word")] == [f"word {number}" for number in range(100)]
    assert any(part in text for text in said[-3:])


@pytest.mark.parametrize(("count", "size"), [(1000, 0), (100, 16 * 1024)])
def test_much_is_said_before_a_crash(start_told: Start, telemetry: Telemetry, count: int, size: int) -> None:
    """A thousand events, or a hundred of 16 KB, in the turn in which Deno ends are not lost."""
    words = f"console.log(`word ${{i}} `.padEnd({size}, '.'));"
    environment = start_told(handling(f"for (let i = 0; i < {count}; i++) {words} Deno.exit(3);"))
    environment.error()
    assert telemetry.has("exit status 3")
    said = [text.rstrip(".") for text in telemetry.messages()]
    assert set(said) >= {f"word {number} " for number in range(count)}


def test_a_large_event_before_a_crash(start_told: Start, telemetry: Telemetry) -> None:
    """An event of 300 KB in the turn in which Deno ends is not lost."""
    environment = start_told(handling("console.log('x'.repeat(300 * 1024)); Deno.exit(3);"))
    environment.error()
    assert telemetry.has("exit status 3")
    assert "x" * LARGE in telemetry.messages()


def test_events_of_a_process_that_is_killed(start_told: Start, telemetry: Telemetry) -> None:
    """What was logged before somebody killed Deno is not lost."""
    environment = start_told(
        handling(
            """
            console.log(`pid ${Deno.pid}`);
            for (let i = 0; i < 100; i++) console.log(`word ${i}`);
            await new Promise((resolve) => setTimeout(resolve, 60_000));
            """
        )
    )

    def kill() -> None:
        assert telemetry.has("word 99")
        os.kill(int(telemetry.messages()[0].split()[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    _, error = environment.error()
    killer.join(DEADLINE)
    assert "signal: SIGKILL" in error["errorMessage"]
    assert telemetry.has("signal: SIGKILL")
    assert set(telemetry.messages()) >= {f"word {number}" for number in range(100)}


def test_events_of_a_start_that_fails(start_told: Start, telemetry: Telemetry) -> None:
    """A function that cannot be loaded has its words and its error with the platform."""
    _, error = start_told("console.log('loading'); throw new Error('broken');").init_error()
    assert error["errorMessage"] == "broken"
    assert telemetry.has("broken")
    assert telemetry.messages()[0] == "loading"
    assert [frame.kind - TEXT for frame in telemetry.frames()] == [0x0C, 0x14]


def test_level_filters_events(start_told: Start, telemetry: Telemetry) -> None:
    """AWS_LAMBDA_LOG_LEVEL holds for events too."""
    start_told(handling(EVERY_METHOD), AWS_LAMBDA_LOG_LEVEL="error").result()
    assert telemetry.has("said by fatal")
    assert telemetry.messages() == ["said by error", "said by fatal"]


def test_standard_output_stays_the_functions(start_told: Start, telemetry: Telemetry) -> None:
    """With the descriptor, stdout and stderr have what the function writes there, byte for byte."""
    environment = start_told(
        handling(
            """
            console.log("an event");
            Deno.stdout.writeSync(new TextEncoder().encode("direct\\r\\n\\ttwice\\n"));
            Deno.stderr.writeSync(new TextEncoder().encode("error\\n"));
            """
        )
    )
    environment.result()
    assert telemetry.has("an event")
    assert telemetry.messages() == ["an event"]
    assert environment.log_file.read_bytes() == b"direct\r\n\ttwice\nerror\n"


def test_the_function_does_not_see_the_descriptor(start_told: Start, telemetry: Telemetry) -> None:
    """Neither the variable nor the descriptor is the function's, nor a program's that it starts."""
    environment = start_told(
        """
        const loading = Deno.env.toObject();
        export const handler = () => {
          const args = ["-c", "ls -l /proc/$PPID/fd /proc/self/fd; env"];
          const command = new Deno.Command("/bin/sh", { args });
          const child = new TextDecoder().decode(command.outputSync().stdout);
          return { loading, now: Deno.env.toObject(), child };
        };
        """,
        LAMBDENO_PERMISSIONS="-A",
    )
    seen = environment.result()
    assert "DENO_DIR" in seen["child"]
    assert "pipe:" in seen["child"]
    for where in seen.values():
        assert "_LAMBDA_TELEMETRY_LOG_FD" not in str(where)
        assert "LAMBDENO_LOGS" not in str(where)
        assert str(telemetry.pipe) not in str(where)


@pytest.mark.parametrize("number", ["99", "999999", "1234567890123", "-1", "x", ""])
def test_a_descriptor_that_is_none(start: Start, number: str) -> None:
    """A number that is no open descriptor leaves the log where it is without one, our words too."""
    environment = start(handling("console.log('said'); Deno.exit(3);"), _LAMBDA_TELEMETRY_LOG_FD=number)
    environment.error(request_id="an-id")
    said = texts(environment)
    assert said[0] == ("an-id", "INFO", "said")
    assert "exit status 3" in said[-1][2]


def test_a_descriptor_that_is_none_and_a_wrong_setting(start: Start) -> None:
    """An environment that cannot start says why, whatever the descriptor's number."""
    environment = start(_LAMBDA_TELEMETRY_LOG_FD="99", LAMBDENO_STANDBY="perhaps")
    environment.init_error()
    assert "LAMBDENO_STANDBY" in environment.log


# --- direct writes ------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_direct_writes_are_kept(start: Start, log_format: str) -> None:
    """What a function writes to its standard streams itself is in the log byte for byte, any bytes."""
    environment = start(
        handling(
            """
            const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
            Deno.stdout.writeSync(bytes);
            await Deno.stdout.write(new TextEncoder().encode("a\\nb\\r\\n"));
            Deno.stderr.writeSync(bytes);
            """
        ),
        AWS_LAMBDA_LOG_FORMAT=log_format,
        AWS_LAMBDA_LOG_LEVEL="FATAL",
    )
    environment.result()
    every = bytes(range(256))
    assert environment.waits_for_next(2)
    assert environment.log_file.read_bytes() == every + b"a\nb\r\n" + every


# --- what we never say --------------------------------------------------------------------------

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAsecret-one",
    "AWS_SECRET_ACCESS_KEY": "secret-two",
    "AWS_SESSION_TOKEN": "secret-three",
}


@pytest.mark.parametrize("debug", [None, "1"])
@pytest.mark.parametrize(
    "statements",
    [
        "return event;",
        "throw new Error('failed');",
        "Deno.exit(3);",
        "Promise.reject(new Error('forgotten')); await new Promise(() => {});",
        "return 1n;",
    ],
)
def test_no_event_and_no_credentials(start: Start, debug: str | None, statements: str) -> None:
    """Nothing of the event, its result, its context or the credentials is in the log, whatever fails."""
    environment = start(handling(statements), LAMBDENO_DEBUG=debug, **SECRETS)
    for _ in range(2):
        environment.invoke(
            {"password": "secret-event"},
            headers={
                "Lambda-Runtime-Client-Context": '{"custom":"secret-context"}',
                "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"secret-identity"}',
            },
        )
    assert environment.waits_for_next(3)
    assert "secret" not in environment.log


@pytest.mark.parametrize("debug", [None, "1"])
@pytest.mark.parametrize(
    ("bundle", "variables"),
    [
        ("throw new Error('broken');", {}),
        ("export const handler = () => 1;", {"LAMBDENO_STANDBY": "perhaps"}),
        ("await new Promise(() => {});", {}),
    ],
)
def test_no_credentials_where_the_start_fails(
    start: Start, bundle: str, variables: dict[str, str], debug: str | None
) -> None:
    """A start that fails names no credentials either."""
    environment = start(bundle, LAMBDENO_DEBUG=debug, **SECRETS, **variables)
    environment.init_error()
    assert environment.log
    assert "secret" not in environment.log


def test_an_event_that_is_no_json_is_not_quoted(start: Start) -> None:
    """An event that cannot be parsed is named, and none of its text is in the log."""
    environment = start()
    environment.error(b"secret-event")
    assert "secret" not in environment.log


# --- LAMBDENO_DEBUG -----------------------------------------------------------------------------

NOTE = re.compile(r"lambdeno: (\d+\.\d{3}) ms \(\+(\d+\.\d{3})\): (.+)")


@pytest.mark.parametrize("level", [None, "ERROR"])
def test_debug_notes(start: Start, level: str | None) -> None:
    """LAMBDENO_DEBUG=1 tells what the bootstrap does and when, at any level."""
    environment = start(LAMBDENO_DEBUG="1", AWS_LAMBDA_LOG_LEVEL=level)
    environment.result("x", request_id="an-id")
    assert environment.waits_for_next(2)
    said = texts(environment)
    assert {log_level for _, log_level, _ in said} == {"DEBUG"}
    notes = [NOTE.fullmatch(text) for _, _, text in said]
    assert all(notes), environment.log
    times = [float(note[1]) for note in notes if note]
    assert times == sorted(times)
    done = [note[3] for note in notes if note]
    for what in (
        "has started Deno: process",
        "the function is loaded",
        "asks for the next event",
        "has event an-id",
        "has the function's answer: 200",
        "has posted response: 202",
    ):
        assert any(what in text for text in done), what


def test_debug_notes_are_records(start: Start) -> None:
    """With JSON logs the notes are JSON as well."""
    environment = start(LAMBDENO_DEBUG="1", **JSON_LOGS)
    environment.result()
    assert all(NOTE.fullmatch(record["message"]) for record in records(environment))


def test_debug_notes_are_events(start_told: Start, telemetry: Telemetry) -> None:
    """Where the platform takes events, the notes are events of the level DEBUG."""
    start_told(handling("return 1;"), LAMBDENO_DEBUG="1").result()
    assert telemetry.has("has posted response: 202")
    assert {frame.kind for frame in telemetry.frames()} == {TEXT | 0x08}


@pytest.mark.parametrize("debug", [None, "", "0"])
def test_silent_without_debug(start: Start, debug: str | None) -> None:
    """Without LAMBDENO_DEBUG nothing is logged that the function does not log."""
    environment = start(LAMBDENO_DEBUG=debug)
    environment.result()
    assert environment.waits_for_next(2)
    assert environment.log == ""
