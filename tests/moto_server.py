"""moto's server, made truer where Lambda's answers matter to a deployment. Run as a program.

    python tests/moto_server.py CALLS [SECONDS]

Its port is its first word on stdout. Each call is written to the file CALLS, a line for each:
``lambda:CreateFunction``. What moto 5.2.5 has not, or has otherwise, is here as AWS's API reference has it:
lists of URLs; qualifiers of URLs and event-invoke settings; an updated invoke mode, logging, tracing and
storage; RevisionId; reserved concurrency 0; what a user may do. For SECONDS after each change a function is
Pending or its update InProgress, and further changes are conflicts.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.awslambda import models, urls
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.responses import LambdaResponse
from moto.core.responses import BaseResponse
from moto.iam.access_control import IAMPolicy, IAMRequest, PermissionResult
from moto.iam.responses import IamResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

LATEST = "$LATEST"
PERMITTED = PermissionResult.PERMITTED
SETTLES = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0


class Conflict(LambdaClientError):
    """409: an update is under way."""

    code = 409


class Precondition(LambdaClientError):
    """412: another revision."""

    code = 412


def main() -> None:
    """Patch moto and serve."""
    calls = Path(sys.argv[1])
    record(calls)
    configure()
    qualify()
    guard()
    simulate()
    app = DomainDispatcherApplication(create_backend_app)
    served = s3_recorded(app, calls)
    server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=MotoRequestHandler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


def write(calls: Path, line: str) -> None:
    """One call, in one write."""
    with calls.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def record(calls: Path) -> None:
    """Tell what is called, by service and operation."""
    inner = BaseResponse.call_action

    def call_action(self: Any) -> Any:
        write(calls, f"{self.service_name.removeprefix('aws')}:{self._get_action()}")
        return inner(self)

    BaseResponse.call_action = call_action  # type: ignore[method-assign]


def s3_recorded(app: Callable[..., Iterable[bytes]], calls: Path) -> Callable[..., Iterable[bytes]]:
    """Tell what is called of S3, which has a path of its own through moto."""

    def recorded(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
            write(calls, f"s3:{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        return app(environ, start)

    return recorded


def configure() -> None:
    """A configuration has its revision and state, its log settings, and takes all updates."""
    told = models.LambdaFunction.get_configuration
    update = models.LambdaFunction.update_configuration
    whole = models.LambdaFunction.get_code

    def get_configuration(self: Any, on_create: bool = False) -> dict[str, Any]:
        touched = self.__dict__.setdefault("_touched", (time.monotonic(), "create"))
        busy = time.monotonic() - touched[0] < SETTLES and str(self.version) == LATEST
        found = told(self, on_create)
        found["RevisionId"] = self.__dict__.setdefault("_revision", str(uuid.uuid4()))
        group = f"/aws/lambda/{self.function_name}"
        logging = self.__dict__.get("_logging") or self.code.get("LoggingConfig")
        found["LoggingConfig"] = {"LogFormat": "Text", "LogGroup": group} | (logging or {})
        found["State"] = "Pending" if busy and touched[1] == "create" else "Active"
        found["LastUpdateStatus"] = "InProgress" if busy else "Successful"
        return found

    def update_configuration(self: Any, updates: dict[str, Any]) -> dict[str, Any]:
        if "TracingConfig" in updates:
            self.tracing_config = updates["TracingConfig"]
        if "EphemeralStorage" in updates:
            self.ephemeral_storage = updates["EphemeralStorage"]["Size"]
        if "LoggingConfig" in updates:
            self._logging = updates["LoggingConfig"]
        return update(self, updates)

    def get_code(self: Any) -> dict[str, Any]:
        found = whole(self)
        if self.reserved_concurrency is not None:
            found["Concurrency"] = {"ReservedConcurrentExecutions": int(self.reserved_concurrency)}
        return found

    patch(models.LambdaFunction, get_configuration, update_configuration, get_code)
    changed = models.LambdaFunction.update_function_code

    def update_function_code(self: Any, spec: dict[str, Any]) -> dict[str, Any]:
        self.architectures = spec.get("Architectures") or self.architectures
        return changed(self, spec)

    patch(models.LambdaFunction, update_function_code)
    made = models.LambdaBackend.create_function

    def create_function(self: Any, spec: dict[str, Any]) -> Any:
        function: Any = made(self, spec)
        function._logging = spec.get("LoggingConfig")
        return function

    patch(models.LambdaBackend, create_function)


def guard() -> None:
    """Changes need the revision that they name, and a function that is settled."""

    def guarded(inner: Callable[..., Any]) -> Callable[..., Any]:
        def change(self: Any, *args: Any, **kwargs: Any) -> Any:
            name = self.path.rstrip("/").split("/")[-2]
            function = self.backend.get_function(name)
            found = function.get_configuration()
            if found["State"] == "Pending" or found["LastUpdateStatus"] == "InProgress":
                raise Conflict(
                    "ResourceConflictException",
                    "The operation cannot be performed at this time. An update is in progress for resource: "
                    f"{found['FunctionArn']}",
                )
            wanted = self.json_body.get("RevisionId") if self.body else None
            if wanted and wanted != found["RevisionId"]:
                raise Precondition(
                    "PreconditionFailedException",
                    "The Revision Id provided does not match the latest Revision Id. Call the "
                    "GetFunction/GetAlias API to retrieve the latest Revision Id",
                )
            answer = inner(self, *args, **kwargs)
            if inner.__name__.startswith("update_"):
                function._touched = (time.monotonic(), "update")
                function._revision = str(uuid.uuid4())
            return answer

        change.__name__ = inner.__name__
        return change

    for name in ("update_function_code", "update_function_configuration", "publish_version"):
        setattr(LambdaResponse, name, guarded(getattr(LambdaResponse, name)))


def qualify() -> None:
    """URLs and event-invoke settings are of a qualifier; both can be listed."""
    urls.url_paths[r"{0}/(?P<api_version>[^/]+)/functions/(?P<function_name>[\w_:%-]+)/urls$"] = (
        LambdaResponse.dispatch
    )

    def kept(self: Any, place: str, position: int) -> tuple[dict[str, Any], str, str]:
        """What a function has of a kind, the qualifier asked for, and its ARN."""
        function = self.backend.get_function(self.path.rstrip("/").split("/")[position])
        qualifier = self._get_param("Qualifier") or LATEST
        arn = function.function_arn.removesuffix(f":{LATEST}")
        arn = arn if qualifier == LATEST and place == "_urls" else f"{arn}:{qualifier}"
        return function.__dict__.setdefault(place, {}), qualifier, arn

    def found_in(rows: dict[str, Any], qualifier: str) -> dict[str, Any]:
        if qualifier not in rows:
            raise LambdaClientError("ResourceNotFoundException", "The resource you requested does not exist.")
        return rows[qualifier]  # type: ignore[no-any-return]

    def put_url(self: Any, qualifier: str, rows: dict[str, Any], arn: str) -> Any:
        before = rows.get(qualifier, {"FunctionUrl": f"https://{uuid.uuid4().hex}.lambda-url.example/"})
        known = {
            key: self.json_body[key] for key in ("AuthType", "Cors", "InvokeMode") if key in self.json_body
        }
        stamps = {"CreationTime": "2026-01-01T00:00:00Z", "LastModifiedTime": "2026-01-01T00:00:00Z"}
        rows[qualifier] = {"InvokeMode": "BUFFERED", **stamps, **before, **known, "FunctionArn": arn}
        return rows[qualifier]

    def create_function_url_config(self: Any) -> Any:
        rows, qualifier, arn = kept(self, "_urls", -2)
        if qualifier in rows:
            raise Conflict(
                "ResourceConflictException", f"Failed to create function url config for {arn}: exists"
            )
        return 201, {"status": 201}, json.dumps(put_url(self, qualifier, rows, arn))

    def get_function_url_config(self: Any) -> Any:
        rows, qualifier, _ = kept(self, "_urls", -2)
        return json.dumps(found_in(rows, qualifier))

    def update_function_url_config(self: Any) -> Any:
        rows, qualifier, arn = kept(self, "_urls", -2)
        found_in(rows, qualifier)
        return json.dumps(put_url(self, qualifier, rows, arn))

    def delete_function_url_config(self: Any) -> Any:
        rows, qualifier, _ = kept(self, "_urls", -2)
        found_in(rows, qualifier)
        del rows[qualifier]
        return 204, {"status": 204}, ""

    def list_function_url_configs(self: Any) -> Any:
        rows, _, _ = kept(self, "_urls", -2)
        return json.dumps({"FunctionUrlConfigs": list(rows.values())})

    def put_function_event_invoke_config(self: Any) -> Any:
        rows, qualifier, arn = kept(self, "_event_invokes", -2)
        destinations = {"OnSuccess": {}, "OnFailure": {}} | self.json_body.get("DestinationConfig", {})
        rows[qualifier] = {
            **self.json_body,
            "DestinationConfig": destinations,
            "FunctionArn": arn,
            "LastModified": 0,
        }
        return json.dumps(rows[qualifier])

    def get_function_event_invoke_config(self: Any) -> Any:
        rows, qualifier, _ = kept(self, "_event_invokes", -2)
        return json.dumps(found_in(rows, qualifier))

    def delete_function_event_invoke_config(self: Any) -> Any:
        rows, qualifier, _ = kept(self, "_event_invokes", -2)
        found_in(rows, qualifier)
        del rows[qualifier]
        return 204, {"status": 204}, ""

    def list_function_event_invoke_configs(self: Any) -> Any:
        rows, _, _ = kept(self, "_event_invokes", -3)
        return json.dumps({"FunctionEventInvokeConfigs": list(rows.values())})

    patch(
        LambdaResponse,
        create_function_url_config,
        get_function_url_config,
        update_function_url_config,
        delete_function_url_config,
        list_function_url_configs,
        put_function_event_invoke_config,
        get_function_event_invoke_config,
        delete_function_event_invoke_config,
        list_function_event_invoke_configs,
    )


def simulate() -> None:
    """IAM says what a user may do, from the user's policies."""

    def simulate_principal_policy(self: Any) -> Any:
        name = self._get_param("PolicySourceArn").rpartition("/")[2]
        documents = [
            IAMPolicy(self.backend.get_user_policy(name, policy))
            for policy in self.backend.list_user_policies(name)
        ]
        resource = self._get_param("ResourceArns")[0]

        def decision(action: str) -> str:
            allowed = any(one.is_action_permitted(action, resource) == PERMITTED for one in documents)
            return "allowed" if allowed else "implicitDeny"

        rows = "".join(
            f"<member><EvalActionName>{action}</EvalActionName><EvalDecision>{decision(action)}</EvalDecision>"
            "<MissingContextValues/></member>"
            for action in self._get_param("ActionNames")
        )
        name = "SimulatePrincipalPolicy"
        return (
            f'<{name}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{name}Result>'
            f"<IsTruncated>false</IsTruncated><EvaluationResults>{rows}</EvaluationResults>"
            f"</{name}Result></{name}Response>"
        )

    def check_signature(_: Any) -> None:
        """Moto calculates another than botocore for REST APIs; who the caller is, is not in question."""

    patch(IamResponse, simulate_principal_policy)
    patch(IAMRequest, check_signature)


def patch(kind: type, *functions: Callable[..., Any]) -> None:
    """Put functions in the place of methods of their names."""
    for function in functions:
        setattr(kind, function.__name__, function)


if __name__ == "__main__":
    main()
