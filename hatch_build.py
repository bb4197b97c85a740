"""What a wheel carries besides the package: the recipe of bootstrap, and bootstrap itself where it is made.

`make wheel` sets LAMBDENO_BOOTSTRAPS to the folder with the finished binaries. A wheel without them
builds them when they are first needed, as a checkout does.
"""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "LAMBDENO_BOOTSTRAPS"


class Bootstraps(BuildHookInterface):  # type: ignore[type-arg]
    """Adds both to a wheel; an editable one finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's BuildHookInterface."""
        if version == "editable":
            return
        recipe = Path(self.root, "interpreter")
        included = build_data["force_include"]
        for path in sorted(path for path in recipe.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            included[str(path)] = f"lambdeno/recipe/{path.relative_to(recipe).as_posix()}"
        folder = os.environ.get(VARIABLE)
        for path in sorted(Path(folder).iterdir()) if folder else ():
            included[str(path)] = f"lambdeno/bootstraps/{path.name}"
