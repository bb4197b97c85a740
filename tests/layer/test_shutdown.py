"""The environment's end: functions that ask for SIGTERM get it, and half a second."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layer.conftest import ECHO, Environment, Start
from tests.layer.fake_runtime_api import NEXT, Answer, Event, FakeRuntimeApi, Request, status
from tests.layer.test_deno_ends import holds
from tests.layer.test_logs import Telemetry, start_told, telemetry

__all__ = ["start_told", "telemetry"]  # fixtures

EXTENSION = "/2020-01-01/extension"
REGISTER, EVENT_NEXT = f"{EXTENSION}/register", f"{EXTENSION}/event/next"
IDENTIFIER = "5b1ff4c1-0f4c-4f2f-8b05-5a5d5a5d5a5d"
BUDGET = 0.5  # s that the platform waits
SLACK = 2.0  # s that a busy machine may take longer


class ExtensionsApi(FakeRuntimeApi):
    """A Runtime API that also registers extensions, and never has an event for them."""

    def __init__(self) -> None:
        super().__init__()
        self.registration = register_answer()
        self.registered: list[Request] = []
        self._here = threading.local()

    def _record(self, request: Request) -> None:
        self._here.path = request.path
        if not request.path.startswith(EXTENSION):
            super()._record(request)
            return
        with self._changed:
            self.requests.append(request)
            self.registered.append(request)
            self._changed.notify_all()
        while request.path == EVENT_NEXT and self._is_open:
            time.sleep(0.02)

    def _send(self, connection: object, answer: Answer) -> bool:
        is_registration = self._here.path == REGISTER
        return super()._send(connection, self.registration if is_registration else answer)  # type: ignore[arg-type]


def register_answer() -> Answer:
    """What the platform says to an extension that it knows from then on."""
    body = b'{"functionName":"f","functionVersion":"$LATEST","handler":"function.handler"}'
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Lambda-Extension-Identifier: {IDENTIFIER}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Answer([head.encode() + body])


@pytest.fixture
def api() -> Iterator[ExtensionsApi]:
    """The Runtime and Extensions API of this test."""
    server = ExtensionsApi()
    try:
        yield server
    finally:
        server.close()
    assert not server.faults


def ended(environment: Environment, *, is_group: bool = False) -> float:
    """Send SIGTERM as the platform does: seconds until the bootstrap ended, with status 0."""
    time.sleep(0.05)  # until it waits in the kernel, where Python sees the signal
    began = time.monotonic()
    if is_group:
        os.killpg(environment.process.pid, signal.SIGTERM)
    else:
        environment.process.send_signal(signal.SIGTERM)
    assert environment.process.wait(10) == 0, environment.log
    return time.monotonic() - began


# Each says "bye" at the environment's end.
SHUTDOWN = 'export const shutdown = () => { console.log("bye", Deno.pid); };'
LISTENER = 'Deno.addSignalListener("SIGTERM", () => { console.log("bye", Deno.pid); Deno.exit(0); });'
NODE = """
import process from "node:process";
process.on("SIGTERM", () => { console.log("bye", Deno.pid); process.exit(0); });
"""
ASKING = {"shutdown": SHUTDOWN, "listener": LISTENER, "node": NODE}
asking = pytest.mark.parametrize("asks", ASKING.values(), ids=ASKING.keys())

one_process = pytest.mark.parametrize(
    "combination", ["source-runtime1", "binary-runtime1", "managed-runtime1"]
)
one_each = pytest.mark.parametrize("combination", ["source-runtime2", "binary-runtime2", "managed-runtime2"])


# --- registration -------------------------------------------------------------------------------


@asking
def test_registers_before_the_first_event(start: Start, api: ExtensionsApi, asks: str) -> None:
    """A function that asks for its end registers once, as an internal extension without events."""
    environment = start(asks + ECHO)
    for number in range(3):
        assert environment.result(number) == number
    assert holds(lambda: len(api.registered) == 2)
    register, event_next = api.registered
    assert (register.method, register.path) == ("POST", REGISTER)
    assert register.headers["lambda-extension-name"]
    assert json.loads(register.body) == {"events": []}
    assert (event_next.method, event_next.path) == ("GET", EVENT_NEXT)
    assert event_next.headers["lambda-extension-identifier"] == IDENTIFIER
    assert event_next.body == b""
    assert [request.path for request in api.requests[:3]].index(NEXT) > 0
    assert api.requests[0] is register


@pytest.mark.parametrize(
    "bundle",
    [
        ECHO,
        f"export const shutdown = 1; {ECHO}",
        f"Deno.addSignalListener('SIGUSR2', () => {{}}); {ECHO}",
        f"const shutdown = () => 1; {ECHO}",
    ],
)
def test_a_function_that_asks_for_nothing(start: Start, api: ExtensionsApi, bundle: str) -> None:
    """Without a hook or a listener nothing is registered: the environment ends at once, by SIGTERM too."""
    environment = start(bundle)
    assert environment.result(1) == 1
    assert environment.waits_for_next(2)
    assert api.registered == []
    environment.process.send_signal(signal.SIGTERM)
    assert environment.wait() == -signal.SIGTERM


def test_a_function_that_cannot_be_loaded_registers_nothing(start: Start, api: ExtensionsApi) -> None:
    """An environment that cannot start tells that alone."""
    environment = start(SHUTDOWN + "export const other = 1;")
    environment.init_error()
    assert api.registered == []


@pytest.mark.parametrize(
    "answer",
    [
        status(403, b'{"errorMessage":"no","errorType":"Extension.Forbidden"}'),
        status(500, b""),
        status(404, b"404 page not found\n"),
        Answer([], ending="reset"),
        Answer([b"nothing of HTTP\r\n\r\n"]),
    ],
    ids=["403", "500", "404", "reset", "no HTTP"],
)
def test_refused_registration(start: Start, api: ExtensionsApi, answer: Answer) -> None:
    """Where the platform takes no registration, the log says what that means, and the function works."""
    api.registration = answer
    environment = start(SHUTDOWN + ECHO)
    for number in range(2):
        assert environment.result(number) == number
    assert [request.path for request in api.registered] == [REGISTER]
    [line] = [line for line in environment.log.splitlines() if "WARN" in line]
    assert "the function will not be told of the environment's end" in line
    if b"Forbidden" in b"".join(answer.pieces):
        assert "403" in line
        assert "Extension.Forbidden" in line


# --- SIGTERM ------------------------------------------------------------------------------------


to_whom = pytest.mark.parametrize("is_group", [False, True], ids=["bootstrap", "group"])


@pytest.mark.parametrize("events", [0, 2])
@to_whom
def test_the_hook_runs_once(start: Start, events: int, is_group: bool) -> None:
    """SIGTERM, to the bootstrap or to all: the waiting process is told once, and its words are logged."""
    told_once(start, SHUTDOWN, events, is_group=is_group)


@one_process
@asking
@pytest.mark.parametrize("events", [0, 2])
@to_whom
def test_a_listener_runs_once(start: Start, asks: str, events: int, is_group: bool) -> None:
    """The function's own listener for SIGTERM, Deno's or Node's, is told as a hook is."""
    told_once(start, asks, events, is_group=is_group)


@one_each
@asking
@pytest.mark.parametrize("events", [0, 2])
def test_a_listener_has_time(start: Start, asks: str, events: int) -> None:
    """A listener that waits for what it flushes is not cut off before its half second."""
    asks = asks.replace("() => {", "async () => { await new Promise((resolve) => setTimeout(resolve, 100));")
    told_once(start, asks, events, is_group=False)


def told_once(start: Start, asks: str, events: int, *, is_group: bool) -> None:
    """After some events the environment ends, and the process that waits has said so once."""
    environment = start(asks + "export const handler = () => Deno.pid;")
    for _ in range(events):
        environment.result()
    assert environment.waits_for_next(events + 1)
    [waiting] = environment.children()
    took = ended(environment, is_group=is_group)
    assert took < BUDGET + SLACK
    assert environment.log.count(f"bye {waiting}") == 1


@pytest.mark.parametrize(
    "hook",
    [
        "async () => { await new Promise((resolve) => setTimeout(resolve, 200)); console.log('flushed'); }",
        "() => { Deno.writeTextFileSync(`${Deno.env.get('TMPDIR')}/mark`, ''); console.log('flushed'); }",
        "() => ({ then(resolve) { console.log('flushed'); resolve(); } })",
    ],
)
def test_the_hook_has_time(start: Start, hook: str) -> None:
    """A hook may wait for what it flushes, within the platform's half second."""
    environment = start(f"export const shutdown = {hook}; {ECHO}")
    assert environment.waits_for_next(1)
    assert ended(environment) < BUDGET + SLACK
    assert "flushed" in environment.log


@pytest.mark.parametrize(
    "hook",
    [
        "() => new Promise((resolve) => setTimeout(resolve, 60_000))",
        "() => { for (;;); }",
        "() => new Promise(() => setInterval(() => console.log('still here'), 50))",
    ],
)
def test_a_hook_that_never_ends_is_cut(start: Start, hook: str) -> None:
    """What is not done after half a second is ended with the environment, and the log so far is kept."""
    bundle = f"const hook = {hook}; export const shutdown = () => {{ console.log('began'); return hook(); }};"
    environment = start(bundle + ECHO)
    assert environment.waits_for_next(1)
    [pid] = environment.children()
    took = ended(environment)
    assert 0.4 < took < BUDGET + SLACK
    assert "began" in environment.log
    assert not Path(f"/proc/{pid}/exe").exists()


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize(
    "hook",
    [
        "() => { throw new RangeError('no flush'); }",
        "async () => { await null; throw new RangeError('no flush'); }",
    ],
)
def test_a_hook_that_throws_is_logged(start: Start, hook: str, log_format: str) -> None:
    """What a hook throws is in the log, and the environment ends as it should."""
    environment = start(f"export const shutdown = {hook}; {ECHO}", AWS_LAMBDA_LOG_FORMAT=log_format)
    assert environment.waits_for_next(1)
    ended(environment)
    [line] = environment.log_file.read_bytes().decode().splitlines()
    assert "ERROR" in line
    assert "RangeError" in line
    assert "no flush" in line


def test_a_hook_in_the_middle_of_an_invocation(start: Start, api: ExtensionsApi) -> None:
    """SIGTERM while the handler runs: the hook runs, and the environment ends."""
    environment = start(
        SHUTDOWN
        + "export const handler = () => (console.log('handling'), new Promise((r) => setTimeout(r, 60_000)));"
    )
    assert environment.waits_for_next(1)
    api.events.put(Answer([Event(b"1").to_bytes()]))
    assert holds(lambda: "handling" in environment.log)
    assert ended(environment) < BUDGET + SLACK
    assert environment.log.count("bye") == 1


def test_the_bootstrap_leaves_nothing(start: Start, runtime: str) -> None:
    """After SIGTERM there is no process left; a successor sweeps runtime2's folder, as after SIGKILL."""
    environment = start(SHUTDOWN + ECHO)
    environment.result()
    assert environment.waits_for_next(2)
    [pid] = environment.children()
    ended(environment)
    assert not Path(f"/proc/{pid}/exe").exists()
    assert runtime == "runtime2" or environment.folders() == []


def test_events_of_the_hook(start_told: Start, telemetry: Telemetry) -> None:
    """Where the platform takes log events, it gets the hook's."""
    environment = start_told(
        "export const shutdown = async () => { console.log('begun'); await null; console.log('bye'); };"
        + ECHO
    )
    environment.result()
    assert environment.waits_for_next(2)
    ended(environment)
    assert telemetry.has("bye")
    assert telemetry.messages()[-2:] == ["begun", "bye"]


@one_process
@asking
def test_a_new_process_has_the_hook_too(start: Start, api: ExtensionsApi, asks: str) -> None:
    """A Deno that took the place of one that died is told as well; nothing is registered again."""
    environment = start(asks + "export const handler = (event) => event ? Deno.exit(3) : Deno.pid;")
    environment.error(1)
    pid = environment.result()
    assert environment.waits_for_next(3)
    ended(environment)
    assert environment.log.count(f"bye {pid}") == 1
    assert holds(lambda: len(api.registered) == 2)


@one_process
def test_a_listener_that_is_added_late(start: Start, api: ExtensionsApi) -> None:
    """A handler that listens for SIGTERM comes too late to be registered: nothing fails."""
    environment = start(f"export const handler = (event) => {{ {LISTENER} return event; }};")
    assert environment.result(1) == 1
    assert environment.result(2) == 2
    assert api.registered == []


# --- runtime2 -----------------------------------------------------------------------------------


@one_each
def test_the_hook_of_each_process(start: Start) -> None:
    """Every invocation's process runs its own hook at its end, before the next event; so does the last."""
    environment = start(SHUTDOWN + "export const handler = () => Deno.pid;")
    pids = []
    for number in range(3):
        pids.append(environment.result())
        assert environment.waits_for_next(number + 2)
        assert [environment.log.count(f"bye {pid}") for pid in pids] == [1] * len(pids)
    [waiting] = environment.children()
    ended(environment)
    assert [environment.log.count(f"bye {pid}") for pid in (*pids, waiting)] == [1] * 4


@one_each
def test_no_process_waits(start: Start) -> None:
    """Without a standby there is nobody to tell: the environment ends at once."""
    environment = start(SHUTDOWN + "export const handler = () => Deno.pid;", LAMBDENO_STANDBY="off")
    pid = environment.result()
    assert environment.waits_for_next(2)
    assert ended(environment) < BUDGET + SLACK
    assert environment.log.count("bye") == 1
    assert f"bye {pid}" in environment.log


TALKING = "() => new Promise(() => setInterval(() => console.log('x'), 50))"


@one_each
@pytest.mark.parametrize(
    "bundle",
    [
        f"export const shutdown = () => new Promise((resolve) => setTimeout(resolve, 60_000)); {ECHO}",
        f"export const shutdown = {TALKING}; {ECHO}",
        "const late = async () => { for (let i = 0; i < 40; i++) await null; for (;;) console.log('x'); };"
        "export const handler = (event) => (late(), event);",
    ],
    ids=["silent hook", "hook that talks", "no hook, talks"],
)
def test_a_process_that_never_ends_holds_no_event(start: Start, api: ExtensionsApi, bundle: str) -> None:
    """A process that goes on after its answer is ended after half a second; the next event is served."""
    environment = start(bundle)
    for number in range(2):
        assert environment.result(number) == number
        until = time.monotonic() + 10
        while api.paths("GET").count(NEXT) < number + 2:
            assert time.monotonic() < until, "the next event is not asked for"
            time.sleep(0.01)
