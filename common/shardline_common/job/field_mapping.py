"""How a job names the fields of its documents: names, JSON pointers (RFC 6901) and templates. Pure.

A name that does not begin with `/` is a field at the top. A text with `{{` is a template: literal text, and
in `{{…}}` a name or a pointer. There is nothing else in a template: whatever looks like code is refused.
"""

import re
from collections.abc import Iterator, Sequence

Path = tuple[str, ...]
"""The names, and the indexes of lists, that lead from a document to a value."""
Part = str | Path
"""A part of a template: literal text, or the path of a field."""

HASH, LINE = "hash", "line"
GENERATED_IDS = (HASH, LINE)
"""What `id` may be instead of a field. A field of this name is `/hash` or `/line`."""

_ESCAPE = re.compile(r"~[01]")
_TEMPLATE_NAME = re.compile(r"[\w@$.:-]+")
_FIELD = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_BRACES = re.compile(r"[{}]")
_CODE = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")


def is_template(text: str) -> bool:
    """Whether the text of a mapping has fields in braces."""
    return "{{" in text or "}}" in text


def parse_reference(text: str) -> Path:
    """The path of a name or of a JSON pointer.

    Raises:
        ValueError: it is neither; the message names the column of the fault.
    """
    if not text.startswith("/"):
        if not text:
            raise ValueError("column 1: a field needs a name; '/' is the field whose name is empty")
        if found := _BRACES.search(text):
            raise ValueError(
                f"column {found.start() + 1}: '{found[0]}' in the name of a field; write {{{{name}}}} for a "
                f"template, which only `text` may be, or '{pointer((text,))}' for a field of this name"
            )
        return (text,)
    return tuple(_pointer_parts(text, 1))


def _pointer_parts(text: str, column: int) -> Iterator[str]:
    for part in text[1:].split("/"):
        column += 1
        if (fault := _ESCAPE.sub("  ", part).find("~")) >= 0:
            raise ValueError(
                f"column {column + fault}: '~' in a JSON pointer is followed by 0 or 1; "
                "~0 is a tilde, ~1 a slash"
            )
        yield part.replace("~1", "/").replace("~0", "~")
        column += len(part)


def parse_template(text: str) -> tuple[Part, ...]:
    """The parts of a template. Adjacent fields have no literal text between them.

    Raises:
        ValueError: it is not one; the message names the column of the fault.
    """
    parts: list[Part] = []
    end = 0
    for found in _FIELD.finditer(text):
        _check_literal(text, end, found.start())
        if literal := text[end : found.start()]:
            parts.append(literal)
        parts.append(_template_field(found[1], found.start() + 3))
        end = found.end()
    _check_literal(text, end, len(text))
    if literal := text[end:]:
        parts.append(literal)
    return tuple(parts)


def _check_literal(text: str, start: int, end: int) -> None:
    if found := _CODE.search(text[start:end]):
        why = "is not closed" if found[0] == "{{" else "is no part of a template, which has only {{field}}"
        raise ValueError(f"column {start + found.start() + 1}: '{found[0]}' {why}")


def _template_field(inner: str, column: int) -> Path:
    """The path of what stands in braces; `column` is that of its first character."""
    name = inner.strip()
    column += len(inner) - len(inner.lstrip())
    if not name:
        raise ValueError(f"column {column}: {{{{}}}} needs the name of a field")
    if found := _BRACES.search(name):
        raise ValueError(f"column {column + found.start()}: '{found[0]}' in the name of a field")
    if name.startswith("/"):
        return tuple(_pointer_parts(name, column))
    plain = _TEMPLATE_NAME.match(name)
    if plain is None or plain.end() < len(name):
        at = plain.end() if plain else 0
        raise ValueError(
            f"column {column + at}: {name[at]!r} in a template, which has no code; "
            f"a field of the name {name!r} is {{{{{pointer((name,))}}}}}"
        )
    return (name,)


def check_flatten(pointers: Sequence[str], mapped: Sequence[Path]) -> None:
    """Check the pointers of `flatten`; `mapped` are the paths of fields that do not stay in the metadata.

    Raises:
        ValueError: one is no pointer into an object, stands twice, lies in another, or is a mapped field.
    """
    paths: dict[Path, str] = {}
    for text in pointers:
        path = parse_reference(text)
        if len(path) < 2:  # noqa: PLR2004 - one part is a field at the top
            raise ValueError(
                f"'{text}' is no field within another; write a JSON pointer such as /meta/author"
            )
        for other, name in paths.items():
            if path == other:
                raise ValueError(f"'{text}' stands twice")
            if path[: len(other)] == other or other[: len(path)] == path:
                raise ValueError(f"'{text}' and '{name}' lie in each other; name one of them")
        if path in mapped:
            raise ValueError(f"'{text}' is id, text or score already, and does not stay in the metadata")
        paths[path] = text


def pointer(path: Path) -> str:
    """The JSON pointer of a path."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)


def reference(path: Path) -> str:
    """The shortest text that a job may write for a path."""
    name = path[0]
    plain = len(path) == 1 and name and not name.startswith("/") and not _BRACES.search(name)
    return name if plain and name not in GENERATED_IDS else pointer(path)
