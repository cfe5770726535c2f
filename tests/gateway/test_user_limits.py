"""What is refused over a limit, and before a user is known: named in the audit log, and never filling it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shardline.gateway.problems import Problem
from shardline.gateway.public_text import PublicTexts, public_text
from shardline.gateway.rate_limits import client_address
from shardline.gateway.uds3_status import Uds3Status
from shardline_common.errors import SourceUnavailable
from shardline_common.settings.load import Settings
from tests.gateway.inprocess import gateway_in_memory
from tests.unit.test_gateway_parts import ManualClock


async def test_a_request_over_the_users_own_limit_names_the_user_in_the_audit_log(tmp_path: Path) -> None:
    limits = {"gateway_requests_per_minute": 3, "gateway_refusals_per_minute": 2}
    async with gateway_in_memory(tmp_path, **limits) as gateway:
        codes = [(await gateway.call("GET", "/api/datasets", "erika")).status for _ in range(50)]
        refused = [line for line in gateway.audit() if line["outcome"] == "429"]
        assert codes[:3] == [200, 200, 200]
        assert codes.count(429) >= 40
        # As many lines as the limit of refusals allows, with who it was.
        assert 1 <= len(refused) <= 5
        assert {(line["user"], line["user_id"], *line["roles"]) for line in refused} == {
            ("erika@example.org", "user-1", "trainer")
        }
        # Others are not limited by it.
        assert (await gateway.call("GET", "/api/datasets", "otto")).status == 200
        assert (await gateway.call("GET", "/api/datasets")).status == 401


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/api/datasets", {}),
        ("GET", "/api/datasets", {"authorization": "Bearer nobody"}),
        # The cookie of the page without an Origin, as a page of another site may cause it.
        ("POST", "/api/datasets/x/cancel", {"cookie": "shardline_token=erika"}),
        ("DELETE", "/api/datasets/x", {"cookie": "shardline_token=none"}),
        ("POST", "/sign-in", {}),
        ("GET", "/api/datasets/x/files/manifest.json?expires=1&signature=0", {}),
    ],
)
async def test_what_strangers_are_refused_is_limited_before_the_audit_log(
    tmp_path: Path, method: str, path: str, headers: dict[str, str]
) -> None:
    async with gateway_in_memory(tmp_path, gateway_refusals_per_minute=3) as gateway:
        codes = [(await gateway.call(method, path, headers=headers)).status for _ in range(40)]
        assert codes.count(429) >= 30
        assert 1 <= len(gateway.audit()) <= 8
        assert client_address({"client": (gateway.peer, 1)}) not in str(gateway.audit())


class Probed:
    """A probe that answers when it is told to."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.error: Exception | None = None
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        await self.answer.wait()
        if self.error is not None:
            raise self.error


def status_of(probe: Any, clock: ManualClock) -> Uds3Status:
    return Uds3Status(probe, frozenset({"vector"}), clock)  # type: ignore[arg-type]


async def test_a_probe_that_hangs_does_not_delay_the_health_of_the_gateway() -> None:
    probe, clock = Probed(), ManualClock()
    status = status_of(probe, clock)
    before = await status.latest()
    assert (before.age, before.reason) == (None, "UDS3 has not answered yet")
    probe.answer.set()
    assert await status.latest() == await status.latest()
    known = await status.latest()
    assert (known.reason, known.age, probe.calls) == (None, 0.0, 1)
    # It hangs again: the last known state stays, and grows old.
    probe.answer.clear()
    clock.time = 60.0
    found = await asyncio.gather(*(status.latest() for _ in range(20)))
    assert {(one.reason, one.age) for one in found} == {(None, 60.0)}
    assert probe.calls == 2
    await status.close()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceUnavailable("the database is away"), "the database is away"),
        (TimeoutError(), "does not answer within 4 s"),
        (ZeroDivisionError("bug"), "its probe failed"),
    ],
)
async def test_a_request_for_uds3_waits_for_its_probe(error: Exception, reason: str) -> None:
    probe, clock = Probed(), ManualClock()
    status = status_of(probe, clock)
    probe.error = error
    waiting = [asyncio.ensure_future(status.require()) for _ in range(3)]
    await asyncio.sleep(0)
    # One that gives up does not end the probe of the others.
    waiting.pop().cancel()
    await asyncio.sleep(0)
    probe.answer.set()
    for one in waiting:
        with pytest.raises(Problem, match=reason):
            await one
    assert (await status.latest()).reason is not None
    # Back again after the interval, and no earlier.
    probe.error = None
    with pytest.raises(Problem):
        await status.require()
    clock.time += 11
    await status.require()
    assert probe.calls == 2


async def test_health_tells_the_age_of_what_it_says(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        found = (await gateway.call("GET", "/health")).json()
        assert found["uds3_available"] is True
        assert 0 <= found["uds3_age_seconds"] < 60


def test_a_sentence_is_made_public_once() -> None:
    settings = Settings(postgres_host="db.example.org")
    texts = PublicTexts(settings)
    for sentence in ("db.example.org is away", "nothing to hide", "x" * 5_000 + " 10.0.0.7"):
        assert texts(sentence) == texts(sentence)
        assert texts(sentence) == public_text(sentence, frozenset({"db.example.org"}))
    assert texts("db.example.org is away") == "… is away"
    assert texts._of.cache_info().hits > 0
    for number in range(5_000):
        texts(f"sentence {number}")
    assert texts._of.cache_info().currsize < 1_000
