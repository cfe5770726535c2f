"""Embedding by sentence-transformers. Shardline does not depend on it; users may install it."""

from functools import cached_property
from typing import Any

from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.embedding.embedder import (
    EmbeddingOptions,
    import_optional,
    model_error,
)

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
        """Compute the vector on a thread. The first call loads the model."""
        return await run_in_thread(lambda: self._embed(text))

    def _embed(self, text: str) -> list[float]:
        model = self._model
        try:
            vector = model.encode(text, normalize_embeddings=True)
        except Exception as error:  # the library's errors have no common class
            raise model_error(f"the model {self._name} does not work: {error}", _INSTALL) from error
        return [float(number) for number in vector.tolist()]

    @cached_property
    def _model(self) -> Any:
        library = import_optional("sentence_transformers", _INSTALL)
        try:
            return library.SentenceTransformer(self._name, device="cpu")
        except Exception as error:  # the library's errors have no common class
            raise model_error(f"the model {self._name} cannot be loaded: {error}", _INSTALL) from error
