"""The network before a PostgreSQL server goes silent: calls end in a known time, and interrupts end them at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest

from jarvis._postgresql import connecting, raw
from jarvis.errors import OutcomeUnknownError, StoreAccessError
from jarvis.persistent_memory import MemoryModule
from jarvis.postgresql_backend import PostgreSQLBackend

from .cutting import Proxy
from .postgresql import a_database

WAITING: list[str] = ["silent before", "silent after"]


@pytest.fixture
def dsn() -> Iterator[str]:
    with a_database() as dsn:
        yield dsn


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


@pytest.fixture
def memory(proxy: Proxy) -> Iterator[MemoryModule]:
    """A memory whose connection has prepared nothing, so that the proxy can read it."""
    memory = MemoryModule(PostgreSQLBackend(proxy.dsn, busy_timeout_seconds=2))
    create(memory, "first")
    memory.shutdown()
    yield memory
    proxy.speaks.set()
    memory.shutdown()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a silence count as one in moments, not in a minute."""
    monkeypatch.setattr(raw, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(connecting, "ANSWER_SECONDS", 2)


def create(memory: MemoryModule, key: str) -> None:
    memory.create_memory("things", key, {"key": key}, "thing")


def keys(memory: MemoryModule) -> Counter[str]:
    return Counter(entry.key for entry in memory.list_memories())


def later(act: Callable[[], object], seconds: float = 0.4) -> None:
    threading.Timer(seconds, act).start()


def speak_and_cut(proxy: Proxy) -> None:
    proxy.speaks.set()
    proxy.cut()


# --- the network goes on again -------------------------------------------------------------------


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_call_in_a_silence_that_ends_has_its_answer(is_cut: bool, memory: MemoryModule, proxy: Proxy) -> None:
    end = (lambda: speak_and_cut(proxy)) if is_cut else proxy.speaks.set
    assert memory.count_memories() == 1
    proxy.speaks.clear()
    later(end)
    assert keys(memory) == {"first": 1}
    proxy.speaks.clear()
    later(end)
    create(memory, "second")

    assert keys(memory) == {"first": 1, "second": 1}


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("where", WAITING)
def test_a_commit_in_a_silence_that_ends_is_kept_once(
    where: str, is_cut: bool, memory: MemoryModule, proxy: Proxy
) -> None:
    proxy.at_commit = where  # type: ignore[assignment]  # one of its words
    later((lambda: speak_and_cut(proxy)) if is_cut else proxy.speaks.set, 0.6)
    create(memory, "second")

    assert proxy.at_commit is None
    assert keys(memory) == {"first": 1, "second": 1}


# --- the network stays silent --------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_calls_in_a_silence_that_does_not_end_raise_and_go_on_afterwards(memory: MemoryModule, proxy: Proxy) -> None:
    assert memory.count_memories() == 1
    proxy.speaks.clear()
    began = time.monotonic()

    with pytest.raises(StoreAccessError, match="cannot be reached"):
        memory.count_memories()
    with pytest.raises(StoreAccessError, match="cannot be reached"):
        create(memory, "second")
    assert time.monotonic() - began < 20
    proxy.speaks.set()
    create(memory, "third")
    assert keys(memory) == {"first": 1, "third": 1}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("where", WAITING)
def test_a_commit_in_a_silence_that_does_not_end_has_an_unknown_outcome(
    where: str, memory: MemoryModule, proxy: Proxy
) -> None:
    proxy.at_commit = where  # type: ignore[assignment]  # one of its words

    with pytest.raises(OutcomeUnknownError, match="read what it was to change"):
        create(memory, "second")
    proxy.cut()
    proxy.speaks.set()
    create(memory, "third")
    there = keys(memory)
    assert there.pop("second", 0) == (where == "silent after")
    assert there == {"first": 1, "third": 1}


@pytest.mark.usefixtures("short")
def test_a_question_that_takes_long_is_waited_for_while_the_server_is_there(memory: MemoryModule, dsn: str) -> None:
    create(memory, "second")
    other = MemoryModule(PostgreSQLBackend(dsn))
    has_it = threading.Event()

    def hold() -> None:
        with other.transaction():
            create(other, "held")
            other.count_memories()
            has_it.set()
            time.sleep(1.7)

    holding = threading.Thread(target=hold)
    holding.start()
    has_it.wait(timeout=10)
    create(memory, "third")  # it waits for a lock, and hears nothing
    holding.join()

    assert keys(memory) == {"first": 1, "second": 1, "held": 1, "third": 1}


# --- an interrupt --------------------------------------------------------------------------------


def _interrupted(call: Callable[[], object], proxy: Proxy) -> float:
    """Interrupt a call, as Ctrl-C does; return how long it took to end, and let the network go on."""
    times: list[float] = []

    def interrupt() -> None:
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    later(interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    took = time.monotonic() - times[0]
    proxy.cut()
    proxy.speaks.set()
    return took


@pytest.mark.parametrize("call", ["count", "iterate", "create", "transaction", "rights"])
def test_an_interrupt_ends_a_call_in_a_silence_at_once(call: str, memory: MemoryModule, proxy: Proxy) -> None:
    def write() -> None:
        with memory.transaction():
            create(memory, "second")
            memory.count_memories()

    calls: dict[str, Callable[[], object]] = {
        "count": memory.count_memories,
        "iterate": lambda: list(memory.iter_memories()),
        "create": lambda: create(memory, "second"),
        "transaction": write,
        "rights": lambda: memory.backend.admit("postgres"),  # type: ignore[attr-defined]  # of this backend
    }
    assert memory.count_memories() == 1
    proxy.speaks.clear()

    assert _interrupted(calls[call], proxy) < 3
    create(memory, "third")
    assert keys(memory) == {"first": 1, "third": 1}


@pytest.mark.parametrize("where", WAITING)
def test_an_interrupt_ends_a_commit_in_a_silence_soon(where: str, memory: MemoryModule, proxy: Proxy) -> None:
    proxy.at_commit = where  # type: ignore[assignment]  # one of its words

    assert _interrupted(lambda: create(memory, "second"), proxy) < 6
    create(memory, "third")
    there = keys(memory)
    assert there.pop("second", 0) == (where == "silent after")
    assert there == {"first": 1, "third": 1}


def test_an_interrupted_question_is_ended_at_the_server_too(memory: MemoryModule, proxy: Proxy, dsn: str) -> None:
    other = MemoryModule(PostgreSQLBackend(dsn))
    with other.transaction():
        create(other, "held")
        other.count_memories()
        assert _interrupted(lambda: create(memory, "second"), proxy) < 3
        with psycopg.connect(dsn, autocommit=True) as look:
            ask = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            until = time.monotonic() + 1
            while (waiting := look.execute(ask).fetchall()) != [(0,)] and time.monotonic() < until:
                time.sleep(0.01)
        assert waiting == [(0,)]
    create(memory, "third")

    assert keys(memory) == {"first": 1, "held": 1, "third": 1}
