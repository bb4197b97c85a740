"""Text that others wrote, on a terminal: shown, not obeyed.

A function, a stranger's project and AWS write what they like. On a terminal, control characters in it
would set the clipboard or the title, clear the screen, or hide a line; here they become visible.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["Stream", "safe"]

# Control characters (a line break and a tab are none here), Unicode's line ends, the marks that turn the
# direction of writing, and halves of characters, which cannot be written.
UNSAFE = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
COLOUR = r"\x1b\[[0-9;:]{0,64}m"
PLAIN = re.compile(rf"(?P<kept>\r\n)|[{UNSAFE}]")
COLOURED = re.compile(rf"(?P<kept>\r\n|{COLOUR})|[{UNSAFE}]")
UNFINISHED = re.compile(r"(?:\r|\x1b(?:\[[0-9;:]{0,64})?)\Z")  # its next character decides
RESET = "\x1b[0m"


def safe(text: str, *, colours: bool = False) -> str:
    """The text without a character that a terminal would obey; ``colours`` may stay, up to its end."""
    text = (COLOURED if colours else PLAIN).sub(shown, text)
    return text + RESET if "\x1b" in text and not text.endswith(RESET) else text


def shown(found: re.Match[str]) -> str:
    """The escape by which JavaScript and Python write a control character."""
    return found["kept"] or found[0].encode("unicode_escape").decode()


class Stream:
    """The same for bytes that come in pieces; colours stay."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._has_colours = False

    def feed(self, data: bytes) -> str:
        """What can be shown by now."""
        text = self._held + self._decoder.decode(data)
        unfinished = UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._safe(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """What is left, and the end of colours."""
        left = self._safe(self._held + self._decoder.decode(b"", final=True))
        return left + (RESET if self._has_colours else "")

    def _safe(self, text: str) -> str:
        text = COLOURED.sub(shown, text)
        self._has_colours = self._has_colours or "\x1b" in text
        return text
