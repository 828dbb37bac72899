"""An encrypted store tells a thief nothing, opens with its key alone, and its keys are changed without a loss."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jarvis._sqlite import cipher, engine
from jarvis.encryption import key_file
from jarvis.encryption.envelope import Opener
from jarvis.errors import (
    InvalidSettingError,
    JarvisError,
    KeyUnavailableError,
    NotEncryptedError,
    StoreError,
    WrongKeyError,
)
from jarvis.keys import EnvironmentKey, KeyFunction, new_key
from jarvis.model.options import Compression
from jarvis.model.rewriting import RewriteProgress
from jarvis.persistent_memory import MemoryModule

from . import kill_points, model, processes
from .canaries import Canaries, Canary
from .conftest import Figures
from .faults import FailAt, KillAt, installed
from .model import State
from .test_damage import DAMAGES, build, examine

VARIABLE = "JARVIS_SAFETY_KEY"
VERBS: dict[str, Callable[[MemoryModule], object]] = {
    "encrypt": lambda memory: memory.store.encrypt([EnvironmentKey(VARIABLE)]),
    "rotate": lambda memory: memory.store.rotate_key(),
    "decrypt": lambda memory: memory.store.decrypt(),
}


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, new_key())


def empty(directory: Path) -> Path:
    """Make an encrypted store; who opens it there finds its key in the environment."""
    with MemoryModule(storage_dir=directory, encryption="required", keys=[EnvironmentKey(VARIABLE)]) as memory:
        memory.bootstrap()
    return directory


def is_plain(directory: Path) -> bool:
    return (directory / "memory.db").read_bytes()[:16] == cipher.PLAIN


def opens(directory: Path, **options: Any) -> bool:
    """Tell whether the store opens; what does not open is an error of its key, and not an empty answer."""
    memory = MemoryModule(storage_dir=directory, **options)
    try:
        memory.count_memories()
    except (WrongKeyError, KeyUnavailableError):
        return False
    finally:
        memory.shutdown()
    return True


# --- nothing to be read --------------------------------------------------------------------------


def forms(canary: Canary) -> list[bytes]:
    """Return what a canary may look like in a file, besides what `Canaries.found` looks for."""
    texts = [canary.text, canary.token, canary.memory_id]
    return [b64encode(text.encode()[shift:])[4:-4] for text in texts for shift in range(3)]


class Story:
    """A store whose life is full of canaries, and the search of its files for them at any time."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory, self._chance = directory, chance
        self._canaries: list[Canary] = []

    def live(self, memory: MemoryModule, steps: int) -> None:
        """Hide, change, undo, delete and erase some, in single calls and in transactions."""
        for _ in range(steps):
            luck = self._chance.random()
            if luck < 0.5 or not self._canaries:
                self._hide(memory)
                continue
            canary = self._chance.choice(self._canaries)
            if luck < 0.75:
                memory.update_memory(canary.memory_id, {"text": canary.text, "more": canary.token * 150})
            elif luck < 0.85:
                memory.delete_memory(canary.memory_id, reason=canary.token)
            elif luck < 0.9:
                memory.search_memories(where={"text": canary.text})
            elif luck < 0.95:
                with memory.transaction():
                    for _ in range(5):
                        self._hide(memory)
            else:
                memory.erase_memory(canary.memory_id)

    def _hide(self, memory: MemoryModule) -> None:
        token = "".join(self._chance.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=20))
        text = "".join(self._chance.choices("абвгдежзийклмнопрст", k=16))
        value = {"text": text, "json": json.dumps(text), token: [token] * self._chance.choice((1, 3, 90))}
        made = memory.create_memory(
            f"category-{token}", token, value, token, token, [token, text], module=token, task_id=token, reason=text
        )
        self._canaries.append(Canary(token, text, made))

    def found(self, directory: Path | None = None) -> list[str]:
        """Return where something of a canary stands in the files of the store, or of another directory."""
        where = directory or self.directory
        found = Canaries(self._canaries).found(where)
        held = b"".join(path.read_bytes() for path in sorted(where.iterdir()) if not path.name.endswith("-shm"))
        return found + [f"{form!r} in base64" for each in self._canaries for form in forms(each) if form in held]

    @property
    def count(self) -> int:
        return len(self._canaries)


def test_the_search_finds_what_a_plain_store_holds(tmp_path: Path, chance: random.Random) -> None:
    story = Story(tmp_path / "store", chance)
    with MemoryModule(storage_dir=story.directory) as memory:
        story.live(memory, 30)
    assert len(story.found()) > story.count


def test_no_file_of_an_encrypted_store_ever_holds_a_canary(
    tmp_path: Path, chance: random.Random, soak: bool, figures: Figures
) -> None:
    for number in range(100 if soak else 4):
        story = Story(empty(tmp_path / str(number)), chance)
        compression: Compression = "off" if number % 2 else "auto"
        memory = MemoryModule(storage_dir=story.directory, compression=compression)
        for _ in range(4):
            story.live(memory, 15)
            assert story.found(_snapshot(story.directory, tmp_path / "open")) == []
        memory.store.back_up(tmp_path / "backup")
        assert story.found(tmp_path / "backup") == []
        shutil.rmtree(tmp_path / "backup")
        with installed(FailAt(chance.randrange(1, 40), errno.ENOSPC, lasting=True)):
            full = MemoryModule(storage_dir=story.directory, compression=compression)
            try:
                story.live(full, 20)
                full.store.rotate_key()
            except JarvisError:
                pass
            assert story.found(_snapshot(story.directory, tmp_path / "full")) == []
        full.shutdown()
        memory.store.rotate_key(progress=functools.partial(_look_at, story, tmp_path / "rotating"))
        memory.shutdown()
        assert story.found() == []
        _die_while_living(story)
        assert story.found() == []
        figures.add("sqlite", stories=1, canaries=story.count)
        shutil.rmtree(story.directory)


def _snapshot(directory: Path, target: Path) -> Path:
    """Copy the files of a store that is open, by another process: closing one here would end SQLite's locks."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-R", str(directory), str(target)], check=True)
    return target


def _look_at(story: Story, target: Path, _: RewriteProgress) -> None:
    assert story.found(_snapshot(story.directory, target)) == []


def _die_while_living(story: Story) -> None:
    child = os.fork()
    if not child:
        try:
            memory = MemoryModule(storage_dir=story.directory)
            story.live(memory, 10)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


# --- nothing to be changed -----------------------------------------------------------------------


def transplant(source: bytes) -> Callable[[random.Random, bytearray], None]:
    """Return the damage that puts a page of another file in the place of the page with its number."""

    def damage(chance: random.Random, data: bytearray) -> None:
        pages = min(len(data), len(source)) // cipher.PAGE_BYTES
        start = chance.randrange(1, pages) * cipher.PAGE_BYTES
        data[start : start + cipher.PAGE_BYTES] = source[start : start + cipher.PAGE_BYTES]

    return damage


def test_what_is_changed_in_the_file_is_refused(
    tmp_path: Path, chance: random.Random, soak: bool, figures: Figures
) -> None:
    expected = build(empty(tmp_path / "template"), "sqlite", 60)
    build(empty(tmp_path / "other"), "sqlite", 60)
    whole = (tmp_path / "template" / "memory.db").read_bytes()
    damages = [*DAMAGES, *[transplant((tmp_path / "other" / "memory.db").read_bytes())] * 3]
    verdicts = {"refused": 0, "exact": 0}
    for number in range(1_000 if soak else 45):
        directory = tmp_path / str(number)
        shutil.copytree(tmp_path / "template", directory)
        data = bytearray(whole)
        damages[number % len(damages)](chance, data)
        if data == whole:
            continue
        (directory / "memory.db").write_bytes(data)
        verdict = examine(directory, "sqlite", expected, "memory.db", read_only=number % 5 == 4)
        allowed = ["refused"] if data[: len(whole)] != whole else ["refused", "exact"]  # a tail is of no store
        assert verdict in allowed, f"{number}: {verdict}"
        verdicts[verdict] += 1
        shutil.rmtree(directory)
    figures.add("sqlite", **verdicts)


def test_a_changed_file_of_keys_opens_nothing_else(
    tmp_path: Path, chance: random.Random, soak: bool, figures: Figures
) -> None:
    expected = build(empty(tmp_path / "store"), "sqlite", 20)
    path = tmp_path / "store" / "memory.keys"
    whole = path.read_bytes()
    refused = exact = 0
    for _ in range(1_000 if soak else 100):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        memory = MemoryModule(storage_dir=tmp_path / "store", read_only=True)
        try:
            exact += model.contents(memory) == expected
        except StoreError as error:
            refused += "memory.keys" in str(error)
        finally:
            memory.shutdown()
    path.write_bytes(whole)
    figures.add("sqlite", refused=refused, exact=exact)
    assert refused + exact == (1_000 if soak else 100)
    assert exact < refused, "only words about the file may be others"


# --- keys are changed ----------------------------------------------------------------------------


def test_four_processes_write_while_keys_are_changed(tmp_path: Path, soak: bool, figures: Figures) -> None:
    store = tmp_path / "store"
    with MemoryModule(storage_dir=store) as memory, memory.transaction():
        for number in range(20_000 if soak else 3_000):
            memory.create_memory("filling", f"f{number}", {"n": number, "text": "z" * (number * 31 % 400)}, "thing")
    memory = MemoryModule(storage_dir=store)
    memory.count_memories()
    longest = 0.0
    calls = 0
    for name, verb in VERBS.items():
        writers = [processes.start("moving_children", "write", store, f"{name}{n}", 1) for n in range(4)]
        for writer in writers:
            processes.read_line(writer)
        time.sleep(0.2)
        assert verb(memory)
        time.sleep(0.2)
        (tmp_path / "stop").touch()
        said = [json.loads(processes.end(writer).splitlines()[-1]) for writer in writers]
        (tmp_path / "stop").unlink()
        found = {entry.key: entry.value["n"] for entry in memory.get_memories_by_category("things")}
        for each in said:
            for key, (_, number, _) in each["there"].items():
                assert found[key] == number
            longest = max(longest, *each["longest"].values())
            calls += each["calls"]
        assert is_plain(store) is (name == "decrypt")
    memory.shutdown()
    figures.add("sqlite", calls=calls, lost=0, longest_wait_ms=int(longest * 1000))
    assert longest < (0.5 if soak else 60)  # what a busy machine adds is not ours


@pytest.mark.parametrize("verb", VERBS)
def test_a_change_of_keys_that_is_killed_loses_nothing(tmp_path: Path, verb: str, soak: bool, figures: Figures) -> None:
    template = tmp_path / "template"
    if verb != "encrypt":
        empty(template)
    expected = build(template, "sqlite", 60)
    operations = _count(template, tmp_path / "counted", verb)
    kills = 0
    step = max(operations // 100, 1) if soak else max(operations // 6, 1)
    for number in range(1, operations + 1, step):
        directory = tmp_path / str(number)
        shutil.copytree(template, directory)
        if not _dies(directory, verb, number, torn=number % 2 == 0):
            break
        kills += 1
        _look_at_what_is_left(directory, verb, template, expected)
        shutil.rmtree(directory)
    figures.add("sqlite", **{f"{verb} kills": kills})
    assert kills >= 5


def _count(template: Path, directory: Path, verb: str) -> int:
    from .faults import CHANGING, Recorder

    shutil.copytree(template, directory)
    recorder = Recorder()
    before = engine.SETTINGS
    kill_points.small_log()  # as in the children, but not for the tests behind this one
    try:
        with installed(recorder), MemoryModule(storage_dir=directory) as memory:
            VERBS[verb](memory)
    finally:
        engine.SETTINGS = before
    return sum(operation.verb in CHANGING for operation in recorder.operations)


def _dies(directory: Path, verb: str, number: int, *, torn: bool) -> bool:
    """Change the keys in a child that is killed at its file operation `number`; return whether it came to that."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.close(reading)
            kill_points.small_log()
            with installed(KillAt(number, writing, torn=torn)), MemoryModule(storage_dir=directory) as memory:
                VERBS[verb](memory)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, f"the change failed with {status} at operation {number}"
    return False


def _look_at_what_is_left(directory: Path, verb: str, template: Path, expected: State) -> None:
    """Open what is left with the key that should open it, and no other; go on where it was broken off."""
    if (directory / "memory.db").exists() and not is_plain(directory):
        assert not opens(directory, keys=[KeyFunction(lambda: b"w" * 32)])
        assert not opens(directory, keys=[EnvironmentKey("NONE")])
    with MemoryModule(storage_dir=directory) as memory:
        assert model.contents(memory) == expected
        was_plain = is_plain(directory)
        assert was_plain or len(_numbers(directory)) in (1, 2)
        if verb == "rotate" and 1 not in _numbers(directory):
            _old_keys_open_nothing(directory, template)
        memory.create_memory("afterwards", "afterwards", {"n": 1}, "thing")
        with contextlib.suppress(InvalidSettingError, NotEncryptedError):  # it was over
            VERBS[verb](memory)
        assert memory.count_memories() == len(expected) + 1
    assert is_plain(directory) is (verb == "decrypt")
    # The lock of who moved it is empty, and is there if it was killed right before its end.
    left = {path.name for path in directory.iterdir()} - {"memory.db", "memory.db.lock", ".memory.db.moving.lock"}
    assert left == (set() if verb == "decrypt" else {"memory.keys"})
    if verb == "rotate":
        _old_keys_open_nothing(directory, template)
    with MemoryModule(storage_dir=directory) as memory:
        assert memory.count_memories() == len(expected) + 1


def _numbers(directory: Path) -> set[int]:
    found = key_file.read(str(directory / "memory.keys"))
    assert found is not None
    return set(found.keys)


def _old_keys_open_nothing(directory: Path, template: Path) -> None:
    now = (directory / "memory.keys").read_bytes()
    shutil.copy(template / "memory.keys", directory / "memory.keys")
    try:
        assert not opens(directory)
    finally:
        (directory / "memory.keys").write_bytes(now)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("lasting", [True, False])
def test_a_full_disk_in_a_change_of_keys_loses_nothing(
    tmp_path: Path, verb: str, lasting: bool, soak: bool, figures: Figures
) -> None:
    template = tmp_path / "template"
    if verb != "encrypt":
        empty(template)
    expected = build(template, "sqlite", 60)
    number, failures = 1, 0
    while True:
        directory = tmp_path / str(number)
        shutil.copytree(template, directory)
        hook = FailAt(number, errno.ENOSPC, verbs=frozenset(("write", "sync")), lasting=lasting)
        failed = ""
        with installed(hook):
            memory = MemoryModule(storage_dir=directory)
            try:
                VERBS[verb](memory)
            except StoreError as error:
                failed = str(error)
            memory.shutdown()
        if hook.failed is None:
            break
        failures += 1
        name = Path(
            hook.failed.path
        ).name  # behind the change the index of words is made: the next search does it again
        assert failed or not lasting or "lock" in name or name in ("memory.db", "memory.db-wal"), hook.failed
        _look_at_what_is_left(directory, verb, template, expected)
        shutil.rmtree(directory)
        number += 1 if soak else max(number // 2, 1)
    figures.add("sqlite", failures=failures)
    assert failures > 3


def test_a_foreign_process_with_the_wrong_key_never_hinders_the_others(tmp_path: Path) -> None:
    store = empty(tmp_path / "store")
    program = textwrap.dedent(
        f"""
        import os, sys
        from jarvis.errors import WrongKeyError
        from jarvis.keys import EnvironmentKey, new_key
        from jarvis.persistent_memory import MemoryModule
        os.environ["WRONG"] = new_key()
        for _ in range(50):
            try:
                MemoryModule(storage_dir={str(store)!r}, keys=[EnvironmentKey("WRONG")]).set_user_preference("a", {{}})
                sys.exit("it opened")
            except WrongKeyError:
                pass
        """
    )
    intruder = subprocess.Popen([sys.executable, "-c", program])
    with MemoryModule(storage_dir=store) as memory:
        number = 0
        while intruder.poll() is None:
            memory.set_user_preference("n", {"n": (number := number + 1)})
        assert memory.get_user_preferences() == {"n": {"n": number}}
    assert intruder.returncode == 0


def test_the_page_key_is_not_the_key_of_anything_else(tmp_path: Path) -> None:
    store = empty(tmp_path / "store")
    found = key_file.read(str(store / "memory.keys"))
    assert found is not None
    key = Opener("", []).open(found, 1)
    assert len({key.pages, key.check, key.wrapped_content}) == 3
