"""Downloads are limited as streams are, and those by signed links too, which need no token."""

from contextlib import ExitStack
from pathlib import Path

from tests.gateway.inprocess import gateway_in_memory
from tests.gateway.test_audit import completed

FILE = "/api/datasets/done/files/README.md"


async def test_downloads_by_links_are_limited_as_streams(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path, gateway_streams_per_user=2) as gateway:
        link = await completed(gateway)
        with ExitStack() as held:
            for _ in range(2):
                held.enter_context(gateway.context.limits.downloads.slot("link of user-1"))
            refused = await gateway.call("GET", link)
            assert refused.status == 429, refused.text
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["content-type"] == "application/problem+json"
            # The holder of the link is not locked out by those who use it.
            assert (await gateway.call("GET", FILE, "erika")).body == b"card"
        assert (await gateway.call("GET", link)).body == b"card"
        assert gateway.context.limits.downloads.open == 0


async def test_downloads_of_all_users_are_limited(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path, gateway_streams=1) as gateway:
        link = await completed(gateway)
        with gateway.context.limits.downloads.slot("someone"):
            for path, user in ((link, None), (FILE, "otto")):
                assert (await gateway.call("GET", path, user)).status == 429
            # Streams of rows have their own limit.
            assert gateway.context.limits.row_streams.open == 0


async def test_requests_with_links_are_limited_per_minute(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path, gateway_requests_per_minute=5) as gateway:
        link = await completed(gateway)
        codes = [(await gateway.call("GET", link)).status for _ in range(20)]
        assert codes[:5] == [200] * 5
        assert 429 in codes
        lines = len(gateway.audit())
        # Forged links are counted by address, before the audit log.
        forged = [(await gateway.call("GET", link[:-1] + "x")).status for _ in range(20)]
        assert set(forged) == {403, 429}
        assert len(gateway.audit()) - lines == forged.count(403) < 10
