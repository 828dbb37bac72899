"""Where does the time of a create, a preference, a bulk load and a get go: statements, system calls, functions?

python -m benchmarks.profiles [--quick] [--write]
"""

from __future__ import annotations

import cProfile
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from benchmarks import harness
from benchmarks.corpus import record
from benchmarks.systems import open_system
from benchmarks.systems.system import System
from benchmarks.worker import ids_of

ENTRIES = 10_000
CALLS = ("create", "preference", "bulk", "get")
"""*bulk* is one create of a transaction of 1,000, without its share of the commit."""
BULK = 1_000
PREFERENCES = 100
FUNCTIONS = 25
COUNTED = 500

Call = Callable[[], Any]


def calls_of(name: str, system: System, directory: Path) -> Generator[Call, None, None]:
    """Yield calls of one kind without end, each with other arguments; to be closed before the system is."""
    if name == "create":
        for number in count(ENTRIES):
            each = record(number)
            yield lambda each=each: system.create(each)  # type: ignore[misc]  # a lambda's default has no type
    if name == "preference":
        for number in count():
            key, value = record(number % PREFERENCES).key, record(number).value
            yield lambda key=key, value=value: system.set_preference(key, value)  # type: ignore[misc]  # as above
    if name == "bulk":
        for start in count(ENTRIES, BULK):
            with system.memory.transaction():  # type: ignore[attr-defined]  # ours has it
                for number in range(start, start + BULK):
                    each = record(number)
                    yield lambda each=each: system.create(each)  # type: ignore[misc]  # as above
    ids = ids_of(directory)
    for number in count():
        entry_id = ids[number * 7_919 % ENTRIES]
        yield lambda entry_id=entry_id: system.get(entry_id)  # type: ignore[misc]


def _statements(name: str, directory: Path) -> list[str]:
    """Return the SQL statements of a call and how often each runs, told by SQLite itself."""
    ran: Counter[str] = Counter()
    is_on = False

    def listen(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)

    def note(event: dict[str, Any]) -> None:
        if is_on:
            ran[re.sub(r"\s+", " ", event["sql"]).strip()] += 1

    apsw.connection_hooks.append(listen)
    system = open_system("jarvis", directory, durable=True)
    calls = calls_of(name, system, directory)
    next(calls)()
    is_on = True
    for _ in range(COUNTED):
        next(calls)()
    is_on = False
    calls.close()
    system.close()
    apsw.connection_hooks.remove(listen)
    return [f"{number / COUNTED:>9.2f}  {sql:.100}" for sql, number in ran.most_common() if number >= COUNTED / 100]


def _system_calls(name: str, directory: Path) -> list[str]:
    """Return the system calls of a call: the difference of two runs of different lengths under strace."""
    if shutil.which("strace") is None:
        return ["           not counted: strace is not installed"]
    try:
        short, long = (_traced(name, directory, number) for number in (100, 100 + COUNTED))
    except (subprocess.CalledProcessError, OSError):
        return ["           not counted: strace may not be used here"]
    more = {each: (long[each] - short[each]) / COUNTED for each in long}
    return [
        f"{number:>9.2f}  {each}" for each, number in sorted(more.items(), key=lambda item: -item[1]) if number >= 0.01
    ]


def _traced(name: str, directory: Path, number: int) -> Counter[str]:
    with tempfile.NamedTemporaryFile("r") as table:
        traced = [sys.executable, "-m", "benchmarks.profiles", "work", name, str(directory), str(number)]
        subprocess.run(["strace", "-f", "-c", "-o", table.name, *traced], cwd=harness.ROOT, check=True)
        rows = [line.split() for line in table.read().splitlines()]
    return Counter({row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"})


def work(name: str, directory: Path, number: int) -> None:
    """Make so many calls."""
    system = open_system("jarvis", directory, durable=True)
    calls = calls_of(name, system, directory)
    for _ in range(number):
        next(calls)()
    calls.close()
    system.close()


def _functions_entered(calls: Iterator[Call]) -> list[str]:
    """Return how many functions a call enters, in Python and in C."""
    entered: Counter[str] = Counter()

    def note(_: object, event: str, __: object) -> None:
        entered[event] += 1

    for _ in range(COUNTED):
        call = next(calls)
        sys.setprofile(note)
        call()
        sys.setprofile(None)
    ours = entered["call"] / COUNTED
    return [f"{ours:>9.2f}  in Python", f"{entered['c_call'] / COUNTED - 1:>9.2f}  in C"]  # less setprofile's own


def _own_times(calls: Iterator[Call], number: int) -> list[str]:
    """Return the functions with the most time of their own, by cProfile."""
    chosen = [next(calls) for _ in range(number)]
    profile = cProfile.Profile()
    for call in chosen:
        profile.runcall(call)
    found = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # the stubs leave it out
    whole = sum(each[2] for each in found.values())
    rows = sorted(found.items(), key=lambda item: -item[1][2])[:FUNCTIONS]
    return ["   of all  calls a call  own µs a call  function"] + [
        f"{own / whole:>9.1%}  {entered / number:>12.2f}  {own / number * 1e6:>13.2f}  {_named(*where)}"
        for where, (_, entered, own, _, _) in rows
    ]


def _named(file: str, line: int, function: str) -> str:
    """Return where a function stands, without the place of this installation."""
    if file == "~":
        return re.sub(r" at 0x[0-9a-f]+", "", function)
    parts = Path(file).parts
    for root in ("jarvis", "benchmarks", "site-packages"):
        if root in parts:
            start = len(parts) - 1 - parts[::-1].index(root)
            return f"{'/'.join(parts[start + (root == 'site-packages') :])}:{line} {function}"
    return f"{parts[-1]}:{line} {function}"


def _plain_time(calls: Iterator[Call]) -> float:
    taken = []
    for _ in range(COUNTED):
        call = next(calls)
        start = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - start)
    return harness.statistics_of([taken])["median_us"]


def profile(name: str, stores: harness.Stores, number: int) -> str:
    """Return the profile of one kind of call as a text."""
    with stores.own("jarvis", ENTRIES) as directory:
        system_calls = _system_calls(name, directory)
        statements = _statements(name, directory)
        system = open_system("jarvis", directory, durable=True)
        calls = calls_of(name, system, directory)
        median = _plain_time(calls)
        entered = _functions_entered(calls)
        own = _own_times(calls, number)
        calls.close()
        system.close()
    blocks = (
        ("SQL statements", statements),
        ("System calls", system_calls),
        ("Functions entered", entered),
        (f"Own time by function, over {number:,} calls; cProfile makes Python look slower than it is", own),
    )
    head = f"One {name} of a store of {ENTRIES:,} entries, durability full: {median:,.1f} µs without a profiler.\n"
    return head + "".join(f"\n{title}\n" + "".join(f"{line}\n" for line in lines) for title, lines in blocks)


def main() -> None:
    """Profile and check in."""
    chosen = harness.options(__doc__)
    with harness.stores() as stores:
        for name in CALLS:
            text = profile(name, stores, 500 if chosen.quick else 5_000)
            print(text, flush=True)
            if chosen.write:
                harness.RESULTS.mkdir(exist_ok=True)
                (harness.RESULTS / f"profile-{name}.txt").write_text(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
