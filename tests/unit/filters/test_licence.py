"""The filter `licence`."""

import pytest

from shardline_common.curation.text_facts import TextFacts
from shardline_consumer.filters.licence import FILTER, Licence, normal_licence


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("MIT", "mit"),
        ("MIT License", "mit"),
        ("The MIT License", "mit"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache Software License 2.0", "apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "apache-2.0"),
        ("https://opensource.org/licenses/MIT", "mit"),
        ("https://spdx.org/licenses/BSD-3-Clause.html", "bsd-3-clause"),
        ("BSD 3-Clause", "bsd-3-clause"),
        ("BSD-3", "bsd-3-clause"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC_BY_SA 4.0", "cc-by-sa-4.0"),
        ("Creative Commons BY 4.0", "cc-by-4.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0/deed.de", "cc-by-nc-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("GPLv3", "gpl-3.0-only"),
        ("GPL-2.0+", "gpl-2.0-or-later"),
        ("LGPL-2.1", "lgpl-2.1-only"),
        ("AGPL-3.0-or-later", "agpl-3.0-or-later"),
        ("GNU Affero General Public License v3", "agpl-3.0-only"),
        ("dl-de/by-2-0", "dl-de/by-2-0"),
        ("Unlicense", "unlicense"),
    ],
)
def test_a_licence_is_named_as_spdx_does(written: str, normal: str) -> None:
    assert normal_licence(written) == normal


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("mit", None),
        ("Apache 2.0", None),
        ("GPL-3.0-only", "not_allowed"),
        ("GPL-3.0-only OR MIT", None),
        ("GPL-3.0-only AND MIT", "not_allowed"),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0", None),
        ("MIT OR GPL-3.0-only AND Apache-2.0", None),
        ("Apache-2.0 WITH LLVM-exception", None),
        ("(MIT", "not_allowed"),
        (["mit", "apache-2.0"], None),
        (["mit", "gpl-3.0"], "not_allowed"),
        ("all rights reserved", "not_allowed"),
        (4, "not_allowed"),
        (None, "missing"),
        ("  ", "missing"),
        ([], "missing"),
    ],
)
def test_only_allowed_licences_pass(licence: object, reason: str | None) -> None:
    assert _reason(Licence(allow=["MIT", "apache 2.0"]), {"license": licence}) == reason


def test_a_missing_licence_may_be_allowed_and_the_field_named() -> None:
    parameters = Licence(allow=["cc-by-4.0"], field="rights", allow_missing=True)
    assert _reason(parameters, {}) is None
    assert _reason(parameters, {"rights": "CC BY 4.0"}) is None
    assert _reason(parameters, {"rights": "CC BY-NC 4.0"}) == "not_allowed"


def _reason(parameters: Licence, metadata: dict[str, object]) -> str | None:
    facts = TextFacts("", metadata)
    for rule in FILTER.rules(parameters, {}):
        if rule.most is not None and rule.measure(facts) > rule.most:
            return rule.name
    return None
