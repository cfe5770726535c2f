"""Embedding by a local ONNX model, without a network: onnxruntime and tokenizers (extra `onnx`)."""

import json
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from shardline_common.runtime.paths import open_regular, os_reason
from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.embedding.embedder import (
    EmbeddingOptions,
    import_optional,
    mean_pooled,
    model_error,
    normalized,
)

_INSTALL = "install Shardline's extra 'onnx' (onnxruntime and tokenizers), or set EMBEDDING_URL"
_MAX_TOKENS = 256
_MODEL_FILES = ("model.onnx", "onnx/model.onnx")
_BLOCK = 1 << 20


class OnnxEmbedder:
    """Implements `Embedder` as sentence-transformers does: the mean over the tokens, scaled to length 1.

    The runtime uses one thread: the order of its sums must not depend on the number of cores.
    """

    def __init__(self, options: EmbeddingOptions, folder: Path) -> None:
        self._name = options.model
        self._folder = folder

    @cached_property
    def identity(self) -> str:
        """The model's name, and the start of its file's sha256. Blocks."""
        digest, path = sha256(), self._file()
        try:
            with open_regular(path) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            message = f"{path} cannot be read: {os_reason(error)}"
            raise model_error(message, "give the user of this process the right to read it") from None
        return f"{self._name} (onnx, sha256 {digest.hexdigest()[:16]})"

    async def embed(self, text: str) -> list[float]:
        """Compute the vector on a thread. The first call loads the model."""
        return await run_in_thread(lambda: self._embed(text))

    def _embed(self, text: str) -> list[float]:
        file = self._file()
        encoded = self._tokenizer.encode(text)
        available = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        names = [item.name for item in self._session.get_inputs()]
        if unknown := [name for name in names if name not in available]:
            raise model_error(f"{file} has the unknown input '{unknown[0]}'", "use a model for sentences")
        numpy = import_optional("numpy", _INSTALL)
        inputs = {name: numpy.array([available[name]], dtype=numpy.int64) for name in names}
        try:
            output = self._session.run(None, inputs)[0]
        except Exception as error:  # the runtime's errors have no common class
            raise model_error(f"{file} does not work: {error}", "use a model for sentences") from error
        if output.ndim == 2:  # noqa: PLR2004 - one vector for the text: the model itself pools
            return normalized(output[0].tolist())
        return normalized(mean_pooled(output[0].tolist(), encoded.attention_mask))

    @cached_property
    def _session(self) -> Any:
        runtime = import_optional("onnxruntime", _INSTALL)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(str(self._file()), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common class
            message = f"{self._file()} cannot be loaded: {error}"
            raise model_error(message, "set EMBEDDING_MODEL_PATH to a folder with an ONNX model") from error

    @cached_property
    def _tokenizer(self) -> Any:
        path = self._folder / "tokenizer.json"
        library = import_optional("tokenizers", _INSTALL)
        try:
            tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise model_error(f"{path} cannot be loaded: {error}", "put it beside the model") from error
        tokenizer.enable_truncation(max_length=self._max_tokens())
        tokenizer.no_padding()
        return tokenizer

    def _max_tokens(self) -> int:
        """The limit on the tokens of a text, from the model's sentence_bert_config.json if it exists."""
        try:
            config = json.loads((self._folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
            return int(config["max_seq_length"])
        except (OSError, ValueError, KeyError, TypeError):
            return _MAX_TOKENS

    def _file(self) -> Path:
        for name in _MODEL_FILES:
            if (self._folder / name).is_file():
                return self._folder / name
        raise model_error(
            f"there is no {_MODEL_FILES[0]} in {self._folder}",
            "set EMBEDDING_MODEL_PATH to a folder with model.onnx and tokenizer.json",
        )
