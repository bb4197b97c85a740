"""The bench's function for AWS's Python client."""


def handler(event, context):  # noqa: ANN001, ANN201, D103
    size = event.get("size")
    return "x" * size if size else {"ok": True, "id": context.aws_request_id}
