"""The software bill of materials of the two layers in ``dist/``, in CycloneDX 1.6: https://cyclonedx.org.

All that it says is in the manifest, which a build of one artefact leaves as it is for the others.
Without dates and serial numbers: the same artefacts give the same document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import lambdeno

__all__ = ["document"]


def document(name: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """The document for a function of this name and its manifest's rows."""
    components = [*_lambdeno(rows), *_deno(rows)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": name, "name": name},
            "tools": {
                "components": [{"type": "application", "name": "lambdeno", "version": lambdeno.__version__}]
            },
        },
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _lambdeno(rows: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    row = _row(rows, "runtime-layer", "version", "shape")
    if row is None:
        return
    ours = _component("lambdeno", row["version"], "MIT", purl=f"pkg:pypi/lambdeno@{row['version']}")
    if not {"bootstrap", "python", "python_source", "python_patches", "musl", "zig"} <= set(row):
        yield ours
        return  # Lambda brings the interpreter
    yield {**ours, "hashes": _hashes(row["bootstrap"])}
    version, musl, zig = row["python"], row["musl"], row["zig"]
    yield {
        **_component("cpython", version, "PSF-2.0", purl=f"pkg:generic/cpython@{version}"),
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "externalReferences": [
            {
                "type": "source-distribution",
                "url": f"urn:lambdeno:cpython-{version}.tar.xz",
                "hashes": _hashes(row["python_source"]),
            }
        ],
        "pedigree": {"patches": [_patch(name) for name in row["python_patches"]]},
    }
    yield {
        **_component("musl", musl, "MIT", purl=f"pkg:generic/musl@{musl}"),
        "cpe": f"cpe:2.3:a:musl-libc:musl:{musl}:*:*:*:*:*:*:*",
    }
    yield _component("compiler-rt of zig", zig, "MIT", purl=f"pkg:pypi/ziglang@{zig}")


def _deno(rows: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    row = _row(rows, "deno-layer", "version", "binary")
    if row is not None:
        version = row["version"]
        yield {
            **_component("deno", version, "MIT", purl=f"pkg:pypi/deno@{version}"),
            "cpe": f"cpe:2.3:a:deno:deno:{version}:*:*:*:*:*:*:*",
            "hashes": _hashes(row["binary"]),
        }


def _row(rows: Mapping[str, Any], kind: str, *facts: str) -> Mapping[str, Any] | None:
    """An artefact's row, if it has these facts: another version of lambdeno may have written it."""
    row = rows.get(kind, {})
    return row if all(fact in row for fact in facts) else None


def _component(name: str, version: str, license_id: str, *, purl: str) -> dict[str, Any]:
    return {
        "type": "application",
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": license_id}}],
        "purl": purl,
    }


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256.removeprefix("sha256:")}]


def _patch(name: str) -> dict[str, Any]:
    """A patch; those for a vulnerability say which, so that a scanner need not report it."""
    found = re.fullmatch(r"(CVE-\d+-\d+)(-\d+)?", name)
    resolves = [{"type": "security", "id": found[1]}] if found else [{"type": "defect", "name": name}]
    return {"type": "backport", "resolves": resolves}
