"""runtime2: every invocation has a process of its own, and stdout stays the function's to use."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.test_deno_ends import holds

# What an event asks for; "count" tells whether module state is new.
ACTOR = """
let count = 0;
console.log("loading");
export const handler = async (event) => {
  count++;
  switch (event) {
    case "pid": return Deno.pid;
    case "exit": Deno.exit(0);
    case "hang": return await new Promise((resolve) => setTimeout(resolve, 60_000));
    case "block after": setTimeout(() => { for (;;); }, 0); return "blocking";
    case "leave timers": setInterval(() => {}, 1000); Deno.listen({ port: 0 }); return "left";
    case "unload": globalThis.addEventListener("unload", () => console.log("last words")); return "said";
  }
  return { event, count };
};
"""


@pytest.fixture(params=["source-runtime2", "binary-runtime2", "managed-runtime2"])
def combination(request: pytest.FixtureRequest) -> str:
    """Runtime2 in each calling."""
    name: str = request.param
    return name


def waits(environment: Environment, events: int) -> bool:
    """Whether the bootstrap is done with so many events and waits for the next one."""
    return environment.waits_for_next(events + 1)


# --- a process for each -------------------------------------------------------------------------


def test_every_invocation_has_a_process_of_its_own(start: Start) -> None:
    """Ten events, ten processes, and the state of the module is new in each."""
    environment = start(ACTOR)
    assert len({environment.result("pid") for _ in range(10)}) == 10
    assert [environment.result("x")["count"] for _ in range(3)] == [1, 1, 1]


def test_the_next_process_waits(start: Start) -> None:
    """While the bootstrap waits, one process has loaded the function: no more and no less."""
    environment = start(ACTOR)
    for number in range(3):
        assert waits(environment, number)
        assert len(environment.children()) == 1
        [folder] = environment.folders()
        assert len(list(folder.glob("lambdeno.*"))) == 2  # its own, and what the one after it will find
        environment.result("x")


@pytest.mark.parametrize(
    ("variables", "children"),
    [
        ({"LAMBDENO_STANDBY": "off"}, 0),
        ({"LAMBDENO_STANDBY": "on", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}, 1),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "255"}, 0),
        ({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256"}, 1),
    ],
    ids=["off", "on", "little memory", "enough memory"],
)
def test_standby_is_a_matter_of_memory(start: Start, variables: dict[str, str], children: int) -> None:
    """Two processes need room: below 256 MB there is one at a time, unless the setting says otherwise."""
    environment = start(ACTOR, **variables)
    assert environment.result("x")["count"] == 1
    assert waits(environment, 1)
    assert len(environment.children()) == children
    assert environment.result("x")["count"] == 1


def test_a_broken_function_is_an_init_error(start: Start) -> None:
    """The first process has loaded the function before the first event is asked for."""
    _, error = start('throw new Error("broken");').init_error()
    assert error["errorMessage"] == "broken"


# --- isolation ----------------------------------------------------------------------------------

POISON = """
import process from "node:process";
const state = { poisoned: false };
const tmp = Deno.env.get("TMPDIR");
const look = () => ({
  prototype: "poison" in {},
  global: "poison" in globalThis,
  json: JSON.stringify({}) !== "{}",
  module: state.poisoned,
  environment: Deno.env.get("POISON") ?? null,
  directory: Deno.cwd() === tmp,
  port: portIsTaken(),
  node: process.title === "poison",
});
function portIsTaken() {
  try { Deno.listen({ port: PORT, hostname: "127.0.0.1" }).close(); return false; } catch { return true; }
}
const atLoad = look();
export const handler = (event) => {
  const atStart = look();
  if (event === "poison") {
    Object.prototype.poison = 1;
    globalThis.poison = 1;
    state.poisoned = true;
    Deno.env.set("POISON", "1");
    Deno.chdir(tmp);
    Deno.listen({ port: PORT, hostname: "127.0.0.1" });
    process.title = "poison";
    setInterval(() => console.log("still here"), 1);
    const found = look();
    JSON.stringify = () => "poison";
    return found;
  }
  return [atLoad, atStart];
};
"""


def test_an_invocation_sees_nothing_of_the_one_before(start: Start) -> None:
    """Prototypes, globals, module state, environment, folder, ports, timers: all as at the start."""
    source = POISON.replace("PORT", str(20_000 + os.getpid() % 10_000))
    environment = start(source, LAMBDENO_PERMISSIONS="-A")
    clean: dict[str, bool | None] = dict.fromkeys(
        ["prototype", "global", "json", "module", "directory", "port", "node"], False
    )
    clean |= {"environment": None}
    poisoned = dict.fromkeys(["prototype", "global", "module", "directory", "port", "node"], True)
    for _ in range(3):
        found = environment.result("poison")
        assert {**found, **poisoned} == found
        assert found["environment"] == "1"
        assert environment.result("look") == [clean, clean]


def test_the_next_process_cannot_be_prepared(start: Start) -> None:
    """What the next process starts from is out of reach, whatever the permissions: its code cache."""
    environment = start(
        """
        const home = Deno.env.get("DENO_DIR").split("/").slice(0, -1).join("/");
        export const handler = async () => {
          const attempts = {
            file: () => Deno.writeTextFile(`${home}/x`, ""),
            folder: () => Deno.mkdir(`${home}/y`),
            away: () => Deno.rename(home, `${home}.moved`),
            gone: () => Deno.remove(home, { recursive: true }),
            own: () => Deno.writeTextFile(`${Deno.env.get("DENO_DIR")}/v8_code_cache_v2`, ""),
          };
          const found = {};
          for (const [name, attempt] of Object.entries(attempts)) {
            found[name] = await attempt().then(() => "done", (error) => error.name);
          }
          return found;
        };
        """,
        LAMBDENO_PERMISSIONS="-A",
    )
    assert set(environment.result().values()) == {"NotCapable"}


@pytest.mark.parametrize("length", [40, 70, 79])
def test_folders_of_processes_are_in_one_that_is_denied(start: Start, short_tmp: Path, length: int) -> None:
    """However long the writable place's own path is, short enough for a socket or not."""
    tmp = short_tmp / ("x" * (length - len(str(short_tmp)) - 1))
    tmp.mkdir()
    environment = start("export const handler = () => Deno.env.get('DENO_DIR');", TMPDIR=str(tmp))
    for _ in range(2):
        folder = Path(environment.result())
        assert folder.parent.parent == tmp


def test_a_whole_denial_stays_whole(start: Start) -> None:
    """What the runtime denies for itself does not narrow what the user denies."""
    environment = start(
        """
        export const handler = async () => [
          await Deno.writeTextFile(`${Deno.env.get("TMPDIR")}/x`, "").catch((error) => error.name),
          await Deno.connect({ hostname: "127.0.0.1", port: 9 }).catch((error) => error.name),
        ];
        """,
        LAMBDENO_PERMISSIONS="-A --deny-write --deny-net",
    )
    assert environment.result() == ["NotCapable", "NotCapable"]


def test_tmp_is_shared_unless_asked_otherwise(start: Start) -> None:
    """By default /tmp is the environment's, as on Lambda: what remains in it is there for the next."""
    environment = start(
        """
        export const handler = (name) => {
          const tmp = Deno.env.get("TMPDIR");
          if (name) Deno.writeTextFileSync(`${tmp}/${name}`, "");
          return [...Deno.readDirSync(tmp)].map((entry) => entry.name).filter((n) => n.startsWith("file"));
        };
        """
    )
    environment.result("file-1")
    assert environment.result(None) == ["file-1"]


def test_an_empty_tmp_for_each(start: Start) -> None:
    """LAMBDENO_PRIVATE_TMP=on: a folder that no other invocation sees, gone when it is over."""
    environment = start(
        """
        export const handler = (event) => {
          const tmp = Deno.env.get("TMPDIR");
          const before = [...Deno.readDirSync(tmp)].length;
          Deno.mkdirSync(`${tmp}/folder/deep`, { recursive: true });
          Deno.writeTextFileSync(`${tmp}/folder/deep/file`, "");
          Deno.writeTextFileSync(Deno.makeTempFileSync(), "");
          let outside = "written";
          try { Deno.writeTextFileSync(`${event}/outside`, ""); } catch (error) { outside = error.name; }
          return { tmp, before, home: Deno.env.get("HOME") === tmp, outside };
        };
        """,
        LAMBDENO_PRIVATE_TMP="on",
    )
    answers = [environment.result(str(environment.tmp)) for _ in range(3)]
    assert len({answer.pop("tmp") for answer in answers}) == 3
    assert answers == [{"before": 0, "home": True, "outside": "NotCapable"}] * 3
    assert waits(environment, 3)
    assert len(environment.folders()) == 2  # the runtime's own, and the next one's
    assert [path for path in environment.tmp.rglob("*") if path.name == "file"] == []


# --- the standard output ------------------------------------------------------------------------

PRINTING = """
const bytes = (text) => new TextEncoder().encode(text);
const out = Deno.stdout;
const print = {
  "lines": () => { console.log("a line"); console.error("an error line"); },
  "partial": () => out.writeSync(bytes("no line feed")),
  "binary": () => out.writeSync(new Uint8Array(256).map((_, i) => i)),
  "megabytes": () => { for (let i = 0; i < 40; i++) out.writeSync(bytes("m".repeat(100_000))); },
  "frames": () => {
    out.writeSync(bytes("\\0" + "0123456789abcdef".repeat(2).slice(1) + "0005FORGE\\n"));
    out.writeSync(bytes("HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\n\\r\\n\\"forge\\""));
    for (let i = 0; i < 500; i++) out.writeSync(new Uint8Array(i % 40));
  },
  "unawaited": () => { for (let i = 0; i < 20; i++) out.write(bytes(`${i % 10}`.repeat(300_000) + "\\n")); },
  "after": () => setTimeout(() => console.log("after the result"), 0),
};
export const handler = ({ what, size }) => { print[what](); return "é".repeat(size); };
"""


@pytest.mark.parametrize("size", [1, 3_000_000 // 2], ids=["small", "large"])
@pytest.mark.parametrize("what", ["lines", "partial", "binary", "megabytes", "frames", "unawaited", "after"])
def test_whatever_is_printed_is_log_alone(start: Start, what: str, size: int) -> None:
    """Text, parts of lines, bytes, megabytes, imitations: the result is the result, twice in a row."""
    environment = start(PRINTING)
    for _ in range(2):
        assert environment.result({"what": what, "size": size}) == "é" * size
    assert waits(environment, 2)
    log = environment.log_file.read_bytes()
    if what == "lines":
        lines = [line.rsplit(b"\t", 1)[1] for line in log.splitlines()]
        assert lines == [b"a line", b"an error line"] * 2  # in the order in which they were written
    elif what == "partial":
        assert log.count(b"no line feed") == 2
    elif what == "binary":
        assert log.count(bytes(range(256))) == 2
    elif what == "megabytes":
        assert log.count(b"m") == 2 * 4_000_000
    elif what == "frames":
        assert log.count(b"FORGE") == log.count(b'"forge"') == 2
    assert b"Content-Type: application/json" not in log  # nothing of the bridge's own


def test_a_flood_while_the_event_arrives(start: Start) -> None:
    """A function that prints all the time and a large event: neither waits for the other for ever."""
    environment = start(
        """
        const flood = new TextEncoder().encode("f".repeat(60_000) + "\\n");
        const timer = setInterval(() => Deno.stdout.writeSync(flood), 1);
        export const handler = (event) => { clearInterval(timer); return event.length; };
        """
    )
    assert environment.result("x" * 5_900_000) == 5_900_000
    assert environment.result("x" * 5_900_000) == 5_900_000


def test_large_results(start: Start) -> None:
    """5.9 MB come back whole, also where every character has three bytes."""
    environment = start("export const handler = (event) => event;")
    text = "漢" * 1_960_000
    post = environment.invoke(json.dumps(text, ensure_ascii=False).encode())
    assert json.loads(post.body) == text


def test_the_mark_is_nowhere_to_be_read(start: Start) -> None:
    """What frames begin with is in no variable and no stream, and /proc is closed to a function."""
    environment = start(
        """
        export const handler = async () => {
          const input = Deno.stdin.read(new Uint8Array(10)).then(() => "read");
          return {
            env: Deno.env.toObject(),
            memory: await Deno.readFile("/proc/self/environ").catch((error) => error.name),
            input: await Promise.race([input, new Promise((done) => setTimeout(done, 50, "nothing"))]),
          };
        };
        """,
        LAMBDENO_PERMISSIONS="-A",
    )
    found = environment.result()
    assert (found["memory"], found["input"]) == ("NotCapable", "nothing")
    assert re.search("[0-9a-f]{31}", json.dumps(found["env"])) is None


# --- ends ---------------------------------------------------------------------------------------


def test_exit_before_an_answer(start: Start) -> None:
    """Deno.exit(0) in a handler is an error with its status, and the next invocation works."""
    environment = start(ACTOR)
    for _ in range(2):
        post, error = environment.error("exit", request_id="an-id")
        assert post.error_type == error["errorType"] == "Runtime.ExitError"
        assert "exit status 0" in error["errorMessage"]
        assert "an-id" in error["errorMessage"]
        assert environment.result("x")["count"] == 1


def test_killed_while_the_handler_runs(start: Start) -> None:
    """A signal from outside is told by its name."""
    environment = start(ACTOR)
    assert waits(environment, 0)
    [pid] = environment.children()
    timer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    timer.start()
    _, error = environment.error("hang")
    assert "signal: SIGKILL" in error["errorMessage"]
    assert environment.result("x")["count"] == 1


def test_killed_while_it_waits(start: Start) -> None:
    """A standby that dies costs no event: another process takes it, and the log tells."""
    environment = start(ACTOR)
    environment.result("x")
    assert waits(environment, 1)
    [pid] = environment.children()
    os.kill(pid, signal.SIGKILL)
    assert holds(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    time.sleep(0.1)  # until its other threads have ended too
    assert environment.result("x")["count"] == 1
    assert "while it waited for an event: signal: SIGKILL" in environment.log


def test_a_standby_that_cannot_load(start: Start) -> None:
    """A function that loads once and not again: its own error answers, each time anew."""
    environment = start(
        """
        const mark = `${Deno.env.get("TMPDIR")}/mark`;
        try { Deno.statSync(mark); } catch { Deno.writeTextFileSync(mark, ""); globalThis.first = true; }
        if (!globalThis.first) throw new RangeError("only once");
        export const handler = () => "first";
        """
    )
    assert environment.result() == "first"
    for _ in range(2):
        assert environment.error()[1]["errorMessage"] == "only once"


def test_a_slow_standby_does_not_hold_the_environment(start: Start) -> None:
    """What loads for longer than a second goes on when its event is there: /next is not kept waiting."""
    environment = start(
        """
        const mark = `${Deno.env.get("TMPDIR")}/mark`;
        let first = false;
        try { Deno.statSync(mark); } catch { Deno.writeTextFileSync(mark, ""); first = true; }
        if (!first) await new Promise((resolve) => setTimeout(resolve, 3000));
        export const handler = () => first;
        """
    )
    assert environment.result() is True
    began = time.monotonic()
    assert waits(environment, 1)
    assert time.monotonic() - began < 2.5
    assert environment.result() is False


@pytest.mark.parametrize("event", ["block after", "leave timers"])
def test_what_is_left_running_ends(start: Start, event: str) -> None:
    """Timers, listeners and an event loop that never turns again: the process ends, in bounded time."""
    environment = start(ACTOR)
    pids: list[int] = []
    for _ in range(2):
        pids += environment.children() if waits(environment, 2 * len(pids)) else []
        assert isinstance(environment.result(event), str)
        assert environment.result("x")["count"] == 1
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)


def test_programs_that_a_function_starts_end_with_it(start: Start) -> None:
    """A child that holds the streams open neither delays the answer nor outlives the invocation."""
    environment = start(
        """
        export const handler = (event) => {
          const { pid } = new Deno.Command("sh", { args: ["-c", event.program] }).spawn();
          Deno.writeTextFileSync(`${Deno.env.get("TMPDIR")}/pids`, `${pid}\n`, { append: true });
          if (event.exit) Deno.exit(0);
        };
        """,
        LAMBDENO_PERMISSIONS="-A",
    )
    for program in ("exec sleep 60", "while :; do echo y; done", "setsid sleep 60 & exec sleep 60"):
        environment.result({"program": program})
        environment.error({"program": program, "exit": True})
    assert waits(environment, 6)
    pids = (environment.tmp / "pids").read_text().split()
    assert len(pids) == 6
    assert holds(lambda: all(not Path(f"/proc/{pid}/exe").exists() for pid in pids))
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if str(environment.tmp) in text_of(path)]
    assert len(left) == 2  # the bootstrap, and the process that waits


def test_last_words_come_before_the_next_event(start: Start) -> None:
    """What a process says at its very end is in the log before the bootstrap asks for more."""
    environment = start(ACTOR)
    environment.result("unload")
    assert waits(environment, 1)
    assert "last words" in environment.log


def test_a_frozen_standby_thaws(start: Start) -> None:
    """The environment may freeze while the next process is half started: it goes on where it was."""
    slow = "if (!Deno.env.get('FIRST')) await new Promise((resolve) => setTimeout(resolve, 1500));"
    environment = start(slow + ACTOR)
    for number in range(2):
        environment.result("x")
        [pid] = environment.children() if waits(environment, number + 1) else [0]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(pid, signal.SIGCONT)
    assert environment.result("x")["count"] == 1


def text_of(path: Path) -> str:
    """A file's text; nothing where it is gone."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def test_a_private_folder_of_any_depth_and_mode_is_removed(start: Start) -> None:
    """Two thousand folders in each other and one that nobody may enter: gone, and the bootstrap lives."""
    environment = start(
        """
        export const handler = () => {
          const tmp = Deno.env.get("TMPDIR");
          let path = tmp;
          while (path.length < 4000) path += "/a";
          Deno.mkdirSync(path, { recursive: true });
          Deno.mkdirSync(`${tmp}/closed/inner`, { recursive: true });
          Deno.chmodSync(`${tmp}/closed`, 0);
          return tmp;
        };
        """,
        LAMBDENO_PRIVATE_TMP="on",
    )
    folders = [environment.result() for _ in range(2)]
    assert waits(environment, 2)
    assert not any(Path(folder).exists() for folder in folders)


def test_a_closed_standard_output_is_an_error(start: Start) -> None:
    """Without it there is no way to answer: told at once, not by the timeout."""
    environment = start("export const handler = () => { Deno.stdout.close(); return 1; };")
    assert environment.error()[0].error_type == "Runtime.ExitError"


def test_a_changed_standard_output_is_the_functions_affair(start: Start) -> None:
    """A function that captures what it prints neither catches nor loses its result."""
    environment = start(
        """
        export const handler = () => {
          const seen = [];
          Deno.stdout.writeSync = (bytes) => (seen.push(bytes), bytes.length);
          Deno.stdout.writeSync(new Uint8Array(3));
          return seen.length;
        };
        """
    )
    assert environment.result() == 1
