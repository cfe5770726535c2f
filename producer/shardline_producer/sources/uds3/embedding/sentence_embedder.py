"""The package sentence-transformers, where a user has installed it; Shardline does not ask for it."""

from functools import cached_property
from typing import Any

from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions, no_model, optional

_INSTALL = (
    "set EMBEDDING_MODEL_PATH to a folder with an ONNX model (extra 'onnx'), or EMBEDDING_URL to a service, "
    "or install sentence-transformers"
)


class SentenceEmbedder:
    """Implements `Embedder`."""

    def __init__(self, options: EmbeddingOptions) -> None:
        self._name = options.model

    @property
    def identity(self) -> str:
        """The model's name."""
        return f"{self._name} (sentence-transformers)"

    async def embed(self, text: str) -> list[float]:
        """The vector, computed on a thread; the model is loaded at the first call."""
        return await run_in_thread(lambda: self._embed(text))

    def _embed(self, text: str) -> list[float]:
        vector = self._model.encode(text, normalize_embeddings=True)
        return [float(number) for number in vector.tolist()]

    @cached_property
    def _model(self) -> Any:
        library = optional("sentence_transformers", _INSTALL)
        try:
            return library.SentenceTransformer(self._name, device="cpu")
        except Exception as error:  # the library's errors share no class
            raise no_model(f"the model {self._name} cannot be loaded: {error}", _INSTALL) from error
