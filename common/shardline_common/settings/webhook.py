"""The settings of the webhook."""

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class WebhookSettings(BaseModel):
    """Where notifications of ended attempts go, how they are signed, and how long they are retried."""

    webhook_url: str | None = setting(
        None,
        "URL that gets a notification of each ended attempt; none: no notifications",
        "SHARDLINE_WEBHOOK_URL",
    )
    webhook_secret: SecretStr | None = setting(
        None, "secret of the signature: whsec_ and 24 to 64 bytes in base64", "SHARDLINE_WEBHOOK_SECRET"
    )
    webhook_allow_http: bool = setting(
        False,
        "true: the URL may be http:// on another machine; anyone on the network path can read the "
        "notifications",
        "SHARDLINE_WEBHOOK_ALLOW_HTTP",
    )
    webhook_ca_file: str | None = setting(
        None, "CA bundle (PEM) for the URL; none: the system's", "SHARDLINE_WEBHOOK_CA_FILE"
    )
    webhook_timeout_seconds: float = setting(
        15.0, "time-out of one attempt, in seconds", "SHARDLINE_WEBHOOK_TIMEOUT_SECONDS", gt=0
    )
    webhook_patience_seconds: float = setting(
        86_400.0,
        "seconds after which an undelivered notification is given up; `run` waits a minute at most",
        "SHARDLINE_WEBHOOK_PATIENCE_SECONDS",
        ge=0,
    )
