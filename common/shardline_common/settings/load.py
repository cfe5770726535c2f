"""All settings, and loading them: flags > environment > .env > shardline.toml. Nothing is read at import."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values
from pydantic import ConfigDict, PrivateAttr, SecretStr, ValidationError

from shardline_common.errors import UsageError
from shardline_common.job.field_faults import did_you_mean, find_faults
from shardline_common.runtime.masking import MASK, SHORTEST_IN_PROSE
from shardline_common.settings.core import CoreSettings
from shardline_common.settings.gateway import GatewaySettings
from shardline_common.settings.kafka import KafkaSettings
from shardline_common.settings.sources import SourceSettings
from shardline_common.settings.tracing import TraceSettings
from shardline_common.settings.webhook import WebhookSettings


class Settings(WebhookSettings, TraceSettings, GatewaySettings, SourceSettings, CoreSettings, KafkaSettings):
    """Every setting of every process. Field names are those of shardline.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    # Field name → the environment name and the path of the file from which its value was read.
    _files: dict[str, tuple[str, str]] = PrivateAttr(default_factory=dict)

    def with_files(self, files: Mapping[str, tuple[str, str]]) -> Self:
        """The same settings, which know from which files their values were read."""
        found = self.model_copy()
        found._files = dict(files)  # noqa: SLF001 - of this class
        return found

    def has_file(self, *names: str) -> bool:
        """Whether one of these settings was read from a file of its own (NAME_FILE)."""
        return any(name in self._files for name in names)

    def current(self, name: str) -> str | None:
        """The value of a text or a secret. One from a file is read again: somebody may have renewed it.

        Raises:
            UsageError: the file cannot be read.
        """
        if name in self._files:
            return _read_file(*self._files[name]) or None
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    def secrets(self) -> list[str]:
        """The secret values, which must not appear in any output."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, the origin of each value, and warnings about old names."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)

    @property
    def short_secrets(self) -> list[str]:
        """A warning for each secret that is too short to be hidden within words, without its value."""
        return [
            f"{names_of(name)[0]} has fewer than {SHORTEST_IN_PROSE} characters: logs and errors hide it "
            "only where it stands as a value, not within words"
            for name in Settings.model_fields
            if isinstance(value := getattr(self.settings, name), SecretStr)
            and 0 < len(value.get_secret_value()) < SHORTEST_IN_PROSE
        ]

    def display_rows(self) -> list[tuple[str, str, str]]:
        """(name, value, origin) of every setting, with secrets masked."""
        values = {name: getattr(self.settings, name) for name in Settings.model_fields}
        return [(names_of(name)[0], masked(value), self.origins[name]) for name, value in values.items()]


def masked(value: object) -> str:
    """A value as text; a secret as asterisks."""
    if value is None:
        return ""
    return MASK if isinstance(value, SecretStr) else str(value)


def names_of(name: str) -> list[str]:
    """The environment names of a setting, the current one first."""
    extra: Any = Settings.model_fields[name].json_schema_extra
    return [*extra["names"], *extra["old"]]


def is_secret(name: str) -> bool:
    """Whether a setting is a secret."""
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def in_file(name: str) -> bool:
    """Whether a setting may stand in a file, which NAME_FILE names."""
    extra: Any = Settings.model_fields[name].json_schema_extra
    return is_secret(name) or bool(extra["in_file"])


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    flags_name: str = "flag",
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> LoadedSettings:
    """Load the settings of this process.

    Args:
        flags: field name → value; None is no flag.
        flags_name: the name of the flags in messages.
        environ: the environment; os.environ by default.
        folder: the folder of .env and shardline.toml; the working directory by default.

    Raises:
        UsageError: a value is invalid; the message names the setting, its origin and what is allowed.
    """
    folder = folder or Path.cwd()
    _check_names(flags or {}, flags_name)
    env_file = {name: value for name, value in dotenv_values(folder / ".env").items() if value is not None}
    layers = [
        (flags_name, {name: value for name, value in (flags or {}).items() if value is not None}),
        ("environment", _from_names(os.environ if environ is None else environ)),
        (".env", _from_names(env_file)),
        ("shardline.toml", _from_toml(folder / "shardline.toml")),
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    warnings = []
    files: dict[str, tuple[str, str]] = {}
    for origin, layer in reversed(layers):
        for name, value in layer.items():
            files.pop(name, None)
            if isinstance(value, _NamedValue) and value.path:
                files[name] = (value.name, value.path)
            values[name] = value.value if isinstance(value, _NamedValue) else value
            origins[name] = f"{origin} {value.name}" if isinstance(value, _NamedValue) else origin
            if isinstance(value, _NamedValue) and value.name in names_of(name) and value.old:
                warnings.append(f"{value.name} is an old name; use {names_of(name)[0]}")
    return LoadedSettings(_validated(values, origins).with_files(files), origins, warnings)


@dataclass(frozen=True, slots=True)
class _NamedValue:
    name: str
    value: str
    old: bool
    path: str = ""


def _from_names(environ: Mapping[str, str]) -> dict[str, _NamedValue]:
    found = {}
    for field_name, info in Settings.model_fields.items():
        extra: Any = info.json_schema_extra
        for name in names_of(field_name):
            old = name in extra["old"]
            if environ.get(name):
                found[field_name] = _NamedValue(name, environ[name], old)
                break
            if in_file(field_name) and environ.get(name + "_FILE"):
                # Absolute, because it is read again when the working directory may be another.
                path = os.path.abspath(environ[name + "_FILE"])  # noqa: PTH100 - Path.absolute keeps ".."
                value = _read_file(name + "_FILE", path)
                found[field_name] = _NamedValue(name + "_FILE", value, old, path)
                break
    return found


def _read_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {path} cannot be read: {error}") from None


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    _check_names(values, path.name)
    for name in values:
        if is_secret(name):
            raise UsageError(
                f"{path.name}: the secret '{name}' must not be in a file that is shared",
                hint=f"set {names_of(name)[0]} or {names_of(name)[0]}_FILE",
            )
    return values


def _check_names(values: Iterable[str], origin: str) -> None:
    for name in values:
        if name not in Settings.model_fields:
            near = did_you_mean(name, Settings.model_fields)
            hint = f"did you mean '{near}'?" if near else "docs/settings.md lists all"
            raise UsageError(f"{origin}: there is no setting '{name}'", hint=hint)


def _validated(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        fault = find_faults(error, Settings, values)[0]
        name = str(fault.path[0])
        meaning = Settings.model_fields[name].description if name in Settings.model_fields else ""
        # A text, such as a URL, may hold a password. No environment variable is null.
        shown = fault.got and not is_secret(name) and not any(mark in fault.got for mark in ("@", "://"))
        sentence = str(fault).removeprefix(f"{name}: ") if shown else fault.without_value
        sentence = sentence.replace(" or null", "").replace(", got the text ", ", got ")
        raise UsageError(
            f"{names_of(name)[0] if name in Settings.model_fields else name} "
            f"(from {origins.get(name, 'a flag')}): {sentence}",
            hint=meaning or None,
        ) from None
