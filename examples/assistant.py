"""An assistant with a memory: a scripted user talks to it over three sessions, one of which is killed.

python examples/assistant.py             all sessions, then what the memory holds, as charts
python examples/assistant.py STORE       talk to it yourself, in a directory; an empty line ends it

It understands a few forms of sentences and has no model: all it knows is in its memory.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from jarvis.persistent_memory import MemoryEntry, MemoryModule

console = Console(width=110, highlight=False)

FIRST_SESSION = (
    "My name is Ada.",
    "I prefer dark mode in the evening.",
    "Remember that Maria moves to Lisbon in May.",
    "Remember that the spare key is at the neighbour's, number 12.",
    "Remember that Leo cannot eat hazelnuts.",
)
SECOND_SESSION = (
    "Remember that the train to Porto leaves at 9:40.",
    "Remember that the gate code is 4711.",
)
THIRD_SESSION = (
    "What is my name?",
    "Where does Maria move?",
    "When does the train leave?",
    "No, the train to Porto leaves at 10:05.",
    "When does the train leave?",
    "Undo that.",
    "When does the train leave?",
    "What is the gate code?",
    "Forget the gate code.",
    "What is the gate code?",
    "What can Leo not eat?",
    "What do I prefer?",
)
_ENOUGH = 0.35
"""A memory that answers a question less well than this is not told."""


class Assistant:
    """Answers sentences from its memory, and keeps the conversation.

    Args:
        memory: all that it knows.
        session: names the conversation.
    """

    def __init__(self, memory: MemoryModule, session: str) -> None:
        self._memory, self._session = memory, session
        self._last: str | None = None  # the memory that it told or changed last

    def hear(self, sentence: str) -> str:
        """Do what a sentence says; return the answer."""
        answer = self._answer(sentence.strip())
        self._memory.save_conversation_turn(sentence, answer, session_id=self._session)
        return answer

    def _answer(self, sentence: str) -> str:
        for pattern, answer in _FORMS:
            match = re.fullmatch(pattern, sentence, re.IGNORECASE)
            if match is not None:
                return answer(self, *match.groups())
        return "I understand: remember that …, my name is …, I prefer …, no, …, undo that, forget …, and questions."

    def _named(self, name: str) -> str:
        self._last = self._memory.set_user_preference("name", {"text": f"Your name is {name}"})
        return f"Hello {name}."

    def _prefers(self, what: str) -> str:
        self._last = self._memory.set_user_preference("likes", {"text": f"You prefer {what}"})
        return f"Noted: {what}."

    def _remembers(self, fact: str) -> str:
        self._last = self._memory.remember(fact[:1].upper() + fact[1:])
        return "I will remember that."

    def _recalls(self, question: str) -> str:
        entry = self._known(question)
        if entry is None:
            return "I do not know."
        self._last = entry.id
        return f"{entry.value['text']}."

    def _corrects(self, fact: str) -> str:
        entry = self._known(fact)
        if entry is None:
            return self._remembers(fact)
        self._last = entry.id
        self._memory.merge_memory(entry.id, {"text": fact[:1].upper() + fact[1:]}, reason="the user corrected it")
        return f"I corrected that; until now I thought: {entry.value['text']}."

    def _undoes(self) -> str:
        if self._last is None or not self._memory.undo(self._last):
            return "There is nothing to undo."
        entry = self._memory.get_memory(self._last)
        return "Then I never heard it." if entry is None else f"As before: {entry.value['text']}."

    def _forgets(self, fact: str) -> str:
        entry = self._known(fact)
        if entry is None:
            return "I do not know that anyway."
        self._last = entry.id
        self._memory.forget(entry.id, reason="the user asked for it")
        return f"Forgotten: {entry.value['text']}."

    def _known(self, words: str) -> MemoryEntry | None:
        """Return the fact or preference that fits best; what was said is kept, but it is no answer."""
        found = self._memory.recall(words, limit=10, min_score=_ENOUGH)
        return next((each.entry for each in found if each.entry.category in ("facts", "preferences")), None)


_FORMS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"my name is (.+?)\.?", Assistant._named),
    (r"i prefer (.+?)\.?", Assistant._prefers),
    (r"remember that (.+?)\.?", Assistant._remembers),
    (r"no, (.+?)\.?", Assistant._corrects),
    (r"undo that\.?", Assistant._undoes),
    (r"forget (?:that )?(.+?)\.?", Assistant._forgets),
    (r"(.+\?)", Assistant._recalls),
)


def _session(memory: MemoryModule, name: str, sentences: tuple[str, ...]) -> None:
    """Let the user say each sentence."""
    with memory.acting_as(module="assistant", task_id=name):
        assistant = Assistant(memory, name)
        for sentence in sentences:
            console.print(f"[bold]Ada[/bold]        {sentence}")
            console.print(f"[cyan]assistant[/cyan]  {assistant.hear(sentence)}")


def first(store: str) -> None:
    """Hold the first session: the user tells it things."""
    with MemoryModule(storage_dir=store) as memory:
        _session(memory, "first", FIRST_SESSION)


def second(store: str) -> None:
    """Hold the second session, and end as after a fault: nothing is closed."""
    _session(MemoryModule(storage_dir=store), "second", SECOND_SESSION)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def third(store: str) -> None:
    """Hold the third session: it recalls, is corrected, undone, and forgets on request."""
    with MemoryModule(storage_dir=store) as memory:
        _session(memory, "third", THIRD_SESSION)


def show(store: str) -> None:
    """Show what the memory holds with the command line, and write the page of charts."""
    page = str(Path(tempfile.mkdtemp(prefix="jarvis-demo-"), "charts.html"))
    for arguments in (
        ["find", "train", "--category", "facts"],
        ["history", "facts/the train to porto leaves at 9 40"],
        ["stats"],
        ["stats", "--html", page],
    ):
        console.print(f"[bold]$ jarvis-memory {' '.join(arguments)}[/bold]", soft_wrap=True)
        subprocess.run([sys.executable, "-m", "jarvis", *arguments, "--store", store], check=True)


def talk(store: str) -> None:
    """Let a person talk to it."""
    with MemoryModule(storage_dir=store) as memory:
        assistant = Assistant(memory, "talk")
        while sentence := console.input("[bold]you[/bold]        ").strip():
            console.print(f"[cyan]assistant[/cyan]  {assistant.hear(sentence)}")


SESSIONS = {"first": first, "second": second, "third": third, "show": show}


def sessions(store: str) -> None:
    """Hold the three sessions, each in a process of its own, and show what is left."""
    for name in SESSIONS:
        console.print(f"\n[dim]— {name}{'' if name == 'show' else ' session'} —[/dim]")
        ended = subprocess.run([sys.executable, __file__, name, store], check=False).returncode
        if name == "second":
            console.print(f"[dim]the process was killed (exit {ended})[/dim]")
        elif ended:
            sys.exit(ended)


def main() -> None:
    """Hold one session, all of them, or talk."""
    if len(sys.argv) == 3 and sys.argv[1] in SESSIONS:
        SESSIONS[sys.argv[1]](sys.argv[2])
    elif len(sys.argv) == 2:
        talk(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory(prefix="jarvis-assistant-") as store:
            sessions(store)


if __name__ == "__main__":
    main()
