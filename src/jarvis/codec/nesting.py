"""JSON for which a decoder had too little of the call stack: its depth, found without recursion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis.codec.values import MAX_DEPTH, NO_STACK
from jarvis.errors import InvalidEntryError, StackFullError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LEVELS = 4 * MAX_DEPTH
"""A level of a value takes at most three levels of JSON, in a tagged dict; the fourth is for the file around it."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}])', re.DOTALL)

Kind = TypeVar("Kind")


def stack_error(encoded: bytes | str) -> ValueError | StackFullError:
    """Return the error to raise after decoding `encoded` raised a `RecursionError`.

    It is a `StackFullError` if a shallower caller can decode it, and a ValueError if it is nested deeper than anything
    that jarvis writes, which is damage.

    >>> stack_error("[" * 1_000)
    ValueError('it is nested deeper than a value ever is')
    """
    level = deepest = 0
    for token in _TOKEN.finditer(encoded if isinstance(encoded, bytes) else encoded.encode("utf-8", "replace")):
        if token[1]:
            level += 1
            deepest = max(deepest, level)
        elif token[2]:
            level -= 1
    return ValueError("it is nested deeper than a value ever is") if deepest > MOST_LEVELS else StackFullError()


def ran_out(error: Exception) -> bool:
    """Tell whether reading failed only because too little of the call stack was left."""
    return isinstance(error, RecursionError) or (isinstance(error, InvalidEntryError) and error.problem == NO_STACK)


def decoder_of(kind: type[Kind]) -> Callable[[bytes | str], Kind]:
    """Return a function that decodes the JSON of a `kind`; it raises as `stack_error` says, and else as msgspec."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(encoded: bytes | str) -> Kind:
        try:
            return decode(encoded)
        except RecursionError:
            raise stack_error(encoded) from None

    return decoded
