"""One damaged answer of the store fails no job: what cannot be right is read again."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shardline_common.errors import StoreUnavailable
from shardline_common.job.names import Layout
from shardline_common.job.spec_assembly import Splits
from shardline_common.memory.store import MemoryStore
from tests.simulation.endings import ASSEMBLED, SPEC, run_with
from tests.simulation.faulty_ports import Switchboard

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "cut": lambda body: body[: len(body) // 2],
    "without its last byte": lambda body: body[:-1],
    "empty": lambda _: b"",
    "an error instead": lambda _: b'<?xml version="1.0"?><Error><Code>InternalError</Code></Error>',
}


class DamagingStore(MemoryStore):
    """Damages the n-th read of each key, and loses the response of each first create.

    So processes read what they have created themselves.
    """

    def __init__(self, number: int, damage: Damage) -> None:
        super().__init__(self._lose)
        self._number = number
        self._damage = damage
        self._reads: Counter[str] = Counter()
        self._lost: set[str] = set()
        self.damaged: set[str] = set()

    def _lose(self, when: str, operation: str, key: str) -> None:
        if (when, operation) == ("after", "create") and key not in self._lost:
            self._lost.add(key)
            raise StoreUnavailable("the response was lost")

    async def get(self, key: str) -> bytes:
        """The object's bytes, damaged once."""
        body = await super().get(key)
        self._reads[key] += 1
        if self._reads[key] != self._number:
            return body
        self.damaged.add(key)
        return self._damage(body)

    async def stream(self, key: str, *, offset: int = 0, size: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes, damaged once."""
        yield (await self.get(key))[offset:][:size]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_read_fails_no_job(damage: Damage, number: int, compression: str) -> None:
    output = SPEC.output.model_copy(update={"compression": compression})
    spec = SPEC.model_copy(update={"output": output})
    expected = run_with(Switchboard(), spec=spec)
    store = DamagingStore(number, damage)
    ending = run_with(Switchboard(), store=store, spec=spec)
    assert (ending.state, ending.message, ending.problems) == ("completed", "", [])
    assert ending.digest == expected.digest
    layout = Layout.of(spec)
    for part in ("outcome", "plan.json", "chain/") if number < 3 else ("chain/",):
        assert any(part in key.removeprefix(layout.root) for key in store.damaged), store.damaged


NEAR = {
    "dedup": None,
    "output": ASSEMBLED.output.model_copy(update={"splits": Splits(train=0.5, test=0.5, leak="near")}),
}


@pytest.mark.parametrize(
    ("changes", "damage", "number"),
    [
        *[({}, damage, number) for damage in ("cut", "an error instead") for number in (1, 2, 3)],
        (NEAR, "cut", 2),
    ],
)
def test_a_damaged_read_fails_no_assembled_job(changes: dict[str, Any], damage: str, number: int) -> None:
    spec = ASSEMBLED.model_copy(update=changes)
    expected = run_with(Switchboard(), spec=spec)
    store = DamagingStore(number, DAMAGES[damage])
    ending = run_with(Switchboard(), store=store, spec=spec)
    assert (ending.state, ending.message, ending.problems) == ("completed", "", [])
    assert ending.digest == expected.digest
    layout = Layout.of(spec)
    lists = [key for key in store.damaged if key.startswith(layout.decisions + "drops/")]
    assert lists or number == 3, store.damaged
    assert not changes or number == 3 or layout.moved in store.damaged
