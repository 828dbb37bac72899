"""`StoreOptions`: the options of opening a store, the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.model.options import Compression, Durability, Encryption, Keys, KeySources, TextIndex, checked
from jarvis.model.policies import CategoryPolicy, Histories, HistoryPolicy


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of opening a store. The whole is handed down to the backend.

    `jarvis.persistent_memory.MemoryModule` explains each of them.

    Raises:
        InvalidSettingError: a value has the wrong type or is out of range.

    >>> from jarvis.model.store_options import StoreOptions
    >>> StoreOptions(durability="normal", create=True).given()
    {'durability': 'normal'}
    """

    read_only: bool = False
    durability: Durability = "full"
    busy_timeout_seconds: float = 30.0
    history: HistoryPolicy = HistoryPolicy()
    encryption: Encryption = "off"
    keys: Keys = ()
    compression: Compression = "auto"
    policies: tuple[CategoryPolicy, ...] = ()
    create: bool = True
    text_index: TextIndex | None = None

    if TYPE_CHECKING:  # the arguments may have more types than the fields

        def __init__(
            self,
            *,
            read_only: bool = ...,
            durability: Durability = ...,
            busy_timeout_seconds: float = ...,
            history: HistoryPolicy = ...,
            encryption: Encryption = ...,
            keys: KeySources = ...,
            compression: Compression = ...,
            policies: Sequence[CategoryPolicy] = ...,
            create: bool = ...,
            text_index: TextIndex | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check and normalise every field."""
        for name in self.__struct_fields__:
            msgspec.structs.force_setattr(self, name, checked(name, getattr(self, name)))

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name: a backend need not have all options.

        Policies that say nothing of the past do not concern it.
        """
        return {name: getattr(self, name) for name in self.__struct_fields__ if self._differs(name)}

    @property
    def histories(self) -> Histories:
        """How much of the past is kept."""
        return Histories(self.history, self.policies)

    def _differs(self, name: str) -> bool:
        if name == "policies":
            return any(policy.history is not None for policy in self.policies)
        value, usual = getattr(self, name), getattr(USUAL, name)
        return type(value) is not type(usual) or value != usual  # never by the code of a caller's class


USUAL = StoreOptions()
