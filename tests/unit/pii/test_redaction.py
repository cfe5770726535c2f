"""What stands in the place of personal data."""

from hypothesis import given
from hypothesis import strategies as st

from shardline_consumer.pii import Known, find, redact

PIECES = st.lists(
    st.sampled_from(
        (
            "a@b.de",
            "@",
            "(at)",
            " punkt ",
            "firma.de",
            "max",
            " at ",
            " dot ",
            ".",
            "com",
            "\xad",
            "\uff11",
            "-",
            " ",
        )
    ),
    max_size=30,
).map("".join)


def test_the_same_value_has_the_same_placeholder() -> None:
    text, counts = redact("a@b.de, C@d.org; A@B.de")
    assert text == "[EMAIL_1], [EMAIL_2]; [EMAIL_1]"
    assert counts == {"email": 3}


def test_text_and_metadata_share_their_placeholders() -> None:
    known: Known = {}
    assert redact("von a@b.de", known=known).text == "von [EMAIL_1]"
    assert redact("c@d.org an a@b.de", known=known).text == "[EMAIL_2] an [EMAIL_1]"


def test_a_text_without_personal_data_is_the_same() -> None:
    assert redact("§ 1\xad Abs. 2") == ("§ 1\xad Abs. 2", {})


@given(PIECES | st.text())
def test_nothing_is_found_in_a_redacted_text(text: str) -> None:
    redacted = redact(text)
    assert not find(redacted.text)
    assert redact(redacted.text) == (redacted.text, {})


@given(PIECES | st.text())
def test_findings_are_in_order_and_do_not_overlap(text: str) -> None:
    found = find(text)
    ends = [0, *(one.end for one in found)]
    assert all(end <= one.start < one.end <= len(text) for end, one in zip(ends, found, strict=False))
