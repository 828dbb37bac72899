"""How many tokens a text has: at most so many, without a tokenizer; or as a caller's function counts them."""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable

from jarvis.errors import InvalidQueryError

TokenCounter = Callable[[str], int]
"""Returns how many tokens a text has."""


def most_tokens(text: str) -> int:
    """Return a number of tokens that no common tokenizer of a language model exceeds: one for each byte of UTF-8.

    A token of byte-pair encoding on bytes stands for one byte at least: GPT, Llama 3, Qwen, DeepSeek, Mistral's Tekken.
    One of SentencePiece with byte fallback stands for a character or a byte, and one more may begin the text: Llama 2,
    Mistral, Gemma. Some tokenizers bring a text into a normal form first, which may be longer; the longest counts. No
    lower bound holds for all texts: digits and rare signs do get a token for each byte.

    >>> most_tokens(""), most_tokens("four"), most_tokens("vier Öfen")
    (0, 5, 11)
    """
    if text.isascii():
        return len(text) + bool(text)
    forms = text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms) + 1


def checked_counter(counter: TokenCounter | None) -> TokenCounter:
    """Return a function that counts the tokens of a text, as `counter` does; without one it is `most_tokens`.

    Raises:
        InvalidQueryError: `counter` is no function; or, when the function is called, it returns no whole number from 0
            up. What a caller's function raises passes through.
    """
    if counter is None:
        return most_tokens
    if not callable(counter):
        raise InvalidQueryError(f"token_counter: takes a function of a text, not {type(counter).__name__}")

    def count(text: str) -> int:
        number = counter(text)
        try:
            whole = operator.index(number)
        except Exception:  # noqa: BLE001 - of anybody's class
            whole = -1
        if whole < 0:
            raise InvalidQueryError(
                f"token_counter: must return a whole number from 0 up; it returned {type(number).__name__}"
            )
        return whole

    return count
