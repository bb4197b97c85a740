"""The JSON that Lambda takes: which bytes are refused, with which words, and how fast."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdeno import payload


def nested(levels: int, opening: str = "[", closing: str = "]", inner: str = "1") -> bytes:
    """A value in so many arrays."""
    return (opening * levels + inner + closing * levels).encode()


@pytest.mark.parametrize(
    "text",
    [
        *(b"1", b'""', b"{}", b" [] \n", b'"\xc3\xa9"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'{"a":1,"a":2}'),
        *(b"9" * 5000, b"-" + b"9" * 5000, b"1e999", b"0." + b"1" * 5000, b'"' + b"[" * 5000 + b'"'),
        *(nested(980), nested(1000), nested(1000, '{"a":', "}"), nested(999, inner='"\\"[["')),
        b"[" + b"[[]]," * 100_000 + b"1]",
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_lambda_takes(text: bytes) -> None:
    """UTF-8, numbers of any size, halves of surrogate pairs, 1000 levels."""
    payload.check(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"{} x", "Extra data"),
        (b"[1,]", "Expecting value"),
        (b"{'a': 1}", "Expecting property name"),
        (b"01", "Extra data"),
        (b'"\t"', "Invalid control character"),
        (b"NaN", "JSON has no NaN"),
        (b'{"a": -Infinity}', "JSON has no -Infinity"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        ("{}".encode("utf-16-le"), "Expecting property name"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
        (nested(1001), "more than 1000 levels"),
        (nested(5000, '{"a":', "}"), "more than 1000 levels"),
        (b"[" * 100_000, "more than 1000 levels"),
        (b'["\\\\",' + nested(1000) + b"]", "more than 1000 levels"),
        (nested(1100, inner=""), "more than 1000 levels"),
    ],
    ids=lambda text: str(text[:20]),
)
def test_what_lambda_refuses(text: bytes, says: str) -> None:
    """The reason is told; reading and checking agree."""
    for take in (payload.check, payload.parse):
        with pytest.raises(ValueError, match=says):
            take(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_every_value_passes_and_stays(value: object, is_ascii: bool) -> None:
    """What json writes is taken; on one line of ASCII it is the same value."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=is_ascii).encode()
    except UnicodeEncodeError:  # half a pair, which is no UTF-8
        text = json.dumps(value).encode()
    payload.check(text)
    assert payload.parse(text) == json.loads(text)
    line = payload.on_one_line(text)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == json.loads(text)


@given(
    st.binary(max_size=40) | st.text('{}[]",:0123456789eE+-. \\\\utrfnlas\\n', max_size=40).map(str.encode)
)
def test_a_check_takes_what_json_takes(text: bytes) -> None:
    """The fast check and Python's parser agree on what is JSON."""
    try:
        json.loads(text.decode(), parse_constant=int)  # int("NaN") is a ValueError
        is_json = True
    except ValueError:
        is_json = False
    try:
        payload.check(text)
    except ValueError:
        assert not is_json
    else:
        assert is_json


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": "' + b"x" * 6_000_000 + b'"}',
        b"[" + b'{"a":1},' * 750_000 + b"{}]",
        b"[" * 6_000_000,
        b'[["' * 1000 + b'\\"' * 3_000_000,
    ],
    ids=["text", "objects", "brackets", "quotes"],
)
def test_six_megabytes_take_no_seconds(text: bytes) -> None:
    """No payload of Lambda's size keeps the event loop for long."""
    before = time.thread_time()
    with contextlib.suppress(ValueError):
        payload.check(text)
    assert time.thread_time() - before < 3


def test_threads_leave_the_recursion_limit_as_it_was() -> None:
    """A deep payload lifts it for a moment, in whatever thread."""
    limit = sys.getrecursionlimit()
    threads = [threading.Thread(target=payload.parse, args=(nested(1000),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.getrecursionlimit() == limit
