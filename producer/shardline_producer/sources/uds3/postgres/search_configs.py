"""With which text search configuration a search vector was made, read from the SQL that makes it. Pure.

A query in another configuration finds nothing: `english` keeps the endings that `german` cuts off.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardline_producer.sources.uds3.postgres.schema import CONTENT, KEY, MASTER, VECTOR, PostgresTable

SETTING = "POSTGRES_SEARCH_CONFIG"

_CATALOG = "pg_catalog"
_MAX_CALLS = 8
_TEXTS = ("text", "varchar")
# The columns that a keyword search can use, with their weights in UDS3's own vectors.
_SEARCHED = ((KEY, "A"), ("title", "A"), ("file_path", "B"), ("classification", "C"))
COMPUTED = ((KEY, "A"), (CONTENT, "B"), ("classification", "C"))
"""The columns of the vector that is computed where a table has none: UDS3's trigger, with its weights."""
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/|('(?:[^']|'')*')", re.DOTALL)
_CALL = re.compile(r"\b(?:(jsonb?_)?to_tsvector|(tsvector_update_trigger(?:_column)?))\s*\(", re.IGNORECASE)
_LITERAL = re.compile(r"\(*\s*(?:cast\s*\(\s*)?e?'((?:[^']|'')+)'", re.IGNORECASE)
_ARGUMENT = re.compile(r"tg_argv\s*\[\s*(\d+)\s*\]", re.IGNORECASE)
_NAME = re.compile(r"(?:\w+\s*\.\s*)?(\"[^\"]+\"|\w+)\s*(?:::.*)?", re.DOTALL)
_HEADER = re.compile(r"FUNCTION\s+(?:[\w\"]+\.)?\"?(\w+)\"?\(([^)]*)\)", re.IGNORECASE)
_POSITION = re.compile(r"\$(\d+)(?:\s*::.*)?", re.DOTALL)
_PART = re.compile(r"\"((?:[^\"]|\"\")+)\"|([^.\"\s]+)")


@dataclass(frozen=True, slots=True)
class SqlSource:
    """SQL that may make a vector. `place`: its name for people; `arguments`: those of a trigger, as SQL."""

    place: str
    text: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A configuration as regconfig reads it, or the column that has that of each row. `place`: its source."""

    name: str
    column: str
    place: str


@dataclass(frozen=True, slots=True)
class KnownConfigs:
    """The configurations of a database as (schema, name, quoted), and the name of its default."""

    configs: Collection[tuple[str, str, str]]
    default: str

    def find(self, text: str, schema: str) -> str | None:
        """The configuration that a text means in SQL, as regconfig reads it; None if there is none.

        A name without a schema is looked up as a session would whose search path is the table's schema.
        """
        parts = [
            quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _PART.findall(text)
        ]
        *schemas, name = parts or [""]
        order = schemas[-1:] or [_CATALOG, schema, "public"]
        found = {namespace: quoted for namespace, known, quoted in self.configs if known == name}
        for namespace in order:
            if namespace in found:
                return name if namespace == _CATALOG else found[namespace]
        return next(iter(found.values())) if len(found) == 1 and not schemas else None


def default_config(table: str) -> str:
    """The configuration of UDS3 for a table."""
    return "english" if table == MASTER else "german"


def find_config(
    sources: Sequence[SqlSource],
    functions: Mapping[str, str],
    columns: Mapping[str, str],
    known: KnownConfigs,
    schema: str,
) -> SearchConfig | None:
    """The configuration that the first source names; None if none does.

    Args:
        sources: the SQL of the table's triggers, generated columns, views and indexes.
        functions: the SQL of functions that the sources may call, by name.
        columns: the quoted names of the table's columns, by name.
        known: the configurations of the database.
        schema: the schema of the table.
    """
    for source in sources:
        for call in _calls_of(source, functions):
            if (found := _configuration(call, source, columns, known, schema)) is not None:
                return found
    return None


def setup_sql(table: PostgresTable) -> str:
    """The SQL that gives a table a search vector and its index.

    A vector of a table with texts is the one that a search computes, so that its ranks stay.
    """
    config = table.search_config or "german"
    parts = [
        f"setweight(to_tsvector({_literal(config)}, coalesce({column.quoted}, '')), '{weight}')"
        for name, weight in (COMPUTED if table.column(CONTENT) else _SEARCHED)
        if (column := table.column(name)) is not None and column.type in _TEXTS
    ]
    vector = " || ".join(parts) or "''::tsvector"
    return (
        f"ALTER TABLE {table.quoted} ADD COLUMN {VECTOR} tsvector GENERATED ALWAYS AS ({vector}) STORED; "
        f"CREATE INDEX ON {table.quoted} USING gin ({VECTOR})"
    )


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that makes a vector. `config`: its argument, "" where it has none; `text`: the SQL around it."""

    config: str
    arguments: Sequence[str]
    statement: str
    text: str
    by_column: bool


def _calls_of(source: SqlSource, functions: Mapping[str, str]) -> list[_Call]:
    """The calls in a source and in the functions that it calls: those that make the vector first."""
    texts, names = [_without_comments(source.text)], set[str]()
    for text in texts:
        for name in functions:
            if (
                name not in names
                and len(names) < _MAX_CALLS
                and re.search(rf"\b{re.escape(name)}\W*\(", text)
            ):
                names.add(name)
                texts.append(_without_comments(functions[name]))
    calls = [call for text in texts for call in _calls(text)]
    return sorted(calls, key=lambda call: (VECTOR not in call.statement, not _is_of_content(call)))


def _is_of_content(call: _Call) -> bool:
    return any(re.search(rf"\b{CONTENT}\b", argument) for argument in call.arguments)


def _without_comments(text: str) -> str:
    return _COMMENT.sub(lambda match: match[1] or " ", text)


def _calls(text: str) -> Iterator[_Call]:
    for match in _CALL.finditer(text):
        arguments = _arguments(text, match.end())
        if not arguments:
            continue
        statement = text[text.rfind(";", 0, match.start()) + 1 : match.end()].partition(";")[0]
        statement += " " + " ".join(arguments)
        by_column = bool(match[2]) and match[2].lower().endswith("_column")
        is_json = match[1] is not None
        with_config = len(arguments) > (2 if is_json else 1)
        config = arguments[1 if match[2] else 0] if with_config else ""
        yield _Call(config.strip(), arguments, statement, text, by_column)


def _arguments(text: str, start: int) -> list[str]:
    """The arguments of a call, whose opening bracket ends at `start`."""
    depth, begin, quoted, found = 0, start, False, []
    for place in range(start, len(text)):
        char = text[place]
        if char == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        if (char == "," and depth == 0) or depth < 0:
            found.append(text[begin:place])
            begin = place + 1
        if depth < 0:
            break
    return found


def _configuration(
    call: _Call, source: SqlSource, columns: Mapping[str, str], known: KnownConfigs, schema: str
) -> SearchConfig | None:
    text = call.config
    if (argument := _ARGUMENT.match(text)) is not None:
        given = _arguments(source.arguments + ")", 0)
        if int(argument[1]) >= len(given):
            return None
        text = given[int(argument[1])].strip()
    if not text or text.lower().startswith("get_current_ts_config"):
        found = known.find(known.default, schema)
        return SearchConfig(found, "", f"{source.place}, the database's default") if found else None
    if _NAME.fullmatch(text) or _POSITION.fullmatch(text):
        text = _given(text, call.text, source.text) or text
    literal = _LITERAL.match(text)
    if call.by_column and literal is not None:
        return _of_column(literal[1], source, columns)
    if literal is None and (name := _NAME.fullmatch(text)) is not None:
        literal = _variable(name[1], call.text)
        if literal is None:
            return _of_column(name[1], source, columns)
    if literal is None or (quoted := known.find(literal[1].replace("''", "'"), schema)) is None:
        return None
    return SearchConfig(quoted, "", source.place)


def _variable(name: str, text: str) -> re.Match[str] | None:
    """The text that a variable of a function has from its declaration."""
    declared = (
        rf"\b{re.escape(name)}\s+(?:constant\s+)?[\w.]+\s*(?:not\s+null\s*)?(?::=|=|default)\s*'([^']+)'"
    )
    return re.search(declared, text, re.IGNORECASE)


def _given(name: str, function: str, caller: str) -> str | None:
    """What the caller of a function gives for one of its parameters; None if that cannot be read."""
    if (header := _HEADER.search(function)) is None:
        return None
    names = [part.split()[0].strip('"').lower() if part.split() else "" for part in header[2].split(",")]
    if (position := _POSITION.fullmatch(name)) is not None:
        index = int(position[1]) - 1
    elif (parameter := name.partition("::")[0].strip().strip('"').lower()) in names:
        index = names.index(parameter)
    else:
        return None
    called = re.search(rf"\b{re.escape(header[1])}\W*?\(", _without_comments(caller))
    given = _arguments(_without_comments(caller), called.end()) if called is not None else []
    return given[index].strip() if index < len(given) else None


def _of_column(name: str, source: SqlSource, columns: Mapping[str, str]) -> SearchConfig | None:
    column = columns.get(name.strip('"'))
    return SearchConfig("", column, source.place) if column is not None else None
