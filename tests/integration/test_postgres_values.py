"""UDS3 on a PostgreSQL server: a row passes a filter by exactly the values that it shows."""

from collections.abc import Mapping
from typing import Any

from shardline_common.job.spec import Query
from shardline_producer.sources.query_filters import passes
from shardline_producer.sources.uds3.postgres.conditions import condition
from shardline_producer.sources.uds3.postgres.sql import DocumentSelection
from shardline_producer.sources.uds3.postgres.statement import SqlStatement
from tests.databases import Database
from tests.source_items import documents_of
from tests.uds3_reading import scan_items

# By type, the values of a column, as PostgreSQL reads them.
VALUES: Mapping[str, list[str]] = {
    "smallint": ["0", "-5", "32767"],
    "integer": ["7", "-1", "2147483647"],
    "bigint": ["0", "9007199254740993", "-9223372036854775808", "9223372036854775807"],
    "real": ["0.7", "0.1", "1e30", "-0", "NaN", "Infinity", "-Infinity", "16777216"],
    "double precision": ["0.7", "0.1", "1e300", "9007199254740992", "NaN", "Infinity", "-Infinity", "5e-324"],
    "numeric": [
        *(
            "0.7",
            "12.30",
            "1e400",
            "-1e400",
            "1e-400",
            "9007199254740993",
            "NaN",
            "Infinity",
            "0",
            "1e23",
            "-7.50",
        ),
        *("12345678901234567890.12", "0.12345678901234567", "9223372036854775807", "9223372036854775808"),
    ],
    "numeric(30, 0)": ["7", "9223372036854775808", "-9223372036854775808", "1152921504606846976"],
    "numeric(12, 2)": ["0.70", "-3.00", "1234567890.12"],
    "money": ["1.5", "-2", "1234.56"],
    "boolean": ["t", "f"],
    "text": [
        *("", "true", "5", "2020-01-02", "2020-01-02T12:00:00Z", "2020-01-02T12:00:00.5+00:00", "NaN"),
        *("2019-12-31T23:59:59-14:00", "2020-01-04T00:00:00+14:00", "2020-01-05", "9999-12-31T00:00Z"),
        *("2020-01-02 23:00:00+02:00", "2020-02-30T00:00:00Z", "é", "A", "a ", "2020-01-03", "2020"),
    ],
    "varchar(40)": ["x", "x ", "2020-01-02T00:00:00"],
    "char(12)": ["ab", "2020-01-02", ""],
    '"char"': ["x", "y"],
    "name": ["n", "m"],
    "date": [
        "2020-01-02",
        "2020-01-03",
        "infinity",
        "-infinity",
        "0044-03-15 BC",
        "10000-01-01",
        "0001-01-01",
    ],
    "timestamp": [
        *(
            "2020-01-02 00:00",
            "2020-01-02 12:00:00.5",
            "2020-01-02 23:59:59.999999",
            "2020-01-03",
            "infinity",
        ),
        *("-infinity", "0044-03-15 12:00 BC", "12020-01-01"),
    ],
    "timestamptz": [
        *("2020-01-02 00:00+00", "2020-01-02 23:30-05", "2020-01-02 12:00:00.123456+00", "2020-01-03+00"),
        *("infinity", "-infinity", "0044-03-15 12:00+00 BC", "12020-01-01"),
    ],
    "time": ["12:00", "12:00:00.5", "00:00"],
    "timetz": ["12:00+02", "12:00+00"],
    "interval": ["1 day", "1 month 2 days 03:04:05", "-1 hour"],
    "uuid": ["11111111-1111-1111-1111-111111111111", "A1111111-1111-1111-1111-111111111111"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "bit varying(8)": ["101", "1"],
    "int4range": ["[1,5)", "empty"],
    "point": ["(1,2)"],
    "oid": ["5", "12"],
    "text[]": ["{a,b}", "{}"],
    "integer[]": ["{1,2}"],
    "json": [
        "123456789012345678901234567890",
        "1e-400",
        "12345678901234567890.12",
        "0.10000000000000001",
        "2.5e-310",
        "1e200000",
        r'"cut \ud83d"',
        r'{"a": "\u0000"}',
        '"a"',
        "5",
        "5.0",
        "true",
        "null",
        '{"a": 1}',
        "[1]",
        '"2020-01-02T12:00:00Z"',
        "1e2",
    ],
    "jsonb": [
        "-18446744073709551617",
        "1e400",
        "0.33333333333333333333",
        "1.50000000000000000000",
        '"a"',
        "5",
        "0.7",
        "false",
        "null",
        '{"a": 1}',
        '"true"',
        "9007199254740993",
        '"5"',
    ],
    "mood": ["sad", "happy", "2020-01-02"],
    "positive": ["7", "8"],
    "amount": ["12.30", "9007199254740993", "NaN", "12345678901234567890.12"],
    "xml": ["<a/>"],
    "macaddr": ["08:00:2b:01:02:03"],
    "document": ['"x"', "5"],
    "label": ["x", "X"],
    "folded": ["a", "A", "ä"],
}
TYPES = (
    "CREATE TYPE mood AS ENUM ('sad', 'happy', '2020-01-02')",
    "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
    "CREATE DOMAIN amount AS numeric",
    "CREATE DOMAIN document AS json",
    "CREATE DOMAIN inner_label AS varchar(9)",
    "CREATE DOMAIN label AS inner_label",
    "CREATE COLLATION fold (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
    "CREATE DOMAIN folded AS text COLLATE fold",
)
BOUNDS: list[Any] = [
    *("12345678901234567890.12", 12345678901234567890.12, 1e23, -7.5, 1 << 63, 9223372036854775807.0),
    *(0, 1, 0.5, 0.7, 7, 7.0, -0.0, 1 << 53, (1 << 53) + 1, 1 << 70, -(1 << 70), 10**400, -(10**400), 1e308),
    *(True, False, "true", "5", "", "a", "A", "ab", "ab ", "NaN", "infinity", "a\0b", "10.0.0.1/32"),
]
DATES = [
    *("2020-01-02", "2020-01-03", "2020-01", "2020", "2020-01-02T12:00:00Z", "2020-01-02T14:00:00+02:00"),
    *("2020-01-02T00:00:00", "2020-01-02 12:00:00.5", "2020-01-02T23:59:59.999999Z", "2020-01-02T12:00"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "infinity", "-infinity"),
    *("2020-01-01T13:59:59Z", "2020-01-03T10:00:00Z", "2020-01-01T00:00:00+14:00", "2020-01-03T23:59-14:00"),
]
DATE_TYPES = {"date", "timestamp", "timestamptz"}


async def fill(database: Database) -> dict[str, str]:
    """Create a table with one column of each type. Returns the columns by type."""
    names = {kind: f"c{number}" for number, kind in enumerate(VALUES)}
    columns = ", ".join(f"{name} {kind}" for kind, name in names.items())
    await database.execute(
        *TYPES, f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {columns})"
    )
    async with database.admin() as connection:
        await connection.execute("SET timezone TO 'UTC'")
        for number in range(max(map(len, VALUES.values())) + 1):
            row = [
                f"'{values[number]}'::{kind}" if number < len(values) else "NULL"
                for kind, values in VALUES.items()
            ]
            await connection.execute(f"INSERT INTO documents VALUES ('d{number}', 'x', {', '.join(row)})")
    return names


def filters_of(shown: list[Any], extra: list[Any]) -> list[Any]:
    """Each shown value and each bound: as equality, and as both ends of a range."""
    scalars = [value for value in [*shown, *extra] if isinstance(value, str | int | float)]
    # No job can name half of a surrogate pair.
    scalars = [value for value in scalars if "\ud83d" not in str(value)]
    ranges = [{end: value} for value in scalars for end in ("gte", "lte")]
    texts = [value for value in scalars if isinstance(value, str)]
    both = [{"gte": low, "lte": high} for low, high in zip(texts, texts[3:], strict=False)]
    return [None, [], [None, *scalars[:2]], *scalars, *ranges, *both]


async def test_a_filter_decides_by_the_values_that_rows_show_for_every_type(database: Database) -> None:
    names = await fill(database)
    documents = documents_of(await scan_items(database))
    assert len(documents) == max(map(len, VALUES.values())) + 1
    wrong, count = [], 0
    async with database.postgres.connect() as session:
        known = DocumentSelection(await session.schema(), {}).known_fields()
        for kind, name in names.items():
            shown = [one.metadata[name] for one in documents if name in one.metadata]
            # JSON's null is no value.
            assert len(shown) == len([value for value in VALUES[kind] if value != "null"]), kind
            extra = [*DATES, 5] if kind in DATE_TYPES else [*BOUNDS, *DATES]
            filters = [
                Query.model_validate({"filters": {name: wanted}}).filters
                for wanted in filters_of(shown, extra)
            ]
            statement = SqlStatement()
            passing = [f"({condition(known[name], one[name], statement)}) IS TRUE" for one in filters]
            query = f"SELECT document_id, {', '.join(passing)} FROM public.documents t0 ORDER BY 1"
            rows = await session._connection.fetch(query, *statement.values)
            for place, one in enumerate(filters, 1):
                expected = sorted(document.id for document in documents if passes(document, one))
                found = sorted(row[0] for row in rows if row[place])
                count += len(found)
                if found != expected:
                    wrong.append((kind, one, expected, found))
    assert not wrong, wrong[:5]
    first = documents[0].metadata
    assert first[names["json"]] == 123456789012345678901234567890
    assert first[names["jsonb"]] == -18446744073709551617
    # Most filters select something, else the comparison would prove little.
    assert count > 3000
