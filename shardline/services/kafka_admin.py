"""Commands for an administrator of Kafka: ACLs for each process, and topics created in advance.

`doctor --print-acls` and `doctor --print-topics` print them, under the prefix of the settings.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardline_common.job.names import (
    ATTEMPT_GROUPS,
    ATTEMPT_TOPICS,
    CHECKPOINTS,
    DEAD_LETTERS,
    EVENTS,
    JOBS,
    PRODUCERS,
    TRANSACTIONAL_IDS,
)
from shardline_common.kafka.acls import ADMIN, acl_command
from shardline_common.ports.broker import TopicSpec


@dataclass(frozen=True, slots=True)
class KafkaAcl:
    """Operations on one resource, or with `prefixed` on all resources whose names start with `name`.

    `resource` is `topic`, `group` or `transactional-id`; operations have the names of kafka-acls.sh.
    """

    resource: str
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def under(self, prefix: str) -> "KafkaAcl":
        """Return the ACL with a prefix before the name."""
        return KafkaAcl(self.resource, prefix + self.name, self.operations, self.prefixed)

    def command(self, principal: str) -> str:
        """Return the command that adds the ACL."""
        return acl_command(principal, self.resource, self.name, self.operations, prefixed=self.prefixed)

    def to_json(self, principal: str) -> dict[str, Any]:
        """Return the ACL as `doctor --print-acls --json` prints it."""
        return {
            "principal": principal,
            "resource_type": self.resource,
            "name": self.name,
            "pattern": "prefixed" if self.prefixed else "literal",
            "operations": list(self.operations),
        }


# A client checks that all system topics exist before it reads any; Read and Write include Describe.
_READER = (
    KafkaAcl("topic", JOBS, ("Describe",)),
    KafkaAcl("topic", CHECKPOINTS, ("Read",)),
    KafkaAcl("topic", EVENTS, ("Read",)),
    KafkaAcl("topic", DEAD_LETTERS, ("Describe",)),
)
ROLES: Mapping[str, Sequence[KafkaAcl]] = {
    "producer": (
        KafkaAcl("topic", JOBS, ("Read", "Create")),
        KafkaAcl("topic", CHECKPOINTS, ("Read", "Write", "Create")),
        KafkaAcl("topic", EVENTS, ("Write", "Create")),
        KafkaAcl("topic", DEAD_LETTERS, ("Read", "Write", "Create")),
        # Delete includes trimming; DescribeConfigs is needed to check a topic that exists already.
        KafkaAcl("topic", ATTEMPT_TOPICS, ("Write", "Create", "Delete", "DescribeConfigs"), prefixed=True),
        KafkaAcl("group", PRODUCERS, ("Read",)),
        KafkaAcl("transactional-id", TRANSACTIONAL_IDS, ("Write",), prefixed=True),
    ),
    "worker": (
        KafkaAcl("topic", JOBS, ("Describe",)),
        KafkaAcl("topic", CHECKPOINTS, ("Read",)),
        KafkaAcl("topic", EVENTS, ("Write",)),
        KafkaAcl("topic", DEAD_LETTERS, ("Write",)),
        KafkaAcl("topic", ATTEMPT_TOPICS, ("Read",), prefixed=True),
        KafkaAcl("group", ATTEMPT_GROUPS, ("Read",), prefixed=True),
    ),
    "gateway": (KafkaAcl("topic", JOBS, ("Read", "Write")), *_READER[1:]),
    "submitter": (KafkaAcl("topic", JOBS, ("Write",)), *_READER[1:]),
    "reader": _READER,
}


def acls_by_role(prefix: str) -> dict[str, list[KafkaAcl]]:
    """Return the ACLs of each role under a prefix."""
    return {role: [right.under(prefix) for right in found] for role, found in ROLES.items()}


def principal(role: str) -> str:
    """Return the placeholder principal of a role; the administrator replaces it."""
    return f"User:shardline-{role}"


def acl_commands(prefix: str) -> list[str]:
    """Return kafka-acls.sh commands, with a comment that names the role before those of each role."""
    lines = []
    for role, found in acls_by_role(prefix).items():
        lines += [f"# {role}", *(right.command(principal(role)) for right in found)]
    return lines


def acls_json(prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Return the ACLs of each role as JSON values."""
    found = acls_by_role(prefix).items()
    return {role: [right.to_json(principal(role)) for right in each] for role, each in found}


def topic_commands(topics: Iterable[TopicSpec], prefix: str, replication: int) -> list[str]:
    """Return kafka-topics.sh commands that create topics; a `replication` of -1 is the brokers' default."""
    return [
        f"kafka-topics.sh {ADMIN} {shlex.join(_creation(topic, prefix, replication))}" for topic in topics
    ]


def _creation(topic: TopicSpec, prefix: str, replication: int) -> list[str]:
    words = ["--create", "--if-not-exists", "--topic", prefix + topic.name]
    words += ["--partitions", str(topic.partitions)]
    words += ["--replication-factor", str(replication)] if replication > 0 else []
    for name, value in sorted(topic.config.items()):
        words += ["--config", f"{name}={value}"]
    return words
