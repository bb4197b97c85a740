"""What the bridge says is told from what a function writes, in whatever pieces both arrive."""

from __future__ import annotations

import contextlib
import os
import random
import re
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layer.fake_runtime_api import DEADLINE
from tests.layer.test_connection import CUTS, Message, cut, layer_modules, messages

connection, streams = layer_modules("connection", "streams")
MARK: int = streams.MARK
LARGEST = 4096 - MARK - 4 - 1  # bytes in a frame: PIPE_BUF with all that is around them
PATIENCE = 5  # s


class Process:
    """Stands for Deno: a process with standard streams, whose other ends are ours."""

    def __init__(self) -> None:
        self.stdin, self.input = os.pipe()
        self.output, self.stdout = os.pipe()
        self.status: int | None = None

    def has_ended(self) -> int | None:
        """Its wait status, once it has."""
        return self.status

    def say(self, pieces: Sequence[bytes]) -> None:
        """Write each piece when the one before was read."""
        for piece in pieces:
            rest = piece
            while rest:
                rest = rest[os.write(self.stdout, rest) :]
            while waiting(self.output):
                time.sleep(0)

    def end(self) -> None:
        """Say no more."""
        if self.stdout >= 0:
            os.close(self.stdout)
            self.stdout = -1

    def break_off(self) -> None:
        """Have no thread wait for what will not come."""
        for descriptor in (self.input, self.output):
            if descriptor >= 0:
                os.close(descriptor)
        self.input = self.output = -1

    def close(self) -> None:
        """Let go of all descriptors."""
        self.end()
        self.break_off()
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1


class Log:
    """What is written to descriptor 1."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @property
    def text(self) -> bytes:
        """All of it."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)


@contextlib.contextmanager
def process() -> Iterator[tuple[Process, Any, Log]]:
    """A process, its streams, and the function's log: descriptor 1 is a file meanwhile."""
    deno = Process()
    with tempfile.TemporaryFile() as file:
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield deno, streams.Streams(deno), Log(file.fileno())
        finally:
            os.dup2(before, 1)
            os.close(before)
            deno.close()


def waiting(descriptor: int) -> int:
    """Bytes in a pipe."""
    count = array("i", [0])
    ioctl(descriptor, FIONREAD, count)
    return count[0]


@contextlib.contextmanager
def living(deno: Process, life: Callable[[], None]) -> Iterator[None]:
    """The process does this meanwhile, and ends."""

    def live() -> None:
        life()
        deno.end()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(live)
        try:
            yield
            done.result(DEADLINE)
        except BaseException:
            deno.break_off()
            raise


def saying(deno: Process, pieces: Sequence[bytes]) -> contextlib.AbstractContextManager[None]:
    """The process says this meanwhile, piece by piece, and ends."""
    return living(deno, lambda: deno.say(pieces))


def received(its: Any, room: int = 65536) -> bytes:
    """All that the bridge says until it is over; then its last words are passed on."""
    view = memoryview(bytearray(room))
    said = bytearray()
    while True:
        try:
            got = its.recv_into(view)
        except BlockingIOError:  # a slow machine
            continue
        if not got:
            its.finish(PATIENCE)
            return bytes(said)
        said += view[:got]


def frame(mark: bytes, said: bytes) -> bytes:
    """What the bridge writes to say this."""
    return mark + b"%04x" % len(said) + said + b"\n"


SAID = st.binary(max_size=60) | st.sampled_from([b"", b"\n", b"x" * (LARGEST - 1), b"y" * LARGEST])
SIZES = [
    b"",
    b"0",
    b"00g0",
    b"000A",
    b" 123",
    b"0x10",
    b"+001",
    b"-001",
    b"1_00",
    b"\n\n\n\n",
    b"\0",
    b"ffff",
]
Part = tuple[str, Any]
FRAMES: st.SearchStrategy[Part] = st.tuples(st.just("frame"), SAID)
OUTPUT: st.SearchStrategy[Part] = st.tuples(st.just("output"), st.binary(max_size=100)) | st.tuples(
    st.just("beginning of a mark"), st.integers(1, MARK - 2)
)
FORGED: st.SearchStrategy[Part] = st.tuples(st.just("mark and"), st.sampled_from(SIZES))


def written(mark: bytes, part: Part) -> bytes:
    """The bytes of a part of what a process writes."""
    match part:
        case ("frame", said):
            return frame(mark, said)
        case ("beginning of a mark", size):
            return mark[:size]
        case ("mark and", size):
            return mark + bytes(size)
        case (_, output):
            return bytes(output)


@given(parts=st.lists(FRAMES | OUTPUT, max_size=8), cuts=CUTS, room=st.integers(1, 5000))
@settings(max_examples=150)
def test_frames_are_told_from_output(parts: list[Part], cuts: Sequence[int], room: int) -> None:
    """What is in frames is received, all else is logged, each byte once and in order."""
    with process() as (deno, its, log):
        sent = b"".join(written(its.mark, part) for part in parts)
        with saying(deno, cut(sent, cuts)):
            assert received(its, room) == b"".join(said for kind, said in parts if kind == "frame")
        assert log.text == b"".join(written(its.mark, part) for part in parts if part[0] != "frame")
        assert its.recv_into(memoryview(bytearray(1))) == 0


def told_apart(mark: bytes, sent: bytes) -> tuple[bytes, bytes]:
    """What is said and what is logged, when all that was sent is at hand."""
    said, logged, at = b"", b"", 0
    while found := re.compile(re.escape(mark) + b"([0-9a-f]{4})").search(sent, at):
        end = found.end() + int(found[1], 16)
        logged += sent[at : found.start()]
        said += sent[found.end() : end]
        at = end + 1
    return said, logged + sent[at:]


@given(parts=st.lists(FRAMES | OUTPUT | FORGED, max_size=8), cuts=CUTS)
@settings(max_examples=150)
def test_a_mark_without_a_size_is_output(parts: list[Part], cuts: Sequence[int]) -> None:
    """A function that has got hold of the mark writes it to the log, and the frames after it are frames."""
    with process() as (deno, its, log):
        sent = b"".join(written(its.mark, part) for part in parts)
        with saying(deno, cut(sent, cuts)):
            assert (received(its), log.text) == told_apart(its.mark, sent)


@given(message=messages(), output=st.binary(max_size=30), cuts=CUTS)
@settings(max_examples=60)
def test_a_message_comes_out_of_frames(message: Message, output: bytes, cuts: Sequence[int]) -> None:
    """A Connection over the streams receives a message whole, whatever comes between its frames."""
    with process() as (deno, its, log):
        pieces = cut(message.data, cuts)
        sent = b"".join(output + frame(its.mark, piece) for piece in pieces)
        with saying(deno, cut(sent, cuts)):
            it = connection.Connection(its)
            it.receive()
            assert it.body() == message.body
            assert received(its) == b""
        assert log.text == output * len(pieces)


def test_megabytes_pass() -> None:
    """6 MB in frames come through whole, and so does as much output between them."""
    data = random.Random(6).randbytes(6 * 1024 * 1024)
    with process() as (deno, its, log):
        pieces = cut(data, range(0, len(data), LARGEST))
        with saying(deno, [b"".join(frame(its.mark, piece) + piece for piece in pieces)]):
            assert received(its) == data
        assert log.text == data


def test_every_mark_is_another() -> None:
    """A mark is of one length, begins with what text has not, and is nobody else's."""
    marks = set()
    for _ in range(20):
        with process() as (_, its, _):
            marks.add(its.mark)
    assert len(marks) == 20
    assert all(re.fullmatch(rb"\0[0-9a-f]{%d}" % (MARK - 1), mark) for mark in marks)


@pytest.mark.parametrize("size", [1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("output", [0, 64 * 1024, 1_000_000])
def test_what_is_sent_arrives_while_output_is_read(size: int, output: int) -> None:
    """A process that writes before it reads gets all that is sent to it: neither waits for the other."""
    data = random.Random(size).randbytes(size)
    with process() as (deno, its, log):
        got = bytearray()

        def live() -> None:
            rest = b"o" * output
            while rest:
                rest = rest[os.write(deno.stdout, rest) :]
            while len(got) < size and (part := os.read(deno.stdin, 1024 * 1024)):
                got.extend(part)

        with living(deno, live):
            connection.Connection(its).send(data)
            assert received(its) == b""
        assert got == data
        assert log.text == b"o" * output


def test_nobody_is_sent_to() -> None:
    """What is sent to a process that has ended breaks, whether somebody else holds its streams or not."""
    for closes in (False, True):
        with process() as (deno, its, _):
            deno.status = 0
            if closes:
                os.close(deno.stdin)
                deno.stdin = -1
            with pytest.raises(BrokenPipeError):
                connection.Connection(its).send(b"x" * 1_000_000)


def test_a_quiet_process_is_told_of() -> None:
    """A wait in which nothing is said raises BlockingIOError, and a Connection calls on_quiet for it."""
    with process() as (deno, its, _):
        with pytest.raises(BlockingIOError):
            its.recv_into(memoryview(bytearray(1)))
        it = connection.Connection(its)
        rest = [frame(its.mark, b"HTTP/1.1 200 OK\r\n"), frame(its.mark, b"Content-Length: 1\r\n\r\n1")]
        it.on_quiet = lambda: deno.say([]) if not rest else os.write(deno.stdout, rest.pop(0))
        it.receive()
        assert (it.status(), it.body(), rest) == (200, b"1", [])


def test_who_waits_looks_around_whatever_is_printed() -> None:
    """A function that prints without end keeps nobody who waits for the bridge from looking at the time."""
    looks = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise connection.Closed

    with process() as (deno, its, log):

        def print_on() -> None:
            with contextlib.suppress(BrokenPipeError):
                while len(looks) < 3:
                    os.write(deno.stdout, b"on and on\n")

        it = connection.Connection(its)
        it.on_quiet = look
        with living(deno, print_on):
            with pytest.raises(connection.Closed):
                it.receive()
            received(its)
        assert log.text.startswith(b"on and on\n")


def test_a_process_that_has_ended_is_over_while_its_streams_are_held() -> None:
    """What a process has said before its end is received, and then that there is no more, in good time."""
    with process() as (deno, its, log):
        os.write(deno.stdout, b"out" + frame(its.mark, b"said") + b"put" + its.mark[:7])
        deno.status = 0
        start = time.monotonic()
        assert received(its) == b"said"
        assert time.monotonic() - start < PATIENCE
        assert log.text == b"output" + its.mark[:7]


@pytest.mark.parametrize("end", [0, 1, MARK, MARK + 4])
def test_a_frame_that_breaks_off_ends(end: int) -> None:
    """A process that dies in a frame has said what it has; a mark that never became one is output."""
    with process() as (deno, its, log):
        sent = frame(its.mark, b"whole") + frame(its.mark, b"half")[: end + 2 * (end > MARK)]
        with saying(deno, [sent]):
            assert received(its) == (b"wholeha" if end > MARK else b"whole")
        assert log.text == (b"" if end > MARK else its.mark[:end])
