"""`doctor` over the object store: each part is reported, also when others fail."""

from collections import Counter
from functools import partial

import pytest

from shardline.services import doctor, store_check
from shardline.services.doctor import Check, run_checks
from shardline.services.report import report_all
from shardline_common.errors import ShardlineError
from shardline_common.settings.load import Settings
from shardline_common.storage.probe import probe_create_only
from tests.support.small_s3 import SmallS3, small_s3


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_check, "probe_create_only", partial(probe_create_only, rounds=1))


async def checked(server: SmallS3) -> Check:
    settings = server.settings(kafka_bootstrap_servers="127.0.0.1:9", kafka_request_timeout_ms=1000)
    return next(check for check in await run_checks(settings) if check.name == "object store")


async def test_every_part_of_a_good_store_is_reported() -> None:
    async with small_s3() as server:
        found = await checked(server)
        assert found.ok, found.found
        parts = ("lists", "12 rounds of 12 at once", "deletes", "clock agrees", "keeps no versions")
        assert all(part in found.found for part in parts), found.found
        assert server.objects == {}
        server.versioning = "<Status>Enabled</Status>"
        assert "keeps versions of deleted objects" in (await checked(server)).found


@pytest.mark.usefixtures("one_round")
@pytest.mark.parametrize(
    ("request_", "said", "lost"),
    [
        ("ListObjectsV2", "AccessDenied", ("it lists",)),
        ("PutObject", "AccessDenied", ("create-only", "it deletes")),
        ("GetObject", "AccessDenied", ("create-only", "it deletes")),
        ("DeleteObjects", "AccessDenied", ("it deletes",)),
    ],
)
async def test_a_part_that_is_refused_does_not_hide_the_others(
    request_: str, said: str, lost: tuple[str, ...]
) -> None:
    async with small_s3() as server:
        server.refused[request_] = (403, said)
        found = await checked(server)
    assert found.ok is False
    assert said in found.found
    parts = ("it lists", "create-only", "it deletes", "clock agrees", "keeps no versions")
    assert [part for part in parts if part not in found.found] == list(lost)


@pytest.mark.usefixtures("one_round")
async def test_the_right_to_ask_for_versions_is_not_needed() -> None:
    async with small_s3() as server:
        server.refused["GetBucketVersioning"] = (403, "AccessDenied")
        found = await checked(server)
    assert found.ok
    assert "does not say whether the bucket keeps versions" in found.found


@pytest.mark.usefixtures("one_round")
@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [
        (60, True, "s ahead of"),
        (-60, True, "s behind"),
        (1000, False, "s ahead of"),
        (-1000, False, "s behind"),
    ],
)
async def test_the_seconds_between_the_clocks_are_named(ahead: int, ok: bool, said: str) -> None:
    async with small_s3() as server:
        server.ahead = ahead
        found = await checked(server)
    assert found.ok is ok
    seconds = [f"its clock is {abs(ahead) + off} {said} this machine's" for off in (-2, -1, 0, 1, 2)]
    assert any(one in found.found for one in seconds), found.found


@pytest.mark.usefixtures("one_round")
async def test_the_clock_is_read_from_a_refusal_too() -> None:
    async with small_s3() as server:
        server.ahead = 2000
        requests = ("ListObjectsV2", "PutObject", "GetObject", "DeleteObjects", "GetBucketVersioning")
        server.refused = dict.fromkeys(requests, (403, "RequestTimeTooSkewed"))
        found = await checked(server)
    assert found.ok is False
    assert "RequestTimeTooSkewed" in found.found
    assert "s ahead of this machine's" in found.found


@pytest.mark.usefixtures("one_round")
async def test_a_burst_of_conflicts_longer_than_the_clients_attempts_is_waited_for() -> None:
    async with small_s3() as server:
        puts: Counter[str] = Counter()

        def conflict(name: str, key: str) -> None:
            puts[key] += name == "PutObject"
            busy = name == "PutObject" and key.endswith("-1-1") and puts[key] <= 75
            server.refused = {"PutObject": (409, "ConditionalRequestConflict")} if busy else {}

        server.on_request = conflict
        found = await checked(server)
    assert found.ok, found.found
    assert max(puts.values()) > 75


@pytest.mark.usefixtures("one_round")
async def test_a_delete_without_effect_is_found() -> None:
    async with small_s3() as server:
        kept: dict[str, bytes] = {}

        def put_back(name: str, _: str) -> None:
            if name == "GetObject":
                server.objects |= kept
            kept.update(server.objects)

        server.on_request = put_back
        found = await checked(server)
    assert found.ok is False
    assert "says that it has deleted _probe/" in found.found


async def test_an_unexpected_error_does_not_hide_the_other_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Settings) -> str:
        raise ZeroDivisionError("of a client")

    monkeypatch.setattr(doctor, "_spool", broken)
    found = {check.name: check for check in await run_checks(Settings(kafka_bootstrap_servers="127.0.0.1:9"))}
    assert found["spool folder"].ok is False
    assert "ZeroDivisionError: of a client" in found["spool folder"].found
    assert {"kafka", "files", "webhook", "neo4j"} <= found.keys()


async def test_all_errors_of_a_report_are_named_once() -> None:
    async def fine() -> str:
        return "fine"

    async def wrong() -> str:
        raise ShardlineError("wrong", hint="mend it")

    async def broken() -> str:
        raise KeyError("x")

    with pytest.raises(ShardlineError, match=r"^wrong; mend it; KeyError: 'x'; report it as a bug; fine$"):
        await report_all((wrong, fine, wrong, broken))
