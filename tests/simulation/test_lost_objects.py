"""An object that the store acknowledges and loses is put again, or the job ends with its name."""

import logging

import pytest

from shardline_common.job.names import job_key
from shardline_common.memory.store import MemoryStore
from tests.simulation.endings import LAYOUT, SPEC, run_with
from tests.simulation.faulty_ports import Switchboard

ALWAYS = 1 << 30
LOG_SECONDS = 31.0
REPEATED = {
    "acceptance": job_key(SPEC.job_id),
    "plan": LAYOUT.plan,
    "plan page": LAYOUT.plan_pages + "000000000000.json",
    "last chain record": LAYOUT.chain_record(1, 3),
    "outcome": LAYOUT.outcome(1),
    "manifest": LAYOUT.manifest,
    "card": LAYOUT.card,
    "_SUCCESS": LAYOUT.success,
}
FAILING = {
    "shard": (LAYOUT.data("train", 0, 0), "object_lost"),
    "last shard": (LAYOUT.data("train", 1, 3), "object_lost"),
    "rejected": (LAYOUT.rejected(1, 0), "object_lost"),
    "dead letters": (LAYOUT.dead_letters(1, 3), "object_lost"),
    "first chain record": (LAYOUT.chain_record(1, 0), "conservation"),
}


class LosingStore(MemoryStore):
    """Acknowledges the first creates of a key, and has no object."""

    def __init__(self, key: str, times: int) -> None:
        super().__init__(self._lose)
        self._key = key
        self._times = times
        self.lost = 0

    def _lose(self, when: str, operation: str, key: str) -> None:
        if (when, operation, key) == ("after", "create", self._key) and self.lost < self._times:
            self.lost += 1
            del self._objects[key]


@pytest.mark.parametrize("name", REPEATED)
def test_an_object_that_is_lost_once_is_put_again(name: str) -> None:
    expected = run_with(Switchboard())
    store = LosingStore(REPEATED[name], 1)
    ending = run_with(Switchboard(), store=store)
    assert (ending.state, ending.digest, ending.problems) == ("completed", expected.digest, [])
    assert store.lost == 1


@pytest.mark.parametrize("name", REPEATED)
def test_an_object_that_is_always_lost_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    ending = run_with(Switchboard(), store=LosingStore(REPEATED[name], ALWAYS))
    assert ending.code == "object_lost"
    assert REPEATED[name] in ending.message
    # A job that is decided stays so, and says why it is not published.
    decided = name in ("manifest", "card", "_SUCCESS")
    assert ending.state == ("completing" if decided else "JobFailed" if name == "acceptance" else "failed")
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) >= ending.seconds // LOG_SECONDS


@pytest.mark.parametrize("times", [1, ALWAYS])
@pytest.mark.parametrize("name", FAILING)
def test_a_lost_part_of_a_segment_fails_the_job(name: str, times: int) -> None:
    key, code = FAILING[name]
    ending = run_with(Switchboard(), store=LosingStore(key, times))
    assert (ending.state, ending.code) == ("failed", code)
    assert (key if code == "object_lost" else LAYOUT.chain(1)) in ending.message
