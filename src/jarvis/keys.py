"""Sources of the key of an encrypted store, for ``keys=``.

A source gives a *secret*, which opens one slot of the file ``memory.keys`` beside the store. The slot holds the
store's own key, see `jarvis.encryption.envelope`. No message, representation or log shows a secret.

    from jarvis.keys import EnvironmentKey, Passphrase

    MemoryModule(storage_dir="data", encryption="required", keys=[EnvironmentKey("JARVIS_KEY")])
"""

from __future__ import annotations

import binascii
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jarvis._disk import files
from jarvis._disk.paths import NO_SUCH_SYNC, given_path
from jarvis.errors import InvalidSettingError, KeyFileExistsError

KEY_BYTES = 32
"""The size of a key: 256 bits."""

DEFAULT_VARIABLE = "JARVIS_KEY"
DEFAULT_SERVICE = "jarvis"
_SHORTEST_PASSPHRASE = 8
_LONGEST_FILE = 1_024


class SecretUnavailableError(Exception):
    """A source has no secret to give; the message says why, as the end of "it is not available: …"."""


class KeySource(Protocol):
    """Gives the secret of a slot. Any object with these attributes is a source; it needs no base class.

    Attributes:
        kind: the name of the kind of source in ``memory.keys``.
        hint: the way to find the source again, such as the name of a variable; never a secret. None if there is none.
        is_passphrase: people remember the secret, so a slow function makes a key of it.
    """

    @property
    def kind(self) -> str:
        """The name of the kind of source."""

    @property
    def is_passphrase(self) -> bool:
        """Whether people remember the secret."""

    @property
    def hint(self) -> str | None:
        """The way to find the source again."""

    def secret(self) -> bytes:
        """Return the secret: 32 bytes, or the UTF-8 of a passphrase.

        Raises:
            SecretUnavailableError: there is none now.
        """

    def __str__(self) -> str:
        """Return the name of the source in messages, such as "the environment variable JARVIS_KEY"."""


def new_key() -> str:
    """Return a random key as base64 text, for a variable, a file or a vault of secrets.

    >>> len(binascii.a2b_base64(new_key()))
    32
    """
    return binascii.b2a_base64(os.urandom(KEY_BYTES), newline=False).decode()


class EnvironmentKey:
    """The key is in an environment variable, as the base64 text of 32 bytes (see `new_key`).

    >>> EnvironmentKey("MY_KEY")
    EnvironmentKey('MY_KEY')
    """

    kind: ClassVar[str] = "environment"
    is_passphrase: ClassVar[bool] = False

    def __init__(self, variable: str = DEFAULT_VARIABLE) -> None:
        self.variable = self.hint = check_text("the name of a variable", variable)

    def secret(self) -> bytes:
        """Return the key, or raise `SecretUnavailableError`."""
        return _decoded(_Variable(self.variable)(), "it does not hold the base64 text of 32 bytes")

    def __repr__(self) -> str:
        return f"EnvironmentKey({self.variable!r})"

    def __str__(self) -> str:
        return f"the environment variable {self.variable}"


class KeyFile:
    """The key is in a file that only its owner can read: 32 bytes, or their base64 text.

    Args:
        path: the file; ``~`` expands.
    """

    kind: ClassVar[str] = "file"
    is_passphrase: ClassVar[bool] = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(given_path("the path of a key file", path)))
        self.hint = str(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> KeyFile:
        """Write a new random key to a file that is not there yet, for its owner only, and return it as a source.

        Raises:
            KeyFileExistsError: there is such a file; it stays as it is.
            StoreFullError: there is no room for it.
            StoreMissingError: its directory is not there.
            ReadOnlyStoreError: its directory may not be written.
            StoreAccessError: it cannot be written for another reason.
        """
        source = cls(path)
        try:
            source._write(new_key())
        except FileExistsError:
            raise KeyFileExistsError(source.path, "is there already and was not changed; choose another name") from None
        except OSError as error:
            raise files.translated(source.path, error, "write the key file") from error
        return source

    def _write(self, key: str) -> None:
        descriptor = files.create(str(self.path))
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{key}\n")
                file.flush()
                files.system.sync(descriptor)
            try:  # or a power cut takes the name of the file, and with it the store
                files.system.sync_directory(str(self.path.parent))
            except OSError as error:
                if error.errno not in NO_SUCH_SYNC:
                    raise
        except BaseException:
            os.unlink(self.path)  # nobody knows the key yet, and the next try needs the name
            raise

    def secret(self) -> bytes:
        """Return the key, or raise `SecretUnavailableError`."""
        try:
            # It may be a pipe, also one that the file of keys names: without O_NONBLOCK, opening it waits for ever.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode):
                    raise SecretUnavailableError("it is no regular file")
                content = os.read(descriptor, _LONGEST_FILE)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SecretUnavailableError(f"it cannot be read: {error.strerror}") from None
        except ValueError:
            raise SecretUnavailableError("it is no path") from None
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            import shlex

            raise SecretUnavailableError(f"others may read or write it; run: chmod 600 {shlex.quote(str(self.path))}")
        if len(content) == KEY_BYTES:
            return content
        return _decoded(content.decode("ascii", "replace").strip(), "it does not hold 32 bytes, or their base64 text")

    def __repr__(self) -> str:
        return f"KeyFile({str(self.path)!r})"

    def __str__(self) -> str:
        return f"the key file {self.path}"


class KeyringKey:
    """The key is in the keyring of the operating system, under a service and a user (package ``keyring``).

    A keyring is lost with its machine or account: give the store a second source, such as a passphrase.
    """

    kind: ClassVar[str] = "keyring"
    is_passphrase: ClassVar[bool] = False

    def __init__(self, service: str = DEFAULT_SERVICE, user: str = "memory") -> None:
        self.service = check_text("the service of a keyring", service)
        self.user = check_text("the user of a keyring", user)
        self.hint = f"{service}/{user}"

    @classmethod
    def create(cls, service: str = DEFAULT_SERVICE, user: str = "memory") -> KeyringKey:
        """Put a new random key into the keyring, if it has none yet, and return it as a source.

        Raises:
            InvalidSettingError: there is a key under that service and user, or there is no keyring.
        """
        source = cls(service, user)
        try:
            present = source._call("get_password", service, user)
            if present is None:
                source._call("set_password", service, user, new_key())
        except SecretUnavailableError as error:
            raise InvalidSettingError(f"{source}: {error}") from None
        if present is not None:
            raise InvalidSettingError(f"{source} is there already; use it, or choose another user")
        return source

    def secret(self) -> bytes:
        """Return the key, or raise `SecretUnavailableError`."""
        text = self._call("get_password", self.service, self.user)
        if text is None:
            raise SecretUnavailableError("there is no such entry")
        return _decoded(text, "it does not hold the base64 text of 32 bytes")

    @staticmethod
    def _call(verb: str, *arguments: str) -> Any:
        try:
            import keyring
        except ImportError:
            raise SecretUnavailableError(
                "the package keyring is missing: pip install 'jarvis-memory[encryption]'"
            ) from None
        try:
            return getattr(keyring, verb)(*arguments)
        except Exception as error:  # noqa: BLE001  # a keyring may be anybody's plug-in, and its message may hold anything
            raise SecretUnavailableError(f"the keyring does not answer ({type(error).__name__})") from None

    def __repr__(self) -> str:
        return f"KeyringKey({self.service!r}, {self.user!r})"

    def __str__(self) -> str:
        return f"the keyring's entry {self.service!r} of {self.user!r}"


class Passphrase:
    """The key is derived from words that somebody remembers or keeps on paper: the way back when all else is lost.

    Args:
        words: at least 8 characters; or a function that asks for them, called when they are needed.

    >>> Passphrase("correct horse battery staple")
    Passphrase(...)
    """

    kind: ClassVar[str] = "passphrase"
    is_passphrase: ClassVar[bool] = True
    hint: ClassVar[None] = None

    def __init__(self, words: str | Callable[[], str]) -> None:
        if not callable(words):
            _spoken(words)
        self._words = words

    @classmethod
    def from_environment(cls, variable: str) -> Passphrase:
        """Return a passphrase that is read from an environment variable when it is needed."""
        return cls(_Variable(check_text("the name of a variable", variable)))

    def secret(self) -> bytes:
        """Return the bytes of the words, or raise `SecretUnavailableError`."""
        if not callable(self._words):
            return _spoken(self._words)
        try:
            words = self._words()
        except SecretUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # somebody else's function, whose message may hold the words
            raise SecretUnavailableError(f"asking for it failed ({type(error).__name__})") from None
        try:
            return _spoken(words)
        except InvalidSettingError as error:
            raise SecretUnavailableError(str(error)) from None

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def __str__(self) -> str:
        return f"the passphrase in {self._words.variable}" if isinstance(self._words, _Variable) else "the passphrase"


class KeyFunction:
    """The key is returned by a function: 32 bytes, from a key service or a device.

    Args:
        function: called when the key is needed, from any thread.
        name: for messages.
    """

    kind: ClassVar[str] = "function"
    is_passphrase: ClassVar[bool] = False

    def __init__(self, function: Callable[[], bytes], name: str | None = None) -> None:
        if not callable(function):
            raise InvalidSettingError("a key function must be callable")
        self._function = function
        self.name = self.hint = check_text(
            "the name of a key function", name or getattr(function, "__name__", "unnamed")
        )

    def secret(self) -> bytes:
        """Return the key, or raise `SecretUnavailableError`."""
        try:
            key = self._function()
        except Exception as error:  # noqa: BLE001  # somebody else's function, whose message may hold the key
            raise SecretUnavailableError(f"it failed ({type(error).__name__})") from None
        if not isinstance(key, bytes | bytearray) or len(key) != KEY_BYTES:
            raise SecretUnavailableError("it returned something else than 32 bytes")
        return bytes(key)

    def __repr__(self) -> str:
        return f"KeyFunction(name={self.name!r})"

    def __str__(self) -> str:
        return f"the key function {self.name}"


class _Variable:
    """Asks the environment for a variable's text; a class, because a function inside another cannot be pickled."""

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def __call__(self) -> str:
        text = os.environ.get(self.variable)
        if text is None:
            raise SecretUnavailableError("it is not set")
        return text


def source_at(kind: str, hint: str | None) -> KeySource | None:
    """Return the source with this kind and hint, as a slot of ``memory.keys`` has them; None if that is not enough."""
    if hint is None:
        return None
    try:
        if kind == EnvironmentKey.kind:
            return EnvironmentKey(hint)
        if kind == KeyFile.kind:
            return KeyFile(hint)
        if kind == KeyringKey.kind and "/" in hint:
            service, _, user = hint.rpartition("/")
            return KeyringKey(service, user)
    except InvalidSettingError:  # the file of keys was changed by hand
        return None
    return None


def check_text(what: str, text: object) -> str:
    """Return `text` if it is one, and not empty; raise `InvalidSettingError` about `what` otherwise."""
    if not isinstance(text, str) or not text or "\0" in text or any("\ud800" <= each <= "\udfff" for each in text):
        raise InvalidSettingError(f"{what} must be a text")
    return text


def _spoken(words: object) -> bytes:
    """Return the bytes of a passphrase. They do not depend on how its letters were composed."""
    if not isinstance(words, str) or len(words) < _SHORTEST_PASSPHRASE:
        raise InvalidSettingError(f"a passphrase must be a text of at least {_SHORTEST_PASSPHRASE} characters")
    import unicodedata

    try:
        return unicodedata.normalize("NFKC", words).encode()
    except UnicodeEncodeError:
        raise InvalidSettingError("a passphrase must be a text that UTF-8 can hold") from None


def _decoded(text: str, otherwise: str) -> bytes:
    try:
        key = binascii.a2b_base64(text.strip().encode("ascii"), strict_mode=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SecretUnavailableError(otherwise)
    return key
