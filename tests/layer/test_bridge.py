"""The bridge shares its process with the function: whatever that does, answers go to their own callers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import Request

MISMATCH = "Runtime.AnswerMismatch"
LATE = 0.1  # s after the answer: what is written late

# --- one message too many ------------------------------------------------------------------------

# Writes to every socket of this process, the bridge's among them; the descriptors' numbers are not told.
WRITES = r"""
import net from "node:net";
const kept = [];
const write = async (text) => {
  for (let fd = 3; fd < 40; fd++) {
    let socket;
    try { socket = new net.Socket({ fd, readable: false, writable: true }); } catch { continue; }
    kept.push(socket);
    await new Promise((resolve) => { socket.on("error", resolve); socket.write(text, resolve); });
  }
};
"""
HANDLER = r"""
export const handler = async ({ writes, late, returns }) => {
  if (late) setTimeout(() => write(late), 30);
  if (writes) await write(writes);
  return returns;
};
"""
STREAMING = r"""
export const handler = async function* ({ writes, late, returns }) {
  yield "begun ";
  if (late) setTimeout(() => write(late), 30);
  if (writes) await write(writes);
  yield returns;
};
"""


def message(status: str = "200 OK", body: str = '"forged"', fields: str = "") -> str:
    """An answer as the bridge has it."""
    fields = fields or f"Content-Type: application/json\r\nContent-Length: {len(body):8}\r\n"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n{body}"


STREAM = (
    "Lambda-Runtime-Function-Response-Mode: streaming\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n"
)
MESSAGES = {
    "a result": message(),
    "a result with a number": message("200 0123456789abcdef"),
    "a result as at load": message("200 load"),
    "an error": message("500 Error", "{}"),
    "a last error": message("501 Last", "{}"),
    "a stream": message("200 OK", "3\r\none\r\n0\r\n\r\n", STREAM),
    "an empty result": message(body=""),
    "two results": message() * 2,
    "a length too many": message(fields="Content-Length: 1\r\nContent-Length: 2\r\n"),
    "another protocol": "SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "a word": "x",
    "the start of a message": "HTTP/1.1 200 OK\r\n",
}


def is_mismatch(post: Request) -> bool:
    """True if an invocation ended with the error of a message too many."""
    return post.path.endswith("/error") and post.error_type == MISMATCH


def ask(environment: Environment, number: int, **event: Any) -> Request:
    """Invoke the function that returns this number."""
    return environment.invoke({"returns": number, **event}, request_id=f"request-{number}")


def own(post: Request, number: int) -> bool:
    """True if a post is the result of this very request."""
    return post.path.endswith(f"/request-{number}/response") and json.loads(post.body) == number


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1"])
@pytest.mark.parametrize("written", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_message_too_many_answers_nobody(start: Start, written: str) -> None:
    """The invocation that writes it fails with a named error; the next ones have their own answers."""
    environment = start(WRITES + HANDLER)
    assert own(ask(environment, 1), 1)
    deno = environment.children()
    assert is_mismatch(ask(environment, 2, writes=written))
    assert all(own(ask(environment, number), number) for number in range(3, 6))
    assert environment.children() != deno
    assert f"lambdeno: {MISMATCH}: " in environment.log


@pytest.mark.parametrize("combination", ["source-runtime1", "binary-runtime1"])
@pytest.mark.parametrize("debug", [None, "1"], ids=["fast path", "ordinary path"])
@pytest.mark.parametrize("written", ["a result", "two results", "a word", "a stream"])
def test_a_late_message_answers_nobody(start: Start, written: str, debug: str | None) -> None:
    """What is written between two invocations answers neither; the second may get an error."""
    environment = start(WRITES + HANDLER, LAMBDENO_DEBUG=debug)
    assert own(ask(environment, 1, late=MESSAGES[written]), 1)
    time.sleep(LATE)
    second = ask(environment, 2)
    assert is_mismatch(second) or own(second, 2)
    assert all(own(ask(environment, number), number) for number in range(3, 6))
    assert f"lambdeno: {MISMATCH}: " in environment.log


@pytest.mark.parametrize("combination", ["binary-runtime1"])
@pytest.mark.parametrize("written", ["a result", "a stream", "a word"])
def test_a_message_in_a_stream_ends_it(start: Start, written: str) -> None:
    """Lambda is told of it in trailers; the next stream is its own."""
    environment = start(WRITES + STREAMING)
    post = ask(environment, 1, writes=f"\r\n{MESSAGES[written]}\r\n")
    assert post.trailers["lambda-runtime-function-error-type"] == MISMATCH
    post = ask(environment, 2)
    assert (post.body, dict(post.trailers)) == (b"begun 2", {})


@pytest.mark.parametrize("combination", ["binary-runtime1"])
@pytest.mark.parametrize("written", ["0\r\n\r\n", "0\r\n\r\n" + message(), message("200 OK", "", STREAM)])
def test_a_stream_that_is_ended_for_the_bridge_answers_no_other(start: Start, written: str) -> None:
    """The rest of a stream whose end was forged is no answer to the next request."""
    environment = start(WRITES + STREAMING)
    ask(environment, 1, writes=written)
    posts = [ask(environment, number) for number in range(2, 5)]
    for number, post in enumerate(posts, 2):
        assert is_mismatch(post) or post.body == f"begun {number}".encode()
    assert posts[-1].body == b"begun 4"
    assert MISMATCH in environment.log


@pytest.mark.parametrize("combination", ["binary-runtime1"])
@pytest.mark.parametrize("written", ["a result", "an error", "an empty result", "a word"])
def test_a_message_too_many_at_load_is_an_init_error(start: Start, written: str) -> None:
    """It cannot pass for the bridge's own word that the function is loaded."""
    environment = start(f"{WRITES} await write({json.dumps(MESSAGES[written])}); {HANDLER}")
    _, error = environment.init_error()
    assert error["errorType"] == MISMATCH


@pytest.mark.parametrize("combination", ["binary-runtime1"])
def test_a_forged_load_gains_nothing(start: Start) -> None:
    """Messages that pass for the load and for an answer, both: the answer's number cannot be known before."""
    forged = message("200 load", "", "Content-Length: 0\r\n") + message()
    environment = start(f"{WRITES} await write({json.dumps(forged)}); {HANDLER}")
    for number in range(3):
        assert is_mismatch(ask(environment, number))


# --- builtins that the function replaces -----------------------------------------------------------

# Builtins, and what takes their place. Most hung an environment for good when the bridge had not bound them.
UNDEFINED, THROWER = "undefined", "function () { throw new NativeError('replaced'); }"
BUILTINS = {
    "globalThis.Date": UNDEFINED,
    "globalThis.Deno": THROWER,
    "globalThis.Set": UNDEFINED,
    "globalThis.console": UNDEFINED,
    "globalThis.globalThis": UNDEFINED,
    "globalThis.process": THROWER,
    "Array[Symbol.species]": THROWER,
    "Array.prototype[Symbol.iterator]": THROWER,
    "Date.prototype.toISOString": UNDEFINED,
    "Deno.build": UNDEFINED,
    "Deno.env": UNDEFINED,
    "Deno.env.get": THROWER,
    "Deno.execPath": UNDEFINED,
    "Deno.mainModule": THROWER,
    "Object.getPrototypeOf([][Symbol.iterator]()).next": UNDEFINED,
    "Object.getPrototypeOf(Uint8Array.prototype).length": THROWER,
    "String.prototype.replaceAll": UNDEFINED,
    "String.prototype.startsWith": UNDEFINED,
    "TextEncoder.prototype.encode": UNDEFINED,
    # These failed starts or invocations.
    "globalThis.Promise": UNDEFINED,
    "Function.prototype.bind": THROWER,
    "Map.prototype.get": THROWER,
    "Promise.prototype.then": UNDEFINED,
    "RegExp.prototype.exec": THROWER,
}
REPLACES = """
const NativeError = TypeError, NativePromise = Promise, on = HOLDER;
Reflect.defineProperty(on, KEY, { value: VALUE, writable: true, configurable: true });
export const handler = (event) => {
  if (event.does === "throw") throw new NativeError("thrown");
  if (event.does === "reject") return (async () => { await null; throw new NativeError("rejected"); })();
  if (event.does === "forget") {
    (async () => { throw new NativeError("forgotten"); })();
    return new NativePromise(() => {});
  }
  return event;
};
"""


def replacing(builtin: str, value: str) -> str:
    """A function that replaces a builtin while it loads."""
    holder, _, key = builtin.rpartition("[" if builtin.endswith("]") else ".")
    name = key.removesuffix("]") if builtin.endswith("]") else json.dumps(key)
    return REPLACES.replace("HOLDER", holder).replace("KEY", name).replace("VALUE", value)


@pytest.mark.parametrize("combination", ["binary-runtime1"])
@pytest.mark.parametrize(("builtin", "value"), BUILTINS.items(), ids=BUILTINS.keys())
def test_a_builtin_that_is_replaced_at_load_changes_no_answer(start: Start, builtin: str, value: str) -> None:
    """The bridge has bound what it needs before: results, errors and their reasons are as ever."""
    environment = start(replacing(builtin, value))
    event = {"does": "return", "text": "é"}
    assert environment.result(event) == event
    for does, told in (("throw", "thrown"), ("reject", "rejected"), ("forget", "forgotten")):
        _, error = environment.error({"does": does})
        assert told in error["errorMessage"], (does, error)
    assert environment.result(event) == event
