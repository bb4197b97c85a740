"""What Lambda allows: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html."""

from __future__ import annotations

__all__ = ["CREDENTIALS", "DIRECT", "ENVIRONMENT", "LAYERS", "RESERVED", "TAGS", "UNPACKED"]

DIRECT = 50 * 1024 * 1024  # bytes of a zip that a request can carry; a larger one goes through S3
UNPACKED = 250 * 1024 * 1024  # bytes of the function and all its layers
ENVIRONMENT = 4096  # bytes of all variables
LAYERS = 5  # of one function
TAGS = 49  # AWS's 50, and one is ours

# Variables that Lambda sets and refuses in a function's configuration:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
CREDENTIALS = frozenset({"AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
