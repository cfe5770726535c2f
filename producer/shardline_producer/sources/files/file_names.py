"""What the name of a file says about its form."""

_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_TEXT = (".txt", ".text", ".md", ".markdown", ".mdown", ".rst", ".adoc", ".asciidoc", ".org", ".tex")
_CSV = (".csv", ".tsv", ".tab")
_JSON_LINES = (".jsonl", ".ndjson", ".jsonlines", ".json")


def is_named_text(path: str) -> bool:
    """Whether the name says that the file is a text or Markdown."""
    return _plain_name(path).endswith(_TEXT)


def is_named_csv(path: str) -> bool:
    """Whether the name says that the file is CSV or TSV."""
    return _plain_name(path).endswith(_CSV)


def is_named_json(path: str) -> bool:
    """Whether the name says that the file is JSON."""
    return _plain_name(path).endswith(".json")


def is_named_json_lines(path: str) -> bool:
    """Whether the name says that the file is JSONL, or JSON."""
    return _plain_name(path).endswith(_JSON_LINES)


def _plain_name(path: str) -> str:
    name = path.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return name
