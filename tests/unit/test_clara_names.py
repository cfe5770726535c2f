"""The environment names of Clara and UDS3 work, with a warning for those that have a new name."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shardline_common.settings.load import Settings, load_settings

# name, what an .env file says behind the equals sign, field, what it means, the name to use today
NAMES = [
    ("STREAMING_ENABLED", "false", "streaming_enabled", False, None),
    ("STREAMING_BATCH_SIZE", "250", "streaming_batch_size", 250, None),
    ("CLARA_DATASET_PORT", "45682", "gateway_port", 45682, None),
    ("CLARA_METRICS_PORT", "9311", "metrics_port", 9311, "SHARDLINE_METRICS_PORT"),
    ("SHARDLINE_METRICS_PORT", "9312", "metrics_port", 9312, None),
    ("UDS3_ENABLED", "false", "uds3_enabled", False, None),
    ("CLARA_ENVIRONMENT", "production", "environment", "production", None),
    ("CLARA_SECURITY_MODE", "development", "security_mode", "development", None),
    ("SECURITY_MODE", "debug", "security_mode", "debug", "CLARA_SECURITY_MODE"),
    ("CLARA_LOG_LEVEL", "DEBUG", "log_level", "DEBUG", "LOG_LEVEL"),
    ("LOG_LEVEL", "WARNING", "log_level", "WARNING", None),
    ("CLARA_JWT_ENABLED", "false", "jwt_enabled", False, None),
    ("KEYCLOAK_URL", "https://sso.example.org", "keycloak_url", "https://sso.example.org", None),
    ("KEYCLOAK_REALM", "amt", "keycloak_realm", "amt", None),
    ("KEYCLOAK_CLIENT_ID", "clara", "keycloak_client_id", "clara", None),
    ("JWT_ALGORITHM", "RS256", "jwt_algorithm", "RS256", None),
    ("DEBUG_USER_ID", "u-1", "debug_user_id", "u-1", None),
    ("DEBUG_USER_EMAIL", "a@b.example", "debug_user_email", "a@b.example", None),
    ("DEBUG_USER_ROLES", "admin,trainer", "debug_user_roles", "admin,trainer", None),
    ("POSTGRES_HOST", "db", "postgres_host", "db", None),
    ("UDS3_POSTGRES_HOST", "db", "postgres_host", "db", "POSTGRES_HOST"),
    ("POSTGRES_PORT", "5433", "postgres_port", 5433, None),
    ("POSTGRES_USER", "reader", "postgres_user", "reader", None),
    ("POSTGRES_PASSWORD", "geheim", "postgres_password", SecretStr("geheim"), None),
    ("POSTGRES_DATABASE", "uds3", "postgres_database", "uds3", None),
    ("POSTGRES_SCHEMA", "akten", "postgres_schema", "akten", None),
    ("CHROMA_HOST", "chroma", "chroma_host", "chroma", None),
    ("CHROMADB_HOST", "chroma", "chroma_host", "chroma", "CHROMA_HOST"),
    ("CHROMA_PORT", "8001", "chroma_port", 8001, None),
    ("CHROMADB_PORT", "8001", "chroma_port", 8001, "CHROMA_PORT"),
    ("NEO4J_URI", "bolt://graph:7687", "neo4j_uri", "bolt://graph:7687", None),
    ("NEO4J_HOST", "graph", "neo4j_host", "graph", None),
    ("NEO4J_PORT", "7688", "neo4j_port", 7688, None),
    ("NEO4J_USER", "reader", "neo4j_user", "reader", None),
    ("NEO4J_PASSWORD", "geheim", "neo4j_password", SecretStr("geheim"), None),
    ("COUCH_URL", "http://couch:5984", "couch_url", "http://couch:5984", None),
    ("COUCHDB_HOST", "couch", "couch_host", "couch", None),
    ("COUCHDB_PORT", "5985", "couch_port", 5985, None),
    ("COUCH_USER", "reader", "couch_user", "reader", None),
    ("COUCHDB_USER", "reader", "couch_user", "reader", "COUCH_USER"),
    ("COUCH_PASSWORD", "geheim", "couch_password", SecretStr("geheim"), None),
    ("COUCHDB_PASSWORD", "geheim", "couch_password", SecretStr("geheim"), "COUCH_PASSWORD"),
    ("THEMIS_URL", "https://themis", "themis_url", "https://themis", None),
    ("THEMIS_TOKEN", "geheim", "themis_token", SecretStr("geheim"), None),
    ("THEMIS_TOKEN_READONLY", "geheim", "themis_token", SecretStr("geheim"), "THEMIS_TOKEN"),
    ("THEMIS_TOKEN_ADMIN", "geheim", "themis_token", SecretStr("geheim"), "THEMIS_TOKEN"),
]


@pytest.mark.parametrize(("name", "said", "field", "meant", "today"), NAMES, ids=[row[0] for row in NAMES])
def test_a_name_works_in_the_environment_and_in_dotenv(
    tmp_path: Path, name: str, said: str, field: str, meant: object, today: str | None
) -> None:
    (tmp_path / ".env").write_text(f"# Clara\n{name}={said}  # a comment behind the value\n")
    from_file = load_settings(environ={}, folder=tmp_path)
    assert getattr(from_file.settings, field) == meant
    assert from_file.origins[field] == f".env {name}"
    from_environment = load_settings(environ={name: said}, folder=tmp_path / "none")
    assert getattr(from_environment.settings, field) == meant
    expected = [f"{name} is an old name; use {today}"] if today else []
    assert from_file.warnings == from_environment.warnings == expected
    # The name of today goes before the old one.
    if today:
        both = load_settings(environ={name: said, today: said}, folder=tmp_path / "none")
        assert both.warnings == []


def test_every_secret_can_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("geheim\n")
    for field, info in Settings.model_fields.items():
        if "SecretStr" not in str(info.annotation):
            continue
        extra: Any = info.json_schema_extra
        for name in (*extra["names"], *extra["old"]):
            loaded = load_settings(environ={f"{name}_FILE": str(path)}, folder=tmp_path)
            assert getattr(loaded.settings, field) == SecretStr("geheim")
            assert "geheim" not in repr(loaded)
