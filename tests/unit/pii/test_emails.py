"""E-mail addresses, and what looks like one."""

import pytest

from shardline_consumer.pii import find


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("Schreiben Sie an max.mustermann@example.com.", ["max.mustermann@example.com"]),
        ("mailto:info@müller-bau.de, <a.b+c@x.co.uk>", ["info@müller-bau.de", "a.b+c@x.co.uk"]),
        (
            "name (at) firma.de oder name [at] firma [punkt] de",
            ["name (at) firma.de", "name [at] firma [punkt] de"],
        ),
        ("max punkt muster at firma dot de", ["max punkt muster at firma dot de"]),
        ("info @ firma.de", ["info @ firma.de"]),
        ("max@firma.de.Danach", ["max@firma.de"]),
        ("fullwidth info\uff20firma\uff0ede", ["info\uff20firma\uff0ede"]),
        ("soft max\xadmuster@fir\xadma.de hyphen", ["max\xadmuster@fir\xadma.de"]),
        ("Tren\xadnung vor\xadher: max@fir\xadma.de", ["max@fir\xadma.de"]),
        ("\xad\u2026\u200b \u200ba@b.de\u200b", ["a@b.de"]),
        ("o'brien@example.ie...x@y.de", ["o'brien@example.ie", "x@y.de"]),
        ("https://user:word@host.de/ and ssh://git@host.de", []),
        ("git clone git@github.com:team/project.git", []),
        ("logo@2x.png, lodash@4.17.21, root@localhost", []),
        ("@user@mastodon.social", []),
        ("Meet at noon, dot your i, at home.", []),
    ],
)
def test_addresses(text: str, addresses: list[str]) -> None:
    assert [text[one.start : one.end] for one in find(text, {"email"})] == addresses
