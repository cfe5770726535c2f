"""The probe of a store tells a lost answer from a broken promise."""

from pathlib import Path

import pytest

from shardline_common.errors import ObjectExists, StoreUnavailable, UsageError
from shardline_common.memory.store import MemoryStore
from shardline_common.storage.probe import probe_create_only


class AnswersLost(MemoryStore):
    """Every put is applied, and what its sender hears is the answer to his second try."""

    async def create(self, key: str, body: bytes | Path, *, content_type: str = "application/json") -> None:
        await super().create(key, body, content_type=content_type)
        raise ObjectExists(key)


class Overwrites(MemoryStore):
    """Whoever comes last wins."""

    async def create(self, key: str, body: bytes | Path, **_: object) -> None:
        self._objects[key] = body if isinstance(body, bytes) else body.read_bytes()


async def test_a_lost_answer_is_asked_again() -> None:
    with pytest.raises(StoreUnavailable, match="did not say"):
        await probe_create_only(AnswersLost())


async def test_a_store_that_overwrites_is_refused() -> None:
    with pytest.raises(UsageError, match="12 of 12"):
        await probe_create_only(Overwrites())
