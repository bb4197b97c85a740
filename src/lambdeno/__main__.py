"""What the ``lambdeno`` script starts: the state of the process that everything else takes for granted.

Little is imported before it: a Ctrl-C in the first moments, while the command line is imported, ends the
process without a word.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line has its own handlers
    _open_streams()
    from lambdeno.cli import main as command_line  # noqa: PLC0415 - it takes 0.1 s

    command_line()


def _open_streams() -> None:
    """Open the null device where a standard stream is closed (``<&-``).

    Otherwise the next file that is opened would take its number, and other programs would print into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(descriptor, descriptor == number)
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r", encoding="utf-8"))


if __name__ == "__main__":
    main()
