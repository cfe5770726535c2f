"""The webhook against a real receiver: what it signs, how it tries again, what it gives up and refuses."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from standardwebhooks.webhooks import Webhook as Reference
from standardwebhooks.webhooks import WebhookVerificationError

from deploy.dev.service import free_ports
from shardline.services.doctor import Check, run_checks
from shardline.services.wiring.webhook import open_receiver, webhook_options
from shardline_common.errors import UsageError
from shardline_common.runtime.clock import SystemClock
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.notifications.webhook import Webhook, open_webhook
from tests.support.receiver import SECRET, Answer, receiving

BODY = json.dumps({"event": "job.completed", "name": "Gesetze äöü"}).encode()
AT_ONCE: list[Answer] = [(500, {}), (503, {}), (404, {})]


class Noting(SystemClock):
    """Time passes by the pauses alone, which are noted and pass at once."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return sum(self.pauses)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def sender(url: str, clock: SystemClock, **changes: float) -> AsyncIterator[tuple[Webhook, Metrics]]:
    options = webhook_options(Settings.model_validate({"webhook_url": url, "webhook_secret": SECRET}))
    assert options is not None
    metrics = Metrics()
    async with open_webhook(replace(options, **changes), clock, metrics) as found:  # type: ignore[arg-type]
        yield found, metrics


def tries(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("shardline_webhooks_total", {"outcome": outcome}) or 0.0


async def test_failures_then_taken() -> None:
    clock = Noting()
    with receiving(*AT_ONCE) as hook:
        async with sender(hook.url, clock) as (sent, metrics):
            await sent.deliver("laws_1", BODY)
        assert [one.id for one in hook.deliveries] == ["laws_1"] * 4
        assert {one.body for one in hook.deliveries} == {BODY}
        assert all(one.verified()["name"] == "Gesetze äöü" for one in hook.deliveries)
        assert (tries(metrics, "failed"), tries(metrics, "delivered")) == (3, 1)
    assert all(0 <= pause <= 0.5 * 2**number for number, pause in enumerate(clock.pauses, 1))


async def test_a_changed_byte_or_another_secret_is_not_verified() -> None:
    with receiving() as hook:
        async with sender(hook.url, Noting()) as (sent, _):
            await sent.deliver("laws_1", BODY)
        delivery = hook.deliveries[0]
    with pytest.raises(WebhookVerificationError):
        Reference(SECRET).verify(delivery.body.replace(b"Gesetze", b"Gesetzt"), dict(delivery.headers))
    with pytest.raises(WebhookVerificationError):
        Reference("whsec_" + "A" * 44).verify(delivery.body, dict(delivery.headers))


async def test_a_redirect_is_not_followed() -> None:
    with receiving() as other, receiving((307, {"location": other.url})) as hook:
        async with sender(hook.url, Noting()) as (sent, _):
            await sent.deliver("laws_1", BODY)
        assert len(hook.deliveries) == 2
        assert not other.deliveries


async def test_a_receiver_asks_for_a_pause_and_may_be_gone() -> None:
    clock = Noting()
    asked: list[Answer] = [(429, {"retry-after": "17"}), (503, {"retry-after": "999999"}), (410, {})]
    with receiving(*asked) as hook:
        async with sender(hook.url, clock) as (sent, metrics):
            await sent.deliver("laws_1", BODY)
        assert len(hook.deliveries) == 3
    assert clock.pauses == [17.0, 300.0]
    assert tries(metrics, "given_up") == 1


async def test_one_that_does_not_answer_is_left() -> None:
    with receiving(None) as hook:
        async with sender(hook.url, Noting(), timeout=3.0) as (sent, metrics):
            await sent.deliver("laws_1", BODY)
        assert len(hook.deliveries) == 2
        assert tries(metrics, "failed") == 1


async def test_one_that_is_away_is_given_up_and_no_secret_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Noting()
    (port,) = free_ports(1)
    with caplog.at_level(logging.DEBUG):
        async with sender(f"http://127.0.0.1:{port}/hidden-path", clock, retry_seconds=60) as (
            sent,
            metrics,
        ):
            await sent.deliver("laws_1", BODY)
            assert tries(metrics, "failed") >= 5
            assert (tries(metrics, "given_up"), tries(metrics, "delivered")) == (1, 0)
            assert "hidden-path" not in repr(sent._options) + str(sent._options)
    assert sum(clock.pauses) <= 60
    said = caplog.records[-1]
    assert said.levelno == logging.ERROR
    assert f"127.0.0.1:{port}" in said.getMessage()
    assert "check that it runs" in said.getMessage()
    assert "hidden-path" not in caplog.text
    assert SECRET[6:] not in caplog.text


async def opened(settings: Settings) -> None:
    async with open_receiver(settings, Metrics()) as receiver:
        assert receiver is not None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"webhook_url": "http://hooks.example.org/x"}, "can be read and changed on the network"),
        ({"webhook_url": "http://127.0.0.1.example.org/x"}, "can be read and changed on the network"),
        ({"webhook_url": "ftp://hooks.example.org/x"}, "is no URL"),
        ({"webhook_url": "hooks.example.org"}, "is no URL"),
        ({"webhook_url": "https://[::1/x"}, "is no URL"),
        ({"webhook_url": "https://me:word@hooks.example.org/x"}, "holds credentials"),
        ({"webhook_secret": None}, "without a secret for the signature"),
        ({"webhook_secret": "whsec_c2hvcnQ="}, "is not whsec_ and 24 to 64 bytes"),
        ({"webhook_secret": "no base64 at all, and long enough"}, "is not whsec_ and 24 to 64 bytes"),
        ({"webhook_ca_file": "none.pem"}, "none.pem cannot be read"),
    ],
)
async def test_what_will_not_do_is_refused_at_the_start(fields: dict[str, str], said: str) -> None:
    given = {"webhook_url": "https://hooks.example.org/x", "webhook_secret": SECRET} | fields
    with pytest.raises(UsageError, match=said) as refused:
        await opened(Settings.model_validate(given))
    text = f"{refused.value} {refused.value.hint}"
    assert not any(secret in text for secret in ("word@", "c2hvcnQ", "no base64", SECRET[6:]))


@pytest.mark.parametrize(
    "fields",
    [
        {"webhook_url": "https://hooks.example.org/x"},
        {"webhook_url": "http://localhost:8080"},
        {"webhook_url": "http://[::1]:8080/x"},
        {"webhook_url": "http://hooks.internal/x", "webhook_allow_http": True},
    ],
)
def test_what_will_do(fields: dict[str, object]) -> None:
    assert webhook_options(Settings.model_validate({"webhook_secret": SECRET} | fields)) is not None


async def test_doctor_tries_it_and_sends_nothing() -> None:
    async def found(url: str | None) -> Check:
        fields = {"kafka_bootstrap_servers": "127.0.0.1:9", "kafka_request_timeout_ms": 1000}
        settings = Settings.model_validate(fields | {"webhook_url": url, "webhook_secret": SECRET})
        return next(check for check in await run_checks(settings) if check.name == "webhook")

    with receiving() as hook:
        check = await found(hook.url)
        assert (check.ok, hook.deliveries) == (True, [])
    assert check.found == f"http://127.0.0.1:{hook.port} accepts connections; nothing was sent"
    away = await found(hook.url)
    assert (away.ok, "accepts no connection" in away.found) == (False, True)
    assert (await found("http://hooks.example.org")).ok is False
    assert (await found(None)).ok is None


def test_nobody_is_told_unless_asked_for() -> None:
    assert webhook_options(Settings()) is None
