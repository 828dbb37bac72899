"""`Analyser`: makes the words that are indexed and asked for, the same on every backend."""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata

from jarvis.model.options import PLAIN
from jarvis.text import english

VERSION = 1
"""Changes whenever the analyser makes other words of a text: each store is then indexed again."""

_MOST_STEMS = 200_000
_LONGEST = 40
"""How many signs of a word count."""

_WORD = re.compile("(?:[^\\W_]|[\u0900-\u0963\u0966-\u0eff\u1000-\u109f\u1780-\u17ff])+")
"""Letters and digits; and the signs of vowels in scripts of India and its neighbours, which are no letters."""

_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
"""Makes small letters of ASCII, and spaces of what separates words: twice as fast as `_WORD`."""
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
"""Accents, and the signs of vowels that Hebrew and Arabic may leave out."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)
"""Signs of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "ð": "d", "þ": "th"})
"""Letters with a stroke and the like, which Unicode does not take apart."""


def folded(text: str) -> str:
    """Return a text in small letters without accents.

    >>> from jarvis.text.analysis import folded
    >>> folded("Ærø, São João")
    'aero, sao joao'
    """
    if text.isascii():
        return text.lower()
    apart = _MARKS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return unicodedata.normalize("NFC", apart).translate(_LETTERS)


class Analyser:
    """Makes words of texts in one language.

    1. Letters are folded; everything but letters and digits separates words.
    2. Endings are cut: ``moves`` and ``moving`` are one word. Of English, words that every text has are left out, and
       irregular forms become their base: ``went`` is ``go``.
    3. Where a script has no spaces, each two neighbouring signs are a word, and the last sign is one.
    4. A word has at most 40 signs.

    >>> from jarvis.text.analysis import analyser
    >>> analyser("english").words("Maria's moving to Lisbon in May.")
    ('maria', 'move', 'lisbon', 'may')
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._stems, self._stems_of_names = _Stems(language), _Stems(language, keeps_common=True)

    def words(self, text: str, *, names: bool = False) -> tuple[str, ...]:
        """Return the words of a text in their order; of names also those that texts have in common, such as Will."""
        stems = self._stems_of_names if names else self._stems
        return tuple(filter(None, map(stems.__getitem__, _apart(text))))

    def word_set(self, text: str) -> set[str]:
        """Return the words of a text, each once."""
        words = set(map(self._stems.__getitem__, _apart(text)))
        words.discard("")
        return words

    @property
    def name(self) -> str:
        """Identifies the words it makes: a store that was indexed by another name is indexed again."""
        return f"{self.language} {VERSION}"


@functools.cache
def analyser(language: str) -> Analyser:
    """Return the analyser of a language: see `jarvis.model.options.Language`."""
    return Analyser(language)


class _Stems(dict[str, str]):
    """The stems of words, as they are needed; an empty one for a word that is left out."""

    def __init__(self, language: str, *, keeps_common: bool = False) -> None:
        super().__init__()
        is_english = language == "english"
        self._left_out = english.COMMON if is_english and not keeps_common else frozenset[str]()
        self._bases = english.BASE_OF if is_english else dict[str, str]()
        self._stem = str
        if language != PLAIN:
            rules = importlib.import_module(f"snowballstemmer.{language}_stemmer")  # never C code of another version
            self._stem = getattr(rules, f"{language.title()}Stemmer")().stemWord

    def __missing__(self, word: str) -> str:
        if len(self) >= _MOST_STEMS:
            self.clear()
        if word in self._left_out:
            stem = ""
        elif word.isascii() and not word.isalpha():  # a number, or a name with digits
            stem = word[:_LONGEST]
        else:
            stem = self._stem(self._bases.get(word, word[:_LONGEST]))
        self[word] = stem
        return stem


def _apart(text: str) -> list[str]:
    """Return the words of a text with their endings."""
    if text.isascii():
        return text.translate(_ASCII).split()
    text = folded(text)
    if _UNSPACED.search(text):
        return [part for word in _WORD.findall(text) for part in _parts(word)]
    return _WORD.findall(text)


def _parts(word: str) -> list[str]:
    """Return a word, or the pairs of signs of its parts in scripts without spaces."""
    parts, end = [], 0
    for run in _UNSPACED.finditer(word):
        if run.start() > end:
            parts.append(word[end : run.start()])
        signs, end = run.group(), run.end()
        parts += [signs[index : index + 2] for index in range(len(signs))]
    if end < len(word):
        parts.append(word[end:])
    return parts
