"""From settings to the webhook."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from yarl import URL

from shardline.services.wiring import CLOCK
from shardline_common.errors import ServiceUnavailable, UsageError
from shardline_common.http.tls import tls_context
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.notifications.webhook import (
    Webhook,
    WebhookOptions,
    checked_url,
    open_webhook,
    signing_key,
)

_CONNECT_SECONDS = 5.0


def webhook_options(settings: Settings) -> WebhookOptions | None:
    """The webhook's options; None where nobody is to be told.

    Raises:
        UsageError: the URL or the secret will not do.
    """
    if settings.webhook_url is None:
        return None
    if settings.webhook_secret is None:
        raise UsageError(
            "SHARDLINE_WEBHOOK_URL is set, and no secret to sign with",
            hint="set SHARDLINE_WEBHOOK_SECRET or SHARDLINE_WEBHOOK_SECRET_FILE",
        )
    return WebhookOptions(
        url=checked_url(settings.webhook_url, allow_http=settings.webhook_allow_http),
        key=signing_key(settings.webhook_secret.get_secret_value()),
        give_up_seconds=settings.webhook_patience_seconds,
        timeout=settings.webhook_timeout_seconds,
        ca_file=settings.webhook_ca_file,
    )


@asynccontextmanager
async def open_receiver(
    settings: Settings, metrics: Metrics, *, most: float = float("inf")
) -> AsyncIterator[Webhook | None]:
    """Who is told how attempts end, if anybody; given up after `most` seconds at the latest.

    Raises:
        UsageError: a setting of the webhook will not do.
    """
    options = webhook_options(settings)
    if options is None:
        yield None
        return
    limited = replace(options, give_up_seconds=min(options.give_up_seconds, most))
    async with open_webhook(limited, CLOCK, metrics) as webhook:
        yield webhook


async def try_webhook(settings: Settings) -> str:
    """What `doctor` finds: the settings will do, and the receiver takes a connection. Nothing is sent.

    Raises:
        UsageError: a setting will not do.
        ServiceUnavailable: it takes no connection.
    """
    options = webhook_options(settings)
    if options is None:
        return ""
    url = URL(options.url)
    secure = tls_context(options.ca_file) if url.scheme == "https" else None
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=secure)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer for {_CONNECT_SECONDS:.0f} s"
        hint = "see that it runs, and which CA its certificate is of (SHARDLINE_WEBHOOK_CA_FILE)"
        raise ServiceUnavailable(f"{options.place} takes no connection: {why}", hint=hint) from None
    writer.close()
    return f"{options.place} takes connections; nothing was sent"
