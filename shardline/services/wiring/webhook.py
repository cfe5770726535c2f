"""The wiring of settings to the webhook."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from shardline.services.wiring import CLOCK
from shardline_common.errors import ServiceUnavailable, UsageError
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardline_producer.notifications.webhook import Webhook, WebhookOptions

_CONNECT_SECONDS = 5.0


def webhook_options(settings: Settings) -> "WebhookOptions | None":
    """Return the webhook's options, or None when SHARDLINE_WEBHOOK_URL is not set.

    Raises:
        UsageError: the URL is not allowed, or the secret is missing or malformed.
    """
    if settings.webhook_url is None:
        return None
    if settings.webhook_secret is None:
        raise UsageError(
            "SHARDLINE_WEBHOOK_URL is set without a secret for the signature",
            hint="set SHARDLINE_WEBHOOK_SECRET or SHARDLINE_WEBHOOK_SECRET_FILE",
        )
    from shardline_producer.notifications.webhook import WebhookOptions, checked_url, signing_key

    return WebhookOptions(
        url=checked_url(settings.webhook_url, allow_http=settings.webhook_allow_http),
        key=signing_key(settings.webhook_secret.get_secret_value()),
        retry_seconds=settings.webhook_patience_seconds,
        timeout=settings.webhook_timeout_seconds,
        ca_file=settings.webhook_ca_file,
    )


@asynccontextmanager
async def open_receiver(
    settings: Settings, metrics: Metrics, *, at_most: float = float("inf")
) -> "AsyncIterator[Webhook | None]":
    """Open the receiver of notifications about ended attempts; None when no webhook is set.

    A notification is discarded after SHARDLINE_WEBHOOK_PATIENCE_SECONDS, or after `at_most` seconds if that
    is less.

    Raises:
        UsageError: as `webhook_options`.
    """
    options = webhook_options(settings)
    if options is None:
        yield None
        return
    from shardline_producer.notifications.webhook import open_webhook

    limited = replace(options, retry_seconds=min(options.retry_seconds, at_most))
    async with open_webhook(limited, CLOCK, metrics) as webhook:
        yield webhook


async def check_webhook(settings: Settings) -> str:
    """Connect to the webhook's host, without sending anything. Returns a sentence for `doctor`.

    Raises:
        UsageError: as `webhook_options`.
        ServiceUnavailable: the host does not accept a connection within 5 seconds.
    """
    options = webhook_options(settings)
    if options is None:
        return ""
    from yarl import URL

    from shardline_common.http.tls import tls_context

    url = URL(options.url)
    secure = tls_context(options.ca_file) if url.scheme == "https" else None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=secure)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer for {_CONNECT_SECONDS:.0f} s"
        hint = "check that it runs, and that SHARDLINE_WEBHOOK_CA_FILE has the CA of its certificate"
        raise ServiceUnavailable(f"{options.address} accepts no connection: {why}", hint=hint) from None
    writer.close()
    return f"{options.address} accepts connections; nothing was sent"
