"""One environment for a long time, with all that can go wrong in it: it grows nowhere and loses nothing.

SOAK=large (``make soak``) makes it a hundred thousand invocations; else there are as many as a test
run has time for.
"""

from __future__ import annotations

import collections
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import DEADLINE, Event, FakeRuntimeApi, Request, status
from tests.layer.test_deno_ends import holds

COUNTS = {
    "small": {"runtime1": 3_000, "runtime2": 300},
    "large": {"runtime1": 100_000, "runtime2": 10_000},
}
SIZE = os.environ.get("SOAK", "small")
LIMIT = 15 * 60  # s
SAMPLES = 100
TENTH = SAMPLES // 10
FAULTS = {"small": 0.05, "large": 0.01}[SIZE]  # of all invocations; few must have enough of them
MEGABYTE = 1024 * 1024
LIMITS = {"bootstrap": MEGABYTE, "Deno": 64 * MEGABYTE}  # what a median may grow; V8's heap moves about
TOO_LARGE = 6_300_000  # bytes of a result that Lambda refuses

SOURCE = """
export const handler = async (event) => {
  switch (event?.fault) {
    case "throws": throw new Error("thrown");
    case "never settles": return await new Promise(() => {});
    case "too large": return "x".repeat(event.size);
    case "exits": Deno.exit(3);
    case "is killed": Deno.kill(Deno.pid, "SIGKILL"); break;
    case "rejects": Promise.reject(new Error("forgotten")); break;
    default: return event;
  }
  await new Promise((resolve) => setTimeout(resolve, 60_000));
};
"""
# Error types; what is too large is a result that nobody takes.
HARMLESS = {"throws": "Function.Error", "never settles": "Runtime.HandlerNeverSettled", "too large": ""}
DEADLY = {
    "exits": "Runtime.ExitError",
    "is killed": "Runtime.DenoKilled",
    "rejects": "Runtime.UnhandledPromiseRejection",
}


@pytest.fixture(params=["binary-runtime1", "binary-runtime2"])
def combination(request: pytest.FixtureRequest) -> str:
    """Both runtimes, as they are on Lambda."""
    name: str = request.param
    return name


@dataclass(frozen=True)
class Sample:
    """An environment that waits for an event."""

    number: int  # of invocations before it
    bootstrap: int  # bytes in memory
    descriptors: int  # of the bootstrap
    deno: int
    deno_pid: int
    deno_descriptors: int
    folders: int
    files: int  # and folders, below those

    def told(self) -> str:
        """As progress has it."""
        return (
            f"bootstrap {self.bootstrap / MEGABYTE:.1f} MB, {self.descriptors} descriptors;"
            f" Deno {self.deno / MEGABYTE:.0f} MB, {self.deno_descriptors} descriptors;"
            f" {self.folders} folder with {self.files} entries"
        )


@dataclass
class Soak:
    """The invocations and what was seen of them."""

    environment: Environment
    count: int
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def api(self) -> FakeRuntimeApi:
        """The other side."""
        return self.environment.api

    @property
    def took(self) -> float:
        """S since the beginning."""
        return time.monotonic() - self.began

    def run(self, tell: Callable[[str], None]) -> None:
        """Invoke so often, and look at the environment a hundred times meanwhile."""
        for number in range(self.count):
            assert self.took < LIMIT, f"{number:,} of {self.count:,} invocations took {LIMIT} s, the limit"
            part, rest = divmod((number + 1) * SAMPLES, self.count)
            is_last_of_part = rest < SAMPLES
            # Every other tenth has one Deno, so that its own growth can be seen.
            faults = HARMLESS if (number * 10 // self.count) % 2 else HARMLESS | DEADLY
            if is_last_of_part or self.chance.random() >= FAULTS:
                self.fine(number, 10 if is_last_of_part else self.size())
            else:
                self.fault(number, min(faults, key=lambda kind: self.kinds[kind]))
            self.api.requests.clear()
            if is_last_of_part:
                self.samples.append(self.sample(number + 1))
                if part % TENTH == 0:
                    tell(f"{number + 1:,} of {self.count:,} in {self.took:.0f} s: {self.samples[-1].told()}")

    def size(self) -> int:
        """Bytes of an event: 0 to 1 MB, half of them under 200 bytes, one in a hundred nothing at all."""
        return int(2 * (MEGABYTE / 2) ** (self.chance.random() ** 1.5)) if self.chance.random() > 0.01 else 0

    def fine(self, number: int, size: int) -> None:
        """The event comes back; one that is no event at all is refused."""
        body = b'"%b"' % (b"x" * (size - 2)) if size >= 2 else b""
        post = self.post(number, body)
        if body:
            assert post.path.endswith("/response"), post
            assert post.body == body
        else:
            self.kinds["empty"] += 1
            assert post.error_type == "Runtime.UnmarshalError"

    def fault(self, number: int, kind: str) -> None:
        """The event has the function fail."""
        self.kinds[kind] += 1
        if kind == "too large":
            is_early = self.chance.random() < 0.5
            self.api.answers.put(status(413, ending="close" if is_early else "", is_early=is_early))
        post = self.post(number, b'{"fault":"%b","size":%d}' % (kind.encode(), TOO_LARGE))
        error_type = (HARMLESS | DEADLY)[kind]
        if error_type:
            assert post.path.endswith("/error"), post
            assert post.error_type == error_type
        else:
            assert post.headers["content-length"] == str(TOO_LARGE + 2)

    def post(self, number: int, body: bytes) -> Request:
        """The one answer to an event."""
        post = self.environment.send(Event(body, f"request-{number}"))
        assert post.path.split("/")[-2] == f"request-{number}", post
        return post

    def sample(self, number: int) -> Sample:
        """The environment, once it waits for the next event."""
        environment = self.environment
        assert holds(lambda: self.api.asked == number + 1), f"no /next in {DEADLINE} s: {environment.log}"
        assert self.api.posts.empty()
        assert holds(lambda: len(environment.children()) == 1), environment.children()
        bootstrap = psutil.Process(environment.process.pid)
        [deno] = bootstrap.children(recursive=True)
        folders = environment.folders()
        return Sample(
            number,
            bootstrap.memory_info().rss,
            bootstrap.num_fds(),
            deno.memory_info().rss,
            deno.pid,
            deno.num_fds(),
            len(folders),
            sum(1 for folder in folders for _ in folder.rglob("*")),
        )


def grew(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """The median of an attribute in the second quarter of some samples, and in the last."""
    quarter = len(samples) // 4
    values = [getattr(sample, name) for sample in samples]
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


@pytest.mark.timeout(LIMIT + 60)
def test_soak(start: Start, runtime: str) -> None:
    """Memory, descriptors, processes and files are as many at the end, and every event has its answer."""

    def tell(text: str) -> None:
        sys.stderr.write(f"soak of {runtime}: {text}\n")

    soak = Soak(start(SOURCE, LAMBDENO_PERMISSIONS="-A"), COUNTS[SIZE][runtime])
    soak.run(tell)
    samples = soak.samples
    assert len(samples) == SAMPLES
    figures = {name: grew(samples, name) for name in ("bootstrap", "descriptors", "deno", "folders", "files")}
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(soak.kinds.items()))
    medians = ", ".join(f"{name} {early:,.0f} -> {late:,.0f}" for name, (early, late) in figures.items())
    tell(f"{soak.count:,} invocations in {soak.took:.0f} s ({faults}): {medians}")
    assert len(samples) == SAMPLES
    assert soak.kinds.keys() == {"empty", *HARMLESS, *DEADLY}
    for name in ("descriptors", "folders", "files"):
        assert len({getattr(sample, name) for sample in samples[TENTH:]}) == 1, (name, samples)
    assert samples[0].folders == 1
    early, late = figures["bootstrap"]
    assert late - early < LIMITS["bootstrap"], samples
    assert "Traceback" not in soak.environment.log
    for at in range(TENTH, SAMPLES, 2 * TENTH) if runtime == "runtime1" else ():
        tenth = samples[at : at + TENTH]
        assert len({sample.deno_pid for sample in tenth}) == 1
        early, late = grew(tenth, "deno")
        assert late - early < LIMITS["Deno"], tenth
        # It opens a pair of sockets when it first has to, and no more.
        assert tenth[-1].deno_descriptors - tenth[0].deno_descriptors in {0, 2}, tenth
