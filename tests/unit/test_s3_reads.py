"""Reads and listings of S3 are whole, whatever a store or a proxy answers."""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import md5
from itertools import product

import pytest

from shardline_common.errors import JobFailed, SourceUnavailable, StoreUnavailable
from shardline_common.ports.store import ObjectInfo
from shardline_common.storage import s3_reads
from shardline_common.storage.s3 import S3Client, S3Options, S3Store, open_s3
from shardline_common.storage.s3_answers import Reading
from shardline_producer.sources.files.bucket_files import S3Files
from tests.support import lying_store as lying
from tests.support.lying_store import READ_LIES, Answer, Lie, LyingStore, listed, nonce

ATTEMPTS = 4
BODY = secrets.token_bytes(300_000)
ROWS = {f"in/part-{number}.jsonl": b'{"id": %d}\n' % number for number in range(10)}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pause", "longest"):
        monkeypatch.setattr(s3_reads._BACKOFF.__class__, name, lambda *_: 0.0)


@asynccontextmanager
async def reading(store: LyingStore) -> AsyncIterator[S3Client]:
    async with store.running() as url:
        options = S3Options(
            "b",
            endpoint_url=url,
            access_key_id="key",
            secret_access_key="secret",  # noqa: S106 - of no store
            addressing_style="path",
            attempts=ATTEMPTS,
        )
        async with open_s3(options) as client:
            yield client


async def frozen(client: S3Client, key: str = "k") -> dict[str, object]:
    return (await S3Files(client).find(f"s3://b/{key}"))[0]


async def source_bytes(client: S3Client, file: dict[str, object], offset: int = 0) -> bytes:
    return b"".join([chunk async for chunk in S3Files(client).stream(file, offset)])


async def test_a_source_object_is_whole_after_wrong_answers() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        for lie, times in product(READ_LIES, (1, ATTEMPTS - 1)):
            store.asked, store.lies = [], [lie] * times
            assert await source_bytes(client, file) == BODY, lie
            assert len(store.gets) == (1 if lie is lying.unframed else times + 1), lie


async def test_a_part_of_a_source_object_is_whole_after_wrong_answers() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        for lie, offset in product(READ_LIES, (1, 100_000, len(BODY) - 1, len(BODY))):
            store.lies = [lie]
            assert await source_bytes(client, file, offset) == BODY[offset:], (lie, offset)


async def test_a_source_object_that_stays_wrong_is_never_whole() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        for lie in READ_LIES:
            store.asked, store.lies = [], [lie] * 1000
            if lie is lying.unframed:
                assert await source_bytes(client, file) == BODY
            elif lie in (lying.longer, lying.longer_unframed, lying.other_etag):
                with pytest.raises(JobFailed, match="s3://b/k changed after the job was planned") as failed:
                    await source_bytes(client, file)
                assert failed.value.code == "source_changed"
            else:
                with pytest.raises(SourceUnavailable, match=r"s3://b at http.* cannot serve \(read k: ."):
                    await source_bytes(client, file)
            assert len(store.gets) < 100, lie


@pytest.mark.parametrize("size", [0, 1, 5, 1000])
async def test_a_small_source_object_is_itself_or_an_error(size: int) -> None:
    store = LyingStore({"k": BODY[:size]})
    async with reading(store) as client:
        file = await frozen(client)
        for lie, times in product(READ_LIES, (1, 1000)):
            store.lies = [lie] * times
            try:
                found = await source_bytes(client, file)
            except (SourceUnavailable, JobFailed):
                assert times > 1, lie
            else:
                assert found == BODY[:size], lie


async def test_a_body_is_read_on_where_it_broke() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        store.lies = [lying.endless, lying.short]
        assert await source_bytes(client, file) == BODY
    starts = [asked.headers.get("range", "bytes=0-") for asked in store.gets]
    assert [int(start[6:-1]) for start in starts] == sorted(int(start[6:-1]) for start in starts)
    assert int(starts[1][6:-1]) > 100_000
    assert int(starts[2][6:-1]) > 180_000


async def test_a_long_read_survives_more_breaks_than_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_reads, "_PROGRESS", 10_000)
    store = LyingStore({"k": BODY})

    def part(answer: Answer) -> Answer:
        return replace(answer, body=answer.body[:40_000], framed=False)

    async with reading(store) as client:
        file = await frozen(client)
        store.lies = [part] * 100
        assert await source_bytes(client, file) == BODY
    assert len(store.gets) > 2 * ATTEMPTS


async def test_a_store_that_ignores_ranges_is_read() -> None:
    def whole(answer: Answer) -> Answer:
        return Answer(200, {"ETag": answer.headers["ETag"]}, BODY)

    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        store.lies = [whole]
        assert await source_bytes(client, file, 70_000) == BODY[70_000:]


async def test_an_object_that_was_replaced_has_changed() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client)
        for body, offset in product((BODY + b"more", BODY[:-1], BODY[::-1], None), (0, 7, len(BODY))):
            store.objects = {} if body is None else {"k": body}
            with pytest.raises(JobFailed, match="s3://b/k changed") as failed:
                await source_bytes(client, file, offset)
            assert failed.value.code == "source_changed"


async def test_a_store_without_etags_is_read_by_size() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        file = await frozen(client) | {"version": ""}
        store.lies = [lambda answer: lying.endless(lying.no_etag(answer)), lying.no_etag]
        assert await source_bytes(client, file) == BODY


LENGTHS = (lying.halved, lying.half_chunked, lying.longer, lying.error_with_etag, lying.compressed_framed)


async def test_a_state_object_is_whole_after_wrong_answers() -> None:
    store = LyingStore({"p/k": BODY, "p/none": b""})
    async with reading(store) as client:
        own = S3Store(client, "b", "p")
        assert await own.get("none") == b""
        for lie, times in product(READ_LIES, (1, 2)):
            store.lies = [lie] * times
            assert await own.get("k") == BODY, lie
            if lie in LENGTHS:
                # Only the sha256 of its caller shows that a stream of the promised length is another one.
                continue
            store.lies = [lie] * times
            assert b"".join([chunk async for chunk in own.stream("k")]) == BODY, lie


async def test_a_state_object_that_stays_wrong_is_never_returned() -> None:
    store = LyingStore({"k": BODY, "first": b"1"})
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        await own.get("first")
        for lie in READ_LIES:
            store.asked, store.lies = [], [lie] * 1000
            if lie is lying.unframed:
                assert await own.get("k") == BODY
                continue
            with pytest.raises(StoreUnavailable, match=r"get k: "):
                await own.get("k")
            assert len(store.gets) < 100, lie


async def test_a_wrong_etag_of_a_broken_answer_is_not_kept() -> None:
    store = LyingStore({"k": b"small"})
    async with reading(store) as client:
        store.lies = [lambda answer: lying.endless(lying.other_etag(answer))]
        assert await S3Store(client, "b", "").get("k") == b"small"
    assert len(store.gets) == 2


async def test_etags_that_are_no_md5_are_compared_by_length() -> None:
    store = LyingStore({"k": BODY, "other": b"1"}, etag_of=lambda _: "ab" * 16)
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        assert [await own.get("k"), await own.get("other")] == [BODY, b"1"]
        assert len(store.gets) == ATTEMPTS + 1
    half = LyingStore({"k": BODY})
    async with reading(half) as client:
        half.lies = [lying.halved] * 1000
        with pytest.raises(StoreUnavailable, match="MD5"):
            await S3Store(client, "b", "").get("k")


RANGES = ((0, 100), (70_000, 150_000), (200_000, 100_000), (299_999, 1), (280_000, 999_999))


# These give the right bytes: no version is known before the first answer.
RIGHT_RANGES = (lying.unframed, lying.other_etag)


async def part_of(store: S3Store, offset: int, size: int) -> bytes:
    return b"".join([chunk async for chunk in store.stream("k", offset=offset, size=size)])


async def test_a_range_is_whole_after_wrong_answers() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        for lie, (offset, size) in product(READ_LIES, RANGES):
            times = ATTEMPTS - 1 if size == 1 else 1
            store.asked, store.lies = [], [lie] * times
            assert await part_of(own, offset, size) == BODY[offset : offset + size], (lie, offset)
            assert len(store.gets) == (1 if lie in RIGHT_RANGES else times + 1), (lie, offset)
            assert store.gets[0].headers["range"] == f"bytes={offset}-{offset + size - 1}"


async def test_a_range_that_stays_wrong_is_never_returned() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        for (offset, size), lie in product(RANGES[::4], READ_LIES):
            store.asked, store.lies = [], [lie] * 1000
            if lie in RIGHT_RANGES:
                assert await part_of(own, offset, size) == BODY[offset : offset + size]
            else:
                with pytest.raises(StoreUnavailable, match=r"read k: "):
                    await part_of(own, offset, size)
            assert len(store.gets) < 100, lie


def whole_object(_: Answer) -> Answer:
    """200 to a request of a range."""
    return Answer(200, {"ETag": f'"{md5(BODY, usedforsecurity=False).hexdigest()}"'}, BODY)


def part_to(end: int) -> Lie:
    """A part that begins where it should, and ends elsewhere."""

    def lie(answer: Answer) -> Answer:
        start = int(re.fullmatch(r"bytes (\d+)-.*", answer.headers["Content-Range"])[1])  # type: ignore[index]
        return replace(
            answer.having(Content_Range=f"bytes {start}-{end - 1}/{len(BODY)}"), body=BODY[start:end]
        )

    return lie


async def test_a_store_that_ignores_a_range_is_read_to_its_end() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        for offset, size in RANGES:
            expected = BODY[offset : offset + size]
            store.asked, store.lies = [], [whole_object] * 1000
            assert await part_of(own, offset, size) == expected
            assert len(store.gets) == 1
            # It breaks within the range, or has an error message at its end.
            for broken in (lying.endless, lying.padded, lying.short):
                store.lies = [lambda answer, broken=broken: broken(whole_object(answer))]  # type: ignore[misc]  # bound now
                assert await part_of(own, offset, size) == expected, (broken, offset)


async def test_an_error_behind_the_range_in_a_whole_body_is_never_a_part_of_it() -> None:
    # The body has the bytes of the range, but the last of them are an error message of a gateway.
    def broken(answer: Answer) -> Answer:
        promised = whole_object(answer).having(Content_Length=str(len(BODY)))
        return replace(promised, body=BODY[:99_900] + lying.ERROR + b" " * 200)

    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        store.lies = [broken]
        assert await part_of(S3Store(client, "b", ""), 50_000, 50_000) == BODY[50_000:100_000]
    assert len(store.gets) == 2


async def test_a_part_that_is_longer_than_the_range_is_asked_for_again() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        own = S3Store(client, "b", "")
        store.lies = [part_to(200_000)]
        assert await part_of(own, 50_000, 50_000) == BODY[50_000:100_000]
        assert len(store.gets) == 2
        store.lies = [part_to(200_000)] * 1000
        with pytest.raises(StoreUnavailable, match="goes on to byte 200000, 100000 is where it must end"):
            await part_of(own, 50_000, 50_000)


async def test_a_part_that_is_shorter_than_the_range_is_read_on() -> None:
    store = LyingStore({"k": BODY})
    async with reading(store) as client:
        store.lies = [part_to(90_000)]
        assert await part_of(S3Store(client, "b", ""), 50_000, 50_000) == BODY[50_000:100_000]
    ranges = [asked.headers["range"] for asked in store.gets]
    assert ranges[0] == "bytes=50000-99999"
    # What is passed on has more bytes of the same answer behind it.
    assert re.fullmatch(r"bytes=7\d{4}-99999", ranges[1])


async def test_an_object_that_is_replaced_while_a_range_is_read_is_an_error() -> None:
    store = LyingStore({"k": BODY})

    def replacing(answer: Answer) -> Answer:
        store.objects["k"] = BODY[::-1]
        return lying.endless(answer)

    async with reading(store) as client:
        store.lies = [replacing]
        with pytest.raises(StoreUnavailable, match="the object was replaced while it was read"):
            await part_of(S3Store(client, "b", ""), 50_000, 200_000)


def keys(found: list[ObjectInfo]) -> list[str]:
    return [info.key for info in found]


async def all_objects(client: S3Client) -> list[ObjectInfo]:
    return [info async for info in S3Store(client, "b", "").list("in/")]


def empty_page(number: int) -> Lie:
    return lambda _: Answer(200, {}, listed([], True, nonce(number)))


def repeated(_: Answer) -> Answer:
    return Answer(200, {}, listed(sorted(ROWS.items())[:3], True))


def no_token(_: Answer) -> Answer:
    return Answer(200, {}, listed([], True))


def foreign(_: Answer) -> Answer:
    return Answer(200, {}, listed([("out/x", b"")], False))


def reversed_page(_: Answer) -> Answer:
    return Answer(200, {}, listed(sorted(ROWS.items())[3:6][::-1], True))


def nothing(_: Answer) -> Answer:
    return Answer(200, {}, b"")


def login_page(_: Answer) -> Answer:
    return Answer(200, {"Content-Type": "text/html"}, b"<html><body><br>Log in</body></html>")


LIST_LIES = [*lying.PAGE_LIES, repeated, no_token, foreign, reversed_page, nothing, login_page]


def fine(answer: Answer) -> Answer:
    return answer


async def test_a_listing_is_whole_after_wrong_answers() -> None:
    store = LyingStore(ROWS)
    async with reading(store) as client:
        for lie in LIST_LIES:
            # The second page, because the lies of order show only behind the first.
            store.asked, store.list_lies = [], [fine, lie, lie]
            assert keys(await all_objects(client)) == sorted(ROWS), lie
            store.list_lies = [fine, *[lie] * 1000]
            with pytest.raises(StoreUnavailable, match=r"s3://b at .* \(list in/: "):
                await all_objects(client)
            assert len(store.lists) < 100, lie


async def test_empty_pages_do_not_end_a_listing() -> None:
    def at_token(number: int) -> Lie:
        return lambda _: Answer(200, {}, listed(sorted(ROWS.items())[3:6], True, nonce(number)))

    store = LyingStore(ROWS)
    async with reading(store) as client:
        store.list_lies = [fine, empty_page(1), empty_page(2), at_token(3)]
        store.list_lies += [lambda _: Answer(200, {}, listed(sorted(ROWS.items())[6:], False))]
        assert keys(await all_objects(client)) == sorted(ROWS)
        tokens = [asked.query.get("continuation-token") for asked in store.lists]
        assert tokens == [None, "in/part-2.jsonl", nonce(1), nonce(2), nonce(3)]


async def test_empty_pages_without_an_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_reads, "_MAX_IDLE_PAGES", 20)
    store = LyingStore(ROWS)
    async with reading(store) as client:
        store.list_lies = [empty_page(number) for number in range(100)]
        with pytest.raises(StoreUnavailable, match="20 pages of the list have no object"):
            await all_objects(client)
        store.list_lies = [empty_page(number % 3) for number in range(100)]
        with pytest.raises(StoreUnavailable, match="a page that was read before"):
            await all_objects(client)
    assert len(store.lists) < 40


@pytest.mark.parametrize("count", [b"<KeyCount>0</KeyCount>", b""])
async def test_a_store_that_does_not_count_its_keys_is_listed(count: bytes) -> None:
    def uncounted(answer: Answer) -> Answer:
        return replace(answer, body=re.sub(rb"<KeyCount>.*?</KeyCount>", count, answer.body))

    store = LyingStore(ROWS)
    async with reading(store) as client:
        store.list_lies = [uncounted] * 100
        assert keys(await all_objects(client)) == sorted(ROWS)
    assert len(store.lists) == 4


def in_pages(names: list[str]) -> list[Lie]:
    """The pages of a list in this order."""
    parts = [names[start : start + 3] for start in range(0, len(names), 3)]
    return [
        lambda _, part=part, number=number: Answer(  # type: ignore[misc]  # bound now
            200, {}, listed([(key, b"") for key in part], number < len(parts), nonce(number))
        )
        for number, part in enumerate(parts, 1)
    ]


KEYS = ["in/a-b/x", "in/a.b", "in/a/1", "in/a/2/3", "in/a0", "in/ü 🙂?&<%25", "in/\uffee"]
ORDERS = [
    sorted(KEYS),
    # A folder is sorted by its name without the slash behind it, or its files come behind those above.
    sorted(KEYS, key=lambda key: key.split("/")),
    sorted(KEYS, key=lambda key: (key.count("/"), key.encode())),
]


@pytest.mark.parametrize("names", ORDERS, ids=["bytes", "folders", "depth"])
async def test_each_order_of_folders_is_accepted(names: list[str]) -> None:
    store = LyingStore({})
    async with reading(store) as client:
        store.list_lies = in_pages(names)
        assert keys(await all_objects(client)) == names


async def test_a_source_needs_no_order_but_pages_that_differ() -> None:
    names = [*sorted(ROWS)[5:], *sorted(ROWS)[:5]]
    store = LyingStore(ROWS)
    async with reading(store) as client:
        store.list_lies = 2 * in_pages(names)
        found = await S3Files(client).find("s3://b/in/*.jsonl")
        assert [file["path"] for file in found] == [f"s3://b/{key}" for key in sorted(ROWS)]
        store.list_lies = 4 * in_pages(names)
        with pytest.raises(StoreUnavailable, match="twice, or out of order"):
            await all_objects(client)
        store.list_lies = [lambda _, number=number: repeated_at(number) for number in range(100)]  # type: ignore[misc]
        with pytest.raises(SourceUnavailable, match="a page that was read before"):
            await S3Files(client).find("s3://b/in/*.jsonl")
    assert len(store.lists) < 60


def repeated_at(number: int) -> Answer:
    """The same page, which leads to another one each time."""
    return Answer(200, {}, listed(sorted(ROWS.items())[:3], True, nonce(number)))


async def test_a_plan_of_a_pattern_is_proven_by_a_second_listing() -> None:
    store = LyingStore(ROWS | {"in/deep/x.jsonl": b""})
    everything = [f"s3://b/{key}" for key in sorted(ROWS)]
    short_page = Answer(200, {}, listed(sorted(ROWS.items())[:2], False))
    async with reading(store) as client:
        files = S3Files(client)
        for wrong in (short_page, Answer(200, {}, listed([], False))):
            store.list_lies = [lambda _, page=wrong: page]  # type: ignore[misc]  # bound now
            assert [file["path"] for file in await files.find("s3://b/in/*.jsonl")] == everything
        # The second listing is the short one.
        pages = len(ROWS) // lying.PAGE + 1
        store.list_lies = [fine] * pages + [lambda _: short_page]
        assert [file["path"] for file in await files.find("s3://b/in/*.jsonl")] == everything
        store.list_lies = [
            lambda _, number=number: Answer(200, {}, listed([(f"in/{number}.jsonl", b"")], False))  # type: ignore[misc]
            for number in range(50)
        ]
        with pytest.raises(SourceUnavailable, match=r"s3://b/in/\d\.jsonl is in one of two lists"):
            await files.find("s3://b/in/*.jsonl")
        store.list_lies = []
        assert await files.find("s3://b/none") == []


def test_an_end_that_a_store_claims_is_checked() -> None:
    known = Reading("b", "k", "read k", 5, 10)
    unknown = Reading("b", "k", "read k", 5)
    with pytest.raises(Exception, match="byte 5 is behind the end"):
        known.is_at_end({"content-range": "bytes */5"})
    with pytest.raises(Exception, match="byte 5 is behind the end"):
        unknown.is_at_end({"content-range": "bytes */9"})
    assert unknown.is_at_end({"content-range": "bytes */5"})
    assert unknown.is_at_end({})
