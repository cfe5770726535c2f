"""Reasons of Shardline's filters and of datatrove's, document by document, each difference with its cause.

datatrove is given Shardline's words: what white space separates, for `gopher` without the signs around them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardline_common.curation.characters import CATEGORIES, split_words
from shardline_common.curation.registry import load_filter
from shardline_common.curation.text_facts import TextFacts
from tests.benchmarks.filters.trove import judge

# Ours by the names of datatrove.
REASONS = {
    "gopher_short_doc": "too_short", "gopher_long_doc": "too_long",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words", "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses", "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines", "gopher_below_alpha_threshold": "few_letters",
    "gopher_enough_stop_words": "stop_words", "dup_para_frac": "duplicate_paragraphs",
    "dup_para_char_frac": "duplicate_paragraph_chars", "dup_line_frac": "duplicate_lines",
    "dup_line_char_frac": "duplicate_line_chars", "line_punct_ratio": "line_punctuation",
    "short_line_ratio": "short_lines", "char_dup_ratio": "duplicate_chars", "list_ratio": "list",
    "lorem_ipsum": "lorem_ipsum", "curly_bracket": "curly_brackets", "too_few_sentences": "too_few_sentences",
    "empty": "empty", "error": "error",
    **{f"top_{size}_gram": f"top_{size}_grams" for size in range(2, 5)},
    **{f"duplicated_{size}_n_grams": f"duplicate_{size}_grams" for size in range(5, 11)},
}  # fmt: skip
_FINEWEB2 = "der und die in von im den des mit das er dem als wurde für".split()  # noqa: SIM905
_NEVER = 1e9
# Bounds that every document passes, so that datatrove measures each rule, too.
OPEN: Mapping[str, dict[str, Any]] = {
    "gopher": {
        "min_doc_words": 1, "max_doc_words": _NEVER, "min_avg_word_length": 1e-9,
        "max_avg_word_length": _NEVER,
        "max_symbol_word_ratio": _NEVER, "max_bullet_lines_ratio": _NEVER, "max_ellipsis_lines_ratio": _NEVER,
        "max_non_alpha_words_ratio": 1e-9, "min_stop_words": 1,
    },
    "repetition": {
        "dup_line_frac": _NEVER, "dup_para_frac": _NEVER, "dup_line_char_frac": _NEVER,
        "dup_para_char_frac": _NEVER, "top_n_grams": tuple((size, _NEVER) for size in range(2, 5)),
        "dup_n_grams": tuple((size, _NEVER) for size in range(5, 11)),
    },
    "fineweb": {
        "line_punct_thr": -1, "short_line_thr": _NEVER, "char_duplicates_ratio": _NEVER,
        "new_line_ratio": _NEVER,
    },
    "c4": {"min_num_sentences": 0},
}  # fmt: skip
BOUNDS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "en": {"gopher": {}, "repetition": {}, "fineweb": {}, "c4": {"filter_no_terminal_punct": True}},
    "de": {
        "gopher": {"stop_words": _FINEWEB2, "max_non_alpha_words_ratio": 0.774, "max_avg_word_length": 15},
        "repetition": {
            "dup_line_frac": 0.263,
            "dup_para_frac": 0,
            "dup_line_char_frac": 0,
            "dup_para_char_frac": 0,
            "top_n_grams": ((2, 0.169), (3, 0.153), (4, 0.137)),
            "dup_n_grams": ((5, 0.141), (6, 0.134), (7, 0.126), (8, 0.117), (9, 0.108), (10, 0.098)),
        },
        "fineweb": {
            "new_line_ratio": 0.152, "char_duplicates_ratio": 0.1, "line_punct_thr": 0, "short_line_thr": 1,
        },
        "c4": {},
    },
}  # fmt: skip
_OURS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "en": {"gopher": {}, "repetition": {}, "fineweb": {}, "c4": {}},
    "de": {
        "gopher": {"min_letter_words": 0.774, "max_mean_word": 15},
        "repetition": {
            "max_duplicate_paragraphs": None, "max_duplicate_paragraph_chars": None,
            "max_duplicate_lines": 0.263, "max_duplicate_line_chars": None,
            "max_top_2_grams": 0.169, "max_top_3_grams": 0.153, "max_top_4_grams": 0.137,
            "max_duplicate_5_grams": 0.141, "max_duplicate_6_grams": 0.134, "max_duplicate_7_grams": 0.126,
            "max_duplicate_8_grams": 0.117, "max_duplicate_9_grams": 0.108, "max_duplicate_10_grams": 0.098,
        },
        "fineweb": {
            "max_line_ratio": 0.152, "max_duplicate_chars": 0.1, "min_line_punctuation": None,
            "max_short_lines": None,
        },
        "c4": {},
    },
}  # fmt: skip
_FEWEST_WORDS = 50


@dataclass
class Compared:
    """The verdicts of one filter on one set of documents."""

    documents: int = 0
    agreed: int = 0
    dropped: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    unexplained: list[tuple[str, str | None, str | None]] = field(default_factory=list)


def compare(texts: Sequence[str], language: str) -> dict[str, Compared]:
    """Both verdicts on each text, by filter."""
    documents = [{"text": text, "words": _words(text)} for text in texts]
    verdicts, _ = judge(documents, language, "given", BOUNDS[language])
    found = {name: Compared() for name in _OURS[language]}
    for text, theirs in zip(texts, verdicts, strict=True):
        facts = TextFacts(text, {})
        for name, one in found.items():
            reason = theirs[name]
            _add(one, facts, _reason(name, facts, language), REASONS[reason] if reason else None)
    return found


def _words(text: str) -> dict[str, list[str]]:
    words = split_words(text)
    plain = ["".join(one for one in word if CATEGORIES[one][0] in "LMN") or word for word in words]
    return {"gopher": plain, "repetition": words, "fineweb": words}


def _reason(name: str, facts: TextFacts, language: str) -> str | None:
    kind = load_filter(name)
    for rule in kind.rules(kind.parameters(**_OURS[language][name]), {}):
        value = rule.measure(facts)
        # C4's rules of lines take lines out; they drop no document.
        if rule.name in {"javascript_lines", "policy_lines"}:
            continue
        if (rule.least is not None and value < rule.least) or (rule.most is not None and value > rule.most):
            return rule.name
    if name == "gopher":
        stop_words = load_filter("stop_words")
        rule = stop_words.rules(stop_words.parameters(language=language), {})[0]
        return "stop_words" if rule.measure(facts) < (rule.least or 0) else None
    return None


def _add(one: Compared, facts: TextFacts, ours: str | None, theirs: str | None) -> None:
    one.documents += 1
    one.dropped += ours is not None
    if ours == theirs:
        one.agreed += 1
        return
    cause = next((name for name, holds in _CAUSES.items() if holds(facts, ours, theirs)), None)
    if cause is None:
        one.unexplained.append((facts.text, ours, theirs))
    else:
        one.causes[cause] += 1


def _once(facts: TextFacts, _ours: str | None, theirs: str | None) -> bool:
    """datatrove counts the most frequent n-gram even if no n-gram occurs twice."""
    if theirs is None or not theirs.startswith("top_"):
        return False
    return facts.grams.top(int(theirs[4])).chars == 0


def _joined(facts: TextFacts, _ours: str | None, theirs: str | None) -> bool:
    """datatrove joins the words of an n-gram without a space: `ab c` and `a bc` are the same for it."""
    if theirs is None or not theirs.startswith("duplicate_") or not theirs.endswith("_grams"):
        return False
    size = int(theirs.split("_")[1])
    apart = _repeated_chars(facts.words, size, tuple)
    return apart == facts.grams.duplicated(size).chars != _repeated_chars(facts.words, size, "".join)


def _repeated_chars(words: list[str], size: int, key: Callable[[list[str]], object]) -> int:
    seen, chars, place = set(), 0, 0
    while place <= len(words) - size:
        gram = words[place : place + size]
        if key(gram) in seen:
            chars += sum(map(len, gram))
            place += size
        else:
            seen.add(key(gram))
            place += 1
    return chars


def _signs(facts: TextFacts, ours: str | None, theirs: str | None) -> bool:
    """A word of signs alone, such as § or =, is a word for datatrove unless its list of signs has it."""
    signs = len(facts.words) - facts.spoken
    if ours == "too_short":
        return facts.spoken < _FEWEST_WORDS <= facts.spoken + signs
    changed = {"short_words", "long_words", "few_letters", "stop_words", "error"}
    return signs > 0 and bool(changed & {ours, theirs})


def _case(_facts: TextFacts, ours: str | None, theirs: str | None) -> bool:
    """Stop words in capitals count for Shardline."""
    return theirs == "stop_words" and ours is None


def _line_ends(facts: TextFacts, ours: str | None, theirs: str | None) -> bool:
    """datatrove takes form feeds and the like for ends of lines, and counts an empty part at an end."""
    lines = {"bullet_lines", "ellipsis_lines", "duplicate_lines", "duplicate_line_chars"}
    differs = facts.text.splitlines() != facts.text.split("\n") or facts.text != facts.text.strip("\n")
    return differs and bool(lines & {ours, theirs})


def _sentences(_facts: TextFacts, ours: str | None, theirs: str | None) -> bool:
    """Sentences are counted by other rules."""
    return "too_few_sentences" in {ours, theirs}


def _line_rules(_facts: TextFacts, ours: str | None, _theirs: str | None) -> bool:
    """C4 looks for { and lorem ipsum only in lines that it keeps; Shardline in all."""
    return ours in {"curly_brackets", "lorem_ipsum"}


_CAUSES: Mapping[str, Callable[[TextFacts, str | None, str | None], bool]] = {
    "an n-gram that occurs once is no repetition": _once,
    "words are joined without a space there": _joined,
    "words of signs alone are no words": _signs,
    "stop words in capitals count": _case,
    "only line feeds end lines": _line_ends,
    "sentences are counted by other rules": _sentences,
    "{ and lorem ipsum are looked for in all lines": _line_rules,
}
