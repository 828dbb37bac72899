"""`if_sealed`: verbs of a backend that seals, if its store is sealed; of a plain one, those of the backend below."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from jarvis.errors import DuplicateEntryError, EntryNotFoundError

Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")


def if_sealed(verb: Callable[Concatenate[Any, Arguments], Answer]) -> Callable[Concatenate[Any, Arguments], Answer]:
    """Return a verb that calls the same verb of the wrapped backend instead if the store is plain.

    Errors name the namespace as the caller does.
    """
    name = verb.__name__

    @functools.wraps(verb)
    def call(self: Any, /, *args: Arguments.args, **named: Arguments.kwargs) -> Answer:
        handle = self._fixed
        if handle._sealer is None:
            answer: Answer = getattr(handle.wrapped, name)(*args, **named)
            return answer
        try:
            return verb(handle, *args, **named)
        except (DuplicateEntryError, EntryNotFoundError) as error:
            told = str(error).replace(repr(handle.wrapped.namespace), repr(self.namespace))
            raise type(error)(told) from None

    return call
