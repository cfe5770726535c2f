"""Decisions equal those that a few lines of Python make, however the records are cut into sidecars."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import JobFailed
from tests.decided_by_hand import Record, decide_by_hand
from tests.sidecar_inputs import AGAINST, compare, decide, landed, some_records, some_rules

# No shrinking: an example takes a tenth of a second, so it would take minutes.
FIXTURE = settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FIXTURE
@given(data=st.data(), records=some_records(), rules=some_rules(), contents=AGAINST)
def test_decision_is_that_of_a_few_lines_of_python(
    tmp_path: Path, data: st.DataObject, records: list[Record], rules: Rules, contents: list[set[bytes]]
) -> None:
    against = contents[: len(rules.against)]
    expected = decide_by_hand(records, rules, against)
    segments: list[list[Record]] = [[] for _ in range(data.draw(st.integers(1, 5)))]
    for one in records:
        data.draw(st.sampled_from(segments)).append(one)
    inputs = landed(tmp_path / "in", segments, rules, against)
    for path in (tmp_path / "steps").glob("*"):
        path.unlink()
    if expected.too_few:
        with pytest.raises(JobFailed, match="fewer than the"):
            decide(tmp_path, inputs, rules)
        return
    compare(tmp_path, decide(tmp_path, inputs, rules), inputs, expected)
