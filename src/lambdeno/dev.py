"""``dev``: the local Lambda for one project, from the artefacts that would be deployed."""

from __future__ import annotations

from lambdeno.build import Watcher, lambda_runtime, up_to_date
from lambdeno.emulator import Function
from lambdeno.project import Project

__all__ = ["local_function"]


def local_function(project: Project, watcher: Watcher = Watcher()) -> Function:
    """The project as the local Lambda takes it, its artefacts built where they are not up to date."""
    made = up_to_date(project, watcher)
    if project.layers:
        watcher.step("Further layers (layers in lambdeno.toml) are AWS's, and not in the local Lambda")
    return Function(
        name=project.name,
        code=project.dist / made["function"]["file"],
        layers=tuple(project.dist / made[kind]["file"] for kind in ("deno-layer", "runtime-layer")),
        handler=project.handler,
        runtime=lambda_runtime(project),
        architecture=project.architecture,
        memory=project.memory,
        timeout=project.timeout,
        log_format={"text": "Text", "json": "JSON"}[project.log_format],  # Lambda's own words
        log_level=(project.log_level or "").upper(),
        environment=project.variables,
    )
