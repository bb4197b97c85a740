"""The bootstrap: Lambda's Runtime API on one side, Deno on the other.

    settings -> start Deno -> (while it starts) connect to the Runtime API -> loop

Only what starts Deno is imported before Deno starts: all else overlaps its start. C modules
alone, CPython 3.11 to 3.14; every import is cold-start time.
"""

from posix import environ

from deno import Deno, DenoError
from settings import Settings, SettingsError


def main(layer: str) -> int:
    """Serve one execution environment from the unpacked layer; returns the exit status."""
    try:
        settings = Settings(environ, layer)
        if settings.is_debug:
            from debug import note

            settings.note = note
        deno = Deno(settings)
        deno.start()
    except SettingsError as error:
        return refuse("Runtime.InvalidSetting", str(error))
    except DenoError as error:
        return refuse(*error.args)

    from connection import Closed
    from runtime_api import RuntimeApi, RuntimeApiError

    if settings.note:
        settings.note(f"has started Deno: process {deno.pid}")
    if settings.runtime == "runtime1":
        from runtime1 import Runtime1 as Runtime
    else:
        from runtime2 import Runtime2 as Runtime  # type: ignore[assignment]

    try:
        api = RuntimeApi(settings.runtime_api, settings.note)
        api.is_pipelining = settings.is_pipelining
        runtime = Runtime(deno)
        if not runtime.is_ready():
            runtime.report_init(api)
            return 1
        if settings.telemetry is not None:
            api.watch(runtime.pass_late_logs)
        if runtime.wants_shutdown():
            from extension import register

            register(api, runtime.shut_down)
        while runtime.serve(api):
            pass
    except Closed as error:
        api.decline(f"it broke off on its way: {error}")
        complain(error)
    except RuntimeApiError as error:
        complain(error)
    return 1


def refuse(error_type: str, message: str) -> int:
    """Tell Lambda why this environment cannot even start."""
    from fault import Fault
    from runtime_api import RuntimeApi, RuntimeApiError

    fault = Fault(error_type, message)
    try:
        fault.report_init(RuntimeApi(environ.get(b"AWS_LAMBDA_RUNTIME_API", b"").decode()))
    except (RuntimeApiError, ValueError) as error:
        complain(error)
    return 1


def complain(error: Exception) -> None:
    """Say why this environment ends."""
    from logs import write

    write("FATAL", f"lambdeno: {error}")
