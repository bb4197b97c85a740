"""``lambdeno dev`` as its user has it: a real project, real edits, a browser's requests."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import websocket
from rich.console import Console

from lambdeno import build, cli, project
from lambdeno.devview import Terminal
from lambdeno.emulator import FORMS
from lambdeno.errors import LambdenoError

LAMBDENO = str(Path(sys.executable).with_name("lambdeno"))
SLOWEST = 60  # s for anything to happen
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to end it with")

SOURCE = """
const WORD: string = "one";

export const handler = async (event: { rawQueryString?: string }): Promise<object> => {
  if (event.rawQueryString === "slow") await new Promise((resolve) => setTimeout(resolve, 2500));
  console.log("said", WORD);
  return { statusCode: 200, headers: { "content-type": "text/plain" }, body: WORD };
};
"""


class Dev:
    """A running ``lambdeno dev --json``."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        self.folder = folder
        command = [LAMBDENO, "dev", "--json", "--port", "0", "--url-port", "0", "--project", str(folder)]
        self.process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.rows: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.rows.append(json.loads(line))

    def row(
        self, kind: str, is_so: Callable[[dict[str, Any]], bool] = lambda _: True, after: int = 0
    ) -> dict[str, Any]:
        """The first row of a kind for which something is so."""
        until = time.monotonic() + SLOWEST
        while time.monotonic() < until:
            for row in self.rows[after:]:
                if row["type"] == kind and is_so(row):
                    return row
            assert self.process.poll() is None, (self.process.stderr or sys.stdin).read()
            time.sleep(0.02)
        raise AssertionError(f"no {kind} among {self.rows}")

    def get(self, target: str = "/") -> tuple[int, str]:
        """Status and body that a browser gets."""
        port = int(self.row("ready")["url"].rstrip("/").rpartition(":")[2])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SLOWEST)) as connection:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def change(self, former: str, text: str, file: str = "src/main.ts") -> int:
        """Edit a file; the number of rows so far."""
        path = self.folder / file
        count = len(self.rows)
        path.write_text(path.read_text().replace(former, text))
        return count

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(SLOWEST)
        self._reader.join(SLOWEST)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return code


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's dist with the two layers: 3 s that no test needs to wait for."""
    folder = tmp_path_factory.mktemp("layers")
    (folder / "lambdeno.toml").touch()
    build.up_to_date(project.load(folder), kinds=("deno-layer", "runtime-layer"))
    return folder / "dist"


@pytest.fixture
def folder(tmp_path: Path, layers: Path) -> Path:
    """A project of one file."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/main.ts").write_text(SOURCE)
    (folder / "lambdeno.toml").write_text('name = "edited"\n')
    shutil.copytree(layers, folder / "dist", copy_function=os.link)
    return folder


Start = Callable[..., Dev]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start it; what still runs at the end is ended."""
    started: list[Dev] = []

    def start(*options: str, **variables: str) -> Dev:
        started.append(Dev(folder, *options, **variables))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.poll() is None:
            dev.end()


def test_an_edit_answers(start: Start) -> None:
    """New code answers without a restart, on the same URL, and its log has its requests."""
    dev = start()
    assert dev.get() == (200, "one")
    after = dev.change('"one"', '"two"')
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "two")
    said = dev.row("log", lambda row: "said two" in row["line"])
    assert said["request_id"]
    assert said["environment"]
    assert not [row for row in dev.rows if row["type"] in {"failed", "types"}]


def test_a_running_invocation_ends_on_its_own_code(start: Start) -> None:
    """A swap drops nothing: who has asked the old code gets its answer."""
    dev = start()
    dev.get()
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(dev.get("/?slow")))
    slow.start()
    time.sleep(0.3)
    after = dev.change('"one"', '"two"')
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "two")
    assert not answers
    slow.join(SLOWEST)
    assert answers == [(200, "one")]


def test_types_that_are_wrong_run(start: Start) -> None:
    """They are told, the new code answers all the same, and when they are mended that is told."""
    dev = start()
    dev.get()
    after = dev.change('string = "one"', "string = 42")
    assert "src/main.ts" in dev.row("types", after=after)["error"]
    assert dev.get() == (200, "42")
    after = dev.change("string = 42", 'string = "three"')
    assert dev.row("types", after=after)["error"] is None
    assert dev.get() == (200, "three")


def test_code_that_is_none(start: Start) -> None:
    """The code before it answers on, until it is mended."""
    dev = start()
    dev.get()
    after = dev.change("export const", "export konst")
    assert "main.ts" in dev.row("failed", after=after)["error"]
    assert dev.get() == (200, "one")
    after = dev.change("export konst", "export const")
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "one")


def test_a_module_that_cannot_be_loaded(start: Start) -> None:
    """Its init error is in the log at once; the URL answers again when it is mended."""
    dev = start()
    dev.get()
    after = dev.change("const WORD", 'throw new RangeError("no way"); const WORD')
    dev.row("log", lambda row: "no way" in row["line"], after=after)
    assert dev.get()[0] == 502
    after = dev.change('throw new RangeError("no way"); ', "")
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "one")


def test_settings_are_followed(start: Start) -> None:
    """lambdeno.toml is read again; a mistake in it is told, and changes nothing."""
    dev = start()
    dev.get()
    after = dev.change('name = "edited"\n', 'name = "edited"\nmemmory = 1\n', "lambdeno.toml")
    assert "memmory" in dev.row("failed", after=after)["error"]
    assert dev.get() == (200, "one")
    after = dev.change("memmory = 1", "memory = 256", "lambdeno.toml")
    dev.row("rebuilt", after=after)
    dev.get()
    dev.row("log", lambda row: "Memory Size: 256 MB" in row["line"], after=after)
    after = dev.change('"edited"', '"other"', "lambdeno.toml")
    assert "start lambdeno dev again" in dev.row("failed", after=after)["hint"]


def test_files_that_do_not_matter(start: Start, folder: Path) -> None:
    """What the build, packages and editors write starts no build."""
    dev = start()
    dev.get()
    for name in ("dist/x", "node_modules/x/y.js", ".git/index", "src/.main.ts.swp", "src/main.ts~"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    time.sleep(1)
    assert not [row for row in dev.rows if row["type"] in {"rebuilt", "failed"}]


@pytest.mark.parametrize("form", ["http-api", "rest", "alb", "alb-multi"])
def test_other_forms_of_events(start: Start, folder: Path, form: str) -> None:
    """--http chooses whose events the requests become."""
    key = "multiValueHeaders" if form == "alb-multi" else "headers"
    value = "['x']" if form == "alb-multi" else "'x'"
    (folder / "src/main.ts").write_text(
        f"export const handler = (event: object) => ({{ statusCode: 200, {key}: {{ 'x-a': {value} }},"
        " body: Object.keys(event).join() });"
    )
    dev = start("--http", form)
    status, body = dev.get()
    assert status == 200
    assert ("rawPath" in body) == (form == "http-api")
    assert ("multiValueHeaders" in body) == (form in {"rest", "alb-multi"})


def test_the_invoke_api_beside_it(start: Start, folder: Path) -> None:
    """What the AWS CLI and ``lambdeno invoke`` use is there as ever."""
    dev = start()
    endpoint = dev.row("ready")["endpoint"]
    done = subprocess.run(
        [LAMBDENO, "invoke", "{}", "--project", folder, "--endpoint-url", endpoint],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["body"] == "one"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_nothing(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """No process, no folder; the exit code is 0. So do SIGTERM and SIGHUP."""
    temp = tmp_path / "t"
    temp.mkdir()
    dev = start(TMPDIR=str(temp))
    dev.get()
    dev.row("rebuilt", after=dev.change('"one"', '"two"'))
    assert dev.get() == (200, "two")
    assert list(temp.iterdir())
    children = psutil.Process(dev.process.pid).children(recursive=True)
    assert children
    assert dev.end(number) == 0
    _, alive = psutil.wait_procs(children, 5)
    assert not alive
    assert not list(temp.iterdir())


@pytest.mark.parametrize(("is_json", "lines"), [(True, 0), (True, 1), (False, 0), (False, 1)])
def test_a_reader_that_leaves_ends_it(folder: Path, *, is_json: bool, lines: int) -> None:
    """`lambdeno dev --json | head -1`: no invocation waits for a log that nobody reads."""
    (folder / "src/main.ts").write_text("export const handler = (): string => 'x';\nconsole.log('loads');\n")
    (folder / "lambdeno.toml").write_text('name = "edited"\n[build]\ncheck = false\ncode_cache = false\n')
    subprocess.run([LAMBDENO, "build", "function", "--project", folder], check=True, capture_output=True)
    command = [LAMBDENO, "dev", "--port", "0", "--url-port", "0", "--project", str(folder)]
    ours, theirs = os.pipe()
    with subprocess.Popen(
        [*command, *(["--json"] if is_json else [])],
        stdout=theirs if is_json else subprocess.DEVNULL,
        stderr=subprocess.PIPE if is_json else theirs,
    ) as process:
        os.close(theirs)
        with os.fdopen(ours) as reader:
            for _ in range(lines):
                reader.readline()
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, errors or b"") == (0, b"")


def test_what_people_see(folder: Path) -> None:
    """Where to send requests, what was rebuilt, and each log event with its environment and request."""
    command = [LAMBDENO, "dev", "--port", "0", "--url-port", "0", "--project", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = ""
        url = ""
        for line in process.stderr:
            said += line
            if line.startswith("  curl http"):
                url = line.split()[1]
            if "--payload" in line:
                break
        with urllib.request.urlopen(url) as answer:
            answer.read()
        for line in process.stderr:
            said += line
            if "REPORT" in line:
                break
        process.send_signal(signal.SIGINT)
        process.wait(SLOWEST)
    assert f"curl {url}\n" in said
    assert "lambdeno invoke '{}'" in said
    [row] = [line for line in said.splitlines() if line.endswith("INFO  said one")]
    environment, request, *_ = row.split()
    assert (len(environment), len(request)) == (4, 8)
    assert "\x1b" not in said


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Debugger:
    """A client of V8's inspector protocol."""

    def __init__(self, port: int) -> None:
        until = time.monotonic() + SLOWEST
        targets: list[dict[str, str]] = []
        while not targets:  # nobody listens yet, or the process has not told its debugger of itself
            assert time.monotonic() < until
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer,
            ):
                targets = json.load(answer)
            time.sleep(0.02)
        [target] = targets
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=SLOWEST)
        self.events: list[dict[str, Any]] = []
        self.id = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol."""
        self.id += 1
        self.socket.send(json.dumps({"id": self.id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.id:
                return message["result"]
            self.events.append(message)

    def event(self, method: str, is_so: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first event of a kind for which something is so."""
        while True:
            for event in self.events:
                if event["method"] == method and is_so(event["params"]):
                    self.events.remove(event)
                    return event["params"]
            self.events.append(json.loads(self.socket.recv()))


def test_a_debugger(start: Start) -> None:
    """--inspect opens Deno's inspector: TypeScript is shown, a breakpoint stops, a swap keeps the port."""
    port = free_port()
    dev = start("--inspect", f"127.0.0.1:{port}")
    dev.row("ready")
    debugger = Debugger(port)
    debugger.call("Debugger.enable")
    script = debugger.event("Debugger.scriptParsed", lambda it: it["url"].endswith("function.bundle.js"))
    assert script["sourceMapURL"].startswith("data:application/json;base64,")
    source = debugger.call("Debugger.getScriptSource", scriptId=script["scriptId"])["scriptSource"]
    line = next(number for number, text in enumerate(source.split("\n")) if "console.log" in text)
    debugger.call("Debugger.setBreakpointByUrl", lineNumber=line, url=script["url"])
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(dev.get()))
    asking.start()
    paused = debugger.event("Debugger.paused")
    frame = paused["callFrames"][0]
    found = debugger.call("Debugger.evaluateOnCallFrame", callFrameId=frame["callFrameId"], expression="WORD")
    assert found["result"]["value"] == "one"
    assert not answers
    debugger.call("Debugger.resume")
    asking.join(SLOWEST)
    assert answers == [(200, "one")]
    debugger.socket.close()
    after = dev.change('"one"', '"two"')
    dev.row("rebuilt", after=after)
    Debugger(port).socket.close()
    assert dev.get() == (200, "two")


def test_every_form_of_the_local_lambda_can_be_chosen() -> None:
    """The command line names them without loading it."""
    assert cli.FORMS == FORMS


@pytest.mark.parametrize(
    ("options", "toml", "words"),
    [
        (["--inspect", "0.0.0.0:9229"], "", ["0.0.0.0:9229", "this machine"]),
        (["--inspect", "soon"], "", ["soon", "127.0.0.1:9229"]),
        (["--inspect"], 'runtime = "runtime2"\n', ["runtime1", "runtime2"]),
        (["--http", "soap"], "", ["soap", "alb-multi"]),
        (["--url-port", "70000"], "", ["70000"]),
    ],
)
def test_what_cannot_be(folder: Path, options: list[str], toml: str, words: list[str]) -> None:
    """One sentence, exit code 2, and nothing was started."""
    with (folder / "lambdeno.toml").open("a") as file:
        file.write(toml)
    done = subprocess.run(
        [LAMBDENO, "dev", "--project", folder, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(folder: Path) -> None:
    """It says which one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [LAMBDENO, "dev", "--project", folder, "--port", "0", "--url-port", port],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode
    assert f"127.0.0.1:{port}: the port is in use" in done.stderr


# --- what is watched ----------------------------------------------------------------------------


@pytest.fixture
def shop(folder: Path) -> Path:
    """The project imports code that lies outside of its folder."""
    (folder.parent / "lib").mkdir()
    (folder.parent / "lib/word.ts").write_text('export const WORD: string = "one";\n')
    source = SOURCE.replace('const WORD: string = "one";', 'import { WORD } from "../../lib/word.ts";')
    (folder / "src/main.ts").write_text(source)
    return folder


def replaced(path: Path) -> None:
    """``mv`` of a file that is older than the one in its place."""
    aside = path.with_name("aside")
    aside.write_text('export const WORD: string = "two";\n')
    os.utime(aside, (1_000_000_000, 1_000_000_000))
    aside.replace(path)


def swapped(path: Path) -> None:
    """Another folder in the folder's place, as ``git checkout`` makes it."""
    new = path.parent.with_name("new")
    new.mkdir()
    (new / path.name).write_text('export const WORD: string = "two";\n')
    shutil.rmtree(path.parent)
    new.rename(path.parent)


@pytest.mark.parametrize("change", [replaced, swapped])
def test_an_input_outside_of_the_folder_is_watched(
    start: Start, shop: Path, change: Callable[[Path], None]
) -> None:
    """Shared code is swapped in as well, however it came to be another."""
    dev = start()
    assert dev.get() == (200, "one")
    after = len(dev.rows)
    change(shop.parent / "lib/word.ts")
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "two")
    after = len(dev.rows)
    (shop.parent / "lib/word.ts").write_text('export const WORD: string = "three";\n')
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "three")


def test_an_import_that_comes_back_heals(start: Start, shop: Path) -> None:
    """A module that is gone is told; once it is there again, the code answers."""
    dev = start()
    assert dev.get() == (200, "one")
    after = len(dev.rows)
    (shop.parent / "lib/word.ts").rename(shop.parent / "lib/away.ts")
    dev.row("failed", after=after)
    (shop.parent / "lib/word.ts").write_text('export const WORD: string = "two";\n')
    dev.row("rebuilt", after=after)
    assert dev.get() == (200, "two")


def test_what_is_no_input_is_not_watched(start: Start, shop: Path) -> None:
    """A page, a log, a module that nobody imports, a file saved as it was: only the edit rebuilds."""
    dev = start()
    dev.get()
    after = len(dev.rows)
    for number in range(3):
        (shop / "README.md").write_text(f"{number}")
        (shop / "dev.log").write_text(f"{number}")
        (shop / "src/other.ts").write_text(f"export const other = {number};\n")
        (shop / "src/main.ts").write_text((shop / "src/main.ts").read_text())
        time.sleep(0.4)
    (shop.parent / "lib/word.ts").write_text('export const WORD: string = "two";\n')
    dev.row("rebuilt", after=after)
    assert [row["type"] for row in dev.rows[after:]].count("rebuilt") == 1


def test_its_own_output_in_the_project_is_no_change(shop: Path) -> None:
    """``lambdeno dev > dev.log`` in the project folder builds once, also where all files are included."""
    (shop / "lambdeno.toml").write_text('name = "edited"\n[build]\ninclude = ["**/*.*"]\n')
    command = [LAMBDENO, "dev", "--json", "--port", "0", "--url-port", "0"]
    log = shop / "dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=shop, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + SLOWEST
        while '"ready"' not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        ready = next(json.loads(line) for line in log.read_text().splitlines() if '"ready"' in line)
        urllib.request.urlopen(ready["url"], timeout=SLOWEST).close()  # which logs a line
        time.sleep(2)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SLOWEST)
    assert "said one" in log.read_text()
    assert '"rebuilt"' not in log.read_text()


def shown(line: str, *, is_terminal: bool, colour: bool = True) -> str:
    """What ``dev`` writes for a line of a function's log."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=is_terminal, color_system="standard", no_color=not colour, width=200
    )
    view = Terminal(Path(), console=console)
    view.write(line, function="f", environment="2026/01/01/[$LATEST]abcdef", request_id="12345678-1")
    view.failed(LambdenoError(line, "hint"))
    return file.getvalue()


RECORD = "2026-01-01T00:00:00.000Z\t1\tINFO\t"


@pytest.mark.parametrize("before", ["", RECORD])
def test_a_terminal_obeys_no_log(before: str) -> None:
    """Control characters of a function are visible on a terminal; its colours are colours."""
    evil = "\x1b]52;c;eA==\x07\x1b[2J\x9b2J\u202e\x1b[" + "9" * 5000 + "m"
    text = shown(f"{before}\x1b[31mred\x1b[0m {evil}\r\nsecond", is_terminal=True)
    assert "\x1b[31mred" in text
    assert r"\x1b]52;c;eA==\x07\x1b[2J\x9b2J\u202e" in text
    assert "second" in text
    assert not set(text) & set("\x07\x9b\u202e\r")
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", text)
    assert "\x1b[31m" not in shown(f"{before}\x1b[31mred", is_terminal=True, colour=False)


def test_a_file_gets_the_log_as_it_is() -> None:
    """In a pipe or a file nothing obeys: the line is the function's."""
    line = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x0b"
    assert f" {line}\n" in shown(line, is_terminal=False)
