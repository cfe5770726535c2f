"""From settings to the webhook."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from common.errors import UsageError
from common.metrics import Metrics
from common.settings import Settings
from producer.webhook import Webhook, WebhookOptions, checked_url, open_webhook, signing_key
from shardline.wiring import CLOCK


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
        patience=settings.webhook_patience_seconds,
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
    limited = replace(options, patience=min(options.patience, most))
    async with open_webhook(limited, CLOCK, metrics) as webhook:
        yield webhook
