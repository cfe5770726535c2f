"""The text search configuration is read from the SQL that makes a search vector."""

import pytest

from shardline_producer.sources.uds3.postgres.schema import PostgresColumn, PostgresTable
from shardline_producer.sources.uds3.postgres.search_configs import (
    KnownConfigs,
    SearchConfig,
    SqlSource,
    default_config,
    find_config,
    setup_sql,
)

_NAMES = ("german", "english", "simple", "french")
KNOWN = KnownConfigs(
    [
        *(("pg_catalog", name, f"pg_catalog.{name}") for name in _NAMES),
        ("public", "hunspell", "public.hunspell"),
        ("laws", "hunspell", "laws.hunspell"),
        ("public", "My Config", 'public."My Config"'),
        ("far", "only", "far.only"),
    ],
    "pg_catalog.french",
)
COLUMNS = {"lang": "lang", "content": "content"}
TRIGGER = "CREATE TRIGGER t BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION {}"
UPDATE = TRIGGER.format("tsvector_update_trigger('search_vector', '{}', 'content')")
VECTOR = "NEW.search_vector := {};"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("new.search_vector := setweight(to_tsvector('english', new.content), 'A')", "english"),
        ("to_tsvector ( 'pg_catalog.simple', x)", "simple"),
        ("NEW.search_vector := to_tsvector('hunspell'::regconfig, NEW.content);", "public.hunspell"),
        ("SELECT to_tsvector('laws.hunspell'::pg_catalog.regconfig, x)", "laws.hunspell"),
        ("""to_tsvector('public."My Config"', x)""", 'public."My Config"'),
        ("to_tsvector(CAST('only' AS regconfig), x)", "far.only"),
        ("to_tsvector('GERMAN'::text::regconfig, x)", "german"),
        ("jsonb_to_tsvector('simple', NEW.body, '[\"all\"]')", "simple"),
        (
            TRIGGER.format("tsvector_update_trigger('search_vector', 'pg_catalog.french', 'content')"),
            "french",
        ),
        (
            TRIGGER.format("tsvector_update_trigger('search_vector', 'public.hunspell', 'a')"),
            "public.hunspell",
        ),
        # The call that makes the vector, and in it the call over the content, and no comment.
        (
            "NEW.other := to_tsvector('simple', NEW.id); NEW.search_vector := to_tsvector('german', x);",
            "german",
        ),
        (
            "NEW.search_vector := to_tsvector('simple', NEW.id) || to_tsvector('german', NEW.content);",
            "german",
        ),
        (
            "-- to_tsvector('simple', x)\n/* to_tsvector('simple', x) */ to_tsvector('german', '--' || x)",
            "german",
        ),
        # Variables of a function, arguments of a trigger, and the database's default.
        ("DECLARE cfg CONSTANT regconfig := 'hunspell'; BEGIN v := to_tsvector(cfg, x)", "public.hunspell"),
        ("to_tsvector(TG_ARGV[1]::regconfig, NEW.content)", "english"),
        ("NEW.search_vector := to_tsvector(NEW.content)", "french"),
        ("to_tsvector(get_current_ts_config(), NEW.content)", "french"),
        # Functions that are called.
        ("NEW.search_vector := law_vector(NEW.content);", "simple"),
        ("NEW.search_vector := public.vector_in('hunspell', NEW.content);", "public.hunspell"),
        ("NEW.search_vector := vector_at('english', NEW.content);", "english"),
    ],
)
def test_the_configuration_is_read_from_sql(text: str, expected: str) -> None:
    functions = {
        "law_vector": "CREATE FUNCTION public.law_vector(t text) … SELECT inner_vector(t)",
        "inner_vector": "CREATE FUNCTION inner_vector(t text) … SELECT to_tsvector('simple', t)",
        "vector_in": "CREATE FUNCTION public.vector_in(cfg regconfig, t text) … SELECT to_tsvector(cfg, t)",
        "vector_at": "CREATE FUNCTION vector_at(text, text) … SELECT to_tsvector($1::regconfig, $2)",
        "unused": "SELECT to_tsvector('german', t)",
    }
    sources = [SqlSource("nothing", "SELECT 1"), SqlSource("here", text, "'simple', 'english'")]
    found = find_config(sources, functions, COLUMNS, KNOWN, "public")
    assert found is not None
    assert (found.name, found.column) == (expected, "")
    assert found.place.startswith("here")


@pytest.mark.parametrize(
    "text",
    [
        TRIGGER.format("tsvector_update_trigger_column('search_vector', 'lang', 'content')"),
        "NEW.search_vector := to_tsvector(NEW.lang, NEW.content)",
        "to_tsvector(lang::regconfig, content)",
    ],
)
def test_a_column_may_have_the_configuration_of_each_row(text: str) -> None:
    found = find_config([SqlSource("here", text)], {}, COLUMNS, KNOWN, "public")
    assert found == SearchConfig("", "lang", "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CREATE INDEX i ON documents USING gin (search_vector)",
        "to_tsvector('missing', x)",
        "to_tsvector('other.german', x)",
        "to_tsvector(unknown, x)",
        "to_tsvector(coalesce(NEW.lang, 'german'), x)",
        "to_tsvector(TG_ARGV[7], x)",
        "to_tsvector('german",
    ],
)
def test_what_cannot_be_read_is_no_configuration(text: str) -> None:
    assert find_config([SqlSource("here", text)], {}, COLUMNS, KNOWN, "public") is None


def test_a_name_without_a_schema_is_that_of_the_tables_schema() -> None:
    assert KNOWN.find("hunspell", "laws") == "laws.hunspell"
    assert KNOWN.find("hunspell", "other") == "public.hunspell"
    assert default_config("uds3_master_documents") == "english"
    assert default_config("documents") == "german"


def test_the_sql_that_makes_a_table_searchable_uses_its_text_columns() -> None:
    columns = [
        ("document_id", "text"),
        ("classification", "varchar"),
        ("title", "int4"),
        ("created_at", "text"),
    ]
    table = PostgresTable(
        "documents",
        "public.documents",
        "document_id",
        True,
        False,
        None,
        tuple(PostgresColumn(name, name, "string", kind) for name, kind in columns),
    )
    assert setup_sql(table) == (
        "ALTER TABLE public.documents ADD COLUMN search_vector tsvector GENERATED ALWAYS AS "
        "(setweight(to_tsvector('german', coalesce(document_id, '')), 'A') || "
        "setweight(to_tsvector('german', coalesce(classification, '')), 'C')) STORED; "
        "CREATE INDEX ON public.documents USING gin (search_vector)"
    )
