"""Check digits, against examples that their authorities publish."""

import pytest

from shardline_consumer.pii import checksums
from shardline_consumer.pii.area_codes import AREA_CODES


@pytest.mark.parametrize("number", ["DE89370400440532013000", "GB29NWBK60161331926819", "NO9386011117947"])
def test_iban(number: str) -> None:
    assert checksums.iban(number)
    assert not checksums.iban(number[:-1] + str((int(number[-1]) + 1) % 10))


@pytest.mark.parametrize("number", ["4111111111111111", "378282246310005", "30569309025904"])
def test_luhn(number: str) -> None:
    assert checksums.luhn(number)
    assert not checksums.luhn(number[:-1] + str((int(number[-1]) + 1) % 10))


@pytest.mark.parametrize(
    "number", ["86095742719", "47036892816", "65929970489", "57549285017", "11234561784"]
)
def test_tax_id(number: str) -> None:
    assert checksums.tax_id(number)
    assert not checksums.tax_id(number[:-1] + str((int(number[-1]) + 1) % 10))


@pytest.mark.parametrize("number", ["11111111111", "11123456780", "12345678903", "11223456789"])
def test_digits_that_no_tax_id_has(number: str) -> None:
    assert not checksums.tax_id(number)


@pytest.mark.parametrize("number", ["65170839J003", "15070649C103"])
def test_social_insurance(number: str) -> None:
    assert checksums.social_insurance(number)
    assert not checksums.social_insurance(number[:-1] + str((int(number[-1]) + 1) % 10))


def test_social_insurance_has_a_date_of_birth() -> None:
    assert not any(checksums.social_insurance(f"65173239J00{digit}") for digit in range(10))


@pytest.mark.parametrize("number", ["T220001293", "L01X00T471", "C01X00T478", "2406055684"])
def test_machine_readable(number: str) -> None:
    assert checksums.machine_readable(number)
    assert not checksums.machine_readable(number[:-1] + str((int(number[-1]) + 1) % 10))


def test_area_codes() -> None:
    assert {"30", "40", "69", "89", "221", "4331", "33398"} <= AREA_CODES
    assert not {"20", "115", "207", "180"} & AREA_CODES
    assert len(AREA_CODES) == 5207
