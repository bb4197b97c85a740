#!/usr/bin/env -S python3 -ISB
"""A bootstrap that does what the event says: the function under test of the local Lambda.

It speaks the Runtime API over a bare socket, so that it can also misspeak. The environment
variable INIT says what to do before the first event, by the same names.
"""
# ruff: noqa: PTH109, PTH110, PTH123, T201

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
HOST, PORT = API.split(":")
RUNTIME = "/2018-06-01/runtime"
EXTENSION = "/2020-01-01/extension"


class Api:
    """One kept-alive connection."""

    def __init__(self) -> None:
        self.socket = socket.create_connection((HOST, int(PORT)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, method: str, path: str, body: bytes = b"", headers: Any = ()) -> None:
        """Send a request; ``headers`` is pairs."""
        root = "" if path.startswith(EXTENSION) else RUNTIME
        lines = [f"{method} {root}{path} HTTP/1.1", f"Host: {API}"]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def call(self, *request: Any) -> list[Any]:
        """Send and receive: status, body as text."""
        self.send(*request)
        status, _, body = self.receive()
        return [status, body.decode()]


def do(api: Api, event: Any, headers: dict[str, str]) -> bytes | None:  # noqa: PLR0911, PLR0912, PLR0915
    """What the event says; returns the response's body, or None when all is done already."""
    event = ordered(event)
    what = event.get("do", "echo") if isinstance(event, dict) else "echo"
    request_id = headers.get("lambda-runtime-aws-request-id", "none")
    answer = f"/invocation/{request_id}/response"
    if what == "echo":
        return json.dumps(event).encode()
    if what == "give":
        return bytes(event["text"], "utf-8")
    if what == "headers":
        return json.dumps(headers).encode()
    if what == "environ":
        return json.dumps({"cwd": os.getcwd(), "pid": os.getpid(), **os.environ}).encode()
    if what == "print":
        print(event["text"], end=event.get("end", "\n"), flush=True)
        return b"null"
    if what == "sleep":
        time.sleep(event["seconds"])
        return b'"slept"'
    if what == "exit":
        os._exit(event["status"])
    if what == "signal":
        os.kill(os.getpid(), signal.Signals[event["name"]])
        time.sleep(60)
    if what == "child":  # a child outlives its parent where nobody looks after it
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        if event.get("hang"):
            time.sleep(60)
        return str(child).encode()
    if what == "large":
        return b'"' + b"x" * int(event["size"]) + b'"'
    if what == "allocate":
        kept = bytearray(event["size"])
        return str(len(kept)).encode()
    if what == "exists":
        return json.dumps(os.path.exists(event["path"])).encode()
    if what == "write":
        return json.dumps(write(event["paths"])).encode()
    if what == "error":
        body = json.dumps({"errorType": "Oops", "errorMessage": "on purpose"}).encode()
        kind = [("Lambda-Runtime-Function-Error-Type", event.get("type", "Function.Oops"))]
        api.call("POST", f"/invocation/{request_id}/error", body, kind)
    elif what == "init/error":
        error_type = [("Lambda-Runtime-Function-Error-Type", "Runtime.Oops")]
        body = json.dumps({"errorType": "Oops", "errorMessage": "at init"}).encode()
        api.call("POST", "/init/error", body, error_type)
        sys.exit(1)
    elif what == "answer and exit":
        api.call("POST", answer, b'"answered"')
        os._exit(3)
    elif what == "answer and stay":
        api.call("POST", answer, b'"answered"')
        time.sleep(event["seconds"])
    elif what == "mode":
        call_and_tell(api, answer, [("Lambda-Runtime-Function-Response-Mode", "buffered")])
    elif what == "stream":
        stream(api, answer, event)
    elif what == "handle":
        handle_sigterm(event)
    elif what == "extension":
        extend(event)
    elif what == "calls":  # any calls, then their outcomes as the response
        told = [
            api.call(method, path.replace("{id}", request_id), body.encode(), *headers)
            for method, path, body, *headers in event["calls"]
        ]
        print(json.dumps(told), flush=True)
        return json.dumps(told).encode() if event.get("answers", True) else None
    return None


def ordered(event: Any) -> Any:
    """An HTTP event's order is in its header x-do; without one it is echoed."""
    if not isinstance(event, dict) or "requestContext" not in event:
        return event
    headers = {**event.get("headers", {}), **event.get("multiValueHeaders", {})}
    order = {name.lower(): value for name, value in headers.items()}.get("x-do", event)
    order = order[0] if isinstance(order, list) else order
    return json.loads(order) if isinstance(order, str) else order


def call_and_tell(api: Api, path: str, headers: Any) -> None:
    """A call whose outcome is for the log."""
    print(json.dumps(api.call("POST", path, b"1", headers)), flush=True)


def handle_sigterm(event: dict[str, Any]) -> None:
    """SIGTERM prints ``terminate`` and ends the process after ``linger`` seconds."""

    def terminate(_number: int, _frame: Any) -> None:
        print(event["terminate"], flush=True)
        time.sleep(event.get("linger", 0))
        print(event["terminate"], "and out", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, terminate)


def extend(event: dict[str, Any]) -> None:
    """Register an extension, and let it ask for events in a thread, each told to the log."""
    if "terminate" in event:
        handle_sigterm(event)
    own = Api()
    body = json.dumps({"events": event.get("events", [])}).encode()
    name = [("Lambda-Extension-Name", event.get("name", "x"))]
    own.send("POST", f"{EXTENSION}/register", body, name)
    status, headers, told = own.receive()
    print(json.dumps([status, told.decode()]), flush=True)
    identifier = [("Lambda-Extension-Identifier", headers.get("lambda-extension-identifier", ""))]

    def ask() -> None:
        time.sleep(event.get("late", 0))
        for _ in range(event.get("asks", 1000)):
            own.send("GET", f"{EXTENSION}/event/next", b"", identifier)
            print(own.receive()[2].decode(), flush=True)
            time.sleep(event.get("busy", 0))

    def ask_again() -> None:
        time.sleep(event["again"])
        Api().send("GET", f"{EXTENSION}/event/next", b"", identifier)
        print("asked again", flush=True)
        time.sleep(60)

    threading.Thread(target=ask, daemon=True).start()
    if "again" in event:
        threading.Thread(target=ask_again, daemon=True).start()


def stream(api: Api, path: str, event: dict[str, Any]) -> None:
    """A streamed response in chunks, with trailers or without an end where the event says so."""
    head = [
        f"POST {RUNTIME}{path} HTTP/1.1",
        f"Host: {API}",
        "Lambda-Runtime-Function-Response-Mode: streaming",
        "Transfer-Encoding: chunked",
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        f"Content-Type: {event.get('type', 'text/plain')}",
    ]
    api.socket.sendall("\r\n".join([*head, "", ""]).encode())
    try:
        for chunk in event["chunks"] * event.get("times", 1):
            if chunk == "die":
                os._exit(9)
            data = chunk.encode()
            api.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            time.sleep(event.get("pause", 0))
            if not select.select([api.socket], [], [], 0)[0]:
                continue
            raise ConnectionError
    except ConnectionError:
        print("nobody reads", flush=True)
        api.__init__()  # type: ignore[misc]
        return
    trailers = "".join(f"{k}: {v}\r\n" for k, v in event.get("trailers", {}).items())
    api.socket.sendall(f"0\r\n{trailers}\r\n".encode())
    api.receive()


def write(paths: list[str]) -> dict[str, str]:
    """Which of these can be written."""
    done: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, "w") as file:
                file.write("x")
            done[path] = "ok"
        except OSError as error:
            done[path] = str(error.strerror)
    return done


def main() -> NoReturn:
    """INIT, then events for ever."""
    api = Api()
    init = json.loads(os.environ.get("INIT", "{}"))
    if init and not (init.get("once") and os.path.exists(init["once"])):
        if init.get("once"):
            open(init["once"], "w").close()
        do(api, init, {})
    while True:
        api.send("GET", "/invocation/next")
        status, headers, body = api.receive()
        if status != 200:
            sys.exit(f"next answered {status}")
        response = do(api, json.loads(body), headers)
        if response is not None:
            path = f"/invocation/{headers['lambda-runtime-aws-request-id']}/response"
            api.call("POST", path, response)


if __name__ == "__main__":
    main()
