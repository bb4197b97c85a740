"""Frames of ``application/vnd.amazon.eventstream``, in which a streamed response reaches clients.

    total length u32 | length of headers u32 | CRC-32 of these u32 | headers | payload | CRC-32 u32

All numbers big-endian. https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
"""

from __future__ import annotations

import json
import struct
import zlib

__all__ = ["CONTENT_TYPE", "complete", "payload_chunk"]

CONTENT_TYPE = b"application/vnd.amazon.eventstream"
STRING = 7  # the type of a header's value


def message(event: str, content_type: str, payload: bytes) -> bytes:
    """One event as a frame."""
    named = {":event-type": event, ":content-type": content_type, ":message-type": "event"}
    headers = b"".join(
        struct.pack(f">B{len(name)}sBH", len(name), name.encode(), STRING, len(value)) + value.encode()
        for name, value in named.items()
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers
    return b"".join((head, payload, struct.pack(">I", zlib.crc32(payload, zlib.crc32(head)))))


def payload_chunk(chunk: bytes) -> bytes:
    """A part of the response."""
    return message("PayloadChunk", "application/octet-stream", chunk)


def complete(error_code: str, error_details: str, log_result: str) -> bytes:
    """The end of the response; all empty when it ended well and no log was asked for."""
    fields = {"ErrorCode": error_code, "ErrorDetails": error_details, "LogResult": log_result}
    body = json.dumps({name: value for name, value in fields.items() if value})
    return message("InvokeComplete", "application/json", body.encode())
