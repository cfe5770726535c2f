"""A loop of aiokafka: `loop.py BOOTSTRAP TOPIC COUNT PREFIX`. Rows go to S3, then offsets are committed."""

import asyncio
import os
import sys

import aioboto3
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from task import encoded, row

SHARD_BYTES = 8 << 20


async def main() -> None:
    """Turn the documents of a topic into objects of rows."""
    bootstrap, topic, count, prefix = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"{topic}-{prefix}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    open_rows: dict[TopicPartition, list[bytes]] = {}
    sizes: dict[TopicPartition, int] = {}
    ends: dict[TopicPartition, int] = {}
    seen = 0
    async with aioboto3.Session().client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"]) as s3:

        async def put(partition: TopicPartition) -> None:
            body = b"".join(open_rows.pop(partition))
            key = f"{prefix}/{partition.partition:05}-{ends[partition]:012}.jsonl"
            await s3.put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=body)
            await consumer.commit({partition: ends[partition]})
            sizes[partition] = 0

        while seen < count:
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                rows = [row(orjson.loads(one.value)) for one in records]
                lines = [encoded(one) for one in rows if one is not None]
                open_rows.setdefault(partition, []).extend(lines)
                sizes[partition] = sizes.get(partition, 0) + sum(map(len, lines))
                ends[partition] = records[-1].offset + 1
                seen += len(records)
                if sizes[partition] >= SHARD_BYTES:
                    await put(partition)
        for partition in list(open_rows):
            await put(partition)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
