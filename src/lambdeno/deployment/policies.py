"""Who may do what: the documents that IAM and Lambda take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lambdeno.errors import ProjectError
from lambdeno.project import Project

__all__ = ["Document", "permissions", "statements_of_url", "trust"]

Document = dict[str, Any]
VERSION = "2012-10-17"

# What a function in a private network does through its role, none of it bound to a resource:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
NETWORK = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
TRACES = ("xray:PutTelemetryRecords", "xray:PutTraceSegments")
# What sends to a destination, by the service in its ARN:
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
DESTINATIONS = {
    "sqs": "sqs:SendMessage",
    "sns": "sns:Publish",
    "events": "events:PutEvents",
    "lambda": "lambda:InvokeFunction",
    "s3": "s3:PutObject",
}


def trust() -> Document:
    """The trust policy of an execution role: Lambda may take it."""
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }


def permissions(project: Project, log_group_arn: str) -> Document:
    """The least that the function needs, and what ``role.policy`` adds. Raises ProjectError.

    The log group is made by the deployment: the function writes to it and can make no other.
    """
    statements = [
        _allow("Logs", ("logs:CreateLogStream", "logs:PutLogEvents"), f"{log_group_arn}:*"),
    ]
    if project.tracing:
        statements.append(_allow("Traces", TRACES, "*"))
    if project.vpc:
        statements.append(_allow("Network", NETWORK, "*"))
    if project.event_invoke:
        wanted = {"OnSuccess": project.event_invoke.on_success, "OnFailure": project.event_invoke.on_failure}
        for name, arn in wanted.items():
            if arn:
                statements.append(_sending(project, name, arn))
    own = _own_statements(project)
    twice = {one["Sid"] for one in statements} & {one.get("Sid") for one in own}
    if twice:
        raise ProjectError(
            f'"{project.root / project.role.policy}" has a statement "{min(twice)}", which lambdeno has too',
            "give it another Sid",
        )
    return {"Version": VERSION, "Statement": statements + own}


def statements_of_url(auth: str) -> dict[str, Document]:
    """What the function's resource policy needs for a URL: statement id -> parameters of AddPermission.

    Anybody calls a URL without authentication through two statements since October 2025:
    https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
    """
    if auth != "none":
        return {}
    return {
        "lambdeno-url": {
            "Action": "lambda:InvokeFunctionUrl",
            "Principal": "*",
            "FunctionUrlAuthType": "NONE",
        },
        "lambdeno-url-invoke": {
            "Action": "lambda:InvokeFunction",
            "Principal": "*",
            "InvokedViaFunctionUrl": True,
        },
    }


def _allow(sid: str, actions: tuple[str, ...], resource: str) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _sending(project: Project, sid: str, arn: str) -> Document:
    service = arn.split(":")[2]
    if service not in DESTINATIONS or (service == "s3" and sid == "OnSuccess"):
        raise ProjectError(
            f'"{project.root / "lambdeno.toml"}": event_invoke names "{arn}", which is no destination',
            "name a queue, a topic, an event bus or a function; a bucket for what failed alone",
        )
    return _allow(sid, (DESTINATIONS[service],), f"{arn}/*" if service == "s3" else arn)


def _own_statements(project: Project) -> list[Document]:
    """The statements of the document that ``role.policy`` names."""
    if not project.role.policy:
        return []
    path = project.root / project.role.policy
    document = _read(path)
    statements = document.get("Statement") if isinstance(document, dict) else None
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not all(isinstance(one, dict) for one in statements):
        raise ProjectError(f'"{path}" is no policy document', 'it needs a list "Statement"')
    return statements


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ProjectError(
            f'Cannot read "{path}": {error.strerror}', "role.policy names a file in the project"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ProjectError(f'"{path}" is not JSON: {error}', "mend it") from None
