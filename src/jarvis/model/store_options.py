"""`StoreOptions`: what a store can be told when it is opened, by whomever and with whatever backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.model.options import Compression, Durability, Encryption, HistoryPolicy, Keys, KeySources, checked


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a store is told when it is opened; what is left out has its default. It is handed down whole.

    `jarvis.persistent_memory.MemoryModule` says what each of them does.

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
    create: bool = True

    if TYPE_CHECKING:  # what is taken is wider than what is held

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
            create: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check and normalise every field."""
        for name in self.__struct_fields__:
            msgspec.structs.force_setattr(self, name, checked(name, getattr(self, name)))

    def given(self) -> dict[str, Any]:
        """Return by its name what differs from the default: a backend need not have an option that nobody gives."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if self._differs(name)}

    def _differs(self, name: str) -> bool:
        value, usual = getattr(self, name), getattr(USUAL, name)
        return type(value) is not type(usual) or value != usual  # a class of a caller's is not asked to compare


USUAL = StoreOptions()
