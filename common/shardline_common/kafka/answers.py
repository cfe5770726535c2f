"""The last refusals that one client of Kafka got.

aiokafka repeats many requests without an end and without an error: after a deadline only these refusals say
why. They are kept per kind of request and broker. A success of the same kind removes them, or their age: a
broker that is asked no more, because another took over, is no cause any more.
"""

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import starmap
from typing import Any, TypeAlias

from aiokafka.errors import BrokerResponseError, KafkaError, UnknownError, kafka_errors

# Answers that belong to the normal course of a request, by error code: a first join without a member id,
# and a batch that had been written before.
_EXPECTED = frozenset({0, 46, 79})
# The codes of other requests reach the caller.
_REPEATED = frozenset(
    {
        "AddPartitionsToTxn",
        "EndTxn",
        "Fetch",
        "FindCoordinator",
        "Heartbeat",
        "InitProducerId",
        "JoinGroup",
        "Offset",
        "OffsetFetch",
        "Produce",
        "SyncGroup",
    }
)
# Requests that any broker may answer, or that follow a coordinator from broker to broker.
_ANYWHERE = _REPEATED - {"Fetch", "Offset", "Produce"}
_FETCH_ERROR = 1


class InvalidRecord(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Code 87, which aiokafka 0.14 does not know."""

    errno, message = 87, "INVALID_RECORD"


class UnsupportedCompressionType(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Code 76, which aiokafka 0.14 does not know."""

    errno, message = 76, "UNSUPPORTED_COMPRESSION_TYPE"


class GroupMaxSizeReached(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Code 81, which aiokafka 0.14 does not know."""

    errno, message = 81, "GROUP_MAX_SIZE_REACHED"


class ThrottlingQuotaExceeded(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Code 89, which aiokafka 0.14 does not know."""

    errno, message, retriable = 89, "THROTTLING_QUOTA_EXCEEDED", True


class PassingError(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """A code that aiokafka 0.14 does not know, and that ends by itself."""

    retriable = invalid_metadata = True


# Most of them come while the leader of a partition changes.
_PASSING = {
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    80: "PREFERRED_LEADER_NOT_AVAILABLE",
    83: "ELIGIBLE_LEADERS_NOT_AVAILABLE",
    88: "UNSTABLE_OFFSET_COMMIT",
    100: "UNKNOWN_TOPIC_ID",
    103: "INCONSISTENT_TOPIC_ID",
    106: "FETCH_SESSION_TOPIC_ID_ERROR",
}


class TransactionAbortable(BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Code 120, which aiokafka 0.14 does not know. Another transaction may pass."""

    errno, message = 120, "TRANSACTION_ABORTABLE"


def _passing(code: int, name: str) -> type[PassingError]:
    return type(name.title().replace("_", ""), (PassingError,), {"errno": code, "message": name})


# aiokafka turns a code that is not in this table into UnknownError, without the code.
_ERRORS: tuple[Any, ...] = (
    InvalidRecord,
    UnsupportedCompressionType,
    GroupMaxSizeReached,
    ThrottlingQuotaExceeded,
    TransactionAbortable,
    *starmap(_passing, _PASSING.items()),
)
for _error in _ERRORS:
    kafka_errors.setdefault(_error.errno, _error)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A broker that does not accept a connection at the address that it advertises."""

    node: int
    address: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A broker accepted the connection, and closed it `count` times in a row at a batch of `size` bytes."""

    count: int
    size: int


Failure: TypeAlias = KafkaError | Unreachable | Closed


class Answers:
    """The refusals of one client that no later success has removed, and that are not too old.

    A request that is repeated fails at least once within three request time-outs. `successes` are the kinds
    of request that have succeeded at least once.
    """

    def __init__(self, request_timeout_ms: int) -> None:
        self._max_age = 3 * request_timeout_ms / 1000
        self.successes: set[str] = set()
        self._errors: dict[tuple[str, object], tuple[float, Failure]] = {}

    @property
    def last(self) -> tuple[str, Failure] | None:
        """The kind of request that failed last, such as `Produce`, and its error. None without one.

        An error code is preferred to a broker that cannot be reached: one of several brokers may be down.
        """
        oldest = asyncio.get_running_loop().time() - self._max_age
        found = [(kind, error) for (kind, _), (at, error) in self._errors.items() if at >= oldest]
        coded = [item for item in found if isinstance(item[1], BrokerResponseError)]
        newest = coded or found
        return newest[-1] if newest else None

    def failed(self, kind: str, key: object, error: Failure) -> None:
        """A request of that kind failed. `key`: the broker, or another object of the request."""
        where = (kind, key if kind not in _ANYWHERE else None)
        self._errors.pop(where, None)
        self._errors[where] = asyncio.get_running_loop().time(), error

    def forget_brokers(self, but: Collection[int]) -> None:
        """Forget the failures of other brokers: one that is asked no more is no cause any more."""
        for kind, key in tuple(self._errors):
            if key is not None and key not in but:
                del self._errors[kind, key]

    def unreachable(self, node: int, address: str) -> None:
        """A broker does not accept connections. Then it is no batch that made it close the last one."""
        if isinstance(self._errors.get(("Produce", node), (0.0, None))[1], Closed):
            del self._errors["Produce", node]
        self.failed("connect", node, Unreachable(node, address))

    def closed(self, node: int, size: int) -> None:
        """A broker closed the connection while it was sent a batch of that size."""
        _, before = self._errors.get(("Produce", node), (0.0, None))
        count = before.count + 1 if isinstance(before, Closed) else 1
        self.failed("Produce", node, Closed(count, size))

    def succeeded(self, kind: str, key: object) -> None:
        """A request of that kind succeeded."""
        self.successes.add(kind)
        self._errors.pop((kind, key if kind not in _ANYWHERE else None), None)

    def answered(self, kind: str, key: object, response: Any) -> None:
        """A broker answered; the answer may hold error codes."""
        if kind not in _REPEATED:
            return
        codes = [code for code in _error_codes(kind, response) if code not in _EXPECTED]
        if codes:
            self.failed(kind, key, _error_of(codes[0]))
        else:
            self.succeeded(kind, key)


def _error_of(code: int) -> KafkaError:
    return kafka_errors[code]() if code in kafka_errors else UnknownError(f"error code {code}")


def _error_codes(kind: str, response: Any) -> Iterator[int]:
    if kind != "Fetch":
        yield from walk_error_codes(response.to_object())
        return
    # The object of a fetch would copy all records.
    for _, partitions in response.topics:
        for partition in partitions:
            yield partition[_FETCH_ERROR]


def walk_error_codes(value: object) -> Iterator[int]:
    """All error codes in the object of an answer."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "error_code":
                yield item
            else:
                yield from walk_error_codes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from walk_error_codes(item)
