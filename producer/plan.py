"""Planning: freeze the source and the columns, once per job, before the first message."""

from common.columns import Columns, declared, infer
from common.errors import FailureCode, JobFailed, ObjectExists, ObjectMissing
from common.jobstate import Plan
from common.layout import Layout
from common.models import JobSpec
from common.ports import ObjectStore
from producer.sources.port import Document, Source

_SAMPLE_DOCUMENTS = 10_000
_SAMPLE_BYTES = 16 * 1024 * 1024


async def plan_job(spec: JobSpec, source: Source, store: ObjectStore) -> Plan:
    """The job's plan: the one that stands in the store, else a new one that is created there.

    Raises:
        JobFailed: the source cannot be read, or a filter names a field that it does not have.
        StoreUnavailable: try again later.
    """
    key = Layout.of(spec).plan
    try:
        return Plan.decode(await store.get(key))
    except ObjectMissing:
        plan = await _make(spec, source)
    try:
        await store.create(key, plan.encode())
    except ObjectExists:
        return Plan.decode(await store.get(key))
    return plan


async def _make(spec: JobSpec, source: Source) -> Plan:
    frozen = await source.freeze()
    sample = await _sample(source, frozen)
    if isinstance(spec.format.metadata, dict):
        columns: Columns = declared(spec.format.metadata, sample)
    elif spec.format.metadata is not None:
        columns = declared(spec.format.metadata, sample)
    else:
        columns = infer(sample)
    return Plan(frozen, columns.to_json())


async def _sample(source: Source, frozen: list[dict[str, object]]) -> list[Document]:
    documents: list[Document] = []
    size = 0
    async for batch in source.sample(frozen):
        for item in batch:
            if len(documents) >= _SAMPLE_DOCUMENTS or size >= _SAMPLE_BYTES:
                return documents
            size += item.size
            if isinstance(item.content, Document):
                documents.append(item.content)
    return documents


__all__ = ["FailureCode", "JobFailed", "plan_job"]
