"""A text as a query of Lucene's classic parser, which Neo4j's full-text indexes use."""

import re

_SPECIAL = re.compile(r'([+\-!(){}\[\]^"~*?:\\/&|<>=])')
_OPERATORS = ("AND", "OR", "NOT", "TO")


def lucene_query(text: str) -> str | None:
    """The words of a text, escaped so that none is an operator; None if there is no word.

    A document with any of the words is a hit. More words, and rarer ones, give a higher score.
    """
    words = [
        word.lower() if word in _OPERATORS else _SPECIAL.sub(r"\\\1", word)
        for word in text.split()
        if any(char.isalnum() for char in word)
    ]
    return " ".join(words) or None
