"""The normal form of a text, by which duplicates are found: golden vectors, and the tables that freeze it."""

import re
import unicodedata
from hashlib import blake2b, sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.assembly import normal_text as module
from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.normal_text import KNOWN, WHITE_SPACE, normal_text

EVERY = [chr(code) for code in range(0x110000)]
# Characters that are composed, sorted, folded, separated, or younger than Unicode 3.2.
ODD = (
    "aAäÄeéßẞK Å Ω \u017f\u0130\u0131\u03a3\u03c3\u03c2\u01f0\u0390\u1fb3\u212a\u2126 \t\n\r\x1c\x85"
    "\xa0\u2003\u3000\u200b\xad\u0301\u0308\u0323\u0327\u0345\u1dc4\u1df9"
    "\u1100\u1161\u11a8\uac00\uac01\u0958\u09c7\u09be\u0f71\u0f72\u0f73\ufb01\uff21\u0340\u0344\u1109\u212b"
    "\U00011099\U000110ba\U0001f600\u10a0\u1c90\u13a0\uab70\U0001d15e\U0002f800\u2000\u2001\u037e"
)
TEXTS = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=40)


# Never made anew: which documents of a dataset are duplicates hangs on them.
@pytest.mark.parametrize(
    ("text", "normal", "folded"),
    [
        ("", "", ""),
        (" \n\t\u3000", "", ""),
        ("\tDie  Satzung\r\n gilt.\n", "Die Satzung gilt.", "die satzung gilt."),
        ("Stra\u00dfe STRA\u1e9eE", "Stra\u00dfe STRA\u1e9eE", "strasse strasse"),
        ("Gru\u0308ne O\u0308l", "Gr\u00fcne \u00d6l", "gr\u00fcne \u00f6l"),
        ("a\u0301\u0323", "\u1ea1\u0301", "\u1ea1\u0301"),
        ("a\u0323\u0301", "\u1ea1\u0301", "\u1ea1\u0301"),
        ("\u01f0 J\u030c", "\u01f0 J\u030c", "\u01f0 \u01f0"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00", "\ud55c\uae00"),
        ("\uac00\u11a8", "\uac01", "\uac01"),
        ("\ufb01 \uff21 \u2460 \u00bd", "\ufb01 \uff21 \u2460 \u00bd", "fi \uff41 \u2460 \u00bd"),
        ("\u212b \u2126 \u212a", "\u00c5 \u03a9 K", "\u00e5 \u03c9 k"),
        ("\u0391\u0345 \u039f\u03a3", "\u1fbc \u039f\u03a3", "\u03b1\u03b9 \u03bf\u03c3"),
        ("\u0130 \u0131", "\u0130 \u0131", "i\u0307 \u0131"),
        (
            "Bau\u00adrecht \u200bund\ufeff",
            "Bau\u00adrecht \u200bund\ufeff",
            "bau\u00adrecht \u200bund\ufeff",
        ),
        ("\x1cA\x1f\x85B\xa0C\u2028D", "A B C D", "a b c d"),
        # Younger than Unicode 3.2: neither composed, nor sorted, nor folded.
        ("\U00011099\U000110ba", "\U00011099\U000110ba", "\U00011099\U000110ba"),
        ("a\u1df9\u1dc4\u0323", "a\u1df9\u1dc4\u0323", "a\u1df9\u1dc4\u0323"),
        ("\u1c90 \U0001f600 U\u0308", "\u1c90 \U0001f600 \u00dc", "\u1c90 \U0001f600 \u00fc"),
    ],
)
def test_normal_forms_are_frozen(text: str, normal: str, folded: str) -> None:
    assert normal_text(text) == normal
    assert normal_text(text, ignore_case=True) == folded


@pytest.mark.parametrize(
    ("text", "exact", "ignoring_case"),
    [
        ("", "9f85a224a73e199773a0bb1961c5ed0e", "9f85a224a73e199773a0bb1961c5ed0e"),
        ("Die  Gebu\u0308hr.\n", "9a1069c082bfdfd99bd31b100d29d549", "c048ccd1fdba64cdecb5c4b5b45b1b14"),
    ],
)
def test_content_hashes_are_frozen(text: str, exact: str, ignoring_case: str) -> None:
    assert content_hash(text).hex() == exact
    assert content_hash(text, ignore_case=True).hex() == ignoring_case


@given(TEXTS)
def test_a_content_hash_is_that_of_the_normal_form(text: str) -> None:
    for ignore_case in (False, True):
        normal = normal_text(text, ignore_case=ignore_case).encode()
        expected = blake2b(normal, digest_size=16, person=b"content").digest()
        assert content_hash(text, ignore_case=ignore_case) == expected


def test_a_lone_surrogate_has_a_content_hash() -> None:
    assert len(content_hash("a\ud800")) == 16
    assert content_hash("a\ud800") != content_hash("a")


@given(TEXTS)
def test_the_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    for ignore_case in (False, True):
        normal = normal_text(text, ignore_case=ignore_case)
        assert normal_text(normal, ignore_case=ignore_case) == normal
    assert normal_text(normal_text(text), ignore_case=True) == normal_text(text, ignore_case=True)


def test_the_normal_form_of_each_changing_character_is_a_normal_form() -> None:
    changing = [one for one in EVERY if one.casefold() != one or _decomposed(one) != one]
    assert len(changing) > 14_000
    for text in ("x ".join(changing), "x\u0308 ".join(changing)):
        for ignore_case in (False, True):
            normal = normal_text(text, ignore_case=ignore_case)
            assert normal_text(normal, ignore_case=ignore_case) == normal


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@given(TEXTS)
def test_white_space_and_composition_make_no_difference(text: str) -> None:
    spaced = re.sub(f"[{WHITE_SPACE}]", "\u2003\n ", f" {text}\t")
    assert normal_text(spaced) == normal_text(text)
    known = "".join(one for one in text if not _is_unknown(one))
    assert normal_text(_decomposed(known)) == normal_text(known)


def _is_unknown(character: str) -> bool:
    return unicodedata.ucd_3_2_0.category(character) == "Cn"


@given(TEXTS)
def test_the_short_ways_give_what_the_rule_says(text: str) -> None:
    runs = re.findall(f"([{_unknown_in(text)}]+)|([^{_unknown_in(text)}]+)", text)
    composed = "".join(young or unicodedata.normalize("NFC", known) for young, known in runs)
    assert module._composed(text) == composed
    folded = "".join(one if _is_unknown(one) and one != "ẞ" else one.casefold() for one in text)
    assert module._folded(text) == folded
    assert normal_text(text) == re.sub(f"[{WHITE_SPACE}]+", " ", composed).strip(" ")


def _unknown_in(text: str) -> str:
    return "\U0010ffff" + "".join(re.escape(one) for one in set(text) if _is_unknown(one))


def test_python_splits_at_the_frozen_white_space() -> None:
    spaces = re.compile(f"[{WHITE_SPACE}]")
    found = [one for one in EVERY if spaces.match(one)]
    assert len(found) == 29
    if unicodedata.unidata_version in {"14.0.0", "15.0.0", "15.1.0"}:
        assert found == [one for one in EVERY if not one.split()]


def test_white_space_alone_and_in_runs_is_a_space_and_nothing_else_is() -> None:
    spaces = re.compile(f"[{WHITE_SPACE}]")
    for one in EVERY[:0x3100]:
        if spaces.match(one) is None:
            assert normal_text(f"a{one}b") != "a b"
            continue
        assert normal_text(f"a{one}b") == "a b"
        assert normal_text(f"{one}ä{one} {one}b{one}") == "ä b"
        assert normal_text(one) == ""


# These hold on every Python: a failure means that one changed what Unicode promises not to change, and that
# its normal forms differ from those of datasets made before.
def test_unicode_3_2_is_the_same_in_this_python() -> None:
    known = [one for one in EVERY if not _is_unknown(one)]
    assert not any(map(_is_unknown, re.findall(f"[{KNOWN}]", "".join(EVERY))))
    assert _digest(known) == "e26fc37ae14df6d6f3d2194f13ac13f37514ffdf73932c6111ccc6f7146e86d5"
    composed = [unicodedata.normalize("NFC", one) for one in known]
    assert _digest(composed) == "72f7fa7f07bd0af2f0e8bc59383fe10d0365e41ccb4061e44cec7eb8a9ca42db"
    folded = [one.casefold() for one in [*known, "ẞ"]]
    assert _digest(folded) == "f47baa257f9145e8fddd69525d2883cc4145992e53ebd7117be32d5ff84f8b46"
    sorting = [f"{unicodedata.combining(one)}{unicodedata.decomposition(one)}" for one in known]
    assert _digest(sorting) == "008bbf5248854d55734bdb67ec3ec42daca27aa7de8ed68bf16ffb2c137b8760"


def _digest(items: list[str]) -> str:
    return sha256("\n".join(items).encode("utf-8", "surrogatepass")).hexdigest()
