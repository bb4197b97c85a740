"""The environment variables of an execution environment.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

from __future__ import annotations

from lambdeno.emulator.function import Function
from lambdeno.emulator.settings import Settings

__all__ = ["lambda_variables"]

# No host credentials reach a function; SDK clients want some, so these stand in.
CREDENTIALS = {
    "AWS_ACCESS_KEY": "local",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}
LIBRARIES = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"


def lambda_variables(
    function: Function, settings: Settings, *, runtime_api: str, log_stream: str
) -> dict[str, str]:
    """All that a function sees, as on Lambda; HOME is not among it."""
    own = {
        "LANG": "en_US.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": LIBRARIES,
        "TZ": ":UTC",
        **CREDENTIALS,
        "AWS_LAMBDA_LOG_FORMAT": function.log_format,
        **function.environment,
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": function.handler,
    }
    if function.log_format == "JSON" and function.log_level:
        own.setdefault("AWS_LAMBDA_LOG_LEVEL", function.log_level)
    if function.is_managed:
        own["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
    return own
