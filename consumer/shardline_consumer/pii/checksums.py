"""Check digits of numbers. Each function takes what the number is without its separators."""

from datetime import date

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_PENSION_FACTORS = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
_MRZ_FACTORS = (7, 3, 1)
_TAX_ID_DIGITS = 11
_MOST_REPEATED = 3


def luhn(digits: str) -> bool:
    """The check digit of credit cards."""
    own = sum(map(int, digits[-1::-2]))
    return (own + sum(_DOUBLED[int(one)] for one in digits[-2::-2])) % 10 == 0


def iban(number: str) -> bool:
    """The check digits of an account number, whose letters are upper case."""
    return int("".join(str(int(one, 36)) for one in number[4:] + number[:4])) % 97 == 1


def tax_id(digits: str) -> bool:
    """The German tax id: its digit rule, and its check digit by ISO 7064 (mod 11, 10).

    Of the first ten digits, one occurs twice or three times, though not three times in a row, and the others
    at most once.
    """
    first, repeated = digits[:-1], [one for one in set(digits[:-1]) if digits[:-1].count(one) > 1]
    if len(digits) != _TAX_ID_DIGITS or len(repeated) != 1:
        return False
    if first.count(repeated[0]) > _MOST_REPEATED or repeated[0] * _MOST_REPEATED in first:
        return False
    product = 10
    for one in first:
        total = (int(one) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def social_insurance(number: str) -> bool:
    """The German pension insurance number, such as 65170839J003: a date of birth, and a check digit."""
    digits = number[:8] + f"{ord(number[8]) - 64:02d}" + number[9:]
    # From the 51st of a month on, the day is 50 less: more than 100 people had the same letter.
    day = int(number[2:4])
    try:
        date(2000, int(number[4:6]), day - 50 if day > 50 else day)  # noqa: PLR2004
    except ValueError:
        return False
    products = (int(one) * factor for one, factor in zip(digits[:-1], _PENSION_FACTORS, strict=True))
    return sum(product // 10 + product % 10 for product in products) % 10 == int(digits[-1])


def machine_readable(number: str) -> bool:
    """The last digit of a number of an ID card or passport, as in the machine-readable lines."""
    values = (int(one, 36) * _MRZ_FACTORS[place % 3] for place, one in enumerate(number[:-1]))
    return sum(values) % 10 == int(number[-1])
