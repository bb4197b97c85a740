"""Desired against actual: the steps that lead from one to the other, in their order. No call is made here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lambdeno.deployment import policies, removal, steps
from lambdeno.deployment.actual import Actual, Deployed, FoundRole
from lambdeno.deployment.changes import (
    Change,
    change_of,
    configuration_changes,
    configuration_rows,
    days_of,
    last_of,
    layers_of,
    normal,
    shown,
    sids_of,
    size_of,
    variables,
)
from lambdeno.deployment.desired import EVERYWHERE, MARK, Desired, Function, New, Role, sorted_cors
from lambdeno.deployment.step import Step

__all__ = ["plan"]


def plan(desired: Desired, actual: Actual, parts: Collection[str] | None = None) -> list[Step]:
    """The steps, none where all is as it should be.

    With ``parts``, a version follows the function's steps of these parts alone; the caller drops the others.
    """
    function = desired.function
    layers = [
        steps.PublishLayer(
            name=layer.name,
            layer=layer,
            bucket=actual.bucket,
            changes=(
                Change("version", "", f"{layer.description.rpartition(', ')[0]}, {size_of(layer.code)}"),
            ),
        )
        for layer in desired.layers
        if layer.kind not in actual.layers
    ]
    if function is None:
        return [*_bucket(desired, actual, bool(layers)), *layers]
    references = (
        *(actual.layers.get(layer.kind, New(layer.kind)) for layer in desired.layers),
        *function.layers,
    )
    role: str | New = actual.role.arn if actual.role else New("role")
    if actual.function is None:
        made: list[Step] = [_create(function, actual, role, references)]
    else:
        made = _update(function, actual, actual.function, role, references)
    rights = _rights(function.role, actual.role)
    uploads = bool(layers) or any(isinstance(step, steps.CreateFunction | steps.UpdateCode) for step in made)
    return [
        *rights[0],
        *_log_group(function, actual.log_retention),
        *_bucket(desired, actual, uploads),
        *layers,
        *made,
        *_around(function, actual.function, any(parts is None or step.part in parts for step in made)),
        *rights[1],
        *_former_role(actual),
    ]


def _bucket(desired: Desired, actual: Actual, uploads: bool) -> list[Step]:
    codes = [layer.code for layer in desired.layers if layer.kind not in actual.layers]
    codes += [desired.function.code] if desired.function else []
    if not (uploads and any(code.bucket == "" for code in codes)):
        return []
    return [(steps.SetUpBucket if actual.has_bucket else steps.CreateBucket)(name=actual.bucket)]


def _rights(wanted: Role, found: FoundRole | None) -> tuple[list[Step], list[Step]]:
    """The steps for the role: before those of the function, or behind them.

    Lambda needs the rights for a network until it has taken its interfaces away.
    """
    made = _role(wanted, found)
    before = {one.get("Sid") for one in (found.permissions or {}).get("Statement", [])} if found else set()
    after = {one.get("Sid") for one in wanted.permissions["Statement"]}
    return ([], made) if "Network" in before - after else (made, [])


def _role(wanted: Role, found: FoundRole | None) -> list[Step]:
    if not wanted.is_ours:
        return []
    if found is None:
        rights = [
            action
            for statement in wanted.permissions["Statement"]
            for action in _listed(statement.get("Action"))
        ]
        return [
            steps.CreateRole(
                name=wanted.name,
                trust=policies.trust(),
                permissions=wanted.permissions,
                managed=wanted.managed,
                changes=(Change("rights", "", ", ".join([*rights, *map(last_of, wanted.managed)])),),
            )
        ]
    attach = tuple(arn for arn in wanted.managed if arn not in found.managed)
    detach = tuple(arn for arn in found.managed if arn not in wanted.managed)
    differs = found.permissions != wanted.permissions
    if not (attach or detach or differs):
        return []
    changes = []
    if differs:
        changes.append(Change("policy", sids_of(found.permissions), sids_of(wanted.permissions)))
    if attach or detach:
        changes.append(
            Change(
                "policies", ", ".join(map(last_of, found.managed)), ", ".join(map(last_of, wanted.managed))
            )
        )
    return [
        steps.UpdateRole(
            name=wanted.name,
            permissions=wanted.permissions if differs else None,
            attach=attach,
            detach=detach,
            changes=tuple(changes),
        )
    ]


def _log_group(function: Function, found: int | None) -> list[Step]:
    days = function.log_retention
    change = Change("retention", "" if found is None else days_of(found), days_of(days))
    if found is None:
        return [steps.CreateLogGroup(name=function.log_group, days=days, changes=(change,))]
    if found != days:
        return [steps.SetRetention(name=function.log_group, days=days, changes=(change,))]
    return []


def _create(
    function: Function, actual: Actual, role: str | New, layers: tuple[str | New, ...]
) -> steps.CreateFunction:
    wanted = function.configuration
    changes = [Change("code", "", size_of(function.code)), Change("architecture", "", function.architecture)]
    changes += [change for key in wanted if (change := change_of(key, None, wanted[key]))]
    changes += variables({}, wanted["Environment"]["Variables"])
    changes.append(Change("layers", "", layers_of(layers)))
    return steps.CreateFunction(
        name=function.name,
        code=function.code,
        bucket=actual.bucket,
        architecture=function.architecture,
        # Lambda takes no empty network at creation
        configuration={
            key: value for key, value in wanted.items() if key != "VpcConfig" or value["SubnetIds"]
        },
        role=role,
        layers=layers,
        tags=function.tags,
        changes=tuple(changes),
    )


def _update(
    function: Function,
    actual: Actual,
    deployed: Deployed,
    role: str | New,
    layers: tuple[str | New, ...],
) -> list[Step]:
    found = deployed.configuration
    made: list[Step] = []
    changes = _code_changes(function, found)
    if changes:
        made.append(
            steps.UpdateCode(
                name=function.name,
                code=function.code,
                bucket=actual.bucket,
                architecture=function.architecture,
                changes=tuple(changes),
            )
        )
    differing = configuration_changes(function.configuration, found)
    rows = [row for key in differing for row in configuration_rows(key, found, function.configuration[key])]
    new_role = role if role != found.get("Role") else None
    present = tuple(row["Arn"] for row in found.get("Layers", []))
    if new_role is not None:
        rows.append(Change("role", last_of(found.get("Role", "")), last_of(str(new_role))))
    if layers != present:
        rows.append(Change("layers", layers_of(present), layers_of(layers)))
    if rows:
        made.append(
            steps.UpdateConfiguration(
                name=function.name,
                configuration={key: function.configuration[key] for key in differing},
                role=new_role,
                layers=layers if layers != present else None,
                changes=tuple(rows),
            )
        )
    return made


def _code_changes(function: Function, found: Mapping[str, Any]) -> list[Change]:
    changes = []
    digest = function.code.artefact.code_sha256
    if found.get("CodeSha256") != digest:
        changes.append(
            Change("code", str(found.get("CodeSha256", ""))[:8], f"{digest[:8]}, {size_of(function.code)}")
        )
    elif failed := _failure(found):
        changes.append(Change("code, once more", shown(failed), size_of(function.code)))
    architecture = (found.get("Architectures") or ["x86_64"])[0]
    if architecture != function.architecture:
        changes.append(Change("architecture", architecture, function.architecture))
    return changes


def _failure(found: Mapping[str, Any]) -> str:
    """Why the function, or its last update, has failed; nothing where it has not."""
    if found.get("State") == "Failed":
        return str(found.get("StateReason") or "it failed")
    if found.get("LastUpdateStatus") == "Failed":
        return str(found.get("LastUpdateStatusReason") or "the last update failed")
    return ""


# --- around the function ---------------------------------------------------------------------------


def _around(function: Function, deployed: Deployed | None, changed: bool) -> list[Step]:
    found, qualifier = deployed or NOTHING, function.qualifier
    return [
        # at once, of the very revision that was deployed
        *_version(function, found, changed),
        *(_tags(function, deployed) if deployed else []),
        *_concurrency(function, found),
        *_url(function, found, qualifier),
        *_event_invoke(function, found, qualifier),
        *_former(function, found, qualifier),
    ]


NOTHING = Deployed(
    configuration={},
    tags={},
    concurrency=None,
    aliases={},
    version=None,
    urls={},
    statements={},
    event_invokes={},
)


def _tags(function: Function, deployed: Deployed) -> list[Step]:
    found = {key: value for key, value in deployed.tags.items() if not key.startswith("aws:")}
    put = {key: value for key, value in function.tags.items() if found.get(key) != value}
    remove = tuple(key for key in found if key not in function.tags)
    if not (put or remove):
        return []
    changes = [Change(key, shown(found.get(key)), shown(value)) for key, value in put.items()]
    changes += [Change(key, shown(found[key]), "") for key in remove]
    return [
        steps.TagFunction(
            name=function.name, arn=deployed.arn, put=put, remove=remove, changes=tuple(changes)
        )
    ]


def _concurrency(function: Function, found: Deployed) -> list[Step]:
    if function.concurrency == found.concurrency:
        return []
    change = Change("reserved", shown(found.concurrency), shown(function.concurrency))
    return [steps.SetConcurrency(name=function.name, reserved=function.concurrency, changes=(change,))]


def _version(function: Function, found: Deployed, changed: bool) -> list[Step]:
    """A version, where the alias names none, or one that differs from what is deployed."""
    if not function.alias:
        return []
    if (
        not changed
        and found.version is not None
        and not _differs(found.version, found.configuration, function.configuration)
    ):
        return []
    before = str(found.aliases.get(function.alias, {}).get("FunctionVersion", ""))
    return [
        steps.PublishVersion(
            name=function.name,
            alias=function.alias,
            exists=function.alias in found.aliases,
            revision=str(found.aliases.get(function.alias, {}).get("RevisionId", "")),
            changes=(Change(function.alias, before, "the new version"),),
        )
    ]


def _differs(version: Mapping[str, Any], latest: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Whether a published version is another function than the latest, as far as we set it."""
    layers = [[row["Arn"] for row in one.get("Layers", [])] for one in (version, latest)]
    return (
        layers[0] != layers[1]
        or any(version.get(key) != latest.get(key) for key in ("CodeSha256", "Architectures", "Role"))
        or any(normal(key, version) != normal(key, latest) for key in keys)
    )


def _url(function: Function, found: Deployed, qualifier: str) -> list[Step]:
    if function.url is None:
        return []
    missing = {
        sid: statement for sid, statement in function.url_statements.items() if sid not in found.statements
    }
    surplus = tuple(
        sid
        for sid in found.statements
        if sid in policies.statements_of_url("none") and sid not in function.url_statements
    )
    present = found.urls.get(qualifier)
    if present is None:
        return [
            steps.CreateUrl(
                name=function.name,
                qualifier=qualifier,
                configuration={key: value for key, value in function.url.items() if value},
                statements=missing,
                remove=surplus,
                changes=_url_changes({}, function.url),
            )
        ]
    before = {
        "AuthType": present.get("AuthType"),
        "InvokeMode": str(present.get("InvokeMode", "BUFFERED")).upper(),
        "Cors": {
            key: sorted_cors(key, value) if isinstance(value, list) else value
            for key, value in (present.get("Cors") or {}).items()
            if value
        },
    }
    changes = _url_changes(before, function.url)
    if not (changes or missing or surplus):
        return []
    who = (Change("callers", "some", "anybody" if missing else "with IAM"),) if missing or surplus else ()
    return [
        steps.UpdateUrl(
            name=function.name,
            qualifier=qualifier,
            configuration=function.url if changes else None,
            statements=missing,
            remove=surplus,
            changes=(*changes, *who),
        )
    ]


def _url_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    names = {"AuthType": "auth", "InvokeMode": "invoke mode", "Cors": "cors"}
    return tuple(
        Change(names[key], shown(before.get(key)), shown(after[key]))
        for key in after
        if (before.get(key) or None) != (after[key] or None)
    )


def _event_invoke(function: Function, found: Deployed, qualifier: str) -> list[Step]:
    wanted = function.event_invoke
    if wanted is None:
        return []
    present = found.event_invokes.get(qualifier, {})
    before = {
        "MaximumEventAgeInSeconds": present.get("MaximumEventAgeInSeconds", 21600 if present else None),
        "MaximumRetryAttempts": present.get("MaximumRetryAttempts", 2 if present else None),
        "DestinationConfig": {
            name: {"Destination": row["Destination"]}
            for name, row in present.get("DestinationConfig", {}).items()
            if row.get("Destination")
        },
    }
    names = {
        "MaximumEventAgeInSeconds": "max event age",
        "MaximumRetryAttempts": "retries",
        "DestinationConfig": "destinations",
    }
    changes = tuple(
        Change(names[key], shown(before[key]), shown(wanted[key]))
        for key in wanted
        if before[key] != wanted[key]
    )
    if not changes:
        return []
    return [
        steps.PutEventInvoke(name=function.name, qualifier=qualifier, configuration=wanted, changes=changes)
    ]


def _is_ours(found: Deployed, qualifier: str) -> bool:
    """Whether a qualifier is the function itself, or an alias that lambdeno made."""
    alias = found.aliases.get(qualifier, {})
    return qualifier == EVERYWHERE or alias.get("Description") == MARK


def _former(function: Function, found: Deployed, qualifier: str) -> list[Step]:
    """What was wanted once, or under another alias, and is not any more."""
    made: list[Step] = []
    made += [
        removal.DeleteUrl(name=function.name, qualifier=at)
        for at in found.urls
        if (function.url is None or at != qualifier) and _is_ours(found, at)
    ]
    made += [
        removal.DeleteEventInvoke(name=function.name, qualifier=at)
        for at in found.event_invokes
        if (function.event_invoke is None or at != qualifier) and _is_ours(found, at)
    ]
    made += [
        removal.DeleteAlias(name=function.name, alias=name)
        for name, row in found.aliases.items()
        if name != function.alias and row.get("Description") == MARK
    ]
    return made


def _former_role(actual: Actual) -> list[Step]:
    """Our role, when the function has another."""
    if not actual.former_role:
        return []
    after = last_of(actual.role.arn) if actual.role else ""
    return [
        removal.DeleteRole(
            name=actual.former_role, changes=(Change("in its place", actual.former_role, after),)
        )
    ]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
