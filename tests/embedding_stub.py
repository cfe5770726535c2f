"""Embedders for the tests: an HTTP service that knows a few texts, and one with a fixed vector."""

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
    """Run a service: OpenAI's API at /v1/embeddings, text-embeddings-inference at /embed. Yields its URL."""

    def vector(request: web.Request, text: Any) -> list[float]:
        if token is not None and request.headers.get("Authorization") != f"Bearer {token}":
            raise web.HTTPUnauthorized
        if text not in vectors:
            raise web.HTTPUnprocessableEntity(text="unknown text")
        return list(vectors[text])

    async def openai(request: web.Request) -> web.Response:
        body = await request.json()
        assert body["model"] == "all-MiniLM-L6-v2"
        return web.json_response({"data": [{"embedding": vector(request, body["input"]), "index": 0}]})

    async def inference(request: web.Request) -> web.Response:
        return web.json_response([vector(request, (await request.json())["inputs"])])

    app = web.Application()
    app.router.add_post("/v1/embeddings", openai)
    app.router.add_post("/embed", inference)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


class FixedEmbedder:
    """Implements `Embedder`: all texts have the same vector."""

    identity = "fixed"

    def __init__(self, *vector: float) -> None:
        self._vector = vector

    async def embed(self, text: str) -> Sequence[float]:
        """The vector."""
        assert text
        return self._vector


def over_http(url: str, **changes: Any) -> HttpEmbedder:
    """An embedder that uses the service at a URL."""
    return HttpEmbedder(EmbeddingOptions(url=url, timeout=5.0, **changes), url)
