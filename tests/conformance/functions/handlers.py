"""Handlers for AWS's Python runtime client."""

import logging
import os
import sys
import time
from typing import Any

logging.getLogger().setLevel(logging.INFO)


def succeed(event: Any, context: Any) -> Any:
    """Tell what came in."""
    return {
        "event": event,
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "remaining": context.get_remaining_time_in_millis(),
        "memory": context.memory_limit_in_mb,
        "log_stream": context.log_stream_name,
        "custom": context.client_context and context.client_context.custom,
        "identity": context.identity.cognito_identity_id,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }


def fail(_event: Any, _context: Any) -> None:
    """Raise."""
    raise ValueError("on purpose")


def log(event: Any, _context: Any) -> None:
    """Write to the log in both ways."""
    logging.getLogger().info("logged %s", event["text"])
    print("printed")  # noqa: T201


def hang(_event: Any, _context: Any) -> None:
    """Never answer."""
    time.sleep(60)


def leave(event: Any, _context: Any) -> None:
    """Exit."""
    sys.exit(event["status"])


def unserialisable(_event: Any, _context: Any) -> Any:
    """Return what JSON does not have."""
    return {1, 2}
