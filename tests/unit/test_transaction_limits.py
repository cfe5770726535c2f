"""Settings of the brokers that keep a producer from its transactions."""

import pytest

from shardline_common.kafka.transaction_limits import transaction_fault

SOUND = {
    "transaction.max.timeout.ms": "900000",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
}


@pytest.mark.parametrize(
    ("change", "brokers", "made", "named"),
    [
        ({}, 3, False, None),
        ({}, 2, True, None),
        ({}, 2, False, "replication.factor of the brokers is 3, and 2 brokers run"),
        ({}, 1, True, "min.isr of the brokers is 2, and 1 broker runs"),
        ({"transaction.max.timeout.ms": "5000"}, 3, True, "KAFKA_TRANSACTION_TIMEOUT_MS is 60000, over"),
        ({"transaction.max.timeout.ms": "60000"}, 3, True, None),
        (dict.fromkeys(SOUND), 1, False, None),
    ],
)
def test_a_setting_that_refuses_transactions_is_named_with_its_value(
    change: dict[str, str | None],
    brokers: int,
    made: bool,
    named: str | None,
) -> None:
    found = transaction_fault({**SOUND, **change}, brokers, made=made, timeout_ms=60_000)
    assert (found is None) is (named is None)
    if found is not None and named:
        assert named in str(found)
        assert found.hint
