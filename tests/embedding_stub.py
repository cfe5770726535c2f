"""A service that embeds over HTTP for the tests: it knows the vectors of a few texts."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.embedding.http_embedder import HttpEmbedder


@asynccontextmanager
async def embedding_service(
    vectors: Mapping[str, Sequence[float]], token: str | None = None
) -> AsyncIterator[str]:
    """Its URL. It answers as OpenAI's API at /v1/embeddings, as text-embeddings-inference at /embed."""

    def vector(request: web.Request, text: Any) -> list[float]:
        if token is not None and request.headers.get("Authorization") != f"Bearer {token}":
            raise web.HTTPUnauthorized
        if text not in vectors:
            raise web.HTTPUnprocessableEntity(text="unknown text")
        return list(vectors[text])

    async def openai(request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["model"] == "all-MiniLM-L6-v2"
        return web.json_response({"data": [{"embedding": vector(request, asked["input"]), "index": 0}]})

    async def inference(request: web.Request) -> web.Response:
        return web.json_response([vector(request, (await request.json())["inputs"])])

    app = web.Application()
    app.router.add_post("/v1/embeddings", openai)
    app.router.add_post("/embed", inference)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


class Fixed:
    """Implements `Embedder`: every text has the same vector."""

    identity = "fixed"

    def __init__(self, *vector: float) -> None:
        self._vector = vector

    async def embed(self, text: str) -> Sequence[float]:
        """The vector."""
        assert text
        return self._vector


def over_http(url: str, **changes: Any) -> HttpEmbedder:
    """The embedder of a service."""
    return HttpEmbedder(EmbeddingOptions(url=url, timeout=5.0, **changes), url)
