"""A Runtime API that misbehaves, a function that misbehaves, and every pair of the two that makes sense.

After each pair either the next event is served as if nothing had been, or the environment has ended,
and said why: whichever of the two the contract has for it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import (
    NEXT,
    PREFIX,
    Answer,
    Event,
    FakeRuntimeApi,
    Request,
    one_by_one,
    status,
)
from tests.layer.test_deno_ends import holds

ID = "the-pair"
ATTEMPTS = 3  # to keep a deadline of a quarter of a second on a machine that is busy
PAIRS = 60  # that one environment goes through
SOON = 10  # s: at once, on a machine that is busy, and far from the deadline of 30 s
MEGABYTE = "é\r\n漢😀\n\u2028x" * 100_000  # 1.0 million UTF-16 units, 1.9 MB of UTF-8


@pytest.fixture(params=["binary-runtime1", "binary-runtime2"])
def combination(request: pytest.FixtureRequest) -> str:
    """Both runtimes, as they are on Lambda."""
    name: str = request.param
    return name


# --- functions that misbehave -------------------------------------------------------------------

BUNDLE = """
const later = () => new Promise((resolve) => setTimeout(resolve, 60_000));
const cycle = {};
cycle.cycle = cycle;
const actions = {
  "returns": () => "returned",
  "returns 100 KB": () => "é".repeat(50_000),
  "returns 3 MB": () => "é".repeat(1_500_000),
  "throws": () => { throw new RangeError("thrown"); },
  "throws 1 MB": () => { throw new RangeError("é\\r\\n漢😀\\n\\u2028x".repeat(100_000)); },
  "throws no error": () => { throw { code: 42 }; },
  "returns a cycle": () => cycle,
  "returns a BigInt": () => [1n],
  "never settles": () => new Promise(() => {}),
  "rejects": () => { Promise.reject(new Error("forgotten")); return later(); },
  "throws in a timer": () => { setTimeout(() => { throw new Error("uncaught"); }, 5); return later(); },
  "exits with 0": () => Deno.exit(0),
  "exits with 3": () => Deno.exit(3),
  "kills itself": () => { Deno.kill(Deno.pid, "SIGKILL"); return later(); },
  "aborts": () => { Deno.kill(Deno.pid, "SIGABRT"); return later(); },
  "fills the heap": () => { for (const all = [];;) all.push(new Array(100_000).fill({})); },
  "blocks": () => { for (;;); },
  "closes its output": () => { Deno.stdout.close(); Deno.stderr.close(); return "closed"; },
  "floods the log": () => { for (let i = 0; i < 2000; i++) console.log("f".repeat(1000)); return "flooded"; },
  "leaves timers": () => { for (let i = 0; i < 100; i++) setInterval(() => {}, 1); return "left"; },
  "returns and exits": () => { setTimeout(() => Deno.exit(0), 0); return "é".repeat(1_500_000); },
};
actions["knows its context"] = (context) => [
  context.awsRequestId,
  context.invokedFunctionArn.slice(0, 15),
  context.getRemainingTimeInMillis() > 5_000,
];
export const handler = async (event, context) => await (actions[event?.does] ?? (() => event))(context);
"""


@dataclass(frozen=True)
class Function:
    """What a function does, and what has to be told of it: its result, or an error."""

    result: Any = None
    error_type: str = ""  # as the platform keeps it
    message: str = ""  # what the error has to say, among other words
    is_small: bool = True  # what is posted, so that it can be posted once more
    is_blocked: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    on: Mapping[str, Function] = field(default_factory=dict)  # what else it is under a runtime


def ended(error_type: str, message: str, **options: Any) -> Function:
    """A function that ends its process without a word."""
    return Function(error_type=error_type, message=message, **options)


ALL = {"LAMBDENO_PERMISSIONS": "-A"}
FUNCTIONS = {
    "returns": Function("returned"),
    "returns 100 KB": Function("é" * 50_000, is_small=False),
    "returns 3 MB": Function("é" * 1_500_000, is_small=False),
    "throws": Function(error_type="Function.RangeError", message="thrown"),
    "throws 1 MB": Function(error_type="Function.RangeError", message=MEGABYTE, is_small=False),
    "throws no error": Function(error_type="Function.Unhandled", message="[object Object]"),
    "returns a cycle": Function(error_type="Runtime.MarshalError", message="circular"),
    "returns a BigInt": Function(error_type="Runtime.MarshalError", message="BigInt"),
    "never settles": Function(error_type="Runtime.HandlerNeverSettled", message="can never come"),
    "rejects": Function(error_type="Runtime.UnhandledPromiseRejection", message="forgotten"),
    "throws in a timer": Function(error_type="Runtime.UncaughtException", message="uncaught"),
    "exits with 0": ended("Runtime.ExitError", "exit status 0"),
    "exits with 3": ended("Runtime.ExitError", "exit status 3"),
    "kills itself": ended("Runtime.DenoKilled", "SIGKILL", variables=ALL),
    "aborts": ended("Runtime.DenoCrashed", "SIGABRT", variables=ALL),
    "fills the heap": ended(
        "Runtime.OutOfMemory", "heap is full", variables={"DENO_V8_FLAGS": "--max-old-space-size=32"}
    ),
    "blocks": ended("Runtime.EventLoopBlocked", "before the deadline", is_blocked=True),
    "closes its output": Function(
        "closed",
        on={"runtime2": ended("Runtime.ExitError", "exit status 1")},  # its way to answer
    ),
    "floods the log": Function("flooded"),
    "leaves timers": Function("left"),
}
KNOWS = Function([ID, "arn:aws:lambda:", True])

# --- answers to a post --------------------------------------------------------------------------

OK = b'{"status":"OK"}\n'
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + OK
REASON = b'{"errorMessage":"the reason why","errorType":"Refusal"}'
HALF_OF = b"HTTP/1.1 %b Status\r\nContent-Length: 100\r\n\r\n{half"
MORE_HEADERS = b"".join(b"X-Header-%d: %b\r\n" % (number, b"x" * 1000) for number in range(64))


@dataclass(frozen=True)
class Reply:
    """What the Runtime API makes of the posts of an invocation, in order; then it accepts.

    ``posts`` is how many there have to be; the environment has to end where it ``ends``, and to log
    what is ``said`` in any case.
    """

    answers: Sequence[Answer]
    posts: int = 1
    ends: bool = False
    said: str = ""


def lost(answer: Answer) -> Reply:
    """A post that got no answer: it is posted once more."""
    return Reply([answer], posts=2, said="no answer of the Runtime API")


def lost_twice(answer: Answer) -> Reply:
    """Two posts without an answer: there is no third one."""
    return Reply([answer, answer], posts=2, ends=True, said="Cannot post to the Runtime API")


def refused(code: int, **options: Any) -> Reply:
    """A status that costs this invocation alone."""
    return Reply([status(code, REASON, **options)], said=f"with {code}: {REASON.decode()}")


def broken(**options: Any) -> Reply:
    """A container error."""
    return Reply([status(500, REASON, **options)], ends=True, said=f"answered 500 to ERR: {REASON.decode()}")


def accepted(*pieces: bytes, ending: str = "") -> Reply:
    """202 in one form or another."""
    return Reply([Answer(pieces, ending)])


REPLIES = {
    "202": Reply([status(202, OK)]),
    "202 byte by byte": Reply([one_by_one(ACCEPTED)]),
    "202 chunked": accepted(
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n",
        b'5;a=b\r\n{"sta\r\nB\r\ntus":"OK"}\n\r\n0\r\nTrailer: t\r\n\r\n',
    ),
    "202 after 100": accepted(b"HTTP/1.1 100 Continue\r\n\r\n", ACCEPTED),
    "202 after 103": accepted(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", ACCEPTED),
    "202 after 100 and 103 in one": accepted(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ACCEPTED
    ),
    "202 in odd case": accepted(
        b"HTTP/1.1 202 aCCepted\r\ncOnTeNt-LeNgTh:16\r\nCONTENT-TYPE:a/b\r\n\r\n" + OK
    ),
    "202 folded": accepted(
        b"HTTP/1.1 202 Accepted\r\nX-Folded: one\r\n two\r\n\tthree\r\nContent-Length:\r\n 16\r\n\r\n" + OK
    ),
    "202 with 64 KB of headers": accepted(
        b"HTTP/1.1 202 Accepted\r\n" + MORE_HEADERS + b"Content-Length: 16\r\n\r\n" + OK
    ),
    "202 and close": Reply([status(202, OK, ending="close")]),
    "202 and close in odd case": accepted(
        b"HTTP/1.1 202 Accepted\r\nCONNECTION: Close\r\nContent-Length: 16\r\n\r\n" + OK, ending="close"
    ),
    "202 that says close and stays": accepted(
        b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 16\r\n\r\n" + OK
    ),
    "202 and half its body": accepted(ACCEPTED[:-8], ending="close"),
    "202 and half its body, reset": accepted(ACCEPTED[:-8], ending="reset"),
    "202 and close in a list": accepted(
        b"HTTP/1.1 202 Accepted\r\nConnection: keep-alive, close\r\nContent-Length: 16\r\n\r\n" + OK,
        ending="close",
    ),
    "202 and close unsaid": accepted(ACCEPTED, ending="close"),
    "202 of HTTP/1.0": accepted(ACCEPTED.replace(b"1.1", b"1.0"), ending="close"),
    "400": refused(400),
    "403": refused(403),
    "410": refused(410),
    "413": refused(413),
    "413 and close": refused(413, ending="close"),
    "413 early and close": refused(413, ending="close", is_early=True),
    "413 early and reset": refused(413, ending="reset", is_early=True),
    "413 and half its body": Reply([Answer([HALF_OF % b"413"], "close")], said="with 413"),
    "500": broken(),
    "500 and close": broken(ending="close"),
    "500 and half its body": Reply([Answer([HALF_OF % b"500"], "close")], ends=True, said="answered 500"),
    "500 early and reset": broken(ending="reset", is_early=True),
    "closed": lost(Answer([b""], "close")),
    "reset": lost(Answer([b""], "reset")),
    "closed early": lost(Answer([b""], "close", is_early=True)),
    "reset early": lost(Answer([b""], "reset", is_early=True)),
    "half a head": lost(Answer([ACCEPTED[:20]], "close")),
    "half a head, reset": lost(Answer([ACCEPTED[:20]], "reset")),
    "100 and close": lost(Answer([b"HTTP/1.1 100 Continue\r\n\r\n"], "close")),
    "garbage": lost(Answer([b"SSH-2.0-garbage\r\n\r\n"], "close")),
    "garbage that stays": lost(Answer([b"SSH-2.0-garbage\r\n\r\n"])),
    "closed twice": lost_twice(Answer([b""], "close")),
    "reset twice": lost_twice(Answer([b""], "reset")),
    "garbage twice": lost_twice(Answer([b"SSH-2.0-garbage\r\n\r\n"], "close")),
    "lost, then 413": Reply([Answer([b""], "reset"), status(413, REASON)], posts=2, said="with 413"),
    "lost, then 500": Reply([Answer([b""], "reset"), status(500, REASON)], posts=2, ends=True, said="500"),
}

# Each of the one with each of the other would take minutes: all of them with these.
MAIN_FUNCTIONS = ("returns", "returns 3 MB", "throws", "exits with 3")
MAIN_REPLIES = ("202", "202 byte by byte", "413", "reset")
CLOSES = ("closes its output",)
SLOW = ("fills the heap",)  # a second each
SLOW_REPLIES = ("202", "reset")


def pairs() -> Iterator[tuple[str, str]]:
    """The pairs that are tried."""
    for reply in REPLIES:
        for function in FUNCTIONS:
            if reply not in MAIN_REPLIES and function not in MAIN_FUNCTIONS:
                continue
            if function in SLOW and reply not in SLOW_REPLIES:
                continue
            yield reply, function


@pytest.mark.parametrize(("reply", "function"), list(pairs()))
def test_answer(start: Start, api: FakeRuntimeApi, runtime: str, reply: str, function: str) -> None:
    """A request id has one outcome whatever becomes of its post; then the next event is served, or none."""
    does, becomes = FUNCTIONS[function], REPLIES[reply]
    does = does.on.get(runtime, does)
    for _ in range(ATTEMPTS if does.is_blocked else 1):
        if answers_in_time(start(BUNDLE, **does.variables), function, does, becomes):
            return
        api.requests.clear()
    raise AssertionError("not answered, and the next event not asked for, before the deadline")


def answers_in_time(environment: Environment, function: str, does: Function, becomes: Reply) -> bool:
    """Whether the deadline was kept where the function blocks; all else has to be as it must be."""
    api = environment.api
    assert environment.waits_for_next(1)
    deno = environment.children()
    for answer in becomes.answers:
        api.answers.put(answer)
    began = time.time()
    event = event_for(function, deadline=began + (1 if does.is_blocked else 30))
    posts = [environment.send(event)]
    posts += [environment.post() for _ in range(becomes.posts - 1)]
    assert time.time() - began < SOON
    for number, post in enumerate(posts):
        if not becomes.answers[min(number, len(becomes.answers) - 1)].is_early:
            check(post, does, is_repeat=number > 0)
    assert len({post.connection for post in posts}) == len(posts)
    if becomes.ends:
        assert has_ended(environment, deno)
    else:
        assert serves_on(environment, events=1)
    assert becomes.said.replace("ERR", outcome(posts[0])) in environment.log
    assert posts_of(api, ID) == posts
    assert api.answers.empty()
    nexts = [request.at for request in api.requests if request.path == NEXT]
    environment.close()
    return not does.is_blocked or (posts[0].at < began + 1 and nexts[1] < began + 1)


def event_for(function: str, *, deadline: float | None = None, **options: Any) -> Event:
    """The event that has the function do this."""
    headers = dict(options.pop("headers", {}))
    if deadline is not None:
        headers["Lambda-Runtime-Deadline-Ms"] = str(int(deadline * 1000))
    return Event(json.dumps({"does": function}).encode(), ID, headers=headers, **options)


def check(post: Request, does: Function, *, is_repeat: bool = False, request_id: str = ID) -> None:
    """The post tells what the function did; if not a second time, that it could not be told."""
    assert post.path.startswith(f"{PREFIX}/invocation/{request_id}/")
    assert len(post.body) == int(post.headers["content-length"])
    said = json.loads(post.body)
    if (
        is_repeat
        and not does.is_small
        and post.headers.get("lambda-runtime-function-error-type", "").endswith("ResponseLost")
    ):
        assert said["errorType"] == "Runtime.ResponseLost"
    elif does.error_type:
        assert (outcome(post), post.error_type) == ("error", does.error_type)
        assert does.message in said["errorMessage"]
        assert said["errorType"] == does.error_type or not does.error_type.startswith("Runtime.")
    else:
        assert (outcome(post), said) == ("response", does.result)
        assert "lambda-runtime-function-error-type" not in post.headers


def outcome(post: Request) -> str:
    """The post's last word: response or error."""
    return post.path.rpartition("/")[2]


def posts_of(api: FakeRuntimeApi, request_id: str) -> list[Request]:
    """All the posts about a request."""
    return [request for request in api.requests if f"/{request_id}/" in request.path]


def serves_on(environment: Environment, events: int) -> bool:
    """The environment serves the next event, and nothing is left of what went wrong before."""
    assert environment.result({"after": "é"}) == {"after": "é"}
    assert environment.waits_for_next(events + 2)
    # One more may be on a connection that was left, behind the response that had no good answer.
    assert environment.api.paths("GET") in ([NEXT] * (events + 2), [NEXT] * (events + 3))
    assert environment.process.poll() is None
    assert holds(lambda: len(environment.children()) == 1)
    assert len(environment.folders()) == 1
    assert "Traceback" not in environment.log
    return True


def has_ended(environment: Environment, deno: Sequence[int]) -> bool:
    """The environment has ended with a reason, and its Deno with it."""
    events = len(environment.api.paths("GET"))
    assert holds(lambda: environment.process.poll() is not None or len(environment.api.paths("GET")) > events)
    assert environment.process.poll(), environment.log
    assert environment.api.posts.empty()
    assert "FATAL\tlambdeno: " in environment.log
    assert "Traceback" not in environment.log
    assert holds(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in deno))
    return True


# --- answers to /next ---------------------------------------------------------------------------

PADDING = {"padding": "漢😀" * 500}
Delivery = Callable[[Event], Answer]


def replaced(event: Event, **headers: str) -> bytes:
    """An event's bytes with more headers."""
    return replace(event, headers={**event.headers, **headers}).to_bytes()


def in_chunks(event: Event, *, is_slow: bool = False) -> Answer:
    """In chunks of odd sizes, with extensions and trailers."""
    data = replace(
        event,
        chunks=[1, 7, 64, 3, 1000],
        chunk_extension=b';name="a;b";flag',
        trailers=b"One: 1\r\nLambda-Runtime-Aws-Request-Id: of-a-trailer\r\n",
    ).to_bytes()
    return one_by_one(data) if is_slow else Answer([data])


def folded(event: Event) -> Answer:
    """With header lines that go on in the next, and names as nobody writes them."""
    head, _, body = event.to_bytes().partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    lines = [line.replace(b": ", b":\r\n \t ", 1) for line in lines]
    odd = [bytes(line[:8]).swapcase() + line[8:] for line in lines]
    return Answer([b"\r\n".join([start, b"x-FOLDED: a\r\n\tb\r\n  c", *odd]) + b"\r\n\r\n" + body])


def after(event: Event, *heads: bytes) -> Answer:
    """After responses that are none yet."""
    return Answer([*heads, event.to_bytes()])


DELIVERIES: dict[str, Delivery] = {
    "byte by byte": lambda event: one_by_one(event.to_bytes()),
    "chunked": in_chunks,
    "chunked, byte by byte": lambda event: in_chunks(event, is_slow=True),
    "folded": folded,
    "folded, byte by byte": lambda event: one_by_one(b"".join(folded(event).pieces)),
    "a client context of 200 KB": lambda event: Answer(
        [replaced(event, **{"Lambda-Runtime-Client-Context": json.dumps({"custom": "c" * 200_000})})]
    ),
    "64 KB of headers": lambda event: Answer([event.to_bytes().replace(b"\r\n", b"\r\n" + MORE_HEADERS, 1)]),
    "close": lambda event: Answer([replaced(event, Connection="close")], "close"),
    "close that stays": lambda event: Answer([replaced(event, connection="Close")]),
    "after 100": lambda event: after(event, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "after 100 and 103": lambda event: after(
        event, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n", b"Link: </a>\r\n\r\n"
    ),
    "after 103, byte by byte": lambda event: one_by_one(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + event.to_bytes()
    ),
    "chunked, and a length": lambda event: Answer(
        [replaced(replace(event, chunks=[5]), **{"Content-Length": "3"})]
    ),
    "in two": lambda event: Answer([event.to_bytes()[:-5], event.to_bytes()[-5:]]),
}
WITH_PADDING = ("chunked", "close", "folded", "in two", "64 KB of headers")


@pytest.mark.parametrize("function", [*MAIN_FUNCTIONS, "knows its context"])
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_event(start: Start, api: FakeRuntimeApi, delivery: str, function: str) -> None:
    """An event is the same event however it arrives: it is answered once, and the next one served."""
    environment = start(BUNDLE)
    body = {"does": function, **(PADDING if delivery in WITH_PADDING else {})}
    event = Event(json.dumps(body, ensure_ascii=False).encode(), ID)
    post = environment.send(DELIVERIES[delivery](event))
    check(post, FUNCTIONS.get(function, KNOWS))
    assert serves_on(environment, events=1)
    assert posts_of(api, ID) == [post]


@pytest.mark.parametrize(
    "broken",
    [
        b"\xff",
        b"\xc3",
        b"\xc3(",
        b"\xe6\xbc",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf5\x80\x80\x80",
    ],
    ids=lambda broken: broken.hex(),
)
@pytest.mark.parametrize("padding", [0, 100_000], ids=["small", "large"])
def test_event_that_is_no_utf8(start: Start, api: FakeRuntimeApi, broken: bytes, padding: int) -> None:
    """An event that is not UTF-8 never reaches the handler, whatever is wrong with its bytes."""
    environment = start(BUNDLE)
    body = b'{"does":"returns","padding":"%b%b"}' % (b"x" * padding, broken)
    post = environment.send(Event(body, ID))
    check(post, Function(error_type="Runtime.UnmarshalError", message="UTF-8"))
    assert serves_on(environment, events=1)
    assert posts_of(api, ID) == [post]


@pytest.mark.parametrize("function", MAIN_FUNCTIONS)
@pytest.mark.parametrize("code", [403, 410, 500])
@pytest.mark.parametrize("ending", ["", "close"])
def test_no_event(start: Start, api: FakeRuntimeApi, code: int, function: str, ending: str) -> None:
    """An answer to /next that is no event ends the environment, whatever the invocation before was."""
    environment = start(BUNDLE)
    check(environment.send(event_for(function)), FUNCTIONS[function])
    assert environment.waits_for_next(2)
    deno = environment.children()
    api.events.put(status(code, REASON, ending=ending))
    assert has_ended(environment, deno)
    assert f"Cannot get the next event: the Runtime API answered {code}" in environment.log
    assert api.paths("GET") == [NEXT] * 2
    assert len(api.paths("POST")) == 1


# --- more at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_one_environment_through_it_all(start: Start, api: FakeRuntimeApi, seed: int) -> None:
    """Sixty pairs on one environment, in any order and with nothing between: each is as it is alone."""
    chance = random.Random(seed)
    environment = start(BUNDLE, **ALL)
    functions = [
        name
        for name, does in FUNCTIONS.items()
        # In one process of many invocations, timers that are left keep a handler waiting that never settles.
        if not (does.is_blocked or does.variables.keys() - ALL.keys() or name in {"leaves timers", *CLOSES})
    ]
    for number in range(PAIRS):
        function = chance.choice(functions)
        does = FUNCTIONS[function]
        reply = chance.choice([name for name in REPLIES if not REPLIES[name].ends])
        delivery = chance.choice(list(DELIVERIES))
        for answer in REPLIES[reply].answers:
            api.answers.put(answer)
        event = replace(event_for(function), request_id=f"{ID}-{number}")
        posts = [environment.send(DELIVERIES[delivery](event))]
        posts += [environment.post() for _ in range(REPLIES[reply].posts - 1)]
        for answer, post in zip(REPLIES[reply].answers, posts, strict=False):
            assert f"/{ID}-{number}/" in post.path, (number, reply, function, delivery)
            if not answer.is_early:
                check(post, does, is_repeat=post != posts[0], request_id=f"{ID}-{number}")
        assert environment.waits_for_next(number + 2), (number, reply, function, delivery)
    assert serves_on(environment, events=PAIRS)
    assert (
        len({request.path.split("/")[-2] for request in api.requests if request.method == "POST"})
        == PAIRS + 1
    )


def test_exit_while_the_result_is_on_its_way(start: Start) -> None:
    """A process that ends while its result is read has given it whole or has failed, and never both."""
    environment = start(BUNDLE)
    for number in range(5):
        event = replace(event_for("returns and exits"), request_id=f"{ID}-{number}")
        post = environment.send(event)
        if len(post.body) < int(post.headers["content-length"]):  # cut, so that Lambda cannot take it
            post = environment.post()
            assert post.error_type == "Runtime.ExitError"
        else:
            assert json.loads(post.body) == "é" * 1_500_000
        assert environment.result(number) == number
        assert environment.waits_for_next(2 * number + 3)
    assert serves_on(environment, events=10)


BLOCKED = """
const mark = `${Deno.env.get("TMPDIR")}/mark`;
let isFirst = false;
try { Deno.statSync(mark); } catch { Deno.writeTextFileSync(mark, ""); isFirst = true; }
const wait = (ms) => { for (const since = Date.now(); Date.now() - since < ms;); };
const block = () => setTimeout(() => { for (;;); }, 20);
if (!isFirst) block(); // of runtime2, the process that waits
export const handler = async (event) => {
  if (event === "block") block();
  if (event === "flood") for (;;) { console.log("f".repeat(1000)); wait(1); }
  if (event === "flood and wait") {
    for (;;) { console.log("f".repeat(1000)); await new Promise((resolve) => setTimeout(resolve, 5)); }
  }
};
"""


@pytest.mark.parametrize("size", [10, 3_000_000], ids=["small", "large"])
def test_blocked_before_the_event_is_read(start: Start, size: int) -> None:
    """A process that computes when its event comes is ended in time, however large the event is."""
    environment = start(BLOCKED)
    environment.invoke("block")
    assert environment.waits_for_next(2)
    time.sleep(0.2)  # until it computes
    deadline = time.time() + 1.5
    post = answered(environment, json.dumps("x" * size), deadline)
    assert post.error_type == "Runtime.EventLoopBlocked"
    assert post.at < deadline + 0.5  # before it, on a machine that is not busy


def test_blocked_and_noisy(start: Start) -> None:
    """A process that computes and prints all the time is ended in time as well."""
    environment = start(BLOCKED)
    assert environment.waits_for_next(1)
    deadline = time.time() + 1.5
    post = answered(environment, '"flood"', deadline)
    assert post.error_type == "Runtime.EventLoopBlocked"
    assert post.at < deadline + 0.5  # before it, on a machine that is not busy


def test_waiting_and_noisy(start: Start) -> None:
    """That a handler waits shortly before the deadline is in the log, whatever else it prints there."""
    environment = start(BLOCKED)
    assert environment.waits_for_next(1)
    deadline = time.time() + 0.6
    environment.api.events.put(Answer([at_deadline('"flood and wait"', deadline)]))
    while time.time() < deadline + 0.5 and "the handler waits for something" not in environment.log:
        time.sleep(0.02)
    assert "the handler waits for something" in environment.log


def at_deadline(event: str, deadline: float) -> bytes:
    """An event with a deadline."""
    headers = {"Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000))}
    return Event(event.encode(), ID, headers=headers).to_bytes()


def answered(environment: Environment, event: str, deadline: float) -> Request:
    """The post that answers an event, which must come soon after the deadline if not before."""
    environment.api.events.put(Answer([at_deadline(event, deadline)]))
    return environment.api.posts.get(timeout=deadline - time.time() + 3)
