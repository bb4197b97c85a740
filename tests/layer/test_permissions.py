"""What the function may do: the default set, settings that narrow and widen it, never the Runtime API.

Attempts are tables of JavaScript. Where it is only the permissions that stand in an attempt's way, a
second test makes it where they do not, and it must succeed: an attempt that cannot proves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.layer.conftest import Environment, Start
from tests.layer.fake_runtime_api import FakeRuntimeApi, fake_runtime_api

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
# The same of many, one after the other.
EACH = """
const AsyncFunction = (async () => {}).constructor;
const outcomes = [];
for (const code of WAYS) {
  const ended = await new AsyncFunction(code)().then(() => ["done", ""], (e) => [e.name, e.message]);
  outcomes.push(ended);
}
return outcomes;
"""
SPELLINGS = (
    *("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "127.1", "0x7f000001", "0177.0.0.1"),
    *("0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[::]"),
    *("LOCALHOST", "017700000001", "0x7f.1", "127.0.1", "0.0.0.0.", "127.0.0.1.", "user:word@127.0.0.1"),
    *("[::ffff:0.0.0.0]", "[::ffff:0:0]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "%6c%6f%63%61%6c%68%6f%73%74"),
    *("127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1"),  # full-width, which URLs make ASCII
)
NETWORKS = (  # of which every address is this machine
    *("127.0.0.2", "127.255.255.254", "0x7f000002", "2130706434", "0177.2", "0.0.0.1"),
    *("[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[::ffff:0.0.0.1]"),
)
ELSEWHERE = ("localhost.", "ip6-localhost", "x.localhost", "[::127.0.0.2]")
OTHER_ERRORS = ("Error", "URIError", "ConnectionRefused")  # of what is no address of the Runtime API's


@pytest.fixture
def api() -> Iterator[FakeRuntimeApi]:
    """A Runtime API that listens on every address of this machine."""
    with fake_runtime_api(is_everywhere=True) as server:
        yield server


def own_addresses() -> list[str]:
    """The addresses that this machine would send from, as URLs have them; nothing is sent."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.200"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.connect((target, 9))
            found.append(sock.getsockname()[0])
    return [f"[{address}]" if ":" in address else address for address in found]


def mapped(addresses: list[str]) -> list[str]:
    """IPv4 addresses as version 6 has them."""
    return [f"[::ffff:{address}]" for address in addresses if ":" not in address]


def attempt(environment: Environment, code: str) -> tuple[str, Any]:
    """What came of some JavaScript: "done" and its value, or an error's name and message."""
    outcome, value = environment.result(code)
    return outcome, value


@pytest.mark.parametrize("permissions", [None, "-A", "--allow-all", "--allow-net --allow-env", "-N -E"])
def test_runtime_api_is_out_of_reach(start: Start, api: FakeRuntimeApi, permissions: str | None) -> None:
    """No spelling of the Runtime API's address gets past Deno, whatever the permissions allow."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    own = own_addresses()
    ways = []
    for host in (*SPELLINGS, *NETWORKS, *ELSEWHERE, socket.gethostname(), *own, *mapped(own)):
        bare = host.strip("[]").replace("%25", "%").rpartition("@")[2]
        ways += [
            (host, f"await (await fetch('http://{host}:{api.port}/2018-06-01/ping')).text();"),
            (host, f"(await Deno.connect({{ hostname: '{bare}', port: {api.port} }})).close();"),
        ]
    _, outcomes = attempt(environment, EACH.replace("WAYS", json.dumps([way for _, way in ways])))
    for (host, way), (outcome, message) in zip(ways, outcomes, strict=True):
        # fetch says no more than TypeError of a name that resolves to a denied address
        assert outcome in ("NotCapable", "TypeError", *OTHER_ERRORS), (way, outcome, message)
        if outcome in OTHER_ERRORS:  # what only an URL makes an address, or is another one
            assert host in ELSEWHERE or "connect(" in way, (way, outcome, message)
    assert api.connections == 1


# --- ways to the Runtime API --------------------------------------------------------------------

WORKER = """return await new Promise((resolve, reject) => {
    const worker = new Worker("data:text/javascript," + encodeURIComponent(`BODY`), { type: "module" });
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => { event.preventDefault(); reject(new Error(event.message)); };
});"""
REDIRECT = """const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response(null, { status: STATUS, headers: { location: "http://HOST:PORT/2018-06-01/ping" } }));
OPTIONS
return (await fetch(`http://127.0.0.1:${server.addr.port}/`, options)).status;"""
NODE = """const { default: MODULE } = await import("node:MODULE");
await new Promise((resolve, reject) => { CALL.on("error", reject); });"""
LOOKUP = """lookup: (host, options, done) =>
    options.all ? done(null, [{ address: "ADDRESS", family: FAMILY }]) : done(null, "ADDRESS", FAMILY)"""


def by_node(module: str, call: str) -> str:
    """A connection that one of Node's modules makes."""
    return NODE.replace("MODULE", module).replace("CALL", call)


def by_lookup(address: str, family: int) -> str:
    """Options that take a name for an address."""
    return 'host: "host.invalid", ' + LOOKUP.replace("ADDRESS", address).replace("FAMILY", str(family))


def by_redirect(status: int, host: str = "127.0.0.1", options: str = "const options = {};") -> str:
    """A server of the function's own that points elsewhere."""
    return REDIRECT.replace("STATUS", str(status)).replace("HOST", host).replace("OPTIONS", options)


def by_proxy(variable: str, url: str, scheme: str = "http") -> str:
    """A proxy that the environment names before the first fetch."""
    return f"Deno.env.set('{variable}', '{url}'); return (await fetch('{scheme}://host.invalid/')).status;"


def by_client(options: str, url: str = "http://host.invalid/2018-06-01/ping") -> str:
    """A fetch with a client of its own."""
    return f"""const client = Deno.createHttpClient({{ {options} }});
        return (await fetch("{url}", {{ client }})).status;"""


def by_web_socket(url: str, before: str = "") -> str:
    """A WebSocket."""
    return f"""{before} await new Promise((resolve, reject) => {{ const socket = new WebSocket("{url}");
        socket.onopen = resolve; socket.onerror = (event) => reject(event.error ?? event); }});"""


# PORT is the port to reach on 127.0.0.1. Each runs in a process of its own.
WAYS = {
    "fetch": "return (await fetch('http://127.0.0.1:PORT/')).status;",
    "fetch of a name": "return (await fetch('http://localhost:PORT/')).status;",
    "fetch by HTTP/2": by_client("http1: false, http2: true", "http://127.0.0.1:PORT/"),
    "fetch by TLS": "return (await fetch('https://127.0.0.1:PORT/')).status;",
    "fetch from an address": by_client('localAddress: "127.0.0.1"', "http://127.0.0.1:PORT/"),
    "fetch of a name from an address": by_client('localAddress: "127.0.0.1"', "http://localhost:PORT/"),
    "stream of WebAssembly": "await WebAssembly.instantiateStreaming(fetch('http://127.0.0.1:PORT/'));",
    "EventSource": """await new Promise((resolve, reject) => {
        const source = new EventSource("http://127.0.0.1:PORT/");
        source.onopen = resolve; source.onerror = () => reject(new Error("closed")); });""",
    "connect": "await Deno.connect({ hostname: '127.0.0.1', port: PORT });",
    "connect by TLS": "await Deno.connectTls({ hostname: '127.0.0.1', port: PORT });",
    "connect to a name by TLS": "await Deno.connectTls({ hostname: 'localhost', port: PORT });",
    "WebSocket": by_web_socket("ws://127.0.0.1:PORT/"),
    "WebSocket to a name": by_web_socket("ws://localhost:PORT/"),
    "WebSocket by TLS": by_web_socket("wss://127.0.0.1:PORT/"),
    "WebSocket by a proxy": by_web_socket(
        "ws://host.invalid/", 'Deno.env.set("HTTP_PROXY", "http://127.0.0.1:PORT");'
    ),
    "net": by_node("net", 'net.connect(PORT, "127.0.0.1", resolve)'),
    "net to a name": by_node("net", 'net.connect(PORT, "localhost", resolve)'),
    "net from an address": by_node(
        "net", 'net.connect({ port: PORT, host: "127.0.0.1", localAddress: "127.0.0.1" }, resolve)'
    ),
    "net, own lookup": by_node("net", f"net.connect({{ port: PORT, {by_lookup('127.0.0.1', 4)} }}, resolve)"),
    "net, own lookup of a mapped address": by_node(
        "net", f"net.connect({{ port: PORT, {by_lookup('::ffff:127.0.0.1', 6)} }}, resolve)"
    ),
    "tls": by_node(
        "tls", 'tls.connect({ port: PORT, host: "127.0.0.1", rejectUnauthorized: false }, resolve)'
    ),
    "tls, own lookup": by_node("tls", f"tls.connect({{ port: PORT, {by_lookup('127.0.0.1', 4)} }}, resolve)"),
    "http": by_node("http", 'http.get("http://127.0.0.1:PORT/", resolve)'),
    "http, own lookup": by_node("http", f"http.get({{ port: PORT, {by_lookup('127.0.0.1', 4)} }}, resolve)"),
    "http by a proxy of the agent": by_node(
        "http",
        """http.get("http://host.invalid/", { agent:
            new http.Agent({ proxyEnv: { HTTP_PROXY: "http://127.0.0.1:PORT" } }) }, resolve)""",
    ),
    "http by a proxy of the environment": """process.env.NODE_USE_ENV_PROXY = "1";
        process.env.HTTP_PROXY = "http://127.0.0.1:PORT";"""
    + by_node("http", 'http.get("http://host.invalid/", resolve)'),
    "https": by_node("https", 'https.get("https://127.0.0.1:PORT/", resolve)'),
    "https by a proxy of the agent": by_node(
        "https",
        """https.get("https://host.invalid/", { agent:
            new https.Agent({ proxyEnv: { HTTPS_PROXY: "http://127.0.0.1:PORT" } }) }, resolve)""",
    ),
    "http2": by_node("http2", 'http2.connect("http://127.0.0.1:PORT", resolve)'),
    "handle of Node's own": """const { TCP, TCPConnectWrap, constants } = process.binding("tcp_wrap");
        const handle = new TCP(constants.SOCKET), request = new TCPConnectWrap();
        return await new Promise((resolve) => { request.oncomplete = resolve;
            handle.connect(request, "127.0.0.1", PORT); });""",
    **{f"redirect {status}": by_redirect(status) for status in (301, 302, 303, 307, 308)},
    "redirect to a name": by_redirect(302, "localhost"),
    "redirect in HTTP/2": by_redirect(
        307,
        options="const options = { client: Deno.createHttpClient({ http1: false, http2: true }) };",
    ),
    **{
        f"{variable} {url}": by_proxy(variable, url)
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        for url in ("http://127.0.0.1:PORT", "https://localhost:PORT", "socks5://127.0.0.1:PORT")
    },
    **{
        f"{variable} {url}": by_proxy(variable, url, "https")
        for variable in ("HTTPS_PROXY", "https_proxy")
        for url in ("http://localhost:PORT", "socks5://127.0.0.1:PORT")
    },
    **{
        f"proxy {url}": by_client(f'proxy: {{ url: "{url}" }}')
        for url in ("http://127.0.0.1:PORT", "https://127.0.0.1:PORT", "http://localhost:PORT")
    },
    "proxy by SOCKS": by_client('proxy: { url: "socks5://127.0.0.1:PORT" }'),
    "proxy by TCP": by_client('proxy: { transport: "tcp", hostname: "127.0.0.1", port: PORT }'),
    "proxy by TCP to a name": by_client('proxy: { transport: "tcp", hostname: "localhost", port: PORT }'),
    "name server": """return await Deno.resolveDns("host.invalid", "A",
        { nameServer: { ipAddr: "127.0.0.1", port: PORT } });""",
    "worker": WORKER.replace("BODY", "await fetch('http://127.0.0.1:PORT/'); postMessage('done');"),
    "thread": """const { Worker } = await import("node:worker_threads");
        await new Promise((resolve) => new Worker("fetch('http://127.0.0.1:PORT/')", { eval: true })
            .on("exit", resolve).on("error", resolve));""",
}
SILENT = {"name server"}  # over UDP
# The permissions are not all that is in their way: they lead nowhere.
DEAD_ENDS = {
    "import": "await import('http://127.0.0.1:PORT/x.js');",
    "import by TLS": "await import('https://127.0.0.1:PORT/x.js');",
    "import of JSON": "await import('http://127.0.0.1:PORT/x.json', { with: { type: 'json' } });",
    "import from data": """await import("data:text/javascript," +
        encodeURIComponent("import 'http://127.0.0.1:PORT/x.js'"));""",
    "import from a blob": """await import(URL.createObjectURL(
        new Blob(["import 'http://127.0.0.1:PORT/x.js'"], { type: "text/javascript" })));""",
    "import of a package": """Deno.env.set("NPM_CONFIG_REGISTRY", "http://127.0.0.1:PORT/");
        await import("npm:left-pad@1.3.0");""",
    "import of another": """Deno.env.set("JSR_URL", "http://127.0.0.1:PORT/");
        await import("jsr:@std/path@1");""",
    "worker's module": """await new Promise((resolve, reject) => {
        const worker = new Worker("http://127.0.0.1:PORT/x.js", { type: "module" });
        worker.onerror = (event) => { event.preventDefault(); reject(new Error(event.message)); }; });""",
    "source map": """const file = `${Deno.env.get("TMPDIR")}/map.js`;
        Deno.writeTextFileSync(file, "export const stack = () => new Error().stack;\\n" +
            "//# sourceMappingURL=http://127.0.0.1:PORT/x.map");
        return (await import(`file://${file}`)).stack();""",
    "telemetry": """Deno.env.set("OTEL_DENO", "true");
        Deno.env.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:PORT");
        Deno.env.set("OTEL_BSP_SCHEDULE_DELAY", "10");"""
    + WORKER.replace("BODY", "console.log(1); await fetch('data:,'); setTimeout(postMessage, 100, 1);"),
    "name server of Node's": """const dns = await import("node:dns");
        const resolver = new dns.promises.Resolver({ timeout: 100, tries: 1 });
        resolver.setServers(["127.0.0.1:PORT"]); return await resolver.resolve4("host.invalid");""",
    "proxy by TCP to a mapped address": by_client(
        'proxy: { transport: "tcp", hostname: "::ffff:127.0.0.1", port: PORT }'
    ),
    "proxy by a Unix socket": by_client('proxy: { transport: "unix", path: "/run/x" }'),
    "redirect of a WebSocket": """const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} },
        () => new Response(null, { status: 307, headers: { location: "ws://127.0.0.1:PORT/" } }));"""
    + by_web_socket("ws://127.0.0.1:").replace('127.0.0.1:")', '127.0.0.1:" + server.addr.port)'),
    "database": "await Deno.openKv('http://127.0.0.1:PORT/');",
    "QUIC": "await Deno.connectQuic({ hostname: '127.0.0.1', port: PORT });",
    "WebTransport": "await new WebTransport('https://127.0.0.1:PORT/').ready;",
    "WebSocketStream": "await new WebSocketStream('ws://127.0.0.1:PORT/').opened;",
    "worker's permissions": """new Worker("data:text/javascript,fetch('http://127.0.0.1:PORT/')",
        { type: "module", deno: { permissions: { net: true } } });
        await new Promise((resolve) => setTimeout(resolve, 100));""",
    "permission on request": """const name = { name: "net", host: "127.0.0.1:PORT" };
        const { state } = await Deno.permissions.request(name); if (state !== "granted") throw state;""",
}
LISTENERS = {
    "listen": "Deno.listen({ hostname: '127.0.0.1', port: PORT });",
    "listen everywhere": "Deno.listen({ port: PORT });",
    "listen everywhere by version 6": "Deno.listen({ hostname: '::', port: PORT });",
    "listen by a name": "Deno.listen({ hostname: 'localhost', port: PORT });",
    "listen by a mapped address": "Deno.listen({ hostname: '::ffff:127.0.0.1', port: PORT });",
    "serve": "Deno.serve({ hostname: '127.0.0.1', port: PORT }, () => new Response());",
    "net": by_node("net", "net.createServer().listen({ port: PORT, host: '127.0.0.1' }, resolve)"),
    "net everywhere": by_node("net", "net.createServer().listen({ port: PORT }, resolve)"),
    "inspector": "(await import('node:inspector')).open(PORT, '127.0.0.1');",
}


@contextlib.contextmanager
def listener() -> Iterator[tuple[int, Callable[[], int]]]:
    """A port of 127.0.0.1 where everything is let in and let go, and the count of what came."""
    count = 0

    def serve() -> None:
        nonlocal count
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                count += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], lambda: count
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("combination", ["binary-runtime2"])  # a process for each
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "own"])
@pytest.mark.parametrize("permissions", [None, "-A"])
def test_no_way_leads_to_the_runtime_api(
    start: Start, api: FakeRuntimeApi, permissions: str | None, host: str
) -> None:
    """Clients, redirects, proxies, name servers, imports, workers: the Runtime API sees none of them."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    if host == "own":
        host = next((address for address in own_addresses() if ":" not in address), "127.255.255.254")
    for name, way in {**WAYS, **DEAD_ENDS, **LISTENERS}.items():
        post = environment.invoke(way.replace("127.0.0.1", host).replace("PORT", str(api.port)))
        assert api.connections == 1, name
        if name in {**WAYS, **LISTENERS} and "orker" not in way and post.path.endswith("/response"):
            outcome, message = json.loads(post.body)
            is_error = outcome in ("NotCapable", "TypeError", "NetworkError") or message == "closed"
            assert is_error, (name, outcome, message)


@pytest.mark.parametrize("combination", ["binary-runtime2"])
def test_ways_lead_elsewhere(start: Start) -> None:
    """The same attempts reach every other port: it is the permissions that keep them from that one."""
    environment = start(TRIES)
    with listener() as (port, count):
        for name, way in WAYS.items():
            before = count()
            environment.invoke(way.replace("PORT", str(port)))
            assert name in SILENT or within(1, lambda before=before: count() > before), name  # type: ignore[misc]


@pytest.mark.parametrize("combination", ["binary-runtime2"])
@pytest.mark.parametrize("permissions", [None, "-A"])
@pytest.mark.parametrize(
    "way",
    [
        by_client('proxy: { url: "socks5h://localhost:PORT" }'),
        by_proxy("HTTP_PROXY", "socks5h://localhost:PORT"),
        by_proxy("HTTPS_PROXY", "socks5h://localhost:PORT", "https"),
        by_proxy("ALL_PROXY", "socks5h://localhost:PORT"),
    ],
    ids=["client", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"],
)
def test_a_greeting_is_all_that_a_name_gets_by_socks(
    start: Start, api: FakeRuntimeApi, way: str, permissions: str | None
) -> None:
    """Deno does not check what a SOCKS proxy's name resolves to: a greeting arrives, and no request can."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    with listener() as (port, count):
        attempt(environment, way.replace("PORT", str(port)))
        assert within(1, lambda: count() == 1)
    late = "setTimeout(() => Deno.exit(3), 300);"
    error = environment.error(late + way.replace("PORT", str(api.port)))[1]
    assert error["errorType"] == "Runtime.ExitError"
    assert within(5, lambda: bool(api.faults))
    assert api.connections == 2
    assert [fault[:43] for fault in api.faults] == [r"not an HTTP/1.1 request: '\x05\x01\x00' {}"[:43]]
    api.faults.clear()
    assert not [request for request in api.requests if request.connection]


SMUGGLED = r"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
FORGED_HEADS = {
    "two lengths": r"Content-Length: ${smuggled.length}\r\nContent-Length: 0\r\n\r\n${smuggled}",
    "chunks and length": r"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n${smuggled}",
    "chunks": r"Transfer-Encoding: chunked\r\n\r\n"
    r"${(5 + smuggled.length).toString(16)}\r\n0\r\n\r\n${smuggled}\r\n0\r\n\r\n",
    "headers": r"X-Smuggled: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("combination", ["binary-runtime1", "binary-runtime2"])
@pytest.mark.parametrize("forged", FORGED_HEADS.values(), ids=FORGED_HEADS.keys())
def test_forged_words_of_the_bridge_stay_in_their_post(
    start: Start, api: FakeRuntimeApi, unbound: Path, forged: str
) -> None:
    """What a function makes the bridge say is the body of its own answer, never headers or a request."""
    environment = start(
        f"""
        export const handler = () => {{
          const encode = TextEncoder.prototype.encode;
          const smuggled = `{SMUGGLED}`;
          let isOver = false;
          TextEncoder.prototype.encode = function (text) {{
            if (isOver) return new Uint8Array(0);
            isOver = text.startsWith("HTTP/1.1 500");
            return encode.call(this, isOver ? `${{text.split("\\r\\n")[0]}}\\r\\n{forged}` : text);
          }};
          throw new Error("to be told by send()");
        }};
        """,
        layer=unbound,
    )
    names = set(environment.invoke().headers)
    assert not within(0.2, lambda: "/smuggled" in api.paths("POST"))
    ours = {"host", "user-agent", "content-type", "content-length", "lambda-runtime-function-error-type"}
    ours.add("lambda-runtime-function-xray-error-cause")
    assert names <= ours


@pytest.fixture
def telling(layer: Path) -> Path:
    """A layer whose bridge tells the function its mark, which the function cannot find otherwise."""
    bridge = layer / "lambdeno/runtime.js"
    text = bridge.read_text()
    read = "have += stdin.readSync(frame.subarray(have, MARK)) ?? exit(0);\n"
    assert read in text
    bridge.write_text(text.replace(read, f"{read}  setProperty(global, 'mark', frame.slice(0, MARK));\n"))
    return layer


@pytest.mark.parametrize("combination", ["binary-runtime2"])
@pytest.mark.parametrize("size", ["zzzz", " 1 1"])
def test_a_forged_frame_does_not_end_the_bootstrap(start: Start, telling: Path, size: str) -> None:
    """What a function that knows the mark writes after it harms itself alone."""
    environment = start(
        f"""
        export const handler = (isForging) => {{
          const size = new TextEncoder().encode("{size}\\n");
          if (isForging) Deno.stdout.writeSync(new Uint8Array([...mark, ...size]));
          return 1;
        }};
        """,
        layer=telling,
    )
    environment.invoke(True)
    assert environment.result(False) == 1


@pytest.mark.parametrize("combination", ["binary-runtime2"])
def test_a_forged_frame_is_no_answer(start: Start, telling: Path) -> None:
    """A message with the mark that is written before the event is there does not answer that event."""
    environment = start(
        r"""
        const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n";
        const answer = head + '"forged"';
        const text = answer.length.toString(16).padStart(4, "0") + answer + "\n";
        const frame = new Uint8Array([...mark, ...new TextEncoder().encode(text)]);
        setTimeout(() => Deno.stdout.writeSync(frame), 20); // when the function is loaded
        export const handler = (event) => event;
        """,
        layer=telling,
    )
    assert environment.waits_for_next(1)
    time.sleep(0.2)
    _, error = environment.error("mine")
    assert error["errorType"] == "Runtime.AnswerMismatch"


@pytest.mark.parametrize("combination", ["binary-runtime1"])
def test_nobody_else_can_be_the_bridge(start: Start) -> None:
    """runtime1's socket has no path any more when the function is loaded, and lets one in alone."""
    environment = start(
        """
        const path = `${Deno.env.get("DENO_DIR")}/bridge`;
        const found = await Deno.connect({ transport: "unix", path }).then(() => "", (error) => error.name);
        export const handler = () => found;
        """
    )
    assert environment.result() in ("NotFound", "ConnectionRefused", "")
    assert environment.result() in ("NotFound", "ConnectionRefused", "")


def test_the_environment_names_no_way_in(start: Start, api: FakeRuntimeApi) -> None:
    """Neither variables nor arguments have the Runtime API's address or the bridge's socket."""
    for permissions in (None, "-A"):
        environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
        found = attempt(
            environment,
            """const { workerData, ...worker } = await import("node:worker_threads");
            return JSON.stringify([Deno.env.toObject(), process.argv, process.execArgv, Deno.args,
                process.title, process.report.getReport?.() ?? null, worker.threadId]);""",
        )
        assert found[0] == "done"
        for secret in ("AWS_LAMBDA_RUNTIME_API", "LAMBDENO_SOCKET", api.address, "bridge", "--deny-net"):
            assert secret not in found[1], secret
        environment.close()


# --- files --------------------------------------------------------------------------------------

SECRET = "kept from the function"
# OUTSIDE is a folder that no permission names; it has a secret in modules and files of several kinds.
SECRETS = {
    "text": SECRET,
    "data.json": json.dumps(SECRET),
    "module.js": f"export default {SECRET!r}; globalThis.postMessage?.({SECRET!r});",
    "module.cjs": f"""module.exports = {SECRET!r};
        require("node:worker_threads").parentPort?.postMessage({SECRET!r});""",
}
MODULE_OF = "import value from 'file://OUTSIDE/data.json' with { type: 'json' }; export default value;"
FROM_DATA = f"data:text/javascript,${{encodeURIComponent(`{MODULE_OF}`)}}"
READS = {
    "text": "return await Deno.readTextFile('OUTSIDE/text');",
    "URL": "return await Deno.readTextFile(new URL('file://OUTSIDE/text'));",
    "fetch": "return await (await fetch('file://OUTSIDE/text')).text();",
    "relative": """Deno.chdir(Deno.env.get("TMPDIR")); return Deno.readTextFileSync("../outside/text");""",
    "from its folder": "Deno.chdir('OUTSIDE'); return Deno.readTextFileSync('text');",
    "dots": "return Deno.readTextFileSync(`${Deno.env.get('TMPDIR')}/../outside/text`);",
    "node": "return (await import('node:fs')).readFileSync('OUTSIDE/text', 'utf8');",
    "stream": """const fs = await import("node:fs"); let text = "";
        for await (const piece of fs.createReadStream("OUTSIDE/text")) text += piece; return text;""",
    "blob": "return await (await (await import('node:fs')).openAsBlob('OUTSIDE/text')).text();",
    "copy": """const copy = `${Deno.env.get("TMPDIR")}/copy`; await Deno.copyFile("OUTSIDE/text", copy);
        return Deno.readTextFileSync(copy);""",
    "node copy": """const copy = `${Deno.env.get("TMPDIR")}/copy`, fs = await import("node:fs");
        fs.cpSync("OUTSIDE", copy, { recursive: true }); return fs.readFileSync(`${copy}/text`, "utf8");""",
    "rename": """const copy = `${Deno.env.get("TMPDIR")}/copy`; await Deno.rename("OUTSIDE/text", copy);
        return Deno.readTextFileSync(copy);""",
    "hard link": """const copy = `${Deno.env.get("TMPDIR")}/copy`; await Deno.link("OUTSIDE/text", copy);
        return Deno.readTextFileSync(copy);""",
    "link": """const copy = `${Deno.env.get("TMPDIR")}/copy`; await Deno.symlink("OUTSIDE/text", copy);
        return Deno.readTextFileSync(copy);""",
    "node link": """const copy = `${Deno.env.get("TMPDIR")}/copy`, fs = await import("node:fs");
        fs.symlinkSync("OUTSIDE/text", copy); return fs.readFileSync(copy, "utf8");""",
    "import": "return (await import('OUTSIDE/module.js')).default;",
    "import of JSON": "return (await import('OUTSIDE/data.json', { with: { type: 'json' } })).default;",
    "import of text": "return (await import('OUTSIDE/text', { with: { type: 'text' } })).default;",
    "import in data": f"return (await import(`{FROM_DATA}`)).default;",
    "import in a module": f"""const file = `${{Deno.env.get("TMPDIR")}}/module.js`;
        Deno.writeTextFileSync(file, `{MODULE_OF}`); return (await import(`file://${{file}}`)).default;""",
    "require": "return (await import('node:module')).createRequire('/tmp/x.js')('OUTSIDE/module.cjs');",
    "worker": """return await new Promise((resolve, reject) => {
        const worker = new Worker("file://OUTSIDE/module.js", { type: "module" });
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => { event.preventDefault(); reject(new Error(event.message)); }; });""",
    "worker's import": WORKER.replace(
        "BODY", MODULE_OF.replace("export default", "postMessage(") + ")"
    ).replace("value;)", "value)"),
    "worker's read": WORKER.replace("BODY", "postMessage(Deno.readTextFileSync('OUTSIDE/text'))"),
    "thread": """const { Worker } = await import("node:worker_threads");
        return await new Promise((resolve, reject) => new Worker("OUTSIDE/module.cjs")
            .on("message", resolve).on("error", reject));""",
    "variables": "process.loadEnvFile('OUTSIDE/text'); return process.env;",
    "list": "return JSON.stringify([...Deno.readDirSync('OUTSIDE')]);",
    "look": "return `${Deno.statSync('OUTSIDE/text').size}`;",
    "exists": "return `${(await import('node:fs')).existsSync('OUTSIDE/text')}`;",
}
HARMLESS = {"variables", "list", "look", "exists", "rename"}  # what they find is no secret; -A lacks it
WRITES = {
    "text": "await Deno.writeTextFile('OUTSIDE/new', 'x');",
    "append": "await Deno.writeTextFile('OUTSIDE/text', 'x', { append: true });",
    "open": "Deno.openSync('OUTSIDE/new', { write: true, create: true });",
    "relative": """Deno.chdir(Deno.env.get("TMPDIR")); Deno.writeTextFileSync("../outside/new", "x");""",
    "dots": "Deno.writeTextFileSync(`${Deno.env.get('TMPDIR')}/../outside/new`, 'x');",
    "truncate": "await Deno.truncate('OUTSIDE/text', 1);",
    "remove": "await Deno.remove('OUTSIDE/text');",
    "folder": "await Deno.mkdir('OUTSIDE/new');",
    "times": "await Deno.utime('OUTSIDE/text', 1, 1);",
    "mode": "await Deno.chmod('OUTSIDE/text', 0o600);",
    "temporary file": "await Deno.makeTempFile({ dir: 'OUTSIDE' });",
    "temporary folder": "await Deno.makeTempDir({ dir: 'OUTSIDE' });",
    "TMPDIR": "Deno.env.set('TMPDIR', 'OUTSIDE'); await Deno.makeTempFile();",
    "node TMPDIR": """Deno.env.set("TMPDIR", "OUTSIDE");
        (await import("node:fs")).mkdtempSync((await import("node:os")).tmpdir() + "/x");""",
    "rename": """const file = `${Deno.env.get("TMPDIR")}/file`; Deno.writeTextFileSync(file, "x");
        await Deno.rename(file, "OUTSIDE/new");""",
    "hard link": """const file = `${Deno.env.get("TMPDIR")}/file2`; Deno.writeTextFileSync(file, "x");
        await Deno.link(file, "OUTSIDE/new");""",
    "link into it": """const link = `${Deno.env.get("TMPDIR")}/link`; await Deno.symlink("OUTSIDE", link);
        Deno.writeTextFileSync(`${link}/new`, "x");""",
    "node": "(await import('node:fs')).writeFileSync('OUTSIDE/new', 'x');",
    "node copy": """const fs = await import("node:fs"), folder = `${Deno.env.get("TMPDIR")}/from`;
        fs.mkdirSync(folder); fs.writeFileSync(`${folder}/new`, "x");
        fs.cpSync(folder, "OUTSIDE", { recursive: true });""",
    "node truncate": "(await import('node:fs')).truncateSync('OUTSIDE/text', 1);",
    "node mode": "(await import('node:fs')).chmodSync('OUTSIDE/text', 0o600);",
    "database": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync("OUTSIDE/new").exec("CREATE TABLE x(y)");""",
    "backup": """const { backup, DatabaseSync } = await import("node:sqlite");
        await backup(new DatabaseSync(":memory:"), "OUTSIDE/new");""",
    "heap": "(await import('node:v8')).writeHeapSnapshot('OUTSIDE/new');",
    "socket": "Deno.listen({ transport: 'unix', path: 'OUTSIDE/new' });",
    "WASI": """const { wasi } = await import(`file://${Deno.env.get("LAMBDA_TASK_ROOT")}/wasi.js`);
        (await wasi("OUTSIDE")).folder("new");""",
}
# Attempts that Deno does not let out of its own folders, whatever the permissions.
NO_WRITES = {
    "database by URL": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync(new URL("file://OUTSIDE/new")).exec("CREATE TABLE x(y)");""",
    "database by URI": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync("file:OUTSIDE/new").exec("CREATE TABLE x(y)");""",
    "database after chdir": """const { DatabaseSync } = await import("node:sqlite");
        Deno.chdir(Deno.env.get("TMPDIR")); Deno.mkdirSync("file:OUTSIDE", { recursive: true });
        new DatabaseSync("file:OUTSIDE/new").exec("CREATE TABLE x(y)");""",
    "attached": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync(":memory:").exec("ATTACH 'OUTSIDE/new' AS b; CREATE TABLE b.x(y)");""",
    "vacuum": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync(":memory:").exec("CREATE TABLE x(y); VACUUM INTO 'OUTSIDE/new'");""",
    "SQLite's temporary files": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync(":memory:").exec("PRAGMA temp_store_directory='OUTSIDE'; PRAGMA temp_store=FILE;" +
            "CREATE TEMP TABLE x(y)");""",
    "V8's log": """const v8 = await import("node:v8"); v8.setFlagsFromString("--log-all");
        v8.setFlagsFromString("--no-logfile-per-isolate"); v8.setFlagsFromString("--logfile=OUTSIDE/new");"""
    + WORKER.replace("BODY", "postMessage(1)"),
    "V8's traces": """const v8 = await import("node:v8"); v8.setFlagsFromString("--redirect-code-traces");
        v8.setFlagsFromString("--redirect-code-traces-to=OUTSIDE/new");
        v8.setFlagsFromString("--trace-turbo-path=OUTSIDE"); v8.setFlagsFromString("--trace-turbo");
        const f = (x) => x + 1; for (let i = 0; i < 1e6; i++) f(i);""",
    "report": "process.report.writeReport('OUTSIDE/new');",
    "coverage": """Deno.env.set("DENO_COVERAGE_DIR", "OUTSIDE/new");
        Deno.env.set("NODE_V8_COVERAGE", "OUTSIDE/new");"""
    + WORKER.replace("BODY", "postMessage(1); close()"),
    "compile cache": "(await import('node:module')).enableCompileCache?.('OUTSIDE/new');",
    "cache storage": """const cache = await caches.open("../../../../outside/new");
        await cache.put("http://host.invalid/", new Response("x"));""",
    "local storage": "localStorage.setItem('../../../outside/new', 'x');",
    "permission on request": """const { state } = await Deno.permissions.request({ name: "write" });
        if (state === "granted") Deno.writeTextFileSync("OUTSIDE/new", "x");""",
}

# node:wasi without a compiler: a module of nothing but a memory, and its imports called from here.
WASI = """
const module = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 1,
  7, 19, 2, 6, 109, 101, 109, 111, 114, 121, 2, 0, 6, 95, 115, 116, 97, 114, 116, 0, 0, 10, 4, 1, 2, 0, 11]);
export async function wasi(folder) {
  const { WASI } = await import("node:wasi");
  const system = new WASI({ version: "preview1", preopens: { "/x": folder } });
  const { instance } = await WebAssembly.instantiate(module, {});
  system.start(instance);
  const memory = new Uint8Array(instance.exports.memory.buffer);
  const put = (text, at) => [at, new TextEncoder().encodeInto(text, memory.subarray(at)).written];
  const { path_create_directory, path_symlink } = system.wasiImport;
  return {
    folder: (name) => path_create_directory(3, ...put(name, 0)),
    link: (target, name) => path_symlink(...put(target, 0), 3, ...put(name, 1024)),
  };
}
"""
LINKED = """const tmp = Deno.env.get("TMPDIR");
    const { wasi } = await import(`file://${Deno.env.get("LAMBDA_TASK_ROOT")}/wasi.js`);
    (await wasi(tmp)).link(TARGET, "link");"""


@pytest.fixture
def outside(short_tmp: Path) -> Path:
    """A folder beside the writable one."""
    folder = short_tmp / "outside"
    folder.mkdir()
    for name, content in SECRETS.items():
        (folder / name).write_text(content)
    return folder


def state(folder: Path) -> list[tuple[str, int, int, float]]:
    """What is in a folder."""
    return sorted(
        (entry.name, found.st_size, found.st_mode, found.st_mtime)
        for entry in folder.iterdir()
        for found in [entry.lstat()]
    )


def restore(folder: Path) -> None:
    """Have it as it was."""
    for path in folder.iterdir():
        if path.name not in SECRETS:
            path.rmdir() if path.is_dir() else path.unlink()
    for name, content in SECRETS.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)


FROM_RUNTIME2 = pytest.mark.parametrize("combination", ["binary-runtime2"])


@FROM_RUNTIME2
def test_other_files_cannot_be_read(start: Start, outside: Path) -> None:
    """By default, no API of Deno's or Node's and no module gives what is in another folder."""
    environment = start(TRIES, files={"wasi.js": WASI})
    for name, code in READS.items():
        post = environment.invoke(code.replace("OUTSIDE", str(outside)))
        assert SECRET not in post.body.decode(), name
        if post.path.endswith("/response"):
            assert json.loads(post.body)[0] != "done", (name, post.body)
    assert SECRET not in environment.log


@FROM_RUNTIME2
def test_other_files_cannot_be_written(start: Start, outside: Path) -> None:
    """By default, no API of Deno's or Node's and no engine's setting changes anything in another folder."""
    environment = start(TRIES, files={"wasi.js": WASI})
    before = state(outside)
    for name, code in {**WRITES, **NO_WRITES}.items():
        environment.invoke(code.replace("OUTSIDE", str(outside)))
        assert state(outside) == before, name


@FROM_RUNTIME2
def test_those_files_are_there(start: Start, outside: Path) -> None:
    """The same attempts succeed where all is allowed, but for those that cannot."""
    environment = start(TRIES, files={"wasi.js": WASI}, LAMBDENO_PERMISSIONS="-A")
    before = state(outside)
    for name, code in READS.items():
        if name not in HARMLESS:
            for copy in (environment.tmp / "copy", environment.tmp / "copy/x"):
                remove(copy)
            post = environment.invoke(code.replace("OUTSIDE", str(outside)))
            assert SECRET in post.body.decode(), (name, post.body)
    for name, code in WRITES.items():
        remove(environment.tmp / "copy")
        restore(outside)
        before = state(outside)
        post = environment.invoke(code.replace("OUTSIDE", str(outside)))
        assert state(outside) != before, (name, post.body)
    restore(outside)
    before = state(outside)
    for name, code in NO_WRITES.items():
        environment.invoke(code.replace("OUTSIDE", str(outside)))
        if name not in ("attached", "vacuum", "permission on request"):
            assert state(outside) == before, name


def remove(path: Path) -> None:
    """Have no such file or folder."""
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            remove(entry)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


LINKS_BY_WASI = "Deno 2.9.8: path_symlink of node:wasi takes any target, and Deno follows links"


@FROM_RUNTIME2
@pytest.mark.xfail(strict=True, raises=AssertionError, reason=LINKS_BY_WASI)
def test_a_link_leads_to_no_other_file(start: Start, outside: Path) -> None:
    """A link in /tmp shows nothing that the permissions do not."""
    environment = start(TRIES, files={"wasi.js": WASI})
    code = "return Deno.readTextFileSync(`${tmp}/link/text`);"
    found = attempt(environment, LINKED.replace("TARGET", json.dumps(str(outside))) + code)
    assert found != ("done", SECRET)


@FROM_RUNTIME2
@pytest.mark.xfail(strict=True, raises=AssertionError, reason=LINKS_BY_WASI)
def test_a_link_writes_no_other_file(start: Start, outside: Path) -> None:
    """A link in /tmp changes nothing that the permissions do not."""
    environment = start(TRIES, files={"wasi.js": WASI})
    before = state(outside)
    code = "Deno.writeTextFileSync(`${tmp}/link/new`, 'x');"
    attempt(environment, LINKED.replace("TARGET", json.dumps(str(outside))) + code)
    assert state(outside) == before


@FROM_RUNTIME2
@pytest.mark.xfail(strict=True, raises=AssertionError, reason=LINKS_BY_WASI)
@pytest.mark.parametrize("private", ["off", "on"])
def test_the_next_process_cannot_be_prepared_by_a_link(start: Start, private: str) -> None:
    """The next process's code cache is out of reach through /tmp, too."""
    environment = start(TRIES, files={"wasi.js": WASI}, LAMBDENO_PRIVATE_TMP=private)
    code = """const home = Deno.env.get("DENO_DIR").replace(/[/][^/]*$/, "");"""
    code += LINKED.replace("TARGET", "home")
    code += """const written = [];
        for (const { name, isDirectory } of Deno.readDirSync(`${tmp}/link`)) {
          if (!isDirectory || Deno.env.get("DENO_DIR").endsWith(name)) continue;
          Deno.writeTextFileSync(`${tmp}/link/${name}/v8_code_cache_v2`, "");
          written.push(name);
        }
        return written;"""
    outcome, written = attempt(environment, code)
    assert outcome != "done" or not written


@FROM_RUNTIME2
def test_a_link_leads_to_no_descriptor(start: Start) -> None:
    """Through a link Deno still tells what is special: memory, environment, pipes and sockets are closed."""
    environment = start(TRIES)
    (environment.tmp / "link").symlink_to(f"/proc/{environment.process.pid}")
    code = """const opened = [], fs = await import("node:fs"), link = `${Deno.env.get("TMPDIR")}/link`;
        const targets = [...Deno.readDirSync(`${link}/fd`)]
            .map(({ name }) => [`fd/${name}`, fs.readlinkSync(`${link}/fd/${name}`)])
            .filter(([, target]) => /^(pipe|socket):/.test(target));
        const names = targets.map(([name]) => name);
        for (const name of ["mem", "environ", "maps", "auxv", "cmdline", "status", ...names]) {
          for (const flags of ["r", "r+"]) {
            try { fs.openSync(`${link}/${name}`, flags); opened.push(name); } catch { /* as it must be */ }
          }
        }
        return [names.length >= 3, opened];"""
    assert attempt(environment, code) == ("done", [True, []])


@FROM_RUNTIME2
@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="Deno 2.9.8 reads external source maps without a permission"
)
def test_source_maps_are_files(start: Start, outside: Path) -> None:
    """What a source map says in a stack is no way to read one that the permissions do not name."""
    source_map = {"version": 3, "sources": ["hidden.ts"], "names": [], "mappings": "AAAA"}
    (outside / "x.map").write_text(json.dumps(source_map))
    code = DEAD_ENDS["source map"].replace("http://127.0.0.1:PORT", f"file://{outside}")
    outcome, stack = attempt(start(TRIES), code)
    assert outcome == "done"
    assert "hidden.ts" not in stack


# --- processes ----------------------------------------------------------------------------------

SPECIAL = (
    *("environ", "mem", "maps", "auxv", "cmdline", "status", "stat", "fd", "fd/0", "fdinfo/0", "root"),
    *("root/etc/passwd", "cwd", "cwd/x", "exe", "task", "net/tcp", "syscall", "stack"),
)
PLACES = (
    *(f"/proc/{whose}/{name}" for whose in ("PARENT", "self", "thread-self") for name in SPECIAL),
    *("/proc/net/tcp", "/proc/net/unix", "/proc/kcore", "/proc/1/environ", "/proc/self/../PARENT/environ"),
    *("/proc/self/root/proc/PARENT/environ", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/fd/0", "/dev/fd/1"),
    *("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/mem", "/dev/shm/x", "/dev/kmsg"),
)


@pytest.mark.parametrize("combination", ["binary-runtime1", "binary-runtime2"])
@pytest.mark.parametrize("permissions", [None, "-E -R -W", "-A"])
def test_special_files_are_closed(start: Start, permissions: str | None) -> None:
    """Memory, environment, descriptors of the bootstrap and of Deno itself, whatever is allowed.

    Deno opens them to those alone who have no denial at all; the Runtime API's is always there.
    """
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    code = """const fs = await import("node:fs"), opened = [];
        const ways = [Deno.openSync, (path) => [...Deno.readDirSync(path)], fs.readFileSync, fs.readdirSync,
            (path) => Deno.openSync(path, { write: true }), (path) => fs.openSync(path, "r+"),
            Deno.readLinkSync, fs.readlinkSync];
        for (const place of PLACES.map((path) => path.replaceAll("PARENT", Deno.ppid)))
          for (const way of ways) {
            try { way(place); opened.push(place); } catch (error) {
              if (error.name !== "NotCapable") opened.push(`${place} ${error}`);
            }
          }
        return opened;"""
    found = attempt(environment, code.replace("PLACES", json.dumps(PLACES)))
    assert found == ("done", [])


SPAWNS = {
    "command": "await new Deno.Command('touch', { args: ['OUTSIDE/new'] }).output();",
    "spawn": "await Deno.spawnAndWait('touch', ['OUTSIDE/new']);",
    "run": "await Deno.run({ cmd: ['touch', 'OUTSIDE/new'] }).status();",
    "node spawn": """const { spawn } = await import("node:child_process"); await new Promise((resolve) =>
        spawn("touch", ["OUTSIDE/new"]).on("exit", resolve).on("error", resolve));""",
    "node shell": """const { exec } = await import("node:child_process");
        await new Promise((resolve) => exec("touch OUTSIDE/new", resolve));""",
    "node at once": "(await import('node:child_process')).spawnSync('touch', ['OUTSIDE/new']);",
    "node execFile": "(await import('node:child_process')).execFileSync('touch', ['OUTSIDE/new']);",
    "node fork": """const { fork } = await import("node:child_process");
        const file = `${Deno.env.get("TMPDIR")}/fork.js`;
        Deno.writeTextFileSync(file, "process.getBuiltinModule('fs').writeFileSync('OUTSIDE/new', '')");
        await new Promise((resolve) => fork(file).on("exit", resolve).on("error", resolve));""",
    "worker": WORKER.replace(
        "BODY", "await new Deno.Command('touch', { args: ['OUTSIDE/new'] }).output(); postMessage(1);"
    ),
    "worker's permissions": """
        const code = "new Deno.Command('touch', { args: ['OUTSIDE/new'] }).outputSync()";
        new Worker(`data:text/javascript,${code}`, { type: "module", deno: { permissions: { run: true } } });
        await new Promise((resolve) => setTimeout(resolve, 100));""",
    "cluster": """const { default: cluster } = await import("node:cluster");
        cluster.setupPrimary({ exec: "/x.js" }); cluster.fork();
        await new Promise((resolve) => setTimeout(resolve, 100));""",
    "exec": "process.execve('/bin/touch', ['touch', 'OUTSIDE/new']);",
    "binding": """process.binding("spawn_sync").spawn(
        { file: "/bin/touch", args: ["touch", "OUTSIDE/new"], stdio: [] });""",
}
CANNOT_SPAWN = {"worker's permissions", "cluster", "exec", "binding"}  # not even where it is allowed
LIBRARIES = {
    "library": "Deno.dlopen('libc.so.6', {});",
    "Node's library": "process.dlopen({ exports: {} }, `${Deno.env.get('TMPDIR')}/x.node`);",
    "add-on": """const file = `${Deno.env.get("TMPDIR")}/x.node`; Deno.writeTextFileSync(file, "");
        (await import("node:module")).createRequire(file)(file);""",
    "SQLite's extension": """const { DatabaseSync } = await import("node:sqlite");
        new DatabaseSync(":memory:", { allowExtension: true }).loadExtension("/tmp/x.so");""",
    "pointer": "new Deno.UnsafePointerView(Deno.UnsafePointer.create(1n)).getUint8();",
    "signal": "Deno.kill(Deno.ppid, 'SIGCONT');",
    "Node's signal": "process.kill(Deno.ppid, 'SIGCONT');",
    "no signal": "process.kill(Deno.ppid, 0);",
}


@FROM_RUNTIME2
@pytest.mark.parametrize("permissions", [None, "-A"])
def test_nothing_is_spawned(start: Start, outside: Path, permissions: str | None) -> None:
    """By default nothing starts a process; what is allowed to does."""
    environment = start(TRIES, LAMBDENO_PERMISSIONS=permissions)
    for name, code in SPAWNS.items():
        environment.invoke(code.replace("OUTSIDE", str(outside)))
        is_expected = permissions == "-A" and name not in CANNOT_SPAWN
        assert (outside / "new").exists() == is_expected, name
        restore(outside)


@FROM_RUNTIME2
def test_no_native_code_and_no_signals(start: Start) -> None:
    """By default no library is loaded, no address is read and no process is told anything."""
    environment = start(TRIES)
    for name, code in LIBRARIES.items():
        assert attempt(environment, code)[0] == "NotCapable", name


@FROM_RUNTIME2
def test_the_bootstrap_keeps_its_priority(start: Start) -> None:
    """What a function does to the bootstrap's priority, every later invocation would inherit."""
    environment = start(TRIES)
    pid = environment.process.pid
    before = os.getpriority(os.PRIO_PROCESS, pid)
    attempt(environment, "(await import('node:os')).setPriority(Deno.ppid, 1);")
    assert os.getpriority(os.PRIO_PROCESS, pid) == before


@FROM_RUNTIME2
def test_an_invocation_finds_no_storage_of_another(start: Start) -> None:
    """Storage of the web platform ends with its process."""
    environment = start(
        """
        export const handler = async () => {
          const cache = await caches.open("x");
          const found = [localStorage.getItem("x"), await caches.has("y"), !!await cache.match("http://x/")];
          localStorage.setItem("x", "1");
          await caches.open("y");
          await cache.put("http://x/", new Response("1"));
          return found;
        };
        """
    )
    for _ in range(3):
        assert environment.result() == [None, False, False]


# --- the default set and settings ---------------------------------------------------------------

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
