"""A Deno process's standard streams as one socket: what the bridge says is received, all else is log.

The bridge writes frames: a mark that only it and we know, four hexadecimal digits of a size, so many
bytes, a line feed; each at most PIPE_BUF long, which the kernel writes in one piece (pipe(7)), so
that nothing of the function's output can get into it. The mark is the first thing on its standard
input, read before the function is loaded. What is no frame goes to our standard output as it comes.
"""

import posix
from select import POLLIN, POLLOUT, poll
from time import monotonic

from deno import Deno

LIVENESS = 50  # ms: how soon a Deno that died is noticed while something else holds its streams
GRACE = 0.2  # s: time to read what a process that has ended has left in its pipe
CHUNK = 64 * 1024  # bytes: what a pipe holds
MARK = 32
SIZE = 4


class Streams:
    """The streams of a Deno process that was just started."""

    def __init__(self, deno: Deno) -> None:
        self.deno = deno
        # A first byte that is rare in text: looking for a mark that is cut in two costs nothing.
        self.mark = b"\0" + posix.urandom(MARK).hex().encode()[: MARK - 1]
        self.chunk = memoryview(bytearray(CHUNK))
        self.raw = b""  # read, and perhaps the start of a frame
        self.left = 0  # bytes of a frame that are still to come
        self.said = bytearray()  # by the bridge
        self.is_over = False
        self.looked = monotonic()
        self.end = 0.0  # when a process that has ended has nothing more to say
        posix.set_blocking(deno.input, False)
        posix.set_blocking(deno.output, False)
        self.reading, self.both = poll(), poll()
        self.reading.register(deno.output, POLLIN)
        self.both.register(deno.output, POLLIN)
        self.both.register(deno.input, POLLOUT)

    def send(self, data: "bytes | memoryview") -> int:
        """Like a socket's; output is read meanwhile, for a Deno that is stuck in it reads nothing.

        Raises OSError: BlockingIOError now and then, as a socket with a timeout does.
        """
        while True:
            try:
                return posix.write(self.deno.input, data)
            except BlockingIOError:
                self.both.poll(LIVENESS)
                if self.is_over or self.deno.has_ended() is not None:
                    raise BrokenPipeError from None
                self._read()
            self._look()

    def recv_into(self, view: memoryview) -> int:
        """Like a socket's: what the bridge said, 0 when there will be no more.

        Raises BlockingIOError now and then, as a socket with a timeout does.
        """
        while not self.said:
            if self.is_over:
                return 0
            self._wait()
            if not self.said and not self.is_over:
                self._look()
        size = min(len(view), len(self.said))
        view[:size] = self.said[:size]
        del self.said[:size]
        return size

    def close(self) -> None:
        """Let go of them."""
        self.deno.close()

    def tell_to_finish(self) -> None:
        """Close its standard input: nothing more comes."""
        if self.deno.input >= 0:
            posix.close(self.deno.input)
            self.deno.input = -1

    def finish(self, bound: float, *, is_told: bool = False) -> None:
        """Pass its last words on until it is over, for ``bound`` s at most."""
        if self.deno.output < 0:
            return
        if not is_told:
            self.tell_to_finish()
        self.reading = poll()  # a signal may have come while the other one waits
        self.reading.register(self.deno.output, POLLIN)
        until = monotonic() + bound
        while not self.is_over and monotonic() < until:
            self._wait()
        log(self.raw)
        self.raw = b""

    def _look(self) -> None:
        """Let who waits here look around, however much the function prints. Raises BlockingIOError."""
        now = monotonic()
        if now > self.looked + LIVENESS / 1000:
            self.looked = now
            raise BlockingIOError

    def _wait(self) -> None:
        """Take what comes in the next moment; of a process that has ended, what it left."""
        is_quiet = not self.reading.poll(LIVENESS)
        if self.deno.has_ended() is not None:
            self.end = self.end or monotonic() + GRACE
            if is_quiet or monotonic() > self.end:  # somebody else holds its streams
                self.is_over = True
        self._read()

    def _read(self) -> None:
        """Take what is there."""
        try:
            size = posix.readv(self.deno.output, [self.chunk])
        except BlockingIOError:
            return
        if size:
            self._sort(self.raw + bytes(self.chunk[:size]))
        else:
            self.is_over = True

    def _sort(self, data: bytes) -> None:
        """Tell frames from output."""
        at = 0
        self.raw = b""
        while True:
            if self.left:
                piece = data[at : at + self.left]
                self.said += piece
                self.left -= len(piece)
                at += len(piece)
                if self.left:
                    return
                del self.said[-1]  # the line feed
            found = data.find(self.mark, at)
            if found < 0:
                break
            log(data[at:found])
            at = found
            if len(data) < at + MARK + SIZE:
                self.raw = data[at:]
                return
            size = data[at + MARK : at + MARK + SIZE]
            if size.strip(b"0123456789abcdef"):  # no size: the function has got hold of the mark
                log(data[at : at + MARK])
                at += MARK
                continue
            self.left = int(size, 16) + 1
            at += MARK + SIZE
        cut = data.rfind(self.mark[:1], max(at, len(data) - MARK + 1))
        if cut < 0 or not self.mark.startswith(data[cut:]):
            cut = len(data)
        log(data[at:cut])
        self.raw = data[cut:]


def log(data: bytes) -> None:
    """Write to the function's log."""
    while data:
        data = data[posix.write(1, data) :]
