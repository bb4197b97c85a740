"""A registry of npm packages on this machine, and a web server of modules: what Deno downloads in tests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["served_packages"]

TYPES = {".ts": "application/typescript", ".js": "text/javascript", ".tgz": "application/octet-stream"}
Package = Mapping[str, str]  # its files, package.json among them


@contextlib.contextmanager
def served_packages(*packages: Package, modules: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a registry that has these packages, and these modules by their paths."""
    paths: dict[str, bytes] = {f"/{name}": text.encode() for name, text in (modules or {}).items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = paths.get(self.path)
            self.send_response(404 if found is None else 200)
            kind = next((type_ for end, type_ in TYPES.items() if self.path.endswith(end)), None)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        for files in packages:
            described = json.loads(files["package.json"])
            name, version = described["name"], described["version"]
            packed = tarball(files)
            path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
            paths[path] = packed
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
            dist = {"tarball": address + path, "integrity": integrity}
            entry = {**described, "dist": dist}
            document = {"name": name, "dist-tags": {"latest": version}, "versions": {version: entry}}
            paths["/" + name.replace("/", "%2f")] = paths["/" + name] = json.dumps(document).encode()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield address
        finally:
            server.shutdown()


def tarball(files: Package) -> bytes:
    """A package as npm packs it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as packed:
        for name, text in files.items():
            info = tarfile.TarInfo("package/" + name)
            info.size = len(text.encode())
            packed.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()
