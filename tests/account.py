"""An AWS account on this machine: moto's server as a process, its calls counted."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session

from lambdeno.aws import Aws

SERVER = Path(__file__).with_name("moto_server.py")
REGION = "eu-west-1"
LOADER = botocore.session.Session().get_component("data_loader")
READS = ("Get", "List", "Describe", "Head", "Filter", "GET", "HEAD", "SimulatePrincipalPolicy")


@dataclass(frozen=True)
class Account:
    """An endpoint that is all of AWS's, and the calls that were made to it."""

    endpoint: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take it for AWS."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LAMBDENO_CACHE") if name in os.environ}
        return {
            **kept,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self, region: str = REGION) -> boto3.Session:
        """Boto3, unchanged but for its credentials."""
        return session_of("AKIAEXAMPLE", "a-secret-of-nobody", region)

    @functools.cache  # noqa: B019 - there are few accounts, and making a client takes 50 ms
    def client(self, service: Any) -> Any:
        """A client of one service."""
        return self.session().client(service, endpoint_url=self.endpoint)

    def aws(self, region: str = REGION, **more: Any) -> Aws:
        """Our own client, in this process. AWS_ENDPOINT_URL has to be set."""
        return Aws(session=self.session(region), **more)

    def enforce(self) -> None:
        """Let IAM's policies count from now on."""
        headers = {"Content-Type": "text/plain"}
        url = f"{self.endpoint}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(url, b"0", headers, method="POST")).close()

    def reset(self) -> None:
        """Empty the account and forget the calls."""
        urllib.request.urlopen(
            urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        ).close()
        self.log.write_text("")

    def calls(self) -> list[str]:
        """What was called since last asked, in order: ``lambda:CreateFunction``."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines

    def changes(self) -> Counter[str]:
        """The calls since last asked that change something, by name."""
        return Counter(line for line in self.calls() if not line.partition(":")[2].startswith(READS))


def session_of(key: str, secret: str, region: str = REGION) -> boto3.Session:
    """A session of its own, but for AWS's service models: reading those takes most of a client's start."""
    session = botocore.session.Session()
    session.register_component("data_loader", LOADER)
    return boto3.Session(key, secret, region_name=region, botocore_session=session)


@contextmanager
def account(folder: Path, *, settles: float = 0) -> Iterator[Account]:
    """An account of its own; a changed function is busy for ``settles`` seconds."""
    log = folder / "calls"
    log.write_text("")
    with (folder / "moto.log").open("wb") as errors:
        server = subprocess.Popen(
            [sys.executable, SERVER, log, str(settles)], stdout=subprocess.PIPE, stderr=errors
        )
    try:
        port = server.stdout.readline() if server.stdout else b""
        if not port:
            raise RuntimeError(f"moto's server does not start: {(folder / 'moto.log').read_text()}")
        yield Account(f"http://127.0.0.1:{int(port)}", log)
    finally:
        server.terminate()
        server.communicate(timeout=20)


def only(changes: Mapping[str, int], *names: str) -> bool:
    """Whether these calls were made, once each, and no other."""
    return dict(changes) == Counter(names)
