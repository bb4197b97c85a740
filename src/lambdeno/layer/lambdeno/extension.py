"""An internal extension that wants no events: for it Lambda sends SIGTERM before the end.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html: with no extension an
environment is killed at once; with an internal one the runtime has 500 ms. It must be registered
before the first /next, and ask for its own next event, which never comes.
"""

import posix

from connection import Closed
from runtime_api import RuntimeApi, RuntimeApiError

if False:  # for the type checker; importing typing would cost a millisecond
    from collections.abc import Callable

PREFIX = b"/2020-01-01/extension"
NAME = b"lambdeno"
SIGTERM = 15


def register(api: RuntimeApi, shut_down: "Callable[[], None]") -> None:
    """Have SIGTERM sent to this process, and do what it is for; where that cannot be, the log says so."""
    body = b'{"events":[]}'
    try:
        connection = api.connection
        connection.send(
            b"POST %b/register%b\r\nLambda-Extension-Name: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (PREFIX, api.headers, NAME, len(body), body)
        )
        connection.receive()
        status, said = connection.status(), connection.body()
        if status != 200:
            raise Closed(f"{status} {said.decode('utf-8', 'replace').strip()}")
        identifier = connection.header(b"lambda-extension-identifier")
        api.keep_open()
        api.extension = api.connect()  # kept open
        api.extension.send(
            b"GET %b/event/next%b\r\nLambda-Extension-Identifier: %b\r\n\r\n"
            % (PREFIX, api.headers, identifier)
        )
    except (OSError, Closed, RuntimeApiError) as error:
        from logs import write

        write("WARN", f"lambdeno: the function will not be told of the environment's end: {error}")
        api.reconnect()
        return

    try:
        from _boot import init_main  # type: ignore[import-not-found]

        init_main()  # the binary handles signals from then on: 2 ms, for functions that ask for it
    except ImportError:
        pass  # any other Python handles them
    from _signal import signal  # type: ignore[import-not-found]  # the C below the signal module

    def on_sigterm(_number: int, _frame: object) -> None:
        try:
            shut_down()
        finally:
            posix._exit(0)

    signal(SIGTERM, on_sigterm)
    if not api.on_quiet:
        api.watch(nothing)
    if api.note:
        api.note("has registered for SIGTERM")


def nothing() -> None:
    """Signals have been handled by then."""
