"""What the bootstrap does and when, for LAMBDENO_DEBUG=1: no event, no result, no variable."""

from time import monotonic

from logs import emit

started = monotonic()
last = started


def note(text: str) -> None:
    """Log what was done, ms since the bootstrap's start and since the last note."""
    global last  # noqa: PLW0603
    now = monotonic()
    since_start, since_last = (now - started) * 1000, (now - last) * 1000
    last = now
    emit("DEBUG", f"lambdeno: {since_start:.3f} ms (+{since_last:.3f}): {text}")
