"""What changes, in words: no value of a variable, no account id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lambdeno.archive import megabytes
from lambdeno.aws import mask
from lambdeno.deployment.desired import Code, New
from lambdeno.project import OURS

__all__ = [
    "Change",
    "change_of",
    "configuration_changes",
    "configuration_rows",
    "days_of",
    "last_of",
    "layers_of",
    "normal",
    "shown",
    "sids_of",
    "size_of",
    "variables",
]

# How a key of Lambda's is called in lambdeno.toml
KEYS = {
    "Description": "description",
    "Runtime": "runtime",
    "Handler": "handler",
    "MemorySize": "memory",
    "Timeout": "timeout",
    "EphemeralStorage": "storage",
    "TracingConfig": "tracing",
    "VpcConfig": "vpc",
    "LoggingConfig": "log format",
}


MASKED = "****"  # the value of a variable, which may be a secret
# What Lambda leaves out, or tells, where nothing was set
DEFAULTS: dict[str, tuple[str, Any]] = {
    "EphemeralStorage": ("Size", 512),
    "Environment": ("Variables", {}),
    "TracingConfig": ("Mode", "PassThrough"),
}


@dataclass(frozen=True)
class Change:
    """One thing that becomes another. Values of variables are never in it."""

    what: str
    before: str
    after: str


def configuration_changes(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The keys of the wanted configuration that a configuration, as Lambda tells it, has otherwise."""
    return [key for key, value in wanted.items() if normal(key, found) != value]


def normal(key: str, found: Mapping[str, Any]) -> Any:
    """A value as Lambda tells it, in the form that ``Function.configuration`` has: nothing left out."""
    value = found.get(key)
    if key in DEFAULTS:
        name, default = DEFAULTS[key]
        return {name: (value or {}).get(name, default)}
    if key == "VpcConfig":
        return {name: sorted((value or {}).get(name, [])) for name in ("SubnetIds", "SecurityGroupIds")}
    if key == "LoggingConfig":
        group = f"/aws/lambda/{found.get('FunctionName', '')}"
        logging = {"LogFormat": "Text", "LogGroup": group} | (value or {})
        # with Text, whatever levels were left there count for nothing
        levels = () if logging["LogFormat"] == "Text" else ("ApplicationLogLevel", "SystemLogLevel")
        return {name: logging[name] for name in ("LogFormat", *levels, "LogGroup") if name in logging}
    return "" if value is None else value


def configuration_rows(key: str, found: Mapping[str, Any], value: Any) -> Iterable[Change]:
    """What becomes of one key of a configuration that is there."""
    before = normal(key, found)
    if key == "Environment":
        return variables(before["Variables"], value["Variables"])
    change = change_of(key, before, value)
    return [change] if change else []


def change_of(key: str, before: Any, after: Any) -> Change | None:
    """What becomes of one value; nothing for one that is empty and stays so."""
    if key == "Environment" or (before is None and not shown(after)):
        return None
    return Change(KEYS[key], shown(before), shown(after))


def variables(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """Variables by name; values only of the runtime's own, which are settings of lambdeno.toml."""
    changes = []
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            was, becomes = _value(name, before), _value(name, after)
            another = " (another value)" if was == becomes else ""
            changes.append(Change(f"environment.{name}", was, becomes + another))
    return changes


def _value(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        return ""
    return values[name] if name in OURS else MASKED


def shown(value: Any) -> str:
    """A value in few words; nothing for an empty one."""
    match value:
        case None:
            return ""
        case dict():
            inner = [shown(item) for key, item in value.items() if item and key != "LogGroup"]
            return ", ".join(filter(None, inner))
        case list() | tuple():
            return " ".join(map(shown, value))
    return mask(str(value))


def layers_of(layers: tuple[str | New, ...]) -> str:
    """Layers without account: ``lambdeno-deno-x86_64:3``."""
    return ", ".join(
        str(layer) if isinstance(layer, New) else ":".join(layer.split(":")[-2:]) for layer in layers
    )


def last_of(arn: str) -> str:
    """The name at the end of an ARN."""
    return arn.rpartition("/")[2]


def sids_of(document: Mapping[str, Any] | None) -> str:
    """The statements of a policy, by their ids."""
    statements = (document or {}).get("Statement", [])
    return ", ".join(str(one.get("Sid") or "statement") for one in statements)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def days_of(days: int) -> str:
    """How long a log is kept."""
    return f"{days} days" if days else "for ever"


def size_of(code: Code) -> str:
    """How large an artefact is, and which way it goes."""
    return megabytes(code.artefact.size) + (" through S3" if code.bucket is not None else "")
