"""docs/tutorial.md, run as it stands: every command, every file, every line that is shown."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.account import Account, account

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl"),
]
TUTORIAL = Path(__file__).parent.parent / "docs/tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A block of code: commands, a file (``name``), or what the commands before it print."""

    kind: str
    name: str
    text: str


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Account]:
    """An account to deploy to."""
    (tmp_path / "account").mkdir()
    with account(tmp_path / "account") as found:
        yield found


def free_ports() -> tuple[int, int]:
    """Two ports that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def blocks() -> list[Block]:
    """All of the tutorial's blocks, in order."""
    return [
        Block(*(part or "" for part in found.groups()))
        for found in BLOCK.finditer(TUTORIAL.read_text("utf-8"))
    ]


def test_the_tutorial(tmp_path: Path, aws: Account) -> None:
    """Whoever follows it has what it says."""
    port, url_port = free_ports()
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**own, **aws.environment, "PATH": f"{BIN}:{own['PATH']}", "NO_COLOR": "1"}
    folder = tmp_path
    said = ""
    running: subprocess.Popen[bytes] | None = None
    steps = blocks()
    assert len(steps) > 20
    try:
        for block in steps:
            text = block.text.replace(":9001", f":{url_port}")
            if block.kind == "ts":
                (folder / block.name).write_text(text)
                time.sleep(2 if running else 0)
            elif block.kind == "text":
                for line in text.splitlines():
                    assert re.search(re.escape(line).replace("…", ".*"), said), f"{line!r} is not in {said!r}"
            elif text == "lambdeno dev\n":
                command = [str(BIN / "lambdeno"), "dev", "--port", str(port), "--url-port", str(url_port)]
                with (tmp_path / "dev.log").open("w") as log:
                    running = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
                until = time.monotonic() + 60
                while "curl http" not in (tmp_path / "dev.log").read_text():
                    assert time.monotonic() < until
                    time.sleep(0.05)
            else:
                done = subprocess.run(
                    ["bash", "-ec", text],
                    cwd=folder,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                said = done.stdout
                assert (done.returncode != 0) == (block.name == "fails"), f"{text}{said}"
                if "cd greeter" in text:
                    folder = tmp_path / "greeter"
    finally:
        if running:
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == 0
