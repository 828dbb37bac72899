"""Promises of transactions: all changes or none, invisible to others before the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jarvis.capabilities import SharesCommits
from jarvis.conformance.fixtures import NOON, OpenBackend, Promises, an_entry
from jarvis.errors import DuplicateEntryError, InvalidEntryError, TransactionError
from jarvis.model.query import MemoryQuery
from jarvis.storage_backend import StorageBackend


class _Stop(BaseException):
    """Like KeyboardInterrupt, no subclass of Exception."""


class TransactionPromises(Promises):
    """Commit, roll back, nest, isolate, give moments."""

    def test_what_a_transaction_changed_is_kept_together(self, store: Any) -> None:
        store.create(an_entry("old"))

        with store.transaction():
            store.create(an_entry("new"))
            store.update(an_entry("new", key="changed"))
            store.delete("old")

        store.shutdown()
        assert store.list_all() == [an_entry("new", key="changed", version=2)]

    @pytest.mark.parametrize("error", [ValueError, _Stop])
    def test_any_exception_takes_back_the_whole_block(self, store: Any, error: type[BaseException]) -> None:
        store.create(an_entry("old"))

        def fail() -> None:
            with store.transaction():
                store.create(an_entry("new", tags=["never seen"], category="never seen"))
                store.update(an_entry("old", key="changed"))
                store.clear()
                raise error

        with pytest.raises(error):
            fail()

        assert store.list_all() == store.query(key="theme") == [an_entry("old")]
        store.create(an_entry("new", tags=["never seen"], category="never seen"))
        assert [entry.id for entry in store.query(tags=["never seen"], category="never seen")] == ["new"]

    def test_an_inner_block_takes_back_its_own_part_only(self, store: Any) -> None:
        def fail() -> None:
            with store.transaction():
                store.create(an_entry("inner", tags=["inner"]))
                with store.transaction():
                    store.create(an_entry("innermost"))
                raise ValueError

        with store.transaction():
            store.create(an_entry("before"))
            with pytest.raises(ValueError):  # noqa: PT011 - our own, just above
                fail()
            store.create(an_entry("after", tags=["inner"]))
            with store.transaction():
                store.create(an_entry("second"))

        assert sorted(entry.id for entry in store.list_all()) == ["after", "before", "second"]

    def test_the_transaction_reads_its_own_changes(self, store: Any) -> None:
        store.create(an_entry("old"))

        with store.transaction():
            store.create(an_entry("new", key="k", tags=["t"]))
            store.delete("old")
            seen = [
                store.read("new"),
                *store.list_all(),
                *store.query(tags=["t"]),
                *store.iterate(MemoryQuery(key="k")),
            ]
            count = store.count(MemoryQuery())

        assert seen == [an_entry("new", key="k", tags=["t"])] * 4
        assert count == 1

    def test_nobody_else_sees_a_transaction_before_its_end(self, store: Any, open_backend: OpenBackend) -> None:
        store.create(an_entry("old"))
        other = open_backend()
        seen: list[list[str]] = []

        def look() -> None:
            seen.append([entry.id for entry in store.list_all()])
            seen.append([entry.id for entry in other.list_all()])

        try:
            with store.transaction():
                store.create(an_entry("new"))
                thread = threading.Thread(target=look)
                thread.start()
                thread.join()
            look()
        finally:
            other.shutdown()

        assert seen == [["old"], ["old"], ["new", "old"], ["new", "old"]]

    def test_transactions_of_threads_follow_each_other(self, store: Any) -> None:
        store.create(an_entry("counter", value={"n": 0}))
        errors: list[BaseException] = []

        def count_up() -> None:
            try:
                for _ in range(10):
                    with store.transaction():
                        entry = store.read("counter")
                        entry.value["n"] += 1
                        store.update(entry)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                errors.append(error)

        threads = [threading.Thread(target=count_up) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert store.read("counter").value == {"n": 80}

    def test_an_error_caught_inside_leaves_the_transaction_usable(self, store: Any) -> None:
        with store.transaction():
            store.create(an_entry("1"))
            with pytest.raises(DuplicateEntryError):
                store.create(an_entry("1", key="second"))
            store.create(an_entry("2"))

        assert sorted(entry.id for entry in store.list_all()) == ["1", "2"]
        assert store.read("1") == an_entry("1")

    def test_shutdown_inside_a_transaction_is_refused(self, store: Any) -> None:
        with store.transaction():
            store.create(an_entry())
            with pytest.raises(TransactionError):
                store.shutdown()

        assert store.list_all() == [an_entry()]

    def test_a_moment_is_the_time_now_or_later_than_every_one_before(self, store: Any) -> None:
        moments = []
        for now in (NOON, NOON, NOON - timedelta(days=1), NOON + timedelta(seconds=1)):
            with store.transaction():
                moments.append(store.moment(now))
        store.shutdown()
        with store.transaction():
            moments.append(store.moment(NOON))

        second, microsecond = timedelta(seconds=1), timedelta(microseconds=1)
        assert [moment - NOON for moment in moments] == [
            timedelta(0),
            microsecond,
            2 * microsecond,
            second,
            second + microsecond,
        ]

    def test_a_moment_is_given_inside_a_transaction_only(self, store: Any) -> None:
        with pytest.raises(TransactionError):
            store.moment(NOON)

    def test_a_timestamp_given_by_a_caller_does_not_move_the_moments(self, store: Any) -> None:
        store.create(an_entry(timestamp=NOON + timedelta(days=36500)))

        later = datetime.now(UTC) + timedelta(days=1)
        with store.transaction():
            moment = store.moment(later)

        assert moment == later


class SharedCommitPromises(Promises):
    """Changes that several threads make at once: each is whole, and no thread gets another's error."""

    @pytest.fixture
    def sharing(self, backend: StorageBackend) -> Any:
        """Return the backend as one that shares commits."""
        self.need(backend, SharesCommits)
        return backend

    def test_what_one_thread_raises_no_other_meets(self, sharing: Any) -> None:
        sharing.create(an_entry("taken"))
        outcomes: dict[str, list[str]] = {}

        def write(thread: int) -> None:
            for turn in range(15):
                name = f"{thread}-{turn}"
                entry = [an_entry(name), an_entry("taken"), an_entry(name, value={"no": object()})][turn % 3]
                try:
                    sharing.change(lambda entry=entry: sharing.create(entry))
                    outcomes.setdefault("made", []).append(name)
                except (DuplicateEntryError, InvalidEntryError) as error:
                    outcomes.setdefault(type(error).__name__, []).append(name)

        _in_threads(12, write)

        assert {kind: len(names) for kind, names in outcomes.items()} == {
            "made": 60,
            "DuplicateEntryError": 60,
            "InvalidEntryError": 60,
        }
        assert {entry.id for entry in sharing.list_all()} == {"taken", *outcomes["made"]}

    def test_a_change_that_fails_half_way_takes_back_its_own_part_only(self, sharing: Any) -> None:
        def write(thread: int) -> None:
            def half(turn: int) -> None:
                sharing.create(an_entry(f"{thread}-{turn}-one"))
                if turn % 2:
                    raise ValueError("half-way")
                sharing.create(an_entry(f"{thread}-{turn}-two"))

            for turn in range(10):
                with contextlib.suppress(ValueError):
                    sharing.change(lambda turn=turn: half(turn))

        _in_threads(8, write)

        wanted = {
            f"{thread}-{turn}-{part}" for thread in range(8) for turn in range(0, 10, 2) for part in ("one", "two")
        }
        assert {entry.id for entry in sharing.list_all()} == wanted

    def test_a_change_returns_what_its_work_returns_in_and_out_of_a_transaction(self, sharing: Any) -> None:
        assert sharing.change(lambda: 7) == 7
        with sharing.transaction():
            assert sharing.change(lambda: sharing.create(an_entry()) or 8) == 8
            assert sharing.read("1") is not None

        assert sharing.list_all() == [an_entry()]

    def test_a_transaction_that_holds_half_a_change_is_not_kept(self, sharing: Any) -> None:
        def half() -> None:
            sharing.create(an_entry("half"))
            raise ValueError("half-way")

        def swallow() -> None:
            with sharing.transaction():
                sharing.create(an_entry("before"))
                with contextlib.suppress(ValueError):
                    sharing.change(half)

        with pytest.raises(TransactionError):
            swallow()

        assert sharing.list_all() == []
        sharing.create(an_entry("after"))
        assert [entry.id for entry in sharing.list_all()] == ["after"]

    def test_an_inner_block_that_holds_half_a_change_takes_back_its_own_part_only(self, sharing: Any) -> None:
        def half() -> None:
            sharing.create(an_entry("half"))
            raise ValueError("half-way")

        with sharing.transaction():
            sharing.create(an_entry("outer"))
            with contextlib.suppress(ValueError), sharing.transaction():
                sharing.change(half)
            sharing.create(an_entry("after"))

        assert {entry.id for entry in sharing.list_all()} == {"outer", "after"}

    def test_moments_of_changes_made_at_once_are_all_different(self, sharing: Any) -> None:
        moments: list[Any] = []

        def tell(_: int) -> None:
            for _ in range(10):
                moments.append(sharing.change(lambda: sharing.moment(NOON)))

        _in_threads(8, tell)

        assert len(set(moments)) == 80


def _in_threads(count: int, work: Callable[[int], object]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
