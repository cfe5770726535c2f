"""A small S3 server in the test's process: objects in memory, and answers that a test changes.

For what a real server does not do on demand: refuse one kind of request, or have a wrong clock.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import md5
from xml.etree import ElementTree as ET

from aiohttp import web

from shardline_common.settings.load import Settings

BUCKET = "bucket"


class SmallS3:
    """The server. Requests are named as in the API of S3: PutObject, ListObjectsV2 …

    `refused`: request → (status, code), for requests that are refused. `ahead`: seconds of its clock.
    `versioning`: the answer to GetBucketVersioning. `names_deleted`: whether the answer to a delete has keys.
    `on_request` is called with the name and the key of each.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.ahead = 0.0
        self.versioning = ""
        self.names_deleted = True
        self.versions_root = "ListVersionsResult"
        self.on_request: Callable[[str, str], None] = lambda _name, _key: None
        self.port = 0

    def settings(self, **fields: object) -> Settings:
        """The settings of a process that uses the server."""
        values = {
            "s3_bucket": BUCKET,
            "aws_endpoint_url_s3": f"http://127.0.0.1:{self.port}",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "s3_addressing_style": "path",
        }
        return Settings.model_validate(values | fields)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request."""
        body, key = await request.read(), request.path.removeprefix(f"/{BUCKET}").removeprefix("/")
        name = _name(request, key)
        self.on_request(name, key)
        if name in self.refused:
            return self._answer(self.refused[name][0], f"<Error><Code>{self.refused[name][1]}</Code></Error>")
        match name:
            case "PutObject":
                answer = self._put(key, body)
            case "GetObject":
                answer = self._get(key)
            case "DeleteObjects":
                answer = self._answer(200, self._delete(body))
            case "GetBucketVersioning":
                text = f"<VersioningConfiguration>{self.versioning}</VersioningConfiguration>"
                answer = self._answer(200, text)
            case "ListObjectVersions":
                answer = self._answer(200, f"<{self.versions_root}/>")
            case _:
                answer = self._answer(200, self._list(request.query.get("prefix", "")))
        return answer

    def _put(self, key: str, body: bytes) -> web.Response:
        if key in self.objects:
            return self._answer(412, "<Error><Code>PreconditionFailed</Code></Error>")
        self.objects[key] = body
        return self._answer(200, "", key)

    def _get(self, key: str) -> web.Response:
        if key not in self.objects:
            return self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")
        return self._answer(200, self.objects[key], key)

    def _delete(self, body: bytes) -> str:
        keys = [found.text or "" for found in ET.fromstring(body).iterfind(".//{*}Key")]  # noqa: S314 - botocore's
        for key in keys:
            self.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys if self.names_deleted)
        return f"<DeleteResult>{deleted}</DeleteResult>"

    def _list(self, prefix: str) -> str:
        found = [(key, data) for key, data in sorted(self.objects.items()) if key.startswith(prefix)]
        entries = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>{_etag(data)}</ETag></Contents>"
            for key, data in found
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"

    def _answer(self, status: int, body: bytes | str, key: str = "") -> web.Response:
        date = datetime.now(UTC) + timedelta(seconds=self.ahead)
        headers = {"Date": format_datetime(date, usegmt=True)}
        if key:
            headers["ETag"] = _etag(self.objects[key])
        data = body if isinstance(body, bytes) else body.encode()
        return web.Response(status=status, body=data, headers=headers, content_type="application/xml")


def _name(request: web.Request, key: str) -> str:
    if request.method == "PUT":
        return "PutObject"
    if request.method == "POST":
        return "DeleteObjects"
    if key:
        return "GetObject"
    if "versions" in request.query:
        return "ListObjectVersions"
    return "GetBucketVersioning" if "versioning" in request.query else "ListObjectsV2"


def _etag(data: bytes) -> str:
    return f'"{md5(data, usedforsecurity=False).hexdigest()}"'


@asynccontextmanager
async def small_s3() -> AsyncIterator[SmallS3]:
    """Run the server on a free port."""
    server = SmallS3()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
