"""What the function may do: the default set, settings that narrow and widen it, never the Runtime API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import FakeRuntimeApi

# Runs the JavaScript that its event is, and says what came of it.
TRIES = """
const AsyncFunction = (async () => {}).constructor;
export const handler = async (code) => {
  try {
    return ["done", (await new AsyncFunction(code)()) ?? null];
  } catch (error) {
    return [error.name, error.message];
  }
};
"""
SPELLINGS = (
    *("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "127.1", "0x7f000001", "0177.0.0.1"),
    *("0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[::]"),
)


def attempt(environment: Environment, code: str) -> tuple[str, Any]:
    """What came of some JavaScript: "done" and its value, or an error's name and message."""
    outcome, value = environment.result(code)
    return outcome, value


@pytest.mark.parametrize("permissions", [None, "-A", "--allow-all", "--allow-net --allow-env", "-N -E"])
def test_runtime_api_is_out_of_reach(start: Start, api: FakeRuntimeApi, permissions: str | None) -> None:
    """No spelling of the Runtime API's address gets past Deno, whatever the permissions allow."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    for host in SPELLINGS:
        ways = [
            f"await (await fetch('http://{host}:{api.port}/2018-06-01/ping')).text();",
            f"(await Deno.connect({{ hostname: '{host.strip('[]')}', port: {api.port} }})).close();",
        ]
        for way in ways:
            outcome, message = attempt(environment, way)
            # fetch says no more than TypeError of a name that resolves to a denied address
            assert outcome in ("NotCapable", "TypeError"), (way, outcome, message)
    assert api.connections == 1


def test_runtime_api_is_out_of_reach_by_other_means(start: Start, api: FakeRuntimeApi) -> None:
    """Node's net and http and a WebSocket get no further than fetch."""
    environment = start(TRIES)
    address = f"127.0.0.1:{api.port}"
    ways = [
        f"""const net = await import("node:net"); await new Promise((resolve, reject) => {{
            net.connect({api.port}, "127.0.0.1", resolve).on("error", reject); }});""",
        f"""const http = await import("node:http"); await new Promise((resolve, reject) => {{
            http.get("http://{address}/", resolve).on("error", reject); }});""",
        f"""await new Promise((resolve, reject) => {{ const socket = new WebSocket("ws://{address}/");
            socket.onopen = resolve; socket.onerror = (event) => reject(event.error ?? event); }});""",
    ]
    for way in ways:
        outcome, message = attempt(environment, way)
        assert outcome != "done", (way, message)
    assert api.connections == 1


DENIED = {
    "spawn": "await new Deno.Command('/bin/true').output();",
    "node spawn": "(await import('node:child_process')).execFileSync('/bin/true');",
    "ffi": "Deno.dlopen('libc.so.6', {});",
    "kill": "Deno.kill(1, 'SIGCONT');",
    "read /etc/passwd": "await Deno.readTextFile('/etc/passwd');",
    "read by node": "(await import('node:fs')).readFileSync('/etc/passwd');",
    "read by import": "await import('/etc/passwd');",
    "read own environ": "await Deno.readTextFile('/proc/self/environ');",
    "read the bootstrap's": "await Deno.readTextFile(`/proc/${Deno.ppid}/environ`);",
    "link out": "await Deno.symlink('/etc/passwd', `${Deno.env.get('TMPDIR')}/link`);",
    "write task": "await Deno.writeTextFile(`${Deno.env.get('LAMBDA_TASK_ROOT')}/x`, 'x');",
    "write beside tmp": "await Deno.writeTextFile(`${Deno.env.get('TMPDIR')}/../x`, 'x');",
    "write /var": "await Deno.writeTextFile('/var/tmp/lambdeno-x', 'x');",
    "remote import": "await import('https://unreachable.invalid/x.js');",
}


@pytest.mark.parametrize("code", DENIED.values(), ids=DENIED.keys())
def test_default_set_denies(start: Start, code: str) -> None:
    """By default a function starts no process and touches no file outside its own folders."""
    outcome, message = attempt(start(TRIES), code)
    if "execFileSync" in code:  # Node's own words for a process that could not be had
        assert (outcome, message) == ("Error", "Command failed: /bin/true")
        return
    assert outcome in ("NotCapable", "TypeError"), (outcome, message)
    if outcome == "TypeError":  # an import, refused for want of a permission or of the network
        assert "import(" in code
        assert "access" in message or "cached" in message, message


ALLOWED = {
    "tmp": """const file = `${Deno.env.get("TMPDIR")}/file`; await Deno.writeTextFile(file, "kept");
        return await Deno.readTextFile(file);""",
    "task": "return (await Deno.readTextFile(`${Deno.env.get('LAMBDA_TASK_ROOT')}/data.txt`));",
    "env": "Deno.env.set('NEW', 'kept'); return Deno.env.get('NEW');",
    "sys": "return Deno.hostname() && Deno.osRelease() && 'kept';",
    "net": """const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        const connection = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
        connection.close(); listener.close(); return "kept";""",
}


@pytest.mark.parametrize("code", ALLOWED.values(), ids=ALLOWED.keys())
def test_default_set_allows(start: Start, code: str) -> None:
    """By default a function reads its code, reads and writes /tmp, and has environment and network."""
    environment = start(TRIES, files={"data.txt": "kept"})
    assert attempt(environment, code) == ("done", "kept")


NEEDS_NET = "(await Deno.connect({ hostname: '127.0.0.1', port: 1 })).close();"
NEEDS_READ = "await Deno.readTextFile('/etc/passwd');"
NEEDS_TMP = "await Deno.writeTextFile('/tmp/lambdeno-never', 'x');"
NEEDS_ENV = "Deno.env.get('LANG');"
NEEDS_RUN = "await new Deno.Command('/bin/true').output();"
EVERYTHING = (NEEDS_NET, NEEDS_READ, NEEDS_TMP, NEEDS_ENV, NEEDS_RUN)


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ("--allow-env", {NEEDS_ENV}),
        ("--allow-env --allow-net", {NEEDS_ENV, NEEDS_NET}),
        ("--allow-env --allow-net=127.0.0.1:1", {NEEDS_ENV, NEEDS_NET}),
        ("--allow-env --allow-net=192.0.2.1", {NEEDS_ENV}),
        ("--allow-env --allow-net --deny-net=127.0.0.1:1", {NEEDS_ENV}),
        ("--allow-env --allow-read", {NEEDS_ENV, NEEDS_READ}),
        ("-E -R=/etc", {NEEDS_ENV, NEEDS_READ}),
        ("-ER", {NEEDS_ENV, NEEDS_READ}),
        ("--allow-env --allow-read --deny-read=/etc", {NEEDS_ENV}),
        ("--allow-env  --allow-run=/bin/true ", {NEEDS_ENV, NEEDS_RUN}),
        ("-A", {NEEDS_ENV, NEEDS_NET, NEEDS_READ, NEEDS_RUN}),
        ("-A --deny-run", {NEEDS_ENV, NEEDS_NET, NEEDS_READ}),
        ("--allow-net", {NEEDS_NET}),
        ("--allow-read", {NEEDS_READ}),
    ],
)
def test_permissions_setting(start: Start, permissions: str, allowed: set[str]) -> None:
    """LAMBDENO_PERMISSIONS takes the default set's place: what it names is allowed and nothing else."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    for code in EVERYTHING:
        if code == NEEDS_TMP and permissions.startswith("-A"):
            continue  # it would write
        outcome, message = attempt(environment, code)
        assert (outcome != "NotCapable") == (code in allowed), (code, outcome, message)


def test_blank_permissions_are_the_default(start: Start) -> None:
    """A setting of nothing but spaces is no setting."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS="  ")
    assert attempt(environment, NEEDS_ENV)[0] == "done"
    assert attempt(environment, NEEDS_READ)[0] == "NotCapable"
