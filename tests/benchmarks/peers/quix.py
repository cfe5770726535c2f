"""Quix Streams: `quix.py BOOTSTRAP TOPIC ROWS PREFIX`. Its S3FileSink, with JSON of orjson."""

import os
import sys
from typing import Any

import orjson
from quixstreams import Application
from quixstreams.sinks.community.file.formats import JSONFormat
from quixstreams.sinks.community.file.s3 import S3FileSink
from task import row


def dumps(value: Any) -> str:
    """JSON of orjson, which its format takes as text."""
    return orjson.dumps(value).decode()


def main() -> None:
    """Turn the documents of a topic into objects of rows."""
    bootstrap, topic, rows_expected, prefix = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"{topic}-{prefix}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="WARNING",
    )
    sink = S3FileSink(
        bucket=os.environ["S3_BUCKET"],
        endpoint_url=os.environ["S3_ENDPOINT_URL"],
        region_name="us-east-1",
        directory=prefix,
        format=JSONFormat(dumps=dumps),
    )
    documents = app.dataframe(app.topic(topic, value_deserializer="bytes", key_deserializer="bytes"))
    # A file for each partition and commit; a commit each 5 seconds is the default.
    rows = documents.apply(lambda value: row(orjson.loads(value))).filter(lambda found: found is not None)
    rows.sink(sink)
    app.run(count=rows_expected, timeout=20.0, collect=False)


if __name__ == "__main__":
    main()
