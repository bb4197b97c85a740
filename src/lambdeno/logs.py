"""``logs``: what CloudWatch Logs has of a function, event by event, in both of Lambda's formats.

    Text   time ⇥ request id ⇥ LEVEL ⇥ text      START, END, REPORT, INIT_START … of the platform
    JSON   {timestamp, level, requestId, message}  {time, type: "platform.…", record} of the platform

Anything else is an event as well, a message without a level.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lambdeno import terminal
from lambdeno.aws import Aws, Refused
from lambdeno.deployment.desired import log_group_name
from lambdeno.errors import AwsError, UsageError
from lambdeno.project import Project

__all__ = ["PLATFORM", "Event", "follow", "parse", "read", "row_of", "since", "text_of"]

PLATFORM = "PLATFORM"  # the level of what Lambda itself says
PAUSE = 1.5  # s between two questions: FilterLogEvents may be called 5 times a second in an account
OVERLAP = 120_000  # ms before the newest event that are asked for again: events arrive late, and in disorder
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

LEVEL = "TRACE|DEBUG|INFO|WARN|ERROR|FATAL"
TEXT = re.compile(rf"(\d{{4}}-\d\d-\d\dT[\d:.]+Z)\t([^\t]*)\t({LEVEL})\t(.*)", re.DOTALL)
TEXT_PLATFORM = re.compile(
    r"(?:START|END|REPORT) RequestId: (\S+)"
    r"|(?:INIT_START|INIT_REPORT|RESTORE_START|RESTORE_REPORT) "
    r"|(?:EXTENSION|LOGS|TELEMETRY)\tName: "
)
TEXT_FAILURE = re.compile(
    r"(?P<time>\S+Z) (?P<id>\S+) Task timed out after |RequestId: (?P<died>\S+) (?:Error: |Process exited )"
)
SAID_IN_MESSAGE = frozenset({"errorType", "errorMessage", "stackTrace"})


@dataclass(frozen=True)
class Event:
    """One log event; ``more`` has a JSON event's further fields."""

    time: datetime
    level: str  # "INFO" …, PLATFORM, or nothing where the event has none
    request_id: str
    message: Any  # what JSON can say
    stream: str
    more: Mapping[str, Any] = field(default_factory=dict)


def since(text: str, now: float) -> int:
    """``30s``, ``10m``, ``2h``, ``1d`` ago, or an ISO 8601 time, as ms since 1970. Raises UsageError."""
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    try:
        seconds = now - int(ago[1]) * UNITS[ago[2]] if ago else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f'"{text}" is no time',
            "give 30s, 10m, 2h or 1d, or a time: 2026-01-31T09:30 (of this place), 2026-01-31T09:30Z",
        ) from None
    if seconds > now:
        raise UsageError(f'"{text}" is in the future', "give a time that has been")
    return max(0, int(seconds * 1000))


def read(aws: Aws, project: Project, start: int, pattern: str = "") -> Iterator[Event]:
    """The events from ``start`` (ms since 1970) on, in their order. Raises AwsError, UsageError."""
    return map(parse, _rows(aws, project, start, pattern))


def follow(
    aws: Aws, project: Project, start: int, pattern: str = "", clock: Callable[[], float] = time.time
) -> Iterator[Event]:
    """The events from ``start`` on, and for ever those that come, each once. Raises AwsError, UsageError."""
    known: dict[str, int] = {}  # id -> time, of all that may be told again
    while True:
        for row in _rows(aws, project, start, pattern):
            if row["eventId"] not in known:
                known[row["eventId"]] = row["timestamp"]
                yield parse(row)
        newest = min(max(known.values(), default=0), int(clock() * 1000))  # a time to come hides nothing
        start = max(start, newest - OVERLAP)
        known = {identifier: at for identifier, at in known.items() if at >= start}
        aws.sleep(PAUSE)


def _rows(aws: Aws, project: Project, start: int, pattern: str) -> Iterator[Mapping[str, Any]]:
    request: dict[str, Any] = {
        "logGroupName": log_group_name(project.name),
        "startTime": start,
        "interleaved": True,  # by time: what AWS does in any case, and others when told
    }
    if pattern:
        request["filterPattern"] = pattern
    try:
        while True:
            page = aws.call(aws.logs.filter_log_events, **request)
            yield from page["events"]
            if not page.get("nextToken"):
                return
            request["nextToken"] = page["nextToken"]
    except Refused as refused:
        if refused.is_missing:
            raise AwsError(
                f'The function "{project.name}" has no log yet in {aws.region}',
                "deploy and invoke it: lambdeno deploy, lambdeno invoke --remote; or choose another --region",
            ) from None
        if pattern and refused.code == "InvalidParameterException":
            raise UsageError(
                f"Cannot filter by '{pattern}': {refused.said}",
                """give words (ERROR), a phrase ('"two words"') or '{ $.level = "ERROR" }' for JSON""",
            ) from None
        raise


def parse(row: Mapping[str, Any]) -> Event:
    """An event of FilterLogEvents: ``{timestamp, message, logStreamName}``."""
    at = datetime.fromtimestamp(row["timestamp"] / 1000, UTC)
    text, stream = row["message"].rstrip("\r\n"), row.get("logStreamName", "")
    record = _json(text) if text.startswith("{") else None
    if record is not None and str(record.get("type")).startswith("platform."):
        more = record.get("record")
        more = {**more} if isinstance(more, dict) else {}
        request_id = str(more.pop("requestId", ""))
        return Event(_time(record.get("time"), at), PLATFORM, request_id, record["type"], stream, more)
    if record is not None and "message" in record and isinstance(record.get("level"), str):
        own = {name: record.pop(name, None) for name in ("timestamp", "level", "requestId", "message")}
        when, request_id = _time(own["timestamp"], at), str(own["requestId"] or "")
        return Event(when, own["level"].upper(), request_id, own["message"], stream, record)
    if found := TEXT.fullmatch(text):
        stamp, request_id, level, message = found.groups()
        request_id = "" if request_id == "undefined" else request_id  # while the function loads
        return Event(_time(stamp, at), level, request_id, message, stream)
    if found := TEXT_PLATFORM.match(text):
        return Event(at, PLATFORM, found[1] or "", text.rstrip(), stream)
    if found := TEXT_FAILURE.match(text):
        return Event(_time(found["time"], at), "ERROR", found["id"] or found["died"], text, stream)
    return Event(at, "", "", text, stream)


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _time(text: Any, otherwise: datetime) -> datetime:
    """An event's own time; CloudWatch's where it has none, or one that cannot be."""
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return otherwise
    return found if abs(found - otherwise) < timedelta(days=1) else otherwise


def text_of(event: Event) -> str:
    """One line for a person, local time, nothing in it that a terminal would obey."""
    clock = event.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    level = "" if event.level == PLATFORM else event.level
    more = [f"{name}={_words(event.more[name])}" for name in event.more if name not in SAID_IN_MESSAGE]
    words = " ".join([_words(event.message), *more])
    return safe(f"{clock}  {level:5}  {event.request_id[:8]:8}  {words}")


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def safe(text: str) -> str:
    """The text on one line, and without a character that a terminal would obey."""
    return terminal.safe(re.sub(r"\r\n|\r|\n", " ⏎ ", text))


def row_of(event: Event) -> dict[str, Any]:
    """One JSON object for a machine; a JSON event's further fields are in it."""
    return {
        **event.more,
        "timestamp": event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.level or None,
        "requestId": event.request_id or None,
        "message": event.message,
        "stream": event.stream,
    }
