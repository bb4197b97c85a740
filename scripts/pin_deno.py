#!/usr/bin/env python3
"""Add Deno releases to src/lambdeno/deno_pins.json: pin_deno.py VERSION [VERSION ...].

Asks the package client what it would install for each platform, and writes down the sha256 of
that wheel. Review the change: from then on only these bytes are taken.
"""

import json
import subprocess
import sys
from pathlib import Path

from lambdeno.deno import TAGS

PINS = Path(__file__).parent.parent / "src/lambdeno/deno_pins.json"
PIP = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps"]


def wheel_sha256(version: str, tag: str) -> str | None:
    """The sha256 of the wheel for a platform, or None where the registry has none."""
    options = ["--quiet", "--only-binary=:all:", "--platform", tag, "--target", "unused"]
    command = [*PIP, *options, "--report", "-", f"deno=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    [item] = json.loads(done.stdout)["install"]
    sha256: str = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return sha256


def main() -> None:
    """Pin each version named on the command line."""
    pins = json.loads(PINS.read_text()) if PINS.exists() else {}
    for version in sys.argv[1:]:
        found = {name: wheel_sha256(version, tag) for name, tag in TAGS.items()}
        pins[version] = {name: sha256 for name, sha256 in found.items() if sha256}
        print(version, ", ".join(pins[version]) or "not in the registry")
    ordered = sorted(pins.items(), key=lambda pin: tuple(map(int, pin[0].split("."))))
    PINS.write_text(json.dumps(dict(ordered), indent=2) + "\n")


main()
