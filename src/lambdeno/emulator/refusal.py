"""The errors of the Lambda service API, as its clients tell them apart."""

from __future__ import annotations

from lambdeno.errors import EmulatorError

__all__ = [
    "InvalidParameter",
    "InvalidRequestContent",
    "Refusal",
    "RequestTooLarge",
    "ResourceNotFound",
    "TooManyRequests",
]


class Refusal(EmulatorError):
    """A call that the service does not carry out. ``code`` names the class that boto3 raises."""

    code = "ServiceException"
    status = 500
    reason = ""


class ResourceNotFound(Refusal):
    """No function, or no version of it, has that name."""

    code = "ResourceNotFoundException"
    status = 404


class InvalidRequestContent(Refusal):
    """The payload is not JSON."""

    code = "InvalidRequestContentException"
    status = 400


class InvalidParameter(Refusal):
    """A parameter has a value that it cannot have."""

    code = "InvalidParameterValueException"
    status = 400


class RequestTooLarge(Refusal):
    """The payload is over the limit of its invocation type."""

    code = "RequestTooLargeException"
    status = 413


class TooManyRequests(Refusal):
    """All environments that the function may have are at work."""

    code = "TooManyRequestsException"
    status = 429

    def __init__(
        self, message: str, reason: str = "ReservedFunctionConcurrentInvocationLimitExceeded"
    ) -> None:
        super().__init__(message)
        self.reason = reason
