"""Keeps names that have moved importable from their former modules for a while."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def former_names(former: str, *now: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of the module `former`, for names that a module of `now` has.

    Each use of a name warns with `DeprecationWarning`.
    """

    def get(name: str) -> Any:
        for module in () if name.startswith("__") else map(importlib.import_module, now):
            if name in vars(module):
                place = f"import {name} from {module.__name__}"
                warnings.warn(f"{former}.{name} has moved: {place}", DeprecationWarning, stacklevel=2)
                return vars(module)[name]
        raise AttributeError(f"module {former!r} has no attribute {name!r}")

    return get
