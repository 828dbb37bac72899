"""What has moved, importable under its former name for a while."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def former_names(former: str, now: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module that is called `former`, for what now stands in `now`.

    It warns whoever asks for a name: `DeprecationWarning`.
    """

    def get(name: str) -> Any:
        module = importlib.import_module(now)
        if name.startswith("__") or not hasattr(module, name):
            raise AttributeError(f"module {former!r} has no attribute {name!r}")
        warnings.warn(f"{former}.{name} has moved: import {name} from {now}", DeprecationWarning, stacklevel=2)
        return getattr(module, name)

    return get
