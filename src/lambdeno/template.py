"""``template``: what ``deploy`` makes, as a template for SAM or CloudFormation.

    build what is out of date ─► desired, as deploy's ─► document ─► YAML

Where ``deploy`` has an account and a region, the template has AWS's pseudo parameters. Where it has a
value of ``[environment]``, the template has a parameter without one: it is made to be kept and shown.

Both formats have the same resources. SAM uploads the zips and is told where they are; CloudFormation is
told where they will be. Versions are resources of ours in both: SAM's ``AutoPublishAlias`` misses a
changed timeout, and with all properties takes a changed tag for a new version, which Lambda refuses.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lambdeno import atomic, build
from lambdeno.build import Watcher
from lambdeno.deployment import Artefact, wanted
from lambdeno.deployment.desired import LICENSE, MARK, MARK_KEY, Code, Function, Layer, Role
from lambdeno.deployment.policies import trust
from lambdeno.errors import UsageError
from lambdeno.project import Project

__all__ = ["FORMATS", "Format", "Template", "document", "parameters", "template", "write"]

Format = Literal["sam", "cloudformation"]
FORMATS: tuple[Format, ...] = ("sam", "cloudformation")
TRANSFORM = "AWS::Serverless-2016-10-31"
BUCKET = "ArtefactBucket"  # CloudFormation's parameter: where the zips are

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/pseudo-parameter-reference.html
PARTITION, REGION, ACCOUNT = "${AWS::Partition}", "${AWS::Region}", "${AWS::AccountId}"
KEPT = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Template:
    """A template, and which parameter has the value of which variable of ``[environment]``."""

    document: Mapping[str, Any]
    parameters: Mapping[str, str]

    def __str__(self) -> str:
        """As YAML, in one order."""
        return str(yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True, width=1000))


def template(project: Project, form: Format, folder: Path, watcher: Watcher = Watcher()) -> Template:
    """The template that will lie in a folder, its artefacts built where needed. Raises LambdenoError."""
    rows = build.up_to_date(project, watcher)
    artefacts = {kind: Artefact.of(project.dist, rows[kind]) for kind in build.KINDS}
    return Template(document(project, artefacts, form, folder), parameters(project.environment))


def document(project: Project, artefacts: Mapping[str, Artefact], form: Format, folder: Path) -> Json:
    """The template of all three artefacts, paths relative to the folder. Raises ProjectError."""
    runtime = build.lambda_runtime(project)
    desired = wanted(project, artefacts, runtime=runtime, region=REGION, partition=PARTITION)
    function = desired.function
    if function is None:
        raise ValueError("A template is of all three artefacts")
    make = _sam if form == "sam" else _cloudformation
    inputs = parameters(project.environment)
    properties = _properties(function, desired.layers, inputs)
    resources = {
        **_role(function.role),
        "LogGroup": _log_group(function),
        **make(function, properties, desired.layers, folder),
        **_version(function, properties, desired.layers),
        **_url(function),
        **_event_invoke(function),
    }
    head = {"AWSTemplateFormatVersion": "2010-09-09"}
    asked = {
        name: _parameter(f"{variable} of the function's environment") for variable, name in inputs.items()
    }
    if form == "sam":
        head["Transform"] = TRANSFORM
    else:
        named = {"Default": project.bucket} if project.bucket else {}
        asked = {BUCKET: {"Type": "String", "Description": "The bucket that has the zips", **named}, **asked}
    return {
        **head,
        "Description": f"{function.name}: Deno on AWS Lambda, by lambdeno template",
        **({"Parameters": asked} if asked else {}),
        "Resources": resources,
        "Outputs": _outputs(function),
    }


def parameters(variables: Iterable[str]) -> dict[str, str]:
    """Variable -> name of its parameter: ``API_KEY`` -> ``EnvironmentApiKey``.

    Variables that would share one get digits of their own, so that none takes the value of another.
    """
    names = {variable: f"Environment{_camel(variable)[:200]}" for variable in variables}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {
        variable: name + hashlib.sha256(variable.encode()).hexdigest()[:12] if name in shared else name
        for variable, name in names.items()
    }


def write(path: Path, text: str) -> None:
    """The whole file or nothing of it; in place of a link, not through it. Raises UsageError."""
    if path.exists() and not path.is_file():
        raise UsageError(f'"{path}" is no file', "leave --output out: the template goes to stdout")
    try:
        atomic.write(path, text.encode())
    except OSError as error:
        raise UsageError(
            f'Cannot write "{path}": {error.strerror}', "name a file in a folder that can be written"
        ) from None


# --- what SAM and CloudFormation say differently --------------------------------------------------


def _sam(function: Function, properties: Json, layers: Iterable[Layer], folder: Path) -> Json:
    """Layers and function, with the zips beside the template: ``sam deploy`` uploads them."""
    return {
        **{
            _camel(layer.kind): {
                "Type": "AWS::Serverless::LayerVersion",
                "Properties": {
                    **_layer(layer),
                    "ContentUri": _relative(layer.code, folder),
                    "RetentionPolicy": "Retain",
                },
            }
            for layer in layers
        },
        "Function": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                **{key: value for key, value in properties.items() if key != "TracingConfig"},
                "Tracing": properties["TracingConfig"]["Mode"],
                "CodeUri": _relative(function.code, folder),
                **_around(function, _tags(function)),
            },
        },
    }


def _cloudformation(function: Function, properties: Json, layers: Iterable[Layer], _: Path) -> Json:
    """Layers and function, with the zips in a bucket under their SHA-256.

    The keys are no parameters: an update keeps a parameter's former value, and so would keep the code.
    """
    return {
        **{
            _camel(layer.kind): {
                "Type": "AWS::Lambda::LayerVersion",
                **KEPT,
                "Properties": {**_layer(layer), "Content": _stored(layer.code)},
            }
            for layer in layers
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                **properties,
                "Code": _stored(function.code),
                **_around(function, [{"Key": key, "Value": value} for key, value in _tags(function).items()]),
            },
        },
    }


def _relative(code: Code, folder: Path) -> str:
    return Path(os.path.relpath(code.artefact.path.resolve(), folder.resolve())).as_posix()


def _stored(code: Code) -> Json:
    return {"S3Bucket": _ref(BUCKET), "S3Key": code.key}


# --- the resources ---------------------------------------------------------------------------------


def _role(role: Role) -> Json:
    """The role that the function gets, where it names none. CloudFormation finds a name for it."""
    if not role.is_ours:
        return {}
    policy = {"PolicyName": MARK, "PolicyDocument": _substituted(role.permissions)}
    properties: Json = {"AssumeRolePolicyDocument": trust(), "Policies": [policy]}
    if role.managed:
        properties["ManagedPolicyArns"] = list(role.managed)
    return {"Role": {"Type": "AWS::IAM::Role", "Properties": properties}}


def _log_group(function: Function) -> Json:
    retention = {"RetentionInDays": function.log_retention} if function.log_retention else {}
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {"LogGroupName": function.log_group, **retention},
    }


def _layer(layer: Layer) -> Json:
    return {
        "LayerName": layer.name,
        "Description": layer.description,
        "CompatibleArchitectures": [layer.architecture],
        **({"CompatibleRuntimes": [layer.runtime]} if layer.runtime else {}),
        "LicenseInfo": LICENSE,
    }


def _properties(function: Function, layers: Iterable[Layer], inputs: Mapping[str, str]) -> Json:
    """What a version of the function consists of, but for its code."""
    found = {
        key: value
        for key, value in function.configuration.items()
        if not (key == "Description" and not value) and not (key == "VpcConfig" and not value["SubnetIds"])
    }
    variables = {
        name: _ref(inputs[name]) if name in inputs else value
        for name, value in found["Environment"]["Variables"].items()
    }
    return {
        "FunctionName": function.name,
        **found,
        "Environment": {"Variables": variables},
        "LoggingConfig": {**found["LoggingConfig"], "LogGroup": _ref("LogGroup")},
        "Architectures": [function.architecture],
        "Layers": [*(_ref(_camel(layer.kind)) for layer in layers), *function.layers],
        "Role": _role_arn(function.role),
    }


def _around(function: Function, tags: Any) -> Json:
    """What the function has beside its versions."""
    reserved = {} if function.concurrency is None else {"ReservedConcurrentExecutions": function.concurrency}
    return {**reserved, **({"Tags": tags} if tags else {})}


def _version(function: Function, properties: Json, layers: Iterable[Layer]) -> Json:
    """The alias and the version that it names.

    A version cannot be changed: one that differs is another resource, and one that does not must be the
    same, since Lambda publishes nothing twice. A parameter's value is in no name: it may be a secret.
    """
    if not function.alias:
        return {}
    artefacts = [code.artefact.sha256 for code in (function.code, *(layer.code for layer in layers))]
    parts = json.dumps([properties, artefacts, [_layer(layer) for layer in layers]], sort_keys=True)
    version = f"Version{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    return {
        version: {
            "Type": "AWS::Lambda::Version",
            **KEPT,
            "Properties": {"FunctionName": _ref("Function")},
        },
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "Name": function.alias,
                "FunctionName": _ref("Function"),
                "FunctionVersion": {"Fn::GetAtt": [version, "Version"]},
            },
        },
    }


def _url(function: Function) -> Json:
    """The Function URL, and who may call it."""
    if function.url is None:
        return {}
    resources: Json = {
        "Url": {
            "Type": "AWS::Lambda::Url",
            **_after_alias(function),
            "Properties": {
                "TargetFunctionArn": _ref("Function"),
                **({"Qualifier": function.alias} if function.alias else {}),
                **{key: value for key, value in function.url.items() if value},
            },
        }
    }
    for sid, statement in function.url_statements.items():
        resources[_camel(sid.removeprefix(f"{MARK}-")) + "Permission"] = {
            "Type": "AWS::Lambda::Permission",
            "Properties": {"FunctionName": _ref("Alias" if function.alias else "Function"), **statement},
        }
    return resources


def _event_invoke(function: Function) -> Json:
    if function.event_invoke is None:
        return {}
    return {
        "EventInvoke": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            **_after_alias(function),
            "Properties": {
                "FunctionName": _ref("Function"),
                "Qualifier": function.alias or "$LATEST",
                **{key: value for key, value in function.event_invoke.items() if value != {}},
            },
        }
    }


def _outputs(function: Function) -> Json:
    outputs: Json = {"FunctionArn": {"Value": {"Fn::GetAtt": ["Function", "Arn"]}}}
    if function.alias:
        outputs["AliasArn"] = {"Value": _ref("Alias")}
    if function.url is not None:
        outputs["FunctionUrl"] = {"Value": {"Fn::GetAtt": ["Url", "FunctionUrl"]}}
    return outputs


# --- words of templates ----------------------------------------------------------------------------


def _ref(name: str) -> Json:
    return {"Ref": name}


def _after_alias(function: Function) -> Json:
    return {"DependsOn": "Alias"} if function.alias else {}


def _parameter(description: str) -> Json:
    return {"Type": "String", "NoEcho": True, "Description": description}


def _tags(function: Function) -> Json:
    """The user's: our mark is of what ``deploy`` may change, and this is CloudFormation's."""
    return {key: value for key, value in function.tags.items() if key != MARK_KEY}


def _role_arn(role: Role) -> Any:
    if role.is_ours:
        return {"Fn::GetAtt": ["Role", "Arn"]}
    if role.name.startswith("arn:"):
        return role.name
    return {"Fn::Sub": f"arn:{PARTITION}:iam::{ACCOUNT}:role/{role.name}"}


def _substituted(value: Any) -> Any:
    """A policy with each text that has a pseudo parameter under ``Fn::Sub``; IAM's own variables stay."""
    if isinstance(value, Mapping):
        return {key: _substituted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one) for one in value]
    if isinstance(value, str) and (REGION in value or PARTITION in value):
        return {"Fn::Sub": value}
    return value


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in re.split("[-_]", words))
