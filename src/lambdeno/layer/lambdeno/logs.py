"""The runtime's own words in the function's log, in the form that the function's have.

Read from the environment at each word: there are few, and most environments have none.
"""

import posix
from time import gmtime, time, time_ns

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def write(level: str, text: str, request_id: bytes = b"") -> None:
    """Write one log event, where the function's level lets it pass.

    Text or JSON as Lambda's Node runtime has it; into the telemetry descriptor where there is one,
    or as one line.
    """
    least = posix.environ.get(b"AWS_LAMBDA_LOG_LEVEL", b"").decode("ascii", "replace").upper()
    if least in LEVELS and LEVELS.index(level) < LEVELS.index(least):
        return
    emit(level, text, request_id)


def emit(level: str, text: str, request_id: bytes = b"") -> None:
    """Write one log event, whatever the function's level."""
    now = time()
    year, month, day, hour, minute, second = gmtime(now)[:6]
    day_is = f"{year:04}-{month:02}-{day:02}"
    stamp = f"{day_is}T{hour:02}:{minute:02}:{second:02}.{int(now % 1 * 1000):03}Z"
    is_json = posix.environ.get(b"AWS_LAMBDA_LOG_FORMAT") == b"JSON"
    shown = request_id.decode("utf-8", "replace")
    if is_json:
        from _json import encode_basestring_ascii as quoted

        line = f'{{"timestamp":"{stamp}","level":"{level}"'
        line += f',"requestId":{quoted(shown)}' if shown else ""
        line += f',"message":{quoted(text)}}}'
    else:
        line = f"{stamp}\t{shown or 'undefined'}\t{level}\t{text}"
    event = line.encode("utf-8", "replace")
    descriptor = telemetry()
    if descriptor is None:
        put(2, event.replace(b"\n", b"\r") + b"\n")
        return
    kind = (0xA55A0002 if is_json else 0xA55A0003) | 4 * (LEVELS.index(level) + 1)
    head = kind.to_bytes(4, "big") + len(event).to_bytes(4, "big") + (time_ns() // 1000).to_bytes(8, "big")
    put(descriptor, head + event)


def telemetry() -> int | None:
    """The descriptor that takes whole log events, where the platform gives one.

    https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/blob/main/src/LogPatch.js
    """
    name = posix.environ.get(b"_LAMBDA_TELEMETRY_LOG_FD", b"")
    return int(name) if name.isdigit() and len(name) < 6 else None


def put(descriptor: int, data: "bytes | memoryview") -> None:
    """Write all of it; where nobody reads any more, nothing."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[posix.write(descriptor, rest) :]
    except OSError:
        pass
