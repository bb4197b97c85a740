"""The short way for what is small and ordinary: an event in one read, a result in one read, one write.

    read 202 and the next event -> write it to the bridge -> read the result -> write POST response, GET next

Nothing here that runtime.py and runtime_api.py could not do; but they take many times the steps of Python,
which were half of an invocation's processor time (docs/decisions.md). What is out of the ordinary is left
to them, in the connections' buffers, as if nobody had looked at it.

`GET /next` goes out behind the response, in the same write (pipelining, RFC 9112 §9.3.2): Lambda takes one
after the other, and nobody waits for the 202 in between.
"""

from _socket import MSG_PEEK

from connection import Connection
from runtime import DIGITS_OF_NUMBER
from runtime_api import PLAIN, PREFIX

if False:  # for the type checker; importing typing would cost a millisecond
    from _socket import socket

    from runtime1 import Runtime1
    from runtime_api import RuntimeApi

END = b"\r\n\r\n"
EVENT = b"HTTP/1.1 200 "
TO_BRIDGE = b"POST /invocation/"  # then the number
VERSION = b" HTTP/1.1"
REQUEST_ID = b"\r\nlambda-runtime-aws-request-id: "
INVOCATION_ID = b"\r\nlambda-runtime-invocation-id:"
LENGTH = b"\r\ncontent-length: "
CODING = b"\r\ntransfer-encoding:"
CLOSING = b"\r\nconnection:"
# The one head that the bridge has for a result: status, number, fields; the length is padded to 8 places.
STATUS = b"HTTP/1.1 200 "
FIELDS = len(STATUS) + DIGITS_OF_NUMBER  # where its fields begin, which the post takes over
RESULT = b"\r\nContent-Type: application/json\r\nContent-Length: "
LENGTH_AT = FIELDS + len(RESULT)
DIGITS = LENGTH_AT + 8
BODY = DIGITS + len(END)


def relay(runtime: "Runtime1", api: "RuntimeApi") -> bool:  # noqa: PLR0915 - calls are what it saves
    """Serve events until one is out of the ordinary, which is served as well; see Runtime.answer."""
    platform, bridge = api.connection, runtime.bridge
    buffer, view, results, result_view = platform.buffer, platform.view, bridge.buffer, bridge.view
    sock: socket = platform.sock  # type: ignore[assignment]
    start, middle = b"POST %b/invocation/" % PREFIX, b"/response" + api.headers
    next_request = api.next_request if api.is_pipelining else b""
    has_more = bridge.has_more  # what the bridge was not asked for
    number = next(runtime.numbers)
    first_line, status = TO_BRIDGE + number + VERSION, STATUS + number + RESULT
    taken = b""  # the whole of the last 202: the next one is the same until its Date changes
    try:
        api.ask()
    except OSError:  # told again to who asks again
        return runtime.answer(api.next(), api)
    at, end = 0, received(sock, buffer)
    while True:
        event = ordinary(buffer, view, at, end)
        if event is None or has_more:
            left(platform, at, end)
            return runtime.answer(api.next(), api)
        request_id, fields, echo = event
        api.is_asked = False
        api.request_id = runtime.request_id = request_id
        api.invocation_id = echo.partition(b":")[2].strip()
        runtime.head, runtime.number = fields, number
        runtime.is_blocked = runtime.has_warned = False
        try:
            bridge.send(first_line + view[at + fields.find(b"\r") : end])
        except OSError:  # told again to who sends again
            left(platform, at, end)
            platform.receive()
            return runtime.answer(platform, api)
        got = looked_at(runtime, results)
        if not is_result(results, got, status):
            left(platform, at, end)
            platform.receive()
            return runtime.resume(platform, api, is_unread=got < 0)
        runtime.deaths = 0
        api.post = b"".join((start, request_id, middle, echo, result_view[FIELDS:got], next_request))
        api.is_asked = api.is_pipelining
        try:
            platform.send(api.post)
        except OSError:  # told again to who reads
            pass
        number = next(runtime.numbers)  # while nobody waits for it
        first_line, status = TO_BRIDGE + number + VERSION, STATUS + number + RESULT
        size = runtime.sock.recv_into(results)  # not before: it wakes Deno, to tell it that there is room
        if size != got:
            bridge.total, bridge.end, has_more = got, size, True
        end = received(sock, buffer)
        at = len(taken)
        if at and buffer.startswith(taken, 0, end):
            api.post = b""
        else:
            left(platform, 0, end)
            api.settle()
            at, end = platform.total, platform.end
            if api.connection is not platform or at > end:
                return True
            taken = bytes(view[:at])
        if not api.is_asked:
            return True
        if at == end:  # the event has still to come
            at, end = 0, received(sock, buffer)


def received(sock: "socket", buffer: bytearray) -> int:
    """How many bytes came; 0 where the connection is over, and is so again for who reads again."""
    try:
        return sock.recv_into(buffer)
    except OSError:
        return 0


def looked_at(runtime: "Runtime1", buffer: bytearray) -> int:
    """How many bytes of the bridge's answer are there to be read; -1 where it has not read the event."""
    while True:
        try:
            return runtime.sock.recv_into(buffer, 0, MSG_PEEK)
        except BlockingIOError:
            runtime.look()
        except OSError:
            return -1


def ordinary(buffer: bytearray, view: memoryview, at: int, end: int) -> "tuple[bytes, bytes, bytes] | None":
    """Of an event that is whole and has what events have: its id, its head in lower case, a line to echo."""
    body = buffer.find(END, at, end) + len(END)
    head = bytes(view[at : body - 2])
    fields = head.lower()
    id_at, length_at = fields.find(REQUEST_ID), fields.find(LENGTH)
    if id_at < 0 or length_at < 0 or CODING in fields or CLOSING in fields or not head.startswith(EVENT):
        return None
    id_at += len(REQUEST_ID)
    length_at += len(LENGTH)
    request_id = head[id_at : fields.find(b"\r", id_at)]
    length = fields[length_at : fields.find(b"\r", length_at)]
    if request_id.strip(PLAIN) or not length.isdigit() or body + int(length) != end:
        return None
    echo_at = fields.find(INVOCATION_ID)
    echo = head[echo_at : fields.find(b"\r", echo_at + 2)] if echo_at > 0 else b""
    return request_id, fields, echo


def is_result(buffer: bytearray, end: int, head: bytes) -> bool:
    """True if a result is whole, and its head is the bridge's for this request: a function may forge one."""
    length = bytes(buffer[LENGTH_AT:DIGITS]).strip()
    return (
        buffer.startswith(head, 0, end)
        and buffer.startswith(END, DIGITS)
        and length.isdigit()
        and BODY + int(length) == end
    )


def left(connection: Connection, at: int, end: int) -> None:
    """Leave what is in a buffer to `Connection.receive`, which begins with it."""
    connection.total, connection.end, connection.unread = at, end, 0
    connection.head = b""
