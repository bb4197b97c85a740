"""Signals that end a command: an exception in the main thread, so that everything is cleaned up first.

A process that has cleaned up dies of the signal itself: its parent sees which one it was.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Ended", "caught", "deferred", "die", "unignored"]

NAMES = ("SIGHUP", "SIGINT", "SIGTERM")
# Closing a terminal sends SIGHUP twice (kernel and shell), and wrappers such as uv forward Ctrl-C once more.
REPEATED = 1.0  # s


class Ended(KeyboardInterrupt):
    """A signal has asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Handler:
    """Raises Ended for the first signal. A later one ends the process at once."""

    def __init__(self) -> None:
        self.number = 0  # of the first signal
        self._at = 0.0
        self._deferrals = 0
        self._is_due = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number:
            if time.monotonic() - self._at > REPEATED:
                die(number)
            return
        self.number, self._at = number, time.monotonic()
        if self._deferrals:
            self._is_due = True
        else:
            raise Ended(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
            if self._is_due and not self._deferrals:
                self._is_due = False
                raise Ended(self.number)


_handler = _Handler()


@contextmanager
def caught() -> Iterator[_Handler]:
    """Raise Ended in this block when a signal asks the process to end; ``number`` says later which one.

    Signals that were ignored at the start (nohup) stay ignored.
    """
    _handler.number = 0
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield _handler
        return
    former = {number: signal.signal(number, _handler) for number in unignored()}
    try:
        yield _handler
    finally:
        for number, before in former.items():
            signal.signal(number, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Keep a signal until the end of the block, which must be short."""
    if threading.current_thread() is threading.main_thread():  # where handlers run
        with _handler.deferred():
            yield
    else:
        yield


def unignored() -> list[signal.Signals]:
    """The signals that ask this process to end, but for those that it was started to ignore."""
    numbers = [signal.Signals[name] for name in NAMES if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def die(number: int) -> None:
    """End this process by a signal, whose handler is done with it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
