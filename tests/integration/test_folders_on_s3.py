"""A folder on a real S3 store gives the documents of the same folder on a disk, in the same order."""

import secrets
from pathlib import Path

from s3fs import S3FileSystem

from shardline.services.wiring.stores import s3_options
from shardline_common.settings.load import load_settings
from shardline_common.storage.s3 import open_s3
from shardline_producer.sources.files.bucket_files import S3Files
from shardline_producer.sources.files.file_documents import FileDocuments
from shardline_producer.sources.files.local_files import LocalFiles
from tests.make import job, memory_pages
from tests.services import S3
from tests.source_items import item_ids
from tests.unit.test_files_source import items
from tests.unit.test_text_and_folders import FOLDER, IN_ORDER, MARKERS, fill


async def test_a_folder_on_s3_is_that_on_a_disk(seaweed: S3, tmp_path: Path) -> None:
    fill(tmp_path, FOLDER | MARKERS)
    bucket = f"folder-{secrets.token_hex(4)}"
    client = S3FileSystem(key=seaweed.access_key, secret=seaweed.secret_key, endpoint_url=seaweed.endpoint)
    client.mkdir(bucket)
    client.put(str(tmp_path / "in"), f"{bucket}/", recursive=True)
    settings = load_settings(environ=seaweed.env).settings
    async with open_s3(s3_options(settings)) as reader:
        for path in ("in", f"s3://{bucket}/in/", f"s3://{bucket}/"):
            spec = job(source={"type": "files", "paths": [path]})
            found = FileDocuments(spec, LocalFiles(tmp_path), S3Files(reader), memory_pages())
            above = "in/" if path.endswith(f"{bucket}/") else ""
            expected = [name if name[0] == "d" else above + name for name in IN_ORDER]
            assert item_ids(await items(found)) == expected
