"""The JSON that Lambda takes: UTF-8 without a byte order mark, no NaN, at most 1000 levels.

Checked without being read: numbers of any size pass, and 6 MB take 5 to 400 ms.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
import sys
import threading
from typing import Any, NoReturn

import msgspec

__all__ = ["TooDeep", "check", "on_one_line", "parse"]

DEEPEST = 1000  # levels: the default of Jackson, which reads the service's requests
TOO_DEEP = f"it has more than {DEEPEST} levels of nesting"
ROOM = 3 * DEEPEST  # frames that these levels may take on top of the caller's

RAW = msgspec.json.Decoder(msgspec.Raw)
OPENING, CLOSING = b"[{", b"]}"
OTHERS = bytes(set(range(256)) - set(OPENING + CLOSING))
STEPS = bytes.maketrans(OPENING + CLOSING, b"\1\1\377\377")  # +1 and -1 as signed bytes
BEYOND_ASCII = re.compile(r"[^ -~]+")
SHALLOW = 8  # levels
LIMIT = threading.Lock()  # the recursion limit is the whole process's


class TooDeep(ValueError):
    """It is JSON, with more levels than Lambda takes."""


def check(payload: bytes) -> None:
    """Check a payload. Raises ValueError, which says what is wrong with it."""
    text = _decoded(payload)
    try:
        RAW.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        # msgspec has no half of a surrogate pair ("\ud800"), fewer levels, and fewer words.
        _loads(text, CHECKER)
    _check_levels(payload)


def parse(payload: bytes) -> Any:
    """The value of a payload. Raises ValueError, which says what is wrong with it."""
    value = _loads(_decoded(payload), READER)
    _check_levels(payload)
    return value


def on_one_line(payload: bytes) -> str:
    """The same JSON in one line of ASCII; ``payload`` has passed the check."""
    return BEYOND_ASCII.sub(_escaped, payload.decode("utf-8"))


def _escaped(found: re.Match[str]) -> str:
    units = struct.iter_unpack(">H", found[0].encode("utf-16-be"))
    # Line breaks and tabs stand between JSON's words alone: within a string they are escapes.
    return "".join(" " if unit < 32 else f"\\u{unit:04x}" for (unit,) in units)


def _decoded(payload: bytes) -> str:
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark")
    return text


def _check_levels(payload: bytes) -> None:
    """Refuse JSON that is nested too deep; without recursion, and without a loop in Python."""
    if payload.count(b"[") + payload.count(b"{") <= DEEPEST:
        return
    if b"\\" in payload:
        payload = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(payload.split(b'"')[::2])  # of strings
    brackets = outside.translate(STEPS, OTHERS)
    for _ in range(SHALLOW):  # what is wide, not deep, is gone after a few passes
        brackets = brackets.replace(b"\1\377", b"")
    levels = itertools.accumulate(memoryview(brackets).cast("b"), initial=0)
    if any(map((DEEPEST - SHALLOW).__lt__, levels)):
        raise TooDeep(TOO_DEEP)


def _loads(text: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        pass
    with LIMIT:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + ROOM)
        try:
            return decoder.decode(text)
        except RecursionError:
            raise TooDeep(TOO_DEEP) from None
        finally:
            sys.setrecursionlimit(limit)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


READER = json.JSONDecoder(parse_constant=_refuse)
CHECKER = json.JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)  # numbers of any size
