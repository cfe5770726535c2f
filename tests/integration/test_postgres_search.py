"""UDS3 on a PostgreSQL server: with which text search configuration a table is searched."""

from dataclasses import replace

import pytest

from shardline_common.errors import JobFailed
from shardline_producer.sources.uds3.planned_store import ConfiguredStores
from shardline_producer.sources.uds3.postgres.connection import Postgres
from tests.databases import Database
from tests.source_items import documents_of, item_ids
from tests.uds3_data import DictBodyStore, ListRanker, insert
from tests.uds3_reading import plan_and_read

KEYWORD = {"text": "building", "search_types": ["keyword"]}
# English and the user's own `law` find "buildings" by "building"; German and French do not.
LAW = "CREATE TEXT SEARCH CONFIGURATION law (COPY = pg_catalog.english)"
TABLE = "CREATE TABLE documents (document_id text PRIMARY KEY, content text, search_vector tsvector, lang {})"
PLAIN = "CREATE TABLE {} (document_id text PRIMARY KEY, content text{})"
COMPUTED = "(to_tsvector('public.law', content))"
TRIGGER = "CREATE TRIGGER fill BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION {}"
FUNCTION = (
    "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ {} BEGIN"
    " NEW.search_vector := {}; RETURN NEW; END $$"
)
WAYS = {
    "update trigger": (
        TABLE.format("text"),
        TRIGGER.format("tsvector_update_trigger('search_vector', 'public.law', 'content')"),
    ),
    "column": (
        TABLE.format("regconfig DEFAULT 'public.law'"),
        TRIGGER.format("tsvector_update_trigger_column('search_vector', 'lang', 'content')"),
    ),
    "function": (
        TABLE.format("text"),
        FUNCTION.format("", "setweight(to_tsvector('public.law'::regconfig, NEW.content), 'B')"),
        TRIGGER.format("fill()"),
    ),
    "variable": (
        TABLE.format("text"),
        FUNCTION.format("DECLARE c regconfig := 'law';", "to_tsvector(c, NEW.content)"),
        TRIGGER.format("fill()"),
    ),
    "argument": (
        TABLE.format("text"),
        FUNCTION.format("", "to_tsvector(TG_ARGV[0]::regconfig, NEW.content)"),
        TRIGGER.format("fill('law')"),
    ),
    "called": (
        TABLE.format("text"),
        "CREATE FUNCTION law_vector(t text) RETURNS tsvector LANGUAGE sql RETURN to_tsvector('law', t)",
        FUNCTION.format("", "public.law_vector(NEW.content)"),
        TRIGGER.format("fill()"),
    ),
    "generated": (
        PLAIN.format("documents", ", search_vector tsvector GENERATED ALWAYS AS {} STORED").format(COMPUTED),
    ),
    "view over a trigger": (
        TABLE.format("text").replace("documents", "base"),
        TRIGGER.format("tsvector_update_trigger('search_vector', 'public.law', 'content')").replace(
            "documents", "base"
        ),
        "CREATE VIEW middle AS SELECT * FROM base",
        "CREATE VIEW documents AS SELECT document_id, content, search_vector FROM middle",
    ),
    "view with a vector": (
        PLAIN.format("base", ""),
        f"CREATE MATERIALIZED VIEW documents AS SELECT *, {COMPUTED} AS search_vector FROM base",
    ),
    "partition": (
        PLAIN.format("documents", ", search_vector tsvector") + " PARTITION BY HASH (document_id)",
        "CREATE TABLE part PARTITION OF documents FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        TRIGGER.format("tsvector_update_trigger('search_vector', 'public.law', 'content')").replace(
            "documents", "part"
        ),
    ),
    "index": (
        PLAIN.format("documents", ""),
        f"CREATE INDEX ON documents USING gin ({COMPUTED})",
    ),
}


async def fill(database: Database, way: str) -> None:
    """Create the tables of a way with one document."""
    await database.execute(LAW, *WAYS[way])
    table = "base" if way.startswith("view") else "documents"
    await database.execute(f"INSERT INTO {table} (document_id, content) VALUES ('a', 'Buildings')")
    if "MATERIALIZED" in WAYS[way][-1]:
        await database.execute("REFRESH MATERIALIZED VIEW documents")


@pytest.mark.parametrize("way", WAYS)
async def test_a_table_is_searched_with_the_configuration_that_fills_its_vector(
    database: Database, way: str
) -> None:
    await fill(database, way)
    plan, items = await plan_and_read(ConfiguredStores(database.postgres), query=KEYWORD)
    assert item_ids(items) == ["a"]
    said = plan.notes["search_config"]["documents"]
    assert said.startswith("lang (trigger fill" if way == "column" else "public.law (")
    assert said in await database.postgres.check()


async def test_a_setting_chooses_the_configuration_and_the_assumed_one_is_named(database: Database) -> None:
    await database.execute(LAW, TABLE.format("text"))
    await database.execute(
        "INSERT INTO documents VALUES ('a', 'Buildings', to_tsvector('public.law', 'Buildings'))"
    )
    plan, items = await plan_and_read(ConfiguredStores(database.postgres), query=KEYWORD)
    assert items == []
    assumed = "german (assumed, as UDS3 makes the table; POSTGRES_SEARCH_CONFIG sets another)"
    assert plan.notes["search_config"] == {"documents": assumed}
    for name in ("law", "public.law"):
        chosen = Postgres(replace(database.options, search_config=name))
        plan, items = await plan_and_read(ConfiguredStores(chosen), query=KEYWORD)
        assert item_ids(items) == ["a"]
        assert plan.notes["search_config"] == {"documents": "public.law (POSTGRES_SEARCH_CONFIG)"}
    missing = Postgres(replace(database.options, search_config="laww"))
    with pytest.raises(JobFailed, match=r"no text search configuration 'laww'.*german"):
        await plan_and_read(ConfiguredStores(missing), query=KEYWORD)


async def test_tables_without_a_text_are_left_out_of_a_search_by_name(database: Database) -> None:
    # UDS3's own table: neither content nor search_vector.
    await database.execute(
        "CREATE TABLE documents (document_id text PRIMARY KEY, file_path text, classification text)"
    )
    await insert(database, "documents", *({"document_id": n, "classification": f"Bauten {n}"} for n in "abc"))
    bodies = DictBodyStore({})
    stores = ConfiguredStores(
        database.postgres, rankers={"vector": ListRanker("vector", ["b", "a"])}, body_stores=[bodies]
    )
    plan, items = await plan_and_read(stores, query={"text": "Bau"})
    assert (plan.notes["searches"], plan.notes["left_out"]) == (["vector"], ["graph", "keyword"])
    assert sorted(item_ids(items)) == ["a", "b"]
    alone = ConfiguredStores(database.postgres, body_stores=[bodies])
    for query in ({"text": "Bau"}, {"text": "Bau", "search_types": ["keyword"]}):
        with pytest.raises(
            JobFailed, match="search_vector or content, and none of documents has one"
        ) as raised:
            await plan_and_read(alone, query=query)
    with pytest.raises(JobFailed):
        await plan_and_read(stores, query={"text": "Bau", "search_types": ["keyword"]})
    # The hint is the SQL that makes the table searchable.
    await database.execute(*(raised.value.hint or "").split("; "))
    plan, items = await plan_and_read(alone, query={"text": "Bauten", "search_types": ["keyword"]})
    assert item_ids(items) == ["a", "b", "c"]
    assert plan.notes["search_config"] == {"documents": "german (column search_vector of public.documents)"}


@pytest.mark.parametrize("indexed", ["no vector", "a vector without an index", "an index on some rows"])
async def test_a_search_that_reads_every_row_says_so_with_the_sql_of_an_index(
    database: Database, indexed: str, caplog: pytest.LogCaptureFixture
) -> None:
    await database.execute(PLAIN.format("documents", ", classification text"))
    rows = [
        {"document_id": n, "content": "Bau " * (1 + i), "classification": "Bau"} for i, n in enumerate("abc")
    ]
    await insert(database, "documents", *rows)
    if indexed != "no vector":
        await database.execute(
            "ALTER TABLE documents ADD COLUMN search_vector tsvector GENERATED ALWAYS AS "
            "(setweight(to_tsvector('german', document_id), 'A') || "
            "setweight(to_tsvector('german', coalesce(content, '')), 'B') || "
            "setweight(to_tsvector('german', coalesce(classification, '')), 'C')) STORED"
        )
    if indexed == "an index on some rows":
        await database.execute(
            "CREATE INDEX ON documents USING gin (search_vector) WHERE document_id > 'b'",
            "CREATE INDEX ON documents (length(search_vector))",
        )
    stores, query = ConfiguredStores(database.postgres), {"text": "Bau", "search_types": ["keyword"]}
    _, before = await plan_and_read(stores, query=query)
    sentence = "a keyword search reads every row of documents, because the table has no full-text index: "
    said = await database.postgres.check()
    assert sentence in said
    logged = [record.message for record in caplog.records if record.message.startswith(sentence)]
    assert len(logged) == 1
    caplog.clear()
    _, sql = logged[0].split(sentence)
    assert said.endswith(sql)
    await database.execute(*sql.split("; "))
    _, after = await plan_and_read(stores, query=query)
    assert sentence not in await database.postgres.check()
    assert not any(sentence in record.message for record in caplog.records)
    # The vector that the SQL adds is the one that was computed: no rank and no score has changed.
    assert item_ids(after) == item_ids(before)
    assert [one.relevance for one in documents_of(after)] == [one.relevance for one in documents_of(before)]
    # A scan searches nothing.
    await plan_and_read(stores)
    assert not any(sentence in record.message for record in caplog.records)
