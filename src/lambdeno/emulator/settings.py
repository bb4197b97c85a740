"""What holds for the whole local Lambda, whichever function runs: limits, waits, account."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits in bytes, waits in seconds; the defaults are Lambda's own unless it says otherwise."""

    region: str = "us-east-1"
    account: str = "123456789012"
    init_timeout: float = 10.0  # bootstrap's start to its first /next
    idle_timeout: float = 300.0  # an idle environment is reaped after it; Lambda does not tell
    shutdown: float = 0.5  # from SIGTERM to SIGKILL, where an internal extension is registered
    settle: float = 0.25  # how long an invocation waits for an environment that is about to be idle
    payload_limit: int = 6_291_556  # request and response: 6 MiB and 100 bytes
    event_limit: int = 1_048_576  # payload of an asynchronous invocation
    stream_limit: int = 200 * 1024 * 1024  # a streamed response
    silence: float = 30.0  # a client of the Invoke API may leave a request, or its response, lying; local
    keep_alive: float = 300.0  # between two requests on one connection to the Invoke API; local
    connections: int = 1000  # to the Invoke API at once; local
    queue_size: int = 1000  # asynchronous events held, for each function
    retry_delays: tuple[float, ...] = (1.0, 2.0)  # Lambda waits 60 and 120
    event_age: float = 6 * 3600.0  # an asynchronous event older than it goes to the dead letters
    memory_interval: float = 0.25  # between looks at the memory of a long invocation
