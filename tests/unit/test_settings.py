"""Settings: who goes before whom, and what is said of a wrong one."""

from pathlib import Path

import pytest

from shardline_common.errors import UsageError
from shardline_common.settings.load import load_settings

SECRET = "do-not-show-me"  # noqa: S105 - of this test


def test_flags_environment_env_file_toml_default(tmp_path: Path) -> None:
    (tmp_path / "shardline.toml").write_text(
        "max_jobs = 2\nuploads = 2\ns3_bucket = 'toml'\ns3_prefix = 'toml'\n"
    )
    (tmp_path / ".env").write_text("SHARDLINE_UPLOADS=3 # a comment\nS3_BUCKET='env file'\nS3_PREFIX=env\n")
    loaded = load_settings(
        {"metrics_port": 0, "log_level": None},
        environ={"S3_BUCKET": "environment", "SHARDLINE_METRICS_PORT": "1"},
        folder=tmp_path,
    )
    found = loaded.settings
    assert (found.max_jobs, found.uploads, found.s3_bucket, found.s3_prefix) == (2, 3, "environment", "env")
    assert (found.metrics_port, found.log_level) == (0, "INFO")
    assert loaded.origins["max_jobs"] == "shardline.toml"
    assert loaded.origins["uploads"] == ".env SHARDLINE_UPLOADS"
    assert loaded.origins["s3_bucket"] == "environment S3_BUCKET"
    assert loaded.origins["metrics_port"] == "flag"


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    loaded = load_settings(environ={"AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret")}, folder=tmp_path)
    secret = loaded.settings.aws_secret_access_key
    assert secret is not None
    assert secret.get_secret_value() == SECRET
    assert SECRET not in str(loaded.display_rows()) + repr(loaded)
    with pytest.raises(UsageError, match="KAFKA_SASL_PASSWORD_FILE"):
        load_settings(environ={"KAFKA_SASL_PASSWORD_FILE": "/no/such"}, folder=tmp_path)


def test_old_names_work_with_a_warning(tmp_path: Path) -> None:
    environ = {"CLARA_METRICS_PORT": "9999", "S3_ENDPOINT_URL": "http://s3", "CLARA_LOG_LEVEL": "DEBUG"}
    environ |= {"UDS3_POSTGRES_HOST": "db", "UDS3_POSTGRES_PASSWORD": SECRET}
    loaded = load_settings(environ=environ, folder=tmp_path)
    assert loaded.settings.metrics_port == 9999
    assert loaded.settings.aws_endpoint_url_s3 == "http://s3"
    assert (loaded.settings.postgres_host, loaded.settings.postgres_port) == ("db", 5432)
    assert "UDS3_POSTGRES_PASSWORD is an old name; use POSTGRES_PASSWORD" in loaded.warnings
    assert SECRET not in str(loaded.display_rows()) + str(loaded.warnings)
    assert "CLARA_METRICS_PORT is an old name; use SHARDLINE_METRICS_PORT" in loaded.warnings


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SHARDLINE_MAX_JOBS": "many"}, r"SHARDLINE_MAX_JOBS \(from environment SHARDLINE_MAX_JOBS\)"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"SHARDLINE_METRICS_PORT": "70000"}, 'from 0 to 65535, got "70000"'),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    tmp_path: Path, environ: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_settings(environ=environ, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_job = 1", "no setting 'max_job'"),
        ("[broken", "cannot be read"),
        ("aws_session_token = 'x'", "secret"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "shardline.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        load_settings(environ={}, folder=tmp_path)
