"""The error tree. Every error a user can cause says what, where and what to do.

    LambdenoError            exit 1
    ├── UsageError           exit 2   the command line
    ├── ProjectError         exit 3   lambdeno.toml, or a file it names
    ├── BuildError           exit 4   an artefact cannot be made
    │   └── DenoError        exit 4   the pinned Deno: get, verify, check, bundle
    ├── ArtifactError        exit 5   a zip is damaged, unsafe or over Lambda's limits
    ├── EmulatorError        exit 6   the local Lambda cannot start or serve
    ├── AwsError             exit 7   AWS cannot be asked, or refuses a call
    ├── DeployError          exit 8   what is there and what is wanted do not go together
    └── FunctionError        exit 1   the function answered with an error

Only ``cli.main`` catches them; everything below raises. A message is one
sentence without a full stop that quotes the values it names; ``hint`` says what to do;
``detail`` is what another program (Deno's type checker) said, shown above it.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "AwsError",
    "BuildError",
    "DenoError",
    "DeployError",
    "EmulatorError",
    "FunctionError",
    "LambdenoError",
    "ProjectError",
    "UsageError",
]


class LambdenoError(Exception):
    """What a user did, or met, that lambdeno cannot go on with."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail  # what another program said of it, whole


class UsageError(LambdenoError):
    """A command line that cannot be carried out as given."""

    exit_code = 2


class ProjectError(LambdenoError):
    """``lambdeno.toml``, or a file that it names, is wrong or missing."""

    exit_code = 3


class BuildError(LambdenoError):
    """An artefact cannot be made."""

    exit_code = 4


class DenoError(BuildError):
    """The pinned Deno cannot be had, or refuses the code."""


class ArtifactError(LambdenoError):
    """A zip that is damaged, unsafe to unpack, or over Lambda's limits."""

    exit_code = 5


class EmulatorError(LambdenoError):
    """The local Lambda cannot start, or cannot serve."""

    exit_code = 6


class AwsError(LambdenoError):
    """AWS cannot be asked, or refuses a call: credentials, region, rights, network."""

    exit_code = 7


class DeployError(LambdenoError):
    """What is there and what is wanted do not go together, or somebody else deploys too."""

    exit_code = 8


class FunctionError(LambdenoError):
    """The function answered, with an error."""
