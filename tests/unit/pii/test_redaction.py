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
            "Tel. 030 23125 678",
            "DE89 3704 0044 0532 0130 00",
            "4111111111111111",
            "192.0.2.1",
            "86095742719",
            "65 170839 J 003",
            "B-MW 1234",
            "0",
            "+49",
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


def test_a_number_of_another_kind_is_no_phone_number() -> None:
    text = "Tel. oder IBAN DE89 3704 0044 0532 0130 00"
    assert redact(text, {"phone"}) == (text, {})
    assert redact(text).text == "Tel. oder IBAN [IBAN_1]"


def test_what_a_placeholder_brings_into_reach_is_replaced_too() -> None:
    text = f"Telefon, auch {'m' * 40}@example.org, 0301234567"
    assert [one.kind for one in find(text)] == ["email"]
    assert redact(text).text == "Telefon, auch [EMAIL_1], [PHONE_1]"


def test_placeholders_are_typed() -> None:
    text, counts = redact("Tel. 030 23125 678, Steuer-ID 86 095 742 719, Tel. 030/23125-678")
    assert text == "Tel. [PHONE_1], Steuer-ID [TAX_ID_1], Tel. [PHONE_1]"
    assert counts == {"phone": 2, "tax_id": 1}


@given(PIECES | st.text())
def test_findings_are_in_order_and_do_not_overlap(text: str) -> None:
    found = find(text)
    ends = [0, *(one.end for one in found)]
    assert all(end <= one.start < one.end <= len(text) for end, one in zip(ends, found, strict=False))
