"""An ONNX model on this machine, without a network: onnxruntime and tokenizers (extra `onnx`)."""

import json
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from shardline_common.runtime.threads import run_in_thread
from shardline_producer.sources.uds3.embedding.embedder import (
    EmbeddingOptions,
    no_model,
    optional,
    pooled,
    unit,
)

_INSTALL = "install Shardline's extra 'onnx' (onnxruntime and tokenizers), or set EMBEDDING_URL"
_LONGEST = 256
_PLACES = ("model.onnx", "onnx/model.onnx")
_BLOCK = 1 << 20


class OnnxEmbedder:
    """Implements `Embedder`: mean pooling over the tokens, then length 1, as sentence-transformers does.

    One thread computes, so that the order of its sums does not hang on the machine's cores.
    """

    def __init__(self, options: EmbeddingOptions, folder: Path) -> None:
        self._name = options.model
        self._folder = folder

    @cached_property
    def identity(self) -> str:
        """The model's name and the start of its file's sha256."""
        digest = sha256()
        with self._file().open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return f"{self._name} (onnx, sha256 {digest.hexdigest()[:16]})"

    async def embed(self, text: str) -> list[float]:
        """The vector, computed on a thread; the model is loaded at the first call."""
        return await run_in_thread(lambda: self._embed(text))

    def _embed(self, text: str) -> list[float]:
        file = self._file()
        encoded = self._tokenizer.encode(text)
        given = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        names = [item.name for item in self._session.get_inputs()]
        if unknown := [name for name in names if name not in given]:
            raise no_model(f"{file} wants the input '{unknown[0]}'", "use a model for sentences")
        numpy = optional("numpy", _INSTALL)
        inputs = {name: numpy.array([given[name]], dtype=numpy.int64) for name in names}
        output = self._session.run(None, inputs)[0]
        if output.ndim == 2:  # noqa: PLR2004 - one vector a text: the model pools by itself
            return unit(output[0].tolist())
        return unit(pooled(output[0].tolist(), encoded.attention_mask))

    @cached_property
    def _session(self) -> Any:
        runtime = optional("onnxruntime", _INSTALL)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(str(self._file()), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no class
            raise no_model(f"{self._file()} cannot be loaded: {error}", "is it an ONNX model?") from error

    @cached_property
    def _tokenizer(self) -> Any:
        path = self._folder / "tokenizer.json"
        library = optional("tokenizers", _INSTALL)
        try:
            tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise no_model(f"{path} cannot be loaded: {error}", "put it beside the model") from error
        tokenizer.enable_truncation(max_length=self._longest())
        tokenizer.no_padding()
        return tokenizer

    def _longest(self) -> int:
        """The most tokens of a text, from the model's sentence_bert_config.json where it is there."""
        try:
            config = json.loads((self._folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
            return int(config["max_seq_length"])
        except (OSError, ValueError, KeyError, TypeError):
            return _LONGEST

    def _file(self) -> Path:
        for place in _PLACES:
            if (self._folder / place).is_file():
                return self._folder / place
        raise no_model(
            f"there is no {_PLACES[0]} in {self._folder}",
            "EMBEDDING_MODEL_PATH names a folder with model.onnx and tokenizer.json",
        )
