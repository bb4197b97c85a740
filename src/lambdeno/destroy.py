"""``destroy``: what ``deploy`` made for a function, taken away; the layers only when asked."""

from __future__ import annotations

from collections.abc import Iterator

from lambdeno.aws import Aws
from lambdeno.build import Watcher
from lambdeno.deploy import allowed, carry_out
from lambdeno.deployment import Change, Progress, Step, removal
from lambdeno.deployment.actual import bucket_name, check_mark, is_marked, tags_of
from lambdeno.deployment.desired import LAYER_NAMES, MARK, MARK_KEY, log_group_name, role_name
from lambdeno.project import Project

__all__ = ["destroy", "plan_of_removal"]


def plan_of_removal(
    project: Project, aws: Aws, *, with_layers: bool = False, keep_logs: bool = False
) -> list[Step]:
    """What is there and lambdeno made, as steps that take it away. Raises AwsError, DeployError."""
    steps = [*_function(project, aws)]
    if not keep_logs:
        steps += _log_group(project, aws)
    steps += _role(project, aws)
    if with_layers:
        steps += [*_layers(project, aws), *_bucket(aws)]
    return steps


def destroy(steps: list[Step], aws: Aws, watcher: Watcher = Watcher()) -> None:
    """Carry it out. Raises AwsError, DeployError. Repeating it is safe at any time."""
    allowed(aws, steps)
    carry_out(steps, aws, Progress(), watcher)


def _function(project: Project, aws: Aws) -> Iterator[Step]:
    found = aws.find(aws.lambda_.get_function, FunctionName=project.name)
    if found is None:
        return
    check_mark(
        project.name,
        found,
        f'delete it by other means, or give it the tag "{MARK_KEY}" with the value "{MARK}"',
    )
    yield removal.DeleteFunction(
        name=project.name, changes=(Change("with", "its versions, aliases and URLs", ""),)
    )


def _log_group(project: Project, aws: Aws) -> Iterator[Step]:
    name = log_group_name(project.name)
    groups = aws.pages(
        aws.logs.describe_log_groups, "logGroups", ("nextToken", "nextToken"), logGroupNamePrefix=name
    )
    for row in groups:
        if row["logGroupName"] == name:
            arn = row["arn"].removesuffix(":*")
            tags = aws.call(aws.logs.list_tags_for_resource, resourceArn=arn)["tags"]
            if is_marked(tags):
                yield removal.DeleteLogGroup(name=name, changes=(Change("with", "all that was logged", ""),))


def _role(project: Project, aws: Aws) -> Iterator[Step]:
    name = role_name(project.name, aws.region)
    found = aws.find(aws.iam.get_role, RoleName=name)
    if found and is_marked(tags_of(found["Role"])):
        yield removal.DeleteRole(name=name)


def _layers(project: Project, aws: Aws) -> Iterator[Step]:
    for prefix in LAYER_NAMES.values():
        name = f"{prefix}-{project.architecture}"
        for row in aws.pages(aws.lambda_.list_layer_versions, "LayerVersions", LayerName=name):
            version = row["Version"]
            yield removal.DeleteLayerVersion(
                name=name, version=version, changes=(Change("version", str(version), ""),)
            )


def _bucket(aws: Aws) -> Iterator[Step]:
    name = bucket_name(aws)
    if aws.find(aws.s3.head_bucket, Bucket=name, ExpectedBucketOwner=aws.identity[0]):
        yield removal.DeleteBucket(name=name)
