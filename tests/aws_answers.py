"""A server that answers as AWS does, from a list: for what no stand-in of AWS ever says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


LOST = Answer(0)  # the connection ends before anything is said


@dataclass
class Said:
    """The endpoint, and what was asked of it: ``POST /path``, and the bodies."""

    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def result(**fields: object) -> Answer:
    """A JSON answer that is no error."""
    return Answer(200, json.dumps(fields).encode())


def refusal(status: int, code: str, message: str, **more: str) -> Answer:
    """A refusal in the form that Lambda gives it."""
    body = {"Type": "User", "message": message, **more}
    return Answer(status, json.dumps(body).encode(), {"x-amzn-ErrorType": code})


def logs_refusal(status: int, code: str, message: str) -> Answer:
    """A refusal in the form that CloudWatch Logs gives it."""
    return Answer(status, json.dumps({"__type": code, "message": message}).encode())


def query_refusal(status: int, code: str, message: str) -> Answer:
    """A refusal in the form that IAM and STS give it."""
    error = f"<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>"
    spaces = "https://sts.amazonaws.com/doc/2011-06-15/"
    body = f'<ErrorResponse xmlns="{spaces}"><Error>{error}</Error><RequestId>r</RequestId></ErrorResponse>'
    return Answer(status, body.encode(), {"Content-Type": "text/xml"})


def s3_refusal(status: int, code: str, message: str) -> Answer:
    """A refusal in the form that S3 gives it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r</RequestId></Error>"
    return Answer(status, f'<?xml version="1.0"?>\n{body}'.encode(), {"Content-Type": "application/xml"})


@contextmanager
def answering(*answers: Answer) -> Iterator[Said]:
    """Answer one request after the other; the last answer is for all that follow."""
    said = Said()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            answer = answers[min(len(said.requests), len(answers) - 1)]
            said.requests.append(f"{self.command} {self.path}")
            said.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if answer is LOST:
                return
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body if self.command != "HEAD" else b"")

        do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - what http.server calls

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        said.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield said
        finally:
            server.shutdown()
            thread.join()
