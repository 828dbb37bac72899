"""Gives the verbs of an async face the signature and docstring of those that they call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


def like(
    verb: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Any, P], Result]]:
    """Return a decorator that gives a verb the signature and docstring of `verb`."""

    def described(function: Callable[..., Result]) -> Callable[Concatenate[Any, P], Result]:
        describe(function, verb)
        return function

    return described


def describe(function: Callable[..., object], verb: Callable[..., object]) -> None:
    """Give a function of an async face the signature and docstring of a verb, and an async name."""
    assigned = [attribute for attribute in functools.WRAPPER_ASSIGNMENTS if attribute != "__module__"]
    functools.update_wrapper(function, verb, assigned)
    function.__qualname__ = f"Async{verb.__qualname__}"
