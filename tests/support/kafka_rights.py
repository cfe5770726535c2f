"""ACLs of a real broker, created and deleted through the admin protocol."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

_RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
_PATTERNS = {"literal": 3, "prefixed": 4}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Describe": 8, "DescribeConfigs": 10}
_ALLOW = 3


@dataclass(frozen=True)
class Acl:
    """One operation of one principal on one resource or pattern."""

    principal: str
    resource: str
    name: str
    pattern: str
    operation: str

    @property
    def fields(self) -> tuple[Any, ...]:
        """The fields of the protocol."""
        resource, pattern = _RESOURCES[self.resource], _PATTERNS[self.pattern]
        return resource, self.name, pattern, self.principal, "*", _OPERATIONS[self.operation], _ALLOW

    def __str__(self) -> str:
        return f"{self.principal.removeprefix('User:')} {self.operation} {self.resource} {self.name}"


def acls(found: Iterable[Mapping[str, Any]], principal: str) -> list[Acl]:
    """The rights of `doctor --print-acls --json`, for another principal."""
    return [
        Acl(principal, one["resource_type"], one["name"], one["pattern"], operation)
        for one in found
        for operation in one["operations"]
    ]


class Rights:
    """Creates and deletes ACLs."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    async def give(self, wanted: Iterable[Acl]) -> None:
        """Create ACLs; return when they are in force."""
        asked = list(wanted)
        for acl in asked:
            answer = await self._admin._send_to_controller(CreateAclsRequest(*acl.fields))
            assert [code for code, _ in answer.creation_responses] == [0], acl
        for acl in asked:
            await self._until(acl, held=True)

    async def take(self, acl: Acl) -> None:
        """Delete an ACL; return when it is no longer in force."""
        answer = await self._admin._send_to_controller(DeleteAclsRequest(*acl.fields))
        assert len(answer.filter_responses[0][2]) == 1, f"{acl} was not given"
        await self._until(acl, held=False)

    async def _until(self, acl: Acl, *, held: bool) -> None:
        # The broker applies what the controller has written a moment later.
        async with asyncio.timeout(20):
            while (await self._count(acl.fields) > 0) is not held:
                await asyncio.sleep(0.02)

    async def _count(self, fields: tuple[Any, ...]) -> int:
        answer = await self._admin._send_request(DescribeAclsRequest(*fields))
        return sum(len(resource[-1]) for resource in answer.resources)


@asynccontextmanager
async def open_rights(bootstrap: str) -> AsyncIterator[Rights]:
    """Connect as an administrator at this address."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield Rights(admin)
    finally:
        await admin.close()
