"""Text of others on a terminal: what is shown in place of what would be obeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdeno import terminal

RESET = "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),  # the clipboard
        ("\x1b]0;title\x1b\\", r"\x1b]0;title\x1b" + "\\"),
        ("\x1b]8;;http://evil.example\x1b\\link", r"\x1b]8;;http://evil.example\x1b" + "\\link"),
        ("\x1b[2J\x1b[H\x1b[?1049h\x1bc", r"\x1b[2J\x1b[H\x1b[?1049h\x1bc"),
        ("\x1b[6n\x1bP$q\x1b\\", r"\x1b[6n\x1bP$q\x1b" + "\\"),  # questions, which the terminal would answer
        ("\x9b2J\x9d0;t\x9c", r"\x9b2J\x9d0;t\x9c"),  # the same in one character
        ("hidden\rseen \b\x7f", r"hidden\rseen \x08\x7f"),
        ("\u202egnp.exe \u2066x\u2069", r"\u202egnp.exe \u2066x\u2069"),
        ("\ud800", r"\ud800"),
        ("a\tb\r\nc\n", "a\tb\r\nc\n"),
        ("é 日本 😀 \u200f", "é 日本 😀 \u200f"),
    ],
)
def test_nothing_is_obeyed(text: str, shown: str) -> None:
    """Control characters, in one byte or two, become visible; lines, tabs and all writing stay."""
    assert terminal.safe(text) == terminal.safe(text, colours=True) == shown


def test_colours_may_stay() -> None:
    """Only they, and up to the end of the text."""
    assert terminal.safe("\x1b[31mred") == r"\x1b[31mred"
    assert terminal.safe("\x1b[1;38;5;9mred", colours=True) == f"\x1b[1;38;5;9mred{RESET}"
    assert terminal.safe("\x1b[4:3mred\x1b[0m", colours=True) == f"\x1b[4:3mred{RESET}"
    assert terminal.safe("\x1b[31K", colours=True) == r"\x1b[31K"
    assert terminal.safe("\x1b[" + "9" * 5000 + "m", colours=True).startswith(r"\x1b[9")


@given(st.text("\x1b[]0123;m\r\nK\x07é€😀\x9b"), st.integers(1, 7))
def test_pieces_are_as_safe_as_the_whole(text: str, size: int) -> None:
    """However a stream is cut, within a character or a colour, it is shown as the whole text is."""
    data = text.encode()
    stream = terminal.Stream()
    shown = "".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.end()
    whole = terminal.safe(text, colours=True)
    assert shown in {whole, whole + RESET}
