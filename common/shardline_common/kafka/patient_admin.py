"""The admin client of aiokafka for a cluster of which a broker may be dead, frozen or behind."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.metadata import MetadataRequest

from shardline_common.kafka.asking import ask_in_turn

# Error codes: no such topic, and a name that no topic can have.
_NO_TOPIC = (3, 17)

# A change of topics takes the controllers some time: two of them at once would confuse each other's answers.
_CONTROLLER_PATIENCE_SECONDS = 5.0


class TopicView(NamedTuple):
    """What brokers know about a topic.

    `metadata` is that of the first broker that knows it: error_code, topic, partitions. None without any.
    `answered` brokers gave metadata, of `listed` brokers.
    """

    metadata: dict[str, Any] | None
    answered: int
    listed: int


class PatientAdmin(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka is untyped
    """An admin client whose requests go to any broker that answers."""

    async def _send_request(self, request: Any, node_id: Any = None) -> Any:
        if node_id is not None:
            return await self._client.send(node_id, request)
        return (await self._client.ask(request)).best()

    async def _send_to_controller(self, request: Any) -> Any:
        # Brokers of KRaft pass it on to the controller. In older clusters only the controller accepts it.
        return (await self._client.ask(request, _CONTROLLER_PATIENCE_SECONDS)).best()

    async def check(self) -> None:
        """Return if any broker answers."""
        await self._send_request(MetadataRequest([]))

    async def look_for(self, topic: str) -> TopicView:
        """Ask for a topic until one broker knows it.

        The public call lets a broker with auto.create.topics.enable create the topic.
        """
        before = set(self._client.nodes())
        found = await self._client.ask(MetadataRequest([topic], allow_auto_topic_creation=False))
        best = found.best()
        listed = before.union(*({broker[0] for broker in one.brokers} for one in (*found.others, best)))
        if not listed <= before:
            self._client.force_metadata_update()
        topics: list[dict[str, Any]] = best.to_object()["topics"]
        answered = len(found.others) + (found.good is not None)
        return TopicView(topics[0] if topics else None, answered, len(listed))

    async def broker_settings(self, resource: Callable[[str], Any]) -> Any:
        """The settings of any broker. `resource` is called with its node."""
        asks = [partial(self.describe_configs, [resource(str(node))]) for node in self._client.nodes()]
        return (await ask_in_turn(asks)).best()


def partitions_of(topic: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The partitions of a topic; none when it does not exist. Other errors do not say whether it exists."""
    if topic is None or topic["error_code"] in _NO_TOPIC:
        return []
    if topic["error_code"]:
        raise for_code(topic["error_code"])(topic["topic"])
    partitions: list[dict[str, Any]] = topic["partitions"]
    return partitions
