"""Settings of the search stores become options: names, addresses, headers; secrets are not shown."""

from pathlib import Path

import pytest

from shardline.services.wiring.uds3 import body_stores, probes
from shardline.services.wiring.uds3_options import (
    chroma_options,
    couch_options,
    embedding_options,
    neo4j_options,
)
from shardline_common.errors import UsageError
from shardline_common.settings.load import Settings, load_settings
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.embedding.http_embedder import HttpEmbedder
from shardline_producer.sources.uds3.embedding.onnx_embedder import OnnxEmbedder
from shardline_producer.sources.uds3.embedding.sentence_embedder import SentenceEmbedder

SECRET = "do-not-show-me"  # noqa: S105 - of this test


def loaded(tmp_path: Path, **environ: str) -> Settings:
    return load_settings(environ=environ, folder=tmp_path).settings


def test_no_store_is_configured_by_default(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert (chroma_options(settings), neo4j_options(settings), couch_options(settings)) == (None, None, None)
    assert body_stores(settings) == []
    assert [(probe.name, probe.check) for probe in probes(settings)] == [
        ("chromadb", None),
        ("neo4j", None),
        ("couchdb", None),
    ]


def test_chromadb_settings_give_url_collection_and_headers(tmp_path: Path) -> None:
    options = chroma_options(loaded(tmp_path, CHROMADB_HOST="::1", CHROMADB_PORT="8001", CHROMA_TOKEN=SECRET))
    assert options is not None
    assert options.http.url == "http://[::1]:8001"
    assert (options.tenant, options.database, options.collection) == (
        "default_tenant",
        "default_database",
        "document_chunks",
    )
    assert options.http.headers == {"Authorization": f"Bearer {SECRET}"}
    named = {"CHROMA_HOST": "c", "CHROMA_TLS": "true", "CHROMA_TOKEN": SECRET}
    named |= {"CHROMA_TOKEN_HEADER": "X-Chroma-Token"}
    secure = chroma_options(loaded(tmp_path, **named))
    assert secure is not None
    assert secure.http.url == "https://c:8000"
    assert secure.http.headers == {"X-Chroma-Token": SECRET}
    assert SECRET not in repr(options) + repr(secure)


def test_neo4j_settings_give_a_uri_and_hide_the_password(tmp_path: Path) -> None:
    parts = neo4j_options(loaded(tmp_path, NEO4J_HOST="graph", NEO4J_PORT="7688"))
    assert parts is not None
    assert parts.uri == "bolt://graph:7688"
    environ = {"NEO4J_URI": "neo4j+s://graph.example", "NEO4J_HOST": "ignored", "NEO4J_PASSWORD": SECRET}
    whole = neo4j_options(loaded(tmp_path, **environ, UDS3_INCLUDE_ARCHIVED="true"))
    assert whole is not None
    assert (whole.uri, whole.include_archived) == ("neo4j+s://graph.example", True)
    assert SECRET not in repr(whole)


def test_couchdb_settings_give_url_and_basic_authentication(tmp_path: Path) -> None:
    environ = {"COUCHDB_HOST": "couch", "COUCHDB_USER": "u", "COUCHDB_PASSWORD": SECRET}
    found = load_settings(environ=environ, folder=tmp_path)
    options = couch_options(found.settings)
    assert options is not None
    assert options.http.url == "http://couch:5984"
    assert options.http.headers["Authorization"].startswith("Basic ")
    assert SECRET not in repr(options)
    assert "COUCHDB_USER is an old name; use COUCH_USER" in found.warnings
    assert options.database is None
    with pytest.raises(UsageError, match="COUCH_PASSWORD is set without COUCH_USER"):
        couch_options(loaded(tmp_path, COUCH_URL="https://couch/base/", COUCH_PASSWORD=SECRET))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COUCH_URL", f"http://u:{SECRET}@couch"),
        ("NEO4J_URI", f"bolt://u:{SECRET}@graph"),
        ("EMBEDDING_URL", f"http://u:{SECRET}@embed/v1/embeddings"),
        ("NEO4J_URI", "http://graph"),
        ("COUCH_URL", "couch:5984"),
    ],
)
def test_an_address_with_a_secret_or_without_a_scheme_is_refused(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(UsageError, match=name) as error:
        loaded(tmp_path, **{name: value})
    assert SECRET not in str(error.value)


def test_the_embedder_is_chosen_by_url_then_path_then_package(tmp_path: Path) -> None:
    def chosen(**environ: str) -> object:
        return make_embedder(embedding_options(loaded(tmp_path, **environ)))

    assert isinstance(chosen(), SentenceEmbedder)
    assert isinstance(chosen(EMBEDDING_MODEL_PATH="model"), OnnxEmbedder)
    assert isinstance(chosen(EMBEDDING_MODEL_PATH="model", EMBEDDING_URL="http://e"), HttpEmbedder)
