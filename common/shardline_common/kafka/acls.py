"""Rights in Kafka, and the command that adds one."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

ADMIN = '--bootstrap-server "$KAFKA" --command-config admin.properties'


@dataclass(frozen=True, slots=True)
class Right:
    """An operation on one resource. `resource`: topic, group, transactional-id or cluster."""

    resource: str
    name: str
    operation: str


def acl_command(
    principal: str, resource: str, name: str, operations: Sequence[str], *, prefixed: bool = False
) -> str:
    """The command of Kafka that lets a principal do these operations on a resource."""
    words = ["--add", "--allow-principal", principal]
    for operation in operations:
        words += ["--operation", operation]
    words += ["--resource-pattern-type", "prefixed"] if prefixed else []
    words += ["--cluster"] if resource == "cluster" else [f"--{resource}", name]
    return f"kafka-acls.sh {ADMIN} {shlex.join(words)}"
