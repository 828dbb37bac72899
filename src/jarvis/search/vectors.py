"""Vectors as they are stored and compared: small whole numbers, and the signs of these.

A vector is scaled so that its greatest number is 127, and rounded. Two such vectors are compared by the cosine of their
angle. It is computed from whole numbers, whose sums a float32 holds exactly: every machine gets the same similarity,
whatever the order in which it adds.
"""

from __future__ import annotations

import binascii
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jarvis.capabilities import KeepsVectors
from jarvis.model.vectors import StoredVector, VectorMark

EXACT = 50_000
"""A question is compared with all of so many vectors; of more, with those whose signs are most like its own."""

RESCORED, _ONE_IN = 1_000, 500
"""With how many of these, or one in how many of all, if that is more."""

_GREATEST, _EXACT_SUMS = 127, 1 << 24
_AT_ONCE, _HEAD, _SUM_BYTES = 20_000, 4, 4
_WORD_BITS = 64

Floats = npt.NDArray[np.float32]


def coded(vectors: Floats, changes: Sequence[int]) -> list[StoredVector]:
    """Return vectors as they are stored.

    Args:
        vectors: float32, one a row, each with a number that is not 0.
        changes: of which states they are.
    """
    scales = np.abs(vectors).max(axis=1) / _GREATEST
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    heads = scales.astype("<f4")
    signs = np.packbits(codes >= 0, axis=1)
    return [
        StoredVector(change, sign.tobytes(), _summed(head.tobytes() + code.tobytes()))
        for change, sign, head, code in zip(changes, signs, heads, codes, strict=True)
    ]


class Question:
    """The vector of a question, as whole numbers.

    Args:
        vector: float32, shape (dim,), with a number that is not 0.
    """

    def __init__(self, vector: Floats) -> None:
        most = min(_GREATEST, _EXACT_SUMS // (_GREATEST * len(vector)))
        self.codes: Floats = np.rint(vector * (most / np.abs(vector).max())).astype(np.float32)
        self.length = float(np.sqrt((self.codes.astype(np.float64) ** 2).sum()))
        self.signs = _words(np.packbits(self.codes >= 0)[None, :])[0]

    def similarities(self, codes: Floats, lengths: Floats) -> npt.NDArray[np.float64]:
        """Return the cosines of the angles to vectors of whole numbers, one a row, which have these lengths."""
        sums = np.einsum("ij,j->i", codes, self.codes)  # the threads of BLAS wait for each other on a busy machine
        cosines: npt.NDArray[np.float64] = sums / np.maximum(lengths * np.float64(self.length), 1.0)
        return cosines


class Nearest:
    """The vectors of one model in one namespace, in memory: those that are nearest to a question.

    It reads what was stored since the last question. Vectors of memories that have changed stay in it until they are
    looked up in vain.

    Attributes:
        model: the name of the embedder.

    Args:
        model: the same.
        dim: how many numbers its vectors have.
    """

    def __init__(self, model: str, dim: int) -> None:
        self.model, self._dim = model, dim
        self._lock = threading.Lock()
        self._forget()

    def __len__(self) -> int:
        """Return how many vectors it has read, also of memories that have changed since."""
        return self._size

    def _forget(self) -> None:
        self._mark, self._size = VectorMark(), 0
        self._changes = np.empty(0, np.int64)
        self._signs = np.empty((-(-self._dim // _WORD_BITS), 0), np.uint64)
        self._codes: Floats | None = np.empty((0, self._dim), np.float32)
        self._lengths: Floats = np.empty(0, np.float32)
        self._gone: set[int] = set()

    def find(self, store: KeepsVectors, question: Question, most: int) -> dict[int, float]:
        """Return the similarity of the vectors that are nearest to a question, at most `most`, by their states.

        States are named by their commit numbers. Some may not be present ones any more: see `forget`.
        """
        with self._lock:
            self._keep_up(store)
            changes, codes, signs = self._changes[: self._size], self._codes, self._signs[:, : self._size]
            lengths = self._lengths[: self._size]
            gone = np.fromiter(self._gone, np.int64, len(self._gone))
        if codes is None:
            far = np.zeros(len(changes), np.uint16)
            for word, bits in zip(question.signs, signs, strict=True):
                far += np.bitwise_count(bits ^ word)
            nearest = _first(far, max(RESCORED, len(far) // _ONE_IN) + len(gone))
            found = self.similarities(store, question, [int(change) for change in changes[nearest]])
        else:
            similar = question.similarities(codes[: len(changes)], lengths)
            nearest = _first(-similar, most + len(gone))
            found = dict(zip(changes[nearest].tolist(), similar[nearest].tolist(), strict=True))
        for change in gone.tolist():
            found.pop(change, None)
        order = sorted(found, key=lambda change: (-found[change], -change))
        return {change: found[change] for change in order[:most]}

    def similarities(self, store: KeepsVectors, question: Question, changes: Sequence[int]) -> dict[int, float]:
        """Return the similarity of some states to a question, of those that have a vector."""
        rows = [row for row in store.codes_of(self.model, changes) if _is_whole(row[1], self._dim)]
        if not rows:
            return {}
        codes, lengths = _whole(b"".join(code for _, code in rows), self._dim)
        return dict(zip((change for change, _ in rows), question.similarities(codes, lengths).tolist(), strict=True))

    def forget(self, changes: Sequence[int]) -> None:
        """Leave these states out from here on: their memories have changed, or are gone."""
        with self._lock:
            self._gone.update(changes)
            if 2 * len(self._gone) > self._size:
                self._forget()

    def _keep_up(self, store: KeepsVectors) -> None:
        while True:
            is_whole = self._codes is not None
            mark, rows = store.vectors(self.model, self._mark, _AT_ONCE, whole=is_whole)
            if mark.generation != self._mark.generation and self._size:
                self._forget()
                continue
            self._mark = mark
            self._add([row for row in rows if self._is_of_size(row)])
            if len(rows) < _AT_ONCE:
                return

    def _is_of_size(self, row: StoredVector) -> bool:
        """Tell whether a vector is undamaged, and has as many numbers as the model makes now under the same name."""
        return len(row.signs) == -(-self._dim // 8) and (not row.codes or _is_whole(row.codes, self._dim))

    def _add(self, rows: Sequence[StoredVector]) -> None:
        start, self._size = self._size, self._size + len(rows)
        if self._size > len(self._changes):
            room = max(self._size, 2 * start)
            self._changes, self._lengths = np.resize(self._changes, room), np.resize(self._lengths, room)
            self._signs = np.hstack([self._signs, np.empty((len(self._signs), room - self._signs.shape[1]), np.uint64)])
            if self._codes is not None:
                self._codes = np.vstack([self._codes, np.empty((room - len(self._codes), self._dim), np.float32)])
        if not rows:
            return
        self._changes[start : self._size] = [row.change for row in rows]
        packed = np.frombuffer(b"".join(row.signs for row in rows), np.uint8).reshape(len(rows), -1)
        self._signs[:, start : self._size] = _words(packed).T
        if self._codes is None or self._size > EXACT:
            self._codes = None
        else:
            codes, lengths = _whole(b"".join(row.codes for row in rows), self._dim)
            self._codes[start : self._size], self._lengths[start : self._size] = codes, lengths


def _words(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return signs, one vector a row, in words of 64 bits."""
    missing = -packed.shape[1] % (_WORD_BITS // 8)
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, missing)))).view(np.uint64)


def _summed(codes: bytes) -> bytes:
    """Return codes with their CRC-32 behind them."""
    return codes + binascii.crc32(codes).to_bytes(_SUM_BYTES, "little")


def _is_whole(codes: bytes, dim: int) -> bool:
    """Tell whether stored codes have so many numbers, and match their checksum."""
    return len(codes) == _HEAD + dim + _SUM_BYTES and _summed(codes[:-_SUM_BYTES]) == codes


def _whole(codes: bytes, dim: int) -> tuple[Floats, Floats]:
    """Return the whole numbers of stored vectors, and their lengths."""
    rows = np.frombuffer(codes, np.int8).reshape(-1, _HEAD + dim + _SUM_BYTES)
    whole = rows[:, _HEAD:-_SUM_BYTES].astype(np.float32)
    return whole, np.sqrt(np.einsum("ij,ij->i", whole, whole))


def _first(numbers: npt.NDArray[np.generic], most: int) -> npt.NDArray[np.intp]:
    """Return the places of the smallest numbers."""
    if most >= len(numbers):
        return np.arange(len(numbers))
    return np.argpartition(numbers, most)[:most]
