"""Errors on their way to Lambda: the answer, the two headers, and what source maps make of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import Request

KEPT_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")
X_RAY = "lambda-runtime-function-xray-error-cause"
LARGEST = 64 * 1024  # bytes that the platform keeps of a cause


def throwing(thrown: str, *, before: str = "") -> str:
    """A function whose handler throws, in a line of its own, what an expression gives."""
    return f"{before}\nexport const handler = async (event) => {{\n  throw ({thrown});\n}};\n"


def cause_of(post: Request) -> dict[str, Any]:
    """The X-Ray cause of a post, which must be what a header and X-Ray take."""
    text = post.headers[X_RAY]
    assert len(text) <= LARGEST
    assert all(" " <= character <= "~" for character in text)
    cause: dict[str, Any] = json.loads(text)
    assert cause.keys() == {"working_directory", "exceptions", "paths"}
    assert cause["exceptions"]
    for exception in cause["exceptions"]:
        assert exception.keys() == {"type", "message", "stack"}
        for frame in exception["stack"]:
            assert frame.keys() == {"path", "line", "label"}
            assert frame["path"] in cause["paths"]
    return cause


def depth(error: dict[str, Any], key: str = "cause") -> int:
    """How many causes an error has behind it."""
    count = 0
    while key in error:
        error = error[key] if key == "cause" else error[key][0]
        count += 1
    return count


# --- the answer ---------------------------------------------------------------------------------


def test_causes_have_the_same_shape(start: Start) -> None:
    """A cause, and the cause of a cause, is an error as the answer is one; any value can be a cause."""
    thrown = "new RangeError('a', { cause: new TypeError('b', { cause: 'c' }) })"
    _, error = start(throwing(thrown)).error()
    assert error.keys() == {"errorType", "errorMessage", "trace", "cause"}
    assert error["trace"][0] == "RangeError: a"
    cause = error["cause"]
    assert cause.keys() == {"errorType", "errorMessage", "trace", "cause"}
    assert (cause["errorType"], cause["errorMessage"], cause["trace"][0]) == (
        "TypeError",
        "b",
        "TypeError: b",
    )
    assert cause["cause"] == {"errorType": "string", "errorMessage": "c", "trace": []}


@pytest.mark.parametrize(("cause", "shown"), [("null", "null"), ("0", "0"), ("''", ""), ("undefined", None)])
def test_causes_that_are_false(start: Start, cause: str, shown: str | None) -> None:
    """A cause is there unless it is undefined."""
    _, error = start(throwing(f"new Error('a', {{ cause: {cause} }})")).error()
    assert error.get("cause", {}).get("errorMessage") == shown


def test_collected_errors_have_the_same_shape(start: Start) -> None:
    """What an AggregateError collects is a list of such errors, each with its own cause."""
    thrown = "new AggregateError([new TypeError('a', { cause: new Error('b') }), 'c', null], 'several')"
    _, error = start(throwing(thrown)).error()
    assert error.keys() == {"errorType", "errorMessage", "trace", "errors"}
    assert (error["errorType"], error["errorMessage"]) == ("AggregateError", "several")
    first, second, third = error["errors"]
    assert (first["errorType"], first["cause"]["errorMessage"]) == ("TypeError", "b")
    assert second == {"errorType": "string", "errorMessage": "c", "trace": []}
    assert third == {"errorType": "object", "errorMessage": "null", "trace": []}


def test_promise_any_tells_all_its_errors(start: Start) -> None:
    """What Promise.any rejects with has the reason of each promise."""
    thrown = "await Promise.any([1, 2].map((n) => Promise.reject(new Error(`n${n}`)))).catch((e) => e)"
    _, error = start(throwing(thrown)).error()
    assert [one["errorMessage"] for one in error["errors"]] == ["n1", "n2"]


CHAIN = "Array.from({ length: 30 }).reduce((cause, _, i) => new Error(`e${i}`, { cause }), new Error('e'))"
ITSELF = "(() => { const e = new Error('me'); e.cause = e; return e; })()"
EACH_OTHER = (
    "(() => { const a = new Error('a'); const b = new Error('b', { cause: a }); return a.cause = b; })()"
)


@pytest.mark.parametrize("thrown", [CHAIN, ITSELF, EACH_OTHER])
def test_causes_end(start: Start, thrown: str) -> None:
    """At most eight causes are told, of a chain that is longer and of one without an end."""
    post, error = start(throwing(thrown)).error()
    assert depth(error) == 8
    assert len(cause_of(post)["exceptions"]) == 9


def test_collected_errors_end(start: Start) -> None:
    """At most sixteen collected errors are told, and eight levels of an error that collects itself."""
    environment = start(
        """
        export const handler = (event) => {
          const many = Array.from({ length: 100 }, (_, i) => new Error(`e${i}`));
          const one = new AggregateError([], "me");
          one.errors.push(one);
          throw event === "many" ? new AggregateError(many) : one;
        };
        """
    )
    _, many = environment.error("many")
    assert [one["errorMessage"] for one in many["errors"]] == [f"e{number}" for number in range(63)]
    assert depth(environment.error("one")[1], "errors") == 8


def test_collected_errors_of_collected_errors_are_bounded(start: Start) -> None:
    """An error that collects itself three times, and is its own cause, is told in less than Lambda takes."""
    environment = start(
        """
        export const handler = () => {
          const one = new AggregateError([], "me");
          one.errors.push(one, one, one);
          throw Object.assign(one, { cause: one });
        };
        """
    )
    post, error = environment.error()
    assert error["errorMessage"] == "me"
    assert len(post.body) < 1024 * 1024


@pytest.mark.parametrize(
    "thrown",
    [
        "new Error('x')",
        "new Error('x', { cause: new Error('y') })",
        "new AggregateError([new Error('x')])",
        "await new Promise((_, reject) => setTimeout(() => reject(new Error('x')), 1))",
        "deep(50)",
    ],
)
def test_no_frame_is_the_bridges(start: Start, thrown: str) -> None:
    """The function's frames are in the answer, in the header and in the log; the bridge's are in none."""
    before = "Error.stackTraceLimit = 100; const deep = (n) => n ? deep(n - 1) : new Error('deep');"
    environment = start(throwing(thrown, before=before))
    post, error = environment.error()
    assert "function.bundle.js:3:" in json.dumps(error)
    for where in (json.dumps(error), json.dumps(cause_of(post)), environment.log):
        assert "runtime.js" not in where


def test_properties_are_for_the_log_alone(start: Start) -> None:
    """An error's own properties may be secret: they are in the log, and not in what the caller gets."""
    thrown = "Object.assign(new Error('x'), { code: 'E1', detail: { user: 'name' }, big: 1n })"
    environment = start(throwing(thrown))
    post, error = environment.error()
    assert error.keys() == {"errorType", "errorMessage", "trace"}
    assert "E1" not in post.body.decode() + post.headers[X_RAY]
    [line] = environment.log_file.read_bytes().decode().splitlines()
    stamp, request, level, what, text = line.split("\t", 4)
    assert stamp.endswith("Z")
    assert (request, level, what) == ("request-1", "ERROR", "Invoke Error")
    logged = json.loads(text)
    assert (logged["errorType"], logged["errorMessage"]) == ("Error", "x")
    assert (logged["code"], logged["detail"], logged["big"]) == ("E1", {"user": "name"}, "1n")
    assert logged["stack"] == error["trace"]


@pytest.mark.parametrize(
    ("thrown", "error_type", "message", "trace"),
    [
        ("{ name: 'Like', message: 'm', stack: 'Like: m\\n  at x' }", "Like", "m", ["Like: m", "  at x"]),
        ("{ name: 'Like', message: '', stack: '' }", "Like", "", [""]),
        ("{ name: 1, message: 2, stack: undefined }", "1", "2", [""]),
        ("{ name: 'Half', message: 'm' }", "object", "[object Object]", []),
        ("Object.create(new Error('inherited'))", "Error", "inherited", None),
        ("new DOMException('gone', 'AbortError')", "AbortError", "gone", None),
        ("AbortSignal.abort().reason", "AbortError", "The signal has been aborted", None),
        ("new (class NotFound extends Error {})('m')", "Error", "m", None),
    ],
)
def test_error_likes(
    start: Start, thrown: str, error_type: str, message: str, trace: list[str] | None
) -> None:
    """What has a name, a message and a stack is an error, whatever its class."""
    post, error = start(throwing(thrown)).error()
    assert (error["errorType"], error["errorMessage"]) == (error_type, message)
    assert trace is None or error["trace"] == trace
    assert KEPT_TYPE.fullmatch(post.error_type)
    cause_of(post)


def test_error_of_another_realm(start: Start) -> None:
    """An error of another context of V8, as node:vm makes them, is told like any other."""
    bundle = (
        "import vm from 'node:vm';\n"
        "export const handler = () => { vm.runInNewContext('throw new TypeError(\"far\")'); };\n"
    )
    _, error = start(bundle).error()
    assert (error["errorType"], error["errorMessage"]) == ("TypeError", "far")


# --- Lambda-Runtime-Function-Error-Type ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MyError", "Function.MyError"),
        ("Function.NoStock", "Function.NoStock"),
        ("Runtime.Odd", "Runtime.Odd"),
        ("E", "Function.Unhandled"),  # the platform wants two letters
        ("ER_1", "Function.Unhandled"),
        ("lower", "Function.Unhandled"),
        ("Ärger", "Function.Unhandled"),
        ("A B", "Function.Unhandled"),
        ("", "Function.Unhandled"),
        ("Function.A\r\nX-Mine: 1", "Function.Unhandled"),
        ("Function.Two.Dots", "Function.Unhandled"),
        ("Other.NoStock", "Function.Unhandled"),
        ("x" * 100_000, "Function.Unhandled"),
        ("\0\x7f\ud800😀", "Function.Unhandled"),
    ],
)
def test_type_is_always_one_that_the_platform_keeps(start: Start, name: str, expected: str) -> None:
    """Whatever an error calls itself, the header has the platform's form, and the answer its own name."""
    thrown = f"Object.assign(new Error('m'), {{ name: {json.dumps(name)} }})"
    post, error = start(throwing(thrown)).error()
    assert post.error_type == expected
    assert KEPT_TYPE.fullmatch(post.error_type)
    assert error["errorType"] == name
    assert "x-mine" not in post.headers


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        ("throw new Error('x');", "Function.InitError"),
        ("throw new RangeError('x');", "Function.InitError"),
        ("throw 'text';", "Function.InitError"),
        ("throw undefined;", "Function.InitError"),
        ("throw Object.assign(new Error('x'), { name: 'Function.NoConfig' });", "Function.NoConfig"),
        ("Deno.exit(2);", "Runtime.ExitError"),
        ("export const other = 1;", "Runtime.HandlerNotFound"),
    ],
)
def test_type_of_a_failed_start(start: Start, bundle: str, expected: str) -> None:
    """A start that fails has the header too, and the cause for X-Ray."""
    post, _ = start(bundle).init_error()
    assert post.error_type == expected
    cause_of(post)


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1", "managed-runtime1"])
def test_type_of_an_exit_with_status_1(start: Start) -> None:
    """Deno.exit(1) while the function loads is no module that never settles, however soon it comes."""
    types = {start("Deno.exit(1);").post().error_type for _ in range(20)}
    assert types == {"Runtime.ExitError"}


# --- Lambda-Runtime-Function-XRay-Error-Cause ---------------------------------------------------


def test_cause_for_x_ray(start: Start) -> None:
    """Working directory, exceptions with their frames, causes among them, and each file once."""
    before = "function inner() { return new RangeError('outer', { cause: new TypeError('inner') }); }"
    environment = start(throwing("inner()", before=before))
    post, _ = environment.error()
    cause = cause_of(post)
    bundle = str(environment.task / "function.bundle.js")
    assert cause["working_directory"] == str(environment.task)
    assert cause["paths"] == [bundle]
    assert [(one["type"], one["message"]) for one in cause["exceptions"]] == [
        ("RangeError", "outer"),
        ("TypeError", "inner"),
    ]
    for exception in cause["exceptions"]:
        assert exception["stack"][:2] == [
            {"path": bundle, "line": 1, "label": "inner"},
            {"path": bundle, "line": 3, "label": "handler"},
        ]


ODD = [
    ("'x'.repeat(1_000_000)", "Error"),
    ("'é😀'.repeat(100_000)", "Error"),
    ("'\\r\\nX-Mine: 1\\r\\n\\r\\n'", "Error"),
    ("'\\0\\x01\\x1b\\x7f\\x80\\xff'", "Error"),
    ("'\\ud800 half, cut at 512: ' + '😀'.repeat(300)", "Error"),
    ("'\"quoted\" \\\\ back\\\\slash'", "Error"),
    ("''", "Error"),
]


@pytest.mark.parametrize(("message", "name"), ODD)
@pytest.mark.parametrize("links", ["", "e.cause = e;"])
def test_cause_is_a_header_whatever_is_thrown(start: Start, message: str, name: str, links: str) -> None:
    """One line of visible ASCII, at most 64 KiB, and JSON, however odd the message is."""
    before = f"const made = () => {{ const e = new Error({message}); {links} return e; }};"
    post, error = start(throwing("made()", before=before)).error()
    cause = cause_of(post)
    assert cause["exceptions"][0]["type"] == name
    shown = cause["exceptions"][0]["message"]
    assert error["errorMessage"].startswith(shown[:-1])  # which may be half of a character
    assert len(shown) >= min(len(error["errorMessage"]), 256)
    assert "x-mine" not in post.headers


@pytest.mark.parametrize(
    "thrown",
    [
        "deep(500)",
        f"named('a'.repeat(5000), {CHAIN})",
        "named('x'.repeat(1_000_000), new Error('m'))",
        "Object.assign(new Error('m'), { stack: 'at x (/y:1:2)\\n'.repeat(100_000) })",
        "Object.assign(new Error('m'), { stack: 'at ' + 'é'.repeat(100_000) + ' (/y:1:2)' })",
        "Object.assign(new Error('m'), { stack: 'at (' + '('.repeat(50_000) + ':1:' })",
        "Object.assign(new Error('m'), { stack: ['at x (/y:1:2)'] })",
    ],
)
@pytest.mark.timeout(60)
def test_cause_is_small_whatever_is_thrown(start: Start, thrown: str) -> None:
    """Long stacks, names and labels do not make it more than the platform takes; it may be left out then."""
    before = (
        "Error.stackTraceLimit = 1000; const deep = (n) => n ? deep(n - 1) : new Error('deep');\n"
        "const named = (name, error) => Object.assign(error, { name });"
    )
    environment = start(throwing(thrown, before=before))
    post, error = environment.error()
    if X_RAY in post.headers:
        cause_of(post)
    assert error["errorMessage"]
    assert KEPT_TYPE.fullmatch(post.error_type)


@pytest.mark.parametrize(
    ("statement", "error_type"),
    [
        ("Deno.exit(3);", "Runtime.ExitError"),
        (
            "Promise.reject(new RangeError('x')); await new Promise(() => {});",
            "Runtime.UnhandledPromiseRejection",
        ),
        ("setTimeout(() => { throw 'x'; }, 0); await new Promise(() => {});", "Runtime.UncaughtException"),
        ("await new Promise(() => {});", "Runtime.HandlerNeverSettled"),
        ("return 1n;", "Runtime.MarshalError"),
    ],
)
def test_cause_of_the_runtimes_errors(start: Start, statement: str, error_type: str) -> None:
    """The runtime's own errors have both headers as well."""
    environment = start(f"export const handler = async (event) => {{ {statement} }};")
    post, error = environment.error()
    assert post.error_type == error["errorType"] == error_type
    assert cause_of(post)["exceptions"][0]["type"] == error_type


# --- source maps --------------------------------------------------------------------------------

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def vlq(number: int) -> str:
    """A number of a source map (ECMA-426)."""
    rest = -number << 1 | 1 if number < 0 else number << 1
    digits = ""
    while True:
        digits += DIGITS[rest & 31 | (32 if rest > 31 else 0)]
        rest >>= 5
        if not rest:
            return digits


def source_map(rows: list[int], source: str) -> str:
    """A map by which each line of a bundle begins at a line of the source, counted from 1."""
    mappings, last = [], 0
    for row in rows:
        mappings.append(vlq(0) + vlq(0) + vlq(row - 1 - last) + vlq(0))
        last = row - 1
    content = {"version": 3, "sources": [source], "names": [], "mappings": ";".join(mappings)}
    return json.dumps(content)


MAPPED = """\
const fail = () => { throw new RangeError("mapped", { cause: new TypeError("inner") }); };
export const handler = () => fail();
//# sourceMappingURL=function.bundle.js.map
"""
ROWS = [120, 345, 345]


def mapped(start: Start, **options: Any) -> Environment:
    """A function whose bundle has a source map beside it."""
    files = {"function.bundle.js.map": source_map(ROWS, "src/main.ts")}
    return start(MAPPED, files=files, **options)


def test_source_map_of_the_answer_and_the_header(start: Start) -> None:
    """With a linked source map, trace and X-Ray cause name TypeScript's files and lines."""
    post, error = mapped(start).error()
    for trace in (error["trace"], error["cause"]["trace"]):
        assert re.search(r"at fail \(.*src/main\.ts:120:\d+\)", trace[1]), trace
        assert re.search(r"at .*handler \(.*src/main\.ts:345:\d+\)", trace[2]), trace
    assert "function.bundle.js" not in json.dumps(error)
    for exception in cause_of(post)["exceptions"]:
        fail, handler, *_ = exception["stack"]
        assert fail["path"].endswith("src/main.ts")
        assert (fail["line"], handler["line"]) == (120, 345)


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_source_map_of_the_log(start: Start, log_format: str) -> None:
    """The log of a failed invocation names TypeScript's lines too."""
    environment = mapped(start, AWS_LAMBDA_LOG_FORMAT=log_format)
    environment.error()
    assert environment.log.count("src/main.ts:120:") == 2
    assert "function.bundle.js" not in environment.log


def test_source_map_of_what_is_logged_itself(start: Start) -> None:
    """An error that a handler logs, and console.trace, name TypeScript's lines."""
    bundle = MAPPED.replace(
        "() => fail()", "() => { try { fail(); } catch (e) { console.error(e); console.trace(); } }"
    )
    environment = start(bundle, files={"function.bundle.js.map": source_map(ROWS, "src/main.ts")})
    environment.result()
    assert "src/main.ts:120:" in environment.log
    assert "src/main.ts:345:" in environment.log
    assert "function.bundle.js" not in environment.log


@pytest.mark.parametrize(
    "content", ["{oops", "", '{"version":3,"sources":[],"names":[],"mappings":"!"}', None]
)
def test_a_source_map_that_is_none(start: Start, content: str | None) -> None:
    """Without its map, or with one that cannot be read, a bundle works, and errors name its own lines."""
    files = {} if content is None else {"function.bundle.js.map": content}
    _, error = start(MAPPED, files=files).error()
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "mapped")
    assert "function.bundle.js:1:" in error["trace"][1]
