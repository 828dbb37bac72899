"""Rules that every backend decides by, each written once."""

from __future__ import annotations

from typing import TypeVar

from jarvis.model.revision import Operation, Signature

Usual = TypeVar("Usual", bound=str)

_ALONE = ("erase", "expire")


def signed(
    signature: Signature | None, operation: Usual
) -> tuple[Usual | Operation, str | None, str | None, str | None]:
    """Return by whom and how a change is made: as `signature` says, or else `operation` by nobody that is known.

    An erasure and a purge are made by a signature of their own only, which signs no other change.
    """
    if signature is None:
        return operation, None, None, None
    said = signature.operation
    if said != operation and (said in _ALONE or operation in _ALONE):
        return operation, None, None, None
    return signature
