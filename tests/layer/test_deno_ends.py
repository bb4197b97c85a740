"""Deno's end during an invocation, between two, and the bootstrap's own: nothing is silent or left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lambdeno.emulator.sandbox import bubblewrap_fault
from tests.layer.conftest import LAYER, Calling, Environment, Start
from tests.layer.fake_runtime_api import DEADLINE, PREFIX, FakeRuntimeApi

ENDING = """
console.log("loading");
export const handler = async (event) => {
  if (event === "pid") return Deno.pid;
  if (event === "exit") Deno.exit(3);
  if (event === "hang") await new Promise((resolve) => setTimeout(resolve, 60_000));
  if (event === "out of memory") for (const all = [];;) all.push(new Array(100_000).fill({}));
  if (event === "later") setTimeout(() => { throw new Error("too late"); }, 5);
  return event;
};
"""


# What is about the one process of runtime1; test_runtime2.py has the same of many.
one_process = pytest.mark.parametrize(
    "combination", ["source-runtime1", "binary-runtime1", "managed-runtime1"]
)


def holds(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def exit_error(
    environment: Environment, event: str, request_id: str, end: str, error_type: str = "Runtime.ExitError"
) -> None:
    """The event ends Deno: it is answered with that, once, and a new Deno serves the next one."""
    before = environment.result("pid")
    post, error = environment.error(event, request_id=request_id)
    assert post.path == f"{PREFIX}/invocation/{request_id}/error"
    assert post.error_type == error["errorType"] == error_type
    assert end in error["errorMessage"]
    assert request_id in error["errorMessage"]
    assert error["errorMessage"] in environment.log
    assert environment.result("pid") != before
    assert environment.process.poll() is None


def test_exit_fails_its_invocation_alone(start: Start) -> None:
    """Deno.exit is Runtime.ExitError with the status, as often as it happens."""
    environment = start(ENDING)
    for number in range(3):
        exit_error(environment, "exit", f"id-{number}", "exit status 3")


@pytest.mark.parametrize(
    ("number", "error_type"),
    [
        (signal.SIGKILL, "Runtime.DenoKilled"),
        (signal.SIGTERM, "Runtime.DenoKilled"),
        (signal.SIGABRT, "Runtime.DenoCrashed"),
        (signal.SIGILL, "Runtime.DenoCrashed"),
    ],
)
def test_killed_in_an_invocation(
    start: Start, api: FakeRuntimeApi, number: signal.Signals, error_type: str
) -> None:
    """A signal that ends Deno is told with its name; a new Deno serves the next event."""
    bundle = f"""
        export const handler = async (event) => {{
          if (event) return Deno.pid;
          Deno.kill(Deno.pid, "{number.name}");
          await new Promise((resolve) => setTimeout(resolve, 60_000));
        }};
        """
    environment = start(bundle, LAMBDENO_PERMISSIONS="-A")
    before = environment.result("pid")
    post, error = environment.error(None, request_id="an-id")
    assert post.error_type == error["errorType"] == error_type
    assert f"signal: {number.name}" in error["errorMessage"]
    assert environment.result("pid") != before
    assert len(api.paths("POST")) == 3


@one_process
def test_killed_from_outside_while_the_handler_runs(start: Start, api: FakeRuntimeApi) -> None:
    """A Deno that the kernel kills in the middle of a handler is replaced."""
    environment = start(ENDING)
    pid = environment.result("pid")
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.2; kill -9 {pid}"])
    _, error = environment.error("hang")
    assert killer.wait() == 0
    assert "signal: SIGKILL" in error["errorMessage"]
    assert environment.result("pid") != pid
    assert len(api.paths("POST")) == 3


def test_out_of_memory(start: Start) -> None:
    """A Deno whose heap is full is Runtime.OutOfMemory, and the log has V8's words."""
    environment = start(ENDING, DENO_V8_FLAGS="--max-old-space-size=32")
    exit_error(environment, "out of memory", "an-id", "heap is full", "Runtime.OutOfMemory")
    assert "out of memory" in environment.log


CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group that the kernel keeps at 100 MB, with the processes in it."""
    group = CGROUP / f"lambdeno-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 * 1024 * 1024))
    except OSError as error:
        pytest.skip(f"no control group to be had: {error}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    assert holds(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_the_kernels_out_of_memory(start: Start, called: Calling, little_memory: Path) -> None:
    """A Deno that the kernel ends for its memory is Runtime.OutOfMemory, and the next event is served."""
    command, executable = called(LAYER)
    arguments = [str(executable or command[0]), *map(str, command[1:])]
    enter = f"echo $$ > {little_memory}/cgroup.procs; exec -a '{command[0]}' " + " ".join(
        f"'{word}'" for word in arguments
    )
    environment = start(
        """
        export const handler = (event) => {
          if (event === "fill") for (const all = [];;) all.push(new Uint8Array(10_000_000).fill(1));
          return event;
        };
        """,
        command=["/bin/bash", "-c", enter],
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE="100",
        LAMBDENO_STANDBY="off",
    )
    post, error = environment.error("fill")
    assert post.error_type == error["errorType"] == "Runtime.OutOfMemory"
    assert "SIGKILL" in error["errorMessage"]
    assert "100 MB" in error["errorMessage"]
    assert environment.result("fine") == "fine"


@one_process
def test_killed_between_invocations(start: Start, api: FakeRuntimeApi) -> None:
    """A Deno that dies while nothing runs costs nobody anything: the next event has a new one."""
    environment = start(ENDING)
    for _ in range(3):
        pid = environment.result("pid")
        os.kill(pid, signal.SIGKILL)
        assert environment.result("pid") != pid
    assert "Runtime.DenoKilled" in environment.log
    assert len(api.paths("POST")) == 6


@one_process
def test_an_event_that_was_never_read_is_not_lost(start: Start) -> None:
    """A Deno that is stopped, is sent an event and is killed then has not handled it: another one does."""
    environment = start(ENDING)
    pid = environment.result("pid")
    assert environment.waits_for_next(2)
    os.kill(pid, signal.SIGSTOP)
    killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -9 {pid}"])
    assert environment.result("kept") == "kept"
    assert killer.wait() == 0
    assert "before it had read an event" in environment.log


@one_process
def test_large_event_to_a_dead_deno(start: Start) -> None:
    """An event too large for the socket's buffers meets a dead Deno: answered, and the next one works."""
    environment = start(ENDING)
    pid = environment.result("pid")
    assert environment.waits_for_next(2)
    os.kill(pid, signal.SIGKILL)
    post = environment.invoke("x" * 5_900_000, request_id="after")
    assert post.path.startswith(f"{PREFIX}/invocation/after/")
    assert environment.result("fine") == "fine"


@one_process
def test_error_after_the_result(start: Start) -> None:
    """What a function throws after its result ends Deno: no event is lost, and the cause is in the log."""
    environment = start(ENDING)
    assert environment.result("later") == "later"
    time.sleep(0.2)
    assert environment.result("next") == "next"
    assert "too late" in environment.log


@one_process
def test_replacement_that_cannot_load(start: Start) -> None:
    """Where the new Deno cannot load the function, the next event hears why; the one after tries again."""
    environment = start(
        """
        const mark = `${Deno.env.get("TMPDIR")}/mark`;
        let starts = 0;
        try { starts = Number(Deno.readTextFileSync(mark)); } catch { /* the first one */ }
        Deno.writeTextFileSync(mark, String(starts + 1));
        if (starts === 1 || starts === 2) throw new Error(`broken start ${starts}`);
        export const handler = (event) => event === "exit" ? Deno.exit(3) : event;
        """
    )
    assert "exit status 3" in environment.error("exit")[1]["errorMessage"]
    assert environment.error("next")[1]["errorMessage"] == "broken start 2"
    assert environment.result("fine") == "fine"


def test_deno_that_keeps_dying_is_not_started_in_a_loop(start: Start) -> None:
    """After the second death in a row the next process has to wait, longer each time, until one lives."""
    environment = start(ENDING)
    took = []
    for _ in range(5):
        before = time.monotonic()
        environment.error("exit")
        took.append(time.monotonic() - before)
    assert took[4] > 0.4  # 0.1, 0.2, 0.4 after the second, third and fourth
    assert environment.result("fine") == "fine"
    before = time.monotonic()
    environment.error("exit")
    environment.error("exit")
    assert time.monotonic() - before < took[4]


def test_no_folder_of_a_replaced_deno_is_left(start: Start) -> None:
    """However often Deno is replaced, there is one folder of the runtime in /tmp, and one child."""
    environment = start(ENDING)
    for _ in range(4):
        environment.error("exit")
    assert environment.result("fine") == "fine"
    assert len(environment.folders()) == 1
    assert holds(lambda: len(environment.children()) == 1)


def test_folders_of_killed_predecessors_are_swept(start: Start, runtime: str) -> None:
    """/tmp outlives a killed environment: its successor removes what the dead left, and nothing else."""
    first = start(ENDING, **private(runtime))
    assert first.result("fine") == "fine"
    left = first.folders()
    close(first)
    assert any(list(folder.iterdir()) for folder in left)  # Deno's caches
    pid = os.getpid()  # that of a living process
    left += [first.tmp / f"lambdeno.{pid:x}.1", first.tmp / f"lambdeno.{pid:x}.1.2"]
    kept = [first.tmp / name for name in ("lambdeno-of-mine", "lambdeno.notes", "lambdeno.of.mine", "other")]
    for folder in (*kept, *left[-2:]):
        folder.mkdir()
    (first.tmp / "lambdeno.1.1").symlink_to(kept[0])
    (kept[0] / "notes").touch()
    second = start(ENDING, **private(runtime))
    assert second.result("fine") == "fine"
    assert not [folder for folder in left if folder.exists()]
    assert all(folder.exists() for folder in (*kept, kept[0] / "notes"))


def test_a_predecessor_of_the_same_pid_is_swept(start: Start, runtime: str, namespaced: list[str]) -> None:
    """In a namespace of their own all bootstraps have one pid; nothing piles up in a /tmp that stays."""
    swept: list[Path] = []
    for _ in range(3):
        environment = start(ENDING, command=namespaced, **private(runtime))
        assert environment.result("fine") == "fine"
        assert not [folder for folder in swept if folder.exists()]
        swept += environment.folders()
        close(environment)
    assert len({folder.name.split(".")[1] for folder in swept}) == 1


def test_a_living_neighbour_is_not_swept(start: Start, runtime: str, namespaced: list[str]) -> None:
    """Bootstraps that share /tmp, and even a pid, leave each other's folders alone."""
    first = start(ENDING, command=namespaced, **private(runtime))
    assert first.result("fine") == "fine"
    assert first.waits_for_next(2)
    folders = first.folders()
    second = start(ENDING, command=namespaced, **private(runtime))
    assert second.waits_for_next(3)
    assert set(folders) < set(second.folders())
    assert all(list(folder.iterdir()) for folder in folders if folder.name.count(".") == 2)
    for _ in range(4):  # whichever asks
        assert first.result("fine") == "fine"


def private(runtime: str) -> dict[str, str]:
    """Variables under which the function has a folder more, where that can be."""
    return {"LAMBDENO_PRIVATE_TMP": "on"} if runtime == "runtime2" else {}


@pytest.fixture
def namespaced(called: Calling, layer: Path) -> list[str]:
    """The bootstrap's command, in a pid namespace of its own."""
    if fault := bubblewrap_fault():
        pytest.skip(fault)
    words, executable = called(layer)
    if executable:
        shutil.copy(executable, layer / "bootstrap")
    return ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", *map(str, words)]


def close(environment: Environment) -> None:
    """Kill an environment, and wait until no process of it is there."""
    environment.close()

    def is_over() -> bool:
        try:
            os.killpg(environment.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    assert holds(is_over)


def test_socket_path_is_gone(start: Start) -> None:
    """Once the function is loaded, there is no socket left to connect to."""
    environment = start(ENDING)
    assert environment.waits_for_next(1)
    [folder] = environment.folders()
    assert [path for path in folder.iterdir() if path.is_socket()] == []
    environment.error("exit")
    assert environment.result("fine") == "fine"
    [folder] = environment.folders()
    assert [path for path in folder.iterdir() if path.is_socket()] == []


def test_deno_ends_with_the_bootstrap(start: Start) -> None:
    """A killed bootstrap leaves no Deno behind."""
    environment = start(ENDING)
    pid = environment.result("pid")
    environment.process.kill()
    assert holds(lambda: not Path(f"/proc/{pid}/exe").exists())


@one_process
def test_invocations_leak_no_descriptors(start: Start) -> None:
    """200 invocations, failing ones among them, leave as many open files as before them."""
    environment = start(
        """
        export const handler = (event) => {
          if (event === "pid") return Deno.pid;
          if (event % 3 === 0) throw new Error("every third");
          return event;
        };
        """
    )
    pids = [environment.process.pid, environment.result("pid")]
    for number in range(10):
        environment.invoke(number)
    before = [descriptors(pid) for pid in pids]
    for number in range(200):
        environment.invoke(number)
    assert [descriptors(pid) for pid in pids] == before


@one_process
def test_replacements_leak_no_descriptors(start: Start) -> None:
    """A bootstrap that has replaced Deno five times has as many open files as before."""
    environment = start(ENDING)
    environment.result("fine")
    before = descriptors(environment.process.pid)
    for _ in range(5):
        environment.error("exit")
    assert environment.result("fine") == "fine"
    assert descriptors(environment.process.pid) == before


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
