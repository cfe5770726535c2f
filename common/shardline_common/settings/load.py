"""Settings: flags > environment > .env > shardline.toml. Read when asked, never at import."""

import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from shardline_common.errors import UsageError
from shardline_common.settings.fields import setting as _setting
from shardline_common.settings.gateway import GatewaySettings
from shardline_common.settings.kafka import KafkaSettings
from shardline_common.settings.sources import SourceSettings
from shardline_common.settings.tracing import TraceSettings
from shardline_common.settings.webhook import WebhookSettings


class _PipelineSettings(BaseModel):
    """The settings of producer, worker and the commands."""

    aws_access_key_id: str | None = _setting(None, "S3 key; else the AWS chain", "AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = _setting(None, "its secret", "AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = _setting(None, "of temporary keys", "AWS_SESSION_TOKEN")
    aws_region: str | None = _setting(None, "S3 region", "AWS_REGION", "AWS_DEFAULT_REGION")
    aws_endpoint_url_s3: str | None = _setting(
        None,
        "URL of an S3-compatible store; none is AWS",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "S3_ENDPOINT_URL",
    )
    aws_ca_bundle: str | None = _setting(None, "CA bundle (PEM) of the store", "AWS_CA_BUNDLE")
    s3_bucket: str | None = _setting(None, "bucket of datasets", "S3_BUCKET")
    s3_prefix: str = _setting("", "prefix of all keys in it", "S3_PREFIX")
    s3_addressing_style: str = _setting(
        "auto", "auto, path or virtual", "S3_ADDRESSING_STYLE", pattern="^(auto|path|virtual)$"
    )
    s3_encryption: str | None = _setting(
        None,
        "server-side encryption that each put asks for: AES256, aws:kms or aws:kms:dsse",
        "S3_ENCRYPTION",
        "S3_SERVER_SIDE_ENCRYPTION",
        pattern="^(AES256|aws:kms|aws:kms:dsse)$",
    )
    s3_kms_key_id: str | None = _setting(
        None, "its key, for aws:kms; none is the bucket's own", "S3_KMS_KEY_ID"
    )
    s3_timeout_seconds: float = _setting(
        60.0, "a store that sends nothing for so long is taken for away", "SHARDLINE_S3_TIMEOUT_SECONDS", gt=0
    )
    spool_dir: Path = _setting(Path(tempfile.gettempdir()), "folder for open segments", "SHARDLINE_SPOOL_DIR")
    spool_bytes: int = _setting(
        8 << 30, "bytes of spool of one worker, over all jobs", "SHARDLINE_SPOOL_BYTES", ge=1 << 20
    )
    uploads: int = _setting(4, "shards that one worker puts at once", "SHARDLINE_UPLOADS", ge=1, le=64)
    spool_reserve_bytes: int = _setting(
        256 << 20, "free disk that the spool leaves to others", "SHARDLINE_SPOOL_RESERVE_BYTES", ge=0
    )
    max_jobs: int = _setting(4, "jobs that one producer runs at once", "SHARDLINE_MAX_JOBS", ge=1)
    topic_limit_bytes: int = _setting(
        1 << 30,
        "bytes a job's topic may hold that no chain holds; raised where open segments need more",
        "SHARDLINE_TOPIC_LIMIT_BYTES",
        ge=1 << 20,
    )
    topic_grace_seconds: float = _setting(
        60.0, "a job's topic is deleted so long after its end", "SHARDLINE_TOPIC_GRACE_SECONDS", ge=0
    )
    source_patience_seconds: float = _setting(
        900.0,
        "a source that is away for so long fails its job",
        "SHARDLINE_SOURCE_PATIENCE_SECONDS",
        ge=0,
    )
    stuck_seconds: float = _setting(
        300.0,
        "a process that tries one thing in vain for so long says that it is not ready",
        "SHARDLINE_STUCK_SECONDS",
        gt=0,
    )
    sweep_seconds: float = _setting(
        300.0,
        "how often a producer looks for topics that outlived their attempt",
        "SHARDLINE_SWEEP_SECONDS",
        gt=0,
    )
    shutdown_grace_seconds: float = _setting(
        25.0, "time to end after SIGTERM", "SHARDLINE_SHUTDOWN_GRACE_SECONDS", ge=0
    )
    progress_seconds: float = _setting(
        1.0, "how often a producer looks at the chains", "SHARDLINE_PROGRESS_SECONDS", gt=0
    )
    source_rate: float = _setting(
        0.0, "documents per second that a job may read; 0 is no limit", "SHARDLINE_SOURCE_RATE", ge=0
    )
    dead_letter_originals: bool = _setting(
        True, "keep the original bytes in dead letters", "SHARDLINE_DEAD_LETTER_ORIGINALS"
    )
    files_root: Path = _setting(Path(), "folder in which a producer may read the files of jobs", "FILES_ROOT")
    metrics_port: int = _setting(
        9310,
        "of /metrics, /healthz and /readyz; 0 is any free one",
        "SHARDLINE_METRICS_PORT",
        old=("CLARA_METRICS_PORT",),
        ge=0,
        le=65535,
    )
    metrics_host: str = _setting("0.0.0.0", "address they are bound to", "SHARDLINE_METRICS_HOST")  # noqa: S104 - scraped from outside of its container
    log_level: str = _setting(
        "INFO",
        "DEBUG, INFO, WARNING or ERROR",
        "LOG_LEVEL",
        old=("CLARA_LOG_LEVEL",),
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
    )
    log_format: str = _setting(
        "auto",
        "json, console, or auto: columns for people on a terminal and in commands for people, else JSON",
        "SHARDLINE_LOG_FORMAT",
        pattern="^(auto|json|console)$",
    )


class Settings(
    WebhookSettings, TraceSettings, GatewaySettings, SourceSettings, _PipelineSettings, KafkaSettings
):
    """Every setting of every process. Field names are those of shardline.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def secrets(self) -> list[str]:
        """The values that must be seen nowhere."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each value came from, and warnings about old names."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)

    def shown(self) -> list[tuple[str, str, str]]:
        """(name, value, origin) of every setting, secrets masked."""
        values = {name: getattr(self.settings, name) for name in Settings.model_fields}
        return [(_names(name)[0], _masked(value), self.origins[name]) for name, value in values.items()]


def _masked(value: object) -> str:
    if value is None:
        return ""
    return "********" if isinstance(value, SecretStr) else str(value)


def _names(name: str) -> list[str]:
    extra: Any = Settings.model_fields[name].json_schema_extra
    return [*extra["names"], *extra["old"]]


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Loaded:
    """The settings as they stand for this process.

    Args:
        flags: field name → value; None is no flag.
        environ: the environment; os.environ by default.
        folder: where .env and shardline.toml are looked for; the working directory by default.

    Raises:
        UsageError: naming the setting, where it was set, and what is allowed.
    """
    folder = folder or Path.cwd()
    env_file = {name: value for name, value in dotenv_values(folder / ".env").items() if value is not None}
    layers = [
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
        ("environment", _from_names(os.environ if environ is None else environ)),
        (".env", _from_names(env_file)),
        ("shardline.toml", _from_toml(folder / "shardline.toml")),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    warnings = []
    for origin, layer in reversed(layers):
        for name, value in layer.items():
            values[name] = value.value if isinstance(value, _Named) else value
            origins[name] = f"{origin} {value.name}" if isinstance(value, _Named) else origin
            if isinstance(value, _Named) and value.name in _names(name) and value.old:
                warnings.append(f"{value.name} is an old name; use {_names(name)[0]}")
    return Loaded(_validated(values, origins), origins, warnings)


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    value: str
    old: bool


def _from_names(environ: Mapping[str, str]) -> dict[str, _Named]:
    found = {}
    for field_name, info in Settings.model_fields.items():
        extra: Any = info.json_schema_extra
        for name in _names(field_name):
            old = name in extra["old"]
            if environ.get(name):
                found[field_name] = _Named(name, environ[name], old)
                break
            if "SecretStr" in str(info.annotation) and environ.get(name + "_FILE"):
                found[field_name] = _Named(name + "_FILE", _read_secret(name, environ[name + "_FILE"]), old)
                break
    return found


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}_FILE: {path} cannot be read: {error}") from None


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    for name in values:
        if name not in Settings.model_fields:
            near = get_close_matches(name, Settings.model_fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "docs/settings.md lists all"
            raise UsageError(f"{path.name}: there is no setting '{name}'", hint=hint)
        if "SecretStr" in str(Settings.model_fields[name].annotation):
            raise UsageError(
                f"{path.name}: the secret '{name}' does not belong into a file that is shared",
                hint=f"set {_names(name)[0]} or {_names(name)[0]}_FILE",
            )
    return values


def _validated(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        meaning = Settings.model_fields[name].description if name in Settings.model_fields else ""
        raise UsageError(
            f"{_names(name)[0] if name in Settings.model_fields else name} "
            f"(from {origins.get(name, 'a flag')}): {first['msg']}",
            hint=meaning or None,
        ) from None


def settings_reference() -> str:
    """All settings as a Markdown table."""
    lines = ["| environment | shardline.toml | default | meaning |", "|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        names = ", ".join(f"`{one}`" for one in _names(name))
        secret = "SecretStr" in str(info.annotation)
        if secret:
            names += f", `{_names(name)[0]}_FILE`"
        default = "the system's temporary folder" if name == "spool_dir" else _masked(info.default)
        key = "(secret)" if secret else f"`{name}`"
        lines.append(f"| {names} | {key} | {default} | {info.description} |")
    return "\n".join(lines) + "\n"
