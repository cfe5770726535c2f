"""The settings of the webhook that is told how jobs end."""

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class WebhookSettings(BaseModel):
    """Where it is told, how it is signed, and how patient the telling is (docs/webhooks.md)."""

    webhook_url: str | None = setting(
        None,
        "URL that is told when an attempt of a job has ended; none: nobody is told",
        "SHARDLINE_WEBHOOK_URL",
    )
    webhook_secret: SecretStr | None = setting(
        None, "signs what is told: whsec_ and 24 to 64 bytes in base64", "SHARDLINE_WEBHOOK_SECRET"
    )
    webhook_allow_http: bool = setting(
        False,
        "true: the URL may be http:// outside of this machine, too: anyone on the way can read what is told",
        "SHARDLINE_WEBHOOK_ALLOW_HTTP",
    )
    webhook_ca_file: str | None = setting(
        None, "CA bundle (PEM) of the URL; none is the system's", "SHARDLINE_WEBHOOK_CA_FILE"
    )
    webhook_timeout_seconds: float = setting(
        15.0, "an answer that takes so long counts as none", "SHARDLINE_WEBHOOK_TIMEOUT_SECONDS", gt=0
    )
    webhook_patience_seconds: float = setting(
        86_400.0,
        "what was told in vain for so long is given up; `run` waits for a minute at most",
        "SHARDLINE_WEBHOOK_PATIENCE_SECONDS",
        ge=0,
    )
