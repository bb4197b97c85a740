"""What both runtimes have in common: a Deno that serves events, and a word for each way it can fail.

    event -> is there a process that has loaded the function? -> its answer goes to Lambda
                                                             -> else why not
          -> have a process for the next one

A process that dies is replaced at once; one that keeps dying is replaced when the next event is there,
and not before a while.
"""

import posix
from time import monotonic, sleep, time

from connection import Closed, Connection, Malformed, Unread
from deno import Deno, DenoError

if False:  # for the type checker; importing typing would cost a millisecond
    from collections.abc import Iterator

    from fault import Fault
    from runtime_api import RuntimeApi

PATIENCE = 1.0  # s that the next process has to load the function before /next: it is billed
BOUND = 0.5  # s that a process may take to finish: what is billed of one that ignores its end
LATE = 0.3  # s before the deadline: 0.2 s to see a blocked process, the rest to answer for it and to go on
SAMPLES = 60  # looks at a process that may be blocked, in 0.1 s
BUSY_PLACES = (b"futex", b"pipe")  # of the kernel, in which no event loop waits
REST, LONGEST_REST = 0.1, 2.0  # s between two processes that died in a row; doubled each time
DIGITS = 20  # of a time in milliseconds: fewer than that
SIGTERM, SIGKILL = 15, 9
HERE = 1  # notices of a process that has run runtime.js and has not called Deno.exit
LAST = 501  # status of an answer after which the bridge's process ends
LOAD = b"load"  # in a number's place, in the first message: it answers no request
DIGITS_OF_NUMBER = 16
NUMBERS = 64  # of requests that are made at once: a call of the kernel for each takes four times as long


class Late(Exception):
    """There is no more time to wait for a process."""


class Runtime:
    """A Deno process and the connection to its bridge; the bridge's first message is its own.

    It is a response to no request: 200 when the function is loaded, or the error that it failed with.
    """

    bridge: Connection

    def __init__(self, deno: Deno) -> None:
        self.deno = deno
        self.fault: Fault | None = None
        self.request_id = b""
        self.head = b""  # of the event
        self.numbers = numbers()
        self.number = LOAD  # of the request that the bridge was sent last: its answer has the same
        self.is_started = True  # the bootstrap starts the first one
        self.is_connected = False
        self.is_loaded = False
        self.is_possible = True  # to start a process
        self.deaths = 0  # in a row
        self.rests_until = 0.0  # on time.monotonic
        self.is_blocked = self.has_warned = False  # in this invocation
        self.notices = 0  # of this process: that it is here, that Deno.exit was called
        self.telemetry = deno.settings.telemetry
        self.note = deno.settings.note
        self.oom_kills = oom_kills()

    def is_ready(self) -> bool:
        """Wait until the function is loaded, or cannot be: its errors are init errors."""
        return self.connect() and self.loaded()

    def wants_shutdown(self) -> bool:
        """Whether the function asks to be told of the environment's end: a hook, or a signal listener."""
        return bool(self.bridge.header(b"shutdown"))

    def serve(self, api: "RuntimeApi") -> bool:
        """Serve one event or more; what it gives: see answer."""
        return self.answer(api.next(), api)

    def answer(self, event: Connection, api: "RuntimeApi") -> bool:
        """Give one event to the function and its outcome to Lambda. False: Deno cannot be had again.

        Raises Closed where the event breaks off.
        """
        self.request_id = api.request_id
        self.head = event.head
        self.is_blocked = self.has_warned = False
        if event.unread and self.is_started and self.deno.has_ended() is not None:
            self.ended("while it waited for an event")  # too large to be sent again: see exchange
        if self.is_loaded or self.is_warm():
            self.exchange(event, api)
        else:
            event.drain()
            self.refuse(api)
        self.follow()
        return self.is_possible

    def is_warm(self) -> bool:
        """Whether there is a process that has loaded the function; starts one, and waits for it."""
        if not self.is_started:
            self.is_possible = self.start_again()
        return self.is_started and (self.is_connected or self.connect()) and (self.is_loaded or self.loaded())

    def exchange(self, event: Connection, api: "RuntimeApi", *, is_first: bool = True) -> None:
        """Give the event to a process and its answer to Lambda."""
        is_unread = False
        try:
            self.number = next(self.numbers)
            event.forward(self.bridge, b"POST /invocation/%b HTTP/1.1" % self.number)
        except OSError:
            is_unread = True
        self.conclude(event, api, is_unread=is_unread, is_first=is_first)

    def conclude(
        self, event: Connection, api: "RuntimeApi", *, is_unread: bool, is_first: bool = True
    ) -> None:
        """Give the answer to an event, which the bridge has or could not be given, to Lambda."""
        bridge = self.bridge
        try:
            status = self.receive()
            if self.note:
                self.note(f"has the function's answer: {status}, {bridge.total} bytes with its head")
            if bridge.is_stream:
                from streaming import forward

                is_last = forward(self, api)
            else:
                api.answer(b"response" if status == 200 else b"error", bridge)
                is_last = status == LAST
            if is_last:
                self.ended("after an error that nobody caught")
            elif self.is_started:
                self.deaths = 0
            return
        except Closed as error:
            is_unread = is_unread or isinstance(error, Unread)
            if not is_unread or not is_first or not event.is_whole or self.is_blocked:
                event.drain()
                # In here: an error kept for later and this frame would hold each other, and the buffer.
                self.ended(f"while it handled request {self.request_id.decode()}", error).report(api)
                return
        # What has not read all of an event has handled nothing of it.
        self.ended("before it had read an event")
        if self.is_warm():
            self.exchange(event, api, is_first=False)
        else:
            self.refuse(api)

    def refuse(self, api: "RuntimeApi") -> None:
        """Answer an event that no process could take."""
        if self.fault:
            self.fault.report(api)
            return
        api.answer(b"error", self.bridge)  # why the function could not be loaded
        self.let_go()

    def follow(self) -> None:
        """Have a process for the next event, where there is none and none rests."""
        if not self.is_started and self.is_possible and self.deaths <= 1:
            self.is_possible = self.start_again()
            if self.is_possible and self.connect(self.patience()):
                self.await_load()

    def await_load(self) -> None:
        """Give the process some time to load the function: a slow one goes on when its event is there."""
        bridge = self.bridge
        until = monotonic() + self.patience()

        def expire() -> None:
            if monotonic() > until and bridge.end == 0:
                raise Late

        bridge.on_quiet = expire
        try:
            if not self.loaded() and self.is_started:
                self.let_go()  # the next event has another process try, and hears why
        except Late:
            pass
        finally:
            bridge.on_quiet = self.look

    def patience(self) -> float:
        """S that there are to wait for a process before the next event must be asked for."""
        return min(PATIENCE, self.deadline() - time() - LATE / 2)

    def deadline(self) -> float:
        """When this invocation is over, on time.time; read when it matters, which is seldom."""
        digits = self.head.partition(b"\r\nlambda-runtime-deadline-ms:")[2].partition(b"\r\n")[0].strip()
        return int(digits) / 1000 if digits.isdigit() and len(digits) < DIGITS else float("inf")

    def loaded(self) -> bool:
        """Wait for the bridge's first message: whether it has loaded the function."""
        try:
            self.is_loaded = self.receive() == 200
        except Closed as error:
            self.ended("while it loaded the function", error, is_loading=True)
        if self.note and self.is_loaded:
            self.note("the function is loaded")
        return self.is_loaded

    def receive(self) -> int:
        """Receive the bridge's answer to the last request: its status.

        Raises Closed; Malformed where it is the answer to another request, or none.
        """
        self.bridge.receive()
        status = self.bridge.status()
        if self.bridge.reason != self.number:
            raise Malformed("the answer to another request")
        return status

    def connect(self, patience: float | None = None) -> bool:
        """Have a bridge to talk to; False with a fault where Deno ended before, or patience did."""
        raise NotImplementedError

    def pass_late_logs(self) -> None:
        """Pass on what was logged after the answer, where a process lives on after it."""

    def last_words(self) -> None:
        """Pass on what a process has still to say until it is over, for BOUND at most."""
        raise NotImplementedError

    def report_init(self, api: "RuntimeApi") -> None:
        """Tell Lambda why the function cannot be loaded: Deno's end, or what runtime.js answered."""
        if self.fault:
            self.fault.report_init(api)
        else:
            api.init_error(self.bridge)

    def start_again(self) -> bool:
        """Start another process, not too soon after the last one; False where it cannot be had."""
        rest = self.rests_until - monotonic()
        if rest > 0:
            sleep(rest)
        return self.start()

    def start(self) -> bool:
        """Start another process; False with a fault where it cannot be had."""
        self.fault = None
        self.is_started = self.is_connected = self.is_loaded = False
        self.notices = 0
        self.is_blocked = False
        self.number = LOAD
        try:
            self.deno.start()
        except DenoError as error:
            self.fail(*error.args)
            return False
        self.is_started = True
        if self.note:
            self.note(f"has started Deno again: process {self.deno.pid}")
        return True

    def let_go(self) -> None:
        """End a process that serves no more."""
        self.last_words()
        self.deno.kill()
        self.died()

    def ended(self, when: str, why: Closed | None = None, *, is_loading: bool = False) -> "Fault":
        """Deno is gone, or about to be; it is ended here where what it sends is not what was awaited."""
        from fault import ending

        is_mismatch = isinstance(why, Malformed)
        if is_mismatch and self.deno.has_ended() is None:
            posix.kill(self.deno.pid, SIGKILL)
        self.last_words()
        status = self.deno.end()
        self.died()
        before, self.oom_kills = self.oom_kills, oom_kills()
        error_type, how = ending(status, self.deno.settings.memory, self.oom_kills > before)
        if is_loading and how == "exit status 1" and self.notices == HERE:
            # Deno ends itself so for no other reason, and runtime.js cannot prevent it.
            error_type = "Runtime.ModuleNeverSettled"
            how += ": the function's top-level await waits for what can never come"
        if self.is_blocked:
            error_type, how = (
                "Runtime.EventLoopBlocked",
                "ended since it computed, and never waited, shortly before the deadline",
            )
        if is_mismatch:
            error_type, how = (
                "Runtime.AnswerMismatch",
                f"ended since it sent {why}: code of the function has written to the runtime's connection",
            )
        return self.fail(error_type, f"Deno exited {when}: {how}")

    def died(self) -> None:
        """A process is gone that ought to have served on."""
        self.is_started = self.is_connected = self.is_loaded = False
        self.deaths += 1
        if self.deaths > 1:
            self.rests_until = monotonic() + min(REST * 2 ** (self.deaths - 2), LONGEST_REST)

    def fail(self, error_type: str, message: str) -> "Fault":
        """Something of ours failed."""
        from fault import Fault

        self.fault = Fault(error_type, message, self.request_id)
        return self.fault

    def look(self) -> None:
        """Shortly before the deadline, see why there is no answer: the platform would only say when.

        A process that computes is ended, so that this environment outlives it; one that waits may
        still answer.
        """
        if self.has_warned or time() < self.deadline() - LATE:
            return
        self.has_warned = True
        self.is_blocked = is_busy(self.deno.pid)
        if self.is_blocked:
            posix.kill(self.deno.pid, SIGKILL)
            return
        from logs import write

        what = "the handler waits for something" if self.is_loaded else "the function is still being loaded"
        write("WARN", f"lambdeno: no answer {LATE} s before the deadline: {what}", self.request_id)

    def take(self, said: memoryview) -> None:
        """What the bridge says besides answers: a whole log event, or (empty) a notice."""
        if not said:
            self.notices += 1
        elif self.telemetry is not None:
            from logs import put

            put(self.telemetry, said)

    def shut_down(self) -> None:
        """Tell the function of the environment's end, and wait for it."""
        if self.is_started and self.deno.has_ended() is None:
            posix.kill(self.deno.pid, SIGTERM)
            self.last_words()
        self.deno.kill()


def numbers() -> "Iterator[bytes]":
    """Numbers for requests: random, so that nothing that was written before can be the answer to one."""
    while True:
        digits = posix.urandom(NUMBERS * DIGITS_OF_NUMBER // 2).hex().encode()
        for at in range(0, len(digits), DIGITS_OF_NUMBER):
            yield digits[at : at + DIGITS_OF_NUMBER]


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory; 0 where it does not tell."""
    _, found, rest = peek("/proc/vmstat").partition(b"\noom_kill ")
    return int(rest.partition(b"\n")[0]) if found else 0


def is_busy(pid: int) -> bool:
    """Whether the main thread of a process is not once found where an event loop waits, in 0.1 s.

    A thread that waits for the garbage collector, or writes to a full pipe, is busy as well.
    """
    for _ in range(SAMPLES):
        if peek(f"/proc/{pid}/task/{pid}/stat").rpartition(b") ")[2][:1] != b"R":
            where = peek(f"/proc/{pid}/task/{pid}/wchan")
            if not any(word in where for word in BUSY_PLACES):
                return False
        sleep(0.0015)
    return True


def peek(path: str) -> bytes:
    """What a file of /proc says; nothing where there is none."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return posix.read(descriptor, 64 * 1024)
    except OSError:
        return b""
    finally:
        posix.close(descriptor)
