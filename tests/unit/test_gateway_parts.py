"""The pure modules of the gateway: ranges, links, limits, names, and the job of a request."""

import asyncio
import json
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline.gateway.http_headers import RangeNotSatisfiable, content_disposition, parse_range
from shardline.gateway.jwks import JwksCache, JwksPolicy, JwksUnavailable, jwks_fetcher
from shardline.gateway.problems import Problem
from shardline.gateway.rate_limits import RateLimit, StreamLimit
from shardline.gateway.request_models import CreateRequest, job_from_request, make_job_id
from shardline.gateway.signed_links import LinkSigner
from shardline_common.job.spec import slugify
from shardline_common.runtime.token_bucket import TokenBucket
from tests.gateway.realm import Realm
from tests.gateway.system import body


class ManualClock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> object:
        raise NotImplementedError

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


@given(st.integers(0, 1000), st.integers(0, 1200), st.integers(0, 1200))
def test_a_range_gives_the_same_bytes_as_slicing(size: int, first: int, last: int) -> None:
    content = bytes(number % 251 for number in range(size))
    for header, expected in (
        (f"bytes={first}-{last}", content[first : last + 1]),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[max(0, size - last) :] if last else b""),
    ):
        try:
            found = parse_range(header, size)
        except RangeNotSatisfiable:
            assert expected == b""
            continue
        if found is None:
            assert header == f"bytes={first}-{last}"
            assert last < first
        else:
            assert content[slice(*found)] == expected != b""


@given(st.text(max_size=40))
def test_any_range_header_is_harmless(header: str) -> None:
    try:
        found = parse_range(header, 10)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found[0] < found[1] <= 10


@given(st.text(min_size=1, max_size=40), st.text(max_size=60), st.integers(1, 1 << 40))
def test_a_link_is_valid_for_its_file_until_it_expires(dataset: str, file: str, expires: int) -> None:
    signer = LinkSigner(b"key")
    query = parse_qs(urlsplit(signer.link("id", "f", expires)).query)
    signature = query["signature"][0]
    assert signer.verify("id", "f", expires, signature, expires - 1)
    assert not signer.verify("id", "f", expires, signature, expires)
    assert not signer.verify("id", "f", expires + 1, signature, 0)
    assert not LinkSigner(b"other").verify("id", "f", expires, signature, 0)
    if (dataset, file) != ("id", "f"):
        assert not signer.verify(dataset, file, expires, signature, 0)


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 20))
def test_a_bucket_never_gives_more_than_its_rate(gaps: list[float], per_minute: int) -> None:
    bucket, now, taken = TokenBucket(60 / per_minute, float(per_minute)), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now) == 0.0
    assert taken <= per_minute + now * per_minute / 60 + 1e-6


@given(st.floats(0, 1e7), st.integers(1, 1200))
def test_a_full_bucket_gives_all_its_tokens_at_once(now: float, per_minute: int) -> None:
    bucket = TokenBucket(60 / per_minute, float(per_minute))
    assert [bucket.take(now) for _ in range(per_minute)] == [0.0] * per_minute
    assert bucket.take(now) == round(60 / per_minute, 9)


def test_a_refused_request_has_retry_after() -> None:
    clock = ManualClock()
    limit = RateLimit(2, clock)  # type: ignore[arg-type]
    limit.take("a")
    limit.take("a")
    limit.take("b")
    with pytest.raises(Problem) as refused:
        limit.take("a")
    assert refused.value.headers == {"Retry-After": "30"}
    clock.time += 30
    limit.take("a")


def test_stream_slots_are_released() -> None:
    limit = StreamLimit(2, 1)
    with limit.slot("a"), limit.slot("b"):
        for user in ("a", "c"):
            with pytest.raises(Problem), limit.slot(user):
                pass
    with limit.slot("a"), limit.slot("c"):
        pass


@given(st.text(min_size=1, max_size=60))
def test_a_file_name_survives_in_the_header(name: str) -> None:
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        return
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert unquote(header.partition("filename*=UTF-8''")[2]) == name
    plain = header.partition('filename="')[2].partition('"')[0]
    assert "/" not in plain
    assert "\\" not in plain


@pytest.mark.parametrize(
    "name", ["Straßenbau 2026", "Über_uns", "„Zitat“ und 'mehr'", 'with "quotes"', "日本語データ", "a_b"]
)
def test_names_of_any_script_are_accepted(name: str) -> None:
    request = CreateRequest.model_validate(body(name=name) | {"name": name})
    spec = job_from_request(request, make_job_id(name, None), "erika")
    assert (spec.name, spec.submitted_by) == (name, "erika")
    assert spec.job_id.startswith(slugify(name)[:50].rstrip("-"))


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "abc\n", "<script>", "a@b", "_ _", "   ", "a\x00b"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        CreateRequest.model_validate(body() | {"name": name})


def test_a_request_becomes_the_matching_job() -> None:
    request = CreateRequest.model_validate(
        body(
            "Dach",
            search_types=["relational", "vector"],
            weights={"relational": 0.7, "vector": 0.3},
            filters={"domain": ["a", "b"], "pages": {"gte": 3}},
            min_quality_score=0.7,
            description="Zweck",
        )
    )
    spec = job_from_request(request, "id-1", "erika")
    assert spec.source.type == "uds3"
    assert spec.query.search_types == ["keyword", "vector"]
    assert spec.query.weights == {"keyword": 0.7, "vector": 0.3}
    assert (spec.query.text, spec.query.top_k, spec.quality.min_score) == ("Dach", 1000, 0.7)
    assert spec.purpose == "Zweck"
    assert make_job_id("x y", "key") == make_job_id("x y", "key") != make_job_id("x y", None)


@pytest.mark.parametrize("url", ["https://keycloak:port/realms/vcc", "https://[keycloak/realms/vcc"])
async def test_a_realm_without_a_valid_url_makes_requests_fail_and_not_the_start(url: str) -> None:
    fetch = jwks_fetcher(url)
    with pytest.raises(JwksUnavailable, match="the keys of the realm cannot be read"):
        await fetch()


async def test_keys_are_fetched_for_a_new_id_once_an_interval() -> None:
    realm, clock, calls = Realm(), ManualClock(), 0

    async def fetch() -> dict[str, object]:
        nonlocal calls
        calls += 1
        if realm.away:
            raise JwksUnavailable("away")
        document: dict[str, object] = json.loads(realm.document())
        return document

    jwks = JwksCache(fetch, clock, JwksPolicy(600, 3600, 10))  # type: ignore[arg-type]
    assert await jwks.get("first") is not None
    assert await jwks.get("second") is None
    assert calls == 1
    realm.add("second")
    clock.time = 11
    found = await asyncio.gather(*(jwks.get("second") for _ in range(10)))
    assert all(found)
    assert calls == 2
    # While the realm is away, cached keys are used until they are too old.
    realm.away = True
    clock.time = 700
    assert await jwks.get("first") is not None
    clock.time = 4000
    with pytest.raises(JwksUnavailable):
        await jwks.get("first")
    # A withdrawn key is used until the cache is stale.
    realm.away = False
    del realm.keys["first"]
    clock.time = 5000
    assert await jwks.get("first") is None


async def test_a_realm_that_hangs_does_not_delay_those_whose_key_is_known() -> None:
    realm, clock, answers = Realm(), ManualClock(), asyncio.Event()

    async def fetch() -> dict[str, object]:
        await answers.wait()
        document: dict[str, object] = json.loads(realm.document())
        return document

    answers.set()
    jwks = JwksCache(fetch, clock, JwksPolicy(600, 3600, 10, wait_seconds=0.05))  # type: ignore[arg-type]
    assert await jwks.get("first") is not None
    clock.time = 700
    answers.clear()
    async with asyncio.timeout(60):
        assert all(await asyncio.gather(*(jwks.get("first") for _ in range(50))))
    # A fetch that is answered while they wait decides: a withdrawn key is no longer accepted.
    del realm.keys["first"]
    realm.add("second")
    answers.set()
    async with asyncio.timeout(60):
        while await jwks.get("first") is not None:
            await asyncio.sleep(0)
    assert await jwks.get("second") is not None
    clock.time = 1400
    answers.clear()
    assert await jwks.get("second") is not None
    await jwks.close()
    assert len(asyncio.all_tasks()) == 1
