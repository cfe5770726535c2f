"""A user's words as a query of Lucene's classic parser, which Neo4j's full-text indexes use."""

import re

_SPECIAL = re.compile(r'([+\-!(){}\[\]^"~*?:\\/&|<>=])')
_OPERATORS = ("AND", "OR", "NOT", "TO")


def lucene_query(text: str) -> str | None:
    """The words of a text, each as it stands and none as an operator; None where there is no word.

    A document is a hit when it has one of them; more of them, and rarer ones, score higher.
    """
    words = [
        word.lower() if word in _OPERATORS else _SPECIAL.sub(r"\\\1", word)
        for word in text.split()
        if any(char.isalnum() for char in word)
    ]
    return " ".join(words) or None
