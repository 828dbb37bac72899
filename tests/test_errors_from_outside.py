"""What goes wrong outside of the library is an error of ours, which names what is in the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from jarvis.errors import (
    InvalidEntryError,
    InvalidSettingError,
    JarvisError,
    KeyFileExistsError,
    StoreAccessError,
    StoreMissingError,
    UnsafeLocationError,
)
from jarvis.keys import KeyFile
from jarvis.persistent_memory import MemoryModule

BACKENDS = ("sqlite", "json")
Opened = Callable[..., MemoryModule]


@pytest.fixture(params=(*BACKENDS, "postgresql"))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Return what makes a memory in a new store."""
    if request.param == "postgresql":
        return partial(MemoryModule, request.getfixturevalue("dsn"))
    return partial(MemoryModule, storage_dir=tmp_path, backend_type=request.param)


def _run(program: str, *arguments: object, check: bool = True) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert ended.returncode == 0 or not check, ended.stderr
    return ended.stdout + ended.stderr


# --- another user's home ---------------------------------------------------------------------------

LOOK = """
import itertools, os, sys
import jarvis.sqlite_backend, jarvis.json_backend, yaml, difflib, apsw.sqlite_extra
from jarvis.config import ConfigLoader
from jarvis.errors import JarvisError
from jarvis.keys import KeyFile
from jarvis.persistent_memory import MemoryModule

other = sys.argv[1]
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
os.environ["HOME"] = other
looks = [
    lambda: ConfigLoader().load(),
    lambda: ConfigLoader(other + "/config.yaml").load(),
    lambda: MemoryModule().bootstrap(),
    lambda: KeyFile.create(other + "/key"),
]
for backend_type, read_only, create, name in itertools.product(
    ("sqlite", "json"), (False, True), (False, True), (".", "store", "new/store")
):
    options = dict(backend_type=backend_type, read_only=read_only, create=create)
    looks.append(lambda name=name, options=options: MemoryModule(storage_dir=f"{other}/{name}", **options).bootstrap())
for look in looks:
    try:
        look()
    except JarvisError as error:
        assert "ermission" in str(error), error
        continue
    raise SystemExit("it could look")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_looking_at_another_users_home_is_an_error_of_ours_that_says_why(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    other = tmp_path / "other"
    (other / "store").mkdir(parents=True)
    for backend_type in BACKENDS:
        memory = MemoryModule(storage_dir=other / "store", backend_type=backend_type)
        memory.set_user_preference("theme", {"mode": "dark"})
        memory.shutdown()
    other.chmod(0)
    try:
        _run(LOOK, other)
    finally:
        other.chmod(0o700)


# --- names that are no UTF-8 -----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_directory_whose_name_is_no_utf_8_is_refused_by_sqlite_and_used_by_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latin = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    latin.mkdir()

    with MemoryModule(storage_dir=latin, backend_type="json") as memory:
        memory.set_user_preference("theme", {"mode": "dark"})
        assert memory.store.back_up(latin / "copy").exists()
    with pytest.raises(InvalidSettingError, match=r"UTF-8.*caf\\udce9"):
        MemoryModule(storage_dir=latin)
    monkeypatch.chdir(latin)
    with pytest.raises(InvalidSettingError, match="UTF-8"):
        MemoryModule(storage_dir="store")
    with MemoryModule(storage_dir=tmp_path / "store") as memory, pytest.raises(InvalidSettingError, match="UTF-8"):
        memory.store.back_up(latin / "copy of sqlite")


def test_a_key_file_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")

    with pytest.raises(KeyFileExistsError, match="there"):
        KeyFile.create(there)
    with pytest.raises(StoreMissingError, match="cannot write the key file"):
        KeyFile.create(tmp_path / "absent" / "key")
    with pytest.raises(StoreAccessError, match="choose a shorter path"):
        KeyFile.create(tmp_path / ("x" * 300))

    assert there.read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
@pytest.mark.parametrize(("limit", "way_out"), [("FSIZE", "free some space"), ("NOFILE", "raise the limit")])
def test_a_key_file_for_which_there_is_no_room_leaves_nothing_behind(tmp_path: Path, limit: str, way_out: str) -> None:
    said = _run(ROOMLESS, tmp_path / "key", limit, way_out)

    assert said == "written\n"


ROOMLESS = """
import os, resource, signal, sys
from jarvis.errors import StoreAccessError, StoreFullError
from jarvis.keys import KeyFile

path, name, way_out = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = getattr(resource, "RLIMIT_" + name)
KeyFile.create(path + " before")
free = os.open(os.devnull, os.O_RDONLY)
os.close(free)
before = resource.getrlimit(limit)
resource.setrlimit(limit, (free if name == "NOFILE" else 0, before[1]))
try:
    KeyFile.create(path)
except (StoreAccessError, StoreFullError) as error:
    assert way_out in str(error), error
else:
    raise SystemExit("there was room")
resource.setrlimit(limit, before)
KeyFile.create(path)
print("written")
"""


# --- no locks, no memory, no library ---------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock there")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
@pytest.mark.parametrize("backend_type", BACKENDS)
def test_a_file_system_without_locks_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend_type: str, code: int
) -> None:
    import fcntl

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    memory = MemoryModule(storage_dir=tmp_path, backend_type=backend_type)
    monkeypatch.setattr(fcntl, "flock", flock)
    expected = StoreAccessError if code == errno.EIO else UnsafeLocationError
    with pytest.raises(expected, match="lock"):
        memory.set_user_preference("theme", {"mode": "dark"})
    monkeypatch.undo()

    memory.set_user_preference("theme", {"mode": "dark"})
    assert memory.get_user_preferences() == {"theme": {"mode": "dark"}}
    memory.shutdown()


COSTLY = """
import resource, sys
from jarvis.errors import KeyUnavailableError
from jarvis.keys import Passphrase
from jarvis.persistent_memory import MemoryModule

def opened():
    return MemoryModule(storage_dir=sys.argv[1], encryption="required", keys=[Passphrase("a long phrase of words")])

opened().bootstrap()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**25
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    opened().bootstrap()
except KeyUnavailableError as error:
    assert "65,536 KiB of memory" in str(error), error
else:
    raise SystemExit("there was enough memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by the program itself")
def test_a_key_that_costs_more_memory_than_there_is_is_an_error_of_ours(tmp_path: Path) -> None:
    _run(COSTLY, tmp_path)


BUNDLED = """
import sys
sys.path.insert(0, sys.argv[1])
import apsw
assert apsw.__file__.startswith(sys.argv[1])
from jarvis.errors import UnsupportedError
from jarvis.persistent_memory import MemoryModule
try:
    MemoryModule(storage_dir=sys.argv[1] + "/store").bootstrap()
except UnsupportedError as error:
    assert "collect-all apsw" in str(error), error
else:
    raise SystemExit("the library was there")
"""


@pytest.mark.parametrize("left_out", ["sqlite_extra_binaries", "sqlite_extra*"])
def test_a_bundle_without_the_drivers_library_is_an_error_of_ours(tmp_path: Path, left_out: str) -> None:
    import apsw

    source = Path(str(apsw.__file__)).parent
    shutil.copytree(source, tmp_path / "apsw", ignore=shutil.ignore_patterns(left_out, "__pycache__"))

    _run(BUNDLED, tmp_path)


LATE_LIBRARY = """
import os, resource, sys
from jarvis.errors import StoreAccessError, UnsupportedError
from jarvis.persistent_memory import MemoryModule

memory = MemoryModule(storage_dir=sys.argv[1], durability="normal")
written = os.path.exists(sys.argv[1] + "/memory.db")
attempt = memory.list_memories if written else lambda: memory.set_user_preference("long", {"text": "x" * 5_000})
memory.bootstrap()
before = resource.getrlimit(resource.RLIMIT_NOFILE)
if sys.argv[2] == "no descriptors":
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        attempt()
    except StoreAccessError as error:
        assert "raise the limit" in str(error), error
    else:
        raise SystemExit("there were descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
else:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    sys.modules[name] = None
    try:
        attempt()
    except UnsupportedError as error:
        assert "collect-all" in str(error), error
    else:
        raise SystemExit("the library was there")
    del sys.modules[name]
attempt()
print(len(memory.list_memories()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("lack", ["no descriptors", "no library"])
def test_a_library_that_cannot_be_loaded_when_it_is_needed_is_an_error_of_ours(tmp_path: Path, lack: str) -> None:
    assert _run(LATE_LIBRARY, tmp_path, lack) == "1\n"  # where it is needed to write
    assert _run(LATE_LIBRARY, tmp_path, lack) == "1\n"  # and to read


# --- the ends of time ------------------------------------------------------------------------------


def test_a_clock_at_the_end_of_the_calendar_is_refused_and_leaves_no_trace(opened: Opened) -> None:
    times = [datetime.max.replace(tzinfo=UTC)]
    memory = opened(clock=lambda: times[-1])

    for _ in range(2):
        with pytest.raises(InvalidSettingError, match="clock"):
            memory.set_user_preference("theme", {"mode": "dark"})
    times.append(datetime(2026, 3, 1, tzinfo=UTC))
    memory.set_user_preference("theme", {"mode": "light"})

    (entry,) = memory.list_memories()
    assert entry.timestamp == times[-1]
    memory.shutdown()


def test_a_store_that_was_written_at_the_end_of_the_calendar_is_still_written_to(opened: Opened) -> None:
    memory = opened()
    backend = memory.backend
    with backend.transaction():  # type: ignore[attr-defined]  # both have it
        backend.moment(datetime.max.replace(tzinfo=UTC))  # type: ignore[attr-defined]  # both have it

    for number in range(3):
        memory.set_user_preference("theme", {"n": number})
        memory.record_task(str(number), {})
    memory.shutdown()

    assert memory.get_user_preferences() == {"theme": {"n": 2}}
    assert [entry.entity_id for entry in memory.get_task_history()] == ["2", "1", "0"]
    memory.shutdown()


def test_an_expiry_at_the_end_of_the_calendar_is_kept_or_refused(opened: Opened) -> None:
    memory = opened()
    last = datetime.max.replace(tzinfo=UTC)
    memory_id = memory.create_memory("c", "k", {}, "t", expires_at=last)

    entry = memory.get_memory(memory_id)
    assert entry is not None
    assert entry.expires_at == last
    for moment in (datetime.min, datetime.min + timedelta(hours=1), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(InvalidEntryError, match="expires_at"):
            memory.touch_memory(memory_id, expires_at=moment)
    memory.shutdown()


# --- the interpreter's exit ------------------------------------------------------------------------

LATE = """
import asyncio, atexit, sys
from jarvis.async_memory import AsyncMemoryModule

memory = AsyncMemoryModule(storage_dir=sys.argv[1], backend_type=sys.argv[2])

async def late():
    await memory.set_user_preference("late", {})
    async with memory.transaction():
        await memory.record_task("1", {})
        async with memory.transaction():
            await memory.record_task("2", {})
    try:
        async with memory.transaction():
            await memory.record_task("3", {})
            raise LookupError
    except LookupError:
        pass
    await asyncio.gather(*(memory.record_task(str(number), {}) for number in range(4, 8)))
    await memory.store.back_up(sys.argv[1] + "/copy")
    print(len([entry async for entry in memory.iter_memories()]), await memory.count_memories())
    await memory.shutdown()

if sys.argv[3] == "used before":
    asyncio.run(memory.bootstrap())
atexit.register(lambda: asyncio.run(late()))
"""


@pytest.mark.parametrize("when", ["used before", "never used"])
@pytest.mark.parametrize("backend_type", BACKENDS)
def test_the_async_module_works_at_the_interpreters_exit(tmp_path: Path, backend_type: str, when: str) -> None:
    assert _run(LATE, tmp_path, backend_type, when) == "7 7\n"


def test_every_error_of_ours_is_one_of_the_tree() -> None:
    assert issubclass(KeyFileExistsError, JarvisError)
    assert issubclass(KeyFileExistsError, FileExistsError)
