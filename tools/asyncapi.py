"""docs/asyncapi.json and docs/topics.md: names, keys, settings and message schemas of the topics."""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from shardline_common import __version__
from shardline_common.dataset.events import Event
from shardline_common.dataset.stage_events import STAGE_HEADER, StageEvent
from shardline_common.job import messages as wire
from shardline_common.job.dead_letters import DeadLetterRecord
from shardline_common.job.names import CHECKPOINTS, DEAD_LETTERS, EVENTS, JOBS, attempt_topic
from shardline_common.job.spec import JobSpec, Request
from shardline_common.job.state import JobState
from shardline_common.job.submission import SUBMISSION_HEADER
from shardline_common.job.trace_headers import TRACE_HEADER
from shardline_common.ports.broker import TopicSpec
from shardline_common.settings.load import Settings
from shardline_producer.topics import attempt_topic_spec, system_topics
from tools.schema_pages import Json, schema_table, wrapped

_DOCUMENTS = attempt_topic("{job_id}", 1).removesuffix("1") + "{attempt}"
_JOB = JobSpec.model_validate({"job_id": "id", "name": "id", "source": {"type": "uds3"}})
_READ: JsonSchemaMode = "validation"
_VERSION = {"bindingVersion": "0.5.0"}
_NUMBERS = {"retention.ms", "retention.bytes", "max.message.bytes"}


@dataclass(frozen=True, slots=True)
class Topic:
    """The texts about a topic in the page and the description. `messages`: names of schemas."""

    name: str
    title: str
    key: str
    text: str
    writers: str
    readers: str
    messages: tuple[str, ...]


TOPICS = (
    Topic(
        JOBS,
        "jobs",
        "job_id",
        "Jobs, and requests about them. Kept without limit. A message that is neither becomes a dead letter.",
        "`submit`, `cancel`, `retry`, `delete`, the gateway, any Kafka client",
        "producers, as one consumer group",
        ("JobSpec", "Request"),
    ),
    Topic(
        CHECKPOINTS,
        "checkpoints",
        "job_id; `<job_id>/<number>` for a slice",
        "Each job's state, written in one transaction with its documents. Compacted; as many partitions as "
        "dataset.jobs, and the same partitioner. Read with isolation.level=read_committed. The state of a "
        "slice n is n partitions behind that of its job, and is removed when the attempt has ended.",
        "the job's producer, and those of its slices",
        "producers, workers, `status`, the gateway; as a table, without a group",
        ("JobState",),
    ),
    Topic(
        _DOCUMENTS,
        "documents",
        "document_id; the place in the source for a dead letter without an id; `end` for an end marker",
        "The documents of one attempt, numbered without gaps in each partition. The topic is deleted after "
        "the attempt. Read with isolation.level=read_committed.",
        "the job's producer, or those of its slices, in transactions",
        "workers, as one consumer group for each attempt",
        ("Document", "Dead", "End", "Grouped"),
    ),
    Topic(
        EVENTS,
        "events",
        "job_id",
        "Progress, cumulative for each attempt and partition. Only a hint: the chain decides. How far an "
        "assembled job is behind its landing is in the header `stage`, a StageEvent as JSON, of an event of "
        "the partition -1, which has no counts of its own.",
        "workers; the job's producer, of its stages and at the attempt's end",
        "`status`, the gateway, any Kafka client",
        ("Event",),
    ),
    Topic(
        DEAD_LETTERS,
        "deadLetters",
        "`<job_id>/<partition>/<sequence>` of a document, `dataset.jobs/<partition>/<offset>` of a job",
        "Input that could not become a document or a job. A repeat after a crash has the same key and counts "
        "once. "
        "Deleting a job writes null for each of its keys.",
        "workers and producers",
        "`dead-letters`, any Kafka client",
        ("DeadLetterRecord",),
    ),
)
_BINARY = {
    "Document": "kind 1: a document, as its finished row without the quality score",
    "Dead": "kind 2: input that could not become a document",
    "End": "kind 3: the end marker of a partition",
    "Grouped": "kind 4: a document as of kind 1, with the hash of its group",
}
_TRACED = ("JobState", "End")
_HEADERS: Json = {
    "type": "object",
    "properties": {
        TRACE_HEADER: {
            "type": "string",
            "description": "The trace of the message (W3C Trace Context), if it has one.",
        }
    },
}
_SUBMITTED: Json = {
    "type": "object",
    "properties": _HEADERS["properties"]
    | {
        SUBMISSION_HEADER: {
            "type": "string",
            "description": "JSON: `submitted_at` (RFC 3339), and of a job that a gateway submits `owner` and "
            "`owner_issuer`, the subject and the issuer of the user's token. The first message's are kept "
            "in `_jobs/<job_id>.json`.",
        }
    },
}
_STAGED: Json = {
    "type": "object",
    "properties": {
        STAGE_HEADER: {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/StageEvent"},
            "description": "JSON: how far an assembled job is. Only in events of the partition -1.",
        }
    },
}
_TABLES = {
    CHECKPOINTS: ("JobState", "PartitionState"),
    EVENTS: ("Event", "StageEvent", "Counts"),
    DEAD_LETTERS: ("DeadLetterRecord",),
}
_ELSEWHERE = {
    JOBS: "[The job message](job.md) describes the fields of both.\n",
    _DOCUMENTS: wrapped(str(wire.__doc__)) + "\n",
}


def topic_specs() -> dict[str, TopicSpec]:
    """Return the specs of the topics of a job with default settings, by the names of `TOPICS`."""
    defaults = Settings()
    system = {spec.name: spec for spec in system_topics(defaults.jobs_partitions)}
    return system | {_DOCUMENTS: attempt_topic_spec(_JOB, 1, defaults.topic_limit_bytes)}


def schemas() -> dict[str, Json]:
    """Return the schemas of messages and of the types in them; references are to #/components/schemas."""
    models = (JobSpec, Request, JobState, Event, StageEvent, DeadLetterRecord)
    wanted = [(model, _READ, TypeAdapter(model)) for model in models]
    _, shared = TypeAdapter.json_schemas(wanted, ref_template="#/components/schemas/{model}")
    found = {name: _plain(schema) for name, schema in shared["$defs"].items()}
    # Leave out the fields of a state that are not in its JSON.
    full = JobState(_JOB, findings={"": ""}, vanished=1, submitted_at="x", owner="x", owner_issuer="x")
    sent = orjson.loads(full.encode())
    state = found["JobState"]
    # The JSON keeps the name that the previous version reads (job/state.py).
    named = {"pending_notifications": "owed"}
    renamed = {named.get(name, name): about for name, about in state["properties"].items()}
    state["properties"] = {name: about for name, about in renamed.items() if name in sent}
    # The record's key is not in its value, and bytes travel as base64.
    record = found["DeadLetterRecord"]
    fields = record["properties"]
    fields["original_base64"] = fields.pop("original")
    del fields["key"]
    record["required"] = list(fields)
    record["description"] = (
        "`original_base64` is the start of the original, at most 64 KiB; null when a setting leaves it out."
    )
    return found | {name: {"type": "string", "format": "binary"} for name in _BINARY}


def asyncapi() -> Json:
    """Return the AsyncAPI 3 description of all topics."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Shardline's topics",
            "version": __version__,
            "description": "The topics and their messages. KAFKA_TOPIC_PREFIX precedes each name.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.title: _channel(topic) for topic in TOPICS},
        "operations": {
            f"{verb}{topic.title[0].upper()}{topic.title[1:]}": {
                "action": verb,
                "channel": {"$ref": f"#/channels/{topic.title}"},
                "summary": "By " + who,
            }
            for topic in TOPICS
            for verb, who in (("send", topic.writers), ("receive", topic.readers))
        },
        "components": {"schemas": schemas()},
    }


def _plain(schema: Any) -> Any:
    # Pydantic's discriminator is an object, AsyncAPI's a name; `oneOf` works without it.
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name != "discriminator"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _channel(topic: Topic) -> Json:
    spec = topic_specs()[topic.name]
    channel: Json = {
        "address": topic.name,
        "description": topic.text,
        "messages": {name: _message(name, topic.key) for name in topic.messages},
        "bindings": {
            "kafka": {"partitions": spec.partitions, "topicConfiguration": _configuration(spec)} | _VERSION
        },
    }
    if topic.name == _DOCUMENTS:
        channel["parameters"] = {
            "job_id": {"description": "The job."},
            "attempt": {"description": "1, 2, 3 …"},
        }
    return channel


def _message(name: str, key: str) -> Json:
    message: Json = {
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}} | _VERSION},
    }
    if name in _BINARY:
        message |= {
            "contentType": "application/octet-stream",
            "summary": _BINARY[name],
            "description": wire.__doc__,
        }
    if name == "JobSpec":
        return message | {"headers": _SUBMITTED}
    if name == "Event":
        return message | {"headers": _STAGED}
    return message | ({"headers": _HEADERS} if name in _TRACED else {})


def _configuration(spec: TopicSpec) -> Json:
    found: Json = {name: int(value) if name in _NUMBERS else value for name, value in spec.config.items()}
    return found | {"cleanup.policy": spec.config["cleanup.policy"].split(",")}


def topics_page() -> str:
    """Return docs/topics.md: the description of the topics for people."""
    specs, described = topic_specs(), schemas()
    parts = []
    for topic in TOPICS:
        spec = specs[topic.name]
        settings = ", ".join(f"`{name}={value}`" for name, value in spec.config.items())
        parts.append(f"## `{topic.name}`\n\n{wrapped(topic.text)}\n")
        parts.append(
            f"| | |\n|---|---|\n| key | {topic.key} |\n| written by | {topic.writers} |\n"
            f"| read by | {topic.readers} |\n| created with | {spec.partitions} partitions, {settings} |\n"
        )
        parts += [schema_table(name, described) for name in _TABLES.get(topic.name, ())]
        parts.append(_ELSEWHERE.get(topic.name, ""))
    return "\n".join(parts)
