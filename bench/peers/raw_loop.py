"""The floor of an invocation: a client of the Runtime API that has no function.

What is left is the harness, the kernel and a Python that does nothing.
"""

import os
import socket

host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
connection = socket.create_connection((host, int(port)))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
buffer = bytearray(1 << 20)
view = memoryview(buffer)
while True:
    connection.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: bench\r\n\r\n")
    have = connection.recv_into(buffer)
    end = buffer.index(b"\r\n\r\n", 0, have)
    head = bytes(view[:end]).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    wanted = int(bytes(view[end + 4 : have]).partition(b'"size":')[2].partition(b",")[0] or 10)
    missing = end + 4 + length - have
    while missing > 0:
        missing -= connection.recv_into(buffer, min(missing, len(buffer)))
    request_id = head.partition(b"request-id: ")[2].partition(b"\r\n")[0]
    path = b"/2018-06-01/runtime/invocation/%b/response" % request_id
    head = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % (path, wanted)
    connection.sendall(head + b"x" * wanted)
    connection.recv_into(buffer)
