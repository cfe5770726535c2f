"""Which settings of the brokers keep a producer from its transactions. Pure.

Kafka itself says so only after a deadline, or with an error that names no value: a producer waits for a
coordinator that cannot exist.
"""

from collections.abc import Mapping

from shardline_common.errors import BrokerRefused

STATE_TOPIC = "__transaction_state"
_LONGEST = "transaction.max.timeout.ms"
_FACTOR = "transaction.state.log.replication.factor"
_MIN_ISR = "transaction.state.log.min.isr"


def transaction_fault(
    settings: Mapping[str, str | None], brokers: int, *, made: bool, timeout_ms: int
) -> BrokerRefused | None:
    """The first fault of the brokers' settings; None without one. A setting that is not known has none.

    Args:
        settings: those of one broker.
        brokers: how many brokers run.
        made: the topic __transaction_state exists, so its replication factor is decided.
        timeout_ms: KAFKA_TRANSACTION_TIMEOUT_MS.
    """
    longest, factor, min_isr = (_number(settings.get(name)) for name in (_LONGEST, _FACTOR, _MIN_ISR))
    if longest is not None and timeout_ms > longest:
        return BrokerRefused(
            f"KAFKA_TRANSACTION_TIMEOUT_MS is {timeout_ms}, over the brokers' {_LONGEST} of {longest}",
            hint=f"set KAFKA_TRANSACTION_TIMEOUT_MS to at most {longest}, or raise {_LONGEST} of the brokers",
        )
    run = "1 broker runs" if brokers == 1 else f"{brokers} brokers run"
    if factor is not None and not made and factor > brokers:
        return BrokerRefused(
            f"{STATE_TOPIC} cannot be created: {_FACTOR} of the brokers is {factor}, and {run}",
            hint=f"start {factor} brokers, or set {_FACTOR} and {_MIN_ISR} to at most {brokers}",
        )
    if min_isr is not None and min_isr > brokers:
        return BrokerRefused(
            f"{STATE_TOPIC} cannot be written: {_MIN_ISR} of the brokers is {min_isr}, and {run}",
            hint=f"start {min_isr} brokers, or set {_MIN_ISR} to at most {brokers}",
        )
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
